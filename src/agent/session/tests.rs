//! The session against scripted agents: real bytes over an in-memory pipe, and one real child.

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines as TokioLines, ReadHalf, WriteHalf, split,
};

use super::*;

const FOREVER: TurnLimits = TurnLimits { total_ms: 0, silence_ms: 0, stall_ms: 0 };

/// The agent's end of the pipe; each test writes its script.
struct Script {
    lines: TokioLines<BufReader<ReadHalf<DuplexStream>>>,
    out: WriteHalf<DuplexStream>,
}

impl Script {
    async fn read(&mut self) -> Value {
        let line = self.lines.next_line().await.expect("readable").expect("a line");
        serde_json::from_str(&line).expect("we send JSON")
    }

    async fn raw(&mut self, text: &str) {
        self.out.write_all(text.as_bytes()).await.expect("written");
    }

    async fn send(&mut self, message: Value) {
        self.raw(&format!("{message}\n")).await;
    }

    async fn answer(&mut self, request: &Value, result: Value) {
        self.send(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    }

    async fn update(&mut self, update: Value) {
        self.send(
            json!({"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": "s-1", "update": update}}),
        )
        .await;
    }

    /// Answers initialize and session/new well; gives back both requests.
    async fn handshake(&mut self) -> (Value, Value) {
        let hello = self.read().await;
        let capabilities = json!({"mcpCapabilities": {"http": true}, "invented": [1]});
        self.answer(
            &hello,
            json!({"protocolVersion": 1, "agentCapabilities": capabilities, "authMethods": [{"type": "odd"}]}),
        )
        .await;
        let new = self.read().await;
        self.answer(
            &new,
            json!({"sessionId": "s-1", "modes": {"currentModeId": "a", "availableModes": [{"id": "b", "name": "B"}]}}),
        )
        .await;
        (hello, new)
    }

    async fn ask_permission(&mut self, options: Value) -> Value {
        let params = json!({"sessionId": "s-1", "toolCall": {"toolCallId": "t", "title": "rm"}, "options": options});
        self.send(json!({"jsonrpc": "2.0", "id": "p", "method": "session/request_permission", "params": params})).await;
        self.read().await["result"]["outcome"].clone()
    }
}

fn options() -> StartOptions {
    StartOptions {
        cwd: "/work".into(),
        client_version: "9.9.9".into(),
        title: "A-1: First".into(),
        mcp: Some(McpServer {
            url: "http://127.0.0.1:1/api/v1/issues/A-1/mcp".into(),
            bearer: "the-run-s-token".into(),
        }),
        mode: None,
        read_timeout: Duration::from_secs(30),
        max_line: 0,
        secrets: Secrets::default(),
        transcript: None,
    }
}

fn pipe() -> (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>, Script) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (reader, writer) = split(ours);
    let (lines, out) = split(theirs);
    (reader, writer, Script { lines: BufReader::new(lines).lines(), out })
}

async fn started() -> (Session, Script, mpsc::Receiver<AgentEvent>) {
    let (reader, writer, mut script) = pipe();
    let (to, events) = mpsc::channel(512);
    let (session, _) = tokio::join!(Session::start(reader, writer, options(), to), script.handshake());
    (session.expect("started"), script, events)
}

/// Starts against `script` and expects that to fail.
async fn refused(options: StartOptions, script: impl AsyncFnOnce(Script)) -> AgentError {
    let (reader, writer, agent) = pipe();
    let (to, _events) = mpsc::channel(512);
    let (session, ()) = tokio::join!(Session::start(reader, writer, options, to), script(agent));
    session.err().expect("refused")
}

/// One prompt without limits, while the agent plays `script`.
async fn turn(session: &mut Session, script: impl Future<Output = ()>) -> Turn {
    let cancel = CancellationToken::new();
    let (turn, ()) = tokio::join!(session.prompt("do it", None, FOREVER, None, &cancel), script);
    turn
}

fn kinds(events: &mut mpsc::Receiver<AgentEvent>) -> Vec<&'static str> {
    std::iter::from_fn(|| events.try_recv().ok()).map(|event| event.kind).collect()
}

