//! What stands below `.symphony/` and in the workspaces: listed, judged by `symphony_core::retention`, and removed by the
//! code that owns each kind. Only whoever holds the workflow's lock may remove; nothing here follows a link.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use symphony_core::ids::WorkspaceKey;
use symphony_core::issue::{Issue, Scan};
use symphony_core::retention::{Inventory, Item, Kind, Mark, Owner};
use symphony_core::workflow::{Role, Workflow};

use crate::hooks::HookEnv;
use crate::layout::Layout;
use crate::run::marker;
use crate::sandbox::choose::Sandboxes;
use crate::sandbox::jail;
use crate::workspace::{Wanted, Workspaces};

/// How a run's directory is called while it is removed.
const GONE: &str = ".gone-";
/// A tree with more entries is measured as far as this: a guest may have made millions.
const MOST_ENTRIES: u32 = 1_000_000;

/// What removes a thing.
#[derive(Clone, Debug)]
enum Way {
    /// Nothing does.
    None,
    Workspace(WorkspaceKey),
    Disk(&'static str),
    /// What a cut-off removal of a disk left.
    Rest,
    Template,
    Run,
    Backup,
}

/// Everything that exists, and how each thing is removed.
pub struct Stock {
    /// For the plan.
    pub inventory: Inventory,
    ways: Vec<Way>,
    issues: BTreeMap<String, (WorkspaceKey, Issue)>,
    roles: BTreeMap<String, Role>,
}

/// What looking and removing need. Held by the one process that has the workflow's lock.
pub struct Keeper<'a> {
    /// Where things stand.
    pub layout: &'a Layout,
    /// The workflow in force.
    pub workflow: &'a Workflow,
    /// Absolute path of its file, for hooks.
    pub workflow_path: &'a Path,
    /// Runs with this number or a higher one never began.
    pub next_run: u64,
    /// They own the work disks.
    pub sandboxes: &'a Sandboxes,
    /// The workspaces, where there are any.
    pub workspaces: Option<&'a Workspaces>,
}

