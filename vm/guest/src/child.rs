//! Starting programs inside the guest: own process group, pipes only, exactly the given environment, and (where the
//! kernel can) a Landlock scope so that they cannot signal the guest program or reach its abstract sockets.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use landlock::{ABI, Access, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, Scope};
use rustix::process::{Pid, Signal};
use std::os::unix::process::ExitStatusExt;
use tokio::process::{Child, Command};

use crate::wire::Exit;

/// The process groups that are alive, for the dead-man rule.
#[derive(Clone, Debug, Default)]
pub(crate) struct Groups(Arc<Mutex<HashSet<i32>>>);

impl Groups {
    /// Kills every group that is still registered.
    pub(crate) fn kill_all(&self) {
        for pid in self.0.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            kill_group(pid);
        }
    }
}

fn kill_group(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Gone already is fine.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// A process group that dies with this value.
#[derive(Debug)]
pub(crate) struct Group {
    pid: i32,
    groups: Groups,
}

impl Group {
    /// Kills every process in the group.
    pub(crate) fn kill(&self) {
        kill_group(self.pid);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.groups.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid) {
            self.kill();
        }
    }
}

/// Starts a program.
///
/// # Errors
/// The program cannot be started: not found, not executable, no such working directory.
pub(crate) fn start(
    argv: &[OsString],
    env: &[(String, String)],
    cwd: &Path,
    groups: &Groups,
) -> io::Result<(Child, Group)> {
    let (program, args) =
        argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program was named"))?;
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(env.iter().map(|(k, v)| (k, v)))
        .current_dir(cwd)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut scope = scope();
    // SAFETY: between fork and exec only system calls are made; the ruleset was built before.
    unsafe {
        command.pre_exec(move || {
            // Should the guest program be killed, its children go with it even where no namespace sees to that.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if let Some(scope) = scope.take() {
                // Best effort: an old kernel has no such scope, and the rest of the isolation stands without it.
                let _ = scope.restrict_self();
            }
            libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            Ok(())
        });
    }
    let child = command.spawn()?;
    let pid = child.id().and_then(|p| i32::try_from(p).ok()).unwrap_or(0);
    groups.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
    Ok((child, Group { pid, groups: groups.clone() }))
}

fn scope() -> Option<RulesetCreated> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::from_all(ABI::V6))
        .and_then(Ruleset::create)
        .ok()
}

/// A wait status in the words of the wire.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or(0)),
    }
}
