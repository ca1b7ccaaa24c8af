//! The conductor's hands on the real world: the workflow file, the tracker, runs, removals.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::future::BoxFuture;
use symphony_core::board::{Closed, Stocks};
use symphony_core::ids::{IssueId, StateName, WorkspaceKey};
use symphony_core::issue::{Issue, Scan};
use symphony_core::workflow::{Problem, Workflow};
use tokio::sync::{mpsc, watch};

use crate::conductor::{Chosen, Hands, Looked};
use crate::handoff::patch;
use crate::hooks::HookEnv;
use crate::layout::Layout;
use crate::lock::Roots;
use crate::nudge::{self, Nudge};
use crate::run::line::Ended;
use crate::run::models::closures;
use crate::run::{self, Parts, Start};
use crate::tracker::doorstep;
use crate::tracker::markdown::MarkdownTracker;
use crate::tracker::{Created, Moved, NewIssue, Tracker, TrackerError};
use crate::workflow_file::{Reload, WorkflowFile};
use crate::workspace::{Ground, Wanted, Workspaces};

/// What [`Hands`] acts on.
pub struct World {
    file: Arc<Mutex<WorkflowFile>>,
    parts: Arc<Parts>,
    tracker: Arc<Current>,
    watching: Arc<Watching>,
    roots: Arc<Mutex<Roots>>,
    ground: Ground,
}

/// The watch on the files of the workflow in force; ends with the conductor.
struct Watching {
    file: PathBuf,
    hints: mpsc::Sender<Nudge>,
    held: Mutex<Option<(PathBuf, nudge::Watch)>>,
}

impl Watching {
    /// Follows the workflow: another root needs another watch. Blocking.
    fn follow(&self, workflow: &Workflow) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !workflow.polling.watch {
            *held = None;
            return;
        }
        let root = &workflow.tracker.root;
        if held.as_ref().is_some_and(|(watched, _)| watched == root) {
            return;
        }
        let (watch, warnings) = nudge::watch(&self.file, root, self.hints.clone());
        for warning in warnings {
            tracing::warn!(path = %warning.path.display(), error = %warning.message,
                "cannot watch for file changes; they are noticed by polling");
        }
        *held = Some((root.clone(), watch));
    }
}

/// The tracker of the workflow in force; follows a reload.
struct Current(RwLock<(Arc<Workflow>, Arc<dyn Tracker>)>);

impl World {
    /// Joins the parts; the receiver wakes looks when files change. Without it polling works alone.
    /// `roots` holds that of the workflow; `providers` tells when one may answer again.
    pub fn new(
        file: WorkflowFile,
        parts: Arc<Parts>,
        roots: Roots,
        providers: watch::Receiver<()>,
    ) -> (Self, mpsc::Receiver<Nudge>) {
        let workflow = file.workflow();
        let (hints, nudges) = mpsc::channel(4);
        tokio::spawn(look_after(parts.sandboxes.changes(), hints.clone()));
        tokio::spawn(look_after(providers, hints.clone()));
        let watching = Watching { file: file.path().to_owned(), hints, held: Mutex::default() };
        watching.follow(&workflow);
        let tracker = Arc::new(Current(RwLock::new(fresh(&workflow))));
        let (file, watching) = (Arc::new(Mutex::new(file)), Arc::new(watching));
        let roots = Arc::new(Mutex::new(roots));
        let ground = Ground::new(parts.git.clone());
        (Self { file, parts, tracker, watching, roots, ground }, nudges)
    }

    /// The workflow in force. Blocks while it is read.
    pub fn in_force(&self) -> impl Fn() -> Arc<Workflow> + Send + Sync + 'static {
        let file = self.file.clone();
        move || file.lock().unwrap_or_else(PoisonError::into_inner).workflow()
    }

    /// The tracker of the workflow in force, for the doors.
    pub fn tracker(&self) -> Arc<dyn Tracker> {
        self.tracker.clone()
    }
}

/// A trial that ended, or a wait of a provider, may open what was closed.
async fn look_after<T>(mut changes: watch::Receiver<T>, hints: mpsc::Sender<Nudge>) {
    while changes.changed().await.is_ok() {
        // A full channel has a look coming anyway.
        if let Err(mpsc::error::TrySendError::Closed(_)) = hints.try_send(Nudge::Workflow) {
            return;
        }
    }
}

