//! The chain of events: appended, never changed. Each entry's hash covers the one before it, so that a byte
//! changed anywhere behind a checkpoint shows. [`Checkpoint`] says what a compaction removed, and is signed.

use std::path::Path;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use symphony_core::ids::{IssueId, RunId};

use super::error::is_strange;
use super::mark::{self, Mark};

/// The hash before the first event.
const START: [u8; 32] = [0; 32];

/// Bytes of an event's body, whatever an agent or a human wrote.
const BODY_MAX: usize = 64 * 1024;

/// A place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The event's number, from 1; 0 is before the first one.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl Link {
    /// As it stands in the database and beside it.
    pub(super) fn said(&self) -> String {
        format!("{} {}", self.seq, hex(&self.hash))
    }

    /// Reads what [`Self::said`] wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (seq, hash) = text.split_once(' ')?;
        let link = Self { seq: seq.parse().ok()?, hash: super::key::parse(hash)? };
        (link.said() == text).then_some(link)
    }
}

/// One event to append. Its body holds no secret: it is exported as it is.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    /// One word of a list that only grows.
    pub(super) kind: &'static str,
    pub(super) run: Option<RunId>,
    pub(super) issue: Option<&'a IssueId>,
    pub(super) body: Value,
}

/// SQLite's integers are signed; run numbers never come near the sign.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The hash of an event. Every part has its length before it: no two events are the same bytes.
fn hash(
    before: &[u8; 32],
    seq: i64,
    at: &str,
    kind: &str,
    run: Option<i64>,
    issue: Option<&str>,
    body: &str,
) -> [u8; 32] {
    let (seq, run) = (seq.to_string(), run.map(|run| run.to_string()));
    let mut digest = Sha256::new();
    digest.update(before);
    for part in [Some(seq.as_str()), Some(at), Some(kind), run.as_deref(), issue, Some(body)] {
        match part {
            None => digest.update([0]),
            Some(part) => {
                digest.update([1]);
                digest.update(signed(part.len() as u64).to_le_bytes());
                digest.update(part.as_bytes());
            }
        }
    }
    digest.finalize().into()
}

/// The newest entry, or where a compaction cut; the row that says so is checked against the chain by [`verify`].
pub(super) fn head(db: &Connection) -> rusqlite::Result<Link> {
    let newest = db
        .query_row("SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1", [], |r| {
            Ok(Link { seq: r.get(0)?, hash: r.get(1)? })
        })
        .optional()?;
    Ok(match newest {
        Some(link) => link,
        None => checkpoint(db)?.map_or(Link { seq: 0, hash: START }, |checkpoint| checkpoint.upto),
    })
}

/// Appends; part of the transaction that changes the state the event tells of.
pub(super) fn append(tx: &Transaction<'_>, entry: &Entry<'_>) -> rusqlite::Result<()> {
    let before = head(tx)?;
    let (seq, at, mut body) = (before.seq.saturating_add(1), Timestamp::now().to_string(), entry.body.to_string());
    if body.len() > BODY_MAX {
        // The words themselves stand in the rows of the same transaction.
        body = json!({"bytes": body.len(), "sha256": hex(&Sha256::digest(&body))}).to_string();
    }
    let (run, issue) = (entry.run.map(|run| signed(run.0)), entry.issue.map(|issue| issue.0.as_str()));
    let hash = hash(&before.hash, seq, &at, entry.kind, run, issue, &body);
    tx.prepare("INSERT INTO events (seq, at, kind, run, issue, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![seq, at, entry.kind, run, issue, body, hash])?;
    // The end of the chain stands twice: an entry cut off behind shows, too.
    tx.prepare("INSERT OR REPLACE INTO about (key, value) VALUES ('head', ?1)")?
        .execute([Link { seq, hash }.said()])?;
    Ok(())
}

/// In hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What stands instead of events that a compaction removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last event that was removed.
    pub upto: Link,
    /// How many events there were up to it, ever.
    pub events: i64,
    /// When it was made.
    pub at: String,
    /// The key it is signed with.
    pub key: [u8; 32],
    /// The signature.
    pub signature: [u8; 64],
}

impl Checkpoint {
    /// What is signed.
    fn statement(instance: &str, upto: Link, events: i64, at: &str) -> String {
        format!("symphony journal checkpoint 1\n{instance}\n{}\n{events}\n{at}\n", upto.said())
    }

