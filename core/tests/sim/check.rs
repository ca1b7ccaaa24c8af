//! What must hold at every step and at the end, whatever the world did (DESIGN §4, as far as it concerns the board).

use std::collections::BTreeSet;

use symphony_core::board::{Board, Claim, Command, Event, NotNow, StopCause, Whose};
use symphony_core::ids::{IssueId, RunId, StateName};
use symphony_core::time::Tick;
use symphony_core::workflow::Role;

use crate::model;
use crate::world::World;

impl World {
    /// Before the commands of a step are carried out.
    pub(crate) fn check_step(&self, before: &Board, event: &Event, commands: &[Command]) {
        self.check_counts(before, event, commands);
        let started: Vec<IssueId> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Start(plan) => Some(plan.issue.id.clone()),
                _ => None,
            })
            .collect();
        let good_look = matches!(event, Event::PollEnded(Ok(_)));
        if !good_look {
            let about_disk = |command: &&Command| match command {
                Command::Start(_) | Command::Resume { .. } => true,
                Command::Stop(_, cause) => !matches!(
                    cause,
                    StopCause::WallTime
                        | StopCause::Spend
                        | StopCause::Released
                        | StopCause::Drain
                        | StopCause::ProviderPaused(_)
                        | StopCause::ProviderLogin(_)
                        | StopCause::BudgetBusy
                ),
                _ => false,
            };
            assert_eq!(commands.iter().find(about_disk), None, "nothing but a good look decides that");
        }
        if matches!(event, Event::PollEnded(Err(_))) {
            let quiet = |command: &&Command| {
                !matches!(
                    command,
                    Command::Poll
                        | Command::AnswerByDefault(_)
                        | Command::Stop(_, StopCause::WallTime | StopCause::Released)
                )
            };
            assert_eq!(commands.iter().find(quiet), None, "an error is not an empty look");
        }
        if good_look {
            let booting = self.live.values().filter(|live| live.turns == 0).count() as u64;
            let now = Tick(self.now);
            let expected = model::expected(before, &self.board, &started, booting, now, &self.policy, self.draining);
            let parked = commands.iter().filter_map(|command| match command {
                Command::Park { issue, .. } => Some(issue.clone()),
                _ => None,
            });
            let did = model::Expected { parked: parked.collect(), started: started.clone() };
            let claims = |board: &Board| format!("{:?}", board.claims().collect::<Vec<_>>());
            assert_eq!(
                did,
                expected,
                "the dumber model decides otherwise; claims were {} and are {}; {:?}",
                claims(before),
                claims(&self.board),
                self.policy
            );
            commands.iter().for_each(|command| self.check_seen(command));
            for issue in self.board.issues() {
                assert!(
                    self.board.verdict(issue, now, &self.policy).is_err(),
                    "{} may run and was not started",
                    issue.id
                );
            }
        }
        if !started.is_empty() {
            let slots = self.policy.max_concurrent as usize;
            assert!(
                self.live.len() + started.len() <= slots,
                "more runs than the {slots} slots, stopping ones included"
            );
        }
        let looks = commands.iter().filter(|command| **command == Command::Poll).count();
        assert!(looks + self.looking() <= 1, "two looks at once");
        for command in commands {
            self.check_command(command);
            self.check_asked(event, command);
            if let Command::Start(plan) = command {
                let due = before.due_of(&plan.issue.id);
                assert!(due.is_none_or(|due| due.until.0 <= self.now), "{} starts before it is due", plan.issue.id);
            }
        }
        if let Event::Answered(id) = event {
            assert_ne!(self.verdict_of(id), Some(NotNow::AwaitingAnswer));
            assert!(self.board.is_looking() || self.draining, "an answer of {id} brings nothing forward");
        }
    }

    fn check_command(&self, command: &Command) {
        match command {
            Command::Start(plan) => {
                let id = &plan.issue.id;
                assert!(!self.draining, "nothing starts in a shutdown");
                assert!(!self.live.values().any(|live| live.issue == *id), "{id} runs twice");
                assert!(plan.allowance.turns > 0 && plan.allowance.wall_ms > 0, "a run that may do nothing");
                let used = self.board.counters(id).since_grant();
                assert!(used.sessions <= self.policy.budget.sessions, "beyond the budget of runs");
                assert_eq!(Some(&plan.issue.state), self.seen.get(id), "{id} starts as the look saw it");
                assert_eq!(self.verdict_of(id), Some(NotNow::Running));
            }
            Command::Stop(run, cause) => {
                let live = self.live.get(run).unwrap_or_else(|| panic!("run {run} is not alive"));
                if *cause == StopCause::Released {
                    let since = live.asking.expect("only who waits is released");
                    assert!(since + self.policy.release_after_ms <= self.now, "run {run} is released too early");
                }
                assert_eq!(live.asked_to_stop, None, "asked to stop twice");
            }
            Command::RemoveWorkspace(issue) => {
                assert!(!self.live.values().any(|live| live.issue == issue.id), "its run still lives");
            }
            Command::Park { issue, from, reason } => {
                assert_eq!(self.policy.states.role(from), Role::Active, "{issue} is taken from where a person put it");
                assert!(!self.live.values().any(|live| live.issue == *issue), "parked under its run");
                assert!(!reason.to_string().is_empty() && !reason.remedy(&StateName::new("Todo")).is_empty());
            }
            Command::Resume { from, to, .. } => {
                assert_eq!((from, self.policy.states.role(to)), (&self.policy.states.parking(), Role::Active));
            }
            Command::Withdraw(_) | Command::AnswerByDefault(_) => {}
            Command::Poll => assert!(!self.draining),
        }
    }

    /// What a good look takes away for good, it saw at rest itself; where a file stood once says nothing.
    fn check_seen(&self, command: &Command) {
        let rests = |id: &IssueId, roles: &[Role]| {
            self.seen.get(id).is_some_and(|state| roles.contains(&self.policy.states.role(state)))
        };
        match command {
            Command::RemoveWorkspace(issue) => {
                assert!(rests(&issue.id, &[Role::Terminal]), "the workspace of {} goes unseen", issue.id);
            }
            // Or its file was missing for so long that the board gave it up.
            Command::Withdraw(id) => {
                let given_up = self.board.issue(id).is_none();
                assert!(given_up || rests(id, &[Role::Holding, Role::Terminal]), "the question of {id} goes unseen");
            }
            _ => {}
        }
    }

    fn verdict_of(&self, id: &IssueId) -> Option<NotNow> {
        let issue = self.board.issue(id)?;
        self.board.verdict(issue, Tick(self.now), &self.policy).err()
    }

    /// After the commands were carried out.
    pub(crate) fn check_state(&self) {
        if let Some(at) = self.board.wake_at(&self.policy) {
            assert!(at.0 > self.now, "the board wants to be woken at {} and it is {}", at.0, self.now);
        }
        self.check_questions();
        let claimed: BTreeSet<RunId> = self.board.claims().filter_map(|(_, claim)| claim.run()).collect();
        let alive: BTreeSet<RunId> = self.live.keys().copied().collect();
        assert_eq!(claimed, alive, "claims and live runs are the same");
        for (run, live) in &self.live {
            assert_eq!(self.board.issue_of(*run), Some(&live.issue));
            // A run may ignore its orders; it was asked to end when its time was over.
            let counters = self.board.counters(&live.issue);
            assert!(counters.used.sessions > 0);
        }
        for (id, claim) in self.board.claims() {
            if let Claim::Parked { parked, .. } = claim {
                assert!(!parked.from.as_str().is_empty(), "{id} could not go back");
            }
        }
        for (id, tally) in &self.tally {
            let used = self.board.counters(id).used;
            assert_eq!((used.sessions, used.turns), (tally.sessions, tally.turns), "counts of {id}");
            // The time of a live run is counted when something happens to it.
            let exact = !self.live.values().any(|live| live.issue == *id);
            assert!(
                if exact { used.wall_ms == tally.wall_ms } else { used.wall_ms <= tally.wall_ms },
                "wall time of {id}: {} ms, not {} ms",
                used.wall_ms,
                tally.wall_ms
            );
        }
    }

    /// Whether nothing will move any more by itself, but for looks that find nothing new.
    pub(crate) fn at_rest(&self) -> bool {
        self.live.is_empty()
            && !self.answers_come()
            && !self.board.is_looking()
            && self.looks > self.calm_from + 3
            && self.board.claims().all(|(_, claim)| matches!(claim, Claim::Parked { moved: Some(Err(_)), .. }))
            // A file that was not found once is looked for again.
            && self.board.issues().all(|issue| {
                self.board.verdict(issue, Tick(self.now), &self.policy).is_err_and(|why| why != NotNow::Unseen)
            })
    }

    /// Everything that could be done was done: nobody starved, no claim leaked, and whoever waits says why.
    pub(crate) fn check_rest(&self) {
        assert!(self.live.is_empty(), "a run is left: {:?}", self.live);
        for (id, claim) in self.board.claims() {
            let kept = matches!(claim, Claim::Parked { moved: Some(Err(_)), .. });
            assert!(kept, "the claim of {id} was never released: {claim:?}");
        }
        for issue in self.board.issues() {
            let why = self.board.verdict(issue, Tick(self.now), &self.policy).expect_err("at rest");
            let role = self.policy.states.role(&issue.state);
            let fine = match &why {
                NotNow::Terminal => role == Role::Terminal,
                NotNow::Holding => role == Role::Holding,
                NotNow::Parked(..) => true,
                NotNow::AwaitingAnswer => self.questions.contains_key(&issue.id),
                NotNow::OnHold => !issue.dispatchable,
                NotNow::UnknownProfile { profile, .. } => issue.profile.as_deref() == Some("gone") && profile == "gone",
                NotNow::ProfileRefused { whose, .. } | NotNow::ImageUnclear { whose, .. } => {
                    issue.profile.as_deref() == Some("image") && *whose == Whose::Own("image".to_owned())
                }
                NotNow::ImageMissing { whose: Whose::Nobody, .. } => issue.profile.is_none(),
                NotNow::ImageMissing { whose, .. } => {
                    issue.profile.as_deref() == Some("image") && *whose == Whose::Own("image".to_owned())
                }
                NotNow::ProviderPaused { provider, .. }
                | NotNow::NoCredit { provider, .. }
                | NotNow::NoCredential { provider, .. } => self.policy.models.closed.contains_key(provider),
                NotNow::MissingLabel(label) => !issue.labels.contains(label),
                NotNow::BlockedBy(..)
                | NotNow::UnknownBlocker(_)
                | NotNow::BlockerCancelled(..)
                | NotNow::BlockerCycle(_) => !issue.blocked_by.is_empty(),
                _ => false,
            };
            assert!(fine, "{} starves: {why:?}", issue.id);
        }
    }
}
