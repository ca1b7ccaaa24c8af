//! Rows of the present state: counters, park reasons, due retries. Each is written in the transaction of the
//! event that changed it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Row, Transaction, params};
use serde_json::{Value, json};
use symphony_core::board::{Due, EndReason, LastRun, ParkReason, Parked, RetryKind};
use symphony_core::budget::{Bound, Counters, Used};
use symphony_core::ids::{Identifier, IssueId, StateName};
use symphony_core::spend::Met;

use super::chain::signed;

pub(super) fn rows<T>(
    db: &Connection,
    query: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<(IssueId, T)>,
) -> rusqlite::Result<BTreeMap<IssueId, T>> {
    db.prepare(query)?.query_map([], |r| read(r))?.collect()
}

/// A column that holds an instant.
pub(super) fn instant(r: &Row<'_>, at: usize) -> rusqlite::Result<Timestamp> {
    let text: String = r.get(at)?;
    text.parse().map_err(|error: jiff::Error| rusqlite::Error::FromSqlConversionFailure(at, Type::Text, error.into()))
}

/// In the order of [`counters`] and [`put_counters`].
pub(super) const COUNTERS: &str =
    "SELECT issue, sessions, turns, wall_ms, bounces, granted, granted_turns, granted_wall_ms,
    granted_bounces, failures_in_a_row, unchanged_in_a_row, visited, last_reason, last_words, last_left FROM counters";

pub(super) fn counters(r: &Row<'_>) -> rusqlite::Result<Counters> {
    let used = |at: usize| -> rusqlite::Result<Used> {
        let wall_ms: i64 = r.get(at + 2)?;
        Ok(Used {
            sessions: r.get(at)?,
            turns: r.get(at + 1)?,
            wall_ms: wall_ms.unsigned_abs(),
            bounces: r.get(at + 3)?,
        })
    };
    let (visited, reason, words): (String, Option<String>, Option<String>) = (r.get(11)?, r.get(12)?, r.get(13)?);
    // Format 1 kept the words alone; a reason of a newer symphony is none of ours.
    let last = words.map(|end| {
        let reason = reason.as_deref().and_then(EndReason::parse).unwrap_or(EndReason::Internal);
        Ok::<_, rusqlite::Error>(LastRun { reason, end, left: r.get(14)? })
    });
    Ok(Counters {
        used: used(1)?,
        granted: used(5)?,
        failures_in_a_row: r.get(9)?,
        unchanged_in_a_row: r.get(10)?,
        visited: visited.lines().map(StateName::new).collect(),
        last: last.transpose()?,
    })
}

/// Writes the counters of one issue.
pub(super) fn put_counters(tx: &Transaction<'_>, issue: &IssueId, counters: &Counters) -> rusqlite::Result<()> {
    let Counters { used, granted, failures_in_a_row, unchanged_in_a_row, visited, last } = counters;
    let visited: Vec<&str> = visited.iter().map(StateName::as_str).collect();
    tx.execute(
        "INSERT OR REPLACE INTO counters (issue, sessions, turns, wall_ms, bounces, granted, granted_turns,
            granted_wall_ms, granted_bounces, failures_in_a_row, unchanged_in_a_row, visited, last_reason, last_words,
            last_left) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            issue.0,
            used.sessions,
            used.turns,
            signed(used.wall_ms),
            used.bounces,
            granted.sessions,
            granted.turns,
            signed(granted.wall_ms),
            granted.bounces,
            failures_in_a_row,
            unchanged_in_a_row,
            // A state is a directory name; none that we act on holds a line break.
            visited.join("\n"),
            last.as_ref().map(|last| last.reason.as_str()),
            last.as_ref().map(|last| &last.end),
            last.as_ref().and_then(|last| last.left.as_ref()),
        ],
    )?;
    Ok(())
}

