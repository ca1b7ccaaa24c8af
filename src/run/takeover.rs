//! A work disk that another runtime left: when the workflow changes the runtime, what never came out of the old disk is
//! taken off it first, through the runtime whose it is. Nothing is removed that did not come out.

use symphony_core::board::{FailureCode, RunEnd};

use super::inside::GUEST_GRACE;
use super::line::{Line, Report};
use super::{Attempt, failed};
use crate::airlock::Airlock;
use crate::sandbox::choose::Picked;

/// The word on a marker: before it had one, there was only the jail.
fn holder_of(marker: &str) -> &str {
    match marker.trim() {
        "" => "jail",
        word => word,
    }
}

impl Attempt {
    /// Leaves no work disk of another runtime: work on it is rescued, an older copy of what we have is removed.
    pub(super) async fn take_over(&self, airlock: &Airlock, line: &Line) -> Result<(), RunEnd> {
        let own = self.picked.kind.runtime();
        let marker = self.parts.layout.unexported(&self.key);
        let said = match tokio::fs::read_to_string(&marker).await {
            Ok(said) => Some(said),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(failed(FailureCode::RescueFailed, format!("cannot read {}: {error}", marker.display())));
            }
        };
        if let Some(holder) = said.as_deref().map(holder_of).filter(|holder| *holder != own) {
            line.report(Report::Phase("rescuing")).await;
            self.rescue_from(holder, airlock).await?;
            let removed = tokio::fs::remove_file(&marker).await;
            removed.map_err(|error| {
                failed(FailureCode::RescueFailed, format!("cannot remove {}: {error}", marker.display()))
            })?;
        }
        let others = self.parts.sandboxes.owners().into_iter().filter(|other| other.kind.runtime() != own);
        for other in others {
            let disk = self.disk_of(&other);
            if !self.parts.sandboxes.may_hold(&other, &disk).await {
                continue;
            }
            // Found again later, it would look like newer work than what was done since.
            other.sandbox.discard_disk(&disk).await.map_err(|error| {
                let message = format!("the older work disk of {} stays: {error}", other.kind.runtime());
                failed(FailureCode::RescueFailed, message)
            })?;
        }
        Ok(())
    }

    /// Boots the other runtime on its own disk, without an agent, and takes what it holds.
    async fn rescue_from(&self, holder: &str, airlock: &Airlock) -> Result<(), RunEnd> {
        let refused = |why: String| {
            let disk = self.parts.layout.work_disk(holder, &self.key);
            let message = format!(
                "work that never came out stands on the work disk {} of {holder}, and {why}; nothing was removed (hint: make {holder} work here again, or remove the disk and {} to give that work up)",
                disk.display(),
                self.parts.layout.unexported(&self.key).display(),
            );
            failed(FailureCode::RescueFailed, message)
        };
        let other = self.parts.sandboxes.working(holder).await;
        let other: Picked = other.map_err(|why| refused(format!("that runtime does not work here: {why}")))?;
        let (mut guest, channel, disk) =
            self.boot(&other).await.map_err(|end| refused(format!("it could not be asked for it: {end}")))?;
        let current = self.marker(airlock).await.map_err(|error| failed(FailureCode::AirlockError, error))?;
        let taken = match (disk.tree, &disk.marker) {
            (true, Some(marker)) => Some(self.take_tree(airlock, &channel, *marker == current).await),
            // Never seeded to its end: nobody's work.
            _ => None,
        };
        if let Err(error) = channel.shutdown(GUEST_GRACE).await {
            tracing::debug!(run_id = self.plan.run.0, %error, "the rescue's guest did not say goodbye");
        }
        drop(channel);
        guest.stop(GUEST_GRACE).await;
        match taken {
            None | Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => {
                tracing::warn!(issue_id = %self.plan.issue.id, "the agent's branch moved on without what the work disk of {holder} holds, which is kept in the airlock below refs/symphony/left");
                Ok(())
            }
            Some(Err(error)) if error.is_broken_tree() => {
                tracing::warn!(issue_id = %self.plan.issue.id, %error, "what the work disk of {holder} holds cannot be taken; starting from the last good work");
                Ok(())
            }
            Some(Err(error)) => Err(refused(format!("it could not be taken: {error}"))),
        }
    }
}
