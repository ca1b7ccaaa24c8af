//! What the guest program remembers about a work disk: whether its tree is complete, and the host's marker. Kept in the
//! state directory, outside the work tree, so that nothing an agent does in its tree changes it by accident.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::wire::MAX_MARKER;

const READY: &str = "tree-ready";
const MARKER: &str = "marker";

/// Whether the work tree was built to its end.
pub(crate) fn tree_ready(state: &Path) -> bool {
    state.join(READY).is_file()
}

/// Says that the tree is being rebuilt: until [`set_ready`], a crash leaves "not ready".
pub(crate) fn clear_ready(state: &Path) -> io::Result<()> {
    match fs::remove_file(state.join(READY)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    File::open(state)?.sync_all()
}

/// Says that the tree is complete.
pub(crate) fn set_ready(state: &Path) -> io::Result<()> {
    replace(state, READY, b"1\n")
}

/// The marker, if one was stored.
pub(crate) fn marker(state: &Path) -> Option<String> {
    let path = state.join(MARKER);
    let size = fs::metadata(&path).ok()?.len();
    if size > MAX_MARKER as u64 {
        return None;
    }
    fs::read_to_string(path).ok()
}

/// Stores the marker.
pub(crate) fn set_marker(state: &Path, text: &str) -> io::Result<()> {
    replace(state, MARKER, text.as_bytes())
}

/// Whole or not at all, also across a crash.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}
