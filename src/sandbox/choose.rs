//! The runtimes of this process, what their trials said, and which of them a workflow gets.
//!
//! A trial boots for real and may take long, so it runs by itself; whoever asks meanwhile is told that it runs. The
//! decision is `symphony_core::runtimes`. Never a silent downgrade.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use symphony_core::board::{Closed, Stock, Stocks};
use symphony_core::runtimes::{Kind, NoChoice, Trial, Trials, choose, untried, worth_another_trial};
use symphony_core::workflow::Workflow;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::layout::Layout;

use super::jail::Jail;
use super::qemu::{Qemu, Templates};
use super::smolvm::{self, Smolvm};
use super::{BootError, Sandbox, TrialReport};

/// An emulated machine boots within this on a busy host, or never.
const TRIAL_DEADLINE: Duration = Duration::from_secs(300);
/// A trial that takes longer is said.
const QUIET: Duration = Duration::from_secs(1);
/// Between trials of what failed: twice as long each time, from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LAST_PAUSE: Duration = Duration::from_secs(3600);
/// For machines to be stopped in order.
const SWEEP_DEADLINE: Duration = Duration::from_secs(60);

mod looks;
#[cfg(test)]
mod tests;

use self::looks::Looks;

/// How a trial stands.
#[derive(Clone, Debug)]
pub enum State {
    /// It runs.
    Running,
    /// It ended.
    Ended(Result<TrialReport, BootError>),
}

/// The trial of one runtime.
#[derive(Clone, Debug)]
pub struct Tried {
    /// What it booted. Another image is another trial.
    image: Option<PathBuf>,
    state: State,
    /// Failures in a row, and when the last one was.
    failures: u32,
    since: Instant,
    /// It is tried again; what is known stands until that ends.
    again: bool,
    /// What it boots was not there at the newest look.
    lacking: bool,
}

/// Every runtime that this symphony has. Clones share the trials.
#[derive(Clone)]
pub struct Sandboxes {
    slots: Arc<BTreeMap<Kind, Arc<dyn Sandbox>>>,
    trials: Arc<watch::Sender<BTreeMap<Kind, Tried>>>,
    looks: Looks,
    templates: Option<Templates>,
}

/// What one run is isolated by, from its dispatch to its end.
#[derive(Clone)]
pub struct Picked {
    /// Which it is.
    pub kind: Kind,
    /// It.
    pub sandbox: Arc<dyn Sandbox>,
    /// Why it is this one.
    pub reason: String,
}

impl Sandboxes {
    /// Those of this machine, for the symphony whose executable is at `exe`, an absolute path.
    pub fn of_this_machine(exe: &Path, layout: &Layout, instance: &str, workflow: &Workflow) -> Self {
        let templates = Templates::new(layout.templates());
        let qemu = |kvm| Qemu::new(exe.to_owned(), kvm, Some(templates.clone()));
        let smolvm = smolvm(exe, layout.root().to_owned(), instance, workflow);
        Self { templates: Some(templates.clone()), ..Self::with(exe, smolvm, qemu(true), qemu(false)) }
    }

    /// The same for one look: nothing is kept, and nothing that was found out before is believed. `place` is empty.
    pub fn for_a_look(exe: &Path, place: &Path, workflow: &Workflow) -> Self {
        let qemu = |kvm| Qemu::new(exe.to_owned(), kvm, None).afresh();
        Self::with(exe, smolvm(exe, place.to_owned(), "doctor", workflow), qemu(true), qemu(false))
    }

    fn with(exe: &Path, smolvm: Smolvm, kvm: Qemu, tcg: Qemu) -> Self {
        let slots: [(Kind, Arc<dyn Sandbox>); 4] = [
            (Kind::Smolvm, Arc::new(smolvm)),
            (Kind::QemuKvm, Arc::new(kvm)),
            (Kind::QemuTcg, Arc::new(tcg)),
            (Kind::Jail, Arc::new(Jail::new(exe.to_owned()))),
        ];
        Self::new(slots)
    }

    /// These, none of them tried.
    pub fn new(slots: impl IntoIterator<Item = (Kind, Arc<dyn Sandbox>)>) -> Self {
        Self {
            slots: Arc::new(slots.into_iter().collect()),
            trials: Arc::new(watch::channel(BTreeMap::new()).0),
            looks: Looks::default(),
            templates: None,
        }
    }

    /// Where machines are saved after their boot, if they are.
    pub fn templates(&self) -> Option<&Templates> {
        self.templates.as_ref()
    }

