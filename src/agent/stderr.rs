//! The agent's standard error: shown and recorded, never protocol, never a sign of life (M13, C167).

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

use super::event::Events;
use super::redact::Lines;
use super::transcript::{Direction, Transcript};

/// Longest piece of a line that is kept, in bytes.
const LINE: usize = 4096;

/// Forwards `reader` line by line until it ends; very long lines come in pieces. `last` holds the newest line, as it may be
/// shown.
pub async fn forward(
    reader: impl AsyncRead + Unpin,
    events: Events,
    transcript: Option<Transcript>,
    last: watch::Sender<String>,
) {
    let mut reader = BufReader::with_capacity(LINE, reader);
    let (mut line, mut lines) = (Vec::new(), Lines::default());
    let show = |said: Option<String>| {
        let Some(text) = said else { return };
        if let Some(transcript) = &transcript {
            transcript.record(Direction::Err, &text);
        }
        last.send_replace(events.presentable(&text));
        events.send("agent_stderr", &text, false);
    };
    loop {
        let chunk = match reader.fill_buf().await {
            Ok(chunk) if !chunk.is_empty() => chunk,
            // A broken pipe is the end of it, too.
            _ => break,
        };
        let end = chunk.iter().position(|b| *b == b'\n');
        let take = end.unwrap_or(chunk.len()).min(LINE - line.len());
        line.extend_from_slice(&chunk[..take]);
        let whole = end == Some(take);
        reader.consume(take + usize::from(whole));
        if whole || line.len() == LINE {
            show(lines.line(events.secrets(), &String::from_utf8_lossy(&line), whole));
            line.clear();
        }
    }
    show(lines.line(events.secrets(), &String::from_utf8_lossy(&line), false));
    show(lines.end(events.secrets()));
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::agent::Secrets;

    #[tokio::test]
    async fn lines_become_events_and_a_line_without_end_is_bounded() {
        let (to, mut from) = mpsc::channel(64);
        let mut bytes = b"one\n\n  two \n".to_vec();
        bytes.extend(vec![b'x'; 3 * LINE]);
        let (last, words) = watch::channel(String::new());
        forward(&bytes[..], Events::new(to, Secrets::default()), None, last).await;
        assert!(words.borrow().starts_with("xxx"), "the newest line");
        let mut messages = Vec::new();
        while let Some(event) = from.recv().await {
            assert_eq!(event.kind, "agent_stderr");
            messages.push(event.message);
        }
        assert_eq!(&messages[..2], ["one", "two"]);
        assert_eq!(messages.len(), 5, "three pieces");
    }
}