/// Writes why one issue was put aside.
pub(super) fn put_parked(tx: &Transaction<'_>, issue: &IssueId, parked: &Parked) -> rusqlite::Result<()> {
    let (count, detail) = match &parked.reason {
        ParkReason::FailuresInARow { count, last } => (u64::from(*count), last.clone()),
        ParkReason::Budget { used, .. } => (*used, String::new()),
        ParkReason::Spend(met) => (met.used, met.kept()),
        ParkReason::NoProgress { sessions } => (u64::from(*sessions), String::new()),
        ParkReason::Template { detail, prompt } => (0, format!("{prompt} {detail}")),
        ParkReason::BlockerCancelled { blocker, state } => (0, format!("{blocker}\n{state}")),
        ParkReason::Diverged { detail } | ParkReason::AgentStart { detail } | ParkReason::HandoffFailed { detail } => {
            (0, detail.clone())
        }
    };
    tx.execute(
        "INSERT OR REPLACE INTO parked (issue, kind, count, detail, came_from) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![issue.0, parked.reason.code(), signed(count), detail, parked.from.as_str()],
    )?;
    Ok(())
}

/// Format 1 wrote the same kinds with underscores.
pub(super) fn reason(kind: &str, count: u64, detail: String) -> ParkReason {
    let few = u32::try_from(count).unwrap_or(u32::MAX);
    let halves = |by: char| {
        let (a, b) = detail.split_once(by).unwrap_or(("", &detail));
        (a.to_owned(), b.to_owned())
    };
    if let Some(met) = Met::parse(kind, count, &detail) {
        return ParkReason::Spend(met);
    }
    match kind.replace('_', "-").as_str() {
        "failures-in-a-row" => ParkReason::FailuresInARow { count: few, last: detail },
        "sessions-used" | "budget-sessions" => ParkReason::Budget { bound: Bound::Sessions, used: count },
        "budget-turns" => ParkReason::Budget { bound: Bound::Turns, used: count },
        "budget-wall" => ParkReason::Budget { bound: Bound::WallTime, used: count },
        "budget-bounces" => ParkReason::Budget { bound: Bound::Bounces, used: count },
        "no-progress" => ParkReason::NoProgress { sessions: few },
        "template-error" => {
            let (prompt, detail) = halves(' ');
            ParkReason::Template { detail, prompt }
        }
        "blocker-cancelled" => {
            let (blocker, state) = halves('\n');
            ParkReason::BlockerCancelled { blocker: Identifier(blocker), state: StateName(state) }
        }
        "diverged" => ParkReason::Diverged { detail },
        "agent-start" => ParkReason::AgentStart { detail },
        _ => ParkReason::HandoffFailed { detail },
    }
}

/// Counters as an event tells them.
pub(super) fn told(counters: &Counters) -> Value {
    let used = |used: &Used| json!([used.sessions, used.turns, used.wall_ms, used.bounces]);
    json!({
        "used": used(&counters.used),
        "granted": used(&counters.granted),
        "failures_in_a_row": counters.failures_in_a_row,
        "unchanged_in_a_row": counters.unchanged_in_a_row,
    })
}

/// Writes when an issue is tried again, or that it is not.
pub(super) fn put_due(tx: &Transaction<'_>, issue: &IssueId, due: Option<&Due<Timestamp>>) -> rusqlite::Result<()> {
    match due {
        None => tx.execute("DELETE FROM waiting WHERE issue = ?1", [&issue.0]),
        Some(Due { until, kind, error }) => tx.execute(
            "INSERT OR REPLACE INTO waiting (issue, until, kind, error) VALUES (?1, ?2, ?3, ?4)",
            params![issue.0, until.to_string(), kind.as_str(), error],
        ),
    }?;
    Ok(())
}

/// Reads what [`put_due`] wrote, from the second column on.
pub(super) fn due(r: &Row<'_>) -> rusqlite::Result<Due<Timestamp>> {
    let kind: String = r.get(2)?;
    Ok(Due { until: instant(r, 1)?, kind: RetryKind::parse(&kind).unwrap_or(RetryKind::Failure), error: r.get(3)? })
}
