//! A machine and an emulator that say whatever somebody else chose.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::monitor::Monitor;
use super::wake;

const HANG: Duration = Duration::from_secs(3600);

fn is_harmless(words: &str) -> bool {
    !words.is_empty() && words.len() < 4096 && !words.chars().any(char::is_control)
}

/// A machine's first line: taken, or refused in one short line.
pub(crate) async fn ready(bytes: &[u8]) {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair");
    theirs.write_all(bytes).await.expect("it fits");
    drop(theirs);
    let said = tokio::time::timeout(HANG, wake::ready(&mut ours)).await.expect("an end");
    if let Err(words) = said {
        assert!(is_harmless(&words), "{words:?}");
    }
}

/// A monitor's lines during a restore: an end, and an error that cannot speak to a terminal.
pub(crate) async fn monitor(bytes: &[u8]) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let said = bytes.to_vec();
    let emulator = tokio::spawn(async move {
        let (mut heard, mut say) = theirs.into_split();
        let _ = say.write_all(&said).await;
        drop(say);
        let _ = tokio::io::copy(&mut heard, &mut tokio::io::sink()).await;
    });
    let (state, _) = std::io::pipe().expect("a pipe");
    let restore = async { Monitor::open(ours).await?.restore(OwnedFd::from(state)).await };
    let done = tokio::time::timeout(HANG, restore).await.expect("an end");
    emulator.abort();
    if let Err(words) = done {
        assert!(is_harmless(&words), "{words:?}");
    }
}
