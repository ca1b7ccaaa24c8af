//! The listening end: who may ask, how much, for how long.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use symphony_core::explain::{self, Explained};
use symphony_core::ids::Identifier;
use symphony_core::snapshot::Snapshot;
use symphony_core::steering::By;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hosts::{self, Hosts};
use super::place::{Socket, is_same_file, own_uid};
use super::raise::{self, Allowed};
use super::wire::{Accepted, Answer, Refusal, Request, VERSION, instant, line};
use crate::conductor::handle::{AnswerError, Handle, Taken};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 16;
/// Longest request, in bytes, its line end included.
pub(super) const MAX_LINE: u64 = 1_000_000;
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
        respond(&request, handle).await
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

/// What goes back to who asked.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Answered {
    Explained(Box<Answer>),
    Taken(Accepted),
    Hosts(Hosts),
    Raised(Allowed),
}

/// The answer to one line.
pub(super) async fn respond(request: &[u8], handle: &Handle) -> Result<Answered, Refusal> {
    let hint = || format!("send {{\"v\":{VERSION},\"command\":\"explain\",\"issue\":null}} and a line end");
    let bad = |message: String| Refusal::new("bad-request", message, hint());
    let value: Value = serde_json::from_slice(request).map_err(|error| bad(format!("not JSON: {error}")))?;
    if value["v"] != VERSION {
        let message = format!("this symphony speaks version {VERSION}, not {}", value["v"]);
        return Err(Refusal::new("unknown-version", message, "use the `symphony` program that is running"));
    }
    let command = value["command"].as_str().unwrap_or_default().to_owned();
    let about_hosts = hosts::COMMANDS.contains(&command.as_str());
    if !about_hosts && !["explain", "answer", "say", "raise"].contains(&command.as_str()) {
        let message = format!("no command is called {}", value["command"]);
        return Err(Refusal::new(
            "unknown-command",
            message,
            "`explain`, `answer`, `say`, `raise`, `egress`, `egress-decide` and `egress-forget` are",
        ));
    }
    let request: Request = serde_json::from_value(value).map_err(|error| bad(error.to_string()))?;
    if about_hosts {
        return hosts::respond(&request, handle).await.map(Answered::Hosts);
    }
    if command == "raise" {
        return raise::respond(&request, handle).await.map(Answered::Raised);
    }
    if command != "explain" {
        return take(request, handle).await.map(Answered::Taken);
    }
    let snapshot = handle.snapshot();
    let answer = match &request.issue {
        None => Answer::overview(&snapshot),
        Some(name) => Answer::of(&snapshot, &explain::find(&snapshot, name).map_err(|missing| unknown(&missing))?),
    };
    Ok(Answered::Explained(Box::new(answer)))
}

pub(super) fn unknown(missing: &explain::NoSuch) -> Refusal {
    Refusal::new("no-such-issue", missing.to_string(), missing.hint())
}

/// A person's words, for the agent of exactly one issue of exactly this workflow.
/// Whoever speaks to this symphony means its workflow, and not another one that they are beside.
pub(super) fn check_workflow(snapshot: &Snapshot, workflow: &str) -> Result<(), Refusal> {
    if is_same_file(Path::new(workflow), Path::new(&snapshot.workflow_path)) {
        return Ok(());
    }
    let hint = format!("the one in this directory runs {}; name it with --workflow", snapshot.workflow_path);
    Err(Refusal::new("other-workflow", format!("no symphony runs on {workflow}"), hint))
}

async fn take(request: Request, handle: &Handle) -> Result<Accepted, Refusal> {
    let bad = |message: &str| Refusal::new("bad-request", message, "say which workflow, which issue, and what");
    let workflow = request.workflow.as_deref().ok_or_else(|| bad("no workflow is named"))?;
    let name = request.issue.as_deref().ok_or_else(|| bad("no issue is named"))?;
    let text = request.text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| bad("there are no words"))?.to_owned();
    let snapshot = handle.snapshot();
    check_workflow(&snapshot, workflow)?;
    let found = explain::find(&snapshot, name).map_err(|missing| unknown(&missing))?;
    let identifier = named(name, &found)?;
    let taken = match request.command.as_str() {
        "answer" => {
            let answered = handle.answer(identifier.clone(), request.question, text, By::Cli).await;
            answered.map(|at| Taken { at, waits: None })
        }
        _ => handle.say(identifier.clone(), text, request.now, By::Cli).await,
    };
    let Taken { at, waits } = taken.map_err(|error| refused(&error, &identifier))?;
    Ok(Accepted { v: VERSION, identifier: identifier.0, accepted_at: instant(at), waits })
}

/// The one issue that was found by this name.
pub(super) fn named(name: &str, found: &[Explained]) -> Result<Identifier, Refusal> {
    match found {
        [one] if one.id.is_some() => Ok(Identifier(one.name.clone())),
        [one] => Err(Refusal::new("no-such-issue", format!("{name} is no issue: {}", one.reason), see(name))),
        _ => Err(Refusal::new("no-such-issue", format!("{name} may mean several issues"), see(name))),
    }
}

fn see(name: &str) -> String {
    format!("`symphony explain {name}` says more")
}

fn refused(error: &AnswerError, identifier: &Identifier) -> Refusal {
    let (code, hint) = match error {
        AnswerError::NotWaiting(_) => {
            ("no-question", format!("`symphony say {identifier}` tells its agent something unasked"))
        }
        AnswerError::AnsweredAlready(_) => {
            ("answered-already", "the first answer counts; this one was not sent".to_owned())
        }
        AnswerError::NoSuchIssue(_) => ("no-such-issue", see(&identifier.0)),
        AnswerError::AsksItself(_) => ("not-listening", format!("use `symphony answer {identifier}`")),
        AnswerError::NobodyWorks(_) => ("not-listening", see(&identifier.0)),
        AnswerError::HandingOff(_) => {
            ("not-listening", "move the issue back to an active state when it is finished, and say it then".to_owned())
        }
        AnswerError::NotStored(_) => ("not-stored", "it was not sent; the log of symphony says more".to_owned()),
        AnswerError::ShuttingDown => {
            ("shutting-down", "say it again when symphony has ended, or was started again".to_owned())
        }
    };
    Refusal::new(code, error.to_string(), hint)
}
