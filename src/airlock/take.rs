//! Work out of a sandbox: a bundle of unknown intent becomes verified refs, or an error.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::{Airlock, AirlockError, HEAD, LEFT, WIP, header, io};
use crate::git::{GitError, Oid};
use crate::process::{Input, Rlimits, Sink};

/// Address space for checking a guest's objects: inflating one must not exhaust the host.
const CHECK_MEMORY: u64 = 4 << 30;
/// git maps packs into memory; these keep that well below [`CHECK_MEMORY`] in a large repository.
const SMALL_WINDOW: &str = "core.packedGitWindowSize=32m";
const SMALL_MAPS: &str = "core.packedGitLimit=1g";

/// What the guest program says it exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// HEAD in the guest.
    pub head: Oid,
    /// Uncommitted work, as a commit on top of it.
    pub wip: Option<Oid>,
}

/// What one export may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the bundle.
    pub bundle_bytes: u64,
    /// Bytes of all new objects, unpacked.
    pub unpacked_bytes: u64,
    /// For each step of the check.
    pub deadline: Duration,
}

impl Limits {
    /// The limits for `workspace.export_max_mib`: text unpacks to several times its packed size.
    pub fn of_mib(export_max_mib: u64) -> Self {
        let bundle_bytes = export_max_mib.saturating_mul(1 << 20);
        Self { bundle_bytes, unpacked_bytes: bundle_bytes.saturating_mul(10), deadline: Duration::from_secs(300) }
    }
}

/// What stands in the airlock after an accepted export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The verified tip.
    pub head: Oid,
    /// Verified uncommitted work.
    pub wip: Option<Oid>,
    /// Commits from the base to the tip.
    pub commits: u64,
}

impl Airlock {
    /// Verifies an export and moves `head` and `wip` to it, both or neither. Without a bundle the
    /// claim must be of commits that are here already (nothing new to send, or a reset). Repeating it
    /// changes nothing.
    ///
    /// # Errors
    /// Whatever is wrong with the export; then no ref has moved.
    pub async fn take_export(
        &self,
        bundle: Option<&Path>,
        claim: &Claim,
        limits: &Limits,
    ) -> Result<Checkpoint, AirlockError> {
        self.verify(bundle, claim, limits).await?;
        self.accept(claim).await
    }

    /// Like [`Airlock::take_export`], for what an earlier run left on a work disk that is not marked with what
    /// stands here. Only work that continues the head replaces it: else somebody went on without that disk, and
    /// what it held is kept under `refs/symphony/left/` and answered with `None`.
    ///
    /// # Errors
    /// As [`Airlock::take_export`].
    pub async fn take_left(
        &self,
        bundle: Option<&Path>,
        claim: &Claim,
        limits: &Limits,
    ) -> Result<Option<Checkpoint>, AirlockError> {
        self.verify(bundle, claim, limits).await?;
        if self.contains(&self.head().await?, &claim.head).await? {
            return self.accept(claim).await.map(Some);
        }
        let tips = [Some(&claim.head), claim.wip.as_ref()];
        let keep: Vec<String> = tips.into_iter().flatten().map(|tip| format!("update {LEFT}/{tip} {tip}")).collect();
        self.transaction(&keep).await?;
        Ok(None)
    }

    /// Everything that must hold before a ref moves.
    async fn verify(&self, bundle: Option<&Path>, claim: &Claim, limits: &Limits) -> Result<(), AirlockError> {
        if let Some(bundle) = bundle {
            self.unpack(bundle, claim, limits).await?;
        }
        let tips: Vec<&Oid> = [Some(&claim.head), claim.wip.as_ref()].into_iter().flatten().collect();
        for tip in &tips {
            let (code, found) = self.repo().args(["cat-file", "-t", tip.as_str()]).run_any().await?;
            if code != 0 || found.stdout.text().trim() != "commit" {
                return Err(AirlockError::Incomplete(format!("{tip} is not among its commits")));
            }
        }
        self.check_connected(&tips, limits).await?;
        for (what, tip) in [("HEAD", Some(&claim.head)), ("the uncommitted work", claim.wip.as_ref())] {
            if let Some(tip) = tip
                && !self.contains(&self.base, tip).await?
            {
                return Err(AirlockError::NotOnBase { what, oid: tip.clone(), base: self.base.clone() });
            }
        }
        Ok(())
    }

    /// Moves `head` and `wip` to a verified claim.
    async fn accept(&self, claim: &Claim) -> Result<Checkpoint, AirlockError> {
        let wip = match &claim.wip {
            Some(wip) => format!("update {WIP} {wip}"),
            None => format!("delete {WIP}"),
        };
        self.transaction(&[format!("update {HEAD} {}", claim.head), wip]).await?;
        let count =
            self.repo().args(["rev-list", "--count"]).arg(format!("{}..{}", self.base, claim.head)).text().await?;
        let commits =
            count.parse().map_err(|_| GitError::Unexpected { operation: "rev-list".into(), answer: count })?;
        Ok(Checkpoint { head: claim.head.clone(), wip: claim.wip.clone(), commits })
    }

