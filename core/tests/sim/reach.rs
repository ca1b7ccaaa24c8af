//! What the worlds led to: a simulation in which nothing parks proves nothing about parking.

use std::collections::BTreeSet;

use symphony_core::board::{Command, Event, RetryKind, StopCause};
use symphony_core::time::Tick;

use crate::world::World;

/// Kinds of things that happened.
pub(crate) type Reached = BTreeSet<(&'static str, &'static str)>;

/// What thousands of worlds must have led to.
pub(crate) const WANTED: &[(&str, &[&str])] = &[
    ("start", &["first", "continuation", "failure"]),
    ("stop", &["terminal", "holding", "unroutable", "missing", "wall time", "spend", "released", "drain"]),
    (
        "park",
        &[
            "failures-in-a-row",
            "budget-sessions",
            "budget-turns",
            "budget-wall",
            "budget-bounces",
            "budget-tokens",
            "budget-day-tokens",
            "budget-workflow-tokens",
            "no-progress",
            "template-error",
            "blocker-cancelled",
            "diverged",
            "handoff-failed",
        ],
    ),
    ("move", &["back", "park failed", "back failed", "workspace gone"]),
    ("question", &["asked anew", "answered", "withdrawn", "by default", "kept by a restart", "open under a failure"]),
    ("retry", &["kept by a restart"]),
    ("after", &["awaiting-answer", "cut-off", "provider-paused", "provider-login", "budget-busy"]),
    ("look", &["good", "failed", "torn"]),
    (
        "why",
        &[
            "holding",
            "terminal",
            "on-hold",
            "missing-label",
            "unknown-profile",
            "profile-refused",
            "awaiting-answer",
            "provider-paused",
            "no-budget-room",
            "no-credential",
            "image-missing",
            "image-unclear",
            "blocked",
            "unknown-blocker",
            "blocker-cancelled",
            "blocker-cycle",
            "no-slot",
            "no-state-slot",
            "no-memory",
            "backing-off",
            "parked",
            "will-park",
            "running",
            "resuming",
            "cleaning",
            "unconfirmed",
            "unseen",
            "workflow-broken",
            "spend",
            "draining",
        ],
    ),
];

impl World {
    pub(crate) fn reach(&mut self, event: &Event, commands: &[Command]) {
        match event {
            Event::PollEnded(Ok(scan)) if !scan.malformed.is_empty() => drop(self.reached.insert(("look", "torn"))),
            Event::PollEnded(Ok(_)) => drop(self.reached.insert(("look", "good"))),
            Event::PollEnded(Err(_)) => drop(self.reached.insert(("look", "failed"))),
            Event::ParkEnded(_, Err(_)) => drop(self.reached.insert(("move", "park failed"))),
            Event::ResumeEnded(_, Err(_)) => drop(self.reached.insert(("move", "back failed"))),
            Event::WorkspaceRemoved(_) => drop(self.reached.insert(("move", "workspace gone"))),
            Event::Answered(_) => drop(self.reached.insert(("question", "answered"))),
            _ => {}
        }
        for command in commands {
            if let Command::Start(plan) = command
                && let Some(last) = &plan.last
            {
                self.reached.insert(("after", last.reason.as_str()));
            }
            self.reached.insert(match command {
                Command::Start(plan) => match plan.kind {
                    RetryKind::First => ("start", "first"),
                    RetryKind::Continuation => ("start", "continuation"),
                    RetryKind::Failure => ("start", "failure"),
                },
                Command::Stop(_, cause) => match cause {
                    StopCause::Terminal => ("stop", "terminal"),
                    StopCause::NotActive => ("stop", "holding"),
                    StopCause::NotRoutable => ("stop", "unroutable"),
                    StopCause::Missing => ("stop", "missing"),
                    StopCause::WallTime => ("stop", "wall time"),
                    StopCause::Spend => ("stop", "spend"),
                    StopCause::Released => ("stop", "released"),
                    StopCause::Drain => ("stop", "drain"),
                    StopCause::ProviderPaused(_) | StopCause::ProviderLogin(_) | StopCause::BudgetBusy => {
                        unreachable!("a run says so itself")
                    }
                },
                Command::Park { reason, .. } => ("park", reason.code()),
                Command::Resume { .. } => ("move", "back"),
                Command::Withdraw(_) => ("question", "withdrawn"),
                Command::AnswerByDefault(_) => ("question", "by default"),
                Command::Poll | Command::RemoveWorkspace(_) => continue,
            });
        }
        let (now, policy) = (Tick(self.now), &self.policy);
        let why = self.board.issues().filter_map(|issue| self.board.verdict(issue, now, policy).err());
        self.reached.extend(why.map(|why| ("why", why.code())));
    }
}

/// What is wanted and was not reached.
pub(crate) fn missing(reached: &Reached) -> Vec<(&'static str, &'static str)> {
    let wanted = WANTED.iter().flat_map(|(kind, names)| names.iter().map(|name| (*kind, *name)));
    wanted.filter(|wanted| !reached.contains(wanted)).collect()
}
