//! The host's git: the command line program, only in repositories the host owns.
//!
//! Every call has a fixed environment and overrides every setting that could start another program
//! (hooks, fsmonitor, signatures, pagers, remote helpers). It must never run in a place a guest can
//! write to; what a guest made arrives here as bytes of a bundle only.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::{Finished, Input, Outcome, Program, Rlimits, Sink};

mod oid;
#[cfg(test)]
pub(crate) mod scratch;

pub use oid::Oid;

/// The longest any single git command may take unless its caller says otherwise.
pub const GIT_DEADLINE: Duration = Duration::from_secs(120);
/// Parsed output is small; whoever expects more sends it to a file.
const PARSED_BYTES: usize = 4 * 1024 * 1024;

/// Settings that outrank those of any repository.
const OVERRIDES: &[&str] = &[
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    // A checkpoint that was acknowledged survives a power cut.
    "core.fsync=committed,reference",
    "core.pager=cat",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "fetch.writeCommitGraph=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "log.showSignature=false",
    "commit.gpgSign=false",
    "advice.detachedHead=false",
    "init.defaultBranch=main",
];

/// Why a git command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git refused.
    #[error("git {operation} failed with code {code}: {stderr}")]
    Failed {
        /// The subcommand.
        operation: String,
        /// Its exit code.
        code: i32,
        /// The beginning and end of what it complained about.
        stderr: String,
    },
    /// It took too long.
    #[error("git {operation} did not end within {} s and was stopped", after.as_secs())]
    TimedOut {
        /// The subcommand.
        operation: String,
        /// The deadline.
        after: Duration,
    },
    /// It was killed, for example by a limit on processor time or memory.
    #[error("git {operation} was ended by signal {signal}: it needed more time or memory than it may have")]
    Killed {
        /// The subcommand.
        operation: String,
        /// Which signal.
        signal: i32,
    },
    /// There is no git, or no directory to run it in.
    #[error("git {operation} could not start: {message} (is git installed and on PATH?)")]
    CouldNotStart {
        /// The subcommand.
        operation: String,
        /// What the system said.
        message: String,
    },
    /// git answered something we do not understand.
    #[error("git {operation} answered unexpectedly: {answer}")]
    Unexpected {
        /// The subcommand.
        operation: String,
        /// The answer, shortened.
        answer: String,
    },
    /// The file system refused what git needs.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// git, ready to be used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Git {
    global: PathBuf,
}

impl Git {
    /// Prepares git with a configuration file of our own in `state_dir`, in place of the user's.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(state_dir: &Path) -> Result<Self, GitError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| GitError::Io { action, path, source }
        };
        crate::files::create_private_dir(state_dir).map_err(io("create", state_dir))?;
        let global = state_dir.join("gitconfig");
        // A file rather than `-c`: git drops `-c` for the other end of a local fetch, which then
        // refuses a repository that another user owns. All these repositories are the operator's.
        let text = "# Written by symphony; used instead of the user's git configuration.\n[safe]\n\tdirectory = *\n";
        if std::fs::read_to_string(&global).ok().as_deref() != Some(text) {
            crate::files::write_atomically(&global, text.as_bytes()).map_err(io("write", &global))?;
        }
        Ok(Self { global })
    }

    /// A command in the repository whose git directory is `git_dir`, without a work tree.
    pub fn bare(&self, git_dir: &Path) -> Call {
        let mut call = self.anywhere();
        call.global_args.push("--git-dir".into());
        call.global_args.push(git_dir.into());
        call
    }

    /// A command in the repository at the top of `dir`: no search upwards, no link followed by git.
    pub fn in_tree(&self, dir: &Path) -> Call {
        let mut call = self.bare(&dir.join(".git"));
        call.global_args.push("--work-tree".into());
        call.global_args.push(dir.into());
        call.cwd = Some(dir.to_owned());
        call
    }

    /// A command that finds its repository from `dir` upwards, as a person's git would.
    pub fn discovering(&self, dir: &Path) -> Call {
        let mut call = self.anywhere();
        call.cwd = Some(dir.to_owned());
        call
    }

    /// A command outside any repository.
    pub fn anywhere(&self) -> Call {
        Call {
            global: self.global.clone(),
            global_args: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            cwd: None,
            input: Input::Null,
            sink: None,
            rlimits: Rlimits::default(),
            deadline: GIT_DEADLINE,
        }
    }
}

/// One git command, built by its methods.
#[derive(Debug)]
pub struct Call {
    global: PathBuf,
    global_args: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    input: Input,
    sink: Option<Sink>,
    rlimits: Rlimits,
    deadline: Duration,
}

