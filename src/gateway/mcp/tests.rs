//! The endpoint as a guest sees it: raw HTTP over an in-memory pipe.

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::*;
use crate::agent::tools::{self, ASKED_ALREADY_TEXT, ASKED_TEXT, MARKED_DONE_TEXT, ToolRequest};

struct Run {
    endpoint: Endpoint,
    token: String,
    calls: mpsc::Receiver<ToolCall>,
}

fn run() -> Run {
    let bearer = Bearer::random().expect("randomness");
    let token = bearer.reveal().to_owned();
    let (to, calls) = mpsc::channel(8);
    let endpoint = Endpoint::new(&Identifier("A/1 b".into()), bearer, to);
    endpoint.take_calls();
    Run { endpoint, token, calls }
}

const PATH: &str = "/api/v1/issues/A%2F1%20b/mcp";

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

struct Connection(BufReader<DuplexStream>);

impl Run {
    fn connect(&self) -> Connection {
        let (guest, host) = tokio::io::duplex(64 * 1024);
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move { endpoint.serve(host).await });
        Connection(BufReader::new(guest))
    }

    async fn post(&self, body: Value) -> Answer {
        let auth = format!("Authorization: Bearer {}\r\n", self.token);
        self.connect().request("POST", PATH, &auth, &body.to_string()).await
    }

    async fn call(&self, name: &str, arguments: Value) -> Value {
        let params = json!({"name": name, "arguments": arguments});
        self.post(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})).await.json()
    }

    /// Answers the next call as the run would.
    async fn reply(&mut self, with: Result<&str, &str>) -> ToolRequest {
        let call = self.calls.recv().await.expect("a call");
        call.reply.send(with.map(Into::into).map_err(Into::into)).expect("awaited");
        call.request
    }
}

impl Connection {
    async fn request(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let accept = "Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n";
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:7000\r\n{accept}{headers}Content-Length: {length}\r\n\r\n"
        );
        self.0.write_all(head.as_bytes()).await.expect("head");
        // An answer may come, and the connection close, before the body is read.
        drop(self.0.write_all(body.as_bytes()).await);
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).await.expect("head") > 0, "closed: {head}");
        }
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).await.expect("body");
        Answer { status, head, body: String::from_utf8(body).expect("text") }
    }
}

fn initialize(version: &str) -> Value {
    let client = json!({"name": "c", "version": "1"});
    let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
}

fn text_of(result: &Value) -> (&str, bool) {
    let result = &result["result"];
    (result["content"][0]["text"].as_str().unwrap_or_default(), result["isError"] == true)
}

#[tokio::test]
async fn exactly_our_four_tools_are_listed_with_schemas_and_for_always_loading() {
    let run = run();
    assert!(!*run.endpoint.tools_listed().borrow());
    let list = run.post(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await.json();
    let tools = list["result"]["tools"].as_array().expect("tools");
    let names: Vec<&str> = tools.iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["mark_done", "request_human_steering", "transition", "propose_issue"]);
    assert_eq!(tools[0]["inputSchema"]["required"], json!(["title", "summary"]));
    assert_eq!(tools[1]["inputSchema"]["required"], json!(["question"]));
    assert_eq!(tools[2]["inputSchema"]["required"], json!(["to_state"]));
    assert_eq!(tools[3]["inputSchema"]["required"], json!(["title"]));
    for tool in tools {
        assert_eq!(tool["_meta"]["anthropic/alwaysLoad"], true);
        assert!(tool["description"].as_str().is_some_and(|text| !text.is_empty()));
    }
    assert!(*run.endpoint.tools_listed().borrow(), "the run can tell that its agent knows the tools");
}

