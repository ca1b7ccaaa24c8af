//! The listening end: who may ask, how much, for how long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use symphony_core::explain;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::place::{Socket, own_uid};
use super::wire::{Answer, Refusal, Request, VERSION, line};
use crate::conductor::handle::Handle;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// Longest request, in bytes, its line end included.
pub(super) const MAX_LINE: u64 = 64 * 1024;
/// From the first byte to the last one of the answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Answers requests until `stop`, then ends at once. The socket's file goes with it.
pub async fn serve(socket: Socket, handle: Handle, stop: CancellationToken) {
    let listener = match socket.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, "local commands cannot be answered");
            return;
        }
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    let mut strangers = false;
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener, &places)).await {
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a local command could not be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if is_served(peer.uid()) => {}
            peer => {
                if !std::mem::replace(&mut strangers, true) {
                    let uid = peer.map_or_else(|error| error.to_string(), |peer| peer.uid().to_string());
                    tracing::warn!(%uid, "another user knocked at the operator's socket; it is not answered, nor said again");
                }
                continue;
            }
        }
        let (handle, stop) = (handle.clone(), stop.clone());
        connections.spawn(async move {
            // A client that is slow, or gone, is not our news.
            let _ = stop.run_until_cancelled(timeout(DEADLINE, converse(stream, &handle))).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn accept(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
    listener.accept().await.map(|(stream, _)| (stream, place))
}

/// Ourselves, and root, from whom nothing can be kept.
fn is_served(uid: u32) -> bool {
    uid == own_uid() || uid == 0
}

async fn converse(stream: UnixStream, handle: &Handle) -> io::Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading.take(MAX_LINE));
    let mut request = Vec::new();
    reading.read_until(b'\n', &mut request).await?;
    if request.is_empty() {
        return Ok(());
    }
    let too_long = !request.ends_with(b"\n") && request.len() as u64 >= MAX_LINE;
    let answer = if too_long {
        Err(Refusal::new("too-long", format!("a request ends at {MAX_LINE} bytes"), "send one short line"))
    } else {
        respond(&request, handle)
    };
    writing.write_all(&line(&answer)).await?;
    writing.shutdown().await?;
    if too_long {
        // A client that still writes would see its connection break before it reads why; it has the deadline.
        let mut rest = reading.into_inner();
        rest.set_limit(u64::MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    }
    Ok(())
}

/// The answer to one line.
pub(super) fn respond(request: &[u8], handle: &Handle) -> Result<Answer, Refusal> {
    let hint = || format!("send {{\"v\":{VERSION},\"command\":\"explain\",\"issue\":null}} and a line end");
    let bad = |message: String| Refusal::new("bad-request", message, hint());
    let value: Value = serde_json::from_slice(request).map_err(|error| bad(format!("not JSON: {error}")))?;
    if value["v"] != VERSION {
        let message = format!("this symphony speaks version {VERSION}, not {}", value["v"]);
        return Err(Refusal::new("unknown-version", message, "use the `symphony` program that is running"));
    }
    match value["command"].as_str() {
        Some("explain") => {}
        Some(_) | None => {
            let message = format!("no command is called {}", value["command"]);
            return Err(Refusal::new("unknown-command", message, "`explain` is one"));
        }
    }
    let request: Request = serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
    let snapshot = handle.snapshot();
    match request.issue {
        None => Ok(Answer::overview(&snapshot)),
        Some(name) => explain::find(&snapshot, &name)
            .map(|found| Answer::of(&snapshot, &found))
            .map_err(|missing| Refusal::new("no-such-issue", missing.to_string(), missing.hint())),
    }
}
