//! Examples of the rules; `core/tests/sim` attacks them all at once.

mod asked;
mod bounds;
mod models;
mod readers;
mod spend;
mod taken;

use indexmap::IndexMap;

use super::*;
use crate::ids::Identifier;
use crate::issue::{Blocker, Scan};
use crate::workflow::{Budget, OnBlockerCancelled, Role, StateRule, States};

fn policy() -> Policy {
    let rule = StateRule::of;
    let rules: IndexMap<_, _> = [
        (StateName::new("Todo"), rule(Role::Active)),
        (StateName::new("In Progress"), rule(Role::Active)),
        (StateName::new("Done"), rule(Role::Terminal)),
    ]
    .into_iter()
    .collect();
    Policy {
        states: States { rules, declared: false },
        max_concurrent: 2,
        max_backoff_ms: 300_000,
        interval_ms: 30_000,
        required_labels: vec![],
        budget: Budget {
            sessions: 4,
            turns: 60,
            failures_in_a_row: 3,
            wall_ms: 14_400_000,
            bounces: 2,
            no_progress: 3,
        },
        release_after_ms: 1_800_000,
        on_blocker_cancelled: OnBlockerCancelled::Wait,
        prompt: "p1".into(),
        profiles: Profiles::default(),
        models: ModelAccess::default(),
        memory: None,
        spend: crate::spend::Standing::default(),
        closed: None,
    }
}

fn issue(name: &str, state: &str) -> Issue {
    Issue::bare(name, state)
}

fn scan(issues: &[Issue]) -> Event {
    Event::PollEnded(Ok(Scan { issues: issues.to_vec(), ..Scan::default() }))
}

fn id(name: &str) -> IssueId {
    IssueId(name.into())
}

/// The runs started by `commands`, as (issue, run, attempt).
fn starts(commands: &[Command]) -> Vec<(String, RunId, Option<u32>)> {
    commands
        .iter()
        .filter_map(|c| match c {
            Command::Start(plan) => Some((plan.issue.id.0.clone(), plan.run, plan.attempt)),
            _ => None,
        })
        .collect()
}

struct World {
    board: Board,
    policy: Policy,
    now: Tick,
}

impl World {
    fn new() -> Self {
        Self { board: Board::new(Past { next_run: RunId(1), ..Past::default() }), policy: policy(), now: Tick(1) }
    }

    fn step(&mut self, event: Event) -> Vec<Command> {
        let commands = self.board.step(self.now, event, &self.policy);
        if let Some(at) = self.board.wake_at(&self.policy) {
            assert!(at > self.now, "a wake time must be in the future");
        }
        commands
    }

    /// Looks, with these issues on disk.
    fn look(&mut self, issues: &[Issue]) -> Vec<Command> {
        if !self.board.is_looking() {
            let asked = self.step(Event::LookWanted);
            assert_eq!(asked, [Command::Poll]);
        }
        self.step(scan(issues))
    }
}

fn failed() -> RunEnd {
    RunEnd::Failed(RunFailure { code: FailureCode::TurnFailed, message: "boom".into() })
}

#[test]
fn an_eligible_issue_starts_in_the_look_that_finds_it() {
    let mut w = World::new();
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])), [("A".into(), RunId(1), None)]);
    assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty(), "one live run per issue");
}

#[test]
fn slots_are_never_exceeded_and_a_stopping_run_holds_its_slot() {
    let mut w = World::new();
    let all = [issue("A", "Todo"), issue("B", "Todo"), issue("C", "Todo")];
    assert_eq!(starts(&w.look(&all)).len(), 2);
    let moved = [issue("A", "Backlog"), issue("B", "Todo"), issue("C", "Todo")];
    let commands = w.look(&moved);
    assert_eq!(commands, [Command::Stop(RunId(1), StopCause::NotActive)]);
    assert!(starts(&w.look(&moved)).is_empty());
    w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::NotActive), None));
    assert_eq!(starts(&w.look(&moved)), [("C".into(), RunId(3), None)]);
}

#[test]
fn a_failed_run_backs_off_and_its_attempt_counts_failures() {
    let mut w = World::new();
    let all = [issue("A", "Todo")];
    w.look(&all);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    assert!(starts(&w.look(&all)).is_empty());
    assert_eq!(w.board.wake_at(&w.policy), Some(w.now.plus_ms(10_000)));
    w.now = w.now.plus_ms(10_000);
    w.step(Event::Woke);
    assert_eq!(starts(&w.look(&all)), [("A".into(), RunId(2), Some(1))]);
}

