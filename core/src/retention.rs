//! What goes and what stays of all that symphony keeps: one verdict for each thing, with its reason.
//!
//! It fails closed. Nothing goes without a reason of its own and our mark on it; what is not known stays, and says so;
//! and when any part of the inventory could not be made, nothing goes at all.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::workflow::{Bounds, Retention, Role};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const MIB: u64 = 1 << 20;

/// What a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The host's directory of an issue.
    Workspace,
    /// The guest's own storage for an issue.
    WorkDisk,
    /// A work disk that a run gave up.
    PutAside,
    /// The repository through which an issue's work crosses: never removed. It may hold what no patch names, such as
    /// commits that a squash or a person left behind.
    Airlock,
    /// Finished patches: never removed.
    Patches,
    /// A machine saved after its boot.
    Template,
    /// What a run left: its frames and logs.
    Run,
    /// The journal itself: never removed.
    Journal,
    /// A copy of the journal.
    JournalBackup,
    /// Anything else that stands where we keep things.
    Other,
}

impl Kind {
    /// The word people and programs see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::WorkDisk => "work-disk",
            Self::PutAside => "put-aside",
            Self::Airlock => "airlock",
            Self::Patches => "patches",
            Self::Template => "template",
            Self::Run => "run",
            Self::Journal => "journal",
            Self::JournalBackup => "journal-backup",
            Self::Other => "other",
        }
    }
}

/// Whose a thing is, by what can be seen from outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Made by this symphony, beyond doubt.
    Ours,
    /// Nothing says that this symphony made it.
    Missing,
    /// A symbolic link: it could lead anywhere.
    Link,
}

/// What is known of the issue that a thing belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// It belongs to no issue.
    Nobody,
    /// No issue of the tracker is certainly its owner.
    Unknown,
    /// An issue in a state with this role.
    Issue(Role),
}

/// One thing that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Its path; unique.
    pub place: String,
    /// What it takes on the disk; `None`: not measured.
    pub bytes: Option<u64>,
    /// Since its last use; `None`: not known.
    pub idle_ms: Option<u64>,
    /// Whose it is.
    pub mark: Mark,
    /// Its issue.
    pub owner: Owner,
    /// Something uses it right now.
    pub live: bool,
    /// It may hold what stands nowhere else.
    pub unexported: bool,
    /// Making or removing it was begun and did not end: nobody can use it.
    pub doomed: bool,
}

/// Everything that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Each thing once.
    pub items: Vec<Item>,
    /// What could not be looked at, each a sentence.
    pub errors: Vec<String>,
}

/// Why a thing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Making or removing it was begun and did not end: nobody can use it.
    Begun,
    /// Its issue is finished, and the days are over.
    Finished {
        /// As configured.
        days: u64,
    },
    /// Not used for so many days.
    TooOld {
        /// As configured.
        days: u64,
    },
    /// Others of its kind were used later.
    TooMany {
        /// As configured.
        max: u64,
    },
    /// Its kind takes more room than it may, and the later ones fill it.
    TooMuch {
        /// As configured.
        max_mib: u64,
    },
}

/// Why a thing stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Something could not be looked at.
    InventoryFailed,
    /// Nothing says that it is ours.
    NotOurs,
    /// It is a symbolic link.
    Link,
    /// Things of its kind are never removed.
    Always,
    /// Something uses it.
    Live,
    /// It may hold what stands nowhere else.
    Unexported,
    /// No issue of the tracker is certainly its owner.
    IssueUnknown,
    /// Its issue is worked on.
    IssueActive,
    /// Its issue is parked, proposed or on hold.
    IssueHeld,
    /// There is no bound on it.
    Unbounded,
    /// It is not known when it was last used.
    AgeUnknown,
    /// It was used lately.
    NotYet {
        /// As configured.
        days: u64,
    },
}

impl Due {
    /// A stable word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Begun => "unfinished",
            Self::Finished { .. } => "issue-finished",
            Self::TooOld { .. } => "too-old",
            Self::TooMany { .. } => "too-many",
            Self::TooMuch { .. } => "too-much",
        }
    }
}

impl Kept {
    /// A stable word.
    pub fn code(self) -> &'static str {
        match self {
            Self::InventoryFailed => "inventory-failed",
            Self::NotOurs => "not-ours",
            Self::Link => "link",
            Self::Always => "always",
            Self::Live => "in-use",
            Self::Unexported => "unexported",
            Self::IssueUnknown => "issue-unknown",
            Self::IssueActive => "issue-active",
            Self::IssueHeld => "issue-held",
            Self::Unbounded => "unbounded",
            Self::AgeUnknown => "age-unknown",
            Self::NotYet { .. } => "not-yet",
        }
    }
}

fn plural(days: u64) -> &'static str {
    if days == 1 { "day" } else { "days" }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begun => f.write_str("making or removing it was begun and cut off"),
            Self::Finished { days } => {
                write!(f, "its issue is finished, and it was not used for {days} {}", plural(*days))
            }
            Self::TooOld { days } => write!(f, "it was not used for {days} {}", plural(*days)),
            Self::TooMany { max } => write!(f, "{max} others of its kind were used later"),
            Self::TooMuch { max_mib } => write!(f, "later ones take the {max_mib} MiB that its kind may have"),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InventoryFailed => "something could not be looked at, so nothing is removed",
            Self::NotOurs => "nothing shows that this symphony made it",
            Self::Link => "it is a symbolic link",
            Self::Always => "it is never removed",
            Self::Live => "it is in use",
            Self::Unexported => "it may hold work that stands nowhere else",
            Self::IssueUnknown => "its issue is gone, or cannot be told: remove it yourself once you have looked",
            Self::IssueActive => "its issue is not finished",
            Self::IssueHeld => "its issue is parked, proposed or on hold",
            Self::Unbounded => "nothing bounds it",
            Self::AgeUnknown => "nobody knows when it was last used",
            Self::NotYet { days } => {
                return write!(f, "it stays until it was not used for {days} {}", plural(*days));
            }
        })
    }
}

