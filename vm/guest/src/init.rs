//! The first process of a pid namespace: it adopts every orphan and must reap it, or the process table fills. It does
//! nothing else; whatever it started decides when the namespace ends.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// All that a guest program finds in its environment, in a jail as in a machine.
pub const ENVIRONMENT: [(&str, &str); 7] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"),
    ("HOME", "/home/agent"),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
    ("TMPDIR", "/tmp"),
];

/// Reaps every child and orphan until `child_pid` has ended; returns how it ended. SIGTERM is passed on to it. The caller is
/// single-threaded and has forked `child_pid` already; when this returns, exiting ends the namespace.
pub fn reap_until(child_pid: Pid) -> ExitStatus {
    let signals = block_signals();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child_pid => return ExitStatus::from_raw(status.as_raw()),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => {
                if next_signal(&signals) == Some(libc::SIGTERM) {
                    let _ = kill_process(child_pid, Signal::TERM);
                }
            }
            // No children at all: the one we wait for was reaped elsewhere, so it ended in a way we cannot know.
            Err(_) => return ExitStatus::from_raw(0xff00),
        }
    }
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: the set is initialised by sigemptyset before use; the pointers live for the calls.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

/// Waits for one of the signals, at most a second: a lost wake-up costs no more than that.
fn next_signal(set: &libc::sigset_t) -> Option<i32> {
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    // SAFETY: both pointers live for the call; no information is asked back.
    let signal = unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), &raw const second) };
    (signal > 0).then_some(signal)
}

/// Kills every process of this pid namespace but its first one and this one, and waits until they are
/// gone, at most 2 s. Does nothing outside a namespace of our own: there it would be everybody's end.
pub(crate) async fn kill_all_others() {
    // Process 2 under process 1: only the child of a namespace's first process is that; in the
    // machine's own namespace process 2 is the kernel's.
    if std::process::id() != 2 || std::os::unix::process::parent_id() != 1 {
        return;
    }
    for _ in 0..100 {
        // SAFETY: no memory is involved. One call reaches every process at once, also ones that fork.
        if unsafe { libc::kill(-1, libc::SIGKILL) } != 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
