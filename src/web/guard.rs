//! Who may ask, and from where: the checks before every handler, and the headers after it.
//!
//! Order: our `Host` (DNS rebinding) → a readable path → the operator token → for changes, how the request was
//! made ([`Made`]). A handler that changes something calls [`made`] before it reads a byte of the body.

use std::time::Duration;

use askama::Template;
use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Form, FromRequest, Json, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use symphony_core::workflow::Auth;
use tokio::time::timeout;

use super::error::ApiError;
use super::{App, Shared, host, router, token};

/// How long a client may take to send a body.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Nothing from elsewhere, nothing inline, nothing evaluated, no frame around us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// How a caller showed that it is the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// `Authorization: Bearer`: no browser adds it by itself.
    Bearer,
    /// The cookie of a login link.
    Cookie,
    /// `server.auth: none`.
    Anyone,
}

/// How a request that changes something was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// `application/json`, which a foreign page cannot send unasked.
    Json,
    /// A form of ours, sent by htmx with its own header.
    Htmx,
    /// A plain form; it still has to show its CSRF value.
    Form,
    /// No body at all, by a bearer.
    Empty,
}

/// The middleware around every route.
pub(super) async fn guard(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let mut response = match admit(&app, &request) {
        Err(refusal) => refusal,
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: under it browsers send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Whether the request may reach a handler, and who makes it.
#[allow(clippy::result_large_err, reason = "the refusal is the response itself, made once per request")]
fn admit(app: &App, request: &Request) -> Result<Caller, Response> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(|host| app.names.accept(host)) {
        return Err(ApiError::forbidden("this Host does not name symphony; use the address it printed").into_response());
    }
    let path = request.uri().path();
    if !readable(path) {
        return Err(ApiError::bad_request("the path is not percent-encoded UTF-8").into_response());
    }
    if path == "/healthz" || path == "/login" || path.starts_with("/assets/") {
        return Ok(Caller::Anyone);
    }
    caller(app, headers)
        .ok_or_else(|| if path == "/" { login_page() } else { ApiError::unauthorized().into_response() })
}

fn caller(app: &App, headers: &HeaderMap) -> Option<Caller> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if let Some((scheme, offered)) = bearer.and_then(|value| value.split_once(' '))
        && scheme.eq_ignore_ascii_case("bearer")
        && app.token.matches(offered.trim())
    {
        return Some(Caller::Bearer);
    }
    if app.auth == Auth::None {
        return Some(Caller::Anyone);
    }
    let (name, wanted) = (cookie_name(app), app.token.cookie_value());
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .any(|(key, value)| key == name && token::same(value, &wanted))
        .then_some(Caller::Cookie)
}

/// Cookies ignore ports; the name keeps two symphonies on one machine apart.
fn cookie_name(app: &App) -> String {
    format!("symphony-{}", app.names.port)
}

/// Whether every `%` starts an escape and the whole decodes to UTF-8.
fn readable(path: &str) -> bool {
    let mut bytes = path.bytes();
    let mut decoded = Vec::with_capacity(path.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        match (digit(bytes.next()), digit(bytes.next())) {
            (Some(high), Some(low)) => decoded.push((high * 16 + low) as u8),
            _ => return false,
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

/// How a change was asked for; anything but JSON, an htmx form or a plain form, each from our own origin, is refused.
pub(super) fn made(caller: Caller, headers: &HeaderMap) -> Result<Made, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).map(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    });
    let htmx = headers.get("hx-request").is_some_and(|value| value == "true");
    let made = match kind.as_deref() {
        Some("application/json") => Made::Json,
        Some("application/x-www-form-urlencoded") if htmx => Made::Htmx,
        Some("application/x-www-form-urlencoded") => Made::Form,
        None if caller == Caller::Bearer => Made::Empty,
        _ => return Err(ApiError::unsupported_media_type("send application/json, or the form of the dashboard")),
    };
    if !host::same_origin(headers) {
        return Err(ApiError::forbidden("this request was made by a page of another origin"));
    }
    // What `curl -d` says of itself unasked. A plain form is a browser's, and a browser has the cookie.
    if made == Made::Form && caller == Caller::Bearer {
        if headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0") {
            return Ok(Made::Empty);
        }
        let what = "who sends the token sends JSON: add the header `Content-Type: application/json`";
        return Err(ApiError::unsupported_media_type(what));
    }
    Ok(made)
}

