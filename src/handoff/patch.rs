//! The patch bundle: what a finished issue always leaves, written before anything else may fail.
//!
//! It is made from the airlock, never from a work tree, and it is proven before it gets its name: the
//! steps of `git am` (split, read, apply to an index) must turn the base into exactly the agent's tree.
//! Commits that do not survive that (merges, hostile messages) become one commit that does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use symphony_core::snapshot::Patches;

use crate::airlock::{Airlock, AirlockError};
use crate::failpoint::{Phase, reach};
use crate::files::{create_private_dir, draft, persist, set_aside};
use crate::git::{Call, GitError, Oid};
use crate::log::typed;
use crate::process::Sink;

mod proof;

/// The largest patch that is written, in bytes.
const PATCH_MAX: u64 = 4 << 30;
/// Bytes of an agent's title and of its summary that a commit message takes. Half of what one argument may
/// have, since bending lines adds a little.
const TITLE_MAX: usize = 1024;
const SUMMARY_MAX: usize = 32 * 1024;
/// Formatting and reading large binary files takes its time.
const PATCH_DEADLINE: Duration = Duration::from_secs(600);

/// Why there is no patch. The work is safe in the airlock all the same.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The airlock failed.
    #[error(transparent)]
    Airlock(#[from] AirlockError),
    /// git failed.
    #[error("while writing the patch: {0}")]
    Git(#[from] GitError),
    /// No form of the patch reproduces the agent's tree.
    #[error("no patch reproduces {head}: {reason}; the commits are kept in the airlock")]
    Unprovable {
        /// The agent's tip.
        head: Oid,
        /// What the last attempt said.
        reason: String,
    },
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

/// How [`Patch::command`] begins.
pub const APPLY: &str = "git am ";
/// The same outside git.
pub const UNPACK: &str = "tar -xf ";

/// What was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handed {
    /// A proven patch.
    Patch(Patch),
    /// The agent changed nothing.
    Nothing,
}

/// A proven patch on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// `agent_<key>.patch`
    pub path: PathBuf,
    /// For a workspace without a repository: `agent_<key>.tar` with all files.
    pub tar: Option<PathBuf>,
    /// Commits in it.
    pub commits: u64,
    /// Files it changes.
    pub files: u64,
    /// Lines it adds.
    pub insertions: u64,
    /// Lines it removes.
    pub deletions: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether the agent's commits had to become one.
    pub squashed: bool,
}

impl Patch {
    /// How a person takes the work, as one types it into a shell. Outside git a patch has nothing to be applied to.
    pub fn command(&self) -> String {
        command(self.tar.as_ref().unwrap_or(&self.path))
    }
}

/// How a person takes the work from this file, as one types it into a shell.
pub fn command(path: &Path) -> String {
    let word = if path.extension().is_some_and(|end| end == "tar") { UNPACK } else { APPLY };
    format!("{word}{}", typed(path))
}

/// How the contents of files are written into a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// Readable, binary files excepted.
    Text,
    /// Files with carriage returns as binary ones: `git am` drops a carriage return at a line's end.
    NoCarriageReturns,
    /// Every file as a binary one.
    Binary,
}

