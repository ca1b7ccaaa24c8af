//! The journal on a real file: what one process wrote, the next one remembers.

use super::*;

fn counters(sessions: u32) -> Counters {
    Counters { sessions, granted: 1, failures_in_a_row: 2, last_end: Some("stalled".into()) }
}

#[tokio::test]
async fn a_restart_remembers_numbers_counters_and_park_reasons() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let issue = IssueId("A".into());
    let (journal, memory) = Journal::open(&path).expect("opens");
    assert_eq!((memory.next_run, memory.counters.len()), (1, 0));
    journal.run_started(RunId(1), issue.clone(), counters(3)).await.expect("writes");
    journal.run_ended(RunId(1), issue.clone(), "stalled".into(), counters(4)).await.expect("writes");
    let reason = ParkReason::Diverged { detail: "moved".into() };
    journal.parked(issue.clone(), reason.clone(), counters(4)).await.expect("writes");
    drop(journal);
    let (journal, again) = Journal::open(&path).expect("opens again");
    assert_eq!(again.next_run, 2, "run numbers never repeat");
    assert_eq!(again.counters[&issue], counters(4));
    assert_eq!(again.parked[&issue], reason);
    assert_eq!((again.instance.len() >= 16, &again.instance), (true, &memory.instance));
    journal.run_started(RunId(2), issue.clone(), counters(5)).await.expect("writes");
    drop(journal);
    assert!(Journal::open(&path).expect("opens").1.parked.is_empty(), "a run that starts ends the parking");
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
