//! The Markdown tracker: `<root>/<state>/<name>.md`, where the directory is the state (smol-symphony §1.4).
//!
//! Owns the layout, coherent scans, compare-and-move, and atomic creation. Must never clobber a file, show
//! half a scan, or move anything that was not asked for by name.
//!
//! - **States** are first-level directories and links to directories; names with a leading dot are not.
//!   Two spellings of one state (`Todo`, `todo`) are both read and count as one.
//! - **Issues** are regular files ending in `.md`, but for hidden files and editors' lock files. Links to
//!   files are ignored: a link could bring in a text from anywhere and its move would move only the link.
//! - **Scans** show one instant. Either no directory changed while it was read, or everything known from
//!   the scan before was seen exactly once (trap T6); else the scan is repeated, and after a bounded number
//!   of times it is an error. So a file is missing only after the directories were seen at rest without it.
//! - **Files that look half saved** ([`looks_half_saved`]) are malformed while they are younger than two
//!   seconds, or for as long as they stand where an issue stood.
//! - **Unchanged files are not read again**: inode, size and times say so, unless they are so young that a
//!   change could hide in the clock's grain.

mod disk;
mod listing;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use jiff::Timestamp;
use symphony_core::front_matter::{
    MAX_BYTES, NewFile, RESERVED, folded_key, looks_half_saved, parse, render_new, resolve, separate, stem_of, too_long,
};
use symphony_core::ids::{Identifier, IssueId, StateName, WorkspaceKey};
use symphony_core::issue::{Issue, Malformed, Scan};

use self::disk::Appended;
use self::listing::{Inode, Listing, Seen};
use crate::tracker::{Created, Moved, NewIssue, Tracker, TrackerError};

/// Milliseconds before each try of a scan; their number bounds it.
const PAUSES_MS: [u64; 10] = [0, 1, 2, 4, 8, 16, 32, 32, 32, 32];
/// From this try on, the first scan of a process settles for two equal listings.
const PATIENCE: usize = 6;
/// How long a file that looks half saved may still be in someone's hands.
const HALF_SAVED_FOR: Duration = Duration::from_secs(2);
/// How often a move or a note looks again when the file moved under it.
const FIND_TRIES: u32 = 4;
/// Longest identifier of a new issue, in bytes, so that file names stay short.
const MAX_NEW_IDENTIFIER: usize = 100;

/// Issues in the state directories below one root.
#[derive(Clone, Debug)]
pub struct MarkdownTracker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    memory: Mutex<Memory>,
}

/// What one scan leaves for the next.
#[derive(Debug, Default)]
struct Memory {
    /// Whether there was a scan.
    looked: bool,
    /// The files of the last scan.
    known: HashMap<Inode, String>,
    /// What was read of them.
    read: HashMap<Inode, Remembered>,
    /// Paths whose last whole content was an issue.
    issues_at: HashSet<String>,
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
struct Found {
    states: Vec<String>,
    /// Well-formed, the ambiguous among them, blockers unresolved.
    issues: Vec<Issue>,
    malformed: Vec<Malformed>,
}

/// What a move has to do.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Nothing: it is there.
    There { file: String },
    /// Rename one file; `state` is the directory, which may not exist yet.
    Rename { file: String, state: String },
}

impl MarkdownTracker {
    /// A tracker of the issues below `root`. Nothing is read yet.
    pub fn new(root: PathBuf) -> Self {
        Self { shared: Arc::new(Shared { root, memory: Mutex::default() }) }
    }

    /// Runs blocking `work` where it may block. Once begun it also ends when the caller went away.
    fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, TrackerError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, TrackerError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let root = shared.root.display().to_string();
            let task = tokio::task::spawn_blocking(move || work(&shared));
            let failed = |e: tokio::task::JoinError| TrackerError::Io {
                action: "work in",
                path: root,
                message: format!("the work was given up: {e}"),
            };
            task.await.map_err(failed)?
        })
    }
}

