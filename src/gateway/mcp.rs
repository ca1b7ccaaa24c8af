//! The MCP endpoint of one run: HTTP/1.1 on byte streams that come from the run's own guest.
//!
//! Owns path, token, limits and life; the protocol is rmcp's, the tools are in `mcp_tools`. It moves no
//! file and decides nothing: calls go to the run as data. Contract: smol-symphony 0.1.0 §1.9, with rmcp's
//! transport codes (DESIGN §6).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use subtle::ConstantTimeEq;
use symphony_core::ids::Identifier;
use symphony_core::json_weight;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::mcp_tools::Tools;
use crate::agent::tools::ToolCall;

/// Largest request body, in bytes (0.1.0's limit).
const BODY: usize = 1_000_000;
/// Most JSON values in a body: its tree would otherwise take a hundred times its size.
const VALUES: usize = 10_000;
/// Connections at once; a further one is closed unread.
const CONNECTIONS: usize = 16;
/// Longest time for a request's head, which is also the longest pause between two requests.
const HEAD: Duration = Duration::from_secs(120);
/// Longest time for a request, body and answer together.
const REQUEST: Duration = Duration::from_secs(90);

/// A run's token: 24 random bytes in base64url (32 characters), new for each run.
#[derive(Clone)]
pub struct Bearer(String);

impl Bearer {
    /// A new token.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 24];
        getrandom::fill(&mut bytes)?;
        Ok(Self(base64url(&bytes)))
    }

    /// The token, for the agent's session only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer([redacted])")
    }
}

/// The endpoint of one run. Clones share everything.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    service: StreamableHttpService<Tools, NeverSessionManager>,
}

struct Shared {
    path: String,
    bearer: Bearer,
    connections: Arc<Semaphore>,
    closed: CancellationToken,
    /// Whether tool calls are taken yet.
    taking: Arc<AtomicBool>,
    listed: watch::Receiver<bool>,
    /// Whether it was said that there were too many connections.
    crowded: AtomicBool,
}

impl Endpoint {
    /// The endpoint for `identifier`, there until [`Endpoint::close`]. From [`Endpoint::take_calls`] on tool calls go to
    /// `calls`.
    pub fn new(identifier: &Identifier, bearer: Bearer, calls: mpsc::Sender<ToolCall>) -> Self {
        let (listing, listed) = watch::channel(false);
        let closed = CancellationToken::new();
        let taking = Arc::new(AtomicBool::new(false));
        let tools = Tools::new(calls, listing, taking.clone(), closed.clone());
        let config = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_allowed_hosts(["127.0.0.1", "localhost"])
            .with_max_request_body_bytes(BODY);
        let service =
            StreamableHttpService::new(move || Ok(tools.clone()), Arc::new(NeverSessionManager::default()), config);
        let shared = Shared {
            path: path(identifier),
            bearer,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            closed,
            taking,
            listed,
            crowded: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), service }
    }

    /// Where the agent finds the endpoint when the guest listens on its loopback `port` (U4).
    pub fn url(&self, port: u16) -> String {
        format!("http://127.0.0.1:{port}{}", self.shared.path)
    }

    /// Becomes `true` when the agent first lists our tools. `false` after its first turn means that it
    /// works without them and can report nothing.
    pub fn tools_listed(&self) -> watch::Receiver<bool> {
        self.shared.listed.clone()
    }

    /// Tool calls count from now on. Earlier ones are refused: an agent that reads an old session may repeat them.
    pub fn take_calls(&self) {
        self.shared.taking.store(true, Ordering::Release);
    }

    /// Ends the endpoint: waiting calls are told that the run has ended, later ones find the door shut (J17).
    pub fn close(&self) {
        self.shared.closed.cancel();
    }

    /// Serves one connection from the guest until either side closes it or the endpoint is closed.
    pub async fn serve(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        if self.shared.closed.is_cancelled() {
            return;
        }
        let Ok(_permit) = self.shared.connections.clone().try_acquire_owned() else {
            // Once: a guest can do this thousands of times a second, and our log is not its to fill.
            if !self.shared.crowded.swap(true, Ordering::Relaxed) {
                tracing::warn!(path = %self.shared.path, "the guest holds too many MCP connections; further ones are closed");
            }
            return;
        };
        let endpoint = self.clone();
        let service = service_fn(move |request| {
            let endpoint = endpoint.clone();
            async move { Ok::<_, Infallible>(endpoint.answer_in_time(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shared.closed.cancelled() => {
                // A call that is under way is answered first: it was told that the run has ended.
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(Duration::from_secs(1), connection).await {
                    Ok(ended) => ended,
                    Err(_) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an MCP connection of the guest broke");
        }
    }

    async fn answer_in_time(&self, request: Request<Incoming>) -> Response<Body> {
        match tokio::time::timeout(REQUEST, self.answer(request)).await {
            Ok(response) => response,
            Err(_) => refusal(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long"),
        }
    }

    /// The checks in 0.1.0's order, then rmcp.
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != self.shared.path {
            return refusal(StatusCode::NOT_FOUND, "not_found", "nothing is here");
        }
        if request.method() != Method::POST {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "only POST");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
            return response;
        }
        let Some(token) = bearer_of(&request) else {
            return refusal(StatusCode::UNAUTHORIZED, "unauthorized", "Authorization: Bearer is missing");
        };
        let right = bool::from(token.ct_eq(self.shared.bearer.0.as_bytes()));
        if !right || self.shared.closed.is_cancelled() {
            return refusal(StatusCode::NOT_FOUND, "not_found", "no run is active under this token");
        }
        let (head, body) = request.into_parts();
        let Ok(body) = to_bytes(Body::new(body), BODY).await else {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "bad_request", "the body is too large or broke off");
        };
        if json_weight::values(&body) > VALUES {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "bad_request", "the body has too many values");
        }
        self.service.handle(Request::from_parts(head, Body::from(body))).await.map(Body::new)
    }
}

/// The bytes after `Bearer `, whatever they are.
fn bearer_of<B>(request: &Request<B>) -> Option<&[u8]> {
    let value = request.headers().get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// An answer of ours, in the shape of the operator API's errors.
fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({"error": {"code": code, "message": message}}).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// `/api/v1/issues/<identifier>/mcp`, the identifier encoded as `encodeURIComponent` does (U4).
fn path(identifier: &Identifier) -> String {
    let mut path = String::from("/api/v1/issues/");
    for byte in identifier.0.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push_str("/mcp");
    path
}

/// base64url without padding; `bytes` in groups of three.
pub(super) fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().enumerate().fold(0_u32, |word, (i, b)| word | u32::from(*b) << (16 - 8 * i));
        for i in 0..=group.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * i) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests;
