//! The operator's door of the real binary. Every rule of it is tested closer by, in `src/web/tests`.

use serde_json::json;

use crate::rig::{FRONT, Project, until};

/// A run that lasts until it is told otherwise.
const LONG: &str = "```sh\nsleep 60\n```";

#[test]
fn without_the_token_only_health_answers() {
    let running = Project::new().start();
    let mut stranger = running.client();
    stranger.bearer = None;
    assert_eq!(stranger.get("/healthz").status, 200);
    for path in [
        "/api/v1/state",
        "/api/v1/issues",
        "/api/v1/issues/A-1",
        "/api/v1/A-1",
        "/api/v1/partials/header",
        "/api/v1/events",
    ] {
        let answer = stranger.get(path);
        assert_eq!((answer.status, answer.error_code()), (401, "unauthorized".into()), "{path}");
    }
    for path in ["/api/v1/refresh", "/api/v1/issues", "/api/v1/issues/A-1/steering-reply"] {
        assert_eq!(stranger.post_json(path, &json!({})).status, 401, "{path}");
    }
    stranger.bearer = Some("0".repeat(64));
    assert_eq!(stranger.get("/api/v1/state").status, 401);
    assert_ne!(stranger.get("/").status, 200);
}

#[test]
fn the_login_link_opens_the_page_in_a_browser() {
    let running = Project::new().start();
    let client = running.client();
    let link = format!("/login?token={}", client.bearer.clone().expect("a token"));
    let mut browser = client.clone();
    browser.bearer = None;
    let answer = browser.get(&link);
    assert!((300..400).contains(&answer.status), "{answer:?}");
    let cookie = answer.head.lines().find_map(|l| l.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().expect("a pair");
    let page = browser.send("GET", "/", &[("Cookie", cookie)], "");
    assert!(page.status == 200 && page.body.contains("symphony"), "{page:?}");
    assert!(page.head.to_lowercase().contains("content-security-policy: default-src 'none'"), "{}", page.head);
}

#[test]
fn a_running_issue_is_in_the_state_and_has_a_detail() {
    let project = Project::new();
    project.issue("Todo", "A-1", LONG);
    let running = project.start();
    let state = running.until_state("the run", |s| s["running"][0]["turn_count"] == json!(1));
    let row = &state["running"][0];
    assert_eq!(
        (&row["issue_identifier"], &row["state"], &row["title"]),
        (&json!("A-1"), &json!("Todo"), &json!("The title of A-1"))
    );
    assert_eq!(state["counts"], json!({"running": 1, "retrying": 0, "blocked": 0, "queued": 0, "idle": 0}));
    for field in ["session_id", "last_event", "started_at", "workspace_path"] {
        assert!(row[field].is_string(), "{field}: {row}");
    }
    assert!(row["tokens"]["total_tokens"].is_u64() && state["generated_at"].is_string(), "{state}");
    for totals in ["totals", "codex_totals"] {
        assert!(state[totals]["seconds_running"].as_f64().is_some_and(|s| s > 0.0), "{state}");
    }
    assert!(state.as_object().is_some_and(|s| s.contains_key("rate_limits") && s.contains_key("retrying")));
    for path in ["/api/v1/A-1", "/api/v1/issues/A-1"] {
        let detail = running.client().get(path).json();
        assert_eq!((&detail["issue_identifier"], &detail["status"]), (&json!("A-1"), &json!("running")), "{detail}");
        assert!(detail["running"]["turn_count"] == json!(1) && detail["workspace"]["path"].is_string(), "{detail}");
    }
}

#[test]
fn a_retrying_issue_says_when_and_why() {
    let project = Project::with(&FRONT.replace("backoff_ms: 300\n", "backoff_ms: 60000\n"));
    project.issue("Todo", "A-1", "```sh\necho the reason; exit 7\n```");
    let running = project.start();
    let state = running.until_state("the retry", |s| s["counts"]["retrying"] == json!(1));
    let row = &state["retrying"][0];
    assert_eq!((&row["issue_identifier"], &row["attempt"]), (&json!("A-1"), &json!(1)), "{row}");
    assert!(row["error"].as_str().is_some_and(|e| e.contains("the reason")) && row["due_at"].is_string(), "{row}");
    let detail = running.client().get("/api/v1/A-1").json();
    assert_eq!(detail["status"], json!("retrying"), "{detail}");
    assert!(detail["retry"]["error"].as_str().is_some_and(|e| e.contains("the reason")), "{detail}");
}

#[test]
fn wrong_paths_methods_and_types_are_refused_in_one_shape() {
    let running = Project::new().start();
    let client = running.client();
    let missing = client.get("/api/v1/NO-1");
    assert_eq!((missing.status, missing.error_code()), (404, "issue_not_found".into()));
    assert_eq!(client.get("/nowhere").error_code(), "not_found");
    for (method, path, allow) in
        [("POST", "/api/v1/state", "GET"), ("GET", "/api/v1/refresh", "POST"), ("DELETE", "/api/v1/issues", "GET")]
    {
        let answer = client.send(method, path, &[("Content-Type", "application/json")], "{}");
        assert_eq!((answer.status, answer.error_code()), (405, "method_not_allowed".into()), "{path}");
        assert!(
            answer.head.to_lowercase().lines().any(|l| l.starts_with("allow:") && l.contains(&allow.to_lowercase())),
            "{}",
            answer.head
        );
    }
    for path in ["/api/v1/refresh", "/api/v1/issues"] {
        let answer = client.send("POST", path, &[("Content-Type", "text/plain")], "{}");
        assert_eq!((answer.status, answer.error_code()), (415, "unsupported_media_type".into()), "{path}");
    }
    let foreign = client.send("GET", "/api/v1/state", &[("Host", "evil.example")], "");
    assert!((400..500).contains(&foreign.status) && !foreign.body.contains("running"), "{foreign:?}");
    let crossed = client.send(
        "POST",
        "/api/v1/refresh",
        &[("Content-Type", "application/json"), ("Origin", "https://evil.example")],
        "{}",
    );
    assert_eq!(crossed.status, 403, "{crossed:?}");
}

#[test]
fn an_issue_made_over_the_api_is_worked_on_and_finished() {
    let project = Project::new();
    let running = project.start();
    let wanted = json!({"identifier": "NEW-1", "title": "Made: here", "description": "```sh\necho x > x.txt\n```", "labels": ["A"], "priority": 1});
    let made = running.post("/api/v1/issues", &wanted);
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!((&made.json()["identifier"], &made.json()["state"]), (&json!("NEW-1"), &json!("Todo")));
    project.wait_for("issues/Done/NEW-1.md");
    assert!(project.apply_patch("NEW-1").join("x.txt").exists());
    let again = running.post("/api/v1/issues", &wanted);
    assert_eq!(again.status, 409, "{again:?}");
    assert_eq!(running.post("/api/v1/issues", &json!({"identifier": "X"})).status, 400, "a title is needed");
    assert_eq!(running.post("/api/v1/issues", &json!({"identifier": "../x", "title": "t"})).status, 400);
}

#[test]
fn a_refresh_looks_at_once() {
    let project = Project::with(&FRONT.replace("interval_ms: 300\n", "interval_ms: 3600000\n  watch: false\n"));
    let running = project.start();
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    let answer = running.post("/api/v1/refresh", &json!({}));
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["queued"], &body["operations"]),
        (202, &json!(true), &json!(["poll", "reconcile"]))
    );
    assert!(body["coalesced"].is_boolean() && body["requested_at"].is_string(), "{body}");
    until("the issue to be finished", || project.exists("issues/Done/A-1.md"));
}
