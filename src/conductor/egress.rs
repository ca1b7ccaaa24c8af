//! Hosts that agents ask for: a person's words about them on their way to the book, and what readers see of it.

use std::collections::BTreeSet;

use symphony_core::egress::{Decision, Verb};
use symphony_core::ids::{Identifier, IssueId};
use symphony_core::snapshot::{HostCard, HostDecision};
use symphony_core::steering::By;
use symphony_core::workflow::Role;
use tokio::sync::oneshot;

use super::handle::{About, HostError};
use super::{Conductor, Hands};

impl<H: Hands> Conductor<H> {
    pub(super) fn decide_host(
        &self,
        about: About,
        verb: Verb,
        by: By,
        reply: oneshot::Sender<Result<Decision, HostError>>,
    ) {
        let book = self.facts.book.clone();
        self.tasks.spawn(async move {
            let decided = match about {
                About::Card(card) => book.decide(card, verb, by).await,
                About::Named(named) => book.redecide(&named, verb, by).await,
            };
            if let Ok(decision) = &decided {
                tracing::info!(issue_id = %decision.issue, target = %decision.target, verb = verb.as_str(), by = by.as_str(),
                    "a person decided about a host");
            }
            // Who asked may be gone; the word stands.
            let _ = reply.send(decided.map_err(HostError::from));
        });
    }

    pub(super) fn forget_host(&self, decision: u64, reply: oneshot::Sender<Result<(), HostError>>) {
        let book = self.facts.book.clone();
        self.tasks.spawn(async move {
            let forgotten = book.forget(decision).await;
            if let Ok(decision) = &forgotten {
                tracing::info!(issue_id = %decision.issue, target = %decision.target, "a decision about a host was taken back");
            }
            let _ = reply.send(forgotten.map(drop).map_err(HostError::from));
        });
    }

    /// What the agents of finished issues asked for waits no longer, nor what those asked whose file is gone: two good looks in
    /// a row did not know it. Each look asks: a kill may have come between.
    pub(super) fn withdraw_hosts(&mut self) {
        let (cards, _) = self.facts.book.entries();
        let issues: BTreeSet<IssueId> = cards.into_iter().map(|card| card.issue).collect();
        let state = |id: &IssueId| self.board.issue(id).map(|issue| self.workflow.states.role(&issue.state));
        let mut over: BTreeSet<IssueId> = issues
            .iter()
            .filter(|id| state(id) == Some(Role::Terminal) && self.board.is_certain(id))
            .cloned()
            .collect();
        let strays: BTreeSet<IssueId> = issues.into_iter().filter(|id| self.is_stray(id)).collect();
        over.extend(strays.intersection(&self.strays).cloned());
        self.strays = strays;
        for issue in over {
            let book = self.facts.book.clone();
            self.tasks.spawn(async move {
                if let Err(error) = book.withdraw(&issue).await {
                    tracing::error!(issue_id = %issue, %error, "hosts that an issue asked for could not be withdrawn");
                }
            });
        }
    }

    /// Whether nothing is known of an issue any more. A file that cannot be read, or one of several of a name, may be its own.
    fn is_stray(&self, id: &IssueId) -> bool {
        let may_be_there = !self.board.malformed().is_empty() || !self.board.ambiguous().is_empty();
        let is_claimed = self.board.claims().any(|(claimed, _)| claimed == id);
        let waits = self.questions.contains_key(id) || self.live.values().any(|live| live.issue.id == *id);
        self.board.issue(id).is_none() && !may_be_there && !is_claimed && !waits
    }

    pub(super) fn hosts(&self) -> (Vec<HostCard>, Vec<HostDecision>) {
        let (cards, decisions) = self.facts.book.entries();
        let cards = cards.into_iter().map(|card| {
            let (identifier, title) = self.name_of(&card.issue);
            HostCard { card, identifier, title }
        });
        let decisions = decisions.into_iter().map(|decision| {
            let (identifier, _) = self.name_of(&decision.issue);
            HostDecision { decision, identifier }
        });
        (cards.collect(), decisions.collect())
    }

    /// As a person knows it; by its id where its file is gone.
    fn name_of(&self, id: &IssueId) -> (Identifier, String) {
        let issue =
            self.board.issue(id).or_else(|| self.live.values().map(|live| &live.issue).find(|issue| issue.id == *id));
        issue.map_or_else(
            || (Identifier(id.0.clone()), String::new()),
            |issue| (issue.identifier.clone(), issue.title.clone()),
        )
    }
}
