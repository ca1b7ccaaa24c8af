//! Usage is read as bytes pass, however they are cut.

use proptest::prelude::*;
use serde_json::Value;

use super::super::{Call, Meter, Reading, Usage};

const ANTHROPIC: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"model\":\"big-1\",\"content\":[],\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":200,\"cache_creation_input_tokens\":30,\"output_tokens\":1}}}\n\n: ping\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"\\\"usage\\\":{\\\"output_tokens\\\":999}\"},\"x\":{\"y\":{\"usage\":{\"output_tokens\":998}}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":50}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const RESPONSES: &str = "event: response.created\r\ndata: {\"type\":\"response.created\",\"response\":{\"model\":\"g\",\"usage\":null}}\r\n\r\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[{\"usage\":1}],\"model\":\"g-2\",\"usage\":{\"input_tokens\":100,\"input_tokens_details\":{\"cached_tokens\":60},\"output_tokens\":7}}}\r\n\r\n";
const CHAT: &str = "data: {\"model\":\"c\",\"choices\":[{\"delta\":{\"content\":\"[DONE]\"}}],\"usage\":null}\n\ndata: {\"model\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"prompt_tokens_details\":{\"cached_tokens\":2}}}\n\ndata: [DONE]\n\n";

const GOOGLE: &str = "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"\\\"finishReason\\\":\\\"STOP\\\"\"}]},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":210,\"cachedContentTokenCount\":200,\"candidatesTokenCount\":3,\"thoughtsTokenCount\":20,\"totalTokenCount\":233},\"modelVersion\":\"gemini-x-001\"}\r\n\r\ndata: {\"candidates\":[{\"content\":{\"parts\":[{\"functionCall\":{\"args\":{\"finishReason\":\"STOP\"}}}]},\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":210,\"cachedContentTokenCount\":200,\"candidatesTokenCount\":30,\"thoughtsTokenCount\":20,\"toolUsePromptTokenCount\":5},\"modelVersion\":\"gemini-x-001\"}\r\n\r\n";

fn read(call: Call, content_type: &str, parts: &[&[u8]]) -> Reading {
    let mut meter = Meter::new(call, content_type);
    parts.iter().for_each(|part| meter.feed(part));
    meter.end();
    meter.finish()
}

fn stream(call: Call, text: &str) -> Reading {
    read(call, "text/event-stream; charset=utf-8", &[text.as_bytes()])
}

