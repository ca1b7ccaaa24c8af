//! Refusals as providers send them, and what is made of them.

use super::*;

fn now() -> Timestamp {
    "2026-11-27T01:00:00Z".parse().expect("an instant")
}

fn read(status: u16, headers: &'static [(&'static str, &'static str)], words: &str, in_a_row: u32) -> Option<Trouble> {
    let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    trouble(&Refused { status, header: &header, words, model: "m", in_a_row }, now())
}

#[track_caller]
fn waits(status: u16, headers: &'static [(&'static str, &'static str)], words: &str, seconds: f64) {
    assert_eq!(read(status, headers, words, 1), Some(Trouble::Wait(Duration::from_secs_f64(seconds))));
}

#[test]
fn what_each_provider_says_of_its_limits_is_read() {
    waits(429, &[("retry-after", "7")], "", 7.0);
    waits(429, &[("retry-after-ms", "1500"), ("retry-after", "7")], "", 1.5);
    waits(429, &[("retry-after", "Fri, 27 Nov 2026 01:02:00 GMT")], "", 120.0);
    // Only the limit that was met counts; of several, the one that lasts longest.
    let anthropic = &[
        ("anthropic-ratelimit-requests-remaining", "12"),
        ("anthropic-ratelimit-requests-reset", "2026-11-27T03:00:00Z"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        ("anthropic-ratelimit-input-tokens-reset", "2026-11-27T01:00:30Z"),
        ("anthropic-ratelimit-output-tokens-remaining", "0"),
        ("anthropic-ratelimit-output-tokens-reset", "2026-11-27T01:00:20Z"),
    ];
    waits(429, anthropic, "", 30.0);
    // 1795742400 is 2026-11-27T01:20:00Z.
    let subscription =
        &[("anthropic-ratelimit-unified-status", "rejected"), ("anthropic-ratelimit-unified-reset", "1795742400")];
    waits(429, subscription, "", 1200.0);
    let openai = &[
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "1m2.5s"),
        ("x-ratelimit-remaining-tokens", "9"),
        ("x-ratelimit-reset-tokens", "6h"),
    ];
    waits(429, openai, "", 62.5);
    let codex = &[
        ("x-codex-primary-used-percent", "100"),
        ("x-codex-primary-reset-after-seconds", "600"),
        ("x-codex-secondary-used-percent", "80"),
        ("x-codex-secondary-reset-after-seconds", "9000"),
    ];
    waits(429, codex, "", 600.0);
    let body = r#"{"error":{"type":"usage_limit_reached","resets_at":1795742400}}"#;
    waits(429, &[], body, 1200.0);
    waits(503, &[("retry-after", "2")], "", 2.0);
    assert_eq!(read(503, &[], "", 1), None, "the agent's own retries are enough");
    assert_eq!(read(500, &[("retry-after", "2")], "", 1), None);
    assert_eq!(read(400, &[], "", 1), None);
}

fn google(code: u16, status: &str, message: &str, details: &str) -> String {
    format!(r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}","details":[{details}]}}}}"#)
}

fn info(reason: &str) -> String {
    format!(r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"{reason}","domain":"googleapis.com"}}"#)
}