fn fresh(workflow: &Workflow) -> (Arc<Workflow>, Arc<dyn Tracker>) {
    let layout = Layout::of(&workflow.dir);
    let tracker = MarkdownTracker::after(workflow.tracker.root.clone(), vec![layout.airlocks(), layout.patches()]);
    (Arc::new(workflow.clone()), Arc::new(tracker))
}

impl Current {
    fn root(&self) -> PathBuf {
        self.0.read().unwrap_or_else(PoisonError::into_inner).0.tracker.root.clone()
    }

    fn now(&self) -> Arc<dyn Tracker> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Follows the workflow: a new root is a new tracker, the same root keeps its cache.
    fn follow(&self, workflow: &Arc<Workflow>) -> Arc<dyn Tracker> {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held.0.tracker.root != workflow.tracker.root {
            *held = fresh(workflow);
        }
        held.1.clone()
    }
}

impl Tracker for Current {
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>> {
        let tracker = self.now();
        Box::pin(async move { tracker.scan().await })
    }

    fn move_issue<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>> {
        let tracker = self.now();
        Box::pin(async move { tracker.move_issue(id, from, to).await })
    }

    fn check_move<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<(), TrackerError>> {
        let tracker = self.now();
        Box::pin(async move { tracker.check_move(id, from, to).await })
    }

    fn append_note<'a>(&'a self, id: &'a IssueId, note: &'a str) -> BoxFuture<'a, Result<(), TrackerError>> {
        let tracker = self.now();
        Box::pin(async move { tracker.append_note(id, note).await })
    }

    fn create(&self, new: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>> {
        let tracker = self.now();
        Box::pin(async move { tracker.create(new).await })
    }
}

/// What reading the workflow file again gave.
struct Read {
    workflow: Arc<Workflow>,
    problems: Vec<String>,
    warnings: Vec<String>,
    may_dispatch: bool,
}

fn read(file: &Mutex<WorkflowFile>) -> Read {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    if let Reload::Changed(change) = file.reload() {
        tracing::info!("workflow reloaded; runs under way keep the one they started with");
        if !change.restart_needed.is_empty() {
            tracing::warn!(keys = %change.restart_needed.join(", "), "restart symphony for these keys to take effect");
        }
    }
    let texts = |of: &[Problem]| of.iter().map(|problem| problem.in_file(file.path())).collect::<Vec<_>>();
    let broken: Vec<Problem> = file.broken().iter().filter(|problem| problem.is_error()).cloned().collect();
    let (problems, warnings) = (texts(&broken), texts(file.problems()));
    Read { workflow: file.workflow(), problems, warnings, may_dispatch: file.may_dispatch() }
}

/// A tracker root that another symphony runs is not used: the one before stays in force, and nothing new starts.
fn hold_root(read: &mut Read, roots: &Mutex<Roots>, before: PathBuf) {
    let held = roots.lock().unwrap_or_else(PoisonError::into_inner).hold(&read.workflow.tracker.root, false);
    if let Err(why) = held {
        read.problems.push(why);
        read.may_dispatch = false;
        let mut kept = (*read.workflow).clone();
        kept.tracker.root = before;
        read.workflow = Arc::new(kept);
    }
}

/// Reads the workflow file where blocking is allowed, holds its tracker root and keeps the watch on it.
async fn read_again(
    file: &Arc<Mutex<WorkflowFile>>,
    watching: &Arc<Watching>,
    roots: &Arc<Mutex<Roots>>,
    before: PathBuf,
) -> Read {
    let (again, watching, roots) = (file.clone(), watching.clone(), roots.clone());
    let reading = move || {
        let mut read = read(&again);
        hold_root(&mut read, &roots, before);
        read.warnings.extend(doorstep::warnings(&read.workflow));
        watching.follow(&read.workflow);
        read
    };
    match tokio::task::spawn_blocking(reading).await {
        Ok(read) => read,
        // Only a panic ends here; the lock is poisoned and the file's last good state stands.
        Err(error) => {
            let held = file.lock().unwrap_or_else(PoisonError::into_inner);
            Read {
                workflow: held.workflow(),
                problems: vec![format!("reading the workflow file crashed: {error}")],
                warnings: vec![],
                may_dispatch: false,
            }
        }
    }
}

/// Tracker roots that may change under one look before it takes what it has.
const LOOKS: u32 = 3;

