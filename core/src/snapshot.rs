//! What readers see: plain data, built once after each step of the board, shared by `Arc`.
//!
//! Nobody locks the scheduler to draw a page. The wire types of the API are the web floor's, not these.

mod hosts;
mod needs;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use crate::board::{EndReason, LastRun, NotNow, StopCause, one_line};
use crate::budget::{Counters, Used};
use crate::egress::{Card, Reach};
use crate::ids::{Identifier, IssueId, RunId, StateName, WorkspaceKey};
use crate::issue::{Ambiguity, Malformed};
use crate::spend::{Cap, Caps, Sums};
use crate::workflow::Budget;

pub use hosts::{HostCard, HostDecision};
pub use needs::{Capped, Need, cap_in_the_way, needs};
pub use rows::waiting_rows;

/// How much of a proposer's name is said.
const PROPOSER_MAX: usize = 200;

/// Everything a reader may show, as of one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Grows with every published change; never repeats within one process.
    pub version: u64,
    /// Wall clock of the change.
    pub generated_at: Timestamp,
    /// Absolute path of the workflow file.
    pub workflow_path: String,
    /// Absolute path of the tracker root.
    pub tracker_root: String,
    /// The label of the runtime that isolates the runs that start now, or `none`.
    pub sandbox: String,
    /// Why it is this one, or why there is none.
    pub sandbox_reason: String,
    /// States in declaration order with their role, for forms and headings.
    pub states: Vec<StateRow>,
    /// Where a discarded issue goes.
    pub discard_target: StateName,
    /// `budget.*`: what each issue may use; `None` before the first workflow.
    pub budget: Option<Budget>,
    /// Claimed and alive: running, finishing or stopping.
    pub running: Vec<RunningRow>,
    /// Questions that no run waits with.
    pub asked: Vec<AskedRow>,
    /// Hosts that agents asked for and nobody decided about, oldest first.
    pub hosts_asked: Vec<HostCard>,
    /// What was decided about hosts, oldest first.
    pub hosts_decided: Vec<HostDecision>,
    /// Hosts that agents asked for, about which nobody decided before their issue was finished.
    pub hosts_undecided: Vec<Card>,
    /// The patches that are there.
    pub patches: Arc<Patches>,
    /// What humans said and no agent heard, of issues that no agent takes up by itself.
    pub unheard: BTreeMap<IssueId, Vec<String>>,
    /// Claimed and waiting for a time.
    pub retrying: Vec<RetryRow>,
    /// Known issues that hold no claim, each with the board's reason.
    pub idle: Vec<IdleRow>,
    /// Issues that a run of this process finished, newest first, at most 50; one that is active again is not here.
    pub finished: Vec<FinishedRow>,
    /// Files that are not issues right now.
    pub malformed: Vec<Malformed>,
    /// Names that stand in several places.
    pub ambiguous: Vec<Ambiguity>,
    /// What counts for nothing in the files of issues that are not finished, each with its place.
    pub oddities: BTreeMap<IssueId, Vec<String>>,
    /// Consumption of ended and live runs together.
    pub totals: Totals,
    /// Of models, by all issues.
    pub spend: Spend,
    /// Why the workflow file on disk is not in force, if it is not; nothing new starts meanwhile.
    pub workflow_problems: Vec<String>,
    /// What the workflow check warned of.
    pub warnings: Vec<String>,
    /// Why the last look at the tracker failed, if it did.
    pub tracker_problem: Option<String>,
    /// Whether a shutdown is under way: nothing new starts.
    pub draining: bool,
    /// Whether a look at the tracker is in flight.
    pub polling: bool,
}

impl Snapshot {
    /// A snapshot of nothing, for the moment before the first one.
    pub fn empty() -> Self {
        Self {
            version: 0,
            generated_at: Timestamp::UNIX_EPOCH,
            workflow_path: String::new(),
            tracker_root: String::new(),
            sandbox: String::new(),
            sandbox_reason: String::new(),
            states: vec![],
            discard_target: StateName::new("Done"),
            budget: None,
            running: vec![],
            asked: vec![],
            hosts_asked: vec![],
            hosts_decided: vec![],
            hosts_undecided: vec![],
            patches: Arc::default(),
            unheard: BTreeMap::new(),
            retrying: vec![],
            idle: vec![],
            finished: vec![],
            malformed: vec![],
            ambiguous: vec![],
            oddities: BTreeMap::new(),
            totals: Totals::default(),
            spend: Spend::default(),
            workflow_problems: vec![],
            warnings: vec![],
            tracker_problem: None,
            draining: false,
            polling: false,
        }
    }
}

/// One state of the workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRow {
    /// As spelled in the workflow.
    pub name: StateName,
    /// What it means.
    pub role: crate::workflow::Role,
}