/// Writes `<dir>/agent_<key>.patch`, and the tar where the workspace is no repository. Title and
/// summary become the message where commits have to be squashed. Repeating it gives the same file; another
/// patch of that name, from before the issue was opened again, is kept beside it under a number.
///
/// # Errors
/// See [`PatchError`]; an earlier patch of that name is still whole then.
pub async fn write(airlock: &Airlock, dir: &Path, title: &str, summary: &str) -> Result<Handed, PatchError> {
    let base = airlock.base().clone();
    let head = airlock.head().await?;
    if base == head {
        return Ok(Handed::Nothing);
    }
    create_private_dir(dir).map_err(io("create", dir))?;
    let base_tree = airlock.tree_of(&base).await?;
    let tree = airlock.tree_of(&head).await?;
    let mut reason = String::new();
    let squash = squashed(airlock, &base, &head, &tree, title, summary).await?;
    let forms = [(&head, false), (&squash, true)];
    for (tip, is_squash) in forms {
        if is_squash && base_tree == tree {
            return Ok(Handed::Nothing);
        }
        for encoding in [Encoding::Text, Encoding::NoCarriageReturns, Encoding::Binary] {
            let file = draft(dir).map_err(io("create a file in", dir))?;
            let bytes = format(airlock, &base, tip, encoding, &file).await?;
            match proof::prove(airlock, &base, &tree, file.path()).await? {
                Err(why) => reason = why,
                Ok(commits) => {
                    let path = dir.join(airlock.key().patch_name());
                    let written = std::fs::read(file.path()).map_err(io("read", file.path()))?;
                    let at = |phase| reach("patch", "write", phase).map_err(io("write", &path));
                    at(Phase::Before)?;
                    set_aside(&path, &written).map_err(io("set aside", &path))?;
                    at(Phase::Torn)?;
                    persist(file, &path).map_err(io("write", &path))?;
                    at(Phase::After)?;
                    let (files, insertions, deletions) = count(airlock, &base, &head).await?;
                    let tar = if airlock.has_repository() { None } else { Some(write_tar(airlock, &head, dir).await?) };
                    let squashed = is_squash;
                    return Ok(Handed::Patch(Patch {
                        path,
                        tar,
                        commits,
                        files,
                        insertions,
                        deletions,
                        bytes,
                        squashed,
                    }));
                }
            }
        }
    }
    Err(PatchError::Unprovable { head, reason })
}

/// The patches that are there. A directory that cannot be read has none that a person could apply.
pub async fn there(dir: &Path) -> Patches {
    let place = dir.to_owned();
    let names = tokio::task::spawn_blocking(move || {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| [".patch", ".tar"].iter().any(|end| name.ends_with(end)))
            .collect()
    });
    Patches { dir: dir.display().to_string(), names: names.await.unwrap_or_default() }
}

/// A git command in the airlock that ignores the attributes of every tree.
async fn without_attributes(airlock: &Airlock) -> Result<Call, PatchError> {
    let empty = airlock.repo().args(["hash-object", "-t", "tree", "--stdin"]).oid().await?;
    Ok(airlock.repo().env("GIT_ATTR_SOURCE", empty.as_str()).deadline(PATCH_DEADLINE))
}

async fn format(
    airlock: &Airlock,
    base: &Oid,
    tip: &Oid,
    encoding: Encoding,
    file: &tempfile::NamedTempFile,
) -> Result<u64, PatchError> {
    let attributes = tempfile::NamedTempFile::new().map_err(io("create", Path::new("a temporary file")))?;
    let rules = match encoding {
        Encoding::Text => Vec::new(),
        Encoding::NoCarriageReturns => carriage_return_rules(airlock, base, tip).await?,
        Encoding::Binary => b"* -diff\n".to_vec(),
    };
    std::fs::write(attributes.path(), rules).map_err(io("write", attributes.path()))?;
    let out = file.reopen().map_err(io("open", file.path()))?;
    let done = without_attributes(airlock)
        .await?
        .config(&format!("core.attributesFile={}", attributes.path().display()))
        .args(["format-patch", "--stdout", "--binary", "--full-index", "--no-ext-diff", "--no-textconv"])
        .args(["--no-color", "--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ignore-submodules=none"])
        .args(["--topo-order", "--no-signature"])
        .arg(format!("{base}..{tip}"))
        .sink(Sink::File { file: out, max: PATCH_MAX })
        .run()
        .await?;
    Ok(done.stdout.total())
}

/// Attribute lines that declare each file with a carriage return, before or after, a binary one.
async fn carriage_return_rules(airlock: &Airlock, base: &Oid, tip: &Oid) -> Result<Vec<u8>, PatchError> {
    let mut rules = Vec::new();
    for commit in [base, tip] {
        let list = tempfile::NamedTempFile::new().map_err(io("create", Path::new("a temporary file")))?;
        let out = list.reopen().map_err(io("open", list.path()))?;
        let call = without_attributes(airlock).await?;
        // Exit code 1: no file has one.
        call.args(["grep", "-z", "-l", "-I", "-F", "-e", "\r", commit.as_str()])
            .sink(Sink::File { file: out, max: PATCH_MAX })
            .run_any()
            .await?;
        let names = std::fs::read(list.path()).map_err(io("read", list.path()))?;
        for name in names.split(|byte| *byte == 0) {
            // `git grep` writes `<commit>:<path>`.
            let path = name.get(commit.as_str().len() + 1..).unwrap_or_default();
            if !path.is_empty() {
                push_rule(&mut rules, path);
            }
        }
    }
    Ok(rules)
}

