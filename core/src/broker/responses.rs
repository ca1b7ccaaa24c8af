//! What an OpenAI Responses request may hold. Tools the provider runs, addresses it would fetch and things it keeps may not.

use serde_json::{Map, Value};

use super::{Refusal, data, inline, items, kind, only, without};

const FIELDS: &[&str] = &[
    "model",
    "input",
    "instructions",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "stream",
    "stream_options",
    "store",
    "include",
    "service_tier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "text",
    "max_output_tokens",
    "max_tool_calls",
    "temperature",
    "top_p",
    "top_logprobs",
    "truncation",
    "metadata",
    "client_metadata",
    "context_management",
    "user",
    "safety_identifier",
];
const REACHING: &[(&str, &str)] = &[
    ("previous_response_id", "a stored response"),
    ("conversation", "a stored conversation"),
    ("prompt", "a stored prompt"),
    ("background", "work in the background"),
];
/// Outputs that an answer may be asked to hold.
const INCLUDES: [&str; 2] = ["reasoning.encrypted_content", "message.output_text.logprobs"];

pub(super) fn check(body: &Map<String, Value>) -> Result<(), Refusal> {
    only(body, FIELDS, REACHING)?;
    tools(body.get("tools"), "tools")?;
    for include in items(body.get("include"), "include")? {
        if !include.as_str().is_some_and(|include| INCLUDES.contains(&include)) {
            return Err(Refusal::reaches_out("include", "output of a tool of the provider's"));
        }
    }
    for part in ["instructions", "input"] {
        match body.get(part) {
            Some(Value::String(_)) => {}
            list => {
                for (at, item) in items(list, part)?.iter().enumerate() {
                    self::item(item, &format!("{part}[{at}]"))?;
                }
            }
        }
    }
    Ok(())
}

fn tools(tools: Option<&Value>, place: &str) -> Result<(), Refusal> {
    for (at, tool) in items(tools, place)?.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let word = |name| tool.get(name).and_then(Value::as_str);
        match kind(tool, &place)? {
            "function" | "custom" | "apply_patch" => {}
            "namespace" => self::tools(tool.get("tools"), &format!("{place}.tools"))?,
            // These exist in two kinds: run by the agent, or by the provider.
            "tool_search" if word("execution") == Some("client") => {}
            "shell" | "local_shell" => at_home(tool, &place)?,
            "web_search" => {
                let what = "the provider's own tool `web_search` (codex: -c web_search=disabled)";
                return Err(Refusal::reaches_out(&place, what));
            }
            other => return Err(Refusal::reaches_out(&place, &format!("the provider's own tool `{other}`"))),
        }
    }
    Ok(())
}

/// A shell that the agent runs, not one in a container of the provider's.
fn at_home(shell: &Value, place: &str) -> Result<(), Refusal> {
    match shell.get("environment") {
        None | Some(Value::Null) => Ok(()),
        Some(environment) if kind(environment, &format!("{place}.environment"))? == "local" => Ok(()),
        Some(_) => Err(Refusal::reaches_out(&format!("{place}.environment"), "a shell of the provider's")),
    }
}

fn item(item: &Value, place: &str) -> Result<(), Refusal> {
    let kind = kind(item, place)?;
    let is_empty = |name: &str| item.get(name).is_none_or(is_nothing);
    let sealed = matches!(kind, "reasoning" | "compaction" | "compaction_summary" | "context_compaction");
    let is_reference = is_only_named(item) || sealed && is_empty("encrypted_content");
    // What says so itself is refused by that name.
    if !is_empty("id") && is_reference && kind != "item_reference" {
        return Err(Refusal::reaches_out(place, "an item of which only the id is there, a reference to a stored one,"));
    }
    match kind {
        // Without its type, what has no content is a reference to something stored.
        "" | "message" if item.get("content").is_none_or(Value::is_null) => {
            Err(Refusal::reaches_out(place, "an item without content"))
        }
        "" | "message" => content(item.get("content"), &format!("{place}.content")),
        "function_call_output" | "custom_tool_call_output" => content(item.get("output"), &format!("{place}.output")),
        // Codex hands its tools over in here.
        "additional_tools" | "tool_search_output" => tools(item.get("tools"), &format!("{place}.tools")),
        "local_shell_call" | "local_shell_call_output" | "shell_call" | "shell_call_output" => at_home(item, place),
        "function_call"
        | "custom_tool_call"
        | "tool_search_call"
        | "reasoning"
        | "apply_patch_call"
        | "apply_patch_call_output"
        | "compaction"
        | "compaction_summary"
        | "compaction_trigger"
        | "context_compaction" => Ok(()),
        other => Err(Refusal::reaches_out(place, &format!("an item `{other}`"))),
    }
}

/// Whether nothing but names and marks stands in it.
fn is_only_named(item: &Value) -> bool {
    let mark = |name: &str| matches!(name, "id" | "type" | "status" | "role" | "phase");
    item.as_object().is_some_and(|item| item.iter().all(|(name, value)| mark(name) || is_nothing(value)))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn content(content: Option<&Value>, place: &str) -> Result<(), Refusal> {
    if let Some(Value::String(_)) = content {
        return Ok(());
    }
    for (at, part) in items(content, place)?.iter().enumerate() {
        let place = format!("{place}[{at}]");
        match kind(part, &place)? {
            "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" | "refusal"
            | "encrypted_content" => {}
            "input_audio" => {
                let audio = part.get("input_audio").unwrap_or(part);
                without(audio, &["url"], &place)?;
                data(audio.get("data"), &format!("{place}.data"))?;
            }
            "input_image" => {
                without(part, &["file_id"], &place)?;
                inline(part.get("image_url"), &format!("{place}.image_url"))?;
            }
            "input_file" => {
                without(part, &["file_id", "file_url"], &place)?;
                data(part.get("file_data"), &format!("{place}.file_data"))?;
            }
            other => return Err(Refusal::reaches_out(&place, &format!("content `{other}`"))),
        }
    }
    Ok(())
}