#[tokio::test]
async fn a_session_says_who_we_are_what_we_cannot_do_and_where_our_tools_are() {
    let (reader, writer, mut script) = pipe();
    let (to, mut events) = mpsc::channel(64);
    let (session, (hello, new)) = tokio::join!(Session::start(reader, writer, options(), to), script.handshake());
    let session = session.expect("started");
    assert_eq!(session.id(), "s-1");
    let params = &hello["params"];
    assert_eq!((&hello["method"], &params["protocolVersion"]), (&json!("initialize"), &json!(1)));
    assert_eq!(params["clientInfo"], json!({"name": "symphony", "version": "9.9.9"}));
    let offered = &params["clientCapabilities"];
    assert_eq!(offered["fs"], json!({"readTextFile": false, "writeTextFile": false}));
    assert_eq!(offered["terminal"], false);
    assert!(offered.get("elicitation").is_none());
    assert_eq!(new["method"], "session/new");
    assert_eq!(new["params"]["cwd"], "/work");
    let server = json!([{
        "type": "http", "name": "symphony", "url": "http://127.0.0.1:1/api/v1/issues/A-1/mcp",
        "headers": [{"name": "Authorization", "value": "Bearer the-run-s-token"}],
    }]);
    assert_eq!(new["params"]["mcpServers"], server);
    assert_eq!(new["params"]["_meta"]["symphony/title"], "A-1: First");
    assert_eq!(kinds(&mut events), ["session_started"]);
}

#[tokio::test]
async fn a_turn_sends_one_text_block_and_reports_the_agent_s_count_of_tokens() {
    let (mut session, mut script, mut events) = started().await;
    let cancel = CancellationToken::new();
    let play = async {
        let prompt = script.read().await;
        assert_eq!(prompt["method"], "session/prompt");
        assert_eq!(prompt["params"]["sessionId"], "s-1");
        assert_eq!(prompt["params"]["prompt"], json!([{"type": "text", "text": "go"}]));
        assert_eq!(prompt["params"]["_meta"]["symphony/answer"], "42");
        script.update(json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "hi"}})).await;
        script
            .update(json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "ls", "status": "pending"}))
            .await;
        script.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed"})).await;
        let usage = json!({"inputTokens": 10, "outputTokens": 5, "totalTokens": 15, "cachedReadTokens": 2, "odd": "x"});
        script.answer(&prompt, json!({"stopReason": "end_turn", "usage": usage})).await;
    };
    let (turn, ()) = tokio::join!(session.prompt("go", Some("42"), FOREVER, None, &cancel), play);
    let usage = Some(Usage { input: 10, output: 5, cached: 2, total: 15 });
    assert_eq!(turn, Turn { end: TurnEnd::EndTurn, usage, usable: true });
    let seen = kinds(&mut events);
    assert_eq!(seen, ["session_started", "agent_message_chunk", "tool_call", "tool_call_update", "turn_completed"]);
}

#[tokio::test]
async fn each_stop_reason_is_its_own_end_and_only_end_turn_is_success() {
    let (mut session, mut script, _events) = started().await;
    for (reason, end, code) in [
        ("end_turn", TurnEnd::EndTurn, "turn_completed"),
        ("max_tokens", TurnEnd::MaxTokens, "turn_failed"),
        ("max_turn_requests", TurnEnd::MaxTurnRequests, "turn_failed"),
        ("refusal", TurnEnd::Refusal, "turn_failed"),
        ("cancelled", TurnEnd::Cancelled, "turn_cancelled"),
    ] {
        let turn = turn(&mut session, async {
            let prompt = script.read().await;
            script.answer(&prompt, json!({"stopReason": reason, "usage": null})).await;
        })
        .await;
        assert_eq!((turn.end.code(), turn.usable, turn.usage), (code, true, None));
        assert_eq!(turn.end, end);
    }
    let odd = turn(&mut session, async {
        let prompt = script.read().await;
        script.answer(&prompt, json!({"stopReason": "bored"})).await;
    })
    .await;
    assert_eq!(
        (odd.end.code(), odd.usable),
        ("turn_failed", true),
        "an unknown reason fails the turn, not the session"
    );
}

