//! Work disks on the host: made, owned, and removed, but never looked into for their meaning.
//!
//! A guest can fill its disk with anything: unreadable directories, endless nesting, links to host
//! paths. Nothing here follows a link or holds more than a few descriptors.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, renameat, unlinkat};

use crate::failpoint::{Phase, reach};
use crate::files::DOOMED;
use crate::sandbox::BootError;

/// The parts of a work disk, each the only thing of it that a guest is shown.
pub(crate) const PARTS: [&str; 3] = ["tree", "home", "state"];

/// Where unused user ids are taken from: far above people, services and the usual container ranges.
const FIRST: u32 = 1_900_000_000;
const MANY: u32 = 60_000_000;

/// Two boots at once must not choose the same free user.
static CHOOSING: Mutex<()> = Mutex::new(());

/// Makes the disk where it is missing. Returns the user that owns it and that its guest becomes when
/// we are root; `None` when we are not, since then it is simply ours.
pub(super) fn prepare(disk: &Path) -> Result<Option<u32>, BootError> {
    let fail = |action: &'static str| move |error: io::Error| broken(action, disk, &error.to_string());
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    private.create(disk).map_err(fail("create"))?;
    let root = rustix::process::geteuid().is_root();
    let _one_at_a_time = CHOOSING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ours = rustix::process::geteuid().as_raw();
    let owner = match fs::symlink_metadata(disk.join(PARTS[0])) {
        // One that was killed between making it and giving it away left it empty; with anything in it, this fails.
        Ok(tree) if root && tree.uid() == ours && fs::remove_dir(disk.join(PARTS[0])).is_ok() => None,
        Ok(tree) => Some(tree.uid()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(broken("look at", disk, &error.to_string())),
    };
    let range = Range::of_this_machine();
    let uid = match owner {
        None if root => range.free(disk).map_err(fail("choose a user for"))?,
        None => ours,
        Some(owner) if root && range.holds(owner) => owner,
        Some(owner) if !root && owner == ours => owner,
        Some(owner) => {
            let message = format!(
                "it belongs to user {owner}, who is not one for jails: it was made by another user's symphony; \
                 remove it, it is only a cache"
            );
            return Err(broken("use", disk, &message));
        }
    };
    let at = |phase| if owner.is_none() { reach("disk", "make", phase) } else { Ok(()) };
    at(Phase::Before).map_err(fail("create"))?;
    for part in PARTS {
        own(&disk.join(part), uid).map_err(fail("create"))?;
    }
    at(Phase::After).map_err(fail("create"))?;
    Ok(root.then_some(uid))
}

/// A directory of this user and nobody else's. An existing one is the same directory, since the guest
/// cannot change what stands above it; but its mode is its owner's to change, and without rights for
/// its owner no later jail could be booted on it.
fn own(part: &Path, uid: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(part) {
        Ok(()) if part.ends_with(PARTS[0]) => reach("disk", "make", Phase::Torn)?,
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    // `O_PATH`: it may forbid reading.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::open(part, flags, Mode::empty())?;
    let door = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::fs::chmod(door.as_str(), Mode::RWXU)?;
    let open = fs::File::options().read(true).custom_flags(libc::O_DIRECTORY).open(door)?;
    if open.metadata()?.uid() != uid {
        std::os::unix::fs::fchown(&open, Some(uid), Some(uid))?;
    }
    Ok(())
}

/// User ids that exist in this user namespace and that nobody is expected to have.
struct Range {
    first: u32,
    many: u32,
}

impl Range {
    fn of_this_machine() -> Self {
        Self::within(&fs::read_to_string("/proc/self/uid_map").unwrap_or_default())
    }

    /// The usual range, or where root itself lives in a smaller user namespace, that one's upper end.
    fn within(map: &str) -> Self {
        let spans = map.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
            let (first, _, many) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some((first, first + many))
        });
        let spans: Vec<(u64, u64)> = spans.collect();
        let whole = (u64::from(FIRST), u64::from(FIRST) + u64::from(MANY));
        if spans.is_empty() || spans.iter().any(|(from, to)| *from <= whole.0 && whole.1 <= *to) {
            return Self { first: FIRST, many: MANY };
        }
        let (from, to) = spans.into_iter().max_by_key(|(from, to)| to - from).unwrap_or((0, 0));
        // Not the last few: 65534 is nobody, and what follows it is often special too.
        let to = to.saturating_sub(16);
        let many = (to.saturating_sub(from) / 8).max(1);
        let first = u32::try_from(to.saturating_sub(many)).unwrap_or(FIRST);
        Self { first, many: u32::try_from(many).unwrap_or(1) }
    }

    fn holds(&self, uid: u32) -> bool {
        uid != 0 && (self.first..self.first.saturating_add(self.many)).contains(&uid)
    }

    /// A user that neither a disk beside this one nor the machine's user list has.
    fn free(&self, disk: &Path) -> io::Result<u32> {
        let mut taken: Vec<u32> = fs::read_to_string("/etc/passwd")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.split(':').nth(2)?.parse().ok())
            .collect();
        if let Some(parent) = disk.parent() {
            for beside in fs::read_dir(parent)? {
                let tree = fs::symlink_metadata(beside?.path().join(PARTS[0]));
                taken.extend(tree.ok().map(|tree| tree.uid()));
            }
        }
        let start = hash(disk) % self.many;
        (0..self.many)
            .map(|step| self.first + (start + step) % self.many)
            .find(|uid| *uid != 0 && !taken.contains(uid))
            .ok_or_else(|| io::Error::other("no user id is free"))
    }
}