/// One attribute line for exactly this path: quoted as C does, pattern characters escaped.
fn push_rule(rules: &mut Vec<u8>, path: &[u8]) {
    rules.extend_from_slice(b"\"/");
    for byte in path {
        match byte {
            b'*' | b'?' | b'[' | b']' => rules.extend_from_slice(&[b'\\', b'\\', *byte]),
            b'\\' => rules.extend_from_slice(b"\\\\\\\\"),
            b'"' => rules.extend_from_slice(b"\\\""),
            0..=31 | 127 => rules.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => rules.push(*byte),
        }
    }
    rules.extend_from_slice(b"\" -diff\n");
}

/// One commit with the agent's tree on the base. Made from what is known, so it comes out the same.
async fn squashed(
    airlock: &Airlock,
    base: &Oid,
    head: &Oid,
    tree: &Oid,
    title: &str,
    summary: &str,
) -> Result<Oid, PatchError> {
    let date = airlock.date_of(head).await?;
    let message = message(title, summary, airlock.key().as_str());
    Ok(airlock.commit(tree, &[base], &message, &date).await?)
}

/// A commit message from an agent's words, in which no line can be taken for the start of a patch or
/// of another mail. No control character reaches a terminal through it or stops git (a NUL would), and it
/// is short enough to be an argument: the work is committed with it before it is exported.
pub fn message(title: &str, summary: &str, fallback: &str) -> String {
    let plain = |text: &str, most: usize| -> String {
        let kept = text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control());
        let mut bytes = 0;
        kept.take_while(|c| {
            bytes += c.len_utf8();
            bytes <= most
        })
        .collect()
    };
    let title = plain(&title.split_whitespace().collect::<Vec<_>>().join(" "), TITLE_MAX);
    let cut = summary.len() > SUMMARY_MAX;
    let mut summary = plain(summary, SUMMARY_MAX);
    if cut {
        summary.push_str("\n\n(cut)");
    }
    let mut text = if title.is_empty() { format!("Work on {fallback}") } else { title };
    text.push_str("\n\n");
    for line in summary.lines() {
        let special = ["diff -", "Index: ", "---", "From ", ">From "].iter().any(|start| line.starts_with(start));
        // In-body headers (`From:`, `Date:`, `Subject:`) count at the top only, but cost nothing to bend.
        let header = ["From:", "Date:", "Subject:"].iter().any(|start| line.starts_with(start));
        if special || header {
            text.push_str("| ");
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

async fn count(airlock: &Airlock, base: &Oid, head: &Oid) -> Result<(u64, u64, u64), PatchError> {
    let call = without_attributes(airlock).await?;
    let text = call.args(["diff-tree", "-r", "--shortstat", base.as_str(), head.as_str()]).text().await?;
    let number = |word: &str| {
        let part = text.split(',').find(|part| part.contains(word));
        part.and_then(|part| part.trim().split(' ').next()).and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    Ok((number("file"), number("insertion"), number("deletion")))
}

/// All files at the agent's tip. It is for the person who asked for it; symphony never unpacks it.
async fn write_tar(airlock: &Airlock, head: &Oid, dir: &Path) -> Result<PathBuf, PatchError> {
    let file = draft(dir).map_err(io("create a file in", dir))?;
    let out = file.reopen().map_err(io("open", file.path()))?;
    let call = without_attributes(airlock).await?.config("tar.umask=0022");
    call.args(["archive", "--format=tar", head.as_str()]).sink(Sink::File { file: out, max: PATCH_MAX }).run().await?;
    let path = dir.join(airlock.key().patch_name()).with_extension("tar");
    persist(file, &path).map_err(io("write", &path))?;
    Ok(path)
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PatchError + use<> {
    let path = path.to_owned();
    move |source| PatchError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
