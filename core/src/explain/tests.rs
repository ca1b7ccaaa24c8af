//! That what is explained is what the board decided, and that nothing known is left out.

use indexmap::IndexMap;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::board::Past;
use crate::board::{Board, Closed, Event, FailureCode, Memory, Policy, RunEnd, RunFailure, StopCause};
use crate::ids::Identifier;
use crate::issue::{Ambiguity, Blocker, Issue, Malformed, Scan};
use crate::snapshot::{Question, StateRow, Tokens, waiting_rows};
use crate::time::Tick;
use crate::workflow::{Budget, OnBlockerCancelled, StateRule, States};

const STATES: [&str; 5] = ["Todo", "In Progress", "Done", "Cancelled", "Backlog"];
const NAMES: [&str; 4] = ["A-1", "B-2", "C-3", "D-4"];

fn policy() -> Policy {
    let roles = [Role::Active, Role::Active, Role::Terminal, Role::Terminal];
    let rules: IndexMap<_, _> =
        STATES.iter().zip(roles).map(|(name, role)| (StateName::new(*name), StateRule::of(role))).collect();
    Policy {
        states: States { rules, declared: false },
        max_concurrent: 2,
        max_backoff_ms: 300_000,
        interval_ms: 30_000,
        required_labels: vec![],
        budget: Budget { sessions: 3, turns: 4, failures_in_a_row: 2, wall_ms: 100_000, bounces: 2, no_progress: 2 },
        release_after_ms: 1_800_000,
        on_blocker_cancelled: OnBlockerCancelled::Wait,
        prompt: "p1".into(),
        profiles: crate::board::Profiles::default(),
        models: crate::board::ModelAccess::default(),
        memory: None,
        spend: crate::spend::Standing::default(),
        closed: None,
    }
}

/// What the conductor publishes of this board.
fn snapshot(board: &Board, now: Tick, policy: &Policy) -> Snapshot {
    let (retrying, idle) = waiting_rows(board, now, Timestamp::UNIX_EPOCH, policy);
    let running = board.claims().filter_map(|(id, claim)| {
        let issue = board.issue(id)?;
        Some(row(issue, claim.run()?))
    });
    Snapshot {
        states: policy.states.rules.iter().map(|(n, r)| StateRow { name: n.clone(), role: r.role }).collect(),
        budget: Some(policy.budget.clone()),
        running: running.collect(),
        retrying,
        idle,
        malformed: board.malformed().to_vec(),
        ambiguous: board.ambiguous().to_vec(),
        tracker_problem: board.look_error().map(str::to_owned),
        draining: board.is_draining(),
        ..Snapshot::empty()
    }
}

fn row(issue: &Issue, run: RunId) -> RunningRow {
    RunningRow {
        run,
        id: issue.id.clone(),
        identifier: issue.identifier.clone(),
        title: issue.title.clone(),
        body: None,
        url: None,
        state: issue.state.clone(),
        stage: Stage::Running,
        phase: "working".into(),
        sandbox: "jail".into(),
        attempt: None,
        session_id: None,
        session_continued: false,
        turn_count: 1,
        last_event: None,
        last_message: None,
        started_at: Timestamp::UNIX_EPOCH,
        last_event_at: None,
        tokens: Tokens::default(),
        tokens_metered: false,
        reach: Default::default(),
        question: None,
        marked_done: false,
        workspace: None,
        recent_events: vec![],
        last: None,
        spent: Spent::default(),
    }
}

/// A board after one look at these issues, and what it says.
fn looked(issues: Vec<Issue>, policy: &Policy) -> Snapshot {
    let mut board = Board::new(Past { next_run: RunId(1), ..Past::default() });
    board.step(Tick(1), Event::LookWanted, policy);
    board.step(Tick(2), Event::PollEnded(Ok(Scan { issues, ..Scan::default() })), policy);
    snapshot(&board, Tick(2), policy)
}

