//! A hostile world around one board: looks that fail, dawdle and see half, runs that end late, twice or never,
//! operators who move, edit and delete files, reloads, drains, restarts, jumps of the clock, scarce memory.
//!
//! Knows what is true (the files, the runs that live) and holds the board to it after every step.

use std::collections::{BTreeMap, VecDeque};

use symphony_core::board::{
    Board, Command, Event, FailureCode, Left, ParkReason, Parked, Past, Plan, Policy, RunEnd, RunFailure, StopCause,
};
use symphony_core::broker::Provider;
use symphony_core::ids::{IssueId, RunId, StateName};
use symphony_core::issue::{Issue, Malformed, Scan};
use symphony_core::spend::Scope;
use symphony_core::time::Tick;
use symphony_core::workflow::Role;

use crate::asks::{Journal, Question};
use crate::choices::Choices;
use crate::lines::{brief, short};
use crate::reach::Reached;
use crate::rules::{met, policy};

pub(crate) const NAMES: [&str; 7] = ["A", "B", "C", "D", "E", "F", "G"];
pub(crate) const STATES: [&str; 7] = ["Todo", "Review", "Backlog", "Parked", "Triage", "Done", "Cancelled"];
/// Events of a world before everybody becomes well-behaved.
const HOSTILE: usize = 160;

/// What happens later, by itself.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    LookEnds(Result<Scan, String>),
    LookSees {
        dawdles: u64,
    },
    Run(RunId, Act),
    Move {
        issue: IssueId,
        from: StateName,
        to: StateName,
        then: Then,
    },
    MoveEnded(IssueId, Result<(), String>, Then),
    WorkspaceRemoved(IssueId),
    /// A person, or the journal with a default, answers the question of this number.
    Answer {
        issue: IssueId,
        number: u64,
        by_default: bool,
    },
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Then {
    Parked,
    Resumed,
}

/// What a run does next.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Turn(u32),
    /// In the middle of its turn.
    Asks,
    /// The turn ended; it goes on with the answer.
    Waits,
    Answered,
    /// Its request does not fit below this cap.
    Spends(Scope),
    Finishes,
    Lands(StateName),
    Ends(RunEnd),
    /// A report that comes after the end.
    Again(RunEnd),
}

/// A run that lives, as the world knows it.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    pub(crate) issue: IssueId,
    pub(crate) asked_to_stop: Option<StopCause>,
    pub(crate) turns: u32,
    /// Since when it waits for a human.
    pub(crate) asking: Option<u64>,
    /// What it does once it is answered.
    pub(crate) held: Vec<Act>,
    /// Ignores every order; only a restart ends it.
    wedged: bool,
    /// Up to here its time is counted.
    counted: u64,
}

/// What the journal and the world count, apart from the board.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sessions: u32,
    pub(crate) turns: u32,
    pub(crate) wall_ms: u64,
}

pub(crate) struct World {
    pub(crate) choices: Choices,
    pub(crate) now: u64,
    pub(crate) board: Board,
    pub(crate) policy: Policy,
    pub(crate) files: BTreeMap<String, Issue>,
    pub(crate) torn: BTreeMap<String, u64>,
    pub(crate) queue: BTreeMap<(u64, u64), Later>,
    queued: u64,
    pub(crate) live: BTreeMap<RunId, Live>,
    pub(crate) tally: BTreeMap<IssueId, Tally>,
    pub(crate) journal: Journal,
    /// Questions that are open, as the journal holds them.
    pub(crate) questions: BTreeMap<IssueId, Question>,
    pub(crate) asked: u64,
    pub(crate) last_run: u64,
    pub(crate) draining: bool,
    pub(crate) calm: bool,
    steps: usize,
    pub(crate) log: VecDeque<String>,
    /// The newest good look, for the rules about removals.
    pub(crate) seen: BTreeMap<IssueId, StateName>,
    pub(crate) looks: usize,
    /// How many looks there were when everybody began to behave.
    pub(crate) calm_from: usize,
    /// What happened so far, by kind.
    pub(crate) reached: Reached,
    /// When the newest step was.
    stepped: u64,
}

