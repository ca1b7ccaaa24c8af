//! The most that a request can use, told from its body before it is sent.
//!
//! No tokeniser is asked: a token of text is at least one byte long, so a body's bytes are an upper bound of its text.
//! What the provider adds by itself (words around tools) and what is no text (pictures) is added as a fixed number; for
//! files and sound that number is a guess, which is said where budgets are explained.

use serde_json::{Map, Value};

use super::{Call, Refusal, google};

/// What a provider adds to a request with tools, and again for a tool whose shape it knows itself.
const HIDDEN: u64 = 1024;
/// A picture, whatever its size: providers scale it down. Its own bytes are not counted.
const PICTURE: u64 = 10_000;
/// The same at Google, which cuts a large one into tiles of 258 tokens: a hundred of them.
const TILED: u64 = 26_000;
/// A file or a sound, beside its bytes.
const FILE: u64 = 10_000;

/// Tokens that one request can use at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Most {
    /// Given to the model.
    pub input: u64,
    /// Written by it.
    pub output: u64,
    /// What of the input may go into the provider's cache, which costs more than to read it.
    pub writes: Writes,
    /// Whether it asks for a longer context than is usual, which may have another price.
    pub is_long: bool,
}

/// What a request may write into its provider's cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writes {
    /// Nothing that has a price.
    #[default]
    Nothing,
    /// For some minutes.
    Minutes,
    /// For an hour, or nobody knows how long.
    Hour,
}

impl Most {
    /// Both.
    pub fn tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// Longest output that a request may name, in tokens; more than any model writes. A number without a bound would charge an
/// owner whatever an agent likes when its answer is cut.
pub(super) const OUTPUT_MOST: u64 = 10_000_000;
/// Answers to one request.
pub(super) const ANSWERS_MOST: u64 = 128;

/// Whether the maxima in a body are numbers that can be set aside. What a provider would take for something else, such as
/// -1 for no limit, must not count as nothing here.
pub(super) fn named(body: &Map<String, Value>) -> Result<(), Refusal> {
    let bounds = [
        ("max_tokens", OUTPUT_MOST),
        ("max_output_tokens", OUTPUT_MOST),
        ("max_completion_tokens", OUTPUT_MOST),
        ("n", ANSWERS_MOST),
    ];
    bounds.into_iter().try_for_each(|(name, most)| whole(body, name, most))
}

/// A number from 0 to `most`, if it is there.
pub(super) fn whole(object: &Map<String, Value>, name: &str, most: u64) -> Result<(), Refusal> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(()),
        Some(value) if value.as_u64().is_some_and(|number| number <= most) => Ok(()),
        Some(_) => Err(Refusal::bad(format!("`{name}` must be a whole number from 0 to {most}"))),
    }
}

/// What a checked body of so many bytes can use; `assumed` is the output of one that names no maximum.
pub(super) fn most(call: Call, body: &Map<String, Value>, bytes: usize, assumed: u64) -> Most {
    let mut input = Input { bytes: count(bytes), more: 0 };
    for part in ["messages", "input", "system", "instructions"] {
        input.list(body.get(part));
    }
    for content in list(body.get("contents")).chain(body.get("systemInstruction")) {
        input.parts(content.get("parts"));
    }
    if let Some(tools) = body.get("tools").and_then(Value::as_array).filter(|tools| !tools.is_empty()) {
        let plain =
            |tool: &&Value| matches!(tool.get("type").and_then(Value::as_str), None | Some("function" | "custom"));
        // Of Google's tools, each with its kind as the name of a field.
        let own = |tool: &&Value| tool.as_object().is_some_and(|tool| tool.keys().all(|name| name == DECLARED));
        let plain = |tool: &&Value| if is_google(call) { own(tool) } else { plain(tool) };
        let known = tools.iter().filter(|tool| !plain(tool)).count();
        input.more += HIDDEN.saturating_mul(1 + count(known));
    }
    let config = body.get("generationConfig").and_then(Value::as_object).filter(|_| is_google(call)).unwrap_or(body);
    let number = |name: &str| config.get(name).and_then(Value::as_u64);
    let output = match call {
        Call::Responses => number("max_output_tokens"),
        // A server may know only one of them.
        Call::ChatCompletions => number("max_completion_tokens").max(number("max_tokens")),
        // What it thinks is part of it.
        Call::GenerateContent | Call::CountContent => number("maxOutputTokens"),
        Call::Messages | Call::CountTokens | Call::Models => number("max_tokens"),
    };
    let answers = match call {
        Call::ChatCompletions => number("n"),
        Call::GenerateContent => number("candidateCount"),
        _ => None,
    };
    let answers = answers.unwrap_or(1).max(1);
    let output = output.unwrap_or(assumed).saturating_mul(answers);
    let writes = match call {
        Call::Messages => written(body),
        _ => Writes::Nothing,
    };
    let most = Most { input: input.bytes.saturating_add(input.more), output, writes, is_long: false };
    // A provider that sums the conversation up first reads it twice, and writes twice.
    match body.get("context_management").is_some_and(|asked| sums_up(call, asked)) {
        false => most,
        true => Most { input: most.input.saturating_mul(2), output: most.output.saturating_mul(2), ..most },
    }
}

