//! One attempt at an issue, from its workspace to the end of its sandbox, as one straight line.
//!
//! Exactly one [`RunEnd`] comes out. Whatever was begun is ended in reverse order, by code that stands
//! here, not by `Drop`; dropping the future (a second signal) kills the sandbox and every child.

pub mod egress;
mod export;
mod finish;
pub(crate) mod inside;
mod judge;
pub mod line;
pub(crate) mod marker;
mod mcp;
pub mod models;
pub(crate) mod program;
mod session;
mod spent;
pub mod stage;
mod takeover;
mod tools;
mod turns;
mod word;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use symphony_core::board::{FailureCode, Left as LeftBehind, NotNow, ParkReason, Plan, RunEnd, RunFailure, Whose};
use symphony_core::ids::WorkspaceKey;
use symphony_core::issue::Issue;
use symphony_core::prompt::{self, Prompt};
use symphony_core::runtimes::Kind;
use symphony_core::session::Kept;
use symphony_core::steering::Letter;
use symphony_core::workflow::{Sizes, Workflow};
use symphony_guest::mux::MuxStream;

use self::inside::Left;
use self::line::{Ended, Line, Report};
pub use self::mcp::{McpDoor, OpenMcp};
use self::session::Opening;
use self::word::Word;
use crate::airlock::{Advance, Airlock};
use crate::git::Git;
use crate::hooks::{Hook, HookEnv};
use crate::journal::Journal;
use crate::layout::Layout;
use crate::sandbox::choose::{Picked, Sandboxes};
use crate::tracker::Tracker;
use crate::workspace::{Ready, Wanted, WorkspaceError, Workspaces};

/// To fill a prompt in takes milliseconds, and some seconds where it costs all that it may.
const FILL_IN: Duration = Duration::from_secs(60);

/// Serves one connection of the guest's MCP port.
pub type ServeStream = Arc<dyn Fn(MuxStream) -> BoxFuture<'static, ()> + Send + Sync>;
/// What every run of this process shares.
pub struct Parts {
    /// Runs, counters, questions.
    pub journal: Journal,
    /// Where things stand.
    pub layout: Layout,
    /// Marks what is ours.
    pub instance: String,
    /// The host's git, with nobody's configuration.
    pub git: Git,
    /// What can isolate a run.
    pub sandboxes: Sandboxes,
    /// The guest's door to our tools.
    pub open_mcp: OpenMcp,
    /// The guest's door to models.
    pub open_broker: models::OpenBroker,
    /// The guest's way to the network.
    pub open_egress: egress::OpenEgress,
    /// What the host has for models.
    pub ask_credential: models::AskCredential,
    /// What `credentials: stage` reads.
    pub stage: stage::Stage,
    /// Absolute path of the workflow file, for hooks.
    pub workflow_path: PathBuf,
}

/// Everything one attempt is bound to from its dispatch on; a reload changes none of it (C173).
pub struct Start {
    /// What to run.
    pub plan: Plan,
    /// The workflow in force when it was dispatched.
    pub workflow: Arc<Workflow>,
    /// The tracker that showed the issue.
    pub tracker: Arc<dyn Tracker>,
    /// What humans said that no turn has taken yet, oldest first.
    pub letters: Vec<Letter>,
    /// The newest session of its agent.
    pub session: Option<Kept>,
    /// To and from the conductor.
    pub line: Line,
}

/// One attempt under way: its orders and the parts it works with.
pub(crate) struct Attempt {
    parts: Arc<Parts>,
    plan: Plan,
    workflow: Arc<Workflow>,
    tracker: Arc<dyn Tracker>,
    /// What isolates it, whatever becomes of the workflow.
    picked: Picked,
    /// What its sandbox gets.
    sizes: Sizes,
    key: WorkspaceKey,
    /// What humans said before it began.
    letters: Vec<Letter>,
    /// The session that an earlier run left.
    session: Option<Kept>,
    /// This run's directory below `.symphony/runs`.
    dir: PathBuf,
}

