//! What is to be said of an issue's hosts: what its agent asks for, what was decided, what its run reached.

use crate::egress::{Reach, Verb};
use crate::ids::IssueId;
use crate::snapshot::Snapshot;

/// Hosts that are named; of more only their number is said.
const MOST: usize = 5;

/// Each a sentence.
pub(super) fn notes(snapshot: &Snapshot, id: &IssueId) -> Vec<String> {
    let reach = snapshot.running.iter().find(|row| row.id == *id).map(|row| row.reach).unwrap_or_default();
    let mut notes: Vec<String> = (reach != Reach::default()).then(|| reach.to_string()).into_iter().collect();
    let cards: Vec<_> = snapshot.hosts_asked.iter().map(|row| &row.card).filter(|card| card.issue == *id).collect();
    notes.extend(cards.iter().take(MOST).map(|card| {
        let times = if card.times == 1 { String::new() } else { format!(" ({} times)", card.times) };
        format!(
            "asks for {}{times}: decide on the dashboard, or with `symphony egress decide {} once`, `issue`, `always` or `never`",
            card.target, card.id
        )
    }));
    if cards.len() > MOST {
        notes.push(format!("asks for {} more hosts; `symphony egress list` has all", cards.len() - MOST));
    }
    let decisions = snapshot.hosts_decided.iter().map(|row| &row.decision);
    let own: Vec<_> = decisions.filter(|decision| decision.issue == *id && decision.verb.is_of_issue()).collect();
    notes.extend(own.iter().take(MOST).map(|decision| {
        let how = if decision.verb == Verb::Once { "once" } else { "from now on" };
        format!("may reach {} {how} (decision {})", decision.target, decision.id)
    }));
    notes
}