#[tokio::test]
async fn an_agent_s_error_is_not_a_transport_failure_and_the_session_goes_on() {
    let (mut session, mut script, _events) = started().await;
    let failed = turn(&mut session, async {
        let prompt = script.read().await;
        let error = json!({"code": -32603, "message": "overloaded", "data": {"errorKind": "busy"}});
        script.send(json!({"jsonrpc": "2.0", "id": prompt["id"], "error": error})).await;
    })
    .await;
    match &failed.end {
        TurnEnd::Failed(AgentError::Agent { code: -32603, message, .. }) => {
            assert!(message.contains("busy"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((failed.end.code(), failed.usable), ("turn_failed", true));
    let next = turn(&mut session, async {
        let prompt = script.read().await;
        script.answer(&prompt, json!({"stopReason": "end_turn"})).await;
    })
    .await;
    assert_eq!(next.end, TurnEnd::EndTurn);
}

#[tokio::test]
async fn an_agent_that_dies_in_a_turn_is_a_transport_failure() {
    let (mut session, mut script, _events) = started().await;
    let died = turn(&mut session, async {
        script.read().await;
        drop(script);
    })
    .await;
    assert!(matches!(died.end, TurnEnd::Failed(AgentError::Transport { .. })), "{died:?}");
    assert_eq!((died.end.code(), died.usable), ("port_exit", false));
}

#[tokio::test]
async fn what_is_not_the_protocol_is_reported_and_the_turn_goes_on() {
    let (mut session, mut script, mut events) = started().await;
    let turn = turn(&mut session, async {
        let prompt = script.read().await;
        script.raw("npm WARN deprecated\n[]\n{\"foo\":1}\n\n{\"method\":\"x\"\n").await;
        script.out.write_all(b"\xff\xfe\n").await.expect("written");
        script.update(json!({"sessionUpdate": "hologram", "data": {}})).await;
        script.update(json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "smell"}})).await;
        script.send(json!({"jsonrpc": "2.0", "method": "session/update", "params": [1, 2]})).await;
        script
            .send(json!({"jsonrpc": "2.0", "method": "qwen/notify/session/prompt-suggestion", "params": {"a": 1}}))
            .await;
        script.send(json!({"jsonrpc": "2.0", "id": 900, "result": {"an answer": "to nothing"}})).await;
        for (id, method) in [
            (7, "fs/read_text_file"),
            (8, "terminal/create"),
            (9, "elicitation/create"),
            (10, "craft/drainMidTurnQueue"),
        ] {
            script.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})).await;
            let answer = script.read().await;
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32601)));
        }
        script.answer(&prompt, json!({"stopReason": "end_turn"})).await;
    })
    .await;
    assert_eq!(turn.end, TurnEnd::EndTurn);
    let seen = kinds(&mut events);
    let count = |kind: &str| seen.iter().filter(|k| **k == kind).count();
    assert_eq!((count("malformed"), count("unsupported"), count("notification")), (5, 4, 1), "{seen:?}");
    assert!(count("session_update") >= 2, "{seen:?}");
}

#[tokio::test]
async fn permissions_are_chosen_by_kind_and_never_by_place() {
    let (mut session, mut script, mut events) = started().await;
    let option = |id: &str, kind: &str| json!({"optionId": id, "name": id, "kind": kind});
    let turn = turn(&mut session, async {
        let prompt = script.read().await;
        let all = json!([option("r", "reject_once"), option("a", "allow_always"), option("o", "allow_once")]);
        assert_eq!(script.ask_permission(all).await, json!({"outcome": "selected", "optionId": "o"}));
        let rejects = json!([option("r", "reject_once"), option("s", "reject_always")]);
        assert_eq!(script.ask_permission(rejects).await, json!({"outcome": "cancelled"}));
        let unknown = json!([option("u", "allow_twice"), option("a", "allow_always")]);
        assert_eq!(script.ask_permission(unknown).await, json!({"outcome": "selected", "optionId": "a"}));
        assert_eq!(script.ask_permission(json!("?")).await, json!({"outcome": "cancelled"}));
        script.answer(&prompt, json!({"stopReason": "end_turn"})).await;
    })
    .await;
    assert_eq!(turn.end, TurnEnd::EndTurn);
    let approved = kinds(&mut events).iter().filter(|kind| **kind == "approval_auto_approved").count();
    assert_eq!(approved, 2);
}

