//! MicroVMs under QEMU: a kernel of the guest's own, no network device, no shared folder, one serial port as the channel.
//!
//! The emulator itself runs in a jail of ours, as an unprivileged user with no network and a read-only root, and forbids
//! itself to start anything: a guest that breaks out of its machine is where an agent in a jail begins. Its disk is a
//! file that the host never mounts or looks into.
//!
//! A machine is restored from a template where there is one, and booted cold where there is none or where restoring
//! fails. **Emulation (TCG) is no security boundary**: it is used only when the workflow names `qemu`, and every label
//! says so.

mod accel;
mod argv;
mod image;
mod life;
mod monitor;
mod template;
mod wake;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use futures::future::BoxFuture;
use symphony_core::ids::RunId;
use symphony_guest::wire::MachineOrder;
use tokio::net::UnixStream;
use tokio::time::Instant;

use self::accel::Accelerator;
use self::argv::{IMAGE_DIR, Machine, Ram};
use self::image::Image;
use self::monitor::Monitor;
use self::template::{Key, Template, Templates};
use super::channel::Channel;
use super::jail::{Fittings, Jail};
use super::{BootError, BootSpec, Guest, Sandbox, TrialReport};

const EMULATOR: &str = "qemu-system-x86_64";
/// What an emulator needs beside its guest's memory, in MiB.
const OVERHEAD_MIB: u64 = 512;
/// Threads of an emulator beside one for each processor: its loop, its disk's workers, translation.
const THREADS: u64 = 96;
/// A real boot under KVM takes less than a second; where /dev/kvm only pretends, nothing ever comes.
const KVM_TRIAL: Duration = Duration::from_secs(10);
const TCG_TRIAL: Duration = Duration::from_secs(60);
/// What a guest program gets to end by itself after a trial.
const GRACE: Duration = Duration::from_secs(2);
/// A restored machine answers in a fraction of a second.
const RESTORE: Duration = Duration::from_secs(10);
/// Programs a template has in memory.
const WARM: &str = "cd /tmp && git init -q w && cd w && \
    git -c user.name=w -c user.email=w@w commit -q --allow-empty -m w && git status && git bundle create b HEAD; \
    cd / && rm -rf /tmp/w";

/// The runtime.
#[derive(Debug)]
pub struct Qemu {
    jail: Jail,
    places: Vec<PathBuf>,
    kvm: bool,
    templates: Option<Templates>,
}

/// What one machine is made of.
struct Plan {
    machine: Machine,
    image: Image,
    key: Key,
}

impl Qemu {
    /// Machines with (`kvm`) or without hardware virtualisation. `exe` is the symphony executable, whose launcher holds
    /// the emulator; templates are kept below `templates`, `None` boots every machine cold.
    pub fn new(exe: PathBuf, kvm: bool, templates: Option<PathBuf>) -> Self {
        let places = Image::places(&exe);
        Self { jail: Jail::new(exe), places, kvm, templates: templates.map(Templates::new) }
    }

