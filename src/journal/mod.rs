//! The durable record: runs, counters, park reasons, due times, questions and letters. SQLite, one writer.
//!
//! Every change is an event in an append-only hash chain (`chain.rs`), and the rows of the present state that the
//! event changes, in one transaction. Issue files stay the truth for issues; nothing here can create, move or
//! finish one. A run number is taken here before the run starts, so numbers never repeat, also across a crash.

mod agree;
mod chain;
mod egress;
mod error;
pub mod inspect;
pub mod key;
mod letters;
mod limit;
mod mark;
mod memory;
mod schema;
mod sessions;
mod spend;
pub mod standings;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::{Connection, Transaction, params};
use serde_json::json;
use symphony_core::board::{Due, EndReason, Parked, one_line};
use symphony_core::budget::Counters;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::steering::Letter;
use tokio::sync::oneshot;

use self::chain::{Entry, signed};
pub use self::egress::Reached;
pub use self::error::JournalError;
pub use self::limit::Limit;
pub use self::memory::{Memory, Origin};
use crate::failpoint::{Phase, reach};

/// What a journal remembers, read without changing anything. Runs whose end is missing in it may be alive.
///
/// # Errors
/// It cannot be read, or has another format than ours.
pub fn recall(path: &Path) -> Result<Memory, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let db = inspect::look_at(path)?;
    inspect::sound(&db, path)?;
    let (found, known) = (schema::format(&db, path)?, schema::FORMAT);
    if found < known {
        return Err(JournalError::Older { path: path.to_owned(), found, known });
    }
    memory::read(&db, Origin::default()).map_err(wrap)
}
/// Bytes of the words about a run's end.
const END_MAX: usize = 2000;

/// What became of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It is kept, and on its way.
    Taken(Letter),
    /// Somebody was faster.
    Already,
    /// There is no such question.
    NotAsked,
}

/// A run that ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// How, in one line.
    pub end: String,
    /// The issue's counters after it.
    pub counters: Counters,
    /// When the issue is tried again, if it is by itself.
    pub due: Option<Due<Timestamp>>,
    /// Tokens that the agent said it used.
    pub tokens: u64,
    /// Letters of its turns that ended: taken, also if their own write was lost.
    pub taken: Vec<u64>,
}

/// The outcome of a write that is queued already; dropping it does not undo the write.
pub type Written<T> = BoxFuture<'static, Result<T, JournalError>>;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the one writer; cheap to clone. The database closes when the last handle is dropped.
#[derive(Clone)]
pub struct Journal {
    path: PathBuf,
    writer: Arc<Writer>,
}

