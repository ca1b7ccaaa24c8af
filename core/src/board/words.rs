//! The board's vocabulary: what can happen, what it asks for, and how a run can end.
//!
//! All enums are closed: "what can wake the scheduler?" has an answer one can count.

use super::ending::{EndReason, LastRun, Left, RunEnd, StopCause};
use super::models::{Closures, ModelAccess};
use super::profiles::{Profiles, Stocks};
use crate::budget::{Allowance, Bound, Exhausted, Spoken};
use crate::ids::{Identifier, IssueId, RunId, StateName};
use crate::issue::{Issue, Scan};
use crate::runtimes::Kind;
use crate::spend::{Met, Standing};
use crate::time::Tick;
use crate::workflow::{Budget, OnBlockerCancelled, States, Workflow};

/// Everything that can happen to the board.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The wake time came.
    Woke,
    /// Somebody wants a look at the tracker now: a file event, an operator.
    LookWanted,
    /// The look that [`Command::Poll`] asked for ended. An error is not an empty scan.
    PollEnded(Result<Scan, String>),
    /// A turn that no human asked for began; the number counts them within the run, from 1. The first one
    /// says that the sandbox is up and the agent speaks.
    TurnBegan(RunId, u32),
    /// The agent of this run asked a human; with a default, that counts as the answer from this instant on.
    Asked(RunId, Option<Tick>),
    /// The question of this issue has its answer, and the journal holds it.
    Answered(IssueId),
    /// The run waits for a human, or no longer does. Waiting costs no wall time.
    Asking(RunId, bool),
    /// Requests of the run wait for a provider's leave, or no longer do. That costs no wall time either.
    Held(RunId, bool),
    /// A request of this run's agent did not fit below a cap of tokens or money.
    SpendMet(RunId, Met),
    /// The run has its agent's word that the work is done and is handing it off.
    RunFinishing(RunId),
    /// The run is over and its sandbox is gone; what it left, if it came so far.
    RunEnded(RunId, RunEnd, Option<Left>),
    /// The move that [`Command::Park`] asked for ended.
    ParkEnded(IssueId, Result<(), String>),
    /// The move that [`Command::Resume`] asked for ended.
    ResumeEnded(IssueId, Result<(), String>),
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
    /// Move a parked issue back, because what it waited for happened; [`Event::ResumeEnded`] must follow.
    Resume {
        /// Which issue.
        issue: IssueId,
        /// The holding state it must still be in.
        from: StateName,
        /// Where it came from.
        to: StateName,
    },
    /// The question of this issue needs no answer any more.
    Withdraw(IssueId),
    /// Nobody answered in time: the default counts. [`Event::Answered`] follows once it is kept.
    AnswerByDefault(IssueId),
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
    /// How the previous run ended and what it left, for the prompt; `None` on a first run.
    pub last: Option<LastRun>,
    /// What it may use at most.
    pub allowance: Allowance,
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

impl RetryKind {
    /// The stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Continuation => "continuation",
            Self::Failure => "failure",
        }
    }

    /// The kind of this word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::First, Self::Continuation, Self::Failure].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// When an issue is tried again by itself, in ticks of a process or in the time of the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due<T> {
    /// When.
    pub until: T,
    /// Which kind of run comes then.
    pub kind: RetryKind,
    /// The failure, if it was one.
    pub error: Option<String>,
}

/// Why an issue was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParkReason {
    /// Too many failures, of any kind, without a success between them.
    FailuresInARow {
        /// How many there were.
        count: u32,
        /// The newest one.
        last: String,
    },
    /// An allowance is used up.
    Budget {
        /// Which.
        bound: Bound,
        /// How much was used of it.
        used: u64,
    },
    /// A budget in tokens or money is used up.
    Spend(Met),
    /// Runs that end by themselves and change nothing.
    NoProgress {
        /// How many in a row.
        sessions: u32,
    },
    /// The prompt cannot be filled in for this issue; only an edit mends that.
    Template {
        /// What is wrong, with its line.
        detail: String,
        /// The prompt it was, as [`Policy::prompt`] names it.
        prompt: String,
    },
    /// An issue it waits for was cancelled, and the workflow says to park then.
    BlockerCancelled {
        /// Which one.
        blocker: Identifier,
        /// The state it is in.
        state: StateName,
    },
    /// The agent's branch was moved by somebody else while the agent worked.
    Diverged {
        /// What was found, for the person who moved it.
        detail: String,
    },
    /// Its agent cannot start, or work, here before a person has done something.
    AgentStart {
        /// What is missing, and how to get it.
        detail: String,
    },
    /// The work could not be handed off; it is kept where the detail says.
    HandoffFailed {
        /// What failed and where the work is.
        detail: String,
    },
}

