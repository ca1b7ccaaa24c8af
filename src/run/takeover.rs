//! A work disk that another runtime left: when the workflow changes the runtime, what never came out of the old disk is
//! taken off it first, through the runtime whose it is. Nothing is removed that did not come out.

use std::path::{Path, PathBuf};

use symphony_core::board::{FailureCode, RunEnd};
use symphony_core::runtimes::Kind;

use super::inside::GUEST_GRACE;
use super::line::{Line, Report};
use super::{Attempt, failed, marker};
use crate::airlock::Airlock;
use crate::sandbox::choose::Picked;

impl Attempt {
    /// Leaves no work disk of another runtime: work on it is rescued, an older copy of what we have is removed. Says
    /// whether our own disk may hold work that never came out.
    pub(super) async fn take_over(&self, airlock: &Airlock, line: &Line) -> Result<bool, RunEnd> {
        let own = self.picked.kind.runtime();
        let refused = |why: String| failed(FailureCode::RescueFailed, why);
        let marks = marker::standing(&self.parts.layout, &self.key);
        let mut stood = false;
        for mark in marks.map_err(|error| refused(format!("cannot look at {error}")))? {
            let said = tokio::fs::read_to_string(&mark).await;
            let said = said.map_err(|error| refused(format!("cannot read {}: {error}", mark.display())))?;
            let holder = self.holder(&said).await.map_err(|why| {
                let place = mark.display();
                refused(format!("work may stand on a work disk only, but {place} {why}; nothing was removed (hint: write the word of the runtime that has the work into it, or remove it to give that work up)"))
            })?;
            match holder {
                Some(holder) if holder == own => {
                    stood = true;
                    continue;
                }
                Some(holder) => {
                    line.report(Report::Phase("rescuing")).await;
                    self.rescue_from(holder, &mark, airlock).await?;
                }
                // No disk stands that could hold anything.
                None => {}
            }
            let removed = tokio::fs::remove_file(&mark).await;
            removed.map_err(|error| refused(format!("cannot remove {}: {error}", mark.display())))?;
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
        Ok(stood)
    }

    /// Whose work disk a mark speaks of.
    async fn holder(&self, said: &str) -> Result<Option<&'static str>, String> {
        let (mut known, mut holding) = (vec![], vec![]);
        for owner in self.parts.sandboxes.owners() {
            known.push(owner.kind.runtime());
            if tokio::fs::try_exists(self.disk_of(&owner)).await.unwrap_or(true) {
                holding.push(owner.kind.runtime());
            }
        }
        marker::holder(said, &known, &holding)
    }

    /// Puts a disk that nothing comes out of where nobody looks for work any more; says where. A person may still.
    async fn give_up(&self, other: &Picked) -> Result<PathBuf, String> {
        // What stands there of a smolvm machine is only its name, and the next machine would get the same.
        if other.kind == Kind::Smolvm {
            return Err("a machine of smolvm cannot be put aside".to_owned());
        }
        let aside = self.parts.layout.given_up(other.kind.runtime(), &self.key, self.plan.run);
        tokio::fs::rename(self.disk_of(other), &aside)
            .await
            .map_err(|error| format!("it cannot be put aside at {}: {error}", aside.display()))?;
        // From now on it stays as long as any that is not used.
        crate::files::touch(&aside);
        Ok(aside)
    }

    /// Boots the other runtime on its own disk, without an agent, and takes what it holds.
    async fn rescue_from(&self, holder: &str, mark: &Path, airlock: &Airlock) -> Result<(), RunEnd> {
        let refused = |why: String| {
            let disk = self.parts.layout.work_disk(holder, &self.key);
            let message = format!(
                "work that never came out stands on the work disk {} of {holder}, and {why}; nothing was removed (hint: make {holder} work here again, or remove the disk and {} to give that work up)",
                disk.display(),
                mark.display(),
            );
            failed(FailureCode::RescueFailed, message)
        };
        let other = self.parts.sandboxes.working(holder, &self.workflow).await;
        let other: Picked = other.map_err(|why| refused(format!("that runtime does not work here: {why}")))?;
        let booted = self.boot(&other, self.rescue_sizes(&other)).await;
        let (mut guest, channel, disk) =
            booted.map_err(|end| refused(format!("it could not be asked for it: {end}")))?;
        let current = self.marker(airlock).await.map_err(|error| failed(FailureCode::AirlockError, error))?;
        let taken = match disk.holds_work() {
            true => Some(self.take_tree(airlock, &channel, disk.marker.as_ref() == Some(&current)).await),
            false => None,
        };
        if let Err(error) = channel.shutdown(GUEST_GRACE).await {
            tracing::debug!(run_id = self.plan.run.0, %error, "the rescue's guest did not say goodbye");
        }
        drop(channel);
        guest.stop(GUEST_GRACE).await;
        match taken {
            // Marked, it was seeded to its end: this is another disk, or half of that one.
            None => Err(refused("no work tree is on it any more".to_owned())),
            Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => {
                tracing::warn!(issue_id = %self.plan.issue.id, "the agent's branch moved on without what the work disk of {holder} holds, which is kept in the airlock below refs/symphony/left");
                Ok(())
            }
            Some(Err(error)) if error.is_broken_tree() => {
                let aside = self.give_up(&other).await;
                let aside = aside.map_err(|why| refused(format!("it could not be taken: {error}; {why}")))?;
                tracing::warn!(issue_id = %self.plan.issue.id, %error, aside = %aside.display(), "nothing can be taken from the work disk of {holder}, which was put aside; starting from the last good work");
                Ok(())
            }
            Some(Err(error)) => Err(refused(format!("it could not be taken: {error}"))),
        }
    }
}
