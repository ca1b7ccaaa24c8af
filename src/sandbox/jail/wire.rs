//! The two lines that the host and its launcher exchange over the control socket.
//!
//! No secret ever stands in them; they are never written to a disk, an argument vector or an environment.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Host to launcher, one line of JSON. The socket then stays open: its end is the order to die.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LaunchSpec {
    /// The symphony executable, to be shown inside.
    pub(super) exe: PathBuf,
    /// The work disk.
    pub(super) disk: PathBuf,
    /// The user to become first, when started as root.
    pub(super) uid: Option<u32>,
    /// Further readable paths.
    pub(super) read_only: Vec<PathBuf>,
    /// What is shown elsewhere than it stands: from, and to below the new root.
    pub(super) shown: Vec<(PathBuf, PathBuf)>,
    /// Host devices beside the usual ones, by their names in `/dev`.
    pub(super) devices: Vec<String>,
    /// Descriptors that the program finds after its channel, from 4 on.
    pub(super) descriptors: u8,
    /// Bytes of the image file at [`super::IMAGE`], made when it is missing.
    pub(super) image_bytes: Option<u64>,
    /// What to run.
    pub(super) program: Vec<String>,
    /// MiB; sizes the private file systems.
    pub(super) memory_mib: u64,
    /// Whether memory must be limited per process because no cgroup does it.
    pub(super) limit_data: bool,
    /// Processes per user namespace.
    pub(super) pids: u64,
    /// MiB per file.
    pub(super) file_size_mib: u64,
}

/// Launcher to host, one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Launched {
    /// The program runs.
    Ready(Facts),
    /// It does not, and nothing is left.
    Failed(Failure),
}

/// What pid 1 measured after it had confined itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Host user.
    pub(super) uid: u32,
    /// 0: none.
    pub(super) landlock_abi: u32,
    /// From `/proc/self/status`.
    pub(super) seccomp: bool,
    /// Whether the kernel counts processes per user namespace, so that the rlimit is one for the jail.
    pub(super) nproc: bool,
}

/// Which step failed, and how.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    /// In words that follow "while it".
    pub(super) stage: String,
    /// What the system said.
    pub(super) message: String,
    /// The system's number, when there is one.
    pub(super) errno: Option<i32>,
}

/// Words for a failed step.
pub(super) trait During<T> {
    /// Names the step that failed.
    fn during(self, stage: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> During<T> for Result<T, E> {
    fn during(self, stage: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| {
            let error = error.into();
            Failure { stage: stage.into(), message: error.to_string(), errno: error.raw_os_error() }
        })
    }
}
