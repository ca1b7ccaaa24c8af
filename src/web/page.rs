//! The dashboard: one page, five regions, each also a route of its own.
//!
//! The page works without its script (a reload shows the same); with it, each region is fetched again when
//! the event stream says that there is something new.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use symphony_core::snapshot::Snapshot;

use super::error::ApiError;
use super::form::NewIssueForm;
use super::guard::Made;
use super::markdown::Safe;
use super::say::SayForm;
use super::{App, Shared, assets, inbox, view};

#[derive(Template)]
#[template(path = "page.html")]
struct Page {
    workflow_name: String,
    css: String,
    htmx: String,
    script: String,
    icon: String,
    version: u64,
    header: Safe,
    attention: Safe,
    sessions: Safe,
    disk: Safe,
    new_issue: Safe,
    totals: Safe,
}

#[derive(Template)]
#[template(path = "header.html")]
struct HeaderPart {
    view: view::Header,
    csrf: String,
}

#[derive(Template)]
#[template(path = "attention.html")]
struct AttentionPart {
    view: inbox::Attention,
    error: Option<String>,
    csrf: String,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPart {
    rows: Vec<view::Session>,
    first_active: String,
    csrf: String,
}

#[derive(Template)]
#[template(path = "say.html")]
struct SayPart {
    form: SayForm,
    csrf: String,
}

#[derive(Template)]
#[template(path = "disk.html")]
struct DiskPart {
    view: view::Disk,
    csrf: String,
}

#[derive(Template)]
#[template(path = "new_issue.html")]
struct NewIssuePart {
    form: NewIssueForm,
    csrf: String,
}

#[derive(Template)]
#[template(path = "totals.html")]
struct TotalsPart {
    view: view::Footer,
}

/// `GET /`
pub(super) async fn whole(State(app): State<Shared>) -> Result<Response, ApiError> {
    let snapshot = app.handle.snapshot();
    page(&app, &snapshot, None, NewIssueForm::empty(&snapshot)).map(IntoResponse::into_response)
}

/// The whole page; `error` stands above the inbox.
pub(super) fn page(
    app: &App,
    snapshot: &Snapshot,
    error: Option<String>,
    form: NewIssueForm,
) -> Result<Html<String>, ApiError> {
    page_typed(app, snapshot, error, None, form)
}

fn page_typed(
    app: &App,
    snapshot: &Snapshot,
    error: Option<String>,
    typed: Option<(&str, &str)>,
    form: NewIssueForm,
) -> Result<Html<String>, ApiError> {
    let page = Page {
        workflow_name: view::Header::of(snapshot).workflow_name,
        css: assets::url("app.css"),
        htmx: assets::url("htmx.js"),
        script: assets::url("app.js"),
        icon: assets::url("icon.svg"),
        version: snapshot.version,
        header: header(app, snapshot)?,
        attention: attention_typed(app, snapshot, error, typed)?,
        sessions: sessions(app, snapshot)?,
        disk: disk(app, snapshot)?,
        new_issue: new_issue(app, form)?,
        totals: Safe::rendered(&TotalsPart { view: view::Footer::of(snapshot) })?,
    };
    Ok(Html(page.render()?))
}

/// `GET /api/v1/partials/{name}`
pub(super) async fn partial(State(app): State<Shared>, Path(name): Path<String>) -> Result<Response, ApiError> {
    let snapshot = app.handle.snapshot();
    let part = match name.as_str() {
        "header" => header(&app, &snapshot)?,
        "attention" => attention(&app, &snapshot, None)?,
        "sessions" => sessions(&app, &snapshot)?,
        "disk" => disk(&app, &snapshot)?,
        "totals" => Safe::rendered(&TotalsPart { view: view::Footer::of(&snapshot) })?,
        _ => {
            let message = format!("no partial `{name}`");
            return Err(ApiError::new(StatusCode::NOT_FOUND, "partial_not_found", message));
        }
    };
    Ok(Html(part.to_string()).into_response())
}

fn disk(app: &App, snapshot: &Snapshot) -> Result<Safe, askama::Error> {
    Safe::rendered(&DiskPart { view: view::Disk::of(snapshot), csrf: app.token.csrf_value() })
}

fn header(app: &App, snapshot: &Snapshot) -> Result<Safe, askama::Error> {
    Safe::rendered(&HeaderPart { view: view::Header::of(snapshot), csrf: app.token.csrf_value() })
}

/// The inbox, with what became of a reply or a decision that was not taken.
pub(super) fn attention(app: &App, snapshot: &Snapshot, error: Option<String>) -> Result<Safe, askama::Error> {
    attention_typed(app, snapshot, error, None)
}

/// The same, with what was typed for an issue and not taken.
fn attention_typed(
    app: &App,
    snapshot: &Snapshot,
    error: Option<String>,
    typed: Option<(&str, &str)>,
) -> Result<Safe, askama::Error> {
    let view = inbox::Attention::of(snapshot).with_typed(typed);
    Safe::rendered(&AttentionPart { view, error, csrf: app.token.csrf_value() })
}

/// What the sender of a form of the inbox sees, and an API client gets.
pub(super) fn after(app: &App, made: Made, outcome: Result<Response, ApiError>) -> Result<Response, ApiError> {
    after_typed(app, made, outcome, None)
}

/// The same; what was typed for an issue stands there again when it was not taken.
pub(super) fn after_typed(
    app: &App,
    made: Made,
    outcome: Result<Response, ApiError>,
    typed: Option<(&str, &str)>,
) -> Result<Response, ApiError> {
    let typed = typed.filter(|_| outcome.is_err());
    match (made, outcome) {
        (Made::Htmx, outcome) => {
            let error = outcome.err().map(|e| e.message().to_owned());
            let is_taken = error.is_none();
            let part = Html(attention_typed(app, &app.handle.snapshot(), error, typed)?.to_string());
            // To draw the inbox again would take the words about a refusal away before anybody read them.
            Ok(if is_taken { ([("hx-trigger", "refreshed")], part).into_response() } else { part.into_response() })
        }
        (Made::Form, Ok(_)) => Ok(Redirect::to("/").into_response()),
        (Made::Form, Err(e)) => {
            let snapshot = app.handle.snapshot();
            let error = Some(e.message().to_owned());
            let whole = page_typed(app, &snapshot, error, typed, NewIssueForm::empty(&snapshot))?;
            Ok((e.status(), whole).into_response())
        }
        (Made::Json | Made::Empty, outcome) => outcome,
    }
}

fn sessions(app: &App, snapshot: &Snapshot) -> Result<Safe, askama::Error> {
    let (rows, first_active) = (view::sessions(snapshot), view::first_active(snapshot));
    Safe::rendered(&SessionsPart { rows, first_active, csrf: app.token.csrf_value() })
}

/// The form that tells an agent something, with what became of it.
pub(super) fn say(app: &App, form: SayForm) -> Result<Safe, askama::Error> {
    Safe::rendered(&SayPart { form, csrf: app.token.csrf_value() })
}

/// The new-issue form.
pub(super) fn new_issue(app: &App, form: NewIssueForm) -> Result<Safe, askama::Error> {
    Safe::rendered(&NewIssuePart { form, csrf: app.token.csrf_value() })
}
