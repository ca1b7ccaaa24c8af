//! Questions that outlive their runs: who waits for the answer, who gets it by default, and when nobody needs it.

use super::*;

fn past(asked: Option<Tick>, waiting: &[(&str, u64)]) -> Past {
    let due = |until| Due { until: Tick(until), kind: RetryKind::Failure, error: Some("boom".into()) };
    Past {
        next_run: RunId(7),
        waiting: waiting.iter().map(|(name, until)| (id(name), due(*until))).collect(),
        asked: [(id("Q"), asked)].into(),
        ..Past::default()
    }
}

/// A run of A whose question is open; with a default from that instant on.
fn asking(default_at: Option<u64>) -> World {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::TurnBegan(RunId(1), 1));
    w.step(Event::Asked(RunId(1), default_at.map(Tick)));
    w
}

fn restarted(past: Past) -> World {
    World { board: Board::new(past), policy: policy(), now: Tick(1) }
}

fn why(w: &World, name: &str) -> Option<NotNow> {
    w.board.verdict(&issue(name, "Todo"), w.now, &w.policy).err()
}

fn withdraws(commands: &[Command]) -> bool {
    commands.contains(&Command::Withdraw(id("A")))
}

#[test]
fn a_run_that_waits_too_long_gives_its_slot_back_and_the_answer_starts_the_issue_again() {
    let mut w = asking(None);
    w.policy.max_concurrent = 1;
    w.step(Event::Asking(RunId(1), true));
    w.now = w.now.plus_ms(1_799_999);
    assert_eq!(w.step(Event::LookWanted), [Command::Poll]);
    w.step(scan(&[issue("A", "Todo")]));
    assert_eq!(w.board.wake_at(&w.policy), Some(w.now.plus_ms(1)));
    w.now = w.now.plus_ms(1);
    assert_eq!(w.step(Event::Woke), [Command::Stop(RunId(1), StopCause::Released)]);
    w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::Released), None));
    let counters = w.board.counters(&id("A"));
    assert_eq!(counters.last.expect("ended").reason, EndReason::AwaitingAnswer);
    assert_eq!((counters.failures_in_a_row, w.board.claims().count()), (0, 0));
    let both = [issue("A", "Todo"), issue("B", "Todo")];
    assert_eq!(starts(&w.step(scan(&both))), [("B".into(), RunId(2), None)], "its slot is free");
    w.look(&both);
    assert_eq!(why(&w, "A"), Some(NotNow::AwaitingAnswer));
    w.step(Event::RunEnded(RunId(2), RunEnd::Stopped(StopCause::Missing), None));
    w.step(scan(&both[..1]));
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman));
    assert_eq!(w.step(Event::Answered(id("A"))), [Command::Poll]);
    let commands = w.step(scan(&both[..1]));
    assert_eq!(starts(&commands), [("A".into(), RunId(3), Some(1))], "it continues");
}

#[test]
fn waiting_and_being_released_uses_up_no_allowance_of_runs() {
    let mut w = asking(None);
    w.policy.budget.sessions = 1;
    w.step(Event::Asking(RunId(1), true));
    w.now = w.now.plus_ms(1_800_000);
    w.step(Event::Woke);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 0, "how it broke on the way is no failure");
    w.step(Event::Answered(id("A")));
    w.step(scan(&[issue("A", "Todo")]));
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
}

#[test]
fn a_default_answers_once_when_its_time_has_come_and_until_then_nothing_is_settled() {
    let mut w = asking(Some(5_000));
    w.step(Event::Asking(RunId(1), true));
    assert_eq!(w.board.settled(w.now, &w.policy), None, "it will go on by itself");
    assert_eq!(w.board.wake_at(&w.policy), Some(Tick(5_000)));
    w.now = Tick(4_999);
    assert_eq!(w.step(Event::Woke), []);
    w.now = Tick(5_000);
    assert_eq!(w.step(Event::Woke), [Command::AnswerByDefault(id("A"))]);
    assert_eq!(w.step(Event::Woke), [], "once");
    assert!(w.board.is_asked(&id("A")), "until the answer is kept");
    assert_eq!(w.board.settled(w.now, &w.policy), None, "it is on its way");
    w.step(Event::Answered(id("A")));
    assert!(!w.board.is_asked(&id("A")));
}

#[test]
fn a_question_asked_anew_takes_the_place_of_the_older_one() {
    let mut w = asking(Some(5_000));
    w.step(Event::Asked(RunId(1), Some(Tick(9_000))));
    w.now = Tick(5_000);
    assert_eq!(w.step(Event::Woke), []);
    w.now = Tick(9_000);
    assert_eq!(w.step(Event::Woke), [Command::AnswerByDefault(id("A"))]);
}

#[test]
fn a_run_that_is_not_alive_asks_nothing() {
    let mut w = asking(None);
    w.step(Event::Answered(id("A")));
    w.step(Event::Asked(RunId(9), None));
    assert!(!w.board.is_asked(&id("A")));
}

