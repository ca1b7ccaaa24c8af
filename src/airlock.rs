//! The airlock: one host-owned quarantine repository an issue, through which all work crosses.
//!
//! Work goes in as a bundle we make and comes out as a bundle we verify. What a guest sent is only
//! ever data here: it is never checked out, its configuration never read, and it moves a ref only
//! after size, format, objects, claims and ancestry were checked. Refs in the repository:
//! `refs/symphony/base` (where work starts), `head` (newest verified tip), `wip` (uncommitted work),
//! `extra` (untracked files to seed), `left/*` (work put aside), `branch` (the value of the agent's
//! branch on the host that the work takes into account).

use std::path::{Path, PathBuf};
use std::time::Duration;

use symphony_core::board::Left;
use symphony_core::ids::WorkspaceKey;

use crate::failpoint::{Phase, reach};
use crate::files::create_private_dir;
use crate::git::{Call, Git, GitError, Oid};
use crate::process::Input;
use crate::workspace::Ready;

mod branch;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod header;
mod import;
mod seed;
mod take;

pub use branch::Advance;
pub use header::HeaderError;
pub use seed::SeedPlan;
pub use take::{Checkpoint, Claim, Limits};

/// Where work starts.
pub(crate) const BASE: &str = "refs/symphony/base";
/// The newest verified tip.
pub(crate) const HEAD: &str = "refs/symphony/head";
/// Uncommitted work on top of it.
pub(crate) const WIP: &str = "refs/symphony/wip";
const EXTRA: &str = "refs/symphony/extra";
const BRANCH: &str = "refs/symphony/branch";
const FOUND: &str = "refs/symphony/found";
/// Below it: work that nothing continues, kept for a person.
const LEFT: &str = "refs/symphony/left";

/// Wins over any `.gitattributes` in a tree: nothing is converted, filtered, hidden or substituted.
const ATTRIBUTES: &str = "* -text !eol -filter -ident -working-tree-encoding !merge !export-ignore !export-subst\n";
/// Fetching a whole repository may take a while.
const FETCH_DEADLINE: Duration = Duration::from_secs(600);

