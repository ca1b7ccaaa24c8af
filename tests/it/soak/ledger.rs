//! What a process of ours holds, on the whole machine: counted before and after, and compared.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A busy machine buries its dead late.
const PATIENCE: Duration = Duration::from_secs(20);
/// Allocators keep some; a leak in every cycle is more.
const RSS_MIB: i64 = 16;
/// Others work on this machine as well; 200 machines that stayed would be some 12 GiB.
const AVAILABLE_MIB: i64 = 1024;

/// How what belongs to one process of ours is told from everybody else's.
pub(super) struct Marks {
    /// The process that boots.
    pub(super) maker: u32,
    /// A copy of the program that nobody else runs.
    pub(super) exe: PathBuf,
    /// Everything it writes, its temporary files too.
    pub(super) place: PathBuf,
}

/// Runs of one maker. Their numbers tell whose an emulator is.
pub(super) const RUNS: u64 = 1_000_000;

/// A count of everything.
pub(super) struct Ledger {
    descriptors: Vec<String>,
    memfds: usize,
    processes: Vec<String>,
    mounts: BTreeSet<String>,
    cgroups: Vec<PathBuf>,
    files: usize,
    disk_kib: u64,
    temporary: Vec<PathBuf>,
    rss_kib: i64,
    available_mib: i64,
}

impl Ledger {
    /// Of the calling process, which must be the maker.
    pub(super) fn take(marks: &Marks) -> Self {
        let links = fs::read_dir("/proc/self/fd").expect("readable").flatten();
        let mut descriptors: Vec<String> =
            links.filter_map(|link| Some(fs::read_link(link.path()).ok()?.display().to_string())).collect();
        descriptors.sort();
        let mut found = Vec::new();
        walk(&marks.place, &mut found);
        Self {
            memfds: descriptors.iter().filter(|link| link.starts_with("/memfd:")).count(),
            descriptors,
            processes: processes(marks),
            mounts: fs::read_to_string("/proc/self/mountinfo").expect("readable").lines().map(str::to_owned).collect(),
            cgroups: cgroups(marks.maker),
            files: found.len(),
            disk_kib: size_kib(&marks.place),
            temporary: entries(&marks.place.join("tmp")),
            rss_kib: number("/proc/self/status", "VmRSS:"),
            available_mib: number("/proc/meminfo", "MemAvailable:") / 1024,
        }
    }

    /// The figures side by side.
    pub(super) fn beside(&self, after: &Self) -> String {
        let rows = [
            ("descriptors", self.descriptors.len() as u64, after.descriptors.len() as u64),
            ("memfds", self.memfds as u64, after.memfds as u64),
            ("processes of ours", self.processes.len() as u64, after.processes.len() as u64),
            ("mounts", self.mounts.len() as u64, after.mounts.len() as u64),
            ("control groups", self.cgroups.len() as u64, after.cgroups.len() as u64),
            ("files", self.files as u64, after.files as u64),
            ("disk KiB", self.disk_kib, after.disk_kib),
            ("temporary entries", self.temporary.len() as u64, after.temporary.len() as u64),
            ("resident KiB", self.rss_kib.unsigned_abs(), after.rss_kib.unsigned_abs()),
            ("available MiB", self.available_mib.unsigned_abs(), after.available_mib.unsigned_abs()),
        ];
        rows.iter().fold(String::new(), |mut text, (name, before, after)| {
            let _ = writeln!(text, "  {name:<20} {before:>10} {after:>10}");
            text
        })
    }