/// Carries out one attempt.
pub async fn attempt(parts: Arc<Parts>, start: Start) -> Ended {
    let Start { plan, workflow, tracker, letters, session, mut line } = start;
    let key = match WorkspaceKey::of(&plan.issue.identifier) {
        Ok(key) => key,
        Err(error) => return failed(FailureCode::InvalidWorkspaceKey, error).into(),
    };
    let dir = parts.layout.run(plan.run);
    if let Err(error) = crate::files::create_private_dir(&dir) {
        return failed(FailureCode::RunDirectory, format!("cannot create {}: {error}", dir.display())).into();
    }
    // The board asked the same at its newest look; what changed since then ends the run here.
    let picked = match parts.sandboxes.pick(&workflow) {
        Ok(picked) => picked,
        Err(closed) => return failed(FailureCode::SandboxBootFailed, NotNow::Closed(closed)).into(),
    };
    line.report(Report::Sandbox(picked.sandbox.label())).await;
    let sizes = match sizes(&workflow, &plan.issue, picked.kind) {
        Ok(sizes) => sizes,
        Err(why) => return failed(FailureCode::SandboxBootFailed, why).into(),
    };
    let attempt = Attempt { parts, plan, workflow, tracker, picked, sizes, key, letters, session, dir };
    let mut left = None;
    let end = attempt.carry_out(&mut line, &mut left).await;
    // Bundles are only on their way; what they carried stands in the airlock.
    for name in ["seed.bundle", "export.bundle"] {
        let _ = tokio::fs::remove_file(attempt.dir.join(name)).await;
    }
    Ended { end, left }
}

/// What the sandbox of this issue gets.
fn sizes(workflow: &Workflow, issue: &Issue, kind: Kind) -> Result<Sizes, String> {
    let sandbox = &workflow.sandbox;
    let profile = sandbox.profile_of(issue.profile.as_deref()).map_err(|error| error.to_string())?;
    match profile.and_then(|profile| profile.refused_by(kind)) {
        Some(why) => {
            let whose = Whose::of(issue.profile.as_ref(), sandbox.profile.as_ref());
            Err(NotNow::ProfileRefused { whose, why }.to_string())
        }
        None => Ok(sandbox.sizes(profile, kind, &workflow.smolvm)),
    }
}

impl Attempt {
    async fn carry_out(&self, line: &mut Line, left: &mut Option<LeftBehind>) -> RunEnd {
        // Cheap failures first: nothing is booted for an agent without models or a prompt that does not render (C179).
        if let Err(end) = self.has_models().await {
            return end;
        }
        let opening = tokio::select! {
            opening = self.opening() => opening,
            cause = line.stopped() => return RunEnd::Stopped(cause),
        };
        let opening = match opening {
            Ok(opening) => opening,
            Err(end) => return end,
        };
        let workspaces =
            match Workspaces::new(&self.workflow.workspace.root, &self.parts.instance, self.parts.git.clone()) {
                Ok(workspaces) => workspaces,
                Err(error) => return failed(FailureCode::WorkspaceError, error),
            };
        let log = self.dir.join("hooks.log");
        let env = self.hook_env(None);
        let wanted = self.wanted(&env, &log);
        let ready = tokio::select! {
            ready = workspaces.ensure(&wanted) => ready,
            cause = line.stopped() => return RunEnd::Stopped(cause),
        };
        let ready = match ready {
            Ok(ready) => ready,
            Err(error @ WorkspaceError::AfterCreate(_)) => return failed(FailureCode::AfterCreateFailed, error),
            Err(error) => return failed(FailureCode::WorkspaceError, error),
        };
        line.report(Report::Workspace(ready.path.clone())).await;

        let end = match self.before_run(&wanted, &ready, line).await {
            Ok(()) => self.work(&ready, opening, line, left).await,
            Err(end) => end,
        };
        // Symmetric with `before_run`, whatever became of the run (trap T7).
        let env = self.hook_env(Some(end.to_string()));
        if let Some(hook) = self.wanted(&env, &log).hook(Hook::AfterRun, &ready.path) {
            line.report(Report::Phase("after_run")).await;
            // Its failure is logged there and changes nothing (C147).
            let _ = hook.run().await;
        }
        crate::files::touch(&ready.path);
        end
    }

    async fn before_run(&self, wanted: &Wanted<'_>, ready: &Ready, line: &Line) -> Result<(), RunEnd> {
        let Some(hook) = wanted.hook(Hook::BeforeRun, &ready.path) else { return Ok(()) };
        line.report(Report::Phase("before_run")).await;
        tokio::select! {
            ran = hook.run() => ran.map_err(|error| failed(FailureCode::BeforeRunFailed, error)),
            cause = line.stopped() => Err(RunEnd::Stopped(cause)),
        }
    }

