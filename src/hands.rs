//! The conductor's hands on the real world: the workflow file, the tracker, runs, removals.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::future::BoxFuture;
use symphony_core::board::{Closed, RunEnd};
use symphony_core::ids::{IssueId, StateName, WorkspaceKey};
use symphony_core::issue::{Issue, Scan};
use symphony_core::workflow::Workflow;
use tokio::sync::mpsc;

use crate::conductor::{Hands, Looked};
use crate::hooks::HookEnv;
use crate::nudge;
use crate::run::{self, Parts, Start};
use crate::sandbox::{BootError, TrialReport, choose};
use crate::tracker::markdown::MarkdownTracker;
use crate::tracker::{Created, Moved, NewIssue, Tracker, TrackerError};
use crate::workflow_file::WorkflowFile;
use crate::workspace::{Wanted, Workspaces};

/// What [`Hands`] acts on.
pub struct World {
    file: Arc<Mutex<WorkflowFile>>,
    parts: Arc<Parts>,
    trial: Arc<Result<TrialReport, BootError>>,
    tracker: Arc<Current>,
}

/// The tracker of the workflow in force; follows a reload.
struct Current(RwLock<(Arc<Workflow>, Arc<dyn Tracker>)>);

impl World {
    /// Joins the parts; the receiver wakes looks when files change.
    pub fn new(file: WorkflowFile, parts: Arc<Parts>, trial: Result<TrialReport, BootError>) -> (Self, mpsc::Receiver<()>) {
        let workflow = file.workflow();
        let (nudge, nudges) = mpsc::channel(4);
        if workflow.polling.watch {
            watch(&workflow, file.path(), nudge);
        }
        let tracker = Arc::new(Current(RwLock::new((workflow.clone(), fresh(&workflow)))));
        (Self { file: Arc::new(Mutex::new(file)), parts, trial: Arc::new(trial), tracker }, nudges)
    }

    /// The tracker of the workflow in force, for the doors.
    pub fn tracker(&self) -> Arc<dyn Tracker> {
        self.tracker.clone()
    }
}

fn fresh(workflow: &Workflow) -> Arc<dyn Tracker> {
    Arc::new(MarkdownTracker::new(workflow.tracker.root.clone()))
}
