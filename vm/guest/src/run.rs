//! The guest program's command line and its first steps: close itself to its children, then serve the channel.
//! It must not start a thread before the inherited descriptors are dealt with.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::fs::FileType;
use rustix::io::FdFlags;

use crate::serve;

const USAGE: &str = "usage: run --channel-fd N --work DIR --home DIR --state DIR | script-agent";

/// Where the guest program keeps things. All three are absolute and writable by it.
#[derive(Clone, Debug)]
pub(crate) struct Dirs {
    /// The work tree itself.
    pub(crate) work: PathBuf,
    /// The agent's home.
    pub(crate) home: PathBuf,
    /// The guest program's own notes about the work disk: outside the work tree.
    pub(crate) state: PathBuf,
}

/// Runs the guest program: `self_argv` is how to start it again (for the agent built into it), `args` what it is to do.
/// Exits with 0 when the channel closed, 1 when it could not start, 2 on wrong arguments.
pub fn main(self_argv: Vec<OsString>, args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let result = match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("run") => match parse_run(args) {
            Ok((fd, dirs)) => run(fd, dirs, self_argv),
            Err(e) => {
                eprintln!("symphony-guest: {e}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
        Some("script-agent") => crate::script::main(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("symphony-guest: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parse_run(mut args: impl Iterator<Item = OsString>) -> Result<(RawFd, Dirs), String> {
    let (mut fd, mut work, mut home, mut state) = (None, None, None, None);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{} needs a value", flag.display()))?;
        let slot = match flag.to_str() {
            Some("--channel-fd") => {
                fd = value.to_str().and_then(|v| v.parse::<RawFd>().ok()).filter(|n| *n > 2);
                continue;
            }
            Some("--work") => &mut work,
            Some("--home") => &mut home,
            Some("--state") => &mut state,
            _ => return Err(format!("unknown option {}", flag.display())),
        };
        let path = PathBuf::from(value);
        if !path.is_absolute() {
            return Err(format!("{} is not an absolute path", path.display()));
        }
        *slot = Some(path);
    }
    match (fd, work, home, state) {
        (Some(fd), Some(work), Some(home), Some(state)) => Ok((fd, Dirs { work, home, state })),
        _ => Err("an option is missing; the channel is a descriptor above 2".into()),
    }
}

fn run(fd: RawFd, dirs: Dirs, self_argv: Vec<OsString>) -> Result<(), String> {
    let channel = close_doors(fd)?;
    // A machine starts this program before it is woken, and may be saved and restored many times at this very point.
    // Nothing that is to be new each time may exist earlier: no random number, and no look at the work disk.
    let mut said = [rustix::event::PollFd::new(&channel, rustix::event::PollFlags::IN)];
    while rustix::event::poll(&mut said, None) == Err(rustix::io::Errno::INTR) {}
    for dir in [&dirs.work, &dirs.home, &dirs.state] {
        std::fs::create_dir_all(dir).map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    // By its name, since the work disk may have been mounted there after this program was started.
    let here = std::env::current_dir().and_then(std::env::set_current_dir);
    here.map_err(|e| format!("cannot stay where it was started: {e}"))?;
    crate::git::sweep_locks(&dirs.work.join(".git"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(|e| format!("cannot start the runtime: {e}"))?;
    runtime.block_on(async {
        let channel = tokio::net::UnixStream::from_std(channel).map_err(|e| format!("cannot use the channel: {e}"))?;
        serve::serve(channel, dirs, self_argv).await;
        Ok(())
    })
}

/// Makes this process opaque to what it will spawn: not dumpable (so neither traceable nor readable through /proc),
/// and no descriptor but stdio and the channel, which no child inherits.
fn close_doors(fd: RawFd) -> Result<StdUnixStream, String> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| format!("cannot become undumpable: {e}"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // SAFETY: nothing else in this process uses the descriptor: it was named to us and no thread runs yet.
    let channel = unsafe { OwnedFd::from_raw_fd(fd) };
    rustix::io::fcntl_setfd(&channel, FdFlags::CLOEXEC).map_err(|e| format!("descriptor {fd} is not open: {e}"))?;
    let kind = rustix::fs::fstat(&channel).map_err(|e| format!("cannot look at descriptor {fd}: {e}"))?;
    if FileType::from_raw_mode(kind.st_mode) != FileType::Socket {
        return Err(format!("descriptor {fd} is not a stream socket"));
    }
    let fd = fd.unsigned_abs();
    // SAFETY: closes only descriptors that no object in this process owns: it runs before anything is opened.
    unsafe {
        if fd > 3 {
            libc::close_range(3, fd - 1, 0);
        }
        libc::close_range(fd + 1, u32::MAX, 0);
    }
    let channel = StdUnixStream::from(channel);
    channel.set_nonblocking(true).map_err(|e| format!("cannot use the channel: {e}"))?;
    Ok(channel)
}