/// Spreads disks of different directories over the range; any fixed hash will do.
fn hash(path: &Path) -> u32 {
    path.as_os_str().as_encoded_bytes().iter().fold(2_166_136_261, |h, b| (h ^ u32::from(*b)).wrapping_mul(16_777_619))
}

fn broken(action: &'static str, path: &Path, message: &str) -> BootError {
    BootError::Disk { action, path: path.display().to_string(), message: message.to_owned() }
}

/// Removes a disk for good. What a crash or a failure leaves stands beside it under another name, so
/// that half a disk is never booted, and goes with the next call.
pub(super) fn discard(disk: &Path) -> Result<(), BootError> {
    let fail = |error: io::Error| broken("remove", disk, &error.to_string());
    let doomed = doomed_name(disk).ok_or_else(|| broken("remove", disk, "it has no name"))?;
    remove(&doomed).map_err(fail)?;
    match fs::rename(disk, &doomed) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
    }
    remove(&doomed).map_err(fail)
}

/// Ends a removal that was cut off: `left` is what it left.
pub(crate) fn finish_discard(left: &Path) -> Result<(), BootError> {
    let is_left = left.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(DOOMED.as_bytes()));
    match is_left {
        true => remove(left).map_err(|error| broken("remove", left, &error.to_string())),
        false => Err(broken("remove", left, "it is no rest of a disk")),
    }
}

fn doomed_name(disk: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from(DOOMED);
    name.push(disk.file_name()?);
    Some(disk.with_file_name(name))
}

/// What is gone already was removed by another call: two of them may meet in what a crash left.
fn gone(error: rustix::io::Errno) -> rustix::io::Result<()> {
    if error == rustix::io::Errno::NOENT { Ok(()) } else { Err(error) }
}

