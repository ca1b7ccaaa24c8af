//! What a live run uses while it lives: its turns, its wall time, and when the latter ends.

use super::Board;
use super::ending::StopCause;
use super::words::{Claim, Command};
use crate::budget::{Allowance, Counters};
use crate::ids::{IssueId, RunId, StateName};
use crate::time::Tick;

/// The clock of one run.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Up to here its time is in the counters.
    accounted: Tick,
    /// Since when it waits for a human; meanwhile its clock stands.
    asking: Option<Tick>,
    /// Whether its requests wait for a provider's leave; then its clock stands, too.
    held: bool,
    /// Autonomous turns so far; none while it is still booting.
    turns: u32,
    /// Wall time that is left of the allowance it was dispatched with, in milliseconds, as of `accounted`.
    left_ms: u64,
    /// The state it was dispatched in.
    pub(super) state: StateName,
}

impl Pace {
    pub(super) fn new(now: Tick, allowance: Allowance, state: StateName) -> Self {
        Self { accounted: now, asking: None, held: false, turns: 0, left_ms: allowance.wall_ms, state }
    }

    pub(super) fn is_booting(&self) -> bool {
        self.turns == 0
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    pub(super) fn asking_since(&self) -> Option<Tick> {
        self.asking
    }

    /// Whether its clock stands.
    fn stands(&self) -> bool {
        self.held || self.is_asking()
    }

    /// Whether it was given a turn.
    pub(super) fn has_begun(&self) -> bool {
        self.turns > 0
    }

    fn ends_at(&self) -> Option<Tick> {
        (!self.stands()).then(|| self.accounted.plus_ms(self.left_ms))
    }
}

impl Board {
    /// The counters get what `run` used up to now.
    pub(super) fn account(&mut self, now: Tick, run: RunId) {
        let Some(id) = self.issue_of(run).cloned() else { return };
        let Some(pace) = self.paces.get_mut(&run) else { return };
        let spent = if pace.stands() { 0 } else { now.since(pace.accounted) };
        pace.accounted = pace.accounted.max(now);
        pace.left_ms = pace.left_ms.saturating_sub(spent);
        let used = &mut self.counters_mut(&id).used;
        used.wall_ms = used.wall_ms.saturating_add(spent);
    }

    /// The counters get what all live runs used up to now.
    pub fn count_time(&mut self, now: Tick) {
        let live: Vec<RunId> = self.paces.iter().filter(|(_, pace)| !pace.stands()).map(|(run, _)| *run).collect();
        for run in live {
            self.account(now, run);
        }
    }

    /// The counters of an issue with what its live run has used up to `now`, for readers.
    pub fn counters_at(&self, now: Tick, id: &IssueId) -> Counters {
        let mut counters = self.counters(id);
        let pace = self.claims.get(id).and_then(Claim::run).and_then(|run| self.paces.get(&run));
        if let Some(pace) = pace.filter(|pace| !pace.stands()) {
            counters.used.wall_ms = counters.used.wall_ms.saturating_add(now.since(pace.accounted));
        }
        counters
    }

    pub(super) fn turn_began(&mut self, now: Tick, run: RunId, turns: u32) {
        let Some(id) = self.issue_of(run).cloned() else { return };
        self.account(now, run);
        let Some(pace) = self.paces.get_mut(&run) else { return };
        let more = turns.saturating_sub(pace.turns);
        pace.turns = pace.turns.max(turns);
        let used = &mut self.counters_mut(&id).used;
        used.turns = used.turns.saturating_add(more);
    }

    pub(super) fn asking(&mut self, now: Tick, run: RunId, asking: bool) {
        self.account(now, run);
        if let Some(pace) = self.paces.get_mut(&run) {
            pace.asking = asking.then(|| pace.asking.unwrap_or(now));
        }
    }

    pub(super) fn held(&mut self, now: Tick, run: RunId, held: bool) {
        self.account(now, run);
        if let Some(pace) = self.paces.get_mut(&run) {
            pace.held = held;
        }
    }

    /// The first instant at which a running run has used its wall time.
    pub(super) fn next_deadline(&self) -> Option<Tick> {
        self.running().filter_map(|run| self.paces.get(&run)?.ends_at()).min()
    }

    /// Runs whose wall time is used up are asked to end.
    pub(super) fn enforce_wall_time(&mut self, now: Tick, out: &mut Vec<Command>) {
        let over = |run: &RunId| self.paces.get(run).and_then(Pace::ends_at).is_some_and(|at| at <= now);
        let due: Vec<RunId> = self.running().filter(over).collect();
        for run in due {
            if let Some(id) = self.issue_of(run).cloned() {
                self.stop(&id, run, StopCause::WallTime, out);
            }
        }
    }

    fn running(&self) -> impl Iterator<Item = RunId> {
        self.claims.values().filter_map(|claim| match claim {
            Claim::Running { run } => Some(*run),
            _ => None,
        })
    }
}
