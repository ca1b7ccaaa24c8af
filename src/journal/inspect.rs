//! A journal looked at from outside: is it whole, what does it say, can it be smaller. Also while symphony runs,
//! except for the last. Looking changes nothing.

use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde_json::{Value, json};

use super::JournalError;
pub use super::chain::{Chain, Checkpoint, Removed, fingerprint, public};
use super::memory::{self, Origin};
use super::{agree, chain, limit, schema};

/// Bytes of a journal that a start still looks through for damage; a larger one is checked on demand.
const LOOK_THROUGH: i64 = 64 << 20;

/// Bytes of the smallest page there is.
const SMALLEST: u64 = 512;

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its format.
    pub format: i64,
    /// Whose it is.
    pub instance: String,
    /// The chain, or what is wrong with it; older formats have none.
    pub chain: Option<Result<Chain, String>>,
    /// Where the rows of the present state say something else than the events; looked for in a chain that is whole.
    pub differences: Vec<String>,
    /// Rows of each table.
    pub rows: Vec<(&'static str, i64)>,
}

/// The tables that a check counts and an export writes, besides the events.
const TABLES: [&str; 13] = [
    "runs",
    "counters",
    "parked",
    "waiting",
    "questions",
    "letters",
    "sessions",
    "egress_asked",
    "egress_decided",
    "egress_reached",
    "spend",
    "reservations",
    "raises",
];

/// Opens for reading alone. Nothing is made or changed, except for the two files beside it that SQLite reads by.
pub(super) fn look_at(path: &Path) -> Result<Connection, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    if !path.exists() {
        return Err(JournalError::Missing(path.to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let log = beside(path, "-wal").metadata().map_or(0, |meta| meta.len());
    let size = path.metadata().map_or(0, |meta| meta.len());
    // SQLite takes so short a file for one that was not begun: it would be written over, and its log removed.
    if size < SMALLEST && (size > 0 || log > 0) {
        let message = format!("it has only {size} bytes");
        return Err(JournalError::Damaged { path: path.to_owned(), message });
    }
    let db = Connection::open_with_flags(path, flags).map_err(wrap)?;
    db.execute_batch("PRAGMA busy_timeout = 5000;").map_err(wrap)?;
    let readable = db.query_row("PRAGMA user_version", [], |r| r.get::<_, i64>(0));
    let closed_in = readable.as_ref().err().and_then(rusqlite::Error::sqlite_error_code);
    if log == 0 && matches!(closed_in, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)) {
        // A directory that we may not write: with nothing in its log, the file alone says all.
        let text = path.to_str().unwrap_or_default().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let uri = format!("file:{text}?immutable=1");
        return Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI).map_err(wrap);
    }
    readable.map_err(wrap)?;
    Ok(db)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}{end}"))
}

/// Refuses a file that a start must not touch: a damaged one, or one of a newer symphony. A file that is not there or
/// is empty gets its tables later.
pub(super) fn fit_for_use(path: &Path) -> Result<(), JournalError> {
    if !path.exists() {
        return Ok(());
    }
    let db = look_at(path)?;
    schema::format(&db, path)?;
    sound(&db, path)
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
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let page: u32 = db.query_row("PRAGMA page_size", [], |r| r.get(0)).map_err(wrap)?;
    let (size, log) = (path.metadata().map_or(0, |meta| meta.len()), beside(path, "-wal").metadata());
    // SQLite reads the rest of a torn page as zeros. With a log, that may hold the page.
    if size % u64::from(page) != 0 && log.map_or(0, |meta| meta.len()) == 0 {
        let message = format!("its last page is not whole: {size} bytes in pages of {page}");
        return Err(JournalError::Damaged { path: path.to_owned(), message });
    }
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(wrap)?;
    if found == "ok" {
        return Ok(());
    }
    Err(JournalError::Damaged { path: path.to_owned(), message: found })
}

/// Checks the file's structure, the chain and the signature of its checkpoint; `pinned` is the key that may have
/// signed, if it is known.
///
/// # Errors
/// It cannot be read, is damaged as a database, or of a newer format than ours.
pub fn check(path: &Path, pinned: Option<&[u8; 32]>) -> Result<Report, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let db = look_at(path)?;
    let format = schema::format(&db, path)?;
    intact(&db, path)?;
    // One transaction: a run beside it may append meanwhile.
    let tx = db.unchecked_transaction().map_err(wrap)?;
    let mut rows = Vec::new();
    for table in TABLES.into_iter().filter(|table| tx.table_exists(None, *table).unwrap_or(true)) {
        rows.push((table, tx.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).map_err(wrap)?));
    }
    // An empty file is a journal that was not begun.
    let instance = if format == 0 { None } else { schema::instance(&tx).map_err(wrap)? }.unwrap_or_default();
    let chain = match format {
        schema::CHAINED..=schema::FORMAT => Some(chain::verify(&tx, &instance, pinned).map_err(wrap)?),
        _ => None,
    };
    let mut differences = vec![];
    if format == schema::FORMAT {
        // What a start reads, all of it.
        memory::read(&tx, Origin::default()).map_err(wrap)?;
        if matches!(chain, Some(Ok(_))) {
            differences = agree::differences(&tx).map_err(wrap)?;
            differences.extend(schema::difference(&tx).map_err(wrap)?);
        }
    }
    Ok(Report { format, instance, chain, differences, rows })
}

