//! The work disk: formatted when it is blank, grown when it may be larger, mounted, never formatted again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::SeekFrom;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{AGENT, During, layers};
use crate::wire::Wake;

/// The parts of a work disk and where they are used, as in a jail.
const PARTS: [(&str, &str); 3] = [("tree", "/work"), ("home", "/home/agent"), ("state", "/state")];
/// Where an ext4 file system begins to say what it is.
const SUPERBLOCK: usize = 1024;
const MIB: u64 = 1024 * 1024;
/// What is looked at to tell whether a disk is blank.
const HEAD: u64 = 64 * 1024;
const PAGE: usize = 4096;
/// Where the initial root has a file system, in a file named after its size in MiB.
const BROUGHT: &str = "/blank";

fn mount_disk(device: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // Tables of inodes need no zeroes on a disk that was blank, and writing them costs the host.
    Ok(mount(device, layers::DISK, "ext4", flags, c"noinit_itable")?)
}

/// Shows the parts of the work disk where they are used.
fn show_parts() -> io::Result<()> {
    for (part, to) in PARTS {
        let part = Path::new(layers::DISK).join(part);
        own(&part)?;
        layers::bind(&part, Path::new(to))?;
    }
    Ok(())
}

/// A directory of the agent's.
fn own(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let meta = fs::symlink_metadata(dir)?;
    // A change that changes nothing is written all the same.
    if (meta.uid(), meta.gid()) == (AGENT, AGENT) { Ok(()) } else { chown(dir, Some(AGENT), Some(AGENT)) }
}

/// Finds the work disk, without opening it.
pub(super) fn find() -> io::Result<PathBuf> {
    let device = layers::device("work").during("looked for the work disk")?;
    device.ok_or_else(|| io::Error::other("the machine has no disk named `work`"))
}

/// Makes the work disk usable. A disk with anything on it that is not a sound file system is an error: it may be
/// the only copy of somebody's work.
pub(super) fn prepare(device: &Path, wake: &Wake, blank: Option<Blank>) -> io::Result<()> {
    match look(device).during("looked at the work disk")? {
        Found::Blank => {
            let ready = blank.filter(|blank| blank.fits(wake.disk_mib));
            let blank = ready.map_or_else(|| Blank::new(wake.disk_mib), Ok)?;
            blank.write(device).during("formatted the work disk")?;
        }
        Found::FileSystem { mib } if mib < wake.disk_mib => {
            // Only a checked file system may grow. What cannot grow stays as large as it is.
            let _ = run("e2fsck", &["-f", "-p", &text(device)]);
            let _ = run("resize2fs", &[&text(device), &size(wake.disk_mib)]);
        }
        Found::FileSystem { .. } => {}
        Found::Other => {
            return Err(io::Error::other("the work disk holds something that is no file system; it is left as it is"));
        }
    }
    if mount_disk(device).is_err() {
        let _ = run("e2fsck", &["-y", &text(device)]);
        mount_disk(device).during("mounted the work disk, after a repair")?;
    }
    show_parts().during("showed the work disk")
}

/// Lets go of the disk, so that its file system is clean.
pub(super) fn leave() -> io::Result<()> {
    for (_, to) in PARTS {
        let _ = unmount(to, UnmountFlags::DETACH);
    }
    Ok(unmount(layers::DISK, UnmountFlags::DETACH)?)
}

enum Found {
    Blank,
    FileSystem { mib: u64 },
    Other,
}

fn look(device: &Path) -> io::Result<Found> {
    let mut head = vec![0; usize::try_from(HEAD).unwrap_or_default()];
    File::open(device)?.read_exact(&mut head)?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok(Found::Blank);
    }
    let number = |at: usize| {
        let bytes = head.get(SUPERBLOCK + at..SUPERBLOCK + at + 4).and_then(|bytes| bytes.try_into().ok());
        u64::from(u32::from_le_bytes(bytes.unwrap_or_default()))
    };
    let magic = number(0x38) & 0xffff;
    let block = 1024_u64.checked_shl(u32::try_from(number(0x18)).unwrap_or(0)).unwrap_or(0);
    match magic {
        0xef53 => Ok(Found::FileSystem { mib: number(0x04).saturating_mul(block) / MIB }),
        _ => Ok(Found::Other),
    }
}

