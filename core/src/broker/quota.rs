//! What a provider's refusal says of later requests: when to ask again, or that its credential is no good; and what is
//! known of one credential at its provider. Pure: headers, words and time are arguments.

mod kind;
#[cfg(test)]
mod tests;

pub use self::kind::{is_unknown_model, status};

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
    const ALL: [Self; 3] = [Self::Asked, Self::Longer, Self::Empty];

    /// The word for the journal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Longer => "longer",
            Self::Empty => "empty",
        }
    }

    /// What [`Self::as_str`] says.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pause| pause.as_str() == word)
    }

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
    let words = read(refused.words);
    let said = |name: &str| words.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
    let is = |kinds: &[&str]| kinds.contains(&said("type")) || kinds.contains(&said("code"));
    let asked = asked(refused, &words, now);
    let is_empty = || {
        refused.status == 402
            || is(&EMPTY)
            || detail(&words, "ErrorInfo", "reason") == Some("BILLING_DISABLED")
            || begins(refused, said("message"), &EMPTY_WORDS)
    };
    match refused.status {
        429 if is_too_large(refused, now) => None,
        401 => Some(Trouble::Login),
        400 if begins(refused, said("message"), &DISABLED_WORDS) || is(&LOGIN) => Some(Trouble::Login),
        400 | 402 | 403 | 429 if is_empty() => Some(Trouble::Empty(asked.unwrap_or(PAID_OUT).clamp(MIN, MAX))),
        // Google calls a key that is none a bad request.
        400 | 403 if detail(&words, "ErrorInfo", "reason").is_some_and(|reason| LOGIN_REASONS.contains(&reason)) => {
            Some(Trouble::Login)
        }
        // That a model or a feature is not for this account says nothing of its credential.
        403 if is(&LOGIN) => Some(Trouble::Login),
        403 if !is(&OF_A_MODEL) && says(refused, said("message"), &LOGIN_WORDS) => Some(Trouble::Login),
        429 | 529 => Some(Trouble::Wait(wait(asked, refused.in_a_row))),
        // Google's word for a model with too much to do.
        503 if asked.is_some() || said("status") == "UNAVAILABLE" => Some(Trouble::Wait(wait(asked, refused.in_a_row))),
        _ => None,
    }
}

/// Whether a refusal for too much at once concerns this request alone: a wait makes it no smaller, and an account that has
/// its limits left gives no time for one.
pub fn is_too_large(refused: &Refused<'_>, now: Timestamp) -> bool {
    let words = read(refused.words);
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

/// Statuses with which a gateway says that it lost the answer of a server that has the request, or does not know: 502 and
/// 520 are an answer that is none, 504 and 524 one that takes too long. Where it never reached that server it says 521, 522,
/// 523, 525 or 526; and with 503 and 529 nobody begins to work.
pub fn is_of_a_gateway(status: u16) -> bool {
    matches!(status, 502 | 504 | 520 | 524)
}

/// Whether the model may have worked although its answer is no success, so that it is charged like one that was cut. A
/// provider that names its error in its own format knows what it did, and charges for none: only what a gateway says in the
/// place of an answer, in words of another kind or none, leaves it open.
pub fn may_have_worked(status: u16, words: Option<&str>) -> bool {
    is_of_a_gateway(status) && words.is_none_or(|words| read(words).get("error").is_none())
}

/// The words as JSON; some of Google's errors are a list of one.
fn read(words: &str) -> Value {
    match serde_json::from_str(words).unwrap_or_default() {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        words => words,
    }
}

/// What Google's details of this kind say beside an error.
fn detail<'w>(words: &'w Value, kind: &str, name: &str) -> Option<&'w str> {
    let mut all = words.pointer("/error/details").and_then(Value::as_array).into_iter().flatten();
    let of_kind = |detail: &&Value| {
        let named = detail.get("@type").and_then(Value::as_str).unwrap_or_default();
        named.strip_prefix("type.googleapis.com/google.rpc.") == Some(kind)
    };
    all.find(of_kind)?.get(name)?.as_str()
}

/// Whether a message has one of these words of the provider's own: an agent could put them there with the model's name.
fn says(refused: &Refused<'_>, message: &str, words: &[&str]) -> bool {
    let (message, model) = (message.to_lowercase(), refused.model.to_lowercase());
    words.iter().any(|word| message.contains(word) && !model.contains(word))
}

