//! `symphony explain`: asks the symphony that runs on a workflow, and says what it answers.
//!
//! Exit codes: 0 answered; 1 no symphony runs there, or it does not answer; 2 wrong usage, or no such issue.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;

use super::text;
use crate::layout::Layout;
use crate::lock;
use crate::log::harmless;
use crate::operator::{AskError, Place, ask};

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

/// The workflow file in its canonical directory; the file itself need not be there. A directory is that of a
/// `WORKFLOW.md`.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let mut absolute = std::path::absolute(path)?;
    if absolute.is_dir() {
        absolute.push("WORKFLOW.md");
    }
    let dir = absolute.parent().unwrap_or(Path::new("/")).canonicalize()?;
    Ok(absolute.file_name().map_or_else(|| dir.clone(), |name| dir.join(name)))
}

/// A directory has one symphony and may have several workflow files, some of them links.
fn is_same_file(asked: &Path, runs: &Path) -> bool {
    asked.file_name() == runs.file_name()
        || matches!((asked.canonicalize(), runs.canonicalize()), (Ok(asked), Ok(runs)) if asked == runs)
}

/// Nobody listens: there may be one all the same.
fn nobody(workflow: &Path, dir: &Path, socket: &Path) -> ExitCode {
    let lock = Layout::of(dir).lock();
    if let Err(error) = std::fs::metadata(&lock)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let message =
            format!("no symphony of yours listens for {}, and {}: {error}", workflow.display(), lock.display());
        return refuse(1, &message, Some("another user runs symphony in this directory, or did; ask as that user"));
    }
    match lock::holder(&lock) {
        Some(process) => refuse(
            1,
            &format!(
                "a symphony runs in {} (process {process}), but does not listen at {}",
                dir.display(),
                socket.display()
            ),
            Some(
                "another user started it, or with another XDG_RUNTIME_DIR; or it could not listen, and its log says why",
            ),
        ),
        None => refuse(
            1,
            &format!("no symphony runs on {}", workflow.display()),
            Some(&format!("start one: symphony {}", quoted(workflow))),
        ),
    }
}

/// As one types it into a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@%".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// Says why not, on stderr, and gives the exit code.
pub(super) fn refuse(code: u8, message: &str, hint: Option<&str>) -> ExitCode {
    let hint = hint.map_or(String::new(), |hint| format!("  {}\n", harmless(hint)));
    let text = format!("symphony: {}\n{hint}", harmless(message));
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
