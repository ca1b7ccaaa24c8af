//! Sandboxes booted and ended many times over, in order and not: afterwards this machine is as it was before.
//!
//! `SYMPHONY_SOAK_CYCLES` says how many times: a few without it, 200 in `scripts/test-soak`. Each soak runs in a
//! process of its own with a mount namespace of its own, so that nobody else's files and mounts are counted.

mod host;
mod ledger;
mod program;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use symphony::sandbox::jail::Jail;
use symphony::sandbox::qemu::Qemu;
use symphony::sandbox::{BootSpec, Sandbox};
use symphony_core::ids::RunId;
use tempfile::TempDir;

use self::ledger::{Ledger, Marks, RUNS, buried, cgroups, children};
use crate::jail::bench::is_root;
use crate::machine::bench::{Awake, SOON, have_machines};
use crate::skip::{pass_on, skip};

const ALONE: &str = "SYMPHONY_SOAK_ALONE";
const CYCLES: &str = "SYMPHONY_SOAK_CYCLES";

#[test]
fn jails_leave_this_machine_as_it_was() {
    alone("soak::jails_leave_this_machine_as_it_was", || async {
        let soak = Soak::new();
        if let Err(error) = soak.jail().trial(None).await {
            skip(error);
            return;
        }
        soak.run("jail", &soak.jail(), cycles(12)).await;
    });
}

#[test]
fn machines_booted_cold_leave_this_machine_as_it_was() {
    if !have_machines() {
        return;
    }
    alone("soak::machines_booted_cold_leave_this_machine_as_it_was", || async {
        let soak = Soak::new();
        soak.run("qemu, cold", &soak.machines(false), cycles(2)).await;
    });
}

#[test]
fn machines_restored_from_a_template_leave_this_machine_as_it_was() {
    if !have_machines() {
        return;
    }
    alone("soak::machines_restored_from_a_template_leave_this_machine_as_it_was", || async {
        let soak = Soak::new();
        soak.run("qemu, restored", &soak.machines(true), cycles(8)).await;
    });
}

fn cycles(few: u64) -> u64 {
    std::env::var(CYCLES).ok().and_then(|cycles| cycles.parse().ok()).unwrap_or(few)
}

/// Runs the body in a process of its own.
fn alone<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(ALONE).is_some() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        return runtime.block_on(body());
    }
    let mut again = Command::new("/proc/self/exe");
    again.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, "1");
    if is_root() {
        // SAFETY: system calls on a process that is about to become another program; no memory is shared.
        unsafe { again.pre_exec(own_mounts) };
    }
    let output = again.output().expect("the test program starts once more");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    pass_on("alone", &errors);
    println!("{text}{errors}");
    assert!(output.status.success() && text.contains("1 passed"), "the soak failed; its words are above");
}

fn own_mounts() -> std::io::Result<()> {
    use rustix::mount::MountPropagationFlags;
    // SAFETY: the calling process has one thread.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// How one cycle ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    InOrder,
    Dropped,
    LauncherKilled,
    ProgramKilled,
    NoGrace,
}

impl End {
    /// Every second cycle ends in order, the others in each bad way in turn.
    fn of(cycle: u64) -> Self {
        match (cycle % 2, cycle / 2 % 4) {
            (0, _) => Self::InOrder,
            (_, 0) => Self::Dropped,
            (_, 1) => Self::LauncherKilled,
            (_, 2) => Self::ProgramKilled,
            _ => Self::NoGrace,
        }
    }
}

/// The place of one soak.
struct Soak {
    place: TempDir,
    marks: Marks,
}

