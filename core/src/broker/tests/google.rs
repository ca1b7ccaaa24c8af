//! Requests to Google's API: their paths, and what they may hold.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::*;

const CALLS: [Call; 2] = [Call::GenerateContent, Call::CountContent];

fn checked(call: Call, body: Value) -> Result<Checked, String> {
    check(call, Some("gemini-x"), body, &Rules::default()).map_err(|refusal| {
        assert_eq!(refusal.status, 400);
        refusal.message
    })
}

#[track_caller]
fn refused(body: Value, named: &str) {
    for call in CALLS {
        let message = checked(call, body.clone()).expect_err(&format!("{body} passed"));
        assert!(message.contains(named), "no `{named}` in: {message}");
    }
    // The same goes through where the workflow says so, and nothing of it is lost.
    let rules = Rules { provider_tools: true, ..Rules::default() };
    let passed = check(Call::GenerateContent, Some("gemini-x"), body.clone(), &rules);
    assert_eq!(passed.unwrap_or_else(|error| panic!("{body}: {error}")).body, body);
}

#[track_caller]
fn never(body: Value, named: &str) {
    let rules = Rules { provider_tools: true, ..Rules::default() };
    for (call, rules) in CALLS.into_iter().flat_map(|call| [(call, rules), (call, Rules::default())]) {
        let said = check(call, Some("gemini-x"), body.clone(), &rules).expect_err(&format!("{body} passed")).message;
        assert!(said.contains(named), "no `{named}` in: {said}");
    }
}

fn part(part: Value) -> Value {
    json!({"contents": [{"role": "user", "parts": [part]}]})
}

#[test]
fn the_model_stands_in_the_path_and_only_inference_is_forwarded() {
    let found = |path: &str, query| route("POST", path, query);
    let base = "/google/v1beta/models/gemini-2.5-pro";
    let whole = found(&format!("{base}:generateContent"), None).expect("a route");
    assert_eq!((whole.provider, whole.call), (Provider::Google, Call::GenerateContent));
    assert_eq!(
        (whole.model.as_deref(), &*whole.target),
        (Some("gemini-2.5-pro"), "/v1beta/models/gemini-2.5-pro:generateContent")
    );
    let stream = found(&format!("{base}:streamGenerateContent"), Some("alt=sse")).expect("a route");
    assert_eq!(stream.target, "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse");
    let count = found(&format!("{base}:countTokens"), None).expect("a route");
    assert!(count.call == Call::CountContent && !count.call.is_metered() && count.call.has_body());
    assert_eq!(route("GET", &format!("{base}:generateContent"), None).expect_err("a method").status, 405);
    let models = route("GET", "/google/v1beta/models", Some("pageSize=9")).expect("a route");
    assert_eq!((models.call, &*models.target, models.model), (Call::Models, "/v1beta/models?pageSize=9", None));
    for path in [
        "/google",
        "/google/v1beta/models/gemini-x",
        "/google/v1beta/models/:generateContent",
        "/google/v1beta/models/..:generateContent",
        "/google/v1beta/models/a/b:generateContent",
        "/google/v1beta/models/a%2fb:generateContent",
        "/google/v1beta/models/a:b:generateContent",
        "/google/v1beta/models/gemini-x:generateContent/",
        "/google/v1beta/models/gemini-x:batchGenerateContent",
        "/google/v1beta/models/gemini-x:predict",
        "/google/v1beta/models/gemini-x:embedContent",
        "/google/v1beta/tunedModels/x:generateContent",
        "/google/v1beta/cachedContents",
        "/google/v1beta/files",
        "/google/v1beta/interactions",
        "/google/upload/v1beta/files",
        "/google/v1beta1/models/gemini-x:generateContent",
    ] {
        assert_eq!(found(path, None).expect_err(path).status, 404, "{path}");
    }
}

#[test]
fn a_stream_comes_as_events_and_the_token_in_a_query_goes_nowhere() {
    let base = "/google/v1beta/models/m";
    let target = |method: &str, query| route("POST", &format!("{base}:{method}"), query).map(|route| route.target);
    let stream = Ok("/v1beta/models/m:streamGenerateContent?alt=sse".to_owned());
    for query in ["alt=sse", "key=a-token&alt=sse", "alt=sse&key=%2e#x"] {
        assert_eq!(target("streamGenerateContent", Some(query)), stream, "{query}");
    }
    assert_eq!(target("generateContent", Some("key=a-token")).as_deref(), Ok("/v1beta/models/m:generateContent"));
    for query in [None, Some("alt=json"), Some("alt=sse&alt=json"), Some("key=a-token"), Some("alt=sse&upload=1")] {
        let said = target("streamGenerateContent", query).expect_err("refused");
        assert!(said.status == 400 && !said.message.contains("a-token"), "{said}");
    }
    assert_eq!(target("generateContent", Some("alt=sse")).expect_err("refused").status, 400);
    // Of others it is a query like any.
    assert_eq!(route("POST", "/anthropic/v1/messages", Some("key=a-token")).expect_err("refused").status, 400);
}

