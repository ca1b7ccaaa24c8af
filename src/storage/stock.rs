//! The list itself: what was found, by whose mark, and what removes it. A directory that cannot be listed is an error of
//! the whole list, and what cannot be told about a thing keeps that thing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use symphony_core::ids::{Identifier, WorkspaceKey};
use symphony_core::issue::{Issue, Scan};
use symphony_core::retention::{Inventory, Item, Kind, Mark, Owner};
use symphony_core::workflow::{Role, Workflow};

use crate::files::{self, DOOMED};
use crate::layout::Layout;
use crate::sandbox::jail;
use crate::sandbox::qemu::Templates;

/// A tree with more entries is measured as far as this: a guest may have made millions.
const MOST_ENTRIES: u32 = 1_000_000;

/// Files that are ours beside all that is listed, and the marks of work disks.
const OWN: [&str; 10] = [
    ".gitignore",
    "gitconfig",
    "instance",
    "journal-key",
    "journal-signed",
    "journal.db-shm",
    "journal.db-wal",
    "lock",
    "operator-token",
    "unexported",
];

/// What removes a thing.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// Nothing does.
    None,
    Workspace(WorkspaceKey),
    Disk(&'static str),
    /// What a cut-off removal of a disk left.
    DiskRest,
    /// What a cut-off making or removal of the host's own left.
    Rest,
    Template,
    Run,
    Backup,
}

/// Everything that was looked for, and how each thing is removed.
#[derive(Default)]
pub struct Stock {
    /// For the plan.
    pub inventory: Inventory,
    pub(super) ways: Vec<Way>,
    pub(super) issues: BTreeMap<String, (WorkspaceKey, Issue)>,
    roles: BTreeMap<String, Role>,
}

impl Stock {
    /// Takes what a look found. Of a name that a file has which cannot be read, too, nobody knows which of them counts.
    pub(super) fn know(&mut self, scan: Scan, workflow: &Workflow) {
        for issue in scan.issues {
            let Ok(key) = WorkspaceKey::of(&issue.identifier) else { continue };
            self.roles.insert(key.as_str().to_owned(), workflow.states.role(&issue.state));
            self.issues.insert(key.as_str().to_owned(), (key, issue));
        }
        for broken in scan.malformed {
            let name = Path::new(&broken.file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if let Ok(key) = WorkspaceKey::of(&Identifier(name)) {
                self.roles.remove(key.as_str());
            }
        }
    }

    pub(super) fn owner(&self, key: &str) -> Owner {
        self.roles.get(key).map_or(Owner::Unknown, |role| Owner::Issue(*role))
    }

    /// Templates of machines. What a machine of this process uses is live.
    pub(super) fn templates(&mut self, layout: &Layout, templates: Option<&Templates>) {
        let in_use = templates.map(Templates::in_use).unwrap_or_default();
        for (name, path) in self.listed(&layout.templates()) {
            let ours =
                name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()) && path.join("about.json").is_file();
            let doomed = name.starts_with(DOOMED);
            let mark = if ours || doomed { Mark::Ours } else { Mark::Missing };
            let way = if doomed { Way::Rest } else { Way::Template };
            let at = self.put(Kind::Template, &path, mark, way);
            self.change(at, |item| (item.doomed, item.live) = (doomed, in_use.contains(&name)));
        }
    }

    /// Directories of runs, of which those below `begun` began at some time.
    pub(super) fn runs(&mut self, layout: &Layout, begun: u64, running: &BTreeSet<u64>) {
        for (name, path) in self.listed(&layout.runs()) {
            let doomed = name.starts_with(DOOMED);
            let number = name.strip_prefix(DOOMED).unwrap_or(&name);
            let run = number.parse::<u64>().ok().filter(|run| run.to_string() == number && *run < begun);
            let mark = if run.is_some() { Mark::Ours } else { Mark::Missing };
            let at = self.put(Kind::Run, &path, mark, if doomed { Way::Rest } else { Way::Run });
            // Notes stand here until they are in their issue.
            let notes = std::fs::symlink_metadata(path.join("notes.md"));
            let none = notes.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            self.used_below(at, &path);
            self.change(at, |item| {
                (item.unexported, item.doomed) = (!none, doomed);
                item.live = run.is_some_and(|run| running.contains(&run));
            });
        }
    }

