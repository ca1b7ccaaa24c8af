//! A guest at its tools' door: with the right token and any body, and with any bytes at all.

use std::time::Duration;

use symphony_core::ids::Identifier;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::mcp::{Bearer, Endpoint};
use crate::agent::tools::{ToolCall, ToolRequest};
use crate::log::harmless;

/// A request and its answer are over long before.
const HANG: Duration = Duration::from_secs(3600);
/// An answer of ours is short: it repeats little of what was asked.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A tool call's body, correctly sent.
pub(crate) async fn body(bytes: &[u8]) {
    let said = converse(|path, token| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:7000\r\nAccept: application/json, text/event-stream\r\n\
             Content-Type: application/json\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        [head.as_bytes(), bytes].concat()
    });
    let said = said.await;
    assert!(said.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&said));
    assert!(!said.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&said));
}

/// Any bytes; the token is nowhere among them, so no tool is called.
pub(crate) async fn raw(bytes: &[u8]) {
    converse(|_, _| bytes.to_vec()).await;
}

async fn converse(request: impl FnOnce(&str, &str) -> Vec<u8>) -> Vec<u8> {
    let bearer = Bearer::random().expect("randomness");
    let token = bearer.reveal().to_owned();
    let (to, mut calls) = mpsc::channel::<ToolCall>(8);
    let endpoint = Endpoint::new(&Identifier("A-1".into()), bearer, to);
    endpoint.take_calls();
    let request = request("/api/v1/issues/A-1/mcp", &token);
    let knows = request.windows(token.len()).any(|part| part == token.as_bytes());
    let run = tokio::spawn(async move {
        while let Some(call) = calls.recv().await {
            assert!(knows, "a call without the token");
            fair(&call.request);
            let _ = call.reply.send(Ok("taken".into()));
        }
    });
    let (mut guest, host) = tokio::io::duplex(1 << 16);
    let said = async {
        guest.write_all(&request).await?;
        let mut said = vec![];
        // Closed by us only when it has answered, or waits for more than was sent.
        let mut buffer = [0; 4096];
        while let Ok(Ok(n @ 1..)) = tokio::time::timeout(Duration::from_millis(10), guest.read(&mut buffer)).await {
            said.extend_from_slice(&buffer[..n]);
        }
        drop(guest);
        Ok::<_, std::io::Error>(said)
    };
    let both = async { tokio::join!(endpoint.serve(host), said) };
    let (_, said) = tokio::time::timeout(HANG, both).await.expect("a guest that is gone is let go");
    drop(endpoint);
    run.await.expect("every call was fair");
    let said = said.unwrap_or_default();
    assert!(said.len() <= LONGEST_ANSWER && !said.windows(token.len()).any(|part| part == token.as_bytes()));
    said
}

/// What the run may rely on.
fn fair(request: &ToolRequest) {
    let line = |text: &str| !text.trim().is_empty() && !text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    match request {
        ToolRequest::MarkDone { title, summary } => assert!(line(title) && !summary.trim().is_empty()),
        ToolRequest::AskHuman { question, context } => {
            assert!(!question.trim().is_empty() && context.as_ref().is_none_or(|text| !text.trim().is_empty()));
        }
        ToolRequest::Transition { notes, .. } => assert!(notes.as_ref().is_none_or(|notes| notes.len() <= 16 * 1024)),
        ToolRequest::Propose(proposal) => {
            assert!(line(&proposal.title) && harmless(&proposal.title) == proposal.title);
            assert!(proposal.labels.len() <= 20 && proposal.labels.iter().all(|label| line(label)));
            assert!(proposal.description.as_ref().is_none_or(|text| !text.contains('\0')));
        }
    }
}
