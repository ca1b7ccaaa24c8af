//! A guest that was polite once: what it answers after its hello is checked as much as before.

use symphony_guest::mux::Mux;
use symphony_guest::wire::RelayHeader;

use super::hostile::{honest, open_with};
use super::*;

/// One frame, however wrong.
fn frame(kind: u8, announced: usize, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(announced).unwrap();
    [&[kind][..], &length.to_be_bytes(), payload].concat()
}

fn fair(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    frame(kind as u8, payload.len(), payload)
}

/// A channel to a guest that answers every request with these bytes.
async fn answering(bytes: Vec<u8>) -> Channel {
    let answer = async move |mux: Mux, mut inbound: tokio::sync::mpsc::Receiver<MuxStream>| {
        tokio::spawn(async move {
            let _mux = mux;
            while let Some(mut stream) = inbound.recv().await {
                let _: Result<Request, _> = wire::read_header(&mut stream, wire::MAX_HEADER).await;
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
            }
        });
    };
    open_with(honest, answer).await.unwrap()
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_of_its_request_and_no_more() {
    let channel = answering(fair(FrameKind::Reply, b"null")).await;
    channel.ping(LONG).await.expect("the control");
    for (lie, said) in [
        (frame(9, 0, b""), "9"),
        (frame(0, 0xffff_ffff, b""), "4294967295"),
        (frame(0, wire::MAX_FRAME + 1, b""), "65537"),
        (fair(FrameKind::Exit, b"null"), "Exit"),
        (fair(FrameKind::Reply, b"{\"version\":"), "not understood"),
        (fair(FrameKind::Reply, &[b'['; 60_000]), "not understood"),
        (fair(FrameKind::Error, b"\xff"), ""),
    ] {
        let channel = answering(lie).await;
        let error = channel.ping(LONG).await.unwrap_err();
        assert!(matches!(&error, ChannelError::Protocol(why) if why.contains(said)), "{error:?}");
        // The other streams go on, each with its own answer.
        assert!(matches!(channel.ping(LONG).await, Err(ChannelError::Protocol(_))));
    }
    let channel = answering(frame(0, 1000, b"half")).await;
    let error = channel.ping(LONG).await.unwrap_err();
    assert!(matches!(error, ChannelError::BrokenOff(_)), "{error:?}");
}

#[tokio::test]
async fn an_export_that_is_more_or_other_than_it_may_be_is_refused_and_not_kept() {
    let request = ExportRequest {
        have: Vec::new(),
        base: "a".repeat(40),
        max_bytes: 100_000,
        is_final: false,
        commit_message: None,
        timeout_ms: 20_000,
    };
    let announced = |head: &str, empty: bool| {
        let exported = Exported { head: head.to_owned(), wip: None, empty, branch: None };
        fair(FrameKind::Reply, &serde_json::to_vec(&exported).unwrap())
    };
    let (head, block) = ("b".repeat(40), fair(FrameKind::Data, &[1; 60_000]));
    let end = fair(FrameKind::End, b"");
    let mut out = Vec::new();
    let honest = [announced(&head, false), block.clone(), end.clone()].concat();
    let exported = answering(honest).await.export(request.clone(), &mut out).await.expect("the control");
    assert_eq!((exported.head, out.len()), (head.clone(), 60_000));
    for (lie, said) in [
        ([announced(&head, false), block.repeat(1000)].concat(), "exceeds 100000 bytes"),
        ([announced("../../config", false), end.clone()].concat(), "not an object name"),
        ([announced(&"B".repeat(40), false), end.clone()].concat(), "not an object name"),
        ([announced(&head, true), block.clone(), end.clone()].concat(), "not what the export announced"),
        ([announced(&head, false), end.clone()].concat(), "not what the export announced"),
        ([announced(&head, false), fair(FrameKind::Stderr, b"x")].concat(), "no place"),
    ] {
        let mut out = Vec::new();
        let error = answering(lie).await.export(request.clone(), &mut out).await.unwrap_err();
        assert!(matches!(&error, ChannelError::Protocol(why) if why.contains(said)), "{error:?}");
        assert!(out.len() <= 100_000, "{}", out.len());
    }
}

#[tokio::test]
async fn a_check_that_says_more_than_was_asked_for_is_cut_off() {
    let request = |max_output| CheckRequest {
        argv: vec!["x".into()],
        env: Vec::new(),
        cwd: None,
        timeout_ms: 20_000,
        max_output,
    };
    let outcome = CheckOutcome { exit: Exit::Code(0), timed_out: false, truncated: false };
    let done = fair(FrameKind::Reply, &serde_json::to_vec(&outcome).unwrap());
    let flood = [fair(FrameKind::Data, &[b'x'; 50_000]).repeat(3), done].concat();
    let (_, output) = answering(flood.clone()).await.check(request(150_000)).await.expect("the control");
    assert_eq!(output.len(), 150_000);
    let error = answering(flood).await.check(request(149_999)).await.unwrap_err();
    assert!(matches!(&error, ChannelError::Protocol(why) if why.contains("exceeds")), "{error:?}");
}

#[tokio::test]
async fn streams_that_a_guest_opens_for_no_listener_or_with_a_huge_header_are_reset_and_halves_do_not_mix() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let (listening, heard) = tokio::sync::oneshot::channel();
    let peer = async move |mux: Mux, mut inbound: tokio::sync::mpsc::Receiver<MuxStream>| {
        tokio::spawn(async move {
            let header = |listen| {
                let json = serde_json::to_vec(&RelayHeader { listen }).unwrap();
                [&u32::try_from(json.len()).unwrap().to_be_bytes()[..], &json].concat()
            };
            // The host listens on 7; the guest says it does.
            let mut request = inbound.recv().await.unwrap();
            let _: Request = wire::read_header(&mut request, wire::MAX_HEADER).await.unwrap();
            request.write_all(&fair(FrameKind::Reply, b"{\"port\":7}")).await.unwrap();
            let () = heard.await.unwrap();
            let mut reset = 0;
            for bytes in [header(9), 0xffff_ffff_u32.to_be_bytes().to_vec(), b"\0\0\0\x02[]".to_vec()] {
                let mut stream = mux.open().await.unwrap();
                stream.write_all(&bytes).await.unwrap();
                stream.flush().await.unwrap();
                reset += usize::from(matches!(timeout(LONG, stream.read(&mut [0])).await, Ok(Err(_) | Ok(0))));
            }
            // Two at once, a byte of each in turn.
            let (mut one, mut two) = (mux.open().await.unwrap(), mux.open().await.unwrap());
            let texts = [[header(7), b"one".to_vec()].concat(), [header(7), b"two".to_vec()].concat()];
            for at in 0..texts[0].len() {
                for (stream, text) in [(&mut one, &texts[0]), (&mut two, &texts[1])] {
                    stream.write_all(&text[at..=at]).await.unwrap();
                    stream.flush().await.unwrap();
                }
            }
            one.shutdown().await.unwrap();
            two.shutdown().await.unwrap();
            tell.send(reset).unwrap();
            let _held = (one, two, request);
            std::future::pending::<()>().await;
        });
    };
    let channel = open_with(honest, peer).await.unwrap();
    let mut incoming = channel.listen(7).await.unwrap();
    listening.send(()).unwrap();
    let mut texts = Vec::new();
    for _ in 0..2 {
        let mut stream = timeout(LONG, incoming.accept()).await.unwrap().expect("the control: its own arrive");
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        texts.push(text);
    }
    texts.sort();
    assert_eq!(texts, ["one", "two"]);
    assert_eq!(timeout(LONG, told).await.unwrap(), Ok(3));
}
