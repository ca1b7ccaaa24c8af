//! What a person decides while a run ends, what a kill leaves, what each move grants, what a moment of little memory means.

use super::*;
use crate::budget::Counters;

fn parks(commands: &[Command]) -> Vec<&Command> {
    commands.iter().filter(|command| matches!(command, Command::Park { .. })).collect()
}

fn template() -> RunEnd {
    RunEnd::NeedsHuman(ParkReason::Template { detail: "line 3".into(), prompt: "p1".into() })
}

fn why(w: &World, name: &str) -> Option<NotNow> {
    w.board.verdict(w.board.issue(&id(name)).expect("known"), w.now, &w.policy).err()
}

/// What a new process makes of what the old one told the journal, as the conductor keeps it.
fn restart(w: &mut World, parked: BTreeMap<IssueId, Parked>) {
    let counters: BTreeMap<IssueId, Counters> = w.board.counters.clone();
    w.board = Board::new(Past { next_run: RunId(w.board.next_run), counters, parked, ..Past::default() });
}

#[test]
fn an_issue_that_a_person_cancels_during_a_handoff_that_fails_stays_cancelled() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunFinishing(RunId(1)));
    w.look(&[issue("A", "Done")]);
    let end = RunEnd::NeedsHuman(ParkReason::Diverged { detail: "moved".into() });
    let commands = w.step(Event::RunEnded(RunId(1), end, None));
    assert_eq!(parks(&commands), Vec::<&Command>::new(), "a person's move stands");
}

#[test]
fn an_issue_whose_file_is_half_saved_right_after_it_was_parked_still_says_why() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), template(), None));
    w.step(Event::ParkEnded(id("A"), Ok(())));
    // The look that was under way says nothing; in the next one a person has the file in an editor.
    w.step(scan(&[issue("A", "Todo")]));
    let torn = Malformed { file: "Parked/A.md".into(), line: None, column: None, message: "half".into() };
    w.step(Event::PollEnded(Ok(Scan { malformed: vec![torn], ..Scan::default() })));
    w.look(&[issue("A", "Parked")]);
    w.look(&[issue("A", "Parked")]);
    assert!(matches!(why(&w, "A"), Some(NotNow::Parked(..))), "{:?}", why(&w, "A"));
}

#[test]
fn a_kill_between_parking_and_the_move_of_the_file_grants_no_second_allowance() {
    let mut w = World::new();
    w.policy.budget.sessions = 1;
    w.look(&[issue("A", "Todo")]);
    let commands = w.step(Event::RunEnded(RunId(1), RunEnd::TurnsUsed, None));
    assert_eq!(parks(&commands).len(), 1);
    // The journal has counters and reason; the file did not move.
    let reason = ParkReason::Budget { bound: crate::budget::Bound::Sessions, used: 1 };
    let parked = Parked { reason, from: StateName::new("Todo") };
    restart(&mut w, [(id("A"), parked)].into());
    assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty(), "nobody decided anything about it");
}

#[test]
fn an_issue_that_a_person_put_into_another_holding_state_does_not_leave_it_by_itself() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), template(), None));
    w.step(Event::ParkEnded(id("A"), Ok(())));
    w.look(&[issue("A", "Parked")]);
    w.look(&[issue("A", "Parked")]);
    w.look(&[issue("A", "Backlog")]);
    w.policy.prompt = "p2".into();
    assert_eq!(w.look(&[issue("A", "Backlog")]), [], "a person put it there");
}

#[test]
fn an_issue_goes_back_by_itself_only_to_a_state_that_is_still_worked_in() {
    for (role, name) in [(None, "undeclared"), (Some(Role::Terminal), "terminal")] {
        let mut w = World::new();
        w.look(&[issue("A", "Todo")]);
        w.step(Event::RunEnded(RunId(1), template(), None));
        w.step(Event::ParkEnded(id("A"), Ok(())));
        w.look(&[issue("A", "Parked")]);
        w.look(&[issue("A", "Parked")]);
        w.policy.prompt = "p2".into();
        w.policy.states.rules.shift_remove(&StateName::new("Todo"));
        if let Some(role) = role {
            w.policy.states.rules.insert(StateName::new("Todo"), StateRule::of(role));
        }
        assert_eq!(w.look(&[issue("A", "Parked")]), [], "{name}");
    }
}

#[test]
fn a_machine_that_is_short_of_memory_for_a_moment_does_not_end_once() {
    let mut w = World::new();
    w.policy.memory = Some(Memory { available_mib: 999, needed_mib: 1_000 });
    w.look(&[issue("A", "Todo")]);
    assert!(matches!(why(&w, "A"), Some(NotNow::NoMemory { .. })));
    for _ in 0..2 {
        assert_eq!(w.board.settled(w.now, &w.policy), None, "the next look may find some; no human is needed");
        w.look(&[issue("A", "Todo")]);
    }
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman), "but nobody waits for ever");
    w.look(&[]);
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.board.settled(w.now, &w.policy), None, "it is counted anew");
}

#[test]
fn a_released_retry_that_a_person_puts_aside_begins_anew_like_one_that_still_waited() {
    let mut w = World::new();
    let blocker = Blocker { id: None, identifier: Identifier("X".into()), state: None };
    let blocked = Issue { blocked_by: vec![blocker], ..issue("A", "Todo") };
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    w.look(&[issue("A", "Todo")]);
    w.now = w.now.plus_ms(10_000);
    w.step(Event::Woke);
    w.look(&[blocked]);
    assert_eq!(w.board.claims().count(), 0);
    w.look(&[issue("A", "Backlog")]);
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 0, "as for one whose claim waits");
}

