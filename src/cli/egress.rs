//! `symphony egress`: hosts that agents asked for, and a person's word about them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::running::{absolute, nobody, refuse};
use crate::log::harmless;
use crate::operator::{AskError, Done, HostRow, Hosts, Place, Request, VERSION, hosts};

/// What to do, in which workflow.
#[derive(Debug, Args)]
#[command(
    after_help = "A decision applies at once, to runs under way too: `never` also ends connections that are open. It is kept in the journal, never in WORKFLOW.md.\nExit codes: 0 done; 1 not done, or symphony does not answer; 2 wrong usage, or no such number."
)]
pub struct Egress {
    /// What to do.
    #[command(subcommand)]
    pub errand: Errand,
    /// The workflow that the symphony runs.
    #[arg(long, global = true, value_name = "PATH", default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
}

/// What can be done.
#[derive(Clone, Debug, Subcommand)]
pub enum Errand {
    /// Lists the hosts that wait for a decision, and the decisions that hold.
    List,
    /// Decides about a host that an agent asked for, also in place of what was decided before.
    Decide {
        /// The number in the list, or the host (`example.org`, `example.org:8443`).
        #[arg(value_name = "NUMBER|HOST")]
        which: String,
        /// Whom it is allowed, if anybody.
        verb: Word,
    },
    /// Takes a decision back; connections that are open go on.
    Forget {
        /// The number in the list.
        number: u64,
    },
}

/// A person's word.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Word {
    /// The next connection of that issue.
    Once,
    /// Every connection of that issue.
    Issue,
    /// Every issue.
    Always,
    /// No issue, and nobody is asked again.
    Never,
}

impl Egress {
    /// Asks, prints, and says how it went.
    pub fn run(&self) -> ExitCode {
        let workflow = match absolute(&self.workflow) {
            Ok(workflow) => workflow,
            Err(error) => return refuse(2, &format!("cannot use {}: {error}", self.workflow.display()), None),
        };
        let dir = workflow.parent().unwrap_or(Path::new("/"));
        let word = |word: Word| word.to_possible_value().map(|word| word.get_name().to_owned());
        let number = |which: &str| which.trim().parse::<u64>().ok();
        let (command, number, host, verb) = match &self.errand {
            Errand::List => ("egress", None, None, None),
            Errand::Decide { which, verb } => {
                let host = number(which).is_none().then(|| which.clone());
                ("egress-decide", number(which), host, word(*verb))
            }
            Errand::Forget { number } => ("egress-forget", Some(*number), None, None),
        };
        let request = Request {
            v: VERSION,
            command: command.to_owned(),
            workflow: Some(workflow.display().to_string()),
            number,
            host,
            verb,
            ..Request::default()
        };
        let answer = match hosts(&Place::of(dir), &request) {
            Ok(answer) => answer,
            Err(AskError::Nobody(socket)) => return nobody(&workflow, dir, &socket),
            Err(AskError::Refused(refusal)) => {
                let code = if refusal.code == "no-such-number" { 2 } else { 1 };
                return refuse(code, &refusal.message, Some(&refusal.hint));
            }
            Err(error) => return refuse(1, &error.to_string(), None),
        };
        let lines = match (&self.errand, &answer.done) {
            (Errand::List, _) => listed(&answer),
            (Errand::Decide { .. }, Some(Done { words, take_back })) => {
                vec![format!("{words}; take back: {take_back}")]
            }
            (Errand::Decide { which, .. }, None) => vec![format!("{which}: decided")],
            (Errand::Forget { number }, _) => vec![format!("{number}: forgotten")],
        };
        let text: String = lines.iter().map(|line| harmless(line) + "\n").collect();
        let _ = std::io::stdout().write_all(text.as_bytes());
        ExitCode::SUCCESS
    }
}

fn listed(answer: &Hosts) -> Vec<String> {
    let row = |row: &HostRow, what: String| format!("  {:<6} {}  {what}", row.number, row.host);
    let mut lines = vec![format!("waiting ({})", answer.asked.len())];
    lines.extend(answer.asked.iter().map(|asked| {
        let times = if asked.times == 1 { "once".to_owned() } else { format!("{} times", asked.times) };
        row(asked, format!("{} asked {times}", asked.issue))
    }));
    lines.push(format!("decided ({})", answer.decided.len()));
    lines.extend(answer.decided.iter().map(|decided| {
        let verb = decided.verb.as_deref().unwrap_or_default();
        row(decided, format!("{verb}, asked by {}", decided.issue))
    }));
    lines
}
