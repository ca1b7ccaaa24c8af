//! Host programs: the only place besides the sandbox that starts one.
//!
//! Every program gets its own process group, a deadline that ends the whole group, capped output and
//! no terminal. It returns in time even when a descendant keeps a pipe open (traps M7, X8). What is
//! left of the group when the program ends is killed, so nothing outlives its call. This module never
//! decides what a result means.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

mod captured;
mod leash;

pub use captured::Captured;

/// How long a group may take to follow SIGTERM before SIGKILL.
const TERM_GRACE: Duration = Duration::from_millis(500);
/// How long output may still arrive after the group was killed; only an escaped descendant needs it.
const DRAIN_GRACE: Duration = Duration::from_millis(250);
/// How long the kernel may take to hand over a killed process.
const REAP_GRACE: Duration = Duration::from_secs(2);
/// Kept of each captured stream: half from its beginning, half from its end.
const CAPTURE_BYTES: usize = 64 * 1024;

/// What a program reads.
#[derive(Debug, Default)]
pub enum Input {
    /// Nothing.
    #[default]
    Null,
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// An open file, from its current position.
    File(File),
}

/// Where a program's standard output goes.
#[derive(Debug, Default)]
pub enum Sink {
    /// Into [`Finished::stdout`], capped at 64 KiB.
    #[default]
    Capture,
    /// Into [`Finished::stdout`], whole up to this many bytes; more is counted but not kept.
    Whole(usize),
    /// Into a file, up to this many bytes; more is counted but not written.
    File {
        /// Open for writing.
        file: File,
        /// Bytes.
        max: u64,
    },
}

/// Limits of the kernel on one program, inherited by what it starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rlimits {
    /// Processor time in seconds.
    pub cpu_seconds: Option<u64>,
    /// Address space in bytes.
    pub memory_bytes: Option<u64>,
}

/// A program to run, built by its methods.
#[derive(Debug)]
pub struct Program {
    program: OsString,
    args: Vec<OsString>,
    cwd: Option<PathBuf>,
    keep_env: bool,
    env: Vec<(OsString, Option<OsString>)>,
    input: Input,
    sink: Sink,
    rlimits: Rlimits,
    leashed: bool,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// At its deadline, with its whole group.
    TimedOut,
    /// It never ran; the system's message.
    CouldNotStart(String),
}

/// What is known about a program that ended.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// What it wrote, unless it went to a file.
    pub stdout: Captured,
    /// What it complained about.
    pub stderr: Captured,
    /// From start to end.
    pub took: Duration,
}

impl Finished {
    /// Whether the program ended by itself with code 0.
    pub fn success(&self) -> bool {
        self.outcome == Outcome::Exited(0)
    }
}

impl Program {
    /// A program with an empty environment except `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            args: Vec::new(),
            cwd: None,
            keep_env: false,
            env: Vec::new(),
            input: Input::Null,
            sink: Sink::Capture,
            rlimits: Rlimits::default(),
            leashed: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// The directory it starts in.
    #[must_use]
    pub fn cwd(mut self, dir: &Path) -> Self {
        self.cwd = Some(dir.to_owned());
        self
    }

    /// Starts from symphony's own environment instead of an empty one. For the operator's hooks only.
    #[must_use]
    pub fn own_environment(mut self) -> Self {
        self.keep_env = true;
        self
    }

