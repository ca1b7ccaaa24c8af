//! The tables, and how counters and park reasons are written in them.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use symphony_core::board::{EndReason, LastRun, ParkReason, Parked};
use symphony_core::budget::{Bound, Counters, Used};
use symphony_core::ids::{Identifier, IssueId, StateName};

use super::{JournalError, Memory};

/// The newest format: this program writes it.
const FORMAT: i64 = 2;

pub(super) const TABLES: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (run INTEGER PRIMARY KEY, issue TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT, end TEXT) STRICT;
CREATE TABLE counters (issue TEXT PRIMARY KEY, sessions INTEGER NOT NULL, granted INTEGER NOT NULL,
    failures_in_a_row INTEGER NOT NULL, last_end TEXT) STRICT;
CREATE TABLE parked (issue TEXT PRIMARY KEY, kind TEXT NOT NULL, count INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE TABLE questions (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, issue TEXT NOT NULL, question TEXT NOT NULL,
    context TEXT, asked_at TEXT NOT NULL, answer TEXT, answered_at TEXT) STRICT;
";

/// From format 1 to 2: what bounds an issue, why its last run ended, where a parked issue came from.
const TO_2: &str = "
ALTER TABLE runs ADD COLUMN reason TEXT;
ALTER TABLE counters RENAME COLUMN last_end TO last_words;
ALTER TABLE counters ADD COLUMN turns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN bounces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN granted_turns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN granted_wall_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN granted_bounces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN unchanged_in_a_row INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN visited TEXT NOT NULL DEFAULT '';
ALTER TABLE counters ADD COLUMN last_reason TEXT;
ALTER TABLE counters ADD COLUMN last_left TEXT;
ALTER TABLE parked ADD COLUMN came_from TEXT NOT NULL DEFAULT 'Todo';
";

/// Makes the tables in a new file, refuses a newer one, brings an older one up to date.
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
        tx.pragma_update(None, "user_version", 1).map_err(wrap)?;
        tx.commit().map_err(wrap)?;
    }
    if found < 2 {
        let tx = db.transaction().map_err(wrap)?;
        tx.execute_batch(TO_2).map_err(wrap)?;
        tx.pragma_update(None, "user_version", FORMAT).map_err(wrap)?;
        tx.commit().map_err(wrap)?;
    }
    Ok(())
}

/// Reads everything a new process needs.
pub(super) fn remember(db: &Connection) -> rusqlite::Result<Memory> {
    let instance = db.query_row("SELECT value FROM about WHERE key = 'instance'", [], |r| r.get(0)).optional()?;
    let next_run: i64 = db.query_row("SELECT coalesce(max(run), 0) + 1 FROM runs", [], |r| r.get(0))?;
    let counters = rows(db, COUNTERS, |r| Ok((IssueId(r.get(0)?), counters(r)?)))?;
    let parked = rows(db, "SELECT issue, kind, count, detail, came_from FROM parked", |r| {
        let (kind, count, detail): (String, i64, String) = (r.get(1)?, r.get(2)?, r.get(3)?);
        let parked = Parked { reason: reason(&kind, count.unsigned_abs(), detail), from: StateName(r.get(4)?) };
        Ok((IssueId(r.get(0)?), parked))
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

/// In the order of [`counters`] and [`put_counters`].
const COUNTERS: &str = "SELECT issue, sessions, turns, wall_ms, bounces, granted, granted_turns, granted_wall_ms,
    granted_bounces, failures_in_a_row, unchanged_in_a_row, visited, last_reason, last_words, last_left FROM counters";

fn counters(r: &Row<'_>) -> rusqlite::Result<Counters> {
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

/// SQLite's integers are signed; no count of ours comes near the sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
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
        ParkReason::NoProgress { sessions } => (u64::from(*sessions), String::new()),
        ParkReason::Template { detail, prompt } => (0, format!("{prompt} {detail}")),
        ParkReason::BlockerCancelled { blocker, state } => (0, format!("{blocker}\n{state}")),
        ParkReason::Diverged { detail } | ParkReason::HandoffFailed { detail } => (0, detail.clone()),
    };
    tx.execute(
        "INSERT OR REPLACE INTO parked (issue, kind, count, detail, came_from) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![issue.0, parked.reason.code(), signed(count), detail, parked.from.as_str()],
    )?;
    Ok(())
}

/// Format 1 wrote the same kinds with underscores.
fn reason(kind: &str, count: u64, detail: String) -> ParkReason {
    let few = u32::try_from(count).unwrap_or(u32::MAX);
    let halves = |by: char| {
        let (a, b) = detail.split_once(by).unwrap_or(("", &detail));
        (a.to_owned(), b.to_owned())
    };
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
        _ => ParkReason::HandoffFailed { detail },
    }
}
