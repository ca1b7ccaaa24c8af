//! What a look at the tracker changes, and what it starts.

use std::collections::{BTreeMap, BTreeSet};

use super::dispatch::routable;
use super::ending::StopCause;
use super::pace::Pace;
use super::words::{Claim, Closed, Command, ParkReason, Parked, Plan, Policy};
use super::{Board, EndReason, NotNow, retry};
use crate::budget;
use crate::ids::{IssueId, RunId};
use crate::issue::{Issue, Scan};
use crate::time::Tick;
use crate::workflow::Role;

/// A file that one look did not find is looked for again after this long, before anything is stopped.
const SECOND_LOOK_MS: u64 = 200;
/// Shown on a retry that is due but finds no slot (C116); it changes no counter.
const NO_SLOT: &str = "no available orchestrator slots";

impl Board {
    /// Reconcile first, then dispatch (C89, C91). A failed look stops and releases nothing.
    pub(super) fn poll_ended(
        &mut self,
        now: Tick,
        result: Result<Scan, String>,
        policy: &Policy,
        out: &mut Vec<Command>,
    ) {
        self.look.in_flight = false;
        self.look.ended = now;
        self.look.next = if self.look.again { now } else { now.plus_ms(policy.interval_ms.max(1)) };
        match result {
            Ok(scan) => {
                self.look.ever = true;
                self.look.error = None;
                self.look.failed = 0;
                let this_look = self.look.number;
                self.unconfirmed.retain(|_, look| *look >= this_look);
                self.reconcile(now, scan, policy, out);
                if !self.draining {
                    self.resume(policy, out);
                    self.sweep(policy, out);
                    self.dispatch(now, policy, out);
                }
                let passing = |issue: &Issue| {
                    let verdict = self.verdict(issue, now, policy);
                    matches!(verdict, Err(NotNow::NoMemory { .. } | NotNow::ImageUnclear { .. }))
                };
                let hinders = self.issues.values().any(passing);
                self.look.hindered = if hinders { self.look.hindered.saturating_add(1) } else { 0 };
            }
            Err(message) => {
                self.postpone_due(now, &message, policy);
                self.look.error = Some(message);
                self.look.failed = self.look.failed.saturating_add(1);
            }
        }
    }

    /// Never dispatch blindly: a due retry whose look failed waits another step (C117).
    fn postpone_due(&mut self, now: Tick, message: &str, policy: &Policy) {
        for claim in self.claims.values_mut() {
            if let Claim::Waiting { until, error, .. } = claim
                && *until <= now
            {
                *until = now.plus_ms(retry::backoff_ms(1, policy.max_backoff_ms).max(1));
                *error = Some(format!("retry refresh failed: {message}"));
            }
        }
    }

    fn reconcile(&mut self, now: Tick, scan: Scan, policy: &Policy, out: &mut Vec<Command>) {
        let mut known: BTreeMap<IssueId, Issue> = scan.issues.into_iter().map(|i| (i.id.clone(), i)).collect();
        self.malformed = scan.malformed;
        self.ambiguous = scan.ambiguous;
        self.misses.retain(|id, _| !known.contains_key(id));
        self.unseen.clear();
        let ours: BTreeSet<&IssueId> = self.claims.keys().chain(self.asked.keys()).collect();
        let absent: Vec<IssueId> = ours.into_iter().filter(|id| !known.contains_key(id)).cloned().collect();
        for id in absent {
            // None: the journal knows it, and no look of this process ever found it.
            let issue = self.issues.remove(&id);
            if self.elsewhere.contains(&id) || self.may_be_unreadable(issue.as_ref()) {
                self.misses.remove(&id);
            } else {
                self.not_found(now, &id, out);
            }
            if self.claims.contains_key(&id) || self.asked.contains_key(&id) {
                self.unseen.insert(id.clone());
                known.extend(issue.map(|issue| (id, issue)));
            }
        }
        self.issues = known;
        self.sent_away.retain(|id, _| self.issues.contains_key(id));
        self.misses.retain(|id, _| self.claims.contains_key(id) || self.asked.contains_key(id));
        let claimed: Vec<IssueId> = self.claims.keys().filter(|id| !self.misses.contains_key(id)).cloned().collect();
        for id in claimed {
            self.check_claim(&id, policy, out);
        }
        self.grant_at_rest(policy);
        self.withdraw_at_rest(policy, out);
        // A file that cannot be read just now, perhaps because a person is editing it, stands where it stood.
        let stays =
            |id: &IssueId, role| self.issues.get(id).is_none_or(|issue| policy.states.role(&issue.state) == role);
        self.parked.retain(|id, _| self.claims.contains_key(id) || stays(id, Role::Holding));
        self.swept.retain(|id| self.unconfirmed.contains_key(id) || stays(id, Role::Terminal));
    }

