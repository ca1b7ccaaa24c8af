//! An answer on its way to the agent: each part goes on as it comes, the next is taken when there is room for it, and what
//! it used is read in passing. Dropping it drops the provider's end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use symphony_core::broker::{Meter, Metered, Provider, Reading};
use tokio::sync::mpsc::OwnedPermit;
use tokio::time::{Instant, Sleep};

use crate::metering::Ticket;
use crate::run::line::Report;

/// Longest silence of a provider within an answer.
const SILENCE: Duration = Duration::from_secs(600);

/// The body of an answer.
pub(super) struct Passing {
    inner: Incoming,
    silence: Pin<Box<Sleep>>,
    account: Option<Account>,
}

/// What is told of a request when it is over, however that comes: also of one whose agent hung up before an answer began,
/// for its provider may have worked. Room for the report was taken before the request was sent, so none is lost.
pub(super) struct Account {
    provider: Provider,
    asked: String,
    meter: Option<Meter>,
    /// What is set aside for it.
    ticket: Option<Ticket>,
    permit: Option<OwnedPermit<Report>>,
}

impl Account {
    /// Of a request that is about to be sent.
    pub(super) fn open(provider: Provider, asked: String, ticket: Ticket, permit: OwnedPermit<Report>) -> Self {
        Self { provider, asked, meter: None, ticket: Some(ticket), permit: Some(permit) }
    }

    /// It is sent now: from here on its provider may work.
    pub(super) fn sent(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.sent();
        }
    }

    /// The answer begins.
    pub(super) fn answered(&mut self, meter: Meter) {
        self.meter = Some(meter);
    }

    /// The provider did nothing for it. What is set aside stays so until this is dropped: it may be sent again.
    pub(super) fn refused(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.refused();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        if self.meter.as_ref().is_some_and(Meter::is_refusal) {
            self.refused();
        }
        // Nobody worked: there is nothing to tell, and what was set aside comes free.
        let Some(ticket) = self.ticket.take().filter(Ticket::is_sent) else { return };
        let read = self.meter.take().map(Meter::finish).unwrap_or_default();
        let model = read.model.clone().unwrap_or_else(|| std::mem::take(&mut self.asked));
        let Reading { tier, usage, whole, .. } = read;
        let metered = Metered { provider: self.provider, model, tier, usage, whole };
        let charged = ticket.settle(&metered);
        permit.send(Report::Metered(metered, charged));
    }
}

impl Passing {
    pub(super) fn new(inner: Incoming, account: Option<Account>) -> Self {
        Self { inner, silence: Box::pin(tokio::time::sleep(SILENCE)), account }
    }

    fn meter(&self) -> Option<&Meter> {
        self.account.as_ref().and_then(|account| account.meter.as_ref())
    }

    /// Whether the answer's own last word has passed.
    pub(super) fn is_whole(&self) -> bool {
        self.meter().is_some_and(Meter::is_whole)
    }

    /// The error that has passed as its last word.
    pub(super) fn error(&self) -> Option<String> {
        self.meter().and_then(Meter::error)
    }

    /// Nothing more comes.
    pub(super) fn end(&mut self) {
        if let Some(meter) = self.account.as_mut().and_then(|account| account.meter.as_mut()) {
            meter.end();
        }
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
                let meter = this.account.as_mut().and_then(|account| account.meter.as_mut());
                if let (Some(meter), Some(data)) = (meter, frame.data_ref()) {
                    meter.feed(data);
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
