//! Login files: when they are due, what is asked, what is written, and what an answer means.

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn claude(ends_ms: i64) -> Value {
    json!({
        "mcpOAuth": {"kept": [1, 2.5]},
        "claudeAiOauth": {"accessToken": "old-access", "refreshToken": "old-refresh", "expiresAt": ends_ms,
            "scopes": ["user:inference", "user:profile"], "subscriptionType": "max", "unknown": null},
        "organizationUuid": "o-1",
    })
}

/// `{"exp":1000}` between two dots, as a token carries it.
const TOKEN: &str = "h.eyJleHAiOjEwMDB9.s";

fn codex() -> Value {
    json!({
        "auth_mode": "chatgpt", "OPENAI_API_KEY": null,
        "tokens": {"id_token": "old-id", "access_token": TOKEN, "refresh_token": "old-refresh", "account_id": "a-1"},
        "last_refresh": "2026-01-01T00:00:00Z", "unknown": {"a": 1},
    })
}

#[test]
fn a_login_is_due_five_minutes_before_it_ends_and_one_that_does_not_say_never() {
    for (login, file) in [(Login::Claude, claude(1_000_000)), (Login::Codex, codex())] {
        assert_eq!(login.ends_ms(&file), Some(1_000_000), "{login:?}");
        let seen = [699, 700, 999, 1000].map(|now| (login.is_due(&file, at(now)), login.is_over(&file, at(now))));
        assert_eq!(seen, [(false, false), (true, false), (true, false), (true, true)], "{login:?}");
        for nothing in [
            json!({}),
            json!(null),
            json!({"claudeAiOauth": {"expiresAt": "soon"}, "tokens": {"access_token": "a.b.c"}}),
        ] {
            assert!(!login.is_due(&nothing, at(i64::MAX / 1_000_000_000_000)) && login.request(&nothing).is_none());
        }
    }
}

#[test]
fn what_is_asked_is_what_the_programs_themselves_ask_and_no_scope_more() {
    let asked = Login::Claude.request(&claude(0)).expect("a request");
    assert_eq!(
        asked,
        json!({"grant_type": "refresh_token", "refresh_token": "old-refresh",
            "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e", "scope": "user:inference user:profile"})
    );
    let mut own = claude(0);
    own["claudeAiOauth"]["clientId"] = json!("another");
    own["claudeAiOauth"]["scopes"] = json!([]);
    let asked = Login::Claude.request(&own).expect("a request");
    assert_eq!((&asked["client_id"], asked.get("scope")), (&json!("another"), None));
    assert_eq!(
        Login::Codex.request(&codex()).expect("a request"),
        json!({"client_id": "app_EMoamEEZ73f0CkXaXp7hrann", "grant_type": "refresh_token",
            "refresh_reason": "proactive_expiry", "refresh_token": "old-refresh"})
    );
}

#[test]
fn only_what_was_renewed_changes_in_a_file() {
    let answer = json!({"access_token": "new-access", "refresh_token": "new-refresh", "id_token": "new-id", "expires_in": 28800,
        "refresh_token_expires_in": 60, "scope": "user:inference", "account": {"uuid": "u"}});
    let Merged::Renewed(file) = Login::Claude.merged(claude(5), "old-refresh", &answer, at(1000)) else {
        panic!("renewed")
    };
    let mut expected = claude(29_800_000);
    expected["claudeAiOauth"]["accessToken"] = json!("new-access");
    expected["claudeAiOauth"]["refreshToken"] = json!("new-refresh");
    expected["claudeAiOauth"]["scopes"] = json!(["user:inference"]);
    expected["claudeAiOauth"]["refreshTokenExpiresAt"] = json!(1_060_000);
    assert_eq!(file, expected);
    assert!(Login::Claude.text(&file).starts_with("{\"mcpOAuth\":{"), "the order stays");
    let Merged::Renewed(file) = Login::Codex.merged(codex(), "old-refresh", &answer, at(1000)) else {
        panic!("renewed")
    };
    let mut expected = codex();
    expected["tokens"] = json!({"id_token": "new-id", "access_token": "new-access", "refresh_token": "new-refresh", "account_id": "a-1"});
    expected["last_refresh"] = json!("1970-01-01T00:16:40Z");
    assert_eq!(file, expected);
    assert!(Login::Codex.text(&file).contains("\n  \"tokens\": {"), "as Codex writes it");
}

