//! One microVM an issue under smolvm, driven through its command line (1.8.3 or newer; 1.32 is what it is tested with).
//!
//! A machine has no network and no folder of the host. The guest program is copied in and started in it; its one way out
//! is a socket of ours that smolvm mounts (or, where that fails, the standard streams of `machine exec -i`). In the machine
//! it gives up root, as does everything it starts. The *stopped* machine is the issue's work disk: it is started again by
//! the next run, with the settings it was made with, and deleted only by [`Sandbox::discard_disk`].
//!
//! Every machine of a workflow lives in a data directory of our own, is labelled with our instance, and is stopped before
//! it is deleted: deleting a machine whose start was interrupted leaves its monitor running. No secret is ever an argument
//! or a variable of a machine: smolvm keeps both in clear.

mod cli;
mod copy;
mod exec;
mod image;
mod life;
mod machine;
mod place;
mod preflight;
mod sweep;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use symphony_core::ids::RunId;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout_at};

use self::cli::{Cli, Failure};
use self::exec::{Channel, Exec};
use self::life::{Life, Running};
use self::machine::{Name, Order, Row};
use self::place::Place;
pub use self::sweep::Swept;
use super::{BootError, BootSpec, Guest, Sandbox, TrialReport};

/// The oldest version that has all we need: a channel that does not lock up, labels, sockets.
const OLDEST: [u32; 3] = [1, 8, 3];
/// A machine of the vendor's takes seconds; emulated inside another one it takes a minute.
const TRIAL_DEADLINE: Duration = Duration::from_secs(240);
/// How to get an image that agents can work in.
const IMAGE_HINT: &str = "set smolvm.image or smolvm.from to one that has it; scripts/build-smolvm-image makes one";
/// For calls that start nothing.
const QUICK: Duration = Duration::from_secs(30);
/// A start that takes longer is tried again: emulated inside another machine one takes up to a minute.
const STARTING: Duration = Duration::from_secs(180);
/// Making a machine may unpack an image.
const CREATING: Duration = Duration::from_secs(120);
/// Stopping flushes the machine's disks.
const STOPPING: Duration = Duration::from_secs(60);

/// What the workflow says about machines (`smolvm.*`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The program, when it is not to be looked for.
    pub bin: Option<PathBuf>,
    /// An image reference, an archive, or a directory with a root file system.
    pub image: Option<String>,
    /// A packed machine; wins over the image.
    pub from: Option<PathBuf>,
    /// Virtual processors where a run asks for none.
    pub cpus: u32,
    /// MiB of memory where a run asks for none.
    pub memory_mib: u64,
    /// Host directories or files copied in before the guest program starts: from where, to where.
    pub copies: Vec<(PathBuf, String)>,
}

impl Settings {
    /// As the workflow has them.
    pub fn of(section: &symphony_core::workflow::Smolvm) -> Self {
        let bin = section.bin_path.iter().map(|from| (from.clone(), "/opt/codex".to_owned()));
        let volumes = section.volumes.iter().map(|volume| (volume.host.clone(), volume.guest.clone()));
        Self {
            bin: None,
            image: section.image.clone(),
            from: section.from.clone(),
            cpus: section.cpus,
            memory_mib: section.mem_mib,
            copies: bin.chain(volumes).collect(),
        }
    }
}

/// Where things are that the runtime works with.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `.symphony` directory of the workflow.
    pub root: PathBuf,
    /// The guest program for machines: static, since an image may have any C library.
    pub guest: PathBuf,
    /// Marks our machines (`Parts::instance`).
    pub instance: String,
    /// The kernel's door to virtualisation, `/dev/kvm`.
    pub kvm: PathBuf,
}

/// The runtime.
#[derive(Debug)]
pub struct Smolvm {
    settings: Settings,
    places: Places,
    /// Checked once it was found good; what is missing may be installed while we run.
    ready: OnceCell<(Cli, Place)>,
    /// Mounted sockets were seen not to work here.
    no_sockets: AtomicBool,
}

impl Smolvm {
    /// Nothing is looked at before it is needed.
    pub fn new(settings: Settings, places: Places) -> Self {
        Self { settings, places, ready: OnceCell::new(), no_sockets: AtomicBool::new(false) }
    }

    /// Stops machines of ours that no run holds (they keep what they hold), deletes trial machines, and ends monitors that
    /// smolvm itself forgot. `live` names the issues' work disks in use. Machines and processes of others are untouched.
    ///
    /// # Errors
    /// smolvm cannot be used, or says no. Without a data directory there is nothing to do, and nothing is asked.
    pub async fn sweep_but(&self, live: &[PathBuf]) -> Result<Swept, BootError> {
        let Some(place) = Place::existing(&self.places.root).map_err(during("looked for its machines"))? else {
            return Ok(Swept::default());
        };
        let (cli, _) = self.ready().await?;
        let live: Vec<Name> = live.iter().filter_map(|disk| machine::remembered(disk).ok().flatten()).collect();
        sweep::sweep(cli, &place, &self.places.instance, &live).await
    }

