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
pub struct Tally(Mutex<BTreeMap<Target, Row>>);

#[derive(Debug, Default)]
struct Row {
    rule: String,
    address: Option<IpAddr>,
    connections: u64,
    denied: u64,
    counts: Arc<Counts>,
    /// Rules and reasons that were seen: a new one is written at once.
    seen: BTreeSet<String>,
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

    /// Whether it is the first time.
    fn by(&mut self, rule: String) -> bool {
        self.rule.clone_from(&rule);
        self.seen.insert(rule)
    }
}

impl Tally {
    fn rows(&self) -> MutexGuard<'_, BTreeMap<Target, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection passes; whether it is the first one by this rule.
    pub(super) fn passed(&self, target: &Target, rule: &Rule, address: IpAddr) -> (Arc<Counts>, bool) {
        let mut rows = self.rows();
        let place = place(&rows, target);
        let row = rows.entry(place).or_default();
        row.connections += 1;
        row.address = Some(address);
        let is_new = row.by(rule.to_string());
        (row.counts.clone(), is_new)
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
        row.by(why.code().to_owned())
    }

    /// The rows that are not written as they stand; they count as written from now on.
    pub(super) fn changed(&self) -> Vec<Reached> {
        let mut changed = vec![];
        for (target, row) in self.rows().iter_mut() {
            let reached = row.reached(target);
            if row.written.as_ref() != Some(&reached) {
                row.written = Some(reached.clone());
                changed.push(reached);
            }
        }
        changed
    }

    /// These could not be written.
    pub(super) fn unwritten(&self, rows: &[Reached]) {
        let mut all = self.rows();
        for reached in rows {
            if let Some(row) = all.get_mut(&reached.target) {
                row.written = None;
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

/// Where a target is counted.
fn place(rows: &BTreeMap<Target, Row>, target: &Target) -> Target {
    match rows.len() < TARGETS || rows.contains_key(target) {
        true => target.clone(),
        false => Target::kept(OTHERS.to_owned(), 0),
    }
}
