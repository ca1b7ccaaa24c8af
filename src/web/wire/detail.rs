//! One issue on the wire: what is known of a running or waiting one. Pure.

use serde::Serialize;
use symphony_core::ids::Identifier;
use symphony_core::snapshot::{EventRow, RetryRow, RunningRow, Snapshot};

use super::{Instant, Running};

/// `GET /api/v1/issues/<identifier>`
#[derive(Serialize)]
pub(in crate::web) struct Detail<'a> {
    issue_identifier: &'a str,
    issue_id: &'a str,
    issue_url: Option<&'a str>,
    title: &'a str,
    status: &'static str,
    workspace: Option<WorkspacePath<'a>>,
    attempts: Attempts,
    running: Option<Running<'a>>,
    retry: Option<Retry<'a>>,
    recent_events: Vec<Event<'a>>,
    last_error: Option<&'a str>,
    tracked: Tracked,
}

#[derive(Serialize)]
struct WorkspacePath<'a> {
    path: &'a str,
}

#[derive(Serialize)]
struct Attempts {
    current_retry_attempt: Option<u32>,
}

#[derive(Serialize)]
struct Retry<'a> {
    attempt: u32,
    due_at: Instant,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Event<'a> {
    at: Instant,
    event: &'a str,
    message: &'a str,
}

/// Always `{}`, as in 0.1.0.
#[derive(Serialize)]
struct Tracked {}

impl<'a> Detail<'a> {
    /// What is known of a running or retrying issue; `None` for every other (0.1.0: `issue_not_found`).
    pub(in crate::web) fn of(snapshot: &'a Snapshot, identifier: &Identifier) -> Option<Self> {
        let running = snapshot.running.iter().find(|row| row.identifier == *identifier);
        let retry = snapshot.retrying.iter().find(|row| row.identifier == *identifier);
        match (running, retry) {
            (Some(row), _) => Some(Self::running(row)),
            (None, Some(row)) => Some(Self::retrying(row)),
            (None, None) => None,
        }
    }

    fn running(row: &'a RunningRow) -> Self {
        Self {
            issue_identifier: &row.identifier.0,
            issue_id: &row.id.0,
            issue_url: row.url.as_deref(),
            title: &row.title,
            status: "running",
            workspace: row.workspace.as_deref().map(|path| WorkspacePath { path }),
            attempts: Attempts { current_retry_attempt: row.attempt },
            running: Some(Running::of(row)),
            retry: None,
            recent_events: row.recent_events.iter().map(Event::of).collect(),
            last_error: None,
            tracked: Tracked {},
        }
    }

    fn retrying(row: &'a RetryRow) -> Self {
        Self {
            issue_identifier: &row.identifier.0,
            issue_id: &row.id.0,
            issue_url: row.url.as_deref(),
            title: &row.title,
            status: "retrying",
            workspace: None,
            attempts: Attempts { current_retry_attempt: Some(row.attempt) },
            running: None,
            retry: Some(Retry { attempt: row.attempt, due_at: Instant(row.due_at), error: row.error.as_deref() }),
            recent_events: vec![],
            last_error: row.error.as_deref(),
            tracked: Tracked {},
        }
    }
}

impl<'a> Event<'a> {
    fn of(row: &'a EventRow) -> Self {
        Self { at: Instant(row.at), event: &row.event, message: &row.message }
    }
}
