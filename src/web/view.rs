//! What each region of the page shows, from one snapshot. Pure: words and numbers, no markup.
//!
//! Wording is 0.1.0's where it had any. Colour never stands alone: every pill says its word.

use std::path::Path;

use jiff::Timestamp;
use symphony_core::board::LastRun;
use symphony_core::explain;
use symphony_core::ids::IssueId;
use symphony_core::snapshot::{FinishedRow, IdleRow, RetryRow, RunningRow, Snapshot, Spend, Stage, needs};
use symphony_core::spend::{Cap, Sums};
use symphony_core::workflow::Role;

use super::hosts;
use super::say::SayForm;
use super::words::{Piece, count, duration, link, pieces, short};
use crate::handoff::patch::{self, APPLY, UNPACK};

/// Longest error line, in characters: the hint stands at its end.
const MAX_ERROR: usize = 400;
/// Remarks on front matter that are shown.
const MAX_ODDITIES: usize = 20;
/// Rows of a collapsed list: a page with years of finished issues is fetched at every change.
pub(super) const MAX_SHELF: usize = 50;
/// Models that the foot of the page tells of; the API has all.
const MAX_MODELS: usize = 12;
/// Longest last message, in characters (0.1.0).
pub(super) const MAX_MESSAGE: usize = 140;

/// Phases that say no more than the pill before them.
const SAID_BY_PILL: [&str; 2] = ["working", "waiting for a human"];

/// An instant for a `<time>` element: machine form, and the clock in UTC until the script makes it local.
pub(super) struct Clock {
    pub(super) iso: String,
    pub(super) text: String,
}

impl Clock {
    pub(super) fn of(at: Timestamp) -> Self {
        Self { iso: format!("{at:.3}"), text: at.strftime("%H:%M:%S UTC").to_string() }
    }
}

/// Header: where we are, and whether anything needs a look.
pub(super) struct Header {
    pub(super) workflow_name: String,
    pub(super) workflow_path: String,
    pub(super) tracker_root: String,
    pub(super) sandbox: String,
    pub(super) sandbox_reason: String,
    /// `attention`, `working` or `idle`.
    pub(super) badge: &'static str,
    pub(super) draining: bool,
    pub(super) polling: bool,
    /// `1 needs you`, `2 running`, `3 waiting`: only what is not zero.
    pub(super) counts: Vec<String>,
    pub(super) problems: Vec<Problem>,
}

/// One line of the problems banner.
pub(super) struct Problem {
    /// What is wrong, in one or two words.
    pub(super) kind: &'static str,
    /// Where, when a place is known.
    pub(super) place: String,
    pub(super) message: String,
    /// Whether work stands still because of it.
    pub(super) severe: bool,
}

/// How the last run of an issue ended.
pub(super) struct LastEnd {
    /// One word of the closed list.
    pub(super) word: &'static str,
    /// One line; empty when it says no more than the word.
    pub(super) text: String,
    /// What it left, if anything.
    pub(super) left: Option<String>,
}

/// One issue that nobody works on.
pub(super) struct Idle {
    pub(super) identifier: String,
    pub(super) title: String,
    pub(super) state: String,
    pub(super) reason: String,
    /// The command that applies its patch, while that is there.
    pub(super) command: Option<String>,
    /// Which hosts it was refused, in pieces of prose and code.
    pub(super) refused: Vec<Piece>,
}

/// One live run.
pub(super) struct Session {
    pub(super) identifier: String,
    pub(super) title: String,
    pub(super) url: Option<String>,
    /// `running`, `awaiting` or `done`.
    pub(super) pill: &'static str,
    /// `None` when it says no more than the pill does.
    pub(super) phase: Option<String>,
    pub(super) state: String,
    pub(super) turn: u32,
    pub(super) attempt: Option<u32>,
    pub(super) tokens: Option<String>,
    /// What the run used of models, as far as it has a price.
    pub(super) money: Option<String>,
    pub(super) message: Option<String>,
    /// When the agent was last heard of: an old one on a running issue is a stuck one.
    pub(super) heard: Option<Clock>,
    pub(super) hint: String,
    pub(super) started: Clock,
    /// What isolates the run.
    pub(super) sandbox: String,
    /// How the run before it ended, if there was one.
    pub(super) last: Option<LastEnd>,
    /// Where a person can tell the agent something: while it works and asks nothing itself.
    pub(super) say: Option<SayForm>,
}

