//! A person's words on their way from the command line: to the symphony that runs, or to the journal of one that does
//! not.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::asleep;
use super::running::{absolute, may_run, nobody, refuse};
use crate::log::harmless;
use crate::operator::{AskError, Place, Request, VERSION, tell};

/// The dashboard's limit, less what the request holds beside the words.
const MAX_TEXT: u64 = 990_000;

/// What the words are for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Errand {
    /// The answer to a question.
    Answer {
        /// Only to this one.
        question: Option<u64>,
    },
    /// Something that nobody asked.
    Say {
        /// Cancels the turn under way.
        now: bool,
    },
}

/// Words for the agent of one issue.
pub(super) struct Words<'a> {
    pub(super) issue: &'a str,
    pub(super) text: Option<&'a str>,
    pub(super) workflow: &'a Path,
    pub(super) errand: Errand,
}

/// Why words were not taken, with the exit code and a hint.
pub(super) struct Refused {
    pub(super) code: u8,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Words<'_> {
    pub(super) fn deliver(&self) -> ExitCode {
        let workflow = match absolute(self.workflow) {
            Ok(workflow) => workflow,
            Err(error) => return refuse(2, &format!("cannot use {}: {error}", self.workflow.display()), None),
        };
        let text = match self.read() {
            Ok(text) => text,
            Err(why) => return refuse(2, &why, Some("say it after the issue, or on standard input")),
        };
        let dir = workflow.parent().unwrap_or(Path::new("/"));
        let (command, question, now) = match self.errand {
            Errand::Answer { question } => ("answer", question, false),
            Errand::Say { now } => ("say", None, now),
        };
        let request = Request {
            v: VERSION,
            command: command.to_owned(),
            issue: Some(self.issue.to_owned()),
            text: Some(text.clone()),
            workflow: Some(workflow.display().to_string()),
            question,
            now,
            ..Request::default()
        };
        match tell(&Place::of(dir), &request) {
            Ok(accepted) => {
                let what = match (self.errand, accepted.waits) {
                    (Errand::Answer { .. }, _) => "the answer is on its way to the agent".to_owned(),
                    (Errand::Say { .. }, Some(why)) => {
                        format!("kept for the issue's next run; none is under way: {why}")
                    }
                    (Errand::Say { now: true }, None) => {
                        "a turn under way is cancelled; the agent is prompted with it".to_owned()
                    }
                    (Errand::Say { now: false }, None) => "it goes with the agent's next prompt".to_owned(),
                };
                done(&format!("{}: {what}", accepted.identifier))
            }
            Err(AskError::Nobody(socket)) => {
                if may_run(dir) {
                    return nobody(&workflow, dir, &socket);
                }
                match asleep::keep(&workflow, dir, self.issue, text, self.errand) {
                    Ok(identifier) => done(&format!(
                        "{identifier}: kept; the agent gets it when symphony runs on this workflow again"
                    )),
                    Err(refused) => refuse(refused.code, &refused.message, refused.hint.as_deref()),
                }
            }
            Err(AskError::Refused(refusal)) => {
                let code = if refusal.code == "no-such-issue" { 2 } else { 1 };
                refuse(code, &refusal.message, Some(&refusal.hint))
            }
            Err(error @ AskError::Silent(_)) => refuse(
                1,
                &error.to_string(),
                Some("it may have been taken all the same; look before you send it again"),
            ),
            Err(error @ AskError::Place(_)) => refuse(1, &error.to_string(), None),
        }
    }

    /// From the command line, or from standard input.
    fn read(&self) -> Result<String, String> {
        let text = match self.text {
            Some(text) if text != "-" => text.to_owned(),
            _ => {
                let input = std::io::stdin();
                if input.is_terminal() {
                    let _ = std::io::stderr().write_all(b"type it, and end with ctrl-d on a line of its own\n");
                }
                let mut text = String::new();
                let read = input.lock().take(MAX_TEXT + 1).read_to_string(&mut text);
                read.map_err(|error| format!("cannot read standard input: {error}"))?;
                text
            }
        };
        match text.trim() {
            "" => Err("there are no words".to_owned()),
            words if words.len() as u64 > MAX_TEXT => Err(format!("that is longer than {MAX_TEXT} bytes")),
            words => Ok(words.to_owned()),
        }
    }
}

fn done(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(format!("{}\n", harmless(text)).as_bytes());
    ExitCode::SUCCESS
}
