//! What happens to a run, and to the whole program, from the first look to the last signal.

mod acp;
mod files;
mod hooks;
mod kill;
mod linger;
mod reload;
mod signals;

use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::rig::{Running, until};

/// A duration to sleep that nobody else sleeps: it marks the processes of one test in `/proc`.
pub(crate) fn mark() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("7654.{}{:03}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The processes that sleep for `mark`, as the host numbers them.
pub(crate) fn sleepers(mark: &str) -> Vec<i32> {
    let line = format!("sleep\0{mark}\0");
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        if std::fs::read(entry.path().join("cmdline")).is_ok_and(|told| told == line.as_bytes()) {
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    found
}

/// Waits for the one sleeper of `mark`.
pub(crate) fn sleeper(mark: &str) -> i32 {
    until(&format!("sleep {mark} to start"), || sleepers(mark).len() == 1);
    sleepers(mark)[0]
}

pub(crate) fn until_gone(mark: &str) {
    until(&format!("sleep {mark} to be gone"), || sleepers(mark).is_empty());
}

/// So many generations above a process.
fn ancestor(pid: i32, generations: u32) -> i32 {
    (0..generations).fold(pid, |pid, _| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
        parent.trim().parse().expect("a number")
    })
}

fn send(pid: i32, signal: Signal) {
    rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), signal).expect("it lives");
}

/// The row of an issue in one of the state's lists.
pub(crate) fn row<'a>(state: &'a Value, list: &str, key: &str) -> Option<&'a Value> {
    state[list].as_array().into_iter().flatten().find(|row| row["issue_identifier"] == key)
}

/// How often a run of an issue started, by the log.
pub(crate) fn starts(running: &Running, key: &str) -> usize {
    let log = running.log();
    log.lines().filter(|line| line.contains("run starts") && line.contains(&format!("issue_identifier={key} "))).count()
}
