//! The scheduler: one struct, one method, no IO, no clock, no logging.
//!
//! [`Board::step`] takes what happened and answers with what to do. Runs start only on a successful
//! look at the tracker, so every dispatch is revalidated against the disk (C105, C112, C117).
//! It contains no synchronisation: one owner, the conductor.

mod asked;
mod dispatch;
mod ending;
mod ends;
mod models;
mod not_now;
mod pace;
mod profiles;
mod reconcile;
pub mod retry;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};

pub use ending::{EndReason, FailureCode, LastRun, Left, RunEnd, RunFailure, StopCause, one_line};
pub use models::{Closures, ModelAccess, NoModel};
pub use not_now::NotNow;
pub use profiles::{Profiles, Refusal, Stock, Stocks, Whose};
pub use words::{Claim, Closed, Command, Due, Event, Memory, ParkReason, Parked, Plan, Policy, RetryKind};

use asked::Open;
use pace::Pace;

use crate::broker::Provider;
use crate::budget::Counters;
use crate::ids::{IssueId, RunId, StateName};
use crate::issue::{Ambiguity, Issue, Malformed};
use crate::spend::Met;
use crate::time::Tick;

/// So many looks in a row that failed, or found no memory for a run, are no passing trouble any more.
const LASTING: u32 = 3;

/// Everything the scheduler knows.
#[derive(Clone, Debug)]
pub struct Board {
    next_run: u64,
    claims: BTreeMap<IssueId, Claim>,
    counters: BTreeMap<IssueId, Counters>,
    /// Issues whose counters changed since somebody asked.
    changed: BTreeSet<IssueId>,
    /// What live runs use while they live.
    paces: BTreeMap<RunId, Pace>,
    /// Caps that requests of live runs met.
    met: BTreeMap<RunId, Met>,
    /// Issues with an open question, and who answers it.
    asked: BTreeMap<IssueId, Open>,
    /// Issues whose newest run ended over a provider that would not answer it, and which.
    sent_away: BTreeMap<IssueId, Provider>,
    /// Why issues that now stand in a holding state were put there.
    parked: BTreeMap<IssueId, Parked>,
    /// As of the newest good look, plus the last known form of claimed issues it did not find.
    issues: BTreeMap<IssueId, Issue>,
    malformed: Vec<Malformed>,
    ambiguous: Vec<Ambiguity>,
    /// Claimed issues that the newest good look did not find, or not as an issue; their last known form is kept.
    unseen: BTreeSet<IssueId>,
    /// Since when good looks do not find an issue that is claimed or has an open question.
    misses: BTreeMap<IssueId, Tick>,
    /// Issues whose file we may have moved since this look began; only a later one counts for them.
    unconfirmed: BTreeMap<IssueId, u64>,
    /// Issues whose live run began in a tracker that is not looked at any more: no look says anything about them.
    elsewhere: BTreeSet<IssueId>,
    /// Terminal issues whose workspace this process already saw off.
    swept: BTreeSet<IssueId>,
    look: Look,
    draining: bool,
}

/// Looks at the tracker: at most one in flight, at most one more wanted.
#[derive(Clone, Debug, Default)]
struct Look {
    in_flight: bool,
    again: bool,
    /// How many looks were begun.
    number: u64,
    /// Whether any look ever succeeded.
    ever: bool,
    /// Looks that failed since the last good one.
    failed: u32,
    /// Good looks in a row after which an issue waited for what the next may see changed: memory, or the sight of an
    /// image.
    hindered: u32,
    next: Tick,
    /// When the newest look ended: due retries up to here were considered.
    ended: Tick,
    error: Option<String>,
}

/// What is left when nothing moves by itself any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Every active issue is finished.
    Finished,
    /// Something waits for a human: parked, proposed, asked, blocked, on hold, ambiguous, malformed.
    NeedsHuman,
}

/// What the journal remembers of earlier processes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// Run numbers start here.
    pub next_run: RunId,
    /// Of every issue that ever ran.
    pub counters: BTreeMap<IssueId, Counters>,
    /// Why issues were put aside.
    pub parked: BTreeMap<IssueId, Parked>,
    /// When issues are tried again.
    pub waiting: BTreeMap<IssueId, Due<Tick>>,
    /// Open questions, and when a default counts as the answer.
    pub asked: BTreeMap<IssueId, Option<Tick>>,
}

