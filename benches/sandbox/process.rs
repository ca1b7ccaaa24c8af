//! What the kernel says of processes and of this machine.

use std::fs;
use std::time::Duration;

/// Processor time of all threads so far.
pub(super) fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Memory that is this process's own, its part of what is shared included, in MiB.
pub(super) fn pss_mib(pid: u32) -> f64 {
    kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:") / 1024.0
}

pub(super) fn available_mib() -> f64 {
    kib("/proc/meminfo", "MemAvailable:") / 1024.0
}

fn kib(file: &str, key: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(f64::NAN)
}

/// The emulator of one run.
pub(super) fn emulator(run: u64) -> u32 {
    let name = format!("symphony-run-{run}");
    let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == name.as_bytes())
    };
    pids.find(named).expect("the emulator runs")
}

pub(super) fn load() -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{processors} processors, load {}", load.trim())
}