/// Why nothing crossed.
#[derive(Debug, thiserror::Error)]
pub enum AirlockError {
    /// A guest's export is larger than `workspace.export_max_mib`.
    #[error("the export has {bytes} bytes, workspace.export_max_mib allows {max}; remove large files from the commits")]
    ExportTooLarge {
        /// Its size, or what it unpacks to.
        bytes: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// What goes into a fresh sandbox is larger than `workspace.seed_max_mib`.
    #[error(
        "the work to seed has {bytes} bytes, workspace.seed_max_mib allows {max}; raise it, or seed tracked files only"
    )]
    SeedTooLarge {
        /// Bytes counted so far.
        bytes: u64,
        /// The cap in bytes.
        max: u64,
    },
    /// The export is no bundle that we accept.
    #[error("the export is not a bundle symphony accepts: {0}")]
    NotABundle(#[from] HeaderError),
    /// The bundle carries other refs than the guest program announced.
    #[error("the export carries {found}, but the guest announced {claimed}")]
    ClaimMismatch {
        /// In the bundle.
        found: String,
        /// In the announcement.
        claimed: String,
    },
    /// git rejected its objects: broken, forbidden names such as `.git`, or too expensive to check.
    #[error("the objects of the export were rejected: {0}")]
    ObjectsRejected(String),
    /// Objects that the commits need did not come along.
    #[error("the export is incomplete: {0}")]
    Incomplete(String),
    /// The history does not start at the base.
    #[error(
        "{what} {oid} does not descend from {base}; rebase the work onto it (`git rebase --onto {base} --root`), do not start a new history"
    )]
    NotOnBase {
        /// `HEAD` or the uncommitted work.
        what: &'static str,
        /// Its commit.
        oid: Oid,
        /// The commit it must contain.
        base: Oid,
    },
    /// The repository the airlock belongs to changed its kind under our feet.
    #[error("the airlock {} does not fit its workspace: {reason}", path.display())]
    Unfit {
        /// The airlock.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The agent's branch could not be checked out.
    #[error("workspace.checkout is `agent`, but the branch could not be checked out: {0}")]
    Checkout(String),
    /// git failed.
    #[error("in the airlock: {0}")]
    Git(#[from] GitError),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl AirlockError {
    /// Whether the agent can do something about it; then the message is written for it.
    pub fn is_for_the_agent(&self) -> bool {
        matches!(self, Self::ExportTooLarge { .. } | Self::NotOnBase { .. } | Self::ObjectsRejected(_))
    }
}

/// The airlock of one issue, open.
#[derive(Clone, Debug)]
pub struct Airlock {
    git: Git,
    dir: PathBuf,
    key: WorkspaceKey,
    base: Oid,
    /// The host workspace, if it is a repository.
    workspace: Option<PathBuf>,
    files: PathBuf,
    shallow: Vec<Oid>,
}

impl Airlock {
    /// Opens `<state_dir>/airlock/<key>.git`, made from the workspace when it does not exist, and
    /// takes in what a person did to the agent's branch meanwhile. Safe to repeat after a crash.
    ///
    /// # Errors
    /// When the workspace's objects cannot be copied.
    pub async fn open(git: Git, state_dir: &Path, key: &WorkspaceKey, ready: &Ready) -> Result<Self, AirlockError> {
        let root = state_dir.join("airlock");
        create_private_dir(&root).map_err(io("create", &root))?;
        let dir = root.join(format!("{}.git", key.as_str()));
        let workspace = ready.git.is_some().then(|| ready.path.clone());
        if !dir.exists() {
            let making = root.join(format!(".making-{}", key.as_str()));
            match std::fs::remove_dir_all(&making) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io("clear", &making)(error)),
                _ => {}
            }
            let at = |phase| reach("airlock", "make", phase).map_err(io("make", &dir));
            at(Phase::Before)?;
            import::make(&git, &making, ready).await?;
            at(Phase::Torn)?;
            std::fs::rename(&making, &dir).map_err(io("put in place", &dir))?;
            at(Phase::After)?;
        } else {
            sweep(&dir);
        }
        if let Some(workspace) = &workspace {
            for ours in ["refs/symphony", "refs/heads/agent"] {
                sweep_refs(&workspace.join(".git").join(ours));
            }
        }
        let found = git.bare(&dir).args(["rev-parse", "--verify", "--quiet", BASE]).oid_if_any().await?;
        let unfit = |reason: &str| AirlockError::Unfit { path: dir.clone(), reason: reason.to_owned() };
        let mut base = found.ok_or_else(|| unfit("it has no base; move it away, a new one will be made"))?;
        if let Some(info) = &ready.git
            && info.base != base
        {
            // A new workspace on a newer base: the older work is kept under another name.
            import::rebase_airlock(&git, &dir, &ready.path, &base, &info.base).await?;
            base = info.base.clone();
        }
        let shallow = import::shallow_of(&dir)?;
        let airlock = Self { git, dir, key: key.clone(), base, workspace, files: ready.path.clone(), shallow };
        airlock.refresh_branch().await?;
        Ok(airlock)
    }

    /// Takes the agent's branch from the workspace, and makes it the head when it continues it. `branch`
    /// is where we put it or knowingly worked from; only from there may it be moved later.
    async fn refresh_branch(&self) -> Result<(), AirlockError> {
        let head = self.lookup(HEAD).await?;
        let mut next = head.clone().unwrap_or_else(|| self.base.clone());
        let mut lines = Vec::new();
        if let Some(workspace) = &self.workspace
            && let Some(tip) = self.branch_in(workspace).await?
            && self.lookup(BRANCH).await?.as_ref() != Some(&tip)
        {
            import::fetch(&self.git, &self.dir, workspace, &format!("+{tip}:{FOUND}")).await?;
            if self.contains(&next, &tip).await? {
                if next != tip {
                    lines.extend(self.carry_wip(&tip).await?);
                }
                next = tip.clone();
                lines.push(format!("update {BRANCH} {tip}"));
            } else if self.contains(&tip, &next).await? {
                lines.push(format!("update {BRANCH} {tip}"));
            }
            lines.push(format!("delete {FOUND}"));
        }
        if head.as_ref() != Some(&next) {
            lines.push(format!("update {HEAD} {next}"));
        }
        if lines.is_empty() { Ok(()) } else { self.transaction(&lines).await }
    }

    /// The uncommitted work on top of `tip`, which somebody committed after it: its tree alone would undo what they
    /// did. Where the two do not fit together, theirs stands and the uncommitted work is kept under a name of its own.
    async fn carry_wip(&self, tip: &Oid) -> Result<Vec<String>, AirlockError> {
        let Some(wip) = self.wip().await? else { return Ok(Vec::new()) };
        let merging = self.repo().args(["merge-tree", "--write-tree", "--no-messages", tip.as_str(), wip.as_str()]);
        let (code, merged) = merging.deadline(FETCH_DEADLINE).run_any().await?;
        match Oid::parse(merged.stdout.text().trim()).filter(|_| code == 0) {
            Some(tree) => {
                let moved = self.commit(&tree, &[tip], "Uncommitted work", &self.date_of(&wip).await?).await?;
                Ok(vec![format!("update {WIP} {moved} {wip}")])
            }
            None => {
                tracing::warn!(key = %self.key, kept = %format!("{LEFT}/{wip}"),
                    "uncommitted work does not fit what was committed to the agent's branch meanwhile; it is put aside");
                Ok(vec![format!("update {LEFT}/{wip} {wip}"), format!("delete {WIP} {wip}")])
            }
        }
    }

    /// Deletes the airlock of an issue whose work is handed off. `false` when there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub async fn remove(state_dir: &Path, key: &WorkspaceKey) -> Result<bool, AirlockError> {
        let dir = state_dir.join("airlock").join(format!("{}.git", key.as_str()));
        let target = dir.clone();
        let deleting = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(target));
        match deleting.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io("delete", &dir)(error)),
        }
    }

    /// The commit that every export must descend from.
    pub fn base(&self) -> &Oid {
        &self.base
    }

    /// The newest verified tip; the base before any work.
    ///
    /// # Errors
    /// When git fails.
    pub async fn head(&self) -> Result<Oid, AirlockError> {
        Ok(self.lookup(HEAD).await?.unwrap_or_else(|| self.base.clone()))
    }

    /// Uncommitted work on top of the head, if any came.
    ///
    /// # Errors
    /// When git fails.
    pub async fn wip(&self) -> Result<Option<Oid>, AirlockError> {
        self.lookup(WIP).await
    }

    /// The tree of the newest work, committed or not.
    ///
    /// # Errors
    /// When git fails.
    pub async fn newest_tree(&self) -> Result<Oid, AirlockError> {
        let newest = match self.wip().await? {
            Some(wip) => wip,
            None => self.head().await?,
        };
        self.tree_of(&newest).await
    }

    /// What is here now; changed when the newest tree is not `before`.
    ///
    /// # Errors
    /// When git fails.
    pub async fn left_since(&self, before: Option<&Oid>) -> Result<Left, AirlockError> {
        let range = format!("{}..{}", self.base, self.head().await?);
        let counted = self.repo().args(["rev-list", "--count", &range]).text().await?;
        Ok(Left {
            changed: before != Some(&self.newest_tree().await?),
            commits: counted.trim().parse().unwrap_or(u32::MAX),
            uncommitted: self.wip().await?.is_some(),
        })
    }

    /// Whether the host workspace is a repository; without one there is no branch to move.
    pub fn has_repository(&self) -> bool {
        self.workspace.is_some()
    }

    /// The key of the issue it belongs to.
    pub fn key(&self) -> &WorkspaceKey {
        &self.key
    }

    /// A git command in the airlock.
    pub(crate) fn repo(&self) -> Call {
        self.git.bare(&self.dir)
    }

    /// A git command outside any repository.
    pub(crate) fn plain_git(&self) -> Call {
        self.git.anywhere()
    }

    pub(crate) async fn lookup(&self, name: &str) -> Result<Option<Oid>, AirlockError> {
        Ok(self.repo().args(["rev-parse", "--verify", "--quiet", name]).oid_if_any().await?)
    }

    async fn branch_in(&self, workspace: &Path) -> Result<Option<Oid>, AirlockError> {
        let name = format!("refs/heads/{}", self.key.branch());
        Ok(self
            .git
            .bare(&workspace.join(".git"))
            .args(["rev-parse", "--verify", "--quiet", &name])
            .oid_if_any()
            .await?)
    }

    /// Whether `later` has `earlier` in its history. Both must be here.
    async fn contains(&self, earlier: &Oid, later: &Oid) -> Result<bool, AirlockError> {
        let call = self.repo().args(["merge-base", "--is-ancestor", earlier.as_str(), later.as_str()]);
        match call.run_any().await? {
            (0, _) => Ok(true),
            (1, _) => Ok(false),
            (code, finished) => {
                let stderr = finished.stderr.excerpt(1500);
                Err(GitError::Failed { operation: "merge-base".into(), code, stderr }.into())
            }
        }
    }

    /// Moves several refs at once, or none: lines of `git update-ref --stdin`.
    async fn transaction(&self, lines: &[String]) -> Result<(), AirlockError> {
        let mut input = String::from("start\n");
        for line in lines {
            input.push_str(line);
            input.push('\n');
        }
        input.push_str("prepare\ncommit\n");
        let at = |phase| reach("airlock", "refs", phase).map_err(io("move the refs of", &self.dir));
        at(Phase::Before)?;
        self.repo().args(["update-ref", "--stdin"]).input(Input::Bytes(input.into_bytes())).run().await?;
        at(Phase::After)
    }

    /// At handoff, uncommitted work becomes a commit with this message. `None` when there is none.
    /// Repeating it changes nothing; taking the same export again afterwards would undo it.
    ///
    /// # Errors
    /// When git fails.
    pub async fn commit_wip(&self, message: &str) -> Result<Option<Oid>, AirlockError> {
        let Some(wip) = self.wip().await? else { return Ok(None) };
        let head = self.head().await?;
        let tree = self.tree_of(&wip).await?;
        if tree == self.tree_of(&head).await? {
            self.repo().args(["update-ref", "-d", WIP, wip.as_str()]).run().await?;
            return Ok(None);
        }
        let commit = self.commit(&tree, &[&head], message, &self.date_of(&wip).await?).await?;
        self.transaction(&[format!("update {HEAD} {commit} {head}"), format!("delete {WIP} {wip}")]).await?;
        Ok(Some(commit))
    }

    pub(crate) async fn tree_of(&self, commit: &Oid) -> Result<Oid, AirlockError> {
        Ok(self.repo().args(["rev-parse", "--verify", "--quiet"]).arg(format!("{commit}^{{tree}}")).oid().await?)
    }

    /// The date of a guest's commit, as git takes it; an absurd one becomes the epoch.
    pub(crate) async fn date_of(&self, commit: &Oid) -> Result<String, AirlockError> {
        let text = self.repo().args(["show", "--no-patch", "--format=%ct", commit.as_str()]).text().await?;
        // Until the year 2100: git's own limits lie further out and depend on its version.
        let seconds = text.trim().parse::<u64>().ok().filter(|seconds| *seconds < 4_102_444_800).unwrap_or(0);
        Ok(format!("@{seconds} +0000"))
    }

    /// A commit of our own. The date is an argument so that repeating gives the same commit.
    pub(crate) async fn commit(
        &self,
        tree: &Oid,
        parents: &[&Oid],
        message: &str,
        date: &str,
    ) -> Result<Oid, AirlockError> {
        import::commit(&self.git, &self.dir, tree, parents, message, date).await
    }
}

