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
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod host;
mod image;
mod kvm;
mod life;
mod monitor;
mod place;
mod template;
mod wake;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use symphony_core::ids::RunId;
use symphony_guest::wire::MachineOrder;
use tokio::net::UnixStream;
use tokio::time::Instant;

use self::accel::Accelerator;
use self::argv::{IMAGE_DIR, Machine, Ram};
pub(crate) use self::host::GRANTED;
use self::image::Image;
use self::monitor::Monitor;
pub use self::template::Templates;
use self::template::{Key, Template};
use super::jail::{Fittings, Jail};
use super::{BootError, BootSpec, Guest, Sandbox, TrialReport};

/// What an emulator needs beside its guest's memory, in MiB.
const OVERHEAD_MIB: u64 = 512;
/// Threads of an emulator beside one for each processor: its loop, its disk's workers, translation.
const THREADS: u64 = 96;
/// A real boot under KVM takes less than a second; where /dev/kvm only pretends, nothing ever comes.
const KVM_TRIAL: Duration = Duration::from_secs(5);
const KVM_SECOND_TRIAL: Duration = Duration::from_secs(20);
const TCG_TRIAL: Duration = Duration::from_secs(60);
/// A restored machine answers in a fraction of a second.
const RESTORE: Duration = Duration::from_secs(10);
/// Between looks whether a machine that was dropped has let go of its disk.
const HELD: Duration = Duration::from_millis(200);
/// The stage of what a machine itself did wrong.
const WAITED: &str = "waited for its machine";
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
    /// Whether a trial believes what an earlier one found out.
    trusting: bool,
}

/// Where images, and the guest program beside them, are looked for, best first.
pub fn places(exe: &Path) -> Vec<PathBuf> {
    Image::places(exe)
}

/// Why the guest program that stands in one of these places is not to be started; `None` when it may be.
pub fn strange_guest(guest: &Path) -> Option<String> {
    Image::strange_guest(guest)
}

/// What one machine is made of.
struct Plan {
    machine: Machine,
    image: Image,
    /// Which emulator it is.
    identity: String,
    key: Key,
}

impl Plan {
    /// The emulator's command line. Its name is for people who look at the list of processes, and no part of what a
    /// template depends on.
    fn line(&self, spec: &BootSpec, ram: Ram) -> Vec<String> {
        let name = ["-name".to_owned(), format!("symphony-run-{}", spec.run.0)];
        self.machine.argv(ram).into_iter().chain(name).collect()
    }
}

impl Qemu {
    /// Machines with (`kvm`) or without hardware virtualisation. `exe` is the symphony executable, whose launcher holds
    /// the emulator; machines are saved in `templates`, `None` boots every machine cold.
    pub fn new(exe: PathBuf, kvm: bool, templates: Option<Templates>) -> Self {
        let places = Image::places(&exe);
        Self { jail: Jail::new(exe), places, kvm, templates, trusting: true }
    }

    /// The same, but its trial tries what was tried before.
    #[must_use]
    pub fn afresh(self) -> Self {
        Self { trusting: false, ..self }
    }

    async fn boot_machine(&self, mut spec: BootSpec) -> Result<Guest, BootError> {
        spec.disk_mib = host::grant(&spec.disk, spec.disk_mib).await?;
        let deadline = Instant::now() + spec.deadline;
        let limit = spec.deadline;
        let work = async {
            let plan = self.plan(&spec).await?;
            loop {
                match self.attempt(&spec, &plan, deadline).await {
                    // The machine before it was dropped, and is not quite gone.
                    Err(error) if is_held(&error) => tokio::time::sleep(HELD).await,
                    other => return other,
                }
            }
        };
        tokio::time::timeout_at(deadline, work).await.unwrap_or(Err(BootError::Deadline(limit)))
    }

