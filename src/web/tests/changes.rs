//! What changes something: refresh, steering replies and new issues, by JSON, htmx and plain form.

use serde_json::json;
use symphony_core::ids::Identifier;

use super::House;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const JSON: &str = "Content-Type: application/json";
const ROUTES: [&str; 6] = [
    "/api/v1/refresh",
    "/api/v1/issues",
    "/api/v1/issues/ASK-1/steering-reply",
    "/api/v1/issues/BUSY%2F1%20%C3%A4/message",
    "/api/v1/issues/PARKED-1/approve",
    "/api/v1/issues/PARKED-1/discard",
];

#[tokio::test]
async fn a_request_a_foreign_page_could_make_changes_nothing() {
    let house = House::open().await;
    let (cookie, bearer) = (house.log_in().await, house.bearer());
    let csrf = house.csrf().await;
    let form = format!("title=t&text=t&csrf={csrf}");
    for path in ROUTES {
        for who in [&cookie, &bearer] {
            for kind in ["Content-Type: text/plain", "Content-Type: multipart/form-data; boundary=x", "Content-Type: "]
            {
                let reply =
                    house.ask("POST", path, &[who, kind, &house.origin()], "{\"title\":\"t\",\"text\":\"t\"}").await;
                assert_eq!(reply.refusal(), (415, "unsupported_media_type".into()), "{path} {kind}");
            }
            for from in [
                "Origin: http://evil.example",
                "Origin: null",
                "Origin: http://127.0.0.1",
                "Referer: http://evil.example/x",
                "Sec-Fetch-Site: cross-site",
                "Sec-Fetch-Site: same-site",
            ] {
                for (kind, htmx, body) in [
                    (JSON, "X: y", "{\"title\":\"t\",\"text\":\"t\"}"),
                    (FORM, "HX-Request: true", &form),
                    (FORM, "X: y", &form),
                ] {
                    let reply = house.ask("POST", path, &[who, kind, htmx, from], body).await;
                    assert_eq!(reply.refusal(), (403, "forbidden".into()), "{path} {kind} {htmx} {from}");
                }
            }
        }
        let naked = house.ask("POST", path, &[&cookie], "").await;
        assert_eq!(naked.refusal(), (415, "unsupported_media_type".into()), "{path} without a type");
        for body in ["title=t&text=t", "title=t&text=t&csrf=", "title=t&text=t&csrf=00"] {
            let reply = house.ask("POST", path, &[&cookie, FORM, &house.origin()], body).await;
            assert_eq!(reply.refusal(), (403, "forbidden".into()), "{path} {body}");
        }
    }
    assert!(house.said.lock().expect("lock").is_empty());
    assert!(house.tracker.created.lock().expect("lock").is_empty());
    assert!(house.tracker.moved.lock().expect("lock").is_empty());
}

#[tokio::test]
async fn a_body_over_the_cap_is_refused() {
    let house = House::open().await;
    let big = format!("{{\"text\":\"{}\",\"title\":\"t\"}}", "x".repeat(1_000_001));
    for path in ["/api/v1/issues", "/api/v1/issues/ASK-1/steering-reply", "/api/v1/issues/ASK-1/message"] {
        let head = format!(
            "POST {path} HTTP/1.1\nHost: {}\n{}\n{JSON}\nContent-Length: {}",
            house.address,
            house.bearer(),
            big.len()
        );
        // The refusal comes before the body; sending none of it keeps the answer readable.
        assert_eq!(house.raw(&head, "").await.refusal(), (413, "payload_too_large".into()), "{path}");
    }
}

