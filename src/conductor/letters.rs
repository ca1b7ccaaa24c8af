//! What the doors ask for, a look at the tracker above all, and the words between humans and agents: open questions,
//! and letters that no turn has taken. Both are the journal's; what stands here is its copy.

use jiff::{SignedDuration, Timestamp};
use symphony_core::board::{Due, Event};
use symphony_core::ids::{Identifier, IssueId, RunId};
use symphony_core::steering::{By, Letter, OpenQuestion};
use symphony_core::time::Tick;
use tokio::sync::oneshot;

use super::handle::{AnswerError, Request};
use super::{Conductor, Hands, Message};
use crate::journal::Answered;
use crate::run::line::Posted;

/// Told when words are accepted, or why they are not.
pub(super) type Told = Option<oneshot::Sender<Result<Timestamp, AnswerError>>>;

/// What became of words that were to be kept.
pub(super) enum Stored {
    /// An answer to the question of this number.
    Answer(Result<Answered, String>),
    /// A message, and whether it cuts the turn short.
    Message(Result<Letter, String>, bool),
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
            Request::Say { identifier, text, now, by, reply } => match self.addressee(&identifier) {
                Ok(issue) => {
                    let (written, to_self) = (self.journal.said(issue.clone(), text, by), self.to_self.clone());
                    self.tasks.spawn(async move {
                        let stored = Stored::Message(written.await.map_err(|error| error.to_string()), now);
                        let _ = to_self.send(Message::Stored(issue, stored, Some(reply)));
                    });
                }
                Err(error) => drop(reply.send(Err(error))),
            },
        }
    }

    fn issue_called(&self, identifier: &Identifier) -> Option<IssueId> {
        let live = self.live.values().map(|live| &live.issue);
        let mut known = live.chain(self.board.issues());
        known.find(|issue| issue.identifier == *identifier).map(|issue| issue.id.clone())
    }

    fn question_of(&self, identifier: &Identifier, number: Option<u64>) -> Result<(IssueId, u64), AnswerError> {
        let none = || AnswerError::NotWaiting(identifier.clone());
        let issue = self.issue_called(identifier).ok_or_else(none)?;
        if self.answering.contains(&issue) {
            return Err(AnswerError::AnsweredAlready(identifier.clone()));
        }
        match (self.questions.get(&issue), number) {
            (Some(open), None) => Ok((issue, open.id)),
            // Of another number the journal knows best what became of it.
            (_, Some(number)) => Ok((issue, number)),
            (None, None) => Err(none()),
        }
    }

    /// Who can be told something unasked: an issue that an agent works on, or will.
    fn addressee(&self, identifier: &Identifier) -> Result<IssueId, AnswerError> {
        let issue = self.issue_called(identifier).ok_or_else(|| AnswerError::NoSuchIssue(identifier.clone()))?;
        if self.questions.contains_key(&issue) {
            return Err(AnswerError::AsksItself(identifier.clone()));
        }
        let state = self.board.issue(&issue).map(|issue| &issue.state);
        let is_worked_on = self.live.values().any(|live| live.issue.id == issue && !live.marked_done)
            || state.is_some_and(|state| self.policy.states.role(state) == symphony_core::workflow::Role::Active);
        if is_worked_on { Ok(issue) } else { Err(AnswerError::NobodyWorks(identifier.clone())) }
    }

    pub(super) fn keep_answer(&mut self, issue: IssueId, question: u64, text: String, by: By, reply: Told) {
        if self.questions.get(&issue).is_some_and(|open| open.id == question) {
            self.answering.insert(issue.clone());
        }
        self.mark_answered(&issue, true);
        let written = self.journal.answered(issue.clone(), Some(question), text, by);
        let to_self = self.to_self.clone();
        self.tasks.spawn(async move {
            let stored = Stored::Answer(written.await.map_err(|error| error.to_string()));
            let _ = to_self.send(Message::Stored(issue, stored, reply));
        });
    }

    /// Nobody answered in time.
    pub(super) fn answer_by_default(&mut self, issue: IssueId) {
        let Some(open) = self.questions.get(&issue).filter(|_| !self.answering.contains(&issue)) else { return };
        let Some(default) = open.default.clone() else { return };
        let number = open.id;
        tracing::warn!(issue_id = %issue, question = number, "nobody answered in time; the default counts as the answer");
        self.keep_answer(issue, number, default.text, By::Deadline, None);
    }

    /// What readers see of the question, from the moment somebody answered.
    fn mark_answered(&mut self, issue: &IssueId, answered: bool) {
        let run = self.live.iter_mut().find(|(_, live)| live.issue.id == *issue);
        if let Some((run, live)) = run {
            if let Some(question) = &mut live.question {
                question.answered = answered;
            }
            let run = *run;
            self.tell_asking(run);
        }
    }

    /// Only words that the journal holds are accepted; only accepted ones reach a run.
    pub(super) fn stored(&mut self, issue: IssueId, stored: Stored, reply: Told) {
        let name = self.board.issue(&issue).map_or_else(|| Identifier(issue.0.clone()), |i| i.identifier.clone());
        let told = match stored {
            Stored::Answer(kept) => {
                self.answering.remove(&issue);
                match kept {
                    Ok(Answered::Taken(letter)) => {
                        self.questions.remove(&issue);
                        let at = letter.at;
                        self.post(&issue, letter, false);
                        self.step(Event::Answered(issue.clone()));
                        Ok(at)
                    }
                    Ok(Answered::Already) => Err(AnswerError::AnsweredAlready(name)),
                    Ok(Answered::NotAsked) => Err(AnswerError::NotWaiting(name)),
                    Err(error) => {
                        self.mark_answered(&issue, false);
                        Err(AnswerError::NotStored(error))
                    }
                }
            }
            Stored::Message(kept, now) => kept.map_err(AnswerError::NotStored).map(|letter| {
                let at = letter.at;
                self.post(&issue, letter, now);
                at
            }),
        };
        if let (Err(error), None) = (&told, &reply) {
            tracing::error!(issue_id = %issue, %error, "the default answer of a question could not be kept");
        }
        if let Some(reply) = reply {
            let _ = reply.send(told);
        }
    }

    /// Until a turn has taken it, a letter belongs to the issue, not to a run.
    fn post(&mut self, issue: &IssueId, letter: Letter, now: bool) {
        if let Some(live) = self.live.values().find(|live| live.issue.id == *issue) {
            // One that finds no room comes with the issue's next run.
            let _ = live.letters.try_send(Posted { letter: letter.clone(), now });
        }
        self.letters.entry(issue.clone()).or_default().push(letter);
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
