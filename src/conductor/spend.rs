//! Budgets in tokens and money: a run that met one is told to the board, and a person raises one, for an issue that was put
//! aside or waits for it.

use symphony_core::board::{Event, NotNow, ParkReason, Parked};
use symphony_core::ids::{Identifier, IssueId, RunId};
use symphony_core::snapshot::Spent;
use symphony_core::spend::{Amount, Met, Raise, Raising};
use symphony_core::steering::By;
use tokio::sync::oneshot;

use super::handle::{RaiseError, Raised, SeenCap};
use super::{Conductor, Hands, Message};
use crate::metering::Unraised;

impl<H: Hands> Conductor<H> {
    /// A request of this run did not fit.
    pub(super) fn spend_met(&mut self, run: RunId, met: Met) {
        let Some(live) = self.live.get(&run) else { return };
        tracing::warn!(issue_id = %live.issue.id, issue_identifier = %live.issue.identifier, run_id = run.0, %met,
            "a budget is used up; the run ends and its work is kept");
        self.step(Event::SpendMet(run, met));
    }

    /// What an issue and its live run used of models.
    pub(super) fn with_spend(&self, mut spent: Spent, issue: &IssueId, run: Option<RunId>) -> Spent {
        self.metering.tell(&mut spent, issue, run);
        spent
    }

    /// More is allowed once the journal holds it; the next look brings back what waited for it.
    pub(super) fn raise(
        &self,
        identifier: Identifier,
        amount: &str,
        seen: &SeenCap,
        by: By,
        reply: oneshot::Sender<Result<Raised, RaiseError>>,
    ) {
        let (issue, met, amount) = match self.raising(&identifier, amount, seen) {
            Ok(raising) => raising,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let (metering, to_self) = (self.metering.clone(), self.to_self.clone());
        let place = metering.place_of(&issue, &met);
        self.tasks.spawn(async move {
            let raise = Raise { place, unit: met.unit, by: amount };
            let raised = metering.raise(raise, met.allowed, by).await;
            let told = match raised {
                Ok(()) => {
                    let by = Amount(met.unit, amount);
                    tracing::info!(issue_id = %issue, issue_identifier = %identifier, key = met.key(), %by, "a person raised a budget");
                    let _ = to_self.send(Message::Raised);
                    Ok(Raised { key: met.key(), by })
                }
                Err(Unraised::Refused(Raising::Already)) => Err(RaiseError::Already(identifier)),
                // The file was changed: the cap is gone, and the next look brings the issue back.
                Err(Unraised::Refused(Raising::NoCap)) => Err(RaiseError::Already(identifier)),
                Err(Unraised::Journal(why)) => Err(RaiseError::NotStored(why)),
            };
            let _ = reply.send(told);
        });
    }

    /// The cap to raise as it is now, and by how much. An amount that would leave the issue where it is is not taken: the
    /// next one would find a cap that nobody saw.
    fn raising(
        &self,
        identifier: &Identifier,
        amount: &str,
        seen: &SeenCap,
    ) -> Result<(IssueId, Met, u64), RaiseError> {
        let issue = self.issue_called(identifier).ok_or_else(|| RaiseError::NoSuchIssue(identifier.clone()))?;
        let verdict = self.board.issue(&issue).map(|issue| self.board.verdict(issue, self.now(), &self.policy));
        let met = match verdict {
            Some(Err(NotNow::Parked(parked, _))) => match parked.reason {
                ParkReason::Spend(met) => met,
                _ => return Err(RaiseError::NotMet(identifier.clone())),
            },
            // Put aside or not: it starts once there is more.
            Some(Err(NotNow::Spend(met))) => met,
            // On its way back.
            Some(Err(NotNow::Resuming)) => return Err(RaiseError::Already(identifier.clone())),
            _ => return Err(RaiseError::NotMet(identifier.clone())),
        };
        let now = self.metering.in_the_way(&issue, &met).ok_or_else(|| RaiseError::Already(identifier.clone()))?;
        let is_another = seen.key.as_ref().is_some_and(|key| key != now.key());
        if is_another || seen.allowed.is_some_and(|allowed| allowed < now.allowed) {
            let allowed = Amount(now.unit, now.allowed);
            let text = match is_another {
                true => format!("what keeps it waiting is {} now, which is {allowed}; say by how much more", now.key()),
                false => format!("{} was changed meanwhile: it is {allowed} now; say by how much more", now.key()),
            };
            return Err(RaiseError::Amount(text));
        }
        let amount = now.unit.parse(amount).map_err(RaiseError::Amount)?;
        now.enough(amount).map_err(RaiseError::Amount)?;
        Ok((issue, now, amount))
    }

    /// What an issue waits for as it is now, where that is a cap of tokens or money.
    pub(super) fn with_present_cap(&self, issue: &IssueId, why: &mut Option<NotNow>) {
        let waits = match why {
            Some(NotNow::Parked(Parked { reason: ParkReason::Spend(met), .. }, _) | NotNow::Spend(met)) => met,
            _ => return,
        };
        if let Some(now) = self.metering.in_the_way(issue, waits) {
            *waits = now;
        }
    }
}
