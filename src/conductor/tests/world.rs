//! The scripted world: a tracker, attempts and removals that do as told, and hang when told. The conductor, the board
//! and the journal in it are the real ones. Time is tokio's, paused: it moves on only when nothing else can.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use futures::future::BoxFuture;
use indexmap::IndexMap;
use symphony_core::board::{FailureCode, ParkReason, RetryKind, RunFailure};
use symphony_core::budget::Allowance;
use symphony_core::ids::StateName;
use symphony_core::issue::{Issue, Malformed};
use symphony_core::snapshot::Tokens;
use symphony_core::steering::{Asked, OpenQuestion};
use symphony_core::workflow as wf;

use super::super::*;
use crate::run::Start;
use crate::run::line::WAITING;
use crate::tracker::{Created, Moved, NewIssue, TrackerError};

/// What an attempt does, one after the other. After the last one it waits until it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    /// Says what isolates it.
    Isolated(&'static str),
    /// Begins a turn that no human asked for.
    Turn,
    /// Takes so many seconds.
    Work(u64),
    /// Asks a human and goes on with the answer.
    Ask,
    /// Says that it is done in the turn under way.
    Mark,
    /// Asks, and does not wait for the answer.
    AskAndGoOn,
    /// Hands its work off for so many seconds.
    HandOff(u64),
    /// Asks, but the journal does not know of it.
    AskOffRecord,
    /// Reports tokens.
    Spend(u64),
    /// Goes on only if the workflow's prompt is not the word `broken`.
    Render,
    /// Never ends and never heeds a stop.
    Wedge,
    /// Hands its work off.
    Done,
    /// Fails.
    Fail,
    /// Has used all turns of one run.
    TurnsUsed,
}

/// An attempt that began, as it was told.
#[derive(Clone, Debug)]
pub(super) struct Started {
    pub(super) name: String,
    pub(super) at: Instant,
    pub(super) attempt: Option<u32>,
    pub(super) kind: RetryKind,
    pub(super) allowance: Allowance,
}

/// What can be made to hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Scan,
    Move,
    Note,
    Removal,
}

pub(super) struct World {
    issues: Mutex<BTreeMap<String, Issue>>,
    malformed: Mutex<Vec<Malformed>>,
    scripts: Mutex<BTreeMap<String, Vec<Vec<Step>>>>,
    started: Mutex<Vec<Started>>,
    stops: Mutex<Vec<(String, StopCause, Instant)>>,
    hanging: Mutex<BTreeSet<Part>>,
    pub(super) workflow: Mutex<Arc<Workflow>>,
    pub(super) available_mib: Mutex<Option<u64>>,
    /// What one look takes.
    pub(super) look_takes: Mutex<Duration>,
    pub(super) looks: AtomicUsize,
    looking: AtomicUsize,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("lock")
}

impl World {
    /// A world whose workflow is the usual one with this change: two slots, the states Todo and Done.
    pub(super) fn new(change: impl FnOnce(&mut Workflow)) -> Arc<Self> {
        Arc::new(Self {
            issues: Mutex::default(),
            malformed: Mutex::default(),
            scripts: Mutex::default(),
            started: Mutex::default(),
            stops: Mutex::default(),
            hanging: Mutex::default(),
            workflow: Mutex::new(Arc::new(workflow(change))),
            available_mib: Mutex::default(),
            look_takes: Mutex::default(),
            looks: AtomicUsize::new(0),
            looking: AtomicUsize::new(0),
        })
    }

    /// Drops an issue into Todo. Its attempts do this, in order; the last one repeats.
    pub(super) fn put(&self, name: &str, attempts: &[&[Step]]) {
        held(&self.issues).insert(name.into(), Issue::bare(name, "Todo"));
        held(&self.scripts).insert(name.into(), attempts.iter().map(|steps| steps.to_vec()).collect());
    }

    /// Somebody moves the file.
    pub(super) fn place(&self, name: &str, to: &str) {
        held(&self.issues).get_mut(name).expect("an issue").state = StateName::new(to);
    }

    /// There is a file that is no issue.
    pub(super) fn malform(&self, file: &str) {
        let (file, message) = (file.to_owned(), "no front matter".to_owned());
        held(&self.malformed).push(Malformed { file, line: None, column: None, message });
    }

    /// There is none any more.
    pub(super) fn mend(&self) {
        held(&self.malformed).clear();
    }

    /// Somebody deletes the file.
    pub(super) fn delete(&self, name: &str) {
        held(&self.issues).remove(name);
    }

    pub(super) fn state(&self, name: &str) -> String {
        held(&self.issues)[name].state.0.clone()
    }

