//! Filling a workspace from a source repository, and taking over one that a hook filled.
//!
//! Objects are copied, never hard-linked or borrowed: whoever writes to a workspace must not reach
//! the source through it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use symphony_core::ids::WorkspaceKey;
use symphony_core::workflow::{self, Workflow};

use super::{BaseInfo, Wanted, WorkspaceError};
use crate::git::{Call, Git, GitError, Oid};

/// The identity of commits that symphony makes (0.1.0).
pub const IDENTITY: (&str, &str) = ("symphony-agent", "agent@symphony.local");

/// Copying a whole repository may take a while.
const FETCH_DEADLINE: Duration = Duration::from_secs(600);

/// A repository to start from.
struct Source {
    /// What to fetch from.
    path: String,
    git_dir: String,
}

/// Clones the source into the empty directory `dir`, or leaves it empty when there is no source.
pub(super) async fn fill(git: &Git, wanted: &Wanted<'_>, dir: &Path) -> Result<(), WorkspaceError> {
    let Some(source) = find_source(git, wanted.workflow_dir, wanted.settings).await? else { return Ok(()) };
    let (base, branch) = find_base(git, wanted.settings, &source).await?;
    let at_source = || git.bare(Path::new(&source.git_dir));
    let format = at_source().args(["rev-parse", "--show-object-format"]).text().await?;

    git.anywhere()
        .args(["init", "--quiet", "--template="])
        .arg(format!("--object-format={format}"))
        .arg(dir)
        .run()
        .await?;
    let here = || git.in_tree(dir);
    let mut fetch = here().args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]);
    if is_partial(at_source()).await? {
        // Its older files may be missing; those of the base are what it has checked out.
        fetch = fetch.arg("--depth=1");
    } else {
        fetch = fetch.arg("--update-shallow");
    }
    fetch.arg(&source.path).arg(format!("{base}:refs/symphony/base")).deadline(FETCH_DEADLINE).run().await?;
    let agents = wanted.key.branch();
    let in_the_way = |name: &str| agents.starts_with(&format!("{name}/")) || name.starts_with(&format!("{agents}/"));
    // git keeps branches as files: `agent` and `agent/ABC-1` cannot both be.
    if let Some(branch) = branch.filter(|name| !in_the_way(name)) {
        // Hooks of 0.1.0 look for the base branch by its name.
        here().args(["update-ref", &format!("refs/heads/{branch}"), base.as_str()]).run().await?;
    }
    here().args(["config", "user.name", IDENTITY.0]).run().await?;
    here().args(["config", "user.email", IDENTITY.1]).run().await?;
    here().args(["checkout", "--quiet", "--detach", base.as_str()]).deadline(FETCH_DEADLINE).run().await?;
    here().args(["update-ref", "-d", "refs/symphony/base"]).run().await?;
    Ok(())
}

/// What workspaces of a workflow are filled from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// A commit of a repository.
    Commit,
    /// `hooks.after_create` fills them; nobody knows with what.
    Hook,
    /// Nothing: this directory is in no repository.
    Nothing(PathBuf),
}

/// What workspaces are filled from, without making one.
///
/// # Errors
/// What would keep every run from having one.
pub async fn begin(git: &Git, workflow: &Workflow) -> Result<Begin, WorkspaceError> {
    if workflow.hooks.after_create.is_some() {
        return Ok(Begin::Hook);
    }
    match find_source(git, &workflow.dir, &workflow.workspace).await? {
        None => Ok(Begin::Nothing(workflow.dir.clone())),
        Some(source) => find_base(git, &workflow.workspace, &source).await.map(|_| Begin::Commit),
    }
}

/// Whether the source left objects out that it would fetch on demand, which we never do.
async fn is_partial(source: Call) -> Result<bool, WorkspaceError> {
    let promises = "^(extensions[.]partialclone|remote[.].*[.](promisor|partialclonefilter))$";
    let (code, _) = source.args(["config", "--local", "--get-regexp", promises]).run_any().await?;
    Ok(code == 0)
}