impl Kept {
    /// Whether a person may want to look at such a thing: it stays for a reason that no time ends.
    pub fn is_worth_a_look(self) -> bool {
        matches!(
            self,
            Self::InventoryFailed
                | Self::NotOurs
                | Self::Link
                | Self::Unexported
                | Self::IssueUnknown
                | Self::AgeUnknown
        )
    }
}

/// What becomes of one thing.
pub type Verdict = Result<Due, Kept>;

/// One verdict for each item, in the same order.
pub fn plan(inventory: &Inventory, policy: &Retention) -> Vec<Verdict> {
    if !inventory.errors.is_empty() {
        return vec![Err(Kept::InventoryFailed); inventory.items.len()];
    }
    let mut verdicts: Vec<Verdict> = inventory.items.iter().map(|item| alone(item, policy)).collect();
    number(inventory, Kind::Template, policy.templates.max, &mut verdicts);
    number(inventory, Kind::JournalBackup, policy.journal_backups.max, &mut verdicts);
    room(inventory, policy.transcripts.max_mib, &mut verdicts);
    verdicts
}

/// The verdict over an item, whatever else there is.
fn alone(item: &Item, policy: &Retention) -> Verdict {
    match item.mark {
        Mark::Ours => {}
        Mark::Missing => return Err(Kept::NotOurs),
        Mark::Link => return Err(Kept::Link),
    }
    if matches!(item.kind, Kind::Airlock | Kind::Patches | Kind::Journal | Kind::Other) {
        return Err(Kept::Always);
    }
    if item.live {
        return Err(Kept::Live);
    }
    if item.unexported {
        return Err(Kept::Unexported);
    }
    // Half of it may be gone already: nobody can use what is left, whatever became of its issue.
    if item.doomed {
        return Ok(Due::Begun);
    }
    let Bounds { days, .. } = match item.kind {
        Kind::Workspace => finished(item, policy.workspaces_days)?,
        Kind::WorkDisk | Kind::PutAside => finished(item, policy.work_disks_days)?,
        Kind::Template => policy.templates,
        Kind::JournalBackup => policy.journal_backups,
        Kind::Run => Bounds { max: 0, days: policy.transcripts.days },
        Kind::Airlock | Kind::Patches | Kind::Journal | Kind::Other => return Err(Kept::Always),
    };
    let idle = item.idle_ms.ok_or(Kept::AgeUnknown)?;
    if days == 0 {
        return Err(Kept::Unbounded);
    }
    if idle < days.saturating_mul(DAY_MS) {
        return Err(Kept::NotYet { days });
    }
    Ok(match item.kind {
        Kind::Workspace | Kind::WorkDisk | Kind::PutAside => Due::Finished { days },
        _ => Due::TooOld { days },
    })
}

/// The bound on what belongs to an issue, if that issue is certainly finished.
fn finished(item: &Item, days: u64) -> Result<Bounds, Kept> {
    match item.owner {
        Owner::Issue(Role::Terminal) => Ok(Bounds { max: 0, days }),
        Owner::Issue(Role::Active) => Err(Kept::IssueActive),
        Owner::Issue(Role::Holding) => Err(Kept::IssueHeld),
        Owner::Unknown | Owner::Nobody => Err(Kept::IssueUnknown),
    }
}

/// Items of ours of this kind, the ones used last first, with what a bound on all of them may take.
fn latest_first(inventory: &Inventory, kind: Kind) -> Vec<(usize, &Item)> {
    let is_one = |(_, item): &(usize, &Item)| item.kind == kind && item.mark == Mark::Ours && !item.doomed;
    let mut found: Vec<(usize, &Item)> = inventory.items.iter().enumerate().filter(is_one).collect();
    found.sort_by(|(_, a), (_, b)| a.idle_ms.cmp(&b.idle_ms).then_with(|| a.place.cmp(&b.place)));
    found
}

/// Whether a bound on a whole kind may take what stays for this reason.
fn yields(verdict: Verdict) -> bool {
    matches!(verdict, Err(Kept::NotYet { .. } | Kept::Unbounded))
}

/// Beyond `max` of a kind, those go that were not used for longest.
fn number(inventory: &Inventory, kind: Kind, max: u64, verdicts: &mut [Verdict]) {
    let mut stay: u64 = 0;
    for (at, _) in latest_first(inventory, kind) {
        let Some(verdict) = verdicts.get_mut(at).filter(|verdict| verdict.is_err()) else { continue };
        if max > 0 && stay >= max && yields(*verdict) {
            *verdict = Ok(Due::TooMany { max });
        } else {
            stay = stay.saturating_add(1);
        }
    }
}

/// Beyond so many MiB of runs, the oldest go. What was not measured counts as nothing.
fn room(inventory: &Inventory, max_mib: u64, verdicts: &mut [Verdict]) {
    let (most, mut taken) = (max_mib.saturating_mul(MIB), 0_u64);
    for (at, item) in latest_first(inventory, Kind::Run) {
        let Some(verdict) = verdicts.get_mut(at).filter(|verdict| verdict.is_err()) else { continue };
        taken = taken.saturating_add(item.bytes.unwrap_or(0));
        if max_mib > 0 && taken > most && yields(*verdict) {
            *verdict = Ok(Due::TooMuch { max_mib });
        }
    }
}
