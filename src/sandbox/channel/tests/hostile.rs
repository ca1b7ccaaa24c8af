//! The host against a guest that does not keep the rules: whatever comes, a typed error comes out, in bounded time and memory.

use symphony_guest::mux::{Mux, Side};
use symphony_guest::wire::{Hello, HelloInfo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// Opens against a peer that speaks raw bytes.
async fn open_against(bytes: Vec<u8>) -> ChannelError {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let peer = tokio::spawn(async move {
        let _ = theirs.write_all(&bytes).await;
        let mut sink = Vec::new();
        let _ = theirs.read_to_end(&mut sink).await;
    });
    let error = timeout(LONG, Channel::open(ours, "token", Duration::from_secs(2))).await.unwrap().unwrap_err();
    timeout(LONG, peer).await.unwrap().unwrap();
    error
}

fn header(tag: u8, flags: u16, id: u32, length: u32) -> Vec<u8> {
    let mut bytes = vec![0, tag];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

#[tokio::test]
async fn noise_is_no_channel() {
    // Numbers from a fixed generator: every run sees the same noise.
    let mut seed = 42u64;
    for _ in 0..50 {
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 56) as u8
            })
            .collect();
        let error = open_against(noise).await;
        assert!(matches!(error, ChannelError::Closed(Ended::Broken(_))), "{error:?}");
    }
}

#[tokio::test]
async fn a_huge_frame_is_refused_before_it_is_stored() {
    let error = open_against(header(0, 1, 2, u32::MAX)).await;
    assert!(matches!(&error, ChannelError::Closed(Ended::Broken(why)) if why.contains("4294967295")), "{error:?}");
}

#[tokio::test]
async fn a_flood_of_streams_ends_the_channel() {
    let flood = (1..10_000).flat_map(|n| header(1, 1, n * 2, 0)).collect();
    let error = open_against(flood).await;
    assert!(matches!(&error, ChannelError::Closed(Ended::Broken(why)) if why.contains("streams")), "{error:?}");
}

#[tokio::test]
async fn a_flood_of_empty_frames_that_nobody_reads_ends_the_channel() {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let (mux, mut inbound) = Mux::start(ours, Side::Host);
    theirs.write_all(&header(1, 1, 2, 0)).await.unwrap();
    let unread = timeout(LONG, inbound.recv()).await.unwrap().unwrap();
    let thousand = header(0, 0, 2, 0).repeat(1000);
    let flood = async { while theirs.write_all(&thousand).await.is_ok() {} };
    let (ended, ()) = timeout(LONG, async { tokio::join!(mux.ended(), flood) }).await.unwrap();
    assert!(matches!(&ended, Ended::Broken(why) if why.contains("nobody has read")), "{ended:?}");
    drop(unread);
}

#[tokio::test]
async fn the_guest_program_survives_no_noise_either_and_exits() {
    let dir = tempfile::tempdir().unwrap();
    let (mut io, mut guest) = boot_guest(dir.path(), None);
    io.write_all(&[0xab; 4096]).await.unwrap();
    let gone = tokio::task::spawn_blocking(move || guest.0.wait());
    assert!(timeout(LONG, gone).await.unwrap().unwrap().unwrap().success());
}

#[tokio::test]
async fn a_guest_refuses_requests_before_a_hello_and_requests_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let (io, _guest) = boot_guest(dir.path(), None);
    let (mux, _inbound) = Mux::start(io, Side::Host);
    for request in [serde_json::json!({"op": "ping"}), serde_json::json!({"op": "format_disk"})] {
        let mut stream = mux.open().await.unwrap();
        wire::write_header(&mut stream, &request).await.unwrap();
        let frame = timeout(LONG, wire::read_frame(&mut stream)).await.unwrap().unwrap().unwrap();
        let refusal: Refusal = frame.parse().unwrap();
        assert_eq!((frame.kind, refusal.kind), (FrameKind::Error, RefusalKind::BadRequest));
    }
    let mut stream = mux.open().await.unwrap();
    stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let frame = timeout(LONG, wire::read_frame(&mut stream)).await.unwrap().unwrap().unwrap();
    assert_eq!(frame.kind, FrameKind::Error);
}

#[tokio::test]
async fn silence_is_a_timeout() {
    assert!(matches!(open_against(Vec::new()).await, ChannelError::Timeout { what: "hello", .. }));
}

/// A peer that speaks the multiplexer but answers the hello (and later requests) as told.
pub(super) async fn open_with(
    answer: impl FnOnce(Hello) -> HelloInfo + Send + 'static,
    then: impl AsyncFnOnce(Mux, tokio::sync::mpsc::Receiver<MuxStream>) + Send + 'static,
) -> Result<Channel, ChannelError> {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    let (mux, mut inbound) = Mux::start(theirs, Side::Guest);
    let mut hello = None;
    let opening = Channel::open(ours, "token", LONG);
    let answering = async {
        let mut stream = inbound.recv().await.unwrap();
        if let Request::Hello(h) = wire::read_header(&mut stream, wire::MAX_HEADER).await.unwrap() {
            wire::write_json(&mut stream, FrameKind::Reply, &answer(h)).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        hello = Some(stream);
    };
    let (opened, ()) = timeout(LONG, async { tokio::join!(opening, answering) }).await.unwrap();
    let (channel, _) = opened?;
    then(mux, inbound).await;
    Ok(channel)
}

pub(super) fn honest(hello: Hello) -> HelloInfo {
    HelloInfo { version: hello.version, token: hello.token, program: String::new(), tree: false, marker: None }
}

#[tokio::test]
async fn another_version_and_another_token_are_told_apart() {
    let lie = |h: Hello| HelloInfo { version: 9, ..honest(h) };
    assert!(matches!(open_with(lie, async |_, _| {}).await, Err(ChannelError::Version { theirs: 9, .. })));
    let stranger = |h: Hello| HelloInfo { token: "other".into(), ..honest(h) };
    assert!(matches!(open_with(stranger, async |_, _| {}).await, Err(ChannelError::Token)));
}
