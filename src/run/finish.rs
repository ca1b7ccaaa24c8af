//! The order of ending (DESIGN §6): export → patch → compare-and-move → notes → `after_run` → cleanup.
//!
//! The export has happened when this begins. The patch comes before anything else may fail, and each
//! step gives the same result when it is repeated after a crash.

use jiff::Timestamp;
use symphony_core::board::{ParkReason, RunEnd};
use symphony_core::ids::StateName;
use symphony_core::snapshot::EventRow;
use symphony_core::workflow::Role;

use super::Attempt;
use super::line::{Line, Report};
use super::tools::within;
use super::word::{Claim, Handover, note};
use crate::airlock::Airlock;
use crate::handoff::patch::{self, Handed};
use crate::tracker::TrackerError;

impl Attempt {
    /// Leaves the patch, moves the agent's branch, moves the issue. Nothing here runs again by itself:
    /// what fails needs a person, because the agent's work is finished.
    pub(super) async fn hand_off(&self, airlock: &Airlock, claim: &Claim, line: &Line) -> RunEnd {
        line.report(Report::Phase("handing off")).await;
        if let Err(end) = self.leave(airlock, Some(claim), line).await {
            return end;
        }
        self.move_to_done().await.unwrap_or_else(|error| self.kept(error))
    }

    /// The same for an issue that goes to the state its agent named. Only work that is over becomes a patch: what is
    /// handed on stays as it is, uncommitted files too, for the run that takes it up.
    pub(super) async fn hand_on(&self, airlock: &Airlock, handover: &Handover, line: &Line) -> RunEnd {
        line.report(Report::Phase("handing on")).await;
        if let Err(end) = self.leave(airlock, handover.claim.as_ref(), line).await {
            return end;
        }
        match self.move_on(handover).await {
            Ok(Some(to)) if to == self.workflow.states.done_target() => RunEnd::Done,
            Ok(Some(to)) => RunEnd::Moved(to),
            Ok(None) => RunEnd::NoLongerActive,
            Err(error) => self.kept(error),
        }
    }

    fn kept(&self, what: impl std::fmt::Display) -> RunEnd {
        let detail = format!("{what}; the work is in .symphony/airlock/{}.git, refs/symphony/head", self.key.as_str());
        RunEnd::NeedsHuman(ParkReason::HandoffFailed { detail })
    }

    /// The patch, if the work is over, and the agent's branch.
    async fn leave(&self, airlock: &Airlock, over: Option<&Claim>, line: &Line) -> Result<(), RunEnd> {
        if let Some(Claim { title, summary }) = over {
            let message = patch::message(title, summary, &self.plan.issue.identifier.0);
            airlock.commit_wip(&message).await.map_err(|error| self.kept(error))?;
            if self.workflow.handoff.patch {
                let written = patch::write(airlock, &self.parts.layout.patches(), title, summary).await;
                self.tell(line, written.map_err(|error| self.kept(error))?).await;
            }
        }
        self.advance(airlock).await
    }

    async fn tell(&self, line: &Line, handed: Handed) {
        let message = match &handed {
            Handed::Patch(patch) => {
                let command = patch.command();
                tracing::info!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
                    path = %patch.path.display(), commits = patch.commits, bytes = patch.bytes,
                    "patch written; take the work with: {command}");
                command
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

    /// Compare-and-move from where the issue was when the move was accepted, then the notes. `None`: a person moved it
    /// meanwhile, which stands, and nothing is added to the issue.
    async fn move_on(&self, handover: &Handover) -> Result<Option<StateName>, TrackerError> {
        let Handover { from, to, .. } = handover;
        // The tracker takes a file that stands in the target for its own success; here a person put it there.
        if self.current_state().await? != *from {
            return Ok(None);
        }
        // Kept beside the run until it is in the issue: a kill after the move must not lose it.
        let (note, kept) = (note(handover, Timestamp::now()), self.dir.join("notes.md"));
        let mut written = Ok(());
        if let Some(note) = &note {
            written = tokio::fs::write(&kept, note).await;
        }
        match within(self.tracker.move_issue(&self.plan.issue.id, from, to)).await {
            Ok(_) => {}
            Err(TrackerError::Elsewhere { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let Some(note) = note else { return Ok(Some(to.clone())) };
        match within(self.tracker.append_note(&self.plan.issue.id, &note)).await {
            Ok(()) => drop(tokio::fs::remove_file(&kept).await),
            // The issue is where it belongs: to park it for its notes would only hide it.
            Err(error) => {
                tracing::error!(issue_id = %self.plan.issue.id, issue_identifier = %self.plan.issue.identifier,
                %error, kept = %kept.display(), written = written.is_ok(),
                "the agent's notes could not be added to its issue")
            }
        }
        Ok(Some(to.clone()))
    }
}