    /// What is more in `after` than it was, in words; empty is well.
    fn left(&self, after: &Self) -> Vec<String> {
        let mut left = Vec::new();
        let mut more = |what: &str, now: &dyn std::fmt::Debug, is: bool| {
            if is {
                left.push(format!("{what}: {now:?}"));
            }
        };
        more("descriptors", &after.descriptors, after.descriptors.len() > self.descriptors.len());
        more("memfds", &after.memfds, after.memfds > self.memfds);
        more("processes", &after.processes, after.processes.len() > self.processes.len());
        let mounts: Vec<_> = after.mounts.difference(&self.mounts).collect();
        more("mounts", &mounts, !mounts.is_empty());
        more("control groups", &after.cgroups, after.cgroups.len() > self.cgroups.len());
        more("files", &after.files, after.files > self.files);
        // A directory that held many names keeps its size.
        more("disk KiB", &after.disk_kib, after.disk_kib > self.disk_kib + 256);
        more("temporary entries", &after.temporary, after.temporary.len() > self.temporary.len());
        more("resident KiB", &after.rss_kib, after.rss_kib > self.rss_kib + RSS_MIB * 1024);
        more("available MiB", &after.available_mib, after.available_mib + AVAILABLE_MIB < self.available_mib);
        left
    }

    /// Waits until the calling process holds no more than it did. Prints both counts; fails when it holds more.
    pub(super) async fn settle(&self, marks: &Marks, what: &str) {
        let (mut after, mut waited) = (Self::take(marks), Duration::ZERO);
        while !self.left(&after).is_empty() && waited < PATIENCE {
            tokio::time::sleep(Duration::from_millis(250)).await;
            waited += Duration::from_millis(250);
            after = Self::take(marks);
        }
        println!("{what}: {:<18} {:>10} {:>10}\n{}", "", "before", "after", self.beside(&after));
        let left = self.left(&after);
        assert!(left.is_empty(), "{what} left something: {left:#?}");
    }
}

/// Waits until no process of the maker's sandboxes runs any more; says which did not end.
pub(super) async fn buried(marks: &Marks) -> Vec<String> {
    for _ in 0..200 {
        if processes(marks).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    processes(marks)
}

/// Every process on the machine that belongs to a sandbox of this maker: by its program, its name or its group.
pub(super) fn processes(marks: &Marks) -> Vec<String> {
    let exe = fs::metadata(&marks.exe).map(|exe| (exe.dev(), exe.ino())).ok();
    let group = format!("/symphony-{}-", marks.maker);
    let ours = |at: &Path| {
        let program = fs::metadata(at.join("exe")).map(|exe| (exe.dev(), exe.ino())).ok();
        let arguments = fs::read(at.join("cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        let groups = fs::read_to_string(at.join("cgroup")).unwrap_or_default();
        (program.is_some() && program == exe)
            || arguments.any(|argument| run_of(argument).is_some_and(|run| run / RUNS == u64::from(marks.maker)))
            || groups.contains(&group)
    };
    let me = std::process::id();
    let all = pids().filter(|pid| *pid != me).map(|pid| Path::new("/proc").join(pid.to_string()));
    all.filter(|at| ours(at)).map(|at| described(&at)).collect()
}

fn run_of(argument: &[u8]) -> Option<u64> {
    std::str::from_utf8(argument).ok()?.strip_prefix("symphony-run-")?.parse().ok()
}

fn described(at: &Path) -> String {
    let arguments = fs::read(at.join("cmdline")).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&arguments).replace('\0', " ").chars().take(120).collect();
    let name = fs::read_to_string(at.join("comm")).unwrap_or_default();
    format!("{} {}: {text}", at.display(), name.trim())
}

/// The control groups that this maker made, in every hierarchy.
pub(super) fn cgroups(maker: u32) -> Vec<PathBuf> {
    let mark = format!("symphony-{maker}-");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let tops = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let mut found = Vec::new();
    for top in tops {
        groups_below(Path::new(top), &mut found);
    }
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&mark)));
    found
}

fn groups_below(at: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.push(entry.path());
            groups_below(&entry.path(), found);
        }
    }
}

/// The child processes of one.
pub(super) fn children(parent: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    pids().filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is there").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What a file, or everything below a directory, takes on the disk.
pub(super) fn size_kib(at: &Path) -> u64 {
    let mut found = vec![at.to_owned()];
    walk(at, &mut found);
    found.iter().filter_map(|path| Some(fs::symlink_metadata(path).ok()?.blocks() / 2)).sum()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for path in entries(dir) {
        if fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            walk(&path, found);
        }
        found.push(path);
    }
}

/// The number after this word of a file in `/proc`; 0 when there is none.
pub(super) fn number(file: &str, key: &str) -> i64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
