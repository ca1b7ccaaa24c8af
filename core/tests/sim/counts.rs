//! What a step may do to the counters of an issue: nothing, but for the few events that count or grant.

use symphony_core::board::{Board, Claim, Command, Event, RunEnd};
use symphony_core::budget::Counters;
use symphony_core::ids::IssueId;
use symphony_core::workflow::Role;

use crate::world::{NAMES, World};

impl World {
    pub(crate) fn check_counts(&self, before: &Board, event: &Event, commands: &[Command]) {
        for id in NAMES.map(|name| IssueId(name.to_owned())) {
            let (was, mut is) = (before.counters(&id), self.board.counters(&id));
            let started = |command: &&Command| matches!(command, Command::Start(plan) if plan.issue.id == id);
            let starts = u32::try_from(commands.iter().filter(started).count()).expect("few");
            is.used.sessions -= starts;
            let granted = granted(&was);
            let fine = match event {
                Event::PollEnded(Ok(_)) => match self.seen.get(&id).map(|state| self.policy.states.role(state)) {
                    // Where nobody works, whoever comes back begins anew; a file that is not there says nothing.
                    Some(Role::Holding | Role::Terminal) => is == was || is == granted,
                    Some(Role::Active) | None => is == was,
                },
                Event::TurnBegan(run, _) | Event::Asking(run, _) | Event::Held(run, _)
                    if before.issue_of(*run) == Some(&id) =>
                {
                    let used = is.used;
                    is.used = was.used;
                    let grew = used.turns >= was.used.turns && used.wall_ms >= was.used.wall_ms;
                    is == was && grew && (used.sessions, used.bounces) == (was.used.sessions, was.used.bounces)
                }
                Event::ParkEnded(of, result) if *of == id => {
                    // A claim is released when its file is gone; then the move means nothing any more.
                    let claimed =
                        before.claims().any(|(claimed, claim)| *claimed == id && matches!(claim, Claim::Parked { .. }));
                    is == *if result.is_ok() && claimed { &granted } else { &was }
                }
                Event::ResumeEnded(of, _) if *of == id => is == was || is == granted,
                Event::RunEnded(run, end, _) if before.issue_of(*run) == Some(&id) => {
                    self.counts_the_end(before, &id, end)
                }
                _ => is == was,
            };
            assert!(fine, "the counters of {id} were {was:?} and are {is:?}");
        }
    }

    /// Whether a run that ended this way is counted as such.
    fn counts_the_end(&self, before: &Board, id: &IssueId, end: &RunEnd) -> bool {
        let (was, is) = (before.counters(id), self.board.counters(id));
        let stopped = before.claims().any(|(claimed, claim)| claimed == id && matches!(claim, Claim::Stopping { .. }));
        let active = self.board.issue(id).is_some_and(|issue| self.policy.states.role(&issue.state) == Role::Active);
        let failures = match end {
            // Taken out of work meanwhile, it begins anew; in another tracker nobody knows.
            RunEnd::Failed(_) if !stopped && (active || is.failures_in_a_row > 0) => was.failures_in_a_row + 1,
            RunEnd::TurnsUsed if !stopped => 0,
            RunEnd::Moved(_) | RunEnd::Done => 0,
            _ if is.failures_in_a_row == 0 => 0,
            _ => was.failures_in_a_row,
        };
        let bounces = is.used.bounces - was.used.bounces;
        let named = is.last.as_ref().is_some_and(|last| !last.end.is_empty());
        is.failures_in_a_row == failures
            && (bounces == 0 || (bounces == 1 && matches!(end, RunEnd::Moved(_))))
            && is.used.sessions == was.used.sessions
            && is.used.turns == was.used.turns
            && named
    }
}

/// The counters after a person decided.
fn granted(was: &Counters) -> Counters {
    Counters {
        granted: was.used,
        failures_in_a_row: 0,
        unchanged_in_a_row: 0,
        visited: Default::default(),
        ..was.clone()
    }
}