    /// Signs for the journal of this instance.
    pub(super) fn sign(instance: &str, upto: Link, at: String, secret: &[u8; 32]) -> Self {
        use ed25519_dalek::ed25519::signature::Signer as _;
        let key = SigningKey::from_bytes(secret);
        let signature = key.sign(Self::statement(instance, upto, upto.seq, &at).as_bytes()).to_bytes();
        Self { upto, events: upto.seq, at, key: key.verifying_key().to_bytes(), signature }
    }

    /// Whether the signature is that of its key over this.
    pub(super) fn holds(&self, instance: &str) -> bool {
        let statement = Self::statement(instance, self.upto, self.events, &self.at);
        VerifyingKey::from_bytes(&self.key)
            .is_ok_and(|key| key.verify_strict(statement.as_bytes(), &Signature::from_bytes(&self.signature)).is_ok())
    }

    /// Of its key.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.key)
    }
}

/// The public half of a key.
pub fn public(secret: &[u8; 32]) -> [u8; 32] {
    SigningKey::from_bytes(secret).verifying_key().to_bytes()
}

/// The first part of a public key, to be compared by eye.
pub fn fingerprint(public: &[u8; 32]) -> String {
    hex(&public[..8])
}

/// The newest checkpoint.
pub(super) fn checkpoint(db: &Connection) -> rusqlite::Result<Option<Checkpoint>> {
    db.query_row("SELECT seq, hash, events, at, key, signature FROM checkpoints ORDER BY seq DESC LIMIT 1", [], |r| {
        Ok(Checkpoint {
            upto: Link { seq: r.get(0)?, hash: r.get(1)? },
            events: r.get(2)?,
            at: r.get(3)?,
            key: r.get(4)?,
            signature: r.get(5)?,
        })
    })
    .optional()
}

/// What stands in one row; [`hash`] is over all of it but the last.
struct Event {
    at: String,
    kind: String,
    run: Option<i64>,
    issue: Option<String>,
    body: String,
    hash: Vec<u8>,
}

fn event(r: &Row<'_>) -> rusqlite::Result<Event> {
    let (at, kind, run, issue) = (r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?);
    Ok(Event { at, kind, run, issue, body: r.get(5)?, hash: r.get(6)? })
}

/// The file that says what was signed.
fn beside(db: &Connection) -> String {
    mark::place(Path::new(db.path().unwrap_or_default())).display().to_string()
}

/// What a look along the chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Events that stand in the file.
    pub events: u64,
    /// Its end.
    pub head: Link,
    /// Where it begins, if events were removed.
    pub checkpoint: Option<Checkpoint>,
}

/// Follows the whole chain. The inner error is the first thing that is wrong, with its place. `pinned` is the only
/// key that may have signed, if it is known: whoever can write the file could sign with another.
///
/// # Errors
/// The database cannot be read.
pub(super) fn verify(
    db: &Connection,
    instance: &str,
    pinned: Option<&[u8; 32]>,
) -> rusqlite::Result<Result<Chain, String>> {
    let checkpoint = match checkpoint(db) {
        Ok(checkpoint) => checkpoint,
        // STRICT tables have the right types; what is left is a blob of another length, or text that is none.
        Err(error) if is_strange(&error) => {
            return Ok(Err("the newest checkpoint is not what symphony writes".to_owned()));
        }
        Err(error) => return Err(error),
    };
    if let Some(checkpoint) = &checkpoint {
        if !checkpoint.holds(instance) {
            return Ok(Err(format!("the signature of the checkpoint at event {} is wrong", checkpoint.upto.seq)));
        }
        if let Some(pinned) = pinned.filter(|pinned| **pinned != checkpoint.key) {
            return Ok(Err(format!(
                "the checkpoint at event {} is signed by key {}, not by this installation's key {}; if the key that signed it is lost for good, `symphony journal compact --new-key` signs anew",
                checkpoint.upto.seq,
                checkpoint.fingerprint(),
                fingerprint(pinned)
            )));
        }
    }
    let mut at = checkpoint.as_ref().map_or(Link { seq: 0, hash: START }, |checkpoint| checkpoint.upto);
    let mark = match db.path().map(|path| mark::read(Path::new(path))) {
        Some(Ok(Mark::At(link))) => Some(link),
        Some(Ok(Mark::None)) | None => None,
        Some(Ok(Mark::Strange)) => return Ok(Err(format!("{} is not what symphony writes", beside(db)))),
        Some(Err(error)) => return Ok(Err(format!("{} cannot be read: {error}", beside(db)))),
    };
    // A later checkpoint vouches for itself.
    let mut signed = mark.is_none_or(|mark| at.seq > mark.seq || at == mark);
    let mut events = 0;
    let mut query = db.prepare("SELECT seq, at, kind, run, issue, body, hash FROM events ORDER BY seq")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        if seq <= at.seq {
            return Ok(Err(format!("event {seq} stands in the place of those that a checkpoint removed")));
        }
        if seq != at.seq + 1 {
            return Ok(Err(format!("event {} is missing; the next one is {seq}", at.seq + 1)));
        }
        let Event { at: when, kind, run, issue, body, hash: found } = match event(row) {
            Ok(event) => event,
            Err(error) if is_strange(&error) => {
                return Ok(Err(format!("event {seq} is not what was written: {error}")));
            }
            Err(error) => return Err(error),
        };
        let hash = hash(&at.hash, seq, &when, &kind, run, issue.as_deref(), &body);
        if found != hash {
            return Ok(Err(format!("event {seq} ({kind}, {when}) is not what was written")));
        }
        (at, events) = (Link { seq, hash }, events + 1);
        signed |= mark == Some(at);
    }
    let end: Option<String> =
        match db.query_row("SELECT value FROM about WHERE key = 'head'", [], |r| r.get(0)).optional() {
            Err(error) if is_strange(&error) => None,
            end => end?,
        };
    if end.unwrap_or_else(|| Link { seq: 0, hash: START }.said()) != at.said() {
        return Ok(Err(format!("events after {} are missing", at.seq)));
    }
    if let Some(mark) = mark.filter(|_| !signed) {
        return Ok(Err(format!(
            "it does not hold event {}, which this installation signed: it was begun anew, or an older copy was put back; if you did that yourself, remove {}",
            mark.seq,
            beside(db)
        )));
    }
    Ok(Ok(Chain { events, head: at, checkpoint }))
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// How many events went; 0 when there was nothing to remove.
    pub events: i64,
    /// The last one that went, also by an earlier compaction.
    pub upto: i64,
}

