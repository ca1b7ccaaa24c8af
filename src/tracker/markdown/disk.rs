//! The few things done to issue files, each whole or not at all: place, move, append, and what
//! makes creators take turns.
//!
//! Must never replace a file it has not just read, and never leave half a file under a name the tracker reads.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::failpoint::{Phase, reach};

/// How often an append starts over because the file changed under it.
const APPEND_TRIES: u32 = 5;

/// Opens a regular file for reading without following a link or waiting for a pipe's writer.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// The whole of `file`, but at most one byte more than `cap`.
pub(super) fn read_capped(file: &File, cap: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(cap as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creators take turns. Those of other processes have none: only one symphony runs the issues of a root, and it holds
/// the lock on the directory itself (`lock.rs`).
static TURN: Mutex<()> = Mutex::new(());

/// The turn of one creator, until dropped.
pub(super) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes the directory `path`, durably. That it exists already is fine.
pub(super) fn ensure_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Puts a new file at `path`, complete at once.
///
/// # Errors
/// `AlreadyExists` when something has the name.
pub(super) fn place(path: &Path, text: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let at = |phase| reach("issue", "create", phase);
    at(Phase::Before)?;
    let mut draft = draft(dir)?;
    draft.write_all(text)?;
    at(Phase::Torn)?;
    draft.as_file().sync_all()?;
    draft.persist_noclobber(path).map_err(|e| e.error)?;
    at(Phase::After)?;
    sync_dir(dir)
}

/// What the name of a draft is made of; between the two stands what chance gives.
const DRAFT: (&str, &str) = (".symphony-", ".tmp");

/// Whether a file in a state's directory has the name of a draft of ours.
pub fn is_draft(name: &str) -> bool {
    let random = name.strip_prefix(DRAFT.0).and_then(|name| name.strip_suffix(DRAFT.1));
    random.is_some_and(|random| random.len() == 6 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A hidden file in `dir`, which no tracker reads.
pub(super) fn draft(dir: &Path) -> io::Result<tempfile::NamedTempFile> {
    let everyone = fs::Permissions::from_mode(0o666); // less the umask
    tempfile::Builder::new().prefix(DRAFT.0).suffix(DRAFT.1).permissions(everyone).tempfile_in(dir)
}

/// Moves a file to a name that is free.
///
/// # Errors
/// `AlreadyExists` when it is not, `NotFound` when the file is gone.
pub(super) fn rename_to_free_name(from: &Path, to: &Path) -> io::Result<()> {
    reach("issue", "move", Phase::Before)?;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_and_unlink(from, to)?,
        Err(e) => return Err(e.into()),
    }
    reach("issue", "move", Phase::After)?;
    for dir in [to.parent(), from.parent()].into_iter().flatten() {
        sync_dir(dir)?;
    }
    Ok(())
}

/// The same on file systems without that flag. A crash between the two steps leaves both names, which
/// the next scan shows as an ambiguity.
pub(super) fn link_and_unlink(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// What came of an append.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// The note is in the file.
    Yes,
    /// With the note the file would exceed the cap.
    TooLong,
    /// Somebody kept changing the file.
    Busy,
}

/// Appends `note` as a paragraph of its own. The old file is swapped for the new one, and swapped back if it
/// turns out not to be what was read: a concurrent save is never lost, except one written through a handle
/// that was open before.
pub(super) fn append(path: &Path, note: &str, cap: usize) -> io::Result<Appended> {
    for _ in 0..APPEND_TRIES {
        let file = open(path)?;
        let meta = file.metadata()?;
        let old = read_capped(&file, cap)?;
        let gap = if old.is_empty() || old.ends_with(b"\n\n") {
            ""
        } else if old.ends_with(b"\n") {
            "\n"
        } else {
            "\n\n"
        };
        let new = [&old, gap.as_bytes(), note.trim().as_bytes(), b"\n"].concat();
        if new.len() > cap {
            return Ok(Appended::TooLong);
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        reach("issue", "note", Phase::Before)?;
        let mut draft = draft(dir)?;
        draft.write_all(&new)?;
        let owner = (rustix::fs::Uid::from_raw(meta.uid()), rustix::fs::Gid::from_raw(meta.gid()));
        // Only root may give files away; where that fails, the file is ours now, as after an editor's save.
        let _ = rustix::fs::fchown(draft.as_file(), Some(owner.0), Some(owner.1));
        draft.as_file().set_permissions(meta.permissions())?;
        draft.as_file().sync_all()?;
        if swap_if_unchanged(draft, path, &old, &new, cap)? {
            reach("issue", "note", Phase::After)?;
            sync_dir(dir)?;
            return Ok(Appended::Yes);
        }
    }
    Ok(Appended::Busy)
}

/// Exchanges `draft`, which says `new`, with the file at `path` if that says `old`, and tells whether it did.
pub(super) fn swap_if_unchanged(
    draft: tempfile::NamedTempFile,
    path: &Path,
    old: &[u8],
    new: &[u8],
    cap: usize,
) -> io::Result<bool> {
    match renameat_with(CWD, draft.path(), CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            if read_capped(&open(path)?, cap)? != old {
                return Ok(false);
            }
            return draft.persist(path).map(|_| true).map_err(|e| e.error);
        }
        Err(e) => return Err(e.into()),
    }
    // From here on the draft's name holds somebody's text: it goes only when that text is accounted for.
    let (_, displaced) = draft.keep().map_err(|e| e.error)?;
    reach("issue", "note", Phase::Torn)?;
    let (mut expected, mut put) = (old.to_vec(), new.to_vec());
    for turn in 0..APPEND_TRIES {
        let found = read_capped(&open(&displaced)?, cap)?;
        if found == expected {
            fs::remove_file(&displaced)?;
            return Ok(turn == 0);
        }
        // A save came between reading and swapping: it goes back, which may displace a yet newer one.
        match renameat_with(CWD, &displaced, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            // The issue was moved away with our text; the save becomes a second file, and an ambiguity to see.
            Err(Errno::NOENT) => return rename_to_free_name(&displaced, path).map(|()| false),
            Err(e) => return Err(e.into()),
        }
        (expected, put) = (put, found);
    }
    let kept = displaced.display();
    Err(io::Error::other(format!("somebody keeps replacing the file; a displaced text was kept as {kept}")))
}

/// Makes renames in `dir` durable. File systems that cannot are left to their ways.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    match rustix::fs::fsync(File::open(dir)?) {
        Err(e @ (Errno::IO | Errno::NOSPC | Errno::DQUOT)) => Err(e.into()),
        _ => Ok(()),
    }
}
