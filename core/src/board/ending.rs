//! How a run ends: exactly one reason of a closed list, the same word in the log, the journal, the API, the
//! dashboard and the next prompt.

use std::fmt;

use super::words::ParkReason;
use crate::broker::Provider;
use crate::ids::StateName;

/// An enum whose values are words, each with one spelling that never changes.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$what])* $value,)* }

        impl $name {
            /// Every value, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$value,)*];

            /// The stable spelling.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Why a run ended.
    EndReason {
        /// The agent said done; the work is handed off and the issue moved.
        Done = "done",
        /// The agent moved the issue to another state.
        Moved = "moved",
        /// All turns of one run were used without an end; a new run continues.
        TurnsUsed = "turns-used",
        /// The issue's allowance of turns is used up.
        BudgetTurns = "budget-turns",
        /// The issue's allowance of wall time is used up.
        BudgetWall = "budget-wall",
        /// A budget in tokens or money is used up.
        BudgetSpend = "budget-spend",
        /// Requests of other issues left no room in a budget; it goes on when there is some.
        BudgetBusy = "budget-busy",
        /// A person moved the issue, held it back or took its label.
        CancelledByOperator = "cancelled-by-operator",
        /// The issue was not active or not there any more when we looked.
        Reconciled = "reconciled",
        /// symphony was stopped.
        Shutdown = "shutdown",
        /// It waited for a human for too long and gave its sandbox back; the answer brings the issue forward.
        AwaitingAnswer = "awaiting-answer",
        /// Its model provider asked to wait; it goes on by itself.
        ProviderPaused = "provider-paused",
        /// Its model provider does not take the credential; it goes on once that is another one.
        ProviderLogin = "provider-login",
        /// symphony ended without a word, and the run with it.
        CutOff = "cut-off",
        /// The agent was silent for too long.
        TimeoutSilence = "timeout-silence",
        /// A prompt took too long as a whole.
        TimeoutTotal = "timeout-total",
        /// Nothing moved at all for too long.
        Stalled = "stalled",
        /// The agent's program ended or closed its output.
        AgentExit = "agent-exit",
        /// The agent did not start a session.
        AgentStart = "agent-start",
        /// The agent reported that its turn failed, was refused or cancelled.
        AgentError = "agent-error",
        /// Work could not cross between host and sandbox.
        Transport = "transport",
        /// The sandbox did not start.
        SandboxBoot = "sandbox-boot",
        /// The sandbox went away.
        SandboxLost = "sandbox-lost",
        /// What the agent left cannot be taken; it can mend it.
        ExportRefused = "export-refused",
        /// The workspace could not be made.
        Workspace = "workspace",
        /// `hooks.before_run` failed.
        HookFailed = "hook-failed",
        /// Our own repository of the work failed.
        Airlock = "airlock",
        /// The prompt cannot be filled in for this issue.
        TemplateError = "template-error",
        /// The issues could not be read.
        Tracker = "tracker",
        /// The journal could not be written.
        Journal = "journal",
        /// Somebody else moved the agent's branch.
        Diverged = "diverged",
        /// Finished work could not be handed off.
        HandoffFailed = "handoff-failed",
        /// A bug in symphony.
        Internal = "internal",
    }
}

impl EndReason {
    /// The reason of this spelling; what an unknown one was cannot be told.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == word)
    }
}