/// Whether a message begins with these words of the provider's own. What an agent sent stands behind others where it is
/// quoted, and the name of a model is looked at besides.
fn begins(refused: &Refused<'_>, message: &str, words: &[&str]) -> bool {
    let (message, model) = (message.to_lowercase(), refused.model.to_lowercase());
    words.iter().any(|word| message.starts_with(word) && !model.contains(word))
}

/// How a request is called that no wait makes smaller.
const LARGE_WORDS: [&str; 2] = ["request too large", "request is too large"];
/// Kinds of errors that concern a model, whatever words stand beside them.
const OF_A_MODEL: [&str; 2] = ["model_not_found", "not_found_error"];
/// Kinds of errors of an account with nothing left.
const EMPTY: [&str; 5] =
    ["insufficient_quota", "billing_error", "usage_not_included", "billing_not_active", "billing_hard_limit_reached"];
/// The same in words, of Anthropic and Google: their errors have no kind of their own for it.
const EMPTY_WORDS: [&str; 2] =
    ["your credit balance is too low to access the anthropic api", "your prepayment credits are depleted"];
/// Kinds of errors of which only another credential helps.
const LOGIN: [&str; 7] = [
    "access_terminated",
    "authentication_error",
    "invalid_api_key",
    "account_deactivated",
    "token_expired",
    "token_revoked",
    "token_invalidated",
];
/// The same in words, where an error has no kind of its own.
const LOGIN_WORDS: [&str; 4] = ["oauth", "revoked", "reported as leaked", "unregistered callers"];
/// What Anthropic says of an organization that it serves no longer, in an error that is a bad request by its kind.
const DISABLED_WORDS: [&str; 1] = ["this organization has been disabled"];
/// Google's reasons for an error of which only another key, or its owner's settings, helps.
const LOGIN_REASONS: [&str; 7] = [
    "API_KEY_HTTP_REFERRER_BLOCKED",
    "API_KEY_INVALID",
    "API_KEY_SERVICE_BLOCKED",
    "API_KEY_IP_ADDRESS_BLOCKED",
    "CONSUMER_INVALID",
    "CONSUMER_SUSPENDED",
    "SERVICE_DISABLED",
];

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
    found.extend(detail(words, "RetryInfo", "retryDelay").and_then(spoken));
    let said = |name: &str| words.pointer(&format!("/error/{name}"));
    found.extend(said("resets_in_seconds").and_then(Value::as_u64).map(Duration::from_secs));
    if found.is_empty() {
        found.extend(said("resets_at").and_then(Value::as_i64).and_then(from_epoch));
    }
    if found.is_empty() && refused.status == 429 {
        found.extend(said("message").and_then(Value::as_str).and_then(|message| said_in_words(refused, message)));
    }
    found.into_iter().max()
}

/// "… Please try again in 11.054s. …", which is all that OpenAI says of it within a stream.
fn said_in_words(refused: &Refused<'_>, message: &str) -> Option<Duration> {
    const AGAIN: &str = "try again in ";
    let (_, after) = message.split_once(AGAIN).filter(|_| !refused.model.to_lowercase().contains(AGAIN.trim_end()))?;
    let mut words = after.split_whitespace().map(|word| word.trim_end_matches(['.', ',']));
    let (number, unit) = (words.next()?, words.next().unwrap_or_default());
    let unit = ["second", "minute", "hour", "day"].into_iter().find(|known| unit.starts_with(known));
    match unit.filter(|_| number.bytes().all(|byte| byte.is_ascii_digit())) {
        Some(unit) => spoken(&format!("{number}{}", &unit[..1])),
        None => spoken(number),
    }
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
    /// What an earlier process was told: nothing is asked for so long from now on, however late that was to be. Then one
    /// goes alone.
    pub fn recalled(now: Tick, wait: Duration, pause: Pause, in_a_row: u32) -> Self {
        let until = now.plus_ms(u64::try_from(wait.min(MAX).as_millis()).unwrap_or(u64::MAX));
        Self { since: now, until, pause, in_a_row: in_a_row.max(1) }
    }

    /// Until when nothing is asked, and how many refusals in a row say so.
    pub fn wait(&self) -> (Tick, u32) {
        (self.until, self.in_a_row)
    }

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