#[tokio::test]
async fn initialize_negotiates_and_answers_plain_json_without_a_session() {
    let run = run();
    for (asked, given) in [("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"), ("1999-01-01", "2025-11-25")] {
        let answer = run.post(initialize(asked)).await;
        assert_eq!(answer.status, 200);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        assert!(!answer.head.contains("mcp-session-id"), "{}", answer.head);
        let result = &answer.json()["result"];
        assert_eq!(result["protocolVersion"], given);
        assert_eq!(result["serverInfo"]["name"], "symphony");
        assert!(result["capabilities"]["tools"].is_object());
    }
    assert_eq!(run.post(json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await.json()["result"], json!({}));
}

#[tokio::test]
async fn a_call_before_calls_are_taken_is_refused_and_reaches_nobody() {
    let (to, mut calls) = mpsc::channel(8);
    let endpoint = Endpoint::new(&Identifier("A/1 b".into()), Bearer("token".into()), to);
    let run = Run { endpoint, token: "token".into(), calls: mpsc::channel(1).1 };
    let arguments = json!({"title": "t", "summary": "s"});
    assert_eq!(text_of(&run.call("mark_done", arguments.clone()).await), (tools::NO_TURN_TEXT, true));
    assert!(calls.try_recv().is_err());
    run.endpoint.take_calls();
    let mut run = Run { calls, ..run };
    let endpoint = run.endpoint.clone();
    let later = Run { endpoint, token: "token".into(), calls: mpsc::channel(1).1 };
    let (said, _) = tokio::join!(later.call("mark_done", arguments), run.reply(Ok(MARKED_DONE_TEXT)));
    assert_eq!(text_of(&said), (MARKED_DONE_TEXT, false));
}

#[tokio::test]
async fn mark_done_reaches_the_run_and_its_answer_the_agent() {
    let mut run = run();
    let auth = format!("Authorization: Bearer {}\r\n", run.token);
    let mut guest = run.connect();
    let arguments = json!({"title": "Add x", "summary": "Did it.", "issue": "OTHER-1"});
    let params = json!({"name": "mark_done", "arguments": arguments, "_meta": {"progressToken": 3}});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string();
    let (answer, request) = tokio::join!(guest.request("POST", PATH, &auth, &body), run.reply(Ok(MARKED_DONE_TEXT)));
    assert_eq!(request, ToolRequest::MarkDone { title: "Add x".into(), summary: "Did it.".into() });
    let answer = answer.json();
    assert_eq!(answer["id"], 7);
    assert_eq!(text_of(&answer), (MARKED_DONE_TEXT, false));
    // The same connection takes the next request; the run's refusal is a tool error.
    let (answer, _) = tokio::join!(
        guest.request("POST", PATH, &auth, &body),
        run.reply(Err("failed to mark done: `A-1.md` exists already"))
    );
    assert_eq!(text_of(&answer.json()), ("failed to mark done: `A-1.md` exists already", true));
}

#[tokio::test]
async fn a_question_reaches_the_run_and_a_second_one_can_be_refused() {
    let mut run = run();
    let calls = std::mem::replace(&mut run.calls, mpsc::channel(1).1);
    let mut other = Run { endpoint: run.endpoint.clone(), token: run.token.clone(), calls };
    let arguments = json!({"question": "Which?", "context": "Two ways."});
    let (answer, request) =
        tokio::join!(run.call("request_human_steering", arguments.clone()), other.reply(Ok(ASKED_TEXT)));
    assert_eq!(request, ToolRequest::AskHuman { question: "Which?".into(), context: Some("Two ways.".into()) });
    assert_eq!(text_of(&answer), (ASKED_TEXT, false));
    let (answer, _) = tokio::join!(run.call("request_human_steering", arguments), other.reply(Err(ASKED_ALREADY_TEXT)));
    assert_eq!(text_of(&answer), (ASKED_ALREADY_TEXT, true));
}

#[tokio::test]
async fn what_a_transition_is_told_comes_as_text_and_as_data() {
    let mut run = run();
    let calls = std::mem::replace(&mut run.calls, mpsc::channel(1).1);
    let reply = async |with: Result<tools::Answer, tools::Answer>, mut calls: mpsc::Receiver<ToolCall>| {
        let call = calls.recv().await.expect("a call");
        call.reply.send(with).expect("awaited");
        (call.request, calls)
    };
    let refusal = tools::Answer::with("unknown_state: no", json!({"error": "unknown_state", "allowed": ["Done"]}));
    let arguments = json!({"to_state": "Dnoe"});
    let (answer, (_, calls)) = tokio::join!(run.call("transition", arguments), reply(Err(refusal), calls));
    assert_eq!(text_of(&answer), ("unknown_state: no", true));
    assert_eq!(answer["result"]["structuredContent"], json!({"error": "unknown_state", "allowed": ["Done"]}));
    let taken = tools::Answer::with("Taken.", json!({"to_state": "Done"}));
    let arguments = json!({"to_state": "Done", "notes": "n"});
    let (answer, (request, _)) = tokio::join!(run.call("transition", arguments), reply(Ok(taken), calls));
    assert_eq!(request, ToolRequest::Transition { to_state: "Done".into(), notes: Some("n".into()) });
    assert_eq!(
        (text_of(&answer), &answer["result"]["structuredContent"]["to_state"]),
        (("Taken.", false), &json!("Done"))
    );
}

#[tokio::test]
async fn wrong_arguments_are_tool_errors_and_never_reach_the_run() {
    let mut run = run();
    for (name, arguments, wrong) in [
        ("mark_done", json!({"summary": "s"}), "`title` is required"),
        ("mark_done", json!({"title": " ", "summary": "s"}), "`title` must not be blank"),
        ("mark_done", json!({"title": "a\nb", "summary": "s"}), "single line"),
        ("mark_done", json!({"title": "t", "summary": " \n"}), "`summary` must not be blank"),
        ("mark_done", json!({"title": ["t"], "summary": "s"}), "`title` must be a string"),
        ("request_human_steering", json!({"question": "\t"}), "`question` must not be blank"),
        ("transition", json!({"notes": "n"}), "`to_state` is required"),
        ("propose_issue", json!({"title": "t", "priority": "high"}), "whole number"),
    ] {
        let answer = run.call(name, arguments).await;
        let (text, is_error) = text_of(&answer);
        assert!(is_error && text.contains(wrong), "{answer}");
    }
    assert!(run.calls.try_recv().is_err());
}

#[tokio::test]
async fn an_unknown_tool_or_method_is_an_error_and_the_session_goes_on() {
    let run = run();
    let answer = run.call("nope", json!({})).await;
    assert_eq!(answer["error"]["code"], -32601);
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("nope")), "{answer}");
    let answer = run.post(json!({"jsonrpc": "2.0", "id": 4, "method": "resources/nothing"})).await.json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(4), &json!(-32601)));
    let list = run.post(json!({"jsonrpc": "2.0", "id": 5, "method": "tools/list", "params": {}})).await;
    assert_eq!(list.status, 200);
}

