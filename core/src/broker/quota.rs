//! What a provider's refusal says of later requests: when to ask again, or that its credential is no good; and what is
//! known of one credential at its provider. Pure: headers, words and time are arguments.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::Provider;
use crate::time::Tick;

/// No provider is asked again sooner.
const MIN: Duration = Duration::from_secs(1);
/// A provider is asked again after this long, whatever it said: limits are raised, and clocks are wrong.
pub const MAX: Duration = Duration::from_secs(4 * 3600);
/// First step of our own patience with a provider that says nothing.
const FIRST: Duration = Duration::from_secs(5);
/// Its last step.
pub const LAST: Duration = Duration::from_secs(15 * 60);
/// So many refusals in a row are believed to the second; after that our own patience counts if it is the longer.
const BELIEVED: u32 = 3;
/// Nothing is left of what was paid for: only a person changes that, and nobody tells us when.
const PAID_OUT: Duration = Duration::from_secs(3600);

/// What a refusal means for later requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// None is to come before this long.
    Wait(Duration),
    /// The account has nothing left; it is asked again after this long, for nobody tells us of more.
    Empty(Duration),
    /// None with this credential.
    Login,
}

impl Trouble {
    /// For how long nothing is asked, and why; `None` where another credential is needed.
    pub fn pause(self) -> Option<(Duration, Pause)> {
        match self {
            Self::Wait(wait) if wait >= MAX => Some((wait, Pause::Longer)),
            Self::Wait(wait) => Some((wait, Pause::Asked)),
            Self::Empty(wait) => Some((wait, Pause::Empty)),
            Self::Login => None,
        }
    }
}

/// Why nothing is asked for a while, and so what its end means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    /// The provider asked for it, and answers then.
    #[default]
    Asked,
    /// It asked for more than [`MAX`]: it is asked again before that.
    Longer,
    /// Its account has no credit left.
    Empty,
}

impl Pause {
    /// The sentence for people, without its end.
    pub fn words(self, provider: Provider, until: Timestamp) -> String {
        let (name, at) = (provider.name(), until.strftime("%H:%M"));
        match self {
            Self::Asked => format!("{name} asks to wait; resumes {at} UTC"),
            Self::Longer => {
                format!("{name} asks to wait for more than {} h; asked again at {at} UTC", MAX.as_secs() / 3600)
            }
            Self::Empty => format!(
                "{name} says that its account has no credit left: add credit there, or change the key; it is asked again at \
                 {at} UTC"
            ),
        }
    }
}

/// An answer that is no success.
pub struct Refused<'a> {
    /// Its status.
    pub status: u16,
    /// Its headers, by their names in lower case.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    /// Its words, as far as they were read.
    pub words: &'a str,
    /// The model that was asked. The agent chose its name, and providers quote it.
    pub model: &'a str,
    /// Refusals in a row, this one included.
    pub in_a_row: u32,
}

/// What a refusal means; `None`: nothing for any other request.
pub fn trouble(refused: &Refused<'_>, now: Timestamp) -> Option<Trouble> {
    let words: Value = serde_json::from_str(refused.words).unwrap_or_default();
    let said = |name: &str| words.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
    let is = |kinds: &[&str]| kinds.contains(&said("type")) || kinds.contains(&said("code"));
    let asked = asked(refused, &words, now);
    match refused.status {
        429 if is_too_large(refused, now) => None,
        401 => Some(Trouble::Login),
        // That a model or a feature is not for this account says nothing of its credential.
        403 if is(&LOGIN) => Some(Trouble::Login),
        403 if !is(&OF_A_MODEL) && says(refused, said("message"), &LOGIN_WORDS) => Some(Trouble::Login),
        402 | 429 if refused.status == 402 || is(&["insufficient_quota", "billing_error", "usage_not_included"]) => {
            Some(Trouble::Empty(asked.unwrap_or(PAID_OUT).clamp(MIN, MAX)))
        }
        429 | 529 => Some(Trouble::Wait(wait(asked, refused.in_a_row))),
        503 if asked.is_some() => Some(Trouble::Wait(wait(asked, refused.in_a_row))),
        _ => None,
    }
}

/// Whether a refusal for too much at once concerns this request alone: a wait makes it no smaller, and an account that has
/// its limits left gives no time for one.
pub fn is_too_large(refused: &Refused<'_>, now: Timestamp) -> bool {
    let words: Value = serde_json::from_str(refused.words).unwrap_or_default();
    let message = words.pointer("/error/message").and_then(Value::as_str).unwrap_or_default();
    let is_left = |kind: &&str| {
        let left = (refused.header)(&format!("x-ratelimit-remaining-{kind}")).and_then(|left| left.trim().parse().ok());
        left.is_none_or(|left: f64| left > 0.0)
    };
    refused.status == 429
        && asked(refused, &words, now).is_none()
        && ["requests", "tokens"].iter().all(is_left)
        && says(refused, message, &LARGE_WORDS)
}

/// Whether a message has one of these words of the provider's own: an agent could put them there with the model's name.
fn says(refused: &Refused<'_>, message: &str, words: &[&str]) -> bool {
    let (message, model) = (message.to_lowercase(), refused.model.to_lowercase());
    words.iter().any(|word| message.contains(word) && !model.contains(word))
}

/// How a request is called that no wait makes smaller.
const LARGE_WORDS: [&str; 2] = ["request too large", "request is too large"];
/// Kinds of errors that concern a model, whatever words stand beside them.
const OF_A_MODEL: [&str; 2] = ["model_not_found", "not_found_error"];
/// Kinds of errors of which only another credential helps.
const LOGIN: [&str; 6] = [
    "authentication_error",
    "invalid_api_key",
    "account_deactivated",
    "token_expired",
    "token_revoked",
    "token_invalidated",
];
/// The same in words, where an error has no kind of its own.
const LOGIN_WORDS: [&str; 2] = ["oauth", "revoked"];