    /// Whoever stands where nobody works was put there by a person, or by us and waits for one: when it comes back, it
    /// begins anew. Also when a kill came between our move and our word to the journal.
    fn grant_at_rest(&mut self, policy: &Policy) {
        let at_rest = |issue: &&Issue| policy.states.role(&issue.state) != Role::Active;
        let known = self.issues.values().filter(at_rest).map(|issue| issue.id.clone());
        let due: Vec<IssueId> = known.filter(|id| !self.claims.contains_key(id) && self.is_certain(id)).collect();
        for id in due {
            self.grant(&id);
        }
    }

    /// Whether the newest good look says where this issue stands. What is known of any other is where it stood once: that
    /// decides nothing, least of all what cannot be undone.
    pub fn is_certain(&self, id: &IssueId) -> bool {
        !self.unconfirmed.contains_key(id) && !self.elsewhere.contains(id) && !self.unseen.contains(id)
    }

    /// Whether the file is there but cannot be read as this issue now: half-saved, or two of a name. What the file of
    /// an issue is called that was never seen, nobody knows: it may be any that cannot be read.
    fn may_be_unreadable(&self, issue: Option<&Issue>) -> bool {
        let Some(issue) = issue else { return !self.malformed.is_empty() || !self.ambiguous.is_empty() };
        let same_file = |path: &str| path.rsplit('/').next() == Some(issue.file_name());
        self.malformed.iter().any(|m| same_file(&m.file))
            || self
                .ambiguous
                .iter()
                .any(|a| a.name == issue.id.0 || a.name == issue.identifier.0 || a.files.iter().any(|f| same_file(f)))
    }

    /// Missing is provisional: a rename can race a look (trap T6), so only one that lasts counts.
    fn not_found(&mut self, now: Tick, id: &IssueId, out: &mut Vec<Command>) {
        let again = self.misses.entry(id.clone()).or_insert(now).plus_ms(SECOND_LOOK_MS);
        if now < again {
            self.look.next = self.look.next.min(again);
            return;
        }
        match self.claims.get(id) {
            Some(Claim::Running { run }) => self.stop(id, *run, StopCause::Missing, out),
            Some(Claim::Waiting { .. } | Claim::Parked { .. }) => {
                self.claims.remove(id);
                self.misses.remove(id);
            }
            Some(Claim::Finishing { .. } | Claim::Stopping { .. } | Claim::Resuming | Claim::Cleaning) | None => {}
        }
        // Nobody is left who could use the answer; a run that lives may still need it.
        if !self.claims.contains_key(id) && self.asked.contains_key(id) {
            self.misses.remove(id);
            self.withdraw(id, out);
        }
    }

    /// We may just have moved the file: a look that began before this says nothing about it.
    pub(super) fn changed_on_disk(&mut self, now: Tick, id: &IssueId) {
        self.unconfirmed.insert(id.clone(), self.look.number);
        self.want_look(now);
    }

    /// Holds one claim against what the disk says now.
    fn check_claim(&mut self, id: &IssueId, policy: &Policy, out: &mut Vec<Command>) {
        if !self.is_certain(id) {
            return;
        }
        let (Some(claim), Some(issue)) = (self.claims.get(id), self.issues.get(id)) else { return };
        let role = policy.states.role(&issue.state);
        let cause = match role {
            Role::Terminal => Some(StopCause::Terminal),
            Role::Holding => Some(StopCause::NotActive),
            Role::Active => routable(issue, policy).is_err().then_some(StopCause::NotRoutable),
        };
        match claim {
            Claim::Running { run } => {
                if let Some(cause) = cause {
                    self.stop(id, *run, cause, out);
                }
            }
            Claim::Waiting { .. } if cause.is_some() => {
                self.claims.remove(id);
            }
            // Once it stands in another state the move happened, whoever made it; while it still
            // stands in an active one after a failed move, a person has to move it.
            Claim::Parked { moved, parked } => match (role, moved) {
                (Role::Active, Some(Ok(()))) | (Role::Terminal, Some(_)) => {
                    self.claims.remove(id);
                }
                (Role::Holding, Some(_)) => {
                    self.parked.insert(id.clone(), parked.clone());
                    self.claims.remove(id);
                }
                (_, None) | (Role::Active, Some(Err(_))) => {}
            },
            Claim::Waiting { .. }
            | Claim::Finishing { .. }
            | Claim::Stopping { .. }
            | Claim::Resuming
            | Claim::Cleaning => {}
        }
    }

    pub(super) fn stop(&mut self, id: &IssueId, run: RunId, cause: StopCause, out: &mut Vec<Command>) {
        self.claims.insert(id.clone(), Claim::Stopping { run, cause });
        out.push(Command::Stop(run, cause));
    }

    /// Workspaces of terminal issues go, each once per stay in a terminal state (C132).
    fn sweep(&mut self, policy: &Policy, out: &mut Vec<Command>) {
        let due: Vec<Issue> = self
            .issues
            .values()
            .filter(|i| policy.states.role(&i.state) == Role::Terminal)
            .filter(|i| !self.claims.contains_key(&i.id) && !self.swept.contains(&i.id))
            .filter(|i| self.is_certain(&i.id))
            .cloned()
            .collect();
        for issue in due {
            self.clean(issue, out);
        }
    }

