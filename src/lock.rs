//! One symphony per workflow: a kernel lock, gone with its process, with nothing to clean up after a crash.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

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
        if let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(said(error.into()));
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(format!(
                "another symphony runs on this workflow (process {}); stop it first, or give this one another directory",
                holder.trim()
            ));
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(said)?;
        write!(file, "{}", std::process::id()).map_err(said)?;
        Ok(Self { _file: file })
    }
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
    use super::{Lock, holder};

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
