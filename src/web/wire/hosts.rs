//! Hosts on the wire: what agents asked for, what was decided, and what a run reached. Pure.

use serde::Serialize;
use symphony_core::egress::Reach;
use symphony_core::snapshot::{HostCard, HostDecision, Snapshot};

use super::Instant;

/// `egress` of `GET /api/v1/state`
#[derive(Serialize)]
pub(super) struct Hosts<'a> {
    /// What waits for a decision; decide with `POST /api/v1/egress/<number>/decide`.
    asked: Vec<Asked<'a>>,
    /// What holds; take it back with `POST /api/v1/egress/<number>/forget`.
    decided: Vec<Decided<'a>>,
}

#[derive(Serialize)]
struct Asked<'a> {
    number: u64,
    issue_id: &'a str,
    issue_identifier: &'a str,
    run_id: u64,
    host: &'a str,
    port: u16,
    times: u64,
    asked_at: Instant,
}

#[derive(Serialize)]
struct Decided<'a> {
    number: u64,
    issue_id: &'a str,
    issue_identifier: &'a str,
    host: &'a str,
    port: u16,
    verb: &'static str,
    by: &'static str,
    decided_at: Instant,
}

/// `egress` of a live run.
#[derive(Serialize)]
pub(super) struct Reached {
    hosts: u64,
    connections: u64,
    denied: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl<'a> Hosts<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let asked = |HostCard { card, identifier, .. }: &'a HostCard| Asked {
            number: card.id,
            issue_id: &card.issue.0,
            issue_identifier: &identifier.0,
            run_id: card.run.0,
            host: card.target.host.as_str(),
            port: card.target.port,
            times: card.times,
            asked_at: Instant(card.asked_at),
        };
        let decided = |HostDecision { decision, identifier }: &'a HostDecision| Decided {
            number: decision.id,
            issue_id: &decision.issue.0,
            issue_identifier: &identifier.0,
            host: decision.target.host.as_str(),
            port: decision.target.port,
            verb: decision.verb.as_str(),
            by: decision.by.as_str(),
            decided_at: Instant(decision.at),
        };
        Self {
            asked: snapshot.hosts_asked.iter().map(asked).collect(),
            decided: snapshot.hosts_decided.iter().map(decided).collect(),
        }
    }
}

impl Reached {
    pub(super) fn of(reach: Reach) -> Self {
        let Reach { hosts, connections, denied, sent, received } = reach;
        Self { hosts, connections, denied, bytes_sent: sent, bytes_received: received }
    }
}
