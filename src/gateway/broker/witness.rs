//! Tells a run what became of each of its requests for inference, as soon as that is known: before its agent knows, so that
//! an agent which ends its turn cannot be faster.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming};
use symphony_core::broker::{self, Came, Provider, Refusal, Seen, words_of};
use symphony_core::time::Tick;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Door;
use super::passing::Passing;

/// Where it is told.
#[derive(Clone)]
pub(super) struct Witness {
    seen: watch::Sender<Seen>,
    since: Instant,
}

impl Witness {
    pub(super) fn new() -> Self {
        Self { seen: watch::Sender::default(), since: Instant::now() }
    }

    fn failed(&self, words: String, barred: bool) {
        let at = Tick(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.seen.send_modify(|seen| seen.failed(at, words, barred));
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
            self.0.witness.failed(words, refusal.by_workflow);
        }
    }

    /// The provider refused it, in these words.
    pub(super) fn saw_failure(&self, provider: Provider, model: &str, status: StatusCode, body: &str) {
        if Came::of(status.as_u16()) == Came::Failed {
            let (name, status, words) = (provider.name(), status.as_u16(), words_of(body));
            self.0.witness.failed(format!("{name} answered {status} to {model}: {words}"), false);
        }
    }

    /// An answer that begins; what becomes of it is seen as it passes.
    pub(super) fn watched(&self, passing: Passing, provider: Provider, model: &str) -> Body {
        let cut = format!("the answer of {} to {model} broke off", provider.name());
        Body::new(Watched { passing, witness: Some(self.0.witness.clone()), cut })
    }
}

/// An answer on its way. One that its agent does not want to the end says nothing.
struct Watched {
    passing: Passing,
    /// `None` once it has told.
    witness: Option<Witness>,
    cut: String,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.passing).poll_frame(cx));
        let over = matches!(frame, None | Some(Err(_))) || self.passing.is_end_stream();
        if self.passing.is_whole() {
            if let Some(witness) = self.witness.take() {
                witness.seen.send_modify(Seen::answered);
            }
        } else if over && let Some(witness) = self.witness.take() {
            witness.failed(std::mem::take(&mut self.cut), false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.passing.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.passing.size_hint()
    }
}
