//! A run's door to our tools: the seam to the MCP endpoint, which stands a floor above, and its life within the run.
//!
//! Each program that is started has a door of its own, and no call counts before its session's first prompt: what an agent
//! repeats of an older session, or a program left behind that was cleared away, is nobody's word.

use std::sync::Arc;
use std::time::Duration;

use symphony_core::board::{FailureCode, RunEnd};
use symphony_core::ids::Identifier;
use tokio::sync::{mpsc, watch};

use super::{Attempt, ServeStream, failed, inside};
use crate::agent::redact::Secrets;
use crate::agent::session::McpServer;
use crate::agent::tools::ToolCall;
use crate::sandbox::channel::Channel;

/// Our MCP endpoint on the guest's own loopback. Fixed: nothing else listens in a fresh sandbox.
const PORT: u16 = 8484;
/// Calls that wait for their answer.
const CALLS: usize = 16;
/// What an agent that finds its tools beside its work gets to find them, when a turn has ended already.
const LISTING: Duration = Duration::from_secs(5);

/// Opens the MCP door of one program: its issue, the guest's port, where its tool calls go. The door
/// stands a floor above; the application hands it down.
pub type OpenMcp = Arc<dyn Fn(&Identifier, u16, mpsc::Sender<ToolCall>) -> Result<McpDoor, String> + Send + Sync>;

/// An open MCP door.
pub struct McpDoor {
    /// As the agent reaches it.
    pub url: String,
    /// The program's token; a secret.
    pub bearer: String,
    /// Whether the program has asked what tools there are.
    pub listed: watch::Receiver<bool>,
    /// Serves one connection.
    pub serve: ServeStream,
    /// Takes calls from now on; earlier ones are refused.
    pub take_calls: Arc<dyn Fn() + Send + Sync>,
    /// Refuses every later call.
    pub close: Arc<dyn Fn() + Send + Sync>,
}

/// The open door, with what keeps it going.
pub(super) struct Mcp {
    door: McpDoor,
    calls: mpsc::Receiver<ToolCall>,
    /// Whether the program has called one.
    called: bool,
    /// What is redacted in what it says, beside its token.
    secrets: Secrets,
    /// Who serves the next connection.
    serve: watch::Sender<ServeStream>,
    _relay: inside::Door,
}

impl Attempt {
    /// `None`: the workflow gives its agents none of our tools.
    pub(super) async fn open_mcp(&self, channel: &Channel) -> Result<Option<Mcp>, RunEnd> {
        if !self.workflow.mcp.enabled {
            return Ok(None);
        }
        let (door, calls) = self.mcp_door()?;
        let (serve, serving) = watch::channel(door.serve.clone());
        let newest: ServeStream = Arc::new(move |stream| {
            let serve = serving.borrow().clone();
            serve(stream)
        });
        let relay = self.relay(channel, PORT, newest).await?;
        Ok(Some(Mcp { door, calls, called: false, secrets: Secrets::default(), serve, _relay: relay }))
    }

    /// Another door for another program: whatever the last one said, or has under way, is dropped with its door.
    pub(super) fn renew_mcp(&self, mcp: &mut Mcp) -> Result<(), RunEnd> {
        mcp.close();
        (mcp.door, mcp.calls) = self.mcp_door()?;
        mcp.called = false;
        mcp.serve.send_replace(mcp.door.serve.clone());
        Ok(())
    }

    fn mcp_door(&self) -> Result<(McpDoor, mpsc::Receiver<ToolCall>), RunEnd> {
        let (to, calls) = mpsc::channel(CALLS);
        let opened = (self.parts.open_mcp)(&self.plan.issue.identifier, PORT, to);
        Ok((opened.map_err(|error| failed(FailureCode::StartupFailed, error))?, calls))
    }
}

impl Mcp {
    /// As the agent is told of it.
    pub(super) fn server(&self) -> McpServer {
        McpServer { url: self.door.url.clone(), bearer: self.door.bearer.clone() }
    }

    /// What it says is shown without these.
    pub(super) fn hide(&mut self, secrets: Secrets) {
        self.secrets = secrets;
    }

    /// Its session is prompted: what it calls counts.
    pub(super) fn take_calls(&self) {
        (self.door.take_calls)();
    }

    /// The next call; `None` when none can come.
    pub(super) async fn next_call(&mut self) -> Option<ToolCall> {
        let mut call = self.calls.recv().await?;
        self.called = true;
        call.request.hide(&self.secrets.and(&self.door.bearer));
        Some(call)
    }

    /// Whether the agent knows our tools. One that has not asked for them after a turn works without, and could never
    /// say that it is done.
    pub(super) async fn is_known(&self) -> bool {
        let mut listed = self.door.listed.clone();
        self.called
            || tokio::time::timeout(LISTING, listed.wait_for(|listed| *listed)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// Refuses every later call.
    pub(super) fn close(&self) {
        (self.door.close)();
    }
}
