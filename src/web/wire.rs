//! The JSON of the API: 0.1.0's field names, the specification's, and ours beside them. Pure.
//!
//! Fields are only ever added (C219). Instants are RFC 3339 in UTC with milliseconds.

mod detail;
mod hosts;
mod spend;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use symphony_core::board::NotNow;
use symphony_core::explain;
use symphony_core::snapshot::{AskedRow, FinishedRow, IdleRow, RetryRow, RunningRow, Snapshot, Tokens, Totals, needs};
use symphony_core::workflow::Role;

pub(super) use detail::Detail;

use super::view::is_queued;
use crate::operator::LastEnd;

/// An instant as text, with milliseconds.
#[derive(Clone, Copy)]
pub(super) struct Instant(pub(super) Timestamp);

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:.3}", self.0))
    }
}

/// `GET /api/v1/state`
#[derive(Serialize)]
pub(super) struct State<'a> {
    generated_at: Instant,
    version: u64,
    program_version: &'static str,
    sandbox: &'a str,
    /// Why it is this one, or why there is none.
    sandbox_reason: &'a str,
    tracker: TrackerState<'a>,
    workflow: WorkflowState<'a>,
    polling: Polling,
    draining: bool,
    counts: Counts,
    running: Vec<Running<'a>>,
    /// Questions that no run waits with.
    asked: Vec<Asked<'a>>,
    egress: hosts::Hosts<'a>,
    retrying: Vec<Retrying<'a>>,
    idle: Vec<Idle<'a>>,
    finished: Vec<Finished<'a>>,
    totals: TotalsState,
    codex_totals: TotalsState,
    rate_limits: Option<()>,
    /// What all issues used of models, over all processes.
    spend: spend::All<'a>,
}

#[derive(Serialize)]
struct TrackerState<'a> {
    root: &'a str,
    problem: Option<&'a str>,
    malformed: Vec<MalformedFile<'a>>,
    ambiguous: Vec<AmbiguousName<'a>>,
    /// What counts for nothing in the front matter of issues, each with its place.
    warnings: Vec<&'a str>,
}

#[derive(Serialize)]
struct MalformedFile<'a> {
    file: &'a str,
    line: Option<u32>,
    column: Option<u32>,
    message: &'a str,
}

#[derive(Serialize)]
struct AmbiguousName<'a> {
    name: &'a str,
    files: &'a [String],
}

#[derive(Serialize)]
struct WorkflowState<'a> {
    path: &'a str,
    valid: bool,
    problems: &'a [String],
    warnings: &'a [String],
    states: Vec<StateName<'a>>,
}

#[derive(Serialize)]
struct StateName<'a> {
    name: &'a str,
    role: &'static str,
}

#[derive(Serialize)]
struct Polling {
    checking: bool,
}

#[derive(Serialize)]
struct Counts {
    running: usize,
    retrying: usize,
    /// What only a person brings forward: questions, parked issues, proposals, hosts, files, what cannot be started.
    blocked: usize,
    /// Issues in an active state that are not claimed and need no person.
    queued: usize,
    idle: usize,
}

#[derive(Serialize)]
struct TokensState {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
}

#[derive(Serialize)]
struct TotalsState {
    #[serde(flatten)]
    tokens: TokensState,
    seconds_running: f64,
}

#[derive(Serialize)]
struct Running<'a> {
    issue_id: &'a str,
    issue_identifier: &'a str,
    issue_title: &'a str,
    issue_body: Option<&'a str>,
    issue_url: Option<&'a str>,
    title: &'a str,
    run_id: u64,
    state: &'a str,
    phase: &'a str,
    /// What isolates this very run.
    sandbox: &'a str,
    attempt: Option<u32>,
    session_id: Option<&'a str>,
    session_continued: bool,
    turn_count: u32,
    last_event: Option<&'a str>,
    last_message: Option<&'a str>,
    started_at: Instant,
    last_event_at: Option<Instant>,
    tokens: TokensState,
    /// Whether they were counted where requests pass, and are not the agent's word.
    tokens_metered: bool,
    egress: hosts::Reached,
    /// By this run, and by its issue ever: what the broker charged.
    spend: spend::Used,
    issue_spend: spend::Used,
    steering_requested: bool,
    steering_question: Option<&'a str>,
    steering_context: Option<&'a str>,
    steering_asked_at: Option<Instant>,
    steering_answered: bool,
    /// Its number: a reply with another one is refused.
    steering_question_id: Option<u64>,
    steering_default_at: Option<Instant>,
    steering_default_answer: Option<&'a str>,
    marked_done: bool,
    workspace_path: Option<&'a str>,
    last_end: Option<LastEnd>,
}