impl ParkReason {
    /// The bound that was met, as a reason.
    pub(super) fn of(met: Exhausted, last: Option<&LastRun>) -> Self {
        match met {
            Exhausted::FailuresInARow(count) => {
                Self::FailuresInARow { count, last: last.map(|last| last.end.clone()).unwrap_or_default() }
            }
            Exhausted::NoProgress(sessions) => Self::NoProgress { sessions },
            Exhausted::Allowance(bound, used) => Self::Budget { bound, used },
        }
    }

    /// The stable word for logs and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::FailuresInARow { .. } => "failures-in-a-row",
            Self::Budget { bound: Bound::Sessions, .. } => "budget-sessions",
            Self::Budget { bound: Bound::Turns, .. } => "budget-turns",
            Self::Budget { bound: Bound::WallTime, .. } => "budget-wall",
            Self::Budget { bound: Bound::Bounces, .. } => "budget-bounces",
            Self::Spend(met) => met.code(),
            Self::NoProgress { .. } => "no-progress",
            Self::Template { .. } => "template-error",
            Self::BlockerCancelled { .. } => "blocker-cancelled",
            Self::Diverged { .. } => "diverged",
            Self::AgentStart { .. } => "agent-start",
            Self::HandoffFailed { .. } => "handoff-failed",
        }
    }

    /// What a run that ends for this reason is said to have ended with.
    pub(super) fn end_reason(&self) -> EndReason {
        match self {
            Self::Template { .. } => EndReason::TemplateError,
            Self::Diverged { .. } => EndReason::Diverged,
            Self::AgentStart { .. } => EndReason::AgentStart,
            Self::Spend(_) => EndReason::BudgetSpend,
            // Bounds are met between runs, not by one.
            _ => EndReason::HandoffFailed,
        }
    }

    /// How its file is moved back, for the middle of a sentence.
    pub(crate) fn back(from: &StateName) -> String {
        format!("move this file back to `{from}/`")
    }

    /// How a person brings the issue back, as a sentence; `from` is the state it was parked from.
    pub fn remedy(&self, from: &StateName) -> String {
        let back = Self::back(from);
        match self {
            Self::Template { .. } => format!(
                "Mend the prompt in the workflow file and the issue goes back by itself; after a change of this file alone, {back}."
            ),
            Self::BlockerCancelled { blocker, .. } => {
                format!("Remove {blocker} from `blocked_by`, then {back}.")
            }
            Self::NoProgress { .. } => {
                format!("Say more clearly what is to be done, then {back}; that grants a new allowance of runs.")
            }
            Self::Spend(met) => met.remedy(&back, "symphony raise"),
            Self::FailuresInARow { .. }
            | Self::Budget { .. }
            | Self::Diverged { .. }
            | Self::AgentStart { .. }
            | Self::HandoffFailed { .. } => format!("To try again, {back}; that grants a new allowance of runs."),
        }
    }
}

impl std::fmt::Display for ParkReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FailuresInARow { count: 1, last } => write!(f, "a run failed: {last}"),
            Self::FailuresInARow { count, last } => write!(f, "{count} runs failed in a row; the last one: {last}"),
            Self::Budget { bound: Bound::Sessions, used } => {
                write!(f, "{used} runs ended without the issue being finished (budget.sessions)")
            }
            Self::Budget { bound: Bound::Turns, used } => {
                write!(f, "{used} turns did not finish the issue (budget.turns)")
            }
            Self::Budget { bound: Bound::WallTime, used } => {
                write!(f, "{} of runs did not finish the issue (budget.wall_ms)", Spoken(*used))
            }
            Self::Budget { bound: Bound::Bounces, used } => {
                write!(f, "its agents moved it back and forth {used} times (budget.bounces)")
            }
            Self::Spend(met) => met.fmt(f),
            Self::NoProgress { sessions } => {
                write!(f, "{sessions} runs in a row changed no file and no state (budget.no_progress)")
            }
            Self::Template { detail, .. } => write!(f, "{detail}"),
            Self::BlockerCancelled { blocker, state } => {
                write!(f, "it waits for {blocker}, which was cancelled (it is in {state})")
            }
            Self::Diverged { detail } => write!(f, "its branch was moved by somebody else: {detail}"),
            Self::AgentStart { detail } => write!(f, "its agent cannot work here: {detail}"),
            Self::HandoffFailed { detail } => write!(f, "the work could not be handed off: {detail}"),
        }
    }
}

