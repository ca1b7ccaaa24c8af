//! What the doors ask for, a look at the tracker above all, and the words between humans and agents: open questions,
//! and letters that no turn has taken. Both are the journal's; what stands here is its copy.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use symphony_core::board::{Due, Event, RunEnd};
use symphony_core::ids::{Identifier, IssueId, RunId};
use symphony_core::steering::{By, Letter, OpenQuestion};
use symphony_core::time::Tick;
use symphony_core::workflow::Role;
use tokio::sync::oneshot;

use super::handle::{AnswerError, Request, Taken};
use super::view::Live;
use super::{Conductor, Hands, Message};
use crate::journal::Answered;
use crate::run::line::Posted;

/// Told when words are accepted, or why they are not.
type Reply<T> = oneshot::Sender<Result<T, AnswerError>>;

/// What became of words that were to be kept, and who wants to know.
pub(super) enum Stored {
    /// An answer to the question of this number; a default has nobody who asks.
    Answer { question: u64, kept: Result<Answered, String>, reply: Option<Reply<Timestamp>> },
    /// A message, and whether it cuts the turn short.
    Message { kept: Result<Letter, String>, now: bool, reply: Reply<Taken> },
}

/// Milliseconds from `now` to `at`; none when that is over.
pub(super) fn until(at: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(at.duration_since(now).as_millis()).unwrap_or(0)
}

