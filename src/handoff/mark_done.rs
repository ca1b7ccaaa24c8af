//! `mark_done.md`: what the agent said when it was done, where 0.1.0's `after_run` hooks read it.
//!
//! It stands in the host workspace, which no guest writes to; still nothing here follows a link.

use std::fs::{Permissions, symlink_metadata};
use std::io::{Error, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::workspace::{create_private_dir, persist};

/// Writes title and summary to `.git/symphony-runtime/mark_done.md`, or to
/// `.symphony-runtime/mark_done.md` where the workspace is no repository. The directory is made on
/// demand, an older file is replaced.
///
/// # Errors
/// What the file system says, and a link or file in place of a directory.
pub fn write(workspace: &Path, title: &str, summary: &str) -> Result<PathBuf, Error> {
    let dot_git = workspace.join(".git");
    let dir = match symlink_metadata(&dot_git) {
        Ok(meta) if meta.is_dir() => dot_git.join("symphony-runtime"),
        Ok(_) => return Err(not_a_directory(&dot_git)),
        Err(error) if error.kind() == ErrorKind::NotFound => workspace.join(".symphony-runtime"),
        Err(error) => return Err(error),
    };
    match symlink_metadata(&dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err(not_a_directory(&dir)),
        Err(error) if error.kind() == ErrorKind::NotFound => create_private_dir(&dir)?,
        Err(error) => return Err(error),
    }
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(&dir)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(format!("# {}\n\n{}\n", title.trim(), summary.trim()).as_bytes())?;
    let path = dir.join("mark_done.md");
    // A rename replaces a link instead of following it.
    persist(file, &path)?;
    Ok(path)
}

fn not_a_directory(path: &Path) -> Error {
    Error::other(format!("{} is not a directory", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn it_stands_where_hooks_of_the_first_version_look_for_it() {
        let dir = tempfile::tempdir().expect("dir");
        let plain = write(dir.path(), "Title", " Summary\nof it \n").expect("written");
        assert_eq!(plain, dir.path().join(".symphony-runtime/mark_done.md"));
        assert_eq!(std::fs::read_to_string(&plain).expect("read"), "# Title\n\nSummary\nof it\n");
        assert_eq!(plain.metadata().expect("meta").permissions().mode() & 0o777, 0o644);
        std::fs::create_dir(dir.path().join(".git")).expect("dir");
        let cloned = write(dir.path(), "Title", "Again").expect("written");
        assert_eq!(cloned, dir.path().join(".git/symphony-runtime/mark_done.md"));
    }

    #[test]
    fn a_planted_link_is_replaced_or_refused_and_never_followed() {
        let dir = tempfile::tempdir().expect("dir");
        let (workspace, target) = (dir.path().join("ws"), dir.path().join("target"));
        std::fs::create_dir_all(workspace.join(".symphony-runtime")).expect("dir");
        std::fs::write(&target, "untouched").expect("write");
        symlink(&target, workspace.join(".symphony-runtime/mark_done.md")).expect("link");
        write(&workspace, "T", "S").expect("written");
        assert_eq!(std::fs::read_to_string(&target).expect("read"), "untouched");

        std::fs::remove_dir_all(workspace.join(".symphony-runtime")).expect("remove");
        let elsewhere = dir.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).expect("dir");
        symlink(&elsewhere, workspace.join(".symphony-runtime")).expect("link");
        assert!(write(&workspace, "T", "S").is_err());
        assert_eq!(elsewhere.read_dir().expect("dir").count(), 0);
    }
}