    /// Reads the bundle's header, holds it against the claim, and checks its objects in.
    async fn unpack(&self, bundle: &Path, claim: &Claim, limits: &Limits) -> Result<(), AirlockError> {
        let nofollow = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let mut file = File::options().read(true).custom_flags(nofollow).open(bundle).map_err(io("open", bundle))?;
        let meta = file.metadata().map_err(io("look at", bundle))?;
        if !meta.is_file() {
            return Err(io("read", bundle)(std::io::Error::other("not a regular file")));
        }
        if meta.len() > limits.bundle_bytes {
            return Err(AirlockError::ExportTooLarge { bytes: meta.len(), max: limits.bundle_bytes });
        }
        let mut start = Vec::new();
        (&mut file).take(header::HEADER_MAX as u64).read_to_end(&mut start).map_err(io("read", bundle))?;
        let header = header::parse(&start)?;

        let mut claimed = vec![(claim.head.clone(), HEAD.to_owned())];
        claimed.extend(claim.wip.clone().map(|wip| (wip, WIP.to_owned())));
        let found = header.refs;
        let mut agree = !found.is_empty() && found.iter().all(|named| claimed.contains(named));
        // git leaves a ref out of a bundle when its commit is among those the host already has.
        for (oid, _) in claimed.iter().filter(|named| !found.contains(named)) {
            agree = agree && self.lookup(&format!("{oid}^{{commit}}")).await?.is_some();
        }
        if !agree {
            return Err(AirlockError::ClaimMismatch { found: shown(&found), claimed: shown(&claimed) });
        }
        for needed in &header.prerequisites {
            if self.lookup(&format!("{needed}^{{commit}}")).await?.is_none() {
                return Err(AirlockError::Incomplete(format!("it builds on {needed}, which never arrived")));
            }
        }
        file.seek(SeekFrom::Start(header.pack_at as u64)).map_err(io("read", bundle))?;
        // Not `git fetch <bundle>`: older versions of git do not check a bundle's objects there.
        let checking = self
            .repo()
            .args(["index-pack", "--stdin", "--fix-thin", "--strict", "--threads=1"])
            .arg(format!("--max-input-size={}", limits.bundle_bytes))
            .config("core.bigFileThreshold=32m")
            .config(SMALL_WINDOW)
            .config(SMALL_MAPS)
            .input(Input::File(file))
            .rlimits(self.check_limits(limits))
            .deadline(limits.deadline);
        match checking.run().await {
            Ok(_) => Ok(()),
            Err(GitError::Failed { stderr, .. }) => Err(AirlockError::ObjectsRejected(stderr)),
            Err(error @ (GitError::Killed { .. } | GitError::TimedOut { .. })) => {
                Err(AirlockError::ObjectsRejected(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn check_limits(&self, limits: &Limits) -> Rlimits {
        Rlimits { cpu_seconds: Some(limits.deadline.as_secs().max(1)), memory_bytes: Some(CHECK_MEMORY) }
    }

    /// Walks everything new below the tips: all there, and not too much once unpacked.
    async fn check_connected(&self, tips: &[&Oid], limits: &Limits) -> Result<(), AirlockError> {
        let list = tempfile::tempfile_in(&self.dir).map_err(io("create a file in", &self.dir))?;
        let copy = |file: &File| file.try_clone().map_err(io("open a file in", &self.dir));
        let mut walk =
            self.repo().config(SMALL_WINDOW).config(SMALL_MAPS).args(["rev-list", "--objects", "--no-object-names"]);
        for tip in tips {
            walk = walk.arg(tip.as_str());
        }
        walk = walk.args(["--not", BASE_REF]);
        if self.lookup(HEAD).await?.is_some() {
            walk = walk.arg(HEAD);
        }
        let walk = walk
            .sink(Sink::File { file: copy(&list)?, max: u64::MAX })
            .rlimits(self.check_limits(limits))
            .deadline(limits.deadline);
        match walk.run().await {
            Ok(_) => {}
            Err(GitError::Failed { stderr, .. }) => return Err(AirlockError::Incomplete(stderr)),
            Err(error) => return Err(error.into()),
        }
        let sizes = tempfile::tempfile_in(&self.dir).map_err(io("create a file in", &self.dir))?;
        let mut list = list;
        list.rewind().map_err(io("read a file in", &self.dir))?;
        self.repo()
            .args(["cat-file", "--batch-check=%(objectsize)"])
            .input(Input::File(list))
            .sink(Sink::File { file: copy(&sizes)?, max: u64::MAX })
            .deadline(limits.deadline)
            .run()
            .await?;
        let mut sizes = sizes;
        sizes.rewind().map_err(io("read a file in", &self.dir))?;
        let mut total = 0u64;
        for line in std::io::BufRead::lines(std::io::BufReader::new(sizes)) {
            let line = line.map_err(io("read a file in", &self.dir))?;
            let Ok(size) = line.parse::<u64>() else {
                // A submodule's commit is never here, and need not be.
                if line.ends_with(" missing") { continue } else { return Err(AirlockError::Incomplete(line)) }
            };
            total = total.saturating_add(size);
        }
        if total > limits.unpacked_bytes {
            return Err(AirlockError::ExportTooLarge { bytes: total, max: limits.unpacked_bytes });
        }
        Ok(())
    }
}

const BASE_REF: &str = super::BASE;

fn shown(refs: &[(Oid, String)]) -> String {
    let all: Vec<String> = refs.iter().take(5).map(|(oid, name)| format!("{name:.80} at {oid}")).collect();
    if all.is_empty() { "no ref".to_owned() } else { all.join(", ") }
}
