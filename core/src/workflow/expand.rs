//! `~` and whole-value `$NAME`, for values that are local paths and for nothing else (C68).
//!
//! The environment and the home directory are handed in; nothing here asks the system.

use std::path::{Component, Path, PathBuf};

/// What a workflow file is resolved against.
pub struct Place<'a> {
    /// The absolute directory of `WORKFLOW.md`.
    pub dir: PathBuf,
    /// The operator's home, if there is one.
    pub home: Option<PathBuf>,
    /// Looks a variable up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// Why a value did not become a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The variable is not set, or empty: an empty path would be a surprise.
    #[error("the environment variable `{0}` is not set or empty")]
    Unset(String),
    /// `~` without a home.
    #[error("`~` stands for the home directory, and there is none (HOME is not set)")]
    NoHome,
}

/// The name in a value that is entirely `$NAME`, of capitals, digits and `_`.
pub fn variable(value: &str) -> Option<&str> {
    let name = value.strip_prefix('$')?;
    let first = |c: char| c.is_ascii_uppercase() || c == '_';
    let rest = |c: char| first(c) || c.is_ascii_digit();
    (name.starts_with(first) && name.chars().all(rest)).then_some(name)
}

/// Expands `value` and makes it absolute: relative paths start at the workflow's directory (C45).
///
/// # Errors
/// When the variable is unset or empty, or there is no home for `~`.
pub fn path(value: &str, place: &Place<'_>) -> Result<PathBuf, ExpandError> {
    let text = match variable(value) {
        Some(name) => {
            let found = (place.env)(name).filter(|text| !text.is_empty());
            found.ok_or_else(|| ExpandError::Unset(name.to_owned()))?
        }
        None => value.to_owned(),
    };
    let joined = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            let home = place.home.as_ref().ok_or(ExpandError::NoHome)?;
            home.join(rest.trim_start_matches('/'))
        }
        _ => place.dir.join(text),
    };
    Ok(normalised(&joined))
}

/// Without `.` and `..`, decided by the text alone.
fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_dollar_name_and_a_leading_tilde_expand() {
        let env = |name: &str| (name == "ROOT").then(|| "/from/env".to_owned());
        let place = Place { dir: "/w".into(), home: Some("/home/me".into()), env: &env };
        for (value, want) in [
            ("$ROOT", "/from/env"),
            ("$ROOT/sub", "/w/$ROOT/sub"),
            ("${ROOT}", "/w/${ROOT}"),
            ("$root", "/w/$root"),
            ("~", "/home/me"),
            ("~/a/../b", "/home/me/b"),
            ("~user", "/w/~user"),
            ("./issues/", "/w/issues"),
            ("../x", "/x"),
            ("/abs", "/abs"),
        ] {
            assert_eq!(path(value, &place), Ok(PathBuf::from(want)), "{value}");
        }
        assert_eq!(path("$UNSET", &place), Err(ExpandError::Unset("UNSET".into())));
        let homeless = Place { home: None, ..place };
        assert_eq!(path("~/a", &homeless), Err(ExpandError::NoHome));
    }
}