/// How long the provider may be asked to keep what it reads. A server that speaks Anthropic's API may cache unasked.
fn written(body: &Map<String, Value>) -> Writes {
    fn in_object(object: &Map<String, Value>) -> bool {
        let ttl = object.get("cache_control").and_then(|control| control.get("ttl"));
        ttl.is_some_and(|ttl| !ttl.is_null() && ttl != "5m") || object.values().any(in_value)
    }
    fn in_value(value: &Value) -> bool {
        match value {
            Value::Object(object) => in_object(object),
            Value::Array(list) => list.iter().any(in_value),
            _ => false,
        }
    }
    if in_object(body) { Writes::Hour } else { Writes::Minutes }
}

/// Whether one of these betas asks for a longer context than is usual.
pub fn is_long_context(betas: &str) -> bool {
    betas.split(',').any(|beta| beta.trim().to_ascii_lowercase().starts_with("context-1m"))
}

/// Whether a model may be asked for a summary before the answer. Leaving out old tool results or thinking uses nothing, and
/// Claude Code asks for it with every request; whatever is not known to be no more than that counts as a summary.
fn sums_up(call: Call, asked: &Value) -> bool {
    const CLEARING: [&str; 2] = ["clear_tool_uses_", "clear_thinking_"];
    let clears = |edit: &Value| {
        let kind = edit.get("type").and_then(Value::as_str).unwrap_or_default();
        CLEARING.iter().any(|known| kind.starts_with(known))
    };
    match asked {
        Value::Null => false,
        Value::Object(asked) if matches!(call, Call::Messages | Call::CountTokens) => {
            let edits = |value: &Value| value.as_array().is_some_and(|edits| edits.iter().all(clears));
            !asked.iter().all(|(name, value)| name == "edits" && edits(value))
        }
        _ => true,
    }
}

/// The service tier or speed that is asked for, if it is none of the ordinary ones.
pub(super) fn tier(body: &Map<String, Value>) -> Option<String> {
    let word = |name: &str| body.get(name).and_then(Value::as_str);
    let google = word("serviceTier").and_then(google::tier);
    unusual(word("speed"), word("service_tier").or(google.as_deref()))
}

/// What may have another price than usual: a speed, else a tier.
pub(super) fn unusual(speed: Option<&str>, tier: Option<&str>) -> Option<String> {
    const ORDINARY: [&str; 4] = ["auto", "default", "standard", "standard_only"];
    let word = speed.filter(|speed| !ORDINARY.contains(speed)).or(tier.filter(|tier| !ORDINARY.contains(tier)))?;
    Some(word.chars().filter(|c| c.is_ascii_graphic()).take(40).collect())
}

/// The field in which Google's tools declare what an agent runs itself.
const DECLARED: &str = "functionDeclarations";

fn is_google(call: Call) -> bool {
    matches!(call, Call::GenerateContent | Call::CountContent)
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_array).into_iter().flatten()
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn is_picture(url: &&Value) -> bool {
    url.as_str().is_some_and(|url| url.starts_with("data:image/"))
}

struct Input {
    bytes: u64,
    more: u64,
}

impl Input {
    /// Only where a provider looks for pictures: what merely looks like one elsewhere is text, and costs as text does.
    fn list(&mut self, list: Option<&Value>) {
        for item in self::list(list) {
            self.block(item);
            for inner in ["content", "output"] {
                self.list(item.get(inner));
            }
        }
    }

