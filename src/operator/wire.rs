//! What crosses the socket, and what `symphony explain --json` and the API's `explanation` hold. Fields are only ever added.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use symphony_core::board::LastRun;
use symphony_core::explain::{self, Explained, Group};
use symphony_core::snapshot::{Snapshot, Spent};
use symphony_core::spend::Cap;
use symphony_core::workflow::Budget;

/// Of the protocol; another number is another language.
pub const VERSION: u32 = 1;

/// A question, or a person's words.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`]
    pub v: u32,
    /// `explain`, `answer`, `say`, `raise`, or one about hosts: `egress`, `egress-decide`, `egress-forget`
    pub command: String,
    /// Which issue, file or name; none is all of them.
    pub issue: Option<String>,
    /// The words of `answer` and `say`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The workflow that is meant, absolute: only `explain` does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The question that `answer` answers; without it, the one that is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<u64>,
    /// Whether `say` cancels the turn under way.
    #[serde(default)]
    pub now: bool,
    /// The host that `egress-decide` is about, where no number is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The number of the host that `egress-decide` and `egress-forget` are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// What `egress-decide` says: `once`, `issue`, `always` or `never`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verb: Option<String>,
    /// By how much `raise` raises, as a person types it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// In what: `tokens` or `usd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// The answer to `answer` and `say`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// [`VERSION`]
    pub v: u32,
    /// The issue whose agent gets the words.
    pub identifier: String,
    /// When they were accepted, RFC 3339.
    pub accepted_at: String,
    /// Why no run hears them now; none when one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// The answer to `explain`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// [`VERSION`]
    pub v: u32,
    /// As of when, RFC 3339.
    pub generated_at: String,
    /// Absolute.
    pub workflow: String,
    /// What isolates the runs that start now.
    pub sandbox: String,
    /// Why it is this one, or why there is none.
    #[serde(default)]
    pub sandbox_reason: String,
    /// What stands in the way of everything, each a sentence.
    pub notices: Vec<String>,
    /// What was asked for; without a name, everything but what is finished.
    pub issues: Vec<Explanation>,
    /// How many are finished.
    pub done: usize,
}

/// One issue, file or name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The identifier, the file, or the name that several files share.
    pub name: String,
    /// `null` for what is not an issue, as is all that a file cannot have.
    pub id: Option<String>,
    /// The issue's title.
    pub title: Option<String>,
    /// The directory it stands in.
    pub state: Option<String>,
    /// One word.
    pub status: String,
    /// The heading it is listed under.
    pub group: String,
    /// Why, a sentence.
    pub reason: String,
    /// Why, a stable word; `null` when nothing is in the way.
    pub reason_code: Option<String>,
    /// What else there is to know, each a sentence.
    pub notes: Vec<String>,
    /// The live run.
    pub run: Option<Run>,
    /// The question that no run waits with, one line; a run's own stands there.
    #[serde(default)]
    pub question: Option<String>,
    /// When the next run is due, RFC 3339.
    pub due_at: Option<String>,
    /// How the last ended run ended.
    pub last_end: Option<LastEnd>,
    /// What it used of what it may.
    pub used: Vec<Of>,
    /// What it used of models, of what it may; `null` while that is nothing.
    #[serde(default)]
    pub models: Option<String>,
    /// Runs ever, beyond the present allowance.
    pub runs_ever: Option<u32>,
    /// Files with their place, of what is malformed or ambiguous.
    pub files: Vec<String>,
    /// The path of the patch that its work became, while it is there.
    #[serde(default)]
    pub patch: Option<String>,
    /// What to do next.
    pub remedy: Option<String>,
}

/// A live run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub run_id: u64,
    /// What it is doing.
    pub phase: String,
    /// What isolates it.
    #[serde(default)]
    pub sandbox: String,
    /// Turns started.
    pub turn: u32,
    /// Whether its agent goes on with the session of an earlier run.
    #[serde(default)]
    pub session_continued: bool,
    /// `null` on a first run.
    pub attempt: Option<u32>,
    /// RFC 3339.
    pub started_at: String,
    /// The question that waits, one line.
    pub question: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LastEnd {
    /// One word of the closed list.
    pub reason: String,
    /// One line.
    pub message: String,
    /// What it left; `null` when that was not seen.
    pub left: Option<String>,
}

