//! The byte stream under the ACP connection: lines in, lines out, each bounded, recorded and counted.
//!
//! The SDK reads lines of any length, queues without bound and answers garbage; so what reaches it has
//! been through here. Only JSON objects pass, one at a time, and nothing more is read while the
//! agent leaves our answers unread: its own flood then fills its own pipe, not our memory.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::Stream;
use serde::Deserialize;
use serde::de::IgnoredAny;
use symphony_core::json_weight;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;

use super::activity::Activity;
use super::chunks::Chunks;
use super::event::Events;
use super::redact::Lines;
use super::transcript::{Direction, Transcript};

/// Longest line an agent may send, in bytes (C159).
pub(crate) const MAX_LINE: usize = 10_000_000;
/// Most values in one line: a line within [`MAX_LINE`] could otherwise take a gigabyte once parsed.
const MAX_VALUES: usize = 100_000;
/// Lines that may wait for the agent to read them.
pub(crate) const OUTGOING: usize = 16;
/// How long the agent may take to notice the end of its input.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Why the stream ended other than by its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line beyond one of the limits: the agent's fault.
    TooLarge,
    /// The transport broke.
    Broken(String),
}

/// An agent that loads a session tells its whole history again. That is old: nobody is shown it, it is no sign of life,
/// and it is only counted.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    running: AtomicBool,
    dropped: AtomicU64,
}

impl Replay {
    /// From here on updates are history.
    pub(crate) fn begin(&self) {
        self.running.store(true, Ordering::SeqCst);
    }

    /// From here on they are news. Says how many there were that were not.
    pub(crate) fn end(&self) -> u64 {
        self.running.store(false, Ordering::SeqCst);
        self.dropped.swap(0, Ordering::SeqCst)
    }

    /// Whether this line is history.
    fn takes(&self, line: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Head<'a> {
            #[serde(borrow)]
            method: Option<Cow<'a, str>>,
        }
        let is_update = || {
            // Trimmed as it is when it is news.
            let line = std::str::from_utf8(line).unwrap_or_default().trim();
            serde_json::from_str::<Head<'_>>(line)
                .is_ok_and(|head| head.method.is_some_and(|method| method == "session/update"))
        };
        let takes = self.running.load(Ordering::SeqCst) && is_update();
        self.dropped.fetch_add(u64::from(takes), Ordering::SeqCst);
        takes
    }
}

/// What the wire tells others.
#[derive(Clone, Debug)]
pub(crate) struct Taps {
    pub(crate) events: Events,
    pub(crate) transcript: Option<Transcript>,
    pub(crate) activity: Activity,
    pub(crate) fault: Arc<OnceLock<Fault>>,
    pub(crate) replay: Arc<Replay>,
    pub(crate) max_line: usize,
}

impl Taps {
    /// Reports a line that cannot be taken, and the end of the session with it.
    fn too_large(&self) -> io::Error {
        let message = self.longest();
        self.events.send("malformed", &message, false);
        drop(self.fault.set(Fault::TooLarge));
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    /// A line that cannot be taken, in words.
    pub(crate) fn longest(&self) -> String {
        format!("a line of more than {} bytes or {MAX_VALUES} values", self.max_line)
    }

    fn record(&self, dir: Direction, line: &str) {
        if let Some(transcript) = &self.transcript {
            transcript.record(dir, line);
        }
    }
}

/// What comes from the agent, on its way to those who may see it.
struct Intake {
    taps: Taps,
    chunks: Chunks,
    /// What is no message.
    malformed: Lines,
    /// Messages that nobody has taken yet.
    ready: VecDeque<String>,
}

impl Intake {
    fn new(taps: Taps) -> Self {
        let (chunks, malformed) = (Chunks::new(taps.events.secrets().clone()), Lines::default());
        Self { taps, chunks, malformed, ready: VecDeque::new() }
    }

    /// Sorts a line: what is no message is reported and dropped.
    fn take(&mut self, bytes: Vec<u8>) {
        let line = match String::from_utf8(bytes) {
            Ok(line) => line,
            Err(error) => return self.malformed(&String::from_utf8_lossy(error.as_bytes())),
        };
        let text = line.trim();
        if text.is_empty() {
            return;
        }
        if !is_message(text) {
            return self.malformed(text);
        }
        let (before, message) = self.chunks.take(text);
        self.pass(before);
        self.pass([message.into_owned()]);
    }

    fn malformed(&mut self, text: &str) {
        let said = self.malformed.line(self.taps.events.secrets(), text, true);
        self.tell_malformed(said);
    }

    fn tell_malformed(&self, said: Option<String>) {
        if let Some(said) = said {
            self.taps.record(Direction::In, &said);
            self.taps.events.send("malformed", &said, false);
        }
    }

    fn pass(&mut self, messages: impl IntoIterator<Item = String>) {
        for message in messages {
            self.taps.record(Direction::In, &message);
            self.ready.push_back(message);
        }
    }

