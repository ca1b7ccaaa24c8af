//! `mark_done.md`: the agent's claim, left in the host workspace for hooks to read.
//!
//! The text is the agent's, the place is ours: no component of the path is ever followed if it is a
//! symlink, so nothing in the workspace can send the write elsewhere.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, mkdirat, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

const NAME: &str = "mark_done.md";
const TEMPORARY: &str = ".mark_done.md.new";

/// Why the claim could not be written. Its reader finds the work done all the same: only logged.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}; is something else in its place?")]
pub struct MarkDoneError {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// Writes `# <title>\n\n<summary>\n`, mode 0644, to `.git/symphony-runtime/mark_done.md` if `.git` is a real
/// directory, else to `.symphony-runtime/mark_done.md` (0.1.0's places). Answers where it stands.
///
/// # Errors
/// When the workspace is missing, not writable, or has a symlink or file where a directory belongs.
pub fn write(workspace: &Path, title: &str, summary: &str) -> Result<PathBuf, MarkDoneError> {
    let directory = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let root = at("open", workspace, open(workspace, directory, Mode::empty()))?;
    let is_clone = statat(&root, ".git", AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    let (runtime, path) = if is_clone {
        let path = workspace.join(".git");
        let git = at("open", &path, openat(&root, ".git", directory, Mode::empty()))?;
        let path = path.join("symphony-runtime");
        (subdirectory(git.as_fd(), "symphony-runtime", &path)?, path)
    } else {
        let path = workspace.join(".symphony-runtime");
        (subdirectory(root.as_fd(), ".symphony-runtime", &path)?, path)
    };
    let path = path.join(NAME);
    let text = format!("# {title}\n\n{}\n", summary.trim());
    replace(runtime.as_fd(), &path, text.as_bytes())?;
    Ok(path)
}

/// Opens directory `name` of `parent`, made if it is missing.
fn subdirectory(parent: BorrowedFd<'_>, name: &str, path: &Path) -> Result<OwnedFd, MarkDoneError> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return at("make", path, Err(errno)),
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    at("open", path, openat(parent, name, flags, Mode::empty()))
}

/// Puts a new file in the place of `mark_done.md`; whatever stood there is replaced, not written through.
fn replace(directory: BorrowedFd<'_>, path: &Path, text: &[u8]) -> Result<(), MarkDoneError> {
    match unlinkat(directory, TEMPORARY, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return at("clear the way for", path, Err(errno)),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(at("create", path, openat(directory, TEMPORARY, flags, Mode::from_raw_mode(0o644)))?);
    let failed = |source| MarkDoneError { action: "write", path: path.to_owned(), source };
    file.write_all(text).map_err(failed)?;
    // The umask must not take the hooks' right to read.
    at("set the mode of", path, fchmod(&file, Mode::from_raw_mode(0o644)))?;
    file.sync_all().map_err(failed)?;
    at("replace", path, renameat(directory, TEMPORARY, directory, NAME))
}

fn at<T>(action: &'static str, path: &Path, done: Result<T, Errno>) -> Result<T, MarkDoneError> {
    done.map_err(|errno| MarkDoneError { action, path: path.to_owned(), source: errno.into() })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A workspace and, beside it, a directory nothing may be written to.
    fn workspace() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().expect("directory");
        let (workspace, outside) = (dir.path().join("ws"), dir.path().join("outside"));
        fs::create_dir(&workspace).expect("workspace");
        fs::create_dir(&outside).expect("outside");
        fs::write(outside.join("victim"), "untouched").expect("victim");
        (dir, workspace, outside)
    }

    fn assert_untouched(outside: &Path) {
        let names: Vec<_> = fs::read_dir(outside).expect("listed").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names, ["victim"]);
        assert_eq!(fs::read_to_string(outside.join("victim")).expect("read"), "untouched");
    }

    #[test]
    fn the_claim_stands_in_the_clone_s_git_directory_in_the_documented_format() {
        let (_dir, workspace, _) = workspace();
        fs::create_dir(workspace.join(".git")).expect("git");
        let path = write(&workspace, "A title", "\n the summary \n\n").expect("written");
        assert_eq!(path, workspace.join(".git/symphony-runtime/mark_done.md"));
        assert_eq!(fs::read_to_string(&path).expect("read"), "# A title\n\nthe summary\n");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o644);
        write(&workspace, "B", "again").expect("rewritten");
        assert_eq!(fs::read_to_string(&path).expect("read"), "# B\n\nagain\n");
        assert_eq!(fs::read_dir(path.parent().expect("parent")).expect("listed").count(), 1, "no temporary file stays");
    }

    #[test]
    fn without_a_real_git_directory_it_stands_beside_the_files() {
        let (_dir, workspace, outside) = workspace();
        let path = write(&workspace, "t", "s").expect("written");
        assert_eq!(path, workspace.join(".symphony-runtime/mark_done.md"));
        fs::write(workspace.join(".git"), "gitdir: elsewhere").expect("git file");
        assert_eq!(write(&workspace, "t", "s").expect("written"), path);
        fs::remove_file(workspace.join(".git")).expect("removed");
        symlink(&outside, workspace.join(".git")).expect("symlink");
        assert_eq!(write(&workspace, "t", "s").expect("written"), path);
        assert_untouched(&outside);
    }

    #[test]
    fn a_symlink_in_place_of_a_directory_is_refused() {
        let (_dir, workspace, outside) = workspace();
        symlink(&outside, workspace.join(".symphony-runtime")).expect("symlink");
        assert!(write(&workspace, "t", "s").expect_err("refused").to_string().contains(".symphony-runtime"));
        fs::create_dir(workspace.join(".git")).expect("git");
        symlink(&outside, workspace.join(".git/symphony-runtime")).expect("symlink");
        assert!(write(&workspace, "t", "s").is_err());
        assert_untouched(&outside);
        fs::remove_file(workspace.join(".git/symphony-runtime")).expect("removed");
        assert!(write(&workspace, "t", "s").is_ok(), "the control: without the symlink it is written");
    }

    #[test]
    fn a_symlink_in_place_of_the_file_is_replaced_not_followed() {
        let (_dir, workspace, outside) = workspace();
        let runtime = workspace.join(".symphony-runtime");
        fs::create_dir(&runtime).expect("runtime");
        symlink(outside.join("victim"), runtime.join(NAME)).expect("symlink");
        symlink(outside.join("victim"), runtime.join(TEMPORARY)).expect("symlink");
        let path = write(&workspace, "t", "s").expect("written");
        assert!(path.symlink_metadata().expect("there").is_file());
        assert_untouched(&outside);
    }

    #[test]
    fn a_workspace_that_is_a_symlink_is_refused() {
        let (dir, _, outside) = workspace();
        let link = dir.path().join("link");
        symlink(&outside, &link).expect("symlink");
        assert!(write(&link, "t", "s").is_err());
        assert_untouched(&outside);
    }
}
