//! Names of objects.

use std::ffi::OsStr;

/// The full name of an object: 40 or 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Oid(String);

impl Oid {
    /// Reads a full object name; anything else is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let nil = text.bytes().all(|byte| byte == b'0');
        (hex && !nil && matches!(text.len(), 40 | 64)).then(|| Self(text.to_owned()))
    }

    /// As git writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name git uses for "no object" in this repository's format.
    pub fn nil(&self) -> String {
        "0".repeat(self.0.len())
    }
}

impl std::fmt::Display for Oid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<OsStr> for Oid {
    fn as_ref(&self) -> &OsStr {
        OsStr::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_names_in_lower_case_pass() {
        assert!(Oid::parse(&"a1".repeat(20)).is_some() && Oid::parse(&"a1".repeat(32)).is_some());
        for bad in ["", "HEAD", "a1b2", &"A1".repeat(20), &"0".repeat(40), &"a1".repeat(21), "--upload-pack=x"] {
            assert_eq!(Oid::parse(bad), None, "{bad}");
        }
    }
}