impl Hands for World {
    fn look(&self) -> BoxFuture<'static, Looked> {
        let (file, tracker, sandboxes) = (self.file.clone(), self.tracker.clone(), self.parts.sandboxes.clone());
        let ask = self.parts.ask_credential.clone();
        let (watching, roots, ground) = (self.watching.clone(), self.roots.clone(), self.ground.clone());
        Box::pin(async move {
            let mut read = read_again(&file, &watching, &roots, tracker.root()).await;
            let mut current = tracker.follow(&read.workflow);
            let mut scan = current.scan().await;
            // An issue dropped after a change of the workflow must not run under the one before: what counts
            // is the version that stands after the scan.
            for _ in 0..LOOKS {
                let newer = read_again(&file, &watching, &roots, tracker.root()).await;
                let same_root = newer.workflow.tracker.root == read.workflow.tracker.root;
                read = newer;
                if same_root {
                    break;
                }
                current = tracker.follow(&read.workflow);
                scan = current.scan().await;
            }
            // After a reload this may be the first time that somebody asks for a runtime.
            sandboxes.notice(&read.workflow).await;
            sandboxes.begin(&read.workflow);
            let picked = sandboxes.pick(&read.workflow);
            let sandbox = Chosen::of(&picked);
            let stocks = match &picked {
                Ok(picked) => sandboxes.stocks(&read.workflow, picked.kind).await,
                Err(_) => Stocks::new(),
            };
            let closed = match (read.may_dispatch, picked) {
                (false, _) => Some(Closed::WorkflowBroken),
                (true, Err(closed)) => Some(closed),
                (true, Ok(_)) => ground.closed(&read.workflow).await,
            };
            let modelless = closures(&read.workflow, &ask).await;
            let patches = patch::there(&Layout::of(&read.workflow.dir).patches()).await;
            Looked {
                patches: Arc::new(patches),
                modelless,
                workflow: read.workflow,
                tracker: current,
                closed,
                sandbox,
                problems: read.problems,
                warnings: read.warnings,
                available_mib: crate::memory::available_mib(),
                stocks,
                scan: scan.map_err(|error| error.to_string()),
            }
        })
    }

    fn attempt(&self, start: Start) -> BoxFuture<'static, Ended> {
        Box::pin(run::attempt(self.parts.clone(), start))
    }

    fn remove_workspace(&self, mut issue: Issue, workflow: Arc<Workflow>) -> BoxFuture<'static, ()> {
        let (parts, tracker) = (self.parts.clone(), self.tracker.clone());
        Box::pin(async move {
            // Our own move to `Done` is newer than the copy we were given; the hook is told where the issue is.
            if workflow.hooks.before_remove.is_some()
                && let Ok(scan) = tracker.scan().await
                && let Some(now) = scan.issues.into_iter().find(|now| now.id == issue.id)
            {
                issue.state = now.state;
            }
            if let Err(error) = remove(&parts, &issue, &workflow).await {
                tracing::error!(issue_id = %issue.id, issue_identifier = %issue.identifier, %error,
                    "a finished issue's workspace is kept");
            }
        })
    }
}

/// The host workspace goes, then the work disk; the airlock keeps every commit.
async fn remove(parts: &Parts, issue: &Issue, workflow: &Workflow) -> Result<(), String> {
    let key = WorkspaceKey::of(&issue.identifier).map_err(|error| error.to_string())?;
    let workspaces = Workspaces::new(&workflow.workspace.root, &parts.instance, parts.git.clone());
    let workspaces = workspaces.map_err(|error| error.to_string())?;
    let env = HookEnv {
        issue_id: issue.id.0.clone(),
        identifier: issue.identifier.0.clone(),
        state: issue.state.0.clone(),
        workflow: parts.workflow_path.display().to_string(),
        ..HookEnv::default()
    };
    let wanted = Wanted {
        key: &key,
        workflow_dir: &workflow.dir,
        settings: &workflow.workspace,
        hooks: &workflow.hooks,
        env: &env,
        log: None,
    };
    workspaces.remove(&wanted).await.map_err(|error| error.to_string())?;
    let marks = crate::run::marker::standing(&parts.layout, &key);
    if let Some(marker) = marks.map_err(|error| error.to_string())?.first() {
        return Err(format!(
            "work may be left on its work disk that never came out ({} stands); move the issue back to take it up, or remove that file",
            marker.display()
        ));
    }
    let mut trouble = vec![];
    for owner in parts.sandboxes.owners() {
        let disk = parts.layout.work_disk(owner.kind.runtime(), &key);
        if parts.sandboxes.may_hold(&owner, &disk).await
            && let Err(error) = owner.sandbox.discard_disk(&disk).await
        {
            trouble.push(error.to_string());
        }
    }
    if trouble.is_empty() { Ok(()) } else { Err(trouble.join("; ")) }
}