#[tokio::test]
async fn a_cancelled_turn_sends_cancel_once_answers_permissions_cancelled_and_leaves_the_session_usable() {
    let (mut session, mut script, _events) = started().await;
    let cancel = CancellationToken::new();
    let play = async {
        let prompt = script.read().await;
        cancel.cancel();
        let told = script.read().await;
        assert_eq!((&told["method"], &told["params"]["sessionId"]), (&json!("session/cancel"), &json!("s-1")));
        let option = json!([{"optionId": "o", "name": "o", "kind": "allow_once"}]);
        assert_eq!(script.ask_permission(option).await, json!({"outcome": "cancelled"}));
        script.answer(&prompt, json!({"stopReason": "cancelled"})).await;
    };
    let (first, ()) = tokio::join!(session.prompt("go", None, FOREVER, None, &cancel), play);
    assert_eq!((&first.end, first.usable), (&TurnEnd::Cancelled, true));
    let second = turn(&mut session, async {
        let next = script.read().await;
        assert_eq!(next["method"], "session/prompt", "cancel was sent once");
        let option = json!([{"optionId": "o", "name": "o", "kind": "allow_once"}]);
        assert_eq!(script.ask_permission(option).await["outcome"], "selected", "a new turn approves again");
        script.answer(&next, json!({"stopReason": "end_turn"})).await;
    })
    .await;
    assert_eq!(second.end, TurnEnd::EndTurn);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ignores_a_cancel_is_given_up_after_the_grace() {
    let (mut session, mut script, _events) = started().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let before = tokio::time::Instant::now();
    let turn = session.prompt("go", None, FOREVER, None, &cancel).await;
    assert_eq!((&turn.end, turn.usable), (&TurnEnd::Cancelled, false));
    assert!(before.elapsed() >= CANCEL_GRACE && before.elapsed() < CANCEL_GRACE * 2);
    assert_eq!(script.read().await["method"], "session/prompt");
    assert_eq!(script.read().await["method"], "session/cancel");
    let again = session.prompt("go", None, FOREVER, None, &CancellationToken::new()).await;
    assert_eq!(again.end.code(), "turn_failed");
}

/// Plays `updates` one every 100 ms and never ends the turn by itself; answers cancel.
async fn talk(script: &mut Script, updates: Vec<Value>) {
    let prompt = script.read().await;
    for update in updates {
        tokio::time::sleep(Duration::from_millis(100)).await;
        script.update(update).await;
    }
    assert_eq!(script.read().await["method"], "session/cancel");
    script.answer(&prompt, json!({"stopReason": "cancelled"})).await;
}

async fn limited(limits: TurnLimits, channel: Option<&Activity>, updates: Vec<Value>) -> (Turn, Duration) {
    let (mut session, mut script, _events) = started().await;
    let before = tokio::time::Instant::now();
    let cancel = CancellationToken::new();
    let (turn, ()) = tokio::join!(session.prompt("go", None, limits, channel, &cancel), talk(&mut script, updates));
    (turn, before.elapsed())
}

#[tokio::test(start_paused = true)]
async fn each_limit_ends_a_turn_with_its_own_name_and_the_session_stays_usable() {
    let text = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "."}});
    let open = json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "make", "status": "in_progress"});
    let ms = Duration::from_millis;

    let (turn, took) = limited(TurnLimits { silence_ms: 250, ..FOREVER }, None, vec![text.clone(); 10]).await;
    assert_eq!((turn.end.code(), turn.usable), ("turn_timeout", true));
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Silence));
    assert!(took >= ms(1250) && took < ms(1500), "silence counts from the last word: {took:?}");

    let (turn, took) = limited(TurnLimits { total_ms: 500, silence_ms: 250, stall_ms: 250 }, None, vec![text; 4]).await;
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Total));
    assert!(took >= ms(500) && took < ms(700), "{took:?}");

    let stall = TurnLimits { stall_ms: 300, silence_ms: 5000, ..FOREVER };
    let (turn, took) = limited(stall, None, vec![]).await;
    assert_eq!((&turn.end, turn.end.code()), (&TurnEnd::TimedOut(Impatience::Stall), "stalled"));
    assert!(took < ms(500), "{took:?}");

    let (turn, took) = limited(stall, None, vec![open.clone()]).await;
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Silence), "an open tool call is no stall");
    assert!(took >= ms(5000), "{took:?}");

    let closed = json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "completed"});
    let (turn, took) = limited(stall, None, vec![open, closed]).await;
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Stall));
    assert!(took >= ms(500) && took < ms(700), "the stall clock starts at the call's end: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_channel_is_no_stall() {
    let channel = Activity::new();
    let busy = channel.clone();
    let ticking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            busy.touch();
        }
    });
    let limits = TurnLimits { total_ms: 2000, silence_ms: 0, stall_ms: 300 };
    let (turn, _) = limited(limits, Some(&channel), vec![]).await;
    ticking.abort();
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Total));
}

