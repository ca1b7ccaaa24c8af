//! Memory and process limits for a whole jail, where the machine lets us make a control group.
//!
//! Best effort by nature: what could not be had is `None`, and the report says so. Groups are named
//! `symphony-<pid>-<run>`; only empty ones with that mark and a dead maker are ever swept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Groups that one run of one process may have at a time.
const NUMBERS: u32 = 64;

/// Which kernel interface holds a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    fn words(self) -> &'static str {
        match self {
            Self::V1 => "cgroup v1",
            Self::V2 => "cgroup v2",
        }
    }
}

/// The groups of one jail. Dropping it removes them.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    memory: Option<(Version, PathBuf)>,
    pids: Option<(Version, PathBuf)>,
}

impl Cgroups {
    /// Makes what can be made, with the limits set and read back.
    pub(super) fn create(run: u64, memory_mib: u64, pids: u64) -> Self {
        let name = format!("symphony-{}-{run}", std::process::id());
        let name = name.as_str();
        let bytes = memory_mib.saturating_mul(1024 * 1024);
        let mut groups = Self::default();
        for here in places("memory") {
            groups.memory = groups.memory.take().or_else(|| {
                make(&here.directory, name, |group| match here.version {
                    Version::V1 => {
                        // Absent where the kernel does not count swap.
                        let held = limit(group, "memory.limit_in_bytes", bytes);
                        let _ = limit(group, "memory.memsw.limit_in_bytes", bytes);
                        held
                    }
                    Version::V2 => {
                        let held = limit(group, "memory.max", bytes);
                        let _ = limit(group, "memory.swap.max", 0);
                        held
                    }
                })
                .map(|group| (here.version, group))
            });
        }
        for here in places("pids") {
            groups.pids = groups.pids.take().or_else(|| {
                make(&here.directory, name, |group| limit(group, "pids.max", pids)).map(|group| (here.version, group))
            });
        }
        groups
    }

    /// Puts a process, and so all it will start, into the groups; what does not hold is given up.
    pub(super) fn add(&mut self, pid: u32) {
        for slot in [&mut self.memory, &mut self.pids] {
            let holds = slot.as_ref().is_some_and(|(_, group)| enter(group, pid));
            if !holds && let Some((_, group)) = slot.take() {
                let _ = fs::remove_dir(group);
            }
        }
    }

    /// How memory is limited, or `None`.
    pub(super) fn memory(&self) -> Option<&'static str> {
        self.memory.as_ref().map(|(version, _)| version.words())
    }

    /// How processes are limited, or `None`.
    pub(super) fn pids(&self) -> Option<&'static str> {
        self.pids.as_ref().map(|(version, _)| version.words())
    }

    /// Whether the memory limit killed something.
    pub(super) fn out_of_memory(&self) -> bool {
        let Some((version, group)) = &self.memory else { return false };
        let file = match version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(group.join(file)).unwrap_or_default();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok());
        kills.unwrap_or(0_u64) > 0
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let groups = [self.memory.take(), self.pids.take()].into_iter().flatten().map(|(_, group)| group);
        let busy: Vec<PathBuf> = groups.filter(|group| fs::remove_dir(group).is_err() && group.exists()).collect();
        if busy.is_empty() {
            return;
        }
        // The kernel lets go of the dead a moment late. If it takes longer, a later sweep removes them.
        std::thread::spawn(move || {
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(40));
                if busy.iter().filter(|group| fs::remove_dir(group).is_err() && group.exists()).count() == 0 {
                    break;
                }
            }
        });
    }
}

/// A directory where a group with one controller may be made.
struct Place {
    version: Version,
    directory: PathBuf,
}

/// Where to try, best first: below our own group, and on v2 also beside it and further up, since a
/// group with processes in it may not hand controllers down.
fn places(controller: &str) -> Vec<Place> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    places_in(&own, &mounts, controller)
}

fn places_in(own: &str, mounts: &str, controller: &str) -> Vec<Place> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let version = match controllers {
            "" => Version::V2,
            named if named.split(',').any(|name| name == controller) => Version::V1,
            _ => continue,
        };
        let Some((top, mut directory)) = mounted(mounts, version, controller, Path::new(path)) else { continue };
        loop {
            found.push(Place { version, directory: directory.clone() });
            if version == Version::V1 || directory == top || !directory.pop() {
                break;
            }
        }
    }
    found
}