/// Jobs wait in the order they were asked for; whoever holds the connection takes the next one.
struct Writer {
    waiting: Mutex<VecDeque<Job>>,
    /// The file that is open, by device and inode, if it could be looked at.
    file: Option<(u64, u64)>,
    db: Mutex<Connection>,
    /// Why the newest write failed, if it did.
    trouble: Mutex<Option<String>>,
    /// How large it may grow.
    limit: Mutex<Option<Limit>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The file behind a path. It is not opened: closing it again would take SQLite's locks away.
fn place(path: &Path) -> Option<(u64, u64)> {
    let about = std::fs::metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

impl Writer {
    /// What goes into a file that nobody finds again is not kept.
    fn in_place(&self, path: &Path) -> Result<(), JournalError> {
        match self.file == place(path) {
            true => Ok(()),
            false => Err(JournalError::Replaced(path.to_owned())),
        }
    }

    fn next(&self) {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let job = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(job) = job {
            job(&mut db);
            self.keep_small(&mut db);
        }
    }

    /// A journal that cannot be made smaller is no trouble of the write before it: it grows, and that is said once.
    fn keep_small(&self, db: &mut Connection) {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = limit.as_ref().and_then(|limit| limit::keep(db, limit).transpose());
        let error = match kept {
            None => return,
            Some(Ok(Ok(removed))) => {
                let (removed, upto) = (removed.events, removed.upto);
                return tracing::info!(removed, upto, "old events of the journal went behind a signed checkpoint");
            }
            // Somebody has to look at it.
            Some(Ok(Err(fault))) => {
                *limit = None;
                fault
            }
            // A full disk or a reader in the way may pass; with each try the next one is farther away.
            Some(Err(error)) => {
                if let Some(limit) = limit.as_mut() {
                    limit.slack = limit.slack.saturating_mul(2).saturating_add(1);
                }
                error.to_string()
            }
        };
        tracing::warn!(%error, "the journal stays as large as it is, and grows; `symphony journal check` looks it through");
    }
}

impl Journal {
    /// Opens or creates the database and reads what it remembers. Runs that an earlier process did not see the end
    /// of end here. Blocking: call it before the loops start.
    ///
    /// # Errors
    /// An unusable, damaged or newer file; nothing is changed then.
    pub fn open(path: &Path, origin: Origin) -> Result<(Self, Memory), JournalError> {
        let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
        inspect::fit_for_use(path)?;
        let mut db = schema::connect(path)?;
        schema::prepare(&mut db, path, &origin.instance)?;
        transact(&mut db, "opened", memory::end_what_was_cut_off).map_err(wrap)?;
        let memory = memory::read(&db, origin).map_err(wrap)?;
        let writer = Writer {
            waiting: Mutex::default(),
            file: place(path),
            db: Mutex::new(db),
            trouble: Mutex::default(),
            limit: Mutex::default(),
        };
        Ok((Self { path: path.to_owned(), writer: Arc::new(writer) }, memory))
    }

    /// Why the newest write failed, or why the next one would; `None` once one went well again.
    pub fn trouble(&self) -> Option<String> {
        if let Err(error) = self.writer.in_place(&self.path) {
            return Some(error.to_string());
        }
        self.writer.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From here on it makes room by itself, after a write that passes the limit.
    pub fn keep_within(&self, limit: Option<Limit>) {
        *self.writer.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Writes something of no meaning, to learn whether writing works.
    ///
    /// # Errors
    /// It does not.
    pub fn probed(&self) -> Written<()> {
        self.write("probed", |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO about (key, value) VALUES ('probed', ?1)",
                [Timestamp::now().to_string()],
            )
            .map(drop)
        })
    }

    /// A run starts; its number and the issue's counters are kept before anything else happens.
    ///
    /// # Errors
    /// The journal cannot be written: the run must not start.
    pub fn run_started(&self, run: RunId, issue: IssueId, counters: Counters) -> Written<()> {
        self.write("run_started", move |tx| {
            tx.execute(
                "INSERT INTO runs (run, issue, started_at) VALUES (?1, ?2, ?3)",
                params![signed(run.0), issue.0, Timestamp::now().to_string()],
            )?;
            state::put_counters(tx, &issue, &counters)?;
            state::put_due(tx, &issue, None)?;
            tx.execute("DELETE FROM parked WHERE issue = ?1", [&issue.0])?;
            let body = json!({"counters": state::told(&counters)});
            chain::append(tx, &Entry { kind: "run_started", run: Some(run), issue: Some(&issue), body })
        })
    }

    /// A run ended. Letters whose turn it did not end are handed again.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn run_ended(&self, run: RunId, issue: IssueId, ending: Ending) -> Written<()> {
        self.write("run_ended", move |tx| {
            let Ending { reason, end, counters, due, tokens, taken } = ending;
            // Programs and agents wrote it; the log has it whole.
            let end = one_line(&end, END_MAX);
            tx.execute(
                "UPDATE runs SET ended_at = ?2, end = ?3, reason = ?4, tokens = ?5 WHERE run = ?1 AND ended_at IS NULL",
                params![signed(run.0), Timestamp::now().to_string(), end, reason.as_str(), signed(tokens)],
            )?;
            letters::take(tx, run, &issue, &taken)?;
            letters::settle(tx, run, &issue, false)?;
            state::put_counters(tx, &issue, &counters)?;
            state::put_due(tx, &issue, due.as_ref())?;
            let due = due.as_ref().map(|due| due.until.to_string());
            let body = json!({"reason": reason.as_str(), "end": end, "tokens": tokens, "due": due,
                "spent": spend::told(tx, &issue)?, "counters": state::told(&counters)});
            chain::append(tx, &Entry { kind: "run_ended", run: Some(run), issue: Some(&issue), body })
        })
    }

    /// A turn is about to begin, with these letters in its prompt.
    ///
    /// # Errors
    /// The journal cannot be written: the turn must not begin.
    pub fn turn_began(&self, run: RunId, issue: IssueId, counters: Counters, handed: Vec<u64>) -> Written<()> {
        self.write("turn_began", move |tx| {
            state::put_counters(tx, &issue, &counters)?;
            let body = json!({"counters": state::told(&counters)});
            chain::append(tx, &Entry { kind: "turn_began", run: Some(run), issue: Some(&issue), body })?;
            letters::hand(tx, run, &issue, &handed)
        })
    }

    /// The turn that had these letters in its prompt has ended: they are taken.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn turn_ended(&self, run: RunId, issue: IssueId) -> Written<()> {
        self.write("turn_ended", move |tx| letters::settle(tx, run, &issue, true))
    }

