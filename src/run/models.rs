//! A run's way to models: the seam to the broker, which stands a floor above, and its life within the run.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use symphony_core::board::{Closures, FailureCode, ModelAccess, NoModel, NotNow, RunEnd, StopCause};
use symphony_core::broker::{Provider, Seen};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::workflow::{Adapter, Role, Workflow};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::line::{FromRun, Line, Report};
use super::spent::Spent;
use super::{Attempt, ServeStream, failed, inside};
use crate::agent::redact::Learned;
use crate::agent::transcript::Transcript;
use crate::sandbox::channel::Channel;

/// The broker on the guest's own loopback. Fixed: nothing else listens in a fresh sandbox.
const PORT: u16 = 8485;
/// Reports under way; a request waits for a place among them before it is sent.
const REPORTS: usize = 256;
/// What the last reports get to arrive.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// Who is charged for what is asked.
#[derive(Clone, Debug)]
pub struct Payer {
    /// The run.
    pub run: RunId,
    /// Its issue.
    pub issue: IssueId,
}

/// Opens the broker for one run: its workflow, the guest's port, who is charged, where its reports go.
pub type OpenBroker = Arc<
    dyn Fn(Arc<Workflow>, u16, Payer, mpsc::Sender<Report>) -> BoxFuture<'static, Result<ModelDoor, String>>
        + Send
        + Sync,
>;

/// Says why no request can go to this provider now, if none can.
pub type AskCredential = Arc<dyn Fn(Arc<Workflow>, Provider) -> BoxFuture<'static, Result<(), NoModel>> + Send + Sync>;

/// An open door to models.
pub struct ModelDoor {
    /// The providers that have a credential here, each with its address in the guest.
    pub ways: Vec<(Provider, String)>,
    /// The run's token; a secret.
    pub token: String,
    /// The tokens of logins that are renewed on the host while it is open.
    pub learned: Learned,
    /// What is seen of its requests; the default is put there when a turn begins.
    pub seen: watch::Sender<Seen>,
    /// Serves one connection.
    pub serve: ServeStream,
    /// What its provider lets the agent do.
    pub watch: Watch,
    /// Drops what is under way and refuses everything later.
    pub close: Arc<dyn Fn() + Send + Sync>,
}

/// What a provider's word means for a run.
#[derive(Clone)]
pub struct Watch {
    /// How many requests wait for the provider's leave.
    pub held: watch::Receiver<usize>,
    /// Why the run is to end, once it is: known here before the agent is answered.
    pub over: watch::Receiver<Option<StopCause>>,
    /// A turn of the agent is over by itself: whether the run ends with it, for its provider's last word was to wait.
    pub turn_over: Arc<dyn Fn() -> Option<StopCause> + Send + Sync>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("held", &self.held).field("over", &self.over).finish_non_exhaustive()
    }
}

impl Watch {
    /// Why the run is to end, if it is.
    pub(super) fn cause(&self) -> Option<StopCause> {
        *self.over.borrow()
    }
}

/// Resolves when the run is to end; never where there are no models.
pub(super) async fn ends(watch: Option<Watch>) -> StopCause {
    let Some(mut watch) = watch else { return std::future::pending().await };
    let cause = watch.over.wait_for(Option::is_some).await.ok().and_then(|cause| *cause);
    match cause {
        Some(cause) => cause,
        // The door is gone, and says nothing any more.
        None => std::future::pending().await,
    }
}

/// The open door, with what keeps it going.
pub(super) struct Models {
    pub(super) door: ModelDoor,
    relay: inside::Door,
    telling: JoinHandle<()>,
    /// Where the list of its requests goes.
    list: Arc<OnceLock<Transcript>>,
}

/// The providers to which no request can go now, of those that an agent of this workflow may ask.
pub(crate) async fn closures(workflow: &Arc<Workflow>, ask: &AskCredential) -> Closures {
    let active = workflow.states.with_role(Role::Active);
    let agents = active.map(|state| workflow.agent_of(state));
    // What is built in asks none; what a command asks nobody knows.
    if !agents.into_iter().any(|agent| agent.command.is_some() || agent.adapter != Adapter::Script) {
        return Closures::new();
    }
    let asked =
        Provider::ALL.map(|provider| async move { Some((provider, ask(workflow.clone(), provider).await.err()?)) });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

impl Attempt {
    /// Nothing is booted for an agent that could ask no model: the board asked the same at its newest look.
    pub(super) async fn has_models(&self) -> Result<(), RunEnd> {
        let closed = closures(&self.workflow, &self.parts.ask_credential).await;
        let access = ModelAccess::of(&self.workflow, closed);
        match access.admit(&self.plan.issue.state, None) {
            Err(NotNow::ProviderPaused { provider, .. } | NotNow::NoCredit { provider, .. }) => {
                Err(RunEnd::Stopped(StopCause::ProviderPaused(provider)))
            }
            Err(NotNow::NoCredential { provider, .. }) => Err(RunEnd::Stopped(StopCause::ProviderLogin(provider))),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// `None`: the host has no credential for any provider.
    pub(super) async fn open_models(&self, channel: &Channel, line: &Line) -> Result<Option<Models>, RunEnd> {
        let (to, mut told) = mpsc::channel(REPORTS);
        let payer = Payer { run: self.plan.run, issue: self.plan.issue.id.clone() };
        let door = (self.parts.open_broker)(self.workflow.clone(), PORT, payer, to).await;
        let door = door.map_err(|error| failed(FailureCode::StartupFailed, error))?;
        // What leads nowhere is not there.
        if door.ways.is_empty() {
            return Ok(None);
        }
        let relay = self.relay(channel, PORT, door.serve.clone()).await?;
        let (run, reports, issue) = (line.run, line.reports.clone(), self.plan.issue.clone());
        let (mut held, mut spent) = (door.watch.held.clone(), Spent::default());
        let list = spent.place();
        let telling = tokio::spawn(async move {
            let mut watching = true;
            loop {
                let report = tokio::select! {
                    report = told.recv() => match report {
                        Some(report) => report,
                        None => return,
                    },
                    changed = held.changed(), if watching => match changed {
                        Ok(()) => Report::Held(*held.borrow_and_update() > 0),
                        Err(_) => {
                            watching = false;
                            continue;
                        }
                    },
                };
                if let Report::Metered(metered, charged) = &report {
                    spent.add(metered, *charged);
                }
                if let Report::Event(row) = &report {
                    tracing::warn!(issue_id = %issue.id, issue_identifier = %issue.identifier, event = %row.event,
                        message = %row.message, "trouble on the way to a model");
                }
                if reports.send(FromRun::Report(run, report)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Some(Models { door, relay, telling, list }))
    }
}

impl Models {
    /// Each of its requests is listed there from now on.
    pub(super) fn list_in(&self, transcript: &Transcript) {
        let _ = self.list.set(transcript.clone());
    }

    /// Ends every request, and waits until what they used is told.
    pub(super) async fn end(self) {
        let Self { door, relay, telling, list } = self;
        (door.close)();
        drop((door, relay, list));
        // Its senders are gone with the connections, so it ends by itself.
        let _ = tokio::time::timeout(LAST_REPORTS, telling).await;
    }
}
