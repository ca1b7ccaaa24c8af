//! The JSON routes: exact shapes, and what refused requests get.

use serde_json::json;
use symphony_core::issue::{Issue, Scan};
use symphony_core::workflow::Auth;

use super::{House, empty};

fn nothing_used() -> serde_json::Value {
    json!({"requests": 0, "input_tokens": 0, "output_tokens": 0, "cache_read_tokens": 0, "cache_write_tokens": 0,
        "total_tokens": 0, "usd": "0.00", "unpriced_tokens": 0, "assumed_tokens": 0})
}

#[tokio::test]
async fn the_state_has_the_fields_of_0_1_0_and_ours_beside_them() {
    let house = House::open().await;
    let reply = house.get("/api/v1/state").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let state = reply.json();
    assert_eq!(state["generated_at"], "2026-01-02T03:00:00.000Z");
    assert_eq!(state["version"], 42);
    assert_eq!((&state["sandbox"], &state["sandbox_reason"]), (&json!("jail"), &json!("no <microVM> here")));
    assert_eq!(state["counts"], json!({"running": 2, "retrying": 1, "blocked": 4, "queued": 1, "idle": 5}));
    assert_eq!(
        state["running"][0],
        json!({
            "issue_id": "ask-1", "issue_identifier": "ASK-1",
            "issue_title": "<script>alert('title')</script>", "title": "<script>alert('title')</script>",
            "issue_body": "Do *this*.\n\n<script>alert('body')</script>", "issue_url": "javascript:alert(1)",
            "run_id": 5, "state": "Todo", "phase": "waiting for a human",
            "sandbox": "qemu (TCG)", "attempt": null,
            "session_id": "sess-0123456789", "session_continued": true, "turn_count": 2, "last_event": "tool_call",
            "last_message": "<b>asks</b>", "started_at": "2026-01-02T02:50:00.000Z",
            "last_event_at": "2026-01-02T02:59:00.000Z",
            "tokens": {"input_tokens": 1200, "output_tokens": 300, "total_tokens": 1500},
            "tokens_metered": true,
            "egress": {"hosts": 0, "connections": 0, "denied": 0, "bytes_sent": 0, "bytes_received": 0},
            "spend": nothing_used(), "issue_spend": nothing_used(), "steering_requested": true,
            "steering_question": "Which **way**? <img src=x onerror=alert(1)>",
            "steering_context": "[look](javascript:alert(2)) and [this](https://example.org/)",
            "steering_asked_at": "2026-01-02T02:59:00.000Z", "steering_answered": false,
            "steering_question_id": 7, "steering_default_at": null, "steering_default_answer": null,
            "marked_done": false, "workspace_path": "/home/me/project/.symphony/workspaces/ASK-1", "last_end": null
        })
    );
    assert_eq!(
        state["retrying"],
        json!([{
            "issue_id": "retry-1", "issue_identifier": "RETRY-1", "issue_url": null, "title": "Try me <again>",
            "state": "Todo", "attempt": 3, "due_at": "2026-01-02T03:00:40.000Z",
            "error": "agent exited with <code> 1", "retry_kind": "failure",
            "issue_spend": nothing_used(), "reason": "waits for its next attempt", "reason_code": "backing-off",
            "last_end": {
                "reason": "agent-exit", "message": "port_exit: the agent said <boom>",
                "left": "1 commit in the work tree"
            }
        }])
    );
    assert_eq!(
        state["idle"][0],
        json!({
            "issue_id": "blocked-1", "issue_identifier": "BLOCKED-1", "title": "Title of BLOCKED-1", "state": "Todo",
            "role": "active", "reason": "blocked by BUSY-1, which is in Todo", "reason_code": "blocked", "parked": false,
            "proposal": false, "proposed_by": null, "issue_spend": nothing_used(),
            "last_end": null, "remedy": "Finish BUSY-1 first, or remove it from `blocked_by`."
        })
    );
    assert_eq!(state["running"][1]["last_end"]["reason"], "stalled");
    assert_eq!(
        state["finished"],
        json!([{
            "issue_id": "ready-1", "issue_identifier": "READY-1", "title": "Title of <READY-1>",
            "outcome": "git am /home/me/project/.symphony/patches/agent_READY-1.patch", "end_reason": "done",
            "finished_at": "2026-01-02T02:40:00.000Z"
        }])
    );
    let totals = json!({"input_tokens": 1200, "output_tokens": 300, "total_tokens": 1500, "seconds_running": 3725.5});
    assert_eq!((&state["totals"], &state["codex_totals"]), (&totals, &totals));
    assert!(state.as_object().is_some_and(|state| state.contains_key("rate_limits")));
    assert_eq!(state["rate_limits"], json!(null));
    assert_eq!(state["sandbox"], "jail");
    assert_eq!(state["workflow"]["valid"], true);
    assert_eq!(state["workflow"]["states"][0], json!({"name": "Todo", "role": "active"}));
    assert_eq!(state["tracker"]["malformed"][0]["line"], 3);
    assert_eq!(state["tracker"]["ambiguous"][0]["files"], json!(["Todo/TWICE.md", "Done/TWICE.md"]));
}

