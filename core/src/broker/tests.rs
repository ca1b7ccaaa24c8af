//! The decisions, by example and by property.

mod google;
mod usage;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn checked(call: Call, body: Value) -> Result<Value, String> {
    check(call, None, body, &Rules::default()).map(|checked| checked.body).map_err(|refusal| {
        assert_eq!(refusal.status, 400);
        refusal.message
    })
}

/// With `model` beside it.
fn refused(call: Call, mut body: Value, named: &str) {
    body["model"] = json!("m");
    let message = checked(call, body.clone()).expect_err(&format!("{body} passed"));
    assert!(message.contains(named), "no `{named}` in: {message}");
    // The same goes through where the workflow says so, and nothing of it is lost.
    let rules = Rules { provider_tools: true, ..Rules::default() };
    let passed = check(call, None, body.clone(), &rules).unwrap_or_else(|error| panic!("{body}: {error}"));
    for (name, value) in body.as_object().expect("an object") {
        assert_eq!(passed.body.get(name), Some(value));
    }
}

fn passes(call: Call, mut body: Value) -> Value {
    body["model"] = json!("m");
    checked(call, body.clone()).unwrap_or_else(|message| panic!("{body}: {message}"))
}

#[test]
fn only_inference_is_forwarded_and_by_its_own_method() {
    for (method, path, call, target) in [
        ("POST", "/anthropic/v1/messages", Call::Messages, "/v1/messages"),
        ("POST", "/anthropic/v1/messages/count_tokens", Call::CountTokens, "/v1/messages/count_tokens"),
        ("GET", "/anthropic/v1/models", Call::Models, "/v1/models"),
        ("POST", "/openai/v1/responses", Call::Responses, "/responses"),
        ("POST", "/openai/v1/chat/completions", Call::ChatCompletions, "/chat/completions"),
        ("GET", "/openai/v1/models", Call::Models, "/models"),
    ] {
        let found = route(method, path, None).expect(path);
        assert_eq!((found.call, found.target.as_str()), (call, target));
        let other = if method == "GET" { "POST" } else { "DELETE" };
        assert_eq!(route(other, path, None).expect_err(path).status, 405);
    }
    for path in [
        "/",
        "/v1/messages",
        "/anthropic",
        "/anthropic/v1/messages/",
        "/anthropic/v1/messages/batches",
        "/anthropic/v1/files",
        "/anthropic/v1/messages/../files",
        "/anthropic//v1/messages",
        "/anthropic/v1/%6dessages",
        "/openai/v1/responses/resp_1",
        "/openai/v1/files",
        "/openai/v1/vector_stores",
        "/openai/v1/../v1/responses",
    ] {
        assert_eq!(route("POST", path, None).expect_err(path).status, 404);
    }
}

#[test]
fn a_query_is_one_of_those_that_are_known() {
    let target = |query| route("POST", "/anthropic/v1/messages", Some(query)).map(|route| route.target);
    assert_eq!(target("beta=true").as_deref(), Ok("/v1/messages?beta=true"));
    assert_eq!(target("").as_deref(), Ok("/v1/messages"));
    for query in ["beta=true&key=1", "beta=%2e", "beta=a#b", "api-version=1", "beta=true&"] {
        assert_eq!(target(query).expect_err(query).status, 400);
    }
}

