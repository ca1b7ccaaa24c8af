//! The order of ending (DESIGN §6): export → patch → compare-and-move → `after_run` → cleanup.
//!
//! The export has happened when this begins. The patch comes before anything else may fail, and each
//! step gives the same result when it is repeated after a crash.

use jiff::Timestamp;
use symphony_core::board::{ParkReason, RunEnd};
use symphony_core::snapshot::EventRow;
use symphony_core::workflow::Role;

use super::Attempt;
use super::line::{Line, Report};
use super::tools::within;
use crate::airlock::Airlock;
use crate::handoff::patch::{self, Handed};
use crate::tracker::TrackerError;

impl Attempt {
    /// Leaves the patch, moves the agent's branch, moves the issue. Nothing here runs again by itself:
    /// what fails needs a person, because the agent's work is finished.
    pub(super) async fn hand_off(&self, airlock: &Airlock, title: &str, summary: &str, line: &Line) -> RunEnd {
        let kept = |what: String| {
            let detail =
                format!("{what}; the work is in .symphony/airlock/{}.git, refs/symphony/head", self.key.as_str());
            RunEnd::NeedsHuman(ParkReason::HandoffFailed { detail })
        };
        line.report(Report::Phase("handing off")).await;
        let message = patch::message(title, summary, &self.plan.issue.identifier.0);
        if let Err(error) = airlock.commit_wip(&message).await {
            return kept(error.to_string());
        }
        if self.workflow.handoff.patch {
            match patch::write(airlock, &self.parts.layout.patches(), title, summary).await {
                Ok(handed) => self.tell(line, handed).await,
                Err(error) => return kept(error.to_string()),
            }
        }
        if let Err(trouble) = self.advance(airlock).await {
            return trouble;
        }
        match self.move_to_done().await {
            Ok(end) => end,
            Err(error) => kept(error.to_string()),
        }
    }

    async fn tell(&self, line: &Line, handed: Handed) {
        let message = match &handed {
            Handed::Patch(patch) => {
                tracing::info!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
                    path = %patch.path.display(), commits = patch.commits, bytes = patch.bytes,
                    "patch written; apply it with: git am {}", patch.path.display());
                format!("git am {}", patch.path.display())
            }
            Handed::Nothing => {
                tracing::info!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
                    "done without a change: no patch");
                "done without a change".to_owned()
            }
        };
        line.report(Report::Event(EventRow { at: Timestamp::now(), event: "handoff".into(), message })).await;
    }

    /// Compare-and-move from wherever the issue is active now; a person's move wins (lesson 19).
    async fn move_to_done(&self) -> Result<RunEnd, TrackerError> {
        let target = self.workflow.states.done_target();
        let from = self.current_state().await?;
        if from == target {
            return Ok(RunEnd::Done);
        }
        if self.workflow.states.role(&from) != Role::Active {
            return Ok(RunEnd::NoLongerActive);
        }
        match within(self.tracker.move_issue(&self.plan.issue.id, &from, &target)).await {
            Ok(_) => Ok(RunEnd::Done),
            // Somebody moved it between our look and our move.
            Err(TrackerError::Elsewhere { .. }) => Ok(RunEnd::NoLongerActive),
            Err(error) => Err(error),
        }
    }
}
