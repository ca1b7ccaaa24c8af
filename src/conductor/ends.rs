//! Ends of runs on their way into the journal. One that it could not keep is kept again when it works again: else the
//! next process would take the run for cut off, and hand its letters out once more.

use symphony_core::board::EndReason;
use symphony_core::ids::{IssueId, RunId};

use super::{Conductor, Hands, Message};
use crate::journal::Ending;

/// Ends that are remembered while the journal does not work; nothing starts meanwhile, so there are few.
const UNKEPT_MAX: usize = 256;

/// The end of a run as the journal has to hold it.
#[derive(Clone, Debug)]
pub(super) struct Unkept {
    pub(super) run: RunId,
    pub(super) issue: IssueId,
    pub(super) reason: EndReason,
    pub(super) end: String,
    pub(super) tokens: u64,
    /// The letters of its turns that ended.
    pub(super) taken: Vec<u64>,
}

impl<H: Hands> Conductor<H> {
    /// Counters and due time are those of now, whenever this is: an older write never overwrites a newer one.
    pub(super) fn keep_end(&self, ended: Unkept) {
        let (counters, due) = (self.board.counters(&ended.issue), self.due_of(&ended.issue));
        let Unkept { run, issue, reason, end, tokens, taken } = ended.clone();
        let written = self.journal.run_ended(run, issue, Ending { reason, end, counters, due, tokens, taken });
        let to_self = self.to_self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = written.await {
                tracing::error!(issue_id = %ended.issue, run_id = ended.run.0, %error,
                    "the end of a run could not be kept; it is tried again while symphony runs");
                let _ = to_self.send(Message::EndUnkept(ended));
            }
        });
    }

    pub(super) fn remember_end(&mut self, ended: Unkept) {
        if self.unkept.len() == UNKEPT_MAX
            && let Some(lost) = self.unkept.pop_front()
        {
            tracing::error!(issue_id = %lost.issue, run_id = lost.run.0, "the end of a run is not kept");
        }
        self.unkept.push_back(ended);
    }

    /// Tries again what could not be kept, if the journal works.
    pub(super) fn keep_ends(&mut self) {
        if self.journal.trouble().is_none() {
            for ended in std::mem::take(&mut self.unkept) {
                self.keep_end(ended);
            }
        }
    }

    /// What was written while everything ended: who said something is told what became of it, and an end that was lost is
    /// tried once more.
    pub(super) fn finish_writing(&mut self) {
        while let Ok(message) = self.mailbox.try_recv() {
            match message {
                Message::Stored(issue, stored) => self.stored(issue, stored),
                Message::EndUnkept(ended) => self.remember_end(ended),
                _ => {}
            }
        }
        for ended in std::mem::take(&mut self.unkept) {
            self.keep_end(ended);
        }
    }
}