#[test]
fn what_the_real_agents_send_passes_unchanged() {
    // Field by field what claude 2.1.197, codex 0.166 (web search off) and opencode 1.18 sent to a server of ours.
    let claude = json!({
        "model": "m", "max_tokens": 64000, "stream": true,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "b"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "t", "signature": "s"},
                {"type": "tool_use", "id": "1", "name": "WebFetch", "input": {"url": "https://example.com", "type": "url"}},
            ]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aa"}},
                {"type": "tool_reference", "tool_name": "x"},
            ]}]},
        ],
        "system": [{"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}],
        "tools": [{"name": "Bash", "description": "d", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "bash"}],
        "metadata": {"user_id": "u"}, "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
    });
    assert_eq!(passes(Call::Messages, claude.clone()), claude);
    let codex = json!({
        "model": "m", "stream": true, "tool_choice": "auto", "parallel_tool_calls": true, "reasoning": {"summary": "auto"},
        "store": false, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k", "client_metadata": {},
        "input": [
            {"type": "message", "id": "i", "role": "developer", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom", "name": "c"}]}]},
            {"type": "reasoning", "summary": [], "encrypted_content": "e"},
            {"type": "function_call", "name": "exec_command", "arguments": "{\"url\":\"https://example.com\"}", "call_id": "c"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": "data:image/png;base64,aa"}]},
        ],
        "tools": [
            {"type": "function", "name": "exec_command", "strict": false, "parameters": {}},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "f"}]},
        ],
    });
    assert_eq!(passes(Call::Responses, codex.clone()), codex);
    let opencode = json!({
        "model": "m", "max_tokens": 32000, "stream": true, "stream_options": {"include_usage": true}, "tool_choice": "auto",
        "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    });
    let mut unstored = opencode.clone();
    unstored["store"] = json!(false);
    assert_eq!(passes(Call::ChatCompletions, opencode), unstored);
}

#[test]
fn tools_that_the_provider_runs_are_refused_by_name() {
    for tool in [
        "bash_code_execution_20250825",
        "text_editor_code_execution_20250825",
        "memory_",
        "web_search_20250305",
        "web_fetch_20250910",
        "code_execution_20250825",
        "computer_20250124",
        "mcp_toolset",
    ] {
        refused(Call::Messages, json!({"tools": [{"name": "fine"}, {"type": tool}]}), tool);
        refused(Call::CountTokens, json!({"tools": [{"type": tool}]}), "tools[0]");
    }
    for tool in [
        "web_search",
        "web_search_preview",
        "file_search",
        "computer_use_preview",
        "code_interpreter",
        "mcp",
        "image_generation",
        "shell_x",
    ] {
        refused(Call::Responses, json!({"tools": [{"type": tool}]}), tool);
        refused(
            Call::Responses,
            json!({"tools": [{"type": "namespace", "tools": [{"type": tool}]}]}),
            "tools[0].tools[0]",
        );
        refused(Call::ChatCompletions, json!({"tools": [{"type": tool}]}), tool);
    }
    refused(Call::Responses, json!({"tools": [{"type": "tool_search"}]}), "tool_search");
    let hidden =
        json!({"type": "additional_tools", "tools": [{"type": "namespace", "tools": [{"type": "web_search"}]}]});
    refused(Call::Responses, json!({"input": [hidden]}), "input[0].tools[0].tools[0]");
    refused(Call::Responses, json!({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}), "shell");
    // Regression: only the tool `shell` was looked at for whose it is.
    for kind in ["local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output"] {
        let there = json!({"type": kind, "environment": {"type": "container_reference", "container_id": "c"}});
        refused(Call::Responses, json!({"input": [there]}), "input[0].environment");
        passes(Call::Responses, json!({"input": [{"type": kind, "environment": {"type": "local"}}, {"type": kind}]}));
    }
    let there = json!({"type": "local_shell", "environment": {"type": "container_auto"}});
    refused(Call::Responses, json!({"tools": [there]}), "tools[0].environment");
    refused(Call::ChatCompletions, json!({"web_search_options": {}}), "web_search_options");
    refused(Call::Messages, json!({"mcp_servers": [{}]}), "mcp_servers");
    refused(Call::Messages, json!({"container": "c"}), "container");
}

#[test]
fn addresses_and_stored_things_are_refused_wherever_they_stand() {
    let there = "https://example.com/a.png";
    for (block, named) in [
        (json!({"type": "image", "source": {"type": "url", "url": there}}), "content[0].source"),
        (json!({"type": "document", "source": {"type": "file", "file_id": "f"}}), "file"),
        (
            json!({"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {"type": "url"}}]}}),
            "address",
        ),
        (
            json!({"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": there}}]}),
            "content[0].content[0].source",
        ),
        (json!({"type": "container_upload", "file_id": "f"}), "container_upload"),
        (json!({"type": "server_tool_use"}), "server_tool_use"),
    ] {
        refused(Call::Messages, json!({"messages": [{"role": "user", "content": [block]}]}), named);
    }
    for (item, named) in [
        (json!({"role": "user", "content": [{"type": "input_image", "image_url": there}]}), "image_url"),
        (json!({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}), "file_id"),
        (json!({"role": "user", "content": [{"type": "input_file", "file_url": there}]}), "file_url"),
        (json!({"type": "function_call_output", "output": [{"type": "input_image", "image_url": there}]}), "output[0]"),
        (json!({"type": "item_reference", "id": "i"}), "item_reference"),
        (json!({"type": "computer_call_output"}), "computer_call_output"),
    ] {
        refused(Call::Responses, json!({"input": [item]}), named);
    }
    refused(Call::Responses, json!({"previous_response_id": "resp_1"}), "previous_response_id");
    refused(Call::Responses, json!({"conversation": "c"}), "conversation");
    refused(Call::Responses, json!({"background": true}), "background");
    refused(Call::Responses, json!({"include": ["web_search_call.action.sources"]}), "include");
    let image = json!({"type": "image_url", "image_url": {"url": there}});
    refused(Call::ChatCompletions, json!({"messages": [{"role": "user", "content": [image]}]}), "image_url.url");
    let file = json!({"type": "file", "file": {"file_id": "f"}});
    refused(Call::ChatCompletions, json!({"messages": [{"role": "user", "content": [file]}]}), "file_id");
}

