//! Scans: from listings and file contents to all issues of one instant.
//!
//! Owns what one scan remembers for the next. Must never report a file missing because it moved, trust a
//! file that is being written, or read an unchanged one again.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use symphony_core::front_matter::{MAX_BYTES, looks_half_saved, parse, stem_of, too_long};
use symphony_core::ids::{IssueId, StateName};
use symphony_core::issue::{Issue, Malformed};

use super::listing::{self, Inode, Listing, Seen};
use super::{Shared, disk};
use crate::tracker::TrackerError;

/// Milliseconds before each try of a scan; their number bounds it.
const PAUSES_MS: [u64; 10] = [0, 1, 2, 4, 8, 16, 32, 32, 32, 32];
/// From this try on, the first scan of a process settles for two equal listings.
const PATIENCE: usize = 6;
/// How long a file that looks half saved may still be in someone's hands.
const HALF_SAVED_FOR: Duration = Duration::from_secs(2);
/// What one scan leaves for the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Whether there was a scan.
    looked: bool,
    /// The files of the last scan.
    known: HashMap<Inode, String>,
    /// What was read of them.
    read: HashMap<Inode, Remembered>,
    /// Paths whose last whole content was an issue, and which.
    issues_at: HashMap<String, IssueId>,
    /// How many files were opened so far.
    pub(super) opened: u64,
}

/// One file as it was read.
#[derive(Clone, Debug)]
struct Remembered {
    stamp: Stamp,
    outcome: Result<Issue, Malformed>,
    /// Whether the stamp proves that the file is unchanged.
    lasting: bool,
}

/// What changes when a file does: change time, modification time, size, path.
type Stamp = (i128, i64, i64, u64, String);

/// All files of one instant.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Names of the state directories, sorted.
    pub(super) states: Vec<String>,
    /// Well-formed, the ambiguous among them, blockers unresolved.
    pub(super) issues: Vec<Issue>,
    /// What is no issue right now.
    pub(super) malformed: Vec<Malformed>,
    /// Of these, the files that were an issue before.
    pub(super) broken: HashMap<IssueId, Malformed>,
}

impl Shared {
    /// Every file of one instant.
    ///
    /// # Errors
    /// An unreadable directory (C183), or directories that never come to rest.
    pub(super) fn look(&self) -> Result<Found, TrackerError> {
        // A panic elsewhere leaves at worst an outdated memory, which is checked against the disk anyway.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = memory.known.clone();
        let mut before: Option<Listing> = None;
        for (tries, pause) in PAUSES_MS.into_iter().enumerate() {
            if pause > 0 {
                std::thread::sleep(Duration::from_millis(pause));
            }
            let Some(listing) = listing::list(&self.root, SystemTime::now())? else { continue };
            let again = tries >= PATIENCE && before.as_ref().is_some_and(|before| before.files == listing.files);
            if (listing.exact || ((memory.looked || again) && listing.covers(&known)))
                && let Some(found) = self.read_all(&listing, &mut memory)
            {
                return Ok(found);
            }
            known.extend(listing.known());
            before = Some(listing);
        }
        let message = "the directory keeps changing; it is read again at the next poll".to_owned();
        Err(TrackerError::Io { action: "read", path: self.root.display().to_string(), message })
    }

    /// Reads what is new or changed. `None` when a file went away before it was ever read.
    fn read_all(&self, listing: &Listing, memory: &mut Memory) -> Option<Found> {
        let mut found = Found { states: listing.states.clone(), ..Found::default() };
        let mut read = HashMap::with_capacity(listing.files.len());
        for seen in &listing.files {
            let remembered = match self.read(seen, memory) {
                Ok(Some(remembered)) => remembered,
                Ok(None) => continue,
                Err(Gone) => return None,
            };
            match &remembered.outcome {
                Ok(issue) => found.issues.push(issue.clone()),
                Err(malformed) => found.malformed.push(malformed.clone()),
            }
            read.insert(seen.inode, remembered);
        }
        for path in &listing.unnamable {
            let message = "the name is not UTF-8; rename it".to_owned();
            found.malformed.push(Malformed { file: path.clone(), line: None, column: None, message });
        }
        let mut issues_at: HashMap<String, IssueId> =
            found.issues.iter().map(|issue| (issue.file.clone(), issue.id.clone())).collect();
        for malformed in &found.malformed {
            if let Some(id) = memory.issues_at.remove(&malformed.file) {
                found.broken.insert(id.clone(), malformed.clone());
                issues_at.insert(malformed.file.clone(), id);
            }
        }
        let (known, opened) = (listing.known().collect(), memory.opened);
        *memory = Memory { looked: true, known, read, issues_at, opened };
        Some(found)
    }

