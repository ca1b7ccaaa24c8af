//! `session/update` as events: read leniently, so that no update can fail a run.
//!
//! Text is gathered before it is shown; tool calls are counted, because an open one explains silence.

use std::collections::HashSet;

use serde_json::Value;
use symphony_core::time::Tick;

use super::event::MESSAGE_CHARS;
use super::ignored::Ignored;

/// Least time between two events of running text, in milliseconds.
const TEXT_EVERY_MS: u64 = 500;
/// Tool calls that are followed at once; an agent that opens more looks as if it had these open.
const MAX_OPEN: usize = 256;

/// One event to send: kind and message.
pub(crate) type Said = (&'static str, String);

/// What an agent's updates add up to within a turn.
#[derive(Debug, Default)]
pub(crate) struct Updates {
    open: HashSet<String>,
    text: String,
    text_kind: Option<&'static str>,
    last_text: Option<Tick>,
    ignored: Ignored,
}

impl Updates {
    /// Whether a tool call is open.
    pub(crate) fn tool_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Something came that there is no word for.
    pub(crate) fn ignore(&mut self, kind: &str) {
        self.ignored.count(kind);
    }

    /// All of that, in a sentence.
    pub(crate) fn ignored(&self) -> Option<String> {
        self.ignored.told()
    }

    /// Text that was not shown yet; at the end of a turn no call stays open.
    pub(crate) fn end_turn(&mut self) -> Option<Said> {
        self.open.clear();
        self.flush()
    }

    /// Takes the `params` of one `session/update`.
    pub(crate) fn take(&mut self, params: &Value, now: Tick) -> Vec<Said> {
        let update = params.get("update").unwrap_or(&Value::Null);
        let kind = update.get("sessionUpdate").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "agent_message_chunk" => self.chunk("agent_message_chunk", update, now),
            "agent_thought_chunk" => self.chunk("agent_thought_chunk", update, now),
            "tool_call" => self.tool("tool_call", update),
            "tool_call_update" => self.tool("tool_call_update", update),
            "plan" => self.after_text(("plan", plan(update))),
            "usage_update" => self.after_text(("usage_update", usage(update))),
            // Long, frequent, and of interest to nobody who watches.
            "available_commands_update"
            | "session_info_update"
            | "current_mode_update"
            | "config_option_update"
            | "user_message_chunk" => Vec::new(),
            other => {
                self.ignored.count(if other.is_empty() { "an update without a kind" } else { other });
                Vec::new()
            }
        }
    }

    fn chunk(&mut self, kind: &'static str, update: &Value, now: Tick) -> Vec<Said> {
        let content = update.get("content").unwrap_or(&Value::Null);
        let text = content.get("text").and_then(Value::as_str);
        let mut said = Vec::new();
        if self.text_kind != Some(kind) {
            said.extend(self.flush());
        }
        self.text_kind = Some(kind);
        match text {
            Some(text) => self.text.extend(text.chars().take(4 * MESSAGE_CHARS)),
            None => {
                let what = content.get("type").and_then(Value::as_str).unwrap_or("unknown");
                self.text.push_str(&format!("[{}]", what.chars().take(40).collect::<String>()));
            }
        }
        let quiet = self.last_text.is_none_or(|last| now.since(last) >= TEXT_EVERY_MS);
        if quiet || self.text.chars().count() >= MESSAGE_CHARS {
            self.last_text = Some(now);
            said.extend(self.flush());
        }
        said
    }

    fn tool(&mut self, kind: &'static str, update: &Value) -> Vec<Said> {
        let id = update.get("toolCallId").and_then(Value::as_str).unwrap_or_default();
        let status = update.get("status").and_then(Value::as_str);
        match status {
            Some("completed" | "failed" | "cancelled") => {
                self.open.remove(id);
            }
            // An update without a status says nothing new; one without a call before it does happen.
            None if kind == "tool_call_update" => {}
            _ if self.open.len() < MAX_OPEN => {
                self.open.insert(id.chars().take(200).collect());
            }
            _ => {}
        }
        let words = ["title", "kind", "status"].iter().filter_map(|key| update.get(key).and_then(Value::as_str));
        let message = words.collect::<Vec<_>>().join(" · ");
        let silent = kind == "tool_call_update" && message.is_empty();
        if silent { Vec::new() } else { self.after_text((kind, message)) }
    }

    /// Gathered text first, then `said`: the order in which the agent spoke.
    fn after_text(&mut self, said: Said) -> Vec<Said> {
        self.flush().into_iter().chain([said]).collect()
    }

    fn flush(&mut self) -> Option<Said> {
        let text = std::mem::take(&mut self.text);
        let kind = self.text_kind.take()?;
        (!text.trim().is_empty()).then_some((kind, text))
    }
}