impl World {
    pub(crate) fn new(mut choices: Choices) -> Self {
        let policy = policy(&mut choices);
        let mut world = Self {
            choices,
            now: 1,
            board: Board::new(Past { next_run: RunId(1), ..Past::default() }),
            policy,
            files: BTreeMap::new(),
            torn: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            live: BTreeMap::new(),
            tally: BTreeMap::new(),
            journal: Journal::default(),
            questions: BTreeMap::new(),
            asked: 0,
            last_run: 0,
            draining: false,
            calm: false,
            steps: 0,
            log: VecDeque::new(),
            seen: BTreeMap::new(),
            looks: 0,
            calm_from: 0,
            reached: Reached::new(),
            stepped: 0,
        };
        for name in NAMES {
            if world.choices.rarely(60) {
                world.write(name);
            }
        }
        world.later(0, Later::Operator);
        world.step(Event::LookWanted);
        world
    }

    /// Lives until everything came to rest, checked at every step.
    pub(crate) fn live_to_the_end(&mut self) {
        let mut happened = 0;
        while let Some(next) = self.next() {
            happened += 1;
            assert!(
                happened < 20_000,
                "the world does not come to rest: {:?}, alive: {:?}",
                self.board.claims().collect::<Vec<_>>(),
                self.live
            );
            match next {
                None => self.step(Event::Woke),
                Some(later) => self.happen(later),
            }
            if (self.steps > HOSTILE || happened > 10 * HOSTILE) && !self.calm {
                self.calm_down();
            }
            if self.calm && self.at_rest() {
                break;
            }
        }
        self.check_rest();
    }

    /// The next thing to happen; `None` within is the board's wake time.
    fn next(&mut self) -> Option<Option<Later>> {
        let first = self.queue.keys().next().copied();
        let wake = self.board.wake_at(&self.policy).map(|at| at.0);
        match (first, wake) {
            (None, None) => None,
            (Some((at, _)), Some(wake)) if wake < at => {
                self.now = self.now.max(wake);
                Some(None)
            }
            (None, Some(wake)) => {
                self.now = self.now.max(wake);
                Some(None)
            }
            (Some(key), _) => {
                self.now = self.now.max(key.0);
                self.queue.remove(&key).map(Some)
            }
        }
    }

    /// Looks under way.
    pub(crate) fn looking(&self) -> usize {
        self.queue.values().filter(|later| matches!(later, Later::LookSees { .. } | Later::LookEnds(_))).count()
    }

    pub(crate) fn later(&mut self, after: u64, what: Later) {
        self.queued += 1;
        self.queue.insert((self.now + after, self.queued), what);
    }

