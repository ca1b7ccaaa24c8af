//! The root a guest sees: read-only layers of the image under a scratch layer in memory.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move};

use super::During;

/// The guest program inside.
pub(super) const PROGRAM: &str = "/run/symphony/symphony-guest";
/// Where the work disk is mounted; its parts are bound to where they are used.
pub(super) const DISK: &str = "/run/symphony/disk";

/// This program in the initial root.
const SELF: &str = "/init";
const BASE: &str = "/root-ro";
const AGENTS: &str = "/agents-ro";
const NEW: &str = "/newroot";
const QUIET: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What a kernel offers, in the initial root.
pub(super) fn kernel_file_systems() -> io::Result<()> {
    for name in ["/proc", "/sys", "/dev", BASE, AGENTS, NEW] {
        fs::create_dir_all(name)?;
    }
    mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, c"mode=0755")?;
    mount("proc", "/proc", "proc", QUIET, c"")?;
    mount("sysfs", "/sys", "sysfs", QUIET, c"")?;
    Ok(())
}

/// The block device that carries this serial number, once its driver has found it.
pub(super) fn device(serial: &str) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if found.trim() == serial {
            return Ok(Some(Path::new("/dev").join(entry.file_name())));
        }
    }
    Ok(None)
}

/// Stacks the layers and makes them the root.
pub(super) fn enter() -> io::Result<()> {
    let base = device("root").during("looked for its disks")?;
    let base = base.ok_or_else(|| io::Error::other("the machine has no disk named `root`"))?;
    mount(&base, BASE, "erofs", MountFlags::RDONLY | MountFlags::NODEV, c"").during("mounted the base layer")?;
    let mut lower = BASE.to_owned();
    if let Some(agents) = device("agents").during("looked for its disks")? {
        mount(&agents, AGENTS, "erofs", MountFlags::RDONLY | MountFlags::NODEV, c"").during("mounted the agents")?;
        lower = format!("{AGENTS}:{BASE}");
    }
    let stack = || -> io::Result<()> {
        fs::create_dir_all("/scratch")?;
        mount("tmpfs", "/scratch", "tmpfs", MountFlags::NODEV, c"mode=0755,size=50%")?;
        fs::create_dir("/scratch/upper")?;
        fs::create_dir("/scratch/work")?;
        let options = format!("lowerdir={lower},upperdir=/scratch/upper,workdir=/scratch/work");
        mount("overlay", NEW, "overlay", MountFlags::NODEV, std::ffi::CString::new(options)?.as_c_str())?;
        for name in ["dev", "proc", "sys", "run", "tmp", "work", "home/agent", "state"] {
            fs::create_dir_all(Path::new(NEW).join(name))?;
        }
        let program = format!("{NEW}{PROGRAM}");
        mount("tmpfs", format!("{NEW}/run"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755,size=10%")?;
        mount("tmpfs", format!("{NEW}/tmp"), "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777,size=50%")?;
        fs::create_dir_all(format!("{NEW}{DISK}"))?;
        // Shown, not copied: it is in memory once.
        fs::write(&program, "")?;
        Ok(mount_bind(SELF, &program)?)
    };
    stack().during("stacked its root")?;
    let swap = || -> io::Result<()> {
        for name in ["dev", "proc", "sys"] {
            mount_move(format!("/{name}"), format!("{NEW}/{name}"))?;
        }
        rustix::process::chdir(NEW)?;
        mount_move(".", "/")?;
        rustix::process::chroot(".")?;
        Ok(rustix::process::chdir("/")?)
    };
    swap().during("entered its root")?;
    devices().during("filled /dev")?;
    rustix::system::sethostname(b"symphony").during("set its host name")?;
    loopback().during("raised its loopback")
}

fn devices() -> io::Result<()> {
    fs::create_dir_all("/dev/shm")?;
    mount("tmpfs", "/dev/shm", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=1777,size=25%")?;
    fs::create_dir_all("/dev/pts")?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount("devpts", "/dev/pts", "devpts", flags, c"newinstance,ptmxmode=0666,mode=0620")?;
    for (name, target) in [("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")] {
        let place = Path::new("/dev").join(name);
        let _ = fs::remove_file(&place);
        symlink(target, place)?;
    }
    for (name, target) in [("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")] {
        let _ = symlink(target, Path::new("/dev").join(name));
    }
    // The agent's own user needs these, and nothing else that is a device.
    for name in ["null", "zero", "full", "random", "urandom", "tty"] {
        let _ = fs::set_permissions(Path::new("/dev").join(name), fs::Permissions::from_mode(0o666));
    }
    Ok(())
}

/// Lets namespaces that are made from now on see what is mounted here later: the work disk.
pub(super) fn share_mounts() -> io::Result<()> {
    Ok(mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// A `/proc` that shows the calling process's own pid namespace.
pub(super) fn own_proc() -> io::Result<()> {
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    Ok(mount("proc", "/proc", "proc", QUIET, c"")?)
}

/// Shows `from` at `to` as well.
pub(super) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    Ok(mount_bind(from, to)?)
}

fn loopback() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    let socket = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: the request outlives the call and has the type that SIOCSIFFLAGS reads.
    let done = unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