impl Tracker for MarkdownTracker {
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>> {
        self.blocking(|shared| {
            let Found { issues, malformed, .. } = shared.look()?;
            let (mut issues, ambiguous) = separate(issues);
            resolve(&mut issues);
            Ok(Scan { issues, malformed, ambiguous })
        })
    }

    fn move_issue<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>> {
        let (id, from, to) = (id.clone(), from.clone(), to.clone());
        self.blocking(move |shared| shared.move_issue(&id, &from, &to))
    }

    fn check_move<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<(), TrackerError>> {
        let (id, from, to) = (id.clone(), from.clone(), to.clone());
        self.blocking(move |shared| shared.plan(&id, &from, &to).map(drop))
    }

    fn append_note<'a>(&'a self, id: &'a IssueId, note: &'a str) -> BoxFuture<'a, Result<(), TrackerError>> {
        let (id, note) = (id.clone(), note.to_owned());
        self.blocking(move |shared| shared.append_note(&id, &note))
    }

    fn create(&self, new: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>> {
        self.blocking(move |shared| shared.create(&new, Timestamp::now()))
    }
}

impl Shared {
    /// Every file of one instant.
    fn look(&self) -> Result<Found, TrackerError> {
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
        let mut issues_at: HashSet<String> = found.issues.iter().map(|issue| issue.file.clone()).collect();
        let broken = found.malformed.iter().map(|malformed| &malformed.file);
        issues_at.extend(broken.filter(|file| memory.issues_at.contains(*file)).cloned());
        *memory = Memory { looked: true, known: listing.known().collect(), read, issues_at };
        Some(found)
    }

