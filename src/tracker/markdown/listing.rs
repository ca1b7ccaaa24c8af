//! Which issue files are where: one listing of all state directories, and whether it can be believed.
//!
//! Reads names only, never contents. A file that moves between two directories while they are read may be
//! seen twice or not at all (trap T6), so a listing says whether it was [`exact`](Listing::exact), and
//! [`Listing::covers`] says whether it shows everything that an earlier one did. An unreadable directory
//! fails the whole listing (C183).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::tracker::TrackerError;

/// A change younger than this may hide another one: kernels stamp files with a clock that only ticks
/// every few milliseconds.
const STAMP_GRAIN: Duration = Duration::from_millis(30);
/// The same where file systems keep whole seconds only.
const COARSE_GRAIN: Duration = Duration::from_secs(2);

/// Device and inode.
pub(super) type Inode = (u64, u64);

/// One issue file, seen but not opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    /// Below the tracker root: `<state>/<name>.md`.
    pub(super) file: String,
    /// Name of its directory.
    pub(super) state: String,
    /// What stays the same when the file moves.
    pub(super) inode: Inode,
}

/// All state directories at once.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Names of the state directories, sorted.
    pub(super) states: Vec<String>,
    /// Sorted by path.
    pub(super) files: Vec<Seen>,
    /// Paths whose names are not UTF-8, as well as they can be shown.
    pub(super) unnamable: Vec<String>,
    /// Whether no directory changed while it was made: then it shows one instant.
    pub(super) exact: bool,
}

/// When an inode changed last, in nanoseconds since 1970.
pub(super) fn changed_at(meta: &fs::Metadata) -> i128 {
    i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec())
}

/// Whether a change stamped `changed` and looked at since `now` can hide no later one. A stamp of the future
/// comes from a clock set back; what changes now is stamped now.
pub(super) fn settled(changed: i128, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos() as i128);
    let grain = if changed % 1_000_000_000 == 0 { COARSE_GRAIN } else { STAMP_GRAIN };
    (now - changed).abs() > grain.as_nanos() as i128
}

/// Reads all state directories below `root`: first-level directories and links to such, but for names that
/// begin with a dot. `None` when one of them vanished meanwhile.
///
/// # Errors
/// [`TrackerError::RootRead`] for whichever directory cannot be read.
pub(super) fn list(root: &Path, now: SystemTime) -> Result<Option<Listing>, TrackerError> {
    let stamp = |path: &Path| fs::metadata(path).map(|meta| ((meta.dev(), meta.ino()), changed_at(&meta)));
    let mut listing = Listing::default();
    let mut stamps = vec![(root.to_path_buf(), stamp(root).map_err(|e| unreadable(root, &e))?)];
    for entry in fs::read_dir(root).map_err(|e| unreadable(root, &e))? {
        let entry = entry.map_err(|e| unreadable(root, &e))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(|e| unreadable(&entry.path(), &e))?;
        if !kind.is_dir() && !kind.is_symlink() {
            continue;
        }
        // A link to nothing could be a state on a disk that is not mounted: an error, not an empty state.
        let meta = match fs::metadata(entry.path()) {
            Err(e) if e.kind() == ErrorKind::NotFound && !kind.is_symlink() => return Ok(None),
            other => other.map_err(|e| unreadable(&entry.path(), &e))?,
        };
        if !meta.is_dir() {
            continue;
        }
        let Some(name) = name.to_str().map(str::to_owned) else {
            listing.unnamable.push(name.to_string_lossy().into_owned());
            continue;
        };
        stamps.push((entry.path(), ((meta.dev(), meta.ino()), changed_at(&meta))));
        match read_state(&entry.path(), &name, meta.dev(), &mut listing) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            result => result.map_err(|e| unreadable(&entry.path(), &e))?,
        }
        listing.states.push(name);
    }
    listing.exact =
        stamps.iter().all(|(path, before)| settled(before.1, now) && stamp(path).is_ok_and(|after| after == *before));
    listing.states.sort();
    listing.files.sort();
    listing.unnamable.sort();
    Ok(Some(listing))
}

fn read_state(dir: &Path, state: &str, device: u64, listing: &mut Listing) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        if !is_issue_name(bytes) || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        match name.to_str() {
            Some(name) => {
                let (file, inode) = (format!("{state}/{name}"), (device, entry.ino()));
                listing.files.push(Seen { file, state: state.to_owned(), inode });
            }
            None => listing.unnamable.push(format!("{state}/{}", name.to_string_lossy())),
        }
    }
    Ok(())
}

/// Ends in `.md` and is neither hidden nor an editor's lock or scratch file.
fn is_issue_name(name: &[u8]) -> bool {
    name.len() > 3 && name.ends_with(b".md") && !name.starts_with(b".") && !name.starts_with(b"~$")
}

fn unreadable(path: &Path, error: &std::io::Error) -> TrackerError {
    TrackerError::RootRead { path: path.display().to_string(), message: error.to_string() }
}

impl Listing {
    /// Whether everything in `known` is still there, at its path or as the same file elsewhere, and nothing
    /// is there twice. A listing for which this holds missed nothing we knew.
    pub(super) fn covers(&self, known: &HashMap<Inode, String>) -> bool {
        let inodes: HashSet<Inode> = self.files.iter().map(|seen| seen.inode).collect();
        let paths: HashSet<&str> = self.files.iter().map(|seen| seen.file.as_str()).collect();
        inodes.len() == self.files.len()
            && known.iter().all(|(inode, path)| inodes.contains(inode) || paths.contains(path.as_str()))
    }

    /// What it saw, for [`Listing::covers`] of the next one.
    pub(super) fn known(&self) -> impl Iterator<Item = (Inode, String)> + '_ {
        self.files.iter().map(|seen| (seen.inode, seen.file.clone()))
    }
}
