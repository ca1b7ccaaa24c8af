//! A provider's part in a conversation with a real agent: it has a person asked where that is wanted, a file made and
//! committed, the issue marked done, and ends. What comes next is told by what the request holds, so any number of agents
//! may ask.

use serde_json::{Value, json};

use super::server::{STREAM, chunk, event};

/// What the agent is to do.
#[derive(Clone, Default)]
pub(super) struct Script {
    /// In its shell.
    pub(super) command: String,
    /// What it asks a person before that, and what it must have been told before it goes on.
    pub(super) question: Option<(String, String)>,
}

/// The whole answer, with its head.
pub(super) fn answer(path: &str, body: &Value, script: &Script) -> String {
    let events = match path {
        path if google_path(path).is_some() => contents(body, script),
        path if path.contains("/responses") => responses(body, script),
        _ => messages(body, script),
    };
    format!("{STREAM}{events}0\r\n\r\n")
}

/// The model and the method that a path of Google's names, in lower case.
pub(super) fn google_path(head: &str) -> Option<(&str, &str)> {
    let (model, rest) = head.split_once("/v1beta/models/")?.1.split_once(':')?;
    Some((model, rest.split(['?', ' ']).next()?))
}

/// The tools that a request brings; those of Codex 0.166 stand in an item of the input, those of Gemini in a list of lists.
pub(super) fn tools(body: &Value) -> Vec<Value> {
    let list = |value: &Value| value["tools"].as_array().cloned().unwrap_or_default();
    let more = body["input"].as_array().into_iter().flatten().flat_map(list);
    let declared = |tool: Value| match tool["functionDeclarations"].as_array() {
        Some(functions) => functions.clone(),
        None => vec![tool],
    };
    list(body).into_iter().chain(more).flat_map(declared).collect()
}

/// What the model says.
enum Says {
    Text,
    Call { name: String, namespace: Option<String>, input: Value },
}

fn next(body: &Value, results: usize, script: &Script) -> Says {
    let tools = tools(body);
    let named = |wanted: &[&str]| {
        let all = tools.iter().filter_map(|tool| tool["name"].as_str());
        all.filter(|name| wanted.iter().any(|end| name.ends_with(end))).map(str::to_owned).next()
    };
    // A tool of ours, under the name that this agent gives it.
    let ours = |tool: &str, input: Value| {
        let grouped = tools.iter().find(|tool| tool["name"].as_str().is_some_and(|name| name.ends_with("symphony")));
        let namespace = grouped.and_then(|group| group["name"].as_str()).map(str::to_owned);
        let name = match &namespace {
            Some(_) => tool.to_owned(),
            None => named(&[tool]).unwrap_or_else(|| format!("mcp__symphony__{tool}")),
        };
        Says::Call { name, namespace, input }
    };
    let command = &script.command;
    let before = usize::from(script.question.is_some());
    match (results, &script.question) {
        // A request for a title, or the like.
        _ if tools.is_empty() => Says::Text,
        (0, Some((question, _))) => ours("request_human_steering", json!({"question": question})),
        // The answer comes with the next prompt.
        (1, Some((_, answer))) if !body.to_string().contains(answer) => Says::Text,
        (results, _) if results == before => {
            let name = named(&["bash", "Bash", "exec_command", "run_shell_command"]).expect("every agent has a shell");
            let input = json!({"command": command, "cmd": command, "description": "Make a file"});
            Says::Call { name, namespace: None, input }
        }
        (results, _) if results == before + 1 => {
            ours("mark_done", json!({"title": "Made by a real agent", "summary": "A file."}))
        }
        _ => Says::Text,
    }
}

fn messages(body: &Value, script: &Script) -> String {
    let blocks = body["messages"].as_array().into_iter().flatten().filter_map(|message| message["content"].as_array());
    let results = blocks.flatten().filter(|block| block["type"] == "tool_result").count();
    let (block, delta, stop) = match next(body, results, script) {
        Says::Text => {
            (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": "It is made."}), "end_turn")
        }
        Says::Call { name, input, .. } => {
            let mut input = input;
            input.as_object_mut().expect("an object").remove("cmd");
            (
                json!({"type": "tool_use", "id": format!("toolu_{results}"), "name": name, "input": {}}),
                json!({"type": "input_json_delta", "partial_json": input.to_string()}),
                "tool_use",
            )
        }
    };
    let usage = json!({"input_tokens": 10, "cache_read_input_tokens": 200, "cache_creation_input_tokens": 0, "output_tokens": 1});
    let message = json!({"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "big-1",
        "stop_reason": null, "stop_sequence": null, "usage": usage});
    let ended = json!({"delta": {"stop_reason": stop, "stop_sequence": null}, "usage": {"output_tokens": 50}});
    [
        event("message_start", &json!({"message": message})),
        event("content_block_start", &json!({"index": 0, "content_block": block})),
        event("content_block_delta", &json!({"index": 0, "delta": delta})),
        event("content_block_stop", &json!({"index": 0})),
        event("message_delta", &ended),
        event("message_stop", &json!({})),
    ]
    .concat()
}

fn responses(body: &Value, script: &Script) -> String {
    let items = body["input"].as_array().into_iter().flatten();
    let results = items.filter(|item| item["type"] == "function_call_output").count();
    let item = match next(body, results, script) {
        Says::Text => json!({"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "It is made.", "annotations": []}]}),
        Says::Call { name, namespace, input } => {
            let mut call = json!({"type": "function_call", "id": format!("fc_{results}"), "call_id": format!("call_{results}"),
                "name": name, "arguments": input.to_string(), "status": "completed"});
            if let Some(namespace) = namespace {
                call["namespace"] = json!(namespace);
            }
            call
        }
    };
    let usage = json!({"input_tokens": 210, "input_tokens_details": {"cached_tokens": 200}, "output_tokens": 50,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 260});
    let response = json!({"id": "resp_1", "object": "response", "status": "completed", "model": "big-1", "output": [], "usage": usage});
    [
        chunk(&format!("data: {}\n\n", json!({"type": "response.created", "response": {"id": "resp_1"}}))),
        event("response.output_item.added", &json!({"output_index": 0, "item": item})),
        event("response.output_item.done", &json!({"output_index": 0, "item": item})),
        event("response.completed", &json!({"response": response})),
    ]
    .concat()
}

fn contents(body: &Value, script: &Script) -> String {
    let parts = body["contents"].as_array().into_iter().flatten().filter_map(|content| content["parts"].as_array());
    let results = parts.flatten().filter(|part| part.get("functionResponse").is_some()).count();
    let part = match next(body, results, script) {
        Says::Text => json!({"text": "It is made."}),
        Says::Call { name, mut input, .. } => {
            input.as_object_mut().expect("an object").remove("cmd");
            json!({"functionCall": {"name": name, "args": input}, "thoughtSignature": "c2lnbmVk"})
        }
    };
    let thought = json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "I see.", "thought": true}]}}],
        "usageMetadata": {"promptTokenCount": 210, "cachedContentTokenCount": 200, "thoughtsTokenCount": 20}});
    [thought, google_says(&part)].iter().map(|value| chunk(&format!("data: {value}\r\n\r\n"))).collect()
}

/// A whole answer of Google's, or the last part of one.
pub(super) fn google_says(part: &Value) -> Value {
    let used = json!({"promptTokenCount": 210, "cachedContentTokenCount": 200, "candidatesTokenCount": 30,
        "thoughtsTokenCount": 20, "totalTokenCount": 260});
    json!({"candidates": [{"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": used, "modelVersion": "big-1"})
}
