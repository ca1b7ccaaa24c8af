//! The JSON routes that read, and refresh, which asks the conductor to look.

use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use symphony_core::explain;
use tokio::time::timeout;

use super::error::ApiError;
use super::guard::{self, Caller, Made};
use super::{App, Shared, wire};

/// How long the conductor or the tracker may take before a request is given up.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long a page waits for the snapshot that knows of what it just changed.
pub(super) const SETTLE_DEADLINE: Duration = Duration::from_millis(500);

/// `GET /healthz`: whether the conductor lives. Says nothing else, since it asks for no token.
pub(super) async fn healthz(State(app): State<Shared>) -> Result<&'static str, ApiError> {
    match app.handle.watch().has_changed() {
        Ok(_) => Ok("ok\n"),
        Err(_) => Err(ApiError::unavailable("the conductor has ended")),
    }
}

/// `GET /api/v1/state`
pub(super) async fn state(State(app): State<Shared>) -> Response {
    Json(wire::State::of(&app.handle.snapshot())).into_response()
}

/// `GET /api/v1/{id}`: as in 0.1.0, which knows of running and retrying issues only.
pub(super) async fn claimed(State(app): State<Shared>, Path(id): Path<String>) -> Response {
    detail(&app, &id, |found| found.is_claimed())
}

/// `GET /api/v1/issues/{id}`: every issue, and files and names that are none.
pub(super) async fn issue(State(app): State<Shared>, Path(id): Path<String>) -> Response {
    detail(&app, &id, |_| true)
}

fn detail(app: &Shared, id: &str, wanted: fn(&wire::Detail<'_>) -> bool) -> Response {
    let snapshot = app.handle.snapshot();
    let found = explain::find(&snapshot, id).unwrap_or_default();
    match found.iter().map(|one| wire::Detail::of(&snapshot, one)).find(wanted) {
        Some(detail) => Json(detail).into_response(),
        None => ApiError::new(StatusCode::NOT_FOUND, "issue_not_found", format!("issue {id} is not tracked"))
            .into_response(),
    }
}

#[derive(Serialize)]
struct Listed {
    issues: Vec<ListedIssue>,
}

#[derive(Serialize)]
struct ListedIssue {
    identifier: String,
    state: String,
    title: String,
}

/// `GET /api/v1/issues`: what is on disk now, every state, sorted by identifier.
pub(super) async fn issues(State(app): State<Shared>) -> Result<Response, ApiError> {
    let scan = timeout(ANSWER_DEADLINE, app.tracker.scan())
        .await
        .map_err(|_| ApiError::unavailable("the tracker did not answer in time"))?
        .map_err(|e| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, e.code(), e.to_string()))?;
    let mut issues: Vec<_> = scan
        .issues
        .into_iter()
        .map(|issue| ListedIssue { identifier: issue.identifier.0, state: issue.state.0, title: issue.title })
        .collect();
    issues.sort_by(|a, b| a.identifier.cmp(&b.identifier));
    Ok(Json(Listed { issues }).into_response())
}

/// Asks the conductor for a look, so that a change shows at once; its own eyes find it in any case.
pub(super) fn look_soon(app: &App) {
    let handle = app.handle.clone();
    tokio::spawn(timeout(ANSWER_DEADLINE, async move { handle.refresh().await }));
}

#[derive(Serialize)]
struct Queued {
    queued: bool,
    coalesced: bool,
    requested_at: wire::Instant,
    operations: [&'static str; 2],
}

#[derive(Deserialize)]
struct RefreshForm {
    #[serde(default)]
    csrf: String,
}

/// `POST /api/v1/refresh` (C218): a body is not needed; what it holds is not looked at.
pub(super) async fn refresh(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    if made == Made::Form {
        let form: RefreshForm = guard::form(request).await?;
        guard::check_csrf(&app, made, &form.csrf)?;
    }
    let requested_at = wire::Instant(Timestamp::now());
    let coalesced = timeout(ANSWER_DEADLINE, app.handle.refresh())
        .await
        .map_err(|_| ApiError::unavailable("the conductor did not answer in time"))?
        .map_err(|e| ApiError::unavailable(e.to_string()))?;
    if made == Made::Form {
        return Ok(Redirect::to("/").into_response());
    }
    let body = Queued { queued: true, coalesced, requested_at, operations: ["poll", "reconcile"] };
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
