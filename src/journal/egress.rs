//! Hosts: what agents asked for, what people decided, and what each run reached. A card and a decision have the number of the
//! event that made them: it is never used again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use rusqlite::{Connection, Row, Transaction, params};
use serde_json::{Value, json};
use symphony_core::egress::{CARDS, Card, Decision, Kept, Settles, Target, Verb};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::steering::By;

use super::chain::{self, Entry, signed};
use super::state::instant;
use super::{Journal, Written};

/// What a run had to do with one host, so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The host and the port.
    pub target: Target,
    /// By which rule the newest connection passed, or why it did not.
    pub rule: String,
    /// The address of the newest connection.
    pub address: Option<IpAddr>,
    /// Connections that were made.
    pub connections: u64,
    /// Requests that were refused, failed or cut.
    pub denied: u64,
    /// Bytes to it.
    pub sent: u64,
    /// Bytes from it.
    pub received: u64,
}

impl Reached {
    /// As its event tells it.
    fn told(&self) -> Value {
        let Self { target, rule, address, connections, denied, sent, received } = self;
        let address = address.map(|address| address.to_string());
        json!({"host": target.host.as_str(), "port": target.port, "rule": rule, "address": address,
            "connections": connections, "denied": denied, "sent": sent, "received": received})
    }
}

/// Everything a new process needs. How often a card was asked for, its runs know.
pub(super) fn kept(db: &Connection) -> rusqlite::Result<Kept> {
    let cards = "SELECT id, issue, run, host, port, asked_at, (SELECT coalesce(sum(r.denied), 0) FROM egress_reached r
        WHERE r.issue = a.issue AND r.host = a.host AND r.port = a.port) FROM egress_asked a ORDER BY id";
    let decisions = "SELECT id, issue, verb, host, port, at, by FROM egress_decided ORDER BY id";
    Ok(Kept {
        cards: db.prepare(cards)?.query_map([], card)?.collect::<rusqlite::Result<_>>()?,
        decisions: db.prepare(decisions)?.query_map([], decision)?.collect::<rusqlite::Result<_>>()?,
        undecided: undecided(db)?,
        answered: answered(db)?,
    })
}

/// By card, the decision in force that answered it: its event says so, while it stands.
fn answered(db: &Connection) -> rusqlite::Result<BTreeMap<u64, u64>> {
    let sql = "SELECT d.id, e.body FROM egress_decided d JOIN events e ON e.seq = d.id AND e.kind = 'egress_decided'";
    let mut answered = BTreeMap::new();
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (decision, body) = (unsigned(row, 0)?, told(row, 1)?);
        answered.extend(numbers(&body["answers"]).chain(body["card"].as_u64()).map(|card| (card, decision)));
    }
    Ok(answered)
}

/// Cards that were withdrawn with their issue, if no run of it began since; as far as their events stand.
fn undecided(db: &Connection) -> rusqlite::Result<Vec<Card>> {
    let sql = "SELECT kind, issue, CASE kind WHEN 'run_started' THEN '{}' ELSE body END FROM events
        WHERE kind IN ('egress_withdrawn', 'run_started') ORDER BY seq";
    let mut of_issue: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, issue): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        match (kind.as_str(), issue) {
            ("egress_withdrawn", Some(issue)) => {
                of_issue.entry(issue).or_default().extend(numbers(&told(row, 2)?["cards"]))
            }
            (_, Some(issue)) => drop(of_issue.remove(&issue)),
            (_, None) => {}
        }
    }
    let mut ids: Vec<u64> = of_issue.into_values().flatten().collect();
    ids.sort_unstable();
    let mut find = db.prepare(
        "SELECT e.seq, e.issue, e.run, json_extract(e.body, '$.host'), json_extract(e.body, '$.port'), e.at,
            (SELECT coalesce(sum(r.denied), 0) FROM egress_reached r WHERE r.issue = e.issue
                AND r.host = json_extract(e.body, '$.host') AND r.port = json_extract(e.body, '$.port'))
         FROM events e WHERE e.seq = ?1 AND e.kind = 'egress_asked' AND e.run IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM egress_decided d WHERE d.host = json_extract(e.body, '$.host')
                AND d.port = json_extract(e.body, '$.port') AND (d.issue = e.issue OR d.verb IN ('always', 'never')))",
    )?;
    let mut cards = vec![];
    // The newest ones, where there are too many to remember.
    for id in ids.into_iter().rev().take(CARDS).rev() {
        cards.extend(find.query_map([signed(id)], card)?.collect::<rusqlite::Result<Vec<_>>>()?);
    }
    Ok(cards)
}

/// What an event says; nothing, where it was too large to be told.
fn told(r: &Row<'_>, at: usize) -> rusqlite::Result<Value> {
    let body: String = r.get(at)?;
    Ok(serde_json::from_str(&body).unwrap_or_default())
}

fn numbers(list: &Value) -> impl Iterator<Item = u64> {
    list.as_array().into_iter().flatten().filter_map(Value::as_u64)
}

fn unsigned(r: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    r.get::<_, i64>(at).map(i64::unsigned_abs)
}

fn target(r: &Row<'_>) -> rusqlite::Result<Target> {
    Ok(Target::kept(r.get(3)?, r.get(4)?))
}

fn card(r: &Row<'_>) -> rusqlite::Result<Card> {
    Ok(Card {
        id: unsigned(r, 0)?,
        issue: IssueId(r.get(1)?),
        run: RunId(unsigned(r, 2)?),
        target: target(r)?,
        asked_at: instant(r, 5)?,
        times: unsigned(r, 6)?.max(1),
    })
}