    /// Sets one variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Takes one variable away.
    #[must_use]
    pub fn without_env(mut self, name: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// What it reads.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Where its standard output goes.
    #[must_use]
    pub fn sink(mut self, sink: Sink) -> Self {
        self.sink = sink;
        self
    }

    /// The kernel's limits on it.
    #[must_use]
    pub fn rlimits(mut self, rlimits: Rlimits) -> Self {
        self.rlimits = rlimits;
        self
    }

    /// Ends it and everything it started even when symphony is killed: for programs that may run long.
    #[must_use]
    pub fn leashed(mut self) -> Self {
        self.leashed = true;
        self
    }

    /// Runs it. Returns at most a few seconds after `deadline`, whatever the program does. Dropping
    /// the future kills the group.
    pub async fn run(self, deadline: Duration) -> Finished {
        let started = Instant::now();
        match self.start() {
            Ok(running) => running.finish(started, deadline).await,
            Err(message) => Finished {
                outcome: Outcome::CouldNotStart(message),
                stdout: Captured::default(),
                stderr: Captured::default(),
                took: started.elapsed(),
            },
        }
    }

    fn start(self) -> Result<Running, String> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        if !self.keep_env {
            command.env_clear();
            command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        let mut feed = None;
        command.stdin(match self.input {
            Input::Null => Stdio::null(),
            Input::File(file) => Stdio::from(file),
            Input::Bytes(bytes) => {
                feed = Some(bytes);
                Stdio::piped()
            }
        });
        let mut child = command.spawn().map_err(|error| match (&self.cwd, error.kind()) {
            (Some(dir), std::io::ErrorKind::NotFound) if !dir.is_dir() => {
                format!("its directory {} does not exist", dir.display())
            }
            _ => error.to_string(),
        })?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or("the system gave it no process id")?;
        let group = Group { pid, armed: true };
        let leash = match self.leashed {
            true => Some(leash::Leash::on(pid).map_err(|error| format!("cannot watch over it: {error}"))?),
            false => None,
        };
        // Set from outside right after the start: no code between fork and exec is needed.
        for (resource, limit) in [(Resource::Cpu, self.rlimits.cpu_seconds), (Resource::As, self.rlimits.memory_bytes)]
        {
            if limit.is_some() {
                // A program that is gone already needs no limit.
                match rustix::process::prlimit(Some(pid), resource, Rlimit { current: limit, maximum: limit }) {
                    Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(format!("cannot limit it: {error}")),
                }
            }
        }
        let exit = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| error.to_string())
            // SAFETY: the descriptor is valid, and the `AsyncFd` owns it until it is deregistered.
            .and_then(|fd| unsafe { AsyncFd::register(fd) }.map_err(|error| error.to_string()))
            .map_err(|error| format!("cannot watch it: {error}"))?;

        let mut tasks = Tasks(Vec::new());
        if let (Some(bytes), Some(mut pipe)) = (feed, child.stdin.take()) {
            tasks.0.push(tokio::spawn(async move {
                // A program may stop reading early; that is its affair.
                let _ = pipe.write_all(&bytes).await;
            }));
        }
        let (stdout, mut file) = match self.sink {
            Sink::Capture => (Captured::split(CAPTURE_BYTES), None),
            Sink::Whole(max) => (Captured::whole(max), None),
            Sink::File { file, max } => (Captured::default(), Some((file, max))),
        };
        let stdout = Arc::new(Mutex::new(stdout));
        let stderr = Arc::new(Mutex::new(Captured::split(CAPTURE_BYTES)));
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(tokio::spawn(drain(pipe, stdout.clone(), file.take())));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(tokio::spawn(drain(pipe, stderr.clone(), None)));
        }
        Ok(Running { child, group, leash, exit, feeders: tasks, readers: Tasks(readers), stdout, stderr })
    }
}

/// Tasks that end with their owner.
struct Tasks(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// The process group of a program that has not been reaped: until then its number is ours alone.
struct Group {
    pid: Pid,
    armed: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        if self.armed {
            // The group may be empty already.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

struct Running {
    // Dropped in this order: the group is killed before the child is handed to the reaper.
    group: Group,
    leash: Option<leash::Leash>,
    exit: AsyncFd<std::os::fd::OwnedFd>,
    feeders: Tasks,
    readers: Tasks,
    stdout: Arc<Mutex<Captured>>,
    stderr: Arc<Mutex<Captured>>,
    child: tokio::process::Child,
}

impl Running {
    async fn finish(mut self, started: Instant, deadline: Duration) -> Finished {
        let mut timed_out = false;
        // The descriptor becomes readable when the program has ended, without reaping it: its number
        // cannot be reused before the group has been killed.
        if tokio::time::timeout(deadline, self.exit.readable()).await.is_err() {
            timed_out = true;
            self.group.signal(Signal::TERM);
            let _ = tokio::time::timeout(TERM_GRACE, self.exit.readable()).await;
        }
        self.group.signal(Signal::KILL);
        // Before the group's number can be reused.
        drop(self.leash.take());
        let status = tokio::time::timeout(REAP_GRACE, self.child.wait()).await;
        self.group.armed = status.is_err();
        let patience = Instant::now() + DRAIN_GRACE;
        for reader in &mut self.readers.0 {
            let left = patience.saturating_duration_since(Instant::now());
            let _ = tokio::time::timeout(left, reader).await;
        }
        drop(self.feeders);
        let outcome = match status {
            _ if timed_out => Outcome::TimedOut,
            Ok(Ok(status)) => match (status.code(), status.signal()) {
                (Some(code), _) => Outcome::Exited(code),
                (None, signal) => Outcome::Signalled(signal.unwrap_or_default()),
            },
            Ok(Err(error)) => Outcome::CouldNotStart(format!("cannot learn how it ended: {error}")),
            Err(_) => Outcome::TimedOut,
        };
        let take =
            |captured: &Mutex<Captured>| std::mem::take(&mut *captured.lock().unwrap_or_else(PoisonError::into_inner));
        Finished { outcome, stdout: take(&self.stdout), stderr: take(&self.stderr), took: started.elapsed() }
    }
}

async fn drain(mut pipe: impl AsyncRead + Unpin, captured: Arc<Mutex<Captured>>, mut file: Option<(File, u64)>) {
    let mut buffer = vec![0u8; 64 * 1024];
    let mut written = 0u64;
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        if let Some((out, max)) = &mut file {
            let room = usize::try_from(max.saturating_sub(written)).unwrap_or(usize::MAX).min(read);
            if out.write_all(&buffer[..room]).is_err() {
                // A full disk ends the program by a broken pipe; its exit code tells.
                return;
            }
            written += room as u64;
        }
        captured.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests;
