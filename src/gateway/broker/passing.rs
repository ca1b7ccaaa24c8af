//! An answer on its way to the agent: each part goes on as it comes, the next is taken when there is room for it, and what
//! it used is read in passing. Dropping it drops the provider's end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use symphony_core::broker::{Meter, Metered, Provider};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, Sleep};

use crate::run::line::Report;

/// Longest silence of a provider within an answer.
const SILENCE: Duration = Duration::from_secs(600);

/// The body of an answer.
pub(super) struct Passing {
    inner: Incoming,
    silence: Pin<Box<Sleep>>,
    account: Option<Account>,
}

/// What is told of the request when its answer is over, however that comes. Room for the report was taken before the
/// request was sent, so none is lost.
pub(super) struct Account {
    pub(super) provider: Provider,
    pub(super) asked: String,
    pub(super) meter: Meter,
    pub(super) permit: OwnedPermit<Report>,
}

impl Passing {
    pub(super) fn new(inner: Incoming, account: Option<Account>) -> Self {
        Self { inner, silence: Box::pin(tokio::time::sleep(SILENCE)), account }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.silence.as_mut().poll(cx));
                return Poll::Ready(Some(Err("the provider fell silent".into())));
            }
        };
        this.silence.as_mut().reset(Instant::now() + SILENCE);
        match frame {
            Some(Ok(frame)) => {
                if let (Some(account), Some(data)) = (&mut this.account, frame.data_ref()) {
                    account.meter.feed(data);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let Some(Account { provider, asked, meter, permit }) = self.account.take() else { return };
        let read = meter.finish();
        let model = read.model.unwrap_or(asked);
        permit.send(Report::Metered(Metered { provider, model, usage: read.usage, whole: read.whole }));
    }
}
