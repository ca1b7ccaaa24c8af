//! Where the socket stands, and that nobody else can have put it there.
//!
//! The directory is opened once, without following a link in its place, and checked; everything after goes through
//! that handle. So neither a swap of the directory nor the length of its path matters (a socket's address ends at 108
//! bytes).

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// The directory and name of one workflow's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
    name: String,
}

/// Why the directory is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// It is not there.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// Somebody put something else in its place.
    #[error("{0} is not a directory (hint: remove it; symphony makes it again)")]
    NotADirectory(PathBuf),
    /// Another user made it.
    #[error("{path} belongs to user {owner} (hint: remove it, or set XDG_RUNTIME_DIR to a directory of your own)")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Others can reach into it.
    #[error("others may enter {path}, its mode is {mode:03o} (hint: chmod 700 {path})", path = path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot use {path}: {message} (hint: set XDG_RUNTIME_DIR to a directory of your own)", path = path.display())]
    System {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        message: String,
    },
}

/// The socket, listening; its file goes when this does.
#[derive(Debug)]
pub struct Socket {
    dir: OwnedFd,
    name: String,
    pub(super) listener: UnixListener,
}

impl Place {
    /// For the workflow in `workflow_dir`, which is canonical: both ends come to the same place.
    pub fn of(workflow_dir: &Path) -> Self {
        Self::below(&runtime_dir(std::env::var_os("XDG_RUNTIME_DIR").as_deref(), own_uid()), workflow_dir)
    }

    pub(super) fn below(dir: &Path, workflow_dir: &Path) -> Self {
        let digest = Sha256::digest(workflow_dir.as_os_str().as_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { dir: dir.to_owned(), name: format!("{name}.sock") }
    }

    /// The socket's path, for people.
    pub fn path(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    /// Makes the directory if need be, and listens. A socket that a dead symphony left is replaced: whoever holds the
    /// workflow's lock is the only one alive.
    ///
    /// # Errors
    /// When the directory is not ours alone, or the system refuses.
    pub fn listen(&self) -> Result<Socket, PlaceError> {
        match rustix::fs::mkdir(&self.dir, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(self.refused(error)),
        }
        let dir = self.open()?;
        match rustix::fs::unlinkat(&dir, &self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(self.refused(error)),
        }
        let bound = UnixListener::bind(through(&dir, &self.name));
        let listener = bound.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listener.map_err(|error| self.refused(error))?;
        Ok(Socket { dir, name: self.name.clone(), listener })
    }

    /// A connection to whoever listens there; `None` when nobody does.
    ///
    /// # Errors
    /// When the directory is not ours alone, or the system refuses.
    pub(super) fn connect(&self) -> Result<Option<UnixStream>, PlaceError> {
        let dir = match self.open() {
            Ok(dir) => dir,
            Err(PlaceError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        match UnixStream::connect(through(&dir, &self.name)) {
            Ok(stream) => Ok(Some(stream)),
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// The directory, if it is one, ours, and nobody else's to enter.
    fn open(&self) -> Result<OwnedFd, PlaceError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.dir, flags, Mode::empty()).map_err(|error| match error {
            Errno::NOENT => PlaceError::Missing(self.dir.clone()),
            Errno::NOTDIR | Errno::LOOP => PlaceError::NotADirectory(self.dir.clone()),
            error => self.refused(error),
        })?;
        let stat = rustix::fs::fstat(&dir).map_err(|error| self.refused(error))?;
        if stat.st_uid != own_uid() {
            return Err(PlaceError::Foreign { path: self.dir.clone(), owner: stat.st_uid });
        }
        if stat.st_mode & 0o077 != 0 {
            return Err(PlaceError::Open { path: self.dir.clone(), mode: stat.st_mode & 0o777 });
        }
        Ok(dir)
    }

    fn refused(&self, error: impl std::fmt::Display) -> PlaceError {
        PlaceError::System { path: self.path(), message: error.to_string() }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = rustix::fs::unlinkat(&self.dir, &self.name, AtFlags::empty());
    }
}

/// Whether both paths name one workflow file: a directory has one symphony and may have several, some of them links.
pub fn is_same_file(asked: &Path, runs: &Path) -> bool {
    asked.file_name() == runs.file_name()
        || matches!((asked.canonicalize(), runs.canonicalize()), (Ok(asked), Ok(runs)) if asked == runs)
}

/// A short path to `name` in the directory behind the handle, whatever has become of the directory's own path.
fn through(dir: &OwnedFd, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).into()
}

pub(super) fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// `$XDG_RUNTIME_DIR/symphony`, `/run/user/<uid>/symphony` or `/tmp/symphony-<uid>`: the first whose parent is ours,
/// or the last. A session and a service of one user usually come to the same one.
pub(super) fn runtime_dir(xdg: Option<&OsStr>, uid: u32) -> PathBuf {
    let ours = |dir: &Path| std::fs::metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid);
    let named = xdg.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    match named.into_iter().chain([usual]).find(|dir| ours(dir)) {
        Some(dir) => dir.join("symphony"),
        None => format!("/tmp/symphony-{uid}").into(),
    }
}