words! {
    /// What failed, finer than [`EndReason`]: the categories of C178 and of 0.1.0.
    FailureCode {
        /// The airlock.
        AirlockError = "airlock_error",
        /// Work of an earlier run could not be fetched from its disk.
        RescueFailed = "rescue_failed",
        /// Work could not be put into the sandbox.
        SeedFailed = "seed_failed",
        /// Work could not be fetched after a turn.
        CheckpointFailed = "checkpoint_failed",
        /// The export breaks a rule that the agent can keep.
        ExportRefused = "export_refused",
        /// The identifier names no directory.
        InvalidWorkspaceKey = "invalid_workspace_key",
        /// The run's own directory.
        RunDirectory = "run_directory",
        /// The workspace.
        WorkspaceError = "workspace_error",
        /// `hooks.after_create`
        AfterCreateFailed = "after_create_failed",
        /// `hooks.before_run`
        BeforeRunFailed = "before_run_failed",
        /// The sandbox did not come up.
        SandboxBootFailed = "sandbox_boot_failed",
        /// The sandbox went away.
        SandboxLost = "sandbox_lost",
        /// The agent's settings are incomplete.
        AgentNotConfigured = "agent_not_configured",
        /// The agent's program could not be started.
        AgentNotFound = "agent_not_found",
        /// The agent started, but no session did.
        StartupFailed = "startup_failed",
        /// The agent cannot use our tools.
        McpCapabilityMismatch = "mcp_capability_mismatch",
        /// The agent never asked for our tools.
        ToolsUnseen = "tools_unseen",
        /// The agent answered a start-up request with an error.
        ResponseError = "response_error",
        /// The agent did not answer a start-up request.
        ResponseTimeout = "response_timeout",
        /// The agent's output ended.
        PortExit = "port_exit",
        /// The turn ended, but not with `end_turn`.
        TurnFailed = "turn_failed",
        /// Whatever its model was asked was refused by the workflow, or is for a model that is none.
        ModelBarred = "model_barred",
        /// The turn was cancelled.
        TurnCancelled = "turn_cancelled",
        /// `acp.turn_timeout_ms`
        TurnSilent = "turn_timeout",
        /// `acp.prompt_timeout_ms`
        TurnTooLong = "turn_timeout",
        /// `acp.stall_timeout_ms`
        Stalled = "stalled",
        /// The issues could not be read after a turn.
        IssueRefreshFailed = "issue_refresh_failed",
        /// A person's answer has nowhere to go.
        AnswerLost = "answer_lost",
        /// The journal.
        Journal = "journal",
        /// The run crashed.
        Crashed = "crashed",
    }
}

impl FailureCode {
    /// The reason a run ends with when this fails.
    pub fn reason(self) -> EndReason {
        match self {
            Self::AirlockError => EndReason::Airlock,
            Self::RescueFailed | Self::SeedFailed | Self::CheckpointFailed | Self::AnswerLost => EndReason::Transport,
            Self::ExportRefused => EndReason::ExportRefused,
            Self::InvalidWorkspaceKey | Self::RunDirectory | Self::WorkspaceError | Self::AfterCreateFailed => {
                EndReason::Workspace
            }
            Self::BeforeRunFailed => EndReason::HookFailed,
            Self::SandboxBootFailed => EndReason::SandboxBoot,
            Self::SandboxLost => EndReason::SandboxLost,
            Self::AgentNotConfigured
            | Self::AgentNotFound
            | Self::StartupFailed
            | Self::McpCapabilityMismatch
            | Self::ToolsUnseen
            | Self::ModelBarred
            | Self::ResponseError
            | Self::ResponseTimeout => EndReason::AgentStart,
            Self::PortExit => EndReason::AgentExit,
            Self::TurnFailed | Self::TurnCancelled => EndReason::AgentError,
            Self::TurnSilent => EndReason::TimeoutSilence,
            Self::TurnTooLong => EndReason::TimeoutTotal,
            Self::Stalled => EndReason::Stalled,
            Self::IssueRefreshFailed => EndReason::Tracker,
            Self::Journal => EndReason::Journal,
            Self::Crashed => EndReason::Internal,
        }
    }
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
    /// The issue's allowance of wall time is used up.
    WallTime,
    /// A budget in tokens or money is used up.
    Spend,
    /// It has waited for a human for `steering.release_after_ms`.
    Released,
    /// Its model provider asks to wait for longer than a request can be held.
    ProviderPaused(Provider),
    /// Its model provider does not take the credential, or there is none.
    ProviderLogin(Provider),
    /// Requests of other issues that are under way leave no room in a budget.
    BudgetBusy,
    /// symphony is shutting down.
    Drain,
}

