//! Hosts at the operator's socket: the list, and a person's word about one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use symphony_core::egress::{Decision, Named, NotDecided, Verb};
use symphony_core::snapshot::{HostDecision, Snapshot};
use symphony_core::steering::By;
use tokio::time::timeout;

use super::serve::check_workflow;
use super::wire::{Refusal, Request, VERSION};
use crate::conductor::handle::{About, Handle, HostError};

/// How long an answer waits until what was decided is seen.
const SETTLE_DEADLINE: Duration = Duration::from_millis(500);

/// What can be asked about hosts.
pub(super) const COMMANDS: [&str; 3] = ["egress", "egress-decide", "egress-forget"];

/// The answer: hosts that wait and decisions that hold.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hosts {
    /// [`VERSION`]
    pub v: u32,
    /// What waits for a decision.
    pub asked: Vec<HostRow>,
    /// What was decided.
    pub decided: Vec<HostRow>,
    /// What this very request did, in words, and how it is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
}

/// What came of a person's word.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// The host, the verb, and for whom.
    pub words: String,
    /// The command that takes it back.
    pub take_back: String,
}

/// One host.
#[derive(Debug, Serialize, Deserialize)]
pub struct HostRow {
    /// Names it in `egress-decide` or `egress-forget`.
    pub number: u64,
    /// With its port.
    pub host: String,
    /// The issue whose agent asked.
    pub issue: String,
    /// How often it was asked for; 0 of a decision.
    pub times: u64,
    /// What was decided.
    pub verb: Option<String>,
}

impl Hosts {
    fn of(snapshot: &Snapshot) -> Self {
        let asked = snapshot.hosts_asked.iter().map(|row| HostRow {
            number: row.card.id,
            host: row.card.target.to_string(),
            issue: row.identifier.0.clone(),
            times: row.card.times,
            verb: None,
        });
        let decided = snapshot.hosts_decided.iter().map(|row| HostRow {
            number: row.decision.id,
            host: row.decision.target.to_string(),
            issue: row.identifier.0.clone(),
            times: 0,
            verb: Some(row.decision.verb.as_str().to_owned()),
        });
        Self { v: VERSION, asked: asked.collect(), decided: decided.collect(), done: None }
    }
}

/// Carries one command out.
pub(super) async fn respond(request: &Request, handle: &Handle) -> Result<Hosts, Refusal> {
    let bad = |message: &str| Refusal::new("bad-request", message, "say which workflow, which number, and which verb");
    let workflow = request.workflow.as_deref().ok_or_else(|| bad("no workflow is named"))?;
    let snapshot = handle.snapshot();
    check_workflow(&snapshot, workflow)?;
    let done = match request.command.as_str() {
        "egress-decide" => {
            let verb = request.verb.as_deref().and_then(Verb::parse).ok_or_else(|| bad("no verb is named"))?;
            let named = match (request.number, request.host.as_deref()) {
                (Some(number), _) => Named::Number(number),
                (None, Some(text)) => {
                    Named::parse(text).map_err(|error| bad(&format!("`{text}` is no number, and the host {error}")))?
                }
                (None, None) => return Err(bad("no number is named")),
            };
            let decided = handle.decide_host(About::Named(named), verb, By::Cli).await.map_err(|e| refused(&e))?;
            shown(handle, |row| row.decision.id == decided.id).await;
            let name = named_issue(&handle.snapshot(), &decided);
            Some(Done { words: decided.words(&name), take_back: decided.take_back() })
        }
        "egress-forget" => {
            let number = request.number.ok_or_else(|| bad("no number is named"))?;
            handle.forget_host(number).await.map_err(|error| refused(&error))?;
            None
        }
        _ => None,
    };
    Ok(Hosts { done, ..Hosts::of(&handle.snapshot()) })
}

/// Waits until a decision is seen, so that the list that is asked for next has it. Late or never: it holds all the same.
async fn shown(handle: &Handle, is_it: impl Fn(&HostDecision) -> bool) {
    let mut snapshots = handle.watch();
    let there = |snapshot: &Arc<Snapshot>| snapshot.hosts_decided.iter().any(&is_it);
    let _ = timeout(SETTLE_DEADLINE, snapshots.wait_for(there)).await;
}

/// The shown name of the issue whose agent asked.
fn named_issue(snapshot: &Snapshot, decided: &Decision) -> String {
    let row = snapshot.hosts_decided.iter().find(|row| row.decision.id == decided.id);
    row.map_or_else(|| decided.issue.0.clone(), |row| row.identifier.0.clone())
}

fn refused(error: &HostError) -> Refusal {
    let (code, hint) = match error {
        HostError::Not(NotDecided::Several(..)) => ("no-such-number", "name one of them by its number"),
        HostError::Not(_) => ("no-such-number", "`symphony egress list` has what waits and what was decided"),
        HostError::NotStored(_) => ("not-stored", "it was not decided; the log of symphony says more"),
        HostError::ShuttingDown => ("shutting-down", "say it again when symphony was started again"),
    };
    Refusal::new(code, error.to_string(), hint)
}