#[tokio::test]
async fn the_new_stateless_discovery_is_answered_too() {
    let run = run();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}}).to_string();
    let headers = format!(
        "Authorization: Bearer {}\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: server/discover\r\n",
        run.token
    );
    let answer = run.connect().request("POST", PATH, &headers, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let versions = &answer.json()["result"]["supportedVersions"];
    assert!(versions.as_array().is_some_and(|all| all.contains(&json!("2026-07-28"))), "{}", answer.body);
}

#[tokio::test]
async fn only_the_run_s_own_token_opens_the_door() {
    let run = run();
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let other = Bearer::random().expect("randomness");
    assert_eq!(run.token.len(), 32);
    assert_ne!(other.reveal(), run.token);
    let wrong = [
        other.reveal().to_owned(),
        run.token[..31].to_owned(),
        format!("{}x", run.token),
        format!(" {}", run.token),
        "ä".repeat(16),
    ];
    for token in &wrong {
        let answer = run.connect().request("POST", PATH, &format!("Authorization: Bearer {token}\r\n"), &list).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("not_found")), "{token}");
    }
    for missing in ["", "Authorization: Basic abc\r\n", "Authorization: Bearer \r\n", "Authorization: x\r\n"] {
        let answer = run.connect().request("POST", PATH, missing, &list).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("unauthorized")), "{missing}");
    }
    assert!(!*run.endpoint.tools_listed().borrow());
    let small = format!("authorization: bearer {}\r\n", run.token);
    assert_eq!(run.connect().request("POST", PATH, &small, &list).await.status, 200);
}

#[tokio::test]
async fn no_other_path_or_method_exists() {
    let run = run();
    let auth = format!("Authorization: Bearer {}\r\n", run.token);
    for path in
        ["/", "/api/v1/state", "/api/v1/issues/A-2/mcp", "/api/v1/issues/A/1%20b/mcp", "/api/v1/issues/A%2F1%20b/mcp/"]
    {
        assert_eq!(run.connect().request("POST", path, &auth, "{}").await.status, 404, "{path}");
    }
    for method in ["GET", "DELETE", "PUT"] {
        let answer = run.connect().request(method, PATH, &auth, "").await;
        assert_eq!(answer.status, 405);
        assert!(answer.head.contains("allow: post"));
    }
    assert_eq!(run.endpoint.url(7777), format!("http://127.0.0.1:7777{PATH}"));
}

#[tokio::test]
async fn foreign_hosts_batches_garbage_and_oversize_are_refused_with_rmcp_s_codes() {
    let run = run();
    let auth = format!("Authorization: Bearer {}\r\n", run.token);
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    assert_eq!(run.post(json!([list, list])).await.status, 415, "a batch");
    assert_eq!(run.connect().request("POST", PATH, &auth, "{nonsense").await.status, 415);
    let big = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": "x".repeat(BODY)}});
    assert_eq!(run.post(big).await.status, 413);
    let heavy = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": vec![0; VALUES]}});
    assert_eq!(run.post(heavy).await.status, 413);
    let mut guest = run.connect();
    let body = list.to_string();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: evil.example\r\n{auth}Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    guest.0.write_all(head.as_bytes()).await.expect("written");
    assert_eq!(guest.answer().await.status, 403, "a rebound name");
    assert!(!*run.endpoint.tools_listed().borrow());
}

