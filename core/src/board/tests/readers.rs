//! What readers ask of the board: its words, its reasons, whether it has come to rest.

use super::*;
use crate::issue::Ambiguity;
use crate::spend::{Met, Scope, Standing, Unit};

fn torn(file: &str) -> Malformed {
    Malformed { file: file.into(), line: Some(2), column: Some(1), message: "half".into() }
}

fn twice(name: &str) -> Ambiguity {
    Ambiguity { name: name.into(), files: vec![format!("Todo/{name}.md"), format!("Done/{name}.md")] }
}

#[test]
fn a_look_is_wanted_from_the_moment_it_is_asked_for_until_it_begins() {
    let mut w = World::new();
    assert!(w.board.look_is_wanted(), "the first one");
    assert_eq!(w.step(Event::LookWanted), [Command::Poll]);
    assert!(!w.board.look_is_wanted() && w.board.is_looking(), "it is under way");
    w.step(Event::LookWanted);
    assert!(w.board.look_is_wanted(), "one more");
    assert_eq!(w.step(scan(&[])), [Command::Poll], "and it follows at once");
    w.step(scan(&[]));
    assert!(!w.board.look_is_wanted() && !w.board.is_looking(), "until the interval is over");
}

#[test]
fn a_due_retry_that_finds_no_slot_causes_no_look_of_its_own() {
    let mut w = World::new();
    w.policy.max_concurrent = 1;
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    let both = [issue("A", "Todo"), issue("B", "Todo")];
    w.look(&both);
    w.now = w.now.plus_ms(10_000);
    assert_eq!(w.step(Event::Woke), [Command::Poll]);
    assert!(w.step(scan(&both)).is_empty(), "no look follows this one");
    assert_eq!(w.board.wake_at(&w.policy), Some(w.now.plus_ms(30_000)), "but the next poll");
}

#[test]
fn a_shutdown_is_known_from_its_first_moment() {
    let mut w = World::new();
    assert!(!w.board.is_draining());
    w.step(Event::DrainAsked);
    assert!(w.board.is_draining());
}

#[test]
fn files_that_are_no_issues_are_known_as_of_the_newest_good_look() {
    let mut w = World::new();
    w.step(Event::LookWanted);
    let found = Scan { malformed: vec![torn("Todo/A.md")], ambiguous: vec![twice("B")], ..Scan::default() };
    w.step(Event::PollEnded(Ok(found)));
    assert_eq!((w.board.malformed(), w.board.ambiguous()), (&[torn("Todo/A.md")][..], &[twice("B")][..]));
    w.step(Event::LookWanted);
    w.step(Event::PollEnded(Err("away".into())));
    assert_eq!(w.board.malformed().len(), 1, "an error is no news");
    w.look(&[]);
    assert!(w.board.malformed().is_empty() && w.board.ambiguous().is_empty());
}

#[test]
fn each_thing_that_only_a_person_can_mend_keeps_the_work_from_being_finished() {
    let needs = |found: Scan| {
        let mut w = World::new();
        w.step(Event::LookWanted);
        w.step(Event::PollEnded(Ok(found)));
        w.board.settled(w.now, &w.policy)
    };
    let with = |issue: Issue| Scan { issues: vec![issue], ..Scan::default() };
    assert_eq!(needs(Scan::default()), Some(Settled::Finished));
    assert_eq!(needs(Scan { malformed: vec![torn("Todo/A.md")], ..Scan::default() }), Some(Settled::NeedsHuman));
    assert_eq!(needs(Scan { ambiguous: vec![twice("B")], ..Scan::default() }), Some(Settled::NeedsHuman));
    assert_eq!(needs(with(Issue { dispatchable: false, ..issue("A", "Todo") })), Some(Settled::NeedsHuman));
    assert_eq!(needs(with(issue("A", "Backlog"))), Some(Settled::Finished));
    assert_eq!(needs(with(issue("A", "Todo"))), None, "it runs");
}

