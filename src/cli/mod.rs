//! The command line (0.1.0 §1.1): a path, a port, help; unknown flags are refused.

use std::path::PathBuf;

use clap::Parser;

/// Runs coding agents on the issues of a workflow, each in its own sandbox, and hands back patches.
#[derive(Debug, Parser)]
#[command(
    name = "symphony",
    version,
    after_help = "Exit codes: 0 stopped or finished; 1 start-up failed; 2 wrong usage, no workflow file or tracker;\n3 (--once) something waits for a human or was parked.\nSYMPHONY_LOG_LEVEL=debug|info|warn|error sets how much is logged on stderr."
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_defaults_and_the_port_has_three_spellings() {
        let parse = |args: &[&str]| Arguments::try_parse_from([&["symphony"], args].concat());
        let plain = parse(&[]).expect("no arguments is fine");
        assert_eq!((plain.workflow.to_str(), plain.port, plain.once), (Some("WORKFLOW.md"), None, false));
        for args in [&["-p", "80"][..], &["--port", "80"], &["--port=80"]] {
            assert_eq!(parse(args).expect("valid").port, Some(80));
        }
        for args in [&["--port"][..], &["--port", "80abc"], &["-x"], &["a.md", "b.md"]] {
            assert_eq!(parse(args).expect_err("refused").exit_code(), 2, "{args:?}");
        }
    }
}