#[test]
fn too_many_failures_in_a_row_park_the_issue_and_a_person_resumes_it() {
    let mut w = World::new();
    let all = [issue("A", "Todo")];
    let mut last = vec![];
    for run in 1..=3 {
        w.now = w.now.plus_ms(400_000);
        w.look(&all);
        last = w.step(Event::RunEnded(RunId(run), failed(), None));
    }
    assert!(matches!(&last[0], Command::Park { reason: ParkReason::FailuresInARow { count: 3, .. }, .. }), "{last:?}");
    w.now = w.now.plus_ms(400_000);
    assert!(starts(&w.look(&all)).is_empty(), "the move is still under way");
    w.step(Event::LookWanted);
    w.step(Event::ParkEnded(id("A"), Ok(())));
    assert!(starts(&w.look(&all)).is_empty(), "a look begun before the move ended says nothing");
    w.step(scan(&[issue("A", "Parked")]));
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman));
    assert!(matches!(w.board.verdict(&issue("A", "Parked"), w.now, &w.policy), Err(NotNow::Parked(..))));
    assert_eq!(starts(&w.look(&all)).len(), 1, "moved back by a person");
}

#[test]
fn a_look_that_began_before_a_run_ended_never_restarts_its_issue() {
    let mut w = World::new();
    let todo = [issue("A", "Todo")];
    w.look(&todo);
    w.step(Event::LookWanted);
    assert!(w.board.is_looking());
    w.step(Event::RunFinishing(RunId(1)));
    let commands = w.step(Event::RunEnded(RunId(1), RunEnd::Done, None));
    assert!(matches!(commands[..], [Command::RemoveWorkspace(_)]));
    w.step(Event::WorkspaceRemoved(id("A")));
    assert!(starts(&w.step(scan(&todo))).is_empty(), "that scan is older than the move");
    assert!(starts(&w.step(scan(&[issue("A", "Done")]))).is_empty());
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished));
}

#[test]
fn a_file_missing_once_stops_nothing_and_missing_twice_stops_the_run() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert!(w.look(&[]).is_empty());
    assert!(w.look(&[issue("A", "Todo")]).is_empty());
    assert!(w.look(&[]).is_empty());
    assert!(w.look(&[]).is_empty(), "two looks in the same moment are one");
    w.now = w.now.plus_ms(200);
    assert_eq!(w.look(&[]), [Command::Stop(RunId(1), StopCause::Missing)]);
}

/// Regression: a run that failed while it was stopped parked the issue out of the state a person had put it in.
#[test]
fn a_run_that_breaks_while_it_is_stopped_is_stopped_and_not_failed() {
    let mut w = World::new();
    w.policy.budget.failures_in_a_row = 1;
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.look(&[issue("A", "Done")]), [Command::Stop(RunId(1), StopCause::Terminal)]);
    let commands = w.step(Event::RunEnded(RunId(1), failed(), None));
    assert!(matches!(commands[0], Command::RemoveWorkspace(_)), "{commands:?}");
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 0);
}

#[test]
fn a_half_saved_file_never_stops_its_run() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    let torn = Malformed { file: "Todo/A.md".into(), line: None, column: None, message: "half".into() };
    for _ in 0..5 {
        w.now = w.now.plus_ms(1_000);
        w.step(Event::LookWanted);
        let scan = Scan { malformed: vec![torn.clone()], ..Scan::default() };
        assert!(w.step(Event::PollEnded(Ok(scan))).is_empty());
    }
}

#[test]
fn a_failed_look_stops_nothing_and_starts_nothing() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::LookWanted);
    assert!(w.step(Event::PollEnded(Err("unreadable".into()))).is_empty());
    assert_eq!(w.board.look_error(), Some("unreadable"));
}

#[test]
fn our_own_move_to_done_does_not_cancel_the_run_that_makes_it() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunFinishing(RunId(1)));
    assert!(w.look(&[issue("A", "Done")]).is_empty());
}

