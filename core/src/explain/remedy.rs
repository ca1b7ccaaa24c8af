//! What a person can do about a reason.

use crate::board::{Closed, NotNow, ParkReason, Parked, Whose};
use crate::ids::Identifier;
use crate::snapshot::{IdleRow, Snapshot};
use crate::spend::{Met, Unit};
use crate::workflow::Role;

/// What to do next about an issue that does not run, as a sentence; `None` when waiting is all there is to do.
pub fn remedy_of(row: &IdleRow, snapshot: &Snapshot) -> Option<String> {
    let active = snapshot.states.iter().find(|state| state.role == Role::Active);
    match active.filter(|_| row.is_proposal()) {
        Some(active) => Some(format!(
            "Read it, then approve or discard it on the dashboard; moving its file to `{}/` approves it too.",
            active.name
        )),
        None => remedy(row.why.as_ref(), &row.identifier, snapshot),
    }
}

/// What to do about a question: the command, as one types it into a shell.
pub(super) fn answer(identifier: &Identifier) -> String {
    format!("Answer its question on the dashboard, or with `symphony answer {} \"…\"`.", typed(identifier))
}

/// As one types it into a shell.
fn typed(identifier: &Identifier) -> String {
    let name = &identifier.0;
    let plain = name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)) && !name.starts_with('-');
    if plain { name.clone() } else { format!("'{}'", name.replace('\'', r"'\''")) }
}

/// What raises this cap for an issue that waits for it.
pub(super) fn raise(identifier: &Identifier, met: &Met) -> String {
    let flag = match met.unit {
        Unit::Tokens => "--tokens NUMBER",
        Unit::Money => "--usd AMOUNT",
    };
    format!("symphony raise {} {flag}", typed(identifier))
}

/// What to do about a workflow file that is not in force.
pub(super) fn of_workflow() -> Option<String> {
    Some("Fix the workflow file; it is taken up as soon as it is saved.".to_owned())
}

/// What to do next about this issue, as a sentence; `None` when waiting is all there is to do.
pub fn remedy(why: Option<&NotNow>, identifier: &Identifier, snapshot: &Snapshot) -> Option<String> {
    Some(match why? {
        NotNow::Holding => {
            let active = snapshot.states.iter().find(|row| row.role == Role::Active)?;
            format!("Move its file to `{}/` to have it worked on.", active.name)
        }
        NotNow::OnHold => "Remove `hold: true` from its front matter.".to_owned(),
        NotNow::DoubtfulKey(_) => "Correct that key in its front matter, or remove it.".to_owned(),
        NotNow::MissingLabel(label) if label.trim().is_empty() => {
            "Remove the blank entry from `tracker.required_labels`: no issue can have that label.".to_owned()
        }
        NotNow::AwaitingAnswer => answer(identifier),
        NotNow::MissingLabel(label) => format!("Add `{label}` to `labels` in its front matter."),
        NotNow::UnknownProfile { .. } => {
            "Correct `profile` in its front matter, or list it below `sandbox.profiles`.".to_owned()
        }
        NotNow::ProfileRefused { whose: Whose::Default(_), .. } => {
            "Change the workflow's `sandbox.profile`, or set `sandbox.runtime` to a microVM that works here.".to_owned()
        }
        NotNow::ProfileRefused { .. } => {
            "Choose a profile without an image and packages, or set `sandbox.runtime` to a microVM that works here."
                .to_owned()
        }
        NotNow::ImageMissing { hint, .. } => {
            let (first, rest) = hint.split_at(hint.chars().next().map_or(0, char::len_utf8));
            format!("{}{rest}. It starts by itself then.", first.to_uppercase())
        }
        NotNow::NoCredit { .. } => "It starts by itself once the account has credit, or the key is another one.".to_owned(),
        NotNow::ModelBarred(barred) => {
            let (first, rest) = barred.hint.split_at(barred.hint.chars().next().map_or(0, char::len_utf8));
            format!("{}{rest}, in the workflow file. It starts by itself then.", first.to_uppercase())
        }
        NotNow::NoCredential { .. } => "It starts by itself once there is one that works.".to_owned(),
        NotNow::ImageUnclear { .. } => {
            "Mend what stands in the way of the look; it is looked at again by itself.".to_owned()
        }
        NotNow::BlockedBy(blocker, _) => format!("Finish {blocker} first, or remove it from `blocked_by`."),
        NotNow::UnknownBlocker(blocker) => format!("Add an issue {blocker}, or correct `blocked_by`."),
        NotNow::BlockerCycle(_) => "Remove one of them from the `blocked_by` of the one before it.".to_owned(),
        NotNow::NoGlobalSlot(_) => "Wait for a run to end, or raise `agent.max_concurrent_agents`.".to_owned(),
        NotNow::NoStateSlot(state, _) => {
            format!("Wait for a run to end, or raise the limit of runs in `{state}`.")
        }
        NotNow::NoMemory { .. } => {
            "Wait for a run to end, free memory, or lower `sandbox.reserve_mib`.".to_owned()
        }
        NotNow::Parked(Parked { reason: ParkReason::Spend(met), from }, None) => {
            met.remedy(&ParkReason::back(from), &raise(identifier, met))
        }
        NotNow::Parked(parked, None) => parked.reason.remedy(&parked.from),
        NotNow::Parked(parked, Some(_)) => format!(
            "Move its file out of `{from}/` yourself; moved back to `{from}/` later, it is tried again.",
            from = parked.from
        ),
        NotNow::Spend(met) => met.remedy_of_all(&raise(identifier, met)),
        NotNow::Closed(Closed::WorkflowBroken) => return of_workflow(),
        NotNow::Unseen => "Put its file back, or save it whole.".to_owned(),
        NotNow::Draining => "Start symphony again.".to_owned(),
        NotNow::Terminal
        // Its sentence says what to do.
        | NotNow::BlockerCancelled(..)
        | NotNow::Closed(Closed::NoSandbox(_) | Closed::TryingSandbox(_) | Closed::Journal(_) | Closed::NoSource(_))
        | NotNow::BackingOff(_)
        | NotNow::ProviderPaused { .. }
        | NotNow::NoBudgetRoom
        | NotNow::WillPark(_)
        | NotNow::Running
        | NotNow::Resuming
        | NotNow::Cleaning
        | NotNow::Unconfirmed => return None,
    })
}
