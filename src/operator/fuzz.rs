//! A line of a stranger at the operator's socket.

use std::sync::Arc;

use serde_json::Value;
use symphony_core::ids::{Identifier, IssueId, StateName};
use symphony_core::snapshot::{IdleRow, Snapshot, Spent};
use symphony_core::workflow::Role;
use tokio::sync::{mpsc, watch};

use super::serve::respond;
use super::wire;
use crate::conductor::handle::Handle;

/// Answered in one line of JSON, or refused in words with a hint.
pub(crate) fn line(bytes: &[u8]) {
    let idle = vec![waiting()];
    let (_snapshots, readers) = watch::channel(Arc::new(Snapshot { idle, ..Snapshot::empty() }));
    // Nobody takes words: what is well said is refused because the program goes down.
    let (requests, mailbox) = mpsc::channel(1);
    drop(mailbox);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let answer = runtime.block_on(respond(bytes, &Handle::new(readers, requests)));
    let written = wire::line(&answer);
    let text = written.strip_suffix(b"\n").expect("a line");
    assert!(!text.contains(&b'\n') && written.len() < 32 * 1024, "{} bytes", written.len());
    let value: Value = serde_json::from_slice(text).expect("JSON");
    match answer {
        Ok(_) => assert_eq!(value["v"], wire::VERSION),
        Err(_) => {
            let error = &value["error"];
            let said = |key: &str| error[key].as_str().is_some_and(|text| !text.trim().is_empty());
            assert!(said("code") && said("message") && said("hint"), "{value}");
        }
    }
}

fn waiting() -> IdleRow {
    IdleRow {
        id: IssueId("a-1".into()),
        identifier: Identifier("A-1".into()),
        title: "A title".into(),
        state: StateName::new("Todo"),
        role: Role::Active,
        why: None,
        last: None,
        spent: Spent::default(),
        proposed_by: None,
        proposal: None,
        labels: vec![],
    }
}
