//! Words of others in our own types: the wire types that both ends of a channel share, where what is read is what would be
//! written, and what a model's answer used, where it makes no difference how its bytes are cut.

use serde::Serialize;
use serde::de::DeserializeOwned;
use symphony_core::broker::{Call, Meter};
use symphony_guest::wire::{
    self, CheckOutcome, Exit, Exported, FrameKind, Hello, HelloInfo, Listening, MAX_FRAME, MAX_HEADER, MachineOrder,
    MachineReady, Refusal, RelayHeader, Request,
};

/// Headers and frames: bounded, and written again they are read as the same.
pub(super) async fn frames(bytes: &[u8]) {
    let mut rest = bytes;
    if let Ok(request) = wire::read_header::<Request>(&mut rest, MAX_HEADER).await {
        let mut written = Vec::new();
        wire::write_header(&mut written, &request).await.expect("it came as a header");
        let read: Request = wire::read_header(&mut written.as_slice(), MAX_HEADER).await.expect("our own");
        assert_eq!(read, request);
    }
    let mut rest = bytes;
    while let Ok(Some(frame)) = wire::read_frame(&mut rest).await {
        assert!(frame.payload.len() <= MAX_FRAME && frame.payload.len() < bytes.len());
        let mut written = Vec::new();
        wire::write_frame(&mut written, frame.kind, &frame.payload).await.expect("it came as a frame");
        assert_eq!(wire::read_frame(&mut written.as_slice()).await.expect("our own"), Some(frame.clone()));
        if frame.kind == FrameKind::Error
            && let Ok(refusal) = frame.parse::<Refusal>()
        {
            assert!(Refusal::new(refusal.kind, refusal.message).message.len() <= wire::MAX_MESSAGE);
        }
    }
}

fn round<T: DeserializeOwned + Serialize + PartialEq>(json: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_vec(&read).expect("data");
    let again: T = serde_json::from_slice(&written).expect("our own words");
    assert!(again == read, "{} became {}", String::from_utf8_lossy(json), String::from_utf8_lossy(&written));
}

/// Every message, chosen by the first byte.
pub(super) fn messages(bytes: &[u8]) {
    let Some((which, json)) = bytes.split_first() else { return };
    match which % 11 {
        0 => round::<Request>(json),
        1 => round::<Hello>(json),
        2 => round::<HelloInfo>(json),
        3 => round::<MachineReady>(json),
        4 => round::<MachineOrder>(json),
        5 => round::<Listening>(json),
        6 => round::<RelayHeader>(json),
        7 => round::<Exported>(json),
        8 => round::<CheckOutcome>(json),
        9 => round::<Exit>(json),
        _ => round::<Refusal>(json),
    }
}

/// An answer, read for what it used: the first byte says of which call and kind it is, the second how it is cut.
pub(super) fn usage(bytes: &[u8]) {
    let [which, cut, answer @ ..] = bytes else { return };
    let call =
        [Call::Messages, Call::Responses, Call::ChatCompletions, Call::GenerateContent][usize::from(which / 2) % 4];
    let content_type = if which % 2 == 0 { "text/event-stream" } else { "application/json" };
    let read = |size: usize| {
        let mut meter = Meter::new(call, content_type);
        answer.chunks(size).for_each(|part| meter.feed(part));
        meter.finish()
    };
    let whole = read(answer.len().max(1));
    assert_eq!(read(1), whole);
    assert_eq!(read(usize::from(*cut).max(1)), whole);
    assert!(whole.model.is_none_or(|model| model.chars().count() <= 200));
}