async fn find_source(
    git: &Git,
    workflow_dir: &Path,
    settings: &workflow::Workspace,
) -> Result<Option<Source>, WorkspaceError> {
    let dir = settings.source.as_deref().unwrap_or(workflow_dir);
    let ask = |what: &'static str| git.discovering(dir).args(["rev-parse", what]).text();
    let git_dir = match ask("--absolute-git-dir").await {
        Ok(git_dir) => git_dir,
        // The workflow stands in no repository: work happens on plain files.
        Err(GitError::Failed { .. }) if settings.source.is_none() => return Ok(None),
        Err(error @ GitError::Failed { .. }) => {
            return Err(WorkspaceError::NoSource { path: dir.to_owned(), reason: error.to_string() });
        }
        Err(error) => return Err(error.into()),
    };
    // A bare repository has no top level; it is fetched from directly.
    let path = match ask("--show-toplevel").await {
        Ok(top) => top,
        Err(GitError::Failed { .. }) => git_dir.clone(),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Source { path, git_dir }))
}

/// The commit to start from, and the name of the source's branch there, if it is one.
async fn find_base(
    git: &Git,
    settings: &workflow::Workspace,
    source: &Source,
) -> Result<(Oid, Option<String>), WorkspaceError> {
    let at_source = || git.bare(Path::new(&source.git_dir));
    let commit = |name: String| {
        at_source()
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options"])
            .arg(format!("{name}^{{commit}}"))
            .oid_if_any()
    };
    let missing = |base: &str| WorkspaceError::NoBase { path: source.path.clone().into(), base: base.to_owned() };
    match settings.base.as_deref() {
        None => {
            let oid = commit("HEAD".into()).await?.ok_or_else(|| missing("HEAD"))?;
            let (code, found) = at_source().args(["symbolic-ref", "--quiet", "--short", "HEAD"]).run_any().await?;
            let branch = (code == 0).then(|| found.stdout.text().trim().to_owned());
            Ok((oid, branch.filter(|name| !name.is_empty())))
        }
        Some(base) => {
            for (name, branch) in [
                (format!("refs/heads/{base}"), true),
                (format!("refs/remotes/origin/{base}"), true),
                (base.to_owned(), false),
            ] {
                if let Some(oid) = commit(name).await? {
                    return Ok((oid, branch.then(|| base.to_owned())));
                }
            }
            Err(missing(base))
        }
    }
}

/// Records what a workspace starts from, makes sure of the agent's branch, and detaches HEAD there
/// without touching a file: a branch that moves must not be the one that is checked out.
pub(super) async fn adopt(git: &Git, key: &WorkspaceKey, path: &Path) -> Result<Option<BaseInfo>, WorkspaceError> {
    let dot_git = path.join(".git");
    match std::fs::symlink_metadata(&dot_git) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(WorkspaceError::Io { action: "look at", path: dot_git, source }),
        Ok(meta) if !meta.is_dir() || dot_git.join("commondir").exists() => {
            return Err(WorkspaceError::LinkedGit(path.to_owned()));
        }
        Ok(_) => {}
    }
    let here = || git.bare(&dot_git);
    let base = here().args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).oid_if_any().await?;
    let base = base.ok_or_else(|| WorkspaceError::NoBase { path: path.to_owned(), base: "HEAD".into() })?;
    let branch = format!("refs/heads/{}", key.branch());
    if here().args(["rev-parse", "--verify", "--quiet", &branch]).oid_if_any().await?.is_none() {
        here().args(["update-ref", &branch, base.as_str(), &base.nil()]).run().await?;
    }
    here().args(["update-ref", "--no-deref", "HEAD", base.as_str()]).run().await?;
    let shallow = match std::fs::read_to_string(dot_git.join("shallow")) {
        Ok(text) => text.lines().filter_map(Oid::parse).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(WorkspaceError::Io { action: "read", path: dot_git.join("shallow"), source }),
    };
    Ok(Some(BaseInfo { base, shallow }))
}