/// Removes all events but the newest `keep`, and leaves a checkpoint in their place. A chain that is not whole keeps
/// all: a signature over it would hide what is wrong. The inner error says what is. `pinned` is the key that may have
/// signed before; a checkpoint of another key than ours is signed anew.
pub(super) fn compact(
    tx: &Transaction<'_>,
    instance: &str,
    keep: u64,
    secret: &[u8; 32],
    pinned: Option<&[u8; 32]>,
) -> rusqlite::Result<Result<Removed, String>> {
    let ours = public(secret);
    let chain = match verify(tx, instance, pinned)? {
        Ok(chain) => chain,
        Err(fault) => return Ok(Err(fault)),
    };
    let upto = chain.head.seq - signed(keep);
    let hash = tx.query_row("SELECT hash FROM events WHERE seq = ?1", [upto], |r| r.get(0)).optional()?;
    let upto = match (hash, &chain.checkpoint) {
        (Some(hash), _) => Link { seq: upto, hash },
        (None, Some(checkpoint)) if checkpoint.key != ours => checkpoint.upto,
        (None, checkpoint) => {
            return Ok(Ok(Removed {
                events: 0,
                upto: checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.upto.seq),
            }));
        }
    };
    if let Some(path) = tx.path() {
        mark::write(Path::new(path), upto).map_err(super::failed)?;
    }
    // Numbers of words whose events may go: what has a higher one has its event.
    let last =
        |table: &str| tx.query_row(&format!("SELECT coalesce(max(id), 0) FROM {table}"), [], |r| r.get::<_, i64>(0));
    let (questions, letters) = (last("questions")?, last("letters")?);
    let Checkpoint { upto, events, at, key, signature } =
        Checkpoint::sign(instance, upto, Timestamp::now().to_string(), secret);
    tx.execute(
        "INSERT OR REPLACE INTO checkpoints (seq, hash, events, at, key, signature) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![upto.seq, upto.hash, events, at, key, signature],
    )?;
    // The newest one vouches for all before it.
    tx.execute("DELETE FROM checkpoints WHERE seq < ?1", [upto.seq])?;
    let removed = tx.execute("DELETE FROM events WHERE seq <= ?1", [upto.seq])?;
    let body = json!({"upto": upto.seq, "removed": removed, "key": fingerprint(&ours), "questions": questions,
        "letters": letters});
    append(tx, &Entry { kind: "compacted", run: None, issue: None, body })?;
    Ok(Ok(Removed { events: i64::try_from(removed).unwrap_or(i64::MAX), upto: upto.seq }))
}
