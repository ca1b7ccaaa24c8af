//! Older formats are brought up to date behind a copy, newer ones are not touched.

use super::*;

const ROWS: &str =
    "INSERT INTO about VALUES ('instance', 'me'); INSERT INTO runs (run, issue, started_at) VALUES (7, 'A', 't');
    INSERT INTO questions VALUES (3, 7, 'A', 'which?', NULL, '2026-01-02T03:04:05Z', NULL, NULL);";

/// Takes back what came after format 3.
const AS_3: &str = "DROP TABLE sessions; DROP TABLE egress_asked; DROP TABLE egress_decided; DROP TABLE egress_reached;
    DROP TABLE spend; DROP TABLE reservations; DROP TABLE raises; DROP TABLE standings; DROP TABLE in_vain;
    DELETE FROM about WHERE key = 'credential_key'; PRAGMA user_version = 3;";

/// A journal as an older symphony left it.
fn older(path: &Path, format: i64) {
    let db = Connection::open(path).expect("db");
    db.pragma_update(None, "journal_mode", "WAL").expect("as it was");
    db.execute_batch(schema::TABLES).expect("tables");
    if format > 1 {
        db.execute_batch(schema::TO_2).expect("tables");
    }
    db.execute_batch(ROWS).expect("rows");
    db.pragma_update(None, "user_version", format).expect("set");
}

#[test]
fn an_older_journal_is_brought_up_to_date_and_the_copy_opens_in_its_own_format() {
    for format in [1, 2] {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("journal.db");
        older(&path, format);
        let before = std::fs::read(&path).expect("reads");
        let report = inspect::check(&path, None).expect("readable");
        assert_eq!((report.format, report.chain, report.instance.as_str()), (format, None, "me"));
        let refused = inspect::compact_file(&path, 1, &[7; 32]).expect_err("refused");
        assert!(matches!(refused, JournalError::Older { .. }), "{refused}");
        assert_eq!(std::fs::read(&path).expect("reads"), before, "looking changes nothing");

        let (journal, memory) = open(&path).expect("opens");
        drop(journal);
        assert_eq!((memory.next_run, memory.instance.as_str(), memory.questions.len()), (8, "me", 0));
        let chain = whole(&path);
        assert!(chain.checkpoint.is_none() && chain.events == 2, "the change, and the run that was cut off: {chain:?}");
        let copy = dir.path().join(format!("journal.db.format-{format}"));
        let db = Connection::open(&copy).expect("db");
        let has = |sql: &str| db.query_row(sql, [], |r| r.get::<_, i64>(0)).expect(sql);
        assert_eq!(has("PRAGMA user_version"), format);
        assert_eq!(has("SELECT run FROM runs WHERE ended_at IS NULL"), 7, "as it was");
        assert_eq!(has("SELECT count(*) FROM questions WHERE answer IS NULL"), 1, "as it was");
        assert_eq!(has("SELECT count(*) FROM sqlite_schema WHERE name = 'events'"), 0);
        drop(db);
        // A kill before the change was committed: what is the same is kept once.
        let kept = std::fs::read(&copy).expect("reads");
        std::fs::write(&path, &before).expect("as it was");
        assert_eq!(open(&path).expect("opens").1.next_run, 8);
        assert!(std::fs::read(&copy).expect("reads") == kept);
        assert!(!dir.path().join(format!("journal.db.format-{format}.1")).exists());
        // The way back, and forth again.
        std::fs::copy(&copy, &path).expect("put back");
        assert_eq!(open(&path).expect("opens").1.next_run, 8);
    }
}