    async fn attempt(&self, spec: &BootSpec, plan: &Plan, deadline: Instant) -> Result<Guest, BootError> {
        let Some((templates, template)) = self.template(spec, plan, deadline).await else {
            return prepared(self.cold(spec, plan).await?).await;
        };
        let patience = RESTORE.min(deadline.saturating_duration_since(Instant::now()) / 2);
        match self.restore(spec, plan, &template, patience).await {
            Ok(guest) => return prepared(guest).await,
            Err(error) if is_held(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(run_id = spec.run.0, %error, "a machine could not be restored; it boots cold");
            }
        }
        let guest = self.cold(spec, plan).await?;
        // The template is at fault only where the same machine wakes without it. What a guest did to its own disk shows
        // after that, and must not cost the others their template.
        templates.reject(&plan.key).await;
        prepared(guest).await
    }

    /// The template to restore from, where templates are kept and one can be had in half of the time that is left.
    async fn template(&self, spec: &BootSpec, plan: &Plan, deadline: Instant) -> Option<(&Templates, Arc<Template>)> {
        let templates = self.templates.as_ref().filter(|_| spec.templates)?;
        let make = async || {
            // Counted from here: others may have tried before.
            let patience = deadline.saturating_duration_since(Instant::now()) / 2;
            let saved = tokio::time::timeout(patience, self.save(spec, plan)).await;
            saved.unwrap_or_else(|_| Err(format!("it took longer than {} s", patience.as_secs())))
        };
        Some((templates, templates.get(&plan.key, make).await?))
    }

    /// Starts another program in the place of the emulator of a restored machine, with all that one is given, so that
    /// tests can find out what a guest gains that has taken it over. It is confined as the emulator is, but for the
    /// filter that the emulator puts on itself.
    #[doc(hidden)]
    pub async fn stand_in(&self, spec: BootSpec, program: Vec<String>) -> Result<Guest, BootError> {
        let plan = self.plan(&spec).await?;
        let template = self.template(&spec, &plan, Instant::now() + spec.deadline).await;
        let (_, template) = template.ok_or_else(|| stage("looked for its template", "there is none"))?;
        let (_, descriptors) = handed_over(&template)?;
        self.start(&spec, &plan, program, descriptors).await
    }

    async fn plan(&self, spec: &BootSpec) -> Result<Plan, BootError> {
        let (named, places, packages) = (spec.image.clone(), self.places.clone(), spec.packages.clone());
        let (kvm, cpus, memory_mib) = (self.kvm, host::processors(spec.cpus), spec.memory_mib.max(128));
        let disk_mib = spec.disk_mib;
        let look = move || -> Result<Plan, BootError> {
            host::has_memory(memory_mib)?;
            let emulator = host::emulator()?;
            let image = Image::find(named.as_deref(), &places)?;
            image.has(&packages)?;
            let accelerator = if kvm { Accelerator::Kvm } else { Accelerator::Tcg { tsc_khz: 0 } };
            let identity = host::identity(&emulator);
            let emulator = emulator.display().to_string();
            let mut machine = Machine { emulator, accelerator, cpus, memory_mib, agents: image.agents };
            // With the kernel's own line, which a restored machine is not given again.
            let line = machine.argv(Ram::Saved).join(" ");
            let disk = format!("{} {disk_mib}", argv::DISK_BYTES);
            let key = Key::of(&[&identity, &line, &image.identity, &host::processor(), &disk, WARM]);
            if !kvm {
                // Measured anew at each start, and so no part of the key; the processor is.
                machine.accelerator = Accelerator::tcg();
            }
            Ok(Plan { machine, image, identity, key })
        };
        tokio::task::spawn_blocking(look).await.map_err(|error| stage("looked for its parts", error))?
    }

