//! The last event that this installation signed, in a small file beside the journal: a chain that is begun anew without
//! its checkpoint, or put back from an older copy, does not hold it.

use std::path::{Path, PathBuf};

use super::chain::Link;

/// What the file says.
pub(super) enum Mark {
    /// Nothing was signed yet.
    None,
    /// This event.
    At(Link),
    /// Nothing that symphony writes.
    Strange,
}

/// `journal.db` has `journal-signed`: no name that a copy of the journal has.
pub(super) fn place(journal: &Path) -> PathBuf {
    let name = journal.file_stem().unwrap_or_default().to_string_lossy();
    journal.with_file_name(format!("{name}-signed"))
}

pub(super) fn read(journal: &Path) -> std::io::Result<Mark> {
    let text = match std::fs::read_to_string(place(journal)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Mark::None),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Ok(Mark::Strange),
        Err(error) => return Err(error),
    };
    Ok(Link::parse(text.trim()).map_or(Mark::Strange, Mark::At))
}

/// Before the checkpoint itself is there: a kill in between leaves the event in the chain, which is as good.
pub(super) fn write(journal: &Path, link: Link) -> std::io::Result<()> {
    crate::files::write_atomically(&place(journal), format!("{}\n", link.said()).as_bytes())
}

/// A chain that begins anew has signed nothing.
pub(super) fn forget(journal: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(place(journal)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
