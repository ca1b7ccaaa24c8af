//! The login files of Claude Code and Codex: when they end, what is asked to renew them, and what is written then.
//!
//! Pure: who may ask, how often and under which locks is decided where files are. Addresses, client ids, bodies and fields
//! are those of the programs themselves: read from Claude Code 2.1.316 (the program in `@anthropic-ai/claude-agent-sdk`
//! 0.3.316), recorded from Codex 0.166.0 (`@openai/codex`) before a server on loopback.

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Provider;

/// Claude Code renews a login that has less than this left, and so do we.
const MARGIN_MS: i64 = 300_000;
/// How long a login of Claude Code lasts whose renewal does not say it: short, so that it is renewed again soon.
const UNTOLD_S: i64 = 3600;
/// No login lasts longer; a larger number is nonsense.
const LONGEST_S: i64 = 10 * 366 * 86_400;
/// Longest token.
const TOKEN_MAX: usize = 16 * 1024;
/// After the first failure that may pass, and after many.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_MOST: Duration = Duration::from_secs(900);
/// What a server may ask for at most.
const ASKED_MOST: Duration = Duration::from_secs(3600);

/// Whose login file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// `~/.claude/.credentials.json`
    Claude,
    /// `~/.codex/auth.json`
    Codex,
}

/// What an answer to a request for renewal means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRenewal {
    /// It will never be renewed with this refresh token; why, as far as the server used a known word.
    Refused(Option<&'static str>),
    /// The same request may be answered later, after this long if the server said so.
    Later(Option<Duration>),
}

/// What became of a file that was to be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// What it holds now.
    Renewed(Value),
    /// Somebody else replaced its refresh token meanwhile: theirs stands.
    Theirs,
}

impl Login {
    /// The login that stands for a key of `provider`, where its agent's program has one.
    pub fn of(provider: Provider) -> Option<Self> {
        match provider {
            Provider::Anthropic => Some(Self::Claude),
            Provider::OpenAi => Some(Self::Codex),
            Provider::Google => None,
        }
    }

    /// Where it is renewed.
    pub fn token_url(self) -> &'static str {
        match self {
            Self::Claude => "https://platform.claude.com/v1/oauth/token",
            Self::Codex => "https://auth.openai.com/oauth/token",
        }
    }

    /// When it ends, in milliseconds; `None`: it does not say, or is no login.
    pub fn ends_ms(self, file: &Value) -> Option<i64> {
        match self {
            Self::Claude => file.pointer("/claudeAiOauth/expiresAt")?.as_i64(),
            Self::Codex => expiry_s(word(file, "/tokens/access_token")?).map(|at| at.saturating_mul(1000)),
        }
    }

    /// Whether it is over.
    pub fn is_over(self, file: &Value, now: Timestamp) -> bool {
        self.ends_ms(file).is_some_and(|at| at <= now.as_millisecond())
    }

    /// Whether it is over, or soon will be.
    pub fn is_due(self, file: &Value, now: Timestamp) -> bool {
        self.ends_ms(file).is_some_and(|at| at <= now.as_millisecond().saturating_add(MARGIN_MS))
    }

    /// What it is renewed with.
    pub fn refresh_token(self, file: &Value) -> Option<&str> {
        word(file, &format!("{}/{}", self.place(), self.names()[1]))
    }

    /// Every value in it that nobody may read.
    pub fn secrets(self, file: &Value) -> Vec<String> {
        let at = |name: &&str| word(file, &format!("{}/{name}", self.place())).map(str::to_owned);
        self.names().iter().filter_map(at).collect()
    }

    fn place(self) -> &'static str {
        match self {
            Self::Claude => "/claudeAiOauth",
            Self::Codex => "/tokens",
        }
    }

    /// Its tokens: that for requests, that for renewal, and others.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Claude => &["accessToken", "refreshToken"],
            Self::Codex => &["access_token", "refresh_token", "id_token"],
        }
    }

    /// The request that renews it; `None`: there is nothing to renew it with. It asks for no scope that the login has not.
    pub fn request(self, file: &Value) -> Option<Value> {
        let token = self.refresh_token(file)?;
        let mut body = Map::new();
        let mut put = |name: &str, value: &str| body.insert(name.to_owned(), value.into());
        match self {
            Self::Claude => {
                let client = word(file, "/claudeAiOauth/clientId").unwrap_or("9d1c250a-e61b-44d9-88ed-5944d1962f5e");
                put("grant_type", "refresh_token");
                put("refresh_token", token);
                put("client_id", client);
                let scopes = file.pointer("/claudeAiOauth/scopes").and_then(Value::as_array);
                let scopes: Vec<_> = scopes.into_iter().flatten().filter_map(Value::as_str).collect();
                if !scopes.is_empty() {
                    put("scope", &scopes.join(" "));
                }
            }
            Self::Codex => {
                put("client_id", "app_EMoamEEZ73f0CkXaXp7hrann");
                put("grant_type", "refresh_token");
                put("refresh_reason", "proactive_expiry");
                put("refresh_token", token);
            }
        }
        Some(body.into())
    }

    /// The tokens in an answer.
    pub fn tokens(answer: &Value) -> Vec<String> {
        let names = ["/access_token", "/refresh_token", "/id_token"];
        names.iter().filter_map(|name| word(answer, name)).map(str::to_owned).collect()
    }

    /// The file with what `answer` brought for the refresh token `asked`. Every other field stays as it is.
    pub fn merged(self, mut file: Value, asked: &str, answer: &Value, now: Timestamp) -> Merged {
        if self.refresh_token(&file) != Some(asked) {
            return Merged::Theirs;
        }
        let Some(login) = file.pointer_mut(self.place()).and_then(Value::as_object_mut) else { return Merged::Theirs };
        let names = self.names();
        let told = ["/access_token", "/refresh_token", "/id_token"];
        for (name, told) in names.iter().zip(told) {
            // A server that gives no new refresh token leaves the old one good.
            if let Some(token) = word(answer, told) {
                login.insert((*name).to_owned(), token.into());
            }
        }
        match self {
            Self::Claude => {
                let at = |seconds: i64| {
                    let ms = seconds.clamp(0, LONGEST_S).saturating_mul(1000);
                    json!(now.as_millisecond().saturating_add(ms))
                };
                let seconds = |name: &str| answer.get(name).and_then(Value::as_f64).map(|seconds| seconds as i64);
                login.insert("expiresAt".to_owned(), at(seconds("expires_in").unwrap_or(UNTOLD_S)));
                if let Some(left) = seconds("refresh_token_expires_in") {
                    login.insert("refreshTokenExpiresAt".to_owned(), at(left));
                }
                let scopes: Vec<_> = word(answer, "/scope").unwrap_or_default().split_whitespace().collect();
                if !scopes.is_empty() {
                    login.insert("scopes".to_owned(), json!(scopes));
                }
            }
            Self::Codex => {
                if let Some(all) = file.as_object_mut() {
                    all.insert("last_refresh".to_owned(), now.to_string().into());
                }
            }
        }
        Merged::Renewed(file)
    }

    /// The file's text, as its own program writes it.
    pub fn text(self, file: &Value) -> String {
        match self {
            Self::Claude => file.to_string(),
            Self::Codex => format!("{file:#}"),
        }
    }
}

