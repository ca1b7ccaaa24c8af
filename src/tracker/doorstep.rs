//! Whether the issue directory is what the workflow takes it for: its states, and that files in it can be moved. Looked at
//! before a run is over that could not move its issue then. Blocking, and changes nothing.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use symphony_core::workflow::Workflow;

use crate::log::typed;

/// Files astray that are named.
const NAMED: usize = 8;

/// What a person should mend, each a sentence. What cannot be read is said by the look itself.
pub fn warnings(workflow: &Workflow) -> Vec<String> {
    let root = &workflow.tracker.root;
    let Ok(entries) = std::fs::read_dir(root) else { return vec![] };
    let is_hidden = |path: &PathBuf| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let is_state = |path: &PathBuf| path.is_dir();
    let paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| !is_hidden(path)).collect();
    let (mut directories, files): (Vec<PathBuf>, Vec<PathBuf>) = paths.into_iter().partition(is_state);
    directories.sort();
    let names = directories.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let mut all = workflow.states.amiss(&names.collect::<Vec<_>>());
    all.extend(astray(&files));
    all.extend(std::iter::once(root).chain(&directories).find_map(|path| unwritable(path)));
    all
}

/// Issues that were put beside the states instead of into one. A README belongs there.
fn astray(files: &[PathBuf]) -> Vec<String> {
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    let is_issue = |name: &String| name.ends_with(".md") && !name.eq_ignore_ascii_case("readme.md");
    let mut names: Vec<String> = files.iter().filter_map(name).filter(is_issue).collect();
    names.sort();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let mut all: Vec<String> = names
        .into_iter()
        .map(|name| format!("the file `{name}` stands beside the state directories and is not read; move it into one"))
        .collect();
    if let (1.., Some(last)) = (more, all.last_mut()) {
        last.push_str(&format!("; so do {more} more"));
    }
    all
}

fn unwritable(path: &Path) -> Option<String> {
    let why = access(path, Access::WRITE_OK | Access::EXEC_OK).err()?;
    let remedy = match why {
        rustix::io::Errno::ROFS => "mount it writable".to_owned(),
        _ => format!("chown -R it to the user who runs symphony, or chmod u+rwx {}", typed(path)),
    };
    Some(format!("issues in {} cannot be moved or changed by symphony: {why}; {remedy}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::unwritable;

    /// Regression: it was noticed when a run was over and its issue could not be moved.
    #[test]
    fn a_directory_that_cannot_be_written_is_said_with_what_to_do() {
        let place = tempfile::tempdir().expect("a directory");
        assert_eq!(unwritable(place.path()), None);
        if rustix::process::geteuid().is_root() {
            return crate::skip::skip_part("root may write everywhere");
        }
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o500)).expect("mode");
        let said = unwritable(place.path()).expect("unwritable");
        assert!(said.contains("cannot be moved") && said.contains("chmod u+rwx"), "{said}");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).expect("mode");
    }
}
