//! The most memory that programs below symphony hold together, looked at again and again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Looks until it is asked.
pub(super) struct Peak {
    over: Arc<AtomicBool>,
    looking: JoinHandle<u64>,
}

impl Peak {
    /// Of those among the descendants of `root` whose program is one of `these`.
    pub(super) fn below(root: i32, these: impl Fn(&Path) -> bool + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let done = over.clone();
        let looking = std::thread::spawn(move || {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(held(root, &these));
                std::thread::sleep(Duration::from_millis(100));
            }
            most / 1024
        });
        Self { over, looking }
    }

    /// In words. What two processes share is counted once: one that just forked is as large as its parent.
    pub(super) fn said(self) -> String {
        self.over.store(true, Ordering::Relaxed);
        match self.looking.join().expect("it looked") {
            // Of a process in a sandbox not everybody may know.
            0 => "memory that only root may read".to_owned(),
            mib => format!("{mib} MiB at most"),
        }
    }
}

/// KiB.
fn held(root: i32, these: &impl Fn(&Path) -> bool) -> u64 {
    let mut parents = HashMap::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Its name stands in parentheses, and may hold any.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<i32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
    }
    let is_below = |pid: i32| {
        let mut at = pid;
        // Processes come and go while they are read.
        for _ in 0..64 {
            match parents.get(&at) {
                Some(parent) if *parent == root => return true,
                Some(parent) => at = *parent,
                None => return false,
            }
        }
        false
    };
    let below = parents.keys().filter(|pid| is_below(**pid));
    below.filter_map(|pid| of_one(&Path::new("/proc").join(pid.to_string()), these)).sum()
}

fn of_one(process: &Path, these: &impl Fn(&Path) -> bool) -> Option<u64> {
    if !these(&std::fs::read_link(process.join("exe")).ok()?) {
        return None;
    }
    let memory = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    memory.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}