fn plan(update: &Value) -> String {
    let entries = update.get("entries").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let status = |entry: &Value, wanted: &str| entry.get("status").and_then(Value::as_str) == Some(wanted);
    let done = entries.iter().filter(|entry| status(entry, "completed")).count();
    let current = entries.iter().find(|entry| status(entry, "in_progress"));
    let now = current.and_then(|entry| entry.get("content")).and_then(Value::as_str).unwrap_or_default();
    format!("{done}/{} {now}", entries.len())
}

/// The size of the agent's context, which is not its consumption.
fn usage(update: &Value) -> String {
    let number = |key: &str| update.get(key).and_then(Value::as_u64);
    match (number("used"), number("size")) {
        (Some(used), Some(size)) => format!("context {used} of {size} tokens"),
        (Some(used), None) => format!("context {used} tokens"),
        _ => brief(update),
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(kind: &str, text: &str) -> Value {
        json!({"sessionId": "s", "update": {"sessionUpdate": kind, "content": {"type": "text", "text": text}}})
    }

    fn tool(kind: &str, id: &str, status: &str) -> Value {
        json!({"update": {"sessionUpdate": kind, "toolCallId": id, "title": "sh", "status": status}})
    }

    #[test]
    fn text_is_gathered_and_shown_before_what_follows_it() {
        let mut updates = Updates::default();
        assert_eq!(updates.take(&text("agent_message_chunk", "a"), Tick(0)), [("agent_message_chunk", "a".into())]);
        assert_eq!(updates.take(&text("agent_message_chunk", "b"), Tick(1)), []);
        assert_eq!(updates.take(&text("agent_message_chunk", "c"), Tick(2)), []);
        let said = updates.take(&tool("tool_call", "1", "pending"), Tick(3));
        assert_eq!(said, [("agent_message_chunk", "bc".into()), ("tool_call", "sh · pending".into())]);
        updates.take(&text("agent_thought_chunk", "d"), Tick(4));
        assert_eq!(updates.end_turn(), Some(("agent_thought_chunk", "d".into())));
        assert_eq!(updates.end_turn(), None);
    }

    #[test]
    fn a_tool_call_is_open_from_its_first_word_to_its_last() {
        let mut updates = Updates::default();
        updates.take(&tool("tool_call", "1", "pending"), Tick(0));
        updates.take(&tool("tool_call_update", "2", "in_progress"), Tick(0));
        updates.take(&tool("tool_call_update", "1", "completed"), Tick(0));
        assert!(updates.tool_open(), "an update opened the second call");
        updates.take(&tool("tool_call_update", "2", "failed"), Tick(0));
        assert!(!updates.tool_open());
        updates.take(&json!({"update": {"sessionUpdate": "tool_call_update", "toolCallId": "3"}}), Tick(0));
        assert!(!updates.tool_open(), "an update without a status opens nothing");
        updates.take(&tool("tool_call", "4", "pending"), Tick(0));
        updates.end_turn();
        assert!(!updates.tool_open());
    }

    #[test]
    fn senseless_updates_are_events_not_errors_and_unknown_ones_are_only_counted() {
        let mut updates = Updates::default();
        for params in [json!(null), json!({"update": 3}), json!({"update": {"sessionUpdate": "hologram", "x": [1]}})] {
            assert_eq!(updates.take(&params, Tick(0)), [], "{params}");
        }
        let told = "3 messages of kinds that symphony does not know: an update without a kind (2), hologram (1)";
        assert_eq!(updates.ignored().as_deref(), Some(told));
        for params in [
            json!({"update": {"sessionUpdate": "usage_update", "used": null}}),
            json!({"update": {"sessionUpdate": "plan", "entries": "none"}}),
            json!({"update": {"sessionUpdate": "tool_call", "toolCallId": 7, "status": {}}}),
            json!({"update": {"sessionUpdate": "agent_message_chunk", "content": {"type": "smell"}}}),
        ] {
            assert!(!updates.take(&params, Tick(0)).is_empty(), "{params}");
        }
    }

    #[test]
    fn plans_and_context_sizes_read_well() {
        let mut updates = Updates::default();
        let entries = json!([{"status": "completed", "content": "a"}, {"status": "in_progress", "content": "b"}]);
        let said = updates.take(&json!({"update": {"sessionUpdate": "plan", "entries": entries}}), Tick(0));
        assert_eq!(said, [("plan", "1/2 b".into())]);
        let said = updates.take(&json!({"update": {"sessionUpdate": "usage_update", "used": 5, "size": 9}}), Tick(0));
        assert_eq!(said, [("usage_update", "context 5 of 9 tokens".into())]);
    }

    #[test]
    fn what_an_agent_leaves_open_is_bounded() {
        let mut updates = Updates::default();
        for id in 0..10_000 {
            updates.take(&tool("tool_call", &id.to_string(), "pending"), Tick(0));
        }
        assert_eq!(updates.open.len(), MAX_OPEN);
    }
}