/// The mount point of a hierarchy and our own group's directory in it.
fn mounted(mounts: &str, version: Version, controller: &str, own: &Path) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let (root, point) = left
            .split_whitespace()
            .skip(3)
            .take(2)
            .collect::<Vec<_>>()
            .split_first()
            .and_then(|(root, rest)| rest.first().map(|point| ((*root).to_owned(), PathBuf::from(*point))))?;
        let mut right = right.split_whitespace();
        let fits = match (right.next()?, version) {
            ("cgroup2", Version::V2) => true,
            ("cgroup", Version::V1) => right.nth(1)?.split(',').any(|option| option == controller),
            _ => false,
        };
        let below = own.strip_prefix(root).ok()?;
        // Joining nothing would append a slash.
        let here = if below.as_os_str().is_empty() { point.clone() } else { point.join(below) };
        fits.then_some((point, here))
    })
}

/// Makes a group below `here` and sets its limit; leaves nothing behind when that fails.
fn make(here: &Path, name: &str, set: impl FnOnce(&Path) -> bool) -> Option<PathBuf> {
    sweep(here);
    // The same run may still hold its first group when a rescue boots, and a killed symphony whose process
    // number we have now may have left one: neither may leave this jail without limits.
    let group =
        (0..NUMBERS).map(|number| here.join(format!("{name}-{number}"))).find_map(|group| {
            match fs::create_dir(&group) {
                Ok(()) => Some(Some(group)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
                Err(_) => Some(None),
            }
        })??;
    if set(&group) {
        return Some(group);
    }
    let _ = fs::remove_dir(&group);
    None
}

/// Writes a limit and believes only what is read back.
fn limit(group: &Path, file: &str, value: u64) -> bool {
    let path = group.join(file);
    let write = || -> io::Result<u64> {
        // Never create: a missing file means a missing controller.
        io::Write::write_all(&mut fs::File::options().write(true).open(&path)?, value.to_string().as_bytes())?;
        fs::read_to_string(&path)?.trim().parse().map_err(io::Error::other)
    };
    write().is_ok_and(|now| now <= value)
}

fn enter(group: &Path, pid: u32) -> bool {
    if fs::write(group.join("cgroup.procs"), pid.to_string()).is_err() {
        return false;
    }
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    listed.lines().any(|line| line.parse() == Ok(pid))
}

/// Removes groups that a killed symphony left: ours by name, of a dead maker, and empty, since the
/// kernel refuses to remove others.
fn sweep(here: &Path) {
    let Ok(entries) = fs::read_dir(here) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let maker =
            name.to_str().and_then(|name| name.strip_prefix("symphony-")?.split('-').next()?.parse::<u32>().ok());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker.to_string()).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Version, places_in};

    fn found(own: &str, mounts: &str, controller: &str) -> Vec<(Version, String)> {
        let places = places_in(own, mounts, controller);
        places.into_iter().map(|place| (place.version, place.directory.display().to_string())).collect()
    }

    #[test]
    fn version_one_is_tried_below_our_own_group_only() {
        let own = "8:pids:/\n4:memory:/a/b\n0::/\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                      31 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        assert_eq!(found(own, mounts, "memory"), [(Version::V1, "/sys/fs/cgroup/memory/a/b".to_owned())]);
        assert_eq!(found(own, mounts, "pids"), [(Version::V1, "/sys/fs/cgroup/pids".to_owned())]);
    }

    #[test]
    fn version_two_is_tried_upwards_but_not_above_the_mount() {
        let mounts = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let places = found("0::/user.slice/x.scope\n", mounts, "memory");
        let paths: Vec<&str> = places.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/user.slice/x.scope", "/sys/fs/cgroup/user.slice", "/sys/fs/cgroup"]);
    }

    #[test]
    fn a_machine_without_groups_has_no_place() {
        assert_eq!(found("", "", "memory"), []);
        assert_eq!(found("nonsense\n4:memory:/a\n", "also nonsense\n", "memory"), []);
    }
}
