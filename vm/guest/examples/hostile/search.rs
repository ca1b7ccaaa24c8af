//! Looks for a secret wherever the root of a machine can look. The secret comes masked, and is compared masked, so that
//! the search does not find itself.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{devices, start};

const MASK: u8 = 0x55;
const CHUNK: usize = 1024 * 1024;
/// Of the work disk, whose nominal size nobody can read.
const MOST_OF_A_DISK: u64 = 256 * 1024 * 1024;

/// Where it was found how often: `memory disks files firmware`, and how many MiB of each were read.
pub(crate) fn find(masked: &str) -> String {
    let masked = bytes(masked);
    let mut report = String::new();
    for (name, (found, read)) in [
        ("memory", memory(&masked)),
        ("disks", disks(&masked)),
        ("files", files(&masked)),
        ("firmware", firmware(&masked)),
    ] {
        report += &format!("{name} {found} of {read}\n");
    }
    report
}

/// Puts it where a leak would: into memory and at the start of the work disk.
pub(crate) fn plant(masked: &str) -> String {
    let plain: Vec<u8> = bytes(masked).iter().map(|byte| byte ^ MASK).collect();
    let disk = start::disk("work").and_then(|path| File::options().write(true).open(path).ok());
    let mut block = vec![0; 4096];
    block[..plain.len()].copy_from_slice(&plain);
    let wrote = disk.is_some_and(|disk| disk.write_all_at(&block, 8192).and_then(|()| disk.sync_all()).is_ok());
    Box::leak(block.into_boxed_slice());
    format!("{wrote}")
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).filter_map(|at| u8::from_str_radix(hex.get(at * 2..at * 2 + 2)?, 16).ok()).collect()
}

fn count(text: &[u8], masked: &[u8]) -> u64 {
    let Some(first) = masked.first().map(|byte| byte ^ MASK) else { return 0 };
    let mut found = 0;
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        rest = &rest[at..];
        let same = rest.len() >= masked.len() && rest.iter().zip(masked).all(|(plain, masked)| plain ^ MASK == *masked);
        found += u64::from(same);
        rest = &rest[1..];
    }
    found
}

/// Reads `length` bytes of a file from `at` on, in chunks that overlap.
fn scan(file: &File, mut at: u64, length: u64, masked: &[u8]) -> (u64, u64) {
    let mut buffer = vec![0; CHUNK];
    let (mut found, mut read) = (0, 0);
    while read < length {
        let Ok(n @ 1..) = file.read_at(&mut buffer, at) else { break };
        found += count(&buffer[..n], masked);
        read += n as u64;
        // What lies across two chunks is whole in the next.
        at += (n.saturating_sub(masked.len())).max(1) as u64;
        if n < CHUNK {
            break;
        }
    }
    (found, read)
}

fn mib((found, read): (u64, u64)) -> (u64, u64) {
    (found, read / (1024 * 1024))
}

/// All RAM, as the kernel shows it to a debugger.
fn memory(masked: &[u8]) -> (u64, u64) {
    let Ok(core) = File::open("/proc/kcore") else { return (0, 0) };
    let mut head = vec![0; 64 * 1024];
    let n = core.read_at(&mut head, 0).unwrap_or(0);
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let (table, entries) = (number(32) as usize, u16::from_le_bytes([head[56], head[57]]) as usize);
    let mut total = (0, 0);
    for entry in (0..entries).map(|entry| table + entry * 56).filter(|entry| entry + 56 <= n) {
        let (offset, virt, phys, size) =
            (number(entry + 8), number(entry + 16), number(entry + 24), number(entry + 32));
        // The direct map of RAM: what is elsewhere is a second sight of it, or nothing.
        let ram = head[entry] == 1 && phys < 1 << 40 && size < 8 << 30 && virt < 0xffff_ffff_8000_0000;
        if ram {
            let (found, read) = scan(&core, offset, size, masked);
            total = (total.0 + found, total.1 + read);
        }
    }
    mib(total)
}

fn disks(masked: &[u8]) -> (u64, u64) {
    let mut total = (0, 0);
    for entry in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        if let Ok(disk) = File::open(Path::new("/dev").join(entry.file_name())) {
            let (found, read) = scan(&disk, 0, MOST_OF_A_DISK, masked);
            total = (total.0 + found, total.1 + read);
        }
    }
    mib(total)
}

/// Environments, command lines, and what the firmware left.
fn files(masked: &[u8]) -> (u64, u64) {
    let mut places = vec![Path::new("/proc/cmdline").to_owned(), "/proc/bootconfig".into()];
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        places.push(entry.path().join("environ"));
        places.push(entry.path().join("cmdline"));
    }
    let mut dirs = vec![Path::new("/sys/firmware").to_owned(), "/sys/class/dmi".into()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => places.push(entry.path()),
                _ => {}
            }
        }
    }
    let mut total = (0, 0);
    for place in places {
        let mut text = Vec::new();
        if let Ok(file) = File::open(place)
            && file.take(CHUNK as u64).read_to_end(&mut text).is_ok()
        {
            total = (total.0 + count(&text, masked), total.1 + 1);
        }
    }
    total
}

/// What the emulator hands to a guest's firmware.
fn firmware(masked: &[u8]) -> (u64, u64) {
    let mut total = (0, 0);
    for key in 0..64 {
        let text = devices::firmware_item(key, 4096);
        total = (total.0 + count(&text, masked), total.1 + u64::from(text.iter().any(|byte| *byte != 0)));
    }
    total
}
