//! Why every known issue, file and name is where it is, and what to do about it.
//!
//! One computation for the command line, the API and the page. The sentence is the board's verdict, which the snapshot
//! carries; it is never worked out a second time here.

mod files;
mod find;
mod hosts;
mod remedy;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::board::{LastRun, NotNow, one_line};
use crate::ids::{IssueId, RunId, StateName};
use crate::snapshot::{AskedRow, IdleRow, Need, RetryRow, RunningRow, Snapshot, Spent, Stage, needs};
use crate::workflow::Role;

pub use files::about_name;
pub use find::{NoSuch, find};
pub use hosts::undecided;
pub use remedy::{remedy, remedy_of};

/// Longest question and file error that is quoted.
const QUOTE_MAX: usize = 500;
/// Words that no agent heard, as many as are quoted.
const UNHEARD_MAX: usize = 3;

/// What an issue, a file or a name is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its agent asked a human; a run may wait for the answer, or not any more.
    Asking,
    /// symphony put it aside.
    Parked,
    /// An agent proposed it and nobody decided about it yet.
    Proposed,
    /// A file that is no issue.
    Malformed,
    /// A name that stands in several files.
    Ambiguous,
    /// A host that an agent asked for.
    Network,
    /// What keeps everything from starting.
    Broken,
    /// A run works on it.
    Running,
    /// Its run hands its work off.
    Finishing,
    /// Its run was asked to end.
    Stopping,
    /// Its next run has a due time.
    Retrying,
    /// It is active and not running.
    Waiting,
    /// It stands in a state nobody works in.
    Holding,
    /// It is finished.
    Done,
}

/// The order in which people want to hear of them; the dashboard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Only a person brings it forward.
    NeedsYou,
    /// A run is alive.
    Running,
    /// It waits for something else.
    Waiting,
    /// Nobody works on it.
    Holding,
    /// It is finished.
    Done,
}

impl Status {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Parked => "parked",
            Self::Proposed => "proposed",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::Network => "network",
            Self::Broken => "broken",
            Self::Running => "running",
            Self::Finishing => "finishing",
            Self::Stopping => "stopping",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Holding => "holding",
            Self::Done => "done",
        }
    }

    /// Where it is listed.
    pub fn group(self) -> Group {
        match self {
            Self::Asking
            | Self::Parked
            | Self::Proposed
            | Self::Malformed
            | Self::Ambiguous
            | Self::Network
            | Self::Broken => Group::NeedsYou,
            Self::Running | Self::Finishing | Self::Stopping => Group::Running,
            Self::Retrying | Self::Waiting => Group::Waiting,
            Self::Holding => Group::Holding,
            Self::Done => Group::Done,
        }
    }
}

impl Group {
    /// Its heading.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeedsYou => "needs you",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Holding => "holding",
            Self::Done => "done",
        }
    }
}

/// The live run of an issue.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its number.
    pub run: RunId,
    /// What it is doing, a word or two.
    pub phase: String,
    /// The label of what isolates it.
    pub sandbox: String,
    /// Turns started.
    pub turn: u32,
    /// Whether its agent goes on with the session of an earlier run.
    pub session_continued: bool,
    /// `None` on a first run.
    pub attempt: Option<u32>,
    /// Since when.
    pub started_at: Timestamp,
    /// The question that waits for a human, one line.
    pub question: Option<String>,
}

/// One issue, file or name.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// The identifier, the file, or the name that several files share.
    pub name: String,
    /// `None` for what is not an issue.
    pub id: Option<IssueId>,
    /// `None` for what is not an issue.
    pub title: Option<String>,
    /// `None` for what is not an issue.
    pub state: Option<StateName>,
    /// What it is doing.
    pub status: Status,
    /// The board's verdict; `None` when nothing is in the way, and for what is not an issue.
    pub why: Option<NotNow>,
    /// The verdict as a sentence.
    pub reason: String,
    /// What else one needs to know, each a sentence.
    pub notes: Vec<String>,
    /// The live run, if there is one.
    pub run: Option<Run>,
    /// The question that no run waits with, one line.
    pub question: Option<String>,
    /// When the next run is due.
    pub due_at: Option<Timestamp>,
    /// How the last ended run ended.
    pub last: Option<LastRun>,
    /// What it has used; `None` for what is not an issue.
    pub spent: Option<Spent>,
    /// Files with their place: of what is malformed or ambiguous.
    pub files: Vec<String>,
    /// The path of the patch that its work became, if that is there.
    pub patch: Option<String>,
    /// What to do next, if anything is to be done.
    pub remedy: Option<String>,
}