    fn block(&mut self, block: &Value) {
        match block.get("type").and_then(Value::as_str).unwrap_or_default() {
            "image" => {
                let kind = block.pointer("/source/media_type").and_then(Value::as_str).unwrap_or_default();
                self.picture(PICTURE, block.pointer("/source/data").filter(|_| kind.starts_with("image/")));
            }
            "input_image" => self.picture(PICTURE, block.get("image_url").filter(is_picture)),
            "image_url" => self.picture(PICTURE, block.pointer("/image_url/url").filter(is_picture)),
            "document" | "file" | "input_file" | "input_audio" => {
                self.more = self.more.saturating_add(FILE);
                self.list(block.pointer("/source/content"));
            }
            _ => {}
        }
    }

    /// The parts of Google's contents, and of what its functions answered.
    fn parts(&mut self, parts: Option<&Value>) {
        for part in list(parts) {
            if let Some(inline) = part.get("inlineData") {
                match inline.get("mimeType").and_then(Value::as_str) {
                    Some(kind) if kind.starts_with("image/") => self.picture(TILED, inline.get("data")),
                    _ => self.more = self.more.saturating_add(FILE),
                }
            }
            if ["fileData", "file_data"].iter().any(|name| part.get(name).is_some()) {
                self.more = self.more.saturating_add(FILE);
            }
            self.parts(part.pointer("/functionResponse/parts"));
        }
    }