/// Regression: after a second upgrade the only copy was that of the first one.
#[test]
fn each_upgrade_keeps_a_copy_of_what_it_began_with_for_us_alone() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    for run in [7_u32, 50, 60] {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
        older(&path, 2);
        let db = Connection::open(&path).expect("db");
        db.execute("UPDATE runs SET run = ?1", [run]).expect("the older symphony went on");
        drop(db);
        assert_eq!(open(&path).expect("opens").1.next_run, u64::from(run) + 1);
    }
    for (end, run) in [(".1", 7_i64), (".2", 50), ("", 60)] {
        let copy = dir.path().join(format!("journal.db.format-2{end}"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&copy).expect("there").permissions());
        let db = Connection::open(&copy).expect("db");
        let found = db.query_row("SELECT max(run) FROM runs", [], |r| r.get::<_, i64>(0)).expect("read");
        assert_eq!((found, mode & 0o777), (run, 0o600), "{}", copy.display());
    }
    assert!(!dir.path().join("journal.db.writing").exists());
}

/// Regression: a journal put back as the newer one's refusal says, and upgraded again, was called broken.
#[tokio::test]
async fn a_copy_put_back_and_upgraded_again_is_whole() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    worked(&journal, 1..3).await;
    drop(journal);
    Connection::open(&path).expect("db").execute_batch(AS_3).expect("as it was");
    let (journal, _) = open(&path).expect("upgrades");
    worked(&journal, 3..9).await;
    drop(journal);
    inspect::compact_file(&path, 2, &[7; 32]).expect("compacts");
    assert!(dir.path().join("journal-signed").exists(), "the control");
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    std::fs::copy(dir.path().join("journal.db.format-3"), &path).expect("put back");
    drop(open(&path).expect("opens"));
    inspect::check(&path, None).expect("readable").chain.expect("a chain").expect("whole");
}

#[tokio::test]
async fn of_a_newer_journal_neither_the_file_nor_its_log_is_touched() {
    let dir = tempfile::tempdir().expect("directory");
    let from = dir.path().join("from.db");
    let (journal, _) = open(&from).expect("opens");
    worked(&journal, 1..3).await;
    let (newer, kept) = (schema::FORMAT + 1, format!("journal.db.format-{}", schema::FORMAT));
    journal.writer.db.lock().expect("free").pragma_update(None, "user_version", newer).expect("set");
    let path = dir.path().join("journal.db");
    as_killed(&from, &path);
    let bytes = |end: &str| std::fs::read(format!("{}{end}", path.display())).expect("reads");
    let before = (bytes(""), bytes("-wal"));
    assert!(before.1.len() > 4096);
    let refused = open(&path).expect_err("refused").to_string();
    assert!(refused.contains(&format!("format {newer}")) && refused.contains(&kept), "{refused}");
    assert!(matches!(inspect::check(&path, None), Err(JournalError::Newer { found, .. }) if found == newer));
    assert!(matches!(inspect::compact_file(&path, 0, &[7; 32]), Err(JournalError::Newer { .. })));
    assert_eq!((bytes(""), bytes("-wal")), before);
}

#[test]
fn another_program_s_database_is_not_taken_over() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    Connection::open(&path).expect("db").execute_batch("CREATE TABLE letters (a)").expect("made");
    let before = std::fs::read(&path).expect("reads");
    assert!(matches!(open(&path), Err(JournalError::Damaged { .. })));
    assert_eq!(std::fs::read(&path).expect("reads"), before);
}

#[tokio::test]
async fn a_journal_of_the_third_format_keeps_its_chain_and_learns_of_sessions() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("journal.db");
    let (journal, _) = open(&path).expect("opens");
    worked(&journal, 1..3).await;
    drop(journal);
    let db = Connection::open(&path).expect("db");
    db.execute_batch(AS_3).expect("as it was");
    drop(db);
    let before = whole(&path);
    assert!(matches!(inspect::compact_file(&path, 1, &[7; 32]), Err(JournalError::Older { found: 3, .. })));
    let (journal, memory) = open(&path).expect("opens");
    assert_eq!((memory.next_run, memory.sessions.len()), (3, 0));
    drop(journal);
    let after = whole(&path);
    assert_eq!(after.events, before.events + 1, "the change itself");
    let copy = Connection::open(dir.path().join("journal.db.format-3")).expect("the way back");
    assert_eq!(copy.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0)).expect("read"), 3);
    assert!(!copy.table_exists(None, "sessions").expect("known"));
}
