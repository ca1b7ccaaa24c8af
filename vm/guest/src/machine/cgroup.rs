//! How many processes a guest may have: a control group of the machine's own kernel.

use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, mount};

use super::During;

const ROOT: &str = "/sys/fs/cgroup";
const GROUP: &str = "/sys/fs/cgroup/agent";

/// Makes the group that everything of the guest will be in.
pub(super) fn make() -> io::Result<()> {
    let make = || -> io::Result<()> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("cgroup2", ROOT, "cgroup2", flags, c"")?;
        fs::write(Path::new(ROOT).join("cgroup.subtree_control"), "+pids")?;
        fs::create_dir(GROUP)
    };
    make().during("made a control group")
}

/// Limits the group; 0 is no limit.
pub(super) fn limit(pids: u64) -> io::Result<()> {
    let most = if pids == 0 { "max".to_owned() } else { pids.to_string() };
    fs::write(Path::new(GROUP).join("pids.max"), most).during("limited its processes")
}

/// Puts the calling process, and so all it starts, into the group.
pub(super) fn enter() -> io::Result<()> {
    fs::write(Path::new(GROUP).join("cgroup.procs"), "0")
}
