//! The tables, and how counters and park reasons are written in them.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use symphony_core::board::{Counters, ParkReason};
use symphony_core::ids::IssueId;

use super::{JournalError, Memory};

/// The newest format this program writes.
const FORMAT: i64 = 1;

const TABLES: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (run INTEGER PRIMARY KEY, issue TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT, end TEXT) STRICT;
CREATE TABLE counters (issue TEXT PRIMARY KEY, sessions INTEGER NOT NULL, granted INTEGER NOT NULL,
    failures_in_a_row INTEGER NOT NULL, last_end TEXT) STRICT;
CREATE TABLE parked (issue TEXT PRIMARY KEY, kind TEXT NOT NULL, count INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE TABLE questions (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, issue TEXT NOT NULL, question TEXT NOT NULL,
    context TEXT, asked_at TEXT NOT NULL, answer TEXT, answered_at TEXT) STRICT;
";

/// Makes the tables in a new file, refuses a newer one, changes nothing in a known one.
pub(super) fn prepare(db: &mut Connection, path: &Path) -> Result<(), JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::Unusable { path: path.to_owned(), message: e.to_string() };
    // FULL: an accepted answer or a taken run number survives a power cut.
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;")
        .map_err(wrap)?;
    let found: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(wrap)?;
    if found > FORMAT {
        return Err(JournalError::Newer { path: path.to_owned(), found, known: FORMAT });
    }
    if found == 0 {
        let instance =
            crate::random::token(16).map_err(|message| JournalError::Unusable { path: path.to_owned(), message })?;
        let tx = db.transaction().map_err(wrap)?;
        tx.execute_batch(TABLES).map_err(wrap)?;
        tx.execute("INSERT INTO about VALUES ('instance', ?1)", [instance]).map_err(wrap)?;
        tx.pragma_update(None, "user_version", FORMAT).map_err(wrap)?;
        tx.commit().map_err(wrap)?;
    }
    Ok(())
}

/// Reads everything a new process needs.
pub(super) fn remember(db: &Connection) -> rusqlite::Result<Memory> {
    let instance = db.query_row("SELECT value FROM about WHERE key = 'instance'", [], |r| r.get(0)).optional()?;
    let next_run: i64 = db.query_row("SELECT coalesce(max(run), 0) + 1 FROM runs", [], |r| r.get(0))?;
    let counters = rows(db, "SELECT issue, sessions, granted, failures_in_a_row, last_end FROM counters", |r| {
        let counters =
            Counters { sessions: r.get(1)?, granted: r.get(2)?, failures_in_a_row: r.get(3)?, last_end: r.get(4)? };
        Ok((IssueId(r.get(0)?), counters))
    })?;
    let parked = rows(db, "SELECT issue, kind, count, detail FROM parked", |r| {
        let (kind, count, detail): (String, u32, String) = (r.get(1)?, r.get(2)?, r.get(3)?);
        Ok((IssueId(r.get(0)?), reason(&kind, count, detail)))
    })?;
    Ok(Memory { instance: instance.unwrap_or_default(), next_run: next_run.unsigned_abs(), counters, parked })
}

fn rows<T>(
    db: &Connection,
    query: &str,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<(IssueId, T)>,
) -> rusqlite::Result<BTreeMap<IssueId, T>> {
    db.prepare(query)?.query_map([], |r| read(r))?.collect()
}

/// Writes the counters of one issue.
pub(super) fn put_counters(tx: &Transaction<'_>, issue: &IssueId, counters: &Counters) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT OR REPLACE INTO counters VALUES (?1, ?2, ?3, ?4, ?5)",
        params![issue.0, counters.sessions, counters.granted, counters.failures_in_a_row, counters.last_end],
    )?;
    Ok(())
}

/// Writes why one issue was put aside.
pub(super) fn put_parked(tx: &Transaction<'_>, issue: &IssueId, reason: &ParkReason) -> rusqlite::Result<()> {
    let (kind, count, detail) = match reason {
        ParkReason::FailuresInARow { count, last } => ("failures_in_a_row", *count, last.as_str()),
        ParkReason::SessionsUsed { count } => ("sessions_used", *count, ""),
        ParkReason::Diverged { detail } => ("diverged", 0, detail.as_str()),
        ParkReason::HandoffFailed { detail } => ("handoff_failed", 0, detail.as_str()),
    };
    tx.execute("INSERT OR REPLACE INTO parked VALUES (?1, ?2, ?3, ?4)", params![issue.0, kind, count, detail])?;
    Ok(())
}

fn reason(kind: &str, count: u32, detail: String) -> ParkReason {
    match kind {
        "failures_in_a_row" => ParkReason::FailuresInARow { count, last: detail },
        "sessions_used" => ParkReason::SessionsUsed { count },
        "diverged" => ParkReason::Diverged { detail },
        _ => ParkReason::HandoffFailed { detail },
    }
}
