//! A limit that is known only when a machine is woken, for a guest program that was started before.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::During;

/// Where the first process leaves it. In other sandboxes nothing stands there.
const FILE_SIZE: &str = "/run/symphony/file-size-mib";

/// For the guest program: MiB that one file may grow to; 0 is no limit.
pub(super) fn leave(file_size_mib: u64) -> io::Result<()> {
    fs::write(FILE_SIZE, file_size_mib.to_string()).during("limited its files")
}

/// Takes on what was left, for good, as do all that this process starts.
pub(super) fn take() -> io::Result<()> {
    let mib = match fs::read_to_string(FILE_SIZE) {
        Ok(text) => text.trim().parse::<u64>().map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if mib == 0 {
        return Ok(());
    }
    let bytes = Some(mib.saturating_mul(1024 * 1024));
    Ok(setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: bytes })?)
}
