//! What only a person brings forward: the one list behind the page's header, the API's count and `symphony explain`.

use super::{AskedRow, HostCard, IdleRow, RetryRow, RunningRow, Snapshot};
use crate::board::{Closed, NotNow};
use crate::ids::IssueId;
use crate::issue::{Ambiguity, Malformed};
use crate::spend::Scope;

/// One thing that a person has to do.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// To mend the workflow file: this is wrong with it.
    Workflow(&'a str),
    /// To make the issues readable: this is in the way.
    Tracker(&'a str),
    /// To mend what keeps everything from starting.
    Closed(&'a NotNow),
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
        let lasts = match why {
            NotNow::Closed(Closed::NoSandbox(_) | Closed::NoSource(_) | Closed::Journal(_)) => true,
            NotNow::Spend(met) => met.scope == Scope::Workflow,
            _ => false,
        };
        if lasts && found.iter().all(|other| other.code() != why.code()) {
            found.push(why);
        }
    }
    found
}
