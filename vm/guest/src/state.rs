//! What the guest program remembers about a work disk: whether its tree is complete, and the host's marker. Kept in the
//! state directory, outside the work tree, so that nothing an agent does in its tree changes it by accident. An agent
//! that wants to can put anything there: a pipe, a link, a directory. None of that may hold this program up.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::wire::MAX_MARKER;

const READY: &str = "tree-ready";
const MARKER: &str = "marker";

/// How a file that an agent may have replaced is opened: a link is refused, a pipe does not block.
pub(crate) const WARY: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// Opens a regular file for reading; anything else is an error, at once.
pub(crate) fn plain(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(WARY).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// A new file in the place of whatever is there.
pub(crate) fn fresh(path: &Path) -> io::Result<File> {
    clear(path)?;
    File::options().write(true).create_new(true).open(path)
}

/// Removes whatever is there.
pub(crate) fn clear(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes way for a file of our own that git writes, an index or a bundle, and says where it goes: a killed git leaves its
/// lock there, and then no git could write that file any more, in this sandbox or the next.
pub(crate) fn own_file(state: &Path, name: &str) -> io::Result<PathBuf> {
    let file = state.join(name);
    clear(&state.join(format!("{name}.lock")))?;
    clear(&file)?;
    Ok(file)
}

/// Whether the work tree was built to its end.
pub(crate) fn tree_ready(state: &Path) -> bool {
    plain(&state.join(READY)).is_ok()
}

/// Says that the tree is being rebuilt: until [`set_ready`], a crash leaves "not ready".
pub(crate) fn clear_ready(state: &Path) -> io::Result<()> {
    clear(&state.join(READY))?;
    File::open(state)?.sync_all()
}

/// Says that the tree is complete.
pub(crate) fn set_ready(state: &Path) -> io::Result<()> {
    replace(state, READY, b"1\n")
}

/// The marker, if one was stored.
pub(crate) fn marker(state: &Path) -> Option<String> {
    let mut text = String::new();
    plain(&state.join(MARKER)).ok()?.take(MAX_MARKER as u64 + 1).read_to_string(&mut text).ok()?;
    (text.len() <= MAX_MARKER).then_some(text)
}

/// Stores the marker.
pub(crate) fn set_marker(state: &Path, text: &str) -> io::Result<()> {
    replace(state, MARKER, text.as_bytes())
}

/// Whole or not at all, also across a crash.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = fresh(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if dir.join(name).is_dir() {
        clear(&dir.join(name))?;
    }
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(path: &Path) {
        let made = std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo");
        assert!(made.success());
    }

    #[test]
    fn a_lock_that_a_killed_git_left_on_a_file_of_our_own_goes_whatever_it_is() {
        let dir = tempfile::tempdir().expect("directory");
        let state = dir.path();
        let plants: [fn(&Path); 4] = [
            |path| fs::write(path, "").expect("written"),
            pipe,
            |path| std::os::unix::fs::symlink("/dev/zero", path).expect("link"),
            |path| fs::create_dir_all(path.join("full")).expect("directory"),
        ];
        for plant in plants {
            plant(&state.join("export.index.lock"));
            plant(&state.join("export.index"));
            assert_eq!(own_file(state, "export.index").expect("way is made"), state.join("export.index"));
            assert_eq!(fs::read_dir(state).expect("listed").count(), 0);
        }
        own_file(state, "export.index").expect("nothing there is as good");
    }

    #[test]
    fn pipes_links_and_directories_in_the_state_directory_neither_block_nor_stay() {
        let dir = tempfile::tempdir().expect("directory");
        let state = dir.path();
        set_marker(state, "right").expect("stored");
        assert_eq!(marker(state).as_deref(), Some("right"), "the control");
        let forgeries: [fn(&Path); 3] = [
            pipe,
            |path| std::os::unix::fs::symlink("/dev/zero", path).expect("link"),
            |path| fs::create_dir_all(path.join("full")).expect("directory"),
        ];
        for forge in forgeries {
            for name in [READY, MARKER, "marker.new", "tree-ready.new"] {
                clear(&state.join(name)).expect("cleared");
                forge(&state.join(name));
            }
            assert!(!tree_ready(state));
            assert_eq!(marker(state), None);
            clear_ready(state).expect("cleared");
            set_marker(state, "again").expect("stored");
            set_ready(state).expect("ready");
            assert!(tree_ready(state));
            assert_eq!(marker(state).as_deref(), Some("again"));
        }
    }
}
