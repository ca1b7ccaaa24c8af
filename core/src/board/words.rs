//! The board's vocabulary: what can happen, what it asks for, and how a run can end.
//!
//! All enums are closed: "what can wake the scheduler?" has an answer one can count.

use crate::ids::{IssueId, RunId, StateName};
use crate::issue::{Issue, Scan};
use crate::time::Tick;
use crate::workflow::{States, Workflow};

/// Everything that can happen to the board.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The wake time came.
    Woke,
    /// Somebody wants a look at the tracker now: a file event, an operator.
    LookWanted,
    /// The look that [`Command::Poll`] asked for ended. An error is not an empty scan.
    PollEnded(Result<Scan, String>),
    /// The run has its agent's word that the work is done and is handing it off.
    RunFinishing(RunId),
    /// The run is over and its sandbox is gone.
    RunEnded(RunId, RunEnd),
    /// The move that [`Command::Park`] asked for ended.
    ParkEnded(IssueId, Result<(), String>),
    /// The removal that [`Command::RemoveWorkspace`] asked for ended, well or not.
    WorkspaceRemoved(IssueId),
    /// From the next look on, issues come from another place; runs under way keep theirs.
    TrackerChanged,
    /// A shutdown began: nothing new starts, everything running is asked to stop.
    DrainAsked,
}

/// Everything the board can ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Look at the tracker; exactly one [`Event::PollEnded`] must follow.
    Poll,
    /// Start a run; exactly one [`Event::RunEnded`] must follow.
    Start(Box<Plan>),
    /// End a run early; its [`Event::RunEnded`] still follows.
    Stop(RunId, StopCause),
    /// Move an issue to the holding state with a note saying why; [`Event::ParkEnded`] must follow.
    Park {
        /// Which issue.
        issue: IssueId,
        /// The state it must still be in.
        from: StateName,
        /// For the note.
        reason: ParkReason,
    },
    /// Remove the workspace of a terminal issue; [`Event::WorkspaceRemoved`] must follow.
    RemoveWorkspace(Box<Issue>),
}

/// One run to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its fencing number.
    pub run: RunId,
    /// The issue as the dispatching scan saw it.
    pub issue: Issue,
    /// The number for the prompt and the hooks (C64): none on a first run.
    pub attempt: Option<u32>,
    /// What kind of run this is.
    pub kind: RetryKind,
    /// How the previous run ended, in a line, for the prompt.
    pub last_end: Option<String>,
}

/// Why an issue runs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryKind {
    /// It does not: this is the first run.
    First,
    /// The last run ended cleanly and left the issue active.
    Continuation,
    /// The last run failed.
    Failure,
}

/// Why a run is asked to end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The issue was moved to a terminal state.
    Terminal,
    /// The issue was moved to a state nobody works in.
    NotActive,
    /// The issue lost a required label or was put on hold.
    NotRoutable,
    /// The issue's file is gone, seen twice.
    Missing,
    /// symphony is shutting down.
    Drain,
}

/// How a run ended: exactly one of these, shown everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Marked done, handed off, moved.
    Done,
    /// Ended its turns without finishing; the issue is still active.
    TurnsUsed,
    /// The issue stopped being active or present while the agent worked; nothing is left to do.
    NoLongerActive,
    /// We asked it to end.
    Stopped(StopCause),
    /// Something went wrong; a retry may help.
    Failed(RunFailure),
    /// Something went wrong that only a person can mend.
    NeedsHuman(ParkReason),
}

/// What failed, as far as scheduling and people care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFailure {
    /// Stable category, for example `sandbox_lost` or `turn_timeout` (C178).
    pub code: &'static str,
    /// One line for people.
    pub message: String,
}

/// Why an issue was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// Too many failures without a success between them.
    FailuresInARow {
        /// How many there were.
        count: u32,
        /// The newest one.
        last: String,
    },
    /// Too many runs without finishing.
    SessionsUsed {
        /// How many there were.
        count: u32,
    },
    /// The agent's branch was moved by somebody else while the agent worked.
    Diverged {
        /// What was found, for the person who moved it.
        detail: String,
    },
    /// The work could not be handed off; it is kept where the detail says.
    HandoffFailed {
        /// What failed and where the work is.
        detail: String,
    },
}

impl std::fmt::Display for ParkReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FailuresInARow { count: 1, last } => write!(f, "a run failed: {last}"),
            Self::FailuresInARow { count, last } => write!(f, "{count} runs failed in a row; the last one: {last}"),
            Self::SessionsUsed { count } => write!(f, "{count} runs ended without the issue being finished"),
            Self::Diverged { detail } => write!(f, "its branch was moved by somebody else: {detail}"),
            Self::HandoffFailed { detail } => write!(f, "the work could not be handed off: {detail}"),
        }
    }
}

