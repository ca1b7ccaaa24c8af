//! How the doors speak to the conductor: read the newest snapshot, leave a request in the mailbox.

use std::sync::Arc;

use jiff::Timestamp;
use symphony_core::egress::{Decision, Named, NotDecided, Verb};
use symphony_core::ids::Identifier;
use symphony_core::snapshot::Snapshot;
use symphony_core::spend::Amount;
use symphony_core::steering::By;
use tokio::sync::{mpsc, oneshot, watch};

use crate::egress::DecideError;

/// A request from a door; answered through its `reply`.
#[derive(Debug)]
pub enum Request {
    /// Look at the tracker now. The answer says whether one look was wanted already.
    Refresh {
        /// `true` when an earlier request is still waiting for the same look.
        reply: oneshot::Sender<bool>,
    },
    /// A human's answer to a pending question.
    Answer {
        /// Which issue asked.
        identifier: Identifier,
        /// The number of the question that was read; `None`: the one that is open.
        question: Option<u64>,
        /// The answer, not blank.
        text: String,
        /// Which way it came.
        by: By,
        /// Taken, or why not.
        reply: oneshot::Sender<Result<Timestamp, AnswerError>>,
    },
    /// What a human decided about a host that an agent asked for.
    DecideHost {
        /// The card that was read, or, where an earlier decision is to be replaced, what the person named.
        about: About,
        /// The word.
        verb: Verb,
        /// Which way it came.
        by: By,
        /// Taken, or why not.
        reply: oneshot::Sender<Result<Decision, HostError>>,
    },
    /// A decision about a host is taken back.
    ForgetHost {
        /// Its number.
        decision: u64,
        /// Done, or why not.
        reply: oneshot::Sender<Result<(), HostError>>,
    },
    /// A human's word for an agent that asked nothing.
    Say {
        /// For whose agent.
        identifier: Identifier,
        /// The words, not blank.
        text: String,
        /// Cancels the turn under way, and prompts with it; else it goes with the next prompt.
        now: bool,
        /// Which way it came.
        by: By,
        /// Taken, or why not.
        reply: oneshot::Sender<Result<Taken, AnswerError>>,
    },
    /// More of the budget that an issue was put aside for.
    Raise {
        /// Which issue.
        identifier: Identifier,
        /// By how much, as it was typed.
        amount: String,
        /// What the person saw.
        seen: SeenCap,
        /// Which way it came.
        by: By,
        /// What is allowed now, or why nothing was raised.
        reply: oneshot::Sender<Result<Raised, RaiseError>>,
    },
}

/// What a person's word about a host is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A card that they read: the first word about it counts.
    Card(u64),
    /// Whatever they name, in place of what was decided before.
    Named(Named),
}

/// The cap that a person saw when they decided, as far as they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenCap {
    /// The key of the workflow.
    pub key: Option<String>,
    /// What was allowed.
    pub allowed: Option<u64>,
}

/// A budget that was raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// The key of the workflow.
    pub key: &'static str,
    /// By how much.
    pub by: Amount,
}

/// Why a budget was not raised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    /// There is no such issue.
    #[error("there is no issue {0}")]
    NoSuchIssue(Identifier),
    /// Nothing was met.
    #[error("{0} does not wait for a budget in tokens or money; there is nothing to raise")]
    NotMet(Identifier),
    /// Somebody was faster.
    #[error("what {0} waits for was raised already; it goes back by itself")]
    Already(Identifier),
    /// What was typed is no amount.
    #[error("{0}")]
    Amount(String),
    /// The journal could not keep it.
    #[error("the budget is not raised, because that could not be stored: {0}")]
    NotStored(String),
    /// The program is going down.
    #[error("symphony is shutting down")]
    ShuttingDown,
}

/// Words that the journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When they were taken.
    pub at: Timestamp,
    /// Why no run hears them now; `None` when one does.
    pub waits: Option<String>,
}

/// Why an answer was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The issue has no open question.
    #[error("no question of {0} is waiting for an answer")]
    NotWaiting(Identifier),
    /// Somebody was faster.
    #[error("the question of {0} was answered already")]
    AnsweredAlready(Identifier),
    /// There is no such issue.
    #[error("there is no issue {0}")]
    NoSuchIssue(Identifier),
    /// The agent waits for an answer.
    #[error("the agent of {0} asks something itself; answer its question")]
    AsksItself(Identifier),
    /// No agent would hear it.
    #[error("no agent works on {0} now, or will by itself; move it to an active state first")]
    NobodyWorks(Identifier),
    /// The agent said that it is done, and works no more.
    #[error("the agent of {0} is done and its work is being handed off: it hears nothing any more")]
    HandingOff(Identifier),
    /// The journal could not keep it.
    #[error("what you said could not be stored: {0}")]
    NotStored(String),
    /// The program is going down.
    #[error("symphony is shutting down")]
    ShuttingDown,
}

