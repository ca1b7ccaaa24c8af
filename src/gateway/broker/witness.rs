//! Tells a run what became of each of its requests for inference, as soon as that is known: before its agent knows, so that
//! an agent which ends its turn cannot be faster.

use axum::http::{Request, StatusCode};
use hyper::body::Incoming;
use symphony_core::broker::{self, Came, Failed, Provider, Refusal, Seen, words_of};
use symphony_core::time::Tick;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Door;

/// Where it is told.
#[derive(Clone)]
pub(super) struct Witness {
    pub(super) seen: watch::Sender<Seen>,
    since: Instant,
}

impl Witness {
    pub(super) fn new() -> Self {
        Self { seen: watch::Sender::default(), since: Instant::now() }
    }

    pub(super) fn failed(&self, words: String, failed: Failed) {
        let at = Tick(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.seen.send_modify(|seen| seen.failed(at, words, failed));
    }
}

impl Door {
    /// What is seen of the run's requests; whoever reads it says when a turn begins, by putting the default there.
    pub fn seen(&self) -> watch::Sender<Seen> {
        self.0.witness.seen.clone()
    }

    /// Whether this is a request of the run for inference: it counts from now on.
    pub(super) fn is_inference(&self, request: &Request<Incoming>) -> bool {
        let uri = request.uri();
        let route = broker::route(request.method().as_str(), uri.path(), uri.query());
        let counts = route.is_ok_and(|route| route.call.is_metered()) && self.is_ours(uri, request.headers());
        if counts {
            self.0.witness.seen.send_modify(Seen::asked);
        }
        counts
    }

    /// We refused it, or could not ask anybody.
    pub(super) fn saw_refusal(&self, refusal: &Refusal) {
        if Came::of(refusal.status) == Came::Failed {
            let words = format!("symphony answered {}: {}", refusal.status, words_of(&refusal.message));
            let failed = if refusal.by_workflow { Failed::ByWorkflow } else { Failed::Open };
            self.0.witness.failed(words, failed);
        }
    }

    /// The provider refused it, in these words.
    pub(super) fn saw_failure(&self, provider: Provider, model: &str, status: StatusCode, body: &str, failed: Failed) {
        if Came::of(status.as_u16()) == Came::Failed {
            let (name, status, words) = (provider.name(), status.as_u16(), words_of(body));
            self.0.witness.failed(format!("{name} answered {status} to {model}: {words}"), failed);
        }
    }
}
