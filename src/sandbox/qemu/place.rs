//! Where an image, and the guest program beside it, may stand unasked, and whose it must be.
//!
//! What a machine boots decides over everything in it, so a place that nobody named is used only when nobody but this user
//! and root can have put anything there. What a person names (`sandbox.image`, a profile, `SYMPHONY_VM_IMAGE`) is theirs
//! to answer for. Must never take a directory for our clone because of where the program happens to lie.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What only a clone of symphony has beside `target/`: its recipe for images.
const RECIPE: [&str; 2] = ["Cargo.toml", "vm/image.d"];

/// `vm/image` of the clone that built the program at `exe`, which is `<clone>/target/<profile>/symphony` then.
pub(super) fn of_clone(exe: &Path) -> Option<PathBuf> {
    let target = exe.parent()?.parent().filter(|dir| dir.file_name().is_some_and(|name| name == "target"))?;
    let clone = target.parent()?;
    let vm = clone.join("vm");
    let is_ours = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| whose_fault(&meta).is_none());
    let is_clone = RECIPE.iter().all(|part| is_ours(&clone.join(part))) && is_ours(clone) && is_ours(&vm);
    is_clone.then(|| vm.join("image"))
}

/// Why what stands at `path` may be a stranger's; `None` when it cannot be, and when nothing is there.
pub(super) fn strange(path: &Path) -> Option<String> {
    // The link itself may be anybody's, too.
    let of_link = std::fs::symlink_metadata(path).ok().filter(|meta| meta.is_symlink() && !is_owner(meta));
    if of_link.is_some() {
        return Some(format!("{} is another user's link", path.display()));
    }
    let fault = whose_fault(&std::fs::metadata(path).ok()?)?;
    Some(format!("{} {fault}", path.display()))
}

fn is_owner(meta: &Metadata) -> bool {
    meta.uid() == 0 || meta.uid() == rustix::process::geteuid().as_raw()
}

fn whose_fault(meta: &Metadata) -> Option<&'static str> {
    // Of a group that is only this user's own, as many systems give everyone, nobody else is a member.
    let own_group = meta.gid() == 0 || meta.gid() == rustix::process::getegid().as_raw();
    if !is_owner(meta) {
        Some("belongs to another user")
    } else if meta.mode() & 0o002 != 0 || (meta.mode() & 0o020 != 0 && !own_group) {
        Some("can be written by others")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::{of_clone, strange};

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    /// Regression: `/tmp/trial/bin/symphony` took what a stranger had put into `/tmp/vm/image`.
    #[test]
    fn only_a_program_in_the_target_directory_of_our_own_clone_has_a_clone() {
        let place = tempfile::tempdir().expect("a directory");
        let clone = place.path().join("clone");
        fs::create_dir_all(clone.join("vm/image.d")).expect("made");
        fs::create_dir_all(clone.join("vm/image")).expect("made");
        fs::write(clone.join("Cargo.toml"), "").expect("written");
        for part in ["", "vm", "vm/image.d", "vm/image"] {
            set(&clone.join(part), 0o755);
        }
        set(&clone.join("Cargo.toml"), 0o644);
        let built = clone.join("target/debug/symphony");
        assert_eq!(of_clone(&built), Some(clone.join("vm/image")), "the control");
        for elsewhere in ["trial/bin/symphony", "bin/symphony", "target/symphony", "symphony"] {
            assert_eq!(of_clone(&clone.join(elsewhere)), None, "{elsewhere}");
        }
        assert_eq!(of_clone(&place.path().join("target/debug/symphony")), None, "no recipe beside it");
        for (part, usual) in [("", 0o755), ("vm", 0o755), ("vm/image.d", 0o755), ("Cargo.toml", 0o644)] {
            set(&clone.join(part), 0o777);
            assert_eq!(of_clone(&built), None, "others may write {part:?}");
            set(&clone.join(part), usual);
        }
    }

    #[test]
    fn what_others_own_or_may_write_is_strange() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("manifest.json");
        assert_eq!(strange(&file), None, "nothing is there");
        fs::write(&file, "").expect("written");
        set(&file, 0o644);
        assert_eq!(strange(&file), None);
        set(&file, 0o666);
        assert!(strange(&file).is_some_and(|why| why.ends_with("can be written by others")));
        set(&file, 0o644);
        // Only root can make a file another's.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(65_534), None).expect("given away");
            assert!(strange(&file).is_some_and(|why| why.ends_with("belongs to another user")));
            std::os::unix::fs::lchown(&file, Some(0), None).expect("taken back");
            let link = place.path().join("link");
            std::os::unix::fs::symlink(&file, &link).expect("linked");
            std::os::unix::fs::lchown(&link, Some(65_534), None).expect("given away");
            assert!(strange(&link).is_some_and(|why| why.ends_with("another user's link")));
        }
    }
}
