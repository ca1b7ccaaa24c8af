//! What stands below `.symphony/` and in the workspaces: listed, judged by `symphony_core::retention`, and removed by the
//! code that owns each kind. Only whoever holds the workflow's lock may remove; nothing here follows a link.

mod drafts;
mod stock;
mod upkeep;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use symphony_core::ids::{Identifier, WorkspaceKey};
use symphony_core::issue::Scan;
use symphony_core::retention::{Kind, Mark};
use symphony_core::workflow::Workflow;

pub use self::drafts::remove_drafts;
pub use self::stock::Stock;
use self::stock::Way;
pub use self::upkeep::Upkeep;
use crate::files::DOOMED;
use crate::hooks::HookEnv;
use crate::layout::Layout;
use crate::run::marker;
use crate::sandbox::choose::Sandboxes;
use crate::sandbox::{jail, qemu, smolvm};
use crate::workspace::{Wanted, Workspaces, making};

/// What looking and removing need. Held by the one process that has the workflow's lock.
pub struct Keeper<'a> {
    /// Where things stand.
    pub layout: &'a Layout,
    /// The workflow in force.
    pub workflow: &'a Workflow,
    /// Absolute path of its file, for hooks.
    pub workflow_path: &'a Path,
    /// Who this symphony is, across restarts.
    pub instance: &'a str,
    /// Runs with this number or a higher one never began.
    pub next_run: u64,
    /// They own the work disks.
    pub sandboxes: &'a Sandboxes,
    /// The workspaces, where there are any.
    pub workspaces: Option<&'a Workspaces>,
}