impl Explained {
    /// The stable word of the reason; `None` when nothing is in the way.
    pub fn code(&self) -> Option<&'static str> {
        match self.status {
            Status::Malformed | Status::Ambiguous | Status::Network | Status::Broken => Some(self.status.as_str()),
            _ => self.why.as_ref().map(NotNow::code),
        }
    }

    /// Where it is listed: below the heading of its status, unless only a person can mend what it waits for.
    pub fn group(&self) -> Group {
        match self.status.group() {
            Group::Waiting if self.why.as_ref().is_some_and(NotNow::needs_human) => Group::NeedsYou,
            group => group,
        }
    }

    /// Not an issue: all that is known is where it stands.
    fn bare(name: &str, status: Status, reason: String) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            title: None,
            state: None,
            status,
            why: None,
            reason,
            notes: vec![],
            run: None,
            question: None,
            due_at: None,
            last: None,
            spent: None,
            files: vec![],
            patch: None,
            remedy: None,
        }
    }

    fn running(snapshot: &Snapshot, row: &RunningRow) -> Self {
        let question = row.question.as_ref().filter(|_| row.asks());
        let status = match row.stage {
            _ if question.is_some() => Status::Asking,
            Stage::Finishing => Status::Finishing,
            Stage::Stopping(_) => Status::Stopping,
            Stage::Running => Status::Running,
        };
        let asks = (status == Status::Asking).then(|| remedy::answer(&row.identifier));
        Self {
            id: Some(row.id.clone()),
            title: Some(row.title.clone()),
            state: Some(row.state.clone()),
            why: Some(NotNow::Running),
            notes: [files::notes(snapshot, &row.id, &row.identifier.0, true), hosts::notes(snapshot, &row.id)].concat(),
            run: Some(Run {
                run: row.run,
                phase: row.phase.clone(),
                sandbox: row.sandbox.clone(),
                turn: row.turn_count,
                session_continued: row.session_continued,
                attempt: row.attempt,
                started_at: row.started_at,
                question: question.map(|question| one_line(&question.question, QUOTE_MAX)),
            }),
            last: row.last.clone(),
            spent: Some(row.spent),
            remedy: asks,
            ..Self::bare(&row.identifier.0, status, NotNow::Running.to_string())
        }
    }

    fn retrying(snapshot: &Snapshot, row: &RetryRow) -> Self {
        Self {
            id: Some(row.id.clone()),
            title: Some(row.title.clone()),
            state: Some(row.state.clone()),
            why: row.why.clone(),
            notes: notes(snapshot, row.why.as_ref(), &row.id, &row.identifier.0, true),
            due_at: Some(row.due_at),
            last: row.last.clone(),
            spent: Some(row.spent),
            remedy: remedy(row.why.as_ref(), &row.identifier, snapshot),
            ..Self::bare(&row.identifier.0, Status::Retrying, row.reason())
        }
        .asking(snapshot)
    }

    /// With the question of a run that gave its sandbox up, unless a person has to do something else first.
    fn asking(self, snapshot: &Snapshot) -> Self {
        let is_it = |row: &&AskedRow| self.id.as_ref() == Some(&row.id) && self.group() != Group::NeedsYou;
        match snapshot.asked.iter().find(is_it) {
            Some(row) => {
                let question = one_line(&row.question.question, QUOTE_MAX);
                let text = row.question.default_answer.as_deref().unwrap_or_default();
                let says = |at| format!("answered by default at {}: {}", second(at), one_line(text, QUOTE_MAX));
                let default = row.question.default_at.map(says);
                let notes = default.into_iter().chain(self.notes).collect();
                Self { status: Status::Asking, question: Some(question), notes, due_at: None, ..self }
            }
            None => self,
        }
    }

    fn idle(snapshot: &Snapshot, row: &IdleRow) -> Self {
        let status = match row.role {
            _ if row.is_parked() => Status::Parked,
            _ if row.is_proposal() => Status::Proposed,
            Role::Active => Status::Waiting,
            Role::Holding => Status::Holding,
            Role::Terminal => Status::Done,
        };
        Self {
            id: Some(row.id.clone()),
            title: Some(row.title.clone()),
            state: Some(row.state.clone()),
            why: row.why.clone(),
            notes: notes(snapshot, row.why.as_ref(), &row.id, &row.identifier.0, row.role == Role::Active)
                .into_iter()
                .chain(unheard(snapshot, &row.id))
                .collect(),
            last: row.last.clone(),
            spent: Some(row.spent),
            remedy: remedy_of(row, snapshot),
            patch: snapshot.patches.of(&row.identifier),
            ..Self::bare(&row.identifier.0, status, row.reason())
        }
        .asking(snapshot)
    }

    /// What needs a person and is no issue; `None` for issues, which stand in the list in any case.
    fn bare_need(snapshot: &Snapshot, need: &Need<'_>) -> Option<Self> {
        let mend = |remedy: &str| Some(remedy.to_owned());
        Some(match need {
            Need::Malformed(file) => Self {
                files: vec![file.place()],
                remedy: mend("Mend the file; it is read again as soon as it is saved."),
                ..Self::bare(&file.file, Status::Malformed, one_line(&file.message, QUOTE_MAX))
            },
            Need::Ambiguous(name) => Self {
                files: name.files.clone(),
                remedy: mend("Rename or remove all of them but one."),
                ..Self::bare(&name.name, Status::Ambiguous, about_name(snapshot, name))
            },
            Need::Host(row) => hosts::card(row),
            Need::Workflow(problem) => Self {
                remedy: remedy::of_workflow(),
                ..Self::bare(last_part(&snapshot.workflow_path), Status::Broken, (*problem).to_owned())
            },
            Need::Tracker(problem) => Self::bare(last_part(&snapshot.tracker_root), Status::Broken, blind(problem)),
            Need::Closed(why) => Self::bare(why.code(), Status::Broken, why.to_string()),
            Need::Cap(row) => {
                let (why, met) = (row.why?, row.why?.cap()?);
                // Lists show no remedies.
                let reason = format!("{why}, as by `{}`", remedy::raise(row.identifier, met));
                Self {
                    remedy: remedy(Some(why), row.identifier, snapshot),
                    ..Self::bare(met.key(), Status::Broken, reason)
                }
            }
            Need::Running(_) | Need::Asked(_) | Need::Idle(_) | Need::Retrying(_) => return None,
        })
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path)
}