    async fn ready(&self) -> Result<&(Cli, Place), BootError> {
        let check = || async {
            let cli = preflight::check(&self.settings, &self.places).await?;
            let place = Place::make(&self.places.root).map_err(during("made its directory for machines"))?;
            Ok((cli.in_place(&place), place))
        };
        self.ready.get_or_try_init(check).await
    }

    /// The whole way to a guest. Cancelled anywhere, the machine is stopped by a program that outlives us.
    async fn launch(&self, spec: BootSpec, purpose: &str) -> Result<Guest, BootError> {
        let deadline = Instant::now() + spec.deadline;
        let late = BootError::Deadline(spec.deadline);
        let (cli, place) = timeout_at(deadline, self.ready()).await.unwrap_or(Err(late.clone()))?;
        copy::check(&self.settings.copies)?;
        let remembered = machine::remembered(&spec.disk)?;
        let name = remembered.clone().unwrap_or_else(|| Name::of(&self.places.instance, &spec.disk));
        let known = timeout_at(deadline, self.known(&spec, cli, &name)).await.unwrap_or(Err(late.clone()))?;
        if remembered.is_none() {
            // Before the machine exists: one that nobody remembers would be nobody's work disk.
            machine::remember(&spec.disk, &name)?;
        }
        // From here on the machine may run, whatever becomes of this call.
        let running = Running::new(cli.clone(), name.clone(), place.clone());
        match timeout_at(deadline, self.bring_up(&spec, purpose, cli, place, &name, known)).await {
            Ok(Ok((io, exec))) => {
                let report = self.report(&spec);
                Ok(Guest { io, report, life: Box::new(Life::new(exec, running)) })
            }
            Ok(Err(error)) => {
                running.stop().await;
                Err(error)
            }
            Err(_) => {
                running.stop().await;
                Err(late)
            }
        }
    }

    async fn bring_up(
        &self,
        spec: &BootSpec,
        purpose: &str,
        cli: &Cli,
        place: &Place,
        name: &Name,
        known: Option<Row>,
    ) -> Result<(UnixStream, Exec), BootError> {
        let socket = place.socket(name);
        let fresh = match known {
            Some(row) => {
                // Whatever runs in it belongs to no run; and smolvm may not know that something does.
                if row.state != "stopped" {
                    cli.stop(name).await.map_err(|error| failed("stopped what its machine still ran", error))?;
                }
                // Interrupted before its first start was over, it holds nothing yet, perhaps not even what is copied in.
                row.state == "created"
            }
            None => {
                self.make(spec, purpose, cli, name, &socket).await?;
                true
            }
        };
        let listener = listen(&socket).map_err(during("opened the socket of its channel"))?;
        if let Err(error) = cli.start(name, spec.deadline).await {
            let said = cli.directory(name).await.map(|dir| place::last_words(&dir)).unwrap_or_default();
            return Err(failed("started its machine", error.and(&said)));
        }
        cli.call(["machine", "cp", &text(&self.places.guest), &name.at(copy::GUEST)], CREATING)
            .await
            .map_err(|error| failed("copied the guest program into its machine", error))?;
        if fresh {
            copy::all(cli, name, &self.settings.copies).await?;
        }
        if !self.no_sockets.load(Ordering::Relaxed) {
            let mut exec =
                Exec::start(cli, name, &spec.program, Channel::Socket).map_err(during("started the guest program"))?;
            match exec.connected(&listener).await {
                Ok(io) => return Ok((io, exec)),
                Err(said) if exec::blames_socket(&said) => {
                    tracing::warn!(machine = name.as_str(), said = %said.trim(),
                        "the mounted socket does not work here; machines are spoken to through `machine exec -i`");
                    self.no_sockets.store(true, Ordering::Relaxed);
                }
                Err(said) => return Err(stage("started the guest program", said.trim())),
            }
        }
        let mut exec =
            Exec::start(cli, name, &spec.program, Channel::Stdio).map_err(during("started the guest program"))?;
        let io = exec.streams().map_err(during("opened its channel"))?;
        Ok((io, exec))
    }

    /// The machine of this name, if there is one. Only where one must be made its image is asked for what it has: whatever
    /// an image lacks by now, a machine that exists is started again, or its work could not be taken off it.
    async fn known(&self, spec: &BootSpec, cli: &Cli, name: &Name) -> Result<Option<Row>, BootError> {
        let rows = cli.machines().await.map_err(|error| failed("listed its machines", error))?;
        match rows.into_iter().find(|row| row.name == name.as_str()) {
            Some(row) if !row.is_of(&self.places.instance) => {
                Err(stage("looked for its machine", &format!("{name} exists and is not ours")))
            }
            Some(row) => Ok(Some(row)),
            None => self.has(spec.image.clone(), spec.packages.clone()).await.map(|()| None),
        }
    }

