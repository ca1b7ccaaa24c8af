//! A journal looked at from outside: is it whole, what does it say, can it be smaller. Also while symphony runs,
//! except for the last.

use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Transaction};
use serde_json::{Value, json};

use super::JournalError;
use super::chain::{self, Chain};
use super::schema;

/// Bytes of a journal that a start still looks through for damage; a larger one is checked on demand.
const LOOK_THROUGH: i64 = 64 << 20;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its format.
    pub format: i64,
    /// Whose it is.
    pub instance: String,
    /// The chain, or what is wrong with it.
    pub chain: Result<Chain, String>,
    /// Rows of each table.
    pub rows: Vec<(&'static str, i64)>,
}

/// The tables that a check counts and an export writes, besides the events.
const TABLES: [&str; 6] = ["runs", "counters", "parked", "waiting", "questions", "letters"];

/// Opens for reading alone. Nothing is made or changed.
fn look_at(path: &Path) -> Result<Connection, JournalError> {
    if !path.exists() {
        return Err(JournalError::Missing(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(|e| JournalError::of(path, &e))?;
    db.execute_batch("PRAGMA busy_timeout = 5000;").map_err(|e| JournalError::of(path, &e))?;
    Ok(db)
}

/// Whether SQLite finds its own structures whole. A small journal is looked through, a large one is not.
pub(super) fn sound(db: &Connection, path: &Path) -> Result<(), JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let size: i64 = db
        .query_row("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()", [], |r| r.get(0))
        .map_err(wrap)?;
    if size <= LOOK_THROUGH { intact(db, path) } else { Ok(()) }
}

fn intact(db: &Connection, path: &Path) -> Result<(), JournalError> {
    let found: String =
        db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(|e| JournalError::of(path, &e))?;
    if found == "ok" {
        return Ok(());
    }
    Err(JournalError::Damaged { path: path.to_owned(), message: found })
}

/// Checks the file's structure, the chain and the signature of its checkpoint.
///
/// # Errors
/// It cannot be read, is damaged as a database, or of another format than ours.
pub fn check(path: &Path) -> Result<Report, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let db = look_at(path)?;
    let format = schema::format(&db, path)?;
    intact(&db, path)?;
    if format < schema::FORMAT {
        let message = format!("it has format {format}, and gets format {} when symphony next starts", schema::FORMAT);
        return Err(JournalError::Unusable { path: path.to_owned(), message });
    }
    // One transaction: a run beside it may append meanwhile.
    let tx = db.unchecked_transaction().map_err(wrap)?;
    let instance = schema::instance(&tx).map_err(wrap)?.unwrap_or_default();
    let chain = chain::verify(&tx, &instance).map_err(wrap)?;
    let mut rows = Vec::new();
    for table in TABLES {
        rows.push((table, tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).map_err(wrap)?));
    }
    Ok(Report { format, instance, chain, rows })
}

/// Writes everything that can be read, one JSON object a line. How many lines, and what could not be read.
///
/// # Errors
/// It cannot even be opened, or the output cannot be written.
pub fn export(path: &Path, out: &mut impl Write) -> Result<(u64, Vec<String>), JournalError> {
    let db = look_at(path)?;
    let (mut lines, mut unread) = (0, Vec::new());
    for table in ["about", "checkpoints", "events"].into_iter().chain(TABLES) {
        if let Err(why) = export_table(&db, table, out, &mut lines) {
            unread.push(format!("{table}: {why}"));
        }
    }
    Ok((lines, unread))
}

fn export_table(db: &Connection, table: &str, out: &mut impl Write, lines: &mut u64) -> Result<(), String> {
    let said = |error: rusqlite::Error| error.to_string();
    let mut query = db.prepare(&format!("SELECT * FROM {table}")).map_err(said)?;
    let names: Vec<String> = query.column_names().into_iter().map(str::to_owned).collect();
    let mut rows = query.query([]).map_err(said)?;
    while let Some(row) = rows.next().map_err(said)? {
        let mut object = serde_json::Map::new();
        object.insert("table".to_owned(), json!(table));
        for (at, name) in names.iter().enumerate() {
            let value = match row.get_ref(at).map_err(said)? {
                rusqlite::types::ValueRef::Null => Value::Null,
                rusqlite::types::ValueRef::Integer(number) => json!(number),
                rusqlite::types::ValueRef::Real(number) => json!(number),
                rusqlite::types::ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
                rusqlite::types::ValueRef::Blob(bytes) => json!(chain::hex(bytes)),
            };
            object.insert(name.clone(), value);
        }
        writeln!(out, "{}", Value::Object(object)).map_err(|error| error.to_string())?;
        *lines += 1;
    }
    Ok(())
}

/// Removes all events but the newest `keep` from a journal that nobody uses, after the chain was found whole, and
/// gives the room back. How many went.
///
/// # Errors
/// It is in use, damaged, or its chain is broken: then nothing was removed.
pub fn compact_file(path: &Path, keep: u64, secret: &[u8; 32]) -> Result<i64, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let report = check(path)?;
    if let Err(message) = report.chain {
        return Err(JournalError::Damaged { path: path.to_owned(), message });
    }
    let mut db = schema::connect(path)?;
    let tx = db.transaction().map_err(wrap)?;
    let removed = compact(&tx, &report.instance, keep, secret).map_err(wrap)?;
    tx.commit().map_err(wrap)?;
    db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);").map_err(wrap)?;
    Ok(removed)
}

pub(super) fn compact(tx: &Transaction<'_>, instance: &str, keep: u64, secret: &[u8; 32]) -> rusqlite::Result<i64> {
    chain::compact(tx, instance, chain::signed(keep), secret)
}
