//! The model broker's decisions: what of an agent's request goes to a provider, and what is refused and why.
//!
//! Pure. What is checked is what is sent: a body is written anew from what was read here, so that no second reading of
//! the same bytes can find another meaning in them. Whatever is not known to be plain inference is refused, not dropped:
//! an agent whose request was changed behind its back fails in ways nobody can explain.

mod anthropic;
mod chat;
mod exact;
mod google;
mod headers;
mod in_vain;
pub mod login;
mod most;
mod pluck;
pub mod quota;
mod responses;
mod seen;
#[cfg(test)]
mod tests;
mod usage;

pub use headers::{request_header, response_header, without_login_beta};
pub use in_vain::{InVain, MOST as IN_VAIN_MOST};
pub use most::{Most, Writes, is_long_context};
pub use seen::{Came, Failed, Seen, words_of};
pub use usage::{Meter, Metered, Reading, Usage};

use serde_json::{Map, Value, json};

use self::exact::exact;

/// Longest request body, in bytes.
pub const BODY_MAX: usize = 32 * 1024 * 1024;
/// Most JSON values in a body.
pub const VALUES_MAX: usize = 100_000;
/// Longest text of a refusal, in characters: it goes into logs and onto pages.
const MESSAGE_MAX: usize = 600;
/// Longest name of a model.
const MODEL_MAX: usize = 200;
/// The query in which a client of Google's may send its token. It goes nowhere.
pub const TOKEN_QUERY: &str = "key";

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Provider {
    /// The Messages API.
    Anthropic,
    /// The Responses and Chat Completions APIs, of OpenAI or a server that speaks them.
    OpenAi,
    /// The Gemini API.
    Google,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Anthropic, Self::OpenAi, Self::Google];

    /// The name below `providers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Google => "google",
        }
    }

    /// Where its API begins on the guest's port. Clients append `/v1/messages` to the first,
    /// `/responses` to the second and `/v1beta/models/…` to the third.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Anthropic => "/anthropic",
            Self::OpenAi => "/openai/v1",
            Self::Google => "/google",
        }
    }

    /// Where its API is when `base_url` says nothing else.
    pub fn base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Google => "https://generativelanguage.googleapis.com",
        }
    }

    /// The variable that holds its key when `api_key_env` says nothing else.
    pub fn api_key_env(self) -> &'static str {
        match self {
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::OpenAi => "OPENAI_API_KEY",
            Self::Google => "GEMINI_API_KEY",
        }
    }

    /// Whose error format answers a request for this path.
    pub fn of_path(path: &str) -> Self {
        match path {
            path if path.starts_with("/openai") => Self::OpenAi,
            path if path.starts_with("/google") => Self::Google,
            _ => Self::Anthropic,
        }
    }
}

/// What an agent may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1beta/models/NAME:generateContent` or `:streamGenerateContent`
    GenerateContent,
    /// `POST /v1beta/models/NAME:countTokens`
    CountContent,
    /// `GET /v1/models`
    Models,
}

impl Call {
    /// Whether it has a body, and an answer that uses tokens unless it only counts them.
    pub fn has_body(self) -> bool {
        self != Self::Models
    }

    /// Whether its answer uses tokens.
    pub fn is_metered(self) -> bool {
        !matches!(self, Self::Models | Self::CountTokens | Self::CountContent)
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// To whom.
    pub provider: Provider,
    /// For what.
    pub call: Call,
    /// Path and query, to stand behind the provider's base URL.
    pub target: String,
    /// The model, where the path names it.
    pub model: Option<String>,
}

/// What a path asks for.
struct Asked<'p> {
    call: Call,
    /// The model that it names.
    model: Option<&'p str>,
    /// The queries that may stand behind it.
    queries: &'static [&'static str],
    /// The query that must.
    wants: Option<&'static str>,
}

impl Asked<'_> {
    fn of(call: Call) -> Self {
        Self { call, model: None, queries: &[], wants: None }
    }
}

/// Why a request is not forwarded: for the agent, in its provider's error format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// With a hint.
    pub message: String,
    /// Whether the workflow is what refuses: the same request fares no better until a person has changed that.
    pub by_workflow: bool,
}

impl Refusal {
    /// A refusal with this status. It quotes the agent, so it is cut and holds no control characters.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let shown = message.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self { status, message: shown.take(MESSAGE_MAX).collect(), by_workflow: false }
    }

    /// What only a change of the workflow, or of the agent, lets pass.
    pub fn by_workflow(message: impl Into<String>) -> Self {
        Self { by_workflow: true, ..Self::bad(message) }
    }

    fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// Something that makes the provider reach out, or hand out what it keeps.
    fn reaches_out(place: &str, what: &str) -> Self {
        Self::by_workflow(format!(
            "`{place}`: {what} is not forwarded: it could let the provider act beyond this sandbox. Switch it off in the \
             agent, or allow it with `egress.provider_tools: true` in WORKFLOW.md"
        ))
    }
}