/// How old a lock must be that only a git which is gone can hold. A ref is locked for milliseconds; a fetch may take
/// as long as its deadline.
const STALE: Duration = Duration::from_secs(15 * 60);
const STALE_REF: Duration = Duration::from_secs(10);

/// Removes what a power cut or a killed git left: a stale lock would block a ref for ever, or for so long that every
/// retry fails on it. Only symphony uses this repository, and no lock in it is held this long.
fn sweep(dir: &Path) {
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let (name, Ok(meta)) = (entry.file_name(), entry.metadata()) else { continue };
            let name = name.to_string_lossy();
            if meta.is_dir() {
                // Loose objects have no locks and may be many.
                if name == "refs" && at == dir {
                    sweep_refs(&entry.path());
                } else if name != "objects" || at != dir {
                    pending.push(entry.path());
                } else {
                    pending.push(entry.path().join("pack"));
                }
                continue;
            }
            let about_refs = name == "HEAD.lock" || name == "packed-refs.lock";
            if name.ends_with(".lock") || name.starts_with("tmp_") {
                remove_stale(&entry.path(), &meta, if about_refs { STALE_REF } else { STALE });
            }
        }
    }
}

/// The same for locks of refs alone; also in a workspace, for those that only symphony moves.
fn sweep_refs(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            sweep_refs(&entry.path());
        } else if entry.file_name().as_encoded_bytes().ends_with(b".lock") {
            remove_stale(&entry.path(), &meta, STALE_REF);
        }
    }
}

fn remove_stale(path: &Path, meta: &std::fs::Metadata, after: Duration) {
    if meta.modified().ok().and_then(|at| at.elapsed().ok()).is_some_and(|age| age > after) {
        tracing::warn!(path = %path.display(), "removing what an interrupted git left");
        let _ = std::fs::remove_file(path);
    }
}

/// An [`AirlockError::Io`] about `path`.
fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> AirlockError + use<> {
    let path = path.to_owned();
    move |source| AirlockError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
