//! The emulator's monitor, as far as templates need it: a few commands of its JSON protocol. The emulator is trusted
//! no more than its guest: what it says is bounded, and only what was asked for is looked at.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::sandbox::descriptors;

/// Bytes of one line from the emulator.
const LONGEST: u64 = 256 * 1024;
/// Lines that are not the answer to a question: events.
const MOST_EVENTS: usize = 1000;
const POLL: Duration = Duration::from_millis(2);

/// An open monitor.
#[derive(Debug)]
pub(super) struct Monitor {
    io: BufReader<UnixStream>,
}

impl Monitor {
    /// Takes the greeting and starts the conversation.
    pub(super) async fn open(io: UnixStream) -> Result<Self, String> {
        let mut monitor = Self { io: BufReader::new(io) };
        monitor.line().await?;
        monitor.ask("qmp_capabilities", json!({})).await?;
        Ok(monitor)
    }

    /// Stops the processors and writes the state of all devices to `to`.
    pub(super) async fn save(&mut self, to: OwnedFd) -> Result<(), String> {
        self.prepare(to).await?;
        self.ask("stop", json!({})).await?;
        self.ask("migrate", json!({"uri": "fd:state"})).await?;
        self.migrated().await
    }

    /// Reads the state of all devices from `from`, and lets the processors run.
    pub(super) async fn restore(&mut self, from: OwnedFd) -> Result<(), String> {
        self.prepare(from).await?;
        self.ask("migrate-incoming", json!({"uri": "fd:state"})).await?;
        self.migrated().await?;
        self.ask("cont", json!({})).await.map(drop)
    }

    /// Memory that is in a file of its own is not sent along; the rest goes through `state`.
    async fn prepare(&mut self, state: OwnedFd) -> Result<(), String> {
        let capabilities = json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]});
        self.ask("migrate-set-capabilities", capabilities).await?;
        let line = format!("{}\n", json!({"execute": "getfd", "arguments": {"fdname": "state"}}));
        descriptors::send(self.io.get_ref(), line.as_bytes(), &[state]).map_err(|error| error.to_string())?;
        self.answer("getfd").await.map(drop)
    }

    async fn migrated(&mut self) -> Result<(), String> {
        loop {
            let status = self.ask("query-migrate", json!({})).await?;
            match status.get("status").and_then(Value::as_str) {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = status.get("error-desc").and_then(Value::as_str).unwrap_or("no reason was given");
                    return Err(format!("the emulator failed: {}", super::wake::harmless(why)));
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    async fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        let sent = self.io.get_mut().write_all(line.as_bytes()).await;
        sent.map_err(|error| format!("the emulator does not listen: {error}"))?;
        self.answer(command).await
    }

    async fn answer(&mut self, command: &str) -> Result<Value, String> {
        for _ in 0..MOST_EVENTS {
            let mut answer = self.line().await?;
            if let Some(error) = answer.get("error") {
                let why = super::wake::harmless(&error.to_string());
                return Err(format!("the emulator refused {command}: {why}"));
            }
            if let Some(answer) = answer.get_mut("return") {
                return Ok(answer.take());
            }
        }
        Err(format!("the emulator did not answer {command}"))
    }

    async fn line(&mut self) -> Result<Value, String> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.io).take(LONGEST);
        let read = bounded.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Err("the emulator's monitor closed".to_owned());
        }
        serde_json::from_slice(&line).map_err(|error| format!("the emulator's monitor said something odd: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::{LONGEST, Monitor};

    const HELLO: &str = "{\"QMP\":{}}\n{\"return\":{}}\n";

    /// What an emulator that says this, and then nothing more, makes of a restore.
    async fn restored(words: &[u8]) -> Result<(), String> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let said = words.to_vec();
        let emulator = tokio::spawn(async move {
            let (mut heard, mut say) = theirs.into_split();
            let _ = say.write_all(&said).await;
            drop(say);
            let _ = tokio::io::copy(&mut heard, &mut tokio::io::sink()).await;
        });
        let (state, _) = std::io::pipe().expect("a pipe");
        let restore = async { Monitor::open(ours).await?.restore(OwnedFd::from(state)).await };
        let done = tokio::time::timeout(Duration::from_secs(30), restore).await.expect("an end");
        emulator.abort();
        done
    }

    #[tokio::test]
    async fn an_emulator_that_lies_on_its_monitor_is_an_error_and_cannot_speak_to_a_terminal() {
        let good = "{\"return\":{}}\n".repeat(3);
        let completed = "{\"return\":{\"status\":\"completed\"}}\n{\"return\":{}}\n";
        assert_eq!(restored(format!("{HELLO}{good}{completed}").as_bytes()).await, Ok(()), "the control");
        let endless = [HELLO.as_bytes(), &vec![b'x'; LONGEST as usize + 1]].concat();
        let events = [HELLO, &"{\"event\":\"x\"}\n".repeat(2000)].concat();
        let failed = format!("{HELLO}{good}{{\"return\":{{\"status\":\"failed\",\"error-desc\":\"\\u001b[2Jno\"}}}}\n");
        let refused = format!("{HELLO}{{\"error\":{{\"desc\":\"no\u{9b}2J{}\"}}}}\n", "x".repeat(5000));
        for (words, said) in [
            (refused.as_bytes(), "the emulator refused migrate-set-capabilities: {\"desc\":\"no\u{fffd}2J"),
            (&b""[..], "closed"),
            (b"QMP?\n", "odd"),
            (HELLO.as_bytes(), "closed"),
            (&endless, "closed"),
            (events.as_bytes(), "did not answer"),
            (failed.as_bytes(), "the emulator failed: \u{fffd}[2Jno"),
        ] {
            let error = restored(words).await.expect_err("it lies");
            assert!(error.contains(said) && error.len() < 1000, "{error:?}");
        }
    }
}