#[test]
fn a_failed_run_with_an_open_question_waits_for_the_answer_and_the_failure_counts() {
    let mut w = asking(None);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    assert_eq!(w.board.due_of(&id("A")), None, "the answer brings it forward, no clock");
    w.step(scan(&[issue("A", "Todo")]));
    w.now = w.now.plus_ms(400_000);
    assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty());
    assert_eq!(why(&w, "A"), Some(NotNow::AwaitingAnswer));
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 1);
    w.step(Event::Answered(id("A")));
    let Some(Command::Start(plan)) = w.step(scan(&[issue("A", "Todo")])).pop() else { panic!("it starts") };
    assert_eq!((plan.kind, plan.attempt), (RetryKind::Failure, Some(1)));
}

#[test]
fn a_run_that_used_its_turns_with_a_question_open_keeps_no_slot() {
    let mut w = asking(None);
    w.policy.max_concurrent = 1;
    w.step(Event::RunEnded(RunId(1), RunEnd::TurnsUsed, None));
    let both = [issue("A", "Todo"), issue("B", "Todo")];
    assert_eq!(starts(&w.step(scan(&both))), [("B".into(), RunId(2), None)]);
}

#[test]
fn wall_time_ends_a_run_that_asked_in_the_middle_of_its_turn_and_its_issue_is_parked_and_asks_no_more() {
    let mut w = World::new();
    w.policy.budget.wall_ms = 1_000;
    w.look(&[issue("A", "Todo")]);
    w.step(Event::Asked(RunId(1), None));
    w.now = Tick(1_001);
    assert_eq!(w.step(Event::Woke), [Command::Stop(RunId(1), StopCause::WallTime)]);
    let commands = w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::WallTime), None));
    assert!(matches!(commands[0], Command::Park { .. }), "{commands:?}");
    assert!(w.board.is_asked(&id("A")), "until the file has moved");
    w.step(Event::ParkEnded(id("A"), Ok(())));
    w.step(scan(&[issue("A", "Todo")]));
    let moved = w.step(scan(&[issue("A", "Parked")]));
    assert!(withdraws(&moved), "{moved:?}");
}

#[test]
fn a_person_who_takes_an_issue_out_of_work_withdraws_its_question() {
    for to in ["Backlog", "Done"] {
        // Under its run.
        let mut w = asking(Some(60_000));
        assert!(matches!(w.look(&[issue("A", to)])[..], [Command::Stop(RunId(1), _)]));
        let Some(Claim::Stopping { cause, .. }) = w.board.claims.get(&id("A")).cloned() else { panic!("stopping") };
        assert!(withdraws(&w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(cause), None))), "{to}");
        // After it.
        let mut w = asking(Some(60_000));
        w.step(Event::RunEnded(RunId(1), failed(), None));
        w.step(scan(&[issue("A", "Todo")]));
        assert!(withdraws(&w.look(&[issue("A", to)])), "{to}");
        w.now = Tick(60_000);
        assert!(!w.step(Event::Woke).contains(&Command::AnswerByDefault(id("A"))));
    }
}

#[test]
fn a_look_that_began_before_the_end_of_the_run_withdraws_nothing() {
    let mut w = asking(None);
    w.step(Event::LookWanted);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    assert!(!withdraws(&w.step(scan(&[issue("A", "Backlog")]))), "a later one counts");
    assert!(withdraws(&w.step(scan(&[issue("A", "Backlog")]))));
}

#[test]
fn an_issue_on_hold_keeps_its_question() {
    let mut w = asking(None);
    w.look(&[Issue { dispatchable: false, ..issue("A", "Todo") }]);
    w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::NotRoutable), None));
    w.step(scan(&[issue("A", "Todo")]));
    assert_eq!(why(&w, "A"), Some(NotNow::AwaitingAnswer));
}

#[test]
fn the_agents_own_word_that_it_is_done_or_hands_on_withdraws_its_question() {
    for end in [RunEnd::Done, RunEnd::Moved(StateName::new("In Progress"))] {
        let mut w = asking(None);
        w.step(Event::RunFinishing(RunId(1)));
        assert!(withdraws(&w.step(Event::RunEnded(RunId(1), end, None))));
        assert!(!w.board.is_asked(&id("A")));
    }
}

#[test]
fn the_question_of_a_run_in_a_tracker_that_is_looked_at_no_more_ends_with_the_run() {
    let mut w = asking(None);
    w.step(Event::TrackerChanged);
    assert!(withdraws(&w.step(Event::RunEnded(RunId(1), failed(), None))));
}

