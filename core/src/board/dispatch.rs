//! Who may start now. One function answers; the dashboard, the log and the dispatcher all ask it.

use super::not_now::NotNow;
use super::words::{Claim, ParkReason, Policy, RetryKind};
use super::{Board, EndReason};
use crate::budget::{self, Counters};
use crate::ids::{Identifier, IssueId, StateName};
use crate::issue::Issue;
use crate::time::Tick;
use crate::workflow::{OnBlockerCancelled, Role};

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
            Some(Claim::Parked { parked, moved }) => {
                let trouble = moved.as_ref().and_then(|moved| moved.clone().err());
                return Err(NotNow::Parked(parked.clone(), trouble));
            }
            Some(Claim::Resuming) => return Err(NotNow::Resuming),
            Some(Claim::Cleaning) => return Err(NotNow::Cleaning),
            Some(Claim::Waiting { .. }) | None => {}
        }
        if self.unconfirmed.contains_key(&issue.id) {
            return Err(NotNow::Unconfirmed);
        }
        if self.unseen.contains(&issue.id) {
            return Err(NotNow::Unseen);
        }
        match policy.states.role(&issue.state) {
            Role::Active => {}
            Role::Terminal => return Err(NotNow::Terminal),
            Role::Holding => {
                let parked = self.parked.get(&issue.id);
                return Err(parked.map_or(NotNow::Holding, |parked| NotNow::Parked(parked.clone(), None)));
            }
        }
        routable(issue, policy)?;
        // Only of what would start: nobody knows what was meant, and a run under way is not stopped over it.
        if let Some(odd) = issue.doubt() {
            return Err(NotNow::DoubtfulKey(odd.message.clone()));
        }
        if self.asked.contains_key(&issue.id) {
            return Err(NotNow::AwaitingAnswer);
        }
        policy.profiles.admit(issue)?;
        let cancelled = self.unblocked(issue, policy)?;
        if self.draining {
            return Err(NotNow::Draining);
        }
        if let Some(closed) = &policy.closed {
            return Err(NotNow::Closed(closed.clone()));
        }
        if let Some(met) = policy.spend.shut.filter(|_| !policy.spend.modelless.contains(&issue.state)) {
            return Err(NotNow::Spend(met));
        }
        if let Some(reason) = cancelled.or_else(|| self.used_up(&issue.id, policy)) {
            return Err(NotNow::WillPark(reason));
        }
        policy.models.admit(&issue.state, self.sent_away(&issue.id))?;
        let needs_model = !policy.spend.modelless.contains(&issue.state);
        if let Some(met) = policy.spend.issues.get(&issue.id).filter(|_| needs_model) {
            return Err(NotNow::WillPark(ParkReason::Spend(*met)));
        }
        if needs_model && policy.spend.crowded_out.contains(&issue.id) {
            return Err(NotNow::NoBudgetRoom);
        }
        if let Some(Claim::Waiting { until, .. }) = self.claims.get(&issue.id)
            && *until > now
        {
            return Err(NotNow::BackingOff(*until));
        }
        self.slot_for(issue, policy)
    }

    /// A continuation uses the slot its claim holds: only live runs can be in its way, when there are fewer slots
    /// than before. Everything else needs a free one.
    fn slot_for(&self, issue: &Issue, policy: &Policy) -> Result<(), NotNow> {
        let holds_one = self.claims.get(&issue.id).is_some_and(Claim::holds_slot);
        let others = |state: Option<&StateName>| {
            let count = self
                .claims
                .iter()
                .filter(|(id, claim)| **id != issue.id && claim.holds_slot() && (!holds_one || claim.run().is_some()))
                .filter(|(id, _)| state.is_none_or(|wanted| self.state_of(id).is_some_and(|found| found == wanted)))
                .count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        if others(None) >= policy.max_concurrent {
            return Err(NotNow::NoGlobalSlot(policy.max_concurrent));
        }
        let limit = policy.states.rules.get(&issue.state).and_then(|rule| rule.max_concurrent);
        if let Some(limit) = limit.filter(|limit| others(Some(&issue.state)) >= *limit) {
            return Err(NotNow::NoStateSlot(issue.state.clone(), limit));
        }
        self.memory_for_one_more(policy)
    }

    /// Runs that were started and have not spoken yet will still take what they need, so it is set aside for them.
    fn memory_for_one_more(&self, policy: &Policy) -> Result<(), NotNow> {
        let Some(memory) = policy.memory else { return Ok(()) };
        let booting = u32::try_from(self.paces.values().filter(|pace| pace.is_booting()).count()).unwrap_or(u32::MAX);
        let wanted = memory.needed_mib.saturating_mul(u64::from(booting).saturating_add(1));
        if memory.available_mib >= wanted {
            return Ok(());
        }
        Err(NotNow::NoMemory { needed_mib: memory.needed_mib, available_mib: memory.available_mib, booting })
    }

    /// The bound that this issue has met, if any.
    pub(super) fn used_up(&self, id: &IssueId, policy: &Policy) -> Option<ParkReason> {
        let counters = self.counters.get(id)?;
        budget::exhausted(counters, &policy.budget).map(|met| ParkReason::of(met, counters.last.as_ref()))
    }

    /// `blocked_by` gates dispatch in every active state (DESIGN §6). A blocker that was cancelled may be a reason
    /// to park, which is answered only when nothing else is in the way.
    fn unblocked(&self, issue: &Issue, policy: &Policy) -> Result<Option<ParkReason>, NotNow> {
        let mut to_park = None;
        for blocker in &issue.blocked_by {
            let Some(state) = &blocker.state else {
                return Err(NotNow::UnknownBlocker(blocker.identifier.clone()));
            };
            if policy.states.role(state) == Role::Terminal {
                match policy.on_blocker_cancelled {
                    _ if !policy.states.is_cancelled(state) => {}
                    OnBlockerCancelled::Unblock => {}
                    OnBlockerCancelled::Wait => {
                        return Err(NotNow::BlockerCancelled(blocker.identifier.clone(), state.clone()));
                    }
                    OnBlockerCancelled::Park => {
                        let (blocker, state) = (blocker.identifier.clone(), state.clone());
                        to_park = to_park.or(Some(ParkReason::BlockerCancelled { blocker, state }));
                    }
                }
                continue;
            }
            if let Some(circle) = self.circle_through(&issue.id) {
                return Err(NotNow::BlockerCycle(circle));
            }
            return Err(NotNow::BlockedBy(blocker.identifier.clone(), state.clone()));
        }
        Ok(to_park)
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
        let mut fresh: Vec<&Issue> = self.issues.values().filter(|i| !self.claims.contains_key(&i.id)).collect();
        fresh.sort_by(|a, b| crate::issue::dispatch_order(a, b));
        let due = self.due(now).into_iter().map(|(id, _)| id);
        due.chain(fresh.into_iter().map(|i| i.id.clone())).collect()
    }

    /// Retries whose time has come, the longest waiting first.
    pub(super) fn due(&self, now: Tick) -> Vec<(IssueId, Tick)> {
        let waits = |(id, claim): (&IssueId, &Claim)| match claim {
            Claim::Waiting { until, .. } if *until <= now => Some((id.clone(), *until)),
            _ => None,
        };
        let mut due: Vec<(IssueId, Tick)> = self.claims.iter().filter_map(waits).collect();
        due.sort_by_key(|(_, until)| *until);
        due
    }

    /// Which kind of run would start for `id` now.
    pub(super) fn kind_for(&self, id: &IssueId) -> RetryKind {
        match self.claims.get(id) {
            Some(Claim::Waiting { kind, .. }) => *kind,
            _ => match self.counters.get(id) {
                // A restart released the claim but the journal remembers the failures.
                Some(counters) if counters.failures_in_a_row > 0 => RetryKind::Failure,
                // Handed on: the first run in its new state.
                Some(counters) if counters.last.as_ref().is_some_and(|last| last.reason == EndReason::Moved) => {
                    RetryKind::First
                }
                Some(counters) if counters.since_grant().sessions > 0 || was_released(counters) => {
                    RetryKind::Continuation
                }
                _ => RetryKind::First,
            },
        }
    }
}

/// Whether its last run gave its slot back while it waited, for a human, a provider or room in a budget, which is charged
/// to nobody, and no person decided anything since.
fn was_released(counters: &Counters) -> bool {
    let since = counters.since_grant();
    match counters.last.as_ref().map(|last| last.reason) {
        Some(EndReason::AwaitingAnswer) => since.turns > 0,
        // The turn that it could not finish is not charged either, but its time is.
        Some(EndReason::ProviderPaused | EndReason::ProviderLogin | EndReason::BudgetBusy) => since.wall_ms > 0,
        _ => false,
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