/// Checks the value a plain form must carry.
pub(super) fn check_csrf(app: &App, made: Made, offered: &str) -> Result<(), ApiError> {
    if made != Made::Form || token::same(offered, &app.token.csrf_value()) {
        return Ok(());
    }
    Err(ApiError::forbidden("the form is stale; load the dashboard again"))
}

/// The body as JSON, capped and in time; none is `{}`.
pub(super) async fn json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    check_announced(&request)?;
    let body = timeout(BODY_DEADLINE, Bytes::from_request(request, &())).await.map_err(|_| too_slow())?;
    let body = body.map_err(|e| unreadable(e.status(), e.body_text()))?;
    let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { &body };
    Json::<T>::from_bytes(text).map(|Json(value)| value).map_err(|e| unreadable(e.status(), e.body_text()))
}

/// The body of a request that must have one, whichever way it was made; `format` tells a program how it is written.
pub(super) async fn body<T: DeserializeOwned>(made: Made, request: Request, format: &str) -> Result<T, ApiError> {
    match made {
        Made::Json => json(request).await,
        Made::Htmx | Made::Form => form(request).await,
        Made::Empty => Err(ApiError::unsupported_media_type(format)),
    }
}

/// The body as a form, capped and in time.
pub(super) async fn form<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    check_announced(&request)?;
    let body = timeout(BODY_DEADLINE, Form::<T>::from_request(request, &())).await.map_err(|_| too_slow())?;
    body.map(|Form(value)| value).map_err(|e| unreadable(e.status(), e.body_text()))
}

/// Refuses a body that announces to be too large; the router's limit catches one that does not say.
fn check_announced(request: &Request) -> Result<(), ApiError> {
    if request.body().size_hint().lower() > router::MAX_BODY as u64 { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "the body is larger than 1,000,000 bytes")
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body did not arrive in time")
}

fn unreadable(status: StatusCode, text: String) -> ApiError {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ApiError::bad_request(text),
    }
}

#[derive(Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    token: String,
}

/// `GET /login?token=…`: the token becomes a cookie and leaves the address bar.
pub(super) async fn login(State(app): State<Shared>, query: Result<Query<LoginQuery>, QueryRejection>) -> Response {
    if app.auth == Auth::None {
        // Nobody showed a token, so nobody gets what a later start with `auth: token` would take for one.
        return Redirect::to("/").into_response();
    }
    let offered = query.map(|Query(query)| query.token).unwrap_or_default();
    if !app.token.matches(offered.trim()) {
        return login_page();
    }
    let cookie = format!(
        "{}={}; HttpOnly; SameSite=Strict; Path=/; Max-Age=31536000",
        cookie_name(&app),
        app.token.cookie_value()
    );
    let headers = [(header::SET_COOKIE, cookie), (header::REFERRER_POLICY, "no-referrer".to_owned())];
    (headers, Redirect::to("/")).into_response()
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    css: String,
}

/// What a browser without the cookie gets: where to find the link.
fn login_page() -> Response {
    let headers = [(header::REFERRER_POLICY, "no-referrer"), (header::WWW_AUTHENTICATE, "Bearer")];
    match (LoginPage { css: super::assets::url("app.css") }).render() {
        Ok(page) => (StatusCode::UNAUTHORIZED, headers, Html(page)).into_response(),
        Err(e) => ApiError::from(e).into_response(),
    }
}
