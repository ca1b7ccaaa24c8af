//! What a new process learns of the ones before it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use serde_json::json;
use symphony_core::board::{Due, EndReason, LastRun, Parked};
use symphony_core::budget::Counters;
use symphony_core::egress::Kept as KeptEgress;
use symphony_core::ids::{IssueId, RunId, StateName};
use symphony_core::session::Kept;
use symphony_core::steering::{Letter, OpenQuestion};

use super::chain::{self, Entry, signed};
use super::{egress, letters, schema, sessions, spend, standings, state};

/// How a run ended that its process did not outlive.
const CUT_OFF: &str = "symphony ended without a word while this run was under way; what was exported is kept";

/// What a journal that has to be made anew cannot know by itself.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Marks what this installation made.
    pub instance: String,
    /// Run numbers up to this one are taken.
    pub last_run: u64,
}

/// What an earlier process left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Marks what this installation made, so that nothing else is ever removed.
    pub instance: String,
    /// The next run's number.
    pub next_run: u64,
    /// Counters of every issue that ever ran.
    pub counters: BTreeMap<IssueId, Counters>,
    /// Why issues were put aside.
    pub parked: BTreeMap<IssueId, Parked>,
    /// When issues are tried again.
    pub waiting: BTreeMap<IssueId, Due<Timestamp>>,
    /// Questions without an answer.
    pub questions: BTreeMap<IssueId, OpenQuestion>,
    /// Letters that no turn has taken, oldest first.
    pub letters: BTreeMap<IssueId, Vec<Letter>>,
    /// The newest session of each issue's agent, if it may be continued.
    pub sessions: BTreeMap<IssueId, Kept>,
    /// Hosts that wait for a decision, and what was decided.
    pub egress: KeptEgress,
    /// What was used of models, and what people allowed.
    pub spend: symphony_core::spend::Past,
    /// What providers said of credentials, and how often they answered no request of an issue.
    pub told: standings::Told,
}

/// Ends the runs that are said to be under way, and charges what their requests could still use: their process is gone,
/// for we hold the lock.
pub(super) fn end_what_was_cut_off(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    spend::charge_what_was_cut_off(tx)?;
    let cut_off: Vec<(i64, String)> = tx
        .prepare("SELECT run, issue FROM runs WHERE ended_at IS NULL ORDER BY run")?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (run, issue) in cut_off {
        let (run, issue) = (RunId(run.unsigned_abs()), IssueId(issue));
        let reason = EndReason::CutOff;
        tx.execute(
            "UPDATE runs SET ended_at = ?2, end = ?3, reason = ?4 WHERE run = ?1",
            params![signed(run.0), Timestamp::now().to_string(), CUT_OFF, reason.as_str()],
        )?;
        letters::settle(tx, run, &issue, false)?;
        // What a newer run of the issue left stands: the end of this one was lost, not the run itself.
        let newest: i64 = tx.query_row("SELECT max(run) FROM runs WHERE issue = ?1", [&issue.0], |r| r.get(0))?;
        if newest == signed(run.0) {
            say_cut_off(tx, &issue)?;
        }
        let body = json!({"reason": reason.as_str(), "spent": spend::told(tx, &issue)?});
        chain::append(tx, &Entry { kind: "run_cut_off", run: Some(run), issue: Some(&issue), body })?;
    }
    Ok(())
}

/// How the issue's last run ended.
fn say_cut_off(tx: &Transaction<'_>, issue: &IssueId) -> rusqlite::Result<()> {
    let mut counters = state::rows(tx, state::COUNTERS, |r| Ok((IssueId(r.get(0)?), state::counters(r)?)))?
        .remove(issue)
        .unwrap_or_default();
    counters.last = Some(LastRun { reason: EndReason::CutOff, end: CUT_OFF.to_owned(), left: None });
    state::put_counters(tx, issue, &counters)
}

/// Reads everything a new process needs.
pub(super) fn read(db: &Connection, origin: Origin) -> rusqlite::Result<Memory> {
    let next_run: i64 = db.query_row("SELECT coalesce(max(run), 0) + 1 FROM runs", [], |r| r.get(0))?;
    Ok(Memory {
        instance: schema::instance(db)?.unwrap_or(origin.instance),
        next_run: next_run.unsigned_abs().max(origin.last_run.saturating_add(1)),
        counters: state::rows(db, state::COUNTERS, |r| Ok((IssueId(r.get(0)?), state::counters(r)?)))?,
        parked: state::rows(db, "SELECT issue, kind, count, detail, came_from FROM parked", |r| {
            let (kind, count, detail): (String, i64, String) = (r.get(1)?, r.get(2)?, r.get(3)?);
            let reason = state::reason(&kind, count.unsigned_abs(), detail);
            Ok((IssueId(r.get(0)?), Parked { reason, from: StateName(r.get(4)?) }))
        })?,
        waiting: state::rows(db, "SELECT issue, until, kind, error FROM waiting", |r| {
            Ok((IssueId(r.get(0)?), state::due(r)?))
        })?,
        questions: letters::open(db)?,
        letters: letters::pending(db)?,
        sessions: sessions::all(db)?,
        egress: egress::kept(db)?,
        spend: spend::all(db)?,
        told: standings::all(db)?,
    })
}
