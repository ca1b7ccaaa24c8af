//! Agents that misbehave, each in its own way: transport, protocol, agent and timeout are told apart.

use super::{mark, row, sleeper, starts, until_gone};
use crate::fake_agent;
use crate::rig::{Project, until};

/// Runs such an agent until its issue is parked, and returns the note that says why.
fn parked(parts: &str, acp: &str) -> (Project, String) {
    let project = fake_agent::project(parts, acp, "budget:\n  failures_in_a_row: 1\n");
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 3);
    let note = project.parked_note("A-1");
    (project, note)
}

#[track_caller]
fn says(parts: &str, acp: &str, words: &[&str]) {
    let (_project, note) = parked(parts, acp);
    for word in words {
        assert!(note.contains(word), "no `{word}` in: {note}");
    }
}

#[test]
fn the_fake_agent_as_it_is_finishes_its_issue() {
    // The control of this file: what is changed in a test is what that test is about.
    let project = fake_agent::project("", "", "");
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 0);
    assert!(project.apply_patch("A-1").join("work.txt").exists());
    assert!(project.read(".symphony/patches/agent_A-1.patch").contains("Finished"));
}

#[test]
fn one_that_never_answers_initialize_or_a_new_session_is_a_response_timeout() {
    let limit = "  read_timeout_ms: 700\n";
    says("on_initialize() { :; }", limit, &["response_timeout", "did not answer initialize within 700 ms"]);
    says("on_new() { :; }", limit, &["response_timeout", "session/new"]);
}

#[test]
fn one_that_prints_garbage_breaks_the_protocol_or_is_not_heard() {
    // Lines that are no JSON are noise; without an answer the time runs out, and the noise is in the record.
    let limit = "  read_timeout_ms: 700\n";
    let (project, note) = parked("on_initialize() { say 'not json at all'; say '{\"half\":'; }", limit);
    assert!(note.contains("response_timeout"), "{note}");
    assert!(project.read(".symphony/runs/1/acp.jsonl").contains("not json at all"));
    says("on_initialize() { result '{\"no\":\"version\"}'; }", "", &["startup_failed", "no protocolVersion"]);
    says("on_new() { result '{}'; }", "", &["startup_failed", "no sessionId"]);
    says("on_prompt() { result '{}'; }", "", &["turn_failed", "no stop reason"]);
}

#[test]
fn one_that_speaks_another_version_or_has_no_use_for_our_tools_fails_at_the_start() {
    says("on_initialize() { result '{\"protocolVersion\":2}'; }", "", &["startup_failed", "ACP version 2"]);
    let deaf = "on_initialize() { result '{\"protocolVersion\":1,\"agentCapabilities\":{}}'; }";
    says(deaf, "", &["mcp_capability_mismatch", "mcp.enabled: false"]);
    // Told to do without tools, the same agent works until its turns and its runs are used up.
    let parts = format!("{deaf}\non_prompt() {{ stop end_turn; }}");
    let project = fake_agent::project(&parts, "", "mcp:\n  enabled: false\nbudget:\n  sessions: 1\n");
    let workflow = project.read("WORKFLOW.md").replace("agent:\n", "agent:\n  max_turns: 2\n");
    project.write("WORKFLOW.md", &workflow);
    project.issue("Todo", "A-1", "Work.");
    assert_eq!(project.once(), 3);
    let note = project.parked_note("A-1");
    assert!(note.contains("1 runs ended without the issue being finished"), "{note}");
    let frames = project.read(".symphony/runs/1/acp.jsonl");
    let prompts = frames.lines().filter(|line| line.contains("session/prompt")).count();
    assert!(prompts >= 2 && !frames.contains("Bearer"), "{frames}");
}

#[test]
fn one_that_exits_is_a_lost_connection_wherever_it_does() {
    says("on_initialize() { exit 3; }", "", &["port_exit", "initialize"]);
    says("on_prompt() { echo last words >&2; exit 3; }", "", &["port_exit", "session/prompt"]);
}

#[test]
fn one_that_answers_with_an_error_is_quoted() {
    says("on_initialize() { failure -32603 'no licence'; }", "", &["response_error", "-32603", "no licence"]);
    says("on_prompt() { failure -32000 'model is away'; }", "", &["turn_failed", "-32000", "model is away"]);
}

#[test]
fn each_stop_reason_but_end_turn_is_a_failure_with_its_own_words() {
    for (reason, code, words) in [
        ("max_tokens", "turn_failed", "token limit"),
        ("max_turn_requests", "turn_failed", "its own limit of model requests"),
        ("refusal", "turn_failed", "refused to go on"),
        ("cancelled", "turn_cancelled", "the turn was cancelled"),
        ("tired", "turn_failed", "tired"),
    ] {
        says(&format!("on_prompt() {{ stop {reason}; }}"), "", &[code, words]);
    }
}

#[test]
fn silence_within_a_turn_ends_it_and_everything_it_started() {
    let mark = mark();
    let parts = format!("on_prompt() {{ sleep {mark} & }}");
    let project = fake_agent::project(&parts, "  turn_timeout_ms: 1000\n", "budget:\n  failures_in_a_row: 1\n");
    project.issue("Todo", "A-1", "Work.");
    let running = project.start();
    sleeper(&mark);
    until("the issue to be parked", || project.exists("issues/Parked/A-1.md"));
    let note = project.parked_note("A-1");
    assert!(note.contains("turn_timeout"), "{note}");
    until_gone(&mark);
    assert!(project.read(".symphony/runs/1/acp.jsonl").contains("session/cancel"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_turn_that_never_ends_while_it_talks_ends_at_its_total() {
    let chat = "on_prompt() { while :; do say '{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"fake-1\",\"update\":{\"sessionUpdate\":\"agent_message_chunk\",\"content\":{\"type\":\"text\",\"text\":\"hm\"}}}}'; sleep 0.1; done; }";
    let limits = "  prompt_timeout_ms: 2000\n  turn_timeout_ms: 60000\n";
    says(chat, limits, &["turn_timeout", "prompt_timeout_ms"]);
}

#[test]
fn the_reason_of_a_failure_stands_in_the_row_of_its_retry_and_in_the_log() {
    let project = fake_agent::project("on_prompt() { failure -32000 'model is away'; }", "", "");
    let workflow = project.read("WORKFLOW.md").replace("max_retry_backoff_ms: 300", "max_retry_backoff_ms: 600000");
    project.write("WORKFLOW.md", &workflow);
    project.issue("Todo", "A-1", "Work.");
    let running = project.start();
    let state = running.until_state("the retry", |state| row(state, "retrying", "A-1").is_some());
    let error = row(&state, "retrying", "A-1").expect("a row")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("turn_failed") && error.contains("model is away"), "{state}");
    assert!(running.log().contains("model is away") && starts(&running, "A-1") == 1);
    assert_eq!(running.stop(), 0);
}