#[tokio::test]
async fn another_protocol_version_or_a_senseless_answer_fails_the_start() {
    for result in [json!({"protocolVersion": 2}), json!({}), json!(null), json!("hello")] {
        let error = refused(options(), async |mut script: Script| {
            let hello = script.read().await;
            script.answer(&hello, result.clone()).await;
            script.lines.next_line().await.expect("the connection ends");
        })
        .await;
        assert_eq!(error.code(), "startup_failed", "{error}");
    }
    let error = refused(options(), async |mut script: Script| {
        let hello = script.read().await;
        script
            .answer(&hello, json!({"protocolVersion": 1, "agentCapabilities": {"mcpCapabilities": {"http": true}}}))
            .await;
        let new = script.read().await;
        script.answer(&new, json!({"sessionId": 5})).await;
    })
    .await;
    assert_eq!(error.code(), "startup_failed");
}

#[tokio::test]
async fn an_agent_that_cannot_have_our_tools_is_refused_unless_none_are_wanted() {
    let poor = async |mut script: Script| {
        let hello = script.read().await;
        script
            .answer(&hello, json!({"protocolVersion": 1, "agentCapabilities": {"mcpCapabilities": {"http": "yes"}}}))
            .await;
        if let Ok(Some(line)) = script.lines.next_line().await {
            let new: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(new["params"]["mcpServers"], json!([]));
            script.answer(&new, json!({"sessionId": "s"})).await;
        }
    };
    assert_eq!(refused(options(), poor).await.code(), "mcp_capability_mismatch");
    let (reader, writer, script) = pipe();
    let (to, _events) = mpsc::channel(8);
    let without = StartOptions { mcp: None, ..options() };
    let (session, ()) = tokio::join!(Session::start(reader, writer, without, to), poor(script));
    assert!(session.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_answer_errs_or_dies_at_the_start_has_a_name_for_each() {
    let silent = refused(options(), async |mut script: Script| {
        script.read().await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    assert_eq!(
        (silent.code(), silent),
        ("response_timeout", AgentError::Response { during: "initialize", after_ms: 30_000 })
    );
    let error = refused(options(), async |mut script: Script| {
        let hello = script.read().await;
        script.send(json!({"jsonrpc": "2.0", "id": hello["id"], "error": {"code": -32000, "message": "log in"}})).await;
    })
    .await;
    assert_eq!(error.code(), "response_error");
    assert!(error.to_string().contains("log in"));
    let gone = refused(options(), async |script: Script| drop(script)).await;
    assert_eq!(gone.code(), "port_exit");
}

#[tokio::test]
async fn a_mode_is_set_once_if_the_agent_offers_it() {
    for (mode, set) in [("b", true), ("z", false)] {
        let (reader, writer, mut script) = pipe();
        let (to, _events) = mpsc::channel(8);
        let wanted = StartOptions { mode: Some(mode.into()), ..options() };
        let play = async {
            script.handshake().await;
            if set {
                let request = script.read().await;
                assert_eq!(request["method"], "session/set_mode");
                assert_eq!(request["params"], json!({"sessionId": "s-1", "modeId": "b"}));
                script.answer(&request, json!({})).await;
            }
        };
        let (session, ()) = tokio::join!(Session::start(reader, writer, wanted, to), play);
        assert!(session.is_ok());
    }
}

#[tokio::test]
async fn a_line_of_nine_megabytes_is_read_and_one_of_sixty_four_ends_the_session() {
    let (mut session, mut script, mut events) = started().await;
    let big = "x".repeat(9_000_000);
    let fine = turn(&mut session, async {
        let prompt = script.read().await;
        script.update(json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": big}})).await;
        script.answer(&prompt, json!({"stopReason": "end_turn"})).await;
    })
    .await;
    assert_eq!(fine.end, TurnEnd::EndTurn);
    let chunk = "y".repeat(64 * 1024);
    let mut written = 0;
    let refused = turn(&mut session, async {
        script.read().await;
        // Without a newline: what is read must be bounded, not what is sent.
        while written < 64_000_000 && script.out.write_all(chunk.as_bytes()).await.is_ok() {
            written += chunk.len();
        }
    })
    .await;
    assert!(matches!(refused.end, TurnEnd::Failed(AgentError::Protocol { .. })), "{refused:?}");
    assert!(!refused.usable);
    assert!(written < 12_000_000, "reading stopped at the limit, {written} bytes went through");
    assert!(kinds(&mut events).contains(&"malformed"));
}

#[tokio::test]
async fn an_agent_that_floods_us_with_requests_and_reads_no_answer_fills_its_own_pipe() {
    let (mut session, mut script, _events) = started().await;
    let cancel = CancellationToken::new();
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "fs/read_text_file", "params": {}}).to_string() + "\n";
    let mut sent = 0_usize;
    let flood = async {
        script.read().await;
        let stuck = async {
            while sent < 1_000_000 {
                script.raw(&request).await;
                sent += 1;
            }
        };
        // It gets stuck within moments; the limit only ends the test.
        drop(tokio::time::timeout(Duration::from_secs(2), stuck).await);
        cancel.cancel();
        drop(script);
    };
    tokio::join!(session.prompt("go", None, FOREVER, None, &cancel), flood);
    assert!(sent < 20_000, "{sent} requests were read without an answer being taken");
}

#[tokio::test]
async fn frames_are_recorded_in_both_directions_and_the_run_s_token_is_not() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("run.jsonl");
    let (reader, writer, mut script) = pipe();
    let (to, _events) = mpsc::channel(8);
    let transcript = Transcript::open(&path, Secrets::default()).expect("opened");
    let recorded = StartOptions { transcript: Some(transcript), ..options() };
    let (session, _) = tokio::join!(Session::start(reader, writer, recorded, to), script.handshake());
    session.expect("started").close(Duration::from_secs(5)).await;
    let mut text = String::new();
    for _ in 0..500 {
        text = std::fs::read_to_string(&path).expect("readable");
        if text.lines().count() >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let frames: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSONL")).collect();
    let dirs: Vec<&str> = frames.iter().filter_map(|frame| frame["dir"].as_str()).collect();
    assert_eq!(dirs, ["out", "in", "out", "in"]);
    assert_eq!(frames[2]["frame"]["params"]["mcpServers"][0]["headers"][0]["value"], "Bearer [redacted]");
    assert!(!text.contains("the-run-s-token"));
}

#[tokio::test]
async fn closing_ends_the_agent_s_input() {
    let (session, mut script, _events) = started().await;
    let (ended, ()) = tokio::join!(script.lines.next_line(), session.close(Duration::from_secs(5)));
    assert_eq!(ended.expect("clean end"), None);
}

#[tokio::test]
async fn a_real_child_that_crashes_mid_turn_is_a_transport_failure() {
    let shell = r#"
        id() { sed -E 's/.*"id":"([^"]*)".*/\1/'; }
        read -r line; printf '{"jsonrpc":"2.0","id":"%s","result":{"protocolVersion":1,"agentCapabilities":{}}}\n' "$(printf %s "$line" | id)"
        read -r line; printf '{"jsonrpc":"2.0","id":"%s","result":{"sessionId":"sh"}}\n' "$(printf %s "$line" | id)"
        read -r line; echo 'starting work'; echo 'oops' >&2; kill -9 $$
    "#;
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", shell])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("sh");
    let (stdout, stdin) = (child.stdout.take().expect("piped"), child.stdin.take().expect("piped"));
    let (to, mut events) = mpsc::channel(64);
    let without = StartOptions { mcp: None, ..options() };
    let mut session = Session::start(stdout, stdin, without, to).await.expect("started");
    let turn = session.prompt("go", None, FOREVER, None, &CancellationToken::new()).await;
    assert_eq!(turn.end.code(), "port_exit");
    assert_eq!(kinds(&mut events), ["session_started", "malformed", "port_exit"], "stderr is no event of the session");
    child.wait().await.expect("reaped");
}
