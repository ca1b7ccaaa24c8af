//! Rows of the present state that say something else than the events that stand.

use super::*;
use symphony_core::board::RetryKind;

/// One issue of each kind: parked, waiting, with an open question, with letters that are taken and on their way.
async fn lived(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let issue = |name: &str| IssueId(name.into());
    let until = "2026-01-02T03:04:05Z".parse().expect("an instant");
    let due = Due { until, kind: RetryKind::Failure, error: None };
    for (run, name) in [(1, "parked"), (2, "waiting"), (3, "asks"), (4, "hears")] {
        journal.run_started(RunId(run), issue(name), counters(1)).await.expect("writes");
        journal.turn_began(RunId(run), issue(name), counters(2), vec![]).await.expect("writes");
    }
    journal.asked(RunId(3), issue("asks"), asked("Which?"), None).await.expect("writes");
    journal.asked(RunId(3), issue("asks"), asked("And which now?"), None).await.expect("writes");
    let taken = journal.said(issue("hears"), "first".into(), By::Cli).await.expect("writes");
    journal.turn_began(RunId(4), issue("hears"), counters(3), vec![taken.id]).await.expect("writes");
    journal.turn_ended(RunId(4), issue("hears")).await.expect("writes");
    journal.said(issue("hears"), "second".into(), By::Cli).await.expect("writes");
    for (run, name) in [(1, "parked"), (2, "waiting"), (4, "hears")] {
        let due = (name == "waiting").then(|| due.clone());
        journal.run_ended(RunId(run), issue(name), ending(5, due)).await.expect("writes");
    }
    let why = ParkReason::NoProgress { sessions: 3 };
    let parked = Parked { reason: why, from: StateName::new("Todo") };
    journal.parked(issue("parked"), parked, counters(6)).await.expect("writes");
    path
}

/// Regression: a check looked at the events alone, and called rows whole that nobody had written.
#[tokio::test]
async fn rows_that_the_events_contradict_are_told_with_their_place() {
    let dir = tempfile::tempdir().expect("directory");
    let path = lived(&dir).await;
    whole(&path);
    let before = std::fs::read(&path).expect("reads");
    for (sql, says) in [
        ("UPDATE counters SET sessions = 0 WHERE issue = 'asks'", "the counters of asks are not those of event "),
        ("UPDATE counters SET turns = 0 WHERE issue = 'parked'", "the counters of parked are not those of event "),
        ("DELETE FROM counters WHERE issue = 'hears'", "the counters of hears"),
        ("DELETE FROM parked", "parked: why it is parked is not what event "),
        ("UPDATE parked SET kind = 'diverged'", "parked: why it is parked is not what event "),
        ("INSERT INTO parked VALUES ('asks', 'diverged', 0, '', 'Todo')", "asks: why it is parked"),
        ("UPDATE waiting SET until = '2030-01-01T00:00:00Z'", "waiting: when it is tried again"),
        ("DELETE FROM waiting", "waiting: when it is tried again"),
        ("UPDATE runs SET end = 'forged' WHERE run = 2", "run 2 is not what event "),
        ("UPDATE runs SET reason = 'done' WHERE run = 2", "run 2 is not what event "),
        ("UPDATE runs SET ended_at = 't' WHERE run = 3", "run 3 is not what event "),
        ("UPDATE runs SET ended_at = NULL WHERE run = 1", "run 1 is not what event "),
        ("DELETE FROM runs WHERE run = 2", "run 2 of event "),
        ("INSERT INTO runs (run, issue, started_at) VALUES (90, 'asks', 't')", "run 90 stands in no event"),
        ("UPDATE questions SET closed_at = 't' WHERE closed_at IS NULL", "question 2 of asks is not what event "),
        ("UPDATE questions SET question = 'Why?' WHERE closed_at IS NULL", "question 2 of asks is not what event "),
        ("DELETE FROM questions WHERE closed_at IS NULL", "question 2 of asks is not what event "),
        ("UPDATE letters SET text = 'forged' WHERE taken_at IS NULL", "letter 2 of hears is not what event "),
        ("UPDATE letters SET taken_at = 't'", "letter 2 of hears is not what event "),
        ("UPDATE letters SET taken_at = NULL", "letter 1 of hears is not what event "),
        ("DELETE FROM letters WHERE taken_at IS NULL", "letter 2 of event "),
        (
            "INSERT INTO letters (issue, text, by, at) VALUES ('asks', 'forged', 'cli', '2026-01-02T03:04:05Z')",
            "letter 3 of asks stands in no event",
        ),
        ("DROP INDEX letters_pending", "the index letters_pending is not as symphony makes it"),
        ("DROP TRIGGER events_do_not_vanish", "the trigger events_do_not_vanish is not as"),
        ("ALTER TABLE runs ADD COLUMN more TEXT", "the table runs is not as symphony makes it"),
        ("CREATE TABLE more (a)", "the table more is not as symphony makes it"),
    ] {
        told_of(&path, &before, sql, says);
        let refused = inspect::compact_file(&path, 1, &[7; 32]).expect_err(sql);
        assert!(matches!(refused, JournalError::Broken { .. }), "{refused}");
    }
}

