//! Where a run or an issue meets a bound: time, turns, progress, moves, memory, blockers, the prompt. And what the
//! simulation caught.

use super::*;
use crate::budget::Allowance;

fn turns_used(changed: bool) -> (RunEnd, Option<Left>) {
    (RunEnd::TurnsUsed, Some(Left { changed, commits: 1, uncommitted: false }))
}

fn parked_for(commands: &[Command]) -> Option<&'static str> {
    commands.iter().find_map(|command| match command {
        Command::Park { reason, .. } => Some(reason.code()),
        _ => None,
    })
}

fn started(commands: &[Command]) -> Vec<Plan> {
    let plan = |command: &Command| match command {
        Command::Start(plan) => Some((**plan).clone()),
        _ => None,
    };
    commands.iter().filter_map(plan).collect()
}

impl World {
    fn at(&mut self, ms: u64) -> &mut Self {
        self.now = Tick(ms);
        self
    }

    fn ends(&mut self, run: u64, end: RunEnd) -> Vec<Command> {
        self.step(Event::RunEnded(RunId(run), end, None))
    }

    fn why(&self, name: &str) -> Option<NotNow> {
        let issue = self.board.issue(&id(name)).expect("known");
        self.board.verdict(issue, self.now, &self.policy).err()
    }
}

#[test]
fn a_run_is_asked_to_end_exactly_when_the_wall_time_of_its_issue_is_used_up_and_the_issue_is_parked() {
    let mut w = World::new();
    w.policy.budget.wall_ms = 1_000;
    w.policy.interval_ms = 1_000_000;
    let all = [issue("A", "Todo")];
    w.look(&all);
    assert_eq!(w.board.wake_at(&w.policy), Some(Tick(1_001)), "it began at 1");
    assert!(w.at(1_000).step(Event::Woke).is_empty());
    assert_eq!(w.at(1_001).step(Event::Woke), [Command::Stop(RunId(1), StopCause::WallTime)]);
    assert!(w.at(1_500).step(Event::Woke).is_empty(), "asked once");
    let commands = w.ends(1, RunEnd::Failed(RunFailure { code: FailureCode::TurnCancelled, message: "x".into() }));
    assert_eq!(parked_for(&commands), Some("budget-wall"));
    let counters = w.board.counters(&id("A"));
    assert_eq!((counters.used.wall_ms, counters.failures_in_a_row), (1_499, 0), "how it broke is no failure");
    assert_eq!(counters.last.expect("ended").reason, EndReason::BudgetWall);
}

#[test]
fn a_second_run_has_only_the_time_and_the_turns_that_the_first_one_left() {
    let mut w = World::new();
    (w.policy.budget.wall_ms, w.policy.budget.turns) = (1_000, 7);
    let all = [issue("A", "Todo")];
    assert_eq!(started(&w.look(&all))[0].allowance, Allowance { turns: 7, wall_ms: 1_000 });
    w.at(101).step(Event::TurnBegan(RunId(1), 2));
    w.at(201).step(Event::TurnBegan(RunId(1), 5));
    w.at(211).step(Event::TurnBegan(RunId(1), 4));
    assert_eq!(w.board.counters(&id("A")).used.turns, 5, "reports are absolute and may come in any order");
    w.at(301).ends(1, RunEnd::TurnsUsed);
    assert_eq!(w.board.counters(&id("A")).used.wall_ms, 300);
    let plan = started(&w.at(2_000).look(&all)).remove(0);
    assert_eq!(plan.allowance, Allowance { turns: 2, wall_ms: 700 });
    w.step(Event::TurnBegan(RunId(2), 2));
    let commands = w.ends(2, RunEnd::TurnsUsed);
    assert_eq!(parked_for(&commands), Some("budget-turns"));
    assert_eq!(w.board.counters(&id("A")).last.expect("ended").reason, EndReason::BudgetTurns);
}

