//! An answer on its way, watched for what becomes of it: its end, a break, or an error that its provider sends within it.
//! What that says of later requests is known to all before the agent has the bytes of it, so that whatever the agent asks
//! next meets it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::HeaderMap;
use hyper::body::{Body as HttpBody, Bytes, Frame};
use symphony_core::board::StopCause;
use symphony_core::broker::quota::{self, Pause, Trouble};
use symphony_core::broker::{Failed, Provider, Seen, words_of};
use symphony_core::time::Tick;

use super::Door;
use super::credential::Credential;
use super::forward::scrub;
use super::hold::refused;
use super::passing::Passing;

/// Whose answer it is.
pub(super) struct Answering {
    pub(super) door: Door,
    pub(super) provider: Provider,
    pub(super) model: String,
    pub(super) credential: Credential,
    /// The answer's own.
    pub(super) headers: HeaderMap,
    pub(super) sent: Tick,
}

/// One that its agent does not want to the end says nothing.
pub(super) struct Watched {
    passing: Passing,
    /// `None` once it has told.
    of: Option<Answering>,
}

impl Watched {
    pub(super) fn new(passing: Passing, of: Answering) -> Self {
        Self { passing, of: Some(of) }
    }
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
        if over {
            self.passing.end();
        }
        if self.of.is_some() {
            if self.passing.is_whole() {
                self.of.take().into_iter().for_each(Answering::answered);
            } else if let Some(error) = self.passing.error() {
                self.of.take().into_iter().for_each(|of| of.broken_off(&error));
            } else if over {
                self.of.take().into_iter().for_each(Answering::cut);
            }
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

impl Answering {
    /// All of it has passed.
    fn answered(self) {
        let (of, shared) = (self.credential.fingerprint(), &*self.door.0);
        shared.broker.standings.was_answered(&of);
        self.door.was_answered();
        shared.witness.seen.send_modify(Seen::answered);
        let standing = shared.broker.standings.answered(&of, self.sent);
        let in_vain = shared.broker.in_vain.answered(&shared.purse.payer.issue);
        tokio::spawn(async move {
            standing.await;
            in_vain.await;
        });
    }

    fn cut(self) {
        let said = format!("the answer of {} to {} broke off", self.provider.name(), self.model);
        self.door.0.witness.failed(said, Failed::Open);
    }

    /// Its provider ended it with an error: as a refusal with the status of that kind.
    fn broken_off(self, error: &str) {
        let (of, shared) = (self.credential.fingerprint(), &*self.door.0);
        let words = scrub(error, &self.credential);
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let in_a_row = shared.broker.standings.in_a_row_with(&of, self.sent);
        let (status, model) = (quota::status(&words), self.model.as_str());
        let refused = quota::Refused { status, header: &header, words: &words, model, in_a_row };
        let (provider, name) = (self.provider, self.provider.name());
        let said = format!("{name} broke off its answer to {model} with {}", named(&words));
        match quota::trouble(&refused, jiff::Timestamp::now()).map(Trouble::pause) {
            None => {
                let failed = if quota::is_unknown_model(&refused) { Failed::NoModel } else { Failed::Open };
                self.door.tell("model_error", || said.clone());
                shared.witness.failed(said, failed);
            }
            Some(Some((wait, pause))) => {
                self.door.tell("model_limited", || format!("{said}: nothing is asked for {:.0} s", wait.as_secs_f64()));
                tokio::spawn(shared.broker.standings.wait(&of, provider, self.sent, wait, pause));
                self.door.was_refused(of, wait);
                self.wait(wait, pause, &said);
            }
            Some(None) => {
                // Whatever its agent makes of it meanwhile is no failure.
                shared.witness.seen.send_modify(|seen| seen.paused(provider));
                tokio::spawn(self.login(said));
            }
        }
    }

    /// An issue to which only this happens, while others are answered, asks for what is never answered.
    fn wait(&self, wait: Duration, pause: Pause, said: &str) {
        let (of, shared) = (self.credential.fingerprint(), &*self.door.0);
        if pause == Pause::Asked && self.door.is_in_vain(of) {
            return shared.witness.failed(self.door.in_vain(said), Failed::Open);
        }
        shared.witness.seen.send_modify(|seen| seen.paused(self.provider));
        if wait > self.door.patience() {
            tokio::spawn(self.door.pause_run(self.provider));
        }
    }

    /// It is no use with this credential, unless only something about this request is.
    async fn login(self, said: String) {
        let (of, door) = (self.credential.fingerprint(), &self.door);
        // Its owner, or we, may have renewed it while this answer went on.
        let newer = door.credential(self.provider, true).await;
        if newer.is_ok_and(|newer| newer.fingerprint() != of) {
            return door.0.witness.failed(said, Failed::Open);
        }
        if door.is_taken(self.provider, &self.credential).await {
            return door.0.witness.failed(said, Failed::Open);
        }
        let said = refused(self.provider, &self.credential);
        door.0.broker.standings.refuse(&of, self.provider, said.clone()).await;
        door.shut_out(self.provider, true, said);
    }
}

impl Door {
    /// The turn of the run's agent is over. Where its provider's last word was to wait, the run ends over that, whatever its
    /// agent made of it.
    pub fn turn_over(&self) -> Option<StopCause> {
        if let Some(provider) = self.0.witness.seen.borrow().waits_for() {
            tokio::spawn(self.pause_run(provider));
        }
        *self.0.over.borrow()
    }
}

/// An error in its provider's words; its kind where it has none.
fn named(words: &str) -> String {
    let said = words_of(words);
    let read = serde_json::from_str::<serde_json::Value>(words).unwrap_or_default();
    let kind = ["type", "code"].into_iter().find_map(|name| read.pointer(&format!("/error/{name}"))?.as_str());
    match (said.starts_with('{'), kind) {
        (true, None) => "an error".to_owned(),
        (true, Some(kind)) => kind.to_owned(),
        (false, None) => format!("`{said}`"),
        (false, Some(kind)) => format!("{kind}: {said}"),
    }
}