#[test]
fn an_unknown_field_is_refused_and_named_rather_than_dropped() {
    for call in [Call::Messages, Call::Responses, Call::ChatCompletions] {
        refused(call, json!({"brand_new": 1}), "brand_new");
    }
}

#[test]
fn nothing_is_stored_and_a_chat_stream_says_what_it_used() {
    assert_eq!(passes(Call::Responses, json!({"input": "a"}))["store"], json!(false));
    assert_eq!(passes(Call::Responses, json!({"input": "a", "store": true}))["store"], json!(false));
    let allowed = Rules { provider_tools: true, ..Rules::default() };
    let body = json!({"model": "m", "store": true, "stream": true, "stream_options": {"include_usage": false, "x": 1}});
    let sent = check(Call::ChatCompletions, None, body.clone(), &allowed).expect("allowed").body;
    assert_eq!((&sent["store"], &sent["stream_options"]), (&json!(false), &json!({"include_usage": true, "x": 1})));
    assert_eq!(check(Call::Responses, None, body, &allowed).expect("allowed").body["store"], json!(false));
    assert_eq!(passes(Call::ChatCompletions, json!({"stream": true}))["stream_options"]["include_usage"], json!(true));
    assert_eq!(passes(Call::ChatCompletions, json!({"messages": []})).get("stream_options"), None);
    // Regression: what did not say `store` was kept by OpenAI, for some accounts. Other servers may not know the word.
    assert_eq!(passes(Call::ChatCompletions, json!({"messages": []}))["store"], json!(false));
    let elsewhere = Rules { elsewhere: true, ..Rules::default() };
    let stored =
        |body: Value| check(Call::ChatCompletions, None, body, &elsewhere).expect("passes").body.get("store").cloned();
    assert_eq!(stored(json!({"model": "m", "messages": []})), None);
    assert_eq!(stored(json!({"model": "m", "messages": [], "store": true})), Some(json!(false)));
}

/// Regression: a server that reads names without regard to case found what we had not looked at.
#[test]
fn a_name_that_only_its_case_tells_from_one_that_is_checked_is_refused_at_any_depth() {
    let always = Rules { provider_tools: true, ..Rules::default() };
    for name in ["Store", "TOOLS", "\u{17f}tore", "Model", "stream_Option\u{17f}"] {
        for call in [Call::Messages, Call::Responses, Call::ChatCompletions] {
            let said = check(call, None, json!({"model": "m", name: true}), &always).expect_err(name).message;
            assert!(said.contains("in lower case"), "{said}");
        }
    }
    let there = "https://example.com/a.png";
    let messages = |part: Value| json!({"model": "m", "messages": [{"role": "user", "content": [part]}]});
    let input = |item: Value| json!({"model": "m", "input": [item]});
    for (call, body) in [
        (Call::Messages, json!({"model": "m", "tools": [{"name": "a", "Type": "web_search_20250305"}]})),
        (Call::Messages, json!({"model": "m", "messages": [{"role": "user", "content": "a", "Content": []}]})),
        (Call::Messages, messages(json!({"type": "image", "source": {"type": "base64", "data": "aa", "URL": there}}))),
        (Call::ChatCompletions, messages(json!({"type": "image_url", "image_url": {"url": "data:,a", "Url": there}}))),
        (Call::ChatCompletions, messages(json!({"type": "file", "file": {"file_data": "aa", "File_Id": "f"}}))),
        (Call::ChatCompletions, messages(json!({"type": "input_audio", "input_audio": {"data": "aa", "Data": there}}))),
        (Call::ChatCompletions, json!({"model": "m", "stream": true, "stream_options": {"Include_Usage": false}})),
        (
            Call::Responses,
            input(
                json!({"role": "user", "content": [{"type": "input_image", "image_url": "data:,a", "Image_URL": there}]}),
            ),
        ),
        (Call::Responses, input(json!({"type": "function_call", "Type": "item_reference", "id": "i"}))),
        (
            Call::Responses,
            json!({"model": "m", "tools": [{"type": "shell", "Environment": {"type": "container_auto"}}]}),
        ),
    ] {
        let said = checked(call, body.clone()).expect_err(&body.to_string());
        assert!(said.contains("in lower case"), "{said}");
    }
    // What the agent itself runs or reads may hold any name.
    let call = json!({"type": "tool_use", "id": "1", "name": "a", "input": {"URL": there, "Type": "x"}});
    passes(Call::Messages, messages(call));
    passes(
        Call::Messages,
        json!({"tools": [{"name": "a", "input_schema": {"properties": {"URL": {"type": "string"}}}}]}),
    );
}