    /// Nothing more comes: what waited goes on.
    fn end(&mut self) {
        let said = self.malformed.end(self.taps.events.secrets());
        self.tell_malformed(said);
        let rest = self.chunks.rest();
        self.pass(rest);
    }
}

/// However it ends, what the agent said is written down.
impl Drop for Intake {
    fn drop(&mut self) {
        self.end();
    }
}

/// The agent's lines that are JSON-RPC messages. `outgoing` is the queue of lines to the agent.
pub(crate) fn incoming(
    reader: impl AsyncRead + Send + Unpin + 'static,
    outgoing: mpsc::Sender<String>,
    taps: Taps,
) -> impl Stream<Item = io::Result<String>> + Send + 'static {
    let reader = BufReader::with_capacity(64 * 1024, reader);
    let intake = Intake::new(taps);
    futures::stream::unfold(Some((reader, outgoing, intake)), async |state| {
        let (mut reader, outgoing, mut intake) = state?;
        loop {
            if let Some(line) = intake.ready.pop_front() {
                return Some((Ok(line), Some((reader, outgoing, intake))));
            }
            // The SDK is polled between two lines, so its queues stay short.
            tokio::task::yield_now().await;
            if let Ok(room) = outgoing.reserve_many(OUTGOING / 2).await {
                drop(room);
            }
            match read_line(&mut reader, intake.taps.max_line).await {
                Ok(Read::Line(bytes)) if json_weight::values(&bytes) > MAX_VALUES => {
                    return Some((Err(intake.taps.too_large()), None));
                }
                Ok(Read::Line(bytes)) if intake.taps.replay.takes(&bytes) => {}
                Ok(Read::Line(bytes)) => {
                    intake.taps.activity.touch();
                    intake.take(bytes);
                }
                Ok(Read::End) => {
                    intake.end();
                    if intake.ready.is_empty() {
                        return None;
                    }
                }
                Ok(Read::TooLong) => return Some((Err(intake.taps.too_large()), None)),
                Err(error) => {
                    drop(intake.taps.fault.set(Fault::Broken(error.to_string())));
                    return Some((Err(error), None));
                }
            }
        }
    })
}

/// Writes the queue to the agent until it ends, then closes the agent's input.
pub(crate) async fn outgoing(
    mut writer: impl AsyncWrite + Send + Unpin,
    mut queue: mpsc::Receiver<String>,
    taps: Taps,
) {
    while let Some(mut line) = queue.recv().await {
        taps.record(Direction::Out, &line);
        line.push('\n');
        let written = async {
            writer.write_all(line.as_bytes()).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            // The agent's output says more about its end than its unread input; reading goes on.
            tracing::debug!(%error, "the agent's input is closed");
            break;
        }
    }
    // Nothing to do about an agent that is gone already.
    drop(tokio::time::timeout(SHUTDOWN, writer.shutdown()).await);
}

/// Whether `text` is one JSON-RPC request, notification or response. ACP knows no batches.
fn is_message(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Head {
        method: Option<String>,
        id: Option<IgnoredAny>,
        result: Option<IgnoredAny>,
        error: Option<IgnoredAny>,
    }
    // A result may be `null`, which reads as absent; an answer is then told by its id alone.
    text.starts_with('{')
        && serde_json::from_str::<Head>(text)
            .is_ok_and(|h| h.method.is_some() || h.id.is_some() || h.result.is_some() || h.error.is_some())
}

enum Read {
    Line(Vec<u8>),
    End,
    TooLong,
}

/// One line without its end, of at most `max` bytes; memory stays below `max` and one buffer.
async fn read_line(reader: &mut (impl AsyncBufReadExt + Unpin), max: usize) -> io::Result<Read> {
    let mut line = Vec::new();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok(if line.is_empty() { Read::End } else { Read::Line(line) });
        }
        let (take, ended) = match chunk.iter().position(|b| *b == b'\n') {
            Some(at) => (at, true),
            None => (chunk.len(), false),
        };
        if line.len() + take > max {
            return Ok(Read::TooLong);
        }
        line.extend_from_slice(&chunk[..take]);
        reader.consume(take + usize::from(ended));
        if ended {
            return Ok(Read::Line(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_json_rpc_objects_are_messages() {
        for yes in
            [r#"{"method":"a"}"#, r#"{"id":1,"result":null}"#, r#"{"id":"x","error":{}}"#, r#"{"id":2,"method":"m"}"#]
        {
            assert!(is_message(yes), "{yes}");
        }
        for no in [
            "hello",
            "[]",
            r#"[{"method":"a"}]"#,
            "{}",
            r#"{"foo":1}"#,
            "3",
            "null",
            r#"{"method":"#,
            r#"{"method":3}"#,
        ] {
            assert!(!is_message(no), "{no}");
        }
    }
}
