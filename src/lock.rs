//! One symphony per workflow: a kernel lock, gone with its process, with nothing to clean up after a crash.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// How long a start waits for the copy of a dead holder's lock, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(20);

/// Held as long as this lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`.
    ///
    /// # Errors
    /// A sentence: who holds it, or what the system said.
    pub fn take(path: &Path) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("cannot use the lock {}: {error}", path.display());
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(said)?;
        let mut patience = PATIENCE;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(said(error.into()));
            }
            let mut holder = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut holder));
            let holder = holder.trim();
            // One that was killed had perhaps just forked: the child has a copy until it executes its program.
            if patience.is_zero() || is_alive(holder) {
                return Err(format!(
                    "another symphony runs on this workflow (process {holder}); stop it first, or give this one another directory",
                ));
            }
            std::thread::sleep(STEP);
            patience = patience.saturating_sub(STEP);
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(said)?;
        write!(file, "{}", std::process::id()).map_err(said)?;
        Ok(Self { _file: file })
    }
}

/// Whether this number is a process that has not ended. What is no number may be one.
fn is_alive(holder: &str) -> bool {
    let Ok(pid) = holder.parse::<u32>() else { return true };
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `4711 (name) S …`; a name may hold anything but the last parenthesis.
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The process that holds the lock at `path`, as far as the kernel tells. Looks only: trying the lock could make
/// another program's start fail.
pub fn holder(path: &Path) -> Option<u32> {
    let (inode, wrote) = (std::fs::metadata(path).ok()?.ino(), std::fs::read_to_string(path).ok()?);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 4711 fd:01:262146 0 EOF`
    let is_it = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let file = words.get(5).and_then(|file| file.rsplit(':').next());
        words.get(1) == Some(&"FLOCK") && words.get(4) == Some(&wrote.trim()) && file == Some(&inode.to_string())
    };
    locks.lines().any(is_it).then(|| wrote.trim().parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::{Lock, holder};

    /// Regression: a start right after a kill was refused because a child of the killed one had a copy.
    #[test]
    fn the_copy_that_a_dead_holder_left_to_a_child_is_waited_for() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("lock");
        let mut file = std::fs::File::create(&path).expect("made");
        let mut dead = Command::new("true").spawn().expect("starts");
        dead.wait().expect("ended");
        write!(file, "{}", dead.id()).expect("written");
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("locked");
        // The child keeps the lock for a moment after this process let go.
        let mut child = Command::new("sleep").arg("0.3").stdin(Stdio::from(file)).spawn().expect("starts");
        Lock::take(&path).expect("waited for");
        child.wait().expect("ended");
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_one_is() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("lock");
        let held = Lock::take(&path).expect("free");
        let refused = Lock::take(&path).expect_err("held");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert_eq!(holder(&path), Some(std::process::id()));
        drop(held);
        // A child that another test forks just now has a copy of the lock until it executes its program.
        let freed = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            holder(&path).is_none()
        });
        assert!(freed && path.exists(), "what it wrote is not what counts");
        assert_eq!(holder(&dir.path().join("none")), None);
        Lock::take(&path).expect("free again");
    }
}
