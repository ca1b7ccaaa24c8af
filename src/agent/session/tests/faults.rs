//! Agents that break, babble or flood.

use super::*;

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
    assert_eq!((count("malformed"), count("unsupported"), count("notification")), (5, 4, 0), "{seen:?}");
    assert_eq!((count("session_update"), count("ignored")), (0, 0), "not one event each: {seen:?}");
    session.close(Duration::from_secs(5)).await;
    let told: Vec<AgentEvent> = std::iter::from_fn(|| events.try_recv().ok()).filter(|e| e.kind == "ignored").collect();
    let words = "3 messages of kinds that symphony does not know: an update without a kind (1), hologram (1), qwen/notify/session/prompt-suggestion (1)";
    assert_eq!(told.iter().map(|event| event.message.as_str()).collect::<Vec<_>>(), [words]);
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
    let words = refused.end.to_string();
    assert!(words.contains("a line of more than 10000000 bytes or 100000 values: more is not taken"), "{words}");
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
    tokio::join!(session.prompt("go", None, FOREVER, Outside::default(), &cancel), flood);
    assert!(sent < 5_000, "{sent} requests were read without an answer being taken");
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
    let turn = session.prompt("go", None, FOREVER, Outside::default(), &CancellationToken::new()).await;
    assert_eq!(turn.end.code(), "port_exit");
    assert_eq!(kinds(&mut events), ["session_started", "malformed", "port_exit"], "stderr is no event of the session");
    child.wait().await.expect("reaped");
}

#[tokio::test]
async fn a_line_that_would_explode_when_parsed_ends_the_session_unparsed() {
    let (mut session, mut script, _events) = started().await;
    let turn = turn(&mut session, async {
        script.read().await;
        let bomb = "{\"a\":0},".repeat(1_000_000);
        script.raw(&format!("{{\"method\":\"session/update\",\"params\":[{bomb}0]}}\n")).await;
    })
    .await;
    assert!(matches!(turn.end, TurnEnd::Failed(AgentError::Protocol { .. })), "{turn:?}");
}

#[tokio::test]
async fn the_last_line_counts_even_without_its_newline() {
    let (mut session, mut script, _events) = started().await;
    let turn = turn(&mut session, async {
        let prompt = script.read().await;
        let last = json!({"jsonrpc": "2.0", "id": prompt["id"], "result": {"stopReason": "end_turn"}});
        script.raw(&last.to_string()).await;
        drop(script);
    })
    .await;
    assert_eq!(turn.end, TurnEnd::EndTurn);
}
