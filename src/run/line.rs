//! The line between a run and the conductor: reports up, answers and the order to stop down.

use std::path::PathBuf;
use std::time::Duration;

use symphony_core::board::{Left, RunEnd, StopCause};
use symphony_core::broker::Metered;
use symphony_core::ids::RunId;
use symphony_core::session::Kept;
use symphony_core::snapshot::{EventRow, Tokens};
use symphony_core::spend::{Met, Sums};
use symphony_core::steering::{Letter, OpenQuestion};
use tokio::sync::{mpsc, oneshot, watch};

/// The phase in which only a human can bring a run forward.
pub const WAITING: &str = "waiting for a human";

/// Writing one row takes less than this, or the disk hangs.
const COUNT_DEADLINE: Duration = Duration::from_secs(60);

/// What a run tells while it lives. Facts for readers; only `Finishing` matters to the board.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// What it is doing, in a word or two.
    Phase(&'static str),
    /// The label of what isolates it.
    Sandbox(&'static str),
    /// Where its host workspace is.
    Workspace(PathBuf),
    /// The agent has a session.
    Session {
        /// The agent's name for it.
        id: String,
        /// Whether it is that of an earlier run.
        continued: bool,
    },
    /// Something the agent did, for the history.
    Event(EventRow),
    /// Consumption of this run so far, as the agent says.
    Tokens(Tokens),
    /// A provider answered a request, and what was charged; what is counted where it passes outranks what the agent says.
    Metered(Metered, Option<Sums>),
    /// Whether requests of its agent wait for a provider's leave.
    Held(bool),
    /// A request did not fit below a cap of tokens or money; the run is to end.
    SpendMet(Met),
    /// The agent asks a human; the question is in the journal already.
    Asked(OpenQuestion),
    /// The agent said it is done.
    MarkedDone,
    /// The agent said that the issue goes to another state.
    Moving,
    /// The run hands its work off or on from here on; it will move the issue itself.
    Finishing,
}

/// How an attempt ended, and what it left if it came so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// How.
    pub end: RunEnd,
    /// What is in the airlock now.
    pub left: Option<Left>,
}

impl From<RunEnd> for Ended {
    fn from(end: RunEnd) -> Self {
        Self { end, left: None }
    }
}

/// Messages to the conductor that come from a run.
#[derive(Debug)]
pub enum FromRun {
    /// While it lives.
    Report(RunId, Report),
    /// A turn is about to begin.
    Turn {
        /// Whose.
        run: RunId,
        /// Counts from 1.
        number: u32,
        /// How many of the turns so far no human asked for, this one included.
        autonomous: u32,
        /// The letters in its prompt.
        letters: Vec<u64>,
        /// Told once the journal holds the count.
        kept: oneshot::Sender<Result<(), String>>,
    },
    /// The turn that had letters in its prompt ended: they are taken.
    TurnEnded {
        /// Whose.
        run: RunId,
        /// Told once the journal holds it.
        kept: oneshot::Sender<Result<(), String>>,
    },
    /// What is to be remembered of the agent's session.
    Session {
        /// Whose.
        run: RunId,
        /// `None`: nothing.
        session: Option<Kept>,
        /// Told once the journal holds it.
        kept: oneshot::Sender<Result<(), String>>,
    },
    /// Exactly one, last.
    Ended(RunId, Ended),
}

/// A letter for a live run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The letter.
    pub letter: Letter,
    /// Whether the turn under way is cancelled for it; else it waits for that turn's end.
    pub now: bool,
}

/// A run's end of the line.
#[derive(Debug)]
pub struct Line {
    /// The run's number, on every report.
    pub run: RunId,
    /// To the conductor.
    pub reports: mpsc::Sender<FromRun>,
    /// Set once when the run is asked to stop.
    pub stop: watch::Receiver<Option<StopCause>>,
    /// A human's words, each already in the journal.
    pub letters: mpsc::Receiver<Posted>,
}

impl Line {
    /// Reports; a conductor that is gone no longer cares.
    pub async fn report(&self, report: Report) {
        let _ = self.reports.send(FromRun::Report(self.run, report)).await;
    }

    /// Says that a turn is about to begin, and waits until that is counted for good: a prompt that a crash could
    /// uncount would be one more than the budget allows.
    ///
    /// # Errors
    /// When the journal cannot keep it, or the conductor went away: then the turn must not begin.
    pub async fn turn(&self, number: u32, autonomous: u32, letters: Vec<u64>) -> Result<(), String> {
        let (kept, counted) = oneshot::channel();
        let _ = self.reports.send(FromRun::Turn { run: self.run, number, autonomous, letters, kept }).await;
        Self::kept(counted).await
    }

    /// Says that a turn with letters has ended, and waits until that is kept: they must not be handed again.
    ///
    /// # Errors
    /// As for [`Line::turn`].
    pub async fn turn_ended(&self) -> Result<(), String> {
        let (kept, counted) = oneshot::channel();
        let _ = self.reports.send(FromRun::TurnEnded { run: self.run, kept }).await;
        Self::kept(counted).await
    }

    /// Says what is to be remembered of the agent's session, and waits until that is kept.
    ///
    /// # Errors
    /// As for [`Line::turn`], but nothing has to stop: a later run then begins a new session.
    pub async fn session(&self, session: Option<Kept>) -> Result<(), String> {
        let (kept, written) = oneshot::channel();
        let _ = self.reports.send(FromRun::Session { run: self.run, session, kept }).await;
        Self::kept(written).await
    }

    async fn kept(counted: oneshot::Receiver<Result<(), String>>) -> Result<(), String> {
        match tokio::time::timeout(COUNT_DEADLINE, counted).await {
            Ok(counted) => counted.unwrap_or_else(|_| Err("the conductor is gone".to_owned())),
            Err(_) => Err(format!("the journal did not answer within {} s", COUNT_DEADLINE.as_secs())),
        }
    }

    /// Resolves when the run is asked to stop; never resolves if the conductor went away, because
    /// then the whole process ends.
    pub fn stopped(&self) -> impl Future<Output = StopCause> + use<> {
        let mut stop = self.stop.clone();
        async move {
            loop {
                if let Some(cause) = *stop.borrow_and_update() {
                    return cause;
                }
                if stop.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
