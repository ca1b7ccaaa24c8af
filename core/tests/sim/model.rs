//! The second, dumber model: what a good look should have started, by rules written down once more and apart from
//! the board. It sees only the public face of the board before and after.

use std::collections::BTreeSet;

use symphony_core::board::{Board, Claim, NotNow, Policy, RetryKind};
use symphony_core::broker::Provider;
use symphony_core::ids::IssueId;
use symphony_core::issue::Issue;
use symphony_core::time::Tick;
use symphony_core::workflow::{OnBlockerCancelled, Role};

/// What a look should have done with the issues nobody works on, each list in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) started: Vec<IssueId>,
    pub(crate) parked: Vec<IssueId>,
}

/// What a good look at `now` should have done. `after` is the board after the look, `started` what it did start;
/// so many runs were still `booting` before.
pub(crate) fn expected(
    before: &Board,
    after: &Board,
    started: &[IssueId],
    mut booting: u64,
    now: Tick,
    policy: &Policy,
    draining: bool,
) -> Expected {
    let mut expected = Expected::default();
    // Here every agent needs a model.
    if draining || policy.closed.is_some() || policy.spend.shut.is_some() {
        return expected;
    }
    let mut retries: Vec<(Tick, &Issue)> = vec![];
    let mut fresh: Vec<&Issue> = vec![];
    for issue in after.issues() {
        match claim(before, &issue.id) {
            Some(Claim::Waiting { until, .. }) if *until <= now => retries.push((*until, issue)),
            // A look that releases a waiting claim found the issue where nobody works.
            Some(Claim::Waiting { .. } | Claim::Resuming | Claim::Cleaning) => {}
            Some(live) if live.run().is_some() => {}
            // Unless it was moved, and a person put it back since: that releases it.
            Some(Claim::Parked { moved, .. }) if *moved != Some(Ok(())) => {}
            Some(Claim::Parked { .. })
                if matches!(claim(after, &issue.id), Some(Claim::Parked { moved: Some(_), .. })) => {}
            _ => fresh.push(issue),
        }
    }
    retries.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
    fresh.sort_by_key(|issue| order(issue));
    // A waiting continuation keeps its slot until it runs.
    let keeps = |claim: &Claim| matches!(claim, Claim::Waiting { kind: RetryKind::Continuation, .. });
    let kept = |issue: &Issue| claim(before, &issue.id).is_some_and(keeps);
    let holds = |issue: &Issue| match started.contains(&issue.id) {
        true => kept(issue),
        false => claim(after, &issue.id).is_some_and(|claim| claim.run().is_some() || keeps(claim)),
    };
    // Of an earlier process, and their files were not found yet.
    let unfound = after.claims().filter(|(id, claim)| keeps(claim) && after.issue(id).is_none()).count();
    let mut taken: Vec<&Issue> = after.issues().filter(|issue| holds(issue)).collect();
    let mut may: Vec<&Issue> = vec![];
    for issue in retries.into_iter().map(|(_, issue)| issue).chain(fresh) {
        match alone(issue, before, after, policy) {
            Alone::No => {}
            Alone::Park => expected.parked.push(issue.id.clone()),
            Alone::Yes => may.push(issue),
        }
    }
    for issue in may {
        let others: Vec<&Issue> = taken.iter().copied().filter(|other| other.id != issue.id).collect();
        // Who keeps a slot competes only with runs that live, not with others who keep one.
        let lives = |other: &Issue| {
            expected.started.contains(&other.id) || claim(before, &other.id).is_some_and(|claim| claim.run().is_some())
        };
        let rivals: Vec<&Issue> = others.iter().copied().filter(|other| !kept(issue) || lives(other)).collect();
        let limit = policy.states.rules.get(&issue.state).and_then(|rule| rule.max_concurrent);
        let in_state = rivals.iter().filter(|other| other.state == issue.state).count();
        let unfound = if kept(issue) { 0 } else { unfound };
        let room = rivals.len() + unfound < policy.max_concurrent as usize
            && limit.is_none_or(|limit| in_state < limit as usize);
        let memory = policy.memory.is_none_or(|m| m.needed_mib * (booting + 1) <= m.available_mib);
        if room && memory {
            taken = others;
            taken.push(issue);
            booting += 1;
            expected.started.push(issue.id.clone());
        }
    }
    expected
}

fn claim<'a>(board: &'a Board, id: &IssueId) -> Option<&'a Claim> {
    board.claims().find(|(claimed, _)| *claimed == id).map(|(_, claim)| claim)
}

enum Alone {
    Yes,
    No,
    Park,
}

/// Everything about the issue alone.
fn alone(issue: &Issue, before: &Board, after: &Board, policy: &Policy) -> Alone {
    let active = policy.states.rules.get(&issue.state).is_some_and(|rule| rule.role == Role::Active);
    let labels: BTreeSet<&String> = issue.labels.iter().collect();
    let labelled = policy.required_labels.iter().all(|label| !label.is_empty() && labels.contains(label));
    let verdict = after.verdict(issue, Tick(u64::MAX), policy);
    let unconfirmed = matches!(verdict, Err(NotNow::Unconfirmed | NotNow::Unseen));
    // The names that a world's files use.
    let profiled = match issue.profile.as_deref() {
        Some("small") => true,
        None if policy.profiles.default.is_some() => true,
        None => policy.profiles.unnamed.is_none(),
        Some("image") => policy.profiles.listed["image"].is_none(),
        Some(_) => false,
    };
    if !active || !labelled || !profiled || !issue.dispatchable || unconfirmed || before.is_asked(&issue.id) {
        return Alone::No;
    }
    let mut given_up = false;
    for blocker in &issue.blocked_by {
        let Some(state) = &blocker.state else { return Alone::No };
        match state.as_str() {
            "Done" => {}
            "Cancelled" => match policy.on_blocker_cancelled {
                OnBlockerCancelled::Wait => return Alone::No,
                OnBlockerCancelled::Unblock => {}
                OnBlockerCancelled::Park => given_up = true,
            },
            _ => return Alone::No,
        }
    }
    // As of before: parking grants anew, and starting counts.
    let counters = before.counters(&issue.id);
    let (used, budget) = (counters.since_grant(), &policy.budget);
    let affordable = used.sessions < budget.sessions
        && used.turns < budget.turns
        && used.wall_ms < budget.wall_ms
        && used.bounces < budget.bounces
        && counters.failures_in_a_row < budget.failures_in_a_row
        && counters.unchanged_in_a_row < budget.no_progress;
    let closed = |provider| policy.models.closed.contains_key(&provider);
    let modelless = (issue.state.as_str() == "Todo" && closed(Provider::Anthropic))
        || before.sent_away(&issue.id).is_some_and(closed)
        || policy.spend.crowded_out.contains(&issue.id);
    match (given_up || !affordable, modelless) {
        (true, _) => Alone::Park,
        (false, true) => Alone::No,
        (false, false) => Alone::Yes,
    }
}

fn order(issue: &Issue) -> (i64, bool, Option<jiff::Timestamp>, String, String) {
    let rank = issue.priority.filter(|priority| (1..=4).contains(priority)).unwrap_or(5);
    (rank, issue.created_at.is_none(), issue.created_at, issue.identifier.0.clone(), issue.id.0.clone())
}
