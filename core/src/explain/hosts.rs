//! What is to be said of an issue's hosts: what its agent asks for, what was decided, what its run reached.

use crate::egress::{Reach, Verb};
use crate::ids::IssueId;
use crate::snapshot::{HostCard, Snapshot};

use super::{Explained, Status};

/// Hosts that are named; of more only their number is said.
const MOST: usize = 5;

/// A card that waits for a person's decision, by the name of its host.
pub(super) fn card(HostCard { card, identifier, .. }: &HostCard) -> Explained {
    let reason = format!("{identifier} asks to reach it{}: {}", times(card.times), decide(card.id));
    Explained::bare(&card.target.to_string(), Status::Network, reason)
}

fn times(times: u64) -> String {
    if times == 1 { String::new() } else { format!(" ({times} times)") }
}

fn decide(card: u64) -> String {
    format!("decide on the dashboard, or with `symphony egress decide {card} once`, `issue`, `always` or `never`")
}

/// Each a sentence.
pub(super) fn notes(snapshot: &Snapshot, id: &IssueId) -> Vec<String> {
    let reach = snapshot.running.iter().find(|row| row.id == *id).map(|row| row.reach).unwrap_or_default();
    let mut notes: Vec<String> = (reach != Reach::default()).then(|| reach.to_string()).into_iter().collect();
    let cards: Vec<_> = snapshot.hosts_asked.iter().map(|row| &row.card).filter(|card| card.issue == *id).collect();
    notes.extend(
        cards
            .iter()
            .take(MOST)
            .map(|card| format!("asks for {}{}: {}", card.target, times(card.times), decide(card.id))),
    );
    if cards.len() > MOST {
        notes.push(format!("asks for {} more hosts; `symphony egress list` has all", cards.len() - MOST));
    }
    notes.extend(undecided(snapshot, id));
    let decisions = snapshot.hosts_decided.iter().map(|row| &row.decision);
    let own: Vec<_> = decisions.filter(|decision| decision.issue == *id && decision.verb.is_of_issue()).collect();
    notes.extend(own.iter().take(MOST).map(|decision| {
        let how = if decision.verb == Verb::Once { "once" } else { "from now on" };
        format!("may reach {} {how} (decision {})", decision.target, decision.id)
    }));
    notes
}

/// Which hosts a finished issue was refused because nobody decided about them, and how that is different next time; a
/// sentence.
pub fn undecided(snapshot: &Snapshot, id: &IssueId) -> Option<String> {
    let hosts: Vec<String> =
        snapshot.hosts_undecided.iter().filter(|card| card.issue == *id).map(|card| card.target.to_string()).collect();
    let first = hosts.first()?;
    let named = hosts.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    let more = if hosts.len() > MOST { format!(" and {} more", hosts.len() - MOST) } else { String::new() };
    let (count, what) = (hosts.len(), if hosts.len() == 1 { "host" } else { "hosts" });
    Some(format!(
        "was refused {count} {what}: {named}{more}; nobody decided about that in time; `symphony egress decide {first} always` allows it next time"
    ))
}
