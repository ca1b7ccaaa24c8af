//! The conductor under paused time, with a scripted world: a tracker and attempts that do as told.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures::future::BoxFuture;
use indexmap::IndexMap;
use symphony_core::board::{FailureCode, RunFailure};
use symphony_core::ids::{Identifier, StateName};
use symphony_core::issue::Issue;
use symphony_core::snapshot::{Question, Tokens};
use symphony_core::workflow as wf;

use super::*;
use crate::run::Start;
use crate::tracker::{Created, Moved, NewIssue, TrackerError};

/// What the scripted world does with an issue's attempts, in order; the last one repeats.
#[derive(Clone, Debug)]
enum Act {
    Done,
    Fail,
    Hang,
    Ask,
    Spend(u64),
}

#[derive(Default)]
struct World {
    issues: Mutex<BTreeMap<String, Issue>>,
    acts: Mutex<BTreeMap<String, Vec<Act>>>,
    started: Mutex<Vec<(String, Instant)>>,
    blind: Mutex<bool>,
}

struct Script(Arc<World>, Arc<Workflow>);

fn issue(name: &str) -> Issue {
    Issue::bare(name, "Todo")
}

impl World {
    fn put(&self, name: &str, acts: &[Act]) {
        self.issues.lock().expect("lock").insert(name.into(), issue(name));
        self.acts.lock().expect("lock").insert(name.into(), acts.to_vec());
    }

    fn set_state(&self, id: &IssueId, to: &StateName) {
        if let Some(issue) = self.issues.lock().expect("lock").get_mut(&id.0) {
            issue.state = to.clone();
        }
    }

    fn act(&self, name: &str) -> Act {
        let mut acts = self.acts.lock().expect("lock");
        let list = acts.get_mut(name).expect("scripted");
        if list.len() > 1 { list.remove(0) } else { list[0].clone() }
    }
}

impl Tracker for World {
    fn scan(&self) -> BoxFuture<'_, Result<Scan, TrackerError>> {
        let issues = self.issues.lock().expect("lock").values().cloned().collect();
        Box::pin(async move { Ok(Scan { issues, ..Scan::default() }) })
    }

    fn move_issue<'a>(
        &'a self,
        id: &'a IssueId,
        _: &'a StateName,
        to: &'a StateName,
    ) -> BoxFuture<'a, Result<Moved, TrackerError>> {
        self.set_state(id, to);
        Box::pin(async { Ok(Moved { file: String::new() }) })
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
        Box::pin(async { Ok(()) })
    }

    fn create(&self, _: NewIssue) -> BoxFuture<'_, Result<Created, TrackerError>> {
        Box::pin(async { Err(TrackerError::Invalid("not scripted".into())) })
    }
}

impl Hands for Script {
    fn look(&self) -> BoxFuture<'static, Looked> {
        let looked = looked(&self.0, &self.1);
        let (world, blind) = (self.0.clone(), *self.0.blind.lock().expect("lock"));
        Box::pin(async move {
            if blind {
                std::future::pending::<()>().await;
            }
            let scan = world.scan().await.map_err(|e| e.to_string());
            Looked { scan, ..looked }
        })
    }

    fn attempt(&self, mut start: Start) -> BoxFuture<'static, RunEnded> {
        let (world, name) = (self.0.clone(), start.plan.issue.id.0.clone());
        world.started.lock().expect("lock").push((name.clone(), Instant::now()));
        let act = world.act(&name);
        Box::pin(async move {
            let end = match act {
                Act::Done => {
                    start.line.report(Report::Finishing).await;
                    world.set_state(&start.plan.issue.id, &StateName::new("Done"));
                    RunEnd::Done
                }
                Act::Fail => RunEnd::Failed(RunFailure { code: FailureCode::TurnFailed, message: "boom".into() }),
                Act::Spend(tokens) => {
                    let tokens = Tokens { input: tokens, output: 1, total: tokens.saturating_add(1) };
                    start.line.report(Report::Tokens(tokens)).await;
                    world.set_state(&start.plan.issue.id, &StateName::new("Done"));
                    RunEnd::Done
                }
                Act::Hang => RunEnd::Stopped(start.line.stopped().await),
                Act::Ask => {
                    let question = Question {
                        question: "which?".into(),
                        context: None,
                        asked_at: Timestamp::now(),
                        answered: false,
                    };
                    start.line.report(Report::Asked(question)).await;
                    start.line.report(Report::Phase("waiting for a human")).await;
                    tokio::select! {
                        answer = start.line.answers.recv() => {
                            assert_eq!(answer.as_deref(), Some("that one"));
                            world.set_state(&start.plan.issue.id, &StateName::new("Done"));
                            RunEnd::Done
                        }
                        cause = async { let mut stop = start.line.stop.clone(); let _ = stop.wait_for(Option::is_some).await; *stop.borrow() } => {
                            RunEnd::Stopped(cause.expect("set"))
                        }
                    }
                }
            };
            end.into()
        })
    }

    fn remove_workspace(&self, _: Issue, _: Arc<Workflow>) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