fn only(snapshot: &Snapshot, name: &str) -> Explained {
    let found = find(snapshot, name).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

fn blocked(name: &str, by: &[(&str, Option<&str>)]) -> Issue {
    let blocker = |(name, state): &(&str, Option<&str>)| Blocker {
        id: state.map(|_| IssueId((*name).into())),
        identifier: Identifier((*name).into()),
        state: state.map(StateName::new),
    };
    Issue { blocked_by: by.iter().map(blocker).collect(), ..Issue::bare(name, "Todo") }
}

/// One thing that happens to a board.
#[derive(Clone, Debug)]
enum Happens {
    /// For each name its state, none when it is not there, and which other one it waits for.
    Look(Vec<Option<(usize, Option<usize>, bool)>>),
    LookFails,
    Ends(usize, u8),
    Turn(usize),
    Finishing(usize),
    Moved(bool),
    Later(u64),
    Close(u8),
    Drain,
}

fn happens() -> impl Strategy<Value = Happens> {
    let issue = prop_oneof![
        1 => Just(None),
        6 => (0..STATES.len(), proptest::option::of(0..6usize), any::<bool>()).prop_map(Some)
    ];
    prop_oneof![
        6 => proptest::collection::vec(issue, NAMES.len()).prop_map(Happens::Look),
        1 => Just(Happens::LookFails),
        5 => (0..NAMES.len(), 0..5u8).prop_map(|(which, how)| Happens::Ends(which, how)),
        2 => (0..NAMES.len()).prop_map(Happens::Turn),
        1 => (0..NAMES.len()).prop_map(Happens::Finishing),
        3 => any::<bool>().prop_map(Happens::Moved),
        3 => (1..60_000u64).prop_map(Happens::Later),
        1 => (0..4u8).prop_map(Happens::Close),
        1 => Just(Happens::Drain),
    ]
}

fn scan(rows: &[Option<(usize, Option<usize>, bool)>]) -> Scan {
    let state = |at: usize| rows.get(at).cloned().flatten().map(|(state, ..)| StateName::new(STATES[state]));
    let issues = rows.iter().enumerate().filter_map(|(at, row)| {
        let (own, blocker, hold) = (*row)?;
        let blocked_by = blocker.map(|by| Blocker {
            id: state(by).map(|_| IssueId(NAMES[by].into())),
            identifier: Identifier(NAMES.get(by).map_or_else(|| "NO-9".into(), |name| (*name).into())),
            state: state(by),
        });
        Some(Issue {
            blocked_by: blocked_by.into_iter().collect(),
            dispatchable: !(hold && at % 2 == 0),
            ..Issue::bare(NAMES[at], STATES[own])
        })
    });
    Scan { issues: issues.collect(), ..Scan::default() }
}

fn event(board: &Board, policy: &mut Policy, now: &mut Tick, what: &Happens) -> Option<Event> {
    let run = |at: usize| board.claims().find(|(id, _)| id.0 == NAMES[at]).and_then(|(_, claim)| claim.run());
    Some(match what {
        Happens::Look(rows) if board.is_looking() => Event::PollEnded(Ok(scan(rows))),
        Happens::LookFails if board.is_looking() => Event::PollEnded(Err("blind".into())),
        Happens::Look(_) | Happens::LookFails => Event::LookWanted,
        Happens::Ends(at, how) => {
            let end = match how {
                0 => RunEnd::Done,
                1 => RunEnd::Moved(StateName::new("In Progress")),
                2 => RunEnd::TurnsUsed,
                3 => RunEnd::Stopped(StopCause::NotActive),
                _ => RunEnd::Failed(RunFailure { code: FailureCode::TurnFailed, message: "boom".into() }),
            };
            Event::RunEnded(run(*at)?, end, None)
        }
        Happens::Turn(at) => Event::TurnBegan(run(*at)?, 2),
        Happens::Finishing(at) => Event::RunFinishing(run(*at)?),
        Happens::Moved(well) => {
            let parking = board.claims().find(|(_, claim)| matches!(claim, crate::board::Claim::Parked { .. }))?;
            Event::ParkEnded(parking.0.clone(), if *well { Ok(()) } else { Err("no room".into()) })
        }
        Happens::Later(ms) => {
            *now = now.plus_ms(*ms);
            Event::Woke
        }
        Happens::Close(how) => {
            policy.closed = (*how == 1).then_some(Closed::WorkflowBroken);
            policy.memory = (*how == 2).then_some(Memory { available_mib: 1, needed_mib: 1000 });
            Event::Woke
        }
        Happens::Drain => Event::DrainAsked,
    })
}

proptest! {
    #[test]
    fn every_issue_is_explained_by_the_verdict_that_decides_over_it(story in proptest::collection::vec(happens(), 1..40)) {
        let (mut board, mut policy, mut now) = (Board::new(Past { next_run: RunId(1), ..Past::default() }), policy(), Tick(1));
        for what in &story {
            now = now.plus_ms(1);
            if let Some(event) = event(&board, &mut policy, &mut now, what) {
                board.step(now, event, &policy);
            }
            let view = snapshot(&board, now, &policy);
            let explained = all(&view);
            prop_assert_eq!(explained.iter().filter(|one| one.id.is_some()).count(), board.issues().count(), "each once");
            let listed = explained.iter().filter(|one| one.group() == Group::NeedsYou).count();
            prop_assert_eq!(listed, needs(&view).len(), "one list of what needs a person");
            for issue in board.issues() {
                let verdict = board.verdict(issue, now, &policy).err();
                let said = only(&view, &issue.id.0);
                prop_assert_eq!(&said.why, &verdict);
                let sentence = verdict.as_ref().map_or_else(|| "starts at the next look".to_owned(), ToString::to_string);
                prop_assert_eq!(&said.reason, &sentence);
                prop_assert_eq!(said.code(), verdict.as_ref().map(NotNow::code));
                prop_assert_eq!(said.run.is_some(), verdict == Some(NotNow::Running));
                prop_assert_eq!(said.status == Status::Parked, verdict.as_ref().is_some_and(NotNow::is_parked));
            }
        }
    }
}

#[test]
fn a_blocked_issue_names_its_blocker_and_what_that_one_waits_for() {
    let mut policy = policy();
    policy.required_labels = vec!["go".into()];
    let mut first = blocked("A-1", &[("B-2", Some("Backlog"))]);
    first.labels = vec!["go".into()];
    let view = looked(vec![first, Issue::bare("B-2", "Backlog"), Issue::bare("C-3", "Todo")], &policy);
    let said = only(&view, "A-1");
    assert_eq!((said.reason.as_str(), said.code()), ("blocked by B-2, which is in Backlog", Some("blocked")));
    assert_eq!(said.notes, ["B-2: nobody works in this state"]);
    assert_eq!(said.remedy.as_deref(), Some("Finish B-2 first, or remove it from `blocked_by`."));
    assert!(only(&view, "C-3").remedy.expect("a remedy").contains("`go`"));
    assert_eq!(only(&view, "B-2").remedy.as_deref(), Some("Move its file to `Todo/` to have it worked on."));
}

#[test]
fn circles_unknown_and_cancelled_blockers_are_told_apart() {
    let view = looked(
        vec![
            blocked("A-1", &[("B-2", Some("Todo"))]),
            blocked("B-2", &[("A-1", Some("Todo"))]),
            blocked("C-3", &[("NO-9", None)]),
            blocked("D-4", &[("E-5", Some("Cancelled"))]),
            Issue::bare("E-5", "Cancelled"),
        ],
        &policy(),
    );
    let code = |name| only(&view, name).code().expect("a reason");
    assert_eq!([code("A-1"), code("C-3"), code("D-4")], ["blocker-cycle", "unknown-blocker", "blocker-cancelled"]);
    assert_eq!(only(&view, "A-1").reason, "in a circle of blockers: A-1 → B-2 → A-1");
    assert!(only(&view, "D-4").reason.contains("remove it from `blocked_by`"));
}

#[test]
fn a_run_is_told_by_its_stage_and_a_question_needs_a_person() {
    let mut view = looked(vec![Issue::bare("A-1", "Todo")], &policy());
    let status = |view: &Snapshot| only(view, "A-1").status;
    assert_eq!(status(&view), Status::Running);
    view.running[0].question = Some(Question {
        id: 7,
        question: "Which\nway?".into(),
        context: None,
        asked_at: Timestamp::UNIX_EPOCH,
        default_at: None,
        default_answer: None,
        answered: false,
    });
    let said = only(&view, "A-1");
    assert_eq!((said.status, said.status.group()), (Status::Asking, Group::NeedsYou));
    assert_eq!(said.run.and_then(|run| run.question).as_deref(), Some("Which way?"));
    view.running[0].question.as_mut().expect("asked").answered = true;
    assert_eq!(status(&view), Status::Running);
    view.running[0].stage = Stage::Finishing;
    assert_eq!(status(&view), Status::Finishing);
    view.running[0].stage = Stage::Stopping(StopCause::Drain);
    assert_eq!(status(&view), Status::Stopping);
}

#[test]
fn a_question_that_no_run_waits_with_says_when_and_with_what_it_is_answered_by_default() {
    let mut view = looked(vec![blocked("A-1", &[("NO-9", None)])], &policy());
    let row = view.idle.first_mut().expect("it waits");
    row.why = Some(NotNow::AwaitingAnswer);
    let question = Question {
        id: 7,
        question: "Which way?".into(),
        context: None,
        asked_at: Timestamp::UNIX_EPOCH,
        default_at: Some(Timestamp::UNIX_EPOCH),
        default_answer: Some("To the\nleft.".into()),
        answered: false,
    };
    let (id, identifier) = (row.id.clone(), row.identifier.clone());
    view.asked.push(AskedRow { id, identifier, title: "".into(), body: None, url: None, run: RunId(1), question });
    let said = only(&view, "A-1");
    assert_eq!((said.status, said.question.as_deref()), (Status::Asking, Some("Which way?")));
    assert_eq!(said.notes[0], "answered by default at 1970-01-01T00:00:00Z: To the left.");
}

#[test]
fn a_broken_workflow_and_a_blind_tracker_are_named_where_they_matter() {
    let mut policy = policy();
    policy.closed = Some(Closed::WorkflowBroken);
    let mut view = looked(vec![Issue::bare("A-1", "Todo"), Issue::bare("B-2", "Done")], &policy);
    view.workflow_problems = vec!["WORKFLOW.md:3:1: no such key".into()];
    view.tracker_problem = Some("permission denied".into());
    let said = only(&view, "A-1");
    assert_eq!(said.code(), Some("workflow-broken"));
    assert_eq!(said.notes[0], "WORKFLOW.md:3:1: no such key");
    assert!(said.notes[1].contains("permission denied"), "{:?}", said.notes);
    assert!(only(&view, "B-2").notes.iter().all(|note| !note.contains("permission")), "a finished one starts never");
    assert_eq!(notices(&view).len(), 2);
}

fn with_files() -> Snapshot {
    let mut view = looked(vec![Issue::bare("A-1", "Todo"), Issue::bare("Long-Name", "Todo")], &policy());
    let bad = |file: &str| Malformed { file: file.into(), line: Some(3), column: Some(7), message: "no\nmap".into() };
    view.malformed = vec![bad("Todo/bad.md"), bad("Done/bad.md"), bad("Todo/A-1.md")];
    view.ambiguous =
        vec![Ambiguity { name: "TWICE".into(), files: vec!["Todo/TWICE.md".into(), "Done/other.md".into()] }];
    view
}

#[test]
fn files_and_names_are_found_by_path_by_stem_and_by_name() {
    let view = with_files();
    let files =
        |name: &str| find(&view, name).expect("known").into_iter().flat_map(|one| one.files).collect::<Vec<_>>();
    assert_eq!(files("Todo/bad.md"), ["Todo/bad.md:3:7"]);
    assert_eq!(files("bad"), ["Todo/bad.md:3:7", "Done/bad.md:3:7"]);
    for name in ["TWICE", "twice", "other", "Done/other.md"] {
        assert_eq!(files(name), ["Todo/TWICE.md", "Done/other.md"], "{name}");
    }
    let said = only(&view, "A-1");
    assert_eq!(said.status, Status::Running, "the issue comes before its file");
    assert_eq!(said.notes, ["Todo/A-1.md:3:7: no map", "its run goes on, and cannot be finished until that is mended"]);
}

#[test]
fn an_issue_is_found_by_the_path_that_a_shell_completes() {
    let view = looked(vec![Issue::bare("A-1", "Todo"), Issue::bare("B-2", "Done")], &policy());
    for path in ["A-1.md", "Todo/A-1.md", "issues/Todo/A-1.md", "/somewhere/issues/Todo/a-1.md"] {
        assert_eq!(only(&view, path).name, "A-1", "{path}");
    }
    for unknown in [".md", "issues/.md", "Todo/C-3.md.md"] {
        assert_eq!(find(&view, unknown).expect_err("unknown").name, unknown);
    }
}

#[test]
fn a_name_is_found_without_its_case_when_that_leaves_one_and_else_suggested() {
    let mut view = with_files();
    assert_eq!(only(&view, "long-name").name, "Long-Name");
    let missing = find(&view, "Long-Nmae").expect_err("unknown");
    assert_eq!(missing.hint(), "did you mean Long-Name?");
    assert!(find(&view, "something else").expect_err("unknown").hint().contains("symphony explain"));
    view.idle.extend(["Xa-1", "xA-1"].map(|name| IdleRow {
        id: IssueId(format!("id of {name}")),
        identifier: Identifier(name.into()),
        title: name.into(),
        state: StateName::new("Todo"),
        role: Role::Active,
        why: None,
        last: None,
        spent: Spent::default(),
        proposed_by: None,
        proposal: None,
        labels: vec![],
    }));
    assert_eq!((only(&view, "xA-1").name, only(&view, "id of Xa-1").name), ("xA-1".into(), "Xa-1".into()));
    assert_eq!(find(&view, "xa-1").expect_err("two").hint(), "did you mean Xa-1, xA-1 or A-1?");
    view.tracker_problem = Some("gone".into());
    assert!(find(&view, "nothing").expect_err("unknown").to_string().contains("gone"), "it may be there");
}

#[test]
fn what_needs_a_person_comes_first_and_what_is_done_last() {
    let groups: Vec<Group> = all(&with_files()).iter().map(|one| one.group()).collect();
    assert!(groups.is_sorted(), "{groups:?}");
    assert_eq!(groups.iter().filter(|group| **group == Group::NeedsYou).count(), 4);
}

#[test]
fn the_wall_time_of_a_live_run_counts_as_it_passes_and_stands_while_a_human_is_asked() {
    let policy = policy();
    let mut board = Board::new(Past { next_run: RunId(1), ..Past::default() });
    let id = IssueId("A-1".into());
    board.step(Tick(1), Event::LookWanted, &policy);
    let scan = Scan { issues: vec![Issue::bare("A-1", "Todo")], ..Scan::default() };
    board.step(Tick(1), Event::PollEnded(Ok(scan)), &policy);
    let wall = |board: &Board, now| board.counters_at(Tick(now), &id).used.wall_ms;
    assert_eq!((wall(&board, 5001), board.counters(&id).used.wall_ms), (5000, 0), "reading changes nothing");
    board.step(Tick(6001), Event::Asking(RunId(1), true), &policy);
    assert_eq!(wall(&board, 90_001), 6000);
    board.step(Tick(90_001), Event::Asking(RunId(1), false), &policy);
    assert_eq!(wall(&board, 91_001), 7000);
}

#[test]
fn a_proposal_needs_a_person_and_says_who_proposed_it_and_what_to_do() {
    let proposal = Issue { proposed_by: Some("A-1\n".into()), ..Issue::bare("7", "Backlog") };
    let view = looked(vec![Issue::bare("B-2", "Backlog"), proposal], &policy());
    let said = only(&view, "7");
    assert_eq!((said.status.as_str(), said.status.group()), ("proposed", Group::NeedsYou));
    assert_eq!(said.reason, "proposed by A-1; nobody decided about it yet");
    let remedy = said.remedy.expect("there is something to do");
    assert!(remedy.contains("approve or discard") && remedy.contains("`Todo/`"), "{remedy}");
    assert_eq!(only(&view, "B-2").status, Status::Holding, "what a person put there asks for nothing");
}

/// Regression: the page counted cards and no files, the command line files and no cards, and neither what only a person
/// can mend.
#[test]
fn what_needs_a_person_is_one_list_of_cards_files_questions_and_what_nobody_else_can_mend() {
    let mut view = looked(
        vec![
            Issue { profile: Some("big".into()), ..Issue::bare("A-1", "Todo") },
            blocked("B-2", &[("NOPE", None)]),
            blocked("C-3", &[("D-4", Some("Todo"))]),
            Issue { dispatchable: false, ..Issue::bare("D-4", "Todo") },
        ],
        &policy(),
    );
    let files = with_files();
    (view.malformed, view.ambiguous) = (files.malformed, files.ambiguous);
    view.workflow_path = "/w/WORKFLOW.md".into();
    view.workflow_problems = vec!["WORKFLOW.md:3:1: no such key".into()];
    let target = crate::egress::Target::kept("a.example.org".into(), 443);
    let (id, run, asked_at) = (IssueId("C-3".into()), RunId(1), Timestamp::UNIX_EPOCH);
    let card = crate::egress::Card { id: 9, issue: id, run, target, asked_at, times: 2 };
    view.hosts_asked =
        vec![crate::snapshot::HostCard { card, identifier: Identifier("C-3".into()), title: "C-3".into() }];
    let listed: Vec<_> = all(&view).into_iter().filter(|one| one.group() == Group::NeedsYou).collect();
    let names: Vec<&str> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(
        names,
        ["WORKFLOW.md", "a.example.org:443", "Todo/bad.md", "Done/bad.md", "Todo/A-1.md", "TWICE", "A-1", "B-2"]
    );
    assert_eq!(needs(&view).len(), listed.len());
    assert!(listed[1].reason.contains("C-3 asks to reach it (2 times)"), "{}", listed[1].reason);
    assert_eq!((listed[6].status, listed[6].code()), (Status::Waiting, Some("unknown-profile")));
    assert_eq!(only(&view, "C-3").group(), Group::Waiting, "an issue that another one blocks waits for that one");
}

/// Regression: a cap of all issues that was met had no card of its own: once the issue that was parked for it was moved away,
/// nothing said how it is raised, and a day's stopped everything below a page that said "idle".
#[test]
fn a_cap_of_all_issues_is_one_thing_that_needs_a_person_with_the_command_that_raises_it() {
    use crate::board::{ParkReason, Parked};
    use crate::spend::{Met, Scope, Unit};
    for (scope, key) in [(Scope::Day, "budget.day.usd"), (Scope::Workflow, "budget.workflow.usd")] {
        let held = |name: &str| Issue { dispatchable: false, ..Issue::bare(name, "Todo") };
        let mut view = looked(vec![held("A-1"), held("B 2")], &policy());
        let day = jiff::civil::date(2026, 1, 31);
        let met = Met { scope, unit: Unit::Money, day, used: 15, asked: 0, answer: 0, allowed: 10 };
        view.idle.iter_mut().for_each(|row| row.why = Some(NotNow::Spend(met)));
        view.idle.reverse();
        let listed: Vec<_> = all(&view).into_iter().filter(|one| one.group() == Group::NeedsYou).collect();
        assert_eq!((listed.len(), needs(&view).len()), (1, 1));
        assert_eq!((listed[0].name.as_str(), listed[0].code()), (key, Some("broken")));
        let first = &view.idle[0].identifier.0;
        let typed = if first == "B 2" { "'B 2'" } else { first };
        let remedy = listed[0].remedy.as_deref().expect("it can be raised");
        assert!(remedy.contains(&format!("with `symphony raise {typed} --usd AMOUNT`")), "{remedy}");
        assert!(only(&view, "A-1").remedy.is_some_and(|text| text.contains("`symphony raise A-1 --usd AMOUNT`")));
        // One that was put aside for it asks already.
        let parked = Parked { reason: ParkReason::Spend(met), from: StateName::new("Todo") };
        let row = &mut view.idle[0];
        (row.role, row.why) = (Role::Holding, Some(NotNow::Parked(parked, None)));
        assert_eq!(needs(&view).len(), 1);
        assert!(all(&view).iter().all(|one| one.name != key));
    }
}
