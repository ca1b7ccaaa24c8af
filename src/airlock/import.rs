//! Filling an airlock from the host workspace: by a fetch, or by reading plain files.

use std::path::Path;

use super::{ATTRIBUTES, AirlockError, BASE, BRANCH, EXTRA, FETCH_DEADLINE, HEAD, WIP, io};
use crate::files::create_private_dir;
use crate::git::{Git, Oid};
use crate::process::Input;
use crate::workspace::{IDENTITY, Ready};

/// The date of commits that must come out the same when they are made again.
pub(super) const EPOCH: &str = "@1 +0000";

/// Makes the repository in `dir`, with its base.
pub(super) async fn make(git: &Git, dir: &Path, ready: &Ready) -> Result<(), AirlockError> {
    create_private_dir(dir).map_err(io("create", dir))?;
    let format = match &ready.git {
        Some(info) if info.base.as_str().len() == 64 => "sha256",
        _ => "sha1",
    };
    git.anywhere()
        .args(["init", "--quiet", "--bare", "--template="])
        .arg(format!("--object-format={format}"))
        .arg(dir)
        .run()
        .await?;
    let info = dir.join("info");
    create_private_dir(&info).map_err(io("create", &info))?;
    std::fs::write(info.join("attributes"), ATTRIBUTES).map_err(io("write", &info))?;
    match &ready.git {
        Some(info) => fetch(git, dir, &ready.path, &format!("{}:{BASE}", info.base)).await,
        None => {
            let tree = tree_of_files(git, dir, &ready.path, None).await?;
            let base = commit(git, dir, &tree, &[], "Files of the workspace", EPOCH).await?;
            git.bare(dir).args(["update-ref", BASE, base.as_str()]).run().await?;
            Ok(())
        }
    }
}

/// Copies the objects of one ref from the host workspace; nothing is hard-linked or borrowed.
pub(super) async fn fetch(git: &Git, dir: &Path, workspace: &Path, refspec: &str) -> Result<(), AirlockError> {
    git.bare(dir)
        .args(["fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head", "--update-shallow"])
        .arg(workspace)
        .arg(refspec)
        .deadline(FETCH_DEADLINE)
        .run()
        .await?;
    Ok(())
}

/// Starts over on a newer base and keeps the older work under `refs/symphony/old/<old base>/`.
pub(super) async fn rebase_airlock(
    git: &Git,
    dir: &Path,
    workspace: &Path,
    old: &Oid,
    new: &Oid,
) -> Result<(), AirlockError> {
    // Under a name of its own first: a crash in between leaves the old base in force.
    fetch(git, dir, workspace, &format!("+{new}:refs/symphony/next")).await?;
    let mut lines = String::from("start\n");
    for name in [HEAD, WIP] {
        if let Some(oid) = git.bare(dir).args(["rev-parse", "--verify", "--quiet", name]).oid_if_any().await? {
            let short = name.rsplit('/').next().unwrap_or(name);
            lines.push_str(&format!("update refs/symphony/old/{old}/{short} {oid}\ndelete {name} {oid}\n"));
        }
    }
    lines.push_str(&format!(
        "delete {EXTRA}\ndelete {BRANCH}\nupdate {BASE} {new} {old}\ndelete refs/symphony/next\nprepare\ncommit\n"
    ));
    git.bare(dir).args(["update-ref", "--stdin"]).input(Input::Bytes(lines.into_bytes())).run().await?;
    Ok(())
}

/// The commits at which the history here is cut off.
pub(super) fn shallow_of(dir: &Path) -> Result<Vec<Oid>, AirlockError> {
    let path = dir.join("shallow");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(Oid::parse).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io("read", &path)(error)),
    }
}

/// Reads files into a tree through a temporary index: all of them, or the NUL-ended `paths`.
/// symphony's own directories are left out, git's always are.
pub(super) async fn tree_of_files(
    git: &Git,
    dir: &Path,
    files: &Path,
    paths: Option<Vec<u8>>,
) -> Result<Oid, AirlockError> {
    let scratch =
        tempfile::Builder::new().prefix(crate::files::WRITING).tempdir_in(dir).map_err(io("create a file in", dir))?;
    let index = scratch.path().join("index");
    let call = || git.bare(dir).work_tree(files).env("GIT_INDEX_FILE", &index).deadline(FETCH_DEADLINE);
    match paths {
        None => {
            let all =
                ["add", "-A", "-f", "--", ".", ":(exclude,top,glob).symphony*", ":(exclude,top,glob).symphony*/**"];
            call().args(all).run().await?;
        }
        Some(paths) => {
            call().args(["update-index", "--add", "-z", "--stdin"]).input(Input::Bytes(paths)).run().await?;
        }
    }
    Ok(call().arg("write-tree").oid().await?)
}

/// A commit by symphony.
pub(super) async fn commit(
    git: &Git,
    dir: &Path,
    tree: &Oid,
    parents: &[&Oid],
    message: &str,
    date: &str,
) -> Result<Oid, AirlockError> {
    let mut call = git.bare(dir).args(["commit-tree", tree.as_str(), "-F", "-"]);
    for parent in parents {
        call = call.args(["-p", parent.as_str()]);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        call = call
            .env(&format!("GIT_{who}_NAME"), IDENTITY.0)
            .env(&format!("GIT_{who}_EMAIL"), IDENTITY.1)
            .env(&format!("GIT_{who}_DATE"), date);
    }
    Ok(call.input(Input::Bytes(message.replace('\0', "").into_bytes())).oid().await?)
}
