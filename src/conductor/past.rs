//! What the journal remembers, as the board has to know it.

use jiff::Timestamp;
use symphony_core::board::{Due, Past};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::steering::{Default as InTime, OpenQuestion};
use symphony_core::time::Tick;

use super::letters::until;
use crate::journal::Memory;

/// What the board has to know of earlier processes. A clock that was set back makes nobody wait longer than the cap.
pub(super) fn past(memory: &Memory, max_backoff_ms: u64, now: Timestamp) -> Past {
    let waits = |(id, due): (&IssueId, &Due<Timestamp>)| {
        let wait = until(due.until, now).min(max_backoff_ms).max(1);
        (id.clone(), Due { until: Tick(wait), kind: due.kind, error: due.error.clone() })
    };
    let asks = |(id, question): (&IssueId, &OpenQuestion)| {
        // Nor does it make a default wait longer than when it was asked.
        let within = |default: &InTime| until(default.at, now).min(until(default.at, question.asked_at)).max(1);
        let default_at = question.default.as_ref().map(|default| Tick(within(default)));
        (id.clone(), default_at)
    };
    Past {
        next_run: RunId(memory.next_run),
        counters: memory.counters.clone(),
        parked: memory.parked.clone(),
        waiting: memory.waiting.iter().map(waits).collect(),
        asked: memory.questions.iter().map(asks).collect(),
    }
}
