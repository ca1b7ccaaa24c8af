//! What the agent's tool calls do to its run. The claim is validated and recorded here; the file moves
//! only after the turn, when the work is safe (DESIGN §6).

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use symphony_core::front_matter::Proposed;
use symphony_core::ids::{IssueId, RunId, StateName};
use symphony_core::issue::{Ambiguity, Malformed};
use symphony_core::snapshot::EventRow;
use symphony_core::steering::{Asked, Default as InTime, OpenQuestion};
use symphony_core::workflow::{NoMove, Role};

use super::Attempt;
use super::line::{Line, Report};
use super::word::{Claim, Handover, Word};
use crate::agent::mark_done;
use crate::agent::tools::{ASKED_ALREADY_TEXT, ASKED_TEXT, Answer, MARKED_DONE_TEXT, Proposal, ToolRequest};
use crate::journal::Journal;
use crate::tracker::{NewIssue, TrackerError};
use crate::workspace::Ready;

/// Looking at a directory or moving one file takes less than this, or fails.
const TRACKER_DEADLINE: Duration = Duration::from_secs(30);
/// Said of a disk that takes longer.
const SILENT: &str = "the disk does not answer";
/// Issues that one run may propose, and that may wait for a decision at once: a person has to read them all.
const PROPOSALS_MAX: usize = 20;

/// What the agent has said in this run.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// Where the issue goes.
    pub(super) word: Option<Word>,
    /// A human must answer.
    pub(super) question: Option<Asked>,
    /// Issues proposed so far.
    proposed: usize,
}

impl Said {
    /// Whether nothing but the end of the turn is missing.
    pub(super) fn ends_turn(&self) -> bool {
        self.word.is_some() || self.question.is_some()
    }
}

/// What a look finds of a run's issue.
pub(super) enum Seen {
    /// It stands in this state.
    In(StateName),
    /// It is there, but cannot be read now; a person is at it.
    Unreadable(TrackerError),
}

impl Attempt {
    /// Answers one tool call, or says why not.
    pub(super) async fn on_tool(
        &self,
        request: ToolRequest,
        said: &mut Said,
        ready: &Ready,
        line: &Line,
    ) -> Result<Answer, Answer> {
        match request {
            ToolRequest::MarkDone { title, summary } => {
                self.on_mark_done(Claim { title, summary }, said, ready, line).await
            }
            ToolRequest::AskHuman { question, context } => self.on_question(question, context, said, line).await,
            ToolRequest::Transition { to_state, notes } => {
                self.on_transition(&to_state, notes, said, ready, line).await
            }
            ToolRequest::Propose(proposal) => self.on_proposal(proposal, said, line).await,
        }
    }

    async fn on_mark_done(&self, claim: Claim, said: &mut Said, ready: &Ready, line: &Line) -> Result<Answer, Answer> {
        let target = self.workflow.states.done_target();
        match &said.word {
            None => {}
            Some(Word::Move(handover)) if handover.to != target => return Err(said_already(&handover.to)),
            Some(_) => return Ok(MARKED_DONE_TEXT.into()),
        }
        let refused = |error: TrackerError| Answer::from(format!("failed to mark done: {error}"));
        let from = self.current_state().await.map_err(refused)?;
        if self.workflow.states.role(&from) != Role::Active {
            return Err(format!("failed to mark done: a person moved the issue to {from}").into());
        }
        let target = self.workflow.states.done_from(&from).map_err(no_move)?;
        within(self.tracker.check_move(&self.plan.issue.id, &from, &target)).await.map_err(refused)?;
        self.write_claim(&claim, ready).await;
        said.word = Some(Word::Done(claim));
        line.report(Report::MarkedDone).await;
        Ok(MARKED_DONE_TEXT.into())
    }

