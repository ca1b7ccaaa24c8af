//! What only a person brings forward: the one list behind the page's header, the API's count and `symphony explain`.

use super::{AskedRow, HostCard, IdleRow, RetryRow, RunningRow, Snapshot};
use crate::board::{Closed, LastRun, NotNow};
use crate::ids::{Identifier, IssueId, StateName};
use crate::issue::{Ambiguity, Malformed};
use crate::workflow::Role;

/// One thing that a person has to do.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// To mend the workflow file: this is wrong with it.
    Workflow(&'a str),
    /// To make the issues readable: this is in the way.
    Tracker(&'a str),
    /// To mend what keeps everything from starting.
    Closed(&'a NotNow),
    /// To raise a cap of all issues that is met, or to wait for the next day; the first issue that waits for it.
    Cap(Capped<'a>),
    /// To answer a run's question.
    Running(&'a RunningRow),
    /// To answer a question that no run waits with.
    Asked(&'a AskedRow),
    /// To decide about a host.
    Host(&'a HostCard),
    /// To mend a file.
    Malformed(&'a Malformed),
    /// To rename files.
    Ambiguous(&'a Ambiguity),
    /// To decide about an issue, or to mend what it waits for.
    Idle(&'a IdleRow),
    /// To mend what keeps the next run of an issue from starting.
    Retrying(&'a RetryRow),
}

/// Everything that only a person brings forward, each once.
pub fn needs(snapshot: &Snapshot) -> Vec<Need<'_>> {
    let mut needs: Vec<Need<'_>> = snapshot.workflow_problems.iter().map(|problem| Need::Workflow(problem)).collect();
    needs.extend(snapshot.tracker_problem.as_deref().map(Need::Tracker));
    needs.extend(closed(snapshot).into_iter().map(Need::Closed));
    needs.extend(cap_in_the_way(snapshot).map(Need::Cap));
    needs.extend(snapshot.running.iter().filter(|row| row.asks()).map(Need::Running));
    let decided_otherwise = |id: &IssueId| snapshot.idle.iter().any(|row| row.id == *id && row.needs_human());
    needs.extend(snapshot.asked.iter().filter(|row| !decided_otherwise(&row.id)).map(Need::Asked));
    needs.extend(snapshot.hosts_asked.iter().map(Need::Host));
    needs.extend(snapshot.malformed.iter().map(Need::Malformed));
    needs.extend(snapshot.ambiguous.iter().map(Need::Ambiguous));
    needs.extend(snapshot.idle.iter().filter(|row| row.needs_human()).map(Need::Idle));
    needs.extend(snapshot.retrying.iter().filter(|row| row.needs_human()).map(Need::Retrying));
    needs
}

/// What is in the way of every issue is one thing to mend, however many wait for it.
fn closed(snapshot: &Snapshot) -> Vec<&NotNow> {
    let idle = snapshot.idle.iter().filter_map(|row| row.why.as_ref());
    let mut found: Vec<&NotNow> = vec![];
    for why in idle.chain(snapshot.retrying.iter().filter_map(|row| row.why.as_ref())) {
        let lasts = matches!(why, NotNow::Closed(Closed::NoSandbox(_) | Closed::NoSource(_) | Closed::Journal(_)));
        if lasts && found.iter().all(|other| other.code() != why.code()) {
            found.push(why);
        }
    }
    found
}

/// A cap of all issues that is in the way, of which a person may raise it by the name of this issue that waits for it; also
/// one of a day, for which it could wait until tomorrow. `None` where an issue that was put aside for it asks already.
pub fn cap_in_the_way(snapshot: &Snapshot) -> Option<Capped<'_>> {
    let idle = snapshot.idle.iter().map(Capped::idle);
    let all: Vec<_> = idle.chain(snapshot.retrying.iter().map(Capped::retrying)).collect();
    let waiting = all.iter().find(|row| matches!(row.why, Some(NotNow::Spend(_))))?;
    let key = waiting.why?.cap()?.key();
    let asks = |row: &IdleRow| {
        let cap = row.why.as_ref().and_then(NotNow::cap);
        row.is_parked() && row.role == Role::Holding && cap.is_some_and(|met| met.key() == key)
    };
    (!snapshot.idle.iter().any(asks)).then_some(*waiting)
}

/// An issue that waits for a cap of all issues.
#[derive(Clone, Copy, Debug)]
pub struct Capped<'a> {
    /// Its id.
    pub id: &'a IssueId,
    /// What it is called.
    pub identifier: &'a Identifier,
    /// Where it stands.
    pub state: &'a StateName,
    /// For people.
    pub title: &'a str,
    /// Why it does not run.
    pub why: Option<&'a NotNow>,
    /// How its last run ended.
    pub last: Option<&'a LastRun>,
}

impl<'a> Capped<'a> {
    fn idle(row: &'a IdleRow) -> Self {
        let IdleRow { id, identifier, title, state, why, last, .. } = row;
        Self { id, identifier, state, title, why: why.as_ref(), last: last.as_ref() }
    }

    fn retrying(row: &'a RetryRow) -> Self {
        let RetryRow { id, identifier, title, state, why, last, .. } = row;
        Self { id, identifier, state, title, why: why.as_ref(), last: last.as_ref() }
    }
}
