//! The mark on an issue whose work may stand on a work disk only: until the work is out, that disk is all there is of it,
//! whatever becomes of us.

use std::io;
use std::path::PathBuf;

use symphony_core::ids::WorkspaceKey;

use crate::failpoint::{Phase, reach};
use crate::layout::Layout;

/// Marks the issue: the work disk of this runtime may hold what is nowhere else.
pub(super) fn set(layout: &Layout, key: &WorkspaceKey, runtime: &str) -> io::Result<()> {
    let place = layout.unexported(key);
    reach("disk", "mark", Phase::Before)?;
    place.parent().map_or(Ok(()), crate::files::create_private_dir)?;
    crate::files::write_atomically(&place, runtime.as_bytes())?;
    reach("disk", "mark", Phase::After)
}

/// The marks that stand: one, and perhaps one of an older symphony.
///
/// # Errors
/// It is not known whether one stands; with the place.
pub(crate) fn standing(layout: &Layout, key: &WorkspaceKey) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![];
    for place in [layout.unexported(key), layout.unexported_before(key)] {
        match std::fs::symlink_metadata(&place) {
            // A directory is the work disk of an issue with this name.
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => found.push(place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", place.display()))),
        }
    }
    Ok(found)
}

/// The work is out: nothing is marked any more.
pub(super) fn clear(layout: &Layout, key: &WorkspaceKey) -> io::Result<()> {
    reach("disk", "unmark", Phase::Before)?;
    standing(layout, key)?.into_iter().try_for_each(|place| {
        std::fs::remove_file(&place)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", place.display())))
    })?;
    reach("disk", "unmark", Phase::After)
}

/// The runtime that a mark names, of those that there are; `holding`: those whose work disk stands.
///
/// # Errors
/// It names none, in words that follow its path.
pub(super) fn holder<'a>(said: &str, known: &[&'a str], holding: &[&'a str]) -> Result<Option<&'a str>, String> {
    let said = said.trim();
    match (said, holding) {
        // Before a mark had a word on it, there was only the jail; and a crash may have kept the word from the disk.
        ("", []) => Ok(None),
        ("", [only]) => Ok(Some(only)),
        ("", _) => Err(format!("names no runtime, and more than one has a work disk: {}", holding.join(", "))),
        _ => match known.iter().find(|known| **known == said) {
            Some(known) => Ok(Some(known)),
            None => {
                let said: String = said.chars().take(40).collect();
                Err(format!("names {said:?}, which is no runtime of this symphony ({})", known.join(", ")))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use symphony_core::ids::Identifier;

    fn key(name: &str) -> WorkspaceKey {
        WorkspaceKey::of(&Identifier(name.into())).expect("a key")
    }

    #[test]
    fn a_mark_without_a_word_is_the_jails_only_if_there_is_a_jail_disk_and_an_unknown_word_is_refused() {
        let known = ["smolvm", "qemu", "jail"];
        let holder = |said: &str, holding: &[&'static str]| holder(said, &known, holding);
        assert_eq!(holder("", &["jail"]), Ok(Some("jail")));
        assert_eq!(holder(" \n", &["qemu"]), Ok(Some("qemu")));
        assert_eq!(holder("", &[]), Ok(None));
        assert!(holder("", &["qemu", "jail"]).is_err_and(|why| why.contains("qemu, jail")));
        assert_eq!(holder("qemu\n", &["jail"]), Ok(Some("qemu")));
        assert!(holder("../jail", &["jail"]).is_err_and(|why| why.contains("\"../jail\"")));
        assert!(holder("jai", &["jail"]).is_err_and(|why| why.contains("smolvm, qemu, jail")));
    }

    #[test]
    fn an_issue_whose_name_ends_like_an_old_mark_has_its_disk_there_and_marks_nobody() {
        let dir = tempfile::tempdir().expect("directory");
        let layout = Layout::of(dir.path());
        let disk = layout.work_disk("jail", &key("A.unexported"));
        std::fs::create_dir_all(&disk).expect("a disk");
        assert_eq!(standing(&layout, &key("A")).expect("known"), Vec::<PathBuf>::new());
        set(&layout, &key("A"), "jail").expect("marked");
        assert_eq!(standing(&layout, &key("A")).expect("known"), [layout.unexported(&key("A"))]);
        clear(&layout, &key("A")).expect("cleared");
        assert!(disk.is_dir() && standing(&layout, &key("A")).expect("known").is_empty());
        // Of an issue that is marked in the old place both are found, and both go.
        std::fs::write(layout.unexported_before(&key("B")), "").expect("an old mark");
        set(&layout, &key("B"), "jail").expect("marked");
        assert_eq!(standing(&layout, &key("B")).expect("known").len(), 2);
        clear(&layout, &key("B")).expect("cleared");
        assert!(standing(&layout, &key("B")).expect("known").is_empty());
    }
}
