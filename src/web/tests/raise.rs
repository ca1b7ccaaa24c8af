//! "Raise by how much, or stop?", by JSON, htmx and plain form; and what was used of models, on the page and in the API.

use serde_json::json;
use symphony_core::board::{NotNow, ParkReason, Parked};
use symphony_core::broker::Usage;
use symphony_core::ids::StateName;
use symphony_core::money::Money;
use symphony_core::snapshot::ModelRow;
use symphony_core::spend::{Cap, Met, Scope, Sums, Unit};
use symphony_core::workflow::Role;

use super::{House, idle};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

fn used() -> Sums {
    let used = Usage { input: 1000, output: 234, ..Usage::default() };
    Sums { requests: 3, used, cost: Money(1_500_000_000), unpriced: 34, assumed: 0 }
}

/// A door that shows an issue that was put aside for its money.
async fn house() -> House {
    let house = House::open().await;
    house.publish(|snapshot| {
        let day = "2026-01-31".parse().expect("a day");
        let (scope, unit) = (Scope::Issue, Unit::Money);
        let met = Met { scope, unit, day, used: 1_500_000_000, asked: 700_000_000, answer: 0, allowed: 2_000_000_000 };
        let parked = Parked { reason: ParkReason::Spend(met), from: StateName::new("Todo") };
        let mut row = idle("SPENT-1", "Parked", Role::Holding, NotNow::Parked(parked, None));
        row.spent.models = used();
        snapshot.idle.push(row);
        snapshot.spend.day = "2026-01-31".into();
        snapshot.spend.zone = "UTC".into();
        (snapshot.spend.today, snapshot.spend.ever) = (used(), used());
        snapshot.spend.caps.day = Cap { tokens: Some(5000), money: None };
        let (provider, model) = ("anthropic".into(), "<big>-1".into());
        snapshot.spend.models = vec![ModelRow { provider, model, today: used(), ever: used() }];
    });
    house
}

#[tokio::test]
async fn the_inbox_asks_by_how_much_and_a_form_without_a_script_answers() {
    let house = house().await;
    let page = house.get("/").await.body;
    for part in [
        "raise <code>budget.usd</code> by how much, or stop?",
        "this issue has used $1.50 of $2.00 (budget.usd); the next request could take up to $0.70",
        "name=\"seen\" value=\"2000000000\"",
        "US dollars, at least $0.20",
        ">stop</button>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(!page.contains("aria-label=\"resume SPENT-1\""), "without more it would only be put aside again");
    let (cookie, csrf, origin) = (house.log_in().await, house.csrf().await, house.origin());
    let form = format!("csrf={csrf}&seen=2000000000&amount=2.50");
    let answer = house.ask("POST", "/api/v1/issues/SPENT-1/raise", &[&cookie, FORM, &origin], &form).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
}

#[tokio::test]
async fn what_is_no_amount_is_said_and_stands_there_again() {
    let house = house().await;
    let (cookie, csrf, origin) = (house.log_in().await, house.csrf().await, house.origin());
    let form = format!("csrf={csrf}&seen=2000000000&amount=%22five%3E");
    for more in [&[][..], &["HX-Request: true"][..]] {
        let headers: Vec<&str> =
            [cookie.as_str(), FORM, origin.as_str()].into_iter().chain(more.iter().copied()).collect();
        let answer = house.ask("POST", "/api/v1/issues/SPENT-1/raise", &headers, &form).await;
        assert!(answer.body.contains("this is no amount in US dollars; write it like 5 or 2.50"), "{}", answer.body);
        assert!(answer.body.contains("value=\"&#34;five&#62;\""), "what was typed, escaped: {}", answer.body);
        assert_eq!(answer.status, if more.is_empty() { 400 } else { 200 });
    }
    let stale = house
        .ask("POST", "/api/v1/issues/SPENT-1/raise", &[&cookie, FORM, &origin], "csrf=x&seen=2000000000&amount=5")
        .await;
    assert_eq!(stale.status, 403);
}

#[tokio::test]
async fn a_program_raises_with_json_and_is_told_why_not() {
    let house = house().await;
    let told = json!({"identifier": "SPENT-1", "budget": "budget.usd", "unit": "usd", "raised_by": "2.50"});
    for amount in [r#""2.50""#, "2.5"] {
        let raised = house.post("/api/v1/issues/SPENT-1/raise", &format!("{{\"amount\":{amount}}}")).await;
        assert_eq!((raised.status, raised.json()), (202, told.clone()));
    }
    for (path, body, status, code) in [
        ("NOPE/raise", r#"{"amount":"1"}"#, 404, "issue_not_found"),
        ("ASK-1/raise", r#"{"amount":"1"}"#, 409, "budget_not_met"),
        ("SPENT-1/raise", r#"{"amount":"1","seen":1}"#, 409, "already_raised"),
        ("SPENT-1/raise", r#"{"amount":"-1"}"#, 400, "bad_request"),
        ("SPENT-1/raise", r#"{"amount":0}"#, 400, "bad_request"),
        ("SPENT-1/raise", "{}", 400, "bad_request"),
    ] {
        let refused = house.post(&format!("/api/v1/issues/{path}"), body).await;
        assert_eq!(refused.refusal(), (status, code.to_owned()), "{path} {body}");
    }
}

#[tokio::test]
async fn what_was_used_is_shown_by_day_and_model_and_says_what_has_no_price() {
    let house = house().await;
    let page = house.get("/api/v1/partials/totals").await.body;
    let line = "1234 of 5000 tokens · $1.50 + 34 unpriced tokens";
    assert!(page.contains("today, 2026-01-31 (UTC)") && page.contains(line), "{page}");
    assert!(page.contains("today, &#60;big&#62;-1") && !page.contains("<big>"), "{page}");
    let state = house.get("/api/v1/state").await.json();
    let spend = &state["spend"];
    assert_eq!((&spend["today"]["usd"], &spend["today"]["total_tokens"]), (&json!("1.50"), &json!(1234)));
    assert_eq!(spend["allowed"]["day"], json!({"tokens": 5000, "usd": null}));
    assert_eq!(spend["models"][0]["model"], "<big>-1");
    let rows = state["idle"].as_array().expect("rows");
    let row = rows.iter().find(|row| row["issue_identifier"] == "SPENT-1").expect("shown");
    assert_eq!((&row["issue_spend"]["unpriced_tokens"], &row["parked"]), (&json!(34), &json!(true)));
    let explained = house.get("/api/v1/issues/SPENT-1").await.json();
    assert_eq!(explained["explanation"]["models"], "1234 tokens · $1.50 + 34 unpriced tokens");
}

/// Regression: a day's or the workflow's cap had a card only where an issue had been put aside for it.
#[tokio::test]
async fn a_cap_that_issues_only_wait_for_has_one_card_that_raises_it() {
    let house = House::open().await;
    house.publish(|snapshot| {
        let day = "2026-01-31".parse().expect("a day");
        let (scope, unit) = (Scope::Day, Unit::Money);
        let met = Met { scope, unit, day, used: 1_500_000_000, asked: 0, answer: 0, allowed: 1_000_000_000 };
        for name in ["WAITS-1", "WAITS-2"] {
            snapshot.idle.push(idle(name, "Todo", Role::Active, NotNow::Spend(met)));
        }
    });
    let page = house.get("/").await.body;
    assert_eq!(page.matches("raise <code>budget.day.usd</code> by how much, or stop?").count(), 1, "{page}");
    assert!(page.contains("action=\"/api/v1/issues/WAITS-1/raise\""), "{page}");
    assert!(page.contains("US dollars, more than $0.50"), "{page}");
}