    /// Reads one file, or remembers it. `None`: it is no regular file after all.
    fn read(&self, seen: &Seen, memory: &Memory) -> Result<Option<Remembered>, Gone> {
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
        if let Some(sign) = looks_half_saved(&bytes) {
            let young = meta.modified().is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age < HALF_SAVED_FOR));
            if young || memory.issues_at.contains(&seen.file) {
                let message = format!("{sign}; it looks half saved");
                let (line, column) = (None, None);
                return Ok(Some(Remembered::now(Malformed { file: seen.file.clone(), line, column, message })));
            }
        }
        let lasting = listing::settled(listing::changed_at(&meta), now);
        let outcome = parse(&seen.file, &seen.state, &bytes);
        Ok(Some(Remembered { stamp: stamp(&meta), outcome, lasting }))
    }

    /// Decides a move without making it.
    fn plan(&self, id: &IssueId, from: &StateName, to: &StateName) -> Result<Step, TrackerError> {
        check_state_name(to.as_str().trim())?;
        let found = self.look()?;
        let all: Vec<&Issue> = found.issues.iter().filter(|issue| issue.id == *id).collect();
        let files = || all.iter().map(|issue| issue.file.clone()).collect();
        let issue = match all.as_slice() {
            [] => return Err(TrackerError::NotFound(id.0.clone())),
            [only] => *only,
            several => {
                let mut here = several.iter().filter(|issue| issue.state == *from);
                match (here.next(), here.next()) {
                    (Some(one), None) => *one,
                    _ => return Err(TrackerError::Ambiguous { name: id.0.clone(), files: files() }),
                }
            }
        };
        if issue.state == *to {
            return Ok(Step::There { file: issue.file.clone() });
        }
        if issue.state != *from {
            return Err(TrackerError::Elsewhere {
                id: id.0.clone(),
                actual: issue.state.to_string(),
                expected: from.to_string(),
            });
        }
        if let Some(twin) = all.iter().find(|twin| twin.state == *to) {
            return Err(TrackerError::TargetExists(twin.file.clone()));
        }
        let target = directory_of(&found.states, to);
        for state in found.states.iter().filter(|state| StateName::new(state.as_str()) == *to) {
            let taken = format!("{state}/{}", issue.file_name());
            if fs::symlink_metadata(self.root.join(&taken)).is_ok() {
                return Err(TrackerError::TargetExists(taken));
            }
        }
        Ok(Step::Rename { file: issue.file.clone(), state: target })
    }

    fn move_issue(&self, id: &IssueId, from: &StateName, to: &StateName) -> Result<Moved, TrackerError> {
        let mut tries = 0;
        loop {
            let (file, state) = match self.plan(id, from, to)? {
                Step::There { file } => return Ok(Moved { file }),
                Step::Rename { file, state } => (file, state),
            };
            disk::ensure_dir(&self.root.join(&state)).map_err(|e| io_error("create", &self.root.join(&state), &e))?;
            let name = file.rsplit('/').next().unwrap_or(&file);
            let target = format!("{state}/{name}");
            tries += 1;
            match disk::rename_to_free_name(&self.root.join(&file), &self.root.join(&target)) {
                Ok(()) => return Ok(Moved { file: target }),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(TrackerError::TargetExists(target)),
                // Somebody was faster: look where it is now.
                Err(e) if e.kind() == ErrorKind::NotFound && tries < FIND_TRIES => {}
                Err(e) => return Err(io_error("move", &self.root.join(&file), &e)),
            }
        }
    }

    fn append_note(&self, id: &IssueId, note: &str) -> Result<(), TrackerError> {
        let mut tries = 0;
        loop {
            let found = self.look()?;
            let mut files = found.issues.iter().filter(|issue| issue.id == *id).map(|issue| issue.file.clone());
            let path = match (files.next(), files.next()) {
                (None, _) => return Err(TrackerError::NotFound(id.0.clone())),
                (Some(one), None) => self.root.join(one),
                (Some(one), Some(two)) => {
                    let files = [one, two].into_iter().chain(files).collect();
                    return Err(TrackerError::Ambiguous { name: id.0.clone(), files });
                }
            };
            tries += 1;
            match disk::append(&path, note, MAX_BYTES) {
                Ok(Appended::Yes) => return Ok(()),
                Ok(Appended::TooLong) => return Err(TrackerError::Invalid(format!("with the note, {}", too_long()))),
                Ok(Appended::Busy) => {
                    let busy = std::io::Error::other("the file keeps changing; try again");
                    return Err(io_error("append to", &path, &busy));
                }
                Err(e) if e.kind() == ErrorKind::NotFound && tries < FIND_TRIES => {}
                Err(e) => return Err(io_error("append to", &path, &e)),
            }
        }
    }

    /// Creators take turns, whatever process they are in, so that no name is given twice in any two states.
    fn create(&self, new: &NewIssue, now: Timestamp) -> Result<Created, TrackerError> {
        let title = new.title.trim();
        if title.is_empty() {
            return Err(TrackerError::Invalid("the title is blank".to_owned()));
        }
        let state = new.state.trim();
        check_state_name(state)?;
        let wanted = new.identifier.as_ref().map(sanitised).transpose()?;
        let _turn = disk::lock(&self.root).map_err(|e| io_error("lock", &self.root, &e))?;
        let found = self.look()?;
        let identifier = match wanted {
            Some(identifier) => {
                if let Some(file) = taken(&found, &identifier) {
                    return Err(TrackerError::TargetExists(file));
                }
                identifier
            }
            None => next_number(&found),
        };
        let file = NewFile {
            identifier: &identifier.0,
            title,
            description: new.description.as_deref(),
            priority: new.priority,
            labels: &new.labels,
            blocked_by: &new.blocked_by,
        };
        let text = render_new(&file, now);
        let name = format!("{identifier}.md");
        if let Err(e) = parse(&name, state, text.as_bytes()) {
            return Err(TrackerError::Invalid(format!("the issue could not be read back: {}", e.message)));
        }
        let directory = directory_of(&found.states, &StateName::new(state));
        let dir = self.root.join(&directory);
        disk::ensure_dir(&dir).map_err(|e| io_error("create", &dir, &e))?;
        let path = dir.join(&name);
        disk::place(&path, text.as_bytes()).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => TrackerError::TargetExists(format!("{directory}/{name}")),
            _ => io_error("create", &path, &e),
        })?;
        let path = std::path::absolute(&path).unwrap_or(path).display().to_string();
        Ok(Created { path, identifier, state: StateName::new(directory) })
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

