//! Work into a sandbox and out of it again: seeding, exporting, rescuing. Nothing that a guest sent
//! counts before the airlock has verified it.

use std::path::PathBuf;
use std::time::Duration;

use symphony_core::board::{FailureCode, RunEnd};
use symphony_guest::wire::{ExportRequest, Identity, RefusalKind, SeedRequest};

use super::inside::{DiskState, GUEST_GRACE};
use super::line::{Line, Report};
use super::{Attempt, failed, marker};
use crate::airlock::{Airlock, AirlockError, Checkpoint, Claim, Limits};
use crate::failpoint::{Phase, reach};
use crate::git::Oid;
use crate::sandbox::channel::{Channel, ChannelError};

/// For unpacking a seed in the guest.
const SEED_MS: u64 = 600_000;
/// For bundling an export in the guest.
const EXPORT_MS: u64 = 120_000;
/// A guest that does not even answer a ping by then stands still.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Why an export did not arrive in the airlock.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The guest or the channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The check of what it sent.
    #[error(transparent)]
    Airlock(#[from] AirlockError),
    /// Our own disk.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The bundle.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ExportError {
    /// Whether the agent can do something about it; then the message is written for it.
    pub(super) fn is_for_the_agent(&self) -> bool {
        match self {
            Self::Airlock(error) => error.is_for_the_agent(),
            Self::Channel(ChannelError::Refused(refusal)) => refusal.kind == RefusalKind::TooLarge,
            _ => false,
        }
    }

    /// Whether there is no guest that could ever answer: its disk is asked through another one.
    pub(super) fn is_guest_gone(&self) -> bool {
        let Self::Channel(error) = self else { return false };
        matches!(
            error,
            ChannelError::Closed(_) | ChannelError::BrokenOff(_) | ChannelError::Timeout { what: "ping", .. }
        )
    }

    /// Whether the guest saw that there is no repository, or no commit, that work could come out of. A git that merely
    /// failed proves nothing: it does so for want of memory or room, too.
    pub(super) fn is_broken_tree(&self) -> bool {
        let Self::Channel(ChannelError::Refused(refusal)) = self else { return false };
        refusal.kind == RefusalKind::Tree
    }
}

