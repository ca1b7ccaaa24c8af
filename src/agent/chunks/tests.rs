//! Messages in, messages out: what a reader of all of them would see.

use super::*;

const TOKEN: &str = "the-token-of-this-run-0451";
const GITHUB: &str = "ghp_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3";

fn update(update: Value) -> String {
    json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s", "update": update}}).to_string()
}

fn chunk(kind: &str, text: &str) -> String {
    update(json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}}))
}

fn answer() -> String {
    json!({"jsonrpc": "2.0", "id": 3, "result": {"stopReason": "end_turn"}}).to_string()
}

/// All that comes out, in order.
fn passed(lines: impl IntoIterator<Item = String>) -> Vec<Value> {
    let mut chunks = Chunks::new(Secrets::new([TOKEN.to_owned()]));
    let mut out = vec![];
    for line in lines {
        let (before, line) = chunks.take(&line);
        out.extend(before);
        out.push(line.into_owned());
    }
    out.extend(chunks.rest());
    out.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The running text of one kind, joined.
fn said(frames: &[Value], kind: &str) -> String {
    let of_kind = frames.iter().filter(|frame| frame["params"]["update"]["sessionUpdate"] == kind);
    of_kind.filter_map(|frame| frame.pointer(TEXT)?.as_str()).collect()
}

fn in_fives(text: &str) -> Vec<String> {
    text.as_bytes().chunks(5).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect()
}

/// Regression: an agent that streams its words showed its token and every key whole.
#[test]
fn a_token_and_a_key_that_are_streamed_in_chunks_are_in_no_joined_text() {
    for kind in ["agent_message_chunk", "agent_thought_chunk", "user_message_chunk"] {
        let text = format!("The token is {TOKEN} and the key {GITHUB}, as I found them");
        // Between the chunks there is what nobody reads.
        let lines = in_fives(&text).into_iter().flat_map(|piece| {
            [chunk(kind, &piece), update(json!({"sessionUpdate": "usage_update", "used": 1, "size": 2}))]
        });
        let frames = passed(lines.chain([answer()]));
        assert_eq!(said(&frames, kind), "The token is [redacted] and the key [redacted], as I found them");
    }
}

#[test]
fn every_message_stays_one_in_its_order_and_what_waited_comes_before_what_interrupts() {
    let tool = update(json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "look"}));
    let plain = chunk("agent_message_chunk", "I  look");
    for interrupts in [tool, answer(), chunk("agent_thought_chunk", "hm."), update(json!({"sessionUpdate": "plan"}))] {
        let frames = passed([plain.clone(), chunk("agent_message_chunk", " at the s"), interrupts.clone()]);
        assert_eq!(frames.len(), 4, "{frames:?}");
        assert_eq!(frames[0].to_string(), plain);
        assert_eq!(frames[1].pointer(TEXT), Some(&json!(" at the ")));
        assert_eq!(frames[2].pointer(TEXT), Some(&json!("s")));
        assert_eq!(frames[2]["params"]["update"]["sessionUpdate"], "agent_message_chunk");
        assert_eq!(frames[2]["params"]["sessionId"], "s");
        assert_eq!(frames[3].to_string(), interrupts);
    }
    // An agent that dies says no more.
    let frames = passed([chunk("agent_message_chunk", "at the s")]);
    assert_eq!(said(&frames, "agent_message_chunk"), "at the s");
}

#[test]
fn what_nothing_is_hidden_of_is_passed_as_it_came() {
    for line in [
        r#"{"method":"session/update" , "params":{"update":{"content":{"text":"a \u00e9."},"sessionUpdate":"agent_message_chunk"}}}"#,
        r#"{"id":1,"result":{"stopReason":"end_turn"}}"#,
        r#"{"method":"_vendor/thing","params":[1.50,{"a":"b"}]}"#,
        r#"{"method":"broken"#,
    ] {
        let mut chunks = Chunks::new(Secrets::new([TOKEN.to_owned()]));
        assert_eq!(chunks.take(line), (vec![], Cow::Borrowed(line)));
    }
}

/// Regression: the output of a tool that came in pieces was redacted by none of them.
#[test]
fn pieces_of_a_tool_s_output_and_of_vendors_messages_hold_no_whole_secret() {
    let piece = |at: usize, text: &str| match at {
        0 => update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "t",
            "content": [{"type": "content", "content": {"type": "text", "text": text}}]})),
        1 => update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "t",
            "_meta": {"terminal_output": {"data": text}}})),
        _ => json!({"method": "_vendor/stream", "params": {"delta": text}}).to_string(),
    };
    let places =
        ["/params/update/content/0/content/text", "/params/update/_meta/terminal_output/data", "/params/delta"];
    for (at, place) in places.into_iter().enumerate() {
        for secret in [TOKEN, GITHUB] {
            let frames = passed(in_fives(&format!("{secret} -- and on")).iter().map(|text| piece(at, text)));
            let joined: String = frames.iter().filter_map(|frame| frame.pointer(place)?.as_str()).collect();
            let left = joined.replace("[redacted]", "");
            let shown = left.strip_suffix("-- and on").expect("the rest is there").trim();
            assert!(secret.starts_with(shown) && shown.len() <= 10, "{joined}");
        }
    }
    // Two calls at once are two texts.
    let of = |id: &str, text: &str| {
        update(json!({"sessionUpdate": "tool_call_update", "toolCallId": id, "rawOutput": text}))
    };
    let frames = passed([of("a", &TOKEN[..12]), of("b", "Other."), of("a", &TOKEN[12..])]);
    let shown: Vec<_> = frames.iter().filter_map(|frame| frame.pointer("/params/update/rawOutput")?.as_str()).collect();
    assert_eq!(shown, ["[redacted]", "Other.", ""]);
}

#[test]
fn what_is_remembered_of_an_agent_that_opens_texts_without_end_is_bounded() {
    let mut chunks = Chunks::new(Secrets::new([TOKEN.to_owned()]));
    for n in 0..2000 {
        let params =
            json!({"sessionId": n, "update": {"sessionUpdate": "agent_message_chunk", "content": {"text": "the"}}});
        chunks.take(&json!({"method": "session/update", "params": params}).to_string());
        chunks.take(&json!({"method": "_x", "params": {n.to_string(): "the-to"}}).to_string());
    }
    assert!(chunks.texts.len() <= TEXTS_MAX && chunks.pieces.len() <= PIECES_MAX);
}
