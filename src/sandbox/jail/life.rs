//! A booted jail as its host holds it: the launcher process, the lifeline, the captured error stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr};
use tokio::sync::watch;
use tokio::time::timeout;

use super::cgroup::Cgroups;
use crate::sandbox::Ending;

/// What is kept of an error stream; the rest is read and dropped, so that a writer never blocks.
const KEPT: usize = 64 * 1024;

/// How long the kernel may take to bury a jail that was killed.
const BURIAL: Duration = Duration::from_secs(10);

/// How long the error stream may take to end after the jail did.
const SETTLING: Duration = Duration::from_secs(1);

/// The hold on one jail. Dropping it kills the jail.
#[derive(Debug)]
pub(super) struct Life {
    launcher: Child,
    lifeline: Option<UnixStream>,
    stderr: Stderr,
    cgroups: Cgroups,
    killed: bool,
}

impl Life {
    pub(super) fn new(launcher: Child, lifeline: UnixStream, stderr: Stderr, cgroups: Cgroups) -> Self {
        Self { launcher, lifeline: Some(lifeline), stderr, cgroups, killed: false }
    }

    /// Waits for the end of everything in the jail.
    async fn ended(&mut self) -> Ending {
        let status = self.launcher.wait().await;
        let stderr = self.stderr.settled().await;
        let code = status.ok().and_then(|status| status.code()).filter(|_| !self.killed);
        Ending { code, killed: self.killed, out_of_memory: self.cgroups.out_of_memory(), stderr }
    }

    /// Gives the guest `grace`, then has the launcher kill it, then kills the launcher.
    async fn end(&mut self, grace: Duration) -> Ending {
        if let Ok(ending) = timeout(grace, self.ended()).await {
            return ending;
        }
        self.killed = true;
        drop(self.lifeline.take());
        if let Ok(ending) = timeout(BURIAL, self.ended()).await {
            return ending;
        }
        // A launcher that hangs; its own death takes pid 1, and so everything, with it.
        let _ = self.launcher.start_kill();
        let ending = timeout(BURIAL, self.ended()).await;
        ending.unwrap_or_else(|_| Ending { code: None, killed: true, out_of_memory: false, stderr: self.stderr.text() })
    }
}

impl crate::sandbox::Life for Life {
    fn wait(&mut self) -> BoxFuture<'_, Ending> {
        self.ended().boxed()
    }

    fn stop(&mut self, grace: Duration) -> BoxFuture<'_, Ending> {
        self.end(grace).boxed()
    }

    fn stderr(&self) -> String {
        self.stderr.text()
    }
}

/// A capped copy of an error stream.
#[derive(Debug)]
pub(super) struct Stderr {
    kept: Arc<Mutex<Vec<u8>>>,
    ended: watch::Receiver<bool>,
}

impl Default for Stderr {
    fn default() -> Self {
        Self { kept: Arc::default(), ended: watch::channel(true).1 }
    }
}

impl Stderr {
    /// Reads until the end on a task of its own; the task ends with the last writer.
    pub(super) fn drain(mut from: ChildStderr) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = watch::channel(false);
        let into = Arc::clone(&kept);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                let room = KEPT.saturating_sub(kept.len()).min(read);
                kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
            }
            end.send_replace(true);
        });
        Self { kept, ended }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// The text once the stream has ended, or after a second.
    pub(super) async fn settled(&self) -> String {
        let mut ended = self.ended.clone();
        let _ = timeout(SETTLING, ended.wait_for(|ended| *ended)).await;
        self.text()
    }
}
