//! The call that runs the guest program in a machine, and the channel it gives: a socket the guest program connects to, or
//! the call's own standard streams. The call ends when the guest program does, and the other way round.

use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::cli::Cli;
use super::copy::GUEST;
use super::machine::{GUEST_SOCKET, Name};

/// What is kept of an error stream; the rest is read and dropped, so that a writer never blocks.
const KEPT: usize = 64 * 1024;
/// How long the error stream may take to end after the call did.
const SETTLING: Duration = Duration::from_secs(1);

/// How the guest program reaches us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Over the socket that is mounted into its machine.
    Socket,
    /// Over its standard input and output.
    Stdio,
}

/// A running call. Dropping it kills the call, which kills what it runs in the machine.
#[derive(Debug)]
pub(super) struct Exec {
    child: Child,
    group: Option<Pid>,
    stderr: Arc<Mutex<Vec<u8>>>,
    reading: Option<JoinHandle<()>>,
}

impl Exec {
    /// Starts the guest program, or what a trial wants instead of it.
    pub(super) fn start(cli: &Cli, name: &Name, program: &[String], channel: Channel) -> io::Result<Self> {
        let mut args = ["machine", "exec", "--name", name.as_str()].map(str::to_owned).to_vec();
        if channel == Channel::Stdio {
            args.push("-i".to_owned());
        }
        args.push("--".to_owned());
        match program.is_empty() {
            false => args.extend(program.iter().cloned()),
            true => {
                // Uploads are not executable everywhere, and not every version takes a mode.
                let mode = format!("chmod 755 {GUEST} && exec {GUEST} \"$@\"");
                args.extend(["/bin/sh", "-c", &mode, "sh", "machine"].map(str::to_owned));
                match channel {
                    Channel::Socket => args.extend(["--connect", GUEST_SOCKET].map(str::to_owned)),
                    Channel::Stdio => args.push("--stdio".to_owned()),
                }
                let dirs = ["--work", "/work", "--home", "/home/agent", "--state", "/state"];
                args.extend(dirs.map(str::to_owned));
            }
        }
        let mut command = Command::new(cli.bin());
        command.args(cli.arguments(args)).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.envs(cli.env().iter().map(|(name, value)| (name, value)));
        match channel {
            Channel::Socket => command.stdin(Stdio::null()).stdout(Stdio::null()),
            Channel::Stdio => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
        };
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (into, from) = (stderr.clone(), child.stderr.take());
        let reading = Some(tokio::spawn(async move {
            let Some(mut from) = from else { return };
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = KEPT.saturating_sub(kept.len()).min(read);
                kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
        }));
        Ok(Self { child, group, stderr, reading })
    }

    /// The guest program's connection; `Err` with its words when it ended instead. Only the first one is taken: nothing
    /// else in the machine runs yet.
    pub(super) async fn connected(&mut self, listener: &UnixListener) -> Result<UnixStream, String> {
        tokio::select! {
            accepted = listener.accept() => accepted.map(|(io, _)| io).map_err(|error| error.to_string()),
            code = self.ended() => {
                let said = self.stderr();
                Err(if said.trim().is_empty() { format!("it ended with {code:?} and said nothing") } else { said })
            }
        }
    }

    /// The call's own streams as one socket. The two copies end with the call.
    pub(super) fn streams(&mut self) -> io::Result<UnixStream> {
        let (Some(mut input), Some(mut output)) = (self.child.stdin.take(), self.child.stdout.take()) else {
            return Err(io::Error::other("the call has no streams"));
        };
        let (ours, theirs) = UnixStream::pair()?;
        let (mut read, mut write) = theirs.into_split();
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut read, &mut input).await;
            let _ = input.shutdown().await;
        });
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut output, &mut write).await;
            let _ = write.shutdown().await;
        });
        Ok(ours)
    }

    /// Waits for the end of the call; its exit code is the guest program's, when it has one. Cancellation safe.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let status = self.child.wait().await;
        self.group = None;
        if let Some(reading) = &mut self.reading {
            let _ = timeout(SETTLING, reading).await;
            self.reading = None;
        }
        status.ok().and_then(|status| status.code())
    }

    /// Kills the call.
    pub(super) fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // Not reaped yet, so the number is still its own; gone already is fine.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }

    /// What the guest program, or smolvm, wrote to its standard error.
    pub(super) fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        self.kill();
        if let Some(reading) = &self.reading {
            reading.abort();
        }
    }
}

/// Whether these last words of the guest program say that its socket, and nothing else, is at fault.
pub(super) fn blames_socket(said: &str) -> bool {
    said.contains("cannot connect to")
}
