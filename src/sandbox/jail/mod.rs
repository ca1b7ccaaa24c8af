//! The embedded sandbox: Linux namespaces, no install, no privileges needed where user namespaces are
//! allowed. Linux 5.12 or newer.
//!
//! Inside there is one user (1000; root is not mapped), no capability and no way to gain one, no
//! network but its own loopback, a read-only root with the host's `/usr` and a listed handful of
//! `/etc` files, a private `/proc`, `/dev`, `/tmp` and home, and the work tree. Landlock and a
//! system call filter stand behind the mounts. Started by root, everything inside is an unused,
//! unprivileged host user, one per work disk. The channel is the only way out.
//!
//! **What a jail does not protect against.** It shares the host's kernel: a kernel bug that an
//! unprivileged program can reach ends it, and so may a CPU side channel. Started by an ordinary user,
//! a guest that breaks out *is* that user. All that every user may read below `/usr` and the listed
//! read-only paths is readable inside. It may use all CPU time and IO bandwidth; it may fill the file
//! system its work disk is on (single files are capped, their sum is not); kernel memory and inodes are
//! bounded only by a control group, and where none can be made, memory is limited per process only and
//! shared memory hardly at all. The host's kernel version, CPU, load, clock, and (in its mount table)
//! the paths of the work disk and the read-only paths are visible. `/state` is the guest program's
//! storage, but the agent runs as the same user: what stands there is as trustworthy as the agent, and
//! the agent can kill the guest program (which ends the jail), though not trace it or speak for it.
//! Programs of another architecture (32-bit on x86-64) are killed.
//! A microVM has none of the first three weaknesses; prefer one wherever it runs.
//!
//! The host side here never looks into a work disk and follows no link in one.

mod cgroup;
mod confine;
mod disk;
mod filter;
mod hints;
mod launcher;
mod life;
mod root;
mod syscalls;
mod wire;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use symphony_core::ids::RunId;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;

use self::cgroup::Cgroups;
pub(crate) use self::disk::{PARTS, finish_discard};
pub use self::launcher::launcher_main;
use self::life::Life;
use self::wire::{LaunchSpec, Launched};
use super::{BootError, BootSpec, Guest, Sandbox, TrialReport};

/// The first argument that makes symphony a launcher.
pub const LAUNCHER_WORD: &str = "__jail";

/// What runs inside unless the specification names something else.
const GUEST: [&str; 11] = [
    root::PROGRAM,
    "__guest",
    "run",
    "--channel-fd",
    "3",
    "--work",
    "/work",
    "--home",
    "/home/agent",
    "--state",
    "/state",
];

/// The image file of a machine whose emulator runs in a jail, as seen inside.
pub(super) const IMAGE: &str = "/state/work.img";

/// How long a trial may take on a busy machine.
const TRIAL_DEADLINE: Duration = Duration::from_secs(20);

/// Longest answer a launcher gives.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// What else a jail is given when it holds a machine's emulator and not a guest program.
#[derive(Debug, Default)]
pub(super) struct Fittings {
    /// Host paths shown read-only, and where below the new root.
    pub(super) shown: Vec<(PathBuf, PathBuf)>,
    /// Host devices beside the usual ones, by their names in `/dev`.
    pub(super) devices: Vec<String>,
    /// What the program finds from descriptor 4 on.
    pub(super) descriptors: Vec<OwnedFd>,
    /// Bytes of the image file at [`IMAGE`], made when it is missing.
    pub(super) image_bytes: Option<u64>,
}

/// The runtime. Cheap to make; holds no state.
#[derive(Clone, Debug)]
pub struct Jail {
    exe: PathBuf,
}

impl Jail {
    /// A jail whose launcher and guest are the symphony executable at `exe`, an absolute path.
    pub fn new(exe: PathBuf) -> Self {
        Self { exe }
    }

    /// Boots a jail. Cancelling this at any point leaves nothing.
    pub(super) async fn launch(&self, spec: BootSpec, fittings: Fittings) -> Result<Guest, BootError> {
        let deadline = spec.deadline;
        let launched = tokio::time::timeout(deadline, self.launch_at_leisure(spec, fittings)).await;
        launched.unwrap_or(Err(BootError::Deadline(deadline)))
    }

