//! Runs one block with `sh -e` in its own process group, streaming its output.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::check::HeadTail;

/// Bytes of a block's output that are kept for a question, a summary or an error.
const KEPT: usize = 8 * 1024;
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How a block went.
pub(super) struct Ran {
    /// The exit code; 128 + n for signal n.
    pub(super) code: i32,
    /// The first and last of its output.
    pub(super) output: String,
}

struct KillGroup(Option<Pid>);

impl Drop for KillGroup {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Runs a script. When the future is dropped, the process group dies.
pub(super) async fn run(
    script: &str,
    cwd: &Path,
    answer: Option<&str>,
    mut say: impl FnMut(&str),
) -> std::io::Result<Ran> {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(cwd).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match answer {
        Some(answer) => command.env("SYMPHONY_ANSWER", answer),
        None => command.env_remove("SYMPHONY_ANSWER"),
    };
    // SAFETY: one system call between fork and exec.
    unsafe {
        // The block is in a group of its own: whoever kills the agent's must not leave it running.
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let mut child = command.spawn()?;
    let group = KillGroup(child.id().and_then(|p| i32::try_from(p).ok()).and_then(Pid::from_raw));
    let (mut out, mut err) = (Source::new(child.stdout.take()), Source::new(child.stderr.take()));
    let mut kept = HeadTail::new(KEPT);
    let mut status = None;
    while !(out.done() && err.done()) {
        let bytes = tokio::select! {
            bytes = out.next(), if !out.done() => bytes,
            bytes = err.next(), if !err.done() => bytes,
            ended = child.wait(), if status.is_none() => {
                status = Some(ended?);
                // What it left running does not hold up the turn.
                drop(KillGroup(group.0));
                continue;
            }
            () = tokio::time::sleep(LAST_WORDS), if status.is_some() => break,
        };
        kept.push(bytes.as_bytes());
        say(&bytes);
    }
    let status = match status {
        Some(status) => status,
        None => child.wait().await?,
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(Ran { code, output: String::from_utf8_lossy(&kept.bytes()).trim().to_owned() })
}

/// A pipe read as text: characters split across reads are put together again.
struct Source<T> {
    pipe: Option<T>,
    rest: Vec<u8>,
}

impl<T: AsyncRead + Unpin> Source<T> {
    fn new(pipe: Option<T>) -> Self {
        Self { pipe, rest: Vec::new() }
    }

    fn done(&self) -> bool {
        self.pipe.is_none()
    }

    /// Cancellation-safe: only the read waits.
    async fn next(&mut self) -> String {
        let mut buffer = [0; 8192];
        let n = match &mut self.pipe {
            Some(pipe) => pipe.read(&mut buffer).await.unwrap_or(0),
            None => 0,
        };
        self.rest.extend_from_slice(&buffer[..n]);
        if n == 0 {
            self.pipe = None;
        }
        let whole = match std::str::from_utf8(&self.rest) {
            Err(e) if e.error_len().is_none() && n > 0 => e.valid_up_to(),
            _ => self.rest.len(),
        };
        let bytes: Vec<u8> = self.rest.drain(..whole).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Commits what is uncommitted, if anything is.
///
/// # Errors
/// git failed; its last words.
pub(super) async fn commit_all(cwd: &Path, message: &str) -> Result<(), String> {
    let steps = "git add -A && { git diff --cached --quiet || git commit -q -m \"$SYMPHONY_ANSWER\"; }";
    // The message travels in the variable so that no shell reads it.
    let ran = timeout(Duration::from_secs(600), run(steps, cwd, Some(message), |_| {}))
        .await
        .map_err(|_| "committing took too long".to_owned())?
        .map_err(|e| format!("cannot run sh: {e}"))?;
    if ran.code == 0 { Ok(()) } else { Err(format!("cannot commit: {}", ran.output)) }
}
