//! Many streams over one byte stream: yamux, driven by one task, behind a guard that bounds what a hostile peer can
//! make it hold. Both ends use this; only the side that opens the first stream differs.
//!
//! Bounds: every stream may hold [`yamux::DEFAULT_CREDIT`] unread bytes (the window is kept from growing, whatever round-trip
//! time the peer pretends), [`MAX_STREAMS`] streams, and `guard::MAX_UNREAD_FRAMES` unread frames in all.

mod guard;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::poll_fn;
use futures::io::{AsyncRead as _, AsyncWrite as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::compat::TokioAsyncReadCompatExt;

use guard::{Guard, Ledger};

/// Streams of one channel, both directions together: at most 48 MiB of unread bytes.
pub const MAX_STREAMS: usize = 192;
/// Streams the peer may hold open; the rest are ours, so that a peer cannot starve us of requests.
const MAX_INBOUND: usize = 144;

/// Why a channel ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// We closed it.
    #[error("closed by this side")]
    Here,
    /// The peer closed it or went away.
    #[error("closed by the peer")]
    Peer,
    /// The peer broke the rules of the multiplexer, or the byte stream failed.
    #[error("broken: {0}")]
    Broken(String),
}

/// Which end of the byte stream this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Opens requests.
    Host,
    /// Answers them.
    Guest,
}

type OpenReply = oneshot::Sender<io::Result<MuxStream>>;

/// A handle on the driver. When the last clone is dropped, the channel closes.
#[derive(Clone, Debug)]
pub struct Mux {
    open: mpsc::Sender<OpenReply>,
    ended: watch::Receiver<Option<Ended>>,
    ledger: Arc<Ledger>,
}

impl Mux {
    /// Starts the driver task on the current runtime. The receiver yields streams the peer opens.
    pub fn start<T>(io: T, side: Side) -> (Self, mpsc::Receiver<MuxStream>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        // No head room over the guaranteed windows: a peer that delays its pongs cannot grow them.
        config.set_max_connection_receive_window(Some(MAX_STREAMS * yamux::DEFAULT_CREDIT as usize));
        let mode = match side {
            Side::Host => yamux::Mode::Client,
            Side::Guest => yamux::Mode::Server,
        };
        let ledger = Arc::new(Ledger::new(side, MAX_INBOUND));
        // The multiplexer reads headers alone: buffered, that is not a system call each.
        let io = tokio::io::BufReader::with_capacity(64 * 1024, io);
        let guarded = Guard::new(io, Arc::clone(&ledger)).compat();
        let connection = yamux::Connection::new(guarded, config, mode);
        let (open, requests) = mpsc::channel(16);
        let (inbound, accepted) = mpsc::channel(MAX_INBOUND);
        let (done, ended) = watch::channel(None);
        let driver = Driver { connection, requests, waiting: None, inbound, ledger: Arc::clone(&ledger) };
        tokio::spawn(async move {
            let reason = driver.run().await;
            let _ = done.send(Some(reason));
        });
        (Self { open, ended, ledger }, accepted)
    }

    /// Opens a stream. The peer learns of it with the first byte written.
    ///
    /// # Errors
    /// The channel has ended, or too many streams are open.
    pub async fn open(&self) -> io::Result<MuxStream> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the channel is closed");
        let (reply, answer) = oneshot::channel();
        self.open.send(reply).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Resolves when the channel has ended, with the reason.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(Ended::Peer),
            Err(_) => Ended::Broken("the driver was stopped".into()),
        }
    }

    /// A receiver of the end, which does not keep the channel open.
    pub fn watch_end(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.clone()
    }

    /// How long ago the peer last sent a byte of payload (not of housekeeping).
    pub fn idle(&self) -> Duration {
        self.ledger.idle()
    }
}

struct Driver<T> {
    connection: yamux::Connection<T>,
    requests: mpsc::Receiver<OpenReply>,
    waiting: Option<OpenReply>,
    inbound: mpsc::Sender<MuxStream>,
    ledger: Arc<Ledger>,
}

impl<T: futures::io::AsyncRead + futures::io::AsyncWrite + Unpin> Driver<T> {
    async fn run(mut self) -> Ended {
        let reason = poll_fn(|cx| self.poll(cx)).await;
        // Dropped, not closed: yamux's graceful close forgets to wake whoever reads a stream. The peer sees the end.
        drop(self.connection);
        // What the guard found explains the failure better than the multiplexer can.
        match self.ledger.verdict() {
            Some(verdict) => Ended::Broken(verdict),
            None => reason,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        // Bounded, so that a peer that keeps us busy does not keep the thread.
        for _ in 0..32 {
            if self.waiting.is_none() {
                match self.requests.poll_recv(cx) {
                    Poll::Ready(Some(reply)) => self.waiting = Some(reply),
                    Poll::Ready(None) => return Poll::Ready(Ended::Here),
                    Poll::Pending => {}
                }
            }
            let mut opened = false;
            if self.waiting.is_some()
                && let Poll::Ready(result) = self.connection.poll_new_outbound(cx)
                && let Some(reply) = self.waiting.take()
            {
                let stream = result.map(|s| MuxStream::new(s, &self.ledger)).map_err(io::Error::other);
                let _ = reply.send(stream);
                opened = true;
            }
            match self.connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    // A full queue means nobody accepts: dropping resets the stream.
                    let _ = self.inbound.try_send(MuxStream::new(stream, &self.ledger));
                }
                Poll::Ready(Some(Err(e))) => return Poll::Ready(Ended::Broken(e.to_string())),
                Poll::Ready(None) => return Poll::Ready(Ended::Peer),
                Poll::Pending if opened => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One stream. Dropping it without `shutdown` resets it; a reset reads as an error, not as an end.
#[derive(Debug)]
pub struct MuxStream {
    inner: yamux::Stream,
    id: u32,
    shut: bool,
    ledger: Arc<Ledger>,
}

impl MuxStream {
    fn new(inner: yamux::Stream, ledger: &Arc<Ledger>) -> Self {
        // yamux prints its ids but does not hand them out.
        let id = inner.id().to_string().parse().unwrap_or(0);
        ledger.opened(id);
        Self { inner, id, shut: false, ledger: Arc::clone(ledger) }
    }
}

impl Drop for MuxStream {
    fn drop(&mut self) {
        self.ledger.dropped(self.id);
    }
}

impl AsyncRead for MuxStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let space = buf.initialize_unfilled();
        let room = space.len();
        if room == 0 {
            return Poll::Ready(Ok(()));
        }
        let Poll::Ready(read) = Pin::new(&mut self.inner).poll_read(cx, space) else {
            self.ledger.drained(self.id);
            return Poll::Pending;
        };
        let n = read?;
        if n < room {
            self.ledger.drained(self.id);
        }
        if n == 0 && self.inner.is_closed() && !self.shut {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the peer reset the stream")));
        }
        buf.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MuxStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.inner).poll_close(cx))?;
            self.shut = true;
        }
        Poll::Ready(Ok(()))
    }
}
