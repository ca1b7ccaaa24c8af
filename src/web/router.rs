//! Every route of the door, on one screen. The guest's MCP endpoint is not here: it lives on the guest's loopback.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::error::ApiError;
use super::{Shared, api, assets, create, decide, events, guard, hosts, page, raise, say, steer};

/// The largest request body, in bytes (0.1.0).
pub(super) const MAX_BODY: usize = 1_000_000;

/// The router behind its guard.
pub(super) fn routes(app: Shared) -> Router {
    Router::new()
        .route("/", get(page::whole))
        .route("/login", get(guard::login))
        .route("/healthz", get(api::healthz))
        .route("/assets/{name}", get(assets::serve))
        .route("/api/v1/partials/{name}", get(page::partial))
        .route("/api/v1/state", get(api::state))
        .route("/api/v1/refresh", post(api::refresh))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/issues", get(api::issues).post(create::create))
        .route("/api/v1/issues/{id}", get(api::issue))
        .route("/api/v1/issues/{id}/steering-reply", post(steer::reply))
        .route("/api/v1/issues/{id}/message", post(say::message))
        .route("/api/v1/issues/{id}/approve", post(decide::approve))
        .route("/api/v1/issues/{id}/discard", post(decide::discard))
        .route("/api/v1/egress/{number}/decide", post(hosts::decide))
        .route("/api/v1/egress/{number}/forget", post(hosts::forget))
        .route("/api/v1/issues/{id}/raise", post(raise::raise))
        .route("/api/v1/{id}", get(api::claimed))
        .fallback(async || ApiError::not_found())
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "method not allowed")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