#[test]
fn waiting_for_a_human_costs_no_wall_time() {
    let mut w = World::new();
    w.policy.budget.wall_ms = 1_000;
    w.policy.interval_ms = 1_000_000;
    w.look(&[issue("A", "Todo")]);
    w.at(401).step(Event::Asked(RunId(1), None));
    w.step(Event::Asking(RunId(1), true));
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman));
    assert!(w.at(500_000).step(Event::LookWanted).iter().all(|command| *command == Command::Poll));
    w.step(scan(&[issue("A", "Todo")]));
    w.step(Event::Answered(id("A")));
    w.step(scan(&[issue("A", "Todo")]));
    w.step(Event::Asking(RunId(1), false));
    assert_eq!(w.board.settled(w.now, &w.policy), None);
    assert_eq!(w.board.wake_at(&w.policy), Some(Tick(500_600)));
    w.at(500_100).ends(1, RunEnd::TurnsUsed);
    assert_eq!(w.board.counters(&id("A")).used.wall_ms, 500);
}

#[test]
fn a_stop_for_wall_time_leaves_room_for_what_only_a_person_can_mend() {
    let mut w = World::new();
    w.policy.budget.wall_ms = 1_000;
    w.look(&[issue("A", "Todo")]);
    w.at(1_001).step(Event::Woke);
    let kept = ParkReason::HandoffFailed { detail: "full".into() };
    assert_eq!(parked_for(&w.ends(1, RunEnd::NeedsHuman(kept))), Some("handoff-failed"));
}

#[test]
fn a_larger_budget_after_a_stop_for_wall_time_lets_the_issue_go_on() {
    let mut w = World::new();
    w.policy.budget.wall_ms = 1_000;
    w.look(&[issue("A", "Todo")]);
    w.at(1_001).step(Event::Woke);
    w.policy.budget.wall_ms = 5_000;
    assert_eq!(parked_for(&w.ends(1, RunEnd::Stopped(StopCause::WallTime))), None);
    w.look(&[issue("A", "Todo")]);
    let plan = started(&w.at(10_000).look(&[issue("A", "Todo")])).remove(0);
    assert_eq!((plan.kind, plan.allowance.wall_ms), (RetryKind::Continuation, 4_000));
}

#[test]
fn runs_that_change_neither_a_file_nor_the_state_are_not_repeated_for_ever() {
    let mut w = World::new();
    w.policy.budget.sessions = 100;
    let mut run = 0;
    let mut once = |w: &mut World, end: (RunEnd, Option<Left>)| {
        run += 1;
        w.now = w.now.plus_ms(400_000);
        assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1, "run {run}");
        parked_for(&w.step(Event::RunEnded(RunId(run), end.0, end.1)))
    };
    assert_eq!(once(&mut w, turns_used(false)), None);
    assert_eq!(once(&mut w, turns_used(false)), None);
    assert_eq!(once(&mut w, turns_used(true)), None, "it moved: the count begins anew");
    assert_eq!(once(&mut w, turns_used(false)), None);
    assert_eq!(once(&mut w, (failed(), None)), None, "failures have a bound of their own");
    assert_eq!(once(&mut w, turns_used(false)), None);
    assert_eq!(once(&mut w, (RunEnd::TurnsUsed, None)), None, "what cannot be told is no stand-still");
    assert_eq!(once(&mut w, turns_used(false)), None);
    assert_eq!(once(&mut w, turns_used(false)), None);
    assert_eq!(once(&mut w, turns_used(false)), Some("no-progress"));
}

#[test]
fn a_state_that_a_person_changed_meanwhile_is_progress() {
    let mut w = World::new();
    w.policy.budget.no_progress = 1;
    w.look(&[issue("A", "Todo")]);
    w.look(&[issue("A", "In Progress")]);
    let (end, left) = turns_used(false);
    assert_eq!(parked_for(&w.step(Event::RunEnded(RunId(1), end, left))), None);
}