#[test]
fn what_the_real_agents_send_passes_unchanged() {
    // Field by field what gemini 0.61.0 sent to a server of ours.
    let body = json!({
        "contents": [
            {"role": "user", "parts": [{"text": "context"}, {"text": "Make a file."}]},
            {"role": "model", "parts": [
                {"text": "I think", "thought": true},
                {"functionCall": {"id": "1", "name": "web_fetch", "args": {"fileUri": "https://example.com"}}, "thoughtSignature": "c2ln"},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {"id": "1", "name": "web_fetch", "response": {"output": "https://example.com"}}},
                {"functionResponse": {"name": "read_file", "response": {}, "parts": [
                    {"inlineData": {"mimeType": "image/png", "data": "aaaa"}},
                ]}},
                {"inlineData": {"mimeType": "image/png", "data": "aaaa"}},
            ]},
        ],
        "systemInstruction": {"role": "user", "parts": [{"text": "Be good."}]},
        "tools": [{"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "AUTO"}},
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
        "generationConfig": {
            "temperature": 1, "topP": 0.95, "topK": 64, "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "OBJECT"}, "maxOutputTokens": 1024,
            "thinkingConfig": {"includeThoughts": true, "thinkingLevel": "HIGH"},
        },
    });
    let passed = checked(Call::GenerateContent, body.clone()).expect("passes");
    assert_eq!((passed.body, &*passed.model), (body.clone(), "gemini-x"));
    let count = json!({"contents": body["contents"]});
    assert_eq!(checked(Call::CountContent, count.clone()).map(|checked| checked.body), Ok(count));
}

#[test]
fn tools_that_google_runs_are_refused_by_name() {
    for tool in [
        "googleSearch",
        "googleSearchRetrieval",
        "google_search",
        "codeExecution",
        "urlContext",
        "googleMaps",
        "computerUse",
        "fileSearch",
        "mcpServers",
        "enterpriseWebSearch",
        "retrieval",
        "somethingNew",
    ] {
        refused(
            json!({"tools": [{"functionDeclarations": []}, {tool: {}}]}),
            &format!("the provider's own tool `{tool}`"),
        );
        refused(json!({"tools": [{"functionDeclarations": [], tool: {}}]}), "tools[0]");
    }
    refused(json!({"toolConfig": {"retrievalConfig": {}}}), "toolConfig.retrievalConfig");
    refused(json!({"tools": [{"functionDeclarations": [{"name": "f", "mcpServer": "x"}]}]}), "mcpServer");
    refused(json!({"tools": {"googleSearch": {}}}), "must be a list");
}

#[test]
fn addresses_and_stored_things_are_refused_wherever_they_stand() {
    let there = json!({"mimeType": "image/png", "fileUri": "https://example.com/a.png"});
    refused(part(json!({"fileData": there})), "contents[0].parts[0].fileData");
    refused(part(json!({"file_data": there})), "an address to fetch from");
    refused(json!({"systemInstruction": {"parts": [{"fileData": there}]}}), "systemInstruction.parts[0]");
    let inside = json!({"functionResponse": {"name": "f", "response": {}, "parts": [{"fileData": there}]}});
    refused(part(inside), "functionResponse.parts[0].fileData");
    refused(part(json!({"inlineData": {"mimeType": "image/png", "data": "https://example.com/a"}})), "other than data");
    refused(part(json!({"inlineData": {"data": "aa", "fileUri": "x"}})), "inlineData.fileUri");
    refused(part(json!({"executableCode": {"code": "1"}})), "code that the provider runs");
    refused(part(json!({"codeExecutionResult": {}})), "code that the provider runs");
    refused(json!({"cachedContent": "cachedContents/x"}), "cachedContent");
    refused(json!({"cached_content": "cachedContents/x"}), "cached_content");
    refused(json!({"system_instruction": {}}), "unknown to this version");
    refused(json!({"brand_new": 1}), "brand_new");
    refused(json!({"generationConfig": {"brandNew": 1}}), "generationConfig.brandNew");
    refused(part(json!({"brandNew": 1})), "parts[0].brandNew");
    refused(json!({"contents": [{"brandNew": 1}]}), "contents[0].brandNew");
    refused(json!({"generateContentRequest": {"model": "models/other"}}), "generateContentRequest");
    refused(json!({"systemInstruction": "text"}), "must be an object");
}

#[test]
fn what_is_counted_and_paid_by_has_one_spelling_whatever_is_allowed() {
    for name in ["model", "Model"] {
        never(json!({name: "models/other"}), "odel`");
    }
    for name in ["generation_config", "GenerationConfig"] {
        never(json!({name: {"maxOutputTokens": 1}}), "write `generationConfig`");
    }
    for name in ["max_output_tokens", "MaxOutputTokens", "candidate_count"] {
        never(json!({"generationConfig": {name: 1}}), &format!("generationConfig.{name}"));
    }
    never(json!({"service_tier": "priority"}), "write `serviceTier`");
    for bad in [json!(u64::MAX), json!(-1), json!(1.5), json!("9")] {
        never(json!({"generationConfig": {"maxOutputTokens": bad}}), "maxOutputTokens");
        never(json!({"generationConfig": {"candidateCount": bad}}), "candidateCount");
    }
    never(json!({"generationConfig": []}), "must be an object");
    let rules = Rules { provider_tools: true, ..Rules::default() };
    let stored = check(Call::GenerateContent, Some("m"), json!({"store": true}), &rules).expect("passes");
    assert_eq!(stored.body, json!({"store": false}));
}

#[test]
fn only_listed_models_are_asked_and_none_that_searches_by_itself() {
    let listed = ["gemini-x".to_owned()];
    let rules = Rules { models: Some(&listed), ..Rules::default() };
    let ask = |model, rules: &Rules<'_>| check(Call::GenerateContent, Some(model), json!({}), rules).map(|_| ());
    assert_eq!(ask("gemini-x", &rules), Ok(()));
    assert!(ask("gemini-y", &rules).is_err_and(|said| said.message.contains("gemini-x")));
    assert!(ask("deep-research-pro", &Rules::default()).is_err());
    assert!(check(Call::GenerateContent, None, json!({}), &Rules::default()).is_err(), "the path names one");
}

#[test]
fn the_most_that_a_request_can_use_is_told_from_what_google_reads() {
    let of = |body: &Value| weigh(Call::GenerateContent, body, body.to_string().len(), 5000);
    let plain = json!({"contents": [{"parts": [{"text": "hi"}]}]});
    assert_eq!(of(&plain).0, Most { input: plain.to_string().len() as u64, output: 5000, ..Most::default() });
    assert_eq!(of(&json!({"generationConfig": {"maxOutputTokens": 7, "candidateCount": 3}})).0.output, 21);
    assert_eq!(of(&json!({"generationConfig": {"candidateCount": 3}, "maxOutputTokens": 1})).0.output, 15_000);
    let data = "A".repeat(100_000);
    let inline = |kind: &str| json!({"inlineData": {"mimeType": kind, "data": data}});
    let input = |part: Value| of(&json!({"contents": [{"parts": [part]}]})).0.input;
    for picture in [inline("image/png"), json!({"functionResponse": {"parts": [inline("image/png")]}})] {
        assert!((26_000..26_500).contains(&input(picture)));
    }
    assert!(input(inline("application/pdf")) > 110_000);
    assert!(input(json!({"functionCall": {"args": inline("image/png")}})) > 100_000, "text is text");
    assert!(input(json!({"fileData": {}})) > 10_000);
    let tools = |tools: Value| of(&json!({"tools": tools})).0.input;
    let own = tools(json!([{"functionDeclarations": []}]));
    assert!((1024..1200).contains(&own) && tools(json!([{"googleSearch": {}}])) > 2048);
    let tier = |word: &str| of(&json!({"serviceTier": word})).1;
    assert_eq!((tier("standard"), tier("SERVICE_TIER_STANDARD"), tier("unspecified")), (None, None, None));
    assert_eq!((tier("priority").as_deref(), tier("SERVICE_TIER_FLEX").as_deref()), (Some("priority"), Some("flex")));
}

#[test]
fn errors_speak_google_s_own_format_and_its_headers_are_kept_apart() {
    let body = error_body(Provider::Google, 401, "no");
    assert_eq!(body, json!({"error": {"code": 401, "message": "symphony: no", "status": "UNAUTHENTICATED"}}));
    assert_eq!(error_body(Provider::Google, 400, "no")["error"]["status"], "INVALID_ARGUMENT");
    assert_eq!(Provider::of_path("/google/v1beta/files"), Provider::Google);
    for name in ["x-goog-api-key", "x-goog-user-project", "x-gemini-api-privileged-user-id", "anthropic-beta"] {
        assert!(!request_header(Provider::Google, name), "{name}");
    }
    assert!(request_header(Provider::Google, "user-agent"));
}

/// Bodies made of the words that matter, in any order and depth.
fn bodies() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "contents",
        "parts",
        "role",
        "text",
        "tools",
        "functionDeclarations",
        "googleSearch",
        "urlContext",
        "fileData",
        "fileUri",
        "inlineData",
        "mimeType",
        "data",
        "functionResponse",
        "systemInstruction",
        "cachedContent",
        "generationConfig",
        "maxOutputTokens",
        "name",
        "response",
        "model",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(|word| json!(word)),
        Just(json!("https://example.com")),
        any::<u8>().prop_map(|number| json!(number)),
        Just(Value::Null),
    ];
    leaf.prop_recursive(7, 80, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|pairs| pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_passed_passes_again_unchanged_and_holds_no_tool_of_google_s(body in bodies()) {
        for call in CALLS {
            let Ok(sent) = checked(call, body.clone()) else { continue };
            prop_assert_eq!(checked(call, sent.body.clone()), Ok(sent.clone()));
            for tool in sent.body["tools"].as_array().into_iter().flatten() {
                prop_assert!(tool.as_object().is_some_and(|tool| tool.keys().all(|name| name == "functionDeclarations")));
            }
            for content in sent.body["contents"].as_array().into_iter().flatten() {
                for part in content["parts"].as_array().into_iter().flatten() {
                    prop_assert!(part.get("fileData").is_none(), "{}", sent.body);
                }
            }
        }
    }
}