/// A question of an issue whose run gave its sandbox up, or ended.
#[derive(Serialize)]
struct Asked<'a> {
    issue_id: &'a str,
    issue_identifier: &'a str,
    issue_title: &'a str,
    issue_body: Option<&'a str>,
    issue_url: Option<&'a str>,
    run_id: u64,
    steering_question_id: u64,
    steering_question: &'a str,
    steering_context: Option<&'a str>,
    steering_asked_at: Instant,
    steering_default_at: Option<Instant>,
    steering_default_answer: Option<&'a str>,
}

#[derive(Serialize)]
struct Retrying<'a> {
    issue_id: &'a str,
    issue_identifier: &'a str,
    issue_url: Option<&'a str>,
    title: &'a str,
    state: &'a str,
    attempt: u32,
    due_at: Instant,
    error: Option<&'a str>,
    retry_kind: &'static str,
    issue_spend: spend::Used,
    reason: String,
    reason_code: Option<&'static str>,
    last_end: Option<LastEnd>,
}

#[derive(Serialize)]
struct Idle<'a> {
    issue_id: &'a str,
    issue_identifier: &'a str,
    title: &'a str,
    state: &'a str,
    role: &'static str,
    reason: String,
    reason_code: Option<&'static str>,
    parked: bool,
    /// Whether it waits for approval.
    proposal: bool,
    proposed_by: Option<&'a str>,
    issue_spend: spend::Used,
    last_end: Option<LastEnd>,
    remedy: Option<String>,
    /// The path of the patch that its work became, while that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
}

#[derive(Serialize)]
struct Finished<'a> {
    issue_id: &'a str,
    issue_identifier: &'a str,
    title: &'a str,
    outcome: &'a str,
    end_reason: &'static str,
    finished_at: Instant,
}

/// The name of a role on the wire.
fn role(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Terminal => "terminal",
        Role::Holding => "holding",
    }
}

impl<'a> State<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let queued = snapshot.idle.iter().filter(|row| is_queued(snapshot, row)).count();
        Self {
            generated_at: Instant(snapshot.generated_at),
            version: snapshot.version,
            program_version: env!("CARGO_PKG_VERSION"),
            sandbox: &snapshot.sandbox,
            sandbox_reason: &snapshot.sandbox_reason,
            tracker: TrackerState {
                root: &snapshot.tracker_root,
                problem: snapshot.tracker_problem.as_deref(),
                malformed: snapshot
                    .malformed
                    .iter()
                    .map(|m| MalformedFile { file: &m.file, line: m.line, column: m.column, message: &m.message })
                    .collect(),
                ambiguous: snapshot
                    .ambiguous
                    .iter()
                    .map(|a| AmbiguousName { name: &a.name, files: &a.files })
                    .collect(),
                warnings: snapshot.oddities.values().flatten().map(String::as_str).collect(),
            },
            workflow: WorkflowState {
                path: &snapshot.workflow_path,
                valid: snapshot.workflow_problems.is_empty(),
                problems: &snapshot.workflow_problems,
                warnings: &snapshot.warnings,
                states: snapshot
                    .states
                    .iter()
                    .map(|row| StateName { name: row.name.as_str(), role: role(row.role) })
                    .collect(),
            },
            polling: Polling { checking: snapshot.polling },
            draining: snapshot.draining,
            counts: Counts {
                running: snapshot.running.len(),
                retrying: snapshot.retrying.len(),
                blocked: needs(snapshot).len(),
                queued,
                idle: snapshot.idle.len(),
            },
            running: snapshot.running.iter().map(Running::of).collect(),
            asked: snapshot.asked.iter().map(Asked::of).collect(),
            egress: hosts::Hosts::of(snapshot),
            retrying: snapshot.retrying.iter().map(Retrying::of).collect(),
            idle: snapshot.idle.iter().map(|row| Idle::of(snapshot, row)).collect(),
            finished: snapshot.finished.iter().map(Finished::of).collect(),
            totals: TotalsState::of(snapshot.totals),
            codex_totals: TotalsState::of(snapshot.totals),
            rate_limits: None,
            spend: spend::All::of(&snapshot.spend),
        }
    }
}

impl TokensState {
    fn of(tokens: Tokens) -> Self {
        Self { input_tokens: tokens.input, output_tokens: tokens.output, total_tokens: tokens.total }
    }
}

