//! What an agent is told: the workflow's strict Liquid template, and the fixed later prompts.
//!
//! A name that does not exist is an error wherever it stands (C58). Text of an issue is only ever a
//! value, never a template (C235). No file is read: `include` and `render` are refused.

mod bounds;
mod counted;
mod engine;
mod filters;
mod later;
mod loops;
mod resumed;
mod sample;
mod shape;
#[cfg(test)]
mod tests;
mod watched;

use std::panic::{AssertUnwindSafe, catch_unwind};

use liquid_core::{Object, Value};

use crate::issue::Issue;
use crate::workflow::{Problem, States};

pub use bounds::MAX_FILLED;
pub use later::{continuation, letters};
pub use resumed::{Task, resumed};

/// Used when the workflow has no body (C62).
pub const DEFAULT: &str = "\
You are working on the issue {{ issue.identifier }}: {{ issue.title }}
{% if issue.description %}
{{ issue.description }}
{% endif %}";

/// A parsed template.
pub struct Prompt {
    template: liquid_core::Template,
    text: String,
    longest_tag: usize,
}

/// Why this run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryKind {
    /// The previous run ended without finishing the issue.
    Continuation,
    /// The previous run failed.
    Failure,
}

/// What the template learns about earlier runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// `None` on a first run, else 1-based (C64).
    pub number: Option<u32>,
    /// `None` on a first run.
    pub retry_kind: Option<RetryKind>,
    /// How the previous run ended, in words.
    pub last_end: Option<String>,
    /// What it left, in words; `None` when that is not known.
    pub last_left: Option<String>,
}

/// A template that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// Not Liquid, or a tag or filter that does not exist.
    #[error("the prompt cannot be read, line {line}: {message}")]
    Parse {
        /// 1-based line of the template.
        line: u32,
        /// What is wrong.
        message: String,
    },
    /// A name or a value that did not work out.
    #[error("the prompt cannot be filled in, line {line}: {message}")]
    Render {
        /// 1-based line of the template, as far as it can be told.
        line: u32,
        /// What is wrong.
        message: String,
    },
}

impl PromptError {
    /// The stable code of 0.1.0.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Parse { .. } => "template_parse_error",
            Self::Render { .. } => "template_render_error",
        }
    }
}

impl Prompt {
    /// Reads a template; a blank one is [`DEFAULT`].
    ///
    /// # Errors
    /// [`PromptError::Parse`] with the line of `text`.
    pub fn parse(text: &str) -> Result<Self, PromptError> {
        let text = if text.trim().is_empty() { DEFAULT } else { text };
        let shape = shape::of(text).map_err(|(line, message)| PromptError::Parse { line, message })?;
        // The engine panics on a whole number that does not fit 64 bits.
        let parsed = catch_unwind(AssertUnwindSafe(|| engine::parse(text)));
        match parsed {
            Ok(Ok(template)) => Ok(Self { template, text: text.to_owned(), longest_tag: shape.longest_tag }),
            Ok(Err(error)) => {
                let (line, message) = engine::explain(&error.to_string(), text);
                Err(PromptError::Parse { line, message })
            }
            Err(_) => Err(PromptError::Parse { line: 1, message: "a number in it is too large".to_owned() }),
        }
    }

    /// Fills the template in for one run. An agent always learns how the last run ended and what it left: a
    /// template that does not name `last_end` gets a paragraph at its end.
    ///
    /// # Errors
    /// [`PromptError::Render`]; it fails the attempt and is retried like any failure (C65).
    pub fn render(&self, issue: &Issue, attempt: &Attempt) -> Result<String, PromptError> {
        self.fill(issue, attempt).1
    }

    /// [`Prompt::render`], and what it cost.
    fn fill(&self, issue: &Issue, attempt: &Attempt) -> (u64, Result<String, PromptError>) {
        let scope = scope(issue, attempt);
        let mut page = bounds::Page::default();
        let filled =
            catch_unwind(AssertUnwindSafe(|| engine::fill(&self.template, self.longest_tag, &scope, &mut page)));
        // The engine's arithmetic filters panic on overflow.
        let Ok((cost, filled)) = filled else {
            let message = "a calculation in it went wrong".to_owned();
            return (0, Err(PromptError::Render { line: 1, message }));
        };
        let said = match filled {
            _ if page.full => Err((1, format!("it is longer than {MAX_FILLED} bytes"))),
            Ok(()) => {
                let mut text = String::from_utf8_lossy(&page.text).into_owned();
                if !self.text.contains("last_end") {
                    later::about_last_run(&mut text, attempt);
                }
                Ok(text)
            }
            Err(error) => Err(engine::explain(&error.to_string(), &self.text)),
        };
        (cost, said.map_err(|(line, message)| PromptError::Render { line, message }))
    }

    /// Fills the template in for every declared state, for first, continued and repeated runs, and for
    /// issues with and without optional fields, so that a mistake shows when the file is saved.
    pub fn check(&self, states: &States, first_line: u32) -> Vec<Problem> {
        sample::check(self, states, first_line)
    }

    /// [`Prompt::parse`] and [`Prompt::check`] as problems of a workflow whose prompt starts at `first_line`.
    pub fn problems(text: &str, first_line: u32, states: &States) -> Vec<Problem> {
        match Self::parse(text) {
            Ok(prompt) => prompt.check(states, first_line),
            Err(error) => vec![sample::problem(&error, first_line)],
        }
    }
}

fn text(value: &str) -> Value {
    Value::scalar(value.to_owned())
}

fn maybe(value: Option<&str>) -> Value {
    value.map_or(Value::Nil, text)
}

fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Object {
    fields.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

/// The names a template knows (contract §1.3, C9, C64).
fn scope(issue: &Issue, attempt: &Attempt) -> Object {
    let kind = attempt.retry_kind.map(|kind| match kind {
        RetryKind::Continuation => "continuation",
        RetryKind::Failure => "failure",
    });
    object([
        ("issue", Value::Object(issue_object(issue))),
        ("attempt", attempt.number.map_or(Value::Nil, |number| Value::scalar(i64::from(number)))),
        ("retry_kind", maybe(kind)),
        ("last_end", maybe(attempt.last_end.as_deref())),
        ("last_left", maybe(attempt.last_left.as_deref())),
    ])
}

fn issue_object(issue: &Issue) -> Object {
    let instant = |at: Option<jiff::Timestamp>| at.map_or(Value::Nil, |at| text(&at.to_string()));
    let blockers = issue.blocked_by.iter().map(|blocker| {
        Value::Object(object([
            ("id", maybe(blocker.id.as_ref().map(|id| id.0.as_str()))),
            ("identifier", text(&blocker.identifier.0)),
            ("state", maybe(blocker.state.as_ref().map(|state| state.as_str()))),
        ]))
    });
    object([
        ("id", text(&issue.id.0)),
        ("native_ref", text(&issue.file)),
        ("identifier", text(&issue.identifier.0)),
        ("title", text(&issue.title)),
        ("description", maybe(issue.description.as_deref())),
        ("priority", issue.priority.map_or(Value::Nil, Value::scalar)),
        ("state", text(issue.state.as_str())),
        ("branch_name", maybe(issue.branch_name.as_deref())),
        ("url", maybe(issue.url.as_deref())),
        ("assignee_id", maybe(issue.assignee_id.as_deref())),
        ("labels", Value::Array(issue.labels.iter().map(|label| text(label)).collect())),
        ("blocked_by", Value::Array(blockers.collect())),
        ("dispatchable", Value::scalar(issue.dispatchable)),
        ("created_at", instant(issue.created_at)),
        ("updated_at", instant(issue.updated_at)),
    ])
}