impl Keeper<'_> {
    /// Lists everything. What cannot be looked at is an error in the inventory, never an empty list. Blocking.
    pub fn look(&self, scan: Result<Scan, String>) -> Stock {
        let mut stock =
            Stock { inventory: Inventory::default(), ways: vec![], issues: BTreeMap::new(), roles: BTreeMap::new() };
        match scan {
            Ok(scan) => stock.know(scan.issues, self.workflow),
            Err(error) => stock.inventory.errors.push(format!("the issues could not be read: {error}")),
        }
        let unexported = stock.listed(&self.layout.root().join("unexported"));
        let mut unexported: BTreeSet<String> = unexported.into_iter().map(|(name, _)| name).collect();
        let disks = self.layout.root().join("disks");
        unexported.extend(stock.listed(&disks).into_iter().filter_map(|(name, path)| {
            let is_mark = std::fs::symlink_metadata(path).map_or(true, |about| !about.is_dir());
            name.strip_suffix(".unexported").filter(|_| is_mark).map(str::to_owned)
        }));
        self.disks(&mut stock, "jail", &disks, &unexported);
        let machines = self.layout.root().join("machines");
        for (name, path) in stock.listed(&machines) {
            match name.as_str() {
                "qemu" => self.disks(&mut stock, "qemu", &path, &unexported),
                "smolvm" => self.disks(&mut stock, "smolvm", &path, &unexported),
                "templates" => self.templates(&mut stock),
                _ => drop(stock.put(Kind::Other, &path, Mark::Missing, Way::None)),
            }
        }
        self.runs(&mut stock);
        self.workspaces(&mut stock);
        for (_, path) in stock.listed(&self.layout.airlocks()) {
            let key = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let owner = stock.owner(&key);
            let at = stock.put(Kind::Airlock, &path, Mark::Ours, Way::None);
            stock.change(at, |item| item.owner = owner);
        }
        if self.layout.patches().exists() {
            stock.put(Kind::Patches, &self.layout.patches(), Mark::Ours, Way::None);
        }
        for (name, path) in stock.listed(self.layout.root()) {
            if name == "journal.db" {
                stock.put(Kind::Journal, &path, Mark::Ours, Way::None);
            } else if name.starts_with("journal.db.") {
                let plain = std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_file());
                let mark = if plain { Mark::Ours } else { Mark::Missing };
                stock.put(Kind::JournalBackup, &path, mark, Way::Backup);
            }
        }
        stock
    }

    fn disks(&self, stock: &mut Stock, runtime: &'static str, place: &Path, unexported: &BTreeSet<String>) {
        for (name, path) in stock.listed(place) {
            if std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()) && name.ends_with(".unexported") {
                continue;
            }
            // An issue may be called like a rest.
            let rest = name.strip_prefix(jail::DOOMED).filter(|_| !stock.issues.contains_key(&name));
            let (key, aside) = match rest.unwrap_or(&name).split_once("+left-") {
                Some((key, run)) => (key.to_owned(), run.parse::<u64>().is_ok()),
                None => (rest.unwrap_or(&name).to_owned(), false),
            };
            let ours = rest.is_some() && runtime != "smolvm" || is_disk(runtime, &path);
            let mark = if ours { Mark::Ours } else { Mark::Missing };
            let way = if rest.is_some() { Way::Rest } else { Way::Disk(runtime) };
            let owner = stock.owner(&key);
            let at = stock.put(if aside { Kind::PutAside } else { Kind::WorkDisk }, &path, mark, way);
            stock.change(at, |item| {
                (item.owner, item.doomed) = (owner, rest.is_some());
                item.unexported = unexported.contains(&key);
            });
        }
    }

    fn templates(&self, stock: &mut Stock) {
        for (name, path) in stock.listed(&self.layout.templates()) {
            let ours =
                name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit()) && path.join("about.json").is_file();
            let doomed = name.starts_with(GONE);
            let mark = if ours || doomed { Mark::Ours } else { Mark::Missing };
            let at = stock.put(Kind::Template, &path, mark, Way::Template);
            stock.change(at, |item| (item.owner, item.doomed) = (Owner::Nobody, doomed));
        }
    }

    fn runs(&self, stock: &mut Stock) {
        for (name, path) in stock.listed(&self.layout.root().join("runs")) {
            let number = name.strip_prefix(GONE).unwrap_or(&name);
            let known = number.parse::<u64>().is_ok_and(|run| run.to_string() == number && run < self.next_run);
            let at = stock.put(Kind::Run, &path, if known { Mark::Ours } else { Mark::Missing }, Way::Run);
            // Notes stand here until they are in their issue.
            let notes = path.join("notes.md").exists();
            let last = newest_below(&path);
            let doomed = name.starts_with(GONE);
            stock.change(at, |item| {
                (item.owner, item.unexported, item.doomed) = (Owner::Nobody, notes, doomed);
                item.idle_ms = item.idle_ms.min(last);
            });
        }
    }

    fn workspaces(&self, stock: &mut Stock) {
        let Some(workspaces) = self.workspaces else { return };
        for (name, path) in stock.listed(workspaces.root()) {
            if name == ".symphony" {
                continue;
            }
            let known = stock.issues.get(&name).map(|(key, _)| key.clone());
            let ours = known.as_ref().is_some_and(|key| matches!(workspaces.is_ours(key), Ok(true)));
            let way = known.filter(|_| ours).map_or(Way::None, Way::Workspace);
            let owner = stock.owner(&name);
            let at = stock.put(Kind::Workspace, &path, if ours { Mark::Ours } else { Mark::Missing }, way);
            stock.change(at, |item| item.owner = owner);
        }
    }

    /// Removes one thing of the plan. What it was judged by is looked at once more.
    ///
    /// # Errors
    /// A sentence; the thing, or what is left of it, stays.
    pub async fn remove(&self, stock: &Stock, at: usize) -> Result<(), String> {
        let (Some(item), Some(way)) = (stock.inventory.items.get(at), stock.ways.get(at)) else {
            return Err("it is not in the inventory".to_owned());
        };
        let path = Path::new(&item.place);
        let about = std::fs::symlink_metadata(path).map_err(|error| error.to_string())?;
        if about.is_symlink() {
            return Err("it became a symbolic link".to_owned());
        }
        match way {
            Way::None => Err("nothing removes things of its kind".to_owned()),
            Way::Backup => std::fs::remove_file(path).map_err(|error| error.to_string()),
            Way::Run | Way::Template => gone(path).map_err(|error| error.to_string()),
            Way::Rest => jail::finish_discard(path).map_err(|error| error.to_string()),
            Way::Disk(runtime) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let key = name.split_once("+left-").map_or(&*name, |(key, _)| key);
                let (key, _) = stock.issues.get(key).ok_or("its issue is not known")?;
                let marks = marker::standing(self.layout, key).map_err(|error| error.to_string())?;
                if !marks.is_empty() {
                    return Err("it may hold work that stands nowhere else".to_owned());
                }
                let owner = self.sandboxes.owner(runtime).ok_or("its runtime is not in this symphony")?;
                owner.sandbox.discard_disk(path).await.map_err(|error| error.to_string())
            }
            Way::Workspace(key) => {
                let workspaces = self.workspaces.ok_or("there are no workspaces")?;
                let (_, issue) = stock.issues.get(key.as_str()).ok_or("its issue is not known")?;
                let env = HookEnv {
                    issue_id: issue.id.0.clone(),
                    identifier: issue.identifier.0.clone(),
                    state: issue.state.0.clone(),
                    workflow: self.workflow_path.display().to_string(),
                    ..HookEnv::default()
                };
                let wanted = Wanted {
                    key,
                    workflow_dir: &self.workflow.dir,
                    settings: &self.workflow.workspace,
                    hooks: &self.workflow.hooks,
                    env: &env,
                    log: None,
                };
                workspaces.remove(&wanted).await.map(drop).map_err(|error| error.to_string())
            }
        }
    }
}

