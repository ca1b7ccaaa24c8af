//! The host's end of a channel: what a run asks of its guest, as calls. The guest is hostile: whatever arrives is bounded,
//! checked and turned into a [`ChannelError`]; nothing a guest sends can make a call wait beyond its deadline.
//! This module never starts or stops a sandbox and never interprets what an agent says.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod process;
mod relay;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use symphony_guest::mux::{Mux, MuxStream, Side};
use symphony_guest::wire::{self, Frame, FrameKind, Hello, Request, VERSION, WireError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub use process::{ExitFuture, Killer, Process};
pub use relay::Incoming;
pub use symphony_guest::mux::{Ended, MuxStream as Relay};
pub use symphony_guest::wire::{
    CheckOutcome, CheckRequest, Exit, ExportRequest, Exported, HelloInfo, Identity, Program, Refusal, RefusalKind,
    SeedRequest, SpawnRequest,
};

use relay::Listeners;

/// For requests that only need the guest to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// What an operation with its own deadline in the guest gets on top here.
const GRACE: Duration = Duration::from_secs(15);
/// How long a broken stream waits to learn whether the whole channel broke, for the sake of the message.
const EXPLAIN_DEADLINE: Duration = Duration::from_millis(250);
/// Room for a check's output announced by the workflow: never more than this is kept.
const MAX_CHECK_OUTPUT: usize = 16 * 1024 * 1024;
const CHUNK: usize = 32 * 1024;

/// Why something asked of a guest did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The channel is gone, and with it the guest.
    #[error("the channel to the guest is closed: {0}")]
    Closed(Ended),
    /// The guest closed this request's stream before it was answered.
    #[error("the guest broke off while we waited for {0}")]
    BrokenOff(&'static str),
    /// The guest did not keep to the protocol; its sandbox should be stopped.
    #[error("the guest broke the protocol: {0}")]
    Protocol(String),
    /// The guest speaks another version; rebuild the guest program from this symphony.
    #[error("the guest program speaks protocol version {theirs}, this symphony {ours}; rebuild the guest program")]
    Version {
        /// Ours.
        ours: u32,
        /// The guest's.
        theirs: u32,
    },
    /// The answer is not for this opening of the channel.
    #[error("the guest answered with another run's token")]
    Token,
    /// The guest said no.
    #[error("the guest refused: {0}")]
    Refused(#[source] Refusal),
    /// The guest did not answer in time.
    #[error("the guest did not finish {what} within {after:?}")]
    Timeout {
        /// What was asked.
        what: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// Our side of the data failed: the bundle could not be read or written.
    #[error("cannot {0} on this side: {1}")]
    Local(&'static str, #[source] std::io::Error),
}

/// A channel to one guest. Clones share it; when the last is dropped the channel closes, and the guest kills everything
/// and exits.
#[derive(Clone, Debug)]
pub struct Channel {
    mux: Mux,
    listeners: Arc<Listeners>,
}

impl Channel {
    /// Opens the conversation over a byte stream that leads to a guest program.
    ///
    /// # Errors
    /// No answer within `deadline`, another version, another token, or bytes that are no answer.
    pub async fn open<T>(io: T, token: &str, deadline: Duration) -> Result<(Self, HelloInfo), ChannelError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mux, inbound) = Mux::start(io, Side::Host);
        let listeners = Arc::new(Listeners::default());
        tokio::spawn(relay::accept_all(inbound, Arc::clone(&listeners)));
        let channel = Self { mux, listeners };
        let hello = Request::Hello(Hello { version: VERSION, token: token.to_owned() });
        let info: HelloInfo = match channel.ask(&hello, "hello", deadline).await {
            Err(ChannelError::Refused(r)) if r.kind == RefusalKind::Version => {
                return Err(ChannelError::Version { ours: VERSION, theirs: 0 });
            }
            other => other?,
        };
        if info.version != VERSION {
            return Err(ChannelError::Version { ours: VERSION, theirs: info.version });
        }
        if info.token != token {
            return Err(ChannelError::Token);
        }
        Ok((channel, info))
    }

    /// Starts a program in the guest.
    ///
    /// # Errors
    /// The program cannot be started, or the channel failed.
    pub async fn spawn(&self, request: SpawnRequest) -> Result<Process, ChannelError> {
        let stream = self.begin(&Request::Spawn(request), "spawn").await?;
        Ok(Process::start(stream, self.mux.watch_end()))
    }

    /// Listens on `127.0.0.1:port` inside the guest (0: any free port) until the result is dropped.
    ///
    /// # Errors
    /// The port is taken, too many are listened on, or the channel failed.
    pub async fn listen(&self, port: u16) -> Result<Incoming, ChannelError> {
        relay::listen(self, port).await
    }

    /// Builds the guest's work tree from a bundle.
    ///
    /// # Errors
    /// The guest could not build it (its words are in the refusal), `bundle` could not be read, or the channel failed.
    pub async fn seed(&self, request: SeedRequest, bundle: &mut (impl AsyncRead + Unpin)) -> Result<(), ChannelError> {
        let deadline = Duration::from_millis(request.timeout_ms).saturating_add(GRACE);
        self.within("seed", deadline, async {
            let mut stream = self.send(&Request::Seed(request)).await?;
            let (mut input, mut output) = tokio::io::split(&mut stream);
            let pour = async {
                let mut buffer = vec![0; CHUNK];
                loop {
                    let n = bundle.read(&mut buffer).await.map_err(|e| ChannelError::Local("read the bundle", e))?;
                    let kind = if n == 0 { FrameKind::End } else { FrameKind::Data };
                    // A guest that refused has stopped reading: its answer says why.
                    if wire::write_frame(&mut output, kind, &buffer[..n]).await.is_err() || n == 0 {
                        return Ok(());
                    }
                }
            };
            let answer = self.answer::<()>(&mut input, "seed");
            tokio::pin!(answer);
            tokio::select! {
                biased;
                early = &mut answer => return early,
                poured = pour => poured?,
            }
            answer.await
        })
        .await
    }

    /// Writes what the work tree holds beyond `request.have` to `out` as a bundle. The caller verifies the bundle: nothing
    /// in it is trustworthy.
    ///
    /// # Errors
    /// The guest could not export, sent more than it may, `out` could not be written, or the channel failed.
    pub async fn export(
        &self,
        request: ExportRequest,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Exported, ChannelError> {
        let deadline = Duration::from_millis(request.timeout_ms).saturating_add(GRACE);
        let cap = request.max_bytes;
        self.within("export", deadline, async {
            let mut stream = self.send(&Request::Export(request)).await?;
            let exported: Exported = self.answer(&mut stream, "export").await?;
            for oid in [Some(&exported.head), exported.wip.as_ref()].into_iter().flatten() {
                let hex = oid.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if !matches!(oid.len(), 40 | 64) || !hex {
                    return Err(ChannelError::Protocol("an exported commit is not an object name".into()));
                }
            }
            let mut total = 0u64;
            loop {
                let frame = self.frame(&mut stream, "export").await?;
                match frame.kind {
                    FrameKind::Data => {
                        total = total.saturating_add(frame.payload.len() as u64);
                        if total > cap {
                            return Err(ChannelError::Protocol(format!("the bundle exceeds {cap} bytes")));
                        }
                        let written = out.write_all(&frame.payload).await;
                        written.map_err(|e| ChannelError::Local("write the bundle", e))?;
                    }
                    FrameKind::End => break,
                    kind => return Err(misplaced(kind)),
                }
            }
            out.flush().await.map_err(|e| ChannelError::Local("write the bundle", e))?;
            if exported.empty != (total == 0) {
                return Err(ChannelError::Protocol("the bundle is not what the export announced".into()));
            }
            Ok(exported)
        })
        .await
    }

    /// Runs a command to its end; returns how it ended and its output (stdout and stderr as they came, capped).
    ///
    /// # Errors
    /// The command could not be started, or the channel failed. A command that fails is not an error.
    pub async fn check(&self, mut request: CheckRequest) -> Result<(CheckOutcome, Vec<u8>), ChannelError> {
        request.max_output = request.max_output.min(MAX_CHECK_OUTPUT);
        let deadline = Duration::from_millis(request.timeout_ms).saturating_add(GRACE);
        let cap = request.max_output;
        self.within("check", deadline, async {
            let mut stream = self.send(&Request::Check(request)).await?;
            let mut output = Vec::new();
            loop {
                let frame = self.frame(&mut stream, "check").await?;
                match frame.kind {
                    FrameKind::Data if output.len() + frame.payload.len() <= cap => output.extend(frame.payload),
                    FrameKind::Data => {
                        return Err(ChannelError::Protocol(format!("a check's output exceeds {cap} bytes")));
                    }
                    FrameKind::Reply => return Ok((frame.parse().map_err(protocol)?, output)),
                    kind => return Err(misplaced(kind)),
                }
            }
        })
        .await
    }

    /// Stores an opaque text on the guest's work disk; a later [`HelloInfo`] holds it.
    ///
    /// # Errors
    /// It is too long, cannot be written, or the channel failed.
    pub async fn marker(&self, text: &str) -> Result<(), ChannelError> {
        self.ask(&Request::Marker { text: text.to_owned() }, "marker", ANSWER_DEADLINE).await
    }

    /// Asks for a sign of life.
    ///
    /// # Errors
    /// None came within `deadline`.
    pub async fn ping(&self, deadline: Duration) -> Result<(), ChannelError> {
        self.ask(&Request::Ping, "ping", deadline).await
    }

    /// Leaves the guest program alone in its sandbox: everything else in it is killed.
    ///
    /// # Errors
    /// It did not say that it did within `deadline`.
    pub async fn clear(&self, deadline: Duration) -> Result<(), ChannelError> {
        self.ask(&Request::Clear, "clear", deadline).await
    }

    /// Asks the guest to kill everything, sync and exit.
    ///
    /// # Errors
    /// It did not say that it would within `deadline`; stop the sandbox the hard way.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), ChannelError> {
        self.ask(&Request::Shutdown, "shutdown", deadline).await
    }

    /// Resolves when the channel has ended.
    pub async fn closed(&self) -> Ended {
        self.mux.ended().await
    }

    /// How long ago the guest last sent anything but housekeeping: the measure of a stall.
    pub fn idle(&self) -> Duration {
        self.mux.idle()
    }

    /// Sends a request whose answer has no data.
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: &Request,
        what: &'static str,
        deadline: Duration,
    ) -> Result<T, ChannelError> {
        self.within(what, deadline, async {
            let mut stream = self.send(request).await?;
            self.answer(&mut stream, what).await
        })
        .await
    }

    /// Sends a request and waits for its first answer; the stream goes on.
    async fn begin(&self, request: &Request, what: &'static str) -> Result<MuxStream, ChannelError> {
        self.within(what, ANSWER_DEADLINE, async {
            let mut stream = self.send(request).await?;
            let () = self.answer(&mut stream, what).await?;
            Ok(stream)
        })
        .await
    }

    async fn within<T>(
        &self,
        what: &'static str,
        after: Duration,
        work: impl Future<Output = Result<T, ChannelError>>,
    ) -> Result<T, ChannelError> {
        timeout(after, work).await.unwrap_or(Err(ChannelError::Timeout { what, after }))
    }

    async fn send(&self, request: &Request) -> Result<MuxStream, ChannelError> {
        let mut stream = match self.mux.open().await {
            Ok(stream) => stream,
            Err(e) => return Err(self.explain(e.into(), "a stream").await),
        };
        match wire::write_header(&mut stream, request).await {
            Ok(()) => Ok(stream),
            Err(e) => Err(self.explain(e, "a request to be sent").await),
        }
    }

    /// The next frame of a request's stream; a refusal becomes an error.
    async fn frame(&self, stream: &mut (impl AsyncRead + Unpin), what: &'static str) -> Result<Frame, ChannelError> {
        match wire::read_frame(stream).await {
            Ok(Some(frame)) if frame.kind == FrameKind::Error => {
                Err(ChannelError::Refused(frame.parse().map_err(protocol)?))
            }
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(self.explain(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(), what).await),
            Err(e) => Err(self.explain(e, what).await),
        }
    }

    async fn answer<T: serde::de::DeserializeOwned>(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        what: &'static str,
    ) -> Result<T, ChannelError> {
        let frame = self.frame(stream, what).await?;
        if frame.kind != FrameKind::Reply {
            return Err(misplaced(frame.kind));
        }
        frame.parse().map_err(protocol)
    }

    async fn explain(&self, error: WireError, what: &'static str) -> ChannelError {
        match error {
            WireError::Io(_) => match timeout(EXPLAIN_DEADLINE, self.mux.ended()).await {
                Ok(ended) => ChannelError::Closed(ended),
                Err(_) => ChannelError::BrokenOff(what),
            },
            other => protocol(other),
        }
    }
}

fn protocol(error: WireError) -> ChannelError {
    ChannelError::Protocol(error.to_string())
}

fn misplaced(kind: FrameKind) -> ChannelError {
    ChannelError::Protocol(format!("a frame of kind {kind:?} came where it has no place"))
}
