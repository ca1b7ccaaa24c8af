//! The launcher: a fresh, single-threaded process that builds the jail and becomes its doorkeeper.
//!
//! Descriptors at start: 0 is the control socket (specification in, report out, and its end is the
//! order to die), 1 the guest's channel, 2 the captured error stream. Everything else is closed. Further
//! descriptors for the program come over the control socket, ahead of the specification.
//!
//! Who dies with whom: the control socket ends when the host process ends, however it ends, because
//! only that process holds the other end; the launcher then kills pid 1. Pid 1 asks the kernel to be
//! killed when the launcher ends, and only goes on when the launcher answered *after* that. The end
//! of pid 1 makes the kernel kill every process in its namespace. A parent-death signal from host to
//! launcher is not used: it follows the spawning *thread*, and a runtime's threads come and go.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitOptions};
use rustix::thread::{Gid, Uid, UnshareFlags};
use symphony_guest::init::ENVIRONMENT;

use super::confine::confine;
use super::root::Sources;
use super::wire::{During, Facts, Failure, LaunchSpec, Launched};

/// The guest program's channel.
const CHANNEL: RawFd = 3;
/// Bytes of stack of an emulator's thread.
const EMULATOR_STACK: u64 = 1024 * 1024;
/// The one user inside.
const INSIDE: u32 = 1000;
/// A specification is a few paths; more than this is not one.
const LONGEST_SPEC: u64 = 1024 * 1024;

/// Runs the launcher with the arguments after `__jail`. Call it before any thread exists.
pub fn launcher_main(_args: &[std::ffi::OsString]) -> ExitCode {
    // SAFETY: descriptor 0 is ours by the calling convention of `__jail`, and nothing else owns it here.
    let mut control = UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) });
    match launch(&mut control) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            report(&mut control, &Launched::Failed(failure));
            ExitCode::FAILURE
        }
    }
}

fn report(control: &mut UnixStream, launched: &Launched) {
    let mut line = serde_json::to_vec(launched).unwrap_or_default();
    line.push(b'\n');
    // The host reads with a deadline; when it is gone there is nobody to tell.
    let _ = control.write_all(&line);
    let _ = control.shutdown(Shutdown::Write);
}

fn launch(control: &mut UnixStream) -> Result<u8, Failure> {
    keep_only_standard().during("closed what it inherited")?;
    let channel = rustix::io::fcntl_dupfd_cloexec(io::stdout(), CHANNEL).during("took over the channel")?;
    if channel.as_raw_fd() != CHANNEL {
        return Err(odd("took over the channel", "the channel is not descriptor 3"));
    }
    File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdout(null)?)).during("closed its output")?;
    let extra = crate::sandbox::descriptors::receive(&*control).during("took over its descriptors")?;
    let spec = read_spec(control)?;
    if extra.len() != usize::from(spec.descriptors) {
        return Err(odd("took over its descriptors", "they are not as many as the specification says"));
    }
    // A group of its own: a terminal's Ctrl-C is for symphony, which drains.
    let _ = rustix::process::setsid();

    let mut sources = None;
    if rustix::process::geteuid().is_root() {
        sources = Some(Sources::clone(&spec)?);
        become_user(spec.uid, &spec.devices)?;
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // A process that changed its user may not write its own maps otherwise.
    dumpable(true).during("prepared its user namespace")?;
    // When the whole machine runs out of memory, a guest goes before what its owner works with.
    fs::write("/proc/self/oom_score_adj", "500").during("offered itself to the memory killer")?;
    let all = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    // SAFETY: one thread, and descriptors stay shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(all) }.during("made its namespaces")?;
    let maps = || -> io::Result<()> {
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{INSIDE} {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("{INSIDE} {gid} 1"))
    };
    maps().during("mapped its user")?;
    dumpable(false).during("hid itself")?;
    let sources = match sources {
        Some(sources) => sources,
        None => Sources::clone(&spec)?,
    };

    let (ours, theirs) = UnixStream::pair().during("prepared pid 1")?;
    match fork().during("forked pid 1")? {
        None => {
            drop(ours);
            let code = match first(control, theirs, (channel, extra), sources, &spec, uid) {
                Ok(code) => code,
                Err(failure) => {
                    report(control, &Launched::Failed(failure));
                    1
                }
            };
            exit(code)
        }
        Some(pid) => {
            drop((theirs, channel, extra, sources));
            keep_gate(control, ours, pid)
        }
    }
}

