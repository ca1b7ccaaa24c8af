//! Real files as bad disks, full disks and kills leave them: refused unchanged, or whole.

use super::*;

async fn closed(dir: &tempfile::TempDir, runs: u64) -> (PathBuf, Vec<u8>) {
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    worked(&journal, 1..runs).await;
    drop(journal);
    let bytes = std::fs::read(&path).expect("reads");
    (path, bytes)
}

#[tokio::test]
async fn a_file_that_was_cut_off_anywhere_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, bytes) = closed(&dir, 20).await;
    let cuts = [1, 50, 99, 100, 511, 512, 4095, 4096].into_iter().chain((5000..bytes.len()).step_by(3001));
    for cut in cuts.chain([bytes.len() - 4096, bytes.len() - 1]) {
        let path = dir.path().join(format!("cut-{cut}.db"));
        std::fs::write(&path, &bytes[..cut]).expect("written");
        let error = open(&path).expect_err(&format!("cut at {cut}"));
        assert!(matches!(error, JournalError::Damaged { .. }), "cut at {cut}: {error}");
        assert!(error.to_string().contains(&format!("cut-{cut}.db")), "{error}");
        assert_eq!(std::fs::read(&path).expect("reads"), &bytes[..cut], "cut at {cut}: changed");
    }
}

#[tokio::test]
async fn damaged_bytes_on_any_page_are_found_and_what_else_is_there_can_be_exported() {
    let dir = tempfile::tempdir().expect("directory");
    let (_, bytes) = closed(&dir, 60).await;
    let full = {
        let mut out = Vec::new();
        let path = dir.path().join("journal.db");
        let (lines, unread) = inspect::export(&path, &mut out).expect("exports");
        assert_eq!((unread, out.iter().filter(|byte| **byte == b'\n').count() as u64), (vec![], lines));
        lines
    };
    let pages = bytes.len() / 4096;
    assert!(pages > 20, "{pages} pages are too few to mean much");
    let (mut saved, mut most) = (0, 0);
    for page in 1..pages {
        let path = dir.path().join(format!("page-{page}.db"));
        let mut damaged = bytes.clone();
        damaged[page * 4096..page * 4096 + 64].fill(0xAA);
        std::fs::write(&path, &damaged).expect("written");
        let error = open(&path).expect_err(&format!("page {page}"));
        assert!(matches!(error, JournalError::Damaged { .. }), "page {page}: {error}");
        assert!(error.to_string().contains("export") && error.to_string().contains("-wal"), "{error}");
        assert!(matches!(inspect::check(&path, None), Err(JournalError::Damaged { .. })));
        let mut out = Vec::new();
        let (lines, unread) = inspect::export(&path, &mut out).expect("what there is");
        assert!(lines <= full && (lines == full || !unread.is_empty()), "page {page}: {lines} of {full}, {unread:?}");
        saved += u64::from(lines > full / 2);
        most += 1;
        assert_eq!(std::fs::read(&path).expect("reads"), damaged, "page {page}: changed");
    }
    assert!(saved * 4 > most * 3, "of {most} damaged journals only {saved} gave more than half");
}

/// Regression: the export of such a journal crashed, and its check called it whole.
#[tokio::test]
async fn a_column_whose_name_is_no_text_is_damage_and_its_rows_can_be_exported() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, mut bytes) = closed(&dir, 3).await;
    let at: Vec<usize> = (0..bytes.len() - 10).filter(|at| bytes[*at..].starts_with(b"last_words")).collect();
    assert!(!at.is_empty());
    for at in at {
        bytes[at + 6] = 0xFF;
    }
    std::fs::write(&path, &bytes).expect("written");
    for refused in [open(&path).map(drop), inspect::check(&path, None).map(drop)] {
        let refused = refused.expect_err("damaged");
        assert!(matches!(refused, JournalError::Damaged { .. }), "{refused}");
    }
    let mut out = Vec::new();
    let (lines, unread) = inspect::export(&path, &mut out).expect("exports");
    let out = String::from_utf8(out).expect("text");
    assert!(lines > 10 && unread.is_empty() && out.contains("last_w\u{fffd}rds"), "{unread:?} {out}");
}

/// Regression: a check called these whole, and a start refused them as if a disk were broken.
#[tokio::test]
async fn values_that_symphony_does_not_write_are_damage_for_a_check_as_for_a_start() {
    for sql in [
        "INSERT INTO waiting VALUES ('A', 'not a time', 'failure', NULL)",
        "INSERT INTO letters (issue, text, by, at) VALUES ('A', 'words', 'cli', 'not a time')",
        "UPDATE counters SET sessions = -1",
        "UPDATE counters SET last_words = CAST(x'ff41' AS TEXT)",
        "INSERT INTO runs (run, issue, started_at, ended_at) VALUES (9223372036854775807, 'A', 't', 't')",
    ] {
        let dir = tempfile::tempdir().expect("directory");
        let (path, _) = closed(&dir, 3).await;
        Connection::open(&path).expect("db").execute_batch(sql).expect(sql);
        for refused in [open(&path).map(drop), inspect::check(&path, None).map(drop)] {
            let refused = refused.expect_err(sql);
            assert!(matches!(refused, JournalError::Damaged { .. }), "{sql}: {refused}");
        }
    }
    for (sql, says) in [
        ("UPDATE events SET body = CAST(x'ff41' AS TEXT) WHERE seq = 2", "event 2 is not what was written"),
        ("UPDATE events SET kind = CAST(x'ff41' AS TEXT) WHERE seq = 3", "event 3 is not what was written"),
        ("UPDATE about SET value = CAST(x'ff41' AS TEXT) WHERE key = 'head'", "events after 7 are missing"),
        ("DELETE FROM about WHERE key = 'head'", "events after 7 are missing"),
    ] {
        let dir = tempfile::tempdir().expect("directory");
        let (path, _) = closed(&dir, 3).await;
        Connection::open(&path)
            .expect("db")
            .execute_batch(&format!("DROP TRIGGER events_do_not_change; {sql}"))
            .expect(sql);
        let said = fault(&path, None);
        assert!(said.starts_with(says), "{sql}: {said}");
    }
}