/// One budget.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Of {
    /// The key below `budget:`.
    pub budget: String,
    /// Of the present allowance; milliseconds where the key says so.
    pub used: u64,
    /// At most.
    pub allowed: u64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable word.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// What stands on the answering line.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line<A, R> {
    Refused { error: R },
    Answered(A),
}

pub(super) fn line<A: Serialize>(answer: &Result<A, Refusal>) -> Vec<u8> {
    let line = match answer {
        Ok(answer) => Line::Answered(answer),
        Err(error) => Line::Refused { error },
    };
    let mut bytes = serde_json::to_vec(&line).expect("strings, numbers and lists are JSON");
    bytes.push(b'\n');
    bytes
}

pub(super) fn instant(at: Timestamp) -> String {
    format!("{at:.3}")
}

impl Refusal {
    pub(super) fn new(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), hint: hint.into() }
    }
}

impl Answer {
    pub(super) fn of(snapshot: &Snapshot, explained: &[Explained]) -> Self {
        Self {
            v: VERSION,
            generated_at: instant(snapshot.generated_at),
            workflow: snapshot.workflow_path.clone(),
            sandbox: snapshot.sandbox.clone(),
            sandbox_reason: snapshot.sandbox_reason.clone(),
            notices: explain::notices(snapshot),
            issues: explained.iter().map(|one| Explanation::of(snapshot, one)).collect(),
            done: snapshot.idle.iter().filter(|row| row.role == symphony_core::workflow::Role::Terminal).count(),
        }
    }

    pub(super) fn overview(snapshot: &Snapshot) -> Self {
        let mut all = explain::all(snapshot);
        all.retain(|one| one.group() != Group::Done);
        Self::of(snapshot, &all)
    }
}

impl Explanation {
    /// What is known of one, on the wire.
    pub fn of(snapshot: &Snapshot, one: &Explained) -> Self {
        let run = one.run.as_ref();
        let used = one.spent.zip(snapshot.budget.as_ref()).map(|(spent, budget)| used(&spent, budget));
        Self {
            name: one.name.clone(),
            id: one.id.as_ref().map(|id| id.0.clone()),
            title: one.title.clone(),
            state: one.state.as_ref().map(|state| state.0.clone()),
            status: one.status.as_str().to_owned(),
            group: one.group().as_str().to_owned(),
            reason: one.reason.clone(),
            reason_code: one.code().map(str::to_owned),
            notes: one.notes.clone(),
            run: run.map(|run| Run {
                run_id: run.run.0,
                phase: run.phase.clone(),
                sandbox: run.sandbox.clone(),
                session_continued: run.session_continued,
                turn: run.turn,
                attempt: run.attempt,
                started_at: instant(run.started_at),
                question: run.question.clone(),
            }),
            question: one.question.clone(),
            due_at: one.due_at.map(instant),
            last_end: one.last.as_ref().map(LastEnd::of),
            used: used.unwrap_or_default(),
            models: one
                .spent
                .filter(|s| s.models.requests > 0 || s.cap != Cap::default())
                .map(|s| s.models.line(&s.cap)),
            runs_ever: one.spent.map(|spent| spent.ever.sessions),
            files: one.files.clone(),
            patch: one.patch.clone(),
            remedy: one.remedy.clone(),
        }
    }
}

impl LastEnd {
    /// The record of the last run, on the wire.
    pub fn of(last: &LastRun) -> Self {
        Self { reason: last.reason.to_string(), message: last.end.clone(), left: last.left.clone() }
    }
}

fn used(spent: &Spent, budget: &Budget) -> Vec<Of> {
    let of = |budget: &str, used: u64, allowed: u64| Of { budget: budget.to_owned(), used, allowed };
    let count = |name, used: u32, allowed: u32| of(name, used.into(), allowed.into());
    vec![
        count("sessions", spent.now.sessions, budget.sessions),
        count("turns", spent.now.turns, budget.turns),
        count("failures_in_a_row", spent.failures_in_a_row, budget.failures_in_a_row),
        of("wall_ms", spent.now.wall_ms, budget.wall_ms),
        count("bounces", spent.now.bounces, budget.bounces),
        count("no_progress", spent.unchanged_in_a_row, budget.no_progress),
    ]
}