impl StopCause {
    /// The words for logs and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminal => "moved to a terminal state",
            Self::NotActive => "moved to a state nobody works in",
            Self::NotRoutable => "put on hold or a required label removed",
            Self::Missing => "its file is gone",
            Self::WallTime => "its allowance of wall time is used up",
            Self::Spend => "a budget in tokens or money is used up",
            Self::Released => "a human is asked; it goes on with the answer",
            Self::ProviderPaused(_) => "its model provider asks to wait; it goes on by itself",
            Self::ProviderLogin(_) => {
                "its model provider takes no credential of this host; it goes on with another one"
            }
            Self::BudgetBusy => "requests of other issues leave no room in a budget; it goes on when one has ended",
            Self::Drain => "symphony is shutting down",
        }
    }

    fn reason(self) -> EndReason {
        match self {
            Self::Terminal | Self::NotActive | Self::NotRoutable => EndReason::CancelledByOperator,
            Self::Missing => EndReason::Reconciled,
            Self::WallTime => EndReason::BudgetWall,
            Self::Spend => EndReason::BudgetSpend,
            Self::Released => EndReason::AwaitingAnswer,
            Self::ProviderPaused(_) => EndReason::ProviderPaused,
            Self::ProviderLogin(_) => EndReason::ProviderLogin,
            Self::BudgetBusy => EndReason::BudgetBusy,
            Self::Drain => EndReason::Shutdown,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// Marked done, handed off, moved.
    Done,
    /// The agent moved the issue to this state.
    Moved(StateName),
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
    /// Which category.
    pub code: FailureCode,
    /// One line for people.
    pub message: String,
}

impl RunEnd {
    /// The one word of the closed list.
    pub fn reason(&self) -> EndReason {
        match self {
            Self::Done => EndReason::Done,
            Self::Moved(_) => EndReason::Moved,
            Self::TurnsUsed => EndReason::TurnsUsed,
            Self::NoLongerActive => EndReason::Reconciled,
            Self::Stopped(cause) => cause.reason(),
            Self::Failed(failure) => failure.code.reason(),
            Self::NeedsHuman(reason) => reason.end_reason(),
        }
    }
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => write!(f, "done"),
            Self::Moved(to) => write!(f, "the agent moved the issue to {to}"),
            Self::TurnsUsed => write!(f, "used all its turns without finishing"),
            Self::NoLongerActive => write!(f, "the issue is no longer active"),
            Self::Stopped(cause) => write!(f, "stopped: {}", cause.as_str()),
            Self::Failed(failure) => write!(f, "{}: {}", failure.code, failure.message),
            Self::NeedsHuman(reason) => write!(f, "needs a human: {reason}"),
        }
    }
}

/// What a run left in the airlock when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Whether its tree is another one than when the run began.
    pub changed: bool,
    /// Commits since the base of the issue.
    pub commits: u32,
    /// Whether there is work that is not committed.
    pub uncommitted: bool,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let commits = match self.commits {
            0 => String::new(),
            1 => "1 commit".to_owned(),
            more => format!("{more} commits"),
        };
        let work = match (self.commits, self.uncommitted) {
            (0, false) => return write!(f, "nothing: the files are as they were when the issue began"),
            (0, true) => "uncommitted changes".to_owned(),
            (_, false) => commits,
            (_, true) => format!("{commits} and uncommitted changes"),
        };
        let unchanged = if self.changed { "" } else { ", none of it made by that run" };
        write!(f, "{work} in the work tree{unchanged}")
    }
}

/// The last run of an issue, for the next prompt and for readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    /// Why it ended.
    pub reason: EndReason,
    /// How it ended, one line.
    pub end: String,
    /// What it left, one line; `None` when it ended before its work could be seen.
    pub left: Option<String>,
}

