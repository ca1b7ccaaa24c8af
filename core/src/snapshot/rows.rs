//! The rows of issues that do not run, straight from the board: what they say is the verdict the dispatcher asks for.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{IdleRow, RetryRow, Spent};
use crate::board::{Board, Claim, Policy, retry};
use crate::ids::IssueId;
use crate::issue::{Issue, dispatch_order};
use crate::time::Tick;

/// Every known issue without a live run, in dispatch order: those that wait for a time, and all others.
/// `at` is the wall clock of `now`.
pub fn waiting_rows(board: &Board, now: Tick, at: Timestamp, policy: &Policy) -> (Vec<RetryRow>, Vec<IdleRow>) {
    let mut known: Vec<&Issue> = board.issues().collect();
    known.sort_by(|a, b| dispatch_order(a, b));
    let claims: BTreeMap<&IssueId, &Claim> = board.claims().collect();
    let (mut retrying, mut idle) = (vec![], vec![]);
    for issue in known {
        let counters = board.counters(&issue.id);
        let (why, spent) = (board.verdict(issue, now, policy).err(), Spent::of(&counters));
        match claims.get(&issue.id) {
            Some(claim) if claim.run().is_some() => {}
            Some(Claim::Waiting { until, error, kind }) => retrying.push(RetryRow {
                id: issue.id.clone(),
                identifier: issue.identifier.clone(),
                title: issue.title.clone(),
                url: issue.url.clone(),
                state: issue.state.clone(),
                attempt: retry::attempt(&counters, *kind).unwrap_or(1),
                due_at: later(at, until.since(now)),
                error: error.clone(),
                why,
                last: counters.last,
                spent,
            }),
            Some(_) | None => idle.push(with_proposal(
                issue,
                IdleRow {
                    id: issue.id.clone(),
                    identifier: issue.identifier.clone(),
                    title: issue.title.clone(),
                    state: issue.state.clone(),
                    role: policy.states.role(&issue.state),
                    why,
                    last: counters.last,
                    spent,
                    proposed_by: issue.proposed_by.clone(),
                    proposal: None,
                    labels: issue.labels.clone(),
                },
            )),
        }
    }
    (retrying, idle)
}

/// A person has to read what is proposed; of everything else the page needs no text.
fn with_proposal(issue: &Issue, mut row: IdleRow) -> IdleRow {
    if row.is_proposal() {
        row.proposal = Some(issue.description.clone().unwrap_or_default());
    }
    row
}

fn later(from: Timestamp, ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    from.checked_add(SignedDuration::from_millis(ms)).unwrap_or(from)
}