    /// Reads one file, or remembers it. `None`: it is no regular file after all.
    fn read(&self, seen: &Seen, memory: &mut Memory) -> Result<Option<Remembered>, Gone> {
        let path = self.root.join(&seen.file);
        let unreadable = |e: &std::io::Error| Malformed {
            file: seen.file.clone(),
            line: None,
            column: None,
            message: format!("the file cannot be read: {e}"),
        };
        let stamp = |meta: &fs::Metadata| {
            (listing::changed_at(meta), meta.mtime(), meta.mtime_nsec(), meta.size(), seen.file.clone())
        };
        let known = memory.read.get(&seen.inode);
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == ErrorKind::NotFound => return moved_on(seen, known).map(Some).ok_or(Gone),
            Err(e) => return Ok(Some(Remembered::now(unreadable(&e)))),
        };
        if !meta.is_file() {
            return Ok(None);
        }
        if let Some(known) = known.filter(|known| known.lasting && known.stamp == stamp(&meta)) {
            return Ok(Some(known.clone()));
        }
        memory.opened += 1;
        let now = SystemTime::now();
        let bytes =
            match disk::open(&path).and_then(|file| Ok((file.metadata()?, disk::read_capped(&file, MAX_BYTES)?))) {
                Ok((meta, _)) if !meta.is_file() => return Ok(None),
                Ok((_, bytes)) => bytes,
                Err(e) if e.kind() == ErrorKind::NotFound => return moved_on(seen, known).map(Some).ok_or(Gone),
                Err(e) => return Ok(Some(Remembered::now(unreadable(&e)))),
            };
        if bytes.len() > MAX_BYTES {
            let malformed = Malformed { file: seen.file.clone(), line: None, column: None, message: too_long() };
            return Ok(Some(Remembered::now(malformed)));
        }
        let outcome = parse(&seen.file, &seen.state, &bytes);
        if let Some(sign) = looks_half_saved(&bytes) {
            let young = meta.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age < HALF_SAVED_FOR));
            // Left so where no issue stood, most are none either, and `parse` says what to do about it.
            if young || memory.issues_at.contains_key(&seen.file) {
                let message = format!("{sign}; it looks half saved");
                let (line, column) = (None, None);
                return Ok(Some(Remembered::now(Malformed { file: seen.file.clone(), line, column, message })));
            }
        }
        let lasting = listing::settled(listing::changed_at(&meta), now);
        Ok(Some(Remembered { stamp: stamp(&meta), outcome, lasting }))
    }
}

impl Remembered {
    /// A finding that the next scan makes anew.
    fn now(malformed: Malformed) -> Self {
        Self { stamp: Stamp::default(), outcome: Err(malformed), lasting: false }
    }
}

/// A file was listed, but is gone and was never read.
struct Gone;

/// A listed file that moved on before it was opened: what was read of it before, as of the listing.
fn moved_on(seen: &Seen, known: Option<&Remembered>) -> Option<Remembered> {
    let mut known = known?.clone();
    let issue = known.outcome.as_mut().ok()?;
    if stem_of(&issue.file) != stem_of(&seen.file) {
        return None;
    }
    issue.file.clone_from(&seen.file);
    issue.state = StateName::new(seen.state.as_str());
    known.lasting = false;
    Some(known)
}