    /// What a live run used so far.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn counted(&self, issue: IssueId, counters: Counters) -> Written<()> {
        self.write("counted", move |tx| {
            state::put_counters(tx, &issue, &counters)?;
            let body = json!({"counters": state::told(&counters)});
            chain::append(tx, &Entry { kind: "counted", run: None, issue: Some(&issue), body })
        })
    }

    /// An issue was put aside.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn parked(&self, issue: IssueId, parked: Parked, counters: Counters) -> Written<()> {
        self.write("parked", move |tx| {
            state::put_counters(tx, &issue, &counters)?;
            state::put_parked(tx, &issue, &parked)?;
            state::put_due(tx, &issue, None)?;
            let body = json!({"why": parked.reason.code(), "words": parked.reason.to_string(),
                "from": parked.from.as_str(), "counters": state::told(&counters)});
            chain::append(tx, &Entry { kind: "parked", run: None, issue: Some(&issue), body })
        })
    }

    /// Queues the work at once, so calls are carried out in the order they were made, also when
    /// their futures are awaited in another order or not at all. One call is one transaction.
    fn write<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Written<T> {
        self.queue(name, false, work)
    }

    /// The same for what is written often: it is not waited for to reach the disk. A kill does not lose it, a power cut may;
    /// the next other write brings it there.
    fn write_soon<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Written<T> {
        self.queue(name, true, work)
    }

    fn queue<T: Send + 'static>(
        &self,
        name: &'static str,
        soon: bool,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Written<T> {
        let (reply, answer) = oneshot::channel();
        let (path, writer) = (self.path.clone(), self.writer.clone());
        let job: Job = Box::new(move |db| {
            let done = writer
                .in_place(&path)
                .and_then(|()| in_time(db, name, soon, work).map_err(|error| JournalError::of(&path, &error)));
            *writer.trouble.lock().unwrap_or_else(PoisonError::into_inner) =
                done.as_ref().err().map(ToString::to_string);
            drop(reply.send(done));
        });
        self.writer.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        let writer = self.writer.clone();
        let turn = tokio::task::spawn_blocking(move || writer.next());
        Box::pin(async move {
            // A job that panicked has dropped its reply.
            drop(turn.await);
            answer.await.map_err(|_| JournalError::Crashed)?
        })
    }
}

fn in_time<T>(
    db: &mut Connection,
    name: &'static str,
    soon: bool,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    if !soon {
        return transact(db, name, work);
    }
    db.pragma_update(None, "synchronous", "NORMAL")?;
    let done = transact(db, name, work);
    db.pragma_update(None, "synchronous", "FULL").and(done)
}

fn transact<T>(
    db: &mut Connection,
    name: &'static str,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let at = |phase| reach("journal", name, phase).map_err(failed);
    at(Phase::Before)?;
    let tx = db.transaction()?;
    let done = work(&tx)?;
    at(Phase::Torn)?;
    tx.commit()?;
    at(Phase::After)?;
    Ok(done)
}

/// What SQLite says when the system says that.
fn failed(error: std::io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR_WRITE,
    };
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(error.to_string()))
}
