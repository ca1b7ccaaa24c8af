//! Host workspaces: one directory an issue, cwd of every hook, owned by the host.
//!
//! A workspace is `<root>/<key>` (C134) and counts only when a marker of this instance says it is
//! ready, so a half-made one is made again and a foreign directory is never touched (DESIGN §4.12).
//! The guest never writes here, and nothing here runs what a repository carries.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use symphony_core::ids::WorkspaceKey;
use symphony_core::workflow;

use crate::failpoint::{Phase, reach};
use crate::files::{create_private_dir, remove_tree, write_atomically};
use crate::git::{Git, GitError, Oid};
use crate::hooks::{Hook, HookEnv, HookError, HookRun};

mod clone;
mod ground;

pub use clone::{Begin, IDENTITY, begin};
pub use ground::{Ground, soon};

/// Our own directory inside the root; no issue's key may be this.
const OURS: &str = ".symphony";
/// How long deleting a tree may take.
const REMOVE_DEADLINE: Duration = Duration::from_secs(300);

/// Why there is no usable workspace.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// A link could lead anywhere; nothing was followed, run or removed (C152).
    #[error("{} is a symbolic link; remove it, a workspace must be a real directory", .0.display())]
    IsSymlink(PathBuf),
    /// Something else has the name (C137).
    #[error("{} exists and is not a directory; move it away", .0.display())]
    NotADirectory(PathBuf),
    /// It carries no mark of this instance, so it is not touched.
    #[error("{} was not made by this symphony; move it away, or point workspace.root elsewhere", .0.display())]
    NotOurs(PathBuf),
    /// The key would name something else than a workspace.
    #[error("the issue's name `{0}` cannot name a workspace; rename the issue")]
    InvalidKey(String),
    /// The hook that fills it failed; the directory was removed, the next run tries again (C140).
    #[error("the workspace could not be made: {0}")]
    AfterCreate(#[source] HookError),
    /// `workspace.source` is no repository.
    #[error("workspace.source {} is not a git repository: {reason}", path.display())]
    NoSource {
        /// As configured.
        path: PathBuf,
        /// What git said.
        reason: String,
    },
    /// There is nothing to start from.
    #[error("{} has no commit `{base}`; commit something or set workspace.base", path.display())]
    NoBase {
        /// The repository.
        path: PathBuf,
        /// What was looked for.
        base: String,
    },
    /// The repository's real directory is elsewhere.
    #[error("{}/.git is not a plain directory; linked worktrees and submodules cannot be workspaces, clone instead", .0.display())]
    LinkedGit(PathBuf),
    /// git failed.
    #[error("cannot prepare the workspace: {0}")]
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

/// A workspace that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Absolute; the run keeps it instead of computing it again (C155).
    pub path: PathBuf,
    /// Whether this call made it (C136).
    pub created: bool,
    /// What the agent's commits start from; `None` without a repository.
    pub git: Option<BaseInfo>,
}

/// The commit an issue's work starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseInfo {
    /// HEAD when the workspace was made; it never changes.
    pub base: Oid,
    /// The commits whose parents are missing, for a shallow source.
    pub shallow: Vec<Oid>,
}

/// What [`Workspaces::ensure`] and [`Workspaces::remove`] need to know of one issue and its workflow.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose workspace.
    pub key: &'a WorkspaceKey,
    /// Where `WORKFLOW.md` is; the default source is the repository that holds it.
    pub workflow_dir: &'a Path,
    /// `workspace.*` as dispatched.
    pub settings: &'a workflow::Workspace,
    /// `hooks.*` as dispatched.
    pub hooks: &'a workflow::Hooks,
    /// What hooks are told.
    pub env: &'a HookEnv,
    /// Where their output goes.
    pub log: Option<&'a Path>,
}

impl<'a> Wanted<'a> {
    /// One of the hooks, ready to run in `workspace`; `None` when it is not set.
    pub fn hook(&self, hook: Hook, workspace: &'a Path) -> Option<HookRun<'a>> {
        let script = match hook {
            Hook::AfterCreate => &self.hooks.after_create,
            Hook::BeforeRun => &self.hooks.before_run,
            Hook::AfterRun => &self.hooks.after_run,
            Hook::BeforeRemove => &self.hooks.before_remove,
        };
        let script = script.as_deref()?;
        let deadline = Duration::from_millis(self.hooks.timeout_ms);
        Some(HookRun { hook, script, workspace, env: self.env, deadline, log: self.log })
    }
}

/// What stands in `<root>/.symphony/<key>.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    instance: String,
    /// `false` while it is being made or removed.
    ready: bool,
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    shallow: Vec<String>,
}

/// The workspaces below one root, of one instance. A run keeps the one it was dispatched with.
#[derive(Clone, Debug)]
pub struct Workspaces {
    root: PathBuf,
    instance: String,
    git: Git,
}

