//! What agents ask and what humans say: questions and letters, as plain data.
//!
//! A **letter** is a human's words on their way to the agent of one issue: the answer to a question, or a message
//! that nobody asked for. It is *handed* with a prompt and *taken* when that turn has ended; one that was handed to
//! a run that died is handed again. So each is in exactly one turn that ended.

use jiff::Timestamp;

use crate::ids::RunId;

/// What an agent asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Markdown written by the agent.
    pub question: String,
    /// What the agent adds, Markdown.
    pub context: Option<String>,
}

/// A question that nobody has answered yet. An issue has at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenQuestion {
    /// Its number; never used again.
    pub id: u64,
    /// The run that asked. It need not live any more.
    pub run: RunId,
    /// What is asked.
    pub asked: Asked,
    /// When.
    pub asked_at: Timestamp,
    /// What counts as the answer when nobody gives one by then.
    pub default: Option<Default>,
}

/// An answer for want of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Default {
    /// When it counts.
    pub at: Timestamp,
    /// The answer.
    pub text: String,
}

/// A human's words for an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its number; letters are handed in this order.
    pub id: u64,
    /// The question that it answers; `None` for a message.
    pub answers: Option<Asked>,
    /// The words.
    pub text: String,
    /// Which way they came.
    pub by: By,
    /// When they were accepted.
    pub at: Timestamp,
}

/// The way words came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A form of the dashboard.
    Dashboard,
    /// The HTTP interface.
    Api,
    /// The command line.
    Cli,
    /// Nobody: the time to answer was over.
    Deadline,
}

impl By {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Dashboard, Self::Api, Self::Cli, Self::Deadline];

    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboard",
            Self::Api => "api",
            Self::Cli => "cli",
            Self::Deadline => "deadline",
        }
    }

    /// The way of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == word)
    }
}
