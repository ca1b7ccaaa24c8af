//! Turns: how they end, what is asked within them, how long they may take.

use symphony_core::patience::Impatience;

use super::*;

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
    let (turn, ()) = tokio::join!(session.prompt("go", Some("42"), FOREVER, Outside::default(), &cancel), play);
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
    let late = json!([option("o", "allow_once")]);
    assert_eq!(script.ask_permission(late).await, json!({"outcome": "cancelled"}), "nothing is approved between turns");
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
    let (first, ()) = tokio::join!(session.prompt("go", None, FOREVER, Outside::default(), &cancel), play);
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
    let turn = session.prompt("go", None, FOREVER, Outside::default(), &cancel).await;
    assert_eq!((&turn.end, turn.usable), (&TurnEnd::Cancelled, false));
    assert!(before.elapsed() >= CANCEL_GRACE && before.elapsed() < CANCEL_GRACE * 2);
    assert_eq!(script.read().await["method"], "session/prompt");
    assert_eq!(script.read().await["method"], "session/cancel");
    let again = session.prompt("go", None, FOREVER, Outside::default(), &CancellationToken::new()).await;
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

async fn limited(limits: TurnLimits, channel: Option<ChannelIdle<'_>>, updates: Vec<Value>) -> (Turn, Duration) {
    let (mut session, mut script, _events) = started().await;
    let before = tokio::time::Instant::now();
    let cancel = CancellationToken::new();
    let (turn, ()) = tokio::join!(
        session.prompt("go", None, limits, Outside { idle: channel, held: None }, &cancel),
        talk(&mut script, updates)
    );
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

    let open = json!({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "make", "status": "in_progress"});
    let other = json!({"sessionUpdate": "available_commands_update", "availableCommands": []});
    let closed = json!({"sessionUpdate": "tool_call_update", "toolCallId": "1", "status": "failed"});
    let updates = vec![open, other.clone(), other.clone(), other.clone(), other, closed];
    let (turn, took) = limited(stall, None, updates).await;
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Stall));
    assert!(took >= ms(900) && took < ms(1100), "a call that closes late wakes the clocks: {took:?}");
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
    let idle = || channel.idle_ms();
    let (turn, _) = limited(limits, Some(&idle), vec![]).await;
    ticking.abort();
    assert_eq!(turn.end, TurnEnd::TimedOut(Impatience::Total));
}
