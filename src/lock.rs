//! One symphony per workflow and per tracker root: kernel locks, gone with their process, with nothing to clean up after
//! a crash. Directories are locked by their own handles: a lock file that somebody removed is no way past them.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::layout::Layout;

/// How long a start waits for the copy of a dead holder's lock, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);
/// The same where its holder is alive, and perhaps dying.
const DYING: Duration = Duration::from_millis(300);

/// The lock on one workflow. Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    _dir: File,
}

impl Lock {
    /// Takes the lock on the workflow of this layout, whose directory exists.
    ///
    /// # Errors
    /// A sentence: who holds it, or what the system said.
    pub fn take(layout: &Layout) -> Result<Self, String> {
        let path = layout.lock();
        let said = |error: std::io::Error| format!("cannot use the lock {}: {error}", path.display());
        let refused = |holder: Option<u32>| {
            let holder =
                holder.map_or("which one is not to be seen".to_owned(), |process| format!("process {process}"));
            format!(
                "another symphony runs on this workflow ({holder}); stop it first, or give this one another directory"
            )
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(said)?;
        match lock(&file, PATIENCE, wrote) {
            Ok(()) => {}
            Err(Refusal::Held(holder)) => return Err(refused(holder)),
            Err(Refusal::System(error)) => return Err(said(error)),
        }
        // The file can be removed under its holder; the directory is still the same one then.
        let dir = open_dir(layout.root()).map_err(said)?;
        match lock(&dir, PATIENCE, of_kernel) {
            Ok(()) => {}
            Err(Refusal::Held(holder)) => return Err(refused(holder)),
            Err(Refusal::System(error)) => {
                tracing::debug!(path = %layout.root().display(), %error, "a directory cannot be locked here");
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(said)?;
        write!(file, "{}", std::process::id()).map_err(said)?;
        Ok(Self { _file: file, _dir: dir })
    }
}

/// The tracker roots that this process has used: two workflows may name the same one, and only one of them may run its
/// issues. A root stays held until the process ends: runs that began under it may still move its issues.
#[derive(Debug, Default)]
pub struct Roots {
    held: Vec<((u64, u64), File)>,
}

impl Roots {
    /// Holds the directory behind this path, also through a link. One that is not there has no issues to run; whoever
    /// looks again holds it then. With `wait`, the copy of a dead holder's lock is waited for.
    ///
    /// # Errors
    /// A sentence: who holds it.
    pub fn hold(&mut self, root: &Path, wait: bool) -> Result<(), String> {
        // Whoever reads the issues says what is wrong with it.
        let Ok(dir) = open_dir(root) else { return Ok(()) };
        let Ok(about) = dir.metadata() else { return Ok(()) };
        let place = (about.dev(), about.ino());
        self.held.retain(|(_, dir)| dir.metadata().is_ok_and(|about| about.nlink() > 0));
        if self.held.iter().any(|(held, _)| *held == place) {
            return Ok(());
        }
        match lock(&dir, if wait { PATIENCE } else { Duration::ZERO }, of_kernel) {
            Ok(()) => {}
            Err(Refusal::Held(holder)) => {
                let holder = holder.map_or("which one is not to be seen".to_owned(), told);
                return Err(format!(
                    "another symphony already runs the issues in {} ({holder}); stop it first, or give this workflow another tracker.root",
                    root.display()
                ));
            }
            Err(Refusal::System(error)) => {
                tracing::warn!(path = %root.display(), %error,
                    "the tracker root cannot be locked here; see to it that no other symphony uses it");
            }
        }
        self.held.push((place, dir));
        Ok(())
    }
}

fn open_dir(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)
}

/// Why something is not ours.
enum Refusal {
    /// Another one has it; the process, if it is known.
    Held(Option<u32>),
    /// The system said something else.
    System(std::io::Error),
}

fn lock(file: &File, mut patience: Duration, holder: fn(&File) -> Option<u32>) -> Result<(), Refusal> {
    while let Err(error) = flock(file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Err(Refusal::System(error.into()));
        }
        let holder = holder(file);
        // One that was killed is not dead at once, and had perhaps just forked: the child has a copy until it executes its
        // program.
        if holder.is_some_and(is_alive) {
            patience = patience.min(DYING);
        }
        if patience.is_zero() {
            return Err(Refusal::Held(holder));
        }
        std::thread::sleep(STEP);
        patience = patience.saturating_sub(STEP);
    }
    Ok(())
}

/// What the holder of a lock file wrote into it.
fn wrote(mut file: &File) -> Option<u32> {
    let mut holder = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
    holder.trim().parse().ok().or_else(|| of_kernel(file))
}

/// Whether this number is a process that has not ended.
fn is_alive(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // `4711 (name) S …`; a name may hold anything but the last parenthesis.
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// A process, and its workflow, as far as we may see it.
fn told(process: u32) -> String {
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let links = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    let own: Option<PathBuf> = links.into_iter().find(|link| link.ends_with(".symphony"));
    match own.as_deref().and_then(Path::parent) {
        Some(dir) => format!("process {process}, with the workflow in {}", dir.display()),
        None => format!("process {process}"),
    }
}

/// The process that has a lock on this, as far as the kernel tells.
fn of_kernel(file: &File) -> Option<u32> {
    let about = file.metadata().ok()?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:262146 0 EOF`
    let holder = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (device, inode) = words.get(5)?.rsplit_once(':')?;
        let process: u32 = words.get(4)?.parse().ok()?;
        let is_it = words.get(1) == Some(&"FLOCK") && inode == about.ino().to_string();
        (is_it && has_open(process, &about, device)).then_some(process)
    };
    locks.lines().find_map(holder)
}

/// Whether it is this file that a process has open: an inode's number is not the only one of its kind, and not every
/// file system tells files and locks the same device.
fn has_open(process: u32, about: &std::fs::Metadata, device: &str) -> bool {
    let same = format!("{:02x}:{:02x}", rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
    match std::fs::read_dir(format!("/proc/{process}/fd")) {
        Ok(open) => {
            let mut found = open.flatten().filter_map(|entry| std::fs::metadata(entry.path()).ok());
            // One that ended has nothing open; what it left to a child is still its own.
            found.any(|open| (open.dev(), open.ino()) == (about.dev(), about.ino())) || device == same
        }
        Err(_) => device == same,
    }
}

/// The process that holds the lock on the workflow of this layout, as far as the kernel tells. Looks only: trying the
/// lock could make another program's start fail.
pub fn holder(layout: &Layout) -> Option<u32> {
    let of = |file: std::io::Result<File>| of_kernel(&file.ok()?);
    of(open_dir(layout.root())).or_else(|| of(File::open(layout.lock())))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::{Lock, Roots, holder};
    use crate::layout::Layout;

    fn layout(dir: &tempfile::TempDir) -> Layout {
        let layout = Layout::of(dir.path());
        std::fs::create_dir(layout.root()).expect("made");
        layout
    }

    /// Regression: a start right after a kill was refused because a child of the killed one had a copy.
    #[test]
    fn the_copy_that_a_dead_holder_left_to_a_child_is_waited_for() {
        let dir = tempfile::tempdir().expect("directory");
        let layout = layout(&dir);
        let mut file = std::fs::File::create(layout.lock()).expect("made");
        let mut dead = Command::new("true").spawn().expect("starts");
        dead.wait().expect("ended");
        write!(file, "{}", dead.id()).expect("written");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        // The child keeps the lock for a moment after this process let go.
        let mut child = Command::new("sleep").arg("0.3").stdin(Stdio::from(file)).spawn().expect("starts");
        Lock::take(&layout).expect("waited for");
        child.wait().expect("ended");
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_one_is() {
        let dir = tempfile::tempdir().expect("directory");
        let layout = layout(&dir);
        let held = Lock::take(&layout).expect("free");
        let refused = Lock::take(&layout).expect_err("held");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert_eq!(holder(&layout), Some(std::process::id()));
        drop(held);
        // A child that another test forks just now has a copy of the lock until it executes its program.
        let freed = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            holder(&layout).is_none()
        });
        assert!(freed && layout.lock().exists(), "what it wrote is not what counts");
        assert_eq!(holder(&Layout::of(&dir.path().join("none"))), None);
        Lock::take(&layout).expect("free again");
    }

    /// Regression: with its lock file removed, a second symphony started beside the first one.
    #[test]
    fn a_removed_lock_file_lets_no_second_holder_in() {
        let dir = tempfile::tempdir().expect("directory");
        let layout = layout(&dir);
        let _held = Lock::take(&layout).expect("free");
        std::fs::remove_file(layout.lock()).expect("removed");
        let refused = Lock::take(&layout).expect_err("held");
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert_eq!(holder(&layout), Some(std::process::id()));
    }

    /// Regression: two workflows with the same tracker root ran the same issues.
    #[test]
    fn a_root_is_held_once_whatever_path_leads_to_it() {
        let dir = tempfile::tempdir().expect("directory");
        let (root, link) = (dir.path().join("issues"), dir.path().join("link"));
        let (mut first, mut second) = (Roots::default(), Roots::default());
        first.hold(&root, true).expect("nothing there to hold");
        std::fs::create_dir(&root).expect("made");
        std::os::unix::fs::symlink(&root, &link).expect("linked");
        first.hold(&root, true).expect("free");
        first.hold(&link, true).expect("held by the same one");
        for path in [&root, &link] {
            let refused = second.hold(path, false).expect_err("held");
            assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        }
        // Another directory of that name is another root.
        std::fs::rename(&root, dir.path().join("away")).expect("moved");
        std::fs::create_dir(&root).expect("made");
        second.hold(&root, true).expect("free");
        assert!(first.hold(&root, false).is_err());
        assert!(second.hold(&dir.path().join("away"), false).is_err(), "a root stays held");
    }
}