#[test]
fn an_agent_hands_an_issue_on_and_the_first_run_in_the_new_state_knows_of_the_last() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    let moved = RunEnd::Moved(StateName::new("In Progress"));
    let left = Left { changed: true, commits: 2, uncommitted: false };
    w.step(Event::RunEnded(RunId(1), moved, Some(left)));
    assert_eq!(w.why("A"), Some(NotNow::Unconfirmed), "its file is elsewhere now");
    let plan = started(&w.look(&[issue("A", "In Progress")])).remove(0);
    assert_eq!((plan.kind, plan.attempt), (RetryKind::First, None));
    let last = plan.last.expect("there was one");
    assert_eq!((last.reason, last.end.as_str()), (EndReason::Moved, "the agent moved the issue to In Progress"));
    assert_eq!(last.left.as_deref(), Some("2 commits in the work tree"));
}

#[test]
fn agents_that_move_an_issue_back_and_forth_are_stopped() {
    let mut w = World::new();
    (w.policy.budget.sessions, w.policy.budget.bounces) = (100, 3);
    let mut state = "Todo";
    for run in 1..=4 {
        assert_eq!(starts(&w.look(&[issue("A", state)])).len(), 1, "run {run}");
        state = if state == "Todo" { "In Progress" } else { "Todo" };
        w.ends(run, RunEnd::Moved(StateName::new(state)));
    }
    let commands = w.look(&[issue("A", state)]);
    assert_eq!(parked_for(&commands), Some("budget-bounces"));
    assert!(matches!(&commands[0], Command::Park { from, .. } if *from == StateName::new(state)));
}

#[test]
fn a_move_into_holding_grants_anew_and_one_into_a_terminal_state_cleans_up() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    assert!(w.ends(1, RunEnd::Moved(StateName::new("Backlog"))).iter().all(|c| *c == Command::Poll));
    assert_eq!(w.board.counters(&id("A")).since_grant().sessions, 0);
    let commands = w.ends(2, RunEnd::Moved(StateName::new("Done")));
    let cleaned = |c: &Command| matches!(c, Command::RemoveWorkspace(issue) if issue.id == id("B"));
    assert!(commands.iter().any(cleaned), "{commands:?}");
    assert_eq!(w.board.counters(&id("B")).since_grant().sessions, 0);
}

#[test]
fn a_run_starts_only_while_memory_is_left_and_runs_that_still_boot_are_counted() {
    let mut w = World::new();
    w.policy.max_concurrent = 10;
    w.policy.memory = Some(Memory { available_mib: 2_000, needed_mib: 1_000 });
    let all = [issue("A", "Todo"), issue("B", "Todo"), issue("C", "Todo")];
    assert_eq!(starts(&w.look(&all)).len(), 2);
    let waits = |booting| Some(NotNow::NoMemory { needed_mib: 1_000, available_mib: 2_000, booting });
    assert_eq!(w.why("C"), waits(2));
    assert_eq!(
        w.why("C").expect("waits").to_string(),
        "this machine has 2000 MiB of memory left, a run needs 1000 MiB and 2 more are just starting"
    );
    w.step(Event::TurnBegan(RunId(1), 1));
    assert_eq!(starts(&w.look(&all)).len(), 1, "what A uses is in the new figure");
    w.policy.memory = Some(Memory { available_mib: 999, needed_mib: 1_000 });
    w.look(&[issue("D", "Todo")]);
    assert!(matches!(w.why("D"), Some(NotNow::NoMemory { available_mib: 999, .. })));
}

fn blocked_by_cancelled() -> Issue {
    let blocker =
        Blocker { id: Some(id("A")), identifier: Identifier("A".into()), state: Some(StateName::new("Cancelled")) };
    Issue { blocked_by: vec![blocker], ..issue("B", "Todo") }
}