    /// Airlock, sandbox, turns, and what they left.
    async fn work(&self, ready: &Ready, opening: Opening, line: &mut Line, behind: &mut Option<LeftBehind>) -> RunEnd {
        let opened = tokio::select! {
            opened = Airlock::open(self.parts.git.clone(), self.parts.layout.root(), &self.key, ready) => opened,
            cause = line.stopped() => return RunEnd::Stopped(cause),
        };
        let airlock = match opened {
            Ok(airlock) => airlock,
            Err(error) => return failed(FailureCode::AirlockError, error),
        };
        let before = airlock.newest_tree().await.ok();
        let left = self.inside(&airlock, ready, opening, line).await;
        *behind = airlock.left_since(before.as_ref()).await.ok();
        match left {
            Left::Said(Word::Done(claim)) => self.hand_off(&airlock, &claim, line).await,
            Left::Said(Word::Move(handover)) => self.hand_on(&airlock, &handover, line).await,
            Left::Ended(end) => match self.advance(&airlock).await {
                Ok(()) => end,
                // An operator's word outranks what became of the branch.
                Err(_) if matches!(end, RunEnd::Stopped(_)) => end,
                Err(trouble) => trouble,
            },
        }
    }

    /// Moves the agent's branch in the host workspace to the verified head, by compare-and-swap.
    async fn advance(&self, airlock: &Airlock) -> Result<(), RunEnd> {
        match airlock.advance_branch(self.workflow.workspace.checkout).await {
            Ok(Advance::Advanced { .. } | Advance::NoRepository) => Ok(()),
            Ok(Advance::Diverged { found }) => {
                let found = found.map_or_else(|| "deleted".to_owned(), |oid| format!("at {oid}"));
                let detail = format!(
                    "{} is {found} now; this run's work is refs/symphony/head in the workspace, merge or reset, then move the issue back",
                    self.key.branch()
                );
                Err(RunEnd::NeedsHuman(ParkReason::Diverged { detail }))
            }
            Err(error) => Err(failed(FailureCode::AirlockError, error)),
        }
    }

    /// Fills the template in beside the runtime: an issue's words may make that long. What it may cost ends the
    /// thread, too, when nobody waits for it any more.
    async fn opening(&self) -> Result<Opening, RunEnd> {
        let (workflow, issue) = (Arc::clone(&self.workflow), self.plan.issue.clone());
        let attempt = turns::attempt_of(&self.plan);
        let filled = tokio::task::spawn_blocking(move || {
            let prompt = Prompt::parse(&workflow.prompt)?;
            let full = prompt.render(&issue, &attempt)?;
            let task = prompt.render(&issue, &prompt::Attempt::default())?;
            // How the last run ended is said in our own words, so it alone is no reason to say the task again.
            let retry = prompt::Attempt { last_end: None, last_left: None, ..attempt };
            let of_retries = prompt.render(&issue, &retry).map_or(true, |text| text != task);
            Ok::<_, prompt::PromptError>(Opening { full, task, of_retries })
        });
        let said = match tokio::time::timeout(FILL_IN, filled).await {
            Ok(Ok(Ok(opening))) => return Ok(opening),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => return Err(failed(FailureCode::Crashed, error)),
            Err(_) => format!("the prompt was not filled in within {} seconds", FILL_IN.as_secs()),
        };
        // Only an edit mends it: trying again would not.
        Err(RunEnd::NeedsHuman(ParkReason::Template { detail: said, prompt: self.workflow.prompt_key() }))
    }

    fn hook_env(&self, outcome: Option<String>) -> HookEnv {
        HookEnv {
            issue_id: self.plan.issue.id.0.clone(),
            identifier: self.plan.issue.identifier.0.clone(),
            state: self.plan.issue.state.0.clone(),
            attempt: self.plan.attempt,
            workflow: self.parts.workflow_path.display().to_string(),
            run: Some(self.plan.run.0),
            outcome,
        }
    }

    fn wanted<'a>(&'a self, env: &'a HookEnv, log: &'a std::path::Path) -> Wanted<'a> {
        Wanted {
            key: &self.key,
            workflow_dir: &self.workflow.dir,
            settings: &self.workflow.workspace,
            hooks: &self.workflow.hooks,
            env,
            log: Some(log),
        }
    }
}

fn failed(code: FailureCode, message: impl ToString) -> RunEnd {
    RunEnd::Failed(failure(code, message))
}

fn failure(code: FailureCode, message: impl ToString) -> RunFailure {
    RunFailure { code, message: message.to_string() }
}
