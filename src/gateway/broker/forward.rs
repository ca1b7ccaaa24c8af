//! One request of an agent: is it the run's own, may it go, and what came back.

use std::fmt::Display;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::{Body as _, Bytes, Incoming};
use subtle::ConstantTimeEq as _;
use symphony_core::broker::quota::{self, Trouble};
use symphony_core::broker::{
    self, BODY_MAX, Call, Checked, Failed, Meter, Most, Provider, Refusal, Route, TOKEN_QUERY, VALUES_MAX,
    request_header, response_header, without_login_beta,
};
use symphony_core::json_weight;
use symphony_core::time::Tick;
use tokio::sync::OwnedSemaphorePermit;

use super::Door;
use super::credential::Credential;
use super::passing::{Account, Passing};
use super::upstream::Unsent;
use super::watched::{Answering, Watched};
use crate::agent::redact::Secrets;

/// Longest time for a request's body, waiting for room included.
const BODY: Duration = Duration::from_secs(120);
/// Longest look at whether a credential is still good.
const LOOK: Duration = Duration::from_secs(20);
/// Bytes of a provider's refusal that are read.
const REFUSAL_MAX: usize = 64 * 1024;
/// Longest value of a header that is forwarded, and all of them together.
const HEADER_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 32 * 1024;

/// What goes to a provider, credential aside; kept until it has answered, for a second try with a newer login.
pub(super) struct Outgoing {
    pub(super) route: Route,
    headers: HeaderMap,
    body: Option<Bytes>,
    /// The model that is asked; empty where none is.
    pub(super) model: String,
    /// What it can use at most, and the unusual tier it asks for.
    pub(super) weight: (Most, Option<String>),
    _room: Option<OwnedSemaphorePermit>,
}

/// What came back.
pub(super) struct Answer {
    /// For the agent.
    pub(super) response: Response<Body>,
    /// What was used in the end.
    pub(super) credential: Credential,
    /// What it means for later requests.
    pub(super) trouble: Option<Trouble>,
}