#[test]
fn nothing_has_come_to_rest_before_the_first_look_or_while_one_is_under_way() {
    let mut w = World::new();
    assert_eq!(w.board.settled(w.now, &w.policy), None);
    w.look(&[]);
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::Finished));
    w.step(Event::LookWanted);
    assert_eq!(w.board.settled(w.now, &w.policy), None);
    w.step(Event::LookWanted);
    assert_eq!(w.board.settled(w.now, &w.policy), None);
}

#[test]
fn an_issue_that_may_run_is_no_rest_unless_nothing_can_be_seen() {
    let mut w = World::new();
    w.policy.max_concurrent = 0;
    w.look(&[issue("A", "Todo")]);
    w.policy.max_concurrent = 1;
    assert_eq!(w.board.settled(w.now, &w.policy), None, "the next look starts it");
    for _ in 0..3 {
        w.step(Event::LookWanted);
        w.step(Event::PollEnded(Err("away".into())));
    }
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman));
}

#[test]
fn a_circle_is_named_as_it_goes_round_and_a_chain_is_none() {
    let blocked = |name: &str, by: &str| {
        let state = Some(StateName::new("Todo"));
        let blocker = Blocker { id: Some(id(by)), identifier: Identifier(by.into()), state };
        Issue { blocked_by: vec![blocker], ..issue(name, "Todo") }
    };
    let mut w = World::new();
    w.policy.max_concurrent = 0;
    w.look(&[
        blocked("A", "B"),
        blocked("B", "C"),
        blocked("C", "A"),
        blocked("D", "A"),
        blocked("E", "F"),
        issue("F", "Todo"),
    ]);
    let why =
        |name: &str| w.board.verdict(w.board.issue(&id(name)).expect("known"), w.now, &w.policy).expect_err("waits");
    assert_eq!(why("A").to_string(), "in a circle of blockers: A → B → C → A");
    assert_eq!(why("B").to_string(), "in a circle of blockers: B → C → A → B");
    assert_eq!(why("D").to_string(), "blocked by A, which is in Todo", "it only waits for one");
    assert_eq!(why("E").to_string(), "blocked by F, which is in Todo");
    w.look(&[blocked("A", "A")]);
    let why = w.board.verdict(w.board.issue(&id("A")).expect("known"), w.now, &w.policy).expect_err("waits");
    assert_eq!(why.to_string(), "in a circle of blockers: A → A");
}

#[test]
fn a_blocked_retry_keeps_its_due_time_until_that_comes() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    let blocker = Blocker { id: None, identifier: Identifier("X".into()), state: None };
    let blocked = Issue { blocked_by: vec![blocker], ..issue("A", "Todo") };
    w.look(std::slice::from_ref(&blocked));
    w.look(std::slice::from_ref(&blocked));
    assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty(), "not earlier than without the blocker");
    w.now = w.now.plus_ms(10_000);
    w.look(&[blocked]);
    assert_eq!(w.board.claims().count(), 0, "then it waits for the other issue alone");
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])), [("A".into(), RunId(2), Some(1))]);
}