fn expected() -> [(Call, &'static str, Reading); 4] {
    let reading =
        |model: &str, usage| Reading { model: Some(model.into()), tier: None, usage: Some(usage), whole: true };
    [
        (
            Call::Messages,
            ANTHROPIC,
            reading("big-1", Usage { input: 10, output: 50, cache_read: 200, cache_write: 30, cache_write_1h: None }),
        ),
        (
            Call::Responses,
            RESPONSES,
            reading("g-2", Usage { input: 40, output: 7, cache_read: 60, cache_write: 0, cache_write_1h: None }),
        ),
        (
            Call::GenerateContent,
            GOOGLE,
            reading(
                "gemini-x-001",
                Usage { input: 15, output: 50, cache_read: 200, cache_write: 0, cache_write_1h: None },
            ),
        ),
        (
            Call::ChatCompletions,
            CHAT,
            reading("c", Usage { input: 7, output: 4, cache_read: 2, cache_write: 0, cache_write_1h: None }),
        ),
    ]
}

#[test]
fn the_usage_records_of_streams_are_read_and_nothing_else_is_taken_for_one() {
    for (call, text, reading) in expected() {
        assert_eq!(stream(call, text), reading);
    }
}

#[test]
fn a_whole_answer_in_one_text_is_read_too() {
    let text = r#"{"id":"1","model":"big","content":[{"type":"tool_use","input":{"usage":{"input_tokens":1}}}],"usage":{"input_tokens":3,"output_tokens":4}}"#;
    let usage = Usage { input: 3, output: 4, ..Usage::default() };
    let reading = read(Call::Messages, "application/json", &[text.as_bytes()]);
    assert_eq!(reading, Reading { model: Some("big".into()), tier: None, usage: Some(usage), whole: true });
    let cut = read(Call::Messages, "application/json", &[&text.as_bytes()[..text.len() - 1]]);
    assert_eq!(cut, Reading::default());
}

#[test]
fn a_cut_stream_is_told_from_a_whole_one_and_keeps_what_it_said() {
    for (call, text, reading) in expected() {
        let last = text.trim_end().rfind("\n\n").or(text.trim_end().rfind("\r\n\r\n")).expect("several events");
        let cut = stream(call, &text[..last + 2]);
        assert!(!cut.whole, "{call:?}");
        assert_eq!(cut.model.is_some(), reading.model.is_some());
    }
    let began = stream(Call::Messages, ANTHROPIC.split_once(": ping").expect("there").0);
    assert_eq!(
        began.usage,
        Some(Usage { input: 10, output: 1, cache_read: 200, cache_write: 30, cache_write_1h: None })
    );
}

#[test]
fn an_answer_of_google_s_is_whole_when_it_says_why_it_ends_and_its_last_record_counts() {
    let chunk = |more: &str| format!("data: {{{more}}}\n\n");
    let whole = |events: &[String]| stream(Call::GenerateContent, &events.concat());
    let text = chunk(r#""candidates":[{"content":{"parts":[{"text":"a"}]}}],"usageMetadata":{"promptTokenCount":9}"#);
    assert!(!whole(std::slice::from_ref(&text)).whole);
    for why in ["STOP", "MAX_TOKENS", "SAFETY", "MALFORMED_FUNCTION_CALL"] {
        let end =
            chunk(&format!(r#""candidates":[{{"content":{{"parts":[{{"x":[{{"y":1}}]}}]}},"finishReason":"{why}"}}]"#));
        let read = whole(&[text.clone(), end]);
        // A record that does not come again stands.
        assert_eq!((read.whole, read.usage), (true, Some(Usage { input: 9, ..Usage::default() })), "{why}");
    }
    let blocked =
        chunk(r#""promptFeedback":{"blockReason":"PROHIBITED_CONTENT"},"usageMetadata":{"promptTokenCount":9}"#);
    assert!(whole(&[blocked]).whole);
    for open in [
        r#""candidates":[{"finishReason":"FINISH_REASON_UNSPECIFIED"}]"#,
        r#""candidates":[{"finishReason":null}]"#,
        r#""candidates":[{"content":{"finishReason":"STOP"}}]"#,
        r#""candidates":{"a":{"finishReason":"STOP"}}"#,
        r#""other":[{"finishReason":"STOP"}]"#,
        r#""error":{"code":503,"status":"UNAVAILABLE"}"#,
    ] {
        assert!(!whole(&[chunk(open)]).whole, "{open}");
    }
    assert!(!stream(Call::Messages, &chunk(r#""candidates":[{"finishReason":"STOP"}]"#)).whole, "of Google's only");
    let tier = |word: &str| whole(&[chunk(&format!(r#""usageMetadata":{{"serviceTier":"{word}"}}"#))]).tier;
    assert_eq!((tier("standard"), tier("priority").as_deref()), (None, Some("priority")));
    // Regression: the first of several answers that ended was taken for the end of all, and its usage for theirs.
    let ended = chunk(r#""candidates":[{"index":0,"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":5}"#);
    let mut meter = Meter::new(Call::GenerateContent, "text/event-stream");
    meter.feed(ended.as_bytes());
    assert!(!meter.is_whole() && !meter.finish().whole, "another one may go on, and the agent left");
    let empty = whole(&[chunk(r#""usageMetadata":{"trafficType":"ON_DEMAND"}"#)]).usage;
    assert_eq!(empty, None, "a record without a number tells nothing");
    let cached = whole(&[chunk(r#""usageMetadata":{"promptTokenCount":5,"cachedContentTokenCount":9}"#)]).usage;
    assert_eq!(cached, Some(Usage { cache_read: 5, ..Usage::default() }));
    let one =
        r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":4}}"#;
    let usage = Usage { input: 3, output: 4, ..Usage::default() };
    let read = read(Call::GenerateContent, "application/json", &[one.as_bytes()]);
    assert_eq!((read.whole, read.usage), (true, Some(usage)));
}

/// The error of a stream, its reading, and whether its provider did nothing for it.
fn broken(call: Call, events: &[&str]) -> (Option<Value>, Reading, bool) {
    let mut meter = Meter::new(call, "text/event-stream");
    events.iter().for_each(|event| meter.feed(format!("data: {event}\n\n").as_bytes()));
    assert!(meter.error().is_none() || !meter.is_whole(), "{events:?}");
    let error = meter.error().map(|error| serde_json::from_str(&error).expect("JSON"));
    let is_refusal = meter.is_refusal();
    (error, meter.finish(), is_refusal)
}

/// Regression: an error within a stream was a cut answer, charged all that was set aside, its words lost.
#[test]
fn an_error_that_ends_a_stream_is_read_in_every_provider_s_form() {
    let begun = r#"{"type":"message_start","message":{"model":"b","usage":{"input_tokens":7,"output_tokens":1}}}"#;
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let created = r#"{"type":"response.created","response":{"model":"g","usage":null,"error":null}}"#;
    let failed = r#"{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"slow"},"usage":null}}"#;
    for (call, events, kind, code) in [
        (Call::Messages, vec![begun, overloaded], "type", "overloaded_error"),
        (Call::Responses, vec![created, failed], "code", "rate_limit_exceeded"),
        (
            Call::Responses,
            vec![r#"{"type":"error","code":"server_error","message":"x","param":null}"#],
            "code",
            "server_error",
        ),
        (
            Call::Responses,
            vec![r#"{"type":"error","error":{"type":"usage_limit_reached"}}"#],
            "type",
            "usage_limit_reached",
        ),
        (Call::ChatCompletions, vec![r#"{"error":{"code":"slow_down"}}"#, "[DONE]"], "code", "slow_down"),
        (Call::ChatCompletions, vec![r#"{"object":"error","error":"it is broken"}"#], "message", "it is broken"),
        (Call::GenerateContent, vec![r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#], "status", "UNAVAILABLE"),
    ] {
        let (error, ..) = broken(call, &events);
        let error = error.unwrap_or_else(|| panic!("{events:?}"));
        assert_eq!(error.pointer(&format!("/error/{kind}")).and_then(Value::as_str), Some(code), "{error}");
    }
    let (error, ..) = broken(Call::Responses, &[r#"{"type":"response.failed"}"#]);
    assert_eq!(error, Some(serde_json::json!({"error": {}})), "one without words is one, too");
    // One that nothing closes before the connection ends.
    let mut meter = Meter::new(Call::Messages, "text/event-stream");
    meter.feed(format!("data: {overloaded}").as_bytes());
    assert_eq!(meter.error(), None);
    meter.end();
    assert!(meter.error().is_some());
    let mut one = Meter::new(Call::ChatCompletions, "application/json");
    one.feed(br#"{"error":{"code":429}}"#);
    assert!(one.error().is_some() && !one.is_whole());
    one.end();
    assert!(one.is_refusal());
    let mut good = Meter::new(Call::ChatCompletions, "application/json");
    good.feed(br#"{"error":null,"usage":{"prompt_tokens":3}}"#);
    good.end();
    assert!(good.error().is_none() && good.is_whole(), "the end of a good one changes nothing");
    assert_eq!(good.finish().usage, Some(Usage { input: 3, ..Usage::default() }));
}

#[test]
fn what_a_model_writes_of_an_error_is_none() {
    let inside = r#"{"type":"error","error":{"type":"overloaded_error"}}"#;
    let text = Value::from(format!("{inside}\n\ndata: {inside}\n\n")).to_string();
    for (call, event) in [
        (
            Call::Messages,
            format!(r#"{{"type":"content_block_delta","delta":{{"type":"error","error":{inside},"text":{text}}}}}"#),
        ),
        (Call::Messages, format!(r#"{{"type":"message_delta","error":{inside}}}"#)),
        (Call::Responses, format!(r#"{{"type":"response.output_text.delta","delta":{text},"error":{inside}}}"#)),
        (
            Call::Responses,
            format!(r#"{{"type":"response.completed","response":{{"output":[{inside}],"error":null}}}}"#),
        ),
        (
            Call::ChatCompletions,
            format!(r#"{{"choices":[{{"delta":{{"content":{text},"error":{inside}}}}}],"error":null}}"#),
        ),
        (
            Call::GenerateContent,
            format!(r#"{{"candidates":[{{"content":{{"parts":[{inside},{{"text":{text}}}]}}}}]}}"#),
        ),
    ] {
        assert_eq!(broken(call, &[&event]).0, None, "{event}");
    }
    let stop = r#"{"type":"message_stop"}"#;
    let (error, reading, _) = broken(Call::Messages, &[stop, inside]);
    assert!(error.is_none() && reading.whole, "what stands behind its last word is no part of it");
}

#[test]
fn an_answer_that_an_error_broke_off_used_what_was_told_and_written_and_no_more() {
    let begun = r#"{"type":"message_start","message":{"model":"b","usage":{"input_tokens":7,"output_tokens":1}}}"#;
    let delta = r#"{"type":"content_block_delta","delta":{"text":"a"}}"#;
    let error = r#"{"type":"error","error":{"type":"api_error"}}"#;
    let (_, reading, is_refusal) = broken(Call::Messages, &[begun, delta, delta, delta, error]);
    let usage = Some(Usage { input: 7, output: 3, ..Usage::default() });
    assert_eq!((reading.whole, reading.usage, is_refusal), (true, usage, false));
    let cut = broken(Call::Messages, &[begun, delta, delta, delta]).1;
    assert!(!cut.whole, "one that is really cut used more than it says");
    let failed = r#"{"type":"response.failed","response":{"error":{"code":"server_error"}}}"#;
    let created = r#"{"type":"response.created","response":{"model":"g"}}"#;
    assert!(broken(Call::Responses, &[created, failed]).2, "its provider did nothing");
    let wrote = r#"{"type":"response.output_text.delta","delta":"a"}"#;
    let (_, reading, is_refusal) = broken(Call::Responses, &[created, wrote, failed]);
    assert!(!reading.whole && !is_refusal, "it wrote, and says of no use: as good as cut");
    let told =
        r#"{"type":"response.failed","response":{"error":{"code":"x"},"usage":{"input_tokens":5,"output_tokens":2}}}"#;
    let (_, reading, _) = broken(Call::Responses, &[created, wrote, told]);
    assert_eq!((reading.whole, reading.usage), (true, Some(Usage { input: 5, output: 2, ..Usage::default() })));
}

#[test]
fn the_steps_of_an_answer_that_was_shortened_first_are_summed() {
    let text = r#"{"model":"big","usage":{"input_tokens":23,"output_tokens":10,"cache_read_input_tokens":5,"iterations":[{"type":"compaction","input_tokens":180,"output_tokens":35},{"type":"message","input_tokens":23,"output_tokens":10}]}}"#;
    let usage = Usage { input: 203, output: 45, cache_read: 5, cache_write: 0, cache_write_1h: None };
    assert_eq!(read(Call::Messages, "application/json", &[text.as_bytes()]).usage, Some(usage));
}

#[test]
fn an_answer_in_an_unusual_tier_or_speed_says_so() {
    let tier = |call, text: &str| read(call, "application/json", &[text.as_bytes()]).tier;
    let messages = |more: &str| tier(Call::Messages, &format!(r#"{{"usage":{{"input_tokens":1{more}}}}}"#));
    assert_eq!(messages(""), None);
    assert_eq!(messages(r#","service_tier":"standard","speed":"standard""#), None);
    assert_eq!(messages(r#","service_tier":"priority""#).as_deref(), Some("priority"));
    assert_eq!(messages(r#","service_tier":"standard","speed":"fast""#).as_deref(), Some("fast"));
    assert_eq!(tier(Call::ChatCompletions, r#"{"service_tier":"flex","usage":{}}"#).as_deref(), Some("flex"));
    assert_eq!(tier(Call::Responses, r#"{"service_tier":"default","usage":{}}"#), None);
    let streamed = RESPONSES.replace("\"model\":\"g-2\"", "\"model\":\"g-2\",\"service_tier\":\"priority\"");
    assert_eq!(stream(Call::Responses, &streamed).tier.as_deref(), Some("priority"));
}

#[test]
fn a_record_of_any_size_takes_no_more_memory_than_the_bound() {
    let mut meter = Meter::new(Call::Messages, "application/json");
    meter.feed(br#"{"model":"m","usage":{"x":""#);
    for _ in 0..1000 {
        meter.feed(&[b'a'; 1000]);
    }
    meter.feed(br#""},"usage":{"output_tokens":1}}"#);
    assert_eq!(meter.finish().usage, Some(Usage { output: 1, ..Usage::default() }));
}

/// Pieces of answers, whole and broken, in any order: most of what a reader can stumble over stands next to each other.
fn anything() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\\",
        " ",
        "\n",
        "\r",
        "\n\n",
        "data",
        "data: ",
        "\n\ndata: {",
        "event: x\n",
        "[DONE]",
        "\\\"",
        "\\\\",
        "1",
        "null",
        "a long name of nothing",
        "\u{e9}",
        "\"type\":",
        "\"model\":",
        "\"usage\":",
        "\"message\":{",
        "\"response\":{",
        "\"message_stop\"",
        "\"m\\u0041\"",
        "\"priority\"",
        "\"service_tier\":",
        "{\"output_tokens\":7,\"input_tokens\":3}",
        "\"usage\":{\"input_tokens\":10,\"output_tokens\":2,\"speed\":\"fast\"}",
        "\"response\":{\"usage\":{\"output_tokens\":7},\"model\":\"g\"}",
        "\n\ndata: {\"type\":\"message_stop\"}\n\n",
        "\n\ndata: [DONE]\n\n",
        "\"candidates\":[{\"finishReason\":\"STOP\"}]",
        "\"usageMetadata\":{\"promptTokenCount\":3}",
        "\"promptFeedback\":{",
        "\"error\":{",
        "\"code\":",
        "\"error\"",
    ]);
    let piece = prop_oneof![
        40 => pieces.prop_map(|piece| piece.as_bytes().to_vec()),
        4 => any::<u8>().prop_map(|byte| vec![byte]),
        // About as long as a value may be.
        1 => (16_300_usize..16_400).prop_map(|length| vec![b'x'; length]),
    ];
    prop::collection::vec(piece, 0..50).prop_map(|pieces| pieces.concat())
}

/// Any JSON; names of ours stand where they mean nothing, too.
fn json() -> impl Strategy<Value = Value> {
    let text = || {
        prop_oneof!["[a-z\\\\\"{}:,\n\u{e9}]{0,12}", "(usage|model|type|message|error|code)"]
            .prop_map(|text: String| text)
    };
    let leaf = prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), text().prop_map(Value::from)];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((text(), inner), 0..4).prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn where_the_bytes_are_cut_makes_no_difference(cuts in prop::collection::vec(0_usize..900, 0..12)) {
        for (call, text, reading) in expected() {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            let bounds = std::iter::once(0).chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([text.len()]);
            let parts: Vec<&[u8]> = bounds.zip(ends).map(|(from, to)| &text.as_bytes()[from..to]).collect();
            prop_assert_eq!(read(call, "text/event-stream", &parts), reading);
        }
    }

    #[test]
    fn of_anything_the_same_is_read_whole_byte_by_byte_and_in_any_parts(bytes in anything(), sizes in prop::collection::vec(1_usize..80, 1..20)) {
        for call in [Call::Messages, Call::Responses, Call::ChatCompletions, Call::GenerateContent] {
            for content_type in ["text/event-stream", "application/json"] {
                let whole = read(call, content_type, &[&bytes]);
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                prop_assert_eq!(&read(call, content_type, &single), &whole);
                let (mut parts, mut rest) = (vec![], &bytes[..]);
                for size in sizes.iter().cycle() {
                    let (part, more) = rest.split_at(rest.len().min(*size));
                    parts.push(part);
                    rest = more;
                    if rest.is_empty() {
                        break;
                    }
                }
                prop_assert_eq!(&read(call, content_type, &parts), &whole);
            }
        }
    }

    #[test]
    fn of_any_json_what_a_parser_finds_is_read(before in json(), inner in json(), after in json(), model in "[a-z\\\\\"{}é]{0,20}", tokens in any::<(u64, u64)>()) {
        let (input, output) = tokens;
        let usage = serde_json::json!({"input_tokens": input, "x": inner, "output_tokens": output});
        let text = serde_json::json!({"before": before, "model": model, "usage": usage, "after": after}).to_string();
        let usage = Usage { input, output, ..Usage::default() };
        let expected = Reading { model: Some(model), tier: None, usage: Some(usage), whole: true };
        prop_assert_eq!(read(Call::Messages, "application/json", &[text.as_bytes()]), expected.clone());
        let events = format!("data: {text}\n\ndata: {{\"type\":\"message_stop\"}}\n\n");
        prop_assert_eq!(stream(Call::Messages, &events), expected);
    }
}

/// Regression: what is kept for an hour costs twice the input, and was not told apart.
#[test]
fn what_is_written_into_a_cache_for_an_hour_is_told_apart_where_the_record_does() {
    let text = r#"{"usage":{"input_tokens":3,"cache_creation_input_tokens":70,"output_tokens":4,"cache_creation":{"ephemeral_5m_input_tokens":50,"ephemeral_1h_input_tokens":20}}}"#;
    let of = |text: &str| read(Call::Messages, "application/json", &[text.as_bytes()]).usage.expect("told");
    assert_eq!((of(text).cache_write, of(text).cache_write_1h), (70, Some(20)));
    assert_eq!(of(&text.replace("cache_creation\":", "other\":")).cache_write_1h, None);
}