#[test]
fn a_cancelled_blocker_is_waited_for_skipped_or_a_reason_to_park() {
    for (rule, starts_it, parks_it) in [
        (OnBlockerCancelled::Wait, false, None),
        (OnBlockerCancelled::Unblock, true, None),
        (OnBlockerCancelled::Park, false, Some("blocker-cancelled")),
    ] {
        let mut w = World::new();
        w.policy.states.rules.insert(StateName::new("Cancelled"), StateRule::of(Role::Terminal));
        w.policy.on_blocker_cancelled = rule;
        let commands = w.look(&[blocked_by_cancelled()]);
        assert_eq!((starts(&commands).len() == 1, parked_for(&commands)), (starts_it, parks_it), "{rule:?}");
        if rule == OnBlockerCancelled::Wait {
            let (blocker, state) = (Identifier("A".into()), StateName::new("Cancelled"));
            assert_eq!(w.why("B"), Some(NotNow::BlockerCancelled(blocker, state)));
        }
    }
}

#[test]
fn a_cancelled_blocker_parks_only_when_nothing_else_is_in_the_way() {
    let mut w = World::new();
    w.policy.states.rules.insert(StateName::new("Cancelled"), StateRule::of(Role::Terminal));
    w.policy.on_blocker_cancelled = OnBlockerCancelled::Park;
    let mut both = blocked_by_cancelled();
    let open = Blocker { id: None, identifier: Identifier("X".into()), state: None };
    both.blocked_by.push(open);
    assert_eq!(parked_for(&w.look(&[both])), None);
    assert_eq!(w.why("B"), Some(NotNow::UnknownBlocker(Identifier("X".into()))));
    w.policy.closed = Some(Closed::WorkflowBroken);
    assert_eq!(parked_for(&w.look(&[blocked_by_cancelled()])), None, "nor while nothing may be decided");
}

fn template(prompt: &str) -> RunEnd {
    RunEnd::NeedsHuman(ParkReason::Template { detail: "line 3".into(), prompt: prompt.into() })
}

#[test]
fn an_issue_parked_over_the_prompt_goes_back_by_itself_when_the_prompt_changes() {
    let mut w = World::new();
    w.look(&[issue("A", "In Progress")]);
    assert_eq!(parked_for(&w.ends(1, template("p1"))), Some("template-error"));
    w.step(Event::ParkEnded(id("A"), Ok(())));
    let parked = [issue("A", "Parked")];
    w.look(&parked);
    w.look(&parked);
    assert!(
        matches!(w.why("A"), Some(NotNow::Parked(Parked { from, .. }, None)) if from == StateName::new("In Progress"))
    );
    w.policy.prompt = "p2".into();
    w.policy.closed = Some(Closed::WorkflowBroken);
    assert!(w.look(&parked).is_empty(), "not under a workflow that is not in force");
    w.policy.closed = None;
    let (from, to) = (StateName::new("Parked"), StateName::new("In Progress"));
    assert_eq!(w.look(&parked), [Command::Resume { issue: id("A"), from, to }]);
    assert_eq!(w.why("A"), Some(NotNow::Resuming));
    assert!(w.look(&parked).is_empty(), "asked once");
    w.step(Event::ResumeEnded(id("A"), Ok(())));
    let plan = started(&w.look(&[issue("A", "In Progress")])).remove(0);
    assert_eq!(plan.last.expect("ended").reason, EndReason::TemplateError);
}

#[test]
fn a_move_back_that_fails_is_not_tried_again_before_the_next_change() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.ends(1, template("p1"));
    w.step(Event::ParkEnded(id("A"), Ok(())));
    let parked = [issue("A", "Parked")];
    w.look(&parked);
    w.look(&parked);
    w.policy.prompt = "p2".into();
    assert_eq!(w.look(&parked).len(), 1);
    w.step(Event::ResumeEnded(id("A"), Err("no space".into())));
    w.look(&parked);
    assert!(w.look(&parked).is_empty());
    assert!(matches!(w.why("A"), Some(NotNow::Parked(..))), "it is parked as before");
    w.policy.prompt = "p3".into();
    assert_eq!(w.look(&parked).len(), 1);
}

#[test]
fn every_change_of_the_counters_reaches_the_journal() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.board.take_changed(), [id("A")].into());
    assert!(w.board.take_changed().is_empty());
    w.ends(1, failed());
    assert_eq!(w.board.take_changed(), [id("A")].into());
    w.look(&[issue("A", "Backlog")]);
    w.look(&[issue("A", "Backlog")]);
    assert_eq!(w.board.take_changed(), [id("A")].into(), "a person grants a new allowance");
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 0);
}