/// Everything that is known, in the order of [`Group`].
pub fn all(snapshot: &Snapshot) -> Vec<Explained> {
    let mut all: Vec<Explained> = snapshot.running.iter().map(|row| Explained::running(snapshot, row)).collect();
    all.extend(needs(snapshot).iter().filter_map(|need| Explained::bare_need(snapshot, need)));
    all.extend(snapshot.idle.iter().filter(|row| row.is_parked()).map(|row| Explained::idle(snapshot, row)));
    all.extend(snapshot.retrying.iter().map(|row| Explained::retrying(snapshot, row)));
    all.extend(snapshot.idle.iter().filter(|row| !row.is_parked()).map(|row| Explained::idle(snapshot, row)));
    // Stable: within a group the order above stays, but questions come first, and parked issues before files.
    let place = |status| match status {
        Status::Asking => 0,
        Status::Broken => 1,
        Status::Network => 2,
        Status::Parked => 3,
        Status::Malformed => 4,
        Status::Ambiguous => 5,
        _ => 6,
    };
    all.sort_by_key(|one| (one.group(), place(one.status)));
    all
}

/// To the second, in UTC.
fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What stands in the way of everything, each a sentence.
pub fn notices(snapshot: &Snapshot) -> Vec<String> {
    let mut all = vec![];
    if snapshot.draining {
        all.push("symphony is shutting down: nothing new starts".to_owned());
    }
    all.extend(
        snapshot.workflow_problems.iter().map(|problem| format!("the workflow file is not in force: {problem}")),
    );
    all.extend(snapshot.tracker_problem.as_ref().map(|problem| blind(problem)));
    all
}

fn blind(problem: &str) -> String {
    format!("the issues could not be read: {problem}; nothing new starts until they can")
}

/// What was said too late for any agent: at most three, and how many more.
pub fn unheard(snapshot: &Snapshot, id: &IssueId) -> Vec<String> {
    let Some(words) = snapshot.unheard.get(id) else { return vec![] };
    let quoted = words.iter().take(UNHEARD_MAX).map(|text| one_line(text, QUOTE_MAX));
    let mut notes: Vec<_> = quoted.map(|text| format!("no agent heard: {text}")).collect();
    if words.len() > UNHEARD_MAX {
        notes.push(format!("nor {} more", words.len() - UNHEARD_MAX));
    }
    notes.push("its next run gets these words, if somebody puts it back to work".to_owned());
    notes
}

fn notes(snapshot: &Snapshot, why: Option<&NotNow>, id: &IssueId, name: &str, active: bool) -> Vec<String> {
    let mut notes = [files::notes(snapshot, id, name, false), hosts::notes(snapshot, id)].concat();
    match why {
        Some(NotNow::Closed(crate::board::Closed::WorkflowBroken)) => {
            notes.extend(snapshot.workflow_problems.iter().cloned());
        }
        Some(NotNow::BlockedBy(blocker, _)) => notes.extend(word_about(snapshot, &blocker.0)),
        _ => {}
    }
    if active {
        notes.extend(snapshot.tracker_problem.as_ref().map(|problem| blind(problem)));
    }
    notes
}

/// One step along a chain of blockers: what the one in front is doing.
fn word_about(snapshot: &Snapshot, blocker: &str) -> Option<String> {
    let is_it = |id: &IssueId, identifier: &str| id.0 == blocker || identifier == blocker;
    let running = snapshot.running.iter().find(|row| is_it(&row.id, &row.identifier.0));
    let retrying = snapshot.retrying.iter().find(|row| is_it(&row.id, &row.identifier.0));
    let idle = snapshot.idle.iter().find(|row| is_it(&row.id, &row.identifier.0));
    let reason = running
        .map(|row| format!("{} ({})", NotNow::Running, row.phase))
        .or_else(|| retrying.map(RetryRow::reason))
        .or_else(|| idle.map(IdleRow::reason))?;
    Some(format!("{blocker}: {reason}"))
}
