//! Which symphony a command means, and what to say when it does not answer.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::layout::Layout;
use crate::lock;
use crate::log::{harmless, typed};

/// The workflow file in its canonical directory; the file itself need not be there. A directory is that of a
/// `WORKFLOW.md`.
pub(super) fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let mut absolute = std::path::absolute(path)?;
    if absolute.is_dir() {
        absolute.push("WORKFLOW.md");
    }
    let dir = absolute.parent().unwrap_or(Path::new("/")).canonicalize()?;
    Ok(absolute.file_name().map_or_else(|| dir.clone(), |name| dir.join(name)))
}

/// Whether a symphony may run in `dir` although nobody listens: one holds the lock, or another user's stands there.
pub(super) fn may_run(dir: &Path) -> bool {
    let layout = Layout::of(dir);
    let closed = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    std::fs::metadata(layout.lock()).is_err_and(closed) || lock::holder(&layout).is_some()
}

/// Nobody listens: there may be one all the same.
pub(super) fn nobody(workflow: &Path, dir: &Path, socket: &Path) -> ExitCode {
    let layout = Layout::of(dir);
    let lock = layout.lock();
    if let Err(error) = std::fs::metadata(&lock)
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let message =
            format!("no symphony of yours listens for {}, and {}: {error}", workflow.display(), lock.display());
        return refuse(1, &message, Some("another user runs symphony in this directory, or did; ask as that user"));
    }
    match lock::holder(&layout) {
        Some(process) => refuse(
            1,
            &format!(
                "a symphony runs in {} (process {process}), but does not listen at {}",
                dir.display(),
                socket.display()
            ),
            Some(
                "another user started it, or with another XDG_RUNTIME_DIR; or it could not listen, and its log says why",
            ),
        ),
        None if !workflow.exists() => refuse(
            2,
            &format!("there is no workflow file at {}", workflow.display()),
            Some("go to where it stands, or name it with --workflow"),
        ),
        None => refuse(
            1,
            &format!("no symphony runs on {}", workflow.display()),
            Some(&format!("start one: symphony {}", typed(workflow))),
        ),
    }
}

/// The workflow that a command is about, named in either of two ways.
#[derive(Debug, Args)]
pub struct Whose {
    /// The workflow whose things these are [default: WORKFLOW.md].
    #[arg(value_name = "WORKFLOW")]
    positional: Option<PathBuf>,
    /// The same, as the other commands have it.
    #[arg(long, value_name = "PATH", conflicts_with = "positional")]
    workflow: Option<PathBuf>,
}

impl Whose {
    /// Where it is, absolute.
    ///
    /// # Errors
    /// What to say, when its directory cannot be used.
    pub(super) fn path(&self) -> Result<PathBuf, String> {
        let path = self.workflow.as_ref().or(self.positional.as_ref());
        let path = path.map_or(Path::new("WORKFLOW.md"), PathBuf::as_path);
        absolute(path).map_err(|error| format!("cannot use {}: {error}", path.display()))
    }
}

/// Says why not on stderr; the exit code.
pub(super) fn refuse(code: u8, message: &str, hint: Option<&str>) -> ExitCode {
    let hint = hint.map_or(String::new(), |hint| format!("  {}\n", harmless(hint)));
    let text = format!("symphony: {}\n{hint}", harmless(message));
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}