/// One issue in an active state that does not run now.
pub(super) struct Waiting {
    pub(super) identifier: String,
    pub(super) title: String,
    pub(super) state: String,
    /// `retrying` or empty.
    pub(super) pill: &'static str,
    pub(super) attempt: Option<u32>,
    pub(super) due: Option<Clock>,
    pub(super) reason: String,
    /// What to do about it, if anything.
    pub(super) remedy: Vec<Piece>,
    pub(super) last: Option<LastEnd>,
}

/// A collapsed list of issues nobody works on.
pub(super) struct Shelf {
    pub(super) name: &'static str,
    pub(super) rows: Vec<Idle>,
    /// How many rows are not shown.
    pub(super) more: usize,
}

/// One issue that a run finished, and what it left.
pub(super) struct Finished {
    pub(super) identifier: String,
    pub(super) title: String,
    /// The command that applies the patch, when there is one.
    pub(super) command: Option<String>,
    /// What became of it otherwise.
    pub(super) outcome: String,
    /// What was said too late for its agent, each a sentence.
    pub(super) unheard: Vec<String>,
    /// Which hosts it was refused, in pieces of prose and code.
    pub(super) refused: Vec<Piece>,
    pub(super) at: Clock,
}

/// Everything on disk that does not run.
pub(super) struct Disk {
    pub(super) finished: Vec<Finished>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) shelves: Vec<Shelf>,
    /// What was decided about hosts.
    pub(super) decided: Vec<hosts::Decided>,
    /// Whether nothing needs a person.
    pub(super) clean: bool,
    pub(super) first_active: String,
}

/// One line at the foot; empty while nothing was used.
pub(super) struct Footer {
    pub(super) parts: Vec<(String, &'static str)>,
    /// What was used of models, a line a thing: today, ever, each model.
    pub(super) spend: Vec<(String, String)>,
    pub(super) version: &'static str,
}

impl Header {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let asking = snapshot.running.iter().filter(|row| row.asks()).count();
        let needs_you = needs(snapshot).len();
        let badge = match (needs_you, snapshot.running.is_empty()) {
            (1.., _) => "attention",
            (0, false) => "working",
            (0, true) => "idle",
        };
        let queued = snapshot.idle.iter().filter(|row| is_queued(snapshot, row)).count();
        let retrying = snapshot.retrying.iter().filter(|row| waits_its_time(snapshot, row)).count();
        let counts = [
            (needs_you, if needs_you == 1 { "needs you" } else { "need you" }),
            (snapshot.running.len() - asking, "running"),
            (retrying + queued, "waiting"),
        ];
        Self {
            workflow_name: snapshot.workflow_path.rsplit('/').next().unwrap_or_default().to_owned(),
            workflow_path: snapshot.workflow_path.clone(),
            tracker_root: snapshot.tracker_root.clone(),
            sandbox: snapshot.sandbox.clone(),
            sandbox_reason: snapshot.sandbox_reason.clone(),
            badge,
            draining: snapshot.draining,
            polling: snapshot.polling,
            counts: counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect(),
            problems: problems(snapshot),
        }
    }
}

/// Whether an answer is all that the issue waits for: then it stands among what needs a human.
fn is_asked(snapshot: &Snapshot, id: &IssueId) -> bool {
    snapshot.asked.iter().any(|row| row.id == *id)
}

/// Whether it is active, not claimed, and waits for no person.
pub(super) fn is_queued(snapshot: &Snapshot, row: &IdleRow) -> bool {
    row.role == Role::Active && !row.needs_human() && !is_asked(snapshot, &row.id)
}

/// Whether nothing but time is between it and its next run, or another run.
fn waits_its_time(snapshot: &Snapshot, row: &RetryRow) -> bool {
    !row.needs_human() && !is_asked(snapshot, &row.id)
}

