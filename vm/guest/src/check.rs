//! `check`: a command run to its end; how it ended, and its output (stdout and stderr as they came), the middle left out when
//! there is too much. The process group dies at the deadline, when the command exits, and when the host loses interest.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::child::{self, exit_of};
use crate::mux::MuxStream;
use crate::serve::{Guest, refuse, reply};
use crate::wire::{self, CheckOutcome, CheckRequest, Exit, FrameKind, Refusal, RefusalKind};

/// For output still in the pipes once the group is dead.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serves one check request to its end.
pub(crate) async fn check(guest: &Arc<Guest>, stream: MuxStream, request: CheckRequest) {
    let (mut input, mut output) = tokio::io::split(stream);
    let work = async {
        match run(guest, &request).await {
            Ok((outcome, kept)) => {
                for chunk in kept.chunks(32 * 1024) {
                    if wire::write_frame(&mut output, FrameKind::Data, chunk).await.is_err() {
                        return;
                    }
                }
                reply(output, &outcome).await;
            }
            Err(refusal) => refuse(output, refusal).await,
        }
    };
    tokio::select! {
        () = work => {}
        // Nothing is expected here but the end: the host no longer waits.
        _ = wire::read_frame(&mut input) => {}
    }
}

async fn run(guest: &Guest, request: &CheckRequest) -> Result<(CheckOutcome, Vec<u8>), Refusal> {
    let argv: Vec<OsString> = request.argv.iter().map(OsString::from).collect();
    let cwd = guest.cwd(request.cwd.as_deref());
    let (mut child, group) = child::start(&argv, &request.env, &cwd, &guest.groups)
        .map_err(|e| Refusal::new(RefusalKind::Spawn, format!("cannot start the check: {e}")))?;
    drop(child.stdin.take());
    let kept = Mutex::new(HeadTail::new(request.max_output));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let pumps = async { tokio::join!(pump(out, &kept), pump(err, &kept)) };
    tokio::pin!(pumps);
    let (mut drained, mut timed_out) = (false, false);
    let deadline = tokio::time::sleep(Duration::from_millis(request.timeout_ms));
    tokio::pin!(deadline);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = &mut pumps, if !drained => drained = true,
            () = &mut deadline, if !timed_out => {
                timed_out = true;
                group.kill();
            }
        }
    };
    group.kill();
    if !drained {
        let _ = timeout(LAST_WORDS, &mut pumps).await;
    }
    let exit = status.map_or(Exit::Signal(0), exit_of);
    let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((CheckOutcome { exit, timed_out, truncated: kept.truncated }, kept.bytes()))
}

async fn pump(pipe: Option<impl AsyncRead + Unpin>, kept: &Mutex<HeadTail>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..n]);
    }
}

/// The first and the last half of a text of any length.
#[derive(Debug)]
pub(crate) struct HeadTail {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    half: usize,
    pub(crate) truncated: bool,
}

impl HeadTail {
    pub(crate) fn new(cap: usize) -> Self {
        Self { head: Vec::new(), tail: VecDeque::new(), half: cap / 2, truncated: false }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.half - self.head.len());
        self.head.extend_from_slice(&bytes[..fits]);
        self.tail.extend(&bytes[fits..]);
        let excess = self.tail.len().saturating_sub(self.half);
        self.truncated |= excess > 0;
        self.tail.drain(..excess);
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.head.iter().chain(&self.tail).copied().collect()
    }
}
