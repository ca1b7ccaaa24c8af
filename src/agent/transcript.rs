//! The record of a run's ACP frames: one JSONL file, append-only, redacted, bounded.
//!
//! Recording never waits and never fails a run: a disk that cannot keep up costs lines, and the file
//! says how many.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::Timestamp;
use serde_json::{Value, json};
use symphony_core::spend::Sums;

use super::event::one_line;
use super::readable::{About, requests};
use super::redact::Secrets;

/// How much of a frame is kept, in bytes.
pub const FRAME_CAP: usize = 64 * 1024;
/// How much is kept of a run, in bytes.
const FILE_CAP: u64 = 64 * 1024 * 1024;
/// Longest name of a model.
const MODEL_MAX: usize = 200;
/// Frames that may wait for the disk.
const QUEUE: usize = 128;

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From us to the agent.
    Out,
    /// From the agent to us.
    In,
    /// From the agent's standard error.
    Err,
}

/// Appends frames to a file from a thread of its own, which ends with the last clone.
#[derive(Clone, Debug)]
pub struct Transcript {
    lines: SyncSender<Line>,
    secrets: Secrets,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Line {
    /// A word of ours.
    Note {
        at: Timestamp,
        name: &'static str,
        value: Value,
    },
    Frame {
        at: Timestamp,
        dir: Direction,
        frame: String,
        bytes: usize,
    },
}

impl Transcript {
    /// Opens `path` for appending, readable by its owner only.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub fn open(path: &Path, secrets: Secrets) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        let (lines, queue) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        std::thread::Builder::new().name("transcript".into()).spawn(move || write(file, written, &queue, &lost))?;
        Ok(Self { lines, secrets, dropped })
    }

    /// The same file, with one more secret to redact.
    #[must_use]
    pub fn hiding(&self, secret: &str) -> Self {
        Self { secrets: self.secrets.and(secret), ..self.clone() }
    }

    /// Records whose transcript this is; the first line of a run.
    pub fn begin(&self, about: About) {
        self.note("about", about.to_json());
    }

    /// Records what a request to a model used.
    pub fn request(&self, provider: &str, model: &str, sums: &Sums) {
        let model = one_line(&self.secrets.redact(model, MODEL_MAX));
        self.note("request", requests::request(provider, &model, sums));
    }

    /// Records something of ours, without a secret in it.
    pub(crate) fn note(&self, name: &'static str, value: Value) {
        self.put(Line::Note { at: Timestamp::now(), name, value });
    }

    /// Records one frame; what is beyond [`FRAME_CAP`] is cut.
    pub fn record(&self, dir: Direction, frame: &str) {
        let kept = self.secrets.redact(frame, FRAME_CAP);
        self.put(Line::Frame { at: Timestamp::now(), dir, frame: kept, bytes: frame.len() });
    }

    fn put(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The writing thread.
fn write(file: File, mut written: u64, queue: &Receiver<Line>, dropped: &AtomicU64) {
    let mut file = BufWriter::new(file);
    let mut full = written >= FILE_CAP;
    while let Ok(first) = queue.recv() {
        for line in std::iter::once(first).chain(queue.try_iter()) {
            if full {
                continue;
            }
            let lost = dropped.swap(0, Ordering::Relaxed);
            let mut text = if lost > 0 {
                format!("{}\n", json!({"at": line.at().to_string(), "dropped": lost}))
            } else {
                String::new()
            };
            text.push_str(&line.to_json());
            text.push('\n');
            written += text.len() as u64;
            if written > FILE_CAP {
                full = true;
                text = format!("{}\n", json!({"at": line.at().to_string(), "full": "this run's transcript ends here"}));
            }
            if file.write_all(text.as_bytes()).is_err() {
                full = true;
            }
        }
        if file.flush().is_err() {
            full = true;
        }
    }
}

impl Line {
    fn at(&self) -> Timestamp {
        let (Self::Note { at, .. } | Self::Frame { at, .. }) = self;
        *at
    }

    /// `{"at","about"}` or another word of ours, or `{"at","dir","frame"}`; the frame is a string where it is no JSON, or was cut.
    fn to_json(&self) -> String {
        let (at, dir, frame, bytes) = match self {
            Self::Note { at, name, value } => return json!({"at": at.to_string(), *name: value}).to_string(),
            Self::Frame { at, dir, frame, bytes } => (at, *dir, frame, *bytes),
        };
        let word = match dir {
            Direction::Out => "out",
            Direction::In => "in",
            Direction::Err => "stderr",
        };
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(frame).is_ok();
        if bytes <= FRAME_CAP && is_json && dir != Direction::Err {
            return format!(r#"{{"at":"{at}","dir":"{word}","frame":{frame}}}"#);
        }
        let mut line = json!({"at": at.to_string(), "dir": word, "frame": frame});
        if bytes > FRAME_CAP {
            line["bytes"] = bytes.into();
        }
        line.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file's lines once there are `count`; the thread needs a moment.
    fn lines(path: &Path, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..500 {
            let text = std::fs::read_to_string(path).expect("readable");
            if text.lines().count() >= count {
                return text.lines().map(|line| serde_json::from_str(line).expect("JSONL")).collect();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no {count} lines in {}", path.display());
    }

    #[test]
    fn frames_are_kept_in_order_redacted_and_cut() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("run.jsonl");
        let transcript = Transcript::open(&path, Secrets::new(["hunter22".to_owned()])).expect("opened");
        transcript.record(Direction::Out, r#"{"method":"x","token":"hunter22"}"#);
        transcript.hiding("later-secret").record(Direction::In, "not json later-secret");
        transcript.record(Direction::In, &"y".repeat(FRAME_CAP * 2));
        let lines = lines(&path, 3);
        assert_eq!(lines[0]["dir"], "out");
        assert_eq!(lines[0]["frame"]["token"], "[redacted]");
        assert!(lines[0]["at"].as_str().is_some_and(|at| at.ends_with('Z')));
        assert_eq!(lines[1]["frame"], "not json [redacted]");
        assert_eq!(lines[2]["frame"].as_str().map(str::len), Some(FRAME_CAP));
        assert_eq!(lines[2]["bytes"], FRAME_CAP * 2);
    }

    #[test]
    fn only_its_owner_may_read_a_transcript() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("run.jsonl");
        let _transcript = Transcript::open(&path, Secrets::default()).expect("opened");
        assert_eq!(path.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    }
}
