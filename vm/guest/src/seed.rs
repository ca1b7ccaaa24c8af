//! `seed`: builds the work tree from a bundle. Until the last step has reached the disk the tree does not count as ready,
//! so a crash half way is never taken for a tree.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::time::timeout;

use crate::git::{Git, check_oid};
use crate::mux::MuxStream;
use crate::serve::{Guest, refuse, reply};
use crate::state;
use crate::wire::{self, FrameKind, Refusal, RefusalKind, SeedRequest};

const BUNDLE: &str = "seed.bundle";

/// Serves one seed request to its end.
pub(crate) async fn serve(guest: &Arc<Guest>, stream: MuxStream, request: SeedRequest) {
    let (mut input, output) = tokio::io::split(stream);
    let bundle = guest.dirs.state.join(BUNDLE);
    let within = Duration::from_millis(request.timeout_ms);
    let work = async {
        let _tree = guest.tree.lock().await;
        receive(&mut input, &bundle, request.max_bytes).await?;
        build(guest, &request, &bundle, within).await
    };
    let result = timeout(within, work)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(RefusalKind::Timeout, "the seed did not finish in time")));
    let _ = fs::remove_file(&bundle);
    match result {
        Ok(()) => reply(output, &()).await,
        Err(refusal) => refuse(output, refusal).await,
    }
}

fn disk(what: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |e| Refusal::new(RefusalKind::Io, format!("cannot {what}: {e}"))
}

async fn receive(input: &mut (impl AsyncRead + Unpin), path: &Path, cap: u64) -> Result<(), Refusal> {
    let mut file = tokio::fs::File::from_std(state::fresh(path).map_err(disk("store the bundle"))?);
    let mut total = 0u64;
    loop {
        match wire::read_frame(input).await {
            Ok(Some(frame)) if frame.kind == FrameKind::Data => {
                total = total.saturating_add(frame.payload.len() as u64);
                if total > cap {
                    return Err(Refusal::new(RefusalKind::TooLarge, format!("the bundle exceeds {cap} bytes")));
                }
                file.write_all(&frame.payload).await.map_err(disk("store the bundle"))?;
            }
            Ok(Some(frame)) if frame.kind == FrameKind::End => break,
            _ => return Err(Refusal::new(RefusalKind::BadRequest, "the bundle broke off")),
        }
    }
    file.flush().await.map_err(disk("store the bundle"))
}

async fn build(guest: &Guest, request: &SeedRequest, bundle: &Path, within: Duration) -> Result<(), Refusal> {
    let named = [Some(&request.head), request.wip.as_ref(), request.extra.as_ref()];
    for oid in named.into_iter().flatten().chain(&request.shallow) {
        check_oid(oid)?;
    }
    let (work, state_dir) = (&guest.dirs.work, &guest.dirs.state);
    if state::tree_ready(state_dir) && !request.wipe {
        return Err(Refusal::new(RefusalKind::Tree, "the work disk already holds a tree; ask for it to be wiped"));
    }
    state::clear_ready(state_dir).map_err(disk("mark the tree as being built"))?;
    empty(work).map_err(disk("empty the work tree"))?;

    let git = Git::new(work, &guest.groups, within);
    let branch = format!("refs/heads/{}", request.branch);
    git.run(&["check-ref-format", &branch]).await?;
    let format = if request.head.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    git.run(&["init", "-q", "--template=", format, "."]).await?;
    if !request.shallow.is_empty() {
        let list = request.shallow.join("\n") + "\n";
        fs::write(work.join(".git/shallow"), list).map_err(disk("write the shallow file"))?;
    }
    let bundle = bundle.display().to_string();
    let refs = "+refs/symphony/*:refs/symphony/*";
    git.run(&["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", &bundle, refs]).await?;
    git.run(&["update-ref", &branch, &request.head]).await?;
    git.run(&["symbolic-ref", "HEAD", &branch]).await?;
    git.run(&["reset", "-q", "--hard"]).await?;
    if let Some(wip) = &request.wip {
        // The tree as it was left, then an index that knows only what is committed: all of it uncommitted again.
        git.run(&["read-tree", "--reset", "-u", wip]).await?;
        git.run(&["reset", "-q", "--mixed"]).await?;
    }
    if let Some(extra) = &request.extra {
        let index = state::own_file(state_dir, "extra.index").map_err(disk("make way for an index"))?;
        let index = index.display().to_string();
        let env = [("GIT_INDEX_FILE", index.as_str())];
        git.run_with(&["read-tree", extra], &env).await?;
        let laid = git.run_with(&["checkout-index", "-q", "-a", "-f"], &env).await;
        let _ = fs::remove_file(&index);
        laid?;
    }
    for leftover in ["refs/symphony/head", "refs/symphony/wip", "refs/symphony/extra"] {
        git.run(&["update-ref", "-d", leftover]).await?;
    }
    git.run(&["config", "user.name", &request.identity.name]).await?;
    git.run(&["config", "user.email", &request.identity.email]).await?;
    let tree = fs::File::open(work).map_err(disk("open the work tree"))?;
    rustix::fs::syncfs(&tree).map_err(|e| disk("sync the work tree")(e.into()))?;
    state::set_ready(state_dir).map_err(disk("mark the tree as ready"))
}

/// Removes what is in the directory, not the directory: it may be a mount point. Directories that forbid it (module
/// caches are read-only by habit) are opened up first.
fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        } else if fs::remove_dir_all(entry.path()).is_err() {
            unlock(entry.path())?;
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Gives us every right in a directory and in those below it; links are not followed.
fn unlock(top: PathBuf) -> io::Result<()> {
    let mut locked = vec![top];
    while let Some(dir) = locked.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                locked.push(entry.path());
            }
        }
    }
    Ok(())
}
