//! Where retrying ends: what an issue has used, what it may use, and the first bound it meets.
//!
//! Owns the counting rules only. Counters outlive claims and, through the journal, the process; an allowance
//! begins anew when a person resumes the issue, lifetime totals stay.

use std::collections::BTreeSet;
use std::fmt;

use crate::board::LastRun;
use crate::ids::StateName;
use crate::workflow::Budget;

/// Things that are counted and only ever grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Runs started.
    pub sessions: u32,
    /// Prompts that no human asked for.
    pub turns: u32,
    /// Time of runs, in milliseconds, without waiting for a human.
    pub wall_ms: u64,
    /// Moves of an agent back into a state the issue had been in.
    pub bounces: u32,
}

/// The counters of one issue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Ever.
    pub used: Used,
    /// `used` when the present allowance began.
    pub granted: Used,
    /// Failed runs, of any kind, since the last one that was none.
    pub failures_in_a_row: u32,
    /// Runs that ended by themselves and left tree and state as they were, since the last one that did not.
    pub unchanged_in_a_row: u32,
    /// States the issue has been in since the allowance began, as far as its agents moved it.
    pub visited: BTreeSet<StateName>,
    /// How the last run ended.
    pub last: Option<LastRun>,
}

/// A bound that can be used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// `budget.sessions`
    Sessions,
    /// `budget.turns`
    Turns,
    /// `budget.wall_ms`
    WallTime,
    /// `budget.bounces`
    Bounces,
}

/// The bound that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// So many failures in a row.
    FailuresInARow(u32),
    /// So many runs in a row changed nothing.
    NoProgress(u32),
    /// So much of an allowance.
    Allowance(Bound, u64),
}

impl Counters {
    /// What the present allowance has used.
    pub fn since_grant(&self) -> Used {
        Used {
            sessions: self.used.sessions.saturating_sub(self.granted.sessions),
            turns: self.used.turns.saturating_sub(self.granted.turns),
            wall_ms: self.used.wall_ms.saturating_sub(self.granted.wall_ms),
            bounces: self.used.bounces.saturating_sub(self.granted.bounces),
        }
    }

    /// Whether a grant would change nothing.
    pub fn is_fresh(&self) -> bool {
        let in_a_row = (self.failures_in_a_row, self.unchanged_in_a_row);
        self.granted == self.used && in_a_row == (0, 0) && self.visited.is_empty()
    }

    /// A new allowance begins: a person decided something about the issue, or it is finished.
    pub fn grant(&mut self) {
        self.granted = self.used;
        self.failures_in_a_row = 0;
        self.unchanged_in_a_row = 0;
        self.visited.clear();
    }

    /// An agent moved the issue. Back into a state it had been in is a bounce.
    pub fn moved(&mut self, from: &StateName, to: &StateName) {
        self.failures_in_a_row = 0;
        self.unchanged_in_a_row = 0;
        self.visited.insert(from.clone());
        if !self.visited.insert(to.clone()) {
            self.used.bounces = self.used.bounces.saturating_add(1);
        }
    }
}

/// The first bound that is met: every retry has one (DESIGN §4, 7).
pub fn exhausted(counters: &Counters, budget: &Budget) -> Option<Exhausted> {
    if counters.failures_in_a_row >= budget.failures_in_a_row {
        return Some(Exhausted::FailuresInARow(counters.failures_in_a_row));
    }
    let used = counters.since_grant();
    let met = [
        (Bound::WallTime, used.wall_ms, budget.wall_ms),
        (Bound::Turns, u64::from(used.turns), u64::from(budget.turns)),
        (Bound::Bounces, u64::from(used.bounces), u64::from(budget.bounces)),
        (Bound::Sessions, u64::from(used.sessions), u64::from(budget.sessions)),
    ];
    if let Some((bound, used, _)) = met.into_iter().find(|(_, used, allowed)| used >= allowed) {
        return Some(Exhausted::Allowance(bound, used));
    }
    (counters.unchanged_in_a_row >= budget.no_progress).then_some(Exhausted::NoProgress(counters.unchanged_in_a_row))
}

/// What one more run may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Prompts that no human asked for.
    pub turns: u32,
    /// Milliseconds, without waiting for a human.
    pub wall_ms: u64,
}