impl Workspaces {
    /// Opens `root`, creating it 0700 (C156). `instance` names this symphony across restarts.
    ///
    /// # Errors
    /// When the root cannot be created or is no directory.
    pub fn new(root: &Path, instance: &str, git: Git) -> Result<Self, WorkspaceError> {
        let io = |source| WorkspaceError::Io { action: "create", path: root.to_owned(), source };
        create_private_dir(root).map_err(io)?;
        // The root itself may be a link (C152); everything below is checked against where it leads.
        let root = root.canonicalize().map_err(io)?;
        create_private_dir(&root.join(OURS)).map_err(io)?;
        Ok(Self { root, instance: instance.to_owned(), git })
    }

    /// Where they stand.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this instance made the workspace of `key`, and it is a real directory.
    ///
    /// # Errors
    /// A link or a file in its place, or what the file system says.
    pub fn is_ours(&self, key: &WorkspaceKey) -> Result<bool, WorkspaceError> {
        Ok(self.look(&self.path(key)?)? && self.is_marked(key)?)
    }

    /// Whether this instance says that it made a workspace of `key`, or began to.
    ///
    /// # Errors
    /// What the file system says.
    pub fn is_marked(&self, key: &WorkspaceKey) -> Result<bool, WorkspaceError> {
        Ok(self.marker(key)?.is_some())
    }

    /// Where the workspace of `key` is or would be.
    ///
    /// # Errors
    /// A key that would leave the root or is our own directory.
    pub fn path(&self, key: &WorkspaceKey) -> Result<PathBuf, WorkspaceError> {
        let name = key.as_str();
        let special = name.is_empty() || name == "." || name == ".." || name.contains('/');
        if special || name.eq_ignore_ascii_case(OURS) {
            return Err(WorkspaceError::InvalidKey(name.to_owned()));
        }
        Ok(self.root.join(name))
    }

    /// The workspace of an issue, made and filled if there is none yet. Running it again after a
    /// crash finishes or repeats the work; `after_create` ran to its end exactly once for a ready one.
    ///
    /// # Errors
    /// Everything that keeps it from being ready; a directory we began is gone again then.
    pub async fn ensure(&self, wanted: &Wanted<'_>) -> Result<Ready, WorkspaceError> {
        let path = self.path(wanted.key)?;
        let exists = self.look(&path)?;
        match (self.marker(wanted.key)?, exists) {
            (Some(marker), true) if marker.ready => {
                let git = marker.base.as_deref().and_then(Oid::parse).map(|base| BaseInfo {
                    base,
                    shallow: marker.shallow.iter().filter_map(|oid| Oid::parse(oid)).collect(),
                });
                return Ok(Ready { path, created: false, git });
            }
            // Begun by us and not finished: it holds nobody's work.
            (Some(_), true) => delete_tree(&path).await?,
            (None, true) => return Err(WorkspaceError::NotOurs(path)),
            (_, false) => {}
        }
        let at = |phase| {
            reach("workspace", "make", phase).map_err(|source| WorkspaceError::Io {
                action: "make",
                path: path.clone(),
                source,
            })
        };
        at(Phase::Before)?;
        self.mark(wanted.key, &Marker { instance: self.instance.clone(), ready: false, base: None, shallow: vec![] })?;
        match self.make(wanted, &path).await {
            Ok(git) => {
                let base = git.as_ref().map(|git| git.base.to_string());
                let shallow = git.iter().flat_map(|git| &git.shallow).map(ToString::to_string).collect();
                at(Phase::Torn)?;
                self.mark(wanted.key, &Marker { instance: self.instance.clone(), ready: true, base, shallow })?;
                at(Phase::After)?;
                Ok(Ready { path, created: true, git })
            }
            Err(error) => {
                if let Err(left) = delete_tree(&path).await {
                    tracing::warn!(error = %left, "a half-made workspace is left; the next run removes it");
                } else {
                    self.unmark(wanted.key)?;
                }
                Err(error)
            }
        }
    }

    async fn make(&self, wanted: &Wanted<'_>, path: &Path) -> Result<Option<BaseInfo>, WorkspaceError> {
        if wanted.hooks.after_create.is_some() {
            create_private_dir(path).map_err(|source| WorkspaceError::Io {
                action: "create",
                path: path.to_owned(),
                source,
            })?;
            // In its final place: hooks of 0.1.0 take the name from `$PWD`.
            if let Some(hook) = wanted.hook(Hook::AfterCreate, path) {
                hook.run().await.map_err(WorkspaceError::AfterCreate)?;
            }
        } else {
            let making = making(&self.root).join(wanted.key.as_str());
            delete_tree(&making).await?;
            let io = |action, at: &Path| {
                let path = at.to_owned();
                move |source| WorkspaceError::Io { action, path, source }
            };
            create_private_dir(&making).map_err(io("create", &making))?;
            clone::fill(&self.git, wanted, &making).await?;
            std::fs::rename(&making, path).map_err(io("put in place", path))?;
        }
        self.look(path)?;
        clone::adopt(&self.git, wanted.key, path).await
    }

