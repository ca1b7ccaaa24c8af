//! What the end of a run, of a move or of the program changes.

use super::ending::{FailureCode, LastRun, Left, RunEnd, StopCause};
use super::pace::Pace;
use super::words::{Claim, Command, ParkReason, Parked, Policy, RetryKind};
use super::{Board, EndReason, retry};
use crate::budget::{self, Bound, Exhausted};
use crate::ids::{IssueId, RunId};
use crate::spend::Met;
use crate::time::Tick;
use crate::workflow::Role;

impl Board {
    pub(super) fn finishing(&mut self, run: RunId) {
        for claim in self.claims.values_mut() {
            // An operator's stop wins over the agent's word that it is done.
            if *claim == (Claim::Running { run }) {
                *claim = Claim::Finishing { run };
            }
        }
    }

    pub(super) fn run_ended(
        &mut self,
        now: Tick,
        run: RunId,
        end: RunEnd,
        left: Option<Left>,
        policy: &Policy,
        out: &mut Vec<Command>,
    ) {
        // A report of a run the board does not own any more changes nothing: it is late.
        let Some(id) = self.issue_of(run).cloned() else { return };
        self.account(now, run);
        let pace = self.paces.remove(&run);
        let had_a_turn = pace.as_ref().is_some_and(Pace::has_begun);
        let began_in = pace.map(|pace| pace.state);
        let met = self.met.remove(&run);
        let asked = match self.claims.remove(&id) {
            Some(Claim::Stopping { cause, .. }) => Some(self.outranked(&id, cause, policy)),
            _ => None,
        };
        let end = match (asked, end) {
            // We asked it to end: how it broke on the way is no failure, and where a person put the issue stands.
            (Some(cause), RunEnd::Failed(_) | RunEnd::TurnsUsed | RunEnd::Stopped(_)) => RunEnd::Stopped(cause),
            (Some(cause), RunEnd::NeedsHuman(_)) if !matches!(cause, StopCause::WallTime | StopCause::Spend) => {
                RunEnd::Stopped(cause)
            }
            (_, end) => end,
        };
        self.changed_on_disk(now, &id);
        // Its file is not where we look now: nothing can be retried or parked there.
        let elsewhere = self.elsewhere.remove(&id);
        if let (RunEnd::Moved(to), false, Some(issue)) = (&end, elsewhere, self.issues.get_mut(&id)) {
            issue.state = to.clone();
        }
        let stood_still = left.is_some_and(|left| !left.changed) && began_in.as_ref() == self.state_of(&id);
        if matches!(end, RunEnd::Done | RunEnd::Moved(_)) {
            self.withdraw(&id, out);
        }
        // Its file is not where we look now: no run of ours could take the answer.
        if elsewhere {
            self.withdraw(&id, out);
        }
        let counters = self.counters_mut(&id);
        match (&end, &began_in) {
            (RunEnd::Moved(to), Some(from)) => counters.moved(from, to),
            (RunEnd::TurnsUsed, _) => {
                counters.failures_in_a_row = 0;
                counters.unchanged_in_a_row =
                    if stood_still { counters.unchanged_in_a_row.saturating_add(1) } else { 0 };
            }
            // The journal's trouble is not the issue's: nobody is put aside for a full disk.
            (RunEnd::Failed(failure), _) if failure.code == FailureCode::Journal => {
                counters.granted.sessions = counters.granted.sessions.saturating_add(1);
            }
            (RunEnd::Failed(_), _) => counters.failures_in_a_row = counters.failures_in_a_row.saturating_add(1),
            _ => {}
        }
        let reason = match (&end, budget::exhausted(counters, &policy.budget)) {
            (RunEnd::TurnsUsed, Some(Exhausted::Allowance(Bound::Turns, _))) => EndReason::BudgetTurns,
            _ => end.reason(),
        };
        counters.last = Some(LastRun::of(reason, &end, left.as_ref()));
        if let RunEnd::Stopped(StopCause::ProviderPaused(provider) | StopCause::ProviderLogin(provider)) = &end {
            self.sent_away.insert(id.clone(), *provider);
        }
        if elsewhere && end != RunEnd::Done {
            return;
        }
        // A person took it out of work while the run was stopped or handed off: that stands, and grants anew.
        let taken = self.state_of(&id).is_some_and(|state| policy.states.role(state) != Role::Active);
        if taken || matches!(end, RunEnd::Stopped(StopCause::Terminal | StopCause::NotActive)) {
            self.withdraw(&id, out);
        }
        match end {
            RunEnd::TurnsUsed | RunEnd::Failed(_) | RunEnd::NeedsHuman(_) | RunEnd::Stopped(StopCause::Spend)
                if taken =>
            {
                self.grant(&id);
            }
            RunEnd::Done | RunEnd::Stopped(StopCause::Terminal) => {
                self.grant(&id);
                self.clean_known(&id, out);
            }
            RunEnd::Moved(to) => match policy.states.role(&to) {
                Role::Terminal => {
                    self.grant(&id);
                    self.clean_known(&id, out);
                }
                Role::Holding => self.grant(&id),
                // The next look finds it in its new state.
                Role::Active => {}
            },
            RunEnd::TurnsUsed | RunEnd::Stopped(StopCause::WallTime) => {
                self.wait(now, &id, RetryKind::Continuation, None, policy, out);
            }
            RunEnd::Stopped(StopCause::Spend) => {
                if let Some(met) = met {
                    self.park(&id, ParkReason::Spend(met), out);
                }
            }
            RunEnd::Failed(failure) => {
                let error = format!("{}: {}", failure.code, failure.message);
                self.wait(now, &id, RetryKind::Failure, Some(error), policy, out);
            }
            RunEnd::NeedsHuman(reason) => self.park(&id, reason, out),
            RunEnd::Stopped(StopCause::NotActive | StopCause::NotRoutable) | RunEnd::NoLongerActive => self.grant(&id),
            // Our own stopping uses up nothing of the issue's allowance of runs, nor does waiting for a human.
            RunEnd::Stopped(StopCause::Drain | StopCause::Released) => {
                let granted = &mut self.counters_mut(&id).granted;
                granted.sessions = granted.sessions.saturating_add(1);
            }
            // Nor does a provider that would not answer, or a budget without room beside others: neither the run nor the
            // turn it could not finish. Its time is counted, so even this has an end.
            RunEnd::Stopped(StopCause::ProviderPaused(_) | StopCause::ProviderLogin(_) | StopCause::BudgetBusy) => {
                let granted = &mut self.counters_mut(&id).granted;
                granted.sessions = granted.sessions.saturating_add(1);
                granted.turns = granted.turns.saturating_add(u32::from(had_a_turn));
            }
            RunEnd::Stopped(StopCause::Missing) => {}
        }
    }