fn problems(snapshot: &Snapshot) -> Vec<Problem> {
    let plain =
        |kind, severe| move |message: &String| Problem { kind, place: String::new(), message: message.clone(), severe };
    let mut all: Vec<_> = snapshot.workflow_problems.iter().map(plain("workflow", true)).collect();
    all.extend(snapshot.tracker_problem.iter().map(plain("tracker", true)));
    all.extend(snapshot.malformed.iter().map(|file| Problem {
        kind: "not an issue",
        place: file.place(),
        message: file.message.clone(),
        severe: false,
    }));
    all.extend(snapshot.ambiguous.iter().map(|name| Problem {
        kind: "ambiguous",
        place: name.files.join(", "),
        message: explain::about_name(snapshot, name),
        severe: false,
    }));
    all.extend(snapshot.warnings.iter().map(plain("warning", false)));
    all.extend(snapshot.oddities.values().flatten().take(MAX_ODDITIES).map(plain("front matter", false)));
    all
}

impl LastEnd {
    /// Beside a reason that may quote it already.
    pub(super) fn of(last: &LastRun, reason: &str) -> Self {
        let text = if reason.contains(&last.end) { String::new() } else { short(&last.end, MAX_ERROR) };
        // Only what there is to see: a run that left nothing need not say so on a page of many.
        let left = last.left.clone().filter(|left| !left.starts_with("nothing"));
        Self { word: last.reason.as_str(), text, left }
    }
}

impl Idle {
    fn of(row: &IdleRow, snapshot: &Snapshot) -> Self {
        Self {
            identifier: row.identifier.0.clone(),
            title: row.title.clone(),
            state: row.state.0.clone(),
            reason: with_unheard(row.reason(), snapshot, &row.id),
            command: snapshot.patches.of(&row.identifier).map(|path| patch::command(Path::new(&path))),
            refused: refused(snapshot, &row.id),
        }
    }
}

fn refused(snapshot: &Snapshot, id: &IssueId) -> Vec<Piece> {
    explain::undecided(snapshot, id).map_or_else(Vec::new, |text| pieces(&text))
}

/// The reason, and what was said too late for any agent.
pub(super) fn with_unheard(reason: String, snapshot: &Snapshot, id: &IssueId) -> String {
    [vec![reason], explain::unheard(snapshot, id)].concat().join(" · ")
}

/// The live runs, oldest first as the snapshot has them.
pub(super) fn sessions(snapshot: &Snapshot) -> Vec<Session> {
    snapshot.running.iter().map(Session::of).collect()
}

impl Session {
    fn of(row: &RunningRow) -> Self {
        let session = row.session_id.as_deref().map(|id| id.chars().take(8).collect::<String>());
        let pill = match (row.asks(), row.marked_done) {
            (true, _) => "awaiting",
            (false, true) => "done",
            (false, false) => "running",
        };
        let listens = row.stage == Stage::Running && row.question.is_none() && !row.marked_done;
        let continued = row.session_continued.then_some("continued");
        let hint = [session.as_deref(), continued, row.last_event.as_deref(), row.workspace.as_deref()];
        Self {
            identifier: row.identifier.0.clone(),
            title: row.title.clone(),
            url: link(row.url.as_deref()),
            pill,
            phase: Some(row.phase.clone()).filter(|phase| !SAID_BY_PILL.contains(&phase.as_str())),
            state: row.state.0.clone(),
            turn: row.turn_count,
            attempt: row.attempt,
            tokens: (row.tokens.total > 0).then(|| count(row.tokens.total)),
            // Without any price, its tokens say as much.
            money: row.spent.run.money().filter(|_| row.spent.run.cost.0 > 0),
            message: row.last_message.as_deref().map(|message| short(message, MAX_MESSAGE)),
            heard: row.last_event_at.map(Clock::of),
            hint: hint.into_iter().flatten().collect::<Vec<_>>().join(" · "),
            started: Clock::of(row.started_at),
            sandbox: row.sandbox.clone(),
            last: row.last.as_ref().filter(|_| row.attempt.is_some()).map(|last| LastEnd::of(last, "")),
            say: listens.then(|| SayForm::empty(&row.identifier.0)),
        }
    }
}

