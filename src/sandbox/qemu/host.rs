//! What this host has for machines: the emulator, processors, memory, and the note of how much room a disk has.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::stage;
use crate::sandbox::BootError;

const EMULATOR: &str = "qemu-system-x86_64";

/// How many processors a machine gets that is to have so many: no more than this host has.
pub(super) fn processors(wanted: u32) -> u32 {
    let has = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    wanted.clamp(1, u32::try_from(has).unwrap_or(u32::MAX))
}

/// Whether this host could ever have a machine with so much memory: the emulator's own words for it name no remedy.
pub(super) fn has_memory(memory_mib: u64) -> Result<(), BootError> {
    match crate::memory::total_mib() {
        Some(has) if memory_mib >= has => Err(BootError::Missing {
            what: format!("a machine with {memory_mib} MiB of memory is asked for, and this host has {has}"),
            hint: "lower sandbox.memory_mib, or that of its profile".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Beside what a guest writes of its disk.
pub(crate) const GRANTED: &str = "granted-mib";

/// The room a work disk has: what is asked for now, or what it once had, since its file system is that large and must
/// not meet a smaller limit in the middle of a write. Kept beside the disk, where no guest writes.
pub(super) async fn grant(disk: &Path, wanted: u64) -> Result<u64, BootError> {
    let place = disk.join(GRANTED);
    let keep = move || -> Result<u64, BootError> {
        crate::files::create_private_dir(place.parent().unwrap_or(&place))
            .map_err(|error| stage("made its disk", error))?;
        let had = std::fs::read_to_string(&place).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if wanted > had {
            crate::files::write_atomically(&place, wanted.to_string().as_bytes())
                .map_err(|error| stage("noted the size of its disk", error))?;
        }
        Ok(wanted.max(had))
    };
    tokio::task::spawn_blocking(keep).await.map_err(|error| stage("noted the size of its disk", error))?
}

/// The emulator on the search path, where a jail shows it.
pub(super) fn emulator() -> Result<PathBuf, BootError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(EMULATOR)).find(|file| file.is_file());
    let hint = "install it, on Debian with apt-get install qemu-system-x86";
    let missing = |what: String| BootError::Missing { what, hint: hint.to_owned() };
    let found = found.ok_or_else(|| missing(format!("{EMULATOR} is not installed")))?;
    let real = found.canonicalize().map_err(|error| missing(format!("{} cannot be used: {error}", found.display())))?;
    if real.starts_with("/usr") {
        return Ok(real);
    }
    Err(missing(format!("{} stands outside /usr, where its jail does not have it", real.display())))
}

/// Which emulator this is, without running it.
pub(super) fn identity(emulator: &Path) -> String {
    let meta = std::fs::metadata(emulator).ok();
    let modified = meta.as_ref().and_then(|meta| meta.modified().ok());
    let seconds = modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |d| d.as_secs());
    format!("{} {} {seconds}", emulator.display(), meta.map_or(0, |meta| meta.len()))
}

/// The host's processor, which a guest under KVM sees, and whose clock every guest runs by.
pub(super) fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = ["model name", "stepping", "microcode", "flags"];
    text.split("\n\n")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .collect()
}