#[test]
fn an_operators_stop_wins_over_finishing() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.look(&[issue("A", "Done")]), [Command::Stop(RunId(1), StopCause::Terminal)]);
    w.step(Event::RunFinishing(RunId(1)));
    assert!(matches!(w.board.claims().next(), Some((_, Claim::Stopping { .. }))));
}

#[test]
fn blockers_gate_every_active_state_and_say_so() {
    let mut w = World::new();
    let blocked = |by: &[(&str, Option<&str>)]| {
        let mut i = issue("B", "In Progress");
        i.blocked_by = by
            .iter()
            .map(|(name, state)| Blocker {
                id: state.map(|_| id(name)),
                identifier: Identifier((*name).into()),
                state: state.map(StateName::new),
            })
            .collect();
        i
    };
    let cases = [
        (blocked(&[("A", Some("Backlog"))]), Err(NotNow::BlockedBy(Identifier("A".into()), StateName::new("Backlog")))),
        (blocked(&[("X", None)]), Err(NotNow::UnknownBlocker(Identifier("X".into())))),
        (blocked(&[("A", Some("Done"))]), Ok(())),
    ];
    for (candidate, expected) in cases {
        w.look(&[]);
        assert_eq!(w.board.verdict(&candidate, w.now, &w.policy), expected);
    }
    let mut a = issue("A", "Todo");
    a.blocked_by =
        vec![Blocker { id: Some(id("B")), identifier: Identifier("B".into()), state: Some(StateName::new("Todo")) }];
    let b = blocked(&[("A", Some("Todo"))]);
    assert!(starts(&w.look(&[a, b.clone()])).is_empty());
    assert!(matches!(w.board.verdict(&b, w.now, &w.policy), Err(NotNow::BlockerCycle(_))));
}

#[test]
fn a_due_retry_without_a_slot_waits_without_spinning_and_keeps_its_attempt() {
    let mut w = World::new();
    w.policy.max_concurrent = 1;
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    assert_eq!(starts(&w.look(&[issue("A", "Todo"), issue("B", "Todo")])), [("B".into(), RunId(2), None)]);
    w.now = w.now.plus_ms(10_000);
    w.step(Event::Woke);
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    let error = w.board.claims().find_map(|(_, c)| match c {
        Claim::Waiting { error, .. } => error.clone(),
        _ => None,
    });
    assert_eq!(error.as_deref(), Some("no available orchestrator slots"));
    w.step(Event::RunEnded(RunId(2), RunEnd::Stopped(StopCause::Missing), None));
    let started = starts(&w.look(&[issue("A", "Todo"), issue("C", "Todo")]));
    assert_eq!(started, [("A".into(), RunId(3), Some(1))], "the freed slot goes to the waiting retry");
}

#[test]
fn after_a_drain_nothing_starts_and_everything_running_is_asked_to_stop() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.step(Event::DrainAsked), [Command::Stop(RunId(1), StopCause::Drain)]);
    w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::Drain), None));
    assert_eq!(w.board.wake_at(&w.policy), None);
    assert!(w.step(Event::LookWanted).is_empty());
}

#[test]
fn a_late_report_of_an_older_run_is_ignored() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert!(w.step(Event::RunEnded(RunId(99), RunEnd::Done, None)).is_empty());
    assert_eq!(w.board.issue_of(RunId(1)), Some(&id("A")));
}

#[test]
fn runs_without_a_finish_end_in_the_parking_state() {
    let mut w = World::new();
    for run in 1..=4 {
        w.now = w.now.plus_ms(10_000);
        assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
        let commands = w.step(Event::RunEnded(RunId(run), RunEnd::TurnsUsed, None));
        let parked = commands.iter().any(|c| matches!(c, Command::Park { .. }));
        assert_eq!(parked, run == 4);
    }
}

#[test]
fn a_terminal_issue_loses_its_workspace_once() {
    let mut w = World::new();
    assert!(matches!(w.look(&[issue("A", "Done")])[..], [Command::RemoveWorkspace(_)]));
    w.step(Event::WorkspaceRemoved(id("A")));
    assert!(w.look(&[issue("A", "Done")]).is_empty());
}

#[test]
fn nothing_starts_while_the_workflow_is_broken() {
    let mut w = World::new();
    w.policy.closed = Some(Closed::WorkflowBroken);
    assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty());
    w.policy.closed = None;
    w.step(Event::LookWanted);
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
}

