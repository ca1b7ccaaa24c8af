//! `symphony say`: a person's words for an agent that asked nothing.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::words::{Errand, Words};

/// To whose agent, of which workflow, what and when.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --now the words go with the agent's next prompt, and nothing is interrupted. An agent that does not\nwork now gets them with its next run; so does one of a workflow that no symphony runs.\nExit codes: 0 accepted; 1 not accepted, or symphony does not answer; 2 wrong usage, or no such issue."
)]
pub struct Say {
    /// Identifier, id or file of the issue.
    pub issue: String,
    /// The words; from standard input when they are absent or `-`.
    pub text: Option<String>,
    /// Cancels the turn under way, and prompts with the words at once.
    #[arg(long)]
    pub now: bool,
    /// The workflow that the symphony runs.
    #[arg(long, value_name = "PATH", default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
}

impl Say {
    /// Hands them over, and says how it went.
    pub fn run(&self) -> ExitCode {
        let errand = Errand::Say { now: self.now };
        Words { issue: &self.issue, text: self.text.as_deref(), workflow: &self.workflow, errand }.deliver()
    }
}
