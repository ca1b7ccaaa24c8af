//! How an older session goes on, and how a new one begins where it does not.

use super::*;
use crate::agent::session::Begun;

fn older() -> StartOptions {
    StartOptions { resume: Some("old-1".into()), ..options() }
}

impl Script {
    /// Answers initialize with these further capabilities; gives back the next request.
    async fn offering(&mut self, more: Value) -> Value {
        let hello = self.read().await;
        let mut capabilities = json!({"mcpCapabilities": {"http": true}});
        for (name, value) in more.as_object().expect("an object") {
            capabilities[name] = value.clone();
        }
        self.answer(&hello, json!({"protocolVersion": 1, "agentCapabilities": capabilities})).await;
        self.read().await
    }
}

#[tokio::test]
async fn the_way_without_a_history_is_preferred_and_both_name_session_place_and_tools() {
    let both = json!({"loadSession": true, "sessionCapabilities": {"resume": {}}});
    let load = json!({"loadSession": true, "sessionCapabilities": {"resume": null}});
    for (offer, method) in [(both, "session/resume"), (load, "session/load")] {
        let (reader, writer, mut script) = pipe();
        let (to, mut events) = mpsc::channel(64);
        let play = async {
            let request = script.offering(offer).await;
            script.answer(&request, json!(null)).await;
            request
        };
        let (session, request) = tokio::join!(Session::start(reader, writer, older(), to), play);
        let session = session.expect("started");
        assert_eq!((session.id(), session.begun(), session.is_continuable()), ("old-1", &Begun::Continued, true));
        assert_eq!(request["method"], method);
        assert_eq!((&request["params"]["sessionId"], &request["params"]["cwd"]), (&json!("old-1"), &json!("/work")));
        let header = &request["params"]["mcpServers"][0]["headers"][0]["value"];
        assert_eq!(header, "Bearer the-run-s-token");
        assert_eq!(kinds(&mut events), ["session_continued"]);
    }
}

#[tokio::test]
async fn a_history_is_no_news_opens_no_tool_call_and_is_not_recorded() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("acp.jsonl");
    let (reader, writer, mut script) = pipe();
    let (to, mut events) = mpsc::channel(64);
    let transcript = Transcript::open(&path, Secrets::default()).expect("opened");
    let options = StartOptions { transcript: Some(transcript), ..older() };
    let history = async |script: &mut Script| {
        let text = json!({"type": "text", "text": "words of old"});
        script.update(json!({"sessionUpdate": "agent_message_chunk", "content": text})).await;
        script.update(json!({"sessionUpdate": "tool_call", "toolCallId": "t", "status": "pending"})).await;
    };
    let play = async {
        let load = script.offering(json!({"loadSession": true})).await;
        for _ in 0..500 {
            history(&mut script).await;
        }
        script.answer(&load, json!({})).await;
        // Some tell on after their answer. It is old all the same until they are prompted.
        history(&mut script).await;
    };
    let (session, ()) = tokio::join!(Session::start(reader, writer, options, to), play);
    let mut session = session.expect("started");
    // What was written before has been read by the time that this is answered.
    let permitted = script.ask_permission(json!([{"optionId": "a", "name": "A", "kind": "allow_once"}])).await;
    assert_eq!(permitted["outcome"], "cancelled", "no turn is under way that could need it");
    assert!(!session.shared.updates().tool_open());
    let news = async {
        let prompt = script.read().await;
        let text = json!({"type": "text", "text": "new words"});
        script.update(json!({"sessionUpdate": "agent_message_chunk", "content": text})).await;
        script.answer(&prompt, json!({"stopReason": "end_turn"})).await;
    };
    assert_eq!(turn(&mut session, news).await.end, TurnEnd::EndTurn);
    let seen: Vec<_> = std::iter::from_fn(|| events.try_recv().ok()).map(|e| (e.kind, e.message)).collect();
    assert!(seen.contains(&("history_dropped", "1002 updates of its history".into())), "{seen:?}");
    let told: Vec<_> = seen.iter().filter(|(kind, _)| *kind == "agent_message_chunk" || *kind == "tool_call").collect();
    assert_eq!(told, [&("agent_message_chunk", "new words".to_owned())]);
    session.close(Duration::from_secs(5)).await;
    drop(script);
    let recorded = || std::fs::read_to_string(&path).expect("readable");
    while !recorded().contains("end_turn") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(recorded().contains("new words") && !recorded().contains("words of old"));
}

#[tokio::test]
async fn an_agent_that_refuses_gets_a_new_session_at_once_and_one_that_cannot_is_not_asked() {
    let (reader, writer, mut script) = pipe();
    let (to, mut events) = mpsc::channel(64);
    let play = async {
        let load = script.offering(json!({"loadSession": true})).await;
        script.update(json!({"sessionUpdate": "plan", "entries": []})).await;
        let error = json!({"code": -32002, "message": "unknown session"});
        script.send(json!({"jsonrpc": "2.0", "id": load["id"], "error": error})).await;
        let new = script.read().await;
        script.answer(&new, json!({"sessionId": "new-1"})).await;
        new
    };
    let (session, new) = tokio::join!(Session::start(reader, writer, older(), to), play);
    let session = session.expect("started");
    assert_eq!((session.id(), &new["method"]), ("new-1", &json!("session/new")));
    assert!(matches!(session.begun(), Begun::Refused(why) if why.contains("unknown session")));
    assert_eq!(kinds(&mut events), ["history_dropped", "session_not_continued", "session_started"]);

    for offer in [json!({}), json!({"loadSession": "yes"}), json!({"sessionCapabilities": {"resume": false}})] {
        let (reader, writer, mut script) = pipe();
        let (to, _events) = mpsc::channel(64);
        let play = async {
            let new = script.offering(offer).await;
            script.answer(&new, json!({"sessionId": "new-1"})).await;
            assert_eq!(new["method"], "session/new");
        };
        let (session, ()) = tokio::join!(Session::start(reader, writer, older(), to), play);
        let session = session.expect("started");
        assert_eq!((session.begun(), session.is_continuable()), (&Begun::New, false));
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_dies_hangs_or_floods_over_its_session_fails_as_such() {
    let dies =
        refused(older(), async |mut script: Script| drop(script.offering(json!({"loadSession": true})).await)).await;
    let hangs = refused(older(), async |mut script: Script| {
        script.offering(json!({"loadSession": true})).await;
        // Talking is no answer.
        for _ in 0..20 {
            script.update(json!({"sessionUpdate": "plan", "entries": []})).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    })
    .await;
    let short = StartOptions { max_line: 1000, ..older() };
    let floods = refused(short, async |mut script: Script| {
        script.offering(json!({"loadSession": true})).await;
        script.raw(&format!("{}\n", "x".repeat(2000))).await;
        script.lines.next_line().await.expect("the connection ends");
    })
    .await;
    let codes = [&dies, &hangs, &floods].map(|error| error.code().as_str());
    assert_eq!(codes, ["port_exit", "response_timeout", "startup_failed"]);
    assert!([dies, hangs, floods].iter().all(AgentError::is_of_continuing));
    let new =
        refused(options(), async |mut script: Script| drop(script.offering(json!({"loadSession": true})).await)).await;
    assert!(!new.is_of_continuing(), "the control: {new}");
}
