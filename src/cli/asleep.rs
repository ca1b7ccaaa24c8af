//! Words for an agent while no symphony runs: kept in the journal, under the workflow's lock, for the next start.

use std::path::Path;

use symphony_core::issue::Issue;
use symphony_core::steering::By;
use symphony_core::workflow::{Role, Workflow};

use super::words::{Errand, Refused};
use crate::app;
use crate::journal::{Answered, Journal};
use crate::layout::Layout;
use crate::lock::Lock;
use crate::tracker::Tracker as _;
use crate::tracker::markdown::MarkdownTracker;
use crate::workflow_file::{Environment, WorkflowFile};

impl Refused {
    fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string(), hint: None }
    }

    fn with(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Keeps the words; the identifier of the issue whose agent gets them.
///
/// # Errors
/// When the workflow, the issue or the journal is not to be used, or nobody asked.
pub(super) fn keep(workflow: &Path, dir: &Path, name: &str, text: String, errand: Errand) -> Result<String, Refused> {
    let layout = Layout::of(dir);
    if !workflow.exists() {
        let message = format!("there is no workflow file at {}", workflow.display());
        return Err(Refused::new(2, message).with("go to where it stands, or name it with --workflow"));
    }
    if !layout.journal().exists() {
        let message = format!("no symphony runs on {}, and none has run there yet", workflow.display());
        return Err(Refused::new(1, message).with("start one: `symphony`, with the workflow"));
    }
    let file = WorkflowFile::load(workflow, Environment::of_process())
        .map_err(|error| Refused::new(error.exit_code(), error))?;
    let _lock = Lock::take(&layout).map_err(|error| Refused::new(1, error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Refused::new(1, format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let workflow = file.workflow();
        let issue = find(&workflow, name).await?;
        let origin = app::origin(&layout).map_err(|error| Refused::new(1, error))?;
        let (journal, memory) = Journal::open(&layout.journal(), origin).map_err(|error| Refused::new(1, error))?;
        let asks = memory.questions.contains_key(&issue.id);
        let identifier = issue.identifier.0.clone();
        match errand {
            Errand::Answer { question } => {
                let kept = journal.answered(issue.id, question, text, By::Cli).await;
                match kept.map_err(|error| Refused::new(1, format!("the answer could not be stored: {error}")))? {
                    Answered::Taken(_) => {}
                    Answered::Already => {
                        let message = format!("the question of {identifier} was answered already");
                        return Err(Refused::new(1, message).with("the first answer counts; this one was not kept"));
                    }
                    Answered::NotAsked => {
                        let message = format!("no question of {identifier} is waiting for an answer");
                        let hint = format!("`symphony say {identifier}` tells its agent something unasked");
                        return Err(Refused::new(1, message).with(hint));
                    }
                }
            }
            Errand::Say { .. } if asks => {
                let message = format!("the agent of {identifier} asks something itself; answer its question");
                return Err(Refused::new(1, message).with(format!("use `symphony answer {identifier}`")));
            }
            Errand::Say { .. } if workflow.states.role(&issue.state) != Role::Active => {
                let message = format!("{identifier} is in {}, where nobody works", issue.state);
                return Err(Refused::new(1, message).with("move it to an active state first"));
            }
            Errand::Say { .. } => {
                let kept = journal.said(issue.id, text, By::Cli).await;
                kept.map_err(|error| Refused::new(1, format!("it could not be stored: {error}")))?;
            }
        }
        Ok(identifier)
    })
}

/// The issue of this name as it stands on disk: by identifier or id exactly, else without regard to case, if that
/// leaves one.
async fn find(workflow: &Workflow, name: &str) -> Result<Issue, Refused> {
    let scan = MarkdownTracker::new(workflow.tracker.root.clone()).scan().await;
    let scan = scan.map_err(|error| Refused::new(1, format!("the issues could not be read: {error}")))?;
    let file = name.rsplit('/').next().and_then(|file| file.strip_suffix(".md")).unwrap_or(name).trim();
    let is_it = |issue: &&Issue| issue.identifier.0 == file || issue.id.0 == file;
    let folded = file.to_lowercase();
    let is_alike = |issue: &&Issue| issue.identifier.0.to_lowercase() == folded || issue.id.0.to_lowercase() == folded;
    let mut exactly = scan.issues.iter().filter(is_it);
    let mut alike = scan.issues.iter().filter(is_alike);
    let found = match (exactly.next(), exactly.next(), alike.next(), alike.next()) {
        (Some(issue), None, ..) | (None, _, Some(issue), None) => issue,
        (None, ..) if scan.malformed.iter().any(|bad| bad.stem() == file) => {
            return Err(Refused::new(2, format!("the file of {file} cannot be read as an issue")).with("mend it first"));
        }
        (None, _, None, _) => return Err(Refused::new(2, format!("there is no issue `{name}`"))),
        _ => return Err(Refused::new(2, format!("{name} may mean several issues")).with("name it exactly")),
    };
    Ok(found.clone())
}