    pub(crate) fn note(&mut self, line: String) {
        if self.log.len() == 40 {
            self.log.pop_front();
        }
        self.log.push_back(format!("{:>9} ms  {line}", self.now));
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::LookSees { dawdles } => {
                let scan = self.look();
                self.later(dawdles, Later::LookEnds(scan));
            }
            Later::LookEnds(result) => {
                self.looks += 1;
                self.squeeze_memory();
                self.step(Event::PollEnded(result));
            }
            Later::Run(run, act) => self.act(run, act),
            Later::Move { issue, from, to, then } => {
                let result = self.move_file(&issue, &from, &to);
                let after = self.delay();
                self.later(after, Later::MoveEnded(issue, result, then));
            }
            Later::MoveEnded(issue, result, Then::Parked) => self.step(Event::ParkEnded(issue, result)),
            Later::MoveEnded(issue, result, Then::Resumed) => self.step(Event::ResumeEnded(issue, result)),
            Later::WorkspaceRemoved(issue) => self.step(Event::WorkspaceRemoved(issue)),
            Later::Answer { issue, number, by_default } => self.answer(issue, number, by_default),
            Later::Operator if self.calm => {}
            Later::Operator => {
                self.operate();
                let after = self.delay();
                self.later(after, Later::Operator);
            }
        }
    }

    /// One step of the board, its commands carried out, everything checked.
    pub(crate) fn step(&mut self, event: Event) {
        self.steps += 1;
        assert!(self.now >= self.stepped, "the world's own clock goes back");
        self.stepped = self.now;
        self.count_time();
        let before = self.board.clone();
        self.note(brief(&event));
        let commands = self.board.step(Tick(self.now), event.clone(), &self.policy);
        for command in &commands {
            self.note(format!("  → {}", short(command)));
        }
        self.remember(&event);
        self.check_step(&before, &event, &commands);
        self.reach(&event, &commands);
        for command in commands {
            self.perform(command);
        }
        self.check_state();
    }

    /// Wall time as the world counts it: all of a live run's, except while it waits for a human.
    pub(crate) fn count_time(&mut self) {
        for live in self.live.values_mut() {
            let spent = if live.asking.is_some() { 0 } else { self.now - live.counted };
            live.counted = self.now;
            self.tally.entry(live.issue.clone()).or_default().wall_ms += spent;
        }
    }

    /// What the conductor tells the journal.
    fn remember(&mut self, event: &Event) {
        if let Event::PollEnded(Ok(scan)) = event {
            self.seen = scan.issues.iter().map(|issue| (issue.id.clone(), issue.state.clone())).collect();
        }
        for id in self.board.take_changed() {
            self.journal.counters.insert(id.clone(), self.board.counters(&id));
        }
        self.journal.due = NAMES
            .iter()
            .map(|name| IssueId((*name).into()))
            .filter_map(|id| Some((id.clone(), self.board.due_of(&id)?)))
            .collect();
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Poll => {
                let (before, dawdles) = (self.delay().min(20_000), self.delay().min(30_000));
                self.later(before, Later::LookSees { dawdles });
            }
            Command::Start(plan) => self.start(*plan),
            Command::Stop(run, cause) => {
                let Some(live) = self.live.get_mut(&run) else { return };
                live.asked_to_stop = Some(cause);
                if !live.wedged {
                    let end = match self.choices.below(10) {
                        0..=6 => RunEnd::Stopped(cause),
                        7 => failed(),
                        8 => RunEnd::TurnsUsed,
                        _ => RunEnd::NeedsHuman(ParkReason::HandoffFailed { detail: "full".into() }),
                    };
                    let after = self.delay();
                    self.later(after, Later::Run(run, Act::Ends(end)));
                }
            }
            Command::Park { issue, from, reason } => {
                let parked = Parked { reason, from: from.clone() };
                self.journal.parked.insert(issue.clone(), parked);
                let (after, to) = (self.delay(), self.policy.states.parking());
                self.later(after, Later::Move { issue, from, to, then: Then::Parked });
            }
            Command::Resume { issue, from, to } => {
                let after = self.delay();
                self.later(after, Later::Move { issue, from, to, then: Then::Resumed });
            }
            Command::Withdraw(id) => drop(self.questions.remove(&id)),
            Command::AnswerByDefault(id) => self.answer_by_default(id),
            Command::RemoveWorkspace(issue) => {
                let after = self.delay();
                self.later(after, Later::WorkspaceRemoved(issue.id));
            }
        }
    }

    pub(crate) fn delay(&mut self) -> u64 {
        if self.calm { self.choices.below(20) as u64 } else { self.choices.delay() }
    }

    fn start(&mut self, plan: Plan) {
        let (run, id) = (plan.run, plan.issue.id.clone());
        self.last_run = run.0;
        self.journal.parked.remove(&id);
        self.tally.entry(id.clone()).or_default().sessions += 1;
        let wedged = !self.calm && self.choices.rarely(3);
        let counted = self.now;
        let live = Live { issue: id, asked_to_stop: None, turns: 0, asking: None, held: vec![], wedged, counted };
        self.live.insert(run, live);
        let mut at = self.delay();
        if !self.calm && self.choices.rarely(15) {
            self.later(at, Later::Run(run, Act::Ends(failed())));
            return;
        }
        let turns = 1 + self.choices.below(5).min(plan.allowance.turns as usize - 1) as u32;
        for turn in 1..=turns {
            self.later(at, Later::Run(run, Act::Turn(turn)));
            at += 1 + self.delay();
            if !self.calm && self.choices.rarely(10) {
                self.later(at, Later::Run(run, Act::Asks));
                at += 1 + self.delay();
                // Some work on, and some end with their question open.
                if !self.choices.rarely(30) {
                    self.later(at, Later::Run(run, Act::Waits));
                    at += 1;
                }
            }
        }
        if !self.calm && self.choices.rarely(10) {
            let scope = self.choices.one(&[Scope::Issue, Scope::Day, Scope::Workflow]);
            self.later(at, Later::Run(run, Act::Spends(scope)));
            at += 1 + self.delay();
        }
        if wedged {
            return;
        }
        let end = if self.calm { 0 } else { self.choices.below(12) };
        let landing = match end {
            0 | 1 => Some(StateName::new("Done")),
            // Mostly back and forth.
            2..=4 if self.choices.rarely(80) => {
                let review = StateName::new("Review");
                Some(if plan.issue.state == review { StateName::new("Todo") } else { review })
            }
            2..=4 => Some(StateName::new(self.choices.one(&STATES))),
            _ => None,
        };
        if let Some(to) = landing {
            self.later(at, Later::Run(run, Act::Finishes));
            at += 1 + self.delay();
            self.later(at, Later::Run(run, Act::Lands(to)));
            return;
        }
        let end = match end {
            5..=8 => RunEnd::TurnsUsed,
            9 if self.choices.rarely(50) => {
                let causes =
                    [StopCause::ProviderPaused, StopCause::ProviderLogin].map(|cause| cause(Provider::Anthropic));
                RunEnd::Stopped(self.choices.one(&[causes[0], causes[1], StopCause::BudgetBusy]))
            }
            9 => RunEnd::NoLongerActive,
            10 if self.choices.rarely(50) => {
                let prompt = self.policy.prompt.clone();
                RunEnd::NeedsHuman(ParkReason::Template { detail: "line 1".into(), prompt })
            }
            10 => RunEnd::NeedsHuman(ParkReason::Diverged { detail: "moved".into() }),
            _ => failed(),
        };
        self.later(at, Later::Run(run, Act::Ends(end)));
    }

    fn act(&mut self, run: RunId, act: Act) {
        let Some(live) = self.live.get_mut(&run) else {
            // Late: the board must not care.
            match act {
                Act::Again(end) => self.step(Event::RunEnded(run, end, None)),
                Act::Turn(turn) => self.step(Event::TurnBegan(run, turn)),
                Act::Finishes => self.step(Event::RunFinishing(run)),
                _ => {}
            }
            return;
        };
        let (id, stopping) = (live.issue.clone(), live.asked_to_stop.is_some());
        let act = match act {
            act if live.asking.is_none() || stopping || matches!(act, Act::Answered) => act,
            Act::Ends(_) if self.choices.rarely(30) => Act::Ends(failed()),
            // It goes on when it is answered.
            act => return live.held.push(act),
        };
        match act {
            Act::Again(_) => {}
            Act::Turn(turn) if !stopping => {
                let more = turn.saturating_sub(live.turns);
                live.turns = live.turns.max(turn);
                self.tally.entry(id).or_default().turns += more;
                self.step(Event::TurnBegan(run, turn));
            }
            // A stopping run may get its word in.
            Act::Asks => self.asks(run, id),
            Act::Waits if !stopping => self.waits(run, &id),
            Act::Answered if !stopping => self.goes_on(run),
            Act::Finishes if !stopping => self.step(Event::RunFinishing(run)),
            Act::Spends(scope) => self.step(Event::SpendMet(run, met(&self.policy.spend, scope))),
            Act::Turn(_) | Act::Waits | Act::Answered | Act::Finishes => {}
            Act::Lands(to) => {
                // The order to stop outran it, as it may between two tasks; then nothing is moved.
                if stopping && self.choices.rarely(50) {
                    return;
                }
                let now = self.files.values().find(|file| file.id == id).map(|file| file.state.clone());
                let end = match now {
                    Some(from) if from == to && self.policy.states.role(&to) == Role::Terminal => RunEnd::Done,
                    // Refused: it is there already.
                    Some(from) if from == to => RunEnd::TurnsUsed,
                    Some(from) if self.policy.states.role(&from) == Role::Active => {
                        match self.move_file(&id, &from, &to) {
                            Ok(()) if to == StateName::new("Done") => RunEnd::Done,
                            Ok(()) => RunEnd::Moved(to),
                            Err(detail) => RunEnd::NeedsHuman(ParkReason::HandoffFailed { detail }),
                        }
                    }
                    _ => RunEnd::NoLongerActive,
                };
                let after = self.delay();
                self.later(after, Later::Run(run, Act::Ends(end)));
            }
            Act::Ends(end) => {
                let left = self.choices.below(3);
                let left = (left > 0).then_some(Left { changed: left == 2, commits: 1, uncommitted: false });
                // Counted to its last moment, then gone; the board hears of it in the same instant.
                self.count_time();
                self.live.remove(&run);
                if matches!(end, RunEnd::Failed(_)) && !stopping && self.questions.contains_key(&id) {
                    self.reached.insert(("question", "open under a failure"));
                }
                self.step(Event::RunEnded(run, end.clone(), left));
                if !self.calm && self.choices.rarely(20) {
                    let after = self.delay();
                    self.later(after, Later::Run(run, Act::Again(end)));
                }
            }
        }
    }

    fn look(&mut self) -> Result<Scan, String> {
        if !self.calm && self.choices.rarely(12) {
            return Err("the disk is away".to_owned());
        }
        let mut scan = Scan::default();
        for (name, file) in &self.files {
            let torn = self.torn.get(name).is_some_and(|until| *until > self.now);
            // Seen before the rename in one directory and after it in the other: missing, this once.
            let missed = !self.calm && self.choices.rarely(3);
            match (torn, missed) {
                (_, true) => {}
                (true, _) => {
                    let message = "half saved".to_owned();
                    scan.malformed.push(Malformed { file: file.file.clone(), line: None, column: None, message });
                }
                (false, false) => scan.issues.push(file.clone()),
            }
        }
        let states: BTreeMap<String, (IssueId, StateName)> =
            (self.files.iter()).map(|(name, file)| (name.clone(), (file.id.clone(), file.state.clone()))).collect();
        for blocker in scan.issues.iter_mut().flat_map(|issue| &mut issue.blocked_by) {
            let found = states.get(&blocker.identifier.0);
            blocker.id = found.map(|(id, _)| id.clone());
            blocker.state = found.map(|(_, state)| state.clone());
        }
        Ok(scan)
    }

    fn move_file(&mut self, id: &IssueId, from: &StateName, to: &StateName) -> Result<(), String> {
        if !self.calm && self.choices.rarely(8) {
            return Err("no space left".to_owned());
        }
        let Some(file) = self.files.values_mut().find(|file| file.id == *id) else { return Err("gone".to_owned()) };
        if file.state != *from && file.state != *to {
            return Err(format!("it is in {}", file.state));
        }
        file.state = to.clone();
        file.file = format!("{to}/{id}.md");
        self.note(format!("  (the file {id} is in {to} now)"));
        Ok(())
    }

    /// kill -9, or the end of a drain, and a new process on the same journal.
    pub(crate) fn restart(&mut self) {
        self.note("(killed and started again)".to_owned());
        self.count_time();
        // The time since the last write of the journal is lost; the world forgets it too.
        for live in std::mem::take(&mut self.live).into_values() {
            self.journal.cut_off(&live.issue);
        }
        self.queue.retain(|_, later| matches!(later, Later::Operator | Later::Answer { by_default: false, .. }));
        for (id, tally) in &mut self.tally {
            let kept = self.journal.counters.get(id).map(|counters| counters.used).unwrap_or_default();
            assert_eq!((tally.sessions, tally.turns), (kept.sessions, kept.turns), "a count of {id} was lost");
            tally.wall_ms = kept.wall_ms;
        }
        self.board = Board::new(self.past());
        self.draining = false;
        self.check_past();
        self.step(Event::LookWanted);
    }

    fn squeeze_memory(&mut self) {
        if let Some(memory) = &mut self.policy.memory {
            memory.available_mib = if self.calm { 100_000 } else { self.choices.below(4_000) as u64 + 500 };
        }
    }

    /// From here on operators rest, looks are good, runs finish, and what was wedged is killed by a restart.
    fn calm_down(&mut self) {
        self.calm = true;
        self.calm_from = self.looks;
        self.note("(everybody behaves from here on)".to_owned());
        self.torn.clear();
        self.policy.closed = None;
        self.policy.spend.shut = None;
        // Requests end.
        self.policy.spend.crowded_out.clear();
        self.policy.interval_ms = self.policy.interval_ms.max(600_000);
        self.policy.max_concurrent = self.policy.max_concurrent.max(1);
        if self.draining || self.live.values().any(|live| live.wedged) {
            self.restart();
        }
        self.step(Event::LookWanted);
    }
}

fn failed() -> RunEnd {
    RunEnd::Failed(RunFailure { code: FailureCode::TurnFailed, message: "boom".into() })
}
