//! The emulator without us: the command line of a machine of ours, with everything that is ours taken out of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process;

/// Where a machine's jail shows its image, and the disk in it.
const IMAGE: &str = "/run/symphony/vm";
const DISK: &str = "/state/work.img";

/// How a bare machine is started.
pub(super) struct Bare {
    argv: Vec<String>,
}

/// A bare machine that has said its line.
pub(super) struct Booted {
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Bare {
    /// From the arguments of a running emulator of ours.
    pub(super) fn of(emulator: u32, image: &Path, initrd: &Path, disk: &Path) -> Self {
        let ours = std::fs::read(format!("/proc/{emulator}/cmdline")).expect("the emulator runs");
        let ours = String::from_utf8_lossy(&ours);
        let mut argv: Vec<String> = Vec::new();
        let mut words = ours.split('\0').filter(|word| !word.is_empty());
        while let Some(word) = words.next() {
            if matches!(word, "-sandbox" | "-name") {
                words.next();
                continue;
            }
            let word = match word {
                "file:/dev/stderr" => "stdio".to_owned(),
                word if word.ends_with("/initrd.cpio") => initrd.display().to_string(),
                word if word.starts_with("socket,id=channel") => "null,id=channel".to_owned(),
                word => word.replace(IMAGE, &image.display().to_string()).replace(DISK, &disk.display().to_string()),
            };
            argv.push(word);
        }
        Self { argv }
    }

    pub(super) fn line(&self) -> String {
        self.argv.join(" ")
    }

    /// Boots one, up to the first line of its first process, and kills it.
    pub(super) fn boot(&self) -> Booted {
        let started = Instant::now();
        let (program, arguments) = self.argv.split_first().expect("a program");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut machine = Killed(command.spawn().expect("the emulator starts"));
        let said = machine.0.stdout.take().expect("piped");
        let found = BufReader::new(said).lines().map_while(Result::ok).any(|line| line.contains("first line of init"));
        let wall = started.elapsed();
        assert!(found, "the bare machine ended before its first line");
        Booted { wall, cpu: process::cpu(machine.0.id()) }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A blank disk of the size that ours have.
pub(super) fn disk(place: &Path) -> PathBuf {
    let disk = place.join("bare.img");
    std::fs::File::create(&disk).and_then(|file| file.set_len(256 << 30)).expect("a sparse file");
    disk
}
