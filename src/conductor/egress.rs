//! Hosts that agents ask for: a person's words about them on their way to the book, and what readers see of it.

use std::collections::BTreeSet;

use symphony_core::egress::Verb;
use symphony_core::ids::{Identifier, IssueId};
use symphony_core::snapshot::{HostCard, HostDecision};
use symphony_core::steering::By;
use symphony_core::workflow::Role;
use tokio::sync::oneshot;

use super::handle::HostError;
use super::{Conductor, Hands};

impl<H: Hands> Conductor<H> {
    pub(super) fn decide_host(&self, card: u64, verb: Verb, by: By, reply: oneshot::Sender<Result<(), HostError>>) {
        let book = self.facts.book.clone();
        self.tasks.spawn(async move {
            let decided = book.decide(card, verb, by).await;
            if let Ok(decision) = &decided {
                tracing::info!(issue_id = %decision.issue, target = %decision.target, verb = verb.as_str(), by = by.as_str(),
                    "a person decided about a host");
            }
            // Who asked may be gone; the word stands.
            let _ = reply.send(decided.map(drop).map_err(HostError::from));
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

    /// What the agents of finished issues asked for waits no longer. Each look asks: a kill may have come between.
    pub(super) fn withdraw_hosts(&self) {
        let (cards, _) = self.facts.book.entries();
        let issues: BTreeSet<IssueId> = cards.into_iter().map(|card| card.issue).collect();
        let state = |id: &IssueId| self.board.issue(id).map(|issue| self.workflow.states.role(&issue.state));
        for issue in issues.into_iter().filter(|id| state(id) == Some(Role::Terminal)) {
            let book = self.facts.book.clone();
            self.tasks.spawn(async move {
                if let Err(error) = book.withdraw(&issue).await {
                    tracing::error!(issue_id = %issue, %error, "hosts that a finished issue asked for could not be withdrawn");
                }
            });
        }
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