impl Call {
    /// Adds arguments; the first one is the subcommand.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Self {
        self.args([arg])
    }

    /// One more setting for this call.
    #[must_use]
    pub fn config(mut self, setting: &str) -> Self {
        self.global_args.push("-c".into());
        self.global_args.push(setting.into());
        self
    }

    /// One more variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// The work tree of a repository that otherwise has none.
    #[must_use]
    pub fn work_tree(mut self, dir: &Path) -> Self {
        self.global_args.push("--work-tree".into());
        self.global_args.push(dir.into());
        self.cwd = Some(dir.to_owned());
        self
    }

    /// What it reads.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Sends its output to a file.
    #[must_use]
    pub fn sink(mut self, sink: Sink) -> Self {
        self.sink = Some(sink);
        self
    }

    /// Another deadline than [`GIT_DEADLINE`].
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The kernel's limits on it.
    #[must_use]
    pub fn rlimits(mut self, rlimits: Rlimits) -> Self {
        self.rlimits = rlimits;
        self
    }

    fn operation(&self) -> String {
        self.args.first().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Runs it; a refusal is an error.
    ///
    /// # Errors
    /// Whatever keeps it from ending with code 0.
    pub async fn run(self) -> Result<Finished, GitError> {
        let operation = self.operation();
        match self.run_any().await? {
            (0, finished) => Ok(finished),
            (code, finished) => Err(GitError::Failed { operation, code, stderr: finished.stderr.excerpt(1500) }),
        }
    }

    /// Runs it and hands over its exit code, for commands whose code is the answer.
    ///
    /// # Errors
    /// When it did not end by itself.
    pub async fn run_any(self) -> Result<(i32, Finished), GitError> {
        let operation = self.operation();
        let after = self.deadline;
        let finished = self.program().run(after).await;
        match &finished.outcome {
            // Half an answer must not pass for a whole one.
            Outcome::Exited(_) if !finished.drained => Err(GitError::TimedOut { operation, after }),
            Outcome::Exited(code) => Ok((*code, finished)),
            Outcome::TimedOut => Err(GitError::TimedOut { operation, after }),
            Outcome::Signalled(signal) => Err(GitError::Killed { operation, signal: *signal }),
            Outcome::CouldNotStart(message) => Err(GitError::CouldNotStart { operation, message: message.clone() }),
        }
    }

    /// Runs it and parses its whole output as text without the last line end.
    ///
    /// # Errors
    /// As [`Call::run`], and when the answer is not text or longer than 4 MiB.
    pub async fn text(self) -> Result<String, GitError> {
        let operation = self.operation();
        let finished = self.sink(Sink::Whole(PARSED_BYTES)).run().await?;
        let unexpected = |answer: String| GitError::Unexpected { operation: operation.clone(), answer };
        if !finished.stdout.complete() {
            return Err(unexpected(format!("{} bytes", finished.stdout.total())));
        }
        let text = String::from_utf8(finished.stdout.bytes()).map_err(|_| unexpected("not UTF-8".into()))?;
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    }

    /// Runs it and reads one object name.
    ///
    /// # Errors
    /// As [`Call::text`], and when the answer is no object name.
    pub async fn oid(self) -> Result<Oid, GitError> {
        let operation = self.operation();
        let text = self.text().await?;
        Oid::parse(&text).ok_or(GitError::Unexpected { operation, answer: text.chars().take(200).collect() })
    }

    /// Like [`Call::oid`] for lookups: exit code 1 or 128 with no such object means `None`.
    ///
    /// # Errors
    /// When it did not end by itself.
    pub async fn oid_if_any(self) -> Result<Option<Oid>, GitError> {
        match self.oid().await {
            Ok(oid) => Ok(Some(oid)),
            Err(GitError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn program(self) -> Program {
        let mut program = Program::new("git");
        for setting in OVERRIDES {
            program = program.args(["-c", setting]);
        }
        program = program
            .args(self.global_args)
            .args(self.args)
            .env("HOME", "/nonexistent")
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("GIT_CONFIG_GLOBAL", self.global)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("GIT_NO_REPLACE_OBJECTS", "1")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_PAGER", "cat")
            .env("GIT_EDITOR", "false")
            .env("GIT_ASKPASS", "false")
            .env("GIT_SSH_COMMAND", "false")
            .input(self.input)
            .rlimits(self.rlimits);
        for (name, value) in self.env {
            program = program.env(name, value);
        }
        if let Some(sink) = self.sink {
            program = program.sink(sink);
        }
        // A directory that certainly exists; commands that need another one say so.
        program.cwd(self.cwd.as_deref().unwrap_or(Path::new("/")))
    }
}

/// Settings for git commands that the operator's hooks run: no repository's hook or file monitor
/// starts, and nothing waits at a prompt. Added to what the environment has already.
pub fn overrides_for_hooks(inherited_count: Option<&str>) -> Vec<(String, String)> {
    let first: usize = inherited_count.and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    let settings = [("core.hooksPath", "/dev/null"), ("core.fsmonitor", "false")];
    let mut env = vec![
        ("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned()),
        ("GIT_CONFIG_COUNT".to_owned(), (first + settings.len()).to_string()),
    ];
    for (index, (name, value)) in settings.into_iter().enumerate() {
        env.push((format!("GIT_CONFIG_KEY_{}", first + index), name.to_owned()));
        env.push((format!("GIT_CONFIG_VALUE_{}", first + index), value.to_owned()));
    }
    env
}

/// Variables that would point the git of a hook at another repository than its workspace's.
pub const REPOSITORY_VARIABLES: &[&str] = &[
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];
