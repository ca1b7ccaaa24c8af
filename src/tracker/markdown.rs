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
//! - **Files that look half saved** ([`symphony_core::front_matter::looks_half_saved`]) are malformed while they are
//!   younger than two seconds, or for as long as they stand where an issue stood. Left so, an empty one and one whose
//!   fields never end stay malformed.
//! - **Unchanged files are not read again**: inode, size and times say so, unless they are so young that a
//!   change could hide in the clock's grain.

mod create;
mod disk;
mod listing;
mod scan;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use symphony_core::front_matter::{MAX_BYTES, resolve, separate, too_long};
use symphony_core::ids::{IssueId, StateName};
use symphony_core::issue::{Issue, Scan};

use self::disk::Appended;
pub use self::disk::is_draft;
use self::scan::{Found, Memory};
use crate::tracker::{Created, Moved, NewIssue, Tracker, TrackerError};

/// How often a move or a note looks again when the file moved under it.
const FIND_TRIES: u32 = 4;
/// How often, and how long apart, a file is looked at that is being saved.
const SAVE_TRIES: u32 = 20;
const SAVE_PAUSE: Duration = Duration::from_millis(50);

/// Issues in the state directories below one root.
#[derive(Clone, Debug)]
pub struct MarkdownTracker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    /// Directories whose entries are named after issues that once were: their numbers are not given again.
    past: Vec<PathBuf>,
    memory: Mutex<Memory>,
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
        Self::after(root, vec![])
    }

    /// The same; numbers that stand in a name in one of the directories `past` are taken, too. What an issue left
    /// (its commits, its patch, its counters) goes by its name and outlives its file.
    pub fn after(root: PathBuf, past: Vec<PathBuf>) -> Self {
        Self { shared: Arc::new(Shared { root, past, memory: Mutex::default() }) }
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
    /// The state directories and every issue with `id`, at least one, of one instant. A file that is being
    /// saved is waited for; one that stays broken is an error of its own, not a missing issue.
    fn find(&self, id: &IssueId) -> Result<(Vec<String>, Vec<Issue>), TrackerError> {
        let mut tries = 0;
        loop {
            let Found { states, mut issues, mut broken, .. } = self.look()?;
            issues.retain(|issue| issue.id == *id);
            if !issues.is_empty() {
                return Ok((states, issues));
            }
            let Some(malformed) = broken.remove(id) else { return Err(TrackerError::NotFound(id.0.clone())) };
            if tries == SAVE_TRIES {
                let path = self.root.join(&malformed.file).display().to_string();
                return Err(TrackerError::Io { action: "read", path, message: malformed.message });
            }
            tries += 1;
            std::thread::sleep(SAVE_PAUSE);
        }
    }

    /// Decides a move without making it.
    fn plan(&self, id: &IssueId, from: &StateName, to: &StateName) -> Result<Step, TrackerError> {
        check_state_name(to.as_str().trim())?;
        let (states, all) = self.find(id)?;
        let files = || all.iter().map(|issue| issue.file.clone()).collect();
        let issue = match all.as_slice() {
            [only] => only,
            several => {
                let mut here = several.iter().filter(|issue| issue.state == *from);
                match (here.next(), here.next()) {
                    (Some(one), None) => one,
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
        let target = directory_of(&states, to);
        for state in states.iter().filter(|state| StateName::new(state.as_str()) == *to) {
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
            let (_, all) = self.find(id)?;
            let [issue] = all.as_slice() else {
                let files = all.into_iter().map(|issue| issue.file).collect();
                return Err(TrackerError::Ambiguous { name: id.0.clone(), files });
            };
            let path = self.root.join(&issue.file);
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