/// Regression: words went into a file that had been moved away, and nobody was told.
#[tokio::test]
async fn a_journal_that_is_moved_or_replaced_takes_no_words_until_it_is_back() {
    let dir = tempfile::tempdir().expect("directory");
    let (path, away) = (dir.path().join("journal.db"), dir.path().join("away.db"));
    let (journal, _) = open(&path).expect("opens");
    let say = |text: &str| journal.said(IssueId("A".into()), text.into(), By::Cli);
    say("one").await.expect("writes");
    std::fs::rename(&path, &away).expect("moved");
    assert!(journal.trouble().is_some_and(|why| why.contains("moved, removed or replaced")), "before any write");
    assert!(matches!(say("two").await, Err(JournalError::Replaced(_))));
    std::fs::write(&path, "another").expect("written");
    assert!(matches!(say("three").await, Err(JournalError::Replaced(_))));
    std::fs::rename(&away, &path).expect("put back");
    journal.probed().await.expect("writes");
    assert_eq!(journal.trouble(), None);
    say("four").await.expect("writes");
    drop(journal);
    let memory = open(&path).expect("opens").1;
    let texts: Vec<&str> = memory.letters[&IssueId("A".into())].iter().map(|letter| letter.text.as_str()).collect();
    assert_eq!(texts, ["one", "four"]);
}

#[tokio::test]
async fn an_empty_file_with_a_log_is_refused_before_the_log_is_gone() {
    let dir = tempfile::tempdir().expect("directory");
    let (journal, _) = open(&dir.path().join("journal.db")).expect("opens");
    worked(&journal, 1..3).await;
    let path = dir.path().join("emptied.db");
    as_killed(&dir.path().join("journal.db"), &path);
    std::fs::write(&path, "").expect("emptied");
    let log = std::fs::read(dir.path().join("emptied.db-wal")).expect("reads");
    assert!(matches!(open(&path), Err(JournalError::Damaged { .. })));
    assert_eq!(std::fs::read(dir.path().join("emptied.db-wal")).expect("reads"), log);
}

#[tokio::test]
async fn a_log_torn_at_any_byte_gives_whole_calls_only() {
    let dir = tempfile::tempdir().expect("directory");
    let from = dir.path().join("journal.db");
    let (journal, _) = open(&from).expect("opens");
    worked(&journal, 1..6).await;
    let killed = dir.path().join("killed.db");
    as_killed(&from, &killed);
    let log = std::fs::read(dir.path().join("killed.db-wal")).expect("reads");
    // Header 32 bytes, frames of 24 and a page: around each end, and in the middle.
    let frames = (log.len() - 32) / 4120;
    let cuts: Vec<usize> =
        (0..=frames).flat_map(|n| [32 + n * 4120, 32 + n * 4120 + 1, 32 + n * 4120 + 2000]).collect();
    let mut seen = std::collections::BTreeSet::new();
    for (number, cut) in cuts.into_iter().chain([0, 1, 31]).map(|cut| cut.min(log.len())).enumerate() {
        let path = dir.path().join(format!("torn-{number}.db"));
        std::fs::copy(&killed, &path).expect("copied");
        std::fs::write(dir.path().join(format!("torn-{number}.db-wal")), &log[..cut]).expect("written");
        let (journal, memory) = open(&path).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let chain = whole(&path);
        {
            let db = journal.writer.db.lock().expect("free");
            let count = |sql: &str| db.query_row(sql, [], |r| r.get::<_, u32>(0)).map(u64::from).expect("counts");
            let started = count("SELECT count(*) FROM events WHERE kind = 'run_started'");
            let ended = count("SELECT count(*) FROM events WHERE kind IN ('run_ended', 'run_cut_off')");
            let rows =
                (count("SELECT count(*) FROM runs"), count("SELECT count(*) FROM runs WHERE ended_at IS NOT NULL"));
            assert_eq!(rows, (started, ended), "cut at {cut}: half a call");
            assert_eq!((started, memory.next_run), (ended, started + 1), "cut at {cut}");
        }
        seen.insert(chain.head.seq);
        worked(&journal, memory.next_run..memory.next_run + 1).await;
    }
    assert!(seen.len() > 5, "the cuts fell into {seen:?} only");
}

#[tokio::test]
async fn a_journal_that_may_not_grow_says_so_keeps_what_it_promised_and_goes_on() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    let limit = |pages: &str| {
        let db = journal.writer.db.lock().expect("free");
        db.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |r| r.get::<_, i64>(0)).expect("set")
    };
    limit("30");
    let issue = IssueId("A".into());
    let mut promised = 0;
    let error = loop {
        match journal.said(issue.clone(), "words ".repeat(100), By::Cli).await {
            Ok(_) => promised += 1,
            Err(error) => break error,
        }
        assert!(promised < 1000, "it never filled up");
    };
    assert!(matches!(error, JournalError::Full { .. }), "{error}");
    assert!(journal.trouble().is_some_and(|why| why.contains("cannot grow") && why.contains("make room")));
    assert!(promised > 0);
    limit("100000");
    journal.probed().await.expect("writes");
    assert_eq!(journal.trouble(), None);
    journal.said(issue.clone(), "more".into(), By::Cli).await.expect("writes");
    drop(journal);
    assert_eq!(open(&path).expect("opens").1.letters[&issue].len(), promised + 1);
    whole(&path);
}
