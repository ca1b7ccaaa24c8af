//! A leash on a process group: should symphony itself be killed, the group dies too. The kernel can tie one
//! process to its parent's life but not what that process starts, so a second, tiny one waits for the end of
//! a pipe that only symphony holds open.

use std::process::Stdio;

use rustix::process::Pid;

/// Held as long as the group may live; dropping it lets the group be.
pub(super) struct Leash {
    /// Killed when dropped, before it could see the pipe end.
    _watcher: tokio::process::Child,
}

impl Leash {
    /// Ties the process group `group` to this process.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn on(group: Pid) -> std::io::Result<Self> {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "read -r _; kill -s KILL -- \"-$1\"", "sh", &group.as_raw_nonzero().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // Its own group: whoever ends symphony's must not end it first.
        command.process_group(0).kill_on_drop(true);
        Ok(Self { _watcher: command.spawn()? })
    }
}
