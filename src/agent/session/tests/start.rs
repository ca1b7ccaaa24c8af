//! How a session starts and ends.

use super::*;

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
async fn another_protocol_version_or_a_senseless_answer_fails_the_start() {
    for result in [json!({"protocolVersion": 2}), json!({}), json!(null), json!("hello")] {
        let error = refused(options(), async |mut script: Script| {
            let hello = script.read().await;
            script.answer(&hello, result.clone()).await;
            script.lines.next_line().await.expect("the connection ends");
        })
        .await;
        assert_eq!(error.code().as_str(), "startup_failed", "{error}");
    }
    for id in [json!(5), json!(""), json!("x".repeat(SESSION_ID + 1))] {
        let error = refused(options(), async |mut script: Script| {
            let hello = script.read().await;
            script
                .answer(&hello, json!({"protocolVersion": 1, "agentCapabilities": {"mcpCapabilities": {"http": true}}}))
                .await;
            let new = script.read().await;
            script.answer(&new, json!({"sessionId": id.clone()})).await;
        })
        .await;
        assert_eq!(error.code().as_str(), "startup_failed");
    }
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
    assert_eq!(refused(options(), poor).await.code().as_str(), "mcp_capability_mismatch");
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
        (silent.code().as_str(), silent),
        ("response_timeout", AgentError::Response { during: "initialize", after_ms: 30_000 })
    );
    let error = refused(options(), async |mut script: Script| {
        let hello = script.read().await;
        script.send(json!({"jsonrpc": "2.0", "id": hello["id"], "error": {"code": -32000, "message": "log in"}})).await;
    })
    .await;
    assert_eq!(error.code().as_str(), "response_error");
    assert!(error.to_string().contains("log in"));
    let gone = refused(options(), async |script: Script| drop(script)).await;
    assert_eq!(gone.code().as_str(), "port_exit");
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

/// What may be the beginning of a secret waits for the next chunk, and must not be lost when there is none.
#[tokio::test]
async fn words_that_wait_when_a_session_is_dropped_or_its_agent_dies_are_in_the_transcript() {
    for dies in [true, false] {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("run.jsonl");
        let (reader, writer, mut script) = pipe();
        let (to, mut events) = mpsc::channel(64);
        let transcript = Transcript::open(&path, Secrets::default()).expect("opened");
        let recorded = StartOptions { transcript: Some(transcript), ..options() };
        let (session, _) = tokio::join!(Session::start(reader, writer, recorded, to), script.handshake());
        let session = session.expect("started");
        let chunk =
            json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "I saw the-ru"}});
        let params = json!({"sessionId": "s-1", "update": chunk});
        script.send(json!({"jsonrpc": "2.0", "method": "session/update", "params": params})).await;
        let seen = async {
            while let Some(event) = events.recv().await {
                if event.kind == "agent_message_chunk" {
                    return event.message;
                }
            }
            String::new()
        };
        assert_eq!(seen.await, "I saw");
        if dies {
            drop(script);
            session.closed().await;
        } else {
            drop(session);
        }
        let mut text = String::new();
        for _ in 0..500 {
            text = std::fs::read_to_string(&path).expect("readable");
            if text.contains(r#""text":"the-ru""#) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(text.contains(r#""text":"I saw ""#) && text.contains(r#""text":"the-ru""#), "{text}");
    }
}

#[tokio::test]
async fn an_agent_that_dies_between_turns_is_noticed_and_the_next_prompt_fails_at_once() {
    let (mut session, script, _events) = started().await;
    drop(script);
    session.closed().await;
    let turn = session.prompt("go", None, FOREVER, Outside::default(), &CancellationToken::new()).await;
    assert_eq!((turn.end.code(), turn.usable), ("port_exit", false));
}

#[tokio::test(start_paused = true)]
async fn closing_ends_the_agent_s_input_without_using_up_the_grace() {
    let (session, mut script, _events) = started().await;
    let before = tokio::time::Instant::now();
    let (ended, ()) = tokio::join!(script.lines.next_line(), session.close(Duration::from_secs(60)));
    assert_eq!(ended.expect("clean end"), None);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test]
async fn dropping_a_session_ends_the_agent_s_input_at_once() {
    let (session, mut script, _events) = started().await;
    drop(session);
    assert_eq!(script.lines.next_line().await.expect("clean end"), None);
}

#[tokio::test(start_paused = true)]
async fn closing_does_not_wait_for_an_agent_that_reads_nothing() {
    let (mut session, script, _events) = started().await;
    let limits = TurnLimits { total_ms: 1000, ..FOREVER };
    let huge = "x".repeat(1_000_000);
    let turn = session.prompt(&huge, None, limits, Outside::default(), &CancellationToken::new()).await;
    assert_eq!((turn.end.code(), turn.usable), ("turn_timeout", false));
    let before = tokio::time::Instant::now();
    session.close(Duration::from_secs(3)).await;
    assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
    drop(script);
}

#[tokio::test]
async fn giving_up_a_start_midway_ends_the_agent_s_input() {
    let (reader, writer, mut script) = pipe();
    let (to, _events) = mpsc::channel(8);
    let mut start = Box::pin(Session::start(reader, writer, options(), to));
    tokio::select! {
        biased;
        _ = &mut start => panic!("nobody answered"),
        hello = script.read() => assert_eq!(hello["method"], "initialize"),
    }
    drop(start);
    while let Some(line) = script.lines.next_line().await.expect("clean end") {
        assert!(line.contains("cancel"), "{line}");
    }
}