impl Attempt {
    /// Makes the work disk hold exactly the newest work: keeps a tree that does, rescues one that is
    /// ahead of the airlock, seeds everything else. `stood`: the disk is marked, so a tree must be on it; a mark is set
    /// behind a seed only, and goes before the next one.
    pub(super) async fn prepare_disk(
        &self,
        airlock: &Airlock,
        channel: &Channel,
        disk: &DiskState,
        stood: bool,
        line: &Line,
    ) -> Result<(), RunEnd> {
        if stood && !disk.holds_work() {
            let (place, mark) = (self.disk_of(&self.picked), self.parts.layout.unexported(&self.key));
            let message = format!(
                "work that never came out stood on the work disk {}, and no work tree is on it any more; nothing was removed (hint: put the disk back, or the project where it was when the disk was made, or remove {} to give that work up)",
                place.display(),
                mark.display()
            );
            return Err(failed(FailureCode::RescueFailed, message));
        }
        let work = async {
            let current = self.marker(airlock).await.map_err(|error| failed(FailureCode::AirlockError, error))?;
            if disk.holds_work() {
                let kept = disk.marker.as_deref() == Some(&current);
                // Asked of a tree we know too: an agent may have broken it, and then no run could ever end.
                if !kept {
                    // An earlier run, or an earlier symphony, died before its export.
                    line.report(Report::Phase("rescuing")).await;
                }
                match self.take_tree(airlock, channel, kept).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => {
                        tracing::warn!(issue_id = %self.plan.issue.id, "the agent's branch moved on without what the work disk holds, which is kept in the airlock below refs/symphony/left; starting from the branch");
                    }
                    // The agent is told, and mends it.
                    Err(error) if kept && error.is_for_the_agent() => return Ok(()),
                    Err(error) if error.is_for_the_agent() || error.is_broken_tree() => {
                        tracing::warn!(issue_id = %self.plan.issue.id, %error, "what an earlier run left cannot be taken; starting from the last good work");
                    }
                    Err(error) => {
                        let message = format!(
                            "what stands on the work disk {} cannot be taken: {error}; it is kept (hint: if this stays so, save what you need from it and remove it to start from the last good work)",
                            self.disk_of(&self.picked).display()
                        );
                        return Err(failed(FailureCode::RescueFailed, message));
                    }
                }
            }
            if stood {
                // What the tree held is taken or given up. A kill in the middle of a seed must not look like its loss.
                marker::clear(&self.parts.layout, &self.key).map_err(|error| {
                    failed(FailureCode::RescueFailed, format!("the work is out, but its mark stays: {error}"))
                })?;
            }
            self.seed(airlock, channel, disk.tree, line).await
        };
        tokio::select! {
            done = work => done,
            cause = line.stopped() => Err(RunEnd::Stopped(cause)),
        }
    }

    async fn seed(&self, airlock: &Airlock, channel: &Channel, wipe: bool, line: &Line) -> Result<(), RunEnd> {
        line.report(Report::Phase("seeding")).await;
        let settings = &self.workflow.workspace;
        let max_bytes = settings.seed_max_mib.saturating_mul(1 << 20);
        let bundle = self.dir.join("seed.bundle");
        let plan = airlock
            .seed_bundle(&bundle, settings.seed, max_bytes)
            .await
            .map_err(|error| failed(FailureCode::SeedFailed, error))?;
        let request = SeedRequest {
            head: plan.head.to_string(),
            branch: plan.branch,
            wip: plan.wip.map(|oid| oid.to_string()),
            extra: plan.extra.map(|oid| oid.to_string()),
            shallow: plan.shallow.iter().map(ToString::to_string).collect(),
            identity: Identity { name: "symphony-agent".into(), email: "agent@symphony.local".into() },
            wipe,
            max_bytes,
            timeout_ms: SEED_MS,
        };
        let mut file = tokio::fs::File::open(&bundle).await.map_err(|error| failed(FailureCode::SeedFailed, error))?;
        channel.seed(request, &mut file).await.map_err(|error| failed(FailureCode::SeedFailed, error))?;
        let marker = self.marker(airlock).await.map_err(|error| failed(FailureCode::AirlockError, error))?;
        channel.marker(&marker).await.map_err(|error| failed(FailureCode::SeedFailed, error))
    }

    /// What the work disk is marked with when it holds exactly what the airlock holds.
    pub(super) async fn marker(&self, airlock: &Airlock) -> Result<String, AirlockError> {
        let wip = airlock.wip().await?.map_or_else(|| "-".to_owned(), |oid| oid.to_string());
        Ok(format!("{} {wip}", airlock.head().await?))
    }

    /// Takes what the work tree holds beyond the airlock. With a message it is the last export: what
    /// is uncommitted becomes a commit.
    pub(super) async fn export(
        &self,
        airlock: &Airlock,
        channel: &Channel,
        message: Option<String>,
    ) -> Result<Checkpoint, ExportError> {
        let (bundle, claim, limits) = self.receive(airlock, channel, message).await?;
        let checkpoint = airlock.take_export(bundle.as_deref(), &claim, &limits).await?;
        let at = |phase| {
            let write = |source| ExportError::Write { path: self.disk_of(&self.picked).display().to_string(), source };
            reach("disk", "marker", phase).map_err(write)
        };
        at(Phase::Before)?;
        channel.marker(&self.marker(airlock).await?).await?;
        at(Phase::After)?;
        Ok(checkpoint)
    }

    /// Takes what the tree of a work disk holds; `kept`: the airlock is where the tree was last. `false`: the airlock
    /// went on without it.
    pub(super) async fn take_tree(
        &self,
        airlock: &Airlock,
        channel: &Channel,
        kept: bool,
    ) -> Result<bool, ExportError> {
        match kept {
            true => self.export(airlock, channel, None).await.map(|_| true),
            false => self.export_left(airlock, channel).await,
        }
    }

    /// Takes what an earlier run left on its work disk. `false`: the airlock went on without it.
    async fn export_left(&self, airlock: &Airlock, channel: &Channel) -> Result<bool, ExportError> {
        let (bundle, claim, limits) = self.receive(airlock, channel, None).await?;
        let taken = airlock.take_left(bundle.as_deref(), &claim, &limits).await?.is_some();
        if taken {
            channel.marker(&self.marker(airlock).await?).await?;
        }
        Ok(taken)
    }

    /// An export on our disk, unverified: its bundle, if there is anything new, and what it is said to hold.
    async fn receive(
        &self,
        airlock: &Airlock,
        channel: &Channel,
        message: Option<String>,
    ) -> Result<(Option<PathBuf>, Claim, Limits), ExportError> {
        let limits = Limits::of_mib(self.workflow.workspace.export_max_mib);
        let have = [Some(airlock.base().clone()), Some(airlock.head().await?), airlock.wip().await?];
        let request = ExportRequest {
            have: have.into_iter().flatten().map(|oid| oid.to_string()).collect(),
            base: airlock.base().to_string(),
            max_bytes: limits.bundle_bytes,
            is_final: message.is_some(),
            commit_message: message,
            timeout_ms: EXPORT_MS,
        };
        let path = self.dir.join("export.bundle");
        let write = |source| ExportError::Write { path: path.display().to_string(), source };
        let mut file = tokio::fs::File::create(&path).await.map_err(write)?;
        // A guest that stands still is found out here, not after the time that an export may take.
        channel.ping(SIGN_OF_LIFE).await?;
        let exported = channel.export(request, &mut file).await?;
        file.sync_all().await.map_err(write)?;
        let oid =
            |text: &str| Oid::parse(text).ok_or_else(|| ChannelError::Protocol(format!("`{text}` names no commit")));
        let claim = Claim { head: oid(&exported.head)?, wip: exported.wip.as_deref().map(oid).transpose()? };
        Ok(((!exported.empty).then_some(path), claim, limits))
    }

    /// The guest died before its export: a fresh sandbox without an agent exports from its work disk.
    pub(super) async fn rescue(&self, airlock: &Airlock, message: Option<String>) -> Result<(), ExportError> {
        let (mut guest, channel, disk) = match self.boot(&self.picked, self.rescue_sizes(&self.picked)).await {
            Ok(booted) => booted,
            Err(end) => return Err(ChannelError::Protocol(format!("no sandbox for the rescue: {end}")).into()),
        };
        let exported = match disk.tree {
            true => self.export(airlock, &channel, message).await.map(drop),
            false => Err(ChannelError::Protocol("no work tree is on its work disk any more".to_owned()).into()),
        };
        if let Err(error) = channel.shutdown(GUEST_GRACE).await {
            tracing::debug!(run_id = self.plan.run.0, %error, "the rescue's guest did not say goodbye");
        }
        drop(channel);
        guest.stop(GUEST_GRACE).await;
        exported
    }
}
