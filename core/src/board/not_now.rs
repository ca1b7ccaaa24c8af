//! Why an issue does not run: one closed list, computed once, shown everywhere.

use std::fmt;

use jiff::Timestamp;

use super::one_line;
use super::profiles::Whose;
use super::words::{Closed, ParkReason, Parked};
use crate::broker::Provider;
use crate::broker::quota::Pause;
use crate::ids::{Identifier, StateName};
use crate::spend::Met;
use crate::time::Tick;
use crate::workflow::Barred;
use crate::workflow::listed;

/// How much of a profile's name is said.
pub(super) const PROFILE_MAX: usize = 60;

/// Why an issue does not run right now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotNow {
    /// Its state is nobody's to work in.
    Holding,
    /// It is finished.
    Terminal,
    /// Its front matter says `hold: true`.
    OnHold,
    /// A key of its front matter is nearly one that would keep it from starting; a sentence.
    DoubtfulKey(String),
    /// It lacks a required label.
    MissingLabel(String),
    /// Its front matter names a profile that the workflow does not list.
    UnknownProfile {
        /// As written.
        profile: String,
        /// Those that are listed.
        listed: Vec<String>,
    },
    /// The runtime in force cannot have its profile.
    ProfileRefused {
        /// Which it is.
        whose: Whose,
        /// Words that follow the name.
        why: String,
    },
    /// What its sandbox would boot is not there, or lacks something.
    ImageMissing {
        /// Whose image it is.
        whose: Whose,
        /// What is missing, a sentence without its end.
        what: String,
        /// How to get it, the same.
        hint: String,
    },
    /// Whether what its sandbox would boot is there could not be told at the newest look.
    ImageUnclear {
        /// Whose image it is.
        whose: Whose,
        /// What was in the way of the look.
        why: String,
    },
    /// Whoever answers its agent asked to wait.
    ProviderPaused {
        /// Who.
        provider: Provider,
        /// Until when.
        until: Timestamp,
        /// For how long it asked.
        pause: Pause,
    },
    /// Whoever answers its agent says that the account has no credit left.
    NoCredit {
        /// Who.
        provider: Provider,
        /// When it is asked again.
        until: Timestamp,
    },
    /// There is no credential with which its agent could ask a model.
    NoCredential {
        /// Of whom; the first of several.
        provider: Provider,
        /// A sentence with its remedy, without its end.
        why: String,
    },
    /// The workflow's own rules would refuse the model that its agent is to ask.
    ModelBarred(Barred),
    /// Its agent asked a human, and no run waits for the answer.
    AwaitingAnswer,
    /// Another issue must end first.
    BlockedBy(Identifier, StateName),
    /// A blocker that does not exist.
    UnknownBlocker(Identifier),
    /// A blocker that was cancelled; the workflow says to wait then.
    BlockerCancelled(Identifier, StateName),
    /// Issues that wait for each other.
    BlockerCycle(Vec<Identifier>),
    /// All slots are taken.
    NoGlobalSlot(u32),
    /// All slots of its state are taken.
    NoStateSlot(StateName, u32),
    /// The host cannot hold one more run.
    NoMemory {
        /// For one run, in MiB.
        needed_mib: u64,
        /// As of the newest look, in MiB.
        available_mib: u64,
        /// Runs that were started and have not taken theirs yet.
        booting: u32,
    },
    /// The next run has a due time.
    BackingOff(Tick),
    /// Put aside.
    Parked(Parked, Option<String>),
    /// It is about to be put aside.
    WillPark(ParkReason),
    /// A run is alive.
    Running,
    /// It is being moved back to where it was parked from.
    Resuming,
    /// Its old workspace is being removed.
    Cleaning,
    /// Its file may have just moved; the next look tells.
    Unconfirmed,
    /// The newest look did not find its file, or could not read it.
    Unseen,
    /// A budget in tokens or money of all issues is met, and its agent would need a model.
    Spend(Met),
    /// Requests of other issues that are under way leave no room in a budget for what its agent asked last.
    NoBudgetRoom,
    /// Nothing starts at all.
    Closed(Closed),
    /// A shutdown is under way.
    Draining,
}

