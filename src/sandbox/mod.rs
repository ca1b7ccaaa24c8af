//! The sandbox seam: what isolates one run, and how a run gets one.
//!
//! `boot` places the guest program, starts it and connects one byte stream; everything above is the
//! same for every runtime. Nothing here interprets what crosses the stream, and nothing here ever
//! runs or trusts what a guest wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use symphony_core::ids::RunId;
use tokio::net::UnixStream;

pub mod channel;
pub mod choose;
mod descriptors;
pub mod jail;
pub mod measure;
pub mod qemu;
pub mod smolvm;

/// A runtime that can isolate runs.
pub trait Sandbox: Send + Sync {
    /// The words people are shown on the banner, on every row and in the receipt. What is no security
    /// boundary says so here.
    fn label(&self) -> &'static str;

    /// Boots a throw-away sandbox for real, of this image or the usual one, and says what it enforces here.
    fn trial(&self, image: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>>;

    /// Looks whether this image, or the usual one, is there and has these packages. Boots nothing.
    ///
    /// # Errors
    /// [`BootError::Missing`] says what is not there; any other error says only that it could not be told.
    fn has(&self, _: Option<PathBuf>, _: Vec<String>) -> BoxFuture<'_, Result<(), BootError>> {
        // Not every runtime boots an image.
        Box::pin(async { Ok(()) })
    }

    /// Boots a sandbox with the guest program in it.
    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>>;

    /// Stops what an earlier life of this symphony left running and could not take with it. Only before any run starts.
    /// What it holds is kept.
    fn sweep(&self) -> BoxFuture<'_, Result<(), BootError>> {
        // Nothing of most runtimes outlives its symphony.
        Box::pin(async { Ok(()) })
    }

    /// Where this runtime keeps what an issue's work disk stands for; `None`: in that disk, or it could not be told.
    fn elsewhere<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Option<PathBuf>> {
        Box::pin(async { None })
    }

    /// Removes an issue's work disk, whatever a guest made of it. A missing one is success; a failure
    /// keeps the rest.
    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>>;
}

/// What a run needs of its sandbox.
#[derive(Clone, Debug)]
pub struct BootSpec {
    /// Which run; it names the kernel objects we create for it.
    pub run: RunId,
    /// The work disk, made when missing: the work tree, the agent's home and the guest
    /// program's own state live in it. No two live sandboxes may share one.
    pub disk: PathBuf,
    /// What a microVM boots. An absolute path is a directory that `scripts/build-vm.sh` made, or the runtime's own
    /// kind of file; anything else is a name that the runtime knows, such as an image reference. `None` is the
    /// runtime's default. A jail has none.
    pub image: Option<PathBuf>,
    /// Debian packages that the image must contain; the runtime checks that before it boots. A jail has none.
    pub packages: Vec<String>,
    /// Whether a machine may be restored from a saved one.
    pub templates: bool,
    /// Further host paths the guest may read, at the same place (`sandbox.jail.read_only`).
    pub read_only: Vec<PathBuf>,
    /// Processors; 0 leaves all of the host's. A jail has no such limit.
    pub cpus: u32,
    /// MiB of memory for the whole sandbox.
    pub memory_mib: u64,
    /// Processes and threads for the whole sandbox.
    pub pids: u64,
    /// MiB that one file may grow to.
    pub file_size_mib: u64,
    /// MiB that the work disk may grow to. A jail has no such limit: its disk is a directory.
    pub disk_mib: u64,
    /// How long booting may take.
    pub deadline: Duration,
    /// What to start instead of the guest program, as an argument vector; empty means the guest
    /// program. Its channel is descriptor 3.
    pub program: Vec<String>,
}

/// A booted sandbox. Dropping it kills it; [`Guest::stop`] does so in order and says how it ended.
#[derive(Debug)]
pub struct Guest {
    /// The one byte stream to the guest. Closing it tells the guest program to end.
    pub io: UnixStream,
    /// What is enforced on this very guest.
    pub report: TrialReport,
    /// Ends it.
    pub life: Box<dyn Life>,
}

/// The hold on one booted sandbox. Dropping it kills the sandbox.
pub trait Life: Send + std::fmt::Debug {
    /// Waits until everything in the sandbox is gone. Cancellation safe.
    fn wait(&mut self) -> BoxFuture<'_, Ending>;

    /// Leaves the guest `grace` to end by itself, then kills it. Returns when nothing of it is left.
    fn stop(&mut self, grace: Duration) -> BoxFuture<'_, Ending>;

    /// What the guest wrote to its standard error or console so far, lossily decoded and capped.
    fn stderr(&self) -> String;
}

impl Guest {
    /// The byte stream, and the life to end it with: they are used by different hands.
    pub fn into_parts(self) -> (UnixStream, Box<dyn Life>) {
        (self.io, self.life)
    }