fn decision(r: &Row<'_>) -> rusqlite::Result<Decision> {
    let (verb, by): (String, String) = (r.get(2)?, r.get(6)?);
    Ok(Decision {
        id: unsigned(r, 0)?,
        issue: IssueId(r.get(1)?),
        target: target(r)?,
        // A word of a newer symphony is no leave.
        verb: Verb::parse(&verb).unwrap_or(Verb::Never),
        by: By::parse(&by).unwrap_or(By::Api),
        at: instant(r, 5)?,
    })
}

/// A decision holds no longer; the run that used it up, where none took it back.
fn forget(tx: &Transaction<'_>, decision: &Decision, used_by: Option<RunId>) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM egress_decided WHERE id = ?1", [signed(decision.id)])?;
    let body = json!({"decision": decision.id, "why": if used_by.is_some() { "used" } else { "revoked" }});
    chain::append(tx, &Entry { kind: "egress_forgotten", run: used_by, issue: Some(&decision.issue), body })
}

impl Journal {
    /// An agent asked for a host that nobody decided about.
    ///
    /// # Errors
    /// The journal cannot be written: nobody was asked.
    pub fn egress_asked(&self, run: RunId, issue: IssueId, target: Target) -> Written<Card> {
        self.write("egress_asked", move |tx| {
            let (id, asked_at) = (chain::head(tx)?.seq + 1, Timestamp::now());
            let (host, port) = (target.host.as_str(), target.port);
            tx.execute(
                "INSERT INTO egress_asked (id, run, issue, host, port, asked_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![id, signed(run.0), issue.0, host, port, asked_at.to_string()],
            )?;
            let body = json!({"host": host, "port": port});
            chain::append(tx, &Entry { kind: "egress_asked", run: Some(run), issue: Some(&issue), body })?;
            Ok(Card { id: id.unsigned_abs(), issue, run, target, asked_at, times: 1 })
        })
    }

    /// A person decided over a card, or in place of an earlier decision: both or neither.
    ///
    /// # Errors
    /// The journal cannot be written: it is not decided.
    pub fn egress_decided(&self, settles: Settles, verb: Verb, by: By) -> Written<Decision> {
        self.write("egress_decided", move |tx| {
            let Settles { card, answers, replaces } = settles;
            if let Some(replaced) = &replaces {
                forget(tx, replaced, None)?;
            }
            let (id, at) = (chain::head(tx)?.seq + 1, Timestamp::now());
            let Card { id: asked, issue, target, .. } = card;
            let (host, port) = (target.host.as_str(), target.port);
            for card in &answers {
                tx.execute("DELETE FROM egress_asked WHERE id = ?1", [signed(*card)])?;
            }
            tx.execute(
                "INSERT INTO egress_decided (id, issue, host, port, verb, by, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![id, issue.0, host, port, verb.as_str(), by.as_str(), at.to_string()],
            )?;
            let body = json!({"card": asked, "answers": answers, "host": host, "port": port, "verb": verb.as_str(),
                "by": by.as_str()});
            chain::append(tx, &Entry { kind: "egress_decided", run: None, issue: Some(&issue), body })?;
            Ok(Decision { id: id.unsigned_abs(), issue, target, verb, by, at })
        })
    }

    /// A decision holds no longer: a person took it back.
    ///
    /// # Errors
    /// The journal cannot be written: it holds.
    pub fn egress_forgotten(&self, decision: Decision) -> Written<()> {
        self.write("egress_forgotten", move |tx| forget(tx, &decision, None))
    }

    /// Nobody waits for these cards any more: their issue is finished.
    ///
    /// # Errors
    /// The journal cannot be written: they wait.
    pub fn egress_withdrawn(&self, issue: IssueId, cards: Vec<u64>) -> Written<()> {
        self.write("egress_withdrawn", move |tx| {
            for card in &cards {
                tx.execute("DELETE FROM egress_asked WHERE id = ?1", [signed(*card)])?;
            }
            let body = json!({"cards": cards});
            chain::append(tx, &Entry { kind: "egress_withdrawn", run: None, issue: Some(&issue), body })
        })
    }

    /// What a run reached so far, of the hosts where that changed, and the decision of `once` that it used up with it.
    ///
    /// # Errors
    /// The journal cannot be written: the decision holds.
    pub fn egress_reached(
        &self,
        run: RunId,
        issue: IssueId,
        rows: Vec<Reached>,
        used: Option<Decision>,
    ) -> Written<()> {
        self.write("egress_reached", move |tx| {
            if let Some(decision) = &used {
                forget(tx, decision, Some(run))?;
            }
            for row in &rows {
                let Reached { target, rule, address, connections, denied, sent, received } = row;
                tx.execute(
                    "INSERT OR REPLACE INTO egress_reached (run, issue, host, port, rule, address, connections, denied, sent,
                        received) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                    params![
                        signed(run.0),
                        issue.0,
                        target.host.as_str(),
                        target.port,
                        rule,
                        address.map(|address| address.to_string()),
                        signed(*connections),
                        signed(*denied),
                        signed(*sent),
                        signed(*received),
                    ],
                )?;
                let entry = Entry { kind: "egress", run: Some(run), issue: Some(&issue), body: row.told() };
                chain::append(tx, &entry)?;
            }
            Ok(())
        })
    }
}