/// What formatting writes on a blank disk. It is made without the disk: the image brings it along for the usual size, and
/// a template has it ready for its own.
pub(super) struct Blank {
    mib: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Blank {
    /// The one of the image, if it has one. It is in the initial root, so it is read before that is left. It is no more
    /// than bytes here; the kernel is the first to read what they mean.
    pub(super) fn brought() -> io::Result<Option<Self>> {
        let Ok(mut entries) = fs::read_dir(BROUGHT) else { return Ok(None) };
        let Some(entry) = entries.next().transpose()? else { return Ok(None) };
        let mib = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let mib = mib.ok_or_else(|| io::Error::other("it is not named after its size"))?;
        let parts = pages(&fs::read(entry.path())?).ok_or_else(|| io::Error::other("it is cut off"))?;
        Ok(Some(Self { mib, parts }))
    }

    /// Whether it is for a disk of this size.
    pub(super) fn fits(&self, mib: u64) -> bool {
        self.mib == mib
    }

    /// For a disk of this size.
    pub(super) fn new(mib: u64) -> io::Result<Self> {
        let make = || -> io::Result<Self> {
            let (place, parts) = (Path::new("/run/symphony/blank"), Path::new("/run/symphony/parts"));
            for (part, _) in PARTS {
                fs::create_dir_all(parts)?;
                own(&parts.join(part))?;
            }
            let file = File::options().read(true).write(true).create(true).truncate(true).open(place)?;
            file.set_len(mib.saturating_mul(MIB))?;
            // The inode tables are not written: they are as blank as the disk.
            // Room to grow to 512 GiB, twice the largest disk: a page is written for each step of what is kept free.
            let options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,resize=134217728";
            let from = text(parts);
            let made = run(
                "mkfs.ext4",
                &["-q", "-F", "-b", "4096", "-m", "0", "-E", options, "-d", &from, &text(place), &size(mib)],
            );
            let made = made.and_then(|()| data(&file, mib.saturating_mul(MIB)));
            fs::remove_file(place)?;
            fs::remove_dir_all(parts)?;
            Ok(Self { mib, parts: made? })
        };
        make().during("made a file system")
    }

    /// Writes the beginning, which says that there is a file system, when the rest is on the disk: one that was not
    /// finished is still blank.
    fn write(&self, device: &Path) -> io::Result<()> {
        let device = File::options().write(true).open(device)?;
        for head in [false, true] {
            for (at, part) in self.parts.iter().filter(|(at, _)| (*at < HEAD) == head) {
                device.write_all_at(part, *at)?;
            }
            let now =
                libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
            // SAFETY: no memory is involved.
            if unsafe { libc::sync_file_range(device.as_raw_fd(), 0, 0, now) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

/// The pages of a list, each after its place on the disk.
fn pages(list: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let (records, rest) = list.as_chunks::<{ 8 + PAGE }>();
    let page = |record: &[u8; 8 + PAGE]| {
        let (at, page) = record.split_first_chunk()?;
        Some((u64::from_le_bytes(*at), page.to_vec()))
    };
    if rest.is_empty() { records.iter().map(page).collect() } else { None }
}

/// What is not zero in a sparse file, page by page.
fn data(file: &File, bytes: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data / HEAD * HEAD,
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let mut part = vec![0; usize::try_from(HEAD.min(bytes - at)).unwrap_or_default()];
        file.read_exact_at(&mut part, at)?;
        // Pages are the least a disk takes; most of the others are zero.
        for (page, text) in (at..).step_by(PAGE).zip(part.chunks(PAGE)) {
            if text.iter().any(|byte| *byte != 0) {
                parts.push((page, text.to_vec()));
            }
        }
        at += HEAD;
    }
    Ok(parts)
}

fn size(mib: u64) -> String {
    format!("{mib}M")
}

fn text(device: &Path) -> String {
    device.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(crate::init::ENVIRONMENT).stdin(Stdio::null());
    let done = command.output()?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("{program} said: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::{Blank, Found, HEAD, MIB, PAGE, SUPERBLOCK, look, pages};

    #[test]
    fn a_disk_whose_writing_was_cut_off_is_still_blank_whatever_the_order_of_the_list() {
        let place = tempfile::tempdir().expect("a directory");
        let disk = place.path().join("disk");
        File::create(&disk).and_then(|file| file.set_len(MIB)).expect("a disk");
        let mut head = vec![0; PAGE];
        head[SUPERBLOCK + 0x38..SUPERBLOCK + 0x3a].copy_from_slice(&0xef53_u16.to_le_bytes());
        let whole = vec![(0, head), (HEAD, vec![7; PAGE])];
        // No disk has this place: writing ends there.
        let cut = [whole.clone(), vec![(u64::MAX, vec![7; PAGE])]].concat();
        assert!(Blank { mib: 1, parts: cut }.write(&disk).is_err());
        assert_eq!(std::fs::read(&disk).expect("readable")[PAGE * 16], 7, "the control: something was written");
        assert!(matches!(look(&disk), Ok(Found::Blank)));
        Blank { mib: 1, parts: whole }.write(&disk).expect("written");
        assert!(matches!(look(&disk), Ok(Found::FileSystem { .. })));
    }

    #[test]
    fn a_list_of_pages_is_read_whole_or_not_at_all() {
        let list = [&8192_u64.to_le_bytes()[..], &[7; PAGE], &0_u64.to_le_bytes(), &[9; PAGE]].concat();
        assert_eq!(pages(&list), Some(vec![(8192, vec![7; PAGE]), (0, vec![9; PAGE])]));
        assert_eq!(pages(&[]), Some(Vec::new()));
        assert_eq!(pages(&list[..list.len() - 1]), None);
        assert_eq!(pages(&list[..PAGE]), None);
    }
}
