//! A run's way to models: the seam to the broker, which stands a floor above, and its life within the run.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use symphony_core::board::{FailureCode, ParkReason, RunEnd};
use symphony_core::broker::{Provider, Seen};
use symphony_core::workflow::{AgentOf, Workflow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::line::{FromRun, Line, Report};
use super::{Attempt, ServeStream, failed, inside};
use crate::sandbox::channel::Channel;

/// The broker on the guest's own loopback. Fixed: nothing else listens in a fresh sandbox.
const PORT: u16 = 8485;
/// Reports under way; a request waits for a place among them before it is sent.
const REPORTS: usize = 256;
/// What the last reports get to arrive.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// Opens the broker for one run: its workflow, the guest's port, where its reports go.
pub type OpenBroker = Arc<
    dyn Fn(Arc<Workflow>, u16, mpsc::Sender<Report>) -> BoxFuture<'static, Result<ModelDoor, String>> + Send + Sync,
>;

/// Says why the host has no credential for this provider, if it has none.
pub type AskCredential = Arc<dyn Fn(Arc<Workflow>, Provider) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// An open door to models.
pub struct ModelDoor {
    /// The providers that have a credential here, each with its address in the guest.
    pub ways: Vec<(Provider, String)>,
    /// The run's token; a secret.
    pub token: String,
    /// What is seen of its requests; the default is put there when a turn begins.
    pub seen: watch::Sender<Seen>,
    /// Serves one connection.
    pub serve: ServeStream,
    /// Drops what is under way and refuses everything later.
    pub close: Arc<dyn Fn() + Send + Sync>,
}

/// The open door, with what keeps it going.
pub(super) struct Models {
    pub(super) door: ModelDoor,
    relay: inside::Door,
    telling: JoinHandle<()>,
}

/// Whether an agent that is started by its name would find a model. Of `acp.command` nobody knows what it asks.
pub(crate) async fn reachable(
    agent: &AgentOf<'_>,
    workflow: &Arc<Workflow>,
    ask: &AskCredential,
) -> Result<(), String> {
    let providers = match agent.command {
        Some(_) => &[],
        None => agent.adapter.providers(agent.model),
    };
    if let Some(why) = agent.adapter.unreachable().filter(|_| agent.command.is_none()) {
        return Err(why.to_owned());
    }
    let mut why = vec![];
    for &provider in providers {
        match ask(workflow.clone(), provider).await {
            Ok(()) => return Ok(()),
            Err(none) => why.push(none),
        }
    }
    if why.is_empty() { Ok(()) } else { Err(why.join("; or ")) }
}

impl Attempt {
    /// Nothing is booted for an agent that could ask no model.
    pub(super) async fn has_models(&self) -> Result<(), RunEnd> {
        let reachable = reachable(&self.agent(), &self.workflow, &self.parts.ask_credential).await;
        reachable.map_err(|detail| RunEnd::NeedsHuman(ParkReason::AgentStart { detail }))
    }

    /// `None`: the host has no credential for any provider.
    pub(super) async fn open_models(&self, channel: &Channel, line: &Line) -> Result<Option<Models>, RunEnd> {
        let (to, mut told) = mpsc::channel(REPORTS);
        let door = (self.parts.open_broker)(self.workflow.clone(), PORT, to).await;
        let door = door.map_err(|error| failed(FailureCode::StartupFailed, error))?;
        // What leads nowhere is not there.
        if door.ways.is_empty() {
            return Ok(None);
        }
        let relay = self.relay(channel, PORT, door.serve.clone()).await?;
        let (run, reports, issue) = (line.run, line.reports.clone(), self.plan.issue.clone());
        let telling = tokio::spawn(async move {
            while let Some(report) = told.recv().await {
                if let Report::Event(row) = &report {
                    tracing::warn!(issue_id = %issue.id, issue_identifier = %issue.identifier, event = %row.event,
                        message = %row.message, "trouble on the way to a model");
                }
                if reports.send(FromRun::Report(run, report)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Some(Models { door, relay, telling }))
    }
}

impl Models {
    /// Ends every request, and waits until what they used is told.
    pub(super) async fn end(self) {
        let Self { door, relay, telling } = self;
        (door.close)();
        drop((door, relay));
        // Its senders are gone with the connections, so it ends by itself.
        let _ = tokio::time::timeout(LAST_REPORTS, telling).await;
    }
}
