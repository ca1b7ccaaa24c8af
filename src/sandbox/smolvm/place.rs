//! Where our machines are on the host: a data directory that is ours alone, and the sockets of their channels.
//!
//! It stands below `.symphony/` unless that path is too long: smolvm makes Unix sockets in it, and their names end at 107
//! bytes. Then it is `.symphony-vm/<hash>` in the home directory, or `/var/tmp/symphony-vm-<uid>/<hash>` where there is none:
//! both survive a restart of the machine, as work disks must. A directory that others made or may enter is not used.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::machine::Name;

/// The longest data directory: what smolvm adds for its own sockets (`/.cache/smolvm/vms/<16 digits>/…`) fits behind it.
const LONGEST: usize = 50;
/// How the directory of a trial is called.
const TRIAL: &str = "trial-";
/// What is kept of a console's last words.
const LAST_WORDS: u64 = 400;

/// The directory of one workflow's machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// The place of the workflow whose private directory is `root`, made where it is missing.
    pub(super) fn make(root: &Path) -> io::Result<Self> {
        let dir = directory(root)?;
        if let Some(above) = dir.parent()
            && above != root
        {
            private(above)?;
        }
        private(&dir)?;
        // Nobody else gets this far; smolvm gives its own directory other modes.
        for part in ["d", "s"] {
            crate::files::create_private_dir(&dir.join(part))?;
        }
        Ok(Self { dir })
    }

    /// The same, if it was ever made.
    pub(super) fn existing(root: &Path) -> io::Result<Option<Self>> {
        let dir = directory(root)?;
        match std::fs::symlink_metadata(dir.join("d")) {
            Ok(_) => Self::make(root).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `SMOLVM_DATA_DIR`.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("d")
    }

    /// Where we listen for a machine's guest program. The same for every start: it is a setting of the machine.
    pub(super) fn socket(&self, name: &Name) -> PathBuf {
        self.dir.join("s").join(name.as_str())
    }

    /// A new directory that stands in for a work disk while a trial runs.
    pub(super) fn trial_disk(&self) -> io::Result<PathBuf> {
        Ok(tempfile::Builder::new().prefix(TRIAL).tempdir_in(&self.dir)?.keep())
    }

    /// Those that trials left which were killed.
    pub(super) fn trial_disks(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_one = |entry: &std::fs::DirEntry| {
            entry.file_name().to_string_lossy().starts_with(TRIAL) && entry.file_type().is_ok_and(|kind| kind.is_dir())
        };
        entries.filter(is_one).map(|entry| entry.path()).collect()
    }
}

/// The end of what smolvm noted of a machine that did not start, in its directory. The text is a guest's.
pub(super) fn last_words(machine: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    use std::os::unix::fs::OpenOptionsExt as _;
    for file in ["agent-startup-error.log", "agent-console.log"] {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let Ok(mut open) = std::fs::File::options().read(true).custom_flags(flags).open(machine.join(file)) else {
            continue;
        };
        let length = open.metadata().map_or(0, |about| about.len());
        let mut text = Vec::new();
        if open.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS))).is_ok()
            && open.take(LAST_WORDS).read_to_end(&mut text).is_ok()
            && !text.is_empty()
        {
            return format!("its console: {}", String::from_utf8_lossy(&text).trim());
        }
    }
    String::new()
}

/// Where that place is.
pub(super) fn directory(root: &Path) -> io::Result<PathBuf> {
    choose(root, std::env::var_os("HOME").map(PathBuf::from), rustix::process::geteuid().as_raw())
}

fn choose(root: &Path, home: Option<PathBuf>, uid: u32) -> io::Result<PathBuf> {
    let root = std::path::absolute(root)?;
    let hash = symphony_core::ids::hash16(&root.to_string_lossy());
    let hash = hash.get(..12).unwrap_or(&hash);
    let home = home.filter(|home| home.is_absolute()).map(|home| home.join(".symphony-vm").join(hash));
    let candidates =
        [Some(root.join("smolvm")), home, Some(PathBuf::from(format!("/var/tmp/symphony-vm-{uid}/{hash}")))];
    let fits = |dir: &PathBuf| dir.as_os_str().len() + "/d".len() <= LONGEST;
    candidates
        .into_iter()
        .flatten()
        .find(fits)
        .ok_or_else(|| io::Error::other("no path is short enough for its sockets"))
}

/// A directory of this user that nobody else may enter; not a link to one.
fn private(dir: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let about = std::fs::symlink_metadata(dir)?;
    let ours = about.is_dir() && about.uid() == rustix::process::geteuid().as_raw() && about.mode() & 0o077 == 0;
    match ours {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("{} is not a private directory of ours (hint: remove it)", dir.display())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_place_that_is_always_the_same() {
        let near = choose(Path::new("/p/.symphony"), None, 7).expect("fits");
        assert_eq!(near, Path::new("/p/.symphony/smolvm"));
        let long = PathBuf::from(format!("/{}/.symphony", "deep/".repeat(20)));
        let home = choose(&long, Some("/home/me".into()), 7).expect("fits");
        assert!(home.starts_with("/home/me/.symphony-vm"), "{}", home.display());
        assert_eq!(home, choose(&long, Some("/home/me".into()), 7).expect("fits"));
        let other = PathBuf::from(format!("/{}/.symphony", "steep/".repeat(20)));
        assert_ne!(home, choose(&other, Some("/home/me".into()), 7).expect("fits"));
        let far = choose(&long, Some(long.clone()), 7).expect("fits");
        assert!(far.starts_with("/var/tmp/symphony-vm-7"), "{}", far.display());
    }

    #[test]
    fn a_directory_that_others_may_enter_or_that_is_a_link_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let tmp = tempfile::tempdir().expect("a directory");
        let open = tmp.path().join("open");
        std::fs::create_dir(&open).expect("made");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).expect("opened");
        assert!(private(&open).is_err());
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o700)).expect("closed");
        assert!(private(&open).is_ok());
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(&open, &link).expect("linked");
        assert!(private(&link).is_err());
    }
}