/// The launcher's rest of life: answers pid 1 once, then waits for the host's end or pid 1's.
fn keep_gate(control: &UnixStream, mut gate: UnixStream, pid: Pid) -> Result<u8, Failure> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).during("watched pid 1")?;
    let mut ready = [0];
    if gate.read_exact(&mut ready).is_ok() {
        let _ = gate.write_all(&ready);
    }
    drop(gate);
    loop {
        let mut watched = [
            PollFd::new(&pidfd, PollFlags::IN),
            PollFd::new(control, PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP),
        ];
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err::<u8, _>(error).during("watched pid 1"),
        }
        // After the specification the host says nothing more: any event on the control socket is its end.
        if !watched[1].revents().is_empty() {
            let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        }
        if let Some((_, status)) = rustix::process::waitpid(
            Some(pid),
            if watched[1].revents().is_empty() { WaitOptions::NOHANG } else { WaitOptions::empty() },
        )
        .during("waited for pid 1")?
        {
            return Ok(exit_code(ExitStatus::from_raw(status.as_raw())));
        }
    }
}

/// Pid 1 of the jail: builds it from within, starts the program, reaps.
fn first(
    control: &mut UnixStream,
    mut gate: UnixStream,
    passed: Passed,
    sources: Sources,
    spec: &LaunchSpec,
    uid: u32,
) -> Result<u8, Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during("bound itself to its parent")?;
    let mut answer = [0];
    gate.write_all(&[1]).and_then(|()| gate.read_exact(&mut answer)).during("bound itself to its parent")?;
    drop(gate);
    rustix::process::setsid().during("started its session")?;
    rustix::system::sethostname(b"symphony").during("set its host name")?;
    loopback().during("raised its loopback")?;
    sources.enter(spec)?;
    if let Some(bytes) = spec.image_bytes {
        // Before the limits: its size is nominal, and what may be written of it is the limit on files.
        make_image(bytes).during("made the machine's disk")?;
    }
    let facts = confine(spec, uid)?;
    start(control, passed, spec, facts)
}

/// The channel, and what the program finds after it.
type Passed = (OwnedFd, Vec<OwnedFd>);

/// A sparse file of at least this size. It never shrinks: what stands at its end may be work.
fn make_image(bytes: u64) -> io::Result<()> {
    let mut open = File::options();
    let image = open.read(true).write(true).create(true).truncate(false).mode(0o600);
    let image = image.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(super::IMAGE)?;
    let meta = image.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if meta.len() < bytes { image.set_len(bytes) } else { Ok(()) }
}

fn start(control: &mut UnixStream, passed: Passed, spec: &LaunchSpec, facts: Facts) -> Result<u8, Failure> {
    let stage = || format!("started {}", spec.program.first().map_or("", String::as_str));
    let (mut failed, fail) = io::pipe().during(stage())?;
    let null = File::options().read(true).write(true).open("/dev/null").during("opened /dev/null")?;
    let Some(guest) = fork().during(stage())? else {
        let error = run(passed, null, spec);
        let number = error.raw_os_error().unwrap_or(libc::EINVAL);
        let _ = (&fail).write_all(&number.to_ne_bytes());
        exit(127)
    };
    drop((fail, passed));
    let mut number = [0; 4];
    if failed.read_exact(&mut number).is_ok() {
        return Err::<u8, _>(io::Error::from_raw_os_error(i32::from_ne_bytes(number))).during(stage());
    }
    drop(failed);
    report(control, &Launched::Ready(facts));
    // Descriptor 0 leaves the host here; nothing of the host stays open in pid 1 but its error stream.
    rustix::stdio::dup2_stdin(&null).during("let go of the host")?;
    drop(null);
    Ok(exit_code(symphony_guest::init::reap_until(guest)))
}