#[test]
fn a_question_whose_file_is_gone_for_good_is_withdrawn_and_one_that_cannot_be_read_is_kept() {
    let mut w = restarted(past(None, &[]));
    let torn = Malformed { file: "Todo/Q.md".into(), line: None, column: None, message: "half".into() };
    for _ in 0..3 {
        w.now = w.now.plus_ms(1_000);
        w.step(Event::LookWanted);
        let scan = Scan { malformed: vec![torn.clone()], ..Scan::default() };
        assert_eq!(w.step(Event::PollEnded(Ok(scan))), []);
    }
    assert_eq!(w.look(&[]), [], "missing once");
    assert_eq!(w.board.wake_at(&w.policy), Some(w.now.plus_ms(200)), "looked for again");
    // Regression, found by the simulation (seed 19937): with `--once`, symphony ended before it looked again.
    assert_eq!(w.board.settled(w.now, &w.policy), None);
    w.now = w.now.plus_ms(200);
    w.step(Event::Woke);
    assert_eq!(w.step(scan(&[])), [Command::Withdraw(id("Q"))]);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished));
}

#[test]
fn a_drain_stops_who_waits_keeps_questions_and_due_times_and_releases_nobody() {
    let mut w = asking(None);
    w.step(Event::Asking(RunId(1), true));
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    w.step(Event::RunEnded(RunId(2), failed(), None));
    let due = w.board.due_of(&id("B"));
    assert!(due.is_some());
    assert_eq!(w.step(Event::DrainAsked), [Command::Stop(RunId(1), StopCause::Drain)]);
    w.now = w.now.plus_ms(1_800_000);
    assert_eq!(w.step(Event::Woke), [], "it was asked to stop before");
    w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::Drain), None));
    assert!(w.board.is_asked(&id("A")));
    assert_eq!(w.board.due_of(&id("B")), due, "the next process takes it from the journal");
    assert_eq!(w.board.wake_at(&w.policy), None);
}

#[test]
fn a_drain_during_a_release_changes_nothing_about_it() {
    let mut w = asking(None);
    w.step(Event::Asking(RunId(1), true));
    w.now = w.now.plus_ms(1_800_000);
    assert_eq!(w.step(Event::Woke)[0], Command::Stop(RunId(1), StopCause::Released));
    assert_eq!(w.step(Event::DrainAsked), []);
    w.step(Event::RunEnded(RunId(1), RunEnd::Stopped(StopCause::Released), None));
    assert_eq!(w.board.counters(&id("A")).last.expect("ended").reason, EndReason::AwaitingAnswer);
    assert!(w.board.is_asked(&id("A")));
}

#[test]
fn a_new_process_keeps_due_times_and_questions_of_the_old_one() {
    let mut w = restarted(past(Some(Tick(20_000)), &[("A", 10_000), ("Q", 5_000)]));
    assert_eq!(w.board.due_of(&id("Q")), None, "who waits for an answer waits for nothing else");
    let all = [issue("A", "Todo"), issue("Q", "Todo")];
    assert!(starts(&w.look(&all)).is_empty());
    assert_eq!(why(&w, "A"), Some(NotNow::BackingOff(Tick(10_000))));
    assert_eq!(why(&w, "Q"), Some(NotNow::AwaitingAnswer));
    assert_eq!(w.board.wake_at(&w.policy), Some(Tick(10_000)));
    w.now = Tick(10_000);
    w.step(Event::Woke);
    assert_eq!(starts(&w.step(scan(&all))), [("A".into(), RunId(7), Some(1))]);
    w.now = Tick(20_000);
    assert_eq!(w.step(Event::Woke), [Command::AnswerByDefault(id("Q"))]);
}

/// Regression: the first look of a process forgot the due time of a file that it found half saved.
#[test]
fn a_retry_of_an_earlier_process_is_forgotten_only_when_its_file_is_gone_for_good() {
    let mut w = restarted(Past { asked: BTreeMap::new(), ..past(None, &[("A", 10_000)]) });
    let torn = Malformed { file: "Todo/A.md".into(), line: None, column: None, message: "half".into() };
    w.step(Event::LookWanted);
    w.step(Event::PollEnded(Ok(Scan { malformed: vec![torn], ..Scan::default() })));
    assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty());
    assert!(w.board.due_of(&id("A")).is_some());
    let mut w = restarted(Past { asked: BTreeMap::new(), ..past(None, &[("A", 10_000)]) });
    w.look(&[]);
    assert!(w.board.due_of(&id("A")).is_some(), "missing once");
    w.now = w.now.plus_ms(200);
    w.step(Event::Woke);
    w.step(scan(&[]));
    assert_eq!(w.board.due_of(&id("A")), None);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished));
}

#[test]
fn a_blocker_is_waited_for_after_the_answer_and_a_question_of_another_issue_holds_up_nobody() {
    let mut w = restarted(past(None, &[]));
    let mut asked = issue("Q", "Todo");
    asked.blocked_by.push(Blocker { id: None, identifier: Identifier("X".into()), state: None });
    let all = [asked.clone(), issue("B", "Todo")];
    assert_eq!(starts(&w.look(&all)), [("B".into(), RunId(7), None)]);
    assert_eq!(w.board.verdict(&asked, w.now, &w.policy), Err(NotNow::AwaitingAnswer));
    w.step(Event::Answered(id("Q")));
    assert!(starts(&w.step(scan(&all))).is_empty());
    assert_eq!(w.board.verdict(&asked, w.now, &w.policy), Err(NotNow::UnknownBlocker(Identifier("X".into()))));
}
