//! The chain of events against those who would change it: each deed shows, with its place.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::journal::Limit;

const SECRET: [u8; 32] = [7; 32];

/// A journal of ten events and more, without the triggers that stand in the way of the tester.
async fn written(dir: &tempfile::TempDir) -> PathBuf {
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    worked(&journal, 1..5).await;
    path
}

fn by_force(path: &Path, sql: &str) {
    let triggers =
        "DROP TRIGGER events_do_not_change; DROP TRIGGER events_do_not_vanish; DROP TRIGGER events_only_follow;";
    Connection::open(path).expect("db").execute_batch(&format!("{triggers} {sql}")).expect(sql);
}

#[tokio::test]
async fn no_event_can_be_changed_replaced_or_removed() {
    let dir = tempfile::tempdir().expect("directory");
    let path = written(&dir).await;
    let db = Connection::open(&path).expect("db");
    for (sql, why) in [
        ("UPDATE events SET body = '{}' WHERE seq = 3", "never changed"),
        ("DELETE FROM events WHERE seq = 1", "behind a checkpoint"),
        ("DELETE FROM events WHERE seq = (SELECT max(seq) FROM events)", "behind a checkpoint"),
        (
            "INSERT OR REPLACE INTO events SELECT seq, at, 'other', run, issue, body, hash FROM events WHERE seq = 3",
            "only follows",
        ),
    ] {
        let error = db.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains(why), "{sql}: {error}");
    }
    drop(db);
    assert_eq!(whole(&path).events, 13, "one for the start, three for each run");
}

#[tokio::test]
async fn a_check_names_the_place_of_what_was_changed_removed_or_cut_off() {
    for (sql, says) in [
        ("UPDATE events SET body = '{}' WHERE seq = 5", "event 5 (run_started, "),
        ("UPDATE events SET issue = 'other' WHERE seq = 2", "event 2 (run_started, "),
        ("UPDATE events SET issue = NULL WHERE seq = 13", "event 13 (run_ended, "),
        ("UPDATE events SET hash = x'00' WHERE seq = 6", "event 6 (turn_began"),
        ("DELETE FROM events WHERE seq = 5", "event 5 is missing; the next one is 6"),
        ("DELETE FROM events WHERE seq = 1", "event 1 is missing; the next one is 2"),
        ("DELETE FROM events WHERE seq > 10", "events after 10 are missing"),
        ("DELETE FROM events", "events after 0 are missing"),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        let path = written(&dir).await;
        by_force(&path, sql);
        let said = fault(&path, None);
        assert!(said.starts_with(says), "{sql}: {said}");
        let before = std::fs::read(&path).expect("reads");
        let refused = inspect::compact_file(&path, 2, &SECRET).expect_err("refused");
        assert!(matches!(refused, JournalError::Broken { .. }) && refused.to_string().contains(says), "{refused}");
        assert_eq!(std::fs::read(&path).expect("reads"), before, "a broken chain is not compacted");
    }
}

#[tokio::test]
async fn a_compaction_leaves_a_signed_checkpoint_and_everything_that_is_remembered() {
    let dir = tempfile::tempdir().expect("directory");
    let path = written(&dir).await;
    let (journal, before) = open(&path).expect("opens");
    drop(journal);
    let (removed, room) = inspect::compact_file(&path, 4, &SECRET).expect("compacts");
    assert_eq!((removed, room), (inspect::Removed { events: 9, upto: 9 }, None));
    let chain = whole(&path);
    let checkpoint = chain.checkpoint.expect("a checkpoint");
    assert_eq!((checkpoint.upto.seq, chain.events, chain.head.seq), (9, 5, 14), "the compaction is an event, too");
    assert_eq!(checkpoint.fingerprint(), inspect::fingerprint(&inspect::public(&SECRET)));
    let (journal, after) = open(&path).expect("opens");
    assert_eq!(after, before);
    worked(&journal, 5..6).await;
    drop(journal);
    assert_eq!(whole(&path).head.seq, 17, "numbers go on");
    // All of them: the checkpoint alone says where the chain goes on.
    assert_eq!(inspect::compact_file(&path, 0, &SECRET).expect("compacts").0.upto, 17);
    assert_eq!(inspect::compact_file(&path, 1_000, &SECRET).expect("nothing to do").0.events, 0);
    assert_eq!(inspect::compact_file(&path, u64::MAX, &SECRET).expect("nothing to do").0.events, 0);
    assert_eq!((whole(&path).events, whole(&path).head.seq), (1, 18));
}

