//! Errors that a provider sends within an answer that began well.

use std::sync::Arc;
use std::time::Duration;

use symphony_core::board::StopCause;
use symphony_core::broker::{Metered, Provider, Usage};
use symphony_core::spend::{Rules, Sums};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::{Broker, Door};
use super::door::{ask, connect, models, provider, purse, until};
use crate::metering::Metering;
use crate::run::line::Report;
use crate::workflow_file::Environment;

const BEGUN: &str = r#"{"type":"message_start","message":{"model":"b","usage":{"input_tokens":7,"output_tokens":1}}}"#;
const WROTE: &str = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#;

fn stream(headers: &str, events: &[&str]) -> Vec<u8> {
    let events: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n";
    format!("{head}{headers}\r\n{:x}\r\n{events}\r\n0\r\n\r\n", events.len()).into_bytes()
}

fn error(kind: &str) -> String {
    format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"too much of it"}}}}"#)
}

/// A door whose runs hold requests for so long.
fn opened(url: &str, hold_ms: u64) -> (Door, mpsc::Receiver<Report>, Metering) {
    let broker = Broker::new(Environment { home: None, variable: Arc::new(|_| None) });
    let mut models = models(url, &format!("}}, openai: {{base_url: '{url}'"));
    models.hold_ms = hold_ms;
    let purse = purse(&Rules::default());
    let (metering, (to, reports)) = (purse.metering.clone(), mpsc::channel(8));
    (broker.open(models, purse, to).expect("randomness"), reports, metering)
}

async fn metered(reports: &mut mpsc::Receiver<Report>) -> Metered {
    loop {
        if let Report::Metered(metered, _) = reports.recv().await.expect("told") {
            return metered;
        }
    }
}

/// Regression: it was a cut answer: charged all that was set aside, a failure, and asked again at once.
#[tokio::test]
async fn an_error_within_a_stream_that_asks_to_wait_pauses_its_provider_and_costs_what_was_told() {
    for kind in ["overloaded_error", "rate_limit_error"] {
        let url = provider(stream("retry-after: 600\r\n", &[BEGUN, WROTE, WROTE, &error(kind)])).await;
        let (door, mut reports, metering) = opened(&url, 1000);
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        until(&mut agent, "too much of it").await;
        let seen = door.seen().borrow().clone();
        assert_eq!((seen.failing(), seen.waits_for()), (None, Some(Provider::Anthropic)), "the error passed later");
        assert_eq!(*door.over().borrow(), Some(StopCause::ProviderPaused(Provider::Anthropic)));
        let told = metered(&mut reports).await;
        assert_eq!((told.whole, told.usage), (true, Some(Usage { input: 7, output: 2, ..Usage::default() })));
        assert_eq!((metering.view().ever.used.input, metering.view().ever.assumed), (7, 0));
        // Whatever its agent does now, nothing is asked.
        let mut again = connect(&door);
        ask(&mut again, door.token()).await;
        let said = until(&mut again, "asks to wait").await;
        assert!(said.starts_with("HTTP/1.1 429 "), "{said}");
    }
}

/// Regression: Codex asked fifteen times, and each was charged all that was set aside for it.
#[tokio::test]
async fn a_stream_that_failed_before_anything_was_written_costs_nothing() {
    let failed = r#"{"error":{"code":"rate_limit_exceeded","message":"Please try again in 1h0m0s."}}"#;
    let (door, mut reports, metering) = opened(&provider(stream("", &[failed])).await, 1000);
    let mut agent = connect(&door);
    let body = r#"{"model":"m","messages":[],"stream":true}"#;
    let head = format!(
        "POST /openai/v1/chat/completions HTTP/1.1\r\nHost: x\r\nauthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        door.token(),
        body.len()
    );
    tokio::io::AsyncWriteExt::write_all(&mut agent, head.as_bytes()).await.expect("taken");
    until(&mut agent, "0\r\n\r\n").await;
    assert_eq!(*door.over().borrow(), Some(StopCause::ProviderPaused(Provider::OpenAi)));
    assert_eq!(metering.view().ever, Sums::default());
    door.close();
    drop((agent, door));
    while let Some(report) = reports.recv().await {
        assert!(!matches!(report, Report::Metered(..)), "{report:?}");
    }
}

