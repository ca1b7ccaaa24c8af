//! `POST /api/v1/issues/{id}/raise`: more of the budget that an issue waits for. The first answer wins.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use symphony_core::board::NotNow;
use symphony_core::ids::Identifier;
use symphony_core::money::Money;
use symphony_core::snapshot::Snapshot;
use symphony_core::spend::{Amount, Unit};
use symphony_core::steering::By;
use tokio::time::timeout;

use super::api::{ANSWER_DEADLINE, SETTLE_DEADLINE};
use super::error::ApiError;
use super::guard::{self, Caller, Made};
use super::{App, Shared, page};
use crate::conductor::handle::{RaiseError, Raised, SeenCap};

/// An amount, as text or as a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Typed {
    Text(String),
    Number(serde_json::Number),
}

#[derive(Deserialize)]
struct Asked {
    amount: Option<Typed>,
    /// What was allowed when the person decided.
    seen: Option<u64>,
    /// The key of the cap that the person saw.
    budget: Option<String>,
    #[serde(default)]
    csrf: String,
}

#[derive(Serialize)]
struct Told<'a> {
    identifier: &'a str,
    /// The key of the workflow.
    budget: &'static str,
    unit: &'static str,
    raised_by: String,
}

/// The handler.
pub(super) async fn raise(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let asked: Asked = guard::body(made, request, "send application/json: {\"amount\": \"5\"}").await?;
    guard::check_csrf(&app, made, &asked.csrf)?;
    let by = if made == Made::Json { By::Api } else { By::Dashboard };
    let amount = match asked.amount {
        Some(Typed::Text(text)) => text,
        Some(Typed::Number(number)) => number.to_string(),
        None => String::new(),
    };
    let seen = SeenCap { key: asked.budget, allowed: asked.seen };
    let raised = timeout(ANSWER_DEADLINE, app.handle.raise(Identifier(id.clone()), amount.clone(), seen, by));
    let outcome = match raised.await {
        Ok(raised) => raised.map_err(refused),
        Err(_) => Err(ApiError::unavailable("the conductor did not answer in time; look before you send it again")),
    };
    if outcome.is_ok() && made != Made::Json {
        settle(&app, &id).await;
    }
    let told = |Raised { key, by: Amount(unit, amount) }: Raised| {
        let (unit, raised_by) = match unit {
            Unit::Tokens => ("tokens", amount.to_string()),
            Unit::Money => ("usd", Money(amount).exact()),
        };
        (StatusCode::ACCEPTED, Json(Told { identifier: &id, budget: key, unit, raised_by })).into_response()
    };
    page::after_typed(&app, made, outcome.map(told), Some((&id, &amount)))
}

/// Waits until the page would no longer ask.
async fn settle(app: &App, id: &str) {
    let mut snapshots = app.handle.watch();
    let asks = |s: &Arc<Snapshot>| {
        let waits = |why: Option<&NotNow>| why.is_some_and(|why| why.cap().is_some());
        let idle = s.idle.iter().any(|row| row.identifier.0 == id && waits(row.why.as_ref()));
        idle || s.retrying.iter().any(|row| row.identifier.0 == id && waits(row.why.as_ref()))
    };
    // Late or never, the page asks again and a second answer is refused: nothing is lost.
    let _ = timeout(SETTLE_DEADLINE, snapshots.wait_for(|snapshot| !asks(snapshot))).await;
}

fn refused(error: RaiseError) -> ApiError {
    let conflict = |code| ApiError::new(StatusCode::CONFLICT, code, error.to_string());
    match error {
        RaiseError::NoSuchIssue(_) => ApiError::new(StatusCode::NOT_FOUND, "issue_not_found", error.to_string()),
        RaiseError::NotMet(_) => conflict("budget_not_met"),
        RaiseError::Already(_) => conflict("already_raised"),
        RaiseError::Amount(_) => ApiError::bad_request(error.to_string()),
        RaiseError::NotStored(_) => ApiError::internal(error.to_string()),
        RaiseError::ShuttingDown => ApiError::unavailable(error.to_string()),
    }
}