impl StopCause {
    /// The word for logs and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "moved to a terminal state",
            Self::NotActive => "moved to a state nobody works in",
            Self::NotRoutable => "put on hold or a required label removed",
            Self::Missing => "its file is gone",
            Self::Drain => "symphony is shutting down",
        }
    }
}

impl std::fmt::Display for RunEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => write!(f, "done"),
            Self::TurnsUsed => write!(f, "used all its turns without finishing"),
            Self::NoLongerActive => write!(f, "the issue is no longer active"),
            Self::Stopped(cause) => write!(f, "stopped: {}", cause.as_str()),
            Self::Failed(failure) => write!(f, "{}: {}", failure.code, failure.message),
            Self::NeedsHuman(reason) => write!(f, "needs a human: {reason}"),
        }
    }
}

/// The counters of one issue; they outlive its claims and, through the journal, the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Runs started, ever.
    pub sessions: u32,
    /// `sessions` when the issue was last resumed or finished: the allowance counts from here.
    pub granted: u32,
    /// Failed runs since the last one that was none.
    pub failures_in_a_row: u32,
    /// How the last run ended, for the next prompt.
    pub last_end: Option<String>,
}

/// The slice of a workflow the board sees, plus what stands in the way of any dispatch.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Roles and per-state limits.
    pub states: States,
    /// `agent.max_concurrent_agents`
    pub max_concurrent: u32,
    /// Cap of the failure back-off, in milliseconds.
    pub max_backoff_ms: u64,
    /// From the end of one look to the start of the next, in milliseconds.
    pub interval_ms: u64,
    /// All of these are needed (C40); trimmed and lower-cased.
    pub required_labels: Vec<String>,
    /// `budget.failures_in_a_row`
    pub failures_in_a_row: u32,
    /// `budget.sessions`
    pub sessions: u32,
    /// Set while nothing may start, whatever the issue.
    pub closed: Option<Closed>,
}

/// Why nothing at all may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The workflow file on disk does not pass its checks.
    WorkflowBroken,
    /// No sandbox the workflow allows works on this machine; the text says more.
    NoSandbox(String),
}

impl Policy {
    /// What the board needs of `workflow`.
    pub fn of(workflow: &Workflow, closed: Option<Closed>) -> Self {
        let mut states = workflow.states.clone();
        for (state, limit) in &workflow.agent.max_concurrent_agents_by_state {
            if let Some(rule) = states.rules.get_mut(state) {
                rule.max_concurrent = rule.max_concurrent.or(Some(*limit));
            }
        }
        Self {
            states,
            max_concurrent: workflow.agent.max_concurrent_agents,
            max_backoff_ms: workflow.agent.max_retry_backoff_ms,
            interval_ms: workflow.polling.interval_ms,
            required_labels: workflow.tracker.required_labels.clone(),
            failures_in_a_row: workflow.budget.failures_in_a_row,
            sessions: workflow.budget.sessions,
            closed,
        }
    }
}

/// The board's record that we are responsible for an issue now. Exactly one per claimed issue.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// A run is alive.
    Running {
        /// Its number.
        run: RunId,
    },
    /// A run is handing its work off; nothing on disk ends it any more.
    Finishing {
        /// Its number.
        run: RunId,
    },
    /// A run was asked to end; it holds its slot until its sandbox is gone.
    Stopping {
        /// Its number.
        run: RunId,
        /// Why.
        cause: StopCause,
    },
    /// The next run has a due time.
    Waiting {
        /// When.
        until: Tick,
        /// Which kind of run comes next.
        kind: RetryKind,
        /// The failure, if it was one.
        error: Option<String>,
    },
    /// Put aside; the move to the holding state is `moved` once it happened.
    Parked {
        /// Why.
        reason: ParkReason,
        /// `None` while the move is under way.
        moved: Option<Result<(), String>>,
    },
    /// The workspace of a terminal issue is being removed.
    Cleaning,
}

impl Claim {
    /// The live run, if there is one.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Running { run, .. } | Self::Finishing { run } | Self::Stopping { run, .. } => Some(*run),
            Self::Waiting { .. } | Self::Parked { .. } | Self::Cleaning => None,
        }
    }

    /// Whether the claim occupies a slot. A stopping sandbox still has its memory, and a
    /// continuation keeps the slot of the run it continues.
    pub fn holds_slot(&self) -> bool {
        match self {
            Self::Running { .. } | Self::Finishing { .. } | Self::Stopping { .. } => true,
            Self::Waiting { kind, .. } => *kind == RetryKind::Continuation,
            Self::Parked { .. } | Self::Cleaning => false,
        }
    }
}
