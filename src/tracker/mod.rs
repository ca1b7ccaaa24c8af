//! The tracker seam: where issues are, and the few things done to them.
//!
//! The scheduler never moves a file on its own initiative except to park an issue; everything else
//! is a tool call of an agent or a request of an operator (C3, C191).

pub mod doorstep;
pub mod markdown;

use futures::future::BoxFuture;
use symphony_core::front_matter::Proposed;
use symphony_core::ids::{Identifier, IssueId, StateName};
use symphony_core::issue::Scan;

/// A place where issues live.
pub trait Tracker: Send + Sync {
    /// One atomic look at every state (C183): an error is not an empty scan.
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>>;

    /// Compare-and-move: succeeds only from `from`, never clobbers. Already in `to` is success.
    fn move_issue<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>>;

    /// Whether [`Tracker::move_issue`] would be refused now, without moving anything.
    fn check_move<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<(), TrackerError>>;

    /// Appends Markdown to the end of an issue's body.
    fn append_note<'a>(&'a self, id: &'a IssueId, note: &'a str) -> BoxFuture<'a, Result<(), TrackerError>>;

    /// Creates an issue file atomically; an existing identifier in any state is an error.
    fn create(&self, new: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>>;
}

/// Where a move ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Relative to the tracker root.
    pub file: String,
}

/// What an operator or an agent asks to be created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewIssue {
    /// `None`: the next free number over all states.
    pub identifier: Option<Identifier>,
    /// Not blank.
    pub title: String,
    /// Directory name; created on demand.
    pub state: String,
    /// Markdown body.
    pub description: Option<String>,
    /// Any integer.
    pub priority: Option<i64>,
    /// As typed.
    pub labels: Vec<String>,
    /// Identifiers.
    pub blocked_by: Vec<String>,
    /// Where it comes from, if an agent proposed it.
    pub proposed: Option<Proposed>,
}

/// What was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Absolute path of the file.
    pub path: String,
    /// The identifier in force, after sanitising.
    pub identifier: Identifier,
    /// The state it stands in.
    pub state: StateName,
}

/// What can go wrong, with the codes of 0.1.0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackerError {
    /// The root is missing or unreadable.
    #[error("cannot read the issue directory {path}: {message}")]
    RootRead {
        /// Which directory.
        path: String,
        /// What the system said.
        message: String,
    },
    /// No such issue.
    #[error("no issue `{0}` in any state")]
    NotFound(String),
    /// The same id in several states.
    #[error("issue `{name}` stands in several places: {}", files.join(", "))]
    Ambiguous {
        /// The shared name.
        name: String,
        /// Every file.
        files: Vec<String>,
    },
    /// Another file has the name in the target state.
    #[error("`{0}` exists already")]
    TargetExists(String),
    /// The issue is not where the caller believed it to be.
    #[error("issue `{id}` is in {actual}, not in {expected}")]
    Elsewhere {
        /// Which issue.
        id: String,
        /// Where it is.
        actual: String,
        /// Where the caller expected it.
        expected: String,
    },
    /// A request that no tracker could carry out.
    #[error("{0}")]
    Invalid(String),
    /// The file system refused.
    #[error("cannot {action} {path}: {message}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: String,
        /// What the system said.
        message: String,
    },
}

impl TrackerError {
    /// The stable code of 0.1.0 (smol-symphony contract §1.4).
    pub fn code(&self) -> &'static str {
        match self {
            Self::RootRead { .. } => "local_root_read_error",
            Self::NotFound(_) => "local_issue_not_found",
            Self::Ambiguous { .. } => "local_issue_ambiguous",
            Self::TargetExists(_) => "local_issue_target_exists",
            Self::Elsewhere { .. } | Self::Io { .. } => "local_issue_move_error",
            Self::Invalid(_) => "local_issue_invalid",
        }
    }
}
