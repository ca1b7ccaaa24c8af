//! Who may start now. One function answers; the dashboard, the log and the dispatcher all ask it.

use std::fmt;

use super::Board;
use super::words::{Claim, Closed, Policy, RetryKind};
use crate::ids::{Identifier, IssueId, StateName};
use crate::issue::Issue;
use crate::time::Tick;
use crate::workflow::Role;

/// Why an issue does not run right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Its state is nobody's to work in.
    Holding,
    /// It is finished.
    Terminal,
    /// Its front matter says `hold: true`.
    OnHold,
    /// It lacks a required label.
    MissingLabel(String),
    /// Another issue must end first.
    BlockedBy(Identifier, StateName),
    /// A blocker that does not exist.
    UnknownBlocker(Identifier),
    /// Issues that wait for each other.
    BlockerCycle(Vec<Identifier>),
    /// All slots are taken.
    NoGlobalSlot(u32),
    /// All slots of its state are taken.
    NoStateSlot(StateName, u32),
    /// The next run has a due time.
    BackingOff(Tick),
    /// Put aside; the text says why and how the move went.
    Parked(String),
    /// A run is alive.
    Running,
    /// Its old workspace is being removed.
    Cleaning,
    /// Its file may have just moved; the next look tells.
    Unconfirmed,
    /// Nothing starts at all.
    Closed(Closed),
    /// A shutdown is under way.
    Draining,
}

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holding => write!(f, "nobody works in this state"),
            Self::Terminal => write!(f, "finished"),
            Self::OnHold => write!(f, "its front matter says `hold: true`"),
            Self::MissingLabel(label) => write!(f, "lacks the required label `{label}`"),
            Self::BlockedBy(id, state) => write!(f, "blocked by {id}, which is in {state}"),
            Self::UnknownBlocker(id) => write!(f, "blocked by {id}, which does not exist"),
            Self::BlockerCycle(ids) => {
                let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(f, "in a circle of blockers: {}", names.join(" → "))
            }
            Self::NoGlobalSlot(limit) => write!(f, "all {limit} slots are taken"),
            Self::NoStateSlot(state, limit) => write!(f, "all {limit} slots of {state} are taken"),
            Self::BackingOff(_) => write!(f, "waits for its next attempt"),
            Self::Parked(why) => write!(f, "parked: {why}"),
            Self::Running => write!(f, "running"),
            Self::Cleaning => write!(f, "its old workspace is being removed"),
            Self::Unconfirmed => write!(f, "its file is being looked at again"),
            Self::Closed(Closed::WorkflowBroken) => {
                write!(f, "WORKFLOW.md has errors; nothing new starts until they are fixed")
            }
            Self::Closed(Closed::NoSandbox(why)) => write!(f, "no sandbox can run it: {why}"),
            Self::Draining => write!(f, "symphony is shutting down"),
        }
    }
}

impl Board {
    /// Whether `issue` may start at `now`: `Ok` exactly when the dispatcher would start it.
    ///
    /// # Errors
    /// The first reason in the way, most lasting first.
    pub fn verdict(&self, issue: &Issue, now: Tick, policy: &Policy) -> Result<(), NotNow> {
        match self.claims.get(&issue.id) {
            Some(Claim::Running { .. } | Claim::Finishing { .. } | Claim::Stopping { .. }) => {
                return Err(NotNow::Running);
            }
            Some(Claim::Parked { reason, moved }) => {
                let trouble = match moved {
                    Some(Err(why)) => format!("{reason} (it could not be moved: {why})"),
                    Some(Ok(())) | None => reason.to_string(),
                };
                return Err(NotNow::Parked(trouble));
            }
            Some(Claim::Cleaning) => return Err(NotNow::Cleaning),
            Some(Claim::Waiting { .. }) | None => {}
        }
        if self.unconfirmed.contains_key(&issue.id) {
            return Err(NotNow::Unconfirmed);
        }
        match policy.states.role(&issue.state) {
            Role::Active => {}
            Role::Terminal => return Err(NotNow::Terminal),
            Role::Holding => {
                return Err(self.parked.get(&issue.id).map_or(NotNow::Holding, |why| NotNow::Parked(why.to_string())));
            }
        }
        routable(issue, policy)?;
        self.unblocked(issue, policy)?;
        if self.draining {
            return Err(NotNow::Draining);
        }
        if let Some(closed) = &policy.closed {
            return Err(NotNow::Closed(closed.clone()));
        }
        if let Some(Claim::Waiting { until, .. }) = self.claims.get(&issue.id)
            && *until > now
        {
            return Err(NotNow::BackingOff(*until));
        }
        self.slot_for(issue, policy)
    }