impl Keeper<'_> {
    /// Lists everything. What cannot be looked at is an error in the inventory, never an empty list. Blocking, but
    /// for what a runtime is asked.
    pub async fn look(&self, scan: Result<Scan, String>) -> Stock {
        let mut stock = Stock::default();
        match scan {
            Ok(scan) => stock.know(scan, self.workflow),
            Err(error) => stock.inventory.errors.push(format!("the issues could not be read: {error}")),
        }
        let unexported = stock.listed(&self.layout.marks());
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
                "templates" => stock.templates(self.layout, self.sandboxes.templates()),
                _ => drop(stock.put(Kind::Other, &path, Mark::Missing, Way::None)),
            }
        }
        // Whoever holds the lock knows that none runs.
        stock.runs(self.layout, self.next_run, &BTreeSet::new());
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
        stock.journal(self.layout);
        let mut listed = vec!["airlock", "disks", "machines", "patches", "runs"];
        if self.workspaces.is_some_and(|workspaces| is_same(workspaces.root(), &self.layout.root().join("workspaces")))
        {
            listed.push("workspaces");
        }
        let machines = self.machines(&mut stock).await;
        if machines.is_some_and(|machines| is_same(&machines, &self.layout.root().join("smolvm"))) {
            listed.push("smolvm");
        }
        stock.others(self.layout, &listed);
        stock
    }

    /// What smolvm keeps, wherever that is; the machine of a work disk counts as that disk. Says where.
    async fn machines(&self, stock: &mut Stock) -> Option<PathBuf> {
        let place = match smolvm::directory(self.layout.root()) {
            Ok(place) => place,
            Err(error) => {
                stock.inventory.errors.push(format!("cannot tell where the machines of smolvm are: {error}"));
                return None;
            }
        };
        if std::fs::symlink_metadata(&place).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return None;
        }
        let mut counted = 0_u64;
        for at in stock.of_runtime("smolvm") {
            let Some(disk) = stock.inventory.items.get(at).map(|item| PathBuf::from(&item.place)) else { continue };
            let owner = self.sandboxes.owner("smolvm");
            let machine = match &owner {
                Some(owner) => owner.sandbox.elsewhere(&disk).await,
                None => None,
            };
            let bytes = machine.and_then(|machine| stock::size(&machine));
            counted = counted.saturating_add(bytes.unwrap_or(0));
            stock.change(at, |item| item.bytes = item.bytes.and_then(|note| Some(note.saturating_add(bytes?))));
        }
        let at = stock.put(Kind::Other, &place, Mark::Ours, Way::None);
        stock.change(at, |item| item.bytes = item.bytes.map(|all| all.saturating_sub(counted)));
        Some(place)
    }

    fn disks(&self, stock: &mut Stock, runtime: &'static str, place: &Path, unexported: &BTreeSet<String>) {
        for (name, path) in stock.listed(place) {
            if std::fs::symlink_metadata(&path).is_ok_and(|about| about.is_file()) && name.ends_with(".unexported") {
                continue;
            }
            let rest = name.strip_prefix(DOOMED);
            let (key, aside) = match rest.unwrap_or(&name).split_once("+left-") {
                Some((key, run)) => (key.to_owned(), run.parse::<u64>().is_ok()),
                None => (rest.unwrap_or(&name).to_owned(), false),
            };
            let ours = if rest.is_some() { runtime != "smolvm" } else { is_disk(runtime, &path) };
            let mark = if ours { Mark::Ours } else { Mark::Missing };
            let way = if rest.is_some() { Way::DiskRest } else { Way::Disk(runtime) };
            let owner = stock.owner(&key);
            let at = stock.put(if aside { Kind::PutAside } else { Kind::WorkDisk }, &path, mark, way);
            stock.used_below(at, &path);
            if runtime == "qemu" {
                stock.used_at(at, &path.join("state/work.img"));
            }
            stock.change(at, |item| {
                (item.owner, item.doomed) = (owner, rest.is_some());
                item.unexported = unexported.contains(&key);
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
            // Its issue may be gone, and the mark on it stands all the same.
            let named = WorkspaceKey::of(&Identifier(name.clone())).ok().filter(|key| key.as_str() == name);
            let ours = known.as_ref().or(named.as_ref()).is_some_and(|key| matches!(workspaces.is_ours(key), Ok(true)));
            let way = known.filter(|_| ours).map_or(Way::None, Way::Workspace);
            let owner = stock.owner(&name);
            let at = stock.put(Kind::Workspace, &path, if ours { Mark::Ours } else { Mark::Missing }, way);
            stock.used_below(at, &path);
            stock.change(at, |item| item.owner = owner);
        }
        stock.half_removed(workspaces.root(), self.instance);
        // Nobody makes one now: these were never in their place.
        for (name, path) in stock.listed(&making(workspaces.root())) {
            let key = WorkspaceKey::of(&Identifier(name.clone())).ok().filter(|key| key.as_str() == name);
            let key = stock.issues.get(&name).map(|(key, _)| key.clone()).or(key);
            let ours = key.is_some_and(|key| matches!(workspaces.is_marked(&key), Ok(true)));
            let at = stock.put(Kind::Workspace, &path, if ours { Mark::Ours } else { Mark::Missing }, Way::Rest);
            stock.change(at, |item| item.doomed = true);
        }
    }

    /// Removes one thing of the plan. What it was judged by is looked at once more.
    ///
    /// # Errors
    /// A sentence; the thing, or what is left of it, stays.
    pub async fn remove(&self, stock: &Stock, at: usize) -> Result<(), String> {
        let (path, way) = stock.still(at)?;
        match way {
            Way::None | Way::Run | Way::Template | Way::Backup | Way::Rest | Way::DiskRest => {
                stock.remove(at, self.sandboxes.templates())
            }
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

fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

/// Whether a directory has at its top what this runtime puts there, and nothing else.
fn is_disk(runtime: &str, path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let names: Option<Vec<String>> =
        entries.map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    let mut parts: Vec<&str> = if runtime == "smolvm" { vec!["smolvm"] } else { jail::PARTS.to_vec() };
    if runtime == "qemu" {
        parts.push(qemu::GRANTED);
    }
    names.is_some_and(|names| !names.is_empty() && names.iter().all(|name| parts.contains(&name.as_str())))
}
