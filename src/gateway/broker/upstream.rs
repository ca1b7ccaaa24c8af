//! The way to providers: TLS with the machine's own authorities, or plain HTTP to this machine. Redirects are not followed,
//! and no proxy variable is heard.

use std::error::Error as _;
use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// To one address of a provider.
const CONNECT: Duration = Duration::from_secs(10);
/// A request without a stream is answered when the model has finished, which may take so long.
const ANSWER: Duration = Duration::from_secs(900);
/// An unused connection is kept so long: a handshake less for the next request.
const IDLE: Duration = Duration::from_secs(60);

/// Connections to providers, of all runs. They hold no credential: each request brings its own.
#[derive(Default)]
pub(super) struct Upstream {
    plain: OnceLock<Client<HttpConnector, Body>>,
    tls: OnceLock<Result<Client<HttpsConnector<HttpConnector>, Body>, String>>,
}

/// No answer came.
pub(super) struct Unsent {
    /// In words, without anything of the request.
    pub(super) why: String,
    /// Whether the provider may have had the request.
    pub(super) reached: bool,
}

impl Unsent {
    fn of(error: &hyper_util::client::legacy::Error) -> Self {
        Self { why: reason(error), reached: !error.is_connect() }
    }
}

impl Upstream {
    /// Sends one request; `Err` says why there is no answer, and holds nothing of the request.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        let sent = async {
            if request.uri().scheme_str() == Some("http") {
                return self
                    .plain
                    .get_or_init(|| builder().build(tcp()))
                    .request(request)
                    .await
                    .map_err(|e| Unsent::of(&e));
            }
            match self.tls.get_or_init(tls) {
                Ok(client) => client.request(request).await.map_err(|error| Unsent::of(&error)),
                Err(why) => Err(Unsent { why: why.clone(), reached: false }),
            }
        };
        let late = || Unsent { why: format!("no answer within {} s", ANSWER.as_secs()), reached: true };
        tokio::time::timeout(ANSWER, sent).await.unwrap_or_else(|_| Err(late()))
    }
}

fn builder() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).pool_max_idle_per_host(8);
    builder
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_nodelay(true);
    tcp
}

fn tls() -> Result<Client<HttpsConnector<HttpConnector>, Body>, String> {
    let with_roots = HttpsConnectorBuilder::new().with_native_roots();
    let with_roots = with_roots.map_err(|error| {
        format!("this machine's certificate authorities cannot be read ({error}); install ca-certificates, or set SSL_CERT_FILE")
    })?;
    Ok(builder().build(with_roots.https_only().enable_http1().wrap_connector(tcp())))
}

/// An error with what lies behind it: its own words are only `client error (Connect)`.
fn reason(error: &hyper_util::client::legacy::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        said = format!("{said}: {inner}");
        source = inner.source();
    }
    said
}
