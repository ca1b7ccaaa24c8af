//! A program in the guest, as pipes and a future on this side. One task per program takes its stream apart: stdout and
//! stderr share it, so a reader must drain both, as with real pipes. Data waits in bounded pipes only.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use symphony_guest::mux::{Ended, MuxStream};
use symphony_guest::wire::{self, Exit, FrameKind, STDIN_CREDIT, WireError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{Notify, Semaphore, oneshot, watch};

use super::{ChannelError, EXPLAIN_DEADLINE, misplaced, protocol};

/// Bytes that wait on this side for a reader or the channel.
const PIPE: usize = 64 * 1024;
const CHUNK: usize = 16 * 1024;

/// A program running in the guest.
#[derive(Debug)]
pub struct Process {
    /// Dropping or shutting it down closes the program's stdin.
    pub stdin: DuplexStream,
    /// Ends when the program's stdout did. May be dropped; the output is then thrown away.
    pub stdout: DuplexStream,
    /// As `stdout`.
    pub stderr: DuplexStream,
    /// How the program ended, once all its output was handed over. Dropping it kills the program.
    pub exit: ExitFuture,
    /// Kills the program's process group.
    pub killer: Killer,
}

/// Resolves when the program has ended. Dropping it kills the program.
#[derive(Debug)]
pub struct ExitFuture(oneshot::Receiver<Result<Exit, ChannelError>>);

/// Kills a program's process group; its exit is still reported.
#[derive(Clone, Debug)]
pub struct Killer(Arc<Notify>);

impl Killer {
    /// Sends the word; the program may have ended already.
    pub fn kill(&self) {
        self.0.notify_one();
    }
}

impl Future for ExitFuture {
    type Output = Result<Exit, ChannelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| told.unwrap_or(Err(ChannelError::BrokenOff("an exit"))))
    }
}

impl Process {
    pub(super) fn start(stream: MuxStream, ended: watch::Receiver<Option<Ended>>) -> Self {
        let (stdin, typed) = tokio::io::duplex(PIPE);
        let (stdout, out) = tokio::io::duplex(PIPE);
        let (stderr, err) = tokio::io::duplex(PIPE);
        let (mut tell, exit) = oneshot::channel();
        let kill = Arc::new(Notify::new());
        let killer = Killer(Arc::clone(&kill));
        tokio::spawn(async move {
            let (input, output) = tokio::io::split(stream);
            let credit = Credit { free: Semaphore::new(STDIN_CREDIT), used: AtomicUsize::new(0) };
            let result = tokio::select! {
                result = take_apart(input, out, err, &credit) => result,
                never = put_in(output, typed, &credit, &kill) => match never {},
                () = tell.closed() => return,
            };
            let result = match result {
                Err(WireError::Io(_)) => Err(explain(ended).await),
                Err(e) => Err(protocol(e)),
                Ok(told) => told,
            };
            let _ = tell.send(result);
        });
        Self { stdin, stdout, stderr, exit: ExitFuture(exit), killer }
    }
}

async fn explain(mut ended: watch::Receiver<Option<Ended>>) -> ChannelError {
    match tokio::time::timeout(EXPLAIN_DEADLINE, ended.wait_for(Option::is_some)).await {
        Ok(Ok(reason)) => ChannelError::Closed(reason.clone().unwrap_or(Ended::Peer)),
        _ => ChannelError::BrokenOff("an exit"),
    }
}

/// Bytes of stdin the guest still lets us send.
struct Credit {
    free: Semaphore,
    used: AtomicUsize,
}

async fn take_apart(
    mut input: impl AsyncRead + Unpin,
    out: DuplexStream,
    err: DuplexStream,
    credit: &Credit,
) -> Result<Result<Exit, ChannelError>, WireError> {
    let (mut out, mut err) = (Some(out), Some(err));
    loop {
        let Some(frame) = wire::read_frame(&mut input).await? else {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        };
        match frame.kind {
            FrameKind::Data => hand_over(&mut out, &frame.payload).await,
            FrameKind::Stderr => hand_over(&mut err, &frame.payload).await,
            FrameKind::Credit => {
                let written: usize = frame.parse()?;
                if credit.used.fetch_sub(written, Ordering::Relaxed) < written {
                    return Ok(Err(ChannelError::Protocol("more stdin was confirmed than sent".into())));
                }
                credit.free.add_permits(written);
            }
            FrameKind::Exit => return Ok(Ok(frame.parse()?)),
            FrameKind::Error => return Ok(Err(ChannelError::Refused(frame.parse()?))),
            kind => return Ok(Err(misplaced(kind))),
        }
    }
}

/// Whoever no longer reads loses the output; the program is not held up by it.
async fn hand_over(pipe: &mut Option<DuplexStream>, bytes: &[u8]) {
    if let Some(open) = pipe
        && open.write_all(bytes).await.is_err()
    {
        *pipe = None;
    }
}

async fn put_in(
    mut output: impl AsyncWrite + Unpin,
    mut typed: DuplexStream,
    credit: &Credit,
    kill: &Notify,
) -> Infallible {
    let mut buffer = vec![0; CHUNK];
    let mut open = true;
    // A failed write is not told here: reading the same stream fails too, and explains.
    loop {
        let next = async {
            if !open {
                return std::future::pending().await;
            }
            let n = typed.read(&mut buffer).await.unwrap_or(0);
            // At most `CHUNK`, so the number always fits.
            if let Ok(permit) = credit.free.acquire_many(u32::try_from(n).unwrap_or(0)).await {
                permit.forget();
            }
            n
        };
        tokio::select! {
            () = kill.notified() => {
                // What was being typed does not matter any more.
                open = false;
                let _ = wire::write_frame(&mut output, FrameKind::Kill, &[]).await;
            }
            n = next => {
                credit.used.fetch_add(n, Ordering::Relaxed);
                let kind = if n == 0 { FrameKind::End } else { FrameKind::Data };
                open = n > 0;
                let _ = wire::write_frame(&mut output, kind, &buffer[..n]).await;
            }
        }
    }
}
