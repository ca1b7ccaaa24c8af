//! A budget at the operator's socket: more of the one that an issue waits for.

use serde::{Deserialize, Serialize};
use symphony_core::explain;
use symphony_core::snapshot::Snapshot;
use symphony_core::spend::{Met, Unit};
use symphony_core::steering::By;

use super::serve::{check_workflow, named, unknown};
use super::wire::{Refusal, Request, VERSION};
use crate::conductor::handle::{Handle, RaiseError, Raised, SeenCap};

/// The answer: what is allowed from now on.
#[derive(Debug, Serialize, Deserialize)]
pub struct Allowed {
    /// [`VERSION`]
    pub v: u32,
    /// The issue that goes back to work.
    pub identifier: String,
    /// The key of the workflow.
    pub budget: String,
    /// By how much it was raised, as a person reads it.
    pub raised_by: String,
}

/// Raises it.
pub(super) async fn respond(request: &Request, handle: &Handle) -> Result<Allowed, Refusal> {
    let bad =
        |message: &str| Refusal::new("bad-request", message, "say which workflow, which issue, how much, and of what");
    let workflow = request.workflow.as_deref().ok_or_else(|| bad("no workflow is named"))?;
    let name = request.issue.as_deref().ok_or_else(|| bad("no issue is named"))?;
    let amount = request.amount.clone().ok_or_else(|| bad("no amount is named"))?;
    let unit = match request.unit.as_deref() {
        Some("tokens") => Unit::Tokens,
        Some("usd") => Unit::Money,
        _ => return Err(bad("no unit is named")),
    };
    let snapshot = handle.snapshot();
    check_workflow(&snapshot, workflow)?;
    let found = explain::find(&snapshot, name).map_err(|missing| unknown(&missing))?;
    let identifier = named(name, &found)?;
    // What waits for no budget is refused where that is decided.
    let met = met(&snapshot, &identifier.0);
    if let Some(met) = met.filter(|met| met.unit != unit) {
        let (counts, flag) = match met.unit {
            Unit::Tokens => ("tokens", "--tokens 200000"),
            Unit::Money => ("US dollars", "--usd 5"),
        };
        let message = format!("{identifier} waits for {}, which counts {counts}", met.key());
        return Err(Refusal::new("wrong-unit", message, format!("say by how much with {flag}")));
    }
    let seen = met
        .map_or_else(SeenCap::default, |met| SeenCap { key: Some(met.key().to_owned()), allowed: Some(met.allowed) });
    let raised = handle.raise(identifier.clone(), amount, seen, By::Cli).await;
    let Raised { key, by } = raised.map_err(|error| refused(&error, &identifier.0))?;
    Ok(Allowed { v: VERSION, identifier: identifier.0, budget: key.to_owned(), raised_by: by.to_string() })
}

/// The budget that an issue waits for.
fn met(snapshot: &Snapshot, identifier: &str) -> Option<Met> {
    let idle = snapshot.idle.iter().find(|row| row.identifier.0 == identifier).map(|row| row.why.as_ref());
    let retrying = || snapshot.retrying.iter().find(|row| row.identifier.0 == identifier).map(|row| row.why.as_ref());
    idle.or_else(retrying)??.cap().copied()
}

fn refused(error: &RaiseError, identifier: &str) -> Refusal {
    let see = || format!("`symphony explain {identifier}` says more");
    let (code, hint) = match error {
        RaiseError::NoSuchIssue(_) => ("no-such-issue", see()),
        RaiseError::NotMet(_) => ("budget-not-met", see()),
        RaiseError::Already(_) => ("already-raised", see()),
        RaiseError::Amount(_) => ("bad-amount", "say it like --usd 5 or --tokens 200000".to_owned()),
        RaiseError::NotStored(_) => ("not-stored", "the log of symphony says more".to_owned()),
        RaiseError::ShuttingDown => ("shutting-down", "say it again when symphony was started again".to_owned()),
    };
    Refusal::new(code, error.to_string(), hint)
}