    /// Leaves the claim where hooks look for it.
    async fn write_claim(&self, claim: &Claim, ready: &Ready) {
        let (workspace, claim) = (ready.path.clone(), claim.clone());
        let write = move || mark_done::write(&workspace, &claim.title, &claim.summary);
        // As in 0.1.0: the claim stands, the hook falls back to the issue's own title.
        let written = match tokio::time::timeout(TRACKER_DEADLINE, tokio::task::spawn_blocking(write)).await {
            Ok(Ok(done)) => done.map(drop).map_err(|error| error.to_string()),
            Ok(Err(crashed)) => Err(crashed.to_string()),
            Err(_) => Err(SILENT.to_owned()),
        };
        if let Err(error) = written {
            tracing::warn!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier, %error,
                "mark_done.md could not be written");
        }
    }

    async fn on_transition(
        &self,
        to_state: &str,
        notes: Option<String>,
        said: &mut Said,
        ready: &Ready,
        line: &Line,
    ) -> Result<Answer, Answer> {
        let states = &self.workflow.states;
        // What was said stands, as with `mark_done`; saying it again changes nothing.
        let stands = said.word.as_ref().map(|word| match word {
            Word::Done(_) => (states.done_target(), None),
            Word::Move(handover) => (handover.to.clone(), handover.notes.as_ref()),
        });
        if let Some((target, taken)) = stands {
            if StateName::new(to_state.trim()) != target {
                return Err(said_already(&target));
            }
            let mut answer = moving(&target);
            if notes.is_some() && notes.as_ref() != taken {
                answer.text.push_str(" What you said first stands: these notes are not added.");
            }
            return Ok(answer);
        }
        let failed = |error: TrackerError| Answer::from(format!("failed to move the issue: {error}"));
        let from = self.current_state().await.map_err(failed)?;
        if states.role(&from) != Role::Active {
            return Err(format!("failed to move the issue: a person moved it to {from}").into());
        }
        let to = states.transition(&from, to_state).map_err(no_move)?;
        within(self.tracker.check_move(&self.plan.issue.id, &from, &to)).await.map_err(failed)?;
        let claim = (states.role(&to) == Role::Terminal).then(|| Claim {
            title: self.plan.issue.title.clone(),
            summary: notes.clone().unwrap_or_else(|| format!("Moved to {to} without notes.")),
        });
        if let Some(claim) = &claim {
            self.write_claim(claim, ready).await;
        }
        let message = format!("{from} → {to}, when the turn has ended");
        let answer = moving(&to);
        said.word = Some(Word::Move(Handover { from, to, notes, claim }));
        line.report(Report::Moving).await;
        let event = "transition".to_owned();
        line.report(Report::Event(EventRow { at: Timestamp::now(), event, message })).await;
        Ok(answer)
    }

    /// The issue is created at once and waits for a person: proposing ends no turn, and is fine as long as one is open.
    async fn on_proposal(&self, proposal: Proposal, said: &mut Said, line: &Line) -> Result<Answer, Answer> {
        if said.proposed >= PROPOSALS_MAX {
            let text = format!("too_many_proposals: this run has proposed {PROPOSALS_MAX} issues, which is the most");
            return Err(Answer::with(text, json!({"error": "too_many_proposals"})));
        }
        let Proposal { title, description, labels, priority } = proposal;
        // A run that is tried again proposes again.
        let failed = |error: TrackerError| Answer::from(format!("failed to propose the issue: {error}"));
        let mut own = within(self.tracker.scan()).await.map_err(failed)?.issues;
        own.retain(|issue| issue.proposed_by.as_deref() == Some(self.plan.issue.identifier.0.as_str()));
        if let Some(same) = own.iter().find(|issue| issue.title == title) {
            let (identifier, state) = (&same.identifier.0, same.state.as_str());
            let text = format!("Proposed already, as {identifier}, which is in {state}; go on with your own issue.");
            return Ok(Answer::with(text, json!({"identifier": identifier, "state": state})));
        }
        let undecided = own.iter().filter(|issue| self.workflow.states.role(&issue.state) == Role::Holding).count();
        if undecided >= PROPOSALS_MAX {
            let text = format!("too_many_proposals: {undecided} proposals of this issue wait for a person already");
            return Err(Answer::with(text, json!({"error": "too_many_proposals"})));
        }
        let new = NewIssue {
            identifier: None,
            title,
            state: self.workflow.states.triage().0,
            description,
            priority,
            labels,
            blocked_by: vec![],
            proposed: Some(Proposed { by: self.plan.issue.identifier.clone(), run: self.plan.run }),
        };
        let created = within(self.tracker.create(new)).await;
        let created = created.map_err(failed)?;
        said.proposed += 1;
        let (identifier, state) = (&created.identifier.0, created.state.as_str());
        tracing::info!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
            proposed = %identifier, "the agent proposed an issue");
        let row = EventRow { at: Timestamp::now(), event: "proposal".to_owned(), message: identifier.clone() };
        line.report(Report::Event(row)).await;
        let text = format!("Proposed as {identifier}. It waits in {state} for a person; go on with your own issue.");
        Ok(Answer::with(text, json!({"identifier": identifier, "state": state})))
    }

    async fn on_question(
        &self,
        question: String,
        context: Option<String>,
        said: &mut Said,
        line: &Line,
    ) -> Result<Answer, Answer> {
        match &said.word {
            None => {}
            Some(Word::Done(_)) => return Err("the issue is marked done already; end your turn".into()),
            Some(Word::Move(handover)) => return Err(said_already(&handover.to)),
        }
        if said.question.is_some() {
            return Err(ASKED_ALREADY_TEXT.into());
        }
        let asked = Asked { question, context };
        said.question = Some(asked.clone());
        let steering = &self.workflow.steering;
        let default = steering.answer_within_ms.map(|within| {
            let within = Duration::from_millis(within);
            InTime { at: Timestamp::now() + within, text: steering.default_answer.clone() }
        });
        let (journal, issue) = (&self.parts.journal, self.plan.issue.id.clone());
        match keep_question(journal, self.plan.run, issue, asked, default, TRACKER_DEADLINE).await {
            Ok(open) => line.report(Report::Asked(open)).await,
            Err(error) => {
                said.question = None;
                return Err(format!("the question could not be stored: {error}").into());
            }
        }
        Ok(ASKED_TEXT.into())
    }

    /// Where the issue is now, by a fresh look.
    pub(super) async fn current_state(&self) -> Result<StateName, TrackerError> {
        match self.look().await? {
            Seen::In(state) => Ok(state),
            Seen::Unreadable(why) => Err(why),
        }
    }

    /// Where the issue is now. A file that cannot be read as the issue right now, half saved or one of two, is not gone.
    pub(super) async fn look(&self) -> Result<Seen, TrackerError> {
        let issue = &self.plan.issue;
        let scan = within(self.tracker.scan()).await?;
        if let Some(found) = scan.issues.into_iter().find(|found| found.id == issue.id) {
            return Ok(Seen::In(found.state));
        }
        let same_file = |file: &String| file.rsplit('/').next() == Some(issue.file_name());
        let twice =
            |a: &Ambiguity| a.name == issue.id.0 || a.name == issue.identifier.0 || a.files.iter().any(same_file);
        if let Some(twice) = scan.ambiguous.into_iter().find(twice) {
            return Ok(Seen::Unreadable(TrackerError::Ambiguous { name: twice.name, files: twice.files }));
        }
        match scan.malformed.into_iter().find(|malformed| same_file(&malformed.file)) {
            Some(Malformed { file, message, .. }) => {
                Ok(Seen::Unreadable(TrackerError::Io { action: "read", path: file, message }))
            }
            None => Err(TrackerError::NotFound(issue.id.0.clone())),
        }
    }
}