#[test]
fn what_google_says_beside_an_error_is_read() {
    let retry = r#"{"@type":"type.googleapis.com/google.rpc.QuotaFailure"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}"#;
    let words = google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", retry);
    waits(429, &[], &words, 34.5);
    waits(429, &[], &format!("[{words}]"), 34.5);
    waits(429, &[], &google(429, "RESOURCE_EXHAUSTED", "slow", ""), 5.0);
    waits(503, &[], &google(503, "UNAVAILABLE", "The model is overloaded.", ""), 5.0);
    assert_eq!(read(503, &[], &google(503, "INTERNAL", "x", ""), 1), None);
    assert_eq!(
        read(400, &[], &google(400, "INVALID_ARGUMENT", "API key not valid.", &info("API_KEY_INVALID")), 1),
        Some(Trouble::Login)
    );
    assert_eq!(
        read(403, &[], &google(403, "PERMISSION_DENIED", "x", &info("SERVICE_DISABLED")), 1),
        Some(Trouble::Login)
    );
    let leaked =
        google(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.", "");
    assert_eq!(read(403, &[], &leaked, 1), Some(Trouble::Login));
    assert_eq!(read(401, &[], &google(401, "UNAUTHENTICATED", "x", ""), 1), Some(Trouble::Login));
    // Bad requests and models that are not for everybody say nothing of the key.
    for (code, status, reason) in
        [(400, "INVALID_ARGUMENT", "BAD"), (400, "FAILED_PRECONDITION", ""), (403, "PERMISSION_DENIED", "MODEL")]
    {
        let words = google(code, status, "API_KEY_INVALID is the name of this model", &info(reason));
        assert_eq!(read(code, &[], &words, 1), None, "{words}");
    }
    let of_another_kind = r#"{"@type":"google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}"#;
    assert_eq!(read(400, &[], &google(400, "INVALID_ARGUMENT", "x", of_another_kind), 1), None);
}

#[test]
fn what_is_said_is_bounded_and_nonsense_is_nothing() {
    waits(429, &[("retry-after", "0")], "", 1.0);
    waits(429, &[("retry-after", "999999999999")], "", MAX.as_secs_f64());
    waits(429, &[("retry-after", "Fri, 27 Nov 2020 01:02:00 GMT")], "", 1.0);
    for odd in ["-7", "soon", "NaN", "inf", "1e300", "", "6m0"] {
        let header = |name: &str| (name == "retry-after").then_some(odd);
        let refused = Refused { status: 429, header: &header, words: "{", model: "m", in_a_row: 1 };
        assert_eq!(trouble(&refused, now()), Some(Trouble::Wait(FIRST)), "{odd}");
    }
    assert_eq!(spoken("1h2m3.5s"), Some(Duration::from_secs_f64(3723.5)));
    assert_eq!((spoken("6m0"), spoken("5x"), spoken(""), spoken("é"), spoken("1..2s")), (None, None, None, None, None));
}

#[test]
fn a_provider_that_says_nothing_is_asked_less_and_less_often() {
    let steps: Vec<u64> = (1..=9)
        .map(|n| match read(529, &[], "", n) {
            Some(Trouble::Wait(wait)) => wait.as_secs(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(steps, [5, 10, 20, 40, 80, 160, 320, 640, 900]);
    // Nor is one that always says "in a second" believed for ever.
    assert_eq!(read(429, &[("retry-after", "1")], "", 3), Some(Trouble::Wait(Duration::from_secs(1))));
    assert_eq!(read(429, &[("retry-after", "1")], "", 4), Some(Trouble::Wait(Duration::from_secs(40))));
    assert_eq!(read(529, &[], "", u32::MAX), Some(Trouble::Wait(LAST)));
}

#[test]
fn a_credential_is_no_good_only_when_the_provider_means_it() {
    assert_eq!(read(401, &[], "anything", 1), Some(Trouble::Login));
    for words in [
        r#"{"error":{"type":"authentication_error","message":"x"}}"#,
        r#"{"error":{"code":"account_deactivated"}}"#,
        r#"{"error":{"type":"permission_error","message":"OAuth token has been revoked."}}"#,
    ] {
        assert_eq!(read(403, &[], words, 1), Some(Trouble::Login), "{words}");
    }
    for words in [r#"{"error":{"type":"permission_error","message":"no access to this model"}}"#, "<html>", ""] {
        assert_eq!(read(403, &[], words, 1), None, "{words}");
    }
}

/// Regression: an account without credit was shown as one that resumes by itself.
#[test]
fn an_empty_account_and_a_wait_beyond_the_bound_do_not_say_that_they_resume() {
    let said = |trouble: Option<Trouble>| {
        let (wait, pause) = trouble.and_then(Trouble::pause).expect("a pause");
        (wait.as_secs(), pause.words(Provider::OpenAi, now()))
    };
    let empty = "openai says that its account has no credit left: add credit there, or change the key; it is asked again \
                 at 01:00 UTC";
    for kind in ["insufficient_quota", "billing_error", "usage_not_included"] {
        let words = format!(r#"{{"error":{{"type":"{kind}"}}}}"#);
        assert_eq!(said(read(429, &[], &words, 1)), (3600, empty.to_owned()));
    }
    assert_eq!(said(read(402, &[], "", 1)), (3600, empty.to_owned()));
    assert_eq!(said(read(402, &[("retry-after", "86400")], "", 1)), (4 * 3600, empty.to_owned()));
    let longer = "openai asks to wait for more than 4 h; asked again at 01:00 UTC";
    assert_eq!(said(read(429, &[("retry-after", "86400")], "", 1)), (4 * 3600, longer.to_owned()));
    let asked = "openai asks to wait; resumes 01:00 UTC";
    assert_eq!(said(read(429, &[("retry-after", "60")], "", 1)), (60, asked.to_owned()));
    assert_eq!(Trouble::Login.pause(), None);
}

const LARGE: &str = r#"{"error":{"message":"Request too large for m in organization org-1 on tokens per min (TPM): Limit 30000, Requested 45000.","type":"tokens","code":"rate_limit_exceeded"}}"#;

/// Regression: one request above the account's limit made everybody wait, again and again.
#[test]
fn a_request_that_is_too_large_by_itself_makes_nobody_wait() {
    assert_eq!(read(429, &[("x-ratelimit-remaining-tokens", "30000")], LARGE, 1), None);
    assert_eq!(read(429, &[], LARGE, 9), None);
    // Nothing is left, or there is a time: a wait may help.
    waits(429, &[("x-ratelimit-remaining-tokens", "0")], LARGE, 5.0);
    waits(429, &[("retry-after", "7")], LARGE, 7.0);
    waits(429, &[], &LARGE.replace("Request too large", "Rate limit reached"), 5.0);
    let named = LARGE.replace("Request too large for m", "Rate limit reached for request too large");
    let refused = Refused { status: 429, header: &|_| None, words: &named, model: "Request too LARGE", in_a_row: 1 };
    assert_eq!(trouble(&refused, now()), Some(Trouble::Wait(FIRST)), "its name is the agent's own");
}

/// Regression: a guest that asked a model of such a name shut its provider for all runs.
#[test]
fn the_name_of_a_model_says_nothing_of_the_credential() {
    for model in ["oauth-1", "My-REVOKED"] {
        let words = format!(r#"{{"error":{{"type":"permission_error","message":"no access to {model}"}}}}"#);
        let refused = Refused { status: 403, header: &|_| None, words: &words, model, in_a_row: 1 };
        assert_eq!(trouble(&refused, now()), None, "{model}");
    }
    let words = r#"{"error":{"code":"model_not_found","message":"m is not there for oauth"}}"#;
    assert_eq!(read(403, &[], words, 1), None);
}

#[test]
fn after_a_wait_requests_go_one_at_a_time_until_one_is_answered() {
    let mut standing = Standing::default();
    assert_eq!(standing.leave(Tick(0)), Leave::Go);
    standing.refused(Tick(0), Tick(100), Duration::from_secs(1), Pause::Longer);
    assert_eq!(standing.leave(Tick(1099)), Leave::Until(Tick(1100)));
    assert_eq!(standing.leave(Tick(1100)), Leave::Alone);
    // One that was under way with it counts no further, and shortens nothing.
    standing.refused(Tick(50), Tick(200), Duration::from_millis(1), Pause::Asked);
    assert_eq!((standing.in_a_row, standing.until, standing.pause()), (1, Tick(1100), Pause::Longer));
    // Nor does its success say that the wait is over.
    standing.answered(Tick(60));
    assert_eq!(standing.leave(Tick(1100)), Leave::Alone);
    standing.refused(Tick(1100), Tick(1200), Duration::from_secs(2), Pause::Asked);
    assert_eq!((standing.in_a_row, standing.leave(Tick(1300))), (2, Leave::Until(Tick(3200))));
    standing.answered(Tick(3200));
    assert_eq!(standing.leave(Tick(3201)), Leave::Go);
}

/// Regression: Anthropic's account without credit was a bad request, asked again five times, and the issue parked.
#[test]
fn an_account_without_credit_is_empty_whatever_status_says_so_and_nobody_can_forge_it() {
    let anthropic = |message: &str| {
        format!(r#"{{"type":"error","error":{{"type":"invalid_request_error","message":"{message}"}}}}"#)
    };
    const CREDIT: &str = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.";
    const DISABLED: &str = "This organization has been disabled.";
    let empty = Some(Trouble::Empty(PAID_OUT));
    assert_eq!(read(400, &[], &anthropic(CREDIT), 1), empty);
    assert_eq!(read(400, &[], &anthropic(DISABLED), 1), Some(Trouble::Login));
    for words in [CREDIT, DISABLED] {
        let echoed = anthropic(&format!("messages.0.type: Input tag '{words}' found using 'type' does not match"));
        assert_eq!(read(400, &[], &echoed, 1), None, "{echoed}");
        let refused = Refused { status: 400, header: &|_| None, words: &anthropic(words), model: words, in_a_row: 1 };
        assert_eq!(trouble(&refused, now()), None, "its name is the agent's own");
        assert_eq!(read(404, &[], &anthropic(words), 1), None);
    }
    assert_eq!(read(400, &[], r#"{"error":{"code":"billing_hard_limit_reached"}}"#, 1), empty);
    assert_eq!(read(429, &[], r#"{"error":{"code":"billing_not_active"}}"#, 1), empty);
    assert_eq!(read(400, &[], r#"{"error":{"code":"access_terminated"}}"#, 1), Some(Trouble::Login));
    assert_eq!(read(403, &[], &google(403, "PERMISSION_DENIED", "x", &info("BILLING_DISABLED")), 1), empty);
    let depleted = google(429, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", "");
    assert_eq!(read(429, &[], &depleted, 1), empty);
}

/// Regression: within a stream such an error was none of these.
#[test]
fn an_error_within_a_stream_means_what_its_kind_means_as_a_status() {
    for (words, as_status) in [
        (r#"{"error":{"type":"overloaded_error"}}"#, 529),
        (r#"{"error":{"type":"rate_limit_error"}}"#, 429),
        (r#"{"error":{"type":"api_error"}}"#, 500),
        (r#"{"error":{"type":"authentication_error"}}"#, 401),
        (r#"{"error":{"type":"invalid_request_error","code":"rate_limit_exceeded"}}"#, 429),
        (r#"{"error":{"type":"invalid_request_error","code":null}}"#, 400),
        (r#"{"error":{"code":"server_error"}}"#, 500),
        (r#"{"error":{"code":"insufficient_quota"}}"#, 402),
        (r#"{"error":{"code":503,"status":"UNAVAILABLE"}}"#, 503),
        (r#"{"error":{"code":429,"message":"of a proxy"}}"#, 429),
        (r#"{"error":{"code":200}}"#, 500),
        (r#"{"error":{}}"#, 500),
        ("", 500),
    ] {
        assert_eq!(status(words), as_status, "{words}");
    }
    let slow = r#"{"error":{"code":"rate_limit_exceeded","message":"Limit 30000, Used 29000. Please try again in 11.054s. Visit"}}"#;
    waits(status(slow), &[], slow, 11.054);
    // Regression: "5 minutes" was five seconds.
    for (told, seconds) in [("5 minutes.", 300.0), ("1 hour", 3600.0), ("20s, or", 20.0), ("7 Visit", 7.0)] {
        let words = format!(r#"{{"error":{{"code":"rate_limit_exceeded","message":"Please try again in {told}"}}}}"#);
        waits(429, &[], &words, seconds);
    }
    let refused = Refused { status: 429, header: &|_| None, words: slow, model: "Try again in", in_a_row: 1 };
    assert_eq!(trouble(&refused, now()), Some(Trouble::Wait(FIRST)), "its name is the agent's own");
}

#[test]
fn that_there_is_no_such_model_is_told_from_a_path_that_is_not_there() {
    let is = |status, words: &str| {
        is_unknown_model(&Refused { status, header: &|_| None, words, model: "big-9", in_a_row: 1 })
    };
    assert!(is(404, r#"{"error":{"type":"invalid_request_error","code":"model_not_found","message":"x"}}"#));
    assert!(is(404, r#"{"type":"error","error":{"type":"not_found_error","message":"model: big-9"}}"#));
    assert!(is(404, &google(404, "NOT_FOUND", "models/big-9 is not found for API version v1beta", "")));
    assert!(!is(404, r#"{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}"#));
    assert!(!is(404, r#"{"error":{"message":"there is no model big-9"}}"#));
    assert!(!is(404, "<html>") && !is(403, r#"{"error":{"code":"model_not_found"}}"#));
}

#[test]
fn only_what_a_gateway_says_in_the_place_of_an_answer_leaves_open_whether_the_model_worked() {
    for status in [502, 504, 520, 524] {
        assert!(may_have_worked(status, Some("<html>Bad gateway</html>")) && may_have_worked(status, None), "{status}");
        assert!(!may_have_worked(status, Some(r#"{"error":{"message":"no server"}}"#)), "{status}");
    }
    for status in [400, 429, 500, 503, 521, 522, 523, 529] {
        assert!(!may_have_worked(status, Some("<html>")) && !may_have_worked(status, None), "{status}");
    }
}
