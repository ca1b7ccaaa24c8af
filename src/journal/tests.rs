//! The journal on a real file: what one process wrote, the next one remembers.

use symphony_core::board::{EndReason, LastRun, ParkReason, Parked};
use symphony_core::budget::{Bound, Used};
use symphony_core::ids::{Identifier, StateName};

use super::*;

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
    let (journal, memory) = Journal::open(&path).expect("opens");
    assert_eq!((memory.next_run, memory.counters.len()), (1, 0));
    journal.run_started(RunId(1), issue.clone(), counters(3)).await.expect("writes");
    journal
        .run_ended(RunId(1), issue.clone(), EndReason::Stalled, "stalled: x".into(), counters(4))
        .await
        .expect("writes");
    journal.counted(issue.clone(), counters(4)).await.expect("writes");
    let parked = |reason| Parked { reason, from: StateName::new("In Progress") };
    let reasons = [
        ParkReason::Diverged { detail: "moved".into() },
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
    let (journal, again) = Journal::open(&path).expect("opens again");
    assert_eq!(again.next_run, 2, "run numbers never repeat");
    assert_eq!(again.counters[&issue], counters(4));
    for (number, reason) in reasons.iter().enumerate() {
        assert_eq!(again.parked[&IssueId(format!("P{number}"))], parked(reason.clone()));
    }
    assert_eq!((again.instance.len() >= 16, &again.instance), (true, &memory.instance));
    journal.run_started(RunId(2), issue.clone(), counters(5)).await.expect("writes");
    drop(journal);
    assert!(!Journal::open(&path).expect("opens").1.parked.contains_key(&issue), "a run that starts ends the parking");
}

#[tokio::test]
async fn an_answer_is_kept_once_and_only_where_a_question_is_open() {
    let dir = tempfile::tempdir().expect("directory");
    let (journal, _) = Journal::open(&dir.path().join("journal.db")).expect("opens");
    assert!(!journal.answered(RunId(1), "early".into()).await.expect("asks"));
    journal.asked(RunId(1), IssueId("A".into()), "which?".into(), None).await.expect("writes");
    assert!(journal.answered(RunId(1), "this".into()).await.expect("writes"));
    assert!(!journal.answered(RunId(1), "that".into()).await.expect("asks"), "the first answer wins");
}

#[test]
fn a_newer_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    drop(Journal::open(&path).expect("opens"));
    Connection::open(&path).expect("db").pragma_update(None, "user_version", 99).expect("sets");
    let before = std::fs::read(&path).expect("reads");
    assert!(matches!(Journal::open(&path), Err(JournalError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&path).expect("reads"), before);
}

#[test]
fn a_file_that_is_no_database_gets_a_clear_message() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    std::fs::write(&path, "not a database, but long enough to be mistaken for one by a careless reader".repeat(40))
        .expect("writes");
    let message = Journal::open(&path).expect_err("refused").to_string();
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
    let (_, memory) = Journal::open(&path).expect("opens");
    assert_eq!((memory.next_run, memory.instance.as_str()), (8, "me"));
    let counters = &memory.counters[&IssueId("A".into())];
    assert_eq!((counters.since_grant().sessions, counters.failures_in_a_row), (4, 2));
    assert_eq!(counters.last.as_ref().map(|last| last.end.as_str()), Some("stalled: x"));
    let reason = |name: &str| memory.parked[&IssueId(name.into())].reason.clone();
    assert_eq!(reason("B"), ParkReason::Budget { bound: Bound::Sessions, used: 10 });
    assert_eq!(reason("C"), ParkReason::HandoffFailed { detail: "full".into() });
}
