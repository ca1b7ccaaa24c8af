//! What is said on the channel before the guest program has it: the host's end. The machine may be hostile from its
//! first byte on, so one short line is all it gets to say.

use std::time::{SystemTime, UNIX_EPOCH};

use symphony_guest::wire::{MachineOrder, MachineReady, VERSION, Wake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::sandbox::BootSpec;

/// Bytes of the line a machine may say.
const LONGEST: usize = 4096;
/// Characters of it that an error holds.
const LONGEST_WORDS: usize = 400;

/// Waits until the machine says that it can be woken, or that it is awake.
pub(super) async fn ready(io: &mut UnixStream) -> Result<(), String> {
    let mut line = Vec::new();
    loop {
        let byte = io.read_u8().await.map_err(|_| "it ended before it was ready".to_owned())?;
        match byte {
            b'\n' => break,
            _ if line.len() >= LONGEST => return Err("it said something else than that it is ready".to_owned()),
            byte => line.push(byte),
        }
    }
    let ready: MachineReady =
        serde_json::from_slice(&line).map_err(|_| "it said something else than that it is ready".to_owned())?;
    match (ready.version, ready.failed) {
        (VERSION, None) => Ok(()),
        (VERSION, Some(why)) => Err(format!("it said: {}", harmless(&why))),
        (theirs, _) => {
            Err(format!("its image speaks version {theirs}, this symphony {VERSION}; build the image again"))
        }
    }
}

/// A guest's words as people may be shown them: one short line that cannot speak to a terminal.
pub(super) fn harmless(words: &str) -> String {
    let shown = words.trim().chars().take(LONGEST_WORDS);
    shown.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Gives an order.
pub(super) async fn order(io: &mut UnixStream, order: &MachineOrder) -> Result<(), String> {
    let mut line = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    line.push(b'\n');
    io.write_all(&line).await.map_err(|error| format!("it does not listen: {error}"))
}

/// What a machine is woken with: the time and randomness of now.
pub(super) fn wake(spec: &BootSpec) -> Result<MachineOrder, String> {
    let entropy = crate::random::token(48).map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_nanos = u64::try_from(now.as_nanos()).unwrap_or(0);
    Ok(MachineOrder::Wake(Wake {
        entropy,
        unix_nanos,
        disk_mib: spec.disk_mib,
        pids: spec.pids,
        file_size_mib: spec.file_size_mib,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    async fn after(words: &[u8]) -> Result<(), String> {
        let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(words).await.expect("it fits");
        drop(theirs);
        tokio::time::timeout(Duration::from_secs(20), super::ready(&mut ours)).await.expect("an answer")
    }

    #[tokio::test]
    async fn a_machine_may_say_one_short_line_that_it_is_ready_and_nothing_else() {
        assert_eq!(after(b"{\"version\":1}\n").await, Ok(()), "the control");
        for (words, said) in [
            (&[b'x'; 9000][..], "something else"),
            (&[b"{\"version\":1,\"a\":\"", &[b'x'; 5000][..], b"\"}\n"].concat(), "something else"),
            (b"\xff\xfe\n", "something else"),
            (b"\n", "something else"),
            (b"[[[[[[[[1]]]]]]]]\n", "something else"),
            (b"{\"version\":-1}\n", "something else"),
            (b"{\"version\":2}\n", "speaks version 2"),
            (b"{\"version\":1}", "it ended"),
            (b"", "it ended"),
            (b"{\"version\":1,\"failed\":\"no\\u001b[2J disk\"}\n", "it said: no\u{fffd}[2J disk"),
        ] {
            let error = after(words).await.expect_err("it is no machine");
            assert!(error.contains(said) && error.len() < 1000, "{error}");
        }
    }
}
