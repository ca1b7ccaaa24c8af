//! A guest of which every byte is chosen by somebody else.

use std::time::Duration;

use symphony_guest::mux::{Mux, Side};
use symphony_guest::wire::{self, CheckRequest, ExportRequest, Hello, HelloInfo, Request, SpawnRequest, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::{Channel, ChannelError, Program};

const TOKEN: &str = "t";
/// Nothing here waits for a clock; whoever does has hung.
const HANG: Duration = Duration::from_secs(20);
/// What a guest may send in answer to an export, and of a check's output.
const CAP: usize = 512;

/// The bytes under the multiplexer: the channel opens or not, and never hangs once its peer is gone.
pub(crate) async fn raw(bytes: &[u8]) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let peer = async {
        // A host that has heard enough hangs up.
        let _ = theirs.write_all(bytes).await;
        let _ = theirs.shutdown().await;
        let _ = tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await;
    };
    let host = async {
        if let Ok((channel, info)) = Channel::open(ours, TOKEN, HANG).await {
            assert_eq!((info.version, info.token.as_str()), (VERSION, TOKEN), "only our own guest is let in");
            let _ = channel.ping(HANG).await;
            channel.closed().await;
        }
    };
    let both = tokio::time::timeout(HANG, async { tokio::join!(peer, host) }).await;
    both.expect("a peer that is gone holds nobody up");
}

/// What a guest program answers to each request after an honest hello. The first byte chooses the request.
pub(crate) async fn answers(bytes: &[u8]) {
    let Some((which, said)) = bytes.split_first() else { return };
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let guest = tokio::spawn(guest(theirs, said.to_vec()));
    let (channel, _) = Channel::open(ours, TOKEN, HANG).await.expect("an honest hello");
    let asked = tokio::time::timeout(HANG, ask(&channel, which % 7));
    if let Err(error) = asked.await.expect("an answer that ended is an end") {
        let message = error.to_string();
        assert!(!message.is_empty() && message.len() < 2 * wire::MAX_FRAME, "{} bytes", message.len());
        assert!(!matches!(error, ChannelError::Local(..)), "nothing on this side failed: {error}");
    }
    drop(channel);
    let ended = tokio::time::timeout(HANG, guest).await;
    ended.expect("the guest sees the end").expect("the guest is ours");
}

async fn guest(io: DuplexStream, said: Vec<u8>) {
    let (mux, mut inbound) = Mux::start(io, Side::Guest);
    while let Some(mut stream) = inbound.recv().await {
        match wire::read_header::<Request>(&mut stream, wire::MAX_HEADER).await {
            Ok(Request::Hello(Hello { token, .. })) => {
                let info = HelloInfo { version: VERSION, token, program: "fuzz".into(), tree: false, marker: None };
                let _ = wire::write_json(&mut stream, wire::FrameKind::Reply, &info).await;
            }
            _ => {
                let _ = stream.write_all(&said).await;
            }
        }
        let _ = stream.shutdown().await;
    }
    drop(mux);
}

async fn ask(channel: &Channel, which: u8) -> Result<(), ChannelError> {
    match which {
        0 => channel.ping(HANG).await,
        1 => channel.marker("m").await,
        2 => {
            let have = ExportRequest {
                have: vec![],
                base: "b".into(),
                max_bytes: CAP as u64,
                is_final: false,
                commit_message: None,
                timeout_ms: 1000,
            };
            let mut out = Vec::new();
            let exported = channel.export(have, &mut out).await;
            assert!(out.len() <= CAP, "more than may be sent was kept");
            let exported = exported?;
            assert_eq!(exported.empty, out.is_empty());
            assert!(crate::git::Oid::parse(&exported.head).is_some() || exported.head.bytes().all(|b| b == b'0'));
            Ok(())
        }
        3 => {
            let argv = vec!["true".to_owned()];
            let check = CheckRequest { argv, env: vec![], cwd: None, timeout_ms: 1000, max_output: CAP };
            let (_, output) = channel.check(check).await?;
            assert!(output.len() <= CAP);
            Ok(())
        }
        4 => channel.listen(0).await.map(|incoming| assert_ne!(incoming.port(), 0)),
        5 => channel.seed(seed(), &mut &b"bundle"[..]).await,
        _ => {
            let program = Program::Argv(vec!["true".to_owned()]);
            let mut process = channel.spawn(SpawnRequest { program, env: vec![], cwd: None }).await?;
            let mut output = Vec::new();
            let _ = process.stdout.read_to_end(&mut output).await;
            assert!(output.len() <= 4096, "no more comes out than was sent");
            let _ = process.exit.await;
            Ok(())
        }
    }
}

fn seed() -> super::SeedRequest {
    super::SeedRequest {
        head: "h".into(),
        branch: "agent/A-1".into(),
        wip: None,
        extra: None,
        shallow: vec![],
        identity: super::Identity { name: "n".into(), email: "e".into() },
        wipe: false,
        max_bytes: 10,
        timeout_ms: 1000,
    }
}
