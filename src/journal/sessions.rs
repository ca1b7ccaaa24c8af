//! The newest session of each issue's agent, for the run that may continue it. Only its name is kept, never what it holds.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde_json::json;
use symphony_core::ids::{IssueId, RunId, StateName};
use symphony_core::session::{Kept, Place};

use super::chain::{self, Entry};
use super::{Journal, Written, state};

fn kept(r: &Row<'_>) -> rusqlite::Result<Kept> {
    let place =
        Place { agent: r.get(2)?, state: StateName::new(r.get::<_, String>(3)?), runtime: r.get(4)?, cwd: r.get(5)? };
    Ok(Kept { id: r.get(1)?, place, told: r.get(6)?, tried: r.get(7)? })
}

/// All of them.
pub(super) fn all(db: &Connection) -> rusqlite::Result<BTreeMap<IssueId, Kept>> {
    let query = "SELECT issue, id, agent, state, runtime, cwd, told, tried FROM sessions";
    state::rows(db, query, |r| Ok((IssueId(r.get(0)?), kept(r)?)))
}

impl Journal {
    /// What is to be remembered of the newest session of this issue's agent; `None` forgets it.
    ///
    /// # Errors
    /// The journal cannot be written: what stood there before stands.
    pub fn session(&self, run: Option<RunId>, issue: IssueId, session: Option<Kept>) -> Written<()> {
        self.write("session", move |tx| {
            let (kind, body) = match &session {
                None => {
                    tx.execute("DELETE FROM sessions WHERE issue = ?1", [&issue.0])?;
                    ("session_forgotten", json!({}))
                }
                Some(Kept { id, place, told, tried }) => {
                    let Place { agent, state, runtime, cwd } = place;
                    tx.execute(
                        "INSERT OR REPLACE INTO sessions (issue, id, agent, state, runtime, cwd, told, tried)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                        params![issue.0, id, agent, state.as_str(), runtime, cwd, told, tried],
                    )?;
                    let kind = if *tried { "session_tried" } else { "session_kept" };
                    (kind, json!({"session": id, "agent": agent, "runtime": runtime, "told": told.is_some()}))
                }
            };
            chain::append(tx, &Entry { kind, run, issue: Some(&issue), body })
        })
    }
}
