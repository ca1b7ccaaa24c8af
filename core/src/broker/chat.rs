//! What a Chat Completions request may hold, of OpenAI and of servers that speak its language, and what we set in it.

use serde_json::{Map, Value};

use super::{Refusal, data, exact, inline, items, kind, only, without};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "functions",
    "function_call",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "n",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "response_format",
    "seed",
    "user",
    "metadata",
    "store",
    "reasoning_effort",
    "reasoning",
    "thinking",
    "enable_thinking",
    "chat_template_kwargs",
    "verbosity",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "prediction",
    "modalities",
];
const REACHING: &[(&str, &str)] = &[("web_search_options", "a search by the provider")];

pub(super) fn check(body: &Map<String, Value>) -> Result<(), Refusal> {
    only(body, FIELDS, REACHING)?;
    for (at, tool) in items(body.get("tools"), "tools")?.iter().enumerate() {
        let place = format!("tools[{at}]");
        match kind(tool, &place)? {
            "function" | "custom" => {}
            other => return Err(Refusal::reaches_out(&place, &format!("the provider's own tool `{other}`"))),
        }
    }
    for (at, message) in items(body.get("messages"), "messages")?.iter().enumerate() {
        let place = format!("messages[{at}]");
        without(message, &["audio"], &place)?;
        content(message.get("content"), &format!("{place}.content"))?;
    }
    Ok(())
}

fn content(content: Option<&Value>, place: &str) -> Result<(), Refusal> {
    if let Some(Value::String(_)) = content {
        return Ok(());
    }
    for (at, part) in items(content, place)?.iter().enumerate() {
        let place = format!("{place}[{at}]");
        match kind(part, &place)? {
            "text" | "refusal" | "thinking" => {}
            "input_audio" => {
                let audio = part.get("input_audio").unwrap_or(&Value::Null);
                without(audio, &["url"], &format!("{place}.input_audio"))?;
                data(audio.get("data"), &format!("{place}.input_audio.data"))?;
            }
            "image_url" => {
                let image = part.get("image_url").unwrap_or(&Value::Null);
                without(image, &[], &format!("{place}.image_url"))?;
                inline(image.get("url"), &format!("{place}.image_url.url"))?;
            }
            "file" => {
                let file = part.get("file").filter(|file| file.is_object());
                let file = file.ok_or_else(|| Refusal::bad(format!("`{place}.file` must be an object")))?;
                without(file, &["file_id", "file_url", "url"], &place)?;
                data(file.get("file_data"), &format!("{place}.file.file_data"))?;
            }
            other => return Err(Refusal::reaches_out(&place, &format!("content `{other}`"))),
        }
    }
    Ok(())
}

/// Nothing is stored, and a stream ends with what it used. OpenAI keeps what does not say otherwise, for some accounts;
/// other servers may refuse a field that they do not know, so there it is only set where it stands.
pub(super) fn settle(body: &mut Map<String, Value>, elsewhere: bool) -> Result<(), Refusal> {
    if !elsewhere || body.contains_key("store") {
        body.insert("store".to_owned(), Value::Bool(false));
    }
    if body.get("stream") == Some(&Value::Bool(true)) {
        let options = body.entry("stream_options").or_insert(Value::Null);
        if options.is_null() {
            *options = Value::Object(Map::new());
        }
        let Value::Object(options) = options else { return Err(Refusal::bad("`stream_options` must be an object")) };
        exact(options, "stream_options")?;
        options.insert("include_usage".to_owned(), Value::Bool(true));
    }
    Ok(())
}
