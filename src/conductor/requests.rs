//! What the doors ask for: a look at the tracker, an answer for an agent.

use jiff::Timestamp;
use symphony_core::board::Event;
use symphony_core::ids::{Identifier, RunId};

use super::handle::{AnswerError, Request};
use super::{Conductor, Hands, Message};

impl<H: Hands> Conductor<H> {
    pub(super) fn on_request(&mut self, request: Request) {
        match request {
            Request::Refresh { reply } => {
                let _ = reply.send(self.board.look_is_wanted());
                self.step(Event::LookWanted);
            }
            Request::Answer { identifier, text, reply } => {
                let asking = self.live.iter_mut().find(|(_, live)| live.issue.identifier == identifier);
                let Some((run, live)) = asking.filter(|(_, live)| live.question.is_some()) else {
                    let _ = reply.send(Err(AnswerError::NotWaiting(identifier)));
                    return;
                };
                if live.question.as_ref().is_some_and(|q| q.answered) {
                    let _ = reply.send(Err(AnswerError::AnsweredAlready(identifier)));
                    return;
                }
                if let Some(question) = &mut live.question {
                    question.answered = true;
                }
                let (run, to_self) = (*run, self.to_self.clone());
                self.tell_asking(run);
                let written = self.journal.answered(run, text.clone());
                self.tasks.spawn(async move {
                    let stored = written.await.map_err(|e| e.to_string());
                    let _ = to_self.send(Message::AnswerStored(run, stored, text, reply));
                });
            }
        }
    }

    /// Only an answer the journal holds is accepted; only an accepted one reaches the run.
    pub(super) fn answer_stored(
        &mut self,
        run: RunId,
        stored: Result<bool, String>,
        text: String,
        reply: tokio::sync::oneshot::Sender<Result<Timestamp, AnswerError>>,
    ) {
        let answer = match (stored, self.live.get_mut(&run)) {
            (Ok(true), Some(live)) => {
                // The run reads at most one answer a question; the channel holds more than that.
                let _ = live.answers.try_send(text);
                Ok(Timestamp::now())
            }
            (Ok(_), mut live) => {
                if let Some(question) = live.as_mut().and_then(|l| l.question.as_mut()) {
                    question.answered = false;
                }
                let identifier = live.map(|l| l.issue.identifier.clone());
                Err(AnswerError::NotWaiting(identifier.unwrap_or(Identifier(run.to_string()))))
            }
            (Err(error), live) => {
                if let Some(question) = live.and_then(|l| l.question.as_mut()) {
                    question.answered = false;
                }
                Err(AnswerError::NotStored(error))
            }
        };
        self.tell_asking(run);
        let _ = reply.send(answer);
    }
}
