//! The file system a guest sees: a private, read-only root with a few things cloned into it.
//!
//! Sources are cloned as detached mounts before anything is covered. A process that starts as root
//! clones while it is root, because only root reaches a disk below a 0700 directory; an ordinary
//! user clones in its own namespace. What is done with the clones afterwards is the same.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};

use super::wire::{During, Failure, LaunchSpec};

/// Where the new root is put together. Any directory would do; it is covered, then left.
const STAGE: &str = "/tmp";

/// Where the executable stands inside.
pub(super) const PROGRAM: &str = "/run/symphony/symphony";

/// What programs need of the host's `/etc`: linking, certificates, names of zones and services.
/// Never passwords, keys, or anything that a machine's owner writes secrets into.
const ETC: [&str; 16] = [
    "alternatives",
    "ca-certificates",
    "crypto-policies",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "pki/ca-trust/extracted",
    "pki/tls/certs",
    "protocols",
    "services",
    "ssl/cert.pem",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// Directories of the host's root that are links into /usr on merged systems, and real ones elsewhere.
const TOP: [&str; 6] = ["bin", "sbin", "lib", "lib64", "lib32", "libx32"];

const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Places a further readable path may neither be, contain, nor (but for the first group) lie in.
const OURS: [&str; 8] = ["/proc", "/sys", "/dev", "/run/symphony", "/work", "/home/agent", "/state", "/etc"];

const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Adds flags to a mount and everything below it.
fn restrict(mount: impl AsFd, flags: u64) -> io::Result<()> {
    let attr = MountAttr { set: flags, clear: 0, propagation: libc::MS_PRIVATE, userns: 0 };
    // SAFETY: the path is a valid empty C string, and `attr` outlives the call with its exact size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A detached copy of the mounts at `path`.
fn clone(path: &Path, flags: u64) -> io::Result<OwnedFd> {
    let how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(rustix::fs::CWD, path, how)?;
    if flags != 0 {
        restrict(&tree, flags)?;
    }
    Ok(tree)
}

/// A clone on its way to its place below the new root.
struct Piece {
    to: PathBuf,
    tree: OwnedFd,
    directory: bool,
}

/// Everything of the host that will be visible, held as detached mounts.
pub(super) struct Sources {
    pieces: Vec<Piece>,
    links: Vec<(PathBuf, PathBuf)>,
}

impl Sources {
    /// Clones everything; call it where the sources can be reached.
    pub(super) fn clone(spec: &LaunchSpec) -> Result<Self, Failure> {
        let mut sources = Self { pieces: Vec::new(), links: Vec::new() };
        let program = RDONLY | NOSUID | NODEV;
        sources.take(Path::new("/usr"), Path::new("usr"), program)?;
        for name in TOP {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => sources.links.push((target, PathBuf::from(name))),
                Err(_) => sources.take_if_present(&path, Path::new(name), program)?,
            }
        }
        for name in ETC {
            sources.take_if_present(&Path::new("/etc").join(name), &Path::new("etc").join(name), program)?;
        }
        for name in DEVICES {
            sources.take(&Path::new("/dev").join(name), &Path::new("dev").join(name), NOSUID)?;
        }
        for name in &spec.devices {
            sources.take(&Path::new("/dev").join(name), &Path::new("dev").join(name), NOSUID)?;
        }
        sources.take(&spec.exe, Path::new(&PROGRAM[1..]), program)?;
        for (from, to) in &spec.shown {
            sources.take(from, to, program)?;
        }
        for (part, to) in [("tree", "work"), ("home", "home/agent"), ("state", "state")] {
            sources.take(&spec.disk.join(part), Path::new(to), NOSUID | NODEV)?;
        }
        for path in &spec.read_only {
            if path.starts_with("/usr") {
                continue;
            }
            let to = admissible(path).map_err(|message| Failure {
                stage: format!("looked at `sandbox.jail.read_only` path {}", path.display()),
                message,
                errno: None,
            })?;
            sources.take(path, &to, program)?;
        }
        Ok(sources)
    }

    fn take(&mut self, from: &Path, to: &Path, flags: u64) -> Result<(), Failure> {
        let stage = || format!("made {} visible", from.display());
        let directory = fs::metadata(from).during(stage())?.is_dir();
        let tree = clone(from, flags).during(stage())?;
        self.pieces.push(Piece { to: to.to_owned(), tree, directory });
        Ok(())
    }

    fn take_if_present(&mut self, from: &Path, to: &Path, flags: u64) -> Result<(), Failure> {
        // What this user cannot even look at would be useless inside.
        if fs::metadata(from).is_err() { Ok(()) } else { self.take(from, to, flags) }
    }

    /// Puts the root together and enters it. Must be called by pid 1 of the new namespaces.
    pub(super) fn enter(self, spec: &LaunchSpec) -> Result<(), Failure> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).during("made its mounts private")?;
        tmpfs(Path::new(STAGE), "mode=0755,size=16m,nr_inodes=16k").during("mounted its root")?;
        let root = Path::new(STAGE);
        for name in ["dev", "etc", "home", "proc", "run", "tmp", "usr", "var"] {
            fs::create_dir(root.join(name)).during("made its root directories")?;
        }
        symlink("../tmp", root.join("var/tmp")).during("made its root directories")?;
        let scratch = |part: u64| format!("mode=1777,size={}m,nr_inodes=512k", (spec.memory_mib / part).max(16));
        tmpfs(&root.join("tmp"), &scratch(2)).during("mounted /tmp")?;
        for (target, name) in &self.links {
            symlink(target, root.join(name)).during("linked its root directories")?;
        }
        identity(&root.join("etc")).during("wrote its /etc")?;
        for piece in &self.pieces {
            let to = root.join(&piece.to);
            let stage = || format!("put /{} in place", piece.to.display());
            seat(&to, piece.directory).during(stage())?;
            attach(&piece.tree, &to).during(stage())?;
        }
        devices(&root.join("dev"), &scratch(4)).during("filled /dev")?;
        proc(&root.join("proc"))?;
        let swap = || -> io::Result<()> {
            rustix::process::chdir(root)?;
            rustix::process::pivot_root(".", ".")?;
            unmount(".", UnmountFlags::DETACH)?;
            rustix::process::chdir("/")?;
            let attr = File::open("/")?;
            // Not recursively: the disk and the private file systems stay writable.
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
            rustix::mount::mount_remount("/", flags, "")?;
            drop(attr);
            Ok(())
        };
        swap().during("entered its root")
    }
}

