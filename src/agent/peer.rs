//! Our side of the connection: what the agent tells us, and what it asks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use agent_client_protocol::{Agent, ConnectionTo, Dispatch, Error, HandleDispatchFrom, Handled};
use serde_json::Value;
use tokio::sync::Notify;

use super::activity::Activity;
use super::event::Events;
use super::permission::{self, Decision};
use super::update::Updates;
use super::wire::{Fault, Replay};

/// What the dispatch side and the session share.
pub(crate) struct Shared {
    pub(crate) events: Events,
    pub(crate) activity: Activity,
    pub(crate) fault: Arc<OnceLock<Fault>>,
    pub(crate) replay: Arc<Replay>,
    /// A line beyond what is taken, in words.
    pub(crate) longest: String,
    pub(crate) updates: Mutex<Updates>,
    /// Whether a prompt is under way that is not being cancelled.
    pub(crate) in_turn: AtomicBool,
    /// Set once both are known: what the agent calls itself.
    pub(crate) who: OnceLock<String>,
    /// Wakes the prompt's loop when a tool call opened or closed.
    pub(crate) tools: Notify,
}

impl Shared {
    /// The turn's updates. Nothing panics while holding the lock; if it did, the data is still whole.
    pub(crate) fn updates(&self) -> MutexGuard<'_, Updates> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our side of what the agent asks and tells. Never waits: the dispatch loop stands still meanwhile.
pub(crate) struct Peer {
    pub(crate) shared: Arc<Shared>,
}

impl HandleDispatchFrom<Agent> for Peer {
    async fn handle_dispatch_from(
        &mut self,
        message: Dispatch,
        _connection: ConnectionTo<Agent>,
    ) -> Result<Handled<Dispatch>, Error> {
        match message {
            Dispatch::Notification(notice) if notice.method == "session/update" => self.update(&notice.params),
            Dispatch::Notification(notice) if notice.method.starts_with("$/") => {
                return Ok(Handled::No { message: Dispatch::Notification(notice), retry: false });
            }
            Dispatch::Notification(notice) => self.shared.updates().ignore(&notice.method),
            Dispatch::Request(request, responder) if request.method == "session/request_permission" => {
                let in_turn = self.shared.in_turn.load(Ordering::SeqCst);
                let decision = permission::decide(&request.params, in_turn);
                let what = request.params.pointer("/toolCall/title").and_then(Value::as_str).unwrap_or("a tool call");
                match &decision {
                    Decision::Select { name, .. } => self.tell("approval_auto_approved", &format!("{what}: {name}")),
                    Decision::Cancel => {
                        let why = if in_turn { "no option approves" } else { "no turn is under way" };
                        self.tell("approval_cancelled", &format!("{what}: {why}"));
                    }
                }
                responder.respond(decision.to_response())?;
            }
            Dispatch::Request(request, responder) => {
                self.tell("unsupported", &request.method);
                responder.respond_with_error(Error::method_not_found())?;
            }
            response @ Dispatch::Response(..) => return Ok(Handled::No { message: response, retry: false }),
        }
        Ok(Handled::Yes)
    }

    fn describe_chain(&self) -> impl std::fmt::Debug {
        "symphony"
    }
}

impl Peer {
    fn update(&self, params: &Value) {
        let (said, was_open, is_open) = {
            let mut updates = self.shared.updates();
            let was_open = updates.tool_open();
            (updates.take(params, self.shared.activity.now()), was_open, updates.tool_open())
        };
        for (kind, message) in said {
            self.shared.events.send(kind, &message, is_open);
        }
        if was_open != is_open {
            self.shared.tools.notify_one();
        }
    }

    fn tell(&self, kind: &'static str, message: &str) {
        let open = self.shared.updates().tool_open();
        self.shared.events.send(kind, message, open);
    }
}