#[test]
fn what_kind_of_run_comes_next_is_known_from_the_counters_alone_after_a_restart() {
    let last = |reason| Some(LastRun { reason, end: "x".into(), left: None });
    let after = |sessions, granted, failures, reason| {
        let used = |sessions| crate::budget::Used { sessions, ..Default::default() };
        let counters = Counters {
            used: used(sessions),
            granted: used(granted),
            failures_in_a_row: failures,
            last: last(reason),
            ..Counters::default()
        };
        let mut w = World::new();
        w.board = Board::new(Past { next_run: RunId(7), counters: [(id("A"), counters)].into(), ..Past::default() });
        match w.look(&[issue("A", "Todo")]).remove(0) {
            Command::Start(plan) => (plan.kind, plan.attempt, plan.last.map(|last| last.reason)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(after(2, 0, 2, EndReason::Stalled), (RetryKind::Failure, Some(2), Some(EndReason::Stalled)));
    assert_eq!(after(2, 0, 0, EndReason::TurnsUsed), (RetryKind::Continuation, Some(1), Some(EndReason::TurnsUsed)));
    assert_eq!(after(2, 0, 0, EndReason::Moved), (RetryKind::First, None, Some(EndReason::Moved)));
    assert_eq!(after(2, 2, 0, EndReason::Shutdown), (RetryKind::First, None, Some(EndReason::Shutdown)));
    assert_eq!(after(2, 2, 0, EndReason::Done), (RetryKind::First, None, None), "finished: nothing to go on with");
}

#[test]
fn a_stop_for_wall_time_is_continued_and_no_repetition_of_an_older_failure() {
    let mut w = World::new();
    w.policy.budget.wall_ms = 1_000;
    w.look(&[issue("A", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    w.look(&[issue("A", "Todo")]);
    w.now = w.now.plus_ms(10_000);
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
    w.now = w.now.plus_ms(1_000);
    assert_eq!(w.step(Event::Woke), [Command::Stop(RunId(2), StopCause::WallTime)]);
    w.policy.budget.wall_ms = 9_000;
    w.step(Event::RunEnded(RunId(2), RunEnd::Stopped(StopCause::WallTime), None));
    w.look(&[issue("A", "Todo")]);
    w.now = w.now.plus_ms(1_000);
    let Command::Start(plan) = w.look(&[issue("A", "Todo")]).remove(0) else { panic!("it starts") };
    assert_eq!((plan.run, plan.kind), (RunId(3), RetryKind::Continuation));
    assert_eq!(w.board.counters(&id("A")).failures_in_a_row, 1, "it is still remembered");
}

#[test]
fn what_a_run_needed_a_person_for_is_moot_when_a_person_took_the_issue_away() {
    let mut w = World::new();
    w.look(&[issue("A", "Todo")]);
    assert_eq!(w.look(&[issue("A", "Done")]), [Command::Stop(RunId(1), StopCause::Terminal)]);
    let diverged = RunEnd::NeedsHuman(ParkReason::Diverged { detail: "moved".into() });
    let commands = w.step(Event::RunEnded(RunId(1), diverged, None));
    assert!(matches!(commands[0], Command::RemoveWorkspace(_)), "{commands:?}");
    let last = w.board.counters(&id("A")).last.expect("ended");
    assert_eq!(
        (last.reason, last.end.as_str()),
        (EndReason::CancelledByOperator, "stopped: moved to a terminal state")
    );
}

#[test]
fn every_reason_has_a_word_and_a_sentence_of_its_own() {
    let name = || Identifier("X".into());
    let state = || StateName::new("Todo");
    let parked = Parked { reason: ParkReason::NoProgress { sessions: 3 }, from: state() };
    let all = [
        NotNow::Holding,
        NotNow::Terminal,
        NotNow::OnHold,
        NotNow::DoubtfulKey("unknown key `blocked-by`".into()),
        NotNow::MissingLabel("go".into()),
        NotNow::AwaitingAnswer,
        NotNow::BlockedBy(name(), state()),
        NotNow::UnknownBlocker(name()),
        NotNow::BlockerCancelled(name(), state()),
        NotNow::BlockerCycle(vec![name()]),
        NotNow::NoGlobalSlot(2),
        NotNow::NoStateSlot(state(), 2),
        NotNow::NoMemory { needed_mib: 2, available_mib: 1, booting: 1 },
        NotNow::BackingOff(Tick(1)),
        NotNow::Parked(parked.clone(), None),
        NotNow::WillPark(parked.reason),
        NotNow::Running,
        NotNow::Resuming,
        NotNow::Cleaning,
        NotNow::Unconfirmed,
        NotNow::Unseen,
        NotNow::Spend(Met {
            scope: Scope::Day,
            unit: Unit::Money,
            day: jiff::civil::date(2026, 1, 31),
            used: 4_200_000_000,
            asked: 9,
            answer: 0,
            allowed: 5_000_000_000,
        }),
        NotNow::NoBudgetRoom,
        NotNow::ModelBarred(crate::workflow::Barred {
            model: "m".into(),
            why: "it has no price".into(),
            hint: "add one".into(),
        }),
        NotNow::Closed(Closed::WorkflowBroken),
        NotNow::Closed(Closed::NoSandbox("no user namespaces".into())),
        NotNow::Closed(Closed::NoSource("no commit".into())),
        NotNow::Draining,
    ];
    let words: BTreeSet<&str> = all.iter().map(NotNow::code).collect();
    let sentences: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!((words.len(), sentences.len()), (all.len(), all.len()));
    let plain = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
    assert_eq!(all.iter().filter(|reason| reason.is_parked()).map(NotNow::code).collect::<Vec<_>>(), ["parked"]);
    assert!(words.iter().all(plain) && words.contains("no-memory") && words.contains("backing-off"), "{words:?}");
}

/// C117.
#[test]
fn a_retry_that_is_due_at_a_failed_look_waits_another_step_and_says_so() {
    let mut w = World::new();
    w.policy.interval_ms = 1_000_000;
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    w.step(Event::RunEnded(RunId(1), failed(), None));
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    w.now = w.now.plus_ms(5_000);
    w.step(Event::RunEnded(RunId(2), failed(), None));
    w.look(&[issue("A", "Todo"), issue("B", "Todo")]);
    w.now = w.now.plus_ms(5_000);
    assert_eq!(w.step(Event::Woke), [Command::Poll]);
    w.step(Event::PollEnded(Err("away".into())));
    let waits = w.board.claims().map(|(name, claim)| match claim {
        Claim::Waiting { until, error, .. } => (name.0.as_str(), until.since(w.now), error.clone().expect("why")),
        other => panic!("{other:?}"),
    });
    assert_eq!(
        waits.collect::<Vec<_>>(),
        [("A", 10_000, "retry refresh failed: away".to_owned()), ("B", 5_000, "turn_failed: boom".to_owned()),]
    );
}

#[test]
fn a_file_that_is_one_of_two_by_any_of_its_names_never_stops_its_run() {
    let running = Issue { identifier: Identifier("NAME".into()), file: "Todo/file.md".into(), ..issue("ID", "Todo") };
    let named = |name: &str, file: &str| Ambiguity { name: name.into(), files: vec![file.into(), "Done/x.md".into()] };
    for (what, found, stops) in [
        ("its id", Scan { ambiguous: vec![named("ID", "Todo/x.md")], ..Scan::default() }, false),
        ("its identifier", Scan { ambiguous: vec![named("NAME", "Todo/x.md")], ..Scan::default() }, false),
        ("its file", Scan { ambiguous: vec![named("other", "Review/file.md")], ..Scan::default() }, false),
        ("its file, torn", Scan { malformed: vec![torn("Review/file.md")], ..Scan::default() }, false),
        (
            "another",
            Scan {
                ambiguous: vec![named("other", "Todo/x.md")],
                malformed: vec![torn("Todo/x.md")],
                ..Scan::default()
            },
            true,
        ),
    ] {
        let mut w = World::new();
        w.look(std::slice::from_ref(&running));
        let mut stopped = false;
        for _ in 0..3 {
            w.now = w.now.plus_ms(1_000);
            w.step(Event::LookWanted);
            stopped |= !w.step(Event::PollEnded(Ok(found.clone()))).is_empty();
        }
        assert_eq!(stopped, stops, "{what}");
    }
}

#[test]
fn every_park_reason_says_how_the_issue_comes_back() {
    let detail = || "x".to_owned();
    let blocker =
        || ParkReason::BlockerCancelled { blocker: Identifier("X".into()), state: StateName::new("Cancelled") };
    let from = StateName::new("In Progress");
    let mut words = BTreeSet::new();
    for (reason, remedy) in [
        (ParkReason::FailuresInARow { count: 2, last: detail() }, "grants a new allowance"),
        (ParkReason::Budget { bound: crate::budget::Bound::Sessions, used: 1 }, "grants a new allowance"),
        (ParkReason::Budget { bound: crate::budget::Bound::Turns, used: 1 }, "grants a new allowance"),
        (ParkReason::Budget { bound: crate::budget::Bound::WallTime, used: 1 }, "grants a new allowance"),
        (ParkReason::Budget { bound: crate::budget::Bound::Bounces, used: 1 }, "grants a new allowance"),
        (ParkReason::NoProgress { sessions: 3 }, "Say more clearly what is to be done"),
        (ParkReason::Template { detail: detail(), prompt: detail() }, "Mend the prompt in the workflow file"),
        (blocker(), "Remove X from `blocked_by`"),
        (ParkReason::Diverged { detail: detail() }, "To try again"),
        (ParkReason::AgentStart { detail: detail() }, "To try again"),
        (ParkReason::HandoffFailed { detail: detail() }, "To try again"),
    ] {
        let text = reason.remedy(&from);
        assert!(text.contains(remedy) && text.contains("move this file back to `In Progress/`"), "{text}");
        assert!(words.insert((reason.code(), reason.to_string())), "a word and a sentence of its own: {reason}");
    }
    let ends = |reason| RunEnd::NeedsHuman(reason).reason();
    assert_eq!(ends(ParkReason::Template { detail: detail(), prompt: detail() }), EndReason::TemplateError);
    assert_eq!(ends(ParkReason::Diverged { detail: detail() }), EndReason::Diverged);
    assert_eq!(ends(ParkReason::AgentStart { detail: detail() }), EndReason::AgentStart);
    assert_eq!(ends(ParkReason::HandoffFailed { detail: detail() }), EndReason::HandoffFailed);
}

#[test]
fn the_policy_is_the_workflow_s_and_asks_for_memory_only_when_told_to_and_when_it_is_known() {
    let place = crate::workflow::Place { dir: "/w".into(), home: None, env: &|_| None };
    let read = |sandbox: &str| {
        let text = format!(
            "---\ntracker: {{kind: local}}\nacp: {{adapter: script}}\nagent: {{max_concurrent_agents_by_state: {{todo: 3}}}}\n{sandbox}\n---\nP"
        );
        crate::workflow::Workflow::parse(&text, &place).expect("valid").0
    };
    let none = Stocks::new();
    let policy = Policy::of(&read("sandbox: {reserve_mib: 7}"), None, Some(9), None, &none, Standing::default());
    assert_eq!(policy.memory, Some(Memory { available_mib: 9, needed_mib: 7 }));
    assert_eq!(policy.states.rules[&StateName::new("Todo")].max_concurrent, Some(3));
    assert_eq!(policy.budget, read("").budget);
    assert_eq!(
        Policy::of(&read("sandbox: {reserve_mib: 7}"), None, None, None, &none, Standing::default()).memory,
        None
    );
    assert_eq!(
        Policy::of(&read("sandbox: {reserve_mib: 0}"), None, Some(9), None, &none, Standing::default()).memory,
        None
    );
    assert_eq!(
        Policy::of(&read(""), None, Some(9), None, &none, Standing::default()).memory.map(|memory| memory.needed_mib),
        Some(512)
    );
}

#[test]
fn an_issue_with_a_profile_that_cannot_be_had_waits_and_says_so_and_a_live_run_goes_on() {
    let mut w = World::new();
    w.policy.profiles.listed =
        [("small".to_owned(), None), ("vm".to_owned(), Some(Refusal::Runtime("names an image".to_owned())))].into();
    let with = |name: &str, profile: &str| Issue { profile: Some(profile.into()), ..issue(name, "Todo") };
    let out = w.look(&[with("A", "small"), with("B", "vm"), with("C", "smal\nl")]);
    assert_eq!(starts(&out).iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["A"]);
    let why =
        |w: &World, name: &str| w.board.verdict(w.board.issue(&id(name)).expect("known"), Tick(w.now.0), &w.policy);
    assert_eq!(why(&w, "B").expect_err("refused").to_string(), "its profile `vm` names an image");
    w.policy.profiles.default = Some("vm".to_owned());
    w.look(&[issue("D", "Todo"), with("E", "a list")]);
    assert_eq!(
        why(&w, "D").expect_err("refused").to_string(),
        "the workflow's `sandbox.profile`, `vm`, names an image"
    );
    assert_eq!(why(&w, "E").expect_err("no name").to_string(), "`profile` must be one name, it is a list");
    w.look(&[with("A", "small"), with("B", "vm"), with("C", "smal\nl")]);
    let unlisted = why(&w, "C").expect_err("unlisted");
    assert_eq!(
        (unlisted.code(), unlisted.to_string().as_str()),
        ("unknown-profile", "the workflow lists no profile `smal l` (it lists small, vm)")
    );
    let out = w.look(&[with("A", "gone"), with("B", "small"), with("C", "small")]);
    assert!(!out.iter().any(|command| matches!(command, Command::Stop(..))), "{out:?}");
    assert_eq!(starts(&out).len(), 1, "B has the second slot");
}

/// Regression: a profile whose image was missing failed its runs one after the other until its issues were parked.
#[test]
fn an_issue_whose_image_is_not_there_waits_unstarted_and_starts_at_the_look_that_finds_it() {
    let mut w = World::new();
    let lacking = |what: &str| Some(Refusal::Lacking { what: what.to_owned(), hint: "build it".to_owned() });
    w.policy.profiles.listed =
        [("big".to_owned(), lacking("it lacks curl")), ("far".to_owned(), Some(Refusal::Unclear("EIO".to_owned())))]
            .into();
    w.policy.profiles.unnamed = lacking("there is none");
    let with = |name: &str, profile: &str| Issue { profile: Some(profile.into()), ..issue(name, "Todo") };
    let all = [with("A", "big"), with("B", "far"), issue("C", "Todo")];
    assert!(starts(&w.look(&all)).is_empty());
    let why = |w: &World, name: &str| {
        let why =
            w.board.verdict(w.board.issue(&id(name)).expect("known"), Tick(w.now.0), &w.policy).expect_err("waits");
        (why.code(), why.to_string())
    };
    assert_eq!(why(&w, "A"), ("image-missing", "its profile `big` has nothing to boot: it lacks curl".to_owned()));
    assert_eq!(
        why(&w, "B"),
        ("image-unclear", "what its profile `far` would boot cannot be looked at: EIO".to_owned())
    );
    assert_eq!(why(&w, "C"), ("image-missing", "its sandbox has nothing to boot: there is none".to_owned()));
    w.policy.profiles.default = Some("big".to_owned());
    assert_eq!(why(&w, "C").1, "the workflow's `sandbox.profile`, `big`, has nothing to boot: it lacks curl");
    w.policy.profiles.listed["big"] = None;
    assert_eq!(starts(&w.look(&all)).iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["A", "C"]);
    for name in ["A", "B", "C"] {
        assert_eq!(w.board.counters(&id(name)).failures_in_a_row, 0);
    }
}

/// A look that failed says nothing for ever: `--once` ends only when several in a row did.
#[test]
fn an_image_that_cannot_be_looked_at_for_a_moment_does_not_end_once() {
    let mut w = World::new();
    w.policy.profiles.unnamed = Some(Refusal::Unclear("EIO".to_owned()));
    w.look(&[issue("A", "Todo")]);
    for _ in 0..2 {
        assert_eq!(w.board.settled(w.now, &w.policy), None, "the next look may see it");
        w.look(&[issue("A", "Todo")]);
    }
    assert_eq!(w.board.settled(w.now, &w.policy), Some(Settled::NeedsHuman), "but nobody waits for ever");
    w.policy.profiles.unnamed = None;
    assert_eq!(starts(&w.look(&[issue("A", "Todo")])).len(), 1);
}

#[test]
fn what_a_look_found_of_an_image_counts_for_the_profile_that_boots_it() {
    let place = crate::workflow::Place { dir: "/w".into(), home: None, env: &|_| None };
    let text = "---\ntracker: {kind: local}\nacp: {adapter: script}\nsandbox: {profiles: {big: {image: /x}, small: {}}}\n---\nP";
    let workflow = crate::workflow::Workflow::parse(text, &place).expect("valid").0;
    let found = Stock::Lacking { what: "w".to_owned(), hint: "h".to_owned() };
    let stocks: Stocks = [(Some("big".to_owned()), found), (None, Stock::Complete)].into();
    let of = |kind| Policy::of(&workflow, None, None, Some(kind), &stocks, Standing::default()).profiles;
    let machines = of(crate::runtimes::Kind::QemuKvm);
    assert!(matches!(&machines.listed["big"], Some(Refusal::Lacking { .. })), "{machines:?}");
    assert_eq!((&machines.listed["small"], &machines.unnamed), (&None, &None));
    assert!(matches!(&of(crate::runtimes::Kind::Jail).listed["big"], Some(Refusal::Runtime(_))), "never in a jail");
}

#[test]
fn an_issue_that_waits_for_a_trial_is_not_left_to_a_person_and_one_without_a_sandbox_is() {
    let settled = |closed: Closed| {
        let mut w = World::new();
        w.policy.closed = Some(closed);
        assert!(starts(&w.look(&[issue("A", "Todo")])).is_empty());
        w.board.settled(w.now, &w.policy)
    };
    assert_eq!(settled(Closed::TryingSandbox("qemu is being tried".into())), None);
    assert_eq!(settled(Closed::NoSandbox("nothing works".into())), Some(Settled::NeedsHuman));
}

/// A run under way is not stopped over it: nobody knows what was meant.
#[test]
fn an_issue_in_doubt_does_not_start_and_waits_for_a_person_and_its_run_goes_on() {
    let odd = crate::issue::Oddity { line: 2, column: 1, message: "unknown key `blocked-by`".into(), holds: true };
    let doubtful = Issue { oddities: vec![odd], ..issue("A", "Todo") };
    let mut w = World::new();
    w.look(std::slice::from_ref(&doubtful));
    assert!(w.board.claims().next().is_none(), "it started");
    assert_eq!(w.board.verdict(&doubtful, Tick(0), &w.policy).expect_err("held").code(), "doubtful-key");
    assert_eq!(w.board.settled(Tick(0), &w.policy), Some(Settled::NeedsHuman));
    w.look(&[issue("A", "Todo")]);
    assert!(w.board.claims().next().is_some_and(|(_, claim)| claim.run().is_some()), "mended, it starts");
    w.look(&[doubtful]);
    assert!(matches!(w.board.claims().next(), Some((_, Claim::Running { .. }))), "{:?}", w.board.claims().next());
}

/// Regression: its claim stayed, and with it a slot, and nothing was ever settled.
#[test]
fn an_issue_that_came_into_doubt_while_it_ran_gives_its_slot_back_when_its_next_run_is_due() {
    let odd = crate::issue::Oddity { line: 2, column: 1, message: "unknown key `blocked-by`".into(), holds: true };
    let doubtful = Issue { oddities: vec![odd], ..issue("A", "Todo") };
    for closed in [None, Some(Closed::NoSource("no commit".into()))] {
        let mut w = World::new();
        w.policy.max_concurrent = 1;
        w.look(&[issue("A", "Todo")]);
        w.step(Event::TurnBegan(RunId(1), 1));
        w.step(Event::RunEnded(RunId(1), RunEnd::TurnsUsed, None));
        let again = if closed.is_some() { issue("A", "Todo") } else { doubtful.clone() };
        w.policy.closed = closed;
        w.now = Tick(w.now.0 + 3_600_000);
        let started = starts(&w.look(&[again.clone(), issue("B", "Todo")]));
        assert_eq!(started.len(), usize::from(w.policy.closed.is_none()), "B has the slot");
        assert!(w.board.claims().all(|(id, _)| id.0 != "A"), "{:?}", w.board.claims().collect::<Vec<_>>());
        w.look(&[again]);
        assert_eq!(w.board.settled(w.now, &w.policy).is_some(), w.policy.closed.is_some());
    }
}
