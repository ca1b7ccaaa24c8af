//! What the agent's tool calls do to its run. The claim is validated and recorded here; the file moves
//! only after the turn, when the work is safe (DESIGN §6).

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use symphony_core::ids::StateName;
use symphony_core::issue::{Ambiguity, Malformed};
use symphony_core::snapshot::Question;
use symphony_core::workflow::Role;

use super::Attempt;
use super::line::{Line, Report};
use crate::agent::mark_done;
use crate::agent::tools::{ASKED_ALREADY_TEXT, ASKED_TEXT, MARKED_DONE_TEXT, ToolRequest};
use crate::tracker::TrackerError;
use crate::workspace::Ready;

/// Looking at a directory or moving one file takes less than this, or fails.
const TRACKER_DEADLINE: Duration = Duration::from_secs(30);

/// What the agent has said in this run.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    /// The work is done: title and summary.
    pub(super) done: Option<(String, String)>,
    /// A human must answer: question and context.
    pub(super) question: Option<(String, Option<String>)>,
}

/// What a look finds of a run's issue.
pub(super) enum Seen {
    /// It stands in this state.
    In(StateName),
    /// It is there, but cannot be read now; a person is at it.
    Unreadable(TrackerError),
}

impl Attempt {
    /// Answers one tool call: a sentence for the agent, or why not.
    pub(super) async fn on_tool(
        &self,
        request: ToolRequest,
        said: &mut Said,
        ready: &Ready,
        line: &Line,
    ) -> Result<String, String> {
        match request {
            ToolRequest::MarkDone { title, summary } => self.on_mark_done(title, summary, said, ready, line).await,
            ToolRequest::AskHuman { question, context } => self.on_question(question, context, said, line).await,
        }
    }

    async fn on_mark_done(
        &self,
        title: String,
        summary: String,
        said: &mut Said,
        ready: &Ready,
        line: &Line,
    ) -> Result<String, String> {
        let text = MARKED_DONE_TEXT.to_owned();
        if said.done.is_some() {
            return Ok(text);
        }
        let target = self.workflow.states.done_target();
        let refused = |error: TrackerError| format!("failed to mark done: {error}");
        let from = self.current_state().await.map_err(refused)?;
        if self.workflow.states.role(&from) != Role::Active {
            return Err(format!("failed to mark done: a person moved the issue to {from}"));
        }
        within(self.tracker.check_move(&self.plan.issue.id, &from, &target)).await.map_err(refused)?;
        let (workspace, named, text_of) = (ready.path.clone(), title.clone(), summary.clone());
        let written = tokio::task::spawn_blocking(move || mark_done::write(&workspace, &named, &text_of)).await;
        // As in 0.1.0: the claim stands, the hook falls back to the issue's own title.
        if let Ok(Err(error)) = written {
            tracing::warn!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier, %error,
                "mark_done.md could not be written");
        }
        said.done = Some((title, summary));
        line.report(Report::MarkedDone).await;
        Ok(text)
    }

    async fn on_question(
        &self,
        question: String,
        context: Option<String>,
        said: &mut Said,
        line: &Line,
    ) -> Result<String, String> {
        if said.done.is_some() {
            return Err("the issue is marked done already; end your turn".to_owned());
        }
        if said.question.is_some() {
            return Err(ASKED_ALREADY_TEXT.to_owned());
        }
        let asked =
            self.parts.journal.asked(self.plan.run, self.plan.issue.id.clone(), question.clone(), context.clone());
        // A question that a crash could lose is not asked.
        asked.await.map_err(|error| format!("the question could not be stored: {error}"))?;
        said.question = Some((question.clone(), context.clone()));
        let row = Question { question, context, asked_at: Timestamp::now(), answered: false };
        line.report(Report::Asked(row)).await;
        Ok(ASKED_TEXT.to_owned())
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

/// A hung disk must hold up neither a stop nor the agent for ever.
pub(super) async fn within<T>(work: impl Future<Output = Result<T, TrackerError>>) -> Result<T, TrackerError> {
    tokio::time::timeout(TRACKER_DEADLINE, work).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", TRACKER_DEADLINE.as_secs());
        Err(TrackerError::Io { action: "look at", path: "the issues".to_owned(), message })
    })
}
