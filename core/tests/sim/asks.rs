//! Questions in a world: who asks, who answers and when, and what a new process is told of them and of due retries.

use std::collections::BTreeMap;

use symphony_core::board::{Command, Due, EndReason, Event, LastRun, Parked, Past};
use symphony_core::budget::Counters;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::time::Tick;

use crate::world::{Act, Later, World};

/// What outlives a process, beside the open questions.
#[derive(Default)]
pub(crate) struct Journal {
    pub(crate) counters: BTreeMap<IssueId, Counters>,
    pub(crate) parked: BTreeMap<IssueId, Parked>,
    pub(crate) due: BTreeMap<IssueId, Due<Tick>>,
}

impl Journal {
    /// The run of this issue ended with its process.
    pub(crate) fn cut_off(&mut self, id: &IssueId) {
        let last = LastRun { reason: EndReason::CutOff, end: "cut off".into(), left: None };
        self.counters.entry(id.clone()).or_default().last = Some(last);
    }
}

/// An open question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) number: u64,
    /// When a default counts as its answer.
    pub(crate) default_at: Option<u64>,
    /// Whether the board of this process asked for it.
    pub(crate) defaulted: bool,
}

impl World {
    /// A question exists from here on, also before its turn ends.
    pub(crate) fn asks(&mut self, run: RunId, issue: IssueId) {
        self.asked += 1;
        let number = self.asked;
        let default_at = self.choices.rarely(40).then(|| self.now + self.choices.delay());
        if self.questions.contains_key(&issue) {
            self.reached.insert(("question", "asked anew"));
        }
        self.questions.insert(issue.clone(), Question { number, default_at, defaulted: false });
        if !self.choices.rarely(35) {
            let after = self.choices.delay();
            self.later(after, Later::Answer { issue, number, by_default: false });
        }
        self.step(Event::Asked(run, default_at.map(Tick)));
    }

    /// Its turn ended with a question; unless that is answered already, it waits.
    pub(crate) fn waits(&mut self, run: RunId, issue: &IssueId) {
        if !self.questions.contains_key(issue) {
            return;
        }
        self.count_time();
        if let Some(live) = self.live.get_mut(&run) {
            live.asking = Some(self.now);
        }
        self.step(Event::Asking(run, true));
    }

    /// The answer reached the run.
    pub(crate) fn goes_on(&mut self, run: RunId) {
        self.count_time();
        let Some(live) = self.live.get_mut(&run) else { return };
        if live.asking.take().is_none() {
            return;
        }
        let held = std::mem::take(&mut live.held);
        for (at, act) in (1..).zip(held) {
            self.later(at, Later::Run(run, act));
        }
        self.step(Event::Asking(run, false));
    }

    /// The first answer wins; the others are told so.
    pub(crate) fn answer(&mut self, issue: IssueId, number: u64, by_default: bool) {
        if self.questions.get(&issue).is_none_or(|open| open.number != number) {
            return;
        }
        self.note(format!("(question {number} of {issue} is answered, by default: {by_default})"));
        self.questions.remove(&issue);
        let asker = self.live.iter().find(|(_, live)| live.issue == issue).map(|(run, _)| *run);
        if let Some(run) = asker {
            let after = 1 + self.delay();
            self.later(after, Later::Run(run, Act::Answered));
        }
        self.step(Event::Answered(issue));
    }

    pub(crate) fn answer_by_default(&mut self, issue: IssueId) {
        let Some(open) = self.questions.get_mut(&issue) else { return };
        open.defaulted = true;
        let number = open.number;
        let after = self.delay();
        self.later(after, Later::Answer { issue, number, by_default: true });
    }

    /// What a new process reads: what was due meanwhile is due now, never before and never later than it was.
    pub(crate) fn past(&mut self) -> Past {
        if !self.questions.is_empty() {
            self.reached.insert(("question", "kept by a restart"));
        }
        if !self.journal.due.is_empty() {
            self.reached.insert(("retry", "kept by a restart"));
        }
        let now = self.now;
        let from_now = |at: u64| Tick(now + at.saturating_sub(now));
        for open in self.questions.values_mut() {
            open.defaulted = false;
        }
        let asked = self.questions.iter().map(|(id, open)| (id.clone(), open.default_at.map(from_now)));
        let due =
            self.journal.due.iter().map(|(id, due)| (id.clone(), Due { until: from_now(due.until.0), ..due.clone() }));
        Past {
            next_run: RunId(self.last_run + 1),
            counters: self.journal.counters.clone(),
            parked: self.journal.parked.clone(),
            waiting: due.collect(),
            asked: asked.collect(),
        }
    }

    /// A new process knows every due time and every question of the old one.
    pub(crate) fn check_past(&self) {
        for (id, due) in &self.journal.due {
            let now = self.board.due_of(id);
            assert!(
                now.as_ref().is_some_and(|now| now.until == due.until.max(Tick(self.now)) && now.kind == due.kind),
                "{id} was due {due:?} and is {now:?}"
            );
        }
        for id in self.questions.keys() {
            assert!(self.board.is_asked(id), "the question of {id} was lost");
        }
    }

    /// What a step may do about questions.
    pub(crate) fn check_asked(&self, event: &Event, command: &Command) {
        match command {
            Command::Withdraw(id) => {
                assert!(self.questions.contains_key(id), "nothing of {id} is open");
                let decides = matches!(event, Event::PollEnded(Ok(_)) | Event::RunEnded(..));
                assert!(decides, "{event:?} withdraws the question of {id}");
            }
            Command::AnswerByDefault(id) => {
                let open = self.questions.get(id).unwrap_or_else(|| panic!("nothing of {id} is open"));
                assert!(!open.defaulted, "a second default for {id}");
                assert!(open.default_at.is_some_and(|at| at <= self.now), "too early for {id}: {open:?}");
            }
            Command::Start(plan) => {
                assert!(!self.questions.contains_key(&plan.issue.id), "{} runs without its answer", plan.issue.id);
            }
            _ => {}
        }
    }

    /// Questions are open exactly as long as nobody answered or withdrew them, and nobody waits too long or unwatched.
    pub(crate) fn check_questions(&self) {
        for name in crate::world::NAMES {
            let id = IssueId(name.into());
            assert_eq!(self.board.is_asked(&id), self.questions.contains_key(&id), "the question of {id}");
            let waits_twice = self.board.is_asked(&id) && self.board.due_of(&id).is_some();
            assert!(!waits_twice, "{id} waits for an answer and for its next try");
        }
        let wake = self.board.wake_at(&self.policy);
        let watched = |at: u64| wake.is_some_and(|wake| wake.0 <= at);
        for (id, open) in self.questions.iter().filter(|(_, open)| !open.defaulted) {
            let Some(at) = open.default_at else { continue };
            assert!(at > self.now && watched(at), "{id} gets its default at {at}, woken at {wake:?}");
        }
        for (run, live) in self.live.iter().filter(|(_, live)| live.asked_to_stop.is_none()) {
            let Some(since) = live.asking else { continue };
            let at = since + self.policy.release_after_ms;
            assert!(at > self.now && watched(at), "run {run} waits until {at}, woken at {wake:?}");
        }
    }

    /// Whether a question will still be answered by somebody.
    pub(crate) fn answers_come(&self) -> bool {
        self.questions.values().any(|open| open.default_at.is_some())
            || self.queue.values().any(|later| matches!(later, Later::Answer { .. }))
    }
}
