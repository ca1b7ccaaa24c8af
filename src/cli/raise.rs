//! `symphony raise`: more of the budget that an issue waits for.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use symphony_core::spend::Unit;

use super::running::{absolute, nobody, refuse};
use crate::log::harmless;
use crate::operator::{AskError, Place, Request, VERSION, raise};

/// Of which issue, and by how much.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("amount").required(true).args(["usd", "tokens"]),
    after_help = "The budget is the one that the issue waits for: its own, the day's or the workflow's, which `symphony explain` names.\nIt goes back to work by itself, and so does every other issue that waits for the same budget. To stop it instead,\nmove its file to a finished state. WORKFLOW.md stays as it is.\nExit codes: 0 raised; 1 not raised, or symphony does not answer; 2 wrong usage, or no such issue."
)]
pub struct Raise {
    /// Identifier, id or file of the issue.
    pub issue: String,
    /// By so many US dollars: 5 or 2.50.
    #[arg(long, value_name = "AMOUNT")]
    pub usd: Option<String>,
    /// By so many tokens.
    #[arg(long, value_name = "NUMBER")]
    pub tokens: Option<String>,
    /// The workflow that the symphony runs.
    #[arg(long, value_name = "PATH", default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
}

impl Raise {
    /// Asks for it, and says how it went.
    pub fn run(&self) -> ExitCode {
        let (unit, word, amount) = match (&self.tokens, &self.usd) {
            (Some(tokens), _) => (Unit::Tokens, "tokens", tokens),
            (None, usd) => (Unit::Money, "usd", usd.as_ref().unwrap_or(&self.issue)),
        };
        if let Err(why) = unit.parse(amount) {
            return refuse(2, &format!("--{word} {amount}: {why}"), None);
        }
        let workflow = match absolute(&self.workflow) {
            Ok(workflow) => workflow,
            Err(error) => return refuse(2, &format!("cannot use {}: {error}", self.workflow.display()), None),
        };
        let dir = workflow.parent().unwrap_or(Path::new("/"));
        let request = Request {
            v: VERSION,
            command: "raise".to_owned(),
            issue: Some(self.issue.clone()),
            workflow: Some(workflow.display().to_string()),
            amount: Some(amount.clone()),
            unit: Some(word.to_owned()),
            ..Request::default()
        };
        let allowed = match raise(&Place::of(dir), &request) {
            Ok(allowed) => allowed,
            Err(AskError::Nobody(socket)) => return nobody(&workflow, dir, &socket),
            Err(AskError::Refused(refusal)) => {
                let code = if refusal.code == "no-such-issue" { 2 } else { 1 };
                return refuse(code, &refusal.message, Some(&refusal.hint));
            }
            Err(error) => return refuse(1, &error.to_string(), None),
        };
        let (issue, budget, by) = (&allowed.identifier, &allowed.budget, &allowed.raised_by);
        let text = format!("{issue}: {budget} was raised by {by}; it goes back to work by itself");
        let _ = std::io::stdout().write_all((harmless(&text) + "\n").as_bytes());
        ExitCode::SUCCESS
    }
}
