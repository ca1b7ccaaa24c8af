//! The tables and their formats: made new, brought up to date after a copy was kept, refused when newer.

use std::collections::BTreeMap;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use serde_json::json;

use super::chain::{self, Entry};
use super::{JournalError, mark};

/// The first format with a chain of events.
pub(super) const CHAINED: i64 = 3;

/// The newest format: this program writes it.
pub(super) const FORMAT: i64 = 5;

pub(super) const TABLES: &str = "
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE runs (run INTEGER PRIMARY KEY, issue TEXT NOT NULL, started_at TEXT NOT NULL, ended_at TEXT, end TEXT) STRICT;
CREATE TABLE counters (issue TEXT PRIMARY KEY, sessions INTEGER NOT NULL, granted INTEGER NOT NULL,
    failures_in_a_row INTEGER NOT NULL, last_end TEXT) STRICT;
CREATE TABLE parked (issue TEXT PRIMARY KEY, kind TEXT NOT NULL, count INTEGER NOT NULL, detail TEXT NOT NULL) STRICT;
CREATE TABLE questions (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, issue TEXT NOT NULL, question TEXT NOT NULL,
    context TEXT, asked_at TEXT NOT NULL, answer TEXT, answered_at TEXT) STRICT;
";

/// From format 1 to 2: what bounds an issue, why its last run ended, where a parked issue came from.
pub(super) const TO_2: &str = "
ALTER TABLE runs ADD COLUMN reason TEXT;
ALTER TABLE counters RENAME COLUMN last_end TO last_words;
ALTER TABLE counters ADD COLUMN turns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN bounces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN granted_turns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN granted_wall_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN granted_bounces INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN unchanged_in_a_row INTEGER NOT NULL DEFAULT 0;
ALTER TABLE counters ADD COLUMN visited TEXT NOT NULL DEFAULT '';
ALTER TABLE counters ADD COLUMN last_reason TEXT;
ALTER TABLE counters ADD COLUMN last_left TEXT;
ALTER TABLE parked ADD COLUMN came_from TEXT NOT NULL DEFAULT 'Todo';
";

/// From format 2 to 3: the chain of events, when issues are tried again, letters. Questions of format 2 died with
/// their runs, so none of them is open any more. Events can be added, and removed from their beginning only while
/// a checkpoint covers them; nothing can change one.
const TO_3: &str = "
CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, run INTEGER, issue TEXT,
    body TEXT NOT NULL, hash BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints (seq INTEGER PRIMARY KEY, hash BLOB NOT NULL, events INTEGER NOT NULL, at TEXT NOT NULL,
    key BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
CREATE TRIGGER events_do_not_change BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'an event is never changed'); END;
CREATE TRIGGER events_only_follow BEFORE INSERT ON events
    WHEN NEW.seq <= (SELECT coalesce(max(seq), 0) FROM events)
    BEGIN SELECT RAISE(ABORT, 'an event only follows the last one'); END;
CREATE TRIGGER events_do_not_vanish BEFORE DELETE ON events
    WHEN OLD.seq > (SELECT coalesce(max(seq), 0) FROM checkpoints)
    BEGIN SELECT RAISE(ABORT, 'an event goes only behind a checkpoint'); END;
CREATE TABLE waiting (issue TEXT PRIMARY KEY, until TEXT NOT NULL, kind TEXT NOT NULL, error TEXT) STRICT;
CREATE TABLE letters (id INTEGER PRIMARY KEY, issue TEXT NOT NULL, question INTEGER, text TEXT NOT NULL,
    by TEXT NOT NULL, at TEXT NOT NULL, handed_run INTEGER, taken_at TEXT) STRICT;
CREATE INDEX letters_pending ON letters (issue) WHERE taken_at IS NULL;
ALTER TABLE questions ADD COLUMN closed_at TEXT;
ALTER TABLE questions ADD COLUMN closed TEXT;
ALTER TABLE questions ADD COLUMN default_at TEXT;
ALTER TABLE questions ADD COLUMN default_text TEXT;
UPDATE questions SET closed_at = coalesce(answered_at, asked_at), closed = CASE WHEN answer IS NULL THEN 'lost' ELSE 'answered' END;
ALTER TABLE questions DROP COLUMN answer;
ALTER TABLE questions DROP COLUMN answered_at;
CREATE UNIQUE INDEX questions_open ON questions (issue) WHERE closed_at IS NULL;
ALTER TABLE runs ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
CREATE INDEX runs_open ON runs (run) WHERE ended_at IS NULL;
";

