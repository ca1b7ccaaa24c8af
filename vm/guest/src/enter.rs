//! From root in a machine of our own to the guest program: directories are made, a pid namespace is entered, and all
//! privilege is given up. Only for a machine that holds nothing but one issue's work; never for a host.
//!
//! Without a pid namespace (a container without that right) the guest program is the same unprivileged user; what escapes
//! its process group then lives until the machine is stopped.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;

use rustix::process::{Pid, WaitOptions, waitpid};

use crate::init;
use crate::run::{Dirs, become_undumpable};

/// The user that the guest program and every agent are in a machine.
const USER: u32 = 1000;
/// Says "no namespace here" from one of our processes to another; nothing else exits with it.
const NO_NAMESPACE: i32 = 99;

/// Prepares the machine and becomes the unprivileged user. `None`: this process is to go on as the guest program;
/// otherwise the guest program ran elsewhere and ended like that. The caller has no threads yet.
pub(crate) fn enter(dirs: &Dirs) -> Result<Option<ExitCode>, String> {
    if !rustix::process::geteuid().is_root() {
        // An image may have a user of its own; then what it prepared must do.
        return Ok(None);
    }
    for dir in [&dirs.work, &dirs.home, &dirs.state] {
        std::fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        std::os::unix::fs::lchown(dir, Some(USER), Some(USER))
            .map_err(|e| format!("cannot hand over {}: {e}", dir.display()))?;
    }
    // Temporary files are everybody's; a bare machine may have neither place.
    for dir in ["/tmp", "/var/tmp"] {
        if std::fs::create_dir_all(dir).is_ok() {
            let _ = rustix::fs::chmod(dir, rustix::fs::Mode::from_raw_mode(0o1777));
        }
    }
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    let keeper = unsafe { libc::fork() };
    match keeper {
        -1 => Err(format!("cannot fork: {}", std::io::Error::last_os_error())),
        0 => match isolate() {
            Isolated::Guest => give_up().map(|()| None),
            Isolated::Keeper(code) => std::process::exit(code),
        },
        pid => match wait_for(pid) {
            Some(NO_NAMESPACE) => give_up().map(|()| None),
            Some(code) => Ok(Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))),
            None => Err("the keeper of the namespace was lost".into()),
        },
    }
}

enum Isolated {
    /// This is process 2 of the new namespace.
    Guest,
    /// This is a process that only kept it; its exit code.
    Keeper(i32),
}

/// Three processes come out: the one outside, the namespace's first, and the guest program, its second.
fn isolate() -> Isolated {
    // SAFETY: plain system calls without memory; this process has one thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID) } != 0 {
        return Isolated::Keeper(NO_NAMESPACE);
    }
    // SAFETY: as above.
    let first = unsafe { libc::fork() };
    if first != 0 {
        return Isolated::Keeper(if first < 0 { NO_NAMESPACE } else { wait_for(first).unwrap_or(1) });
    }
    // The first process must not outlive whoever started us: then nobody waits for the guest any more.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if !private_proc() {
        return Isolated::Keeper(NO_NAMESPACE);
    }
    // SAFETY: as above.
    match unsafe { libc::fork() } {
        0 => Isolated::Guest,
        -1 => Isolated::Keeper(1),
        pid => Isolated::Keeper(Pid::from_raw(pid).map_or(1, |pid| code_of(init::reap_until(pid)))),
    }
}

/// A `/proc` that shows this namespace; without it nothing works that asks who it is.
fn private_proc() -> bool {
    let mount = |from: &std::ffi::CStr, to: &std::ffi::CStr, kind: &std::ffi::CStr, flags| {
        // SAFETY: every pointer is to a string that lives for the call.
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) == 0 }
    };
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    mount(c"none", c"/", c"none", libc::MS_REC | libc::MS_PRIVATE) && mount(c"proc", c"/proc", c"proc", flags)
}

/// No user, no group, no capability and no way to gain one.
fn give_up() -> Result<(), String> {
    let failed = |what: &str| format!("cannot give up {what}: {}", std::io::Error::last_os_error());
    // SAFETY: plain system calls; the empty list is given by its length.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(failed("new privileges"));
        }
        if libc::setgroups(0, std::ptr::null()) != 0 || libc::setresgid(USER, USER, USER) != 0 {
            return Err(failed("groups"));
        }
        // Leaving user 0 behind clears every capability of this process.
        if libc::setresuid(USER, USER, USER) != 0 {
            return Err(failed("root"));
        }
    }
    become_undumpable()
}

fn wait_for(pid: i32) -> Option<i32> {
    let pid = Pid::from_raw(pid)?;
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Some(code_of(std::process::ExitStatus::from_raw(status.as_raw()))),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

fn code_of(status: std::process::ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