#[tokio::test]
async fn a_question_that_no_run_waits_with_is_listed_and_counted() {
    let house = House::open().await;
    house.publish(|snapshot| {
        let mut row = super::idle("AWAY-1", "Todo", super::Role::Active, super::NotNow::AwaitingAnswer);
        row.id = super::IssueId("away-1".into());
        snapshot.idle.push(row);
        snapshot.asked.push(super::released());
    });
    let state = house.get("/api/v1/state").await.json();
    assert_eq!(state["counts"], json!({"running": 2, "retrying": 1, "blocked": 5, "queued": 1, "idle": 6}));
    assert_eq!(
        state["asked"],
        json!([{
            "issue_id": "away-1", "issue_identifier": "AWAY-1", "issue_title": "<script>alert('away')</script>",
            "issue_body": null, "issue_url": "javascript:alert(4)", "run_id": 4, "steering_question_id": 6,
            "steering_question": "Go **on**? <img src=x onerror=alert(5)>",
            "steering_context": "<iframe src=//evil.example>",
            "steering_asked_at": "2026-01-02T01:00:00.000Z", "steering_default_at": "2026-01-02T04:05:06.000Z",
            "steering_default_answer": "Go <b>on</b>."
        }])
    );
    let detail = house.get("/api/v1/issues/AWAY-1").await.json();
    assert_eq!(
        (&detail["status"], &detail["explanation"]["reason_code"]),
        (&json!("asking"), &json!("awaiting-answer"))
    );
    assert_eq!(detail["explanation"]["question"], "Go **on**? <img src=x onerror=alert(5)>");
    let remedy = detail["explanation"]["remedy"].as_str().expect("a remedy");
    assert!(remedy.contains("`symphony answer AWAY-1 \"…\"`"), "{remedy}");
}

#[tokio::test]
async fn the_state_is_still_served_while_the_program_drains_or_is_broken() {
    let house = House::with(Auth::Token, empty()).await;
    house.publish(|snapshot| {
        snapshot.draining = true;
        snapshot.workflow_problems = vec!["WORKFLOW.md:3:1: no such key".into()];
        snapshot.tracker_problem = Some("cannot read /issues".into());
    });
    let state = house.get("/api/v1/state").await.json();
    assert_eq!((&state["draining"], &state["workflow"]["valid"]), (&json!(true), &json!(false)));
    assert_eq!(state["workflow"]["problems"], json!(["WORKFLOW.md:3:1: no such key"]));
    assert_eq!(state["tracker"]["problem"], "cannot read /issues");
}

#[tokio::test]
async fn a_detail_is_found_by_its_decoded_identifier_under_both_routes() {
    let house = House::open().await;
    for path in ["/api/v1/issues/ASK-1", "/api/v1/ASK-1"] {
        let detail = house.get(path).await.json();
        assert_eq!(detail["issue_identifier"], "ASK-1");
        assert_eq!(detail["issue_id"], "ask-1");
        assert_eq!(detail["status"], "running");
        assert_eq!(detail["workspace"], json!({"path": "/home/me/project/.symphony/workspaces/ASK-1"}));
        assert_eq!(detail["attempts"], json!({"current_retry_attempt": null}));
        assert_eq!(detail["running"]["turn_count"], 2);
        assert_eq!(detail["retry"], json!(null));
        assert_eq!(
            detail["recent_events"],
            json!([{"at": "2026-01-02T02:59:00.000Z", "event": "tool_call", "message": "request_human_steering"}])
        );
        assert_eq!((&detail["last_error"], &detail["tracked"]), (&json!(null), &json!({})));
    }
    let retrying = house.get("/api/v1/RETRY-1").await.json();
    assert_eq!((&retrying["status"], &retrying["workspace"]), (&json!("retrying"), &json!(null)));
    assert_eq!(retrying["running"], json!(null));
    assert_eq!(
        retrying["retry"],
        json!({"attempt": 3, "due_at": "2026-01-02T03:00:40.000Z", "error": "agent exited with <code> 1"})
    );
    assert_eq!(house.get("/api/v1/BUSY%2F1%20%C3%A4").await.json()["attempts"]["current_retry_attempt"], 2);
    assert_eq!(house.get("/api/v1/issues/BUSY%2f1%20%c3%a4").await.status, 200);
    for unknown in ["/api/v1/NOPE", "/api/v1/issues/NOPE", "/api/v1/DONE-1"] {
        assert_eq!(house.get(unknown).await.refusal(), (404, "issue_not_found".into()), "{unknown}");
    }
}

