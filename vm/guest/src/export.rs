//! `export`: what the work tree holds beyond what the host has, as a bundle of `refs/symphony/head` and `refs/symphony/wip`.
//! The agent's own index and branch are not touched, except by a final export's commit. A ref the host has already is
//! named in the answer but not in the bundle (git leaves it out).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::git::{self, Git, check_oid};
use crate::mux::MuxStream;
use crate::serve::{Guest, refuse};
use crate::state;
use crate::wire::{self, ExportRequest, Exported, FrameKind, Refusal, RefusalKind, WireError};

const BUNDLE: &str = "export.bundle";
const INDEX: &str = "export.index";
const HEAD_REF: &str = "refs/symphony/head";
const WIP_REF: &str = "refs/symphony/wip";

/// Serves one export request to its end.
pub(crate) async fn serve(guest: &Arc<Guest>, mut stream: MuxStream, request: ExportRequest) {
    let within = Duration::from_millis(request.timeout_ms);
    let bundle = guest.dirs.state.join(BUNDLE);
    let _tree = guest.tree.lock().await;
    let result = timeout(within, collect(guest, &request, &bundle, within))
        .await
        .unwrap_or_else(|_| Err(Refusal::new(RefusalKind::Timeout, "the export did not finish in time")));
    match result {
        Ok(exported) => {
            // The host sees a broken send by the missing end.
            let _ = timeout(within, send(&mut stream, &exported, &bundle)).await;
        }
        Err(refusal) => refuse(stream, refusal).await,
    }
    let _ = fs::remove_file(&bundle);
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), exported: &Exported, bundle: &Path) -> Result<(), WireError> {
    wire::write_json(stream, FrameKind::Reply, exported).await?;
    if !exported.empty {
        let mut file = tokio::fs::OpenOptions::new().read(true).custom_flags(state::WARY).open(bundle).await?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let n = file.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            wire::write_frame(stream, FrameKind::Data, &buffer[..n]).await?;
        }
    }
    wire::write_frame(stream, FrameKind::End, &[]).await?;
    Ok(stream.shutdown().await?)
}

async fn collect(guest: &Guest, request: &ExportRequest, bundle: &Path, within: Duration) -> Result<Exported, Refusal> {
    for oid in request.have.iter().chain([&request.base]) {
        check_oid(oid)?;
    }
    let git = Git::new(&guest.dirs.work, &guest.groups, within);
    let mut head = git.run(&["rev-parse", "--verify", "HEAD^{commit}"]).await.map_err(|e| {
        // git also fails for want of memory, files or room: only what is seen to be gone is said to be gone.
        let kind = if git::is_gone(&guest.dirs.work) { RefusalKind::Tree } else { e.kind };
        Refusal::new(kind, format!("the work tree has no commit to export: {}", e.message))
    })?;
    let branch = git.run(&["symbolic-ref", "-q", "--short", "HEAD"]).await.ok();
    let mut wip = uncommitted(guest, &git, &head).await?;
    if let (true, Some(tree), Some(message)) = (request.is_final, &wip, &request.commit_message) {
        let made = git.run(&["commit-tree", tree, "-p", &head, "-m", message]).await?;
        git.run(&["update-ref", "-m", "symphony: final commit", "HEAD", &made, &head]).await?;
        // The index follows where it can; the work is safe already. git would wait for a pipe in its place.
        let index = guest.dirs.work.join(".git/index");
        if state::plain(&index).is_err() {
            let _ = state::clear(&index);
        }
        let _ = git.run(&["reset", "-q"]).await;
        (head, wip) = (made, None);
    } else if let Some(tree) = wip {
        // Same tree and parent, same commit: repeated checkpoints of unchanged work cost nothing.
        let date = git.run(&["show", "-s", "--no-show-signature", "--format=@%ct +0000", &head]).await?;
        let who = [
            ("GIT_AUTHOR_NAME", "symphony"),
            ("GIT_AUTHOR_EMAIL", "symphony@localhost"),
            ("GIT_COMMITTER_NAME", "symphony"),
            ("GIT_COMMITTER_EMAIL", "symphony@localhost"),
            ("GIT_AUTHOR_DATE", &date),
            ("GIT_COMMITTER_DATE", &date),
        ];
        wip = Some(git.run_with(&["commit-tree", &tree, "-p", &head, "-m", "Uncommitted work"], &who).await?);
    }
    git.run(&["update-ref", HEAD_REF, &head]).await?;
    match &wip {
        Some(wip) => git.run(&["update-ref", WIP_REF, wip]).await?,
        None => git.run(&["update-ref", "-d", WIP_REF]).await?,
    };

    let mut revisions = vec!["--ignore-missing".to_owned(), HEAD_REF.into()];
    revisions.extend(wip.iter().map(|_| WIP_REF.to_owned()));
    revisions.extend(request.have.iter().chain([&request.base]).map(|oid| format!("^{oid}")));
    let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
    let news = git.run(&[&["rev-list", "-n", "1"], revisions.as_slice()].concat()).await?;
    let exported = Exported { head, wip, empty: news.is_empty(), branch };
    if !exported.empty {
        let made = state::own_file(&guest.dirs.state, BUNDLE);
        made.map_err(|e| Refusal::new(RefusalKind::Io, format!("cannot make way for the bundle: {e}")))?;
        let path = bundle.display().to_string();
        git.run(&[&["bundle", "create", "-q", path.as_str()], revisions.as_slice()].concat()).await?;
        let size = fs::metadata(bundle).map_err(|e| Refusal::new(RefusalKind::Io, e.to_string()))?.len();
        if size > request.max_bytes {
            let words = format!("the work is a bundle of {size} bytes; at most {} are taken", request.max_bytes);
            return Err(Refusal::new(RefusalKind::TooLarge, words));
        }
    }
    Ok(exported)
}

/// The tree of the work tree as it stands (tracked and untracked, not ignored), when it differs from HEAD's. Built in an
/// index of our own: a lock someone left on the agent's does not matter.
async fn uncommitted(guest: &Guest, git: &Git<'_>, head: &str) -> Result<Option<String>, Refusal> {
    let index = state::own_file(&guest.dirs.state, INDEX)
        .map_err(|e| Refusal::new(RefusalKind::Io, format!("cannot make way for an index: {e}")))?;
    let path = index.display().to_string();
    let env = [("GIT_INDEX_FILE", path.as_str())];
    let add = ["add", "-A", "."];
    // The agent's index saves hashing every file again; a broken one is only slower.
    // It may be a pipe or a device by now: neither may hold this program up.
    let copied = state::plain(&guest.dirs.work.join(".git/index"))
        .and_then(|mut from| std::io::copy(&mut from, &mut state::fresh(&index)?))
        .is_ok();
    if !copied || git.run_with(&add, &env).await.is_err() {
        // With the lock, if git was killed.
        let _ = state::own_file(&guest.dirs.state, INDEX);
        git.run_with(&["read-tree", head], &env).await?;
        git.run_with(&add, &env).await?;
    }
    let tree = git.run_with(&["write-tree"], &env).await?;
    let _ = fs::remove_file(&index);
    let committed = git.run(&["rev-parse", "--verify", &format!("{head}^{{tree}}")]).await?;
    Ok((tree != committed).then_some(tree))
}
