//! Directories and files of our own: private, and whole or absent at every instant.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// How the name begins of what is being removed: half of it is never taken for the whole, and what a kill leaves under
/// such a name is removed later. No issue's key has a `+` in it, so no issue can be called like this.
pub const DOOMED: &str = "+gone-";
/// How the name begins of what is being written, beside where it will stand. A start removes what a kill left of such.
pub const WRITING: &str = ".writing-";

use crate::failpoint::{Phase, reach};

/// Creates `path` and its parents, each new one 0700. An existing directory keeps its mode.
///
/// # Errors
/// What the file system says.
pub fn create_private_dir(path: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes what rights others than its owner have to a file or directory of ours; a missing one is fine.
///
/// # Errors
/// What the file system says.
pub fn withhold(path: &Path) -> std::io::Result<()> {
    let mode = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        about => about?.permissions().mode(),
    };
    match mode & 0o077 {
        0 => Ok(()),
        _ => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode & 0o7700)),
    }
}

/// Replaces `path` by `bytes` so that a crash leaves the old or the new file, whole. Mode 0600.
///
/// # Errors
/// What the file system says; then the old file is still there.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let at = |phase| reach("file", "write", phase);
    at(Phase::Before)?;
    let mut file = draft(dir)?;
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(half)?;
    at(Phase::Torn)?;
    file.write_all(rest)?;
    persist(file, path)?;
    at(Phase::After)
}

/// A file that is being written, for [`persist`] or for a moment. Mode 0600.
///
/// # Errors
/// What the file system says.
pub fn draft(dir: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(WRITING).tempfile_in(dir)
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

/// Renames a directory to its doomed name, where nobody looks for it any more; the new path. One that is doomed keeps
/// its name. What an earlier removal left under that name goes first.
///
/// # Errors
/// What the file system says.
pub fn doom(path: &Path) -> std::io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| std::io::Error::other("it has no name"))?;
    if name.as_encoded_bytes().starts_with(DOOMED.as_bytes()) {
        return Ok(path.to_owned());
    }
    let mut doomed_name = std::ffi::OsString::from(DOOMED);
    doomed_name.push(name);
    let doomed = path.with_file_name(doomed_name);
    remove_tree(&doomed)?;
    std::fs::rename(path, &doomed)?;
    Ok(doomed)
}

/// Removes a directory and all in it without following links; a missing one is fine.
///
/// # Errors
/// What the file system says; then a part may be left.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a file to read it; a link is followed. What a look must not wait for, such as a pipe, is an error.
///
/// # Errors
/// What the file system says, or that it is no file.
pub fn open_plain(path: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = std::fs::File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(std::io::Error::other("it is no regular file")) }
}

/// Says of a directory of ours that it was used now: what was not used for long goes. A link is not followed.
pub fn touch(dir: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let open = std::fs::File::options().read(true).custom_flags(flags).open(dir);
    if let Err(error) = open.and_then(|dir| dir.set_modified(std::time::SystemTime::now())) {
        tracing::debug!(path = %dir.display(), %error, "it does not say that it was used");
    }
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

    #[test]
    fn what_is_doomed_has_a_name_that_no_issue_can_have_and_takes_the_place_of_an_earlier_rest() {
        let place = tempfile::tempdir().expect("directory");
        let tree = place.path().join("a");
        for round in ["first", "second"] {
            std::fs::create_dir_all(tree.join(round)).expect("made");
            let doomed = doom(&tree).expect("renamed");
            assert!(!tree.exists() && doomed.join(round).exists());
            assert_eq!(std::fs::read_dir(&doomed).expect("lists").count(), 1, "the earlier rest is gone");
            assert_eq!(doom(&doomed).expect("it keeps its name"), doomed);
            let name = doomed.file_name().expect("a name").to_string_lossy().into_owned();
            let key = symphony_core::ids::WorkspaceKey::of(&symphony_core::ids::Identifier(name.clone()));
            assert_ne!(key.expect("a key").as_str(), name);
        }
        remove_tree(&place.path().join("+gone-a")).expect("removed");
        remove_tree(&place.path().join("+gone-a")).expect("a missing one is fine");
        assert_eq!(std::fs::read_dir(place.path()).expect("lists").count(), 0);
    }
}