impl Board {
    /// A board that knows what was before it.
    pub fn new(past: Past) -> Self {
        let Past { next_run, counters, parked, waiting, asked } = past;
        let waits = |(id, due): (IssueId, Due<Tick>)| {
            let Due { until, kind, error } = due;
            (id, Claim::Waiting { until, kind, error })
        };
        Self {
            next_run: next_run.0,
            // Who waits for an answer waits for nothing else.
            claims: waiting.into_iter().filter(|(id, _)| !asked.contains_key(id)).map(waits).collect(),
            counters,
            changed: BTreeSet::new(),
            paces: BTreeMap::new(),
            met: BTreeMap::new(),
            asked: asked.into_iter().map(|(id, default_at)| (id, Open::until(default_at))).collect(),
            sent_away: BTreeMap::new(),
            parked,
            issues: BTreeMap::new(),
            malformed: Vec::new(),
            ambiguous: Vec::new(),
            unseen: BTreeSet::new(),
            misses: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            elsewhere: BTreeSet::new(),
            swept: BTreeSet::new(),
            look: Look::default(),
            draining: false,
        }
    }

    /// Takes one event, answers with what to do, in order.
    pub fn step(&mut self, now: Tick, event: Event, policy: &Policy) -> Vec<Command> {
        let mut out = Vec::new();
        match event {
            Event::Woke => {}
            Event::LookWanted => self.want_look(now),
            Event::PollEnded(result) => self.poll_ended(now, result, policy, &mut out),
            Event::TrackerChanged => {
                let live = self.claims.iter().filter(|(_, claim)| claim.run().is_some());
                self.elsewhere.extend(live.map(|(id, _)| id.clone()));
            }
            Event::SpendMet(run, met) => self.spend_met(run, met, &mut out),
            Event::RunFinishing(run) => self.finishing(run),
            Event::TurnBegan(run, turns) => self.turn_began(now, run, turns),
            Event::Asked(run, default_at) => {
                if let Some(id) = self.issue_of(run).cloned() {
                    self.asked.insert(id, Open::until(default_at));
                }
            }
            Event::Answered(id) => {
                if self.asked.remove(&id).is_some() {
                    self.want_look(now);
                }
            }
            Event::Asking(run, asking) => self.asking(now, run, asking),
            Event::Held(run, held) => self.held(now, run, held),
            Event::RunEnded(run, end, left) => self.run_ended(now, run, end, left, policy, &mut out),
            Event::ParkEnded(id, result) => self.park_ended(now, &id, result),
            Event::ResumeEnded(id, result) => self.resume_ended(now, &id, result, policy),
            Event::WorkspaceRemoved(id) => {
                if self.claims.get(&id) == Some(&Claim::Cleaning) {
                    self.claims.remove(&id);
                    self.changed_on_disk(now, &id);
                }
            }
            Event::DrainAsked => self.drain(&mut out),
        }
        self.enforce_wall_time(now, &mut out);
        self.enforce_waiting(now, policy, &mut out);
        if self.look_at().is_some_and(|at| at <= now) {
            self.look.in_flight = true;
            self.look.again = false;
            self.look.number += 1;
            out.push(Command::Poll);
        }
        out
    }

    /// When to send [`Event::Woke`]: always later than the step before it. `None` when some other event comes
    /// first: the end of a look in flight, or of the runs that a shutdown waits for.
    pub fn wake_at(&self, policy: &Policy) -> Option<Tick> {
        self.look_at().into_iter().chain(self.next_deadline()).chain(self.next_end_of_waiting(policy)).min()
    }

    /// When the next look begins; `None` while one is in flight and during a shutdown.
    fn look_at(&self) -> Option<Tick> {
        if self.look.in_flight || self.draining {
            return None;
        }
        let due = self.claims.values().filter_map(|claim| match claim {
            // A retry that was due at the newest look and found no slot waits for a run to end
            // or for the next look: asking to be woken "now" for it would spin.
            Claim::Waiting { until, .. } if *until > self.look.ended => Some(*until),
            _ => None,
        });
        due.chain([self.look.next]).min()
    }

    /// Whether a look is already wanted beyond the one in flight.
    pub fn look_is_wanted(&self) -> bool {
        self.look.again || (!self.look.in_flight && self.look.next <= self.look.ended)
    }

    /// Whether a look is in flight.
    pub fn is_looking(&self) -> bool {
        self.look.in_flight
    }

    /// Why the newest look failed, if it did.
    pub fn look_error(&self) -> Option<&str> {
        self.look.error.as_deref()
    }