/// A parked issue: why, and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Why.
    pub reason: ParkReason,
    /// The state it was moved out of.
    pub from: StateName,
}

/// The host's memory, as far as starting runs is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What programs could still take, as of the newest look, in MiB.
    pub available_mib: u64,
    /// What must be free for one more run, in MiB.
    pub needed_mib: u64,
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
    /// `budget.*`
    pub budget: Budget,
    /// `steering.release_after_ms`
    pub release_after_ms: u64,
    /// `tracker.on_blocker_cancelled`
    pub on_blocker_cancelled: OnBlockerCancelled,
    /// Names the prompt in force: another text has another name.
    pub prompt: String,
    /// The profiles that an issue may name.
    pub profiles: Profiles,
    /// Where agents find models.
    pub models: ModelAccess,
    /// `None`: the host's memory is not asked.
    pub memory: Option<Memory>,
    /// Budgets in tokens and money.
    pub spend: Standing,
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
    /// A sandbox is still being tried; the text says which.
    TryingSandbox(String),
    /// The journal cannot be written; the text says why.
    Journal(String),
    /// There is nothing that work could start from; the text says what and how to mend it.
    NoSource(String),
}

impl Closed {
    /// The sentence about it.
    pub fn why(&self) -> &str {
        match self {
            Self::WorkflowBroken => "the workflow file has errors; nothing new starts until they are fixed",
            Self::NoSandbox(why) | Self::TryingSandbox(why) | Self::Journal(why) | Self::NoSource(why) => why,
        }
    }
}

impl Policy {
    /// What the board needs of `workflow`; `available_mib` is what the host's programs could still take, if known,
    /// `kind` what isolates runs, `stocks` what a look found of the images that it boots, and `spend` what was used of models.
    pub fn of(
        workflow: &Workflow,
        closed: Option<Closed>,
        available_mib: Option<u64>,
        kind: Option<Kind>,
        stocks: &Stocks,
        spend: Standing,
    ) -> Self {
        let needs_none = |state: &StateName| {
            let agent = workflow.agent_of(state);
            agent.command.is_none() && agent.adapter.providers(agent.model).is_empty()
        };
        let modelless = workflow.states.rules.keys().filter(|state| needs_none(state)).cloned().collect();
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
            budget: workflow.budget.clone(),
            release_after_ms: workflow.steering.release_after_ms,
            on_blocker_cancelled: workflow.tracker.on_blocker_cancelled,
            prompt: workflow.prompt_key(),
            profiles: Profiles::of(workflow, kind, stocks),
            models: ModelAccess::of(workflow, Closures::new()),
            memory: available_mib
                .filter(|_| workflow.sandbox.reserve_mib > 0)
                .map(|available_mib| Memory { available_mib, needed_mib: workflow.sandbox.reserve_mib }),
            spend: Standing { modelless, ..spend },
            closed,
        }
    }

    /// With the providers to which no request can go.
    #[must_use]
    pub fn without(mut self, closed: Closures) -> Self {
        self.models.closed = closed;
        self
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
        /// Why, and where it came from.
        parked: Parked,
        /// `None` while the move is under way.
        moved: Option<Result<(), String>>,
    },
    /// A parked issue is being moved back.
    Resuming,
    /// The workspace of a terminal issue is being removed.
    Cleaning,
}

impl Claim {
    /// The live run, if there is one.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Running { run, .. } | Self::Finishing { run } | Self::Stopping { run, .. } => Some(*run),
            Self::Waiting { .. } | Self::Parked { .. } | Self::Resuming | Self::Cleaning => None,
        }
    }

    /// Whether the claim occupies a slot. A stopping sandbox still has its memory, and a
    /// continuation keeps the slot of the run it continues.
    pub fn holds_slot(&self) -> bool {
        match self {
            Self::Running { .. } | Self::Finishing { .. } | Self::Stopping { .. } => true,
            Self::Waiting { kind, .. } => *kind == RetryKind::Continuation,
            Self::Parked { .. } | Self::Resuming | Self::Cleaning => false,
        }
    }
}