/// Characters of an end that are kept: it is quoted in prompts and notes.
const END_MAX: usize = 2000;

impl LastRun {
    /// The record of a run that ended so.
    pub fn of(reason: EndReason, end: &RunEnd, left: Option<&Left>) -> Self {
        // Work that could not be taken off its disk was not seen: what the airlock has says nothing of it.
        let unseen = matches!(end, RunEnd::Failed(failure) if failure.code == FailureCode::RescueFailed);
        let left = left.filter(|_| !unseen).map(ToString::to_string);
        Self { reason, end: one_line(&end.to_string(), END_MAX), left }
    }

    /// Whether this failed.
    pub fn failed_with(&self, code: FailureCode) -> bool {
        self.end.strip_prefix(code.as_str()).is_some_and(|rest| rest.starts_with(": "))
    }
}

/// `text` on one line of at most about `max` bytes. What came out of a sandbox can then neither begin a fenced
/// block nor a heading in the issue or the prompt that quotes it.
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if line.len() + word.len() > max {
            line.push_str(if line.is_empty() { "…" } else { " …" });
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_spelling_of_its_own_that_reads_back() {
        let spelled: std::collections::BTreeSet<_> = EndReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(spelled.len(), EndReason::ALL.len());
        for reason in EndReason::ALL {
            assert_eq!(EndReason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(EndReason::parse("finished"), None);
    }

    #[test]
    fn a_timeout_says_which_limit_it_was() {
        let reason = |code| RunEnd::Failed(RunFailure { code, message: String::new() }).reason().as_str();
        assert_eq!(reason(FailureCode::TurnSilent), "timeout-silence");
        assert_eq!(reason(FailureCode::TurnTooLong), "timeout-total");
        assert_eq!(reason(FailureCode::Stalled), "stalled");
        let named: std::collections::BTreeSet<_> = FailureCode::ALL.iter().map(|code| code.reason()).collect();
        assert!(named.iter().all(|reason| !matches!(reason, EndReason::Done | EndReason::Moved)));
    }

    #[test]
    fn what_a_run_left_reads_as_a_sentence() {
        let left = |commits, uncommitted, changed| Left { changed, commits, uncommitted }.to_string();
        assert_eq!(left(2, true, true), "2 commits and uncommitted changes in the work tree");
        assert_eq!(left(1, false, false), "1 commit in the work tree, none of it made by that run");
        assert_eq!(left(0, true, true), "uncommitted changes in the work tree");
        assert!(left(0, false, false).starts_with("nothing"));
    }

    /// Regression: it said that the files are as they were, while the work of the run stood on a disk nobody could read.
    #[test]
    fn of_a_run_whose_work_was_not_rescued_nobody_says_what_it_left() {
        let of = |code| {
            let end = RunEnd::Failed(RunFailure { code, message: "gone".into() });
            LastRun::of(end.reason(), &end, Some(&Left::default())).left
        };
        assert_eq!(of(FailureCode::RescueFailed), None);
        assert!(of(FailureCode::SeedFailed).is_some_and(|left| left.starts_with("nothing")));
    }

    #[test]
    fn what_failed_is_told_from_the_record_of_a_run() {
        let end = RunEnd::Failed(RunFailure { code: FailureCode::ToolsUnseen, message: "port_exit: no".into() });
        let last = LastRun::of(end.reason(), &end, None);
        assert!(last.failed_with(FailureCode::ToolsUnseen) && !last.failed_with(FailureCode::PortExit));
    }

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(one_line("a\n```sh\nrm\u{1b}[2J\n```", 100), "a ```sh rm [2J ```");
        assert_eq!((one_line("ab cd", 4).as_str(), one_line("ab cd", 3).as_str()), ("ab cd", "ab …"));
        assert!(one_line(&"word ".repeat(1000), 100).len() < 110);
        assert_eq!(one_line(&"x".repeat(1000), 100), "…");
    }
}
