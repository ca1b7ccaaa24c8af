//! Names: each valid by construction, each with one meaning.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};

/// The stable key of an issue: front matter `id`, else the file's stem. Compared exactly.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssueId(pub String);

/// The name people use for an issue; it names its workspace, branch, patch and routes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identifier(pub String);

/// One attempt at an issue. A fencing number: it only ever grows, also across restarts, so a late
/// report from an older run can be told from a report of the current one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// A state is a directory name. The spelling is kept; comparison trims and ignores case (C15, C27).
#[derive(Clone, Debug)]
pub struct StateName(pub String);

/// The directory name of an issue's workspace, safe as a single path component (C26).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceKey(String);

impl StateName {
    /// A state of this spelling.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The form two spellings of one state share.
    pub fn folded(&self) -> String {
        self.0.trim().to_lowercase()
    }

    /// The spelling as it stands on disk or in the workflow.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for StateName {
    fn eq(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }
}

impl Eq for StateName {}

impl Hash for StateName {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.folded().hash(hasher);
    }
}

impl PartialOrd for StateName {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StateName {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded().cmp(&other.folded())
    }
}

/// Why an identifier cannot name a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing is left to name a directory with.
    #[error("the identifier is empty")]
    Empty,
    /// `.` and `..` are made of allowed characters but mean other directories (C154).
    #[error("the identifier is a path of its own (`.` or `..`)")]
    PathSpecial,
}

impl WorkspaceKey {
    /// Replaces every character outside `[A-Za-z0-9._-]` by `_` and, where that changed anything,
    /// appends 64 bits of the original's hash: two identifiers never share a directory (C26).
    ///
    /// # Errors
    /// An empty identifier, `.` and `..` name no directory of their own.
    pub fn of(identifier: &Identifier) -> Result<Self, KeyError> {
        let original = identifier.0.as_str();
        let safe: String = original
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '_' })
            .collect();
        match safe.as_str() {
            "" => return Err(KeyError::Empty),
            "." | ".." => return Err(KeyError::PathSpecial),
            _ => {}
        }
        // File names end at 255 bytes; the key also becomes part of longer names.
        if safe == original && safe.len() <= 100 && !ends_like_a_hash(&safe) {
            return Ok(Self(safe));
        }
        let short: String = safe.chars().take(100).collect();
        Ok(Self(format!("{short}--{}", hash16(original))))
    }

    /// The key as a directory name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The branch that carries the issue's work: `agent/<key>`, bent where git forbids the name.
    pub fn branch(&self) -> String {
        let key = self.0.as_str();
        let forbidden = key.starts_with('.') || key.contains("..") || key.ends_with('.') || key.ends_with(".lock");
        if forbidden {
            let plain = key.replace('.', "_");
            return format!("agent/{plain}--{}", hash16(key));
        }
        format!("agent/{key}")
    }

    /// The name of the issue's patch file: `agent_<key>.patch`.
    pub fn patch_name(&self) -> String {
        format!("agent_{}.patch", self.0)
    }
}

/// Whether a name ends as one that [`WorkspaceKey::of`] made: such a name could be another identifier's key.
fn ends_like_a_hash(text: &str) -> bool {
    text.rsplit_once("--").is_some_and(|(_, end)| end.len() == 16 && end.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The first 64 bits of SHA-256, in hexadecimal.
pub fn hash16(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
}

macro_rules! shown_as_its_text {
    ($($name:ty),*) => { $(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    )* };
}

shown_as_its_text!(IssueId, Identifier, StateName, WorkspaceKey, RunId);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> String {
        WorkspaceKey::of(&Identifier(text.into())).expect("valid").as_str().to_owned()
    }

    #[test]
    fn an_identifier_of_safe_characters_is_its_own_key() {
        assert_eq!(key("ABC-1"), "ABC-1");
        assert_eq!(key("..fix"), "..fix");
    }

    #[test]
    fn identifiers_that_sanitise_alike_get_different_keys() {
        assert!(key("A/B").starts_with("A_B--"));
        assert_ne!(key("A/B"), key("A_B"));
        assert_ne!(key("A/B"), key("A B"));
        assert!(key("foo/../bar").starts_with("foo_.._bar--"));
    }

    #[test]
    fn an_identifier_that_spells_another_ones_key_does_not_share_its_directory() {
        assert_ne!(key(&key("A/B")), key("A/B"));
    }

    #[test]
    fn path_special_and_empty_identifiers_are_refused() {
        for (text, why) in [("", KeyError::Empty), (".", KeyError::PathSpecial), ("..", KeyError::PathSpecial)] {
            assert_eq!(WorkspaceKey::of(&Identifier(text.into())), Err(why));
        }
    }

    #[test]
    fn a_key_never_exceeds_a_file_name() {
        assert!(key(&"x".repeat(4000)).len() < 130);
    }

    #[test]
    fn a_branch_name_is_one_git_accepts() {
        assert_eq!(WorkspaceKey("A-1".into()).branch(), "agent/A-1");
        for bad in ["a..b", ".a", "a.lock", "a."] {
            let branch = WorkspaceKey(bad.into()).branch();
            assert!(!branch.contains("..") && !branch.ends_with(".lock") && !branch.contains("/."), "{branch}");
        }
    }

    #[test]
    fn states_compare_without_case_and_keep_their_spelling() {
        assert_eq!(StateName::new(" TODO "), StateName::new("todo"));
        assert_eq!(StateName::new("In Progress").to_string(), "In Progress");
    }
}