/// A shorter wait is sat out, as one that is told as a status is.
#[tokio::test]
async fn the_next_request_after_such_an_error_is_held_while_the_wait_lasts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (door, _reports, _) = opened(&url, 90_000);
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    let (mut provider, _) = listener.accept().await.expect("the broker");
    until(&mut provider, "\r\n\r\n{").await;
    let broken = stream("retry-after: 2\r\n", &[&error("overloaded_error")]);
    tokio::io::AsyncWriteExt::write_all(&mut provider, &broken).await.expect("taken");
    until(&mut agent, "0\r\n\r\n").await;
    let began = std::time::Instant::now();
    ask(&mut agent, door.token()).await;
    let mut held = door.held();
    held.wait_for(|held| *held == 1).await.expect("it is held");
    assert_eq!(*door.over().borrow(), None);
    until(&mut provider, "\r\n\r\n{").await;
    assert!(began.elapsed() > Duration::from_millis(1500), "it was asked before its time");
    let good = stream("", &[BEGUN, r#"{"type":"message_stop"}"#]);
    tokio::io::AsyncWriteExt::write_all(&mut provider, &good).await.expect("taken");
    until(&mut agent, "0\r\n\r\n").await;
    assert_eq!(door.turn_over(), None, "it was answered");
}

/// An agent that gives up at the error, instead of asking again.
#[tokio::test]
async fn a_turn_that_ends_over_such_an_error_ends_its_run_without_a_failure() {
    let (door, _reports, _) =
        opened(&provider(stream("retry-after: 2\r\n", &[&error("overloaded_error")])).await, 90_000);
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    until(&mut agent, "0\r\n\r\n").await;
    assert_eq!(*door.over().borrow(), None, "it may ask again");
    assert_eq!(door.turn_over(), Some(StopCause::ProviderPaused(Provider::Anthropic)));
}

/// Regression: the provider's words were lost, and all that was set aside was charged.
#[tokio::test]
async fn any_other_error_within_a_stream_is_a_failure_in_the_provider_s_words() {
    let (door, mut reports, _) = opened(&provider(stream("", &[BEGUN, &error("api_error")])).await, 1000);
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    until(&mut agent, "0\r\n\r\n").await;
    let seen = door.seen().borrow().clone();
    let (_, words) = seen.failing().expect("a failure");
    assert_eq!(words, "anthropic broke off its answer to m with api_error: too much of it");
    assert_eq!((door.turn_over(), seen.waits_for()), (None, None));
    assert_eq!(metered(&mut reports).await.usage, Some(Usage { input: 7, output: 1, ..Usage::default() }));
}

/// Regression: what a model writes must not shut its provider for all runs.
#[tokio::test]
async fn such_an_error_in_what_a_model_writes_is_its_text() {
    let inside = error("overloaded_error");
    let text = serde_json::json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": inside}});
    let tool = format!(r#"{{"type":"content_block_start","content_block":{{"type":"tool_use","input":{inside}}}}}"#);
    let events = [BEGUN, &text.to_string(), &tool, r#"{"type":"message_stop"}"#];
    let (door, _reports, _) = opened(&provider(stream("", &events)).await, 1000);
    for _ in 0..2 {
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        until(&mut agent, "0\r\n\r\n").await;
    }
    assert_eq!((door.turn_over(), door.seen().borrow().failing()), (None, None));
}

/// Regression: a gateway that lost an answer on which the model had worked made it free.
#[tokio::test]
async fn an_answer_that_a_gateway_lost_is_charged_like_a_cut_one() {
    for (status, words, charged) in [
        ("502 Bad Gateway", "<html>", true),
        ("524 A Timeout Occurred", "", true),
        ("502 Bad Gateway", "{\"error\":{}}", false),
        ("503 Service Unavailable", "<html>", false),
        ("522 Connection Timed Out", "<html>", false),
    ] {
        let answer = super::door::refusal(status, "", words);
        let (door, _reports, metering) = opened(&provider(answer.into_bytes()).await, 1000);
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        until(&mut agent, "\r\n\r\n").await;
        assert_eq!(metering.view().ever.requests == 1, charged, "{status} {words}");
    }
}
