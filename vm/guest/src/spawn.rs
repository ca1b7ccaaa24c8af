//! `spawn`: a program whose stdio crosses the channel. Its exit is told after its output. When the stream closes, or the
//! host says so, its whole process group is killed; what it left running when it exited is killed too.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::ChildStdin;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::timeout;

use crate::child::{self, Group, exit_of};
use crate::mux::MuxStream;
use crate::serve::{Guest, refuse};
use crate::wire::{self, FrameKind, Program, Refusal, RefusalKind, STDIN_CREDIT, SpawnRequest};

/// For output that is still on its way when the program has exited and its group was killed: someone who left the group
/// may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(2);
const CHUNK: usize = 32 * 1024;

/// Serves one spawn request to its end.
pub(crate) async fn spawn(guest: &Arc<Guest>, stream: MuxStream, request: SpawnRequest) {
    let argv: Vec<OsString> = match &request.program {
        Program::Argv(argv) => argv.iter().map(OsString::from).collect(),
        Program::ScriptAgent => guest.self_argv.iter().cloned().chain(["script-agent".into()]).collect(),
    };
    let cwd = guest.cwd(request.cwd.as_deref());
    let (mut child, group) = match child::start(&argv, &request.env, &cwd, &guest.groups) {
        Ok(started) => started,
        Err(e) => {
            let program = argv.first().map(|p| p.display().to_string()).unwrap_or_default();
            let words = format!("cannot start `{program}` in {}: {e}", cwd.display());
            return refuse(stream, Refusal::new(RefusalKind::Spawn, words)).await;
        }
    };
    let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let (mut input, output) = tokio::io::split(stream);
    let output = Mutex::new(output);
    let (typed, to_type) = mpsc::unbounded_channel();
    let (exited, has_exited) = watch::channel(false);

    let life = async {
        send_json(&output, FrameKind::Reply, &()).await?;
        let wait = async {
            let status = child.wait().await;
            group.kill();
            exited.send_replace(true);
            status
        };
        let (status, out, err) = tokio::join!(
            wait,
            pump(stdout, FrameKind::Data, &output, has_exited.clone()),
            pump(stderr, FrameKind::Stderr, &output, has_exited.clone()),
        );
        out?;
        err?;
        match status {
            Ok(status) => send_json(&output, FrameKind::Exit, &exit_of(status)).await?,
            Err(e) => send_json(&output, FrameKind::Error, &Refusal::new(RefusalKind::Io, e.to_string())).await?,
        }
        Ok::<(), wire::WireError>(output.lock().await.shutdown().await?)
    };
    tokio::select! {
        // The channel or the stream is gone, or the child's story is told: dropping the group kills what is left.
        _ = life => {}
        () = listen(&mut input, typed, &output, &group) => {}
        never = feed(stdin, to_type, &output) => match never {},
    }
}

/// Bytes of stdin that are taken but not yet written to the child stand in this queue; its length is bounded by the
/// credit the host was given, so reading never blocks and a closed stream is noticed at once.
async fn listen(
    input: &mut (impl AsyncRead + Unpin),
    typed: mpsc::UnboundedSender<Vec<u8>>,
    output: &Mutex<impl AsyncWrite + Unpin>,
    group: &Group,
) {
    let mut typed = Some(typed);
    loop {
        match wire::read_frame(input).await {
            Ok(Some(frame)) => match frame.kind {
                FrameKind::Data => {
                    if let Some(typed) = &typed {
                        let _ = typed.send(frame.payload);
                    }
                }
                FrameKind::End => typed = None,
                FrameKind::Kill => group.kill(),
                _ => {
                    let words = "this frame has no place on a running program's stream";
                    let _ = send_json(output, FrameKind::Error, &Refusal::new(RefusalKind::BadRequest, words)).await;
                    return;
                }
            },
            Ok(None) | Err(_) => return,
        }
    }
}

/// Writes stdin to the child and confirms it. A child that closed its stdin loses the rest, as in a shell's pipe.
async fn feed(
    stdin: ChildStdin,
    mut to_type: mpsc::UnboundedReceiver<Vec<u8>>,
    output: &Mutex<impl AsyncWrite + Unpin>,
) -> std::convert::Infallible {
    let mut stdin = Some(stdin);
    let mut pending = 0usize;
    while let Some(bytes) = to_type.recv().await {
        if let Some(pipe) = &mut stdin
            && (pipe.write_all(&bytes).await.is_err() || pipe.flush().await.is_err())
        {
            stdin = None;
        }
        pending += bytes.len();
        if pending >= STDIN_CREDIT / 8 || to_type.is_empty() {
            let _ = send_json(output, FrameKind::Credit, &pending).await;
            pending = 0;
        }
    }
    drop(stdin);
    std::future::pending().await
}

async fn pump(
    mut pipe: impl AsyncRead + Unpin,
    kind: FrameKind,
    output: &Mutex<impl AsyncWrite + Unpin>,
    mut exited: watch::Receiver<bool>,
) -> Result<(), wire::WireError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let gone = *exited.borrow();
        let n = if gone {
            match timeout(LAST_WORDS, pipe.read(&mut buffer)).await {
                Ok(read) => read.unwrap_or(0),
                Err(_) => 0,
            }
        } else {
            tokio::select! {
                read = pipe.read(&mut buffer) => read.unwrap_or(0),
                _ = exited.changed() => continue,
            }
        };
        if n == 0 {
            return Ok(());
        }
        wire::write_frame(&mut *output.lock().await, kind, &buffer[..n]).await?;
    }
}

async fn send_json<T: serde::Serialize>(
    output: &Mutex<impl AsyncWrite + Unpin>,
    kind: FrameKind,
    value: &T,
) -> Result<(), wire::WireError> {
    wire::write_json(&mut *output.lock().await, kind, value).await
}