#[tokio::test]
async fn a_forged_checkpoint_shows() {
    let other = [8; 32];
    for (sql, says) in [
        ("UPDATE checkpoints SET at = '2020-01-01T00:00:00Z'", "the signature of the checkpoint at event 9 is wrong"),
        ("UPDATE checkpoints SET seq = 10", "the signature of the checkpoint at event 10 is wrong"),
        ("UPDATE checkpoints SET key = zeroblob(32)", "the signature of the checkpoint at event 9 is wrong"),
        ("UPDATE checkpoints SET signature = x'00'", "the newest checkpoint is not what"),
        ("UPDATE about SET value = 'another' WHERE key = 'instance'", "the signature of the checkpoint at event 9"),
        ("DELETE FROM checkpoints", "event 1 is missing; the next one is 10"),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        let path = written(&dir).await;
        inspect::compact_file(&path, 4, &SECRET).expect("compacts");
        by_force(&path, sql);
        let said = fault(&path, Some(&inspect::public(&SECRET)));
        assert!(said.starts_with(says), "{sql}: {said}");
    }
    // One who can write the file signs well, but with another key.
    let dir = tempfile::tempdir().expect("directory");
    let path = written(&dir).await;
    inspect::compact_file(&path, 4, &other).expect("compacts");
    whole(&path);
    let said = fault(&path, Some(&inspect::public(&SECRET)));
    assert!(said.contains("signed by key") && said.contains("not by this installation's key"), "{said}");
    assert!(inspect::compact_file(&path, 1, &SECRET).is_err(), "a signature over it would hide that");
}

/// Writes all events anew as the first ones of a chain without a checkpoint, as one does who knows how.
fn forged(path: &Path, count: i64) {
    let mut db = Connection::open(path).expect("db");
    db.execute_batch(
        "DROP TRIGGER events_do_not_change; DROP TRIGGER events_do_not_vanish; DELETE FROM events; DELETE FROM checkpoints;",
    )
    .expect("by force");
    let tx = db.transaction().expect("begins");
    for _ in 0..count {
        crate::journal::chain::append(&tx, &Entry { kind: "said", run: None, issue: None, body: json!({}) })
            .expect("appended");
    }
    tx.commit().expect("forged");
}

/// Regression: without its checkpoint, a chain that was forged from its first event on was called whole.
#[tokio::test]
async fn a_chain_begun_anew_without_its_checkpoint_shows_also_when_it_is_longer() {
    for count in [3, 40] {
        let dir = tempfile::tempdir().expect("directory");
        let path = written(&dir).await;
        inspect::compact_file(&path, 4, &SECRET).expect("compacts");
        forged(&path, count);
        let said = fault(&path, Some(&inspect::public(&SECRET)));
        assert!(said.contains("does not hold event 9, which this installation signed"), "{said}");
        // The way on for one who knows.
        std::fs::remove_file(dir.path().join("journal-signed")).expect("removed");
        assert!(inspect::check(&path, None).expect("readable").chain.expect("a chain").is_ok());
    }
    // A journal that is made anew has nothing to do with it.
    let dir = tempfile::tempdir().expect("directory");
    let path = written(&dir).await;
    inspect::compact_file(&path, 4, &SECRET).expect("compacts");
    std::fs::rename(&path, dir.path().join("away.db")).expect("moved");
    drop(open(&path).expect("opens"));
    whole(&path);
}

#[tokio::test]
async fn a_kill_between_the_mark_and_its_checkpoint_is_no_fault() {
    let dir = tempfile::tempdir().expect("directory");
    let path = written(&dir).await;
    let before = std::fs::read(&path).expect("reads");
    inspect::compact_file(&path, 4, &SECRET).expect("compacts");
    std::fs::write(&path, before).expect("the transaction was not committed");
    whole(&path);
    assert_eq!(inspect::compact_file(&path, 2, &SECRET).expect("compacts").0.upto, 11);
    whole(&path);
    std::fs::write(dir.path().join("journal-signed"), "not a mark").expect("written");
    assert!(fault(&path, None).contains("journal-signed is not what symphony writes"));
}

/// Regression: with its key lost, a journal could never be compacted or called whole again.
#[tokio::test]
async fn a_new_key_signs_anew_what_a_lost_one_signed_and_nothing_that_is_broken() {
    let (dir, new) = (tempfile::tempdir().expect("directory"), [9; 32]);
    let path = written(&dir).await;
    inspect::compact_file(&path, 4, &SECRET).expect("compacts");
    assert_eq!(inspect::signer(&path).expect("read"), Some(inspect::fingerprint(&inspect::public(&SECRET))));
    let refused = inspect::compact_file(&path, 4, &new).expect_err("another key").to_string();
    assert!(refused.contains("symphony journal compact --new-key"), "{refused}");
    // Nothing to remove, and signed anew all the same.
    assert_eq!(inspect::sign_anew(&path, 1000, &new).expect("signs").0, inspect::Removed { events: 0, upto: 9 });
    assert!(inspect::check(&path, Some(&inspect::public(&new))).expect("readable").chain.expect("a chain").is_ok());
    assert_eq!(inspect::sign_anew(&path, 1, &SECRET).expect("signs, and removes").0.upto, 14);
    assert!(inspect::check(&path, Some(&inspect::public(&SECRET))).expect("readable").chain.expect("a chain").is_ok());
    by_force(&path, "UPDATE checkpoints SET at = '2020-01-01T00:00:00Z'");
    let refused = inspect::sign_anew(&path, 1, &new).expect_err("broken").to_string();
    assert!(refused.contains("the signature of the checkpoint"), "{refused}");
}