    async fn boot_machine(&self, spec: BootSpec) -> Result<Guest, BootError> {
        let deadline = Instant::now() + spec.deadline;
        let limit = spec.deadline;
        let work = async {
            let plan = self.plan(&spec).await?;
            if let Some(templates) = &self.templates {
                let patience = deadline.saturating_duration_since(Instant::now()) / 2;
                let make = async || {
                    let place = templates.scratch().map_err(|error| error.to_string())?;
                    let saved = tokio::time::timeout(patience, self.save(&spec, &plan, place.path())).await;
                    saved.unwrap_or_else(|_| Err(format!("it took longer than {} s", patience.as_secs())))
                };
                let template = templates.get(&plan.key, make).await;
                if let Some(template) = template {
                    let patience = RESTORE.min(deadline.saturating_duration_since(Instant::now()) / 2);
                    let restored = tokio::time::timeout(patience, self.restore(&spec, &plan, &template)).await;
                    match restored.unwrap_or(Err(BootError::Deadline(patience))) {
                        Ok(guest) => return Ok(guest),
                        Err(error) => {
                            tracing::warn!(run_id = spec.run.0, %error, "a machine could not be restored; it boots cold");
                            templates.reject(&plan.key).await;
                        }
                    }
                }
            }
            self.cold(&spec, &plan).await
        };
        tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(BootError::Deadline(limit)))
    }

    async fn plan(&self, spec: &BootSpec) -> Result<Plan, BootError> {
        let (named, places) = (spec.image.clone(), self.places.clone());
        let (kvm, cpus, memory_mib) = (self.kvm, spec.cpus.max(1), spec.memory_mib.max(128));
        let look = move || -> Result<Plan, BootError> {
            let emulator = emulator()?;
            let image = Image::find(named.as_deref(), &places)?;
            let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::tcg() };
            let identity = identity(&emulator);
            let emulator = emulator.display().to_string();
            let machine = Machine { emulator, accelerator, cpus, memory_mib, agents: image.agents };
            // With the kernel's own line, which a restored machine is not given again.
            let line = machine.argv(Ram::Saved).join(" ");
            let host = if kvm { processor() } else { String::new() };
            let key = Key::of(&[&identity, &line, &image.identity, &host, WARM]);
            Ok(Plan { machine, image, key })
        };
        tokio::task::spawn_blocking(look).await.map_err(|error| stage("looked for its parts", error))?
    }

    /// Starts an emulator in its jail.
    async fn start(
        &self,
        spec: &BootSpec,
        plan: &Plan,
        ram: Ram,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Guest, BootError> {
        let devices = plan.machine.accelerator.devices();
        // For people who look at the list of processes. No part of what a template depends on.
        let name = ["-name".to_owned(), format!("symphony-run-{}", spec.run.0)];
        let inner = BootSpec {
            run: spec.run,
            // A directory of its own: a jail on the same issue has its parts beside it.
            disk: spec.disk.join("vm"),
            image: None,
            read_only: Vec::new(),
            cpus: 0,
            memory_mib: plan.machine.memory_mib + OVERHEAD_MIB,
            pids: THREADS + u64::from(plan.machine.cpus),
            file_size_mib: spec.disk_mib,
            disk_mib: 0,
            deadline: spec.deadline,
            program: plan.machine.argv(ram).into_iter().chain(name).collect(),
        };
        let fittings = Fittings {
            shown: vec![(plan.image.dir.clone(), PathBuf::from(IMAGE_DIR))],
            devices: devices.iter().map(|name| (*name).to_owned()).collect(),
            descriptors,
            image_bytes: Some(argv::DISK_BYTES),
        };
        let Guest { io, report, life } = self.jail.launch(inner, fittings).await?;
        let report = self.report(spec, &plan.machine, report);
        Ok(Guest { io, report, life: Box::new(life::Machine(life)) })
    }

    fn report(&self, spec: &BootSpec, machine: &Machine, around: TrialReport) -> TrialReport {
        let kernel = if self.kvm { "its own, under KVM" } else { "its own, emulated (TCG): not a security boundary" };
        TrialReport {
            kernel,
            cpus: format!("{} virtual", machine.cpus),
            memory: format!("{} MiB of RAM; its emulator: {}", machine.memory_mib, around.memory),
            pids: format!("a control group of the guest's kernel; its emulator: {}", around.pids),
            disk: format!("{} MiB of its image, by a limit on the emulator's files", spec.disk_mib),
            ..around
        }
    }

    async fn cold(&self, spec: &BootSpec, plan: &Plan) -> Result<Guest, BootError> {
        let mut guest = self.start(spec, plan, Ram::Plain, Vec::new()).await?;
        let awake = async {
            wake::ready(&mut guest.io).await?;
            wake::order(&mut guest.io, &wake::wake(spec.disk_mib, spec.pids)?).await?;
            wake::ready(&mut guest.io).await
        };
        match awake.await {
            Ok(()) => Ok(guest),
            Err(error) => Err(died(guest, error).await),
        }
    }

    /// Boots a machine on a blank disk, warms it, and saves it.
    async fn save(&self, spec: &BootSpec, plan: &Plan, place: &Path) -> Result<(OwnedFd, Vec<u8>), String> {
        let blank = BootSpec { disk: place.join("blank"), ..spec.clone() };
        let ram = template::blank_ram(plan.machine.memory_mib).map_err(|error| error.to_string())?;
        let (monitor, theirs) = StdStream::pair().map_err(|error| error.to_string())?;
        let (state, out) = std::io::pipe().map_err(|error| error.to_string())?;
        let passed = vec![theirs.into(), ram.try_clone().map_err(|error| error.to_string())?];
        let mut guest = self.start(&blank, plan, Ram::Saved, passed).await.map_err(|error| error.to_string())?;
        let saved = async {
            let mut monitor = Monitor::open(stream(monitor)?).await?;
            wake::ready(&mut guest.io).await?;
            let commands = vec![["/bin/sh", "-c", WARM].map(str::to_owned).to_vec()];
            let warm = MachineOrder::Warm { commands, disk_mib: spec.disk_mib };
            wake::order(&mut guest.io, &warm).await?;
            wake::ready(&mut guest.io).await?;
            // Read while it is written: it is larger than a pipe.
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = Vec::new();
                state.take(template::LARGEST_STATE).read_to_end(&mut bytes).map(|_| bytes)
            });
            monitor.save(out.into()).await?;
            Ok::<_, String>((read, monitor))
        };
        let saved = saved.await;
        let ending = guest.stop(Duration::ZERO).await;
        let _ = self.jail.discard_disk(&blank.disk).await;
        // With the emulator gone its end of the pipe is closed, and the reader ends.
        let (read, _monitor) = saved.map_err(|error| format!("{error}{}", said(&ending.stderr)))?;
        let state = read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if state.is_empty() { Err("the emulator saved nothing".to_owned()) } else { Ok((ram, state)) }
    }

    async fn restore(&self, spec: &BootSpec, plan: &Plan, template: &Arc<Template>) -> Result<Guest, BootError> {
        let odd = |error: std::io::Error| stage("prepared its restore", error);
        let (monitor, theirs) = StdStream::pair().map_err(odd)?;
        let (from, mut to) = std::io::pipe().map_err(odd)?;
        let passed = vec![theirs.into(), template.ram().map_err(odd)?];
        let mut guest = self.start(spec, plan, Ram::Restored, passed).await?;
        let awake = async {
            let mut monitor = Monitor::open(stream(monitor)?).await?;
            let source = Arc::clone(template);
            // Ends when the emulator has read it or is gone.
            tokio::task::spawn_blocking(move || to.write_all(source.state()));
            monitor.restore(from.into()).await?;
            wake::order(&mut guest.io, &wake::wake(spec.disk_mib, spec.pids)?).await?;
            wake::ready(&mut guest.io).await
        };
        match awake.await {
            Ok(()) => Ok(guest),
            Err(error) => Err(died(guest, error).await),
        }
    }
}

