//! How fast sandboxes are, as ratios: what is compared is measured in turn, in one run, since machines are noisy.
//! Started by `scripts/bench-sandbox`. Nothing here is a test: figures are printed, never asserted.

mod bare;
mod claim;
mod files;
mod process;
mod series;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use symphony::sandbox::channel::{Channel, CheckRequest};
use symphony::sandbox::jail::Jail;
use symphony::sandbox::qemu::{Qemu, Templates};
use symphony::sandbox::{BootSpec, Life, Sandbox};
use symphony_core::ids::RunId;

use self::bare::Bare;
use self::series::{Series, verdict};

const SOON: Duration = Duration::from_secs(120);
const CLONES: u64 = 6;

struct Bench {
    place: tempfile::TempDir,
    image: PathBuf,
    next: u64,
}

/// A machine that answered.
struct Awake {
    run: u64,
    took: Duration,
    channel: Channel,
    life: Box<dyn Life>,
    disk: PathBuf,
}

impl Bench {
    fn spec(&mut self) -> BootSpec {
        self.next += 1;
        BootSpec {
            run: RunId(self.next),
            disk: self.place.path().join(format!("disk-{}", self.next)),
            image: Some(self.image.clone()),
            packages: Vec::new(),
            templates: true,
            read_only: Vec::new(),
            cpus: 1,
            memory_mib: 512,
            pids: 200,
            file_size_mib: 1024,
            // The default: the image has a file system of this size ready.
            disk_mib: 8192,
            deadline: SOON,
            program: Vec::new(),
        }
    }

    /// From the call to the guest program's hello.
    async fn boot(&mut self, runtime: &dyn Sandbox) -> Awake {
        let spec = self.spec();
        let (run, disk) = (spec.run.0, spec.disk.clone());
        let started = Instant::now();
        let (io, life) = runtime.boot(spec).await.expect("it boots").into_parts();
        let (channel, _) = Channel::open(io, "token", SOON).await.expect("the guest program answers");
        Awake { run, took: started.elapsed(), channel, life, disk }
    }

    /// From the call to the end of a program that does nothing.
    async fn jail(&mut self, jail: &Jail) -> Duration {
        let program = vec!["/usr/bin/true".to_owned()];
        let spec = BootSpec { disk: self.place.path().join("jail"), program, ..self.spec() };
        let started = Instant::now();
        let mut guest = jail.boot(spec).await.expect("the jail boots");
        guest.wait().await;
        started.elapsed()
    }
}

impl Awake {
    async fn sh(&self, script: &str) -> String {
        let request = CheckRequest {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())],
            cwd: None,
            timeout_ms: 300_000,
            max_output: 64 * 1024,
        };
        let (_, output) = self.channel.check(request).await.expect("the guest runs it");
        String::from_utf8_lossy(&output).trim().to_owned()
    }

    async fn end(mut self, runtime: &dyn Sandbox) {
        drop(self.channel);
        self.life.stop(Duration::from_secs(1)).await;
        runtime.discard_disk(&self.disk).await.expect("removed");
    }
}