/// From format 3 to 4: the newest session of each issue's agent.
const TO_4: &str = "
CREATE TABLE sessions (issue TEXT PRIMARY KEY, id TEXT NOT NULL, agent TEXT NOT NULL, state TEXT NOT NULL,
    runtime TEXT NOT NULL, cwd TEXT NOT NULL, told TEXT, tried INTEGER NOT NULL) STRICT;
";

/// From format 4 to 5: hosts that agents asked for, what people decided about them, and what each run reached; what was used
/// of models, what requests under way may use, what people allowed; what providers said of each credential, and how often
/// issues were sent away. A credential is known by a hash with a key of this journal alone, which no event and so no export
/// holds: keys of strangers are too long to be guessed, but one of a server at home may be a word.
const TO_5: &str = "
CREATE TABLE egress_asked (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, issue TEXT NOT NULL, host TEXT NOT NULL,
    port INTEGER NOT NULL, asked_at TEXT NOT NULL) STRICT;
CREATE TABLE egress_decided (id INTEGER PRIMARY KEY, issue TEXT NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL,
    verb TEXT NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE egress_reached (run INTEGER NOT NULL, issue TEXT NOT NULL, host TEXT NOT NULL, port INTEGER NOT NULL,
    rule TEXT NOT NULL, address TEXT, connections INTEGER NOT NULL, denied INTEGER NOT NULL, sent INTEGER NOT NULL,
    received INTEGER NOT NULL, PRIMARY KEY (run, host, port)) STRICT;
CREATE TABLE spend (issue TEXT NOT NULL, day TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    requests INTEGER NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL, cache_read INTEGER NOT NULL,
    cache_write INTEGER NOT NULL, nano_usd INTEGER NOT NULL, unpriced INTEGER NOT NULL, assumed INTEGER NOT NULL,
    PRIMARY KEY (issue, day, provider, model)) STRICT;
CREATE TABLE reservations (id INTEGER PRIMARY KEY, at TEXT NOT NULL, day TEXT NOT NULL, run INTEGER NOT NULL,
    issue TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, input INTEGER NOT NULL, output INTEGER NOT NULL,
    nano_usd INTEGER) STRICT;
CREATE TABLE raises (id INTEGER PRIMARY KEY, scope TEXT NOT NULL, name TEXT NOT NULL, unit TEXT NOT NULL,
    amount INTEGER NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE standings (credential TEXT PRIMARY KEY, provider TEXT NOT NULL, kind TEXT NOT NULL, until TEXT,
    in_a_row INTEGER NOT NULL) STRICT;
CREATE TABLE in_vain (issue TEXT PRIMARY KEY, times INTEGER NOT NULL) STRICT;
INSERT OR REPLACE INTO about VALUES ('credential_key', lower(hex(randomblob(32))));
";

/// The name of the copy that is kept of a journal in an older format.
pub(super) fn copy_of(path: &Path, format: i64) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.format-{format}"))
}

/// Sets up a connection that writes.
pub(super) fn connect(path: &Path) -> Result<Connection, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    // For us alone; SQLite gives its log the same mode. What is wrong with it, SQLite says.
    let _ = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let db = Connection::open(path).map_err(wrap)?;
    // Where it may not write, SQLite opens for reading alone and says so at the first write: too late for us.
    if db.is_readonly("main").map_err(wrap)? {
        return Err(JournalError::ReadOnly {
            path: path.to_owned(),
            message: "it is read-only for this user".to_owned(),
        });
    }
    // FULL: an accepted answer or a taken run number survives a power cut. A log that grew once is cut again.
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000;
         PRAGMA journal_size_limit = 8388608;",
    )
    .map_err(wrap)?;
    Ok(db)
}

/// The format of this file; a newer one than ours is refused.
pub(super) fn format(db: &Connection, path: &Path) -> Result<i64, JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let found: i64 = db.query_row("PRAGMA user_version", [], |r| r.get(0)).map_err(wrap)?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(wrap)?;
    if found < 0 || (found == 0) != (tables == 0) {
        let message = format!("it says that its format is {found}, and has {tables} tables and indexes");
        return Err(JournalError::Damaged { path: path.to_owned(), message });
    }
    if found > FORMAT {
        let kept = copy_of(path, FORMAT).file_name().unwrap_or_default().to_string_lossy().into_owned();
        return Err(JournalError::Newer { path: path.to_owned(), found, known: FORMAT, kept });
    }
    Ok(found)
}