    /// All of them, strongest first.
    pub fn all(&self) -> impl Iterator<Item = (Kind, &Arc<dyn Sandbox>)> {
        self.slots.iter().map(|(kind, sandbox)| (*kind, sandbox))
    }

    /// Stops what an earlier life of this symphony left running. Only before any run starts.
    pub async fn sweep(&self) {
        for (kind, sandbox) in self.all() {
            let swept = tokio::time::timeout(SWEEP_DEADLINE, sandbox.sweep()).await;
            if let Err(error) = swept.unwrap_or(Err(BootError::Deadline(SWEEP_DEADLINE))) {
                tracing::warn!(runtime = %kind, %error, "what an earlier symphony left may still run");
            }
        }
    }

    /// Changes whenever a trial begins or ends.
    pub fn changes(&self) -> watch::Receiver<BTreeMap<Kind, Tried>> {
        self.trials.subscribe()
    }

    /// What is known so far of runtimes with what this workflow has them boot.
    pub fn trials(&self, workflow: &Workflow) -> Trials {
        let tried = self.trials.borrow();
        let known = |kind: &Kind| {
            let tried = tried.get(kind).filter(|tried| tried.image == image_of(workflow, *kind));
            match tried.map(|tried| &tried.state) {
                None => Trial::Untried,
                Some(State::Running) => Trial::Running,
                Some(State::Ended(Ok(_))) => Trial::Passed,
                Some(State::Ended(Err(error))) => {
                    let (why, hint) = error.and_hint();
                    Trial::Failed { why, hint }
                }
            }
        };
        self.slots.keys().map(|kind| (*kind, known(kind))).collect()
    }

    /// What a trial measured, or why it failed; `None` before its end.
    pub fn report(&self, kind: Kind) -> Option<Result<TrialReport, BootError>> {
        match self.trials.borrow().get(&kind).map(|tried| &tried.state) {
            Some(State::Ended(report)) => Some(report.clone()),
            Some(State::Running) | None => None,
        }
    }

    /// Begins the trials that this workflow needs and nobody began. Returns at once.
    pub fn begin(&self, workflow: &Workflow) {
        for kind in untried(workflow, &self.trials(workflow)) {
            self.begin_one(kind, image_of(workflow, kind));
        }
        // Somebody may have installed what was missing; an image that came is noticed sooner.
        for kind in worth_another_trial(workflow, &self.trials(workflow)) {
            let is_due = |tried: &mut BTreeMap<Kind, Tried>| match tried.get_mut(&kind) {
                Some(tried) if !tried.again && tried.since.elapsed() >= pause(tried.failures) => {
                    tried.again = true;
                    true
                }
                _ => false,
            };
            // Nobody needs to look again because of a trial that only began.
            let mut due = false;
            self.trials.send_if_modified(|tried| {
                due = is_due(tried);
                false
            });
            if due {
                self.try_one(kind, image_of(workflow, kind));
            }
        }
    }

    /// Looks for the images of the runtimes that failed: one whose image came since then is tried again at once, by
    /// [`Sandboxes::begin`] what else it needs in its time.
    pub async fn notice(&self, workflow: &Workflow) {
        let kinds = worth_another_trial(workflow, &self.trials(workflow));
        let looks = kinds.into_iter().filter_map(|kind| {
            let (sandbox, image) = (self.slots.get(&kind)?, image_of(workflow, kind));
            Some(self.looks.at(kind, sandbox, image.clone(), vec![]).map(move |found| (kind, image, found)))
        });
        for (kind, image, found) in join_all(looks).await {
            let mut came = false;
            // Nobody needs to look again because of this one.
            self.trials.send_if_modified(|tried| {
                if let Some(tried) = tried.get_mut(&kind).filter(|tried| tried.image == image && !tried.again) {
                    came = tried.lacking && found == Stock::Complete;
                    match &found {
                        Stock::Complete => tried.lacking = false,
                        Stock::Lacking { .. } => tried.lacking = true,
                        Stock::Unclear(_) => {}
                    }
                    tried.again = came;
                }
                false
            });
            if came {
                self.try_one(kind, image);
            }
        }
    }

