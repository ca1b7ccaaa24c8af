//! The first process of a microVM: from the kernel's hands to a guest program that talks on the channel.
//!
//! It loads the drivers, stacks the read-only layers under a scratch one, starts the guest program up to its first read,
//! says it is ready, and then waits to be woken. What it is woken with (time, randomness, limits) must not exist before:
//! the machine may be saved as a template at that point and restored many times, so nothing here may know an issue, a
//! secret, or the work disk's content earlier, and the guest program may not have drawn a random number.
//! When the channel closes or the guest program ends, everything dies, the disk is synced and the machine stops.

mod cgroup;
mod disk;
mod drivers;
mod layers;
mod limits;
mod port;
mod wake;

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, WaitOptions};
use rustix::system::RebootCommand;
use rustix::thread::{Gid, Uid, UnshareFlags};

/// The one user that agents are.
const AGENT: u32 = 1000;
/// The guest program's channel, as in every sandbox.
const CHANNEL: i32 = 3;

/// Whether this process is the first of a machine (and not of a mere namespace).
pub fn is_first() -> bool {
    // Only the kernel starts a first process without a parent and with this file in the place of a root.
    std::process::id() == 1 && std::path::Path::new(drivers::ORDER).exists()
}

/// Takes on the limits that the first process of a machine left for the guest program.
pub(crate) fn take_limits() -> io::Result<()> {
    limits::take()
}

/// Runs the machine. Never returns: the machine stops.
pub fn main() -> ExitCode {
    if let Err(error) = live() {
        // The console is all there is to say it on; the host keeps the last of it.
        eprintln!("symphony-guest: {error}");
    }
    rustix::fs::sync();
    let _ = disk::leave();
    // The kernel is told to reboot by a triple fault, and the host's emulator ends on it.
    let _ = rustix::system::reboot(RebootCommand::Restart);
    loop {
        std::thread::park();
    }
}

/// An error, and what was being done.
pub(crate) trait During<T> {
    /// Names the step, in words that follow "while it".
    fn during(self, step: &str) -> io::Result<T>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &str) -> io::Result<T> {
        self.map_err(|error| {
            let error = error.into();
            io::Error::new(error.kind(), format!("failed while it {step}: {error}"))
        })
    }
}

fn live() -> io::Result<()> {
    layers::kernel_file_systems().during("mounted the kernel's file systems")?;
    console().during("opened its console")?;
    drivers::load()?;
    let brought = disk::Blank::brought().during("read the file system for a new disk")?;
    layers::enter()?;
    cgroup::make()?;
    let mut port = port::open().during("opened its channel")?;
    let (ours, theirs) = UnixStream::pair().during("made the guest program's channel")?;
    // It waits for its channel's first byte, which the host sends after waking us.
    let first = start(theirs)?;
    let device = disk::find()?;
    let (wake, blank) = wake::wait(&mut port, brought)?;
    let woken = wake::apply(&wake).during("took the time and randomness it was given");
    wake::say(&mut port, woken.as_ref().err().map(ToString::to_string))?;
    woken?;
    let prepared = disk::prepare(&device, &wake, blank).and_then(|()| cgroup::limit(wake.pids));
    let prepared = prepared.and_then(|()| limits::leave(wake.file_size_mib));
    wake::say(&mut port, prepared.as_ref().err().map(ToString::to_string))?;
    prepared?;
    port::relay(port, ours);
    // The relay ends the guest program by ending its channel; the guest program ends by itself otherwise.
    wait_for(first);
    Ok(())
}

fn console() -> io::Result<()> {
    let console = File::options().read(true).write(true).open("/dev/console")?;
    rustix::stdio::dup2_stdin(&console)?;
    rustix::stdio::dup2_stdout(&console)?;
    rustix::stdio::dup2_stderr(&console)?;
    Ok(())
}

/// Starts the guest program as the child of a reaper that is the first process of a pid namespace: whatever the agent
/// leaves behind dies with it, and nothing in it sees this process. This process itself must stay outside: it still
/// has threads to start, which a process that made a pid namespace cannot.
fn start(channel: UnixStream) -> io::Result<Pid> {
    layers::share_mounts().during("shared its mounts")?;
    fork(move || {
        // SAFETY: one thread runs, and descriptors stay shared with nobody.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID | UnshareFlags::NEWNS) }
            .during("made a namespace")?;
        let first = fork(move || first(channel.into()))?;
        wait_for(first);
        Ok(0)
    })
}

fn first(channel: OwnedFd) -> io::Result<i32> {
    cgroup::enter().during("entered its control group")?;
    layers::own_proc().during("mounted its /proc")?;
    let guest = fork(move || Err(become_guest(channel)).during("started the guest program"))?;
    Ok(crate::init::reap_until(guest).code().unwrap_or(1))
}

/// Runs `child` in a child process, whose end it is.
fn fork(child: impl FnOnce() -> io::Result<i32>) -> io::Result<Pid> {
    // SAFETY: every caller has one thread, so the child's copy of every lock is free.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).during("forked"),
        0 => {
            let code = child().unwrap_or_else(|error| {
                eprintln!("symphony-guest: {error}");
                1
            });
            // SAFETY: ends the child; nothing runs after it.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid).ok_or_else(|| io::Error::other("no child")),
    }
}

/// Becomes the guest program; returns only to say why not.
fn become_guest(channel: OwnedFd) -> io::Error {
    let prepare = || -> io::Result<()> {
        rustix::process::setsid()?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        // SAFETY: the number is not owned by any value of this process, which is about to become another program.
        if channel.as_raw_fd() != CHANNEL && unsafe { libc::dup2(channel.as_raw_fd(), CHANNEL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: descriptors are marked, not closed; the channel's mark is taken off again.
        unsafe {
            libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            libc::fcntl(CHANNEL, libc::F_SETFD, 0);
        }
        let (uid, gid) = (Uid::from_raw(AGENT), Gid::from_raw(AGENT));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
    };
    if let Err(error) = prepare() {
        return error;
    }
    let arguments = ["run", "--channel-fd", "3", "--work", "/work", "--home", "/home/agent", "--state", "/state"];
    Command::new(layers::PROGRAM).args(arguments).current_dir("/work").env_clear().envs(crate::init::ENVIRONMENT).exec()
}

/// Reaps until this child has ended.
fn wait_for(child: Pid) {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, _))) if pid == child => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