/// Makes the tables in a new file, refuses a newer one, brings an older one up to date.
pub(super) fn prepare(db: &mut Connection, path: &Path, instance: &str) -> Result<(), JournalError> {
    let wrap = |e: rusqlite::Error| JournalError::of(path, &e);
    let found = format(db, path)?;
    if found == FORMAT {
        return Ok(());
    }
    if found > 0 {
        keep_copy(db, path, found)?;
    }
    // The chain begins here, or was put back from a copy: an older symphony kept no mark.
    mark::forget(path).map_err(|e| JournalError::Unusable { path: mark::place(path), message: e.to_string() })?;
    // One transaction: a crash leaves the old format, whole.
    let make = |tx: &Transaction<'_>| {
        bring_up(tx, found)?;
        if found == 0 {
            tx.execute("INSERT INTO about VALUES ('instance', ?1)", [instance])?;
        }
        let kind = if found == 0 { "journal_made" } else { "format_changed" };
        let body = json!({"format": FORMAT, "before": found, "symphony": env!("CARGO_PKG_VERSION")});
        chain::append(tx, &Entry { kind, run: None, issue: None, body })?;
        tx.pragma_update(None, "user_version", FORMAT)
    };
    super::transact(db, "made", make).map_err(wrap)
}

/// Makes the tables of our format out of those of an older one; 0 has none.
fn bring_up(db: &Connection, found: i64) -> rusqlite::Result<()> {
    if found == 0 {
        db.execute_batch(TABLES)?;
    }
    if found < 2 {
        db.execute_batch(TO_2)?;
    }
    if found < 3 {
        db.execute_batch(TO_3)?;
    }
    if found < 4 {
        db.execute_batch(TO_4)?;
    }
    db.execute_batch(TO_5)
}

/// The first table, index or trigger that is not as symphony makes it.
pub(super) fn difference(db: &Connection) -> rusqlite::Result<Option<String>> {
    let ours = Connection::open_in_memory()?;
    bring_up(&ours, 0)?;
    let (wanted, found) = (shape(&ours)?, shape(db)?);
    let strange = wanted.iter().find(|(name, shape)| found.get(*name) != Some(shape)).map(|(name, _)| name);
    let strange = strange.or_else(|| found.keys().find(|name| !wanted.contains_key(*name)));
    Ok(strange.map(|name| format!("the {name} is not as symphony makes it")))
}

/// Each table with its columns, each index and trigger with its text. The text of a table is not the same after every
/// way to it.
fn shape(db: &Connection) -> rusqlite::Result<BTreeMap<String, String>> {
    db.prepare(
        "SELECT type || ' ' || name, CASE type WHEN 'table' THEN
            (SELECT group_concat(format('%s %s %d %d', c.name, c.type, c.\"notnull\", c.pk)) FROM pragma_table_info(s.name) c)
            ELSE coalesce(sql, '') END FROM sqlite_schema s WHERE name NOT LIKE 'sqlite_stat%'",
    )?
    .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
    .collect()
}

/// The way back to an older symphony, durable before anything is changed. A copy of an earlier upgrade stays beside it
/// under a number, unless it holds the same.
fn keep_copy(db: &Connection, path: &Path, found: i64) -> Result<(), JournalError> {
    let copy = copy_of(path, found);
    let wrap = |message: String| JournalError::Unusable { path: path.to_owned(), message };
    // Under another name until it is whole.
    let unfinished = copy.with_extension("writing");
    let _ = std::fs::remove_file(&unfinished);
    let target = unfinished.to_str().ok_or_else(|| wrap("its path is not text".to_owned()))?;
    db.execute("VACUUM INTO ?1", [target]).map_err(|e| JournalError::of(path, &e))?;
    put_in_place(&unfinished, &copy).map_err(|e| wrap(format!("a copy of format {found} cannot be kept: {e}")))?;
    tracing::info!(copy = %copy.display(), from = found, to = FORMAT, "the journal gets a newer format; this copy is the way back");
    Ok(())
}

fn put_in_place(unfinished: &Path, copy: &Path) -> std::io::Result<()> {
    let file = std::fs::File::open(unfinished)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.sync_all()?;
    crate::files::set_aside(copy, &std::fs::read(unfinished)?)?;
    std::fs::rename(unfinished, copy)?;
    std::fs::File::open(copy.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What this file says it is an instance of.
pub(super) fn instance(db: &Connection) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM about WHERE key = 'instance'", [], |r| r.get(0)).optional()
}