    pub(super) fn edit_workflow(&self, change: impl FnOnce(&mut Workflow)) {
        let mut workflow = held(&self.workflow);
        change(Arc::make_mut(&mut workflow));
    }

    pub(super) fn hang(&self, part: Part) {
        held(&self.hanging).insert(part);
    }

    /// What begins from now on no longer hangs.
    pub(super) fn heal(&self, part: Part) {
        held(&self.hanging).remove(&part);
    }

    async fn pass(&self, part: Part) {
        if held(&self.hanging).contains(&part) {
            std::future::pending::<()>().await;
        }
    }

    /// The attempts of an issue so far.
    pub(super) fn starts(&self, name: &str) -> Vec<Started> {
        held(&self.started).iter().filter(|started| started.name == name).cloned().collect()
    }

    /// The first time an attempt of this issue was asked to stop.
    pub(super) fn stop_of(&self, name: &str) -> Option<(StopCause, Instant)> {
        held(&self.stops).iter().find(|(stopped, ..)| stopped == name).map(|(_, cause, at)| (*cause, *at))
    }

    fn steps(&self, name: &str) -> Vec<Step> {
        let mut scripts = held(&self.scripts);
        let list = scripts.get_mut(name).expect("scripted");
        if list.len() > 1 { list.remove(0) } else { list[0].clone() }
    }
}

impl Tracker for World {
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>> {
        Box::pin(async move {
            self.pass(Part::Scan).await;
            let takes = *held(&self.look_takes);
            tokio::time::sleep(takes).await;
            let issues = held(&self.issues).values().cloned().collect();
            Ok(Scan { issues, malformed: held(&self.malformed).clone(), ..Scan::default() })
        })
    }

    fn move_issue<'a>(
        &'a self,
        id: &'a IssueId,
        from: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>> {
        Box::pin(async move {
            self.pass(Part::Move).await;
            let (actual, expected) = (self.state(&id.0), from.0.clone());
            if actual != expected {
                return Err(TrackerError::Elsewhere { id: id.0.clone(), actual, expected });
            }
            self.place(&id.0, to.as_str());
            Ok(Moved { file: String::new() })
        })
    }

    fn check_move<'a>(
        &'a self,
        _: &'a IssueId,
        _: &'a StateName,
        _: &'a StateName,
    ) -> BoxFuture<'a, Result<(), TrackerError>> {
        Box::pin(async { Ok(()) })
    }

    fn append_note<'a>(&'a self, _: &'a IssueId, _: &'a str) -> BoxFuture<'a, Result<(), TrackerError>> {
        Box::pin(async move {
            self.pass(Part::Note).await;
            Ok(())
        })
    }

    fn create(&self, _: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>> {
        Box::pin(async { Err(TrackerError::Invalid("not scripted".into())) })
    }
}

/// The hands of the scripted world.
pub(super) struct Script(Arc<World>, Journal);

impl Script {
    pub(super) fn new(world: Arc<World>, journal: Journal) -> Self {
        Self(world, journal)
    }
}

impl Hands for Script {
    fn look(&self) -> BoxFuture<'static, Looked> {
        let world = self.0.clone();
        Box::pin(async move {
            world.looks.fetch_add(1, Ordering::Relaxed);
            let others = world.looking.fetch_add(1, Ordering::Relaxed);
            assert_eq!(others, 0, "looks never overlap");
            // A look that is given up is over.
            let _over = OnDrop(|| _ = world.looking.fetch_sub(1, Ordering::Relaxed));
            let scan = world.scan().await.map_err(|error| error.to_string());
            Looked { scan, ..looked(&world) }
        })
    }

    fn attempt(&self, start: Start) -> BoxFuture<'static, RunEnded> {
        let (world, journal) = (self.0.clone(), self.1.clone());
        let (plan, name) = (&start.plan, start.plan.issue.id.0.clone());
        let (attempt, kind, allowance) = (plan.attempt, plan.kind, plan.allowance);
        let steps = world.steps(&name);
        // Time stands still while something can be done: what goes round in circles must end here.
        assert!(held(&world.started).len() < 1000, "runs without end");
        held(&world.started).push(Started { name: name.clone(), at: Instant::now(), attempt, kind, allowance });
        Box::pin(async move {
            let mut stop = start.line.stop.clone();
            let wedged = steps.contains(&Step::Wedge);
            let asked = async {
                let Some(cause) = stop.wait_for(Option::is_some).await.ok().and_then(|cause| *cause) else {
                    return std::future::pending().await;
                };
                held(&world.stops).push((name, cause, Instant::now()));
                match wedged {
                    true => std::future::pending().await,
                    false => RunEnd::Stopped(cause),
                }
            };
            let end = tokio::select! {
                end = play(&world, &journal, start, &steps) => end,
                end = asked => end,
            };
            end.into()
        })
    }

    fn remove_workspace(&self, _: Issue, _: Arc<Workflow>) -> BoxFuture<'static, ()> {
        let world = self.0.clone();
        Box::pin(async move { world.pass(Part::Removal).await })
    }
}

