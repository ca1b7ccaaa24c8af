//! Deciding about hosts, by JSON, htmx and plain form.

use serde_json::json;
use symphony_core::steering::By;

use super::{House, hosts};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

async fn house() -> House {
    let house = House::open().await;
    house.publish(|snapshot| {
        let (asked, decided) = hosts();
        snapshot.hosts_asked.push(asked);
        snapshot.hosts_decided.push(decided);
    });
    house
}

#[tokio::test]
async fn the_first_word_about_a_host_is_taken_and_a_second_is_told_so() {
    let house = house().await;
    let decided = house.post("/api/v1/egress/31/decide", r#"{"verb":"always"}"#).await;
    assert_eq!((decided.status, decided.json()), (200, json!({"number": 31, "verb": "always"})));
    assert_eq!(house.said.lock().expect("lock").clone(), [("always".to_owned(), false, By::Api)]);
    for (path, body, status, code) in [
        ("32/decide", r#"{"verb":"once"}"#, 409, "no_pending_host"),
        ("x/decide", r#"{"verb":"once"}"#, 404, "host_not_found"),
        ("31/decide", r#"{"verb":"perhaps"}"#, 400, "bad_request"),
        ("31/decide", "{}", 400, "bad_request"),
        ("42/forget", "{}", 409, "no_pending_host"),
    ] {
        let refused = house.post(&format!("/api/v1/egress/{path}"), body).await;
        assert_eq!(refused.refusal(), (status, code.into()), "{path} {body}");
    }
    assert_eq!(house.post("/api/v1/egress/41/forget", "{}").await.status, 200);
}

#[tokio::test]
async fn the_page_asks_with_forms_that_work_without_a_script_and_escapes_what_agents_wrote() {
    let house = house().await;
    let page = house.get("/").await;
    for shown in [
        "asked.example:443",
        "3 times",
        "action=\"/api/v1/egress/31/decide\"",
        "name=\"verb\" value=\"never\"",
        "asks to reach <span class=\"mono host\">asked.example:443</span>",
        "allow:",
        ">for this issue</button>",
        "aria-label=\"never allow asked.example:443",
        "hosts decided (1)",
        "action=\"/api/v1/egress/41/forget\"",
    ] {
        assert!(page.body.contains(shown), "{shown}: {}", page.body);
    }
    assert!(!page.body.contains("<i>title") && !page.body.contains("<b>ä"), "{}", page.body);
    let csrf =
        page.body.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token");
    let (cookie, origin) = (house.log_in().await, house.origin());
    let form = format!("verb=once&csrf={csrf}");
    let done = house.ask("POST", "/api/v1/egress/31/decide", &[&cookie, FORM, &origin], &form).await;
    assert_eq!(done.status, 303, "{}", done.body);
    assert_eq!(house.said.lock().expect("lock").clone(), [("once".to_owned(), false, By::Dashboard)]);
    let forged = house.ask("POST", "/api/v1/egress/31/decide", &[&cookie, FORM, &origin], "verb=once&csrf=wrong").await;
    assert_eq!(forged.status, 403);
    let state = house.get("/api/v1/state").await.json();
    assert_eq!(state["egress"]["asked"][0]["host"], "asked.example");
    assert_eq!(state["egress"]["decided"][0]["verb"], "issue");
    assert_eq!(state["running"][0]["egress"]["connections"], 0);
}