/// What a server said; `retry_after` is the header of that name.
///
/// # Errors
/// Why there is no renewal.
pub fn renewal(status: u16, retry_after: Option<&str>, body: &[u8]) -> Result<Value, NoRenewal> {
    let said: Option<Value> = serde_json::from_slice(body).ok();
    match status {
        200 => {
            let fits = |name| word(said.as_ref()?, name).map(is_token);
            // It was asked, and what it gave instead of the old token is no token: that one is spent.
            let whole = fits("/access_token") == Some(true) && fits("/refresh_token") != Some(false);
            said.filter(|_| whole).ok_or(NoRenewal::Refused(None))
        }
        400 | 401 | 403 => Err(NoRenewal::Refused(said.as_ref().and_then(known_word))),
        _ => {
            let asked = retry_after.and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
            Err(NoRenewal::Later(asked.map(|asked| asked.min(ASKED_MOST))))
        }
    }
}

/// How long to wait after so many failures in a row that may pass.
pub fn pause(in_a_row: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << in_a_row.saturating_sub(1).min(10)).min(PAUSE_MOST);
    doubled.max(asked.unwrap_or_default())
}

/// Why, in a word that is known: any other could hold what was sent.
fn known_word(said: &Value) -> Option<&'static str> {
    const KNOWN: [&str; 8] = [
        "invalid_grant",
        "invalid_client",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "refresh_token_expired",
        "refresh_token_reused",
        "refresh_token_invalidated",
    ];
    let places = ["/error/code", "/error/type", "/error", "/code"];
    let words = places.iter().filter_map(|place| word(said, place));
    words.filter_map(|word| KNOWN.into_iter().find(|known| *known == word)).next()
}

/// Whether it can be sent in a header and kept in a file.
fn is_token(token: &str) -> bool {
    token.len() <= TOKEN_MAX && token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn word<'a>(file: &'a Value, place: &str) -> Option<&'a str> {
    file.pointer(place).and_then(Value::as_str).filter(|word| !word.is_empty())
}

/// When a token says that it ends, in seconds; it is not verified, its provider does that.
fn expiry_s(token: &str) -> Option<i64> {
    let bytes = from_base64url(token.split('.').nth(1)?)?;
    serde_json::from_slice::<Value>(&bytes).ok()?.get("exp")?.as_i64()
}

fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut bits, mut held) = (Vec::with_capacity(text.len() * 3 / 4), 0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).unwrap_or_default());
        }
    }
    Some(bytes)
}