    /// Starts an emulator, or what stands in for it, in its jail.
    async fn start(
        &self,
        spec: &BootSpec,
        plan: &Plan,
        program: Vec<String>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Guest, BootError> {
        let devices = plan.machine.accelerator.devices();
        let inner = BootSpec {
            run: spec.run,
            disk: spec.disk.clone(),
            image: None,
            packages: Vec::new(),
            templates: false,
            read_only: Vec::new(),
            cpus: 0,
            memory_mib: plan.machine.memory_mib + OVERHEAD_MIB,
            pids: THREADS + u64::from(plan.machine.cpus),
            file_size_mib: spec.disk_mib,
            disk_mib: 0,
            deadline: spec.deadline,
            program,
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

    /// A machine that is booted, and awake.
    async fn cold(&self, spec: &BootSpec, plan: &Plan) -> Result<Guest, BootError> {
        let mut guest = self.start(spec, plan, plan.line(spec, Ram::Plain), Vec::new()).await?;
        let awake = async {
            wake::ready(&mut guest.io).await?;
            wake::order(&mut guest.io, &wake::wake(spec)?).await?;
            wake::ready(&mut guest.io).await
        };
        match awake.await {
            Ok(()) => Ok(guest),
            Err(error) => Err(died(guest, error).await),
        }
    }

    /// Boots a machine on a blank disk, warms it, and saves it.
    async fn save(&self, spec: &BootSpec, plan: &Plan) -> Result<(OwnedFd, Vec<u8>), String> {
        let place = match &self.templates {
            Some(templates) => templates.workplace(),
            None => tempfile::tempdir(),
        };
        let place = place.map_err(|error| error.to_string())?;
        let blank = BootSpec { disk: place.path().join("blank"), ..spec.clone() };
        let ram = template::blank_ram(plan.machine.memory_mib).map_err(|error| error.to_string())?;
        let (monitor, theirs) = StdStream::pair().map_err(|error| error.to_string())?;
        let (state, out) = std::io::pipe().map_err(|error| error.to_string())?;
        let passed = vec![theirs.into(), ram.try_clone().map_err(|error| error.to_string())?];
        let mut guest =
            self.start(&blank, plan, plan.line(spec, Ram::Saved), passed).await.map_err(|error| error.to_string())?;
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
        if state.is_empty() {
            return Err("the emulator saved nothing".to_owned());
        }
        // The key says what was planned; an image that was built anew meanwhile is something else.
        match self.plan(spec).await {
            Ok(now) if now.key == plan.key => Ok((ram, state)),
            _ => Err("the VM image changed meanwhile".to_owned()),
        }
    }

    /// A restored machine that is awake, within `patience` of its emulator's start.
    async fn restore(
        &self,
        spec: &BootSpec,
        plan: &Plan,
        template: &Arc<Template>,
        patience: Duration,
    ) -> Result<Guest, BootError> {
        let (from, mut to) = std::io::pipe().map_err(|error| stage("prepared its restore", error))?;
        let (monitor, passed) = handed_over(template)?;
        let mut guest = self.start(spec, plan, plan.line(spec, Ram::Restored), passed).await?;
        let awake = async {
            let mut monitor = Monitor::open(stream(monitor)?).await?;
            let source = Arc::clone(template);
            // Ends when the emulator has read it or is gone.
            tokio::task::spawn_blocking(move || to.write_all(source.state()));
            monitor.restore(from.into()).await?;
            wake::order(&mut guest.io, &wake::wake(spec)?).await?;
            wake::ready(&mut guest.io).await
        };
        let awake = tokio::time::timeout(patience, awake).await;
        match awake.unwrap_or_else(|_| Err(format!("nothing came within {} s", patience.as_secs()))) {
            Ok(()) => Ok(guest),
            // Waited for: the next machine opens the same disk.
            Err(error) => Err(died(guest, error).await),
        }
    }
}

impl Sandbox for Qemu {
    fn label(&self) -> &'static str {
        if self.kvm { "qemu (KVM)" } else { "qemu (TCG: not a security boundary)" }
    }

    fn trial(&self, image: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        async move {
            if self.kvm {
                kvm::opens()?;
            }
            let place = tempfile::tempdir().map_err(|error| stage("made a directory for its trial", error))?;
            let spec = BootSpec {
                run: RunId(0),
                disk: place.path().join("disk"),
                image,
                packages: Vec::new(),
                templates: false,
                read_only: Vec::new(),
                cpus: 1,
                memory_mib: 512,
                pids: 64,
                file_size_mib: 0,
                disk_mib: 512,
                deadline: if self.kvm { KVM_TRIAL } else { TCG_TRIAL },
                program: Vec::new(),
            };
            let plan = self.plan(&spec).await?;
            let memory = kvm::Memory::about(&plan.identity, &plan.image.identity);
            if self.kvm && self.trusting && memory.pretended() {
                return Err(kvm::pretends(kvm::REMEMBERED));
            }
            let attempt = async || {
                let guest = prepared(self.cold(&spec, &plan).await?).await?;
                let report = guest.report.clone();
                // Awake is not alive: a machine that no run could use is of no use.
                super::prove(guest, "build the image again with scripts/build-vm.sh").await.map(|()| report)
            };
            let mut patience = spec.deadline;
            let mut tried = tokio::time::timeout(patience, attempt()).await;
            if tried.is_err() && self.kvm {
                // A busy host is no reason to go without until it boots again.
                patience = KVM_SECOND_TRIAL;
                tried = tokio::time::timeout(patience, attempt()).await;
            }
            let report = match tried.unwrap_or(Err(BootError::Deadline(patience))) {
                Ok(report) => {
                    if self.kvm {
                        memory.forget();
                    }
                    Ok(report)
                }
                Err(BootError::Deadline(_)) if self.kvm => {
                    memory.remember();
                    Err(kvm::pretends(&format!("nothing came within {} s", patience.as_secs())))
                }
                // Other stages are not the machine's fault.
                Err(BootError::Stage { stage, message }) if self.kvm && stage == WAITED => {
                    let last = message.rsplit("; its console said: ").next().unwrap_or(&message);
                    let first = last.split(" / ").next().unwrap_or(last);
                    Err(kvm::pretends(first.rsplit(": error: ").next().unwrap_or(first)))
                }
                other => other,
            };
            self.jail.discard_disk(&spec.disk).await?;
            report
        }
        .boxed()
    }

    fn has(&self, image: Option<PathBuf>, packages: Vec<String>) -> BoxFuture<'_, Result<(), BootError>> {
        let places = self.places.clone();
        let look = move || Image::find(image.as_deref(), &places)?.has(&packages);
        async { tokio::task::spawn_blocking(look).await.map_err(|error| stage("looked for its image", error))? }.boxed()
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        self.boot_machine(spec).boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), BootError>> {
        async {
            let Some(templates) = &self.templates else { return Ok(()) };
            templates.sweep().await.map_err(|error| stage("removed what a killed symphony left of templates", error))
        }
        .boxed()
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        self.jail.discard_disk(disk)
    }
}

/// What an emulator finds beside its channel when it restores: its end of the monitor, and the template's memory.
fn handed_over(template: &Template) -> Result<(StdStream, Vec<OwnedFd>), BootError> {
    let odd = |error: std::io::Error| stage("prepared its restore", error);
    let (monitor, theirs) = StdStream::pair().map_err(odd)?;
    Ok((monitor, vec![theirs.into(), template.ram().map_err(odd)?]))
}

fn stage(stage: &str, message: impl ToString) -> BootError {
    BootError::Stage { stage: stage.to_owned(), message: message.to_string() }
}

fn stream(socket: StdStream) -> Result<UnixStream, String> {
    socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).map_err(|error| error.to_string())
}

