//! From the kernel's hands to a console, drivers and the channel, with as little as possible.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, mount, mount_bind};

/// The image's root, in which there is a shell.
pub(crate) const ROOT: &str = "/r";

pub(crate) fn console() {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        let _ = fs::create_dir_all(at);
        let _ = mount(kind, at, kind, MountFlags::empty(), c"");
    }
    let Ok(console) = File::options().read(true).write(true).open("/dev/console") else { return };
    let _ = rustix::stdio::dup2_stdin(&console);
    let _ = rustix::stdio::dup2_stdout(&console);
    let _ = rustix::stdio::dup2_stderr(&console);
}

pub(crate) fn drivers() {
    for name in fs::read_to_string("/modules/order").unwrap_or_default().lines() {
        if let Ok(module) = File::open(Path::new("/modules").join(name.trim())) {
            let _ = rustix::system::finit_module(&module, c"", 0);
        }
    }
}

pub(crate) fn port() -> File {
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            let device = Path::new("/dev").join(entry.file_name());
            if name.trim() == "symphony.channel"
                && let Ok(port) = File::options().read(true).write(true).open(device)
            {
                return port;
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The disk with this name.
pub(crate) fn disk(serial: &str) -> Option<PathBuf> {
    fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        (found.trim() == serial).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// Mounts the image's root, so that a shell can be run in it.
pub(crate) fn root() {
    let _ = fs::create_dir_all(ROOT);
    let Some(disk) = disk("root") else { return };
    if mount(&disk, ROOT, "erofs", MountFlags::RDONLY, c"").is_err() {
        return;
    }
    let _ = mount("tmpfs", format!("{ROOT}/tmp"), "tmpfs", MountFlags::empty(), c"");
    for shared in ["dev", "proc", "sys"] {
        let _ = mount_bind(format!("/{shared}"), format!("{ROOT}/{shared}"));
    }
}
