//! Calls of the `smolvm` program: bounded in time and output, with nothing of our environment that it does not need.
//! What it says is read, never trusted to be short; arguments never hold a secret.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::machine::{Name, Row};
use super::place::Place;
use super::{QUICK, STARTING, STOPPING};
use crate::process::{Finished, Outcome, Program, Sink};

/// Longest list of machines that is read.
const LONGEST_LIST: usize = 4 << 20;
/// What of its words goes into a message.
const EXCERPT: usize = 600;
/// Seconds that a machine gets to stop by itself.
const STOP_SECONDS: &str = "5";

/// The program, and how to call it.
#[derive(Clone, Debug)]
pub(super) struct Cli {
    bin: PathBuf,
    /// Errors as JSON: newer than the oldest version we take.
    json_errors: bool,
    env: Vec<(&'static str, OsString)>,
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// smolvm's own word for it, where it gave one.
    pub(super) code: String,
    /// What it said.
    pub(super) message: String,
    /// It does not know an argument: it is too old, or too new.
    pub(super) usage: bool,
    /// It was cut off at its deadline.
    pub(super) timed_out: bool,
}

impl Failure {
    /// The same, with more words.
    pub(super) fn and(mut self, more: &str) -> Self {
        if !more.is_empty() {
            self.message = format!("{}; {more}", self.message);
        }
        self
    }

    /// Whether what was asked about does not exist.
    pub(super) fn is_not_found(&self) -> bool {
        self.code == "NOT_FOUND" || self.message.to_lowercase().contains("not found")
    }
}

impl Cli {
    pub(super) fn new(bin: PathBuf) -> Self {
        let mut env = Vec::new();
        // `HOME` for registry logins; the other two tell where an unpacked smolvm has its parts.
        for name in ["HOME", "SMOLVM_LIB_DIR", "SMOLVM_AGENT_ROOTFS", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                env.push((name, value));
            }
        }
        // Started by root, smolvm would run each machine as a user that may not enter our private directories.
        if rustix::process::geteuid().is_root() {
            env.push(("SMOLVM_VM_UID_DROP", "off".into()));
        }
        Self { bin, json_errors: false, env }
    }

    pub(super) fn with_json_errors(mut self, json_errors: bool) -> Self {
        self.json_errors = json_errors;
        self
    }

    /// The same program, on our own machines only.
    pub(super) fn in_place(mut self, place: &Place) -> Self {
        self.env.push(("SMOLVM_DATA_DIR", place.data().as_os_str().to_owned()));
        self
    }

    pub(super) fn bin(&self) -> &Path {
        &self.bin
    }

    pub(super) fn env(&self) -> &[(&'static str, OsString)] {
        &self.env
    }

    /// The arguments, with what makes errors readable; it must stand before any `--`.
    pub(super) fn arguments<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Vec<OsString> {
        let mut all: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        if self.json_errors {
            let at = all.iter().position(|arg| arg == "--").unwrap_or(all.len());
            all.splice(at..at, ["--error-format".into(), "json".into()]);
        }
        all
    }

    /// Runs it to its end with nothing to read, in a group of its own. The environment is empty but for what we set: above
    /// all without `SMOLVM_BOOT_BINARY`, with which machines die with the call that starts them.
    pub(super) async fn run<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        deadline: Duration,
        sink: Sink,
    ) -> Finished {
        let mut program = Program::new(&self.bin).args(self.arguments(args)).cwd(Path::new("/")).sink(sink);
        for (name, value) in &self.env {
            program = program.env(name, value);
        }
        program.run(deadline).await
    }