/// The last of a console, for an error. The guest wrote it.
fn said(console: &str) -> String {
    let tail: Vec<&str> = console.lines().rev().take(5).collect();
    let text: Vec<String> = tail.into_iter().rev().map(wake::harmless).filter(|line| !line.is_empty()).collect();
    if text.is_empty() { String::new() } else { format!("; its console said: {}", text.join(" / ")) }
}

/// Whether the disk is still in the hands of another emulator, which is on its way out.
fn is_held(error: &BootError) -> bool {
    // On the console it is said plainly, on the monitor as JSON.
    let held = ["Failed to get \"write\" lock", "Failed to get \\\"write\\\" lock"];
    matches!(error, BootError::Stage { message, .. } if held.iter().any(|words| message.contains(words)))
}

/// A machine that is awake, once its work disk is usable. That may take a check or a repair of the disk.
async fn prepared(mut guest: Guest) -> Result<Guest, BootError> {
    match wake::ready(&mut guest.io).await {
        Ok(()) => Ok(guest),
        Err(error) => Err(died(guest, error).await),
    }
}

/// A machine that did not come up: it is taken down, and its console may say why.
async fn died(guest: Guest, error: String) -> BootError {
    let ending = guest.stop(Duration::from_millis(200)).await;
    stage(WAITED, format!("{error}{}", said(&ending.stderr)))
}