#[tokio::test]
async fn refresh_queues_one_look_and_says_whether_it_was_wanted_already() {
    let house = House::open().await;
    let first = house.ask("POST", "/api/v1/refresh", &[&house.bearer()], "").await;
    assert_eq!(first.status, 202);
    let body = first.json();
    assert_eq!((&body["queued"], &body["coalesced"]), (&json!(true), &json!(false)));
    assert_eq!(body["operations"], json!(["poll", "reconcile"]));
    assert!(body["requested_at"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{body}");
    assert_eq!(house.post("/api/v1/refresh", "{}").await.json()["coalesced"], true);

    let cookie = house.log_in().await;
    let htmx = house.ask("POST", "/api/v1/refresh", &[&cookie, FORM, "HX-Request: true", &house.origin()], "").await;
    assert_eq!(htmx.status, 202);
    let form = format!("csrf={}", house.csrf().await);
    let plain = house.ask("POST", "/api/v1/refresh", &[&cookie, FORM, &house.origin()], &form).await;
    assert_eq!((plain.status, plain.header("location")), (303, Some("/")));
}

#[tokio::test]
async fn a_json_reply_follows_the_table_of_0_1_0() {
    let house = House::open().await;
    let path = "/api/v1/issues/ASK-1/steering-reply";
    let taken = house.post(path, "{\"text\":\" left \"}").await;
    assert_eq!(taken.status, 202);
    assert_eq!(taken.json(), json!({"identifier": "ASK-1", "accepted_at": "2026-01-02T03:04:05.678Z"}));
    for empty in ["{}", "{\"text\":\"  \"}", "{\"text\":7}", "not json", "[]"] {
        assert_eq!(house.post(path, empty).await.refusal(), (400, "bad_request".into()), "{empty}");
    }
    let nobody = house.post("/api/v1/issues/NOPE/steering-reply", "{\"text\":\"x\"}").await;
    assert_eq!(nobody.refusal(), (409, "no_pending_steering".into()));
    assert_eq!(house.post(path, "{\"text\":\"late\"}").await.refusal(), (409, "no_pending_steering".into()));
    assert_eq!(house.post(path, "{\"text\":\"disk full\"}").await.refusal(), (500, "internal_error".into()));
    let naked = house.ask("POST", path, &[&house.bearer()], "").await;
    assert_eq!(naked.refusal(), (415, "unsupported_media_type".into()));
}

#[tokio::test]
async fn an_htmx_reply_gets_the_inbox_back_with_the_reason_when_refused() {
    let house = House::open().await;
    let cookie = house.log_in().await;
    let send = async |id: &str, body: &str| {
        let path = format!("/api/v1/issues/{id}/steering-reply");
        house.ask("POST", &path, &[&cookie, FORM, "HX-Request: true", &house.origin()], body).await
    };
    let taken = send("ASK-1", "text=left").await;
    assert_eq!((taken.status, taken.header("hx-trigger")), (200, Some("refreshed")));
    assert!(taken.body.contains("<h2>attention</h2>") && !taken.body.contains("steering-error"));
    for (id, body) in [("ASK-1", "text=+"), ("NOPE", "text=x")] {
        let refused = send(id, body).await;
        assert_eq!(refused.status, 200);
        assert!(refused.body.contains("class=\"steering-error\" role=\"alert\""), "{}", refused.body);
        assert!(!refused.body.contains("<html"));
    }
}

#[tokio::test]
async fn an_answered_question_is_not_shown_again() {
    let house = House::open().await;
    let cookie = house.log_in().await;
    let path = "/api/v1/issues/ASK-1/steering-reply";
    let origin = house.origin();
    let headers = [cookie.as_str(), FORM, "HX-Request: true", origin.as_str()];
    let conductor = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        house.publish(|snapshot| snapshot.running[0].question.as_mut().expect("asked").answered = true);
    };
    let (taken, ()) = tokio::join!(house.ask("POST", path, &headers, "text=left"), conductor);
    assert!(taken.body.contains("PARKED-1") && !taken.body.contains("ASK-1"), "{}", taken.body);
}

#[tokio::test]
async fn a_plain_form_reply_needs_its_csrf_value_and_returns_to_the_page() {
    let house = House::open().await;
    let (cookie, csrf) = (house.log_in().await, house.csrf().await);
    let path = "/api/v1/issues/ASK-1/steering-reply";
    let taken = house.ask("POST", path, &[&cookie, FORM, &house.origin()], &format!("csrf={csrf}&text=left")).await;
    assert_eq!((taken.status, taken.header("location")), (303, Some("/")));
    let late = house.ask("POST", path, &[&cookie, FORM, &house.origin()], &format!("csrf={csrf}&text=late")).await;
    assert_eq!(late.status, 409);
    assert!(late.body.contains("<!doctype html>") && late.body.contains("answered already"));
}

#[tokio::test]
async fn a_form_that_shows_an_older_question_answers_no_newer_one() {
    let house = House::open().await;
    let (cookie, csrf, origin) = (house.log_in().await, house.csrf().await, house.origin());
    let path = "/api/v1/issues/ASK-1/steering-reply";
    let stale = house.ask("POST", path, &[&cookie, FORM, &origin], &format!("csrf={csrf}&question=3&text=left")).await;
    assert_eq!(stale.status, 409);
    assert!(stale.body.contains("the question of ASK-1 was answered already"), "{}", stale.body);
    let fresh = house.ask("POST", path, &[&cookie, FORM, &origin], &format!("csrf={csrf}&question=7&text=left")).await;
    assert_eq!(fresh.status, 303);
    let api = house.post(path, r#"{"text":"left","question":3}"#).await;
    assert!(api.body.contains("answered already"), "{}", api.body);
    assert_eq!(api.refusal(), (409, "no_pending_steering".into()));
}

#[tokio::test]
async fn words_for_an_agent_are_taken_for_the_next_turn_or_at_once() {
    let house = House::open().await;
    let path = "/api/v1/issues/BUSY%2F1%20%C3%A4/message";
    let next = house.post(path, r#"{"text":" mind the tests "}"#).await;
    assert_eq!(next.status, 202);
    let accepted = "2026-01-02T03:04:05.678Z";
    assert_eq!(next.json(), json!({"identifier": "BUSY/1 ä", "when": "next_turn", "accepted_at": accepted}));
    let later = house.post("/api/v1/issues/BLOCKED-1/message", r#"{"text":"t"}"#).await;
    assert_eq!((later.status, &later.json()["waits"]), (202, &json!("blocked by BUSY-1")), "no run hears it now");
    let now = house.post(path, r#"{"text":"stop that","when":"now"}"#).await;
    assert_eq!((now.status, &now.json()["when"]), (202, &json!("now")));
    for wrong in [r#"{"text":" "}"#, "{}", "{", r#"{"text":"t","when":"tomorrow"}"#] {
        assert_eq!(house.post(path, wrong).await.refusal(), (400, "bad_request".into()), "{wrong}");
    }
    let to = async |id: &str| house.post(&format!("/api/v1/issues/{id}/message"), r#"{"text":"t"}"#).await.refusal();
    assert_eq!(to("NOPE").await, (404, "issue_not_found".into()));
    assert_eq!(to("ASK-1").await, (409, "not_listening".into()));
    assert_eq!(to("PARKED-1").await, (409, "not_listening".into()));
    assert_eq!(house.ask("POST", path, &[JSON], r#"{"text":"t"}"#).await.refusal(), (401, "unauthorized".into()));

    let (cookie, csrf, origin) = (house.log_in().await, house.csrf().await, house.origin());
    let htmx = [cookie.as_str(), FORM, origin.as_str(), "HX-Request: true"];
    let taken = house.ask("POST", path, &htmx, "text=by+htmx&when=now").await;
    assert!(
        taken.body.contains("taken; the turn is being cancelled") && !taken.body.contains("by htmx"),
        "{}",
        taken.body
    );
    let refused = house.ask("POST", "/api/v1/issues/ASK-1/message", &htmx, "text=%3Cb%3Ekept").await;
    assert!(
        refused.body.contains("answer its question") && refused.body.contains("&#60;b&#62;kept"),
        "{}",
        refused.body
    );
    let plain = house.ask("POST", path, &[&cookie, FORM, &origin], &format!("csrf={csrf}&text=plain")).await;
    assert_eq!((plain.status, plain.header("location")), (303, Some("/")));

    use symphony_core::steering::By::{Api, Dashboard};
    let said = house.said.lock().expect("lock").clone();
    let said: Vec<_> = said.iter().map(|(text, now, by)| (text.as_str(), *now, *by)).collect();
    let wanted = [
        ("mind the tests", false, Api),
        ("t", false, Api),
        ("stop that", true, Api),
        ("by htmx", true, Dashboard),
        ("plain", false, Dashboard),
    ];
    assert_eq!(said, wanted);
}

#[tokio::test]
async fn an_issue_is_created_from_json_with_the_answers_of_0_1_0() {
    let house = House::open().await;
    let full = r#"{"identifier":" A-1 ","title":" T ","state":"todo","description":" D ","priority":2,
        "labels":["x"," "],"blocked_by":["B-1"]}"#;
    let made = house.post("/api/v1/issues", full).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json(), json!({"path": "/issues/Todo/A-1.md", "identifier": "A-1", "state": "Todo"}));
    let short = house.post("/api/v1/issues", r#"{"title":"only a title"}"#).await;
    assert_eq!((short.status, &short.json()["state"]), (201, &json!("Todo")));
    assert_eq!(
        house.post("/api/v1/issues", r#"{"title":"t","state":"DONE","priority":2.0}"#).await.json()["state"],
        "Done"
    );
    for wrong in [
        "{}",
        "{",
        r#"{"title":" "}"#,
        r#"{"title":"t","state":"Nowhere"}"#,
        r#"{"title":"t","state":"../x"}"#,
        r#"{"title":"t","priority":2.5}"#,
        r#"{"title":"t","priority":"high"}"#,
        r#"{"title":"t","labels":"x"}"#,
        r#"{"title":7}"#,
    ] {
        assert_eq!(house.post("/api/v1/issues", wrong).await.refusal(), (400, "bad_request".into()), "{wrong}");
    }
    let taken = house.post("/api/v1/issues", r#"{"title":"t","identifier":"TAKEN"}"#).await;
    assert_eq!(taken.refusal(), (409, "create_failed".into()));

    let created = house.tracker.created.lock().expect("lock");
    assert_eq!(created.len(), 3);
    assert_eq!(created[0].identifier, Some(Identifier("A-1".into())));
    assert_eq!((created[0].title.as_str(), created[0].description.as_deref()), ("T", Some("D")));
    assert_eq!((created[0].labels.clone(), created[0].blocked_by.clone()), (vec!["x".into()], vec!["B-1".into()]));
    assert_eq!((created[0].priority, created[1].identifier.clone()), (Some(2), None));
}

#[tokio::test]
async fn an_issue_is_created_from_the_form_with_and_without_the_script() {
    let house = House::open().await;
    let (cookie, csrf) = (house.log_in().await, house.csrf().await);
    let origin = house.origin();
    let body = format!("csrf={csrf}&title=Plain+form&state=In+Progress&labels=a,+b&priority=1&description=x%0D%0Ay");
    let plain = house.ask("POST", "/api/v1/issues", &[&cookie, FORM, &origin], &body).await;
    assert_eq!((plain.status, plain.header("location")), (303, Some("/")));
    let wrong = house
        .ask("POST", "/api/v1/issues", &[&cookie, FORM, &origin], &format!("csrf={csrf}&title=&labels=%3Cb%3E"))
        .await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("title is required") && wrong.body.contains("value=\"&#60;b&#62;\""), "{}", wrong.body);

    let htmx = [cookie.as_str(), FORM, origin.as_str(), "HX-Request: true"];
    let made = house.ask("POST", "/api/v1/issues", &htmx, "title=By+htmx").await;
    assert_eq!((made.status, made.header("hx-trigger")), (200, Some("refreshed")));
    assert!(made.body.contains("created 7") && !made.body.contains("By htmx"));
    let refused = house.ask("POST", "/api/v1/issues", &htmx, "title=Again&identifier=TAKEN").await;
    assert!(refused.body.contains("exists already") && refused.body.contains("value=\"Again\""), "{}", refused.body);

    let created = house.tracker.created.lock().expect("lock");
    assert_eq!(created.len(), 2);
    assert_eq!((created[0].state.as_str(), created[0].priority), ("In Progress", Some(1)));
    assert_eq!(created[0].description.as_deref(), Some("x\ny"));
    assert_eq!(created[0].labels, ["a", "b"]);
}

/// Regression: `curl -d` with the token was told that a form is stale, an empty JSON body that it ends too early, and
/// `{"reply": …}` that the reply is empty.
#[tokio::test]
async fn who_sends_the_token_is_told_how_to_send_a_body() {
    let house = House::open().await;
    let path = "/api/v1/issues/ASK-1/steering-reply";
    let bearer = house.bearer();
    let form = house.ask("POST", path, &[&bearer, FORM], r#"{"text":"left"}"#).await;
    assert_eq!(form.status, 415);
    assert!(form.body.contains("Content-Type: application/json"), "{}", form.body);
    let wrong = house.post(path, r#"{"reply":"left"}"#).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("`text` is missing"), "{}", wrong.body);
    let none = house.ask("POST", path, &[FORM], "text=left").await;
    assert_eq!(none.status, 401, "without the token");
    let nothing = house.ask("POST", "/api/v1/refresh", &[&bearer, FORM, "Content-Length: 0"], "").await;
    assert_eq!(nothing.status, 202, "{}", nothing.body);
    let empty = house.post("/api/v1/issues/NOBODY/approve", "").await;
    assert_eq!(empty.status, 404, "an empty body is {{}}: {}", empty.body);
}