fn workflow() -> Workflow {
    let text = "---\ntracker: {kind: local}\nagent: {max_concurrent_agents: 2}\nacp: {adapter: script}\n---\n";
    let rule = wf::StateRule::of;
    let rules: IndexMap<_, _> =
        [(StateName::new("Todo"), rule(wf::Role::Active)), (StateName::new("Done"), rule(wf::Role::Terminal))]
            .into_iter()
            .collect();
    let place = wf::Place { dir: "/nowhere".into(), home: None, env: &|_| None };
    let (mut parsed, _) = Workflow::parse(text, &place).expect("valid");
    parsed.states = wf::States { rules, declared: false };
    parsed
}

fn looked(world: &Arc<World>, workflow: &Arc<Workflow>) -> Looked {
    Looked {
        workflow: workflow.clone(),
        tracker: world.clone(),
        closed: None,
        problems: vec![],
        warnings: vec![],
        available_mib: None,
        scan: Ok(Scan::default()),
    }
}

struct Rig {
    world: Arc<World>,
    handle: handle::Handle,
    drain: CancellationToken,
    nudge: mpsc::Sender<Nudge>,
    end: tokio::task::JoinHandle<Settled>,
    _dir: tempfile::TempDir,
}

impl Rig {
    fn start(once: bool, script: &[(&str, &[Act])]) -> Self {
        let world = Arc::new(World::default());
        for (name, acts) in script {
            world.put(name, acts);
        }
        let workflow = Arc::new(workflow());
        let dir = tempfile::tempdir().expect("directory");
        let (journal, memory) = Journal::open(&dir.path().join("journal.db")).expect("opens");
        let facts = Facts { workflow_path: "WORKFLOW.md".into(), sandbox: "scripted".into(), once };
        let hands = Arc::new(Script(world.clone(), workflow.clone()));
        let (conductor, handle) = Conductor::new(hands, looked(&world, &workflow), journal, memory, facts);
        let (nudge, nudges) = mpsc::channel(8);
        let drain = CancellationToken::new();
        let end = tokio::spawn(conductor.run(nudges, drain.clone(), CancellationToken::new()));
        Self { world, handle, drain, nudge, end, _dir: dir }
    }

    async fn until(&self, what: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut watch = self.handle.watch();
        loop {
            let seen = watch.borrow_and_update().clone();
            if what(&seen) {
                return seen;
            }
            watch.changed().await.expect("the conductor lives");
        }
    }
}

#[tokio::test]
async fn once_ends_when_everything_is_finished() {
    let rig = Rig::start(true, &[("A", &[Act::Done]), ("B", &[Act::Done]), ("C", &[Act::Done])]);
    assert_eq!(rig.end.await.expect("ends"), Settled::Finished);
    assert_eq!(rig.world.started.lock().expect("lock").len(), 3);
}

#[tokio::test]
async fn once_ends_with_needs_human_when_a_question_is_all_that_is_left() {
    let rig = Rig::start(true, &[("A", &[Act::Ask]), ("B", &[Act::Done])]);
    assert_eq!(rig.end.await.expect("ends"), Settled::NeedsHuman);
}