impl Door {
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let provider = Provider::of_path(request.uri().path());
        let is_inference = self.is_inference(&request);
        let answered = match self.outgoing(request).await {
            Ok(outgoing) => self.in_turn(outgoing).await,
            Err(refusal) => {
                if refusal.status != 401 {
                    self.tell("model_refused", || refusal.to_string());
                }
                Err(refusal)
            }
        };
        answered.unwrap_or_else(|refusal| {
            if is_inference {
                self.saw_refusal(&refusal);
            }
            error(provider, &refusal)
        })
    }

    /// The checks, cheapest first: nothing of a stranger's request is read.
    async fn outgoing(&self, request: Request<Incoming>) -> Result<Outgoing, Refusal> {
        if !self.is_ours(request.uri(), request.headers()) {
            return Err(Refusal::new(401, "this is not the token of a run that is active"));
        }
        if request.headers().contains_key(header::UPGRADE) {
            return Err(Refusal::new(426, "there are no WebSockets here; use plain HTTP with server-sent events"));
        }
        let (head, body) = request.into_parts();
        let route = broker::route(head.method.as_str(), head.uri.path(), head.uri.query())?;
        let headers = forwarded(route.provider, &head.headers)?;
        if !route.call.has_body() {
            let weight = (Most::default(), None);
            return Ok(Outgoing { route, headers, body: None, model: String::new(), weight, _room: None });
        }
        if head.headers.get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Refusal::new(415, "compressed bodies are not read; send plain JSON"));
        }
        let taken = tokio::time::timeout(BODY, self.read(body)).await;
        let (bytes, room) = taken.map_err(|_| Refusal::new(408, "the request took too long"))??;
        let (models, call, provider) = (self.0.models.clone(), route.call, route.provider);
        let named = route.model.clone();
        let assumed = self.0.purse.metering.assumed_output();
        // A large body keeps a processor busy for a while.
        // The room is taken along: an agent that hangs up must not free what is still worked on.
        let turn = self.0.broker.checks.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Refusal::new(503, "the run is over"))?;
        let checked = tokio::task::spawn_blocking(move || -> Result<_, Refusal> {
            let _turn = turn;
            if json_weight::values(&bytes) > VALUES_MAX {
                return Err(Refusal::new(413, "the body has too many values"));
            }
            let read = serde_json::from_slice(&bytes);
            let read = read.map_err(|error| Refusal::new(400, format!("the body is not JSON: {error}")))?;
            let Checked { body, model } = broker::check(call, named.as_deref(), read, &models.rules(provider))?;
            let bytes = Bytes::from(body.to_string());
            let weight = broker::weigh(call, &body, bytes.len(), assumed);
            Ok((bytes, model, weight, room))
        });
        let (body, model, mut weight, room) =
            checked.await.map_err(|_| Refusal::new(500, "the request could not be checked"))??;
        let betas = headers.get_all("anthropic-beta").iter().filter_map(|value| value.to_str().ok());
        weight.0.is_long = betas.into_iter().any(broker::is_long_context);
        Ok(Outgoing { route, headers, body: Some(body), model, weight, _room: Some(room) })
    }

    /// Whether the token is this run's, and the run still there. All ways that clients send one are heard.
    pub(super) fn is_ours(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let bearer = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let bearer = bearer.and_then(|value| value.split_at_checked(7));
        let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")).map(|(_, token)| token);
        let keys = ["x-api-key", "x-goog-api-key"].map(|name| headers.get(name).map(HeaderValue::as_bytes));
        let is_google = Provider::of_path(uri.path()) == Provider::Google;
        let query = uri.query().filter(|_| is_google).unwrap_or_default();
        let in_query = query.split('&').filter_map(|pair| pair.strip_prefix(TOKEN_QUERY)?.strip_prefix('='));
        let given = keys.into_iter().chain([bearer]).flatten().chain(in_query.map(str::as_bytes));
        let ours = self.token().as_bytes();
        let right = given.into_iter().any(|token| bool::from(token.ct_eq(ours)));
        right && !self.0.closed.is_cancelled()
    }

    /// The whole body, once there is room for it.
    async fn read(&self, body: Incoming) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let large = || Refusal::new(413, format!("the body is larger than {} MiB, or broke off", BODY_MAX >> 20));
        let most = body.size_hint().upper().unwrap_or(BODY_MAX as u64);
        let most = usize::try_from(most).ok().filter(|most| *most <= BODY_MAX).ok_or_else(large)?;
        let kib = u32::try_from(most / 1024 + 1).map_err(|_| large())?;
        let room = self.0.room.clone().acquire_many_owned(kib).await;
        let room = room.map_err(|_| Refusal::new(503, "the run is over"))?;
        let bytes = to_bytes(Body::new(body), BODY_MAX).await.map_err(|_| large())?;
        Ok((bytes, room))
    }

    /// One request to the provider, and what came back.
    ///
    /// Its account is left where it is unless an answer begins: what is set aside comes free once its caller has kept what a
    /// refusal means for the others that wait for it. A refusal costs nothing, for its provider did nothing, but that of a
    /// gateway which lost the answer: see [`quota::may_have_worked`].
    pub(super) async fn forward(
        &self,
        outgoing: &Outgoing,
        mut credential: Credential,
        account: &mut Option<Account>,
        sent: Tick,
    ) -> Result<Answer, Refusal> {
        let Route { provider, call, .. } = outgoing.route;
        let mut response = self.send(outgoing, &credential, account).await?;
        if response.status() == StatusCode::UNAUTHORIZED && credential.source.is_login() {
            // It did no work for that, whatever becomes of the next look at the login.
            if let Some(account) = account.as_mut() {
                account.refused();
            }
            // Its owner may have logged in again a moment ago.
            let newer = self.credential(provider, call.is_metered()).await?;
            if newer.headers != credential.headers {
                credential = newer;
                response = self.send(outgoing, &credential, account).await?;
            }
        }
        let mut status = response.status();
        if let Some(account) = account.as_mut() {
            let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            match status.as_u16() {
                200..=299 => account.answered(Meter::new(call, kind.unwrap_or_default())),
                status if quota::is_of_a_gateway(status) => {}
                _ => account.refused(),
            }
        }
        let name = provider.name();
        match status.as_u16() {
            300..=399 => {
                let said = format!(
                    "{name} answered {status} with another address, which is not followed: mend `providers.{name}.base_url`"
                );
                self.tell("model_unreachable", || said.clone());
                return Err(Refusal::new(502, said));
            }
            // Why it is asked again, or not, is told where that is decided.
            529 => {}
            500.. => self.tell("model_error", || format!("{name} answered {}", status.as_u16())),
            _ => {}
        }
        let (head, body) = response.into_parts();
        // A refusal may quote what it was sent, in a proxy's words or the provider's own.
        let (body, trouble) = match status.is_success() {
            true if call.is_metered() => {
                let (model, credential, headers) = (outgoing.model.clone(), credential.clone(), head.headers.clone());
                let of = Answering { door: self.clone(), provider, model, credential, headers, sent };
                (Body::new(Watched::new(Passing::new(body, account.take()), of)), None)
            }
            true => (Body::new(Passing::new(body, None)), None),
            false => {
                let read = scrubbed(body, &credential).await;
                if let Some(account) =
                    account.as_mut().filter(|_| !quota::may_have_worked(status.as_u16(), read.as_deref()))
                {
                    account.refused();
                }
                let words = read.unwrap_or_else(|| UNREAD.to_owned());
                let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
                let in_a_row = self.0.broker.standings.in_a_row_with(&credential.fingerprint(), sent);
                let (model, now) = (outgoing.model.as_str(), jiff::Timestamp::now());
                let refused =
                    quota::Refused { status: status.as_u16(), header: &header, words: &words, model, in_a_row };
                let trouble = quota::trouble(&refused, now);
                // Its agent must not take it for a limit that a wait mends.
                if quota::is_too_large(&refused, now) {
                    status = StatusCode::PAYLOAD_TOO_LARGE;
                }
                // What asks to wait, or for another login, is no failure of the turn.
                if call.is_metered() && trouble.is_none() {
                    let failed = if quota::is_unknown_model(&refused) { Failed::NoModel } else { Failed::Open };
                    self.saw_failure(provider, &outgoing.model, status, &words, failed);
                }
                (Body::from(words), trouble)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let passes = |name: &HeaderName| {
            response_header(name.as_str()) && (status.is_success() || name != header::CONTENT_ENCODING)
        };
        for (name, value) in head.headers.iter().filter(|(name, _)| passes(name)) {
            response.headers_mut().append(name, value.clone());
        }
        Ok(Answer { response, credential, trouble })
    }

    /// Whether the provider takes the credential for something that costs nothing.
    pub(super) async fn is_taken(&self, provider: Provider, credential: &Credential) -> bool {
        // Nothing of the agent's is in it.
        let headers =
            std::iter::once((HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01")));
        let headers = headers.filter(|_| provider == Provider::Anthropic).collect();
        let target = match provider {
            Provider::Anthropic => "/v1/models",
            Provider::OpenAi => "/models",
            Provider::Google => "/v1beta/models",
        };
        let route = Route { provider, call: Call::Models, target: target.to_owned(), model: None };
        let weight = (Most::default(), None);
        let look = Outgoing { route, headers, body: None, model: String::new(), weight, _room: None };
        let looked = tokio::time::timeout(LOOK, self.send(&look, credential, &mut None)).await;
        looked.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status().is_success()))
    }

    async fn send(
        &self,
        outgoing: &Outgoing,
        credential: &Credential,
        account: &mut Option<Account>,
    ) -> Result<Response<Incoming>, Refusal> {
        let Outgoing { route, headers, body, .. } = outgoing;
        let name = route.provider.name();
        let mut request = Request::new(body.clone().map_or_else(Body::empty, Body::from));
        *request.uri_mut() = format!("{}{}", credential.base_url, route.target)
            .parse()
            .map_err(|_| Refusal::new(502, format!("`providers.{name}.base_url` is no address")))?;
        *request.headers_mut() = headers.clone();
        let all = request.headers_mut();
        // An answer that was packed could not be read in passing.
        all.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        betas(all, credential.beta);
        for (name, value) in &credential.headers {
            all.insert(name, value.clone());
        }
        if body.is_some() {
            all.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.method_mut() = Method::POST;
        }
        if let Some(account) = account.as_mut() {
            account.sent();
        }
        self.0.broker.upstream.send(request).await.map_err(|Unsent { why, reached }| {
            if let Some(account) = account.as_mut().filter(|_| !reached) {
                account.refused();
            }
            let said = format!("{name} cannot be reached from the host: {why}");
            self.tell("model_unreachable", || said.clone());
            Refusal::new(502, said)
        })
    }
}

/// What an agent is told in the place of words that cannot be read.
const UNREAD: &str = r#"{"error":{"message":"the provider's words were too many, no text, or broke off"}}"#;

/// The words of a refusal, as far as they are read, without the credential; packed ones could hide anything.
async fn scrubbed(body: Incoming, credential: &Credential) -> Option<String> {
    let words = tokio::time::timeout(BODY, to_bytes(Body::new(body), REFUSAL_MAX)).await.ok().and_then(Result::ok);
    words.and_then(|words| String::from_utf8(words.into()).ok()).map(|words| scrub(&words, credential))
}

/// A provider's words without the credential.
pub(super) fn scrub(words: &str, credential: &Credential) -> String {
    let values = credential.headers.iter().filter_map(|(_, value)| value.to_str().ok());
    let secrets = values.flat_map(|value| [value, value.strip_prefix("Bearer ").unwrap_or_default()]);
    let secrets = Secrets::new(secrets.map(str::to_owned));
    secrets.redact(words, REFUSAL_MAX)
}

/// The headers that inference needs, within bounds.
fn forwarded(provider: Provider, headers: &HeaderMap) -> Result<HeaderMap, Refusal> {
    let mut passing = HeaderMap::new();
    let mut size = 0;
    for (name, value) in headers.iter().filter(|(name, _)| request_header(provider, name.as_str())) {
        size += name.as_str().len() + value.len();
        if value.len() > HEADER_MAX || size > HEADERS_MAX {
            return Err(Refusal::new(431, format!("the header {name} is too long")));
        }
        passing.append(name, value.clone());
    }
    Ok(passing)
}

/// The betas that the agent asked for, with the one that goes with the credential or without any such.
fn betas(headers: &mut HeaderMap, login: Option<&str>) {
    const NAME: &str = "anthropic-beta";
    let asked: Vec<_> = headers.get_all(NAME).iter().filter_map(|value| value.to_str().ok()).collect();
    let kept = without_login_beta(&asked.join(","));
    let all = [kept.as_str(), login.unwrap_or_default()];
    let all = all.into_iter().filter(|beta| !beta.is_empty()).collect::<Vec<_>>().join(",");
    headers.remove(NAME);
    if let Some(value) = HeaderValue::from_str(&all).ok().filter(|_| !all.is_empty()) {
        headers.insert(NAME, value);
    }
}

/// A refusal in the provider's format.
fn error(provider: Provider, refusal: &Refusal) -> Response<Body> {
    let said: &dyn Display = refusal;
    let body = broker::error_body(provider, refusal.status, &said.to_string());
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if matches!(refusal.status, 400 | 401 | 429) {
        // Asking again changes nothing: the request and the token stay what they are, and a wait of the provider is ours to
        // sit out.
        response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
    }
    response
}
