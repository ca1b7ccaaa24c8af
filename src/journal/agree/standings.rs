//! The same for what providers said of credentials, and for how often issues were sent away. Each event tells the whole row.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::{Value, json};

/// The rows as the newest events tell them; `None`: there is none.
#[derive(Default)]
pub(super) struct Told {
    /// By credential: the event, and its row.
    standings: BTreeMap<String, (i64, Option<Value>)>,
    /// By issue: the same.
    in_vain: BTreeMap<String, (i64, Option<Value>)>,
}

impl Told {
    /// The next event, of whatever kind.
    pub(super) fn take(&mut self, seq: i64, kind: &str, issue: Option<&str>, body: &Value) {
        let credential = || body["credential"].as_str().map(str::to_owned);
        match kind {
            "provider_refused" => {
                let row = json!([body["provider"], body["kind"], body["until"], body["in_a_row"]]);
                self.standings.extend(credential().map(|credential| (credential, (seq, Some(row)))));
            }
            "provider_answered" => {
                self.standings.extend(credential().map(|credential| (credential, (seq, None))));
            }
            "in_vain" => {
                let times = body["times"].as_i64().unwrap_or(0);
                let row = (times > 0).then(|| json!(times));
                self.in_vain.extend(issue.map(|issue| (issue.to_owned(), (seq, row))));
            }
            _ => {}
        }
    }

    /// What is different in the rows; `is_all`: no event is missing, so each row stands in one.
    pub(super) fn differences(&self, db: &Connection, is_all: bool, found: &mut Vec<String>) -> rusqlite::Result<()> {
        let standings = "SELECT credential, json_array(provider, kind, until, in_a_row) FROM standings";
        compare(db, "what a provider said of", standings, &self.standings, is_all, found)?;
        let in_vain = "SELECT issue, json_quote(times) FROM in_vain";
        compare(db, "how often nobody answered", in_vain, &self.in_vain, is_all, found)
    }
}

fn compare(
    db: &Connection,
    what: &str,
    sql: &str,
    told: &BTreeMap<String, (i64, Option<Value>)>,
    is_all: bool,
    found: &mut Vec<String>,
) -> rusqlite::Result<()> {
    let mut there = BTreeSet::new();
    let mut query = db.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (name, text): (String, String) = (row.get(0)?, row.get(1)?);
        let short = name.get(..12).unwrap_or(&name);
        match told.get(&name) {
            Some((seq, wanted)) if serde_json::from_str(&text).ok() != *wanted => {
                found.push(format!("{what} {short} is not what event {seq} says"));
            }
            None if is_all => found.push(format!("{what} {short} stands in no event")),
            _ => {}
        }
        there.insert(name);
    }
    let missing = told.iter().filter(|(name, (_, row))| row.is_some() && !there.contains(*name));
    found.extend(
        missing.map(|(name, (seq, _))| format!("{what} {} in event {seq} is missing", name.get(..12).unwrap_or(name))),
    );
    Ok(())
}