impl Stock {
    fn know(&mut self, issues: Vec<Issue>, workflow: &Workflow) {
        for issue in issues {
            let Ok(key) = WorkspaceKey::of(&issue.identifier) else { continue };
            self.roles.insert(key.as_str().to_owned(), workflow.states.role(&issue.state));
            self.issues.insert(key.as_str().to_owned(), (key, issue));
        }
    }

    fn owner(&self, key: &str) -> Owner {
        self.roles.get(key).map_or(Owner::Unknown, |role| Owner::Issue(*role))
    }

    /// Names and paths in a directory of ours; a missing one is empty, a link is not entered.
    fn listed(&mut self, dir: &Path) -> Vec<(String, PathBuf)> {
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

    fn put(&mut self, kind: Kind, path: &Path, mark: Mark, way: Way) -> usize {
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
            handed_off: false,
            doomed: false,
        });
        self.ways.push(way);
        self.inventory.items.len() - 1
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Item)) {
        if let Some(item) = self.inventory.items.get_mut(at) {
            change(item);
        }
    }
}

/// Whether a directory has at its top what this runtime puts there, and nothing else.
fn is_disk(runtime: &str, path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let names: Option<Vec<String>> =
        entries.map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    let parts: &[&str] = if runtime == "smolvm" { &["smolvm"] } else { &jail::PARTS };
    names.is_some_and(|names| !names.is_empty() && names.iter().all(|name| parts.contains(&name.as_str())))
}

/// A time that has not come yet counts as now.
fn idle_ms(last: SystemTime) -> u64 {
    let idle = SystemTime::now().duration_since(last).unwrap_or_default();
    u64::try_from(idle.as_millis()).unwrap_or(u64::MAX)
}

fn newest_below(dir: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).map(idle_ms).min()
}

/// Under another name first: half a directory is never taken for a whole one, and the next removal ends this one.
fn gone(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let doomed = match name.starts_with(GONE) {
        true => path.to_owned(),
        false => path.with_file_name(format!("{GONE}{name}")),
    };
    if doomed != path {
        std::fs::rename(path, &doomed)?;
    }
    std::fs::remove_dir_all(doomed)
}

/// What a tree takes on the disk, without following a link or entering another mount; `None`: it cannot be told.
fn size(top: &Path) -> Option<u64> {
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
