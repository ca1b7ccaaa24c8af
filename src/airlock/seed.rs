//! Work into a sandbox: one bundle with everything a fresh work disk needs.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use symphony_core::workflow::Seed;

use super::{Airlock, AirlockError, BASE, EXTRA, FETCH_DEADLINE, HEAD, WIP, import, io};
use crate::git::Oid;
use crate::process::Sink;

/// A seed bundle and what the guest does with it. Its refs are `refs/symphony/{base,head,wip,extra}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedPlan {
    /// The bundle.
    pub bundle: PathBuf,
    /// Where the work starts.
    pub base: Oid,
    /// What the guest's branch points to.
    pub head: Oid,
    /// Uncommitted work to restore uncommitted.
    pub wip: Option<Oid>,
    /// A commit of the untracked and ignored files to put into the work tree.
    pub extra: Option<Oid>,
    /// The guest's branch, for example `agent/ABC-1`.
    pub branch: String,
    /// Goes into the guest's `shallow` file before the bundle is unpacked.
    pub shallow: Vec<Oid>,
}

impl Airlock {
    /// Writes the seed bundle to `bundle`. With [`Seed::All`], the files that `after_create` left
    /// untracked or ignored come along; ask for it for a fresh work disk only.
    ///
    /// # Errors
    /// When it is larger than `max_bytes`; then the file is incomplete.
    pub async fn seed_bundle(&self, bundle: &Path, seed: Seed, max_bytes: u64) -> Result<SeedPlan, AirlockError> {
        let extra = match (seed, &self.workspace) {
            (Seed::All, Some(_)) => self.collect_extra(max_bytes).await?,
            // Plain files are all in the base already.
            _ => None,
        };
        let head = self.head().await?;
        let wip = self.wip().await?;
        let file = std::fs::File::create(bundle).map_err(io("write", bundle))?;
        let mut call = self.repo().args(["bundle", "create", "--quiet", "-", BASE, HEAD]);
        if wip.is_some() {
            call = call.arg(WIP);
        }
        if extra.is_some() {
            call = call.arg(EXTRA);
        }
        let done = call.sink(Sink::File { file, max: max_bytes }).deadline(FETCH_DEADLINE).run().await?;
        if done.stdout.total() > max_bytes {
            return Err(AirlockError::SeedTooLarge { bytes: done.stdout.total(), max: max_bytes });
        }
        Ok(SeedPlan {
            bundle: bundle.to_owned(),
            base: self.base.clone(),
            head,
            wip,
            extra,
            branch: self.key.branch(),
            shallow: self.shallow.clone(),
        })
    }

    /// A commit of what git does not track in the host workspace. symphony's own files stay.
    async fn collect_extra(&self, max_bytes: u64) -> Result<Option<Oid>, AirlockError> {
        let scratch = crate::files::draft(&self.dir).map_err(io("create a file in", &self.dir))?;
        let list = scratch.reopen().map_err(io("open a file in", &self.dir))?;
        let listing = self.git.in_tree(&self.files).args(["ls-files", "--others", "-z"]);
        listing.sink(Sink::File { file: list, max: u64::MAX }).deadline(FETCH_DEADLINE).run().await?;
        let names = std::fs::read(scratch.path()).map_err(io("read", scratch.path()))?;
        let mut paths = Vec::new();
        let mut bytes = 0u64;
        for name in names.split(|byte| *byte == 0) {
            let ours = name.starts_with(b".symphony");
            // A name that ends in a slash is another repository inside this one.
            if name.is_empty() || ours {
                continue;
            }
            if name.ends_with(b"/") {
                let name = String::from_utf8_lossy(name);
                tracing::warn!(key = %self.key, %name, "a repository inside the workspace is not seeded");
                continue;
            }
            let path = self.files.join(std::ffi::OsStr::from_bytes(name));
            let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
            if !meta.is_file() && !meta.is_symlink() {
                continue;
            }
            bytes = bytes.saturating_add(meta.len());
            if bytes > max_bytes {
                return Err(AirlockError::SeedTooLarge { bytes, max: max_bytes });
            }
            paths.extend_from_slice(name);
            paths.push(0);
        }
        if paths.is_empty() {
            return Ok(None);
        }
        let tree = import::tree_of_files(&self.git, &self.dir, &self.files, Some(paths)).await?;
        let commit = self.commit(&tree, &[], "Untracked files of the workspace", import::EPOCH).await?;
        self.repo().args(["update-ref", EXTRA, commit.as_str()]).run().await?;
        Ok(Some(commit))
    }
}
