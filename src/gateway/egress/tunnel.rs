//! A connection from a guest to a server: the hello is read and checked before the server gets a byte; then bytes pass both
//! ways, each way as fast as its reader takes them, and each end is passed on by itself.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use symphony_core::egress::Host;
use symphony_core::egress::hello::{BadHello, HELLO_MAX, UNRECOGNIZED_NAME, server_name};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::egress::Counts;

/// Longest time until the hello is there.
const HELLO: Duration = Duration::from_secs(30);
/// Longest silence in both directions.
const SILENCE: Duration = Duration::from_secs(600);
/// What is on its way in one direction.
const CHUNK: usize = 16 * 1024;

/// Carries one connection to its end.
///
/// # Errors
/// Its first bytes are not a hello for `host`: the server got none of them.
pub(super) async fn carry(
    mut guest: impl AsyncRead + AsyncWrite + Unpin,
    mut server: TcpStream,
    host: &Host,
    counts: &Counts,
) -> Result<(), BadHello> {
    let first = match timeout(HELLO, hello(&mut guest, host)).await {
        // Nobody said anything: no harm, and nothing to say.
        Err(_) | Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(first))) => first,
        Ok(Err(bad)) => {
            if bad != BadHello::NotTls {
                let _ = timeout(HELLO, guest.write_all(&UNRECOGNIZED_NAME)).await;
            }
            let _ = timeout(HELLO, guest.shutdown()).await;
            return Err(bad);
        }
    };
    let moved = AtomicU64::new(0);
    let passed = async {
        server.write_all(&first).await?;
        counts.sent.fetch_add(first.len() as u64, Ordering::Relaxed);
        drop(first);
        let (mut from_server, mut to_server) = server.split();
        let (mut from_guest, mut to_guest) = tokio::io::split(&mut guest);
        let out = pass(&mut from_guest, &mut to_server, [&counts.sent, &moved]);
        let back = pass(&mut from_server, &mut to_guest, [&counts.received, &moved]);
        tokio::select! {
            both = async { tokio::try_join!(out, back) } => both.map(drop),
            () = silence(&moved) => Ok(()),
        }
    };
    if let Err(error) = passed.await {
        tracing::debug!(%host, %error, "an egress connection broke");
    }
    Ok(())
}

/// The bytes up to the end of a hello for `host`; `None`: the guest ended before.
async fn hello(guest: &mut (impl AsyncRead + Unpin), host: &Host) -> Result<Option<Vec<u8>>, BadHello> {
    let mut first = Vec::with_capacity(2048);
    loop {
        if let Some(name) = server_name(&first)? {
            return match name == host.as_str() {
                true => Ok(Some(first)),
                false => Err(BadHello::OtherName(name)),
            };
        }
        let room = (HELLO_MAX - first.len()) as u64;
        match (&mut *guest).take(room).read_buf(&mut first).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Ok(None),
        }
    }
}

/// One direction, to its end. Only what was written is read further.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counts: [&AtomicU64; 2],
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..n]).await?;
        to.flush().await?;
        for count in counts {
            count.fetch_add(n as u64, Ordering::Relaxed);
        }
    }
}

/// Ends when nothing has passed for a while.
async fn silence(moved: &AtomicU64) {
    let mut last = 0;
    loop {
        tokio::time::sleep(SILENCE).await;
        let next = moved.load(Ordering::Relaxed);
        if next == last {
            return;
        }
        last = next;
    }
}