    /// Its standard output, when it succeeds.
    pub(super) async fn call<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
        deadline: Duration,
    ) -> Result<String, Failure> {
        let finished = self.run(args, deadline, Sink::Whole(LONGEST_LIST)).await;
        match finished.outcome {
            Outcome::Exited(0) => Ok(finished.stdout.text()),
            outcome => Err(failure(&outcome, &finished.stderr.excerpt(64 * 1024), deadline)),
        }
    }

    /// Every machine in the data directory.
    pub(super) async fn machines(&self) -> Result<Vec<Row>, Failure> {
        let listed = self.call(["machine", "ls", "--json"], QUICK).await?;
        Row::list(&listed).ok_or_else(|| Failure {
            code: String::new(),
            message: "its list of machines cannot be read".to_owned(),
            usage: false,
            timed_out: false,
        })
    }

    /// Starts a machine. Now and then smolvm waits for ever for one that is up: then it is stopped and tried again, and
    /// the last try has all the time there is.
    pub(super) async fn start(&self, name: &Name, deadline: Duration) -> Result<(), Failure> {
        let start = ["machine", "start", "--name", name.as_str()];
        for _ in 0..2 {
            match self.call(start, (deadline / 4).min(STARTING)).await {
                Err(error) if error.timed_out => {
                    tracing::warn!(machine = name.as_str(), "a machine did not start in time; it is tried once more");
                    self.stop(name).await?;
                }
                other => return other.map(drop),
            }
        }
        self.call(start, deadline).await.map(drop)
    }

    /// Where smolvm keeps a machine that exists; asked of one that does not, it would make a stray directory.
    pub(super) async fn directory(&self, name: &Name) -> Option<PathBuf> {
        let said = self.call(["machine", "data-dir", "--name", name.as_str()], QUICK).await.ok()?;
        let dir = PathBuf::from(said.trim());
        let data = self.env.iter().find(|(name, _)| *name == "SMOLVM_DATA_DIR").map(|(_, value)| value)?;
        // A path of another place is no path of ours, whoever says so.
        dir.starts_with(data).then_some(dir)
    }

    /// Stops a machine, also one that smolvm believes was never started. One that is gone is stopped.
    pub(super) async fn stop(&self, name: &Name) -> Result<(), Failure> {
        match self.call(["machine", "stop", "--name", name.as_str(), "-t", STOP_SECONDS], STOPPING).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) if error.usage => {
                // Older ones have no `-t`.
                self.call(["machine", "stop", "--name", name.as_str()], STOPPING).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Stops a machine by a program that outlives us. For places that cannot wait.
    pub(super) fn stop_detached(&self, name: &Name) {
        let mut command = tokio::process::Command::new(&self.bin);
        command.args(["machine", "stop", "--name", name.as_str()]).env_clear().current_dir("/").process_group(0);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Without a runtime nobody could reap it; the next start finds the machine and stops it.
        if tokio::runtime::Handle::try_current().is_ok()
            && let Err(error) = command.spawn()
        {
            tracing::warn!(machine = name.as_str(), %error, "a machine could not be stopped; the next start stops it");
        }
    }
}

fn failure(outcome: &Outcome, stderr: &str, deadline: Duration) -> Failure {
    let said = stderr.lines().rev().find_map(|line| {
        let error = serde_json::from_str::<Value>(line.trim()).ok()?.get("error")?.clone();
        let part = |key| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some((part("code"), part("message")))
    });
    let (code, words) = said.unwrap_or_else(|| (String::new(), stderr.trim().to_owned()));
    let words: String = words.chars().take(EXCERPT).collect();
    let message = match outcome {
        Outcome::TimedOut => format!("smolvm did not answer within {} s: {words}", deadline.as_secs()),
        Outcome::CouldNotStart(error) => format!("smolvm cannot be started: {error}"),
        Outcome::Signalled(signal) => format!("smolvm was killed by signal {signal}: {words}"),
        Outcome::Exited(_) if words.is_empty() => "smolvm failed and said nothing".to_owned(),
        Outcome::Exited(_) => words,
    };
    Failure { code, message, usage: *outcome == Outcome::Exited(2), timed_out: *outcome == Outcome::TimedOut }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_from_json_and_from_plain_words() {
        let json = "note: something\n{\"error\":{\"code\":\"NOT_FOUND\",\"message\":\"vm not found: nope\"}}\n";
        let read = failure(&Outcome::Exited(1), json, QUICK);
        assert_eq!((read.code.as_str(), read.message.as_str(), read.usage), ("NOT_FOUND", "vm not found: nope", false));
        assert!(read.is_not_found());
        let plain = failure(&Outcome::Exited(2), "error: unexpected argument 'bad' found\n", QUICK);
        assert!(plain.usage && plain.message.contains("unexpected argument"));
        let long = failure(&Outcome::Exited(1), &"x".repeat(10_000), QUICK);
        assert_eq!(long.message.len(), EXCERPT);
    }

    #[test]
    fn the_error_format_is_asked_for_before_the_machine_s_own_command() {
        let cli = Cli::new("smolvm".into()).with_json_errors(true);
        let all = cli.arguments(["machine", "create", "--", "sleep", "infinity"]);
        assert_eq!(all, ["machine", "create", "--error-format", "json", "--", "sleep", "infinity"]);
    }
}
