//! The operator token: made once, kept in a file only its owner reads, never printed by this module.
//!
//! What travels in the cookie and in forms is derived from it, so neither can be used as the bearer.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of randomness in a token; it is written as twice as many hexadecimal digits.
const TOKEN_BYTES: usize = 32;

/// The secret that makes a caller the operator.
#[derive(Clone)]
pub struct OperatorToken(String);

impl fmt::Debug for OperatorToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorToken(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file or its directory refused.
    #[error("cannot {action} the operator token {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} does not hold an operator token; delete it and start again to get a new one")]
    NotAToken {
        /// Which file.
        path: PathBuf,
    },
    /// The system gave no randomness.
    #[error("cannot make an operator token: {0}")]
    Random(getrandom::Error),
}

impl OperatorToken {
    /// Reads the token at `path`, or makes one: the directory 0700, the file 0600. A file that others
    /// could read is tightened.
    ///
    /// # Errors
    /// When the file cannot be read, made or tightened, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, TokenError> {
        match Self::load(path) {
            Err(TokenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Self::create(path),
            other => other,
        }
    }

    /// A token that is known beforehand, for whoever plays the operator.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn of_text(text: String) -> Self {
        Self(text)
    }

    fn load(path: &Path) -> Result<Self, TokenError> {
        let refused = |action| move |source| TokenError::Io { action, path: path.to_owned(), source };
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
            .open(path)
            .map_err(refused("open"))?;
        let meta = file.metadata().map_err(refused("inspect"))?;
        if !meta.is_file() {
            return Err(TokenError::NotAToken { path: path.to_owned() });
        }
        if meta.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(refused("tighten"))?;
        }
        let mut text = String::new();
        file.take(1024).read_to_string(&mut text).map_err(refused("read"))?;
        let token = text.trim();
        if token.len() != TOKEN_BYTES * 2 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(TokenError::NotAToken { path: path.to_owned() });
        }
        Ok(Self(token.to_owned()))
    }

    /// Writes a complete file beside `path` and links it into place: two starts at once agree on one token.
    fn create(path: &Path) -> Result<Self, TokenError> {
        let refused = |action| move |source| TokenError::Io { action, path: path.to_owned(), source };
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refused("make the directory of"))?;
        let mut random = [0_u8; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(TokenError::Random)?;
        let token = Self(hex(&random));
        let mut file = crate::files::draft(dir).map_err(refused("write"))?;
        writeln!(file, "{}", token.0).and_then(|()| file.as_file().sync_all()).map_err(refused("write"))?;
        match file.persist_noclobber(path) {
            Ok(_) => {}
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => return Self::load(path),
            Err(e) => return Err(refused("write")(e.error)),
        }
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(refused("sync the directory of"))?;
        Ok(token)
    }

    /// Whether `offered` is this token, in time that does not depend on where they differ.
    pub fn matches(&self, offered: &str) -> bool {
        same(&self.0, offered)
    }

    /// The link that logs a browser in. A secret: for the operator's terminal, never for a log file.
    pub fn login_link(&self, address: &str) -> String {
        format!("http://{address}/login?token={}", self.0)
    }

    /// What the browser keeps instead of the token.
    pub(super) fn cookie_value(&self) -> String {
        self.derived("symphony operator cookie v1")
    }

    /// What a form of ours carries; a page of another origin cannot read it.
    pub(super) fn csrf_value(&self) -> String {
        self.derived("symphony form v1")
    }

    fn derived(&self, label: &str) -> String {
        hex(&Sha256::digest(format!("{label}\0{}", self.0)))
    }
}

/// Compares two texts in time that depends on their lengths only.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join(".symphony/operator-token");
        let first = OperatorToken::load_or_create(&path).expect("made");
        let again = OperatorToken::load_or_create(&path).expect("read");
        assert!(first.matches(&again.0));
        assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().expect("dir")).expect("dir").permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().expect("dir")).expect("dir").count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_token_file_that_others_can_read_is_tightened() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("operator-token");
        OperatorToken::load_or_create(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("loosened");
        OperatorToken::load_or_create(&path).expect("read");
        assert_eq!(fs::metadata(&path).expect("file").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_with_something_else_or_a_symlink_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("operator-token");
        fs::write(&path, "hunter2\n").expect("written");
        assert!(matches!(OperatorToken::load_or_create(&path), Err(TokenError::NotAToken { .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("link");
        assert!(matches!(OperatorToken::load_or_create(&link), Err(TokenError::Io { .. })));
    }

    #[test]
    fn the_cookie_and_the_form_value_are_not_the_token() {
        let dir = tempfile::tempdir().expect("dir");
        let token = OperatorToken::load_or_create(&dir.path().join("t")).expect("made");
        assert!(!token.matches(&token.cookie_value()) && !token.matches(&token.csrf_value()));
        assert_ne!(token.cookie_value(), token.csrf_value());
        assert!(!format!("{token:?}").contains(&token.0));
    }
}
