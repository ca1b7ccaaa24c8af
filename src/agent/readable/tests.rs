//! Transcripts as people read them, line by line.

use serde_json::json;
use symphony_core::broker::Usage;
use symphony_core::money::Money;
use symphony_core::spend::Sums;

use super::*;

fn frame(dir: &str, frame: Value) -> String {
    json!({"at": "2026-11-27T12:00:00.5Z", "dir": dir, "frame": frame}).to_string()
}

fn update(update: Value) -> String {
    frame("in", json!({"method": "session/update", "params": {"update": update}}))
}

fn read(lines: &[String]) -> (Vec<(&'static str, String)>, Readable) {
    let mut readable = Readable::new(false);
    let mut shown: Vec<Shown> = lines.iter().flat_map(|line| readable.line(line)).collect();
    shown.extend(readable.flush());
    (shown.into_iter().map(|one| (one.what, one.text)).collect(), readable)
}

#[test]
fn a_turn_reads_as_it_went() {
    let text =
        |kind: &str, text: &str| update(json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}}));
    let tool = |status: &str| json!({"sessionUpdate": "tool_call_update", "toolCallId": "t", "status": status});
    let (shown, readable) = read(&[
        frame("out", json!({"id": 1, "method": "initialize"})),
        frame("in", json!({"id": 1, "result": {"agentInfo": {"name": "a", "version": "1.2"}}})),
        frame(
            "out",
            json!({"id": 2, "method": "session/prompt", "params": {"prompt": [{"type": "text", "text": "1\n2\n3\n4\n5\n6\n7\n8"}]}}),
        ),
        text("agent_thought_chunk", "hm"),
        text("agent_message_chunk", "I "),
        text("agent_message_chunk", "look"),
        update(
            json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "make test", "kind": "execute", "status": "pending"}),
        ),
        frame(
            "in",
            json!({"id": 9, "method": "session/request_permission", "params": {"toolCall": {"title": "make test"}, "options": [{"optionId": "y", "kind": "allow_once"}]}}),
        ),
        frame("out", json!({"id": 9, "result": {"outcome": {"outcome": "selected", "optionId": "y"}}})),
        update(tool("in_progress")),
        update(tool("completed")),
        update(
            json!({"sessionUpdate": "plan", "entries": [{"status": "completed", "content": "a"}, {"content": "b"}]}),
        ),
        update(json!({"sessionUpdate": "usage_update", "used": 5, "size": 9})),
        update(json!({"sessionUpdate": "available_commands_update"})),
        frame("in", json!({"method": "_vendor/thing", "params": {}})),
        json!({"at": "", "dir": "stderr", "frame": "warned\n"}).to_string(),
        frame(
            "in",
            json!({"id": 2, "result": {"stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 4}}}),
        ),
    ]);
    let expected = [
        ("agent", "a 1.2"),
        ("prompt", "1\n2\n3\n4\n5\n6\n… 2 more lines (--whole)"),
        ("thinks", "hm"),
        ("says", "I look"),
        ("tool", "make test (execute)"),
        ("permission", "make test → allow_once"),
        ("done", "make test"),
        ("plan", "[x] a\n[ ] b"),
        ("context", "5 of 9 tokens"),
        ("stderr", "warned"),
        ("turn end", "end_turn, 3 tokens in, 4 tokens out"),
    ];
    assert_eq!(shown, expected.map(|(what, text)| (what, text.to_owned())));
    let hidden = "1 × _vendor/thing, 1 × available_commands_update, 1 × tool_call_update";
    assert_eq!(readable.hidden().as_deref(), Some(hidden));
}

fn request(model: &str, cost: Option<u64>, assumed: u64) -> String {
    let used = Usage { input: 10, output: 50 + assumed, cache_read: 200, ..Usage::default() };
    let (cost, unpriced) = (Money(cost.unwrap_or(0)), if cost.is_none() { 260 } else { 0 });
    let sums = Sums { requests: 1, used, cost, unpriced, assumed };
    json!({"at": "", "request": requests::request("anthropic", model, &sums)}).to_string()
}