    /// Whether a shutdown is under way.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Every known issue.
    pub fn issues(&self) -> impl Iterator<Item = &Issue> {
        self.issues.values()
    }

    /// One issue, as last seen.
    pub fn issue(&self, id: &IssueId) -> Option<&Issue> {
        self.issues.get(id)
    }

    /// Every claim.
    pub fn claims(&self) -> impl Iterator<Item = (&IssueId, &Claim)> {
        self.claims.iter()
    }

    /// The issue a live run works on.
    pub fn issue_of(&self, run: RunId) -> Option<&IssueId> {
        self.claims.iter().find(|(_, claim)| claim.run() == Some(run)).map(|(id, _)| id)
    }

    /// The provider over which the newest run of this issue ended, as far as this process saw that.
    pub fn sent_away(&self, id: &IssueId) -> Option<Provider> {
        self.sent_away.get(id).copied()
    }

    /// The counters of an issue, to be kept by the journal.
    pub fn counters(&self, id: &IssueId) -> Counters {
        self.counters.get(id).cloned().unwrap_or_default()
    }

    /// The issues whose counters changed since the last call: what the journal has to learn.
    pub fn take_changed(&mut self) -> BTreeSet<IssueId> {
        std::mem::take(&mut self.changed)
    }

    /// The counters of an issue, to be changed.
    fn counters_mut(&mut self, id: &IssueId) -> &mut Counters {
        self.changed.insert(id.clone());
        self.counters.entry(id.clone()).or_default()
    }

    /// Files of the newest good look that are not issues.
    pub fn malformed(&self) -> &[Malformed] {
        &self.malformed
    }

    /// Names of the newest good look that stand in several files.
    pub fn ambiguous(&self) -> &[Ambiguity] {
        &self.ambiguous
    }

    /// Whether anything will still happen without a person, and if not, what is left.
    pub fn settled(&self, now: Tick, policy: &Policy) -> Option<Settled> {
        let resting = |(id, claim): (&IssueId, &Claim)| match claim {
            Claim::Parked { moved, .. } => moved.is_some(),
            Claim::Running { run } => self.paces.get(run).is_some_and(Pace::is_asking) && self.is_up_to_a_human(id),
            Claim::Finishing { .. }
            | Claim::Stopping { .. }
            | Claim::Waiting { .. }
            | Claim::Resuming
            | Claim::Cleaning => false,
        };
        // One failed look says nothing; several say that only a person can mend what fails.
        let blind = self.look.failed >= LASTING;
        // So does a file that was not found once: another look will tell.
        let undecided = (!self.look.ever || self.look.failed > 0 || !self.misses.is_empty()) && !blind;
        if undecided || self.look.in_flight || self.look.again || !self.claims.iter().all(resting) {
            return None;
        }
        let mut left = !self.ambiguous.is_empty() || !self.malformed.is_empty() || self.look.error.is_some();
        for issue in self.issues.values() {
            match self.verdict(issue, now, policy) {
                // A wait of a provider ends by itself, too, and so do requests.
                Ok(())
                | Err(
                    NotNow::WillPark(_)
                    | NotNow::ProviderPaused { .. }
                    | NotNow::NoBudgetRoom
                    | NotNow::Closed(Closed::TryingSandbox(_)),
                ) if !blind => {
                    return None;
                }
                // The default answer comes by itself.
                Err(NotNow::AwaitingAnswer) if !blind && !self.is_up_to_a_human(&issue.id) => return None,
                Err(NotNow::NoMemory { .. } | NotNow::ImageUnclear { .. }) if self.look.hindered < LASTING => {
                    return None;
                }
                // Proposed by an agent, and nobody decided yet.
                Err(NotNow::Holding) if issue.proposed_by.is_some() && self.counters(&issue.id).used.sessions == 0 => {
                    left = true;
                }
                Err(NotNow::Terminal | NotNow::Holding | NotNow::MissingLabel(_)) => {}
                Ok(()) | Err(_) => left = true,
            }
        }
        Some(if left { Settled::NeedsHuman } else { Settled::Finished })
    }

    fn want_look(&mut self, now: Tick) {
        if self.look.in_flight {
            self.look.again = true;
        } else {
            self.look.next = now;
        }
    }

    fn state_of(&self, id: &IssueId) -> Option<&StateName> {
        self.issues.get(id).map(|issue| &issue.state)
    }
}