    /// `data`: what is a picture by its own word; anything else stays counted as text.
    fn picture(&mut self, tokens: u64, data: Option<&Value>) {
        self.more = self.more.saturating_add(tokens);
        self.bytes = self.bytes.saturating_sub(data.and_then(Value::as_str).map_or(0, |data| count(data.len())));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(call: Call, body: &Value) -> Most {
        most(call, body.as_object().expect("an object"), body.to_string().len(), 5000)
    }

    #[test]
    fn the_bytes_and_the_named_maximum_bound_a_request() {
        let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        assert_eq!(
            of(Call::Messages, &body),
            Most { input: body.to_string().len() as u64, output: 9, writes: Writes::Minutes, is_long: false }
        );
        assert_eq!(of(Call::Messages, &json!({"model": "m"})).output, 5000, "what is not named is assumed");
        assert_eq!(of(Call::Responses, &json!({"max_output_tokens": 7, "max_tokens": 1})).output, 7);
        assert_eq!(of(Call::ChatCompletions, &json!({"max_completion_tokens": 7, "max_tokens": 1, "n": 3})).output, 21);
        // Regression: servers that know only the other one wrote more than was set aside.
        assert_eq!(of(Call::ChatCompletions, &json!({"max_completion_tokens": 1, "max_tokens": 64000})).output, 64000);
        assert_eq!(of(Call::ChatCompletions, &json!({"max_tokens": 4, "n": 0})).output, 4);
        assert_eq!(of(Call::Messages, &json!({"max_tokens": u64::MAX, "context_management": {}})).output, u64::MAX);
    }

    /// Regression: Claude Code asks with every request to leave out old thinking, and twice of what it can use was set aside.
    #[test]
    fn leaving_out_old_thinking_uses_nothing_and_only_a_summary_is_set_aside_for() {
        let doubled = |call, asked: Value| {
            let body = json!({"max_tokens": 100, "max_output_tokens": 100, "context_management": asked});
            of(call, &body).output == 200
        };
        let edits = |kinds: &[&str]| json!({"edits": kinds.iter().map(|kind| json!({"type": kind, "keep": "all"})).collect::<Vec<_>>()});
        for plain in [
            edits(&["clear_thinking_20251015"]),
            edits(&["clear_tool_uses_20250919", "clear_thinking_20251015"]),
            edits(&[]),
            json!({}),
            Value::Null,
        ] {
            assert!(!doubled(Call::Messages, plain.clone()), "{plain}");
        }
        for summing in [
            edits(&["compact_20260112"]),
            edits(&["clear_thinking_20251015", "compact_20260112"]),
            edits(&["something_new"]),
            json!({"edits": [{"keep": "all"}]}),
            json!({"edits": "clear_thinking_20251015"}),
            json!({"edits": [], "compaction": true}),
            json!(true),
        ] {
            assert!(doubled(Call::Messages, summing.clone()), "{summing}");
        }
        assert!(doubled(Call::Responses, json!([{"type": "compaction", "compact_threshold": 1000}])));
        assert!(doubled(Call::Responses, edits(&["clear_thinking_20251015"])), "a word of another provider's");
        assert!(!doubled(Call::Responses, Value::Null));
    }

    /// Regression: a maximum beyond all numbers was charged when its answer was cut, and the sums of the journal overflowed.
    #[test]
    fn a_maximum_that_is_no_sensible_number_is_refused() {
        let named = |body: Value| named(body.as_object().expect("an object"));
        for good in [
            json!({}),
            json!({"max_tokens": null}),
            json!({"max_tokens": 0, "n": 128}),
            json!({"max_output_tokens": 10_000_000}),
        ] {
            assert_eq!(named(good.clone()), Ok(()), "{good}");
        }
        for bad in [json!(u64::MAX), json!(10_000_001), json!(-1), json!(1.5), json!("9"), json!([9])] {
            for name in ["max_tokens", "max_output_tokens", "max_completion_tokens", "n"] {
                let refused = named(json!({name: bad})).expect_err("refused");
                assert!(refused.status == 400 && refused.message.contains(name), "{refused}");
            }
        }
    }

    /// Regression: what goes into a cache was set aside for as if it were only read.
    #[test]
    fn what_a_request_may_write_into_a_cache_is_the_dearest_it_names() {
        let of = |body: Value| of(Call::Messages, &body).writes;
        let block = |control: Value| json!([{"content": [{"type": "text", "text": "x", "cache_control": control}]}]);
        assert_eq!(of(json!({"messages": []})), Writes::Minutes);
        assert_eq!(of(json!({"messages": block(json!({"type": "ephemeral"}))})), Writes::Minutes);
        assert_eq!(of(json!({"messages": block(json!({"type": "ephemeral", "ttl": "5m"}))})), Writes::Minutes);
        assert_eq!(of(json!({"messages": block(json!({"type": "ephemeral", "ttl": "1h"}))})), Writes::Hour);
        assert_eq!(of(json!({"messages": [], "tools": block(json!({"ttl": "1d"}))})), Writes::Hour);
        assert_eq!(of(json!({"cache_control": {"type": "ephemeral", "ttl": 3600}})), Writes::Hour);
        assert_eq!(super::tests::of(Call::Responses, &json!({"input": []})).writes, Writes::Nothing);
        assert!(is_long_context("a-1, context-1m-2025-08-07") && !is_long_context("context-management-2025-06-27"));
    }

    #[test]
    fn a_picture_counts_as_one_where_a_provider_sees_one_and_as_text_elsewhere() {
        let data = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let source = json!({"type": "base64", "media_type": "image/png", "data": data});
        let inside = json!({"type": "tool_result", "content": [{"type": "image", "source": source}]});
        for (call, body) in [
            (Call::Messages, json!({"messages": [{"content": [{"type": "image", "source": source}]}]})),
            (Call::Messages, json!({"messages": [{"content": [inside]}]})),
            (Call::Responses, json!({"input": [{"content": [{"type": "input_image", "image_url": data}]}]})),
            (
                Call::Responses,
                json!({"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": data}]}]}),
            ),
            (
                Call::ChatCompletions,
                json!({"messages": [{"content": [{"type": "image_url", "image_url": {"url": data}}]}]}),
            ),
        ] {
            let input = of(call, &body).input;
            assert!((PICTURE..PICTURE + 500).contains(&input), "{input} of {call:?}");
        }
        let hidden =
            json!({"messages": [{"content": [{"type": "tool_use", "input": {"type": "image", "source": source}}]}]});
        assert!(of(Call::Messages, &hidden).input > 100_000);
        let text = data.replace("image/png", "text/plain");
        let lie = json!({"messages": [{"content": [{"type": "image_url", "image_url": {"url": text}}]}]});
        assert!(of(Call::ChatCompletions, &lie).input > 100_000);
        let file = json!({"messages": [{"content": [{"type": "document", "source": source}]}]});
        assert!(of(Call::Messages, &file).input > 100_000 + FILE);
    }

    #[test]
    fn what_providers_add_for_tools_is_counted_and_an_unusual_tier_is_told() {
        let plain = of(Call::Messages, &json!({"tools": []})).input;
        let own = of(Call::Messages, &json!({"tools": [{"name": "x", "input_schema": {}}]})).input;
        let known = of(Call::Messages, &json!({"tools": [{"type": "bash_1", "name": "bash"}]})).input;
        assert!(plain < 100 && own > HIDDEN && known > 2 * HIDDEN);
        let asked = |body: Value| tier(body.as_object().expect("an object"));
        assert_eq!(asked(json!({"service_tier": "auto", "speed": "standard"})), None);
        assert_eq!(asked(json!({"service_tier": "priority"})).as_deref(), Some("priority"));
        assert_eq!(asked(json!({"service_tier": "priority", "speed": "fast"})).as_deref(), Some("fast"));
    }
}
