//! What does not pass: strangers, anything but inference, and whatever makes a provider reach out.

use super::server::Server;
use super::{BOTH, noted, project, worked};

#[test]
fn only_the_runs_own_token_and_only_plain_inference_get_through() {
    let server = Server::start();
    let scenario = r#"turn() {
        local mine=$ANTHROPIC_AUTH_TOKEN
        ANTHROPIC_AUTH_TOKEN=wrong; ask stream; note stranger
        ANTHROPIC_AUTH_TOKEN=; ask stream; note nobody
        ANTHROPIC_AUTH_TOKEN=$token; ask stream; note tools
        ANTHROPIC_AUTH_TOKEN=$mine
        model /anthropic/v1/files '{"model":"m"}'; note path
        model /anthropic/v1/messages '{"model":"m","messages":[],"tools":[{"type":"web_search_20250305","name":"web_search"}]}'; note tool
        model /anthropic/v1/messages '{"model":"m","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"https://example.com/x"}}]}]}'; note address
        model /openai/v1/responses '{"model":"m","input":"x","previous_response_id":"resp_1"}'; note stored
        model /openai/v1/responses '{"model":"m","input":"x","tools":[],"tools":[{"type":"web_search"}]}'; note twice
        model /anthropic/v1/messages '{"model":"m","messages":[],"brand_new":1}'; note field
        model /anthropic/v1/messages 'not json'; note garbage
        model /anthropic/v1/messages '{"model":"other","messages":[]}'; note model
        model /openai/v1/responses '' "Upgrade: websocket" "Connection: Upgrade"; note upgrade
        done_
    }"#;
    let project = project(scenario, &server, "");
    let workflow = project.read("WORKFLOW.md").replace("/base/\n", "/base/\n    models: [m, stream]\n");
    project.write("WORKFLOW.md", &workflow);
    let (notes, log) = worked(&project, &BOTH);
    for (name, status, word) in [
        ("stranger", 401, "authentication_error"),
        ("nobody", 401, "not the token of a run"),
        ("tools", 401, "not the token of a run"),
        ("path", 404, "only inference is"),
        ("tool", 400, "web_search_20250305"),
        ("address", 400, "messages[0].content[0].source"),
        ("stored", 400, "previous_response_id"),
        ("twice", 400, "web_search"),
        ("field", 400, "brand_new"),
        ("garbage", 400, "not JSON"),
        ("model", 400, "m, stream"),
        ("upgrade", 426, "server-sent events"),
    ] {
        let noted = noted(&notes, name);
        assert!(noted.starts_with(&format!("HTTP/1.1 {status}")) && noted.contains(word), "{name}: {noted}");
    }
    assert!(noted(&notes, "tool").contains("egress.provider_tools"), "{notes}");
    assert!(server.asked().is_empty(), "{:#?}", server.asked());
    assert!(log.contains("model_refused"), "the operator sees it: {log}");
}

#[test]
fn what_the_workflow_allows_passes_and_is_stored_by_nobody() {
    let server = Server::start();
    let scenario = r#"turn() {
        model /openai/v1/responses '{"model":"json","input":"x","store":true,"tools":[{"type":"web_search"}]}'; note search
        done_
    }"#;
    let (notes, _) = worked(&project(scenario, &server, "egress:\n  provider_tools: true\n"), &BOTH);
    assert!(noted(&notes, "search").starts_with("HTTP/1.1 200"), "{notes}");
    let asked = server.asked();
    assert!(asked[0].head.starts_with("post /v1/responses ") && asked[0].body["store"] == false, "{asked:#?}");
}