#[test]
fn a_kill_after_the_move_of_a_parked_file_still_grants_what_a_person_resumes_it_with() {
    let mut w = World::new();
    w.policy.budget.sessions = 1;
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), RunEnd::TurnsUsed, None));
    let reason = ParkReason::Budget { bound: crate::budget::Bound::Sessions, used: 1 };
    restart(&mut w, [(id("A"), Parked { reason, from: StateName::new("Todo") })].into());
    w.look(&[issue("A", "Parked")]);
    assert!(matches!(why(&w, "A"), Some(NotNow::Parked(..))));
    assert_eq!(w.board.take_changed(), [id("A")].into(), "the journal learns of it");
    w.look(&[issue("A", "Parked")]);
    assert!(w.board.take_changed().is_empty(), "once");
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
}

/// What no test noticed when it was broken by hand.
#[test]
fn a_second_run_is_asked_to_end_when_the_time_that_the_first_one_left_is_over() {
    let mut w = World::new();
    (w.policy.budget.wall_ms, w.policy.interval_ms) = (1_000, 1_000_000);
    w.look(&[issue("A", "Todo")]);
    w.now = Tick(301);
    w.step(Event::RunEnded(RunId(1), RunEnd::TurnsUsed, None));
    w.look(&[issue("A", "Todo")]);
    w.now = Tick(2_000);
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
    w.now = Tick(2_700);
    assert!(w.step(Event::Woke).contains(&Command::Stop(RunId(2), StopCause::WallTime)));
}

#[test]
fn our_own_stopping_costs_an_issue_no_run_and_a_vanished_file_gives_none_back() {
    for (stop, since) in [(StopCause::Drain, 0), (StopCause::Missing, 1)] {
        let mut w = World::new();
        w.look(&[issue("A", "Todo")]);
        w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(stop), None));
        assert_eq!(w.board.counters(&id("A")).since_grant().sessions, since, "{stop:?}");
    }
}

#[test]
fn a_terminal_issue_that_was_taken_up_again_loses_its_workspace_once_more() {
    let mut w = World::new();
    w.policy.closed = Some(Closed::WorkflowBroken);
    w.look(&[issue("A", "Done")]);
    w.step(Event::WorkspaceRemoved(id("A")));
    w.look(&[issue("A", "Todo")]);
    w.look(&[issue("A", "Todo")]);
    assert!(matches!(w.look(&[issue("A", "Done")])[..], [Command::RemoveWorkspace(_)]));
}

#[test]
fn a_look_that_began_before_our_own_move_resumes_nothing() {
    let mut w = World::new();
    let reason = ParkReason::Template { detail: "line 3".into(), prompt: "p1".into() };
    let parked = Parked { reason, from: StateName::new("Todo") };
    w.board = Board::new(Past { next_run: RunId(1), parked: [(id("A"), parked)].into(), ..Past::default() });
    w.policy.prompt = "p2".into();
    assert_eq!(w.look(&[issue("A", "Parked")]).len(), 1);
    w.step(Event::LookWanted);
    w.step(Event::ResumeEnded(id("A"), Ok(())));
    let again = |commands: &[Command]| commands.iter().any(|c| matches!(c, Command::Resume { .. }));
    assert!(!again(&w.step(scan(&[issue("A", "Parked")]))), "that look is older than the move");
}

#[test]
fn an_agent_that_hands_its_issue_on_ends_a_row_of_failures() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    w.now = w.now.plus_ms(10_000);
    w.look(&[issue("A", "Todo")]);
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(2), RunEnd::Moved(StateName::new("In Progress")), None));
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 0);
    assert_eq!(starts(&w.look(&[issue("A", "In Progress")])), [("A".into(), RunId(3), None)]);
}

#[test]
fn a_run_that_was_stopped_when_the_tracker_changed_is_not_looked_for_in_the_new_one() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.look(&[issue("A", "Backlog")]), [Command::Stop(RunId(1), StopCause::NotActive)]);
    w.step(Event::TrackerChanged);
    w.look(&[issue("A", "Todo")]);
    let commands = w.step(Event::RunEnded(RunId(1), failed(), None));
    assert!(
        commands.iter().all(|command| *command == Command::Poll),
        "nothing is retried or parked there: {commands:?}"
    );
    assert_eq!(w.board.counters(&id("A")).since_grant().sessions, 1, "and nobody granted anything");
}

#[test]
fn a_file_seen_cancelled_before_its_run_ended_and_missing_since_grants_withdraws_and_cleans_nothing() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::TurnBegan(RunId(1), 1));
    w.step(Event::Asked(RunId(1), None));
    w.step(Event::LookWanted);
    w.step(Event::RunEnded(RunId(1), RunEnd::TurnsUsed, None));
    let used = w.board.counters(&id("A"));
    // Regression, found by the simulation (seed 121390): on the second look all three were done for good.
    // The look that was under way when the run ended says nothing about it, nor does one that does not find the file.
    assert_eq!(w.step(scan(&[issue("A", "Done")])), [Command::Poll]);
    assert_eq!(w.look(&[]), [], "where it stood before says nothing");
    assert!(w.board.is_asked(&id("A")));
    assert_eq!(w.board.counters(&id("A")), used);
    w.look(&[issue("A", "Todo")]);
    assert_eq!((w.board.is_asked(&id("A")), w.board.counters(&id("A"))), (true, used), "nobody decided anything");
    // Seen there, it is finished.
    let commands = w.look(&[issue("A", "Done")]);
    assert!(matches!(commands[..], [Command::Withdraw(_), Command::RemoveWorkspace(_)]), "{commands:?}");
    assert_eq!(w.board.counters(&id("A")).since_grant().sessions, 0);
}
