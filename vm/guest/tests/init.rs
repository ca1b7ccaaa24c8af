//! The reaper, in a process of its own that adopts orphans as a namespace's first process does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use rustix::process::{Pid, set_child_subreaper};

/// The only test of this binary: it reaps whatever child there is.
#[test]
#[allow(clippy::zombie_processes, reason = "reaping it is what is tested")]
fn orphans_are_reaped_and_the_main_childs_exit_is_told() {
    set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    // Twenty orphans that end at once, and a main child that ends well after them: beside the test harness's own thread
    // the signal may be missed, and then they are reaped a second later.
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0 &) ; (true &) ; done; sleep 4; exit 42";
    let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    assert_eq!(symphony_guest::init::reap_until(pid).code(), Some(42));
    let me = std::process::id();
    let zombies = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().unwrap_or("").starts_with(&format!(" Z {me} "))
    });
    assert_eq!(zombies.count(), 0);
}
