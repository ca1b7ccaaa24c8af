//! What passes: streams as they come, in the provider's own words, and what they used is counted.

use super::server::Server;
use super::{BOTH, KEY, command, noted, project, worked};
use crate::rig::until;

#[test]
fn an_answer_streams_through_under_the_hosts_key_and_what_it_used_is_counted() {
    let server = Server::start();
    let scenario = r#"turn() {
        ask stream; note stream
        model /anthropic/v1/messages/count_tokens '{"model":"json","messages":[]}'; note count
        model /anthropic/v1/messages?beta=true '{"model":"json","messages":[]}' "anthropic-beta: a-1, oauth-2025-04-20" "anthropic-version: 2023-06-01" "x-stainless-os: guest" "openai-organization: theirs"; note json
        local host=127.0.0.1:8485
        http POST /openai/v1/chat/completions '{"model":"chat","stream":true,"messages":[]}' "x-api-key: $OPENAI_API_KEY"; note chat
        http GET /anthropic/v1/models "" "x-api-key: $ANTHROPIC_AUTH_TOKEN"; note models
        answer="$ANTHROPIC_BASE_URL $OPENAI_BASE_URL"; note urls
        host=127.0.0.1:8484; done_
    }"#;
    let (notes, log) = worked(&project(scenario, &server, ""), &BOTH);
    let stream = noted(&notes, "stream");
    assert!(
        stream.starts_with("HTTP/1.1 200") && stream.contains("\"name\":\"bash\"") && stream.contains("message_stop"),
        "{stream}"
    );
    assert!(stream.contains("request-id: req-1") && !notes.contains("planted"), "{notes}");
    assert_eq!(noted(&notes, "urls").trim(), "http://127.0.0.1:8485/anthropic http://127.0.0.1:8485/openai/v1");
    assert!(noted(&notes, "chat").contains("hello") && noted(&notes, "models").starts_with("HTTP/1.1 200"), "{notes}");

    let asked = server.asked();
    assert_eq!(asked.len(), 5, "{asked:#?}");
    let key = format!("x-api-key: {KEY}\r\n");
    assert!(
        asked[0].head.starts_with("post /base/v1/messages http/1.1\r\n") && asked[0].head.contains(&key),
        "{asked:#?}"
    );
    assert!(
        asked.iter().all(|asked| !asked.head.contains("stainless") && !asked.head.contains("organization")),
        "{asked:#?}"
    );
    assert!(asked[2].head.starts_with("post /base/v1/messages?beta=true "), "{asked:#?}");
    assert!(
        asked[2].head.contains("anthropic-beta: a-1\r\n") && asked[2].head.contains("anthropic-version: 2023-06-01")
    );
    assert!(asked[3].head.contains(&format!("authorization: bearer {KEY}\r\n")), "{asked:#?}");
    assert_eq!(asked[3].body["stream_options"]["include_usage"], true);
    // 10 + 200 in and 50 out; 3 and 4; 100 and 10. Counting tokens uses none.
    let totals = r#""input_tokens":313,"output_tokens":64,"total_tokens":377"#;
    assert!(log.contains(totals), "{log}");
}

#[test]
fn the_first_bytes_reach_the_agent_before_the_provider_has_said_the_rest() {
    let server = Server::start();
    let scenario = r#"turn() {
        exec 7<>/dev/tcp/127.0.0.1/8485
        local body='{"model":"slow","stream":true,"messages":[]}'
        printf 'POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: %s\r\nContent-Length: %s\r\n\r\n%s' "$ANTHROPIC_AUTH_TOKEN" "${#body}" "$body" >&7
        while IFS= read -r part <&7; do [[ $part == *message_start* ]] && break; done
        say "the first event is here"
        answer=$(cat <&7); note rest
        done_
    }"#;
    let project = project(scenario, &server, "");
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    until("the first event", || running.state().to_string().contains("the first event is here"));
    server.release();
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    assert!(noted(&notes, "rest").contains("message_stop"), "{notes}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_agent_that_hangs_up_or_is_stopped_ends_its_request_at_the_provider() {
    let server = Server::start();
    let scenario = r#"turn() {
        for model in hang drip; do
            exec 7<>/dev/tcp/127.0.0.1/8485
            local body="{\"model\":\"$model\",\"stream\":true,\"messages\":[]}"
            printf 'POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: %s\r\nContent-Length: %s\r\n\r\n%s' "$ANTHROPIC_AUTH_TOKEN" "${#body}" "$body" >&7
            sleep 1
            exec 7>&-
        done
        ask hang
    }"#;
    let project = project(scenario, &server, "");
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    until("two requests to be dropped, and the third", || server.dropped() == 2 && server.asked().len() == 3);
    // What was cut is counted as far as it was told.
    running.until_state("the cut answer's tokens", |state| {
        let row = &state["running"][0];
        row["tokens"]["input_tokens"] == 210 && row["tokens_metered"] == true
    });
    project.write("issues/Cancelled/.keep", "");
    let issues = project.dir().join("issues");
    std::fs::rename(issues.join("Todo/A-1.md"), issues.join("Cancelled/A-1.md")).expect("moved");
    until("the third to be dropped", || server.dropped() == 3);
    assert_eq!(running.stop(), 0);
}

#[test]
fn what_a_provider_says_of_its_troubles_reaches_agent_and_operator() {
    let server = Server::start();
    let scenario = r#"turn() {
        for model in cut moved; do ask $model; note $model; done
        done_
    }"#;
    let (notes, log) = worked(&project(scenario, &server, ""), &BOTH);
    let cut = noted(&notes, "cut");
    assert!(cut.contains("message_start") && !cut.contains("message_stop") && !cut.contains("\n0\n"), "{notes}");
    let moved = noted(&notes, "moved");
    assert!(moved.starts_with("HTTP/1.1 502") && !moved.to_lowercase().contains("location:"), "{notes}");
    assert_eq!(server.asked().len(), 2, "nothing is asked twice");
    assert!(log.contains("whole=false"), "the cut answer is told from a whole one: {log}");
}