impl Sandbox for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn label(&self) -> &'static str {
        if self.kvm { "qemu (KVM)" } else { "qemu (TCG: not a security boundary)" }
    }

    fn trial(&self) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        async {
            if self.kvm {
                usable_kvm()?;
            }
            let place = tempfile::tempdir().map_err(|error| stage("made a directory for its trial", error))?;
            let spec = BootSpec {
                run: RunId(0),
                disk: place.path().join("disk"),
                image: None,
                read_only: Vec::new(),
                cpus: 1,
                memory_mib: 512,
                pids: 64,
                file_size_mib: 0,
                disk_mib: 512,
                deadline: if self.kvm { KVM_TRIAL } else { TCG_TRIAL },
                program: Vec::new(),
            };
            let tried = tokio::time::timeout(spec.deadline, async {
                let plan = self.plan(&spec).await?;
                let guest = self.cold(&spec, &plan).await?;
                let report = guest.report.clone();
                let (io, mut life) = guest.into_parts();
                // Awake is not alive: the guest program answers on the channel, or the machine is of no use.
                match Channel::open(io, "trial", spec.deadline).await {
                    Ok((channel, _)) => {
                        let _ = channel.shutdown(GRACE).await;
                        life.stop(GRACE).await;
                        Ok(report)
                    }
                    Err(error) => {
                        let ending = life.stop(Duration::ZERO).await;
                        Err(stage("waited for its guest program", format!("{error}{}", said(&ending.stderr))))
                    }
                }
            });
            let tried = tried.await.unwrap_or(Err(BootError::Deadline(spec.deadline)));
            let report = match tried {
                Err(BootError::Deadline(after)) if self.kvm => Err(BootError::Missing {
                    what: format!("/dev/kvm is there, but a machine did not boot on it within {} s", after.as_secs()),
                    hint: "this is usual where KVM is nested or emulated; name sandbox.runtime: qemu to have machines \
                           emulated, which is slow and no security boundary"
                        .to_owned(),
                }),
                other => other,
            };
            self.jail.discard_disk(&spec.disk).await?;
            report
        }
        .boxed()
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        self.boot_machine(spec).boxed()
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        self.jail.discard_disk(disk)
    }
}