/// The directory that is `state`: that spelling, else one that differs in case, else a new one.
fn directory_of(states: &[String], state: &StateName) -> String {
    let spelled = state.as_str().trim();
    let same = |name: &&String| StateName::new(name.as_str()) == *state;
    let exact = states.iter().find(|name| *name == spelled);
    exact.or_else(|| states.iter().find(same)).cloned().unwrap_or_else(|| spelled.to_owned())
}

fn check_state_name(name: &str) -> Result<(), TrackerError> {
    let fault = if name.is_empty() {
        "is blank"
    } else if name.len() > 255 {
        "is longer than a directory name may be"
    } else if name.starts_with('.') {
        "begins with a dot; such directories are not read"
    } else if name.contains('/') || name.chars().any(char::is_control) {
        "contains a slash or a control character"
    } else {
        return Ok(());
    };
    Err(TrackerError::Invalid(format!("the state `{}` {fault}", name.escape_debug())))
}

/// An identifier as 0.1.0 would write it: everything outside `[A-Za-z0-9._-]` becomes `_`.
fn sanitised(identifier: &Identifier) -> Result<Identifier, TrackerError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let safe: String = identifier.0.trim().chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    let safe = Identifier(safe);
    let fault = match WorkspaceKey::of(&safe) {
        Err(e) => e.to_string(),
        Ok(_) if safe.0.starts_with('.') => format!("`{safe}` begins with a dot: its file would be hidden"),
        Ok(_) if RESERVED.contains(&safe.0.as_str()) => format!("`{safe}` is a page of the dashboard"),
        Ok(_) if safe.0.len() > MAX_NEW_IDENTIFIER => {
            format!("the identifier is longer than {MAX_NEW_IDENTIFIER} bytes")
        }
        Ok(_) => return Ok(safe),
    };
    Err(TrackerError::Invalid(format!("{fault}; choose another identifier")))
}

/// The file that already goes by `identifier`, by whichever of its names; case does not count.
fn taken(found: &Found, identifier: &Identifier) -> Option<String> {
    let wanted = folded_key(identifier);
    let issue = found.issues.iter().find(|issue| {
        let id = Identifier(issue.id.0.clone());
        folded_key(&issue.identifier) == wanted || folded_key(&id) == wanted || named(&issue.file, &wanted)
    });
    let malformed = found.malformed.iter().find(|malformed| named(&malformed.file, &wanted));
    issue.map(|issue| &issue.file).or(malformed.map(|malformed| &malformed.file)).cloned()
}

fn named(file: &str, wanted: &str) -> bool {
    folded_key(&Identifier(stem_of(file).to_owned())) == wanted
}

/// One more than the highest number that names anything.
fn next_number(found: &Found) -> Identifier {
    let of_issues = found.issues.iter().flat_map(|i| [i.id.0.as_str(), i.identifier.0.as_str(), stem_of(&i.file)]);
    let of_malformed = found.malformed.iter().map(|malformed| stem_of(&malformed.file));
    let highest = of_issues.chain(of_malformed).filter_map(|name| name.parse::<u32>().ok()).max().unwrap_or(0);
    Identifier((u64::from(highest) + 1).to_string())
}

fn io_error(action: &'static str, path: &Path, error: &std::io::Error) -> TrackerError {
    let hint = match error.kind() {
        ErrorKind::CrossesDevices => "; the two state directories are on different file systems",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "; check who may write there",
        _ => "",
    };
    TrackerError::Io { action, path: path.display().to_string(), message: format!("{error}{hint}") }
}

#[cfg(test)]
mod tests;