/// Regression, found by the simulation: with fewer slots than before, two continuations that each kept a slot waited
/// for each other for ever.
#[test]
fn continuations_that_keep_their_slots_do_not_block_each_other_when_slots_become_fewer() {
    let mut w = World::new();
    let all = [issue("A", "Todo"), issue("B", "Todo")];
    assert_eq!(starts(&w.look(&all)).len(), 2);
    w.ends(1, RunEnd::TurnsUsed);
    w.ends(2, RunEnd::TurnsUsed);
    w.look(&all);
    w.policy.max_concurrent = 1;
    w.now = w.now.plus_ms(1_000);
    w.look(&all);
    assert_eq!(w.board.claims().filter(|(_, claim)| claim.run().is_some()).count(), 1);
}

/// Regression, found by the simulation: a retry that was due started from memory although the look did not find its
/// file, or found it half saved.
#[test]
fn a_due_retry_does_not_start_on_a_file_that_the_look_did_not_see() {
    let torn = Malformed { file: "Todo/A.md".into(), line: None, column: None, message: "half".into() };
    for scan in [Scan::default(), Scan { malformed: vec![torn], ..Scan::default() }] {
        let mut w = World::new();
        w.look(&[issue("A", "Todo")]);
        w.ends(1, failed());
        w.look(&[issue("A", "Todo")]);
        w.now = w.now.plus_ms(10_000);
        assert_eq!(w.step(Event::Woke), [Command::Poll]);
        assert!(starts(&w.step(Event::PollEnded(Ok(scan)))).is_empty());
        let plan = started(&w.look(&[issue("A", "Todo")])).remove(0);
        assert_eq!((plan.kind, plan.attempt), (RetryKind::Failure, Some(1)), "the next look finds it");
    }
}

/// Regression, found by the simulation: a continuation kept its slot while it waited for another issue, and an issue
/// that could have had it was told in the same look that all were taken.
#[test]
fn a_blocked_continuation_gives_its_slot_up_before_anybody_else_is_refused_one() {
    let mut w = World::new();
    w.policy.max_concurrent = 1;
    w.look(&[issue("A", "Todo")]);
    w.ends(1, RunEnd::TurnsUsed);
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    w.now = w.now.plus_ms(1_000);
    let blocker = Blocker { id: None, identifier: Identifier("X".into()), state: None };
    let blocked = Issue { blocked_by: vec![blocker], ..issue("A", "Todo") };
    let commands = w.look(&[blocked, issue("B", "Todo")]);
    assert_eq!(starts(&commands).iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["B"]);
    assert_eq!(w.why("A"), Some(NotNow::UnknownBlocker(Identifier("X".into()))));
}

/// Regression: a parked issue that one look could not read, as while a person edits it, forgot why it was parked.
#[test]
fn a_parked_issue_that_is_being_edited_still_says_why_it_was_parked() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.ends(1, template("p1"));
    w.step(Event::ParkEnded(id("A"), Ok(())));
    w.look(&[issue("A", "Parked")]);
    w.look(&[issue("A", "Parked")]);
    let torn = Malformed { file: "Parked/A.md".into(), line: None, column: None, message: "half".into() };
    w.step(Event::LookWanted);
    w.step(Event::PollEnded(Ok(Scan { malformed: vec![torn], ..Scan::default() })));
    w.look(&[issue("A", "Parked")]);
    assert!(matches!(w.why("A"), Some(NotNow::Parked(..))));
    w.look(&[issue("A", "Backlog")]);
    assert!(matches!(w.why("A"), Some(NotNow::Parked(..))), "wherever nobody works");
    w.look(&[]);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished), "a deleted one needs nobody");
}

