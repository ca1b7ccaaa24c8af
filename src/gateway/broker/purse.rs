//! Who pays for a run's requests: each has what it can use set aside before it is sent, or is refused with the words and
//! the remedy.

use symphony_core::board::StopCause;
use symphony_core::broker::{IN_VAIN_MOST, Most, Provider, Refusal, Route};
use symphony_core::spend::{Denied, Wanted};

use super::Door;
use super::forward::Outgoing;
use super::passing::Account;
use crate::metering::{Metering, Ticket, Unmetered};
use crate::run::line::Report;
use crate::run::models::Payer;

/// The ledger, and who is charged in it.
pub struct Purse {
    /// That of this process.
    pub metering: Metering,
    /// The run and its issue.
    pub payer: Payer,
}

impl Door {
    /// Sets aside what a request can use, with room for its report; `None` where it uses nothing. May wait for minutes.
    pub(super) async fn account(&self, outgoing: &Outgoing) -> Result<Option<Account>, Refusal> {
        let Route { provider, call, .. } = outgoing.route;
        if !call.is_metered() {
            return Ok(None);
        }
        let permit = self.0.reports.clone().reserve_owned().await.map_err(|_| Refusal::new(503, "the run is over"))?;
        let ticket = self.reserve(provider, &outgoing.model, outgoing.weight.clone()).await?;
        Ok(Some(Account::open(provider, outgoing.model.clone(), ticket, permit)))
    }

    /// Sets aside what a request can use at most. One that does not fit is refused in a way that no agent tries again, and
    /// ends its run.
    async fn reserve(
        &self,
        provider: Provider,
        model: &str,
        (most, tier): (Most, Option<String>),
    ) -> Result<Ticket, Refusal> {
        let Purse { metering, payer: Payer { run, issue } } = &self.0.purse;
        let (run, issue, day, model) = (*run, issue.clone(), metering.today(), model.to_owned());
        let wanted = Wanted { run, issue, day, provider, model, tier, most };
        let denied = match metering.reserve(wanted.clone(), self.patience()).await {
            Ok(ticket) => return Ok(ticket),
            Err(Unmetered::Denied(denied)) => denied,
            Err(Unmetered::Journal(why)) => {
                let said = format!("what this request may use could not be kept, so it is not sent: {why}");
                self.tell("model_refused", || said.clone());
                return Err(Refusal::new(503, said));
            }
        };
        let (event, refusal) = match denied {
            Denied::Met(met) => {
                // A conductor that is gone ends the run anyway.
                let _ = self.0.reports.send(Report::SpendMet(met)).await;
                ("budget_met", Refusal::new(400, format!("the budget is used up: {met}. Stop here; a person decides")))
            }
            Denied::Unpriced(model) => {
                let said = format!(
                    "`{model}` has no price, and the workflow bounds money: add `{model}: {{input: …, output: …}}` below \
                     `prices` in WORKFLOW.md, in US dollars for a million tokens, or ask another model"
                );
                ("model_refused", Refusal::by_workflow(said))
            }
            Denied::NoLongPrice(model) => {
                let said = format!(
                    "this asks for a longer context than is usual (the beta `context-1m`), the workflow bounds money, and the \
                     price of `{model}` below `prices` in WORKFLOW.md says nothing of that: add `long_context: {{above: \
                     200000, input: …, output: …}}` to it, or ask for the usual context"
                );
                ("model_refused", Refusal::by_workflow(said))
            }
            Denied::Busy { own: true } => {
                let said =
                    "the rest of the budget is set aside for other requests of this agent; ask again when they ended";
                // Not a 429, which agents are told not to try again: this one is worth it.
                ("model_limited", Refusal::new(503, said))
            }
            Denied::Busy { own: false } => ("model_limited", self.crowded_out(wanted).await),
        };
        self.tell(event, || refusal.to_string());
        Err(refusal)
    }

    /// Requests of others leave no room: the run ends, and its issue waits for one of them to end. One to which that
    /// happens again and again without an answer is told of a failure, which counts as one.
    async fn crowded_out(&self, wanted: Wanted) -> Refusal {
        let said = "the rest of the budget is set aside for requests of other issues";
        let (in_vain, issue) = (&self.0.broker.in_vain, &wanted.issue);
        if in_vain.is_crowded_out_enough(issue) {
            let said =
                format!("{said}; {IN_VAIN_MOST} runs of this issue in a row were sent away unanswered: a failure");
            return Refusal::new(400, said);
        }
        if self.end_run(StopCause::BudgetBusy) {
            self.0.purse.metering.crowd_out(wanted.clone());
            in_vain.crowded_out(issue).await;
        }
        Refusal::new(503, format!("{said}; the run ends, and goes on when one of them has ended"))
    }
}
