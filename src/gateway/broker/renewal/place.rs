//! The file of a login, as something that is replaced: whether that can work is known before anything is asked, for what a
//! server gave is worthless unless it is on the disk.

use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, accessat, statx};

/// How the name of a draft begins. Nobody reads one; what a crash left of such goes before the next.
const DRAFT: &str = ".symphony-login-";
/// A renewed login is that much longer than the old one at most.
const ROOM: u64 = 64 * 1024;

/// Where a login is, links followed.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    dir: PathBuf,
    size: u64,
    mode: u32,
    gid: u32,
}

impl Place {
    /// The file behind `path`, if it may and can be replaced.
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn of(path: &Path) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("its file cannot be used: {error}");
        let path = path.canonicalize().map_err(said)?;
        let dir = path.parent().ok_or("its file is in no directory")?.to_owned();
        let about = path.symlink_metadata().map_err(said)?;
        if !about.is_file() {
            return Err("it is no regular file".to_owned());
        }
        if about.uid() != rustix::process::geteuid().as_raw() {
            return Err("its file belongs to another user".to_owned());
        }
        if about.mode() & 0o200 == 0 {
            return Err("its file is read-only".to_owned());
        }
        if about.nlink() > 1 {
            return Err("its file has several names (hard links), of which only one would be renewed".to_owned());
        }
        // A file that is mounted by itself, as containers do, cannot be replaced: only its directory could be.
        let seen = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        if seen.is_ok_and(|seen| seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)) {
            return Err("its file is mounted by itself; mount its directory".to_owned());
        }
        accessat(CWD, &dir, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| format!("its directory cannot be written: {error}"))?;
        Ok(Self { path, dir, size: about.len(), mode: about.mode() & 0o7777, gid: about.gid() })
    }

    /// Its directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A draft that has its room on the disk already. Only under the lock: it removes others.
    ///
    /// # Errors
    /// Why there is none; then nothing was asked yet.
    pub(super) fn draft(&self) -> Result<Draft, String> {
        let said = |error: std::io::Error| format!("its directory cannot be written: {error}");
        for left in std::fs::read_dir(&self.dir).map_err(said)?.flatten() {
            if left.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
                std::fs::remove_file(left.path()).map_err(said)?;
            }
        }
        // Mode 0600 until it has its content.
        let mut file = tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.dir).map_err(said)?;
        let room = self.size.saturating_add(ROOM);
        std::io::copy(&mut std::io::Read::take(std::io::repeat(b' '), room), file.as_file_mut()).map_err(said)?;
        if file.as_file().metadata().map_err(said)?.gid() != self.gid {
            std::os::unix::fs::fchown(file.as_file(), None, Some(self.gid))
                .map_err(|error| format!("a new file would belong to another group: {error}"))?;
        }
        file.as_file().sync_all().map_err(said)?;
        Ok(Draft { file, to: self.path.clone(), mode: self.mode })
    }
}

/// What will stand in the place of a login.
pub(super) struct Draft {
    file: tempfile::NamedTempFile,
    to: PathBuf,
    mode: u32,
}

impl Draft {
    /// Puts it there with this content, durably.
    ///
    /// # Errors
    /// What the file system says; then the old file stands, unless only that it lasts is unsure.
    pub(super) fn put(mut self, text: &str) -> std::io::Result<()> {
        let file = self.file.as_file_mut();
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)?;
        file.set_permissions(std::fs::Permissions::from_mode(self.mode))?;
        crate::files::persist(self.file, &self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("login");
        std::fs::write(&path, "old").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
        (dir, path)
    }

    #[test]
    fn the_file_behind_a_link_is_replaced_whole_keeps_its_mode_and_no_draft_stays() {
        let (dir, path) = file(0o640);
        let elsewhere = tempfile::tempdir().expect("directory");
        let link = elsewhere.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        std::fs::write(dir.path().join(".symphony-login-of-a-crash"), "half").expect("written");
        let place = Place::of(&link).expect("it can be");
        let draft = place.draft().expect("a draft");
        assert_eq!(draft.file.as_file().metadata().expect("there").mode() & 0o777, 0o600);
        draft.put("new").expect("put");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "new");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        drop(place.draft().expect("a draft that is not used"));
        assert_eq!(std::fs::read_dir(dir.path()).expect("lists").count(), 1);
    }

    #[test]
    fn what_cannot_be_replaced_says_so_before_anything_is_asked() {
        let refused = |path: &Path| Place::of(path).expect_err("refused");
        let (dir, path) = file(0o400);
        assert!(refused(&path).contains("read-only"));
        assert!(refused(dir.path()).contains("no regular file"));
        assert!(refused(&dir.path().join("none")).contains("cannot be used"));
        let (dir, path) = file(0o600);
        std::fs::hard_link(&path, dir.path().join("other")).expect("linked");
        assert!(refused(&path).contains("several names"));
        if rustix::process::geteuid().is_root() {
            let (_dir, path) = file(0o600);
            std::os::unix::fs::chown(&path, Some(65534), None).expect("given away");
            assert!(refused(&path).contains("another user"));
        } else {
            let (dir, path) = file(0o600);
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o500)).expect("mode");
            assert!(refused(&path).contains("cannot be written"));
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("mode");
        }
    }
}