impl Soak {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let marks = Marks::within(place.path(), std::process::id());
        std::fs::create_dir(place.path().join("tmp")).expect("made");
        // A copy: the same program may run elsewhere on this machine.
        std::fs::copy(env!("CARGO_BIN_EXE_symphony"), &marks.exe).expect("copied");
        // SAFETY: this process runs this one test, and no other thread of it has read its environment.
        unsafe { std::env::set_var("TMPDIR", place.path().join("tmp")) };
        Self { place, marks }
    }

    fn jail(&self) -> Jail {
        Jail::new(self.marks.exe.clone())
    }

    fn machines(&self, templates: bool) -> Qemu {
        let templates = templates.then(|| symphony::sandbox::qemu::Templates::new(self.place.path().join("templates")));
        Qemu::new(self.marks.exe.clone(), false, templates)
    }

    /// Boots, works a little and ends, `cycles` times; then everything is as it was.
    async fn run(&self, what: &str, runtime: &dyn Sandbox, cycles: u64) {
        // What is made once and kept: threads, a template.
        self.cycle(runtime, 0).await;
        self.cycle(runtime, 1).await;
        for _ in 0..100 {
            // Removed a moment after the last of the dead.
            if cgroups(self.marks.maker).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(cgroups(self.marks.maker), Vec::<PathBuf>::new());
        let before = Ledger::take(&self.marks);
        let started = Instant::now();
        for cycle in 2..2 + cycles {
            self.cycle(runtime, cycle).await;
        }
        println!("{what}: {cycles} cycles in {:.1} s, half of them killed", started.elapsed().as_secs_f64());
        before.settle(&self.marks, what).await;
    }

    /// Two cycles share a disk: what the first, which ends in order, leaves on it, the second finds.
    async fn cycle(&self, runtime: &dyn Sandbox, cycle: u64) {
        let end = End::of(cycle);
        let spec = self.spec(cycle);
        let disk = spec.disk.clone();
        let guest = Awake::boot(runtime, spec).await;
        if end == End::InOrder {
            guest.sh(&format!("echo {cycle} > /work/cycle && sync")).await;
        } else {
            assert_eq!(guest.sh("cat /work/cycle").await, (cycle - 1).to_string());
        }
        match end {
            End::InOrder => {
                let ending = guest.end().await;
                assert!(!ending.killed && ending.code == Some(0), "cycle {cycle}: {ending:?}");
            }
            End::Dropped => drop(guest),
            End::LauncherKilled | End::ProgramKilled => {
                let [launcher, program] = keepers();
                kill(if end == End::LauncherKilled { launcher } else { program });
                let Awake { channel, mut life, .. } = guest;
                tokio::time::timeout(SOON, life.wait()).await.expect("its end is noticed");
                drop(channel);
            }
            End::NoGrace => {
                let Awake { channel, mut life, .. } = guest;
                let ending = life.stop(Duration::ZERO).await;
                assert!(ending.killed, "cycle {cycle}: {ending:?}");
                drop(channel);
            }
        }
        let left = buried(&self.marks).await;
        assert!(left.is_empty(), "cycle {cycle}, {end:?}, left {left:#?}");
        if end != End::InOrder {
            runtime.discard_disk(&disk).await.expect("removed");
        }
    }

    fn spec(&self, cycle: u64) -> BootSpec {
        spec(&self.marks, cycle, &format!("disk-{}", cycle / 2))
    }
}

impl Marks {
    fn within(place: &Path, maker: u32) -> Self {
        Self { maker, exe: place.join("symphony"), place: place.to_owned() }
    }
}

/// Small, and with a number that tells whose it is.
fn spec(marks: &Marks, number: u64, disk: &str) -> BootSpec {
    BootSpec {
        run: RunId(u64::from(marks.maker) * RUNS + number),
        disk: marks.place.join("disks").join(disk),
        image: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vm/image")),
        packages: Vec::new(),
        templates: true,
        read_only: Vec::new(),
        cpus: 1,
        memory_mib: 512,
        pids: 200,
        file_size_mib: 64,
        disk_mib: 256,
        deadline: SOON,
        program: Vec::new(),
    }
}

/// The launcher of the one sandbox that runs, and the program in it: an emulator or the guest program.
fn keepers() -> [u32; 2] {
    let only = |of: u32| match children(of).as_slice() {
        [one] => *one,
        several => panic!("{of} has {several:?}, not one child"),
    };
    let launcher = only(std::process::id());
    [launcher, only(only(launcher))]
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a number");
    rustix::process::kill_process(pid, Signal::KILL).expect("killed");
}
