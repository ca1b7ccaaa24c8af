//! The guest program's command line and its first steps: close itself to its children, then serve the channel.
//! It must not start a thread before the inherited descriptors are dealt with.

use std::ffi::OsString;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::fs::FileType;
use rustix::io::FdFlags;

use crate::{serve, stdio};

const USAGE: &str =
    "usage: run|machine (--channel-fd N | --connect SOCKET | --stdio) --work DIR --home DIR --state DIR | script-agent";

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

/// Where the channel is.
#[derive(Debug, PartialEq, Eq)]
enum Door {
    /// An inherited descriptor.
    Fd(RawFd),
    /// A Unix socket that somebody listens on.
    Connect(PathBuf),
    /// Standard input and output.
    Stdio,
}

/// Runs the guest program: `self_argv` is how to start it again (for the agent built into it), `args` what it is to do.
/// Exits with 0 when the channel closed, 1 when it could not start, 2 on wrong arguments.
pub fn main(self_argv: Vec<OsString>, args: Vec<OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let result = match args.next().as_deref().and_then(|a| a.to_str()) {
        Some(word @ ("run" | "machine")) => match parse_run(args) {
            Ok((door, dirs)) => run(door, dirs, self_argv, word == "machine"),
            Err(e) => {
                eprintln!("symphony-guest: {e}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
        Some("script-agent") => crate::script::main().map(|()| ExitCode::SUCCESS),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("symphony-guest: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parse_run(mut args: impl Iterator<Item = OsString>) -> Result<(Door, Dirs), String> {
    let (mut doors, mut work, mut home, mut state) = (Vec::new(), None, None, None);
    while let Some(flag) = args.next() {
        if flag == "--stdio" {
            doors.push(Door::Stdio);
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{} needs a value", flag.display()))?;
        let slot = match flag.to_str() {
            Some("--channel-fd") => {
                let fd = value.to_str().and_then(|v| v.parse::<RawFd>().ok()).filter(|n| *n > 2);
                doors.push(Door::Fd(fd.ok_or("the channel is a descriptor above 2")?));
                continue;
            }
            Some("--connect") => {
                doors.push(Door::Connect(value.into()));
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
    let mut doors = doors.into_iter();
    match (doors.next(), doors.next(), work, home, state) {
        (Some(door), None, Some(work), Some(home), Some(state)) => Ok((door, Dirs { work, home, state })),
        (_, Some(_), ..) => Err("there is one channel: --channel-fd, --connect or --stdio".into()),
        _ => Err("an option is missing".into()),
    }
}

fn run(door: Door, dirs: Dirs, self_argv: Vec<OsString>, machine: bool) -> Result<ExitCode, String> {
    // A socket is opened while we may still be root: it is root's. What makes threads comes after the last fork.
    let socket = match door {
        Door::Fd(fd) => close_doors(Some(fd))?,
        Door::Connect(path) => {
            close_doors(None)?;
            Some(stdio::connect(&path)?)
        }
        Door::Stdio => close_doors(None)?,
    };
    if machine && let Some(code) = crate::enter::enter(&dirs)? {
        return Ok(code);
    }
    let channel = match socket {
        Some(socket) => socket,
        None => stdio::channel()?,
    };
    channel.set_nonblocking(true).map_err(|e| format!("cannot use the channel: {e}"))?;
    // A machine starts this program before it is woken, and may be saved and restored many times at this very point.
    // Nothing that is to be new each time may exist earlier: no random number, and no look at the work disk.
    let mut said = [rustix::event::PollFd::new(&channel, rustix::event::PollFlags::IN)];
    while rustix::event::poll(&mut said, None) == Err(rustix::io::Errno::INTR) {}
    crate::machine::take_limits().map_err(|e| format!("cannot limit its files: {e}"))?;
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
        Ok(ExitCode::SUCCESS)
    })
}

/// A change of user may undo it, so it is done again after one.
pub(crate) fn become_undumpable() -> Result<(), String> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|e| format!("cannot become undumpable: {e}"))
}

/// Makes this process opaque to what it will spawn: not dumpable (so neither traceable nor readable through /proc),
/// and no descriptor but stdio and the channel, if it is inherited, which no child inherits.
fn close_doors(fd: Option<RawFd>) -> Result<Option<StdUnixStream>, String> {
    become_undumpable()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let Some(fd) = fd else {
        // SAFETY: no object in this process owns a descriptor yet: it runs before anything is opened.
        unsafe { libc::close_range(3, u32::MAX, 0) };
        return Ok(None);
    };
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
    Ok(Some(StdUnixStream::from(channel)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Door, String> {
        let dirs = "--work /w --home /h --state /s".split(' ');
        parse_run(line.split_whitespace().chain(dirs).map(OsString::from)).map(|(door, _)| door)
    }

    #[test]
    fn there_is_exactly_one_channel() {
        assert_eq!(parse("--channel-fd 3"), Ok(Door::Fd(3)));
        assert_eq!(parse("--connect /run/s.sock"), Ok(Door::Connect("/run/s.sock".into())));
        assert_eq!(parse("--stdio"), Ok(Door::Stdio));
        for wrong in [
            "",
            "--channel-fd 2",
            "--channel-fd x",
            "--stdio --channel-fd 3",
            "--connect /a --connect /b",
            "--stdio --stdio",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