#[test]
fn a_tracker_that_stays_unreadable_settles_for_a_human_but_one_failed_look_decides_nothing() {
    let mut w = World::new();
    let settled = |w: &World| w.board.settled(w.now, &w.policy);
    let fail = |w: &mut World| {
        w.step(Event::LookWanted);
        w.step(Event::PollEnded(Err("no access".into())));
    };
    for _ in 0..2 {
        fail(&mut w);
        assert_eq!(settled(&w), None);
    }
    fail(&mut w);
    assert_eq!(settled(&w), Some(Settled::NeedsHuman));
    w.look(&[issue("A", "Done")]);
    w.step(Event::WorkspaceRemoved(id("A")));
    w.step(scan(&[issue("A", "Done")]));
    assert_eq!(settled(&w), Some(Settled::Finished));
    fail(&mut w);
    assert_eq!(settled(&w), None, "the next look may be good again");
}

#[test]
fn a_run_outlives_a_change_of_the_tracker_and_leaves_nothing_behind() {
    for end in [RunEnd::Done, failed()] {
        let mut w = World::new();
        w.look(&[issue("A", "Todo")]);
        w.step(Event::LookWanted);
        w.step(Event::TrackerChanged);
        for found in [vec![], vec![], vec![issue("A", "Done")], vec![]] {
            w.now = w.now.plus_ms(1_000);
            assert!(w.look(&found).is_empty(), "no look at the new place stops it");
        }
        w.step(Event::RunEnded(RunId(1), end, None));
        w.step(Event::WorkspaceRemoved(id("A")));
        w.look(&[]);
        w.look(&[]);
        assert_eq!(w.board.claims().count(), 0);
    }
}

#[test]
fn a_due_retry_starts_in_a_look_that_finds_it_and_never_without_one() {
    for (found, expected) in [("Todo", 1), ("In Progress", 1), ("Done", 0), ("Backlog", 0)] {
        let mut w = World::new();
        w.look(&[issue("A", "Todo")]);
        w.step(Event::RunEnded(RunId(1), failed(), None));
        w.look(&[issue("A", "Todo")]);
        w.now = w.now.plus_ms(10_000);
        assert_eq!(w.step(Event::Woke), [Command::Poll], "its time came, and nothing starts yet");
        assert_eq!(starts(&w.step(scan(&[issue("A", found)]))).len(), expected, "{found}");
    }
}

#[test]
fn one_look_serves_every_run_and_every_candidate() {
    let mut w = World::new();
    w.policy.max_concurrent = 20;
    let all: Vec<Issue> = (0..40).map(|number| issue(&format!("A-{number}"), "Todo")).collect();
    assert_eq!(starts(&w.look(&all)).len(), 20);
    w.now = w.now.plus_ms(30_000);
    assert_eq!(w.step(Event::Woke), [Command::Poll]);
    assert_eq!(w.step(Event::Woke), [], "never a second one beside it");
    assert_eq!(w.step(scan(&all)), []);
}

#[test]
fn a_running_issue_moved_into_a_full_state_goes_on_and_only_starts_are_gated() {
    let mut w = World::new();
    w.policy.max_concurrent = 9;
    w.policy.states.rules.get_mut(&StateName::new("Todo")).expect("a state").max_concurrent = Some(1);
    assert_eq!(starts(&w.look(&[issue("A", "Todo"), issue("B", "In Progress")])).len(), 2);
    assert_eq!(w.look(&[issue("A", "Todo"), issue("B", "Todo"), issue("C", "Todo")]), []);
    let limit = NotNow::NoStateSlot(StateName::new("Todo"), 1);
    assert_eq!(w.board.verdict(&issue("C", "Todo"), w.now, &w.policy), Err(limit));
    let moved = [issue("A", "In Progress"), issue("B", "In Progress"), issue("C", "Todo")];
    assert_eq!(starts(&w.look(&moved)), [("C".into(), RunId(3), None)]);
}

/// Trap T1: the claim goes, and so does the workspace.
#[test]
fn an_issue_that_is_finished_during_its_back_off_is_released_and_cleaned_up() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.look(&[issue("A", "Done")]), [Command::RemoveWorkspace(Box::new(issue("A", "Done")))]);
    w.step(Event::WorkspaceRemoved(id("A")));
    assert_eq!(w.board.claims().count(), 0);
}