#[tokio::main]
async fn main() {
    let rounds = variable("SYMPHONY_BENCH_ROUNDS").and_then(|n| n.parse().ok()).unwrap_or(20);
    let exe = PathBuf::from(env!("CARGO_BIN_EXE_symphony"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bench = Bench { place: tempfile::tempdir().expect("a directory"), image: root.join("vm/image"), next: 0 };
    let jail = Jail::new(exe.clone());
    let cold = Qemu::new(exe.clone(), false, None);
    let restored = Qemu::new(exe.clone(), false, Some(Templates::new(bench.place.path().join("templates"))));
    println!("before: {}; {rounds} rounds", process::load());

    let initrd = variable("SYMPHONY_BENCH_INITRD");
    if let Some(initrd) = initrd {
        machines(&mut bench, rounds, Path::new(&initrd), &cold, &restored).await;
        memory(&mut bench, &cold, &restored).await;
        files::compare(&mut bench, &restored).await;
    } else {
        println!("skipped: machines; SYMPHONY_BENCH_INITRD names no initrd (scripts/bench-sandbox makes one)");
    }
    jails(&mut bench, rounds * 5, &jail).await;
    claim::compare(&exe, rounds.min(10));
    println!("after: {}", process::load());
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn machines(bench: &mut Bench, rounds: usize, initrd: &Path, cold: &Qemu, restored: &Qemu) {
    // The first ones read files that are not in memory yet, and make the template.
    bench.boot(restored).await.end(restored).await;
    let first = bench.boot(cold).await;
    let disk = bare::disk(bench.place.path());
    let bare = Bare::of(process::emulator(first.run), &bench.image, initrd, &disk);
    first.end(cold).await;
    bare.boot();
    println!("bare: {}\n", bare.line());
    let names = ["bare QEMU to the first line of init", "cold boot to hello", "template restore to hello"];
    let cpu = ["processor: bare", "processor: cold", "processor: restored"];
    let (mut walls, mut cpus) = (names.map(Series::new), cpu.map(Series::new));
    for _ in 0..rounds {
        let booted = bare.boot();
        walls[0].add(booted.wall);
        cpus[0].add(booted.cpu);
        for (at, runtime) in [(1, cold), (2, restored)] {
            let machine = bench.boot(runtime).await;
            walls[at].add(machine.took);
            cpus[at].add(process::cpu(process::emulator(machine.run)));
            machine.end(runtime).await;
        }
    }
    Series::head();
    walls.iter().chain(&cpus).for_each(Series::row);
    println!();
    for (what, [bare, cold, restored]) in [("wall time", &walls), ("processor time of the emulator", &cpus)] {
        let over = (cold.p50() / bare.p50() - 1.0) * 100.0;
        let bound = (what == "wall time").then_some(over <= 10.0);
        verdict("cold boot over bare QEMU (at most 10 %)", &format!("{over:.0} % more {what}, p50"), bound);
        let times = cold.p50() / restored.p50();
        let bound = (what == "wall time").then_some(times >= 10.0);
        verdict("template restore against cold boot (at least 10 x)", &format!("{times:.1} x in {what}, p50"), bound);
    }
    println!();
}

async fn memory(bench: &mut Bench, cold: &Qemu, restored: &Qemu) {
    let one = bench.boot(cold).await;
    let alone = process::pss_mib(process::emulator(one.run));
    one.end(cold).await;
    let before = process::available_mib();
    let mut clones = Vec::new();
    for _ in 0..CLONES {
        clones.push(bench.boot(restored).await);
    }
    let sum: f64 = clones.iter().map(|clone| process::pss_mib(process::emulator(clone.run))).sum();
    let fell = before - process::available_mib();
    let n = f64::from(u32::try_from(CLONES).unwrap_or(1));
    let figure = format!(
        "{:.0} MiB (PSS of the emulator, {CLONES} clones), {:.0} MiB by what this machine has left; a cold machine {alone:.0} MiB",
        sum / n,
        fell / n,
    );
    verdict("memory per idle clone", &figure, None);
    for clone in clones {
        clone.end(restored).await;
    }
}

async fn jails(bench: &mut Bench, rounds: usize, jail: &Jail) {
    bench.jail(jail).await;
    let mut forks = Series::new("fork and exec of true, to its end");
    let mut jails = Series::new("the same in a jail");
    for _ in 0..rounds {
        let started = Instant::now();
        Command::new("/usr/bin/true").status().expect("it runs");
        forks.add(started.elapsed());
        jails.add(bench.jail(jail).await);
    }
    println!();
    Series::head();
    forks.row();
    jails.row();
    let over = jails.p50() - forks.p50();
    verdict("jail over fork and exec (at most 30 ms)", &format!("{over:.1} ms, p50"), Some(over <= 30.0));
}