/// Where a further readable path goes, relative to the root.
fn admissible(path: &Path) -> Result<PathBuf, String> {
    let plain = path.is_absolute() && path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !plain {
        return Err("it must be absolute and without `..`".to_owned());
    }
    if path == Path::new("/tmp") || path == Path::new("/") {
        return Err("it would cover the jail's own".to_owned());
    }
    if let Some(ours) = OURS.iter().find(|ours| path.starts_with(ours) || Path::new(ours).starts_with(path)) {
        return Err(format!("it overlaps {ours}, which the jail makes itself"));
    }
    Ok(path.components().filter(|c| matches!(c, Component::Normal(_))).collect())
}

/// A mount point of the right kind.
fn seat(at: &Path, directory: bool) -> io::Result<()> {
    if directory {
        return fs::create_dir_all(at);
    }
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(at).map(drop)
}

fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    Ok(move_mount(tree, "", rustix::fs::CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn tmpfs(at: &Path, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount("tmpfs", at, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?)
}

/// Names for the one user, so that git, ssh and the like find one; and names for the loopback.
fn identity(etc: &Path) -> io::Result<()> {
    let files = [
        ("passwd", "agent:x:1000:1000:agent:/home/agent:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
        ("group", "agent:x:1000:\nnogroup:x:65534:\n"),
        ("hosts", "127.0.0.1 localhost symphony\n::1 localhost\n"),
        ("resolv.conf", "# There is no network; use the proxy.\n"),
        ("hostname", "symphony\n"),
    ];
    files.iter().try_for_each(|(name, text)| fs::write(etc.join(name), text))
}

fn devices(dev: &Path, shm: &str) -> io::Result<()> {
    fs::create_dir(dev.join("shm"))?;
    tmpfs(&dev.join("shm"), shm)?;
    fs::create_dir(dev.join("pts"))?;
    let quiet = MountFlags::NOSUID | MountFlags::NOEXEC;
    // Terminals are counted for the whole machine; a guest gets a share.
    mount("devpts", dev.join("pts"), "devpts", quiet, c"newinstance,ptmxmode=0666,mode=0620,max=64")?;
    symlink("pts/ptmx", dev.join("ptmx"))?;
    for (name, target) in [("fd", "self/fd"), ("stdin", "self/fd/0"), ("stdout", "self/fd/1"), ("stderr", "self/fd/2")]
    {
        symlink(Path::new("/proc").join(target), dev.join(name))?;
    }
    Ok(())
}

/// A /proc of the new pid namespace, without the doors in it that lead to the kernel.
fn proc(at: &Path) -> Result<(), Failure> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", at, "proc", flags, c"").during("mounted /proc")?;
    let close = || -> io::Result<()> {
        for name in ["sys", "bus", "fs", "irq", "acpi", "scsi", "tty"] {
            let path = at.join(name);
            if path.is_dir() {
                attach(&clone(&path, RDONLY | NOSUID | NODEV)?, &path)?;
            }
        }
        for name in
            ["kcore", "keys", "key-users", "sysrq-trigger", "timer_list", "latency_stats", "sched_debug", "kmsg"]
        {
            let path = at.join(name);
            if path.exists() {
                attach(&clone(Path::new("/dev/null"), RDONLY | NOSUID)?, &path)?;
            }
        }
        Ok(())
    };
    close().during("closed the doors in /proc")
}
