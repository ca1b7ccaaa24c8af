//! A booted jail as its host holds it: the launcher process, the lifeline, the captured error stream.

use std::collections::VecDeque;
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

/// What is kept of an error stream: how it began and how it ended. The rest is read and dropped, so that a writer never
/// blocks, and however much somebody writes, the last words are there.
const FIRST: usize = 16 * 1024;
const LAST: usize = 47 * 1024;

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

/// The two ends of a stream.
#[derive(Debug, Default)]
struct Kept {
    first: Vec<u8>,
    last: VecDeque<u8>,
    dropped: bool,
}

impl Kept {
    fn add(&mut self, new: &[u8]) {
        let room = FIRST.saturating_sub(self.first.len()).min(new.len());
        let (first, rest) = new.split_at(room);
        self.first.extend_from_slice(first);
        self.last.extend(rest);
        let over = self.last.len().saturating_sub(LAST);
        self.dropped |= over > 0;
        self.last.drain(..over);
    }

    fn text(&self) -> String {
        let between: &[u8] = if self.dropped { b"\n[...]\n" } else { b"" };
        let (front, back) = self.last.as_slices();
        String::from_utf8_lossy(&[&self.first, between, front, back].concat()).into_owned()
    }
}

/// A capped copy of an error stream.
#[derive(Debug)]
pub(super) struct Stderr {
    kept: Arc<Mutex<Kept>>,
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
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (end, ended) = watch::channel(false);
        let into = Arc::clone(&kept);
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let new = buffer.get(..read).unwrap_or_default();
                into.lock().unwrap_or_else(PoisonError::into_inner).add(new);
            }
            end.send_replace(true);
        });
        Self { kept, ended }
    }

    pub(super) fn text(&self) -> String {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// The text once the stream has ended, or after a second.
    pub(super) async fn settled(&self) -> String {
        let mut ended = self.ended.clone();
        let _ = timeout(SETTLING, ended.wait_for(|ended| *ended)).await;
        self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::{FIRST, Kept, LAST};

    #[test]
    fn the_first_and_the_last_words_of_a_flood_are_kept() {
        let mut kept = Kept::default();
        kept.add(b"first words, ");
        kept.add(b"next words");
        assert_eq!(kept.text(), "first words, next words");
        for _ in 0..1000 {
            kept.add(&[b'x'; 4096]);
        }
        kept.add(b"Out of memory");
        let text = kept.text();
        assert!(text.starts_with("first words, next words") && text.ends_with("xOut of memory"));
        assert_eq!(text.len(), FIRST + LAST + "\n[...]\n".len());
    }
}