async fn play(world: &World, journal: &Journal, mut start: Start, steps: &[Step]) -> RunEnd {
    let issue = start.plan.issue.id.clone();
    let mut turns = 0;
    for step in steps {
        match step {
            Step::Turn => {
                turns += 1;
                start.line.turn(turns, turns, vec![]).await.expect("counted");
            }
            Step::Isolated(label) => start.line.report(Report::Sandbox(label)).await,
            Step::Work(seconds) => tokio::time::sleep(Duration::from_secs(*seconds)).await,
            Step::Ask | Step::AskOffRecord => {
                let run = start.plan.run;
                // An answer that came after the run that asked.
                let letter = match start.letters.pop() {
                    Some(letter) => letter,
                    None => {
                        let asked = Asked { question: "which?".into(), context: None };
                        let question = match step {
                            Step::Ask => journal.asked(run, issue.clone(), asked, None).await.expect("kept"),
                            _ => OpenQuestion { id: 99, run, asked, asked_at: Timestamp::now(), default: None },
                        };
                        start.line.report(Report::Asked(question)).await;
                        start.line.report(Report::Phase(WAITING)).await;
                        start.line.letters.recv().await.expect("posted").letter
                    }
                };
                assert_eq!(letter.text, "that one");
                turns += 1;
                start.line.turn(turns, turns - 1, vec![letter.id]).await.expect("counted");
                start.line.report(Report::Phase("working")).await;
                start.line.turn_ended().await.expect("kept");
            }
            Step::Mark => start.line.report(Report::MarkedDone).await,
            Step::AskAndGoOn => {
                let asked = Asked { question: "which?".into(), context: None };
                let open = journal.asked(start.plan.run, issue.clone(), asked, None).await.expect("kept");
                start.line.report(Report::Asked(open)).await;
            }
            Step::HandOff(seconds) => {
                start.line.report(Report::Finishing).await;
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                world.place(&issue.0, "Done");
                return RunEnd::Done;
            }
            Step::Spend(tokens) => {
                let tokens = Tokens { input: *tokens, output: 1, total: tokens.saturating_add(1) };
                start.line.report(Report::Tokens(tokens)).await;
            }
            Step::Render if start.workflow.prompt == "broken" => {
                let (detail, prompt) = ("broken".to_owned(), start.workflow.prompt_key());
                return RunEnd::NeedsHuman(ParkReason::Template { detail, prompt });
            }
            Step::Render => {}
            Step::Wedge => std::future::pending().await,
            Step::Done => {
                start.line.report(Report::Finishing).await;
                world.place(&issue.0, "Done");
                return RunEnd::Done;
            }
            Step::Fail => {
                return RunEnd::Failed(RunFailure { code: FailureCode::TurnFailed, message: "boom".into() });
            }
            Step::TurnsUsed => return RunEnd::TurnsUsed,
        }
    }
    std::future::pending().await
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn workflow(change: impl FnOnce(&mut Workflow)) -> Workflow {
    let text = "---\ntracker: {kind: local}\nagent: {max_concurrent_agents: 2}\nacp: {adapter: script}\n---\n";
    let rule = wf::StateRule::of;
    let rules: IndexMap<_, _> =
        [(StateName::new("Todo"), rule(wf::Role::Active)), (StateName::new("Done"), rule(wf::Role::Terminal))]
            .into_iter()
            .collect();
    let place = wf::Place { dir: "/nowhere".into(), home: None, env: &|_| None };
    let (mut parsed, _) = Workflow::parse(text, &place).expect("valid");
    parsed.states = wf::States { rules, declared: false };
    change(&mut parsed);
    parsed
}

/// What a look at this world shows, but for its issues.
pub(super) fn looked(world: &Arc<World>) -> Looked {
    Looked {
        workflow: held(&world.workflow).clone(),
        tracker: world.clone(),
        sandbox: Chosen { kind: None, label: "scripted".into(), reason: "a test".into() },
        closed: None,
        problems: vec![],
        warnings: vec![],
        available_mib: *held(&world.available_mib),
        stocks: Stocks::new(),
        modelless: Default::default(),
        patches: Default::default(),
        scan: Ok(Scan::default()),
    }
}
