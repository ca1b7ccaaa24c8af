//! What the multiplexer itself does not bound: a guard on the byte stream reads each yamux header on its way in and ends
//! the channel for a malformed or oversize frame, too many streams, or too many frames nobody has read yet (yamux
//! keeps a heap block per frame, so tiny or empty frames would cost far more memory than the window admits).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Side;

/// Unread frames of all streams together: about 20 MiB of bookkeeping at worst.
pub(super) const MAX_UNREAD_FRAMES: u32 = 256 * 1024;
/// Payload of one yamux data frame; an honest peer splits at 16 KiB.
const MAX_BODY: u32 = 64 * 1024;
const HEADER: usize = 12;
const DATA: u8 = 0;
const WINDOW: u8 = 1;
const GO_AWAY: u8 = 3;
const SYN: u16 = 1;

/// What the guard and the streams know together.
#[derive(Debug)]
pub(super) struct Ledger {
    side: Side,
    max_inbound: usize,
    started: Instant,
    last_data_ms: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Unread frames of each live stream.
    unread: HashMap<u32, u32>,
    total: u32,
    inbound: usize,
    verdict: Option<String>,
}

impl Ledger {
    pub(super) fn new(side: Side, max_inbound: usize) -> Self {
        Self {
            side,
            max_inbound,
            started: Instant::now(),
            last_data_ms: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_inbound(&self, id: u32) -> bool {
        // Hosts open odd ids, guests even ones.
        (id % 2 == 1) == (self.side == Side::Guest)
    }

    pub(super) fn opened(&self, id: u32) {
        self.lock().unread.entry(id).or_insert(0);
    }

    /// Everything that had arrived for the stream was read.
    pub(super) fn drained(&self, id: u32) {
        let mut state = self.lock();
        if let Some(count) = state.unread.get_mut(&id) {
            let count = std::mem::take(count);
            state.total = state.total.saturating_sub(count);
        }
    }

    pub(super) fn dropped(&self, id: u32) {
        let mut state = self.lock();
        if let Some(count) = state.unread.remove(&id) {
            state.total = state.total.saturating_sub(count);
            if self.is_inbound(id) {
                state.inbound = state.inbound.saturating_sub(1);
            }
        }
    }

    pub(super) fn idle(&self) -> Duration {
        let last = Duration::from_millis(self.last_data_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    pub(super) fn verdict(&self) -> Option<String> {
        self.lock().verdict.clone()
    }

    /// Judges one header; returns how many bytes of body follow it.
    fn judge(&self, header: [u8; HEADER]) -> Result<u32, String> {
        let [version, tag, f0, f1, i0, i1, i2, i3, l0, l1, l2, l3] = header;
        let flags = u16::from_be_bytes([f0, f1]);
        let id = u32::from_be_bytes([i0, i1, i2, i3]);
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        if version != 0 || tag > GO_AWAY {
            return Err(format!("the peer does not speak the multiplexer's protocol (version {version}, type {tag})"));
        }
        let mut state = self.lock();
        if flags & SYN != 0 && (tag == DATA || tag == WINDOW) {
            if !self.is_inbound(id) || state.unread.contains_key(&id) {
                return Err(format!("the peer opened stream {id}, which is not its to open"));
            }
            if state.inbound >= self.max_inbound {
                return Err(format!("the peer opened more than {} streams", self.max_inbound));
            }
            state.inbound += 1;
            state.unread.insert(id, 0);
        }
        if tag != DATA {
            return Ok(0);
        }
        if length > MAX_BODY {
            return Err(format!("the peer announced a frame of {length} bytes; at most {MAX_BODY} are allowed"));
        }
        // Frames of streams we dropped are thrown away by the multiplexer: they cost nothing.
        if let Some(count) = state.unread.get_mut(&id) {
            *count += 1;
            state.total += 1;
            if state.total > MAX_UNREAD_FRAMES {
                return Err(format!("the peer sent more than {MAX_UNREAD_FRAMES} frames that nobody has read"));
            }
        }
        if length > 0 {
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_data_ms.store(now, Ordering::Relaxed);
        }
        Ok(length)
    }
}

/// Passes bytes through and judges the headers among those read.
#[derive(Debug)]
pub(super) struct Guard<T> {
    io: T,
    ledger: Arc<Ledger>,
    header: [u8; HEADER],
    have: usize,
    body: u32,
}

impl<T> Guard<T> {
    pub(super) fn new(io: T, ledger: Arc<Ledger>) -> Self {
        Self { io, ledger, header: [0; HEADER], have: 0, body: 0 }
    }

    fn inspect(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.body > 0 {
                let skip = bytes.len().min(self.body as usize);
                self.body -= u32::try_from(skip).unwrap_or(self.body);
                bytes = &bytes[skip..];
                continue;
            }
            let take = bytes.len().min(HEADER - self.have);
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have == HEADER {
                self.have = 0;
                self.body = self.ledger.judge(self.header)?;
            }
        }
        Ok(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled
            && let Err(verdict) = self.inspect(&buf.filled()[before..])
        {
            self.ledger.lock().verdict = Some(verdict.clone());
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, verdict)));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
