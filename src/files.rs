//! Directories and files of our own: private, and whole or absent at every instant.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::failpoint::{Phase, reach};

/// Creates `path` and its parents, each new one 0700. An existing directory keeps its mode.
///
/// # Errors
/// What the file system says.
pub fn create_private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces `path` by `bytes` so that a crash leaves the old or the new file, whole. Mode 0600.
///
/// # Errors
/// What the file system says; then the old file is still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let at = |phase| reach("file", "write", phase);
    at(Phase::Before)?;
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(dir)?;
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(half)?;
    at(Phase::Torn)?;
    file.write_all(rest)?;
    persist(file, path)?;
    at(Phase::After)
}

/// Puts a finished temporary file in its place, durably.
///
/// # Errors
/// What the file system says; then the old file is still there.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Moves an older file of this name out of the way, to `<name>.1`, `<name>.2`…, unless it already holds
/// `bytes`: what a person may not have looked at yet is never overwritten.
///
/// # Errors
/// What the file system says; then nothing has moved.
pub fn set_aside(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    match std::fs::read(path) {
        Ok(old) if old == bytes => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for number in 1..10_000 {
        let aside = path.with_file_name(format!("{name}.{number}"));
        // A link refuses an existing name, a rename would not.
        match std::fs::hard_link(path, &aside) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other(format!("too many older files beside {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_there_is_kept_under_a_number_unless_it_is_the_same() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("a.patch");
        set_aside(&path, b"one").expect("nothing there");
        for (text, asides) in [("one", 0), ("one", 0), ("two", 1), ("three", 2)] {
            set_aside(&path, text.as_bytes()).expect("moves");
            write_atomically(&path, text.as_bytes()).expect("writes");
            assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1 + asides);
        }
        assert_eq!(std::fs::read(dir.path().join("a.patch.1")).expect("kept"), b"one");
    }
}