    /// Waits until everything in the sandbox is gone. Cancellation safe.
    pub async fn wait(&mut self) -> Ending {
        self.life.wait().await
    }

    /// What the guest wrote to its standard error so far, lossily decoded and capped.
    pub fn stderr(&self) -> String {
        self.life.stderr()
    }

    /// Closes the channel, leaves the guest `grace` to end by itself, then kills it. Returns when
    /// nothing of it is left.
    pub async fn stop(self, grace: Duration) -> Ending {
        let Self { io, mut life, .. } = self;
        drop(io);
        life.stop(grace).await
    }
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Exit code of the guest program, 128 + n when signal n killed it; `None` when it was taken down.
    pub code: Option<i32>,
    /// Whether we had to kill it.
    pub killed: bool,
    /// Whether the memory limit killed something in it.
    pub out_of_memory: bool,
    /// The last of its standard error, lossily decoded and capped.
    pub stderr: String,
}

/// What a sandbox really enforces on this machine: measured, never assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialReport {
    /// Whose kernel the guest runs on, such as `the host's` or `its own, under KVM`.
    pub kernel: &'static str,
    /// The host user id the guest, or its machine, runs as; `None` where the runtime does not say.
    pub uid: Option<u32>,
    /// How processors are limited, or `not limited`.
    pub cpus: String,
    /// How memory is limited: `cgroup v2`, `cgroup v1`, or `per process only`; a machine has its size as well.
    pub memory: String,
    /// How processes are limited: `cgroup v2`, `cgroup v1`, `rlimit` or `none`.
    pub pids: String,
    /// How the work disk is limited.
    pub disk: String,
    /// The Landlock ABI in force around it on the host; 0 when there is none.
    pub landlock_abi: u32,
    /// Whether a system call filter is on around it on the host.
    pub seccomp: bool,
}

/// Ends a trial: has the guest program answer and find what every run needs in its guest.
async fn prove(guest: Guest, hint: &str) -> Result<(), BootError> {
    const PATIENCE: Duration = Duration::from_secs(60);
    const GRACE: Duration = Duration::from_secs(5);
    let (io, mut life) = guest.into_parts();
    let asked = async {
        let (channel, _) = channel::Channel::open(io, "trial", PATIENCE).await?;
        let git = channel::CheckRequest {
            argv: ["git", "--version"].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned())],
            cwd: None,
            timeout_ms: 30_000,
            max_output: 1024,
        };
        let found = match channel.check(git).await {
            Ok((outcome, _)) => outcome.exit == channel::Exit::Code(0),
            Err(channel::ChannelError::Refused(_)) => false,
            Err(error) => return Err(error),
        };
        let _ = channel.shutdown(GRACE).await;
        Ok(found)
    };
    let asked = asked.await;
    let ending = life.stop(GRACE).await;
    match asked {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(BootError::Missing { what: "there is no git in what it boots".to_owned(), hint: hint.to_owned() })
        }
        Err(error) => {
            let said = ending.stderr.trim();
            let message = if said.is_empty() { error.to_string() } else { format!("{error}; it said: {said}") };
            Err(BootError::Stage { stage: "waited for its guest program".to_owned(), message })
        }
    }
}

impl BootError {
    /// What is wrong, and apart from it what to do about it.
    pub fn and_hint(&self) -> (String, Option<String>) {
        match self {
            Self::Missing { what, hint } | Self::Unreadable { what, hint } => (what.clone(), Some(hint.clone())),
            Self::Forbidden { message, hint } => {
                (format!("this machine does not allow a jail ({message})"), Some(hint.clone()))
            }
            other => (other.to_string(), None),
        }
    }
}

/// Why a sandbox could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The machine does not allow it at all.
    #[error("this machine does not allow a jail ({message}): {hint}")]
    Forbidden {
        /// What was refused.
        message: String,
        /// How to allow it, or what else to choose.
        hint: String,
    },
    /// Something it needs is not there.
    #[error("{what}: {hint}")]
    Missing {
        /// What is not there.
        what: String,
        /// How to get it.
        hint: String,
    },
    /// Whether something that it needs is there could not be told.
    #[error("{what}: {hint}")]
    Unreadable {
        /// What could not be read, and why.
        what: String,
        /// How to mend that.
        hint: String,
    },
    /// One step failed.
    #[error("booting the sandbox failed while it {stage}: {message}")]
    Stage {
        /// Which step, in words that follow "while it".
        stage: String,
        /// What the system said.
        message: String,
    },
    /// It took too long.
    #[error("the sandbox did not boot within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The work disk cannot be used or removed.
    #[error("cannot {action} work disk {path}: {message}")]
    Disk {
        /// What was being done.
        action: &'static str,
        /// The place in the disk.
        path: String,
        /// What the system said, with a hint where there is one.
        message: String,
    },
}