fn wait(asked: Option<Duration>, in_a_row: u32) -> Duration {
    let steps = in_a_row.saturating_sub(1).min(16);
    let ours = FIRST.saturating_mul(1 << steps).min(LAST);
    match asked {
        None => ours,
        Some(asked) if in_a_row > BELIEVED => asked.max(ours).clamp(MIN, MAX),
        Some(asked) => asked.clamp(MIN, MAX),
    }
}

/// How long the provider asks to wait, if it says so anywhere.
fn asked(refused: &Refused<'_>, words: &Value, now: Timestamp) -> Option<Duration> {
    let header = |name: &str| (refused.header)(name).map(str::trim);
    let from_epoch = |seconds: i64| Timestamp::from_second(seconds).ok().map(|at| until(at, now));
    if let Some(ms) = header("retry-after-ms").and_then(|ms| ms.parse().ok()) {
        return Some(Duration::from_millis(ms));
    }
    if let Some(after) = header("retry-after").and_then(|after| retry_after(after, now)) {
        return Some(after);
    }
    let number = |name: &str| header(name).and_then(|value| value.parse::<f64>().ok());
    let mut found = vec![];
    // Of a subscription: one window is used up, or several are.
    for window in ["unified", "unified-5h", "unified-7d"] {
        if header(&format!("anthropic-ratelimit-{window}-status")) == Some("rejected") {
            let reset = header(&format!("anthropic-ratelimit-{window}-reset")).and_then(|at| at.parse().ok());
            found.extend(reset.and_then(from_epoch));
        }
    }
    for kind in ["requests", "tokens", "input-tokens", "output-tokens"] {
        if number(&format!("anthropic-ratelimit-{kind}-remaining")) == Some(0.0) {
            let reset = header(&format!("anthropic-ratelimit-{kind}-reset")).and_then(|at| at.parse().ok());
            found.extend(reset.map(|at| until(at, now)));
        }
        if number(&format!("x-ratelimit-remaining-{kind}")) == Some(0.0) {
            found.extend(header(&format!("x-ratelimit-reset-{kind}")).and_then(spoken));
        }
    }
    for window in ["primary", "secondary"] {
        if number(&format!("x-codex-{window}-used-percent")).is_some_and(|used| used >= 100.0) {
            let after = header(&format!("x-codex-{window}-reset-after-seconds")).and_then(|after| after.parse().ok());
            let at = || header(&format!("x-codex-{window}-reset-at")).and_then(|at| at.parse().ok());
            found.extend(after.map(Duration::from_secs).or_else(|| at().and_then(from_epoch)));
        }
    }
    let said = |name: &str| words.pointer(&format!("/error/{name}"));
    found.extend(said("resets_in_seconds").and_then(Value::as_u64).map(Duration::from_secs));
    if found.is_empty() {
        found.extend(said("resets_at").and_then(Value::as_i64).and_then(from_epoch));
    }
    found.into_iter().max()
}

/// Seconds, or the date of HTTP.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(until(at, now))
}

/// `6m0s`, `1h2m3.5s`, `12ms`, or seconds alone.
fn spoken(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (mut all, mut rest) = (Duration::ZERO, value);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        (all, rest) = (all.checked_add(part)?, behind);
    }
    Some(all).filter(|_| !value.is_empty())
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default()
}

/// What is known of one credential at its provider, after a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When the newest wait began.
    since: Tick,
    /// Until when nothing is asked.
    until: Tick,
    /// Why.
    pause: Pause,
    /// Refusals in a row.
    in_a_row: u32,
}

/// Whether a request may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// At once.
    Go,
    /// One at a time, until one is answered.
    Alone,
    /// Not before this.
    Until(Tick),
}

impl Standing {
    /// Whether a request may go now.
    pub fn leave(&self, now: Tick) -> Leave {
        match self.in_a_row {
            0 => Leave::Go,
            _ if now < self.until => Leave::Until(self.until),
            _ => Leave::Alone,
        }
    }

    /// Why nothing is asked.
    pub fn pause(&self) -> Pause {
        self.pause
    }

    /// How many refusals in a row there are with that of a request which was sent then. Those that were under way
    /// together are one.
    pub fn in_a_row_with(&self, sent: Tick) -> u32 {
        if self.in_a_row > 0 && sent < self.since { self.in_a_row } else { self.in_a_row.saturating_add(1) }
    }

    /// A request that was sent then was refused for so long.
    pub fn refused(&mut self, sent: Tick, now: Tick, wait: Duration, pause: Pause) {
        self.in_a_row = self.in_a_row_with(sent);
        let until = now.plus_ms(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        self.since = now;
        if until >= self.until {
            (self.until, self.pause) = (until, pause);
        }
    }

    /// A request that was sent then was answered. One that was under way when the wait began says nothing.
    pub fn answered(&mut self, sent: Tick) {
        if sent >= self.since {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-27T01:00:00Z".parse().expect("an instant")
    }

    fn read(
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        words: &str,
        in_a_row: u32,
    ) -> Option<Trouble> {
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
        assert_eq!(
            (spoken("6m0"), spoken("5x"), spoken(""), spoken("é"), spoken("1..2s")),
            (None, None, None, None, None)
        );
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
        let refused =
            Refused { status: 429, header: &|_| None, words: &named, model: "Request too LARGE", in_a_row: 1 };
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
}