#[tokio::test]
async fn behind_a_checkpoint_words_of_later_numbers_still_need_their_event() {
    let dir = tempfile::tempdir().expect("directory");
    let path = lived(&dir).await;
    for keep in [9, 4, 0] {
        inspect::compact_file(&path, keep, &[7; 32]).expect("compacts");
        whole(&path);
    }
    let sql = "INSERT INTO letters (issue, text, by, at) VALUES ('asks', 'forged', 'cli', '2026-01-02T03:04:05Z')";
    Connection::open(&path).expect("db").execute_batch(sql).expect(sql);
    let report = inspect::check(&path, None).expect("readable");
    assert_eq!(report.differences, ["letter 3 of asks stands in no event"]);
}

#[tokio::test]
async fn words_too_large_for_an_event_and_a_run_that_was_cut_off_are_no_difference() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let (issue, long) = (IssueId("A".into()), "long ".repeat(50_000));
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    journal.said(issue.clone(), long.clone(), By::Cli).await.expect("writes");
    journal.asked(RunId(1), issue.clone(), asked("Short?"), None).await.expect("writes");
    journal.asked(RunId(1), issue.clone(), asked(&long), None).await.expect("writes");
    whole(&path);
    journal.answered(issue.clone(), None, long, By::Cli).await.expect("writes");
    drop(journal);
    drop(open(&path).expect("opens"));
    whole(&path);
}

/// Hosts: a card that waits, one that was decided, a decision that was used up, one that holds, and what a run reached.
#[tokio::test]
async fn rows_of_hosts_that_the_events_contradict_are_told() {
    use symphony_core::egress::{Card, Settles, Target, Verb};
    let settles = |card: &Card| Settles { card: card.clone(), answers: vec![card.id], replaces: None };
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let (issue, host) =
        (IssueId("a".into()), |name: &str| Target::parse(&format!("{name}.example:443")).expect("a host"));
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    let mut cards = vec![];
    for name in ["waits", "used", "holds", "gone"] {
        cards.push(journal.egress_asked(RunId(1), issue.clone(), host(name)).await.expect("writes"));
    }
    let used = journal.egress_decided(settles(&cards[1]), Verb::Once, By::Cli).await.expect("writes");
    journal.egress_reached(RunId(1), issue.clone(), vec![], Some(used)).await.expect("writes");
    let holds = journal.egress_decided(settles(&cards[2]), Verb::Issue, By::Api).await.expect("writes");
    journal.egress_withdrawn(issue.clone(), vec![cards[3].id]).await.expect("writes");
    let mut reached = Reached {
        target: host("holds"),
        rule: "decision".into(),
        address: Some([1, 1, 1, 1].into()),
        connections: 1,
        denied: 2,
        sent: 3,
        received: 4,
    };
    for _ in 0..2 {
        journal.egress_reached(RunId(1), issue.clone(), vec![reached.clone()], None).await.expect("writes");
        reached.received += 1;
    }
    drop(journal);
    let (journal, memory) = open(&path).expect("opens");
    drop(journal);
    assert_eq!((memory.egress.cards, memory.egress.decisions), (vec![cards[0].clone()], vec![holds.clone()]));
    whole(&path);
    let before = std::fs::read(&path).expect("reads");
    let (card, decision) = (cards[0].id, holds.id);
    for (sql, says) in [
        ("DELETE FROM egress_asked".to_owned(), format!("host card of event {card} is missing")),
        ("UPDATE egress_asked SET host = 'evil.example'".into(), format!("host card {card} is not what")),
        ("UPDATE egress_asked SET issue = 'b'".into(), format!("host card {card} is not what")),
        (
            "INSERT INTO egress_asked VALUES (999, 1, 'a', 'x', 1, '2026-01-02T03:04:05Z')".into(),
            "host card 999 stands in no event".into(),
        ),
        ("DELETE FROM egress_decided".into(), format!("host decision of event {decision} is missing")),
        ("UPDATE egress_decided SET verb = 'always'".into(), format!("host decision {decision} is not what")),
        ("UPDATE egress_decided SET port = 22".into(), format!("host decision {decision} is not what")),
        (
            "INSERT INTO egress_decided VALUES (999, 'a', 'x', 1, 'always', 'cli', '2026-01-02T03:04:05Z')".into(),
            "host decision 999 stands in no event".into(),
        ),
        ("UPDATE egress_reached SET sent = 0".into(), "what run 1 reached at holds.example is not what event ".into()),
        ("UPDATE egress_reached SET address = NULL".into(), "what run 1 reached at holds.example is not".into()),
        ("DELETE FROM egress_reached".into(), "what run 1 reached in event ".into()),
        (
            "INSERT INTO egress_reached VALUES (1, 'a', 'x', 1, 'r', NULL, 0, 0, 0, 0)".into(),
            "what run 1 reached at x stands in no event".into(),
        ),
    ] {
        told_of(&path, &before, &sql, &says);
    }
    std::fs::write(&path, &before).expect("as before");
    for keep in [3, 0] {
        inspect::compact_file(&path, keep, &[7; 32]).expect("compacts");
        whole(&path);
        let (journal, memory) = open(&path).expect("opens");
        drop(journal);
        assert_eq!((memory.egress.cards.len(), memory.egress.decisions.len()), (1, 1), "what holds stays");
    }
}
