//! Hosts at the operator's socket: the list, and a person's word about one.

use std::path::Path;

use serde::{Deserialize, Serialize};
use symphony_core::egress::Verb;
use symphony_core::snapshot::Snapshot;
use symphony_core::steering::By;

use super::place::is_same_file;
use super::wire::{Refusal, Request, VERSION};
use crate::conductor::handle::{Handle, HostError};

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
        Self { v: VERSION, asked: asked.collect(), decided: decided.collect() }
    }
}

/// Carries one command out.
pub(super) async fn respond(request: &Request, handle: &Handle) -> Result<Hosts, Refusal> {
    let bad = |message: &str| Refusal::new("bad-request", message, "say which workflow, which number, and which verb");
    let workflow = request.workflow.as_deref().ok_or_else(|| bad("no workflow is named"))?;
    let snapshot = handle.snapshot();
    if !is_same_file(Path::new(workflow), Path::new(&snapshot.workflow_path)) {
        let hint = format!("the one in this directory runs {}; name it with --workflow", snapshot.workflow_path);
        return Err(Refusal::new("other-workflow", format!("no symphony runs on {workflow}"), hint));
    }
    if request.command != "egress" {
        let number = request.number.ok_or_else(|| bad("no number is named"))?;
        let done = match request.command.as_str() {
            "egress-decide" => {
                let verb = request.verb.as_deref().and_then(Verb::parse).ok_or_else(|| bad("no verb is named"))?;
                handle.decide_host(number, verb, By::Cli).await
            }
            _ => handle.forget_host(number).await,
        };
        done.map_err(|error| {
            let (code, hint) = match &error {
                HostError::Not(_) => ("no-such-number", "`symphony egress list` has what waits and what was decided"),
                HostError::NotStored(_) => ("not-stored", "it was not decided; the log of symphony says more"),
                HostError::ShuttingDown => ("shutting-down", "say it again when symphony was started again"),
            };
            Refusal::new(code, error.to_string(), hint)
        })?;
    }
    Ok(Hosts::of(&handle.snapshot()))
}
