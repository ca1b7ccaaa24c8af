//! The chain of events: appended, never changed. Each entry's hash covers the one before it, so that a byte
//! changed anywhere behind a checkpoint shows. [`Checkpoint`] says what a compaction removed, and is signed.

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use symphony_core::ids::{IssueId, RunId};

/// The hash before the first event.
const START: [u8; 32] = [0; 32];

/// A place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The event's number, from 1; 0 is before the first one.
    pub seq: i64,
    /// Its hash.
    pub hash: [u8; 32],
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
    let (seq, at, body) = (before.seq + 1, Timestamp::now().to_string(), entry.body.to_string());
    let (run, issue) = (entry.run.map(|run| signed(run.0)), entry.issue.map(|issue| issue.0.as_str()));
    let hash = hash(&before.hash, seq, &at, entry.kind, run, issue, &body);
    tx.prepare("INSERT INTO events (seq, at, kind, run, issue, body, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![seq, at, entry.kind, run, issue, body, hash])?;
    // The end of the chain stands twice: an entry cut off behind shows, too.
    tx.prepare("INSERT OR REPLACE INTO about (key, value) VALUES ('head', ?1)")?.execute([said(seq, &hash)])?;
    Ok(())
}

fn said(seq: i64, hash: &[u8; 32]) -> String {
    format!("{seq} {}", hex(hash))
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
        format!("symphony journal checkpoint 1\n{instance}\n{}\n{events}\n{at}\n", said(upto.seq, &upto.hash))
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

    /// The first half of its key, to be compared by eye.
    pub fn fingerprint(&self) -> String {
        hex(&self.key[..8])
    }
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

/// Follows the whole chain. The inner error is the first thing that is wrong, with its place.
///
/// # Errors
/// The database cannot be read.
pub(super) fn verify(db: &Connection, instance: &str) -> rusqlite::Result<Result<Chain, String>> {
    let checkpoint = checkpoint(db)?;
    if let Some(checkpoint) = &checkpoint
        && !checkpoint.holds(instance)
    {
        return Ok(Err(format!("the signature of the checkpoint at event {} is wrong", checkpoint.upto.seq)));
    }
    let mut at = checkpoint.as_ref().map_or(Link { seq: 0, hash: START }, |checkpoint| checkpoint.upto);
    let mut events = 0;
    let mut query = db.prepare("SELECT seq, at, kind, run, issue, body, hash FROM events ORDER BY seq")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, found): (i64, [u8; 32]) = (row.get(0)?, row.get(6)?);
        if seq != at.seq + 1 {
            return Ok(Err(format!("event {} is missing; the next one is {seq}", at.seq + 1)));
        }
        let (when, kind, body): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(5)?);
        let (run, issue): (Option<i64>, Option<String>) = (row.get(3)?, row.get(4)?);
        if hash(&at.hash, seq, &when, &kind, run, issue.as_deref(), &body) != found {
            return Ok(Err(format!("event {seq} ({kind}, {when}) is not what was written")));
        }
        (at, events) = (Link { seq, hash: found }, events + 1);
    }
    let end: Option<String> =
        db.query_row("SELECT value FROM about WHERE key = 'head'", [], |r| r.get(0)).optional()?;
    if end.unwrap_or_else(|| said(0, &START)) != said(at.seq, &at.hash) {
        return Ok(Err(format!("events after {} are missing", at.seq)));
    }
    Ok(Ok(Chain { events, head: at, checkpoint }))
}

/// Removes all events but the newest `keep`, and leaves a checkpoint in their place. How many went.
pub(super) fn compact(tx: &Transaction<'_>, instance: &str, keep: i64, secret: &[u8; 32]) -> rusqlite::Result<i64> {
    let head = head(tx)?;
    let upto = head.seq - keep.max(1);
    let hash = tx.query_row("SELECT hash FROM events WHERE seq = ?1", [upto], |r| r.get(0)).optional()?;
    let Some(hash) = hash else { return Ok(0) };
    let Checkpoint { upto, events, at, key, signature } =
        Checkpoint::sign(instance, Link { seq: upto, hash }, Timestamp::now().to_string(), secret);
    tx.execute(
        "INSERT OR REPLACE INTO checkpoints (seq, hash, events, at, key, signature) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![upto.seq, upto.hash, events, at, key, signature],
    )?;
    // The newest one vouches for all before it.
    tx.execute("DELETE FROM checkpoints WHERE seq < ?1", [upto.seq])?;
    let removed = tx.execute("DELETE FROM events WHERE seq <= ?1", [upto.seq])?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}