/// Whether `/dev/kvm` opens at all; that it does proves nothing yet.
fn usable_kvm() -> Result<(), BootError> {
    let opened = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    let Err(error) = opened else { return Ok(()) };
    let (what, hint) = match error.kind() {
        std::io::ErrorKind::PermissionDenied => (
            "/dev/kvm may not be opened by this user".to_owned(),
            "add the user to the device's group (often `kvm`) and log in again",
        ),
        std::io::ErrorKind::NotFound => (
            "there is no /dev/kvm".to_owned(),
            "switch virtualisation on in the firmware, or use a machine that has it",
        ),
        _ => (format!("/dev/kvm cannot be opened: {error}"), "see what the kernel log says about kvm"),
    };
    Err(BootError::Missing { what, hint: hint.to_owned() })
}

/// The emulator on the search path, where a jail shows it.
fn emulator() -> Result<PathBuf, BootError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(EMULATOR)).find(|file| file.is_file());
    let hint = "install it, on Debian with apt-get install qemu-system-x86";
    let missing = |what: String| BootError::Missing { what, hint: hint.to_owned() };
    let found = found.ok_or_else(|| missing(format!("{EMULATOR} is not installed")))?;
    let real = found.canonicalize().map_err(|error| missing(format!("{} cannot be used: {error}", found.display())))?;
    if real.starts_with("/usr") {
        return Ok(real);
    }
    Err(missing(format!("{} stands outside /usr, where its jail does not have it", real.display())))
}

/// Which emulator this is, without running it.
fn identity(emulator: &Path) -> String {
    let meta = std::fs::metadata(emulator).ok();
    let modified = meta.as_ref().and_then(|meta| meta.modified().ok());
    let seconds = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
    format!("{} {} {seconds}", emulator.display(), meta.map_or(0, |meta| meta.len()))
}

/// The host's processor, which a guest under KVM sees.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = ["model name", "stepping", "microcode", "flags"];
    text.split("\n\n")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .collect()
}

fn stage(stage: &str, message: impl ToString) -> BootError {
    BootError::Stage { stage: stage.to_owned(), message: message.to_string() }
}

fn stream(socket: StdStream) -> Result<UnixStream, String> {
    socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).map_err(|error| error.to_string())
}

fn said(console: &str) -> String {
    let tail: Vec<&str> = console.lines().rev().take(5).collect();
    let text: Vec<&str> = tail.into_iter().rev().map(str::trim).filter(|line| !line.is_empty()).collect();
    if text.is_empty() { String::new() } else { format!("; its console said: {}", text.join(" / ")) }
}

/// A machine that did not come up: it is taken down, and its console may say why.
async fn died(guest: Guest, error: String) -> BootError {
    let ending = guest.stop(Duration::from_millis(200)).await;
    stage("waited for its machine", format!("{error}{}", said(&ending.stderr)))
}
