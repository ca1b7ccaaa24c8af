//! Whether a run would find a model now: a decision over what a look found of providers and credentials. Gates starts only.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::not_now::NotNow;
use crate::broker::Provider;
use crate::broker::quota::Pause;
use crate::ids::StateName;
use crate::workflow::{Barred, Role, Workflow};

/// Why no request can go to a provider now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoModel {
    /// It is asked nothing before this instant of the world's clock, and why.
    Paused(Pause, Timestamp),
    /// There is no credential, or none that it takes; a sentence with its remedy.
    NoCredential(String),
}

/// Providers to which no request can go. It says nothing of the next look.
pub type Closures = BTreeMap<Provider, NoModel>;

/// The models of agents, as far as starting runs is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelAccess {
    /// Whose models the agent of a state asks; any one of them would do. Of an agent that is not here nobody knows.
    pub asks: BTreeMap<StateName, &'static [Provider]>,
    /// Where no request can go.
    pub closed: Closures,
    /// What keeps the agent of a state from its model, whatever a provider says.
    pub barred: BTreeMap<StateName, Barred>,
}

impl ModelAccess {
    /// Of the agents of this workflow.
    pub fn of(workflow: &Workflow, closed: Closures) -> Self {
        let states = workflow.states.with_role(Role::Active);
        let asks = states.filter_map(|state| {
            let agent = workflow.agent_of(state);
            let is_known = agent.command.is_none() && !workflow.stages(&agent);
            is_known.then(|| (state.clone(), agent.adapter.providers(agent.model)))
        });
        let active = workflow.states.with_role(Role::Active);
        let barred = active.filter_map(|state| Some((state.clone(), workflow.barred(state)?)));
        Self { asks: asks.collect(), closed, barred: barred.collect() }
    }

    /// Whether the agent of this state would find a model. `sent_away`: the provider over which its last run ended,
    /// which it would ask again.
    ///
    /// # Errors
    /// Why not: what mends itself before what a person has to mend.
    pub fn admit(&self, state: &StateName, sent_away: Option<Provider>) -> Result<(), NotNow> {
        if let Some(barred) = self.barred.get(state) {
            return Err(NotNow::ModelBarred(barred.clone()));
        }
        let asks = self.asks.get(state).copied().unwrap_or_default();
        let closed = |provider: &Provider| Some((*provider, self.closed.get(provider)?));
        let mut reasons: Vec<_> = sent_away.iter().filter_map(closed).collect();
        if reasons.is_empty() {
            reasons = asks.iter().filter_map(closed).collect();
            if reasons.is_empty() || reasons.len() < asks.len() {
                return Ok(());
            }
        }
        let waits = reasons.iter().filter_map(|(provider, why)| match why {
            NoModel::Paused(Pause::Empty, _) | NoModel::NoCredential(_) => None,
            NoModel::Paused(pause, until) => Some((*until, *provider, *pause)),
        });
        if let Some((until, provider, pause)) = waits.min_by_key(|(until, provider, _)| (*until, *provider)) {
            return Err(NotNow::ProviderPaused { provider, until, pause });
        }
        let provider = reasons[0].0;
        if let [(_, NoModel::Paused(_, until))] = reasons[..] {
            return Err(NotNow::NoCredit { provider, until: *until });
        }
        let said = reasons.into_iter().map(|(provider, why)| match why {
            NoModel::NoCredential(why) => why.clone(),
            NoModel::Paused(pause, until) => pause.words(provider, *until),
        });
        Err(NotNow::NoCredential { provider, why: said.collect::<Vec<_>>().join("; or ") })
    }
}
