//! What these tests share: an image with another first process, and the emulator as its host sees it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use symphony::sandbox::{BootError, BootSpec, Ending, Guest, Life, Sandbox};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::machine::bench::{Bench, SOON, have_machines};
use crate::skip::skip;

/// Runs that no other test has.
fn run(number: u64) -> u64 {
    u64::from(std::process::id()) * 1000 + 500 + number % 500
}

/// A place for hostile machines.
pub(crate) struct Hostile {
    pub(crate) bench: Bench,
    /// Beside the real image, so that its large files can be linked and need not be copied.
    images: TempDir,
}

impl Hostile {
    /// `None` where there are no machines, or no hostile program for them; says so.
    pub(crate) fn new() -> Option<Self> {
        if !have_machines() {
            return None;
        }
        if !program().exists() {
            let missing = "there is no hostile program; run scripts/build-guest --example hostile";
            assert!(std::env::var_os("SYMPHONY_REQUIRE_VM").is_none(), "{missing}");
            skip(missing);
            return None;
        }
        let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("directory");
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(images.path(), all).expect("readable for all");
        Some(Self { bench: Bench::new(), images })
    }

    /// A machine that does this, and a run number of its own.
    pub(crate) fn spec(&self, attack: &str) -> BootSpec {
        let mut spec = self.bench.spec(attack);
        spec.run.0 = run(spec.run.0);
        spec.memory_mib = 256;
        spec.image = Some(self.image(attack));
        spec
    }

    /// Boots it cold.
    pub(crate) async fn boot(&self, spec: BootSpec) -> Result<Guest, BootError> {
        self.bench.cold().boot(spec).await
    }

    /// The real image with an archive behind its initrd that puts the attacker in the place of `/init`.
    fn image(&self, attack: &str) -> PathBuf {
        let real = real_image();
        let dir = self.images.path().join(attack);
        if dir.exists() {
            return dir;
        }
        fs::create_dir(&dir).expect("directory");
        // Copied, and not linked: an attack that reached it would ruin the real one.
        fs::copy(real.join("root.erofs"), dir.join("root.erofs")).expect("copied");
        fs::hard_link(real.join("vmlinux"), dir.join("vmlinux")).expect("linked");
        let mut initrd = fs::read(real.join("initrd.cpio")).expect("readable");
        initrd.resize(initrd.len().next_multiple_of(512), 0);
        entry(&mut initrd, "init", 0o100_755, &fs::read(program()).expect("readable"));
        entry(&mut initrd, "attack", 0o100_644, attack.as_bytes());
        entry(&mut initrd, "TRAILER!!!", 0, b"");
        fs::write(dir.join("initrd.cpio"), &initrd).expect("written");
        let manifest = fs::read(real.join("manifest.json")).expect("readable");
        let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("a manifest");
        let outputs = manifest["outputs"].as_object_mut().expect("outputs");
        outputs.retain(|name, _| name != "agents.erofs");
        outputs["initrd.cpio"] = serde_json::json!({"sha256": attack, "bytes": initrd.len()});
        fs::write(dir.join("manifest.json"), manifest.to_string()).expect("written");
        dir
    }
}

/// Whether the root that the machine was given is still the one of the real image.
pub(crate) fn untouched(spec: &BootSpec) -> bool {
    let given = spec.image.as_ref().expect("named").join("root.erofs");
    fs::read(given).expect("readable") == fs::read(real_image().join("root.erofs")).expect("readable")
}

fn real_image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/image")
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guest/x86_64-unknown-linux-gnu/release/examples/hostile")
}

/// One file of a `newc` archive.
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, text: &[u8]) {
    let fields = [0, mode, 0, 0, 1, 0, text.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    fields.iter().for_each(|field| write!(archive, "{field:08x}").expect("memory"));
    archive.extend(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(text);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The name that the emulator of a run carries.
pub(crate) fn name(spec: &BootSpec) -> String {
    format!("symphony-run-{}", spec.run.0)
}

/// Gives an order to a machine that obeys, and returns its answer; `None` when it ended over it.
pub(crate) async fn try_order(io: &mut UnixStream, order: &str) -> Option<String> {
    io.write_all(format!("{order}\n").as_bytes()).await.ok()?;
    let mut line = String::new();
    let mut lines = BufReader::new(io);
    tokio::time::timeout(SOON, lines.read_line(&mut line)).await.expect("an answer or an end").ok()?;
    serde_json::from_str(&line).ok()
}

pub(crate) async fn order(io: &mut UnixStream, order: &str) -> String {
    try_order(io, order).await.unwrap_or_else(|| panic!("{order}: it ended"))
}

/// Ends a machine that does not care. However it ends, it must, and nothing may be left.
pub(crate) async fn end(mut life: Box<dyn Life>, spec: &BootSpec) -> Ending {
    let ending = life.stop(std::time::Duration::from_millis(200)).await;
    assert!(crate::jail::bench::gone(&name(spec)).await, "an emulator is left");
    ending
}

/// A figure of the emulator's process from its `/proc/PID/status`.
pub(crate) fn figure(spec: &BootSpec, field: &str) -> u64 {
    let mark = name(spec);
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten().map(|process| process.path());
    let emulator = processes
        .filter(|process| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes())
        })
        .find(|process| fs::read_to_string(process.join("comm")).unwrap_or_default().starts_with("qemu"))
        .expect("an emulator runs");
    let status = fs::read_to_string(emulator.join("status")).expect("readable");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("a figure");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
