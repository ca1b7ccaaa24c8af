//! What a person means by a name.

use super::{Explained, all};
use crate::snapshot::Snapshot;

/// Suggestions at most.
const SUGGESTIONS: usize = 3;

/// Nothing of that name is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no issue, file or name `{name}` is known{}", blind.as_ref().map_or(String::new(), |why| format!(" ({why})")))]
pub struct NoSuch {
    /// What was asked for.
    pub name: String,
    /// What may have been meant, nearest first.
    pub near: Vec<String>,
    /// Why that may change: the issues were not read yet, cannot be read, or its file stands astray.
    pub blind: Option<String>,
}

impl NoSuch {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self.near.split_last() {
            None => "`symphony explain` without a name lists all that are not running fine".to_owned(),
            Some((last, [])) => format!("did you mean {last}?"),
            Some((last, others)) => format!("did you mean {} or {last}?", others.join(", ")),
        }
    }
}

/// What `name` means: an identifier or id exactly; else a file, by path or stem; else either without regard to case,
/// if that leaves one; else what the last part of a path means. Several files of one stem are several answers.
///
/// # Errors
/// Nothing, or nothing definite, of that name is known.
pub fn find(snapshot: &Snapshot, name: &str) -> Result<Vec<Explained>, NoSuch> {
    let name = name.trim();
    let folded = name.to_lowercase();
    let known = all(snapshot);
    let those = |is_it: &dyn Fn(&Explained) -> bool| known.iter().filter(|one| is_it(one)).cloned().collect::<Vec<_>>();
    // What one file calls itself another may have as its id: both are said.
    let exactly = those(&|one| one.name == name || one.id.as_ref().is_some_and(|id| id.0 == name));
    if !exactly.is_empty() {
        return Ok(exactly);
    }
    let files = those(&|one| one.id.is_none() && names_of(one).contains(&name));
    if !files.is_empty() {
        return Ok(files);
    }
    let alike = those(&|one| names_of(one).iter().any(|known| known.to_lowercase() == folded));
    if alike.len() == 1 {
        return Ok(alike);
    }
    // A path as a shell completes it: what it is called unless the file says otherwise.
    if name.ends_with(".md")
        && let Ok(found) = find(snapshot, stem(name))
    {
        return Ok(found);
    }
    let blind = astray(snapshot, name).or_else(|| blind(snapshot));
    Err(NoSuch { name: name.to_owned(), near: near(&known, &folded), blind })
}

/// Everything it may be called by.
fn names_of(one: &Explained) -> Vec<&str> {
    let mut names = vec![one.name.as_str()];
    names.extend(one.id.as_ref().map(|id| id.0.as_str()));
    if one.id.is_none() {
        // A place ends in `:line:column`; the file of a malformed one is its name.
        let files = std::iter::once(one.name.as_str()).chain(one.files.iter().map(String::as_str));
        names.extend(files.filter(|file| file.ends_with(".md")).flat_map(|file| [file, stem(file)]));
    }
    names
}

fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".md").unwrap_or(name)
}

fn near(known: &[Explained], folded: &str) -> Vec<String> {
    let mut near: Vec<(usize, String)> = known
        .iter()
        .filter_map(|one| {
            let distance = |name: &&str| strsim::osa_distance(folded, &name.to_lowercase());
            let distance = names_of(one).iter().map(distance).min()?;
            (distance <= 1 + folded.chars().count() / 3).then(|| (distance, one.name.clone()))
        })
        .collect();
    near.sort();
    near.dedup();
    near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

/// What was warned of about a file of this name, which no issue is.
fn astray(snapshot: &Snapshot, name: &str) -> Option<String> {
    let quoted = format!("`{}.md`", stem(name));
    snapshot.warnings.iter().find(|warning| warning.contains(&quoted)).cloned()
}

fn blind(snapshot: &Snapshot) -> Option<String> {
    let nothing = snapshot.running.is_empty() && snapshot.retrying.is_empty() && snapshot.idle.is_empty();
    match &snapshot.tracker_problem {
        Some(problem) => Some(format!("the issues could not be read: {problem}")),
        None if nothing && snapshot.polling => Some("the issues are being read; ask again".to_owned()),
        None => None,
    }
}