/// Regression: what each request used was nowhere but in a line of the debug log.
#[test]
fn what_was_asked_of_models_is_a_line_for_each_turn_and_one_for_all() {
    let ends = frame("in", json!({"id": 2, "result": {"stopReason": "end_turn"}}));
    let prompt = frame("out", json!({"id": 2, "method": "session/prompt", "params": {"prompt": [{"text": "go"}]}}));
    let says = update(json!({"sessionUpdate": "agent_message_chunk", "content": {"text": "so"}}));
    let all = Sums { requests: 3, unpriced: 260, cost: Money(12_300_000), ..Sums::default() };
    let lines = [
        prompt.clone(),
        says.clone(),
        request("big", Some(12_300_000), 0),
        request("small", None, 0),
        says,
        ends.clone(),
        prompt,
        ends,
        // Told a moment after the answer.
        request("big", Some(0), 7),
        json!({"at": "", "requests": requests::all(&all, 0)}).to_string(),
    ];
    let (shown, readable) = read(&lines);
    let expected = [
        ("prompt", "go"),
        ("says", "soso"),
        (
            "models",
            "2 requests to big, small: 20 tokens in, 100 out, 400 from the cache · $0.0123 + 260 unpriced tokens",
        ),
        ("turn end", "end_turn"),
        ("prompt", "go"),
        ("turn end", "end_turn"),
        ("models", "1 request to big: 10 tokens in, 57 out, 200 from the cache (7 of them assumed)"),
        ("used", "3 requests in all: 0 tokens in, 0 out · $0.0123 + 260 unpriced tokens"),
    ];
    assert_eq!(shown, expected.map(|(what, text)| (what, text.to_owned())));
    assert_eq!(readable.used(), None);
    let (_, readable) = read(&lines[..4]);
    let so_far = "2 requests so far: 20 tokens in, 100 out, 400 from the cache · $0.0123 + 260 unpriced tokens";
    assert_eq!(readable.used().as_deref(), Some(so_far));
    for senseless in [json!(null), json!([1]), json!({"model": 7, "input": -1, "cost_usd": "lots"})] {
        read(&[json!({"request": senseless}).to_string(), json!({"requests": senseless}).to_string()]);
    }
}

#[test]
fn what_went_wrong_is_shown_with_its_words() {
    let failed = json!({"sessionUpdate": "tool_call_update", "toolCallId": "x", "title": "cc", "status": "failed", "content": [{"type": "content", "content": {"type": "text", "text": "no such file"}}]});
    let (shown, _) = read(&[
        frame("out", json!({"id": 1, "method": "session/prompt", "params": {}})),
        update(failed),
        frame(
            "in",
            json!({"id": 1, "error": {"code": 1, "message": "Internal error", "data": {"details": "no model"}}}),
        ),
        json!({"at": "", "dropped": 3}).to_string(),
        json!({"at": "", "full": "ends here"}).to_string(),
        json!({"at": "", "dir": "in", "frame": "{\"cut", "bytes": 70000}).to_string(),
        "not json".to_owned(),
    ]);
    let what: Vec<_> = shown.iter().map(|(what, _)| *what).collect();
    assert_eq!(what, ["prompt", "failed", "error", "lost", "end", "cut", "torn"]);
    assert_eq!(shown[1].1, "cc\nno such file");
    assert_eq!(shown[2].1, "session/prompt: Internal error (no model)");
}

#[test]
fn senseless_frames_are_counted_and_never_believed() {
    for frame_of in [
        json!(null),
        json!(3),
        json!([]),
        json!({"id": {}}),
        json!({"method": 5}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "plan", "entries": {"a": 1}}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "tool_call", "title": [], "status": 5}}}),
        json!({"method": "session/update", "params": {"update": {"sessionUpdate": "agent_message_chunk", "content": 7}}}),
    ] {
        for dir in ["in", "out", "sideways"] {
            read(&[frame(dir, frame_of.clone())]);
        }
    }
}

#[test]
fn a_transcript_says_whose_it_is() {
    let about = About { identifier: "A-1".into(), issue: "id".into(), title: "x\ny".into() };
    let line = json!({"at": "", "about": about.to_json()}).to_string();
    assert_eq!(About::of(&line), Some(about));
    assert_eq!(About::of("{}"), None);
    assert_eq!(About::of("no"), None);
}