/// Why a human's word about a host was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// There is nothing to decide.
    #[error(transparent)]
    Not(#[from] NotDecided),
    /// The journal could not keep it.
    #[error("{0}")]
    NotStored(String),
    /// The program is going down.
    #[error("symphony is shutting down")]
    ShuttingDown,
}

impl From<DecideError> for HostError {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Not(not) => Self::Not(not),
            error @ DecideError::NotStored(_) => Self::NotStored(error.to_string()),
        }
    }
}

/// Cheap to clone; every door holds one.
#[derive(Clone, Debug)]
pub struct Handle {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    requests: mpsc::Sender<Request>,
}

impl Handle {
    /// Joins the two channels the conductor reads and writes.
    pub fn new(snapshots: watch::Receiver<Arc<Snapshot>>, requests: mpsc::Sender<Request>) -> Self {
        Self { snapshots, requests }
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshots.borrow().clone()
    }

    /// A receiver that wakes at each new snapshot.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Asks for a look at the tracker; `true` when one was wanted already.
    ///
    /// # Errors
    /// Only when the program is going down.
    pub async fn refresh(&self) -> Result<bool, AnswerError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Refresh { reply }).await.map_err(|_| AnswerError::ShuttingDown)?;
        answer.await.map_err(|_| AnswerError::ShuttingDown)
    }

    /// Hands a human's answer to the run that asked.
    ///
    /// # Errors
    /// When nobody waits for it, or somebody was faster.
    pub async fn answer(
        &self,
        identifier: Identifier,
        question: Option<u64>,
        text: String,
        by: By,
    ) -> Result<Timestamp, AnswerError> {
        let (reply, told) = oneshot::channel();
        self.send(Request::Answer { identifier, question, text, by, reply }, told).await
    }

    /// Hands a human's word to an agent that asked nothing; `now` cuts its turn short.
    ///
    /// # Errors
    /// When no agent would hear it.
    pub async fn say(&self, identifier: Identifier, text: String, now: bool, by: By) -> Result<Taken, AnswerError> {
        let (reply, told) = oneshot::channel();
        self.send(Request::Say { identifier, text, now, by, reply }, told).await
    }

    /// Hands on what a human decided about a host.
    ///
    /// # Errors
    /// When nobody asks that any more, or it could not be kept.
    pub async fn decide_host(&self, about: About, verb: Verb, by: By) -> Result<Decision, HostError> {
        let (reply, told) = oneshot::channel();
        let request = Request::DecideHost { about, verb, by, reply };
        self.requests.send(request).await.map_err(|_| HostError::ShuttingDown)?;
        told.await.map_err(|_| HostError::ShuttingDown)?
    }

    /// Takes a decision about a host back.
    ///
    /// # Errors
    /// When it holds no longer, or that could not be kept.
    pub async fn forget_host(&self, decision: u64) -> Result<(), HostError> {
        let (reply, told) = oneshot::channel();
        let request = Request::ForgetHost { decision, reply };
        self.requests.send(request).await.map_err(|_| HostError::ShuttingDown)?;
        told.await.map_err(|_| HostError::ShuttingDown)?
    }

    /// Allows more of the budget that keeps an issue waiting; `seen` is what the person saw when they decided.
    ///
    /// # Errors
    /// When there is nothing to raise, somebody was faster, or it is no amount.
    pub async fn raise(
        &self,
        identifier: Identifier,
        amount: String,
        seen: SeenCap,
        by: By,
    ) -> Result<Raised, RaiseError> {
        let (reply, told) = oneshot::channel();
        let request = Request::Raise { identifier, amount, seen, by, reply };
        self.requests.send(request).await.map_err(|_| RaiseError::ShuttingDown)?;
        told.await.map_err(|_| RaiseError::ShuttingDown)?
    }

    async fn send<T>(
        &self,
        request: Request,
        told: oneshot::Receiver<Result<T, AnswerError>>,
    ) -> Result<T, AnswerError> {
        self.requests.send(request).await.map_err(|_| AnswerError::ShuttingDown)?;
        told.await.map_err(|_| AnswerError::ShuttingDown)?
    }
}
