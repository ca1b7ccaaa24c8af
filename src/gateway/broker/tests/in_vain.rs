//! Issues that are sent away again and again: an outage, or a request of their own that is never answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use symphony_core::ids::{IssueId, RunId};
use symphony_core::spend::Rules;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::{Broker, Door, Purse};
use super::door::{ask, connect, models, purse, refusal, until};
use crate::run::models::Payer;
use crate::workflow_file::Environment;

/// Refuses every second request of a connection's own number when `answers_others`, else all of them.
async fn provider(answers_others: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let asked = Arc::new(AtomicU32::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                while stream.read(&mut [0; 64 * 1024]).await.is_ok_and(|read| read > 0) {
                    let is_first = asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
                    let answer = match answers_others && is_first {
                        true => refusal("200 OK", "", "{}"),
                        false => refusal("429 Too Many Requests", "retry-after: 1\r\n", "{}"),
                    };
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

/// Twelve runs of an issue, each with a credential that nobody has used yet, so that none has to wait; no wait is sat out.
/// Before each, another issue asks with the same credential if there are `others`. Says of each whether it was sent away
/// without a failure.
async fn twelve_runs(others: bool) -> Vec<bool> {
    let url = provider(others).await;
    let keys = Arc::new(AtomicU32::new(0));
    let counted = keys.clone();
    let key = move |_: &str| Some(format!("planted-key-{}", counted.load(Ordering::Relaxed)));
    let broker = Broker::new(Environment { home: None, variable: Arc::new(key) });
    let mut models = models(&url, "");
    models.hold_ms = 0;
    let open = |issue: &str| -> (Door, mpsc::Receiver<_>) {
        let (to, reports) = mpsc::channel(8);
        let payer = Payer { run: RunId(1), issue: IssueId(issue.into()) };
        let purse = Purse { payer, ..purse(&Rules::default()) };
        (broker.open(models.clone(), purse, to).expect("randomness"), reports)
    };
    let mut ends = vec![];
    for _ in 0..12 {
        keys.fetch_add(1, Ordering::Relaxed);
        if others {
            let (door, _reports) = open("B");
            let mut agent = connect(&door);
            ask(&mut agent, door.token()).await;
            assert!(until(&mut agent, "{}").await.starts_with("HTTP/1.1 200 "));
        }
        let (door, _reports) = open("A");
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        let said = until(&mut agent, "asks to wait").await;
        let over = *door.over().borrow();
        assert_eq!(over.is_some(), said.starts_with("HTTP/1.1 429 "), "{said}");
        assert!(over.is_some() || said.starts_with("HTTP/1.1 400 "), "{said}");
        if over.is_none() {
            // Regression: the next request of the same run paused it all the same, and nothing had failed.
            ask(&mut agent, door.token()).await;
            let again = until(&mut agent, "asks to wait").await;
            assert!(again.starts_with("HTTP/1.1 400 ") && door.over().borrow().is_none(), "{again}");
        }
        ends.push(over.is_some());
    }
    ends
}

/// Regression: an issue whose own requests were always refused began again for ever.
#[tokio::test]
async fn an_issue_that_is_sent_away_again_and_again_while_others_are_answered_fails_in_the_end() {
    assert_eq!(twelve_runs(true).await, [[true; 10].as_slice(), &[false; 2]].concat());
}

/// Regression: a long outage of a provider was counted against the issues that waited for its end.
#[tokio::test]
async fn an_issue_that_is_sent_away_while_nobody_is_answered_never_fails_over_it() {
    assert_eq!(twelve_runs(false).await, [true; 12]);
}