#[tokio::test]
async fn every_issue_file_and_name_is_explained_under_its_own_route() {
    let house = House::open().await;
    let detail = async |id: &str| house.get(&format!("/api/v1/issues/{id}")).await.json();
    let blocked = detail("BLOCKED-1").await;
    assert_eq!(
        (&blocked["status"], &blocked["running"], &blocked["retry"]),
        (&json!("waiting"), &json!(null), &json!(null))
    );
    assert_eq!(blocked["explanation"]["reason"], "blocked by BUSY-1, which is in Todo");
    assert_eq!(blocked["explanation"]["reason_code"], "blocked");
    let retrying = detail("RETRY-1").await;
    assert_eq!(
        (&retrying["status"], &retrying["explanation"]["reason_code"]),
        (&json!("retrying"), &json!("backing-off"))
    );
    assert_eq!(retrying["explanation"]["due_at"], "2026-01-02T03:00:40.000Z");
    let parked = detail("PARKED-1").await;
    assert_eq!((&parked["status"], &parked["issue_id"]), (&json!("parked"), &json!("parked-1")));
    assert!(parked["explanation"]["remedy"].as_str().is_some_and(|text| text.contains("`In Progress/`")), "{parked}");
    let twice = detail("TWICE").await;
    assert_eq!((&twice["status"], &twice["issue_id"]), (&json!("ambiguous"), &json!(null)));
    assert_eq!(twice["explanation"]["files"], json!(["Todo/TWICE.md", "Done/TWICE.md"]));
    let bad = detail("Todo%2F%3Cbad%3E.md").await;
    assert_eq!((&bad["status"], &bad["explanation"]["files"][0]), (&json!("malformed"), &json!("Todo/<bad>.md:3:7")));
}

#[tokio::test]
async fn the_list_of_issues_is_sorted_and_an_unreadable_tracker_is_an_error() {
    let house = House::open().await;
    assert_eq!(house.get("/api/v1/issues").await.refusal(), (503, "local_root_read_error".into()));
    let issue = |name: &str, state: &str| Issue { title: format!("T {name}"), ..Issue::bare(name, state) };
    let scan = Scan { issues: vec![issue("B", "Done"), issue("A", "Todo")], ..Scan::default() };
    *house.tracker.scan.lock().expect("lock") = Some(scan);
    assert_eq!(
        house.get("/api/v1/issues").await.json(),
        json!({"issues": [
            {"identifier": "A", "state": "Todo", "title": "T A"},
            {"identifier": "B", "state": "Done", "title": "T B"}
        ]})
    );
}

#[tokio::test]
async fn wrong_methods_get_405_with_allow_and_the_envelope() {
    let house = House::open().await;
    for (method, path, allow) in [
        ("POST", "/", "GET"),
        ("POST", "/api/v1/state", "GET"),
        ("GET", "/api/v1/refresh", "POST"),
        ("DELETE", "/api/v1/issues", "POST"),
        ("PUT", "/api/v1/issues/ASK-1", "GET"),
        ("GET", "/api/v1/issues/ASK-1/steering-reply", "POST"),
        ("GET", "/api/v1/issues/ASK-1/message", "POST"),
        ("POST", "/api/v1/partials/header", "GET"),
        ("POST", "/api/v1/events", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/api/v1/ASK-1", "GET"),
    ] {
        let reply = house.ask(method, path, &[&house.bearer(), "Content-Type: application/json"], "").await;
        assert_eq!(reply.refusal(), (405, "method_not_allowed".into()), "{method} {path}");
        assert!(
            reply.header("allow").is_some_and(|allowed| allowed.contains(allow)),
            "{method} {path}: {}",
            reply.head
        );
    }
}

#[tokio::test]
async fn unknown_and_malformed_paths_are_refused_in_the_envelope() {
    let house = House::open().await;
    for path in ["/nowhere", "/api/v1/", "/api/v2/state", "/api/v1/issues/A/b", "/preview"] {
        assert_eq!(house.get(path).await.refusal(), (404, "not_found".into()), "{path}");
    }
    // The guest's endpoint is on the guest's own loopback.
    assert_eq!(house.post("/api/v1/issues/ASK-1/mcp", "{}").await.refusal(), (404, "not_found".into()));
    for path in ["/api/v1/%zz", "/api/v1/%", "/api/v1/%f", "/api/v1/issues/%FF%FE", "/%2"] {
        assert_eq!(house.get(path).await.refusal(), (400, "bad_request".into()), "{path}");
    }
    assert_eq!(house.get("/api/v1/partials/nope").await.refusal(), (404, "partial_not_found".into()));
}
