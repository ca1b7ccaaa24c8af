//! Files that a killed symphony had begun to write. Each is written under a name of its own and gets its place when it is
//! whole, so what stands under such a name at a start is nobody's: half of it, or all of what is written again.

use std::io;
use std::path::{Path, PathBuf};

use symphony_core::workflow::Workflow;

use crate::files::{WRITING, remove_tree};
use crate::layout::Layout;
use crate::tracker::markdown::is_draft;
use crate::workspace::marks;

/// Removes them wherever we write. For a start that holds the workflow's and the tracker's locks, before anything is
/// written: then none of them is in use. What cannot be removed is said, and stays. Blocking.
pub fn remove_drafts(layout: &Layout, workflow: &Workflow) {
    // The two places themselves may be links, which are followed at every start.
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let own = [real(layout.root()), layout.marks(), layout.patches()];
    let airlocks = entries(&layout.airlocks()).into_iter().map(|(_, path)| path);
    // Elsewhere another symphony may have its workspaces beside ours, and write about them now.
    let workspaces = Some(&workflow.workspace.root).filter(|root| root.starts_with(layout.root()));
    for dir in own.into_iter().chain(airlocks).chain(workspaces.map(|root| marks(root))) {
        remove_those(&dir, |name| name.strip_prefix(WRITING).is_some_and(is_random));
    }
    // A state need not be declared to have a directory.
    for (_, state) in entries(&real(&workflow.tracker.root)) {
        remove_those(&state, is_draft);
    }
}

/// What is appended to the prefix of a temporary file.
fn is_random(rest: &str) -> bool {
    rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn remove_those(dir: &Path, is_draft: impl Fn(&str) -> bool) {
    for (name, path) in entries(dir) {
        if !is_draft(&name) {
            continue;
        }
        match remove(&path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what a killed symphony had begun to write"),
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot be removed, and is nobody's"),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path)?.file_type() {
        kind if kind.is_file() => std::fs::remove_file(path),
        kind if kind.is_dir() => remove_tree(path),
        _ => Err(io::Error::other("it is neither a file nor a directory")),
    }
}

/// Names and paths in a directory; a link is not entered, and one that cannot be listed has none that we know.
fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    if !std::fs::symlink_metadata(dir).is_ok_and(|about| about.is_dir()) {
        return vec![];
    }
    let listed = std::fs::read_dir(dir).into_iter().flatten().flatten();
    listed.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_name_of_ours_goes_and_no_link_is_followed() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        let stays = ["A-1", ".writing-abc", ".writing-abcdefg", ".writing-ab.def", "x.writing-abcdef"];
        for name in stays.into_iter().chain([".writing-aB3dEf"]) {
            std::fs::write(at(name), "").expect("written");
        }
        std::fs::create_dir_all(at(".writing-tree01/within")).expect("made");
        let other = tempfile::tempdir().expect("another");
        std::fs::write(other.path().join(".writing-abcdef"), "").expect("written");
        std::os::unix::fs::symlink(other.path(), at(".writing-link01")).expect("linked");
        remove_those(place.path(), |name| name.strip_prefix(WRITING).is_some_and(is_random));
        let mut left: Vec<_> = entries(place.path()).into_iter().map(|(name, _)| name).collect();
        left.sort();
        let mut expected = [stays.as_slice(), &[".writing-link01"]].concat();
        expected.sort_unstable();
        assert_eq!(left, expected);
        assert!(other.path().join(".writing-abcdef").exists());
        let link = at("link");
        std::os::unix::fs::symlink(other.path(), &link).expect("linked");
        remove_those(&link, |_| true);
        assert!(other.path().join(".writing-abcdef").exists(), "a directory that is a link is not entered");
    }
}
