//! A provider's part in a conversation with a real agent: it has a file made and committed, has the issue marked done,
//! and ends. What comes next is told by what the request holds, so any number of agents may ask.

use serde_json::{Value, json};

use super::server::{STREAM, chunk, event};

/// The whole answer, with its head.
pub(super) fn answer(path: &str, body: &Value, command: &str) -> String {
    let events = match path.contains("/responses") {
        true => responses(body, command),
        false => messages(body, command),
    };
    format!("{STREAM}{events}0\r\n\r\n")
}

/// What the model says.
enum Says {
    Text,
    Call { name: String, namespace: Option<String>, input: Value },
}

fn next(tools: &[Value], results: usize, command: &str) -> Says {
    let named = |wanted: &[&str]| {
        let all = tools.iter().filter_map(|tool| tool["name"].as_str());
        all.filter(|name| wanted.iter().any(|end| name.ends_with(end))).map(str::to_owned).next()
    };
    match results {
        // A request for a title, or the like.
        _ if tools.is_empty() => Says::Text,
        0 => {
            let name = named(&["bash", "Bash", "exec_command"]).expect("every agent has a shell");
            Says::Call {
                name,
                namespace: None,
                input: json!({"command": command, "cmd": command, "description": "Make a file"}),
            }
        }
        1 => {
            let input = json!({"title": "Made by a real agent", "summary": "A file."});
            let grouped =
                tools.iter().find(|tool| tool["name"].as_str().is_some_and(|name| name.ends_with("symphony")));
            let namespace = grouped.and_then(|tool| tool["name"].as_str()).map(str::to_owned);
            let name = match &namespace {
                Some(_) => "mark_done".to_owned(),
                None => named(&["mark_done"]).unwrap_or_else(|| "mcp__symphony__mark_done".to_owned()),
            };
            Says::Call { name, namespace, input }
        }
        _ => Says::Text,
    }
}

fn messages(body: &Value, command: &str) -> String {
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    let blocks = body["messages"].as_array().into_iter().flatten().filter_map(|message| message["content"].as_array());
    let results = blocks.flatten().filter(|block| block["type"] == "tool_result").count();
    let (block, delta, stop) = match next(&tools, results, command) {
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

fn responses(body: &Value, command: &str) -> String {
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    // Tools of Codex 0.166 stand in an item of the input.
    let more = body["input"].as_array().into_iter().flatten().filter_map(|item| item["tools"].as_array()).flatten();
    let tools: Vec<Value> = tools.iter().chain(more).cloned().collect();
    let items = body["input"].as_array().into_iter().flatten();
    let results = items.filter(|item| item["type"] == "function_call_output").count();
    let item = match next(&tools, results, command) {
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