    /// What can be told now of the images that runs of this workflow boot, in a runtime of this kind.
    pub async fn stocks(&self, workflow: &Workflow, kind: Kind) -> Stocks {
        let Some(sandbox) = self.slots.get(&kind) else { return Stocks::new() };
        let profiles = workflow.sandbox.profiles.iter().map(|(name, profile)| (Some(name), Some(profile)));
        let looks = profiles.chain([(None, None)]).map(|(name, profile)| {
            let sizes = workflow.sandbox.sizes(profile, kind, &workflow.smolvm);
            let found = self.looks.at(kind, sandbox, sizes.image, sizes.packages);
            found.map(move |found| (name.cloned(), found))
        });
        // One that hangs must not use up the time of the others.
        join_all(looks).await.into_iter().collect()
    }

    fn begin_one(&self, kind: Kind, image: Option<PathBuf>) {
        let (state, since) = (State::Running, Instant::now());
        let running = Tried { image: image.clone(), state, failures: 0, since, again: false, lacking: false };
        let is_new = |tried: &mut BTreeMap<Kind, Tried>| match tried.get(&kind) {
            Some(known) if known.image == running.image => false,
            _ => {
                tried.insert(kind, running);
                true
            }
        };
        if self.slots.contains_key(&kind) && self.trials.send_if_modified(is_new) {
            self.try_one(kind, image);
        }
    }

    fn try_one(&self, kind: Kind, image: Option<PathBuf>) {
        let Some(sandbox) = self.slots.get(&kind).cloned() else { return };
        let (trials, looks) = (self.trials.clone(), self.looks.clone());
        tokio::spawn(async move {
            // Before the trial: what comes while it runs is noticed.
            let lacking = matches!(looks.at(kind, &sandbox, image.clone(), vec![]).await, Stock::Lacking { .. });
            let trial = AssertUnwindSafe(sandbox.trial(image.clone())).catch_unwind();
            tokio::pin!(trial);
            let told = tokio::time::timeout(QUIET, &mut trial).await;
            let ended = match told {
                Ok(ended) => Ok(ended),
                Err(_) => {
                    tracing::info!(runtime = %kind, "the sandbox is being tried");
                    tokio::time::timeout(TRIAL_DEADLINE, trial).await
                }
            };
            let ended = match ended {
                Ok(Ok(ended)) => ended,
                Ok(Err(_)) => Err(BootError::Stage {
                    stage: "was tried".to_owned(),
                    message: "the trial crashed; this is a bug in symphony".to_owned(),
                }),
                Err(_) => Err(BootError::Deadline(TRIAL_DEADLINE)),
            };
            match &ended {
                Ok(report) => tracing::debug!(runtime = %kind, ?report, "sandbox trial passed"),
                Err(error) => tracing::debug!(runtime = %kind, %error, "sandbox trial failed"),
            }
            // Of a trial that was overtaken by one of another image nobody wants to know.
            trials.send_if_modified(|tried| match tried.get_mut(&kind) {
                Some(tried) if tried.image == image => {
                    tried.failures = if ended.is_ok() { 0 } else { tried.failures.saturating_add(1) };
                    (tried.since, tried.again, tried.lacking) = (Instant::now(), false, lacking);
                    tried.state = State::Ended(ended);
                    true
                }
                _ => false,
            });
        });
    }

    /// Tries every runtime with what this workflow has it boot, and waits for all.
    pub async fn try_all(&self, workflow: &Workflow) {
        self.slots.keys().for_each(|kind| self.begin_one(*kind, image_of(workflow, *kind)));
        let ended = |tried: &BTreeMap<Kind, Tried>| self.slots.keys().all(|kind| has_ended(tried, *kind));
        // The sender is ours: it does not go away meanwhile.
        let _ = self.changes().wait_for(ended).await;
    }