/// Becomes the program; returns only to say why not.
fn run((channel, extra): Passed, null: File, spec: &LaunchSpec) -> io::Error {
    let prepare = || -> io::Result<()> {
        rustix::process::setsid()?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        // Nothing but the channel and what was asked for crosses the exec.
        let from = libc::c_uint::try_from(CHANNEL + 1).unwrap_or(4);
        close_range(from, libc::CLOSE_RANGE_CLOEXEC)?;
        for kept in std::iter::once(&channel).chain(&extra) {
            rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty())?;
        }
        if spec.image_bytes.is_some() {
            // Writing past the limit on files is then an error to the machine, not its end.
            // SAFETY: no handler is installed, a signal is ignored.
            unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
            // An emulator starts threads as its disks are busy, each with a stack of the usual size, and where memory is
            // limited for each process alone they count.
            let stack = rustix::process::getrlimit(rustix::process::Resource::Stack);
            let small = rustix::process::Rlimit { current: Some(EMULATOR_STACK), maximum: stack.maximum };
            rustix::process::setrlimit(rustix::process::Resource::Stack, small)?;
        }
        Ok(())
    };
    if let Err(error) = prepare() {
        return error;
    }
    let Some((program, arguments)) = spec.program.split_first() else {
        return io::Error::from(io::ErrorKind::InvalidInput);
    };
    Command::new(program).args(arguments).current_dir("/work").env_clear().envs(ENVIRONMENT).exec()
}

/// The guest program's exit is the jail's; a signal n that ended it is 128 + n, as in a shell.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn read_spec(control: &mut UnixStream) -> Result<LaunchSpec, Failure> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() as u64 <= LONGEST_SPEC {
        control.read_exact(&mut byte).during("read its specification")?;
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
    }
    serde_json::from_slice(&line).map_err(|error| odd("read its specification", &error.to_string()))
}

/// Root becomes the disk's user for good: no way back, and no group but those that open the devices it is given.
fn become_user(uid: Option<u32>, devices: &[String]) -> Result<(), Failure> {
    let stage = "became an unprivileged user";
    let Some(raw) = uid.filter(|uid| *uid != 0) else {
        return Err(odd(stage, "no user was chosen; a jail never runs as root"));
    };
    let change = || -> rustix::io::Result<()> {
        // Opening it by its name in /proc is for its owner, and an emulator does so.
        rustix::fs::fchown(io::stderr(), Some(Uid::from_raw(raw)), None)?;
        let groups: Vec<Gid> = devices.iter().filter_map(|name| group_of(name)).collect();
        rustix::thread::set_thread_groups(&groups)?;
        let gid = Gid::from_raw(raw);
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        let uid = Uid::from_raw(raw);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
    };
    change().during(stage)?;
    let back = rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok();
    if back || rustix::process::geteuid().is_root() || rustix::process::getuid().is_root() {
        return Err(odd(stage, "the change of user did not hold"));
    }
    Ok(())
}

/// The group a device is for, unless that is root's.
fn group_of(device: &str) -> Option<Gid> {
    let gid = fs::metadata(Path::new("/dev").join(device)).ok()?.gid();
    (gid != 0).then(|| Gid::from_raw(gid))
}

fn odd(stage: &str, message: &str) -> Failure {
    Failure { stage: stage.to_owned(), message: message.to_owned(), errno: None }
}

fn dumpable(yes: bool) -> rustix::io::Result<()> {
    let how = if yes { DumpableBehavior::Dumpable } else { DumpableBehavior::NotDumpable };
    rustix::process::set_dumpable_behavior(how)
}

fn keep_only_standard() -> io::Result<()> {
    close_range(3, 0)
}

fn close_range(from: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: closes descriptors that no value in this process owns yet, or marks them close-on-exec.
    let done = unsafe { libc::syscall(libc::SYS_close_range, from, libc::c_uint::MAX, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The new namespace's own loopback, which is down at first.
fn loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::from(rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?);
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    // SAFETY: the request outlives the call and has the type that SIOCSIFFLAGS reads.
    let done = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `None` in the child. Safe to go on in the child because there is only ever one thread.
fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child's copy of every lock is free.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// Leaves without running what belongs to the parent.
fn exit(code: u8) -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(i32::from(code)) }
}