#[test]
fn a_finished_issue_that_is_being_edited_is_not_cleaned_up_twice() {
    let mut w = World::new();
    assert_eq!(w.look(&[issue("A", "Done")]).len(), 1);
    w.step(Event::WorkspaceRemoved(id("A")));
    w.look(&[issue("A", "Done")]);
    w.look(&[]);
    assert!(w.look(&[issue("A", "Done")]).is_empty());
}

#[test]
fn a_proposal_that_nobody_decided_on_waits_for_a_human() {
    let mut w = World::new();
    let proposal = Issue { proposed_by: Some("A".into()), ..issue("B", "Triage") };
    w.look(&[issue("C", "Backlog"), proposal.clone()]);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman));
    w.look(&[issue("C", "Backlog")]);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished), "a backlog waits for nobody");
    w.look(&[Issue { state: StateName::new("Todo"), ..proposal.clone() }]);
    w.ends(1, RunEnd::Moved(StateName::new("Triage")));
    w.look(&[proposal]);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished), "once it ran it is an issue like any other");
}

/// Regression, found by the simulation (seed 69270): a run that was out of time parked its issue out of the holding
/// state a person had put it in meanwhile, and a change of the prompt then moved it back there, again and again.
#[test]
fn where_a_person_put_an_issue_outranks_our_stop_for_wall_time() {
    for (state, cleans) in [("Triage", false), ("Done", true)] {
        let mut w = World::new();
        w.policy.budget.wall_ms = 1_000;
        w.look(&[issue("A", "Todo")]);
        assert_eq!(w.at(1_001).step(Event::Woke), [Command::Stop(RunId(1), StopCause::WallTime)]);
        w.look(&[issue("A", state)]);
        let commands = w.ends(1, template("p1"));
        assert_eq!(parked_for(&commands), None);
        assert_eq!(commands.iter().any(|c| matches!(c, Command::RemoveWorkspace(_))), cleans, "{state}");
        assert_eq!(w.board.counters(&id("A")).last.expect("ended").reason, EndReason::CancelledByOperator);
    }
}

#[test]
fn the_time_of_live_runs_is_counted_whenever_somebody_asks_and_only_while_they_work() {
    let mut w = World::new();
    let wall = |w: &World, name: &str| w.board.counters(&id(name)).used.wall_ms;
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    w.at(101).step(Event::Asking(RunId(2), true));
    w.board.take_changed();
    w.board.count_time(Tick(1_001));
    assert_eq!((wall(&w, "A"), wall(&w, "B")), (1_000, 100));
    assert_eq!(w.board.take_changed(), [id("A")].into(), "the journal learns what changed and nothing else");
    w.at(1_101).ends(1, RunEnd::TurnsUsed);
    w.board.count_time(Tick(9_001));
    assert_eq!((wall(&w, "A"), wall(&w, "B")), (1_100, 100));
}

#[test]
fn an_issue_that_is_put_on_hold_while_it_waits_keeps_what_it_used() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.ends(1, failed());
    w.look(&[issue("A", "Todo")]);
    w.look(&[Issue { dispatchable: false, ..issue("A", "Todo") }]);
    assert_eq!((w.board.claims().count(), w.board.counters(&id("A")).failures_in_a_row), (0, 1));
}

#[test]
fn trouble_with_the_journal_is_no_failure_of_the_issue_and_uses_up_none_of_its_runs() {
    let mut w = World::new();
    (w.policy.budget.failures_in_a_row, w.policy.budget.sessions) = (2, 3);
    let all = [issue("A", "Todo")];
    for run in 1..=10 {
        assert_eq!(started(&w.look(&all)).len(), 1, "run {run}");
        let end = RunEnd::Failed(RunFailure { code: FailureCode::Journal, message: "full".into() });
        assert_eq!(parked_for(&w.ends(run, end)), None);
        assert!(started(&w.look(&all)).is_empty(), "not in a hurry");
        let later = w.now.plus_ms(10_000);
        w.at(later.0).step(Event::Woke);
    }
    let counters = w.board.counters(&id("A"));
    assert_eq!((counters.failures_in_a_row, counters.since_grant().sessions), (0, 0));
}
