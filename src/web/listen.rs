//! The listener: binding, accepting, and ending in bounded time.
//!
//! Our own accept loop instead of `axum::serve`: it bounds connections and the wait for a request's head,
//! and an open stream never holds up a shutdown.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use symphony_core::workflow::Auth;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{App, Door, host, router};

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// From the first byte of a request to the end of its head; also how long an idle connection is kept.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long open requests may take to end after the shutdown began.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {host}:{port}: {source}; choose another with `--port`, `server.port` or `server.host`")]
pub struct BindError {
    /// The host asked for.
    pub host: String,
    /// The port asked for.
    pub port: u16,
    /// What the system said.
    pub source: io::Error,
}

/// Listens on `host` (a name or an address, IPv6 without brackets) and `port`; 0 takes any free port (C212).
///
/// # Errors
/// When the name does not resolve or the port is taken.
pub async fn bind(host: &str, port: u16) -> Result<(TcpListener, SocketAddr), BindError> {
    let refused = |source| BindError { host: host.to_owned(), port, source };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let listener = TcpListener::bind((bare, port)).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Why nothing was served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener does not know its address.
    #[error("the dashboard's listener has no address: {0}")]
    Address(io::Error),
    /// `server.auth: none` where others can reach it.
    #[error("`server.auth: none` is for loopback addresses only, and {0} is not one; remove it or bind 127.0.0.1")]
    OpenToAll(SocketAddr),
}

/// The address to print for people: a listener on every address is reached on loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Answers requests until `shutdown`, then at most three seconds more. Dropping the future ends it at once.
///
/// # Errors
/// When the listener has no address, or would be open to all; a failed accept is waited out.
pub async fn serve(listener: TcpListener, door: Door, shutdown: CancellationToken) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Address)?;
    if door.auth == Auth::None && !address.ip().is_loopback() {
        return Err(ServeError::OpenToAll(address));
    }
    let names = host::Names {
        configured: door.host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        ip: address.ip(),
        port: address.port(),
    };
    let closing = shutdown.child_token();
    // Whatever way this future ends, its connections end too.
    let _close = closing.clone().drop_guard();
    let app = Arc::new(App {
        handle: door.handle,
        tracker: door.tracker,
        token: door.token,
        auth: door.auth,
        names,
        shutdown: closing.clone(),
    });
    let routes = router::routes(app);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            listener.accept().await.map(|(stream, _)| (stream, place))
        };
        let (stream, place) = tokio::select! {
            () = closing.cancelled() => break,
            accepted = accepted => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!(error = %e, "the dashboard could not accept a connection");
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (routes, closing) = (routes.clone(), closing.clone());
        connections.spawn(async move {
            converse(stream, routes, &closing).await;
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    if timeout(DRAIN_DEADLINE, connections.wait()).await.is_err() {
        tracing::debug!("a dashboard connection outlived its deadline");
    }
    Ok(())
}

/// One connection, until it ends or the shutdown's deadline passes.
pub(super) async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    routes: axum::Router,
    closing: &CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    let mut connection = std::pin::pin!(connection);
    // How a browser ends its connection is not our news.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = timeout(DRAIN_DEADLINE, connection).await;
}
