//! The command line (0.1.0 §1.1): a path, a port, help; unknown flags are refused. Beside it, questions to a
//! running symphony, words for its agents, and questions to the machine.

mod answer;
mod asleep;
mod doctor;
mod egress;
mod explain;
mod gc;
mod journal;
mod log;
mod raise;
mod running;
mod say;
mod text;
mod words;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::log::harmless;

pub use answer::Answer;
pub use doctor::Doctor;
pub use egress::Egress;
pub use explain::Explain;
pub use gc::Gc;
pub use journal::Journal;
pub use log::Log;
pub use raise::Raise;
pub use say::Say;

/// Runs coding agents on the issues of a workflow, each in its own sandbox, and hands back patches.
#[derive(Debug, Parser)]
#[command(
    name = "symphony",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "A workflow file that is called like a command needs a path: `symphony ./explain`.\n\nExit codes: 0 stopped or finished; 1 start-up failed; 2 wrong usage, no workflow file or tracker;\n3 (--once) something waits for a human or was parked.\nSYMPHONY_LOG_LEVEL=debug|info|warn|error sets how much is logged on stderr."
)]
pub struct Arguments {
    /// The workflow to run.
    #[arg(default_value = "WORKFLOW.md")]
    pub workflow: PathBuf,
    /// Dashboard port, instead of `server.port`; 0 takes any free one.
    #[arg(short, long)]
    pub port: Option<u32>,
    /// Exit when nothing is left to do: 0 when everything is finished, 3 when something waits for a human.
    #[arg(long)]
    pub once: bool,
    /// Something else instead.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

impl Arguments {
    /// What to say when the path is a word that nobody would call a file, and no such file is there: a command was meant.
    pub fn unknown_command(&self) -> Option<String> {
        let word = self.workflow.to_str().filter(|word| !word.is_empty() && !word.contains(['/', '.']))?;
        // `symphony -- explain` means the file.
        let is_known = Self::command().find_subcommand(word).is_some();
        let is_meant = self.verb.is_none() && !is_known && std::fs::symlink_metadata(&self.workflow).is_err();
        is_meant.then(|| format!("there is no command `{}`; see --help", harmless(word)))
    }
}

/// What can be asked of a running symphony and of the machine, and told to agents.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Says why an issue does not run, or lists all that are not running fine.
    Explain(Explain),
    /// Answers the question of an agent.
    Answer(Answer),
    /// Tells an agent something that it did not ask.
    Say(Say),
    /// Allows more of the budget that an issue was put aside for.
    Raise(Raise),
    /// Shows what an agent was told, said, thought and did.
    Log(Log),
    /// Tries every sandbox runtime on this machine, and says what each enforces.
    Doctor(Doctor),
    /// Lists what symphony keeps, and removes what nobody needs any more.
    Gc(Gc),
    /// Lists hosts that agents asked for, and decides about them.
    Egress(Egress),
    /// Checks, exports or compacts the record of what symphony did.
    Journal(Journal),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["symphony"], args].concat())
    }

    #[test]
    fn the_path_defaults_and_the_port_has_three_spellings() {
        let plain = parse(&[]).expect("no arguments is fine");
        assert_eq!((plain.workflow.to_str(), plain.port, plain.once), (Some("WORKFLOW.md"), None, false));
        for args in [&["-p", "80"][..], &["--port", "80"], &["--port=80"]] {
            assert_eq!(parse(args).expect("valid").port, Some(80));
        }
        for args in [&["--port"][..], &["--port", "80abc"], &["-x"], &["a.md", "b.md"]] {
            assert_eq!(parse(args).expect_err("refused").exit_code(), 2, "{args:?}");
        }
    }

    #[test]
    fn a_command_is_one_only_in_the_first_place_and_without_a_path() {
        assert!(matches!(parse(&["explain"]).expect("valid").verb, Some(Verb::Explain(_))));
        assert!(matches!(parse(&["doctor", "--json"]).expect("valid").verb, Some(Verb::Doctor(_))));
        assert!(matches!(parse(&["journal", "check"]).expect("valid").verb, Some(Verb::Journal(_))));
        for (args, workflow) in [
            (&["./explain"][..], "./explain"),
            (&["help"], "help"),
            (&["explian"], "explian"),
            (&["--", "explain"], "explain"),
            (&["--once", "explain"], "explain"),
        ] {
            let parsed = parse(args).expect("a path");
            assert_eq!((parsed.workflow.to_str(), parsed.verb.is_none()), (Some(workflow), true), "{args:?}");
            let is_word = ["help", "explian"].contains(&workflow);
            assert_eq!(parsed.unknown_command().is_some(), is_word, "{args:?}");
        }
        for args in [&["a.md", "explain"][..], &["explain", "A", "B"], &["explain", "--once"], &["journal"]] {
            assert_eq!(parse(args).expect_err("refused").exit_code(), 2, "{args:?}");
        }
    }
}