#[test]
fn only_listed_models_are_asked() {
    let models = ["a".to_owned(), "b".to_owned()];
    let rules = Rules { provider_tools: true, models: Some(&models), ..Rules::default() };
    assert_eq!(
        check(Call::Messages, None, json!({"model": "b"}), &rules).map(|checked| checked.model).as_deref(),
        Ok("b")
    );
    let refusal = check(Call::Messages, None, json!({"model": "c"}), &rules).expect_err("not listed");
    assert!(refusal.message.contains("a, b"), "{refusal}");
    for body in [json!({}), json!({"model": 1}), json!({"model": ""}), json!([]), json!(null)] {
        assert_eq!(check(Call::Messages, None, body, &Rules::default()).expect_err("no model").status, 400);
    }
}

#[test]
fn headers_that_pay_redirect_or_identify_do_not_pass() {
    for name in [
        "authorization",
        "x-api-key",
        "x-goog-api-key",
        "cookie",
        "host",
        "openai-organization",
        "openai-project",
        "x-stainless-os",
        "chatgpt-account-id",
        "x-forwarded-for",
        "accept-encoding",
        "connection",
        "content-length",
    ] {
        assert!(!Provider::ALL.into_iter().any(|provider| request_header(provider, name)), "{name}");
    }
    assert!(
        request_header(Provider::Anthropic, "anthropic-beta") && !request_header(Provider::OpenAi, "anthropic-beta")
    );
    for name in [
        "set-cookie",
        "location",
        "openai-organization",
        "anthropic-organization-id",
        "connection",
        "alt-svc",
        "x-codex-plan-type",
        "x-codex-credits-balance",
        "x-codex-brand-new",
    ] {
        assert!(!response_header(name), "{name}");
    }
    for name in ["retry-after", "request-id", "x-request-id", "anthropic-ratelimit-tokens-reset", "x-codex-turn-state"]
    {
        assert!(response_header(name), "{name}");
    }
    assert_eq!(without_login_beta("a, oauth-2025-04-20,b"), "a,b");
}

#[test]
fn a_refusal_quotes_no_more_of_the_agent_than_a_page_can_show() {
    let long = format!("a\u{1b}[2J\n{}", "x".repeat(100_000));
    for (call, body) in [
        (Call::Messages, json!({"model": "m", "tools": [{"type": long}]})),
        (Call::Messages, json!({"model": "m", "messages": [{"content": [{"type": long}]}]})),
        (Call::Responses, json!({"model": "m", "input": [{"type": long}]})),
        (Call::ChatCompletions, json!({"model": "m", long.clone(): 1})),
    ] {
        let message = checked(call, body).expect_err("refused");
        assert!(message.len() < 1000 && !message.contains(char::is_control), "{message}");
    }
    assert!(route("POST", &long, None).expect_err("no path").message.len() < 1000);
}

#[test]
fn errors_speak_the_provider_s_own_format() {
    let body = error_body(Provider::Anthropic, 400, "no");
    assert_eq!(body, json!({"type": "error", "error": {"type": "invalid_request_error", "message": "symphony: no"}}));
    assert_eq!(error_body(Provider::OpenAi, 401, "no")["error"]["type"], json!("authentication_error"));
}