#[tokio::test]
async fn a_running_journal_makes_room_when_its_bound_is_passed_and_only_then() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, memory) = open(&path).expect("opens");
    let within = |keep, slack| Some(Limit { keep, slack, instance: memory.instance.clone(), secret: SECRET });
    worked(&journal, 1..4).await;
    journal.keep_within(within(5, 5));
    journal.probed().await.expect("writes");
    assert_eq!(whole(&path).events, 10, "ten events are not more than ten");
    journal.keep_within(within(5, 4));
    journal.probed().await.expect("writes");
    assert_eq!((whole(&path).events, whole(&path).head.seq), (6, 11), "the compaction is an event, too");
    for round in 0..40 {
        worked(&journal, 4 + 2 * round..6 + 2 * round).await;
        assert!(whole(&path).events <= 10, "{} in round {round}", whole(&path).events);
    }
    let rows = |table: &str| {
        let db = Connection::open(&path).expect("db");
        db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get::<_, i64>(0)).expect("counted")
    };
    assert!(rows("runs") <= 5, "ended runs of which no event is left go, too: {}", rows("runs"));
    // A broken chain is kept, and no trouble of writing.
    let last = whole(&path).head.seq;
    by_force(&path, &format!("UPDATE events SET body = '{{}}' WHERE seq = {last}"));
    journal.keep_within(within(2, 2));
    worked(&journal, 100..103).await;
    assert_eq!(journal.trouble(), None);
    assert!(rows("events") > 9, "nothing was removed");
    assert!(fault(&path, None).starts_with(&format!("event {last} ")));
    assert_eq!(open(&path).expect("opens").1.next_run, 103);
}

#[tokio::test]
async fn making_room_keeps_what_an_answer_on_its_way_answers_and_repeats_no_number() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, memory) = open(&path).expect("opens");
    let issue = |name: &str| IssueId(name.into());
    for (run, name) in [(1, "late"), (2, "taken")] {
        journal.run_started(RunId(run), issue(name), counters(1)).await.expect("writes");
        journal.asked(RunId(run), issue(name), asked("Which?"), None).await.expect("writes");
        let told = journal.answered(issue(name), None, format!("to {name}"), By::Cli).await.expect("writes");
        assert!(matches!(told, Answered::Taken(_)), "{told:?}");
    }
    journal.turn_began(RunId(2), issue("taken"), counters(1), vec![2]).await.expect("writes");
    journal.turn_ended(RunId(2), issue("taken")).await.expect("writes");
    for (run, name) in [(1, "late"), (2, "taken")] {
        journal.run_ended(RunId(run), issue(name), ending(1, None)).await.expect("writes");
    }
    journal.said(issue("late"), "and more".into(), By::Cli).await.expect("writes");
    journal.keep_within(Some(Limit { keep: 4, slack: 0, instance: memory.instance.clone(), secret: SECRET }));
    worked(&journal, 3..9).await;
    let question = journal.asked(RunId(8), issue("late"), asked("And now?"), None).await.expect("writes");
    assert_eq!(question.id, 3);
    drop(journal);
    let (_, after) = open(&path).expect("opens");
    let letters = &after.letters[&issue("late")];
    assert_eq!(letters[0].answers, Some(asked("Which?")));
    assert_eq!(letters.iter().map(|letter| letter.id).collect::<Vec<_>>(), [1, 3]);
    assert_eq!((after.letters.len(), after.next_run), (1, 9));
    let db = Connection::open(&path).expect("db");
    let left: String = db.query_row("SELECT group_concat(id) FROM letters", [], |r| r.get(0)).expect("read");
    assert_eq!(left, "1,3", "the one that was taken is gone");
}

#[tokio::test]
async fn no_words_of_an_agent_make_an_event_large() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let (issue, long) = (IssueId("A".into()), "long ".repeat(100_000));
    journal.run_started(RunId(1), issue.clone(), counters(1)).await.expect("writes");
    journal.asked(RunId(1), issue.clone(), asked(&long), None).await.expect("writes");
    journal.run_ended(RunId(1), issue.clone(), Ending { end: long.clone(), ..ending(1, None) }).await.expect("writes");
    drop(journal);
    let db = Connection::open(&path).expect("db");
    let most = |sql: &str| db.query_row(sql, [], |r| r.get::<_, i64>(0)).expect(sql);
    assert!(most("SELECT max(length(body)) FROM events") < 5_000);
    assert!(most("SELECT max(length(end)) FROM runs") < 2_100);
    drop(db);
    whole(&path);
    assert_eq!(open(&path).expect("opens").1.questions[&issue].asked, asked(&long), "the question itself is whole");
}

#[test]
fn the_key_is_made_once_private_and_never_replaced() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal-key");
    assert_eq!(key::pinned(&path).expect("none"), None);
    let secret = key::load_or_create(&path).expect("made");
    assert_eq!(key::load_or_create(&path).expect("there"), secret);
    assert_eq!(key::pinned(&path).expect("there"), Some(inspect::public(&secret)));
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    for text in ["", "abc", &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32)] {
        std::fs::write(&path, text).expect("written");
        let refused = key::load_or_create(&path).expect_err("refused").to_string();
        assert!(refused.contains("journal-key") && (text.is_empty() || !refused.contains(text)), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), text, "left alone");
    }
}
