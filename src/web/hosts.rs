//! `POST /api/v1/egress/{id}/decide` and `/forget`: what a person says about a host that an agent asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use symphony_core::egress::Verb;
use symphony_core::snapshot::{HostCard, HostDecision, Snapshot};
use symphony_core::steering::By;
use tokio::time::timeout;

use super::api::{ANSWER_DEADLINE, SETTLE_DEADLINE};
use super::error::ApiError;
use super::guard::{self, Caller, Made};
use super::view::Clock;
use super::{App, Shared, page};
use crate::conductor::handle::{About, HostError};
use crate::log::harmless;

/// The word of each verb on its button, and what it does.
pub(super) const VERBS: [(Verb, &str, &str); 4] = [
    (Verb::Once, "once", "its next connection to this host"),
    (Verb::Issue, "for this issue", "every connection of this issue to this host"),
    (Verb::Always, "always", "every issue may reach this host"),
    (Verb::Never, "never", "no issue may, and nobody is asked again"),
];

/// A host that waits for a person, on the page.
pub(super) struct Asking {
    pub(super) number: u64,
    pub(super) identifier: String,
    pub(super) title: String,
    pub(super) host: String,
    pub(super) times: u64,
    pub(super) asked: Clock,
}

impl Asking {
    pub(super) fn of(HostCard { card, identifier, title }: &HostCard) -> Self {
        Self {
            number: card.id,
            identifier: identifier.0.clone(),
            title: title.clone(),
            host: harmless(&card.target.to_string()),
            times: card.times,
            asked: Clock::of(card.asked_at),
        }
    }
}

/// A decision that holds, on the page.
pub(super) struct Decided {
    pub(super) number: u64,
    pub(super) identifier: String,
    pub(super) host: String,
    pub(super) word: &'static str,
    pub(super) at: Clock,
}

impl Decided {
    pub(super) fn of(HostDecision { decision, identifier }: &HostDecision) -> Self {
        let word = VERBS.iter().find(|(verb, ..)| *verb == decision.verb).map_or("", |(_, word, _)| word);
        Self {
            number: decision.id,
            identifier: identifier.0.clone(),
            host: harmless(&decision.target.to_string()),
            word,
            at: Clock::of(decision.at),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    verb: String,
    csrf: String,
}

#[derive(Serialize)]
struct Done {
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    verb: Option<&'static str>,
}

/// `POST /api/v1/egress/{id}/decide`
pub(super) async fn decide(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let format = "send application/json: {\"verb\": \"once\", \"issue\", \"always\" or \"never\"}";
    let said: Said = guard::body(made, request, format).await?;
    guard::check_csrf(&app, made, &said.csrf)?;
    let by = if made == Made::Json { By::Api } else { By::Dashboard };
    let outcome = async {
        let number = card_number(&number)?;
        let verb = Verb::parse(said.verb.trim()).ok_or_else(|| ApiError::bad_request(format))?;
        wait(app.handle.decide_host(About::Card(number), verb, by)).await?;
        if made != Made::Json {
            settle(&app, |snapshot| snapshot.hosts_asked.iter().any(|row| row.card.id == number)).await;
        }
        Ok(Json(Done { number, verb: Some(verb.as_str()) }).into_response())
    };
    page::after(&app, made, outcome.await)
}

/// `POST /api/v1/egress/{id}/forget`
pub(super) async fn forget(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(number): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let said: Said = match made {
        Made::Json => guard::json(request).await?,
        Made::Htmx | Made::Form => guard::form(request).await?,
        Made::Empty => Said::default(),
    };
    guard::check_csrf(&app, made, &said.csrf)?;
    let outcome = async {
        let number = card_number(&number)?;
        wait(app.handle.forget_host(number)).await?;
        if matches!(made, Made::Htmx | Made::Form) {
            settle(&app, |snapshot| snapshot.hosts_decided.iter().any(|row| row.decision.id == number)).await;
        }
        Ok(Json(Done { number, verb: None }).into_response())
    };
    page::after(&app, made, outcome.await)
}

fn card_number(text: &str) -> Result<u64, ApiError> {
    let none = || ApiError::new(StatusCode::NOT_FOUND, "host_not_found", "there is no host of this number");
    text.parse().map_err(|_| none())
}

async fn wait<T>(done: impl Future<Output = Result<T, HostError>>) -> Result<T, ApiError> {
    let done = timeout(ANSWER_DEADLINE, done)
        .await
        .map_err(|_| ApiError::unavailable("the conductor did not answer in time; look before you send it again"))?;
    done.map_err(|error| match error {
        HostError::Not(_) => ApiError::new(StatusCode::CONFLICT, "no_pending_host", error.to_string()),
        HostError::NotStored(_) => ApiError::internal(error.to_string()),
        HostError::ShuttingDown => ApiError::unavailable(error.to_string()),
    })
}

/// Waits until the page would no longer show it, so that nobody decides twice.
async fn settle(app: &App, shows: impl Fn(&Snapshot) -> bool) {
    let mut snapshots = app.handle.watch();
    // Late or never, the second decision is refused: nothing is lost.
    let _ = timeout(SETTLE_DEADLINE, snapshots.wait_for(|snapshot: &Arc<Snapshot>| !shows(snapshot))).await;
}
