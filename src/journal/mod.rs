//! The durable record: runs, counters, park reasons, questions and answers. SQLite, one writer. A restart
//! takes up run numbers, counters and park reasons; questions and answers are kept to be looked up.
//!
//! Issue files stay the truth for issues; nothing here can create, move or finish one. A run number
//! is taken here before the run starts, so numbers never repeat, also across a crash.

mod schema;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use symphony_core::board::{EndReason, Parked};
use symphony_core::budget::Counters;
use symphony_core::ids::{IssueId, RunId};
use tokio::sync::oneshot;

/// What went wrong with the journal; every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Opening, reading or writing failed.
    #[error(
        "the journal {path} cannot be used: {message} (hint: check free space and permissions; move the file away to start afresh, which forgets counters and questions)"
    )]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        message: String,
    },
    /// A newer symphony wrote it.
    #[error("the journal {path} has format {found}, this symphony knows up to {known} (hint: use the newer symphony)")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The write crashed.
    #[error("the journal crashed; this is a bug in symphony")]
    Crashed,
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
}

/// SQLite's integers are signed; run numbers never come near the sign.
fn key(run: RunId) -> i64 {
    i64::try_from(run.0).unwrap_or(i64::MAX)
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
    db: Mutex<Connection>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Writer {
    fn next(&self) {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let job = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(job) = job {
            job(&mut db);
        }
    }
}

impl Journal {
    /// Opens or creates the database and reads what it remembers. Blocking: call it before the loops start.
    ///
    /// # Errors
    /// An unusable or newer file; nothing is changed then.
    pub fn open(path: &Path) -> Result<(Self, Memory), JournalError> {
        let wrap = |e: rusqlite::Error| JournalError::Unusable { path: path.to_owned(), message: e.to_string() };
        let mut db = Connection::open(path).map_err(wrap)?;
        schema::prepare(&mut db, path)?;
        let memory = schema::remember(&db).map_err(wrap)?;
        let writer = Writer { waiting: Mutex::default(), db: Mutex::new(db) };
        Ok((Self { path: path.to_owned(), writer: Arc::new(writer) }, memory))
    }

    /// A run starts; its number and the issue's counters are kept before anything else happens.
    ///
    /// # Errors
    /// The journal cannot be written: the run must not start.
    pub fn run_started(&self, run: RunId, issue: IssueId, counters: Counters) -> Written<()> {
        self.write(move |db| {
            let tx = db.transaction()?;
            tx.execute(
                "INSERT INTO runs (run, issue, started_at) VALUES (?1, ?2, ?3)",
                params![key(run), issue.0, Timestamp::now().to_string()],
            )?;
            schema::put_counters(&tx, &issue, &counters)?;
            tx.execute("DELETE FROM parked WHERE issue = ?1", [&issue.0])?;
            tx.commit()
        })
    }

    /// A run ended this way.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn run_ended(
        &self,
        run: RunId,
        issue: IssueId,
        reason: EndReason,
        end: String,
        counters: Counters,
    ) -> Written<()> {
        self.write(move |db| {
            let tx = db.transaction()?;
            tx.execute(
                "UPDATE runs SET ended_at = ?2, end = ?3, reason = ?4 WHERE run = ?1 AND ended_at IS NULL",
                params![key(run), Timestamp::now().to_string(), end, reason.as_str()],
            )?;
            schema::put_counters(&tx, &issue, &counters)?;
            tx.commit()
        })
    }

    /// What a live run used so far.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn counted(&self, issue: IssueId, counters: Counters) -> Written<()> {
        self.write(move |db| {
            let tx = db.transaction()?;
            schema::put_counters(&tx, &issue, &counters)?;
            tx.commit()
        })
    }

    /// An issue was put aside.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn parked(&self, issue: IssueId, parked: Parked, counters: Counters) -> Written<()> {
        self.write(move |db| {
            let tx = db.transaction()?;
            schema::put_counters(&tx, &issue, &counters)?;
            schema::put_parked(&tx, &issue, &parked)?;
            tx.commit()
        })
    }

    /// An agent asks a human.
    ///
    /// # Errors
    /// The journal cannot be written: the agent is told so.
    pub fn asked(&self, run: RunId, issue: IssueId, question: String, context: Option<String>) -> Written<()> {
        self.write(move |db| {
            db.execute(
                "INSERT INTO questions (run, issue, question, context, asked_at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![key(run), issue.0, question, context, Timestamp::now().to_string()],
            )
            .map(drop)
        })
    }

    /// A human answered the newest open question of this run. `false`: there was none.
    ///
    /// # Errors
    /// The journal cannot be written: the answer counts as not given.
    pub fn answered(&self, run: RunId, answer: String) -> Written<bool> {
        self.write(move |db| {
            let open: Option<i64> = db
                .query_row(
                    "SELECT id FROM questions WHERE run = ?1 AND answer IS NULL ORDER BY id DESC LIMIT 1",
                    [key(run)],
                    |r| r.get(0),
                )
                .optional()?;
            let Some(id) = open else { return Ok(false) };
            db.execute(
                "UPDATE questions SET answer = ?2, answered_at = ?3 WHERE id = ?1",
                params![id, answer, Timestamp::now().to_string()],
            )?;
            Ok(true)
        })
    }

    /// Queues the work at once, so calls are carried out in the order they were made, also when
    /// their futures are awaited in another order or not at all.
    fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Written<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |db| drop(reply.send(work(db))));
        self.writer.waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(job);
        let (path, writer) = (self.path.clone(), self.writer.clone());
        let turn = tokio::task::spawn_blocking(move || writer.next());
        Box::pin(async move {
            // A job that panicked has dropped its reply.
            drop(turn.await);
            let result = answer.await.map_err(|_| JournalError::Crashed)?;
            result.map_err(|e| JournalError::Unusable { path, message: e.to_string() })
        })
    }
}