/// Removes a directory without recursion: each directory found inside another moves up to the top
/// first, so depth never exceeds two, however deep the guest went.
fn remove(top: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = match rustix::fs::open(top, flags, Mode::empty()) {
        Ok(open) => open,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut moved: u64 = 0;
    loop {
        let names = names(&open)?;
        if names.is_empty() {
            break;
        }
        for (name, kind) in names {
            if kind != FileType::Directory {
                unlinkat(&open, &name, AtFlags::empty()).or_else(gone)?;
                continue;
            }
            let inner = match enter(&open, &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                inner => inner?,
            };
            loop {
                let below = self::names(&inner)?;
                if below.is_empty() {
                    break;
                }
                for (name, kind) in below {
                    if kind == FileType::Directory {
                        // Moving a directory needs the right to write into it; entering grants that.
                        let lifted = enter(&inner, &name).and_then(|_| lift(&inner, &name, &open, &mut moved));
                        match lifted {
                            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                            lifted => lifted?,
                        }
                    } else {
                        unlinkat(&inner, &name, AtFlags::empty()).or_else(gone)?;
                    }
                }
            }
            drop(inner);
            unlinkat(&open, &name, AtFlags::REMOVEDIR).or_else(gone)?;
        }
    }
    drop(open);
    match fs::remove_dir(top) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Moves a directory to the top under a name that is free there.
fn lift(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let free = CString::new(format!(".gone-{moved}"))?;
        match rustix::fs::renameat_with(from, name, top, &free, rustix::fs::RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => {}
            // A file system without that flag: the name is ours by custom, and a clash only empties it later.
            Err(rustix::io::Errno::INVAL) => return Ok(renameat(from, name, top, &free)?),
            done => return Ok(done?),
        }
    }
}

/// Opens a directory that may forbid it to its owner; never a link, never another mount.
fn enter(parent: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = match openat2(parent, name, flags | OFlags::PATH, Mode::empty(), strict) {
        Err(rustix::io::Errno::XDEV) => {
            let name = name.to_string_lossy();
            return Err(io::Error::other(format!("something is mounted on `{name}` in it; unmount that first")));
        }
        opened => opened?,
    };
    // Through its own descriptor, so that what is changed is what was opened.
    let door = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    rustix::fs::chmod(door.as_str(), Mode::RWXU)?;
    Ok(openat2(&place, ".", flags | OFlags::RDONLY, Mode::empty(), strict)?)
}

/// At most a few thousand entries at a time: a directory may have millions.
fn names(directory: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    const BATCH: usize = 4096;
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        found.push((name.to_owned(), kind));
        if found.len() == BATCH {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{FIRST, MANY, PARTS, Range, prepare};

    #[test]
    fn a_whole_machine_gives_high_users_and_a_small_user_namespace_its_upper_end() {
        let whole = Range::within("         0          0 4294967295\n");
        assert_eq!((whole.first, whole.many), (FIRST, MANY));
        let small = Range::within("0 1000 1\n1 100000 65536\n");
        assert!(small.first > 10_000 && small.first + small.many <= 65_521);
        assert!(!small.holds(0) && !small.holds(65_534) && !small.holds(1000) && small.holds(small.first));
    }

    #[test]
    fn an_unreadable_map_means_a_whole_machine() {
        assert!(Range::within("").holds(FIRST));
        assert!(!Range::within("").holds(0));
    }

    /// Regression: a kill while root made a disk left one that was another user's for ever.
    #[test]
    fn a_disk_whose_making_was_cut_off_is_made_and_one_with_work_of_ours_in_it_is_kept() {
        if !rustix::process::geteuid().is_root() {
            return crate::skip::skip("only root gives disks away");
        }
        let place = tempfile::tempdir().expect("a directory");
        let (begun, full) = (place.path().join("begun"), place.path().join("full"));
        for disk in [&begun, &full] {
            std::fs::create_dir_all(disk.join(PARTS[0])).expect("a tree");
        }
        std::fs::write(full.join("tree/work"), "work").expect("written");
        let user = prepare(&begun).expect("made").expect("a user");
        for part in PARTS {
            let about = std::fs::metadata(begun.join(part)).expect("there");
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&about), user, "{part}");
        }
        let refused = prepare(&full).expect_err("not a jail's").to_string();
        assert!(refused.contains("belongs to user 0") && full.join("tree/work").exists(), "{refused}");
    }

    #[test]
    fn a_free_user_is_none_that_a_disk_beside_it_has() {
        let place = tempfile::tempdir().expect("a directory");
        let tree = place.path().join("one/tree");
        std::fs::create_dir_all(&tree).expect("a tree");
        let taken = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&tree).expect("the tree"));
        let range = Range { first: taken, many: 50 };
        // Enough names that their hashes start at every place of the range.
        for name in 0..500 {
            let free = range.free(&place.path().join(name.to_string())).expect("one is left");
            assert!(free != taken && range.holds(free));
        }
    }
}
