//! New issues: their names, and how several creators stay out of each other's way.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use symphony_core::front_matter::{NewFile, RESERVED, folded_key, parse, render_new, stem_of};
use symphony_core::ids::{Identifier, StateName, WorkspaceKey};

use super::scan::Found;
use super::{Shared, check_state_name, directory_of, disk, io_error};
use crate::tracker::{Created, NewIssue, TrackerError};

/// Longest identifier of a new issue, in bytes, so that file names stay short.
const MAX_NEW_IDENTIFIER: usize = 100;

impl Shared {
    /// Creators take turns, whatever process they are in, so that no name is given twice in any two states.
    ///
    /// # Errors
    /// A name that is taken or cannot be used, and what the file system refuses.
    pub(super) fn create(&self, new: &NewIssue, now: Timestamp) -> Result<Created, TrackerError> {
        let title = new.title.trim();
        if title.is_empty() {
            return Err(TrackerError::Invalid("the title is blank".to_owned()));
        }
        let state = new.state.trim();
        check_state_name(state)?;
        let wanted = new.identifier.as_ref().map(sanitised).transpose()?;
        let _turn = disk::turn();
        let found = self.look()?;
        let identifier = match wanted {
            Some(identifier) => {
                if let Some(file) = taken(&found, &identifier) {
                    return Err(TrackerError::TargetExists(file));
                }
                identifier
            }
            None => next_number(&found, &self.past),
        };
        let file = NewFile {
            identifier: &identifier.0,
            title,
            description: new.description.as_deref(),
            priority: new.priority,
            labels: &new.labels,
            blocked_by: &new.blocked_by,
            proposed: new.proposed.as_ref(),
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

/// One more than the highest number that names anything, or ever did.
fn next_number(found: &Found, past: &[PathBuf]) -> Identifier {
    let of_issues = found.issues.iter().flat_map(|i| [i.id.0.as_str(), i.identifier.0.as_str(), stem_of(&i.file)]);
    let of_malformed = found.malformed.iter().map(|malformed| stem_of(&malformed.file));
    let highest = of_issues.chain(of_malformed).filter_map(|name| name.parse::<u32>().ok());
    let highest = highest.chain(past.iter().flat_map(|dir| numbers_in(dir))).max().unwrap_or(0);
    Identifier((u64::from(highest) + 1).to_string())
}

/// The numbers in names such as `7.git` and `agent_7.patch`. A directory that is not there holds none.
fn numbers_in(dir: &Path) -> Vec<u32> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let number = |name: std::ffi::OsString| {
        let name = name.to_str()?;
        let name = name.strip_prefix("agent_").unwrap_or(name);
        name.split('.').next()?.parse().ok()
    };
    names.filter_map(number).collect()
}
