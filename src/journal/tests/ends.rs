//! Ends of runs whose writes were lost on the way.

use super::*;

#[tokio::test]
async fn the_lost_end_of_an_old_run_does_not_overwrite_how_a_newer_one_ended() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let (issue, other) = (IssueId("A".into()), IssueId("B".into()));
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    journal.run_started(RunId(2), issue.clone(), counters(2)).await.expect("writes");
    journal.run_ended(RunId(2), issue.clone(), ending(2, None)).await.expect("writes");
    journal.run_started(RunId(3), other.clone(), counters(1)).await.expect("writes");
    drop(journal);
    let (_, memory) = open(&path).expect("opens again");
    assert_eq!(memory.counters[&issue], counters(2), "its newest run ended otherwise");
    assert_eq!(memory.counters[&other].last.as_ref().map(|last| last.reason), Some(EndReason::CutOff), "the control");
    let db = rusqlite::Connection::open(&path).expect("opens");
    let open: i64 = db.query_row("SELECT count(*) FROM runs WHERE ended_at IS NULL", [], |r| r.get(0)).expect("counts");
    assert_eq!(open, 0);
}

#[tokio::test]
async fn the_end_of_a_run_says_which_letters_its_turns_took_and_hands_back_the_others() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let issue = IssueId("A".into());
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    let mut letters = vec![];
    for text in ["heard", "not heard"] {
        letters.push(journal.said(issue.clone(), text.into(), By::Cli).await.expect("writes").id);
    }
    journal.turn_began(RunId(1), issue.clone(), counters(1), letters.clone()).await.expect("writes");
    let end = Ending { taken: vec![letters[0]], ..ending(1, None) };
    journal.run_ended(RunId(1), issue.clone(), end.clone()).await.expect("writes");
    // A write that is repeated changes nothing more.
    journal.run_ended(RunId(1), issue.clone(), end).await.expect("writes");
    drop(journal);
    let left = open(&path).expect("opens again").1.letters;
    assert_eq!(left[&issue].iter().map(|letter| letter.text.as_str()).collect::<Vec<_>>(), ["not heard"]);
    whole(&path);
}