/// What the workflow allows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules<'a> {
    /// `egress.provider_tools`
    pub provider_tools: bool,
    /// `providers.*.models`; `None` is any.
    pub models: Option<&'a [String]>,
    /// Whether `base_url` is another server's: it may know fewer fields than the provider itself.
    pub elsewhere: bool,
}

/// A body that may be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// What is sent.
    pub body: Value,
    /// The model it names.
    pub model: String,
}

/// Finds what is asked for.
///
/// # Errors
/// For everything that is not inference.
pub fn route(method: &str, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
    let found = Provider::ALL.into_iter().find_map(|provider| Some((provider, path.strip_prefix(provider.prefix())?)));
    let unknown = || {
        Refusal::new(
            404,
            format!(
                "{method} {path} is not forwarded: only inference is, at /v1/messages, /v1/messages/count_tokens and /v1/models of Anthropic, /responses, /chat/completions and /models of OpenAI, and /v1beta/models with NAME:generateContent, NAME:streamGenerateContent and NAME:countTokens of Google"
            ),
        )
    };
    let (provider, rest) = found.ok_or_else(unknown)?;
    let with = |call, queries| Some(Asked { queries, ..Asked::of(call) });
    let asked = match (provider, rest) {
        (Provider::Anthropic, "/v1/messages") => with(Call::Messages, &["beta"]),
        (Provider::Anthropic, "/v1/messages/count_tokens") => with(Call::CountTokens, &["beta"]),
        (Provider::Anthropic, "/v1/models") => with(Call::Models, &["beta", "limit", "after_id", "before_id"]),
        (Provider::OpenAi, "/responses") => with(Call::Responses, &[]),
        (Provider::OpenAi, "/chat/completions") => with(Call::ChatCompletions, &[]),
        (Provider::OpenAi, "/models") => with(Call::Models, &["client_version"]),
        (Provider::Google, rest) => google::asked(rest),
        _ => None,
    };
    let Asked { call, model, queries, wants } = asked.ok_or_else(unknown)?;
    let wanted = if call.has_body() { "POST" } else { "GET" };
    if method != wanted {
        return Err(Refusal::new(405, format!("{method} {path} is not forwarded, only {wanted} is")));
    }
    let mut kept = vec![];
    for pair in query.filter(|query| !query.is_empty()).into_iter().flat_map(|query| query.split('&')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if provider == Provider::Google && name == TOKEN_QUERY {
            continue;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !queries.contains(&name) || value.len() > MODEL_MAX || !value.chars().all(plain) {
            return Err(Refusal::bad("the query of this request is not forwarded; leave it out"));
        }
        kept.push(pair);
    }
    if let Some(wants) = wants
        && kept != [wants]
    {
        return Err(Refusal::bad(format!("this request is forwarded with the query `{wants}` only")));
    }
    let query = if kept.is_empty() { String::new() } else { format!("?{}", kept.join("&")) };
    Ok(Route { provider, call, target: format!("{rest}{query}"), model: model.map(str::to_owned) })
}

/// Whether a model of this name asks the web without a tool: such names are few, and a workflow may list them.
fn searches(model: &str) -> bool {
    let model = model.to_ascii_lowercase();
    ["-search-", "deep-research", ":online", "sonar"].iter().any(|part| model.contains(part))
        || model.ends_with("-search")
}

/// Base64 or a `data:` URL; anything else may be an address that somebody fetches.
fn data(value: Option<&Value>, place: &str) -> Result<(), Refusal> {
    match value {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(text)) if text.starts_with("data:") || !text.contains(':') => Ok(()),
        _ => Err(Refusal::reaches_out(place, "something other than data")),
    }
}

