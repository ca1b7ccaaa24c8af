//! An agent's lines, as far as they get: what people are shown is one short line without a secret.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use futures::StreamExt;
use serde_json::Value;
use symphony_core::time::Tick;
use tokio::sync::mpsc;

use super::activity::Activity;
use super::event::{Events, MESSAGE_CHARS};
use super::permission;
use super::redact::Secrets;
use super::turn::{TurnEnd, Usage};
use super::update::Updates;
use super::wire::{OUTGOING, Replay, Taps, incoming};

/// Known to the session; an agent may well say it.
const SECRET: &str = "hunter22";
/// Short, so that the limit is within reach.
const MAX_LINE: usize = 2048;

/// Any bytes on the agent's standard output: of a turn, and of a session that tells its history.
pub(crate) async fn lines(bytes: &[u8]) {
    of_a_turn(bytes).await;
    of_a_history(bytes).await;
}

async fn of_a_history(bytes: &[u8]) {
    let (to, _shown) = mpsc::channel(1 << 14);
    let replay = Arc::<Replay>::default();
    replay.begin();
    let taps = Taps {
        events: Events::new(to, Secrets::default()),
        transcript: None,
        activity: Activity::new(),
        fault: Arc::new(OnceLock::new()),
        replay: replay.clone(),
        max_line: MAX_LINE,
    };
    let (outgoing, _queue) = mpsc::channel(OUTGOING);
    let mut stream = Box::pin(incoming(std::io::Cursor::new(bytes.to_vec()), outgoing, taps));
    while let Some(Ok(line)) = stream.next().await {
        let message = serde_json::from_str::<Value>(&line).unwrap_or_default();
        assert!(message["method"] != "session/update", "{line}");
    }
    assert!(replay.end() <= bytes.len() as u64);
}

async fn of_a_turn(bytes: &[u8]) {
    let (to, mut shown) = mpsc::channel(1 << 14);
    let events = Events::new(to, Secrets::new([SECRET.to_owned()]));
    let taps = Taps {
        events: events.clone(),
        transcript: None,
        activity: Activity::new(),
        fault: Arc::new(OnceLock::new()),
        replay: Arc::default(),
        max_line: MAX_LINE,
    };
    // Nobody answers, so the queue never fills.
    let (outgoing, _queue) = mpsc::channel(OUTGOING);
    let reader = std::io::Cursor::new(bytes.to_vec());
    let mut stream = Box::pin(incoming(reader, outgoing, taps.clone()));
    let mut updates = Updates::default();
    let mut texts = BTreeMap::<(String, String), String>::new();
    let mut now = 0;
    while let Some(line) = stream.next().await {
        let Ok(line) = line else {
            assert!(taps.fault.get().is_some(), "a broken stream says why");
            break;
        };
        // A mark may be longer than what it hides.
        assert!(line.len() <= 8 * MAX_LINE && line.starts_with('{') && !line.contains('\n'), "{line}");
        let message: Value = match serde_json::from_str(&line) {
            Ok(message) => message,
            // The head of a message is read leniently; the SDK refuses the rest.
            Err(_) => continue,
        };
        now += 300;
        let (update, session) = (&message["params"]["update"], &message["params"]["sessionId"]);
        if let Some(text) = update["content"]["text"].as_str() {
            let kind = update["sessionUpdate"].to_string();
            texts.entry((session.to_string(), kind)).or_default().push_str(text);
        }
        take(&message, &mut updates, Tick(now), &events);
    }
    if let Some((kind, text)) = updates.end_turn() {
        events.send(kind, &text, false);
    }
    assert!(!updates.tool_open(), "no call is open after a turn");
    // Of more texts at once not all are followed.
    for text in texts.values().filter(|_| texts.len() <= 8) {
        assert!(!text.contains(SECRET), "{text}");
    }
    while let Ok(event) = shown.try_recv() {
        let text = event.message;
        assert!(text.chars().count() <= MESSAGE_CHARS && !text.chars().any(char::is_control), "{text:?}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

fn take(message: &Value, updates: &mut Updates, now: Tick, events: &Events) {
    let (params, result) = (&message["params"], &message["result"]);
    for (kind, text) in updates.take(params, now) {
        events.send(kind, &text, updates.tool_open());
    }
    if let permission::Decision::Select { id, name } = permission::decide(params, true) {
        let offered = params["options"].as_array().expect("chosen from a list");
        let approves = |kind: &Value| kind == "allow_once" || kind == "allow_always";
        assert!(offered.iter().any(|option| option["optionId"] == id.as_str() && approves(&option["kind"])));
        events.send("approval_auto_approved", &name, false);
    }
    assert_eq!(permission::decide(params, false), permission::Decision::Cancel);
    match TurnEnd::of(result) {
        Ok(end) => assert_eq!(end == TurnEnd::EndTurn, result["stopReason"] == "end_turn"),
        Err(why) => events.send("malformed", &why, false),
    }
    if let Some(usage) = Usage::of(result) {
        assert!(usage.total >= usage.input && usage.total >= usage.output);
    }
}