#[tokio::test]
async fn an_answer_reaches_the_run_once_and_the_second_one_is_refused() {
    let rig = Rig::start(false, &[("A", &[Act::Ask])]);
    rig.until(|s| s.running.iter().any(|r| r.question.is_some())).await;
    let name = Identifier("A".into());
    // The scripted run bypasses the journal's question; put it there as the real one does.
    assert_eq!(
        rig.handle.answer(Identifier("B".into()), "x".into()).await,
        Err(AnswerError::NotWaiting(Identifier("B".into())))
    );
    let refused = rig.handle.answer(name, "that one".into()).await;
    assert!(
        matches!(refused, Err(AnswerError::NotWaiting(_))),
        "an answer the journal has no question for is not taken"
    );
    rig.drain.cancel();
    rig.end.await.expect("ends");
}

#[tokio::test]
async fn tokens_and_seconds_of_ended_runs_stay_in_the_totals() {
    let rig = Rig::start(false, &[("A", &[Act::Spend(10)]), ("B", &[Act::Spend(20)]), ("C", &[Act::Spend(u64::MAX)])]);
    let done = |s: &Snapshot| s.idle.iter().filter(|r| r.state.0 == "Done").count() == 3 && s.running.is_empty();
    let seen = rig.until(done).await;
    let tokens = seen.totals.tokens;
    // An agent's own numbers: absurd ones stop at the largest, they do not wrap or crash.
    assert_eq!((tokens.input, tokens.output), (u64::MAX, 3));
    assert!(seen.totals.seconds_running > 0.0);
    rig.drain.cancel();
    rig.end.await.expect("ends");
}

#[tokio::test]
async fn a_wedged_run_delays_nothing_else_and_a_drain_ends_it() {
    let rig = Rig::start(false, &[("A", &[Act::Hang]), ("B", &[Act::Done])]);
    rig.until(|s| s.idle.iter().any(|r| r.identifier.0 == "B" && r.state.0 == "Done")).await;
    rig.world.put("C", &[Act::Done]);
    rig.nudge.send(Nudge::Tracker).await.expect("sent");
    rig.until(|s| s.idle.iter().any(|r| r.identifier.0 == "C" && r.state.0 == "Done")).await;
    rig.drain.cancel();
    rig.end.await.expect("ends");
}

#[tokio::test]
async fn what_a_finished_issue_left_is_shown_until_it_is_put_back_to_work() {
    let rig = Rig::start(false, &[("A", &[Act::Done]), ("B", &[Act::Done])]);
    let seen = rig.until(|s| s.finished.len() == 2).await;
    assert!(seen.finished.iter().all(|row| row.outcome == "done") && seen.finished[0].at >= seen.finished[1].at);
    rig.world.put("A", &[Act::Hang]);
    rig.nudge.send(Nudge::Tracker).await.expect("sent");
    let seen = rig.until(|s| s.running.len() == 1).await;
    let left: Vec<_> = seen.finished.iter().map(|row| row.identifier.0.as_str()).collect();
    assert_eq!(left, ["B"]);
    rig.drain.cancel();
    rig.end.await.expect("ends");
}

#[tokio::test]
async fn a_tracker_that_hangs_is_an_error_on_the_page_and_nothing_stops() {
    let rig = Rig::start(false, &[("A", &[Act::Hang])]);
    rig.until(|s| s.running.len() == 1).await;
    *rig.world.blind.lock().expect("lock") = true;
    tokio::time::pause();
    rig.nudge.send(Nudge::Tracker).await.expect("sent");
    let seen = rig.until(|s| s.tracker_problem.is_some()).await;
    assert_eq!(seen.running.len(), 1);
    tokio::time::resume();
    rig.drain.cancel();
    rig.end.await.expect("ends");
}

#[tokio::test]
async fn a_failing_issue_is_tried_again_after_ten_twenty_and_forty_seconds_and_then_parked() {
    let rig = Rig::start(true, &[("A", &[Act::Fail])]);
    rig.until(|s| s.retrying.len() == 1).await;
    tokio::time::pause();
    let world = rig.world.clone();
    assert_eq!(rig.end.await.expect("ends"), Settled::NeedsHuman);
    let starts: Vec<Instant> = world.started.lock().expect("lock").iter().map(|(_, at)| *at).collect();
    // To the nearest second: a start is recorded a moment after its due time.
    let gaps: Vec<u64> = starts.windows(2).map(|w| ((w[1] - w[0]).as_millis() as u64 + 500) / 1000).collect();
    assert_eq!(gaps, [10, 20, 40, 80]);
    assert_eq!(world.issues.lock().expect("lock")["A"].state, StateName::new("Parked"));
}
