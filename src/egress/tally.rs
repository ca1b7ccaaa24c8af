//! What one run reached, host by host: counted here, written down by the book.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use symphony_core::egress::{Denied, Reach, Rule, Target};

use crate::journal::Reached;

/// Hosts of a run that are told apart. An agent makes up as many as it likes.
const TARGETS: usize = 64;
/// What stands for all others, and for requests that name none.
const OTHERS: &str = "(other hosts)";
const NONE: &str = "(no host)";

/// Bytes that passed, counted while they do.
#[derive(Debug, Default)]
pub struct Counts {
    /// To the server.
    pub sent: AtomicU64,
    /// From the server.
    pub received: AtomicU64,
}

/// What one run reached so far.
#[derive(Debug, Default)]
pub struct Tally {
    rows: Mutex<BTreeMap<Target, Row>>,
    /// One write at a time: what waits for its turn finds out what the one before it kept.
    pub(super) writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Row {
    rule: String,
    address: Option<IpAddr>,
    connections: u64,
    denied: u64,
    counts: Arc<Counts>,
    /// Reasons of refusals that were seen: a new one is written at once.
    seen: BTreeSet<&'static str>,
    /// Rules that the journal is known to have: by another one nothing passes.
    kept: BTreeSet<String>,
    /// What the journal is known to have.
    written: Option<Reached>,
}

impl Row {
    fn reached(&self, target: &Target) -> Reached {
        Reached {
            target: target.clone(),
            rule: self.rule.clone(),
            address: self.address,
            connections: self.connections,
            denied: self.denied,
            sent: self.counts.sent.load(Ordering::Relaxed),
            received: self.counts.received.load(Ordering::Relaxed),
        }
    }
}

impl Tally {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Target, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection passes, unless [`Self::not_passed`] follows; whether the journal is known to have its rule.
    pub(super) fn passed(&self, target: &Target, rule: &Rule, address: IpAddr) -> (Arc<Counts>, bool) {
        let mut rows = self.rows();
        let place = place(&rows, target);
        let row = rows.entry(place).or_default();
        row.connections += 1;
        row.address = Some(address);
        row.rule = rule.to_string();
        (row.counts.clone(), row.kept.contains(&row.rule))
    }

    /// It did not pass after all.
    pub(super) fn not_passed(&self, target: &Target) {
        let mut rows = self.rows();
        let place = place(&rows, target);
        if let Some(row) = rows.get_mut(&place) {
            row.connections = row.connections.saturating_sub(1);
        }
    }

    /// What must be written before a connection passes by this rule; nothing where the journal has it already.
    pub(super) fn missing(&self, target: &Target, rule: &Rule) -> Vec<Reached> {
        let mut rows = self.rows();
        let place = place(&rows, target);
        let row = rows.entry(place).or_default();
        let rule = rule.to_string();
        if row.kept.contains(&rule) {
            return vec![];
        }
        // A refusal may have come between, and what is written names one rule only.
        row.rule = rule;
        changed(&rows)
    }

    /// A request was refused; whether it is the first one of this host for this reason.
    pub(super) fn denied(&self, target: Option<&Target>, why: &Denied) -> bool {
        let mut rows = self.rows();
        let place = match (target, why) {
            (None, _) => Target::kept(NONE.to_owned(), 0),
            // Nobody was asked about them, so nobody needs each one's name.
            (Some(_), Denied::Crowded(_)) => Target::kept(OTHERS.to_owned(), 0),
            (Some(target), _) => place(&rows, target),
        };
        let row = rows.entry(place).or_default();
        row.denied += 1;
        why.code().clone_into(&mut row.rule);
        row.seen.insert(why.code())
    }

    /// The rows of which the journal is not known to have what stands here.
    pub(super) fn changed(&self) -> Vec<Reached> {
        changed(&self.rows())
    }

    /// The journal has these.
    pub(super) fn written(&self, reached: Vec<Reached>) {
        let mut rows = self.rows();
        for reached in reached {
            if let Some(row) = rows.get_mut(&reached.target) {
                row.kept.insert(reached.rule.clone());
                row.written = Some(reached);
            }
        }
    }

    /// All of it in numbers.
    pub(super) fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        for row in self.rows().values() {
            reach.hosts += u64::from(row.connections > 0);
            reach.connections += row.connections;
            reach.denied += row.denied;
            reach.sent += row.counts.sent.load(Ordering::Relaxed);
            reach.received += row.counts.received.load(Ordering::Relaxed);
        }
        reach
    }
}

fn changed(rows: &BTreeMap<Target, Row>) -> Vec<Reached> {
    let reached = rows.iter().map(|(target, row)| (row, row.reached(target)));
    reached.filter(|(row, reached)| row.written.as_ref() != Some(reached)).map(|(_, reached)| reached).collect()
}

/// Where a target is counted.
fn place(rows: &BTreeMap<Target, Row>, target: &Target) -> Target {
    match rows.len() < TARGETS || rows.contains_key(target) {
        true => target.clone(),
        false => Target::kept(OTHERS.to_owned(), 0),
    }
}
