//! What an Anthropic Messages request may hold. Tools the provider runs, addresses it would fetch and things it keeps may not.

use serde_json::{Map, Value};

use super::{Refusal, items, kind, only, without};

const FIELDS: &[&str] = &[
    "model",
    "messages",
    "system",
    "max_tokens",
    "metadata",
    "stop_sequences",
    "stream",
    "temperature",
    "top_k",
    "top_p",
    "tools",
    "tool_choice",
    "thinking",
    "service_tier",
    "speed",
    "output_config",
    "output_format",
    "context_management",
    "cache_control",
];
const REACHING: &[(&str, &str)] =
    &[("mcp_servers", "a list of MCP servers"), ("container", "a container of the provider's")];
/// Tools whose shape the model knows and which the agent runs itself.
const KNOWN_SHAPES: [&str; 3] = ["bash_", "text_editor_", "memory_"];

pub(super) fn check(body: &Map<String, Value>) -> Result<(), Refusal> {
    only(body, FIELDS, REACHING)?;
    for (at, tool) in items(body.get("tools"), "tools")?.iter().enumerate() {
        let place = format!("tools[{at}]");
        let kind = kind(tool, &place)?;
        if !(matches!(kind, "" | "custom") || is_own(kind)) {
            return Err(Refusal::reaches_out(&place, &format!("the provider's own tool `{kind}`")));
        }
    }
    content(body.get("system"), "system")?;
    for (at, message) in items(body.get("messages"), "messages")?.iter().enumerate() {
        without(message, &[], &format!("messages[{at}]"))?;
        content(message.get("content"), &format!("messages[{at}].content"))?;
    }
    Ok(())
}

/// A known shape and its date. With more words it is another tool: `bash_code_execution_…` runs at the provider.
fn is_own(kind: &str) -> bool {
    let date = KNOWN_SHAPES.iter().find_map(|shape| kind.strip_prefix(shape));
    date.is_some_and(|date| !date.is_empty() && date.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Text, or blocks of it. serde_json bounds the depth.
fn content(content: Option<&Value>, place: &str) -> Result<(), Refusal> {
    if let Some(Value::String(_)) = content {
        return Ok(());
    }
    for (at, block) in items(content, place)?.iter().enumerate() {
        let place = format!("{place}[{at}]");
        match kind(block, &place)? {
            // What stands in a tool call is the model's own; nothing of it is fetched.
            "text" | "thinking" | "redacted_thinking" | "tool_use" | "tool_reference" | "compaction" => {}
            "tool_result" | "search_result" => self::content(block.get("content"), &format!("{place}.content"))?,
            "image" | "document" => source(block.get("source"), &format!("{place}.source"))?,
            other => return Err(Refusal::reaches_out(&place, &format!("a block `{other}`"))),
        }
    }
    Ok(())
}

fn source(source: Option<&Value>, place: &str) -> Result<(), Refusal> {
    match kind(source.unwrap_or(&Value::Null), place)? {
        "base64" | "text" => Ok(()),
        "content" => content(source.and_then(|source| source.get("content")), &format!("{place}.content")),
        "url" => Err(Refusal::reaches_out(place, "an address to fetch from")),
        other => Err(Refusal::reaches_out(place, &format!("a source `{other}`"))),
    }
}
