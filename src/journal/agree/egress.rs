//! The same for hosts: cards, decisions, and what runs reached. Cards and decisions have the numbers of their events, so one
//! behind a checkpoint is known by its number.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::{Value, json};

/// What the events tell.
#[derive(Default)]
pub(super) struct Told {
    /// Before this one no event stands.
    first: Option<i64>,
    /// By number: whose and what, and whether it waits.
    cards: BTreeMap<i64, (Value, bool)>,
    /// By number: what was said, and whether it holds.
    decisions: BTreeMap<i64, (Value, bool)>,
    /// By run, host and port: the newest event, and what it says.
    reached: BTreeMap<(i64, String, i64), (i64, Value)>,
}

impl Told {
    /// The next event, of whatever kind.
    pub(super) fn take(&mut self, seq: i64, kind: &str, run: Option<i64>, issue: Option<&str>, body: &Value) {
        self.first = self.first.or(Some(seq));
        let what = || json!([issue, body["host"], body["port"]]);
        let mut closed = |cards: &Value| {
            for id in cards.as_array().into_iter().flatten().filter_map(Value::as_i64) {
                self.cards.insert(id, (Value::Null, false));
            }
        };
        match kind {
            "egress_asked" => drop(self.cards.insert(seq, (what(), true))),
            "egress_withdrawn" => closed(&body["cards"]),
            "egress_decided" => {
                closed(&body["answers"]);
                self.decisions.insert(seq, (json!([what(), body["verb"], body["by"]]), true));
            }
            "egress_forgotten" => {
                let id = body["decision"].as_i64().unwrap_or(0);
                self.decisions.insert(id, (Value::Null, false));
            }
            "egress" => {
                let host = body["host"].as_str().unwrap_or_default().to_owned();
                let port = body["port"].as_i64().unwrap_or(0);
                let mut row = body.clone();
                row["issue"] = json!(issue);
                self.reached.insert((run.unwrap_or(0), host, port), (seq, row));
            }
            _ => {}
        }
    }

    /// What is different in the rows.
    pub(super) fn differences(&self, db: &Connection, found: &mut Vec<String>) -> rusqlite::Result<()> {
        let cards = "SELECT id, json_array(issue, host, port) FROM egress_asked";
        self.numbered(db, "host card", cards, &self.cards, found)?;
        let decisions = "SELECT id, json_array(json_array(issue, host, port), verb, by) FROM egress_decided";
        self.numbered(db, "host decision", decisions, &self.decisions, found)?;
        self.runs(db, found)
    }

    fn numbered(
        &self,
        db: &Connection,
        what: &str,
        sql: &str,
        told: &BTreeMap<i64, (Value, bool)>,
        found: &mut Vec<String>,
    ) -> rusqlite::Result<()> {
        let mut there = BTreeSet::new();
        let mut query = db.prepare(sql)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
            there.insert(id);
            match told.get(&id) {
                Some((wanted, true)) if serde_json::from_str(&text).is_ok_and(|row: Value| row == *wanted) => {}
                Some(_) => found.push(format!("{what} {id} is not what the events say")),
                None if self.first.is_some_and(|first| id >= first) => {
                    found.push(format!("{what} {id} stands in no event"));
                }
                None => {}
            }
        }
        let missing = told.iter().filter(|(id, (_, stands))| *stands && !there.contains(id));
        found.extend(missing.map(|(id, _)| format!("{what} of event {id} is missing")));
        Ok(())
    }

    fn runs(&self, db: &Connection, found: &mut Vec<String>) -> rusqlite::Result<()> {
        let mut query = db.prepare(
            "SELECT run, host, port, json_object('host', host, 'port', port, 'rule', rule, 'address', address,
                'connections', connections, 'denied', denied, 'sent', sent, 'received', received, 'issue', issue)
             FROM egress_reached",
        )?;
        let mut rows = query.query([])?;
        let mut there = BTreeSet::new();
        while let Some(row) = rows.next()? {
            let (key, text): ((i64, String, i64), String) = ((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?);
            let wanted = self.reached.get(&key);
            if let Some((seq, wanted)) = wanted
                && serde_json::from_str::<Value>(&text).ok().as_ref() != Some(wanted)
            {
                found.push(format!("what run {} reached at {} is not what event {seq} says", key.0, key.1));
            }
            // Its events may be behind a checkpoint; without one they all stand.
            if wanted.is_none() && self.first.is_some_and(|first| first <= 1) {
                found.push(format!("what run {} reached at {} stands in no event", key.0, key.1));
            }
            there.insert(key);
        }
        let missing = self.reached.iter().filter(|(key, _)| !there.contains(key));
        found.extend(missing.map(|(key, (seq, _))| format!("what run {} reached in event {seq} is missing", key.0)));
        Ok(())
    }
}