    /// What a person did with the issue meanwhile outranks our own reason to stop its run.
    fn outranked(&self, id: &IssueId, cause: StopCause, policy: &Policy) -> StopCause {
        match (cause, self.state_of(id).map(|state| policy.states.role(state))) {
            (StopCause::WallTime | StopCause::Spend | StopCause::Released, Some(Role::Terminal)) => StopCause::Terminal,
            (StopCause::WallTime | StopCause::Spend | StopCause::Released, Some(Role::Holding)) => StopCause::NotActive,
            _ => cause,
        }
    }

    /// A person decided something about the issue, or it is finished: a new allowance begins.
    pub(super) fn grant(&mut self, id: &IssueId) {
        if self.counters.get(id).is_some_and(|counters| !counters.is_fresh()) {
            self.counters_mut(id).grant();
        }
    }

    fn clean_known(&mut self, id: &IssueId, out: &mut Vec<Command>) {
        if let Some(issue) = self.issues.get(id).cloned() {
            self.clean(issue, out);
        }
    }

    fn wait(
        &mut self,
        now: Tick,
        id: &IssueId,
        kind: RetryKind,
        error: Option<String>,
        policy: &Policy,
        out: &mut Vec<Command>,
    ) {
        if let Some(reason) = self.used_up(id, policy) {
            if !self.draining {
                self.park(id, reason, out);
            }
            return;
        }
        // The answer brings it forward, and nothing before that: until then it neither is due nor keeps a slot.
        if self.is_asked(id) {
            return;
        }
        let delay = match kind {
            RetryKind::Failure => retry::backoff_ms(self.counters(id).failures_in_a_row, policy.max_backoff_ms),
            RetryKind::First | RetryKind::Continuation => retry::CONTINUATION_MS,
        };
        self.claims.insert(id.clone(), Claim::Waiting { until: now.plus_ms(delay.max(1)), kind, error });
    }

    /// Parking moves the file, so it survives a restart; the allowance after it is a fresh one, because only a
    /// person brings the issue back (DESIGN §6). It begins once the file has moved: a kill before that must grant nothing.
    pub(super) fn park(&mut self, id: &IssueId, reason: ParkReason, out: &mut Vec<Command>) {
        let Some(issue) = self.issues.get(id) else { return };
        let from = issue.state.clone();
        out.push(Command::Park { issue: id.clone(), from: from.clone(), reason: reason.clone() });
        self.claims.insert(id.clone(), Claim::Parked { parked: Parked { reason, from }, moved: None });
    }

    pub(super) fn park_ended(&mut self, now: Tick, id: &IssueId, result: Result<(), String>) {
        if let Some(Claim::Parked { moved, .. }) = self.claims.get_mut(id) {
            let done = result.is_ok();
            *moved = Some(result);
            if done {
                self.grant(id);
            }
            self.changed_on_disk(now, id);
        }
    }

    /// A move that failed is not tried again before the next change of the prompt.
    pub(super) fn resume_ended(&mut self, now: Tick, id: &IssueId, result: Result<(), String>, policy: &Policy) {
        if self.claims.get(id) != Some(&Claim::Resuming) {
            return;
        }
        self.claims.remove(id);
        self.changed_on_disk(now, id);
        match (result, self.parked.get_mut(id)) {
            (Err(_), Some(Parked { reason: ParkReason::Template { prompt, .. }, .. })) => {
                prompt.clone_from(&policy.prompt);
            }
            (Err(_), Some(Parked { reason: ParkReason::Spend(met), .. })) => *met = policy.spend.renewed(id, met),
            _ => self.grant(id),
        }
    }

    /// Its next request would be refused too: the run ends, and what it did is kept. Nobody failed.
    pub(super) fn spend_met(&mut self, run: RunId, met: Met, out: &mut Vec<Command>) {
        let Some(id) = self.issue_of(run).cloned() else { return };
        // One that hands its work off needs no model any more.
        if self.claims.get(&id) == Some(&Claim::Running { run }) {
            self.met.insert(run, met);
            self.stop(&id, run, StopCause::Spend, out);
        }
    }

    pub(super) fn drain(&mut self, out: &mut Vec<Command>) {
        self.draining = true;
        let running: Vec<(IssueId, RunId)> = self
            .claims
            .iter()
            .filter_map(|(id, claim)| match claim {
                Claim::Running { run } => Some((id.clone(), *run)),
                _ => None,
            })
            .collect();
        for (id, run) in running {
            self.stop(&id, run, StopCause::Drain, out);
        }
    }
}