/// What an issue has used, of its present allowance and ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of the present allowance.
    pub now: Used,
    /// Ever.
    pub ever: Used,
    /// Failed runs since the last one that was none.
    pub failures_in_a_row: u32,
    /// Runs that changed nothing since the last one that did.
    pub unchanged_in_a_row: u32,
    /// Of models, ever.
    pub models: Sums,
    /// What it may use of models.
    pub cap: Cap,
    /// Of models, by its live run alone.
    pub run: Sums,
}

impl Spent {
    /// What these counters say.
    pub fn of(counters: &Counters) -> Self {
        Self {
            now: counters.since_grant(),
            ever: counters.used,
            failures_in_a_row: counters.failures_in_a_row,
            unchanged_in_a_row: counters.unchanged_in_a_row,
            // Counted elsewhere: who has the ledger adds it.
            models: Sums::default(),
            cap: Cap::default(),
            run: Sums::default(),
        }
    }
}

/// What the board makes of a live run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It works, or waits for a human.
    Running,
    /// It hands its work off.
    Finishing,
    /// It was asked to end.
    Stopping(StopCause),
}

/// One live run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningRow {
    /// The run's fencing number.
    pub run: RunId,
    /// Stable id.
    pub id: IssueId,
    /// Shown name.
    pub identifier: Identifier,
    /// Issue title.
    pub title: String,
    /// Issue description, Markdown written by anyone.
    pub body: Option<String>,
    /// Front matter `url`.
    pub url: Option<String>,
    /// State as last seen on disk.
    pub state: StateName,
    /// What the board makes of it.
    pub stage: Stage,
    /// Preparing, booting, turn, waiting for a human, handing off, stopping…: one word or two.
    pub phase: String,
    /// The label of the runtime that isolates it.
    pub sandbox: String,
    /// `null` on a first run, else the number handed to the prompt.
    pub attempt: Option<u32>,
    /// ACP session id.
    pub session_id: Option<String>,
    /// Whether that session is one of an earlier run, continued.
    pub session_continued: bool,
    /// Turns started in this run.
    pub turn_count: u32,
    /// Kind of the newest event.
    pub last_event: Option<String>,
    /// One line about the newest event, written by the agent.
    pub last_message: Option<String>,
    /// When the run started.
    pub started_at: Timestamp,
    /// When the newest event came.
    pub last_event_at: Option<Timestamp>,
    /// Consumption of this run.
    pub tokens: Tokens,
    /// Whether it was counted where requests pass; else it is what the agent said.
    pub tokens_metered: bool,
    /// What it reached of the network.
    pub reach: Reach,
    /// A question that waits for a human.
    pub question: Option<Question>,
    /// Whether the agent said it is done.
    pub marked_done: bool,
    /// Host workspace, absolute.
    pub workspace: Option<String>,
    /// Newest last, at most 50.
    pub recent_events: Vec<EventRow>,
    /// How the run before this one ended.
    pub last: Option<LastRun>,
    /// Up to now, this run included.
    pub spent: Spent,
}

/// One issue whose agent asked a human, without a run that waits for the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedRow {
    /// Stable id.
    pub id: IssueId,
    /// Shown name.
    pub identifier: Identifier,
    /// Issue title.
    pub title: String,
    /// Issue description, Markdown written by anyone.
    pub body: Option<String>,
    /// Front matter `url`.
    pub url: Option<String>,
    /// The run that asked.
    pub run: RunId,
    /// What it asked.
    pub question: Question,
}

/// A question from an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its number: an answer is one to this question, not to a later one.
    pub id: u64,
    /// What is asked, Markdown written by the agent.
    pub question: String,
    /// What the agent adds, Markdown written by the agent.
    pub context: Option<String>,
    /// When it was asked.
    pub asked_at: Timestamp,
    /// When a default counts as the answer, if one does.
    pub default_at: Option<Timestamp>,
    /// That default, as the workflow has it.
    pub default_answer: Option<String>,
    /// Whether an answer was taken and is on its way to the agent.
    pub answered: bool,
}

/// One line of a run's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// When.
    pub at: Timestamp,
    /// Kind, for example `tool_call`.
    pub event: String,
    /// One line.
    pub message: String,
}

/// One issue that waits for its next run.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryRow {
    /// Stable id.
    pub id: IssueId,
    /// Shown name.
    pub identifier: Identifier,
    /// Issue title.
    pub title: String,
    /// Front matter `url`.
    pub url: Option<String>,
    /// State as last seen on disk.
    pub state: StateName,
    /// Number of the coming attempt (C24, 1-based).
    pub attempt: u32,
    /// When it is due.
    pub due_at: Timestamp,
    /// Why the last run failed; `None` for a continuation.
    pub error: Option<String>,
    /// Why it does not run right now; `None`: it starts at the next look.
    pub why: Option<NotNow>,
    /// How its last run ended.
    pub last: Option<LastRun>,
    /// Up to now.
    pub spent: Spent,
}