/// Checks a body, and makes of it what is sent; `named` is the model that the path names.
///
/// # Errors
/// For what the workflow does not allow, and for what is not a request.
pub fn check(call: Call, named: Option<&str>, body: Value, rules: &Rules<'_>) -> Result<Checked, Refusal> {
    let Value::Object(mut body) = body else { return Err(Refusal::bad("the body must be a JSON object")) };
    exact(&body, "")?;
    if matches!(call, Call::GenerateContent | Call::CountContent) {
        google::counted(&mut body)?;
    }
    let model = match named.or(body.get("model").and_then(Value::as_str)) {
        // It is shown and logged.
        Some(model)
            if !model.is_empty() && model.len() <= MODEL_MAX && model.bytes().all(|byte| byte.is_ascii_graphic()) =>
        {
            model.to_owned()
        }
        _ => return Err(Refusal::bad("`model` must be the name of a model")),
    };
    if let Some(models) = rules.models
        && !models.contains(&model)
    {
        let listed = models.join(", ");
        return Err(Refusal::by_workflow(format!(
            "the model `{model}` is not allowed here; the workflow lists: {listed}"
        )));
    }
    if rules.models.is_none() && !rules.provider_tools && searches(&model) {
        return Err(Refusal::reaches_out("model", &format!("`{model}`, which searches by itself")));
    }
    if !rules.provider_tools {
        match call {
            Call::Messages | Call::CountTokens => anthropic::check(&body)?,
            Call::Responses => responses::check(&body)?,
            Call::ChatCompletions => chat::check(&body)?,
            Call::GenerateContent | Call::CountContent => google::check(&body)?,
            Call::Models => return Err(Refusal::bad("this request has no body")),
        }
    }
    most::named(&body)?;
    match call {
        Call::Responses => drop(body.insert("store".to_owned(), Value::Bool(false))),
        Call::ChatCompletions => chat::settle(&mut body, rules.elsewhere)?,
        Call::Messages | Call::CountTokens | Call::GenerateContent | Call::CountContent | Call::Models => {}
    }
    Ok(Checked { body: Value::Object(body), model })
}

/// What a checked body of so many bytes can use at most, and the unusual service tier or speed that it asks for;
/// `assumed` is the output of a request that names no maximum.
pub fn weigh(call: Call, body: &Value, bytes: usize, assumed: u64) -> (Most, Option<String>) {
    let empty = Map::new();
    let body = body.as_object().unwrap_or(&empty);
    (most::most(call, body, bytes, assumed), most::tier(body))
}

/// An error in the provider's own format, so that agents show its text.
pub fn error_body(provider: Provider, status: u16, message: &str) -> Value {
    let kind = match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    let message = format!("symphony: {message}");
    match provider {
        Provider::Anthropic => json!({"type": "error", "error": {"type": kind, "message": message}}),
        Provider::OpenAi => json!({"error": {"message": message, "type": kind, "param": null, "code": "symphony"}}),
        Provider::Google => {
            let word = match status {
                401 => "UNAUTHENTICATED",
                403 => "PERMISSION_DENIED",
                404 => "NOT_FOUND",
                429 => "RESOURCE_EXHAUSTED",
                503 => "UNAVAILABLE",
                500.. => "INTERNAL",
                _ => "INVALID_ARGUMENT",
            };
            json!({"error": {"code": status, "message": message, "status": word}})
        }
    }
}

/// Only fields of this list; what stands in `reaching` is named for what it is.
fn only(body: &Map<String, Value>, fields: &[&str], reaching: &[(&str, &str)]) -> Result<(), Refusal> {
    for (name, value) in body {
        if let Some((_, what)) = reaching.iter().find(|(reaching, _)| reaching == name) {
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return Err(Refusal::reaches_out(name, what));
            }
        } else if !fields.contains(&name.as_str()) {
            let shown: String = name.chars().take(60).collect();
            let what = "this field is unknown to this version of symphony, so it";
            return Err(Refusal::reaches_out(&shown, what));
        }
    }
    Ok(())
}

/// The items of a list that may be absent.
fn items<'v>(value: Option<&'v Value>, place: &str) -> Result<&'v [Value], Refusal> {
    match value {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(Refusal::bad(format!("`{place}` must be a list"))),
    }
}

/// The `type` of an object; empty when it has none.
fn kind<'v>(value: &'v Value, place: &str) -> Result<&'v str, Refusal> {
    let object = value.as_object();
    if let Some(object) = object {
        exact(object, place)?;
    }
    match object.map(|object| object.get("type")) {
        Some(None) => Ok(""),
        Some(Some(Value::String(kind))) => Ok(kind),
        _ => Err(Refusal::bad(format!("`{place}` must be an object with a `type`"))),
    }
}

/// Bytes that stand in the request itself; an address would be fetched by the provider.
fn inline(url: Option<&Value>, place: &str) -> Result<(), Refusal> {
    match url {
        Some(Value::String(url)) if url.starts_with("data:") => Ok(()),
        Some(Value::String(_)) => Err(Refusal::reaches_out(place, "an address to fetch from")),
        _ => Err(Refusal::bad(format!("`{place}` must be a data: URL"))),
    }
}

/// No field of these names.
fn without(object: &Value, names: &[&str], place: &str) -> Result<(), Refusal> {
    if let Some(object) = object.as_object() {
        exact(object, place)?;
    }
    match names.iter().find(|name| object.get(**name).is_some_and(|value| !value.is_null())) {
        Some(name) => Err(Refusal::reaches_out(&format!("{place}.{name}"), "what the provider keeps or would fetch")),
        None => Ok(()),
    }
}