    /// Cancelling this at any point leaves nothing: the launcher dies with its control socket.
    async fn launch_at_leisure(&self, spec: BootSpec, fittings: Fittings) -> Result<Guest, BootError> {
        let disk = std::path::absolute(&spec.disk).map_err(during("looked for its work disk"))?;
        let prepared = disk.clone();
        let uid = blocking(move || disk::prepare(&prepared)).await??;
        let (run, memory, pids) = (spec.run.0, spec.memory_mib, spec.pids);
        let mut cgroups = blocking(move || Cgroups::create(run, memory, pids)).await?;

        let (control, theirs) = StdStream::pair().map_err(during("made its control socket"))?;
        let (io, channel) = StdStream::pair().map_err(during("made its channel"))?;
        let mut command = Command::new(&self.exe);
        command.arg(LAUNCHER_WORD).env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(channel)).stderr(Stdio::piped());
        let mut launcher = command.spawn().map_err(during("started its launcher"))?;
        // The command holds the launcher's ends; with them open here, no end would ever be seen.
        drop(command);
        if let Some(pid) = launcher.id() {
            cgroups.add(pid);
        }
        let stderr = launcher.stderr.take().map(life::Stderr::drain).unwrap_or_default();
        super::descriptors::send(&control, &[0], &fittings.descriptors)
            .map_err(during("handed over its descriptors"))?;
        let mut control = stream(control)?;
        let program = match spec.program.is_empty() {
            true => GUEST.map(str::to_owned).to_vec(),
            false => spec.program,
        };
        let wanted = LaunchSpec {
            exe: self.exe.clone(),
            disk,
            uid,
            read_only: spec.read_only,
            shown: fittings.shown,
            devices: fittings.devices,
            descriptors: u8::try_from(fittings.descriptors.len()).unwrap_or(u8::MAX),
            image_bytes: fittings.image_bytes,
            program,
            memory_mib: spec.memory_mib,
            limit_data: cgroups.memory().is_none(),
            pids: spec.pids,
            file_size_mib: spec.file_size_mib,
        };
        drop(fittings.descriptors);
        let mut line =
            serde_json::to_vec(&wanted).map_err(|error| stage("wrote its specification", &error.to_string()))?;
        line.push(b'\n');
        control.write_all(&line).await.map_err(during("wrote its specification"))?;
        let mut answer = String::new();
        let mut reader = BufReader::new(&mut control).take(LONGEST_ANSWER);
        reader.read_line(&mut answer).await.map_err(during("waited for its launcher"))?;
        let facts = match serde_json::from_str(&answer) {
            Ok(Launched::Ready(facts)) => facts,
            Ok(Launched::Failed(failure)) => return Err(hints::explain(failure)),
            Err(_) => return Err(stage("waited for its launcher", &format!("it died: {}", stderr.settled().await))),
        };
        let report = TrialReport {
            kernel: "the host's",
            uid: Some(facts.uid),
            cpus: "not limited".to_owned(),
            memory: cgroups.memory().unwrap_or("per process only").to_owned(),
            pids: cgroups.pids().unwrap_or(if facts.nproc { "rlimit" } else { "none" }).to_owned(),
            disk: "each file, not their sum".to_owned(),
            landlock_abi: facts.landlock_abi,
            seccomp: facts.seccomp,
        };
        Ok(Guest { io: stream(io)?, report, life: Box::new(Life::new(launcher, control, stderr, cgroups)) })
    }
}

impl Sandbox for Jail {
    fn label(&self) -> &'static str {
        "jail"
    }

    fn trial(&self, _: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        async {
            let place = blocking(tempfile::tempdir).await?.map_err(during("made a directory for its trial"))?;
            let disk = place.path().join("disk");
            let program = ["/bin/sh", "-c", "exit 0"].map(str::to_owned).to_vec();
            let spec = BootSpec {
                run: RunId(0),
                disk: disk.clone(),
                image: None,
                packages: Vec::new(),
                templates: false,
                read_only: Vec::new(),
                cpus: 0,
                memory_mib: 64,
                pids: 16,
                file_size_mib: 1,
                disk_mib: 0,
                deadline: TRIAL_DEADLINE,
                program,
            };
            let mut guest = self.launch(spec, Fittings::default()).await?;
            let report = guest.report.clone();
            let ended = tokio::time::timeout(TRIAL_DEADLINE, guest.wait()).await;
            let ended = ended.map_err(|_| BootError::Deadline(TRIAL_DEADLINE))?;
            self.discard_disk(&disk).await?;
            match ended.code {
                Some(0) => Ok(report),
                _ => Err(stage("ran a shell", &format!("{ended:?}"))),
            }
        }
        .boxed()
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        self.launch(spec, Fittings::default()).boxed()
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        let disk = disk.to_owned();
        async move { blocking(move || disk::discard(&disk)).await? }.boxed()
    }
}

fn stage(stage: &str, message: &str) -> BootError {
    BootError::Stage { stage: stage.to_owned(), message: message.to_owned() }
}

fn during(words: &'static str) -> impl FnOnce(std::io::Error) -> BootError {
    move |error| stage(words, &error.to_string())
}

fn stream(socket: StdStream) -> Result<UnixStream, BootError> {
    socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).map_err(during("opened its sockets"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BootError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| stage("worked on files", &error.to_string()))
}