impl<H: Hands> Conductor<H> {
    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Refresh { reply } => {
                let _ = reply.send(self.board.look_is_wanted());
                self.step(Event::LookWanted);
            }
            Request::Answer { identifier, question, text, by, reply } => {
                match self.question_of(&identifier, question) {
                    Ok((issue, open)) => self.keep_answer(issue, open, text, by, Some(reply)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Request::DecideHost { about, verb, by, reply } => self.decide_host(about, verb, by, reply),
            Request::ForgetHost { decision, reply } => self.forget_host(decision, reply),
            Request::Say { identifier, text, now, by, reply } => match self.addressee(&identifier) {
                Ok(issue) => {
                    let (written, to_self) = (self.journal.said(issue.clone(), text, by), self.to_self.clone());
                    self.tasks.spawn(async move {
                        let kept = written.await.map_err(|error| error.to_string());
                        let _ = to_self.send(Message::Stored(issue, Stored::Message { kept, now, reply }));
                    });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Raise { identifier, amount, seen, by, reply } => {
                self.raise(identifier, &amount, &seen, by, reply);
            }
        }
    }

    pub(super) fn issue_called(&self, identifier: &Identifier) -> Option<IssueId> {
        let live = self.live.values().map(|live| &live.issue);
        let mut known = live.chain(self.board.issues());
        known.find(|issue| issue.identifier == *identifier).map(|issue| issue.id.clone())
    }

    fn question_of(&self, identifier: &Identifier, number: Option<u64>) -> Result<(IssueId, u64), AnswerError> {
        let none = || AnswerError::NotWaiting(identifier.clone());
        let issue = self.issue_called(identifier).ok_or_else(none)?;
        if self.answering.contains_key(&issue) {
            return Err(AnswerError::AnsweredAlready(identifier.clone()));
        }
        // Whoever said that it is done went on without the answer.
        if self.live_of(&issue).is_some_and(|live| live.finishing) {
            return Err(AnswerError::HandingOff(identifier.clone()));
        }
        match (self.questions.get(&issue), number) {
            (Some(open), None) => Ok((issue, open.id)),
            // Of another number the journal knows best what became of it.
            (_, Some(number)) => Ok((issue, number)),
            (None, None) => Err(none()),
        }
    }

    fn live_of(&self, issue: &IssueId) -> Option<&Live> {
        self.live.values().find(|live| live.issue.id == *issue)
    }

    fn is_active(&self, issue: &IssueId) -> bool {
        let state = self.board.issue(issue).map(|issue| &issue.state);
        state.is_some_and(|state| self.policy.states.role(state) == Role::Active)
    }

    /// Who can be told something unasked: an issue that an agent works on, or will.
    fn addressee(&self, identifier: &Identifier) -> Result<IssueId, AnswerError> {
        let issue = self.issue_called(identifier).ok_or_else(|| AnswerError::NoSuchIssue(identifier.clone()))?;
        let live = self.live_of(&issue);
        if live.is_some_and(|live| live.finishing) {
            return Err(AnswerError::HandingOff(identifier.clone()));
        }
        if self.questions.contains_key(&issue) {
            return Err(AnswerError::AsksItself(identifier.clone()));
        }
        let hears = live.is_some_and(|live| live.stop.borrow().is_none());
        if hears || self.is_active(&issue) { Ok(issue) } else { Err(AnswerError::NobodyWorks(identifier.clone())) }
    }

    /// Why no run hears what is said now.
    fn waits(&self, id: &IssueId) -> Option<String> {
        match self.live_of(id) {
            Some(live) if live.finishing => Some("its agent had just said that it is done".to_owned()),
            Some(live) if live.stop.borrow().is_some() => Some(live.phase.to_owned()),
            Some(_) => None,
            None => {
                let why = self.board.issue(id).and_then(|i| self.board.verdict(i, self.now(), &self.policy).err());
                Some(why.map_or_else(|| "it is about to start".to_owned(), |why| why.to_string()))
            }
        }
    }

    fn keep_answer(&mut self, issue: IssueId, question: u64, text: String, by: By, reply: Option<Reply<Timestamp>>) {
        if self.questions.get(&issue).is_some_and(|open| open.id == question) {
            self.answering.insert(issue.clone(), question);
        }
        self.mark_answered(&issue, question, true);
        let written = self.journal.answered(issue.clone(), Some(question), text, by);
        let to_self = self.to_self.clone();
        self.tasks.spawn(async move {
            let kept = written.await.map_err(|error| error.to_string());
            let _ = to_self.send(Message::Stored(issue, Stored::Answer { question, kept, reply }));
        });
    }

    /// Nobody answered in time.
    pub(super) fn answer_by_default(&mut self, issue: IssueId) {
        let Some(open) = self.questions.get(&issue).filter(|_| !self.answering.contains_key(&issue)) else { return };
        let Some(default) = open.default.clone() else { return };
        let number = open.id;
        tracing::warn!(issue_id = %issue, question = number, "nobody answered in time; the default counts as the answer");
        self.keep_answer(issue, number, default.text, By::Deadline, None);
    }

    /// What readers see of this question, from the moment somebody answered; another one that is open stays so.
    fn mark_answered(&mut self, issue: &IssueId, number: u64, answered: bool) {
        let run = self.live.iter_mut().find(|(_, live)| live.issue.id == *issue);
        if let Some((run, live)) = run
            && let Some(question) = live.question.as_mut().filter(|question| question.id == number)
        {
            question.answered = answered;
            let run = *run;
            self.tell_asking(run);
        }
    }

    /// Only words that the journal holds are accepted; only accepted ones reach a run.
    pub(super) fn stored(&mut self, issue: IssueId, stored: Stored) {
        match stored {
            Stored::Answer { question, kept, reply } => {
                let told = self.answer_stored(&issue, question, kept);
                match (told, reply) {
                    (told, Some(reply)) => drop(reply.send(told)),
                    (Err(error), None) => tracing::error!(issue_id = %issue, %error,
                        "the default answer of a question could not be kept"),
                    (Ok(_), None) => {}
                }
            }
            Stored::Message { kept, now, reply } => {
                let told = kept.map_err(AnswerError::NotStored).map(|letter| {
                    let taken = Taken { at: letter.at, waits: self.waits(&issue) };
                    self.post(&issue, letter, now);
                    taken
                });
                let _ = reply.send(told);
            }
        }
    }

    fn answer_stored(
        &mut self,
        issue: &IssueId,
        question: u64,
        kept: Result<Answered, String>,
    ) -> Result<Timestamp, AnswerError> {
        let name = self.board.issue(issue).map_or_else(|| Identifier(issue.0.clone()), |i| i.identifier.clone());
        if self.answering.get(issue) == Some(&question) {
            self.answering.remove(issue);
        }
        let error = match kept {
            Ok(Answered::Taken(letter)) => {
                let at = letter.at;
                let was_open = self.questions.get(issue).is_some_and(|open| open.id == question);
                self.post(issue, letter, false);
                if was_open {
                    self.questions.remove(issue);
                    self.step(Event::Answered(issue.clone()));
                }
                return Ok(at);
            }
            Ok(Answered::Already) => AnswerError::AnsweredAlready(name),
            Ok(Answered::NotAsked) => AnswerError::NotWaiting(name),
            Err(error) => AnswerError::NotStored(error),
        };
        self.mark_answered(issue, question, false);
        Err(error)
    }

    /// Until a turn has taken it, a letter belongs to the issue, not to a run.
    fn post(&mut self, issue: &IssueId, letter: Letter, now: bool) {
        if let Some(live) = self.live_of(issue) {
            // One that finds no room comes with the issue's next run.
            let _ = live.letters.try_send(Posted { letter: letter.clone(), now });
        }
        self.letters.entry(issue.clone()).or_default().push(letter);
    }

    /// Words that no agent heard, of issues that no agent will take up by itself.
    pub(super) fn unheard(&self) -> BTreeMap<IssueId, Vec<String>> {
        let at_rest = |id: &IssueId| self.live_of(id).is_none() && !self.is_active(id);
        let left = self.letters.iter().filter(|(id, letters)| !letters.is_empty() && at_rest(id));
        left.map(|(id, letters)| (id.clone(), letters.iter().map(|letter| letter.text.clone()).collect())).collect()
    }

    /// A run ended with words that came too late for it.
    pub(super) fn tell_unheard(&self, issue: &IssueId, end: &RunEnd) {
        let waiting = self.letters.get(issue).map_or(0, Vec::len);
        if waiting > 0 && (*end == RunEnd::Done || !self.is_active(issue)) {
            let name = self.board.issue(issue).map(|issue| issue.identifier.0.clone()).unwrap_or_default();
            tracing::warn!(issue_id = %issue, issue_identifier = %name, words = waiting,
                "there are words that no agent heard; they go with the issue's next run, if somebody puts it back to work");
        }
    }

    /// A run asks: its question is in the journal already.
    pub(super) fn asked(&mut self, run: RunId, question: OpenQuestion) {
        let Some(issue) = self.board.issue_of(run).cloned() else { return };
        let default_at = question.default.as_ref().map(|default| self.tick_at(default.at));
        self.questions.insert(issue, question);
        self.step(Event::Asked(run, default_at));
    }

    /// Nobody needs the answer any more.
    pub(super) fn withdraw(&mut self, issue: IssueId) {
        self.questions.remove(&issue);
        let written = self.journal.withdrawn(issue.clone(), "withdrawn");
        self.tasks.spawn(async move {
            if let Err(error) = written.await {
                tracing::error!(issue_id = %issue, %error, "a question that nobody has to answer could not be closed");
            }
        });
    }

    pub(super) fn turn_ended(&mut self, run: RunId, kept: oneshot::Sender<Result<(), String>>) {
        let Some(live) = self.live.get_mut(&run) else { return };
        let (issue, handed) = (live.issue.id.clone(), std::mem::take(&mut live.handed));
        if let Some(letters) = self.letters.get_mut(&issue) {
            letters.retain(|letter| !handed.contains(&letter.id));
        }
        // If this write is lost, the one of the run's end says it again: no letter is in two turns that ended.
        live.taken.extend(handed);
        let written = self.journal.turn_ended(run, issue);
        self.tasks.spawn(async move {
            // A run that is gone does not want to know.
            let _ = kept.send(written.await.map_err(|error| error.to_string()));
        });
    }

    /// An instant of the world in this process's time; one that is over is now.
    pub(super) fn tick_at(&self, at: Timestamp) -> Tick {
        self.now().plus_ms(until(at, Timestamp::now()))
    }

    /// When the issue is tried again, as the next process will understand it.
    pub(super) fn due_of(&self, issue: &IssueId) -> Option<Due<Timestamp>> {
        let Due { until, kind, error } = self.board.due_of(issue)?;
        let wait = i64::try_from(until.since(self.now())).unwrap_or(i64::MAX);
        Some(Due { until: Timestamp::now() + SignedDuration::from_millis(wait), kind, error })
    }
}
