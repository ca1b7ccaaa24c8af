//! Questions and letters: what was asked, what was said, and how far it has come.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::json;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::steering::{Asked, By, Default, Letter, OpenQuestion};

use super::chain::{self, Entry, signed};
use super::state::{instant, rows};
use super::{Answered, Journal, Written};

const LETTER: &str = "SELECT l.issue, l.id, l.text, l.by, l.at, q.question, q.context
    FROM letters l LEFT JOIN questions q ON q.id = l.question";
const OPEN: &str = "SELECT issue, id, run, question, context, asked_at, default_at, default_text FROM questions
    WHERE closed_at IS NULL";

fn letter(r: &Row<'_>) -> rusqlite::Result<(IssueId, Letter)> {
    let (id, by, question): (i64, String, Option<String>) = (r.get(1)?, r.get(3)?, r.get(5)?);
    let context = r.get(6)?;
    let letter = Letter {
        id: id.unsigned_abs(),
        answers: question.map(|question| Asked { question, context }),
        text: r.get(2)?,
        by: By::parse(&by).unwrap_or(By::Api),
        at: instant(r, 4)?,
    };
    Ok((IssueId(r.get(0)?), letter))
}

fn question(r: &Row<'_>) -> rusqlite::Result<(IssueId, OpenQuestion)> {
    let (id, run, text): (i64, i64, Option<String>) = (r.get(1)?, r.get(2)?, r.get(7)?);
    let question = OpenQuestion {
        id: id.unsigned_abs(),
        run: RunId(run.unsigned_abs()),
        asked: Asked { question: r.get(3)?, context: r.get(4)? },
        asked_at: instant(r, 5)?,
        default: text.map(|text| Ok::<_, rusqlite::Error>(Default { at: instant(r, 6)?, text })).transpose()?,
    };
    Ok((IssueId(r.get(0)?), question))
}

/// The open questions of all issues.
pub(super) fn open(db: &Connection) -> rusqlite::Result<BTreeMap<IssueId, OpenQuestion>> {
    rows(db, OPEN, question)
}

/// Letters that no turn has taken, oldest first.
pub(super) fn pending(db: &Connection) -> rusqlite::Result<BTreeMap<IssueId, Vec<Letter>>> {
    let mut query = db.prepare(&format!("{LETTER} WHERE l.taken_at IS NULL ORDER BY l.id"))?;
    let mut pending: BTreeMap<IssueId, Vec<Letter>> = BTreeMap::new();
    for row in query.query_map([], letter)? {
        let (issue, letter) = row?;
        pending.entry(issue).or_default().push(letter);
    }
    Ok(pending)
}

/// Closes the open question of an issue, if it has one.
fn close(tx: &Transaction<'_>, issue: &IssueId, how: &str) -> rusqlite::Result<Option<i64>> {
    tx.query_row(
        "UPDATE questions SET closed_at = ?2, closed = ?3 WHERE issue = ?1 AND closed_at IS NULL RETURNING id",
        params![issue.0, Timestamp::now().to_string(), how],
        |r| r.get(0),
    )
    .optional()
}

/// The letters handed to a run: taken if its turn ended, else to be handed again.
pub(super) fn settle(tx: &Transaction<'_>, run: RunId, issue: &IssueId, taken: bool) -> rusqlite::Result<()> {
    let run_key = signed(run.0);
    let changed = if taken {
        tx.execute(
            "UPDATE letters SET taken_at = ?2 WHERE handed_run = ?1 AND taken_at IS NULL",
            params![run_key, Timestamp::now().to_string()],
        )?
    } else {
        tx.execute("UPDATE letters SET handed_run = NULL WHERE handed_run = ?1 AND taken_at IS NULL", [run_key])?
    };
    if changed > 0 {
        let kind = if taken { "letters_taken" } else { "letters_returned" };
        chain::append(tx, &Entry { kind, run: Some(run), issue: Some(issue), body: json!({"letters": changed}) })?;
    }
    Ok(())
}

/// Letters that a run's turns took, whose own write was lost.
pub(super) fn take(tx: &Transaction<'_>, run: RunId, issue: &IssueId, letters: &[u64]) -> rusqlite::Result<()> {
    let mut changed = vec![];
    for letter in letters {
        let hit = tx.execute(
            "UPDATE letters SET taken_at = ?3 WHERE id = ?1 AND handed_run = ?2 AND taken_at IS NULL",
            params![signed(*letter), signed(run.0), Timestamp::now().to_string()],
        )?;
        changed.extend((hit > 0).then_some(*letter));
    }
    if !changed.is_empty() {
        let body = json!({"letters": changed.len(), "only": changed});
        chain::append(tx, &Entry { kind: "letters_taken", run: Some(run), issue: Some(issue), body })?;
    }
    Ok(())
}