/// A question that a crash could lose is not asked; nor is one left open of which its agent was told that it is not asked.
async fn keep_question(
    journal: &Journal,
    run: RunId,
    issue: IssueId,
    asked: Asked,
    default: Option<InTime>,
    deadline: Duration,
) -> Result<OpenQuestion, String> {
    match tokio::time::timeout(deadline, journal.asked(run, issue.clone(), asked, default)).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => {
            // It stands in the queue behind the question, which may be kept yet.
            drop(journal.withdrawn(issue, "not asked in time"));
            Err(SILENT.to_owned())
        }
    }
}

fn moving(to: &StateName) -> Answer {
    let to = to.as_str();
    let text = format!("The issue moves to {to} when this turn has ended: stop here and end your turn now.");
    Answer::with(text, json!({"to_state": to}))
}

/// One run has one word.
fn said_already(to: &StateName) -> Answer {
    let to = to.as_str();
    let text = format!("already_moving: you have said that the issue goes to {to}, and that stands; end your turn");
    Answer::with(text, json!({"error": "already_moving", "to_state": to}))
}

fn no_move(error: NoMove) -> Answer {
    let allowed: Vec<_> = error.allowed.iter().map(StateName::as_str).collect();
    Answer::with(error.to_string(), json!({"error": error.code, "allowed": allowed}))
}

/// A hung disk must hold up neither a stop nor the agent for ever.
pub(super) async fn within<T>(work: impl Future<Output = Result<T, TrackerError>>) -> Result<T, TrackerError> {
    tokio::time::timeout(TRACKER_DEADLINE, work).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", TRACKER_DEADLINE.as_secs());
        Err(TrackerError::Io { action: "look at", path: "the issues".to_owned(), message })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Origin;

    #[tokio::test]
    async fn a_question_that_is_kept_only_after_its_agent_gave_up_is_not_open() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("journal.db");
        let (journal, _) = Journal::open(&path, Origin::default()).expect("opens");
        let disk = rusqlite::Connection::open(&path).expect("opens");
        let ask = async |deadline| {
            let asked = Asked { question: "which?".into(), context: None };
            keep_question(&journal, RunId(1), IssueId("A".into()), asked, None, deadline).await
        };
        // Somebody else writes: ours waits.
        disk.execute_batch("BEGIN IMMEDIATE").expect("held");
        assert_eq!(ask(Duration::from_millis(50)).await, Err(SILENT.to_owned()));
        disk.execute_batch("ROLLBACK").expect("free");
        // Writes are carried out in order: behind this one, both are done.
        journal.probed().await.expect("writes");
        let asked: i64 = disk.query_row("SELECT count(*) FROM questions", [], |r| r.get(0)).expect("counts");
        let open: i64 =
            disk.query_row("SELECT count(*) FROM questions WHERE closed_at IS NULL", [], |r| r.get(0)).expect("counts");
        assert_eq!((asked, open), (1, 0), "it was kept late, and nobody is to answer it");
        ask(TRACKER_DEADLINE).await.expect("kept");
    }
}
