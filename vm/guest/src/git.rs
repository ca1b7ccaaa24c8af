//! git inside the guest. The repository is the agent's and may be broken or booby-trapped: hooks and fsmonitor are off,
//! what else it makes git run is confined like the agent, output is capped, and everything has a deadline.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout_at};

use crate::child::{self, Groups};
use crate::state;
use crate::wire::{Refusal, RefusalKind};

const MAX_OUT: usize = 1024 * 1024;
const MAX_ERR: usize = 3 * 1024;
/// Of a file with references.
const MAX_REFS: u64 = 16 * 1024 * 1024;
const OVERRIDES: [&str; 6] = [
    "core.fsync=all",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "commit.gpgsign=false",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// git in one tree, until one deadline.
pub(crate) struct Git<'a> {
    pub(crate) tree: &'a Path,
    pub(crate) groups: &'a Groups,
    pub(crate) deadline: Instant,
}

impl<'a> Git<'a> {
    pub(crate) fn new(tree: &'a Path, groups: &'a Groups, within: Duration) -> Self {
        Self { tree, groups, deadline: Instant::now() + within }
    }

    /// Runs git; its output without the last line break.
    ///
    /// # Errors
    /// git failed or did not finish; the refusal holds its words.
    pub(crate) async fn run(&self, args: &[&str]) -> Result<String, Refusal> {
        self.run_with(args, &[]).await
    }

    /// As [`Git::run`], with further environment.
    ///
    /// # Errors
    /// As [`Git::run`].
    pub(crate) async fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Result<String, Refusal> {
        let name = args.first().copied().unwrap_or("git");
        let mut argv: Vec<OsString> = vec!["git".into()];
        for setting in OVERRIDES {
            argv.extend(["-c".into(), setting.into()]);
        }
        argv.extend(args.iter().map(OsString::from));
        let above = self.tree.parent().unwrap_or(self.tree).display().to_string();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        let mut all = vec![
            ("PATH".to_owned(), path),
            ("HOME".into(), "/nonexistent".into()),
            ("LC_ALL".into(), "C".into()),
            ("GIT_TERMINAL_PROMPT".into(), "0".into()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
            ("GIT_CONFIG_GLOBAL".into(), "/dev/null".into()),
            ("GIT_CEILING_DIRECTORIES".into(), above),
        ];
        all.extend(env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
        let failed = |kind, words: String| Refusal::new(kind, format!("git {name}: {words}"));
        let (mut child, group) = child::start(&argv, &all, self.tree, self.groups)
            .map_err(|e| failed(RefusalKind::Git, format!("cannot be started: {e}")))?;
        drop(child.stdin.take());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let work = async { tokio::join!(read_capped(out, MAX_OUT), read_capped(err, MAX_ERR), child.wait()) };
        let Ok((out, err, status)) = timeout_at(self.deadline, work).await else {
            return Err(failed(RefusalKind::Timeout, "did not finish in time".into()));
        };
        drop(group);
        let status = status.map_err(|e| failed(RefusalKind::Io, e.to_string()))?;
        if !status.success() {
            let words = String::from_utf8_lossy(&err).trim().to_owned();
            return Err(failed(RefusalKind::Git, if words.is_empty() { status.to_string() } else { words }));
        }
        Ok(String::from_utf8_lossy(&out).trim_end().to_owned())
    }
}

/// Removes the locks that a killed git left in a repository: nothing else runs in a sandbox that just started, and each
/// would make every later git fail. Only the ordinary places, and only so many directories of them.
pub(crate) fn sweep_locks(dot_git: &Path) {
    let mut pending = vec![dot_git.to_owned()];
    for _ in 0..10_000 {
        let Some(dir) = pending.pop() else { return };
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
            if kind.is_dir() && (dir != dot_git || entry.file_name() == "refs") {
                pending.push(path);
            } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "lock") {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

/// Whether there is provably nothing that git could export from this tree: no repository, or no commit that its HEAD
/// names. What cannot be looked at is not gone, and a repository that is only damaged is for a person to judge.
pub(crate) fn is_gone(tree: &Path) -> bool {
    let dot_git = tree.join(".git");
    match std::fs::metadata(&dot_git) {
        Err(error) => return is_absence(&error),
        // It names a repository elsewhere.
        Ok(meta) if meta.is_file() => return false,
        Ok(meta) if !meta.is_dir() => return true,
        Ok(_) => {}
    }
    let absent = |name: &str| std::fs::metadata(dot_git.join(name)).is_err_and(|error| is_absence(&error));
    if ["HEAD", "objects", "refs"].into_iter().any(absent) {
        return true;
    }
    let read = |name: &str| {
        let mut text = Vec::new();
        let file = state::plain(&dot_git.join(name))?;
        file.take(MAX_REFS).read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    };
    let Ok(head) = read("HEAD") else { return false };
    match (head.trim(), head.trim().strip_prefix("ref:").map(str::trim)) {
        // A crash may have emptied it.
        ("", _) => false,
        // On a branch without a commit. Reftables keep their branches where we do not look.
        (_, Some(branch)) => {
            let packed = match read("packed-refs") {
                Ok(packed) => packed.lines().any(|line| line.ends_with(&format!(" {branch}"))),
                Err(error) => !is_absence(&error),
            };
            !packed && absent(branch) && absent("reftable")
        }
        (oid, None) => check_oid(oid).is_err(),
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// Reads to the end, keeps the first `cap` bytes.
async fn read_capped(pipe: Option<impl AsyncRead + Unpin>, cap: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n.min(cap - kept.len())]);
    }
    kept
}

/// Whether the text is a full object name.
///
/// # Errors
/// It is something else.
pub(crate) fn check_oid(oid: &str) -> Result<(), Refusal> {
    if matches!(oid.len(), 40 | 64) && oid.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Ok(());
    }
    Err(Refusal::new(RefusalKind::BadRequest, format!("`{oid}` is not an object name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a repository with one commit is gone after this.
    fn gone_after(script: &str) -> bool {
        let dir = tempfile::tempdir().expect("directory");
        let begin =
            "git init -q -b main . && git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m one";
        let sh = format!("{begin} && {script}");
        let out = std::process::Command::new("sh").args(["-c", &sh]).current_dir(dir.path()).output().expect("sh");
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        is_gone(dir.path())
    }

    #[test]
    fn a_tree_is_gone_only_when_its_repository_or_its_commit_is_seen_to_be_missing() {
        for gone in [
            "rm -rf .git",
            "rm -rf .git && ln -s /nowhere .git",
            "rm -rf .git && mkfifo .git",
            "rm .git/HEAD",
            "rm -rf .git/objects",
            "echo garbage > .git/HEAD",
            "git checkout -q --orphan new",
        ] {
            assert!(gone_after(gone), "{gone}");
        }
        for kept in [
            "true",
            "git pack-refs --all && ! test -e .git/refs/heads/main",
            "git checkout -q --detach",
            "find .git/objects -type f | xargs rm",
            "echo '[broken' > .git/config",
            "mv .git .elsewhere && echo 'gitdir: .elsewhere' > .git",
            ": > .git/HEAD",
        ] {
            assert!(!gone_after(kept), "{kept}");
        }
    }
}