    async fn make(
        &self,
        spec: &BootSpec,
        purpose: &str,
        cli: &Cli,
        name: &Name,
        socket: &Path,
    ) -> Result<(), BootError> {
        // What is asked for now wins over what the workflow said at the start; a packed machine is known by its name.
        let packed = |image: &&Path| {
            Some(*image) == self.settings.from.as_deref() || image.extension().is_some_and(|end| end == "smolmachine")
        };
        let (from, image) = match spec.image.as_deref() {
            Some(image) if packed(&image) => (Some(image), None),
            Some(image) => (None, Some(text(image))),
            None => (self.settings.from.as_deref(), self.settings.image.clone()),
        };
        let order = Order {
            name,
            instance: &self.places.instance,
            issue: purpose,
            run: spec.run,
            from,
            image,
            cpus: if spec.cpus > 0 { spec.cpus } else { self.settings.cpus },
            memory_mib: if spec.memory_mib > 0 { spec.memory_mib } else { self.settings.memory_mib },
            disk_mib: spec.disk_mib,
            socket,
        };
        cli.call(order.arguments(), CREATING).await.map_err(|error| failed("made its machine", error))?;
        Ok(())
    }

    fn report(&self, spec: &BootSpec) -> TrialReport {
        let uid = rustix::process::geteuid().as_raw();
        let (cpus, memory) = (
            if spec.cpus > 0 { spec.cpus } else { self.settings.cpus },
            if spec.memory_mib > 0 { spec.memory_mib } else { self.settings.memory_mib },
        );
        TrialReport {
            kernel: "its own, under KVM",
            uid: Some(uid),
            cpus: format!("{cpus} of its own"),
            memory: format!("a machine of {memory} MiB"),
            pids: "by the machine's own kernel".to_owned(),
            disk: match spec.disk_mib {
                0 => "as large as smolvm makes it".to_owned(),
                mib => format!("{} GiB", machine::gib(mib)),
            },
            landlock_abi: 0,
            seccomp: false,
        }
    }
}

impl Sandbox for Smolvm {
    fn label(&self) -> &'static str {
        "smolvm (microVM)"
    }

    fn trial(&self, image: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        async move {
            // What costs nothing comes first: a missing program must not take the time of a boot.
            let (_, place) = self.ready().await?;
            let disk = place.trial_disk().map_err(during("made a directory for its trial"))?;
            let spec = BootSpec {
                run: RunId(0),
                disk: disk.clone(),
                image,
                packages: Vec::new(),
                templates: false,
                read_only: Vec::new(),
                cpus: 1,
                memory_mib: 512,
                pids: 0,
                file_size_mib: 0,
                disk_mib: 0,
                deadline: TRIAL_DEADLINE,
                program: Vec::new(),
            };
            let booted = self.launch(spec, machine::TRIAL).await;
            let outcome = match booted {
                Ok(guest) => {
                    let report = guest.report.clone();
                    super::prove(guest, IMAGE_HINT).await.map(|()| report)
                }
                Err(error) => Err(error),
            };
            let discarded = self.discard_disk(&disk).await;
            let report = outcome?;
            discarded?;
            Ok(report)
        }
        .boxed()
    }

    fn has(&self, image: Option<PathBuf>, packages: Vec<String>) -> BoxFuture<'_, Result<(), BootError>> {
        let usual = || self.settings.from.clone().or_else(|| self.settings.image.as_ref().map(PathBuf::from));
        let image = image.or_else(usual);
        let look = move || image::has(image.as_deref(), &packages);
        async {
            tokio::task::spawn_blocking(look)
                .await
                .map_err(|error| stage("looked for its image", &error.to_string()))?
        }
        .boxed()
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        async move {
            let issue = spec.disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.launch(spec, &issue).await
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<(), BootError>> {
        async {
            let swept = self.sweep_but(&[]).await?;
            if swept != Swept::default() {
                tracing::info!(?swept, "machines of an earlier life were stopped");
            }
            Ok(())
        }
        .boxed()
    }

    fn elsewhere<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Option<PathBuf>> {
        async move {
            let name = machine::remembered(disk).ok()??;
            let (cli, _) = self.ready().await.ok()?;
            // One that does not exist is not asked for: it would get a stray directory.
            let rows = cli.machines().await.ok()?;
            let there = rows.iter().any(|row| row.name == name.as_str() && row.is_of(&self.places.instance));
            if there { cli.directory(&name).await } else { None }
        }
        .boxed()
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        async move {
            if let Some(name) = machine::remembered(disk)? {
                let (cli, place) = self.ready().await?;
                life::remove(cli, place, &self.places.instance, &name).await?;
            }
            machine::forget(disk)
        }
        .boxed()
    }
}

/// Where the machines are of the workflow whose private directory is `root`. It may not be there.
///
/// # Errors
/// No path is short enough.
pub fn directory(root: &Path) -> std::io::Result<PathBuf> {
    place::directory(root)
}

/// A fresh listener at our path; what stood there was an earlier boot's.
fn listen(socket: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(socket)
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

fn stage(stage: &str, message: &str) -> BootError {
    BootError::Stage { stage: stage.to_owned(), message: message.to_owned() }
}

fn during(words: &'static str) -> impl FnOnce(std::io::Error) -> BootError {
    move |error| stage(words, &error.to_string())
}

fn failed(words: &str, failure: Failure) -> BootError {
    preflight::explain(&failure).unwrap_or_else(|| stage(words, &failure.message))
}