    /// A continuation uses the slot its claim holds; everything else needs a free one.
    fn slot_for(&self, issue: &Issue, policy: &Policy) -> Result<(), NotNow> {
        let others = |state: Option<&StateName>| {
            let count = self
                .claims
                .iter()
                .filter(|(id, claim)| **id != issue.id && claim.holds_slot())
                .filter(|(id, _)| state.is_none_or(|wanted| self.state_of(id).is_some_and(|found| found == wanted)))
                .count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        if others(None) >= policy.max_concurrent {
            return Err(NotNow::NoGlobalSlot(policy.max_concurrent));
        }
        let limit = policy.states.rules.get(&issue.state).and_then(|rule| rule.max_concurrent);
        match limit {
            Some(limit) if others(Some(&issue.state)) >= limit => Err(NotNow::NoStateSlot(issue.state.clone(), limit)),
            Some(_) | None => Ok(()),
        }
    }

    /// `blocked_by` gates dispatch in every active state (DESIGN §6).
    fn unblocked(&self, issue: &Issue, policy: &Policy) -> Result<(), NotNow> {
        for blocker in &issue.blocked_by {
            let Some(state) = &blocker.state else {
                return Err(NotNow::UnknownBlocker(blocker.identifier.clone()));
            };
            if policy.states.role(state) == Role::Terminal {
                continue;
            }
            if let Some(circle) = self.circle_through(&issue.id) {
                return Err(NotNow::BlockerCycle(circle));
            }
            return Err(NotNow::BlockedBy(blocker.identifier.clone(), state.clone()));
        }
        Ok(())
    }

    /// A chain of blockers that leads from `start` back to it, if there is one.
    fn circle_through(&self, start: &IssueId) -> Option<Vec<Identifier>> {
        let mut stack = vec![(start.clone(), vec![])];
        let mut seen = std::collections::BTreeSet::new();
        while let Some((id, mut path)) = stack.pop() {
            let Some(issue) = self.issues.get(&id) else { continue };
            path.push(issue.identifier.clone());
            for next in issue.blocked_by.iter().filter_map(|b| b.id.as_ref()) {
                if next == start {
                    path.push(path[0].clone());
                    return Some(path);
                }
                if seen.insert(next.clone()) {
                    stack.push((next.clone(), path.clone()));
                }
            }
        }
        None
    }

    /// The issues to start now, in order: due retries first (they were claimed first, and a slot
    /// that frees must not pass them by, trap T2), then fresh ones in dispatch order.
    pub(super) fn candidates(&self, now: Tick) -> Vec<IssueId> {
        let mut due: Vec<(Tick, &IssueId)> = self
            .claims
            .iter()
            .filter_map(|(id, claim)| match claim {
                Claim::Waiting { until, .. } if *until <= now => Some((*until, id)),
                _ => None,
            })
            .collect();
        due.sort();
        let mut fresh: Vec<&Issue> = self.issues.values().filter(|i| !self.claims.contains_key(&i.id)).collect();
        fresh.sort_by(|a, b| crate::issue::dispatch_order(a, b));
        due.into_iter().map(|(_, id)| id.clone()).chain(fresh.into_iter().map(|i| i.id.clone())).collect()
    }

    /// Which kind of run would start for `id` now.
    pub(super) fn kind_for(&self, id: &IssueId) -> RetryKind {
        match self.claims.get(id) {
            Some(Claim::Waiting { kind, .. }) => *kind,
            _ => match self.counters.get(id) {
                // A restart released the claim but the journal remembers the failures.
                Some(counters) if counters.failures_in_a_row > 0 => RetryKind::Failure,
                Some(counters) if counters.sessions > counters.granted => RetryKind::Continuation,
                _ => RetryKind::First,
            },
        }
    }
}

/// What an issue needs besides an active state, claims and slots (C98): also checked while it runs.
pub(super) fn routable(issue: &Issue, policy: &Policy) -> Result<(), NotNow> {
    if !issue.dispatchable {
        return Err(NotNow::OnHold);
    }
    let missing =
        policy.required_labels.iter().find(|wanted| wanted.trim().is_empty() || !issue.labels.contains(wanted));
    missing.map_or(Ok(()), |label| Err(NotNow::MissingLabel(label.clone())))
}
