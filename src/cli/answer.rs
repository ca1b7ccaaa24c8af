//! `symphony answer`: a person's answer to the question of an agent.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::words::{Errand, Words};

/// Whose question, of which workflow, and the answer.
#[derive(Debug, Args)]
#[command(
    after_help = "While no symphony runs on the workflow, the answer is kept for its next start.\nExit codes: 0 accepted; 1 not accepted, or symphony does not answer; 2 wrong usage, or no such issue."
)]
pub struct Answer {
    /// Identifier, id or file of the issue.
    pub issue: String,
    /// The answer; from standard input when it is absent or `-`.
    pub text: Option<String>,
    /// Only if this question is the open one: its number in the API.
    #[arg(long, value_name = "NUMBER")]
    pub question: Option<u64>,
    /// The workflow that the symphony runs.
    #[arg(long, value_name = "PATH", default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
}

impl Answer {
    /// Hands it over, and says how it went.
    pub fn run(&self) -> ExitCode {
        let errand = Errand::Answer { question: self.question };
        Words { issue: &self.issue, text: self.text.as_deref(), workflow: &self.workflow, errand }.deliver()
    }
}
