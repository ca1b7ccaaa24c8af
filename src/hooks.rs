//! The operator's hooks: shell scripts that run on the host, in the workspace.
//!
//! A hook has symphony's own environment, what it should know about the run, and git overrides, so
//! that no repository's hook runs by accident. Its whole process group ends at the deadline, and its
//! output goes to the run's log. What an outcome means is the caller's decision (C145..C148).

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::git;
use crate::process::{Finished, Outcome, Program};

/// Of a hook's output, so much stands in an error or a log line (C149), in bytes.
const EXCERPT_BYTES: usize = 2048;

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Once, when the workspace is made; failure unmakes it.
    AfterCreate,
    /// Before each run; failure fails the run.
    BeforeRun,
    /// After each run for which `before_run` was started; failure is logged only.
    AfterRun,
    /// Before the workspace is removed; failure is logged only.
    BeforeRemove,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfterCreate => "after_create",
            Self::BeforeRun => "before_run",
            Self::AfterRun => "after_run",
            Self::BeforeRemove => "before_remove",
        })
    }
}

/// What a hook is told in its environment.
#[derive(Clone, Debug, Default)]
pub struct HookEnv {
    /// `SYMPHONY_ISSUE_ID`
    pub issue_id: String,
    /// `SYMPHONY_ISSUE_IDENTIFIER`
    pub identifier: String,
    /// `SYMPHONY_ISSUE_STATE`
    pub state: String,
    /// `SYMPHONY_ATTEMPT`, empty on a first attempt.
    pub attempt: Option<u32>,
    /// `SYMPHONY_WORKFLOW`, the absolute path of the workflow file.
    pub workflow: String,
    /// `SYMPHONY_RUN_ID`, empty outside a run.
    pub run: Option<u64>,
    /// `SYMPHONY_OUTCOME`, set for `after_run` only.
    pub outcome: Option<String>,
}

impl HookEnv {
    fn variables(&self) -> Vec<(&'static str, String)> {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let mut all = vec![
            ("SYMPHONY_ISSUE_ID", self.issue_id.clone()),
            ("SYMPHONY_ISSUE_IDENTIFIER", self.identifier.clone()),
            ("SYMPHONY_ISSUE_STATE", self.state.clone()),
            ("SYMPHONY_ATTEMPT", number(self.attempt.map(u64::from))),
            ("SYMPHONY_WORKFLOW", self.workflow.clone()),
            ("SYMPHONY_RUN_ID", number(self.run)),
        ];
        if let Some(outcome) = &self.outcome {
            all.push(("SYMPHONY_OUTCOME", outcome.clone()));
        }
        // A NUL cannot stand in an environment; the tracker allows none, this makes sure.
        all.into_iter().map(|(name, value)| (name, value.replace('\0', ""))).collect()
    }
}

/// How a hook failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// It ended with another code than 0.
    #[error("hook {hook} ended with code {code}: {output}")]
    Failed {
        /// Which.
        hook: Hook,
        /// Exit code.
        code: i32,
        /// Shortened.
        output: String,
    },
    /// It was killed by somebody else.
    #[error("hook {hook} was ended by signal {signal}: {output}")]
    Signalled {
        /// Which.
        hook: Hook,
        /// Signal.
        signal: i32,
        /// Shortened.
        output: String,
    },
    /// It and everything it started were ended at the deadline.
    #[error("hook {hook} did not end within hooks.timeout_ms ({after_ms} ms): {output}")]
    TimedOut {
        /// Which.
        hook: Hook,
        /// The deadline in milliseconds.
        after_ms: u128,
        /// Shortened.
        output: String,
    },
    /// There is no shell, or no workspace.
    #[error("hook {hook} could not start: {message}")]
    CouldNotStart {
        /// Which.
        hook: Hook,
        /// What the system said.
        message: String,
    },
}

/// Everything one hook needs.
#[derive(Clone, Copy, Debug)]
pub struct HookRun<'a> {
    /// Which.
    pub hook: Hook,
    /// The script, run as `sh -lc <script>`.
    pub script: &'a str,
    /// The workspace; the script starts in it.
    pub workspace: &'a Path,
    /// What it is told.
    pub env: &'a HookEnv,
    /// `hooks.timeout_ms`
    pub deadline: Duration,
    /// The run's log on the host; output is appended, capped at 64 KiB a stream.
    pub log: Option<&'a Path>,
}

impl HookRun<'_> {
    /// Runs the hook to its end.
    ///
    /// # Errors
    /// Anything but exit code 0, by the deadline.
    pub async fn run(self) -> Result<(), HookError> {
        let hook = self.hook;
        tracing::info!(%hook, issue_id = %self.env.issue_id, issue_identifier = %self.env.identifier, "hook started");
        let mut program = Program::new("sh").args(["-lc", self.script]).cwd(self.workspace).own_environment().leashed();
        for name in git::REPOSITORY_VARIABLES {
            program = program.without_env(name);
        }
        let inherited = std::env::var("GIT_CONFIG_COUNT").ok();
        for (name, value) in git::overrides_for_hooks(inherited.as_deref()) {
            program = program.env(name, value);
        }
        for (name, value) in self.env.variables() {
            program = program.env(name, value);
        }
        // `sh` reads PWD; a stale one would mislead `basename "$PWD"` in scripts of 0.1.0.
        let finished = program.env("PWD", self.workspace).run(self.deadline).await;
        if let Some(log) = self.log
            && let Err(error) = append(log, hook, &finished)
        {
            tracing::warn!(%hook, issue_id = %self.env.issue_id, issue_identifier = %self.env.identifier,
                path = %log.display(), %error, "cannot write the run's log");
        }
        let result = judge(hook, self.deadline, &finished);
        match &result {
            Ok(()) => {
                tracing::info!(%hook, issue_id = %self.env.issue_id, issue_identifier = %self.env.identifier, took = ?finished.took, "hook done")
            }
            Err(error) => {
                tracing::warn!(%hook, issue_id = %self.env.issue_id, issue_identifier = %self.env.identifier, %error, "hook failed")
            }
        }
        result
    }
}

fn judge(hook: Hook, deadline: Duration, finished: &Finished) -> Result<(), HookError> {
    let stderr = finished.stderr.excerpt(EXCERPT_BYTES / 2);
    let stdout = finished.stdout.excerpt(EXCERPT_BYTES / 2);
    let output = [stderr, stdout].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n");
    let output = if output.is_empty() { "(no output)".to_owned() } else { output };
    match finished.outcome.clone() {
        Outcome::Exited(0) => Ok(()),
        Outcome::Exited(code) => Err(HookError::Failed { hook, code, output }),
        Outcome::Signalled(signal) => Err(HookError::Signalled { hook, signal, output }),
        Outcome::TimedOut => Err(HookError::TimedOut { hook, after_ms: deadline.as_millis(), output }),
        Outcome::CouldNotStart(message) => Err(HookError::CouldNotStart { hook, message }),
    }
}

/// Appends one hook's output to the run's log, which only symphony writes.
fn append(log: &Path, hook: Hook, finished: &Finished) -> std::io::Result<()> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(nofollow).open(log)?;
    let mut text =
        format!("== hook {hook}: {:?} after {} ms\n", finished.outcome, finished.took.as_millis()).into_bytes();
    for stream in [&finished.stdout, &finished.stderr] {
        let bytes = stream.bytes();
        text.extend_from_slice(&bytes);
        if bytes.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
    }
    file.write_all(&text)
}

#[cfg(test)]
mod tests;
