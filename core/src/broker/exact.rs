//! Names that are one of ours but for their case. Some servers read JSON without regard to it: to them `TOOLS` is `tools`,
//! which we would not have looked at.

use serde_json::{Map, Value};

use super::Refusal;

/// Every name that is looked at or set, wherever it stands.
const NAMES: &[&str] = &[
    "model",
    "messages",
    "system",
    "input",
    "instructions",
    "tools",
    "type",
    "role",
    "content",
    "source",
    "data",
    "url",
    "file",
    "file_id",
    "file_url",
    "file_data",
    "image_url",
    "audio",
    "input_audio",
    "output",
    "environment",
    "execution",
    "include",
    "store",
    "stream",
    "stream_options",
    "include_usage",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "service_tier",
    "n",
    "mcp_servers",
    "container",
    "previous_response_id",
    "conversation",
    "prompt",
    "background",
    "web_search_options",
];

/// No name that only its case tells from one of ours.
pub(super) fn exact(object: &Map<String, Value>, place: &str) -> Result<(), Refusal> {
    for name in object.keys() {
        if NAMES.contains(&name.as_str()) {
            continue;
        }
        // Both ways: letters such as a long s have no other case of their own, but a common one.
        let folded: String = name.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
        if NAMES.contains(&folded.as_str()) {
            let shown: String = name.chars().take(60).collect();
            let place = if place.is_empty() { shown } else { format!("{place}.{shown}") };
            return Err(Refusal::bad(format!("`{place}`: write `{folded}` in lower case")));
        }
    }
    Ok(())
}
