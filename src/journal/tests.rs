//! The journal on a real file: what one process wrote, the next one remembers.

mod chain;
mod damage;
mod ends;
mod formats;
mod model;
mod rows;
mod spend;
mod standings;

use symphony_core::board::{EndReason, LastRun, ParkReason, Parked};
use symphony_core::budget::{Bound, Used};
use symphony_core::ids::{Identifier, StateName};
use symphony_core::steering::{Asked, By};

use super::*;

fn open(path: &Path) -> Result<(Journal, Memory), JournalError> {
    Journal::open(path, Origin { instance: "me-and-no-other-one".into(), last_run: 0 })
}

fn asked(text: &str) -> Asked {
    Asked { question: text.into(), context: None }
}

fn counters(sessions: u32) -> Counters {
    let last = LastRun { reason: EndReason::Stalled, end: "stalled: x".into(), left: Some("1 commit".into()) };
    Counters {
        used: Used { sessions, turns: 7, wall_ms: 12_345, bounces: 1 },
        granted: Used { sessions: 1, turns: 2, wall_ms: 3, bounces: 0 },
        failures_in_a_row: 2,
        unchanged_in_a_row: 1,
        visited: [StateName::new("Todo"), StateName::new("In Review")].into(),
        last: Some(last),
    }
}

#[tokio::test]
async fn a_restart_remembers_numbers_counters_and_park_reasons() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let issue = IssueId("A".into());
    let (journal, memory) = open(&path).expect("opens");
    assert_eq!((memory.next_run, memory.counters.len()), (1, 0));
    journal.run_started(RunId(1), issue.clone(), counters(3)).await.expect("writes");
    journal.run_ended(RunId(1), issue.clone(), ending(4, None)).await.expect("writes");
    journal.counted(issue.clone(), counters(4)).await.expect("writes");
    let parked = |reason| Parked { reason, from: StateName::new("In Progress") };
    let reasons = [
        ParkReason::Diverged { detail: "moved".into() },
        ParkReason::AgentStart { detail: "no program".into() },
        ParkReason::HandoffFailed { detail: "full".into() },
        ParkReason::FailuresInARow { count: 5, last: "boom".into() },
        ParkReason::NoProgress { sessions: 3 },
        ParkReason::Template { detail: "line 3: no".into(), prompt: "0123".into() },
        ParkReason::BlockerCancelled { blocker: Identifier("B".into()), state: StateName::new("Cancelled") },
        ParkReason::Budget { bound: Bound::Sessions, used: 10 },
        ParkReason::Budget { bound: Bound::Turns, used: 60 },
        ParkReason::Budget { bound: Bound::WallTime, used: 14_400_000 },
        ParkReason::Budget { bound: Bound::Bounces, used: 6 },
    ];
    for (number, reason) in reasons.iter().enumerate() {
        let id = IssueId(format!("P{number}"));
        journal.parked(id, parked(reason.clone()), counters(4)).await.expect("writes");
    }
    journal.parked(issue.clone(), parked(reasons[0].clone()), counters(4)).await.expect("writes");
    drop(journal);
    let (journal, again) = open(&path).expect("opens again");
    assert_eq!(again.next_run, 2, "run numbers never repeat");
    assert_eq!(again.counters[&issue], counters(4));
    for (number, reason) in reasons.iter().enumerate() {
        assert_eq!(again.parked[&IssueId(format!("P{number}"))], parked(reason.clone()));
    }
    assert_eq!((again.instance.len() >= 16, &again.instance), (true, &memory.instance));
    journal.run_started(RunId(2), issue.clone(), counters(5)).await.expect("writes");
    drop(journal);
    assert!(!open(&path).expect("opens").1.parked.contains_key(&issue), "a run that starts ends the parking");
}

/// Runs from this number on, each of a few calls.
async fn worked(journal: &Journal, runs: std::ops::Range<u64>) {
    for number in runs {
        let (run, issue) = (RunId(number), IssueId(format!("issue-{}", number % 3)));
        journal.run_started(run, issue.clone(), counters(1)).await.expect("writes");
        journal.turn_began(run, issue.clone(), counters(1), vec![]).await.expect("writes");
        journal.run_ended(run, issue, ending(1, None)).await.expect("writes");
    }
}

/// The first thing wrong with the chain.
fn fault(path: &Path, pinned: Option<&[u8; 32]>) -> String {
    inspect::check(path, pinned).expect("readable").chain.expect("a chain").expect_err("a fault")
}

fn whole(path: &Path) -> inspect::Chain {
    let report = inspect::check(path, None).expect("readable");
    assert_eq!(report.differences, Vec::<String>::new());
    report.chain.expect("a chain").expect("whole")
}

/// Database and log as a killed process leaves them.
fn as_killed(path: &Path, to: &Path) {
    for end in ["", "-wal"] {
        let from = format!("{}{end}", path.display());
        std::fs::copy(from, format!("{}{end}", to.display())).expect("copied");
    }
}

/// Does this behind the back of the journal that these are the bytes of: a check says so.
#[track_caller]
fn told_of(path: &Path, before: &[u8], sql: &str, says: &str) {
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    std::fs::write(path, before).expect("as before");
    Connection::open(path).expect("db").execute_batch(sql).expect(sql);
    let report = inspect::check(path, None).expect(sql);
    assert!(report.differences.iter().any(|told| told.starts_with(says)), "{sql}: {:?}", report.differences);
}

fn ending(sessions: u32, due: Option<Due<Timestamp>>) -> Ending {
    let (reason, end, counters) = (EndReason::Stalled, "stalled: x".into(), counters(sessions));
    Ending { reason, end, counters, due, tokens: 12, taken: vec![] }
}