impl NotNow {
    /// The stable word for the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Holding => "holding",
            Self::Terminal => "terminal",
            Self::OnHold => "on-hold",
            Self::DoubtfulKey(_) => "doubtful-key",
            Self::MissingLabel(_) => "missing-label",
            Self::UnknownProfile { .. } => "unknown-profile",
            Self::ProfileRefused { .. } => "profile-refused",
            Self::ProviderPaused { .. } => "provider-paused",
            Self::NoCredit { .. } => "no-credit",
            Self::NoCredential { .. } => "no-credential",
            Self::ModelBarred(_) => "model-barred",
            Self::AwaitingAnswer => "awaiting-answer",
            Self::ImageMissing { .. } => "image-missing",
            Self::ImageUnclear { .. } => "image-unclear",
            Self::BlockedBy(..) => "blocked",
            Self::UnknownBlocker(_) => "unknown-blocker",
            Self::BlockerCancelled(..) => "blocker-cancelled",
            Self::BlockerCycle(_) => "blocker-cycle",
            Self::NoGlobalSlot(_) => "no-slot",
            Self::NoStateSlot(..) => "no-state-slot",
            Self::NoMemory { .. } => "no-memory",
            Self::BackingOff(_) => "backing-off",
            Self::Parked(..) => "parked",
            Self::WillPark(_) => "will-park",
            Self::Running => "running",
            Self::Resuming => "resuming",
            Self::Cleaning => "cleaning",
            Self::Unconfirmed => "unconfirmed",
            Self::Unseen => "unseen",
            Self::Spend(_) => "spend",
            Self::NoBudgetRoom => "no-budget-room",
            Self::Closed(Closed::WorkflowBroken) => "workflow-broken",
            Self::Closed(Closed::NoSandbox(_)) => "no-sandbox",
            Self::Closed(Closed::TryingSandbox(_)) => "trying-sandbox",
            Self::Closed(Closed::Journal(_)) => "journal",
            Self::Closed(Closed::NoSource(_)) => "no-source",
            Self::Draining => "draining",
        }
    }

    /// The cap of tokens or money that it waits for.
    pub fn cap(&self) -> Option<&Met> {
        match self {
            Self::Spend(met) | Self::Parked(Parked { reason: ParkReason::Spend(met), .. }, _) => Some(met),
            _ => None,
        }
    }

    /// Whether only a person brings the issue forward from where it was put.
    pub fn is_parked(&self) -> bool {
        matches!(self, Self::Parked(..))
    }

    /// Whether only a person brings this very issue forward. What is in the way of all issues, or was put there by a
    /// person on purpose, is not counted for each of them; a question is counted by itself.
    pub fn needs_human(&self) -> bool {
        match self {
            Self::Parked(..)
            | Self::DoubtfulKey(_)
            | Self::UnknownProfile { .. }
            | Self::ProfileRefused { .. }
            | Self::ImageMissing { .. }
            | Self::NoCredit { .. }
            | Self::NoCredential { .. }
            | Self::ModelBarred(_)
            | Self::UnknownBlocker(_)
            | Self::BlockerCancelled(..)
            | Self::BlockerCycle(_) => true,
            Self::Holding
            | Self::Terminal
            | Self::OnHold
            | Self::MissingLabel(_)
            | Self::ImageUnclear { .. }
            | Self::ProviderPaused { .. }
            | Self::AwaitingAnswer
            | Self::BlockedBy(..)
            | Self::NoGlobalSlot(_)
            | Self::NoStateSlot(..)
            | Self::NoMemory { .. }
            | Self::BackingOff(_)
            | Self::WillPark(_)
            | Self::Running
            | Self::Resuming
            | Self::Cleaning
            | Self::Unconfirmed
            | Self::Unseen
            | Self::Spend(_)
            | Self::NoBudgetRoom
            | Self::Closed(_)
            | Self::Draining => false,
        }
    }
}

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holding => write!(f, "nobody works in this state"),
            Self::Terminal => write!(f, "finished"),
            Self::OnHold => write!(f, "its front matter says `hold: true`"),
            Self::DoubtfulKey(what) => write!(f, "its front matter may not say what was meant: {what}"),
            Self::MissingLabel(label) => write!(f, "lacks the required label `{label}`"),
            // What stands for a value that is no name: no profile can be called so.
            Self::UnknownProfile { profile, .. } if ["a list", "a map"].contains(&profile.as_str()) => {
                write!(f, "`profile` must be one name, it is {profile}")
            }
            Self::UnknownProfile { profile, listed: names } => write!(
                f,
                "the workflow lists no profile `{}` (it lists {})",
                one_line(profile, PROFILE_MAX),
                listed(names)
            ),
            Self::ProfileRefused { whose, why } => write!(f, "{whose} {why}"),
            Self::ImageMissing { whose, what, .. } => write!(f, "{whose} has nothing to boot: {what}"),
            Self::ImageUnclear { whose, why } => write!(f, "what {whose} would boot cannot be looked at: {why}"),
            Self::ProviderPaused { provider, until, pause } => f.write_str(&pause.words(*provider, *until)),
            Self::NoCredit { provider, until } => f.write_str(&Pause::Empty.words(*provider, *until)),
            Self::NoCredential { why, .. } | Self::ModelBarred(Barred { why, .. }) => f.write_str(why),
            Self::AwaitingAnswer => write!(f, "its agent asked a question; the answer starts it again"),
            Self::BlockedBy(id, state) => write!(f, "blocked by {id}, which is in {state}"),
            Self::UnknownBlocker(id) => write!(f, "blocked by {id}, which does not exist"),
            Self::BlockerCancelled(id, state) => write!(
                f,
                "blocked by {id}, which was cancelled (it is in {state}); remove it from `blocked_by` to go on"
            ),
            Self::BlockerCycle(ids) => {
                let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(f, "in a circle of blockers: {}", names.join(" → "))
            }
            Self::NoGlobalSlot(limit) => write!(f, "all {limit} slots are taken"),
            Self::NoStateSlot(state, limit) => write!(f, "all {limit} slots of {state} are taken"),
            Self::NoMemory { needed_mib, available_mib, booting } => {
                write!(f, "this machine has {available_mib} MiB of memory left, a run needs {needed_mib} MiB")?;
                match booting {
                    0 => Ok(()),
                    1 => write!(f, " and one more is just starting"),
                    more => write!(f, " and {more} more are just starting"),
                }
            }
            Self::BackingOff(_) => write!(f, "waits for its next attempt"),
            Self::Parked(parked, None) => write!(f, "parked: {}", parked.reason),
            Self::Parked(parked, Some(trouble)) => {
                write!(f, "parked: {} (it could not be moved: {trouble})", parked.reason)
            }
            Self::WillPark(reason) => write!(f, "about to be parked: {reason}"),
            Self::Running => write!(f, "running"),
            Self::Resuming => write!(f, "being moved back to where it was parked from"),
            Self::Cleaning => write!(f, "its old workspace is being removed"),
            Self::Unconfirmed => write!(f, "its file is being looked at again"),
            Self::Unseen => write!(f, "its file is missing or cannot be read just now"),
            Self::Spend(met) => write!(f, "{}; {}", Met { asked: 0, ..*met }, met.until()),
            Self::NoBudgetRoom => write!(
                f,
                "the rest of a budget is set aside for requests of other issues; it goes on when one of them has ended"
            ),
            Self::Closed(Closed::NoSandbox(why)) => write!(f, "no sandbox can run it: {why}"),
            Self::Closed(closed) => f.write_str(closed.why()),
            Self::Draining => write!(f, "symphony is shutting down"),
        }
    }
}
