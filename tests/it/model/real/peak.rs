//! The most memory that programs below symphony hold together, looked at again and again.

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
    let below = crate::search::below(root);
    below.iter().filter_map(|pid| of_one(&Path::new("/proc").join(pid.to_string()), these)).sum()
}

fn of_one(process: &Path, these: &impl Fn(&Path) -> bool) -> Option<u64> {
    if !these(&std::fs::read_link(process.join("exe")).ok()?) {
        return None;
    }
    let memory = std::fs::read_to_string(process.join("smaps_rollup")).ok()?;
    memory.lines().find_map(|line| line.strip_prefix("Pss:"))?.split_whitespace().next()?.parse().ok()
}
