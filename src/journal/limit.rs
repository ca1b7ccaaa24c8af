//! How large a journal may grow: beyond its limit, old events go behind a signed checkpoint, and with them the rows
//! that nothing but those events tell of.

use rusqlite::{Connection, Transaction};

use super::chain::{self, Removed, signed};
use super::transact;

/// A limit, and what it takes to keep it.
#[derive(Clone)]
pub struct Limit {
    /// Events that stay.
    pub keep: u64,
    /// So many more are let stand, that not every write has to make room.
    pub slack: u64,
    /// Whose journal it is, as its checkpoints say.
    pub instance: String,
    /// The key that signs them.
    pub secret: [u8; 32],
}

impl Limit {
    /// That of a workflow that says `retention.journal_events`; none for 0.
    pub fn of(events: u64, instance: &str, secret: [u8; 32]) -> Option<Self> {
        let slack = (events / 4).max(16);
        (events > 0).then(|| Self { keep: events, slack, instance: instance.to_owned(), secret })
    }

    fn is_passed(&self, db: &Connection) -> rusqlite::Result<bool> {
        // Numbers have no gaps, and counting rows would read them all.
        let count: i64 = db.query_row(
            "SELECT coalesce((SELECT max(seq) FROM events) - (SELECT min(seq) FROM events) + 1, 0)",
            [],
            |r| r.get(0),
        )?;
        Ok(count > signed(self.keep.saturating_add(self.slack)))
    }
}

/// Makes room if there are more events than enough. The inner error says what is wrong with the chain: then nothing was
/// removed.
pub(super) fn keep(db: &mut Connection, limit: &Limit) -> rusqlite::Result<Option<Result<Removed, String>>> {
    if !limit.is_passed(db)? {
        return Ok(None);
    }
    let ours = chain::public(&limit.secret);
    transact(db, "compacted", |tx| make_room(tx, &limit.instance, limit.keep, &limit.secret, Some(&ours))).map(Some)
}

/// Removes all events but the newest `keep`, and ended runs, closed questions and letters that were taken of which no
/// event is left. `pinned` is the key that may have signed before.
pub(super) fn make_room(
    tx: &Transaction<'_>,
    instance: &str,
    keep: u64,
    secret: &[u8; 32],
    pinned: Option<&[u8; 32]>,
) -> rusqlite::Result<Result<Removed, String>> {
    let removed = chain::compact(tx, instance, keep, secret, pinned)?;
    if removed.as_ref().is_ok_and(|removed| removed.events > 0) {
        // Run numbers only grow. The newest row of each stays: the next number follows it, and no number comes again.
        let first: Option<i64> = tx.query_row("SELECT min(run) FROM events WHERE run IS NOT NULL", [], |r| r.get(0))?;
        for sql in [
            "DELETE FROM runs WHERE ended_at IS NOT NULL AND run < ?1 AND run < (SELECT max(run) FROM runs)",
            // An answer that no turn has taken tells the agent what it asked.
            "DELETE FROM questions WHERE closed_at IS NOT NULL AND run < ?1 AND id < (SELECT max(id) FROM questions)
                AND NOT EXISTS (SELECT 1 FROM letters WHERE letters.question = questions.id AND taken_at IS NULL)",
            "DELETE FROM letters WHERE taken_at IS NOT NULL AND handed_run < ?1 AND id < (SELECT max(id) FROM letters)",
            "DELETE FROM egress_reached WHERE run < ?1 AND run NOT IN (SELECT run FROM runs)",
        ] {
            tx.execute(sql, [first])?;
        }
    }
    Ok(removed)
}