    /// The journal, and the copies that symphony made of it.
    pub(super) fn journal(&mut self, layout: &Layout) {
        for (name, path) in self.listed_root(layout) {
            if name == "journal.db" {
                self.put(Kind::Journal, &path, Mark::Ours, Way::None);
            } else if is_copy(&name) {
                let plain = std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_file());
                let mark = if plain { Mark::Ours } else { Mark::Missing };
                self.put(Kind::JournalBackup, &path, mark, Way::Backup);
            }
        }
    }

    /// What stands directly in our directory beside the journal: files of our own, which nothing removes, and what is not
    /// known. `listed` are directories whose contents are listed elsewhere.
    pub(super) fn others(&mut self, layout: &Layout, listed: &[&str]) {
        for (name, path) in self.listed_root(layout) {
            if name == "journal.db" || is_copy(&name) || listed.contains(&name.as_str()) {
                continue;
            }
            let mark = if OWN.contains(&name.as_str()) { Mark::Ours } else { Mark::Missing };
            self.put(Kind::Other, &path, mark, Way::None);
        }
    }

    /// Our directory may be a link, which is followed at every start; nothing below it may.
    fn listed_root(&mut self, layout: &Layout) -> Vec<(String, PathBuf)> {
        let root = std::fs::canonicalize(layout.root()).unwrap_or_else(|_| layout.root().to_owned());
        let below = |(name, _)| {
            let path = layout.root().join(&name);
            (name, path)
        };
        self.listed(&root).into_iter().map(below).collect()
    }

    /// Workspaces that this instance did not remove to the end.
    pub(super) fn half_removed(&mut self, root: &Path, instance: &str) {
        for (_, path) in self.listed(&crate::workspace::removing(root, instance)) {
            let at = self.put(Kind::Workspace, &path, Mark::Ours, Way::Rest);
            self.change(at, |item| item.doomed = true);
        }
    }

    /// Work disks that were not removed to the end: half of one is nobody's. A mark may speak of a newer disk of that name,
    /// and keeps both.
    pub(super) fn disk_rests(&mut self, layout: &Layout) {
        for place in [layout.root().join("disks"), layout.root().join("machines/qemu")] {
            for (name, path) in self.listed(&place) {
                let Some(rest) = name.strip_prefix(DOOMED) else { continue };
                let key = rest.split_once("+left-").map_or(rest, |(key, _)| key);
                let marks = [layout.marks().join(key), place.join(format!("{key}.unexported"))];
                let absent = |mark: &PathBuf| {
                    std::fs::symlink_metadata(mark).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
                };
                let unexported = !marks.iter().all(absent);
                let at = self.put(Kind::WorkDisk, &path, Mark::Ours, Way::DiskRest);
                self.change(at, |item| (item.doomed, item.unexported) = (true, unexported));
            }
        }
    }

    /// Removes a thing that no run needs by itself. Blocking.
    ///
    /// # Errors
    /// A sentence; the thing, or what is left of it, stays.
    pub(super) fn remove(&self, at: usize, templates: Option<&Templates>) -> Result<(), String> {
        let (path, way) = self.still(at)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let removed = match way {
            Way::Backup => std::fs::remove_file(path),
            Way::Run => files::doom(path).and_then(|doomed| files::remove_tree(&doomed)),
            Way::Rest => files::remove_tree(path),
            Way::DiskRest => return jail::finish_discard(path).map_err(|error| error.to_string()),
            Way::Template => match templates {
                Some(templates) => templates.remove(&name),
                None => return Err("this symphony has no templates".to_owned()),
            },
            Way::None | Way::Workspace(_) | Way::Disk(_) => {
                return Err("nothing removes things of its kind here".to_owned());
            }
        };
        removed.map_err(|error| error.to_string())
    }

    /// A thing of the list that is still what it was: there, and no link.
    pub(super) fn still(&self, at: usize) -> Result<(&Path, &Way), String> {
        let (Some(item), Some(way)) = (self.inventory.items.get(at), self.ways.get(at)) else {
            return Err("it is not in the inventory".to_owned());
        };
        let path = Path::new(&item.place);
        match std::fs::symlink_metadata(path) {
            Ok(about) if about.is_symlink() => Err("it became a symbolic link".to_owned()),
            Ok(_) => Ok((path, way)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Names and paths in a directory of ours; a missing one is empty, a link is not entered.
    pub(super) fn listed(&mut self, dir: &Path) -> Vec<(String, PathBuf)> {
        let listed = || -> io::Result<Vec<(String, PathBuf)>> {
            match std::fs::symlink_metadata(dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
                Ok(about) if about.is_symlink() => return Err(io::Error::other("it is a symbolic link")),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            let entries = std::fs::read_dir(dir)?;
            let named = |entry: std::fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
            entries.map(|entry| entry.map(named)).collect()
        };
        let mut found = listed().unwrap_or_else(|error| {
            self.inventory.errors.push(format!("cannot list {}: {error}", dir.display()));
            vec![]
        });
        found.sort();
        found
    }

    pub(super) fn put(&mut self, kind: Kind, path: &Path, mark: Mark, way: Way) -> usize {
        let about = std::fs::symlink_metadata(path);
        let is_link = about.as_ref().is_ok_and(std::fs::Metadata::is_symlink);
        let idle = about.ok().and_then(|about| about.modified().ok()).map(idle_ms);
        self.inventory.items.push(Item {
            kind,
            place: path.display().to_string(),
            bytes: size(path),
            idle_ms: idle,
            mark: if is_link { Mark::Link } else { mark },
            owner: Owner::Nobody,
            live: false,
            unexported: false,
            doomed: false,
        });
        self.ways.push(way);
        self.inventory.items.len() - 1
    }

    /// Work disks of a runtime, by where they are in the list.
    pub(super) fn of_runtime(&self, runtime: &str) -> Vec<usize> {
        let is_one = |(_, way): &(usize, &Way)| matches!(way, Way::Disk(of) if *of == runtime);
        self.ways.iter().enumerate().filter(is_one).map(|(at, _)| at).collect()
    }

    /// A time below counts as its last use as well: whoever writes into a tree changes no time at its top. One that a
    /// guest forged can only lengthen the stay.
    pub(super) fn used_below(&mut self, at: usize, path: &Path) {
        let last = newest_below(path);
        self.change(at, |item| item.idle_ms = item.idle_ms.min(last));
    }

    /// The same of one file, where it is.
    pub(super) fn used_at(&mut self, at: usize, file: &Path) {
        let last = std::fs::symlink_metadata(file).ok().and_then(|about| about.modified().ok()).map(idle_ms);
        self.change(at, |item| item.idle_ms = item.idle_ms.map(|idle| idle.min(last.unwrap_or(idle))));
    }

    pub(super) fn change(&mut self, at: usize, change: impl FnOnce(&mut Item)) {
        if let Some(item) = self.inventory.items.get_mut(at) {
            change(item);
        }
    }
}

/// Whether a name is one that we give to a copy of the journal, a half-made one included: what a person calls theirs is theirs.
fn is_copy(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = name.strip_prefix("journal.db.format-").is_some_and(|end| match end.split_once('.') {
        Some((format, number)) => is_number(format) && is_number(number),
        None => is_number(end),
    });
    is_whole || name == "journal.db.writing"
}

/// A time that has not come yet counts as now.
fn idle_ms(last: SystemTime) -> u64 {
    let idle = SystemTime::now().duration_since(last).unwrap_or_default();
    u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)
}

/// Since the last change of anything directly in the directory; `None`: not all of it can be looked at.
fn newest_below(dir: &Path) -> Option<u64> {
    let mut newest = u64::MAX;
    for entry in std::fs::read_dir(dir).ok()? {
        newest = newest.min(idle_ms(entry.ok()?.metadata().ok()?.modified().ok()?));
    }
    Some(newest)
}

/// What a tree takes on the disk, without following a link or entering another mount; `None`: it cannot be told.
pub(super) fn size(top: &Path) -> Option<u64> {
    let about = std::fs::symlink_metadata(top).ok()?;
    let blocks = |blocks: u64| blocks.saturating_mul(512);
    if !about.is_dir() {
        return Some(blocks(about.blocks()));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let root = rustix::fs::open(top, flags, Mode::empty()).ok()?;
    let (mut pending, mut bytes, mut left) = (vec![PathBuf::from(".")], blocks(about.blocks()), MOST_ENTRIES);
    while let Some(at) = pending.pop() {
        // What a guest made unreadable is not counted; it must not be able to stop a look.
        let Ok(dir) = openat2(&root, &at, flags, Mode::empty(), strict) else { continue };
        let Ok(entries) = rustix::fs::Dir::read_from(&dir) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            left = left.checked_sub(1)?;
            let Ok(stat) = rustix::fs::statat(&dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) else { continue };
            bytes = bytes.saturating_add(blocks(u64::try_from(stat.st_blocks).unwrap_or(0)));
            if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
                use std::os::unix::ffi::OsStrExt as _;
                pending.push(at.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use symphony_core::retention::{Due, Kept, plan};
    use symphony_core::workflow::{Bounds, Retention, Transcripts};

    const DAYS: Retention = Retention {
        workspaces_days: 1,
        work_disks_days: 1,
        templates: Bounds { max: 0, days: 1 },
        transcripts: Transcripts { days: 1, max_mib: 0 },
        journal_backups: Bounds { max: 0, days: 1 },
        journal_events: 0,
    };

    fn aged(path: &Path) {
        let then = SystemTime::now() - std::time::Duration::from_secs(9 * 24 * 60 * 60);
        std::fs::File::open(path).and_then(|file| file.set_modified(then)).expect("aged");
    }

    #[test]
    fn a_run_that_is_alive_or_that_nobody_began_stays_however_old_its_files_are() {
        let place = tempfile::tempdir().expect("directory");
        let layout = Layout::of(place.path());
        for run in ["1", "2", "3", "4", "+gone-3", "+gone-4"] {
            let dir = layout.runs().join(run);
            std::fs::create_dir_all(&dir).expect("made");
            std::fs::write(dir.join("acp.jsonl"), "").expect("written");
            aged(&dir.join("acp.jsonl"));
            aged(&dir);
        }
        // A line of now in a directory that was not changed.
        std::fs::write(layout.runs().join("2/acp.jsonl"), "now").expect("written");
        aged(&layout.runs().join("2"));
        let mut stock = Stock::default();
        stock.runs(&layout, 4, &BTreeSet::from([1]));
        let verdict = |run: &str| {
            let path = layout.runs().join(run).display().to_string();
            let at = stock.inventory.items.iter().position(|item| item.place == path).expect("listed");
            plan(&stock.inventory, &DAYS)[at]
        };
        assert_eq!(verdict("1"), Err(Kept::Live));
        assert_eq!(verdict("2"), Err(Kept::NotYet { days: 1 }));
        assert_eq!(verdict("3"), Ok(Due::TooOld { days: 1 }));
        assert_eq!(verdict("4"), Err(Kept::NotOurs));
        assert_eq!((verdict("+gone-3"), verdict("+gone-4")), (Ok(Due::Begun), Err(Kept::NotOurs)));
    }

    #[test]
    fn what_becomes_a_link_between_the_look_and_its_removal_is_not_followed() {
        let place = tempfile::tempdir().expect("directory");
        let layout = Layout::of(place.path());
        let (run, outside) = (layout.runs().join("1"), place.path().join("outside"));
        for dir in [&run, &outside] {
            std::fs::create_dir_all(dir.join("kept")).expect("made");
        }
        let mut stock = Stock::default();
        stock.runs(&layout, 2, &BTreeSet::new());
        std::fs::remove_dir_all(&run).expect("removed");
        std::os::unix::fs::symlink(&outside, &run).expect("a link");
        assert!(stock.remove(0, None).is_err_and(|why| why.contains("symbolic link")));
        assert!(outside.join("kept").exists());
        std::fs::remove_file(&run).expect("removed");
        std::fs::create_dir_all(run.join("kept")).expect("made");
        assert_eq!(stock.remove(0, None), Ok(()), "the control");
        assert_eq!(std::fs::read_dir(layout.runs()).expect("lists").count(), 0);
    }
}