/// Bodies made of the words that matter, in any order and depth.
fn bodies() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "type",
        "model",
        "tools",
        "input",
        "messages",
        "content",
        "source",
        "url",
        "image_url",
        "text",
        "web_search",
        "function",
        "namespace",
        "additional_tools",
        "tool_result",
        "image",
        "input_image",
        "message",
        "store",
        "stream",
        "stream_options",
        "file_id",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(|word| json!(word)),
        Just(json!("https://example.com")),
        Just(json!("data:,x")),
        any::<bool>().prop_map(|bool| json!(bool)),
        Just(Value::Null),
    ];
    let value = leaf.prop_recursive(6, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec((word.clone(), inner), 0..5)
                .prop_map(|pairs| pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    });
    value.prop_map(|mut value| {
        if let Some(object) = value.as_object_mut() {
            object.insert("model".into(), json!("m"));
        }
        value
    })
}

/// The types of tools, wherever a list of them stands.
fn tool_kinds(value: &Value, found: &mut Vec<String>) {
    for tool in value.get("tools").and_then(Value::as_array).into_iter().flatten() {
        found.extend(tool.get("type").and_then(Value::as_str).map(str::to_owned));
        tool_kinds(tool, found);
    }
    for item in value.get("input").and_then(Value::as_array).into_iter().flatten() {
        if item.get("type").is_some_and(|kind| kind == "additional_tools" || kind == "tool_search_output") {
            tool_kinds(item, found);
        }
    }
}

proptest! {
    #[test]
    fn what_passed_passes_again_unchanged_and_holds_no_tool_of_the_provider(body in bodies()) {
        for call in [Call::Messages, Call::CountTokens, Call::Responses, Call::ChatCompletions] {
            let Ok(sent) = check(call, None, body.clone(), &Rules::default()) else { continue };
            prop_assert_eq!(check(call, None, sent.body.clone(), &Rules::default()).map(|again| again.body), Ok(sent.body.clone()));
            let mut kinds = vec![];
            tool_kinds(&sent.body, &mut kinds);
            prop_assert!(!kinds.iter().any(|kind| kind == "web_search"), "{}", sent.body);
        }
    }
}

/// Regression: a reference without its type, an address for data, and names of models that search by themselves passed.
#[test]
fn what_reaches_out_without_a_word_for_it_is_refused() {
    let messages = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let input = |item: Value| json!({"input": [item]});
    refused(Call::Responses, input(json!({"content": null, "role": "user"})), "an item without content");
    // Regression: these named something stored, and passed.
    for reference in [
        json!({"id": "msg_1"}),
        json!({"id": "msg_1", "content": null}),
        json!({"id": "msg_1", "content": []}),
        json!({"id": "msg_1", "type": "message", "role": "assistant", "content": "", "status": "completed"}),
        json!({"id": "rs_1", "type": "reasoning", "summary": []}),
        json!({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": null}),
        json!({"id": "cmp_1", "type": "compaction"}),
        json!({"id": "fc_1", "type": "function_call"}),
    ] {
        refused(Call::Responses, input(reference), "a reference to a stored one");
    }
    passes(Call::Responses, input(json!({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "e"})));
    passes(Call::Responses, input(json!({"type": "reasoning", "summary": []})));
    passes(Call::Responses, input(json!({"id": "msg_1", "type": "message", "role": "assistant", "content": "a"})));
    let file = json!({"type": "file", "file": {"filename": "a.pdf", "file_data": "https://example.org/x"}});
    refused(Call::ChatCompletions, messages(file), "file_data");
    let file = json!({"type": "input_file", "file_data": "https://example.org/x"});
    refused(Call::Responses, input(json!({"role": "user", "content": [file]})), "file_data");
    passes(
        Call::ChatCompletions,
        messages(json!({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA=="}})),
    );
    passes(Call::Responses, input(json!({"role": "user", "content": [{"type": "input_file", "file_data": "AA=="}]})));
    let ask = |model: &str, rules: &Rules<'_>| {
        check(Call::ChatCompletions, None, json!({"model": model, "messages": []}), rules)
            .map_err(|refusal| refusal.message)
    };
    for model in ["gpt-4o-search-preview", "o4-mini-deep-research", "some/model:online"] {
        assert!(ask(model, &Rules::default()).is_err_and(|said| said.contains("searches by itself")), "{model}");
        let listed = [model.to_owned()];
        assert!(ask(model, &Rules { models: Some(&listed), ..Rules::default() }).is_ok(), "{model}");
    }
    assert!(ask("gpt-5\u{202e}x", &Rules::default()).is_err(), "a name that shows as another");
}
