//! What providers said, and how often nobody answered an issue: the rows, and the events that tell of them.

use std::collections::BTreeMap;

use symphony_core::broker::Provider;
use symphony_core::broker::quota::Pause;

use super::*;
use crate::journal::standings::{Said, Standing};

fn standing(byte: u8, said: Said) -> Standing {
    Standing { credential: [byte; 32], provider: Provider::OpenAi, said }
}

fn wait(pause: Pause, in_a_row: u32) -> Said {
    Said::Wait { until: "2026-01-31T02:03:04Z".parse().expect("an instant"), pause, in_a_row }
}

#[tokio::test]
async fn what_was_said_last_is_remembered_and_what_is_over_is_not() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, before) = open(&path).expect("opens");
    assert!(before.told.key.is_some() && before.told.standings.is_empty());
    let all = [wait(Pause::Asked, 1), wait(Pause::Longer, 2), wait(Pause::Empty, 3), Said::Refused];
    let mut expected = vec![];
    for (byte, said) in (1..).zip(all) {
        journal.standing(standing(byte, Said::Refused)).await.expect("kept");
        journal.standing(standing(byte, said.clone())).await.expect("kept");
        expected.push(standing(byte, said));
    }
    journal.standing(standing(9, Said::Refused)).await.expect("kept");
    journal.standing_over([9; 32]).await.expect("kept");
    journal.standing_over([9; 32]).await.expect("once is enough");
    for (issue, times) in [("A", 1), ("A", 2), ("B", 1), ("B", 0)] {
        journal.in_vain(IssueId(issue.into()), times).await.expect("kept");
    }
    drop(journal);
    let (_, memory) = open(&path).expect("opens");
    assert_eq!(memory.told.standings, expected);
    assert_eq!(memory.told.in_vain, BTreeMap::from([(IssueId("A".into()), 2)]));
    assert_eq!(memory.told.key, before.told.key, "the same key at every start");
    whole(&path);
    assert_eq!(inspect::check(&path, None).expect("readable").differences, Vec::<String>::new());
    let key: String = memory.told.key.expect("one").iter().map(|byte| format!("{byte:02x}")).collect();
    let db = Connection::open(&path).expect("db");
    let told: i64 = db
        .query_row("SELECT count(*) FROM events WHERE body LIKE '%' || ?1 || '%'", [&key], |r| r.get(0))
        .expect("read");
    assert!(told == 0 && !format!("{memory:?}").contains(&key), "no event tells it, so no export does");
}

#[tokio::test]
async fn rows_that_do_not_say_what_the_events_say_are_told() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    journal.standing(standing(1, wait(Pause::Asked, 1))).await.expect("kept");
    journal.in_vain(IssueId("A".into()), 3).await.expect("kept");
    drop(journal);
    whole(&path);
    let before = std::fs::read(&path).expect("reads");
    for (sql, says) in [
        (
            "UPDATE standings SET until = '2036-01-31T02:03:04Z'",
            "what a provider said of 010101010101 is not what event ",
        ),
        ("UPDATE standings SET kind = 'refused'", "what a provider said of 010101010101 is not what event "),
        ("DELETE FROM standings", "what a provider said of 010101010101 in event "),
        (
            "INSERT INTO standings VALUES ('02', 'openai', 'refused', NULL, 1)",
            "what a provider said of 02 stands in no event",
        ),
        ("UPDATE in_vain SET times = 2", "how often nobody answered A is not what event "),
        ("DELETE FROM in_vain", "how often nobody answered A in event "),
        ("INSERT INTO in_vain VALUES ('B', 1)", "how often nobody answered B stands in no event"),
    ] {
        told_of(&path, &before, sql, says);
    }
}