/// One known issue without a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct IdleRow {
    /// Stable id.
    pub id: IssueId,
    /// Shown name.
    pub identifier: Identifier,
    /// Issue title.
    pub title: String,
    /// State as last seen on disk.
    pub state: StateName,
    /// What that state means.
    pub role: crate::workflow::Role,
    /// Why it is not running, as the board computed it; `None`: it starts at the next look.
    pub why: Option<NotNow>,
    /// How its last run ended.
    pub last: Option<LastRun>,
    /// Up to now.
    pub spent: Spent,
    /// Who proposed it, if an agent did.
    pub proposed_by: Option<String>,
    /// Its description, Markdown written by an agent; only of a proposal, which a person has to read.
    pub proposal: Option<String>,
    /// Its labels, lower-cased.
    pub labels: Vec<String>,
}

/// One sentence: why an issue is not running, the same everywhere.
fn sentence(why: Option<&NotNow>) -> String {
    why.map_or_else(|| "starts at the next look".to_owned(), ToString::to_string)
}

impl RunningRow {
    /// Whether it waits for a human's answer.
    pub fn asks(&self) -> bool {
        self.question.as_ref().is_some_and(|question| !question.answered)
    }
}

impl RetryRow {
    /// Whether a person has to mend something before its next run can start.
    pub fn needs_human(&self) -> bool {
        self.why.as_ref().is_some_and(NotNow::needs_human)
    }

    /// One sentence: why it is not running, the same everywhere.
    pub fn reason(&self) -> String {
        sentence(self.why.as_ref())
    }
}

impl IdleRow {
    /// One sentence: why it is not running, the same everywhere.
    pub fn reason(&self) -> String {
        match self.proposed_by.as_deref().filter(|_| self.is_proposal()) {
            Some(by) => format!("proposed by {}; nobody decided about it yet", one_line(by, PROPOSER_MAX)),
            None => sentence(self.why.as_ref()),
        }
    }

    /// Whether symphony put it aside.
    pub fn is_parked(&self) -> bool {
        self.why.as_ref().is_some_and(NotNow::is_parked)
    }

    /// Whether an agent proposed it and nobody has decided about it: once it has run, somebody had.
    pub fn is_proposal(&self) -> bool {
        let held = self.role == crate::workflow::Role::Holding && !self.is_parked();
        held && self.proposed_by.is_some() && self.last.is_none()
    }

    /// Whether it waits for a person's decision, or for something that only a person can mend.
    pub fn needs_human(&self) -> bool {
        self.is_proposal() || self.why.as_ref().is_some_and(NotNow::needs_human)
    }
}

/// One issue that a run finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedRow {
    /// Stable id.
    pub id: IssueId,
    /// Shown name.
    pub identifier: Identifier,
    /// Issue title.
    pub title: String,
    /// Why the run ended.
    pub end: EndReason,
    /// What the run left, for example the command that applies its patch.
    pub outcome: String,
    /// When the run ended.
    pub at: Timestamp,
}

/// The patches that are there, as of the newest look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patches {
    /// Where they stand, absolute.
    pub dir: String,
    /// Names of files.
    pub names: BTreeSet<String>,
}

impl Patches {
    /// The path of an issue's patch, if it is there; outside git, where a patch has nothing to be applied to, of the tar
    /// beside it.
    pub fn of(&self, identifier: &Identifier) -> Option<String> {
        let patch = WorkspaceKey::of(identifier).ok()?.patch_name();
        let tar = patch.strip_suffix(".patch").map(|stem| format!("{stem}.tar"));
        let name = tar.filter(|tar| self.names.contains(tar)).unwrap_or(patch);
        self.names.contains(&name).then(|| format!("{}/{name}", self.dir))
    }
}

/// Tokens of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Sent to the model.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
    /// Both, as far as known.
    pub total: u64,
}

/// Consumption over the process's life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Tokens of all runs.
    pub tokens: Tokens,
    /// Seconds of all runs, live ones included at `generated_at`.
    pub seconds_running: f64,
}

/// What all issues used of models, over all processes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spend {
    /// The present day.
    pub day: String,
    /// The zone whose day it is: a name of the IANA database, or `UTC`.
    pub zone: String,
    /// On this day.
    pub today: Sums,
    /// Ever.
    pub ever: Sums,
    /// What may be used, with what people added to the day's and the workflow's.
    pub caps: Caps,
    /// By model.
    pub models: Vec<ModelRow>,
}

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRow {
    /// Whose.
    pub provider: String,
    /// As it calls itself.
    pub model: String,
    /// On this day.
    pub today: Sums,
    /// Ever.
    pub ever: Sums,
}
