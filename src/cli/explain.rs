//! `symphony explain`: asks the symphony that runs on a workflow, and says what it answers.
//!
//! Exit codes: 0 answered; 1 no symphony runs there, or it does not answer; 2 wrong usage, or no such issue.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::running::{absolute, nobody, refuse};
use super::text;
use crate::log::harmless;
use crate::operator::{AskError, Place, ask, is_same_file};

/// What to explain, of which workflow.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 answered; 1 no symphony runs on this workflow, or it does not answer;\n2 wrong usage, or no such issue."
)]
pub struct Explain {
    /// Identifier, id or file of the issue; without it, all that are not running fine.
    pub issue: Option<String>,
    /// The workflow that the symphony runs.
    #[arg(long, value_name = "PATH", default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
    /// The answer as JSON.
    #[arg(long)]
    pub json: bool,
}

impl Explain {
    /// Asks, prints, and says how it went.
    pub fn run(&self) -> ExitCode {
        let workflow = match absolute(&self.workflow) {
            Ok(workflow) => workflow,
            Err(error) => return refuse(2, &format!("cannot use {}: {error}", self.workflow.display()), None),
        };
        let dir = workflow.parent().unwrap_or(Path::new("/"));
        let answer = match ask(&Place::of(dir), self.issue.as_deref()) {
            Ok(answer) => answer,
            Err(AskError::Nobody(socket)) => return nobody(&workflow, dir, &socket),
            Err(AskError::Refused(refusal)) => {
                let code = if refusal.code == "no-such-issue" { 2 } else { 1 };
                return refuse(code, &refusal.message, Some(&refusal.hint));
            }
            Err(error) => return refuse(1, &error.to_string(), None),
        };
        if !is_same_file(&workflow, Path::new(&answer.workflow)) {
            let message = format!("no symphony runs on {}", workflow.display());
            let hint = format!("the one in this directory runs {}; ask it with --workflow", answer.workflow);
            return refuse(1, &message, Some(&hint));
        }
        let lines = match (self.json, &self.issue) {
            (true, _) => {
                let json = serde_json::to_string_pretty(&answer).expect("strings, numbers and lists are JSON");
                json.lines().map(str::to_owned).collect()
            }
            (false, None) => text::overview(&answer),
            (false, Some(_)) => text::details(&answer, Timestamp::now()),
        };
        // What agents and issues wrote is in it: nothing of it may reach the terminal as an instruction.
        let text: String = lines.iter().map(|line| harmless(line) + "\n").collect();
        let _ = std::io::stdout().write_all(text.as_bytes());
        ExitCode::SUCCESS
    }
}
