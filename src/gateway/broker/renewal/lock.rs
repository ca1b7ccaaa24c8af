//! One refresher of a login: kernel locks between the symphonies of this machine, and the locks that Claude Code and Codex
//! take themselves.
//!
//! Both were watched at it. Claude Code 2.1.316 holds two directories while it renews: `.oauth_refresh.lock` in its own, and the directory's name
//! with `.lock` behind it, which older ones know; whoever makes them has them, and one that was not touched for a minute is
//! nobody's. Codex 0.166.0 holds a kernel lock on `auth.lock`, but only while it writes its file, not while it asks: no lock
//! keeps it from renewing at the same time.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use symphony_core::broker::login::Login;

/// A lock of Claude Code's that was not touched for so long is nobody's. Nothing of ours is held that long.
pub(super) const STALE: Duration = Duration::from_secs(60);

/// All locks on one login; free when this is dropped. A process that is killed leaves Claude Code's for [`STALE`].
#[derive(Debug)]
pub(super) struct Held {
    made: Vec<Made>,
    /// The kernel frees them.
    _files: Vec<File>,
}

/// A directory that is a lock, and which one it was.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    inode: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        for Made { path, inode } in self.made.iter().rev() {
            // Another one may have taken it for abandoned, and made its own.
            if std::fs::symlink_metadata(path).is_ok_and(|about| about.ino() == *inode)
                && let Err(error) = std::fs::remove_dir(path)
            {
                tracing::warn!(path = %path.display(), %error, "the lock on a login cannot be removed; Claude Code waits a minute for it");
            }
        }
    }
}

/// Why there is no lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotHeld {
    /// Another one renews it now.
    Busy,
    /// In words.
    Broken(String),
}

/// Takes all locks at once, or none. `named` is the file as its program knows it, `dir` where it really is.
pub(super) fn take(login: Login, named: &Path, dir: &Path) -> Result<Held, NotHeld> {
    let mut held = Held { made: vec![], _files: vec![] };
    let own = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir).map_err(|e| broken(dir, &e))?;
    lock(&own, dir)?;
    held._files.push(own);
    let home = named.parent().unwrap_or(Path::new("."));
    match login {
        Login::Codex => {
            let path = home.join("auth.lock");
            let mut options = OpenOptions::new();
            let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(libc::O_NONBLOCK).open(&path).map_err(|e| broken(&path, &e))?;
            lock(&file, &path)?;
            held._files.push(file);
        }
        Login::Claude => {
            held.made.push(make(home.join(".oauth_refresh.lock"))?);
            let mut older = home.canonicalize().unwrap_or_else(|_| home.to_owned()).into_os_string();
            older.push(".lock");
            match make(older.into()) {
                Ok(made) => held.made.push(made),
                Err(NotHeld::Busy) => return Err(NotHeld::Busy),
                // Claude Code goes on without it, too: what stands above its directory need not be writable.
                Err(NotHeld::Broken(why)) => tracing::debug!(why, "an older Claude Code would not wait"),
            }
        }
    }
    Ok(held)
}

fn broken(path: &Path, error: &std::io::Error) -> NotHeld {
    NotHeld::Broken(format!("{} cannot be locked: {error}", path.display()))
}

fn lock(file: &File, path: &Path) -> Result<(), NotHeld> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(NotHeld::Busy),
        Err(error) => Err(broken(path, &error.into())),
    }
}

fn make(path: PathBuf) -> Result<Made, NotHeld> {
    for _ in 0..2 {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                let about = std::fs::symlink_metadata(&path).map_err(|e| broken(&path, &e))?;
                return Ok(Made { path, inode: about.ino() });
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let touched = std::fs::symlink_metadata(&path).and_then(|about| about.modified());
                let is_stale = touched.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE));
                if !is_stale {
                    return Err(NotHeld::Busy);
                }
                // Only one of several that see this removes it; the others find the next one's.
                match std::fs::remove_dir(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(broken(&path, &error)),
                    _ => {}
                }
            }
            Err(error) => return Err(broken(&path, &error)),
        }
    }
    Err(NotHeld::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, PathBuf) {
        let above = tempfile::tempdir().expect("directory");
        let dir = above.path().join(".claude");
        std::fs::create_dir(&dir).expect("made");
        (above, dir)
    }

    #[test]
    fn while_one_holds_a_login_no_other_does_and_both_locks_of_claude_code_stand() {
        let (above, dir) = home();
        let take = || take(Login::Claude, &dir.join(".credentials.json"), &dir);
        let held = take().expect("free");
        let locks = [dir.join(".oauth_refresh.lock"), above.path().join(".claude.lock")];
        assert!(locks.iter().all(|lock| lock.is_dir()));
        assert_eq!(take().expect_err("held"), NotHeld::Busy);
        drop(held);
        assert!(!locks.iter().any(|lock| lock.exists()));
        drop(take().expect("free again"));
    }

    #[test]
    fn each_lock_of_claude_code_keeps_us_out_until_it_was_not_touched_for_a_minute() {
        let (above, dir) = home();
        let take = || take(Login::Claude, &dir.join(".credentials.json"), &dir);
        for lock in [dir.join(".oauth_refresh.lock"), above.path().join(".claude.lock")] {
            std::fs::create_dir(&lock).expect("made");
            assert_eq!(take().expect_err("held"), NotHeld::Busy);
            assert!(lock.is_dir(), "it is not ours to remove");
            let long_ago = std::time::SystemTime::now() - STALE - Duration::from_secs(5);
            File::open(&lock).and_then(|lock| lock.set_modified(long_ago)).expect("aged");
            drop(take().expect("nobody's"));
            assert!(!lock.exists());
        }
    }

    #[test]
    fn a_lock_that_another_one_took_over_is_left_to_it() {
        let (_above, dir) = home();
        let held = take(Login::Claude, &dir.join(".credentials.json"), &dir).expect("free");
        let lock = dir.join(".oauth_refresh.lock");
        // Moved, so that its number is not given to the next one.
        std::fs::rename(&lock, dir.join("gone")).expect("moved");
        std::fs::create_dir(&lock).expect("made");
        drop(held);
        assert!(lock.is_dir());
    }

    #[test]
    fn while_codex_writes_its_file_it_is_waited_for() {
        let (_above, dir) = home();
        let take = || take(Login::Codex, &dir.join("auth.json"), &dir);
        let codex = File::create(dir.join("auth.lock")).expect("made");
        flock(&codex, FlockOperation::LockExclusive).expect("locked");
        assert_eq!(take().expect_err("held"), NotHeld::Busy);
        drop(codex);
        let freed = (0..1000).any(|_| {
            // A child that another test forks just now has a copy of the lock until it executes its program.
            std::thread::sleep(Duration::from_millis(5));
            take().is_ok()
        });
        assert!(freed);
    }
}
