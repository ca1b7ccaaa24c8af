//! `POST /api/v1/issues/{id}/approve` and `/discard`: what a person decides about an issue that nobody works on.
//!
//! Approving sends a proposal to the first active state and a parked issue back to where it came from; discarding
//! ends either. Both are one compare-and-move from the state that the person saw.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use symphony_core::board::NotNow;
use symphony_core::ids::{Identifier, StateName};
use symphony_core::snapshot::{IdleRow, Snapshot};
use symphony_core::workflow::Role;
use tokio::time::timeout;

use super::api::{self, ANSWER_DEADLINE, SETTLE_DEADLINE};
use super::error::ApiError;
use super::guard::{self, Caller, Made};
use super::{App, Shared, page, view};
use crate::tracker::TrackerError;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// The state it stood in when the person decided.
    from: Option<String>,
    csrf: String,
}

#[derive(Serialize)]
struct Moved {
    identifier: String,
    from: String,
    to: String,
}

/// Where a decision sends an issue.
type Target = fn(&Snapshot, &IdleRow) -> StateName;

/// `POST /api/v1/issues/{id}/approve`
pub(super) async fn approve(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    decide(&app, caller, id, request, approved).await
}

/// `POST /api/v1/issues/{id}/discard`
pub(super) async fn discard(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    decide(&app, caller, id, request, |snapshot, _| snapshot.discard_target.clone()).await
}

/// Where approving sends the issue of `row`: back to where it was parked from, if somebody still works there, else to
/// the first active state.
pub(super) fn approved(snapshot: &Snapshot, row: &IdleRow) -> StateName {
    let is_active = |state: &&StateName| snapshot.states.iter().any(|s| s.name == **state && s.role == Role::Active);
    let from = match &row.why {
        Some(NotNow::Parked(parked, _)) => Some(&parked.from).filter(is_active),
        _ => None,
    };
    from.cloned().unwrap_or_else(|| StateName::new(view::first_active(snapshot)))
}

async fn decide(app: &App, caller: Caller, id: String, request: Request, target: Target) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let asked: Asked = match made {
        Made::Json => guard::json(request).await?,
        Made::Htmx | Made::Form => guard::form(request).await?,
        Made::Empty => Asked::default(),
    };
    guard::check_csrf(app, made, &asked.csrf)?;
    let outcome = carry_out(app, id, asked.from, target).await;
    if let Ok(moved) = &outcome {
        api::look_soon(app);
        if matches!(made, Made::Htmx | Made::Form) {
            settle(app, moved).await;
        }
    }
    page::after(app, made, outcome.map(|moved| Json(moved).into_response()))
}

async fn carry_out(app: &App, id: String, from: Option<String>, target: Target) -> Result<Moved, ApiError> {
    let snapshot = app.handle.snapshot();
    let identifier = Identifier(id);
    let Some(row) = snapshot.idle.iter().find(|row| row.identifier == identifier) else {
        let claimed = snapshot.running.iter().any(|row| row.identifier == identifier)
            || snapshot.retrying.iter().any(|row| row.identifier == identifier);
        return Err(match claimed {
            true => conflict("not_holding", format!("{identifier} is being worked on; there is nothing to decide")),
            false => {
                ApiError::new(StatusCode::NOT_FOUND, "issue_not_found", format!("issue {identifier} is not tracked"))
            }
        });
    };
    let from = from.filter(|from| !from.trim().is_empty()).map_or_else(|| row.state.clone(), StateName::new);
    if row.state != from {
        return Err(conflict(
            "issue_moved",
            format!("{identifier} is in {} now, not in {from}; look again", row.state),
        ));
    }
    if row.role != Role::Holding {
        let message = format!("{identifier} is in {from}, where nothing waits for a decision");
        return Err(conflict("not_holding", message));
    }
    let to = target(&snapshot, row);
    timeout(ANSWER_DEADLINE, app.tracker.move_issue(&row.id, &from, &to))
        .await
        .map_err(|_| ApiError::unavailable("the tracker did not answer in time; look before you send it again"))?
        .map_err(|error| refused(&identifier, &error))?;
    tracing::info!(issue_id = %row.id, issue_identifier = %identifier, %from, %to, "a person decided about an issue");
    Ok(Moved { identifier: identifier.0, from: from.0, to: to.0 })
}

fn refused(identifier: &Identifier, error: &TrackerError) -> ApiError {
    match error {
        TrackerError::Elsewhere { .. } => conflict("issue_moved", format!("{error}; look again")),
        TrackerError::TargetExists(_) | TrackerError::Ambiguous { .. } => conflict("move_failed", error.to_string()),
        TrackerError::NotFound(_) => {
            ApiError::new(StatusCode::NOT_FOUND, "issue_not_found", format!("the file of {identifier} is gone"))
        }
        TrackerError::Invalid(_) => ApiError::bad_request(error.to_string()),
        TrackerError::RootRead { .. } | TrackerError::Io { .. } => ApiError::internal(error.to_string()),
    }
}

fn conflict(code: &'static str, message: String) -> ApiError {
    ApiError::new(StatusCode::CONFLICT, code, message)
}

/// Waits until the page would no longer ask, so that nobody decides twice.
async fn settle(app: &App, moved: &Moved) {
    let mut snapshots = app.handle.watch();
    let from = StateName::new(moved.from.as_str());
    let asks = |s: &Arc<Snapshot>| s.idle.iter().any(|row| row.identifier.0 == moved.identifier && row.state == from);
    // Late or never, the page asks again and the second decision finds the issue moved: nothing is lost.
    let _ = timeout(SETTLE_DEADLINE, snapshots.wait_for(|snapshot| !asks(snapshot))).await;
}