/// Letters leave with the prompt of a turn that begins now.
pub(super) fn hand(tx: &Transaction<'_>, run: RunId, issue: &IssueId, letters: &[u64]) -> rusqlite::Result<()> {
    for letter in letters {
        tx.execute(
            "UPDATE letters SET handed_run = ?2 WHERE id = ?1 AND taken_at IS NULL",
            params![signed(*letter), signed(run.0)],
        )?;
    }
    if !letters.is_empty() {
        let body = json!({"letters": letters});
        chain::append(tx, &Entry { kind: "letters_handed", run: Some(run), issue: Some(issue), body })?;
    }
    Ok(())
}

impl Journal {
    /// An agent asks a human; its number. A question of an earlier run that is still open gives way.
    ///
    /// # Errors
    /// The journal cannot be written: the agent is told so.
    pub fn asked(&self, run: RunId, issue: IssueId, asked: Asked, default: Option<Default>) -> Written<OpenQuestion> {
        self.write("asked", move |tx| {
            close(tx, &issue, "asked anew")?;
            let asked_at = Timestamp::now();
            let (at, text) = default.as_ref().map(|d| (d.at.to_string(), d.text.as_str())).unzip();
            tx.execute(
                "INSERT INTO questions (run, issue, question, context, asked_at, default_at, default_text)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![signed(run.0), issue.0, asked.question, asked.context, asked_at.to_string(), at, text],
            )?;
            let id = tx.last_insert_rowid();
            let body = json!({"question": id, "text": asked.question, "context": asked.context, "default": text});
            chain::append(tx, &Entry { kind: "asked", run: Some(run), issue: Some(&issue), body })?;
            Ok(OpenQuestion { id: id.unsigned_abs(), run, asked, asked_at, default })
        })
    }

    /// A human answered the open question of this issue: the first answer wins. With a number, only if it is that
    /// question which is open.
    ///
    /// # Errors
    /// The journal cannot be written: the answer counts as not given.
    pub fn answered(&self, issue: IssueId, question: Option<u64>, text: String, by: By) -> Written<Answered> {
        self.write("answered", move |tx| {
            let open = tx.query_row(&format!("{OPEN} AND issue = ?1"), [&issue.0], self::question).optional()?;
            let wanted = open.map(|(_, open)| open).filter(|open| question.is_none_or(|id| id == open.id));
            let Some(open) = wanted else {
                let closed: Option<(String, String)> = match question {
                    Some(id) => tx
                        .query_row(
                            "SELECT closed, closed_at FROM questions WHERE id = ?1 AND issue = ?2",
                            params![signed(id), issue.0],
                            |r| Ok((r.get(0)?, r.get(1)?)),
                        )
                        .optional()?,
                    None => None,
                };
                return Ok(match closed {
                    Some((how, _)) if how == "answered" => Answered::Already,
                    _ => Answered::NotAsked,
                });
            };
            close(tx, &issue, "answered")?;
            let at = Timestamp::now();
            tx.execute(
                "INSERT INTO letters (issue, question, text, by, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![issue.0, signed(open.id), text, by.as_str(), at.to_string()],
            )?;
            let id = tx.last_insert_rowid().unsigned_abs();
            let body = json!({"question": open.id, "letter": id, "text": text, "by": by.as_str()});
            chain::append(tx, &Entry { kind: "answered", run: Some(open.run), issue: Some(&issue), body })?;
            Ok(Answered::Taken(Letter { id, answers: Some(open.asked), text, by, at }))
        })
    }

    /// A human has something to say to the agent of this issue.
    ///
    /// # Errors
    /// The journal cannot be written: it counts as not said.
    pub fn said(&self, issue: IssueId, text: String, by: By) -> Written<Letter> {
        self.write("said", move |tx| {
            let at = Timestamp::now();
            tx.execute(
                "INSERT INTO letters (issue, text, by, at) VALUES (?1, ?2, ?3, ?4)",
                params![issue.0, text, by.as_str(), at.to_string()],
            )?;
            let id = tx.last_insert_rowid().unsigned_abs();
            let body = json!({"letter": id, "text": text, "by": by.as_str()});
            chain::append(tx, &Entry { kind: "said", run: None, issue: Some(&issue), body })?;
            Ok(Letter { id, answers: None, text, by, at })
        })
    }

    /// The open question of this issue needs no answer any more.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn withdrawn(&self, issue: IssueId, why: &'static str) -> Written<()> {
        self.write("withdrawn", move |tx| {
            if let Some(id) = close(tx, &issue, why)? {
                let body = json!({"question": id, "why": why});
                chain::append(tx, &Entry { kind: "withdrawn", run: None, issue: Some(&issue), body })?;
            }
            Ok(())
        })
    }
}