/// What is left of an allowance.
pub fn allowance(counters: &Counters, budget: &Budget) -> Allowance {
    let used = counters.since_grant();
    Allowance { turns: budget.turns.saturating_sub(used.turns), wall_ms: budget.wall_ms.saturating_sub(used.wall_ms) }
}

/// Milliseconds as a person says them: `4 h`, `1 h 30 min`, `20 s`, `250 ms`.
pub struct Spoken(pub u64);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, 0, 0) => write!(f, "{ms} ms"),
            (0, 0, s) => write!(f, "{s} s"),
            (0, min, 0) => write!(f, "{min} min"),
            (0, min, s) => write!(f, "{min} min {s} s"),
            (h, 0, _) => write!(f, "{h} h"),
            (h, min, _) => write!(f, "{h} h {min} min"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget { sessions: 10, turns: 60, failures_in_a_row: 5, wall_ms: 1000, bounces: 2, no_progress: 3 }
    }

    #[test]
    fn each_bound_is_met_exactly_at_its_number() {
        let with = |change: &dyn Fn(&mut Counters)| {
            let mut counters = Counters::default();
            change(&mut counters);
            exhausted(&counters, &budget())
        };
        let met = |bound, used| Some(Exhausted::Allowance(bound, used));
        assert_eq!(with(&|_| {}), None);
        assert_eq!(with(&|c| c.used.sessions = 9), None);
        assert_eq!(with(&|c| c.used.sessions = 10), met(Bound::Sessions, 10));
        assert_eq!(with(&|c| c.used.turns = 59), None);
        assert_eq!(with(&|c| c.used.turns = 60), met(Bound::Turns, 60));
        assert_eq!(with(&|c| c.used.wall_ms = 999), None);
        assert_eq!(with(&|c| c.used.wall_ms = 1000), met(Bound::WallTime, 1000));
        assert_eq!(with(&|c| c.used.bounces = 1), None);
        assert_eq!(with(&|c| c.used.bounces = 2), met(Bound::Bounces, 2));
        assert_eq!(with(&|c| c.failures_in_a_row = 4), None);
        assert_eq!(with(&|c| c.failures_in_a_row = 5), Some(Exhausted::FailuresInARow(5)));
        assert_eq!(with(&|c| c.unchanged_in_a_row = 2), None);
        assert_eq!(with(&|c| c.unchanged_in_a_row = 3), Some(Exhausted::NoProgress(3)));
    }

    #[test]
    fn a_grant_begins_a_new_allowance_and_keeps_the_totals() {
        let mut counters = Counters { failures_in_a_row: 5, unchanged_in_a_row: 3, ..Counters::default() };
        counters.used = Used { sessions: 10, turns: 60, wall_ms: 1000, bounces: 2 };
        counters.grant();
        assert_eq!((exhausted(&counters, &budget()), counters.used.turns), (None, 60));
        assert_eq!(allowance(&counters, &budget()), Allowance { turns: 60, wall_ms: 1000 });
        counters.used.turns += 50;
        counters.used.wall_ms += 400;
        assert_eq!(allowance(&counters, &budget()), Allowance { turns: 10, wall_ms: 600 });
    }

    #[test]
    fn only_a_move_back_is_a_bounce() {
        let state = StateName::new;
        let mut counters = Counters::default();
        for (from, to, bounces) in
            [("Todo", "Review", 0), ("Review", "todo", 1), ("Todo", "Review", 2), ("Review", "Merge", 2)]
        {
            counters.moved(&state(from), &state(to));
            assert_eq!(counters.used.bounces, bounces, "{from} to {to}");
        }
        counters.grant();
        counters.moved(&state("Review"), &state("Todo"));
        assert_eq!(counters.used.bounces, 2, "an allowance forgets where the issue was");
    }

    #[test]
    fn time_is_said_as_people_say_it() {
        let said = |ms| Spoken(ms).to_string();
        assert_eq!(
            [said(14_400_000), said(5_400_000), said(90_000), said(120_000), said(20_000), said(250)],
            ["4 h", "1 h 30 min", "1 min 30 s", "2 min", "20 s", "250 ms"]
        );
    }
}