#[tokio::test]
async fn an_answer_is_kept_once_and_only_where_a_question_is_open() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let issue = IssueId("A".into());
    let answer = |number, text: &str| journal.answered(issue.clone(), number, text.into(), By::Cli);
    assert_eq!(answer(None, "early").await.expect("asks"), Answered::NotAsked);
    let open_one = journal.asked(RunId(1), issue.clone(), asked("which?"), None).await.expect("writes");
    let (first, second) = futures::join!(answer(None, "this"), answer(Some(open_one.id), "that"));
    assert!(matches!(first.expect("writes"), Answered::Taken(letter) if letter.text == "this"));
    assert_eq!(second.expect("asks"), Answered::Already, "the first answer wins");
    // A form that shows an old question does not answer a new one.
    let newer = journal.asked(RunId(2), issue.clone(), asked("and now?"), None).await.expect("writes");
    assert_eq!(answer(Some(open_one.id), "old").await.expect("asks"), Answered::Already);
    drop(journal);
    let (_, memory) = open(&path).expect("opens");
    assert_eq!(memory.questions[&issue], newer);
    assert_eq!(memory.letters[&issue].len(), 1);
}

#[tokio::test]
async fn a_letter_is_handed_again_until_a_turn_that_had_it_ended() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let issue = IssueId("A".into());
    let pending = || open(&path).expect("opens").1.letters.get(&issue).map_or(0, Vec::len);
    let (journal, _) = open(&path).expect("opens");
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    let letter = journal.said(issue.clone(), "Use tabs.".into(), By::Dashboard).await.expect("writes");
    journal.turn_began(RunId(1), issue.clone(), counters(1), vec![letter.id]).await.expect("writes");
    // Killed in the middle of that turn.
    drop(journal);
    assert_eq!(pending(), 1);
    let (journal, memory) = open(&path).expect("opens");
    assert_eq!(memory.counters[&issue].last.as_ref().map(|last| last.reason), Some(EndReason::CutOff));
    journal.run_started(RunId(2), issue.clone(), counters(2)).await.expect("writes");
    journal.turn_began(RunId(2), issue.clone(), counters(2), vec![letter.id]).await.expect("writes");
    journal.turn_ended(RunId(2), issue.clone()).await.expect("writes");
    drop(journal);
    assert_eq!(pending(), 0);
}

#[tokio::test]
async fn a_due_time_is_kept_until_the_issue_runs() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let issue = IssueId("A".into());
    let until: Timestamp = "2026-01-02T03:04:05.678Z".parse().expect("an instant");
    let due = Due { until, kind: symphony_core::board::RetryKind::Failure, error: Some("boom".into()) };
    let (journal, _) = open(&path).expect("opens");
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    journal.run_ended(RunId(1), issue.clone(), ending(1, Some(due.clone()))).await.expect("writes");
    drop(journal);
    let (journal, memory) = open(&path).expect("opens");
    assert_eq!(memory.waiting, [(issue.clone(), due)].into());
    journal.run_started(RunId(2), issue, counters(2)).await.expect("writes");
    drop(journal);
    assert!(open(&path).expect("opens").1.waiting.is_empty());
}

#[tokio::test]
async fn a_journal_made_anew_keeps_the_mark_and_repeats_no_number() {
    let dir = tempfile::tempdir().expect("directory");
    let origin = Origin { instance: "kept".into(), last_run: 41 };
    let (_, memory) = Journal::open(&dir.path().join("journal.db"), origin).expect("opens");
    assert_eq!((memory.instance.as_str(), memory.next_run), ("kept", 42));
}

#[test]
fn a_newer_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    drop(open(&path).expect("opens"));
    Connection::open(&path).expect("db").pragma_update(None, "user_version", 99).expect("sets");
    let before = std::fs::read(&path).expect("reads");
    assert!(matches!(open(&path), Err(JournalError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&path).expect("reads"), before);
}

#[test]
fn a_file_that_is_no_database_gets_a_clear_message() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    std::fs::write(&path, "not a database, but long enough to be mistaken for one by a careless reader".repeat(40))
        .expect("writes");
    let message = open(&path).expect_err("refused").to_string();
    assert!(message.contains("journal.db") && message.contains("hint"), "{message}");
}

#[test]
fn a_journal_of_the_first_format_is_taken_over_with_its_counts_and_reasons() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let db = Connection::open(&path).expect("db");
    db.execute_batch(schema::TABLES).expect("tables");
    db.execute_batch(
        "INSERT INTO about VALUES ('instance', 'me'); INSERT INTO runs VALUES (7, 'A', 't', 't', 'stalled');
         INSERT INTO counters VALUES ('A', 7, 3, 2, 'stalled: x');
         INSERT INTO parked VALUES ('B', 'sessions_used', 10, ''), ('C', 'handoff_failed', 0, 'full');
         PRAGMA user_version = 1;",
    )
    .expect("rows");
    drop(db);
    let (_, memory) = open(&path).expect("opens");
    assert_eq!((memory.next_run, memory.instance.as_str()), (8, "me"));
    let counters = &memory.counters[&IssueId("A".into())];
    assert_eq!((counters.since_grant().sessions, counters.failures_in_a_row), (4, 2));
    assert_eq!(counters.last.as_ref().map(|last| last.end.as_str()), Some("stalled: x"));
    let reason = |name: &str| memory.parked[&IssueId(name.into())].reason.clone();
    assert_eq!(reason("B"), ParkReason::Budget { bound: Bound::Sessions, used: 10 });
    assert_eq!(reason("C"), ParkReason::HandoffFailed { detail: "full".into() });
}
