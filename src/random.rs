//! Unguessable names: tokens and instance marks.

use std::fmt::Write as _;

/// `bytes` random bytes from the system, in hexadecimal.
///
/// # Errors
/// What the system said, when it has no randomness to give.
pub fn token(bytes: usize) -> Result<String, String> {
    let mut buffer = vec![0_u8; bytes];
    getrandom::fill(&mut buffer).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(buffer.iter().fold(String::with_capacity(bytes * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