#[tokio::test]
async fn notifications_are_taken_without_an_answer() {
    let run = run();
    for method in ["notifications/initialized", "notifications/cancelled", "notifications/progress"] {
        let params = json!({"requestId": 1, "progressToken": 1, "progress": 1});
        let answer = run.post(json!({"jsonrpc": "2.0", "method": method, "params": params})).await;
        assert_eq!((answer.status, answer.body.as_str()), (202, ""), "{method}");
    }
}

#[tokio::test]
async fn two_requests_at_once_each_get_their_own_answer() {
    let mut run = run();
    let auth = format!("Authorization: Bearer {}\r\n", run.token);
    let call = |id: u32| {
        let params = json!({"name": "request_human_steering", "arguments": {"question": id.to_string()}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
    };
    let (mut one, mut two) = (run.connect(), run.connect());
    let (first, second) = (call(1), call(2));
    let answer_in_reverse = async {
        let mut calls = vec![run.calls.recv().await.expect("one"), run.calls.recv().await.expect("two")];
        while let Some(call) = calls.pop() {
            let ToolRequest::AskHuman { question, .. } = call.request else { panic!("a question") };
            call.reply.send(Ok(format!("answer to {question}").into())).expect("awaited");
        }
    };
    let (a, b, ()) = tokio::join!(
        one.request("POST", PATH, &auth, &first),
        two.request("POST", PATH, &auth, &second),
        answer_in_reverse
    );
    assert_eq!(text_of(&a.json()), ("answer to 1", false));
    assert_eq!(text_of(&b.json()), ("answer to 2", false));
}

#[tokio::test]
async fn closing_tells_waiting_calls_that_the_run_has_ended_and_shuts_the_door() {
    let mut run = run();
    let auth = format!("Authorization: Bearer {}\r\n", run.token);
    let params = json!({"name": "request_human_steering", "arguments": {"question": "q"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let (mut waiting, mut idle) = (run.connect(), run.connect());
    let close = async {
        let call = run.calls.recv().await.expect("a call");
        run.endpoint.close();
        call
    };
    let (answer, _call) = tokio::join!(waiting.request("POST", PATH, &auth, &body), close);
    let answer = answer.json();
    let (text, is_error) = text_of(&answer);
    assert!(is_error && text.contains("has ended"), "{answer}");
    let mut rest = Vec::new();
    idle.0.read_to_end(&mut rest).await.expect("closed");
    assert!(rest.is_empty());
    let mut late = run.connect();
    late.0.read_to_end(&mut rest).await.expect("closed at once");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_run_that_is_gone_is_a_tool_error_not_a_hang() {
    let mut run = run();
    run.calls.close();
    let answer = run.call("mark_done", json!({"title": "t", "summary": "s"})).await;
    let (text, is_error) = text_of(&answer);
    assert!(is_error && text.contains("has ended"), "{answer}");
}

#[tokio::test]
async fn a_guest_can_hold_only_so_many_connections() {
    let run = run();
    let mut held: Vec<Connection> = (0..CONNECTIONS).map(|_| run.connect()).collect();
    tokio::task::yield_now().await;
    let mut rest = Vec::new();
    run.connect().0.read_to_end(&mut rest).await.expect("closed at once");
    assert!(rest.is_empty());
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let auth = format!("Authorization: Bearer {}\r\n", run.token);
    assert_eq!(held[0].request("POST", PATH, &auth, &list).await.status, 200, "those that are held work");
    drop(held.pop());
    for _ in 0..500 {
        if run.endpoint.shared.connections.available_permits() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(run.connect().request("POST", PATH, &auth, &list).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_completes_is_ended() {
    let run = run();
    let mut slow = run.connect();
    slow.0.write_all(b"POST / HT").await.expect("written");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(HEAD * 2, slow.0.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the head has a deadline");
    let mut stuck = run.connect();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nAccept: application/json, text/event-stream\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{{",
        run.token
    );
    stuck.0.write_all(head.as_bytes()).await.expect("written");
    assert_eq!(stuck.answer().await.status, 408, "so has the body");
}

#[test]
fn tokens_are_url_safe_and_encoded_right() {
    assert_eq!(base64url(b"\xff\xfe\xfd"), "__79");
    assert_eq!(base64url(b"Ma"), "TWE");
    assert_eq!(base64url(b"light w"), "bGlnaHQgdw");
    assert!(!format!("{:?}", Bearer::random().expect("randomness")).contains('_'));
}
