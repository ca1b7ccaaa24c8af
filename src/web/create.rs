//! `POST /api/v1/issues`: a new issue file, from JSON or from the form of the dashboard.

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde::{Deserialize, Serialize};
use symphony_core::ids::{Identifier, StateName};
use symphony_core::snapshot::Snapshot;
use tokio::time::timeout;

use super::api::{self, ANSWER_DEADLINE};
use super::error::ApiError;
use super::form::NewIssueForm;
use super::guard::{self, Caller, Made};
use super::{App, Shared, page, view};
use crate::tracker::{Created, NewIssue, TrackerError};

#[derive(Deserialize)]
struct Wanted {
    identifier: Option<String>,
    title: Option<String>,
    state: Option<String>,
    description: Option<String>,
    priority: Option<serde_json::Number>,
    labels: Option<Vec<String>>,
    blocked_by: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Typed {
    identifier: String,
    title: String,
    state: String,
    description: String,
    priority: String,
    labels: String,
    csrf: String,
}

#[derive(Serialize)]
struct Answer {
    path: String,
    identifier: String,
    state: String,
}

/// The handler.
pub(super) async fn create(
    State(app): State<Shared>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, ApiError> {
    let made = guard::made(caller, request.headers())?;
    let snapshot = app.handle.snapshot();
    match made {
        Made::Json => {
            let created = make(&app, from_json(guard::json(request).await?, &snapshot)?).await?;
            let answer = Answer { path: created.path, identifier: created.identifier.0, state: created.state.0 };
            Ok((StatusCode::CREATED, Json(answer)).into_response())
        }
        Made::Htmx | Made::Form => {
            let typed: Typed = guard::form(request).await?;
            guard::check_csrf(&app, made, &typed.csrf)?;
            let outcome = match from_form(&typed, &snapshot) {
                Ok(new) => make(&app, new).await,
                Err(refusal) => Err(refusal),
            };
            shown(&app, &snapshot, made, typed, outcome)
        }
        Made::Empty => Err(ApiError::unsupported_media_type("send application/json: {\"title\": \"…\"}")),
    }
}

/// What the person at the form sees.
fn shown(
    app: &App,
    snapshot: &Snapshot,
    made: Made,
    typed: Typed,
    outcome: Result<Created, ApiError>,
) -> Result<Response, ApiError> {
    match (made, outcome) {
        (Made::Htmx, Ok(created)) => {
            let mut form = NewIssueForm::empty(snapshot);
            form.created = Some(created.identifier.0);
            let part = page::new_issue(app, form)?;
            Ok(([("hx-trigger", "refreshed")], Html(part.to_string())).into_response())
        }
        (Made::Htmx, Err(e)) => Ok(Html(page::new_issue(app, typed.again(snapshot, &e))?.to_string()).into_response()),
        (_, Ok(_)) => Ok(Redirect::to("/").into_response()),
        (_, Err(e)) => {
            let whole = page::page(app, snapshot, None, typed.again(snapshot, &e))?;
            Ok((e.status(), whole).into_response())
        }
    }
}

impl Typed {
    /// The form as it was filled in, with what is wrong.
    fn again(self, snapshot: &Snapshot, error: &ApiError) -> NewIssueForm {
        NewIssueForm {
            open: true,
            identifier: self.identifier,
            title: self.title,
            state: self.state,
            priority: self.priority,
            labels: self.labels,
            description: self.description,
            error: Some(error.message().to_owned()),
            ..NewIssueForm::default()
        }
        .with_states(snapshot)
    }
}

fn from_json(wanted: Wanted, snapshot: &Snapshot) -> Result<NewIssue, ApiError> {
    let priority = wanted.priority.map(|number| whole(&number)).transpose()?;
    Ok(NewIssue {
        identifier: identifier(wanted.identifier.as_deref().unwrap_or_default()),
        title: title(wanted.title.as_deref().unwrap_or_default())?,
        state: state(wanted.state.as_deref().unwrap_or_default(), snapshot)?,
        description: description(wanted.description.as_deref().unwrap_or_default()),
        priority,
        labels: listed(wanted.labels.unwrap_or_default().iter().map(String::as_str)),
        blocked_by: listed(wanted.blocked_by.unwrap_or_default().iter().map(String::as_str)),
        proposed: None,
    })
}

fn from_form(typed: &Typed, snapshot: &Snapshot) -> Result<NewIssue, ApiError> {
    let priority = match typed.priority.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| ApiError::bad_request("priority must be a whole number"))?),
    };
    Ok(NewIssue {
        identifier: identifier(&typed.identifier),
        title: title(&typed.title)?,
        state: state(&typed.state, snapshot)?,
        description: description(&typed.description.replace("\r\n", "\n")),
        priority,
        labels: listed(typed.labels.split(',')),
        blocked_by: vec![],
        proposed: None,
    })
}

/// `2` and `2.0` are whole; `2.5` is nobody's rank.
fn whole(number: &serde_json::Number) -> Result<i64, ApiError> {
    let float = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 1e15).map(|n| n as i64);
    number.as_i64().or_else(float).ok_or_else(|| ApiError::bad_request("priority must be a whole number"))
}

/// `None` lets the tracker pick the next number.
fn identifier(text: &str) -> Option<Identifier> {
    let text = text.trim();
    (!text.is_empty()).then(|| Identifier(text.to_owned()))
}

fn title(text: &str) -> Result<String, ApiError> {
    match text.trim() {
        "" => Err(ApiError::bad_request("title is required")),
        // A title is one line; a pasted line break would end the front matter's value.
        text => Ok(text.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

/// One of the workflow's states, spelled as the workflow does.
fn state(text: &str, snapshot: &Snapshot) -> Result<String, ApiError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(view::first_active(snapshot));
    }
    let wanted = StateName::new(text);
    let known = snapshot.states.iter().find(|row| row.name == wanted).map(|row| row.name.0.clone());
    known.ok_or_else(|| {
        let names: Vec<_> = snapshot.states.iter().map(|row| row.name.as_str()).collect();
        ApiError::bad_request(format!("state must be one of: {}", names.join(", ")))
    })
}

fn description(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn listed<'a>(items: impl Iterator<Item = &'a str>) -> Vec<String> {
    items.map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

async fn make(app: &App, new: NewIssue) -> Result<Created, ApiError> {
    let made = timeout(ANSWER_DEADLINE, app.tracker.create(new))
        .await
        .map_err(|_| ApiError::unavailable("the tracker did not answer in time; look before you send it again"))?;
    let created = made.map_err(|e| match e {
        TrackerError::TargetExists(_) | TrackerError::Ambiguous { .. } => {
            ApiError::new(StatusCode::CONFLICT, "create_failed", e.to_string())
        }
        TrackerError::Invalid(_) => ApiError::bad_request(e.to_string()),
        _ => ApiError::internal(e.to_string()),
    })?;
    api::look_soon(app);
    Ok(created)
}