impl TotalsState {
    fn of(totals: Totals) -> Self {
        Self { tokens: TokensState::of(totals.tokens), seconds_running: totals.seconds_running }
    }
}

impl<'a> Running<'a> {
    fn of(row: &'a RunningRow) -> Self {
        let question = row.question.as_ref();
        Self {
            issue_id: &row.id.0,
            issue_identifier: &row.identifier.0,
            issue_title: &row.title,
            issue_body: row.body.as_deref(),
            issue_url: row.url.as_deref(),
            title: &row.title,
            run_id: row.run.0,
            state: row.state.as_str(),
            phase: &row.phase,
            sandbox: &row.sandbox,
            attempt: row.attempt,
            session_id: row.session_id.as_deref(),
            session_continued: row.session_continued,
            turn_count: row.turn_count,
            last_event: row.last_event.as_deref(),
            last_message: row.last_message.as_deref(),
            started_at: Instant(row.started_at),
            last_event_at: row.last_event_at.map(Instant),
            tokens: TokensState::of(row.tokens),
            tokens_metered: row.tokens_metered,
            egress: hosts::Reached::of(row.reach),
            spend: spend::Used::of(&row.spent.run),
            issue_spend: spend::Used::of(&row.spent.models),
            steering_requested: row.asks(),
            steering_question: question.map(|question| question.question.as_str()),
            steering_context: question.and_then(|question| question.context.as_deref()),
            steering_asked_at: question.map(|question| Instant(question.asked_at)),
            steering_answered: question.is_some_and(|question| question.answered),
            steering_question_id: question.map(|question| question.id),
            steering_default_at: question.and_then(|question| question.default_at).map(Instant),
            steering_default_answer: question.and_then(|question| question.default_answer.as_deref()),
            marked_done: row.marked_done,
            workspace_path: row.workspace.as_deref(),
            last_end: row.last.as_ref().map(LastEnd::of),
        }
    }
}

impl<'a> Asked<'a> {
    fn of(row: &'a AskedRow) -> Self {
        Self {
            issue_id: &row.id.0,
            issue_identifier: &row.identifier.0,
            issue_title: &row.title,
            issue_body: row.body.as_deref(),
            issue_url: row.url.as_deref(),
            run_id: row.run.0,
            steering_question_id: row.question.id,
            steering_question: &row.question.question,
            steering_context: row.question.context.as_deref(),
            steering_asked_at: Instant(row.question.asked_at),
            steering_default_at: row.question.default_at.map(Instant),
            steering_default_answer: row.question.default_answer.as_deref(),
        }
    }
}

impl<'a> Retrying<'a> {
    fn of(row: &'a RetryRow) -> Self {
        Self {
            issue_id: &row.id.0,
            issue_identifier: &row.identifier.0,
            issue_url: row.url.as_deref(),
            title: &row.title,
            state: row.state.as_str(),
            attempt: row.attempt,
            due_at: Instant(row.due_at),
            error: row.error.as_deref(),
            retry_kind: if row.error.is_some() { "failure" } else { "continuation" },
            issue_spend: spend::Used::of(&row.spent.models),
            reason: row.reason(),
            reason_code: row.why.as_ref().map(NotNow::code),
            last_end: row.last.as_ref().map(LastEnd::of),
        }
    }
}

impl<'a> Idle<'a> {
    fn of(snapshot: &Snapshot, row: &'a IdleRow) -> Self {
        Self {
            issue_id: &row.id.0,
            issue_identifier: &row.identifier.0,
            title: &row.title,
            state: row.state.as_str(),
            role: role(row.role),
            reason: row.reason(),
            reason_code: row.why.as_ref().map(NotNow::code),
            parked: row.is_parked(),
            proposal: row.is_proposal(),
            proposed_by: row.proposed_by.as_deref(),
            issue_spend: spend::Used::of(&row.spent.models),
            last_end: row.last.as_ref().map(LastEnd::of),
            remedy: explain::remedy_of(row, snapshot),
            patch: snapshot.patches.of(&row.identifier),
        }
    }
}

impl<'a> Finished<'a> {
    fn of(row: &'a FinishedRow) -> Self {
        Self {
            issue_id: &row.id.0,
            issue_identifier: &row.identifier.0,
            title: &row.title,
            outcome: &row.outcome,
            end_reason: row.end.as_str(),
            finished_at: Instant(row.at),
        }
    }
}