#[test]
fn a_server_that_gives_no_new_refresh_token_leaves_the_old_one() {
    let answer = json!({"access_token": "new-access"});
    let Merged::Renewed(file) = Login::Claude.merged(claude(5), "old-refresh", &answer, at(0)) else {
        panic!("renewed")
    };
    assert_eq!(file["claudeAiOauth"]["refreshToken"], "old-refresh");
    assert_eq!(file["claudeAiOauth"]["expiresAt"], 3_600_000, "and one that says no time is asked again soon");
    for nonsense in [json!(-5), json!(1e300), json!(i64::MAX)] {
        let answer = json!({"access_token": "new-access", "expires_in": nonsense});
        let merged = Login::Claude.merged(claude(5), "old-refresh", &answer, at(0));
        let Merged::Renewed(file) = merged else { panic!("renewed") };
        assert!(file["claudeAiOauth"]["expiresAt"].as_i64().is_some_and(|at| (0..=LONGEST_S * 1000).contains(&at)));
    }
}

#[test]
fn what_somebody_else_put_there_meanwhile_stands() {
    let answer = json!({"access_token": "new-access", "refresh_token": "new-refresh"});
    for file in [json!({}), json!([]), json!({"claudeAiOauth": null}), claude(1)] {
        assert_eq!(Login::Claude.merged(file, "another-refresh", &answer, at(0)), Merged::Theirs);
    }
}

#[test]
fn an_answer_is_tokens_a_refusal_for_good_or_a_reason_to_try_later() {
    let said = |status, body: Value| renewal(status, None, body.to_string().as_bytes());
    assert!(said(200, json!({"access_token": "a"})).is_ok());
    for spent in [
        json!({}),
        json!({"access_token": ""}),
        json!({"access_token": "a b"}),
        json!({"access_token": "a", "refresh_token": "b\n"}),
    ] {
        assert_eq!(said(200, spent), Err(NoRenewal::Refused(None)));
    }
    assert_eq!(renewal(200, None, b"<html>"), Err(NoRenewal::Refused(None)));
    let refused = [
        (400, json!({"error": "invalid_grant", "error_description": "old-refresh"}), Some("invalid_grant")),
        (
            401,
            json!({"error": {"code": "refresh_token_reused", "message": "old-refresh"}}),
            Some("refresh_token_reused"),
        ),
        (403, json!({"error": "old-refresh"}), None),
        (400, json!("old-refresh"), None),
    ];
    for (status, body, word) in refused {
        assert_eq!(said(status, body), Err(NoRenewal::Refused(word)));
    }
    for status in [302, 404, 408, 429, 500, 529] {
        assert_eq!(said(status, json!({"error": "invalid_grant"})), Err(NoRenewal::Later(None)), "{status}");
    }
    assert_eq!(renewal(429, Some("90"), b""), Err(NoRenewal::Later(Some(Duration::from_secs(90)))));
    assert_eq!(renewal(429, Some("999999999"), b""), Err(NoRenewal::Later(Some(ASKED_MOST))));
}

#[test]
fn each_failure_in_a_row_waits_longer_and_none_for_ever() {
    let seconds = [1, 2, 3, 6, 99, u32::MAX].map(|in_a_row| pause(in_a_row, None).as_secs());
    assert_eq!(seconds, [30, 60, 120, 900, 900, 900]);
    assert_eq!(pause(1, Some(Duration::from_secs(3600))).as_secs(), 3600);
}

#[test]
fn every_token_of_a_login_and_of_an_answer_is_known_as_a_secret() {
    assert_eq!(Login::Claude.secrets(&claude(0)), ["old-access", "old-refresh"]);
    assert_eq!(Login::Codex.secrets(&codex()), [TOKEN, "old-refresh", "old-id"]);
    let answer = json!({"access_token": "a", "refresh_token": "b", "id_token": "c", "token_type": "Bearer"});
    assert_eq!(Login::tokens(&answer), ["a", "b", "c"]);
}

proptest::proptest! {
    #[test]
    fn no_file_and_no_answer_makes_a_renewal_panic(text in "\\PC{0,200}", exp in ".{0,60}") {
        let _ = renewal(200, Some(&text), text.as_bytes());
        let _ = expiry_s(&format!("h.{exp}.s"));
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        for login in [Login::Claude, Login::Codex] {
            let _ = (login.is_due(&value, at(0)), login.request(&value), login.secrets(&value));
        }
    }
}