/// Writes everything that can be read, one JSON object a line. How many lines, and what could not be read.
///
/// # Errors
/// It cannot even be opened, or the output cannot be written.
pub fn export(path: &Path, out: &mut impl Write) -> Result<(u64, Vec<String>), JournalError> {
    let db = look_at(path)?;
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    // One transaction: all tables as of one instant.
    let tx = db.unchecked_transaction().map_err(wrap)?;
    let (mut lines, mut unread) = (0, Vec::new());
    for table in ["about", "checkpoints", "events"].into_iter().chain(TABLES) {
        if tx.table_exists(None, table).is_ok_and(|exists| !exists) {
            continue;
        }
        let mut from = i64::MIN;
        let mut step = 1;
        // Behind a page that cannot be read there are others: on, in growing steps, until one can.
        while let Some((last, why)) = export_from(&tx, table, from, out, &mut lines)? {
            step = if last.is_some() { 1 } else { step * 2 };
            let after = last.unwrap_or(from);
            from = after.max(0).saturating_add(step);
            let end: i64 =
                tx.query_row(&format!("SELECT max(rowid) FROM {table}"), [], |r| r.get(0)).unwrap_or(1 << 24);
            if last.is_some() || unread.is_empty() || step == 2 {
                unread.push(format!("{table}, after row {}: {why}", after.max(0)));
            }
            if from > end {
                break;
            }
        }
    }
    unread.dedup();
    Ok((lines, unread))
}

/// The names of a table's columns. In a damaged schema they need not be text.
fn names(db: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = db.prepare("SELECT name FROM pragma_table_info(?1) ORDER BY cid")?;
    let lossy =
        |r: &rusqlite::Row<'_>| Ok(String::from_utf8_lossy(r.get_ref(0)?.as_bytes().unwrap_or(b"?")).into_owned());
    query.query_map([table], lossy)?.collect()
}

/// Rows from this one on. The last one that was written, and why the next one cannot be read.
fn export_from(
    db: &Connection,
    table: &str,
    from: i64,
    out: &mut impl Write,
    lines: &mut u64,
) -> Result<Option<(Option<i64>, String)>, JournalError> {
    let mut last = None;
    let mut read = || -> rusqlite::Result<Result<(), std::io::Error>> {
        let mut query = db.prepare(&format!("SELECT rowid, * FROM {table} WHERE rowid >= ?1 ORDER BY rowid"))?;
        let names = names(db, table)?;
        let columns = query.column_count();
        let mut rows = query.query([from])?;
        while let Some(row) = rows.next()? {
            let mut object = serde_json::Map::new();
            object.insert("table".to_owned(), json!(table));
            for (at, name) in (1..columns).zip(&names) {
                let value = match row.get_ref(at)? {
                    rusqlite::types::ValueRef::Null => Value::Null,
                    rusqlite::types::ValueRef::Integer(number) => json!(number),
                    rusqlite::types::ValueRef::Real(number) => json!(number),
                    rusqlite::types::ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
                    rusqlite::types::ValueRef::Blob(bytes) => json!(chain::hex(bytes)),
                };
                object.insert(name.clone(), value);
            }
            if let Err(error) = writeln!(out, "{}", Value::Object(object)) {
                return Ok(Err(error));
            }
            *lines += 1;
            last = Some(row.get(0)?);
        }
        Ok(Ok(()))
    };
    match read() {
        Ok(Ok(())) => Ok(None),
        Ok(Err(error)) => Err(JournalError::Output(error)),
        Err(error) => Ok(Some((last, error.to_string()))),
    }
}

/// Removes all events but the newest `keep` from a journal that nobody uses, after file and chain were found whole, and
/// gives the room back. The second part says why there is not more room, if there is not.
///
/// # Errors
/// It is in use, damaged, or its chain is broken: then nothing was removed.
pub fn compact_file(path: &Path, keep: u64, secret: &[u8; 32]) -> Result<(Removed, Option<String>), JournalError> {
    compact(path, keep, secret, Some(&public(secret)))
}

/// The same for a key that took the place of a lost one: whatever key signed the checkpoint is believed once, and this
/// one signs it anew, also where no event is removed.
///
/// # Errors
/// As [`compact_file`].
pub fn sign_anew(path: &Path, keep: u64, secret: &[u8; 32]) -> Result<(Removed, Option<String>), JournalError> {
    compact(path, keep, secret, None)
}

/// The key that signed the newest checkpoint, to be compared by eye.
///
/// # Errors
/// The journal cannot be read.
pub fn signer(path: &Path) -> Result<Option<String>, JournalError> {
    let db = look_at(path)?;
    let checkpoint = chain::checkpoint(&db).map_err(|e| JournalError::of(path, &e))?;
    Ok(checkpoint.map(|checkpoint| checkpoint.fingerprint()))
}

fn compact(
    path: &Path,
    keep: u64,
    secret: &[u8; 32],
    pinned: Option<&[u8; 32]>,
) -> Result<(Removed, Option<String>), JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let report = check(path, pinned)?;
    match report.chain {
        Some(Ok(_)) if !report.differences.is_empty() => {
            return Err(JournalError::Broken { path: path.to_owned(), message: report.differences.join("; ") });
        }
        Some(Err(message)) => return Err(JournalError::Broken { path: path.to_owned(), message }),
        Some(Ok(_)) if report.format == schema::FORMAT => {}
        _ => return Err(JournalError::Older { path: path.to_owned(), found: report.format, known: schema::FORMAT }),
    }
    let mut db = schema::connect(path)?;
    let tx = db.transaction().map_err(wrap)?;
    let removed = limit::make_room(&tx, &report.instance, keep, secret, pinned).map_err(wrap)?;
    let removed = removed.map_err(|message| JournalError::Broken { path: path.to_owned(), message })?;
    tx.commit().map_err(wrap)?;
    let room = db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);");
    Ok((removed, room.err().map(|error| error.to_string())))
}
