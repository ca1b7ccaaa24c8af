//! `POST /api/v1/issues/{id}/message`: a person's words for an agent that asked nothing.

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use symphony_core::ids::{Identifier, hash16};
use symphony_core::steering::By;
use tokio::time::timeout;

use super::api::ANSWER_DEADLINE;
use super::error::ApiError;
use super::guard::{self, Caller, Made};
use super::words::percent_encoded;
use super::{App, Shared, page, steer, wire};
use crate::conductor::handle::Taken;

/// The form on the row of a live run: what was typed, and what came of it.
pub(super) struct SayForm {
    /// Unique in the page and safe as an element id.
    pub(super) key: String,
    pub(super) identifier: String,
    /// The identifier as part of an address.
    pub(super) path: String,
    pub(super) text: String,
    pub(super) taken: Option<String>,
    pub(super) error: Option<String>,
}

impl SayForm {
    /// Nothing was typed yet.
    pub(super) fn empty(identifier: &str) -> Self {
        Self {
            key: hash16(identifier),
            identifier: identifier.to_owned(),
            path: percent_encoded(identifier),
            text: String::new(),
            taken: None,
            error: None,
        }
    }
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    text: String,
    #[serde(default)]
    when: When,
    #[serde(default)]
    csrf: String,
}

/// When the agent hears of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum When {
    /// With its next prompt.
    #[default]
    NextTurn,
    /// At once: the turn under way is cancelled.
    Now,
}

#[derive(Serialize)]
struct Accepted<'a> {
    identifier: &'a str,
    when: When,
    accepted_at: wire::Instant,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits: Option<String>,
}

/// The handler.
pub(super) async fn message(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let format = "send application/json: {\"text\": \"…\", \"when\": \"next_turn\" or \"now\"}";
    let message: Message = guard::body(made, request, format).await?;
    guard::check_csrf(&app, made, &message.csrf)?;
    let by = if made == Made::Json { By::Api } else { By::Dashboard };
    let outcome = say(&app, &id, &message, by).await;
    if made == Made::Htmx {
        let form = match outcome {
            Ok(taken) => SayForm { taken: Some(said(message.when, taken.waits)), ..SayForm::empty(&id) },
            Err(e) => SayForm { text: message.text, error: Some(e.message().to_owned()), ..SayForm::empty(&id) },
        };
        return Ok(Html(page::say(&app, form)?.to_string()).into_response());
    }
    let accepted = |Taken { at, waits }: Taken| {
        let accepted_at = wire::Instant(at);
        (StatusCode::ACCEPTED, Json(Accepted { identifier: &id, when: message.when, accepted_at, waits }))
            .into_response()
    };
    page::after(&app, made, outcome.map(accepted))
}

fn said(when: When, waits: Option<String>) -> String {
    match (when, waits) {
        (_, Some(why)) => format!("kept for the issue's next run; none is under way: {why}"),
        (When::NextTurn, None) => "taken; it goes with the next prompt".to_owned(),
        (When::Now, None) => "taken; the turn is being cancelled, and the agent is prompted with it".to_owned(),
    }
}

async fn say(app: &App, id: &str, message: &Message, by: By) -> Result<Taken, ApiError> {
    let text = message.text.trim();
    if text.is_empty() {
        return Err(ApiError::bad_request("the message is empty"));
    }
    let said = app.handle.say(Identifier(id.to_owned()), text.to_owned(), message.when == When::Now, by);
    let taken = timeout(ANSWER_DEADLINE, said)
        .await
        .map_err(|_| ApiError::unavailable("the conductor did not answer in time; look before you send it again"))?;
    taken.map_err(steer::refused)
}
