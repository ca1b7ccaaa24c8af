//! What a request to Google's Gemini API asks for and may hold. Tools the provider runs, addresses it would fetch and things it
//! keeps may not.
//!
//! Its model stands in the path. It reads each field under two names, `maxOutputTokens` and `max_output_tokens`: only the
//! first is known here, and what is counted is refused under the other.

use serde_json::{Map, Value};

use super::most::{ANSWERS_MOST, OUTPUT_MOST, whole};
use super::{Asked, Call, MODEL_MAX, Refusal, data, items, only};

const FIELDS: &[&str] =
    &["contents", "systemInstruction", "tools", "toolConfig", "safetySettings", "generationConfig", "serviceTier"];
const REACHING: &[(&str, &str)] = &[("cachedContent", "stored content")];
/// How an answer is made, all of it in the answer.
const GENERATION: &[&str] = &[
    "stopSequences",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseModalities",
    "candidateCount",
    "maxOutputTokens",
    "temperature",
    "topP",
    "topK",
    "seed",
    "presencePenalty",
    "frequencyPenalty",
    "responseLogprobs",
    "logprobs",
    "thinkingConfig",
    "mediaResolution",
];
const FUNCTION: &[&str] =
    &["name", "description", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "behavior"];
const PART: &[&str] = &[
    "text",
    "thought",
    "thoughtSignature",
    "inlineData",
    "functionCall",
    "functionResponse",
    "videoMetadata",
    "mediaResolution",
    "partMetadata",
];
const INLINE: &[&str] = &["mimeType", "data", "displayName"];
const RESPONSE: &[&str] = &["id", "name", "response", "parts", "willContinue", "scheduling"];

/// What stands behind the prefix of its API.
pub(super) fn asked(rest: &str) -> Option<Asked<'_>> {
    if rest == "/v1beta/models" {
        return Some(Asked { queries: &["pageSize", "pageToken"], ..Asked::of(Call::Models) });
    }
    let (model, method) = rest.strip_prefix("/v1beta/models/")?.split_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if model.len() > MODEL_MAX || !model.starts_with(|c: char| c.is_ascii_alphanumeric()) || !model.chars().all(plain) {
        return None;
    }
    let asked = match method {
        "generateContent" => Asked::of(Call::GenerateContent),
        // Without it the answer is one list, which cannot be read in passing.
        "streamGenerateContent" => {
            Asked { queries: &["alt"], wants: Some("alt=sse"), ..Asked::of(Call::GenerateContent) }
        }
        "countTokens" => Asked::of(Call::CountContent),
        _ => return None,
    };
    Some(Asked { model: Some(model), ..asked })
}

/// What holds whatever the workflow allows: that what is counted and paid by is read as the provider reads it.
pub(super) fn counted(body: &mut Map<String, Value>) -> Result<(), Refusal> {
    if body.contains_key("model") {
        return Err(Refusal::bad("`model` stands in the path of this request, and nowhere else"));
    }
    spelled(body, "", &["model", "generationConfig", "serviceTier", "store"])?;
    match body.get("generationConfig") {
        None | Some(Value::Null) => {}
        Some(Value::Object(config)) => {
            spelled(config, "generationConfig.", &["maxOutputTokens", "candidateCount"])?;
            whole(config, "maxOutputTokens", OUTPUT_MOST)?;
            whole(config, "candidateCount", ANSWERS_MOST)?;
        }
        Some(_) => return Err(Refusal::bad("`generationConfig` must be an object")),
    }
    if let Some(store) = body.get_mut("store") {
        *store = Value::Bool(false);
    }
    Ok(())
}

/// None of these under another spelling.
fn spelled(object: &Map<String, Value>, place: &str, names: &[&str]) -> Result<(), Refusal> {
    let folded = |name: &str| name.replace('_', "").to_lowercase();
    for name in object.keys() {
        if let Some(ours) = names.iter().find(|ours| **ours != name && folded(ours) == folded(name)) {
            let shown: String = name.chars().take(60).collect();
            return Err(Refusal::bad(format!("`{place}{shown}`: write `{ours}`")));
        }
    }
    Ok(())
}

/// The service tier that is asked for, in the words that other providers have for theirs.
pub(super) fn tier(word: &str) -> Option<String> {
    let word = word.to_ascii_lowercase();
    let word = word.strip_prefix("service_tier_").unwrap_or(&word);
    (word != "unspecified").then(|| word.to_owned())
}

pub(super) fn check(body: &Map<String, Value>) -> Result<(), Refusal> {
    only(body, FIELDS, REACHING)?;
    for (at, tool) in items(body.get("tools"), "tools")?.iter().enumerate() {
        self::tool(tool, &format!("tools[{at}]"))?;
    }
    object(body.get("toolConfig"), "toolConfig", &["functionCallingConfig"])?;
    object(body.get("generationConfig"), "generationConfig", GENERATION)?;
    content(body.get("systemInstruction"), "systemInstruction")?;
    for (at, message) in items(body.get("contents"), "contents")?.iter().enumerate() {
        content(Some(message), &format!("contents[{at}]"))?;
    }
    Ok(())
}

/// What the agent runs itself has one name; every other is a tool of the provider's.
fn tool(tool: &Value, place: &str) -> Result<(), Refusal> {
    let tool = tool.as_object().ok_or_else(|| Refusal::bad(format!("`{place}` must be an object")))?;
    if let Some(own) = tool.keys().find(|name| *name != "functionDeclarations") {
        let own: String = own.chars().take(60).collect();
        return Err(Refusal::reaches_out(place, &format!("the provider's own tool `{own}`")));
    }
    let place = format!("{place}.functionDeclarations");
    for (at, function) in items(tool.get("functionDeclarations"), &place)?.iter().enumerate() {
        object(Some(function), &format!("{place}[{at}]"), FUNCTION)?;
    }
    Ok(())
}

fn content(content: Option<&Value>, place: &str) -> Result<(), Refusal> {
    let Some(content) = object(content, place, &["role", "parts"])? else { return Ok(()) };
    parts(content.get("parts"), &format!("{place}.parts"))
}

fn parts(parts: Option<&Value>, place: &str) -> Result<(), Refusal> {
    for (at, part) in items(parts, place)?.iter().enumerate() {
        let place = format!("{place}[{at}]");
        let Some(part) = object(Some(part), &place, PART)? else { continue };
        if let Some(inline) = object(part.get("inlineData"), &format!("{place}.inlineData"), INLINE)? {
            data(inline.get("data"), &format!("{place}.inlineData.data"))?;
        }
        let inner = format!("{place}.functionResponse");
        // What a function was given and answered is the agent's own, but for the files beside it.
        if let Some(response) = object(part.get("functionResponse"), &inner, RESPONSE)? {
            self::parts(response.get("parts"), &format!("{inner}.parts"))?;
        }
    }
    Ok(())
}

/// An object of these fields only; `None` where there is none.
fn object<'v>(
    value: Option<&'v Value>,
    place: &str,
    fields: &[&str],
) -> Result<Option<&'v Map<String, Value>>, Refusal> {
    let object = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(Refusal::bad(format!("`{place}` must be an object"))),
    };
    let Some(name) = object.keys().find(|name| !fields.contains(&name.as_str())) else { return Ok(Some(object)) };
    let what = match name.as_str() {
        "fileData" | "file_data" => "an address to fetch from",
        "executableCode" | "codeExecutionResult" => "code that the provider runs",
        _ => "this field is unknown to this version of symphony, so it",
    };
    let shown: String = name.chars().take(60).collect();
    Err(Refusal::reaches_out(&format!("{place}.{shown}"), what))
}
