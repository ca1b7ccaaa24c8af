//! One issue on the wire: what is known of a running or waiting one, and why any other is where it is. Pure.

use serde::Serialize;
use symphony_core::explain::Explained;
use symphony_core::snapshot::{EventRow, RetryRow, RunningRow, Snapshot};

use super::{Instant, Running};
use crate::operator::Explanation;

/// `GET /api/v1/issues/<identifier>`
#[derive(Serialize)]
pub(in crate::web) struct Detail<'a> {
    issue_identifier: &'a str,
    /// `null` for a file or a name that is no issue.
    issue_id: Option<&'a str>,
    issue_url: Option<&'a str>,
    title: Option<&'a str>,
    status: &'static str,
    workspace: Option<WorkspacePath<'a>>,
    attempts: Attempts,
    running: Option<Running<'a>>,
    retry: Option<Retry<'a>>,
    recent_events: Vec<Event<'a>>,
    last_error: Option<&'a str>,
    tracked: Tracked,
    explanation: Explanation,
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
    /// What is known of one. Which runs or waits for its next run is said in the fields of 0.1.0.
    pub(in crate::web) fn of(snapshot: &'a Snapshot, one: &'a Explained) -> Self {
        let is_it = |id| one.id.as_ref() == Some(id);
        let running = snapshot.running.iter().find(|row| is_it(&row.id));
        let retry = snapshot.retrying.iter().find(|row| is_it(&row.id));
        let plain = Self::plain(snapshot, one);
        match (running, retry) {
            (Some(row), _) => Self::running(row, plain),
            (None, Some(row)) => Self::retrying(row, plain),
            (None, None) => plain,
        }
    }

    /// Whether 0.1.0 knows of it: it is running or waits for its next run.
    pub(in crate::web) fn is_claimed(&self) -> bool {
        self.running.is_some() || self.retry.is_some()
    }

    fn plain(snapshot: &Snapshot, one: &'a Explained) -> Self {
        Self {
            issue_identifier: &one.name,
            issue_id: one.id.as_ref().map(|id| id.0.as_str()),
            issue_url: None,
            title: one.title.as_deref(),
            status: one.status.as_str(),
            workspace: None,
            attempts: Attempts { current_retry_attempt: None },
            running: None,
            retry: None,
            recent_events: vec![],
            last_error: None,
            tracked: Tracked {},
            explanation: Explanation::of(snapshot, one),
        }
    }

    fn running(row: &'a RunningRow, plain: Self) -> Self {
        Self {
            issue_url: row.url.as_deref(),
            status: "running",
            workspace: row.workspace.as_deref().map(|path| WorkspacePath { path }),
            attempts: Attempts { current_retry_attempt: row.attempt },
            running: Some(Running::of(row)),
            recent_events: row.recent_events.iter().map(Event::of).collect(),
            ..plain
        }
    }

    fn retrying(row: &'a RetryRow, plain: Self) -> Self {
        Self {
            issue_url: row.url.as_deref(),
            status: "retrying",
            attempts: Attempts { current_retry_attempt: Some(row.attempt) },
            retry: Some(Retry { attempt: row.attempt, due_at: Instant(row.due_at), error: row.error.as_deref() }),
            last_error: row.error.as_deref(),
            ..plain
        }
    }
}

impl<'a> Event<'a> {
    fn of(row: &'a EventRow) -> Self {
        Self { at: Instant(row.at), event: &row.event, message: &row.message }
    }
}