    /// Tries what this workflow needs until it is clear what it gets, at most so long.
    pub async fn settle(&self, workflow: &Workflow, at_most: Duration) {
        let settling = async {
            let mut changes = self.changes();
            loop {
                changes.mark_unchanged();
                self.begin(workflow);
                if !matches!(choose(workflow, &self.trials(workflow)), Err(NoChoice::Trying(_))) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(at_most, settling).await;
    }

    /// Whether this runtime may hold anything of a work disk. smolvm keeps its own elsewhere, and where it does not work
    /// it cannot be asked.
    pub async fn may_hold(&self, owner: &Picked, disk: &Path) -> bool {
        let elsewhere = owner.kind == Kind::Smolvm && matches!(self.report(owner.kind), Some(Ok(_)));
        elsewhere || tokio::fs::try_exists(disk).await.unwrap_or(true)
    }

    /// What a run of this workflow gets.
    ///
    /// # Errors
    /// Why nothing, for the operator.
    pub fn pick(&self, workflow: &Workflow) -> Result<Picked, Closed> {
        match choose(workflow, &self.trials(workflow)) {
            Ok(choice) => {
                let sandbox = self.slots.get(&choice.kind).cloned();
                let missing = || Closed::NoSandbox(format!("this symphony has no {}", choice.kind.runtime()));
                sandbox.map(|sandbox| Picked { kind: choice.kind, sandbox, reason: choice.reason }).ok_or_else(missing)
            }
            Err(NoChoice::Trying(kind)) => Err(Closed::TryingSandbox(format!("{} is being tried", kind.runtime()))),
            Err(NoChoice::Nothing(why)) => Err(Closed::NoSandbox(why)),
        }
    }

    /// A runtime that works here, with what this workflow has it boot, and whose work disks have this name on them: to take
    /// work off one.
    ///
    /// # Errors
    /// Why there is none, a sentence.
    pub async fn working(&self, runtime: &str, workflow: &Workflow) -> Result<Picked, String> {
        let mut said = vec![];
        for (kind, sandbox) in self.all().filter(|(kind, _)| kind.runtime() == runtime) {
            let image = image_of(workflow, kind);
            self.begin_one(kind, image.clone());
            let settled = |tried: &BTreeMap<Kind, Tried>| {
                tried.get(&kind).is_none_or(|tried| tried.image != image || matches!(tried.state, State::Ended(_)))
            };
            // The sender is ours: it does not go away meanwhile.
            let _ = self.changes().wait_for(settled).await;
            match self.trials.borrow().get(&kind).filter(|tried| tried.image == image).map(|tried| &tried.state) {
                Some(State::Ended(Ok(_))) => return Ok(owning(kind, sandbox)),
                Some(State::Ended(Err(error))) => said.push(error.to_string()),
                Some(State::Running) | None => said.push("the workflow changed its image meanwhile".to_owned()),
            }
        }
        said.dedup();
        Err(if said.is_empty() { format!("this symphony has no {runtime}") } else { said.join("; ") })
    }

    /// The runtime whose work disks have this name on them: the one that works here, else any.
    pub fn owner(&self, runtime: &str) -> Option<Picked> {
        let of_it = |(kind, _): &(Kind, &Arc<dyn Sandbox>)| kind.runtime() == runtime;
        let works = self.all().filter(of_it).find(|(kind, _)| matches!(self.report(*kind), Some(Ok(_))));
        works.or_else(|| self.all().find(of_it)).map(|(kind, sandbox)| owning(kind, sandbox))
    }

    /// One of each name that work disks have on them, the jail's last: it removes directories, whatever is in them.
    pub fn owners(&self) -> Vec<Picked> {
        let mut names: Vec<&str> = self.all().map(|(kind, _)| kind.runtime()).collect();
        names.dedup();
        names.into_iter().filter_map(|name| self.owner(name)).collect()
    }
}

/// The guest program for other makes of machines stands beside the image for ours.
fn smolvm(exe: &Path, root: PathBuf, instance: &str, workflow: &Workflow) -> Smolvm {
    let guests = super::qemu::places(exe).into_iter().map(|place| place.join("symphony-guest"));
    let guests: Vec<PathBuf> = guests.collect();
    let guest = guests.iter().find(|guest| guest.is_file()).or(guests.last()).cloned();
    // No home and no clone: it is nowhere, and its name says what is missing.
    let guest = guest.unwrap_or_else(|| "symphony-guest".into());
    let places = smolvm::Places { root, guest, instance: instance.to_owned(), kvm: "/dev/kvm".into() };
    Smolvm::new(smolvm::Settings::of(&workflow.smolvm), places)
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(LAST_PAUSE)
}

fn owning(kind: Kind, sandbox: &Arc<dyn Sandbox>) -> Picked {
    Picked { kind, sandbox: sandbox.clone(), reason: "the work disk is its own".to_owned() }
}

/// What this workflow has the runs boot that name no profile.
fn image_of(workflow: &Workflow, kind: Kind) -> Option<PathBuf> {
    workflow.sandbox.sizes(None, kind, &workflow.smolvm).image
}

fn has_ended(tried: &BTreeMap<Kind, Tried>, kind: Kind) -> bool {
    tried.get(&kind).is_some_and(|tried| matches!(tried.state, State::Ended(_)))
}
