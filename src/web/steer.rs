//! `POST /api/v1/issues/{id}/steering-reply`: a human's answer to an agent's question (0.1.0's table).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use symphony_core::ids::Identifier;
use symphony_core::snapshot::Snapshot;
use symphony_core::steering::By;
use tokio::time::timeout;

use super::api::{ANSWER_DEADLINE, SETTLE_DEADLINE};
use super::error::ApiError;
use super::guard::{self, Caller, Made};
use super::{App, Shared, page, wire};
use crate::conductor::handle::AnswerError;

#[derive(Deserialize)]
struct Reply {
    text: Option<String>,
    /// The number of the question that was read.
    question: Option<u64>,
    #[serde(default)]
    csrf: String,
}

#[derive(Serialize)]
struct Accepted<'a> {
    identifier: &'a str,
    accepted_at: wire::Instant,
}

/// The handler.
pub(super) async fn reply(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let reply: Reply = guard::body(made, request, "send application/json: {\"text\": \"…\"}").await?;
    guard::check_csrf(&app, made, &reply.csrf)?;
    let by = if made == Made::Json { By::Api } else { By::Dashboard };
    let outcome = answer(&app, &id, &reply, by).await;
    if outcome.is_ok() && made != Made::Json {
        settle(&app, &id).await;
    }
    let accepted =
        |accepted_at| (StatusCode::ACCEPTED, Json(Accepted { identifier: &id, accepted_at })).into_response();
    page::after(&app, made, outcome.map(accepted))
}

/// Waits until the page would no longer ask, so that nobody is shown a question they have just answered.
async fn settle(app: &App, id: &str) {
    let mut snapshots = app.handle.watch();
    let asks = |snapshot: &Arc<Snapshot>| {
        snapshot.running.iter().any(|row| row.identifier.0 == id && row.asks())
            || snapshot.asked.iter().any(|row| row.identifier.0 == id)
    };
    // Late or never, the page asks again and a second answer is refused: nothing is lost.
    let _ = timeout(SETTLE_DEADLINE, snapshots.wait_for(|snapshot| !asks(snapshot))).await;
}

async fn answer(app: &App, id: &str, reply: &Reply, by: By) -> Result<wire::Instant, ApiError> {
    let missing = || ApiError::bad_request("`text` is missing: send {\"text\": \"…\"}");
    let text = reply.text.as_deref().ok_or_else(missing)?.trim();
    if text.is_empty() {
        return Err(ApiError::bad_request("the reply is empty"));
    }
    let answered = app.handle.answer(Identifier(id.to_owned()), reply.question, text.to_owned(), by);
    let taken = timeout(ANSWER_DEADLINE, answered)
        .await
        .map_err(|_| ApiError::unavailable("the conductor did not answer in time; look before you send it again"))?;
    taken.map(wire::Instant).map_err(refused)
}

/// Why words of a person were not taken.
pub(super) fn refused(e: AnswerError) -> ApiError {
    match e {
        AnswerError::NotWaiting(_) | AnswerError::AnsweredAlready(_) => {
            ApiError::new(StatusCode::CONFLICT, "no_pending_steering", e.to_string())
        }
        AnswerError::NoSuchIssue(_) => ApiError::new(StatusCode::NOT_FOUND, "issue_not_found", e.to_string()),
        AnswerError::AsksItself(_) | AnswerError::NobodyWorks(_) | AnswerError::HandingOff(_) => {
            ApiError::new(StatusCode::CONFLICT, "not_listening", e.to_string())
        }
        AnswerError::NotStored(_) => ApiError::internal(e.to_string()),
        AnswerError::ShuttingDown => ApiError::unavailable(e.to_string()),
    }
}