    /// Runs `before_remove` and deletes the workspace; a failing hook does not keep it (C148). Call it
    /// only when the work is handed off. `false` when there was nothing to delete. It moves into a directory of
    /// ours first: what a kill leaves there is half of nobody's workspace, and goes with the next call.
    ///
    /// # Errors
    /// A link, a foreign directory, or a tree that cannot be deleted.
    pub async fn remove(&self, wanted: &Wanted<'_>) -> Result<bool, WorkspaceError> {
        let path = self.path(wanted.key)?;
        let doomed = removing(&self.root, &self.instance).join(wanted.key.as_str());
        delete_tree(&doomed).await?;
        if !self.look(&path)? {
            self.unmark(wanted.key)?;
            return Ok(false);
        }
        let Some(marker) = self.marker(wanted.key)? else { return Err(WorkspaceError::NotOurs(path)) };
        if marker.ready
            && let Some(hook) = wanted.hook(Hook::BeforeRemove, &path)
        {
            // The hook's failure is in the log already.
            let _ = hook.run().await;
        }
        let at = |phase| {
            reach("workspace", "remove", phase).map_err(|source| WorkspaceError::Io {
                action: "remove",
                path: path.clone(),
                source,
            })
        };
        at(Phase::Before)?;
        // The hook may have put something else there.
        self.look(&path)?;
        self.mark(wanted.key, &Marker { ready: false, ..marker })?;
        let moved = || -> std::io::Result<()> {
            doomed.parent().map_or(Ok(()), create_private_dir)?;
            std::fs::rename(&path, &doomed)
        };
        moved().map_err(|source| WorkspaceError::Io { action: "put away", path: path.clone(), source })?;
        at(Phase::Torn)?;
        delete_tree(&doomed).await?;
        self.unmark(wanted.key)?;
        at(Phase::After)?;
        Ok(true)
    }

    /// Whether a real directory is at `path`.
    fn look(&self, path: &Path) -> Result<bool, WorkspaceError> {
        match std::fs::symlink_metadata(path) {
            Ok(meta) if meta.is_symlink() => Err(WorkspaceError::IsSymlink(path.to_owned())),
            Ok(meta) if meta.is_dir() => Ok(true),
            Ok(_) => Err(WorkspaceError::NotADirectory(path.to_owned())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(WorkspaceError::Io { action: "look at", path: path.to_owned(), source }),
        }
    }

    fn marker_path(&self, key: &WorkspaceKey) -> PathBuf {
        marks(&self.root).join(format!("{}.json", key.as_str()))
    }

    /// Our marker of `key`; another instance's or an unreadable one counts as none.
    fn marker(&self, key: &WorkspaceKey) -> Result<Option<Marker>, WorkspaceError> {
        let path = self.marker_path(key);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let marker = serde_json::from_slice::<Marker>(&bytes).ok();
                Ok(marker.filter(|marker| marker.instance == self.instance))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(WorkspaceError::Io { action: "read", path, source }),
        }
    }

    fn mark(&self, key: &WorkspaceKey, marker: &Marker) -> Result<(), WorkspaceError> {
        let path = self.marker_path(key);
        let io = |source| WorkspaceError::Io { action: "write", path: path.clone(), source };
        let bytes = serde_json::to_vec(marker).map_err(|error| io(error.into()))?;
        write_atomically(&path, &bytes).map_err(io)
    }

    fn unmark(&self, key: &WorkspaceKey) -> Result<(), WorkspaceError> {
        if self.marker(key)?.is_none() {
            return Ok(());
        }
        let path = self.marker_path(key);
        std::fs::remove_file(&path).map_err(|source| WorkspaceError::Io { action: "remove", path, source })
    }
}

/// Where below `root` the marks of workspaces are.
pub(crate) fn marks(root: &Path) -> PathBuf {
    root.join(OURS)
}

/// Where below `root` workspaces are filled before they are in their place.
pub(crate) fn making(root: &Path) -> PathBuf {
    marks(root).join("making")
}

/// Where below `root` workspaces of this instance are while they are deleted. Whatever is there is half a workspace.
pub(crate) fn removing(root: &Path, instance: &str) -> PathBuf {
    root.join(OURS).join("removing").join(instance)
}

/// Deletes a tree without following links; a missing one is fine.
async fn delete_tree(path: &Path) -> Result<(), WorkspaceError> {
    let tree = path.to_owned();
    let io = |source| WorkspaceError::Io { action: "delete", path: path.to_owned(), source };
    let deleting = tokio::task::spawn_blocking(move || remove_tree(&tree));
    match tokio::time::timeout(REMOVE_DEADLINE, deleting).await {
        Ok(Ok(result)) => result.map_err(io),
        Ok(Err(error)) => Err(io(std::io::Error::other(error))),
        Err(_) => Err(io(std::io::ErrorKind::TimedOut.into())),
    }
}

#[cfg(test)]
mod tests;
