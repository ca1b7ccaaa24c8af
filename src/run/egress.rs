//! A run's way to the network: the seam to the egress door, which stands a floor above, and its life within the run.

use std::sync::Arc;

use futures::future::BoxFuture;
use symphony_core::board::RunEnd;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::snapshot::EventRow;
use symphony_core::workflow::Workflow;

use super::line::{FromRun, Line, Report};
use super::{Attempt, ServeStream, inside};
use crate::sandbox::channel::Channel;

/// The proxy on the guest's own loopback. Fixed: nothing else listens in a fresh sandbox.
pub(super) const PORT: u16 = 8486;

/// Takes an event for the run's history; lost when there is no room.
pub type Tell = Arc<dyn Fn(EventRow) + Send + Sync>;

/// Opens the way out of one run: its number and issue, its workflow, where its events go.
pub type OpenEgress = Arc<dyn Fn(RunId, IssueId, &Workflow, Tell) -> EgressDoor + Send + Sync>;

/// An open door to the network.
pub struct EgressDoor {
    /// Serves one connection.
    pub serve: ServeStream,
    /// Keeps what is written near what is counted, until the door is closed.
    pub keep: BoxFuture<'static, ()>,
    /// Drops what is under way, refuses everything later, and writes the last counts down.
    pub close: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
}

/// The open door, with what keeps it going.
pub(super) struct Egress {
    relay: inside::Door,
    keeping: inside::Door,
    close: Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>,
}

impl Attempt {
    /// It is there whatever the workflow allows: an agent that may reach nothing is told so, in words.
    pub(super) async fn open_egress(&self, channel: &Channel, line: &Line) -> Result<Egress, RunEnd> {
        let (run, reports, issue) = (line.run, line.reports.clone(), self.plan.issue.clone());
        let of = issue.id.clone();
        let tell: Tell = Arc::new(move |row| {
            tracing::warn!(issue_id = %issue.id, issue_identifier = %issue.identifier, event = %row.event,
                message = %row.message, "on the way to the network");
            let _ = reports.try_send(FromRun::Report(run, Report::Event(row)));
        });
        let EgressDoor { serve, keep, close } = (self.parts.open_egress)(run, of, &self.workflow, tell);
        // Without its port the run has no way out, and the page of the book is closed again.
        let relay = match self.relay(channel, PORT, serve).await {
            Ok(relay) => relay,
            Err(end) => {
                close().await;
                return Err(end);
            }
        };
        Ok(Egress { relay, keeping: inside::Door(tokio::spawn(keep)), close })
    }
}

impl Egress {
    /// Ends every connection, and waits until what passed is written down.
    pub(super) async fn end(self) {
        let Self { relay, keeping, close } = self;
        drop((relay, keeping));
        close().await;
    }
}
