//! Questions that wait for a human: how long a run waits with them, when a default answers them, and when nobody
//! needs the answer any more.

use super::Board;
use super::ending::StopCause;
use super::words::{Claim, Command, Due, Policy};
use crate::ids::{IssueId, RunId};
use crate::time::Tick;
use crate::workflow::Role;

/// Who answers an open question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// Only a human.
    Human,
    /// A human, or from this instant on the default.
    Until(Tick),
    /// The default was asked for, once, and is on its way.
    Defaulted,
}

impl Open {
    pub(super) fn until(default_at: Option<Tick>) -> Self {
        default_at.map_or(Self::Human, Self::Until)
    }

    fn default_at(self) -> Option<Tick> {
        match self {
            Self::Until(at) => Some(at),
            Self::Human | Self::Defaulted => None,
        }
    }
}

impl Board {
    /// Whether the question of this issue is open.
    pub fn is_asked(&self, id: &IssueId) -> bool {
        self.asked.contains_key(id)
    }

    /// Whether it has an open question that nobody but a human answers.
    pub(super) fn is_up_to_a_human(&self, id: &IssueId) -> bool {
        self.asked.get(id) == Some(&Open::Human)
    }

    /// When this issue is tried again by itself, for the journal.
    pub fn due_of(&self, id: &IssueId) -> Option<Due<Tick>> {
        match self.claims.get(id) {
            Some(Claim::Waiting { until, kind, error }) => {
                Some(Due { until: *until, kind: *kind, error: error.clone() })
            }
            _ => None,
        }
    }

    /// Running runs that wait for a human, and when each has waited long enough.
    fn waits(&self, policy: &Policy) -> impl Iterator<Item = (RunId, Tick)> {
        let after = policy.release_after_ms;
        self.claims.values().filter_map(move |claim| match claim {
            Claim::Running { run } => {
                let since = self.paces.get(run)?.asking_since()?;
                Some((*run, since.plus_ms(after)))
            }
            _ => None,
        })
    }

    /// The next instant at which somebody has waited long enough.
    pub(super) fn next_end_of_waiting(&self, policy: &Policy) -> Option<Tick> {
        let defaults = self.asked.values().filter_map(|open| open.default_at());
        self.waits(policy).map(|(_, at)| at).chain(defaults).min()
    }

    /// Who has waited long enough gives its slot and its sandbox back; a question whose time is over gets its default.
    pub(super) fn enforce_waiting(&mut self, now: Tick, policy: &Policy, out: &mut Vec<Command>) {
        for (id, open) in &mut self.asked {
            if open.default_at().is_some_and(|at| at <= now) {
                *open = Open::Defaulted;
                out.push(Command::AnswerByDefault(id.clone()));
            }
        }
        let over: Vec<RunId> = self.waits(policy).filter(|(_, at)| *at <= now).map(|(run, _)| run).collect();
        for run in over {
            if let Some(id) = self.issue_of(run).cloned() {
                self.stop(&id, run, StopCause::Released, out);
            }
        }
    }

    /// Nobody needs the answer any more.
    pub(super) fn withdraw(&mut self, id: &IssueId, out: &mut Vec<Command>) {
        if self.asked.remove(id).is_some() {
            out.push(Command::Withdraw(id.clone()));
        }
    }

    /// Where nobody works, nobody waits for an answer: whoever put the issue there, a person takes it from there.
    pub(super) fn withdraw_at_rest(&mut self, policy: &Policy, out: &mut Vec<Command>) {
        let at_rest = |id: &&IssueId| {
            let role = self.state_of(id).map(|state| policy.states.role(state));
            role.is_some_and(|role| role != Role::Active) && !self.claims.contains_key(*id) && self.is_certain(id)
        };
        let due: Vec<IssueId> = self.asked.keys().filter(at_rest).cloned().collect();
        for id in due {
            self.withdraw(&id, out);
        }
    }
}