impl Disk {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let is_shown = |row: &&IdleRow| snapshot.finished.iter().any(|finished| finished.id == row.id);
        let idle =
            snapshot.idle.iter().filter(|row| !row.needs_human() && !is_shown(row) && !is_asked(snapshot, &row.id));
        let retrying = snapshot.retrying.iter().filter(|row| waits_its_time(snapshot, row));
        let mut waiting: Vec<_> = retrying.map(Waiting::retry).collect();
        waiting.extend(idle.clone().filter(|row| row.role == Role::Active).map(|row| Waiting::idle(row, snapshot)));
        let shelf = |name, role| {
            let rows = idle.clone().filter(|row| row.role == role);
            let more = rows.clone().count().saturating_sub(MAX_SHELF);
            Shelf { name, rows: rows.take(MAX_SHELF).map(|row| Idle::of(row, snapshot)).collect(), more }
        };
        let shelves = [shelf("holding", Role::Holding), shelf("done", Role::Terminal)];
        Self {
            finished: snapshot.finished.iter().map(|row| Finished::of(row, snapshot)).collect(),
            waiting,
            clean: needs(snapshot).is_empty(),
            decided: snapshot.hosts_decided.iter().map(hosts::Decided::of).collect(),
            shelves: shelves.into_iter().filter(|shelf| !shelf.rows.is_empty()).collect(),
            first_active: first_active(snapshot),
        }
    }
}

impl Finished {
    fn of(row: &FinishedRow, snapshot: &Snapshot) -> Self {
        let is_command = [APPLY, UNPACK].iter().any(|command| row.outcome.starts_with(command));
        Self {
            identifier: row.identifier.0.clone(),
            title: row.title.clone(),
            command: is_command.then(|| row.outcome.clone()),
            outcome: if is_command { String::new() } else { row.outcome.clone() },
            unheard: explain::unheard(snapshot, &row.id),
            refused: refused(snapshot, &row.id),
            at: Clock::of(row.at),
        }
    }
}

impl Waiting {
    fn retry(row: &RetryRow) -> Self {
        Self {
            identifier: row.identifier.0.clone(),
            title: row.title.clone(),
            state: row.state.0.clone(),
            pill: "retrying",
            attempt: Some(row.attempt),
            due: Some(Clock::of(row.due_at)),
            reason: row.reason(),
            remedy: vec![],
            last: row.last.as_ref().map(|last| LastEnd::of(last, &row.reason())),
        }
    }

    fn idle(row: &IdleRow, snapshot: &Snapshot) -> Self {
        Self {
            identifier: row.identifier.0.clone(),
            title: row.title.clone(),
            state: row.state.0.clone(),
            pill: "",
            attempt: None,
            due: None,
            reason: row.reason(),
            remedy: explain::remedy_of(row, snapshot).map_or_else(Vec::new, |text| pieces(&text)),
            last: row.last.as_ref().map(|last| LastEnd::of(last, &row.reason())),
        }
    }
}

impl Footer {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { totals, spend, .. } = snapshot;
        let tokens = totals.tokens;
        let mut parts = vec![];
        if tokens.total > 0 || tokens.input > 0 || tokens.output > 0 {
            // In digits, as the lines below say it.
            let digits = [(tokens.input, "in"), (tokens.output, "out"), (tokens.total, "total")];
            parts.extend(digits.map(|(tokens, what)| (tokens.to_string(), what)));
        }
        if totals.seconds_running > 0.0 {
            parts.push((duration(totals.seconds_running), "runtime"));
        }
        Self { parts, spend: spent(spend), version: env!("CARGO_PKG_VERSION") }
    }
}

/// Nothing while nothing was used and nothing bounds it.
fn spent(spend: &Spend) -> Vec<(String, String)> {
    let mut lines = vec![];
    let is_told = |sums: &Sums, cap: &Cap| sums.requests > 0 || *cap != Cap::default();
    if is_told(&spend.today, &spend.caps.day) {
        lines.push((format!("today, {} ({})", spend.day, spend.zone), spend.today.line(&spend.caps.day)));
    }
    if is_told(&spend.ever, &spend.caps.workflow) {
        lines.push(("ever".to_owned(), spend.ever.line(&spend.caps.workflow)));
    }
    let today = spend.models.iter().filter(|row| row.today.requests > 0).take(MAX_MODELS);
    lines.extend(today.map(|row| (format!("today, {}", row.model), row.today.line(&Cap::default()))));
    lines
}

/// Where new work goes: the first active state.
pub(super) fn first_active(snapshot: &Snapshot) -> String {
    let active = snapshot.states.iter().find(|row| row.role == Role::Active);
    active.map_or_else(|| "Todo".to_owned(), |row| row.name.0.clone())
}
