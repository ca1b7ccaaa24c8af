//! The key that signs checkpoints: 32 random bytes in a file of our own, in hexadecimal, 0600. It is made at the first
//! start, so that a checkpoint by any other key is strange from then on. Its secret half must never be shown.

use std::path::Path;

use super::JournalError;
use super::chain;

/// The secret half; made when there is none. Only for the one who holds the workflow's lock.
///
/// # Errors
/// It cannot be read or made, or holds something else.
pub fn load_or_create(path: &Path) -> Result<[u8; 32], JournalError> {
    if let Some(secret) = load(path)? {
        return Ok(secret);
    }
    let made = crate::random::token(32).map_err(|message| wrong(path, message))?;
    crate::files::write_atomically(path, format!("{made}\n").as_bytes()).map_err(|e| wrong(path, e))?;
    parse(&made).ok_or_else(|| wrong(path, "it is not 32 bytes"))
}

/// The public half, if there is a key.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn pinned(path: &Path) -> Result<Option<[u8; 32]>, JournalError> {
    Ok(load(path)?.map(|secret| chain::public(&secret)))
}

fn load(path: &Path) -> Result<Option<[u8; 32]>, JournalError> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(text.trim()).map(Some).ok_or_else(|| wrong(path, "it is not 32 bytes in hexadecimal")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(wrong(path, error)),
    }
}

fn wrong(path: &Path, message: impl ToString) -> JournalError {
    JournalError::Key { path: path.to_owned(), message: message.to_string() }
}

pub(super) fn parse(text: &str) -> Option<[u8; 32]> {
    let mut secret = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in secret.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(secret)
}