    pub(super) fn clean(&mut self, issue: Issue, out: &mut Vec<Command>) {
        self.swept.insert(issue.id.clone());
        self.claims.insert(issue.id.clone(), Claim::Cleaning);
        out.push(Command::RemoveWorkspace(Box::new(issue)));
    }

    fn dispatch(&mut self, now: Tick, policy: &Policy, out: &mut Vec<Command>) {
        self.release_due(now, policy, out);
        for id in self.candidates(now) {
            let Some(issue) = self.issues.get(&id) else { continue };
            match self.verdict(issue, now, policy) {
                Ok(()) => self.start(now, issue.clone(), policy, out),
                Err(NotNow::WillPark(reason)) => self.park(&id, reason, out),
                Err(NotNow::NoGlobalSlot(_) | NotNow::NoStateSlot(..)) => {
                    if let Some(Claim::Waiting { error, .. }) = self.claims.get_mut(&id) {
                        *error = Some(NO_SLOT.to_owned());
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Due retries that wait for something else than a slot give theirs up, before anybody else is told that all
    /// are taken. Which kind of run comes next stands in the counters.
    fn release_due(&mut self, now: Tick, policy: &Policy, out: &mut Vec<Command>) {
        for (id, _) in self.due(now) {
            let Some(issue) = self.issues.get(&id) else {
                // Of an earlier process, and no look of this one found it yet.
                self.claims.remove(&id);
                continue;
            };
            match self.verdict(issue, now, policy) {
                Err(NotNow::WillPark(reason)) => self.park(&id, reason, out),
                Err(
                    NotNow::Unseen
                    | NotNow::AwaitingAnswer
                    | NotNow::Spend(_)
                    | NotNow::UnknownProfile { .. }
                    | NotNow::ProfileRefused { .. }
                    | NotNow::ImageMissing { .. }
                    | NotNow::ImageUnclear { .. }
                    | NotNow::ProviderPaused { .. }
                    | NotNow::NoBudgetRoom
                    | NotNow::NoCredit { .. }
                    | NotNow::NoCredential { .. }
                    | NotNow::ModelBarred(_)
                    | NotNow::BlockedBy(..)
                    | NotNow::UnknownBlocker(_)
                    | NotNow::BlockerCancelled(..)
                    | NotNow::BlockerCycle(_)
                    | NotNow::DoubtfulKey(_)
                    | NotNow::Closed(Closed::NoSandbox(_) | Closed::NoSource(_)),
                ) => {
                    self.claims.remove(&id);
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    fn start(&mut self, now: Tick, issue: Issue, policy: &Policy, out: &mut Vec<Command>) {
        let id = issue.id.clone();
        self.sent_away.remove(&id);
        let kind = self.kind_for(&id);
        let counters = self.counters_mut(&id);
        let attempt = retry::attempt(counters, kind);
        let allowance = budget::allowance(counters, &policy.budget);
        counters.used.sessions = counters.used.sessions.saturating_add(1);
        let last = counters.last.clone().filter(|last| last.reason != EndReason::Done);
        let run = RunId(self.next_run);
        self.next_run += 1;
        self.paces.insert(run, Pace::new(now, allowance, issue.state.clone()));
        self.claims.insert(id, Claim::Running { run });
        out.push(Command::Start(Box::new(Plan { run, issue, attempt, kind, last, allowance })));
    }

    /// An issue that was parked over its prompt goes back when there is another prompt, one that was parked over a cap of
    /// tokens or money when there is more, or another day. Nothing else that we parked ever moves by itself: a person decides.
    fn resume(&mut self, policy: &Policy, out: &mut Vec<Command>) {
        if policy.closed.is_some() {
            return;
        }
        let is_over = |id: &IssueId, reason: &ParkReason| match reason {
            ParkReason::Template { prompt, .. } => *prompt != policy.prompt,
            // What would be put aside again at once, or could not start, stays where it is.
            ParkReason::Spend(met) => {
                let spend = &policy.spend;
                spend.is_over(id, met) && spend.shut.is_none() && !spend.issues.contains_key(id)
            }
            _ => false,
        };
        let due: Vec<(IssueId, Parked)> = self
            .parked
            .iter()
            .filter(|(id, parked)| is_over(id, &parked.reason) && !self.claims.contains_key(*id))
            .filter(|(id, _)| self.is_certain(id))
            .map(|(id, parked)| (id.clone(), parked.clone()))
            .collect();
        for (issue, parked) in due {
            let Some(from) = self.state_of(&issue).cloned() else { continue };
            // Where a person put it, it stays; and it goes nowhere that nobody works any more.
            if from != policy.states.parking() || policy.states.role(&parked.from) != Role::Active {
                continue;
            }
            self.claims.insert(issue.clone(), Claim::Resuming);
            out.push(Command::Resume { issue, from, to: parked.from });
        }
    }
}
