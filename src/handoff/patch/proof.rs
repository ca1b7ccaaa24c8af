//! Whether `git am` would turn the base into the agent's tree: its own steps, on an index, no work tree.

use std::path::Path;

use super::{PATCH_DEADLINE, PatchError, io};
use crate::airlock::Airlock;
use crate::git::{GitError, Oid};
use crate::process::Input;

/// More mails than this are not proven one by one.
const MAILS_MAX: u64 = 2000;

/// The number of commits in a patch that reproduces `tree`, or why it does not.
pub(super) async fn prove(
    airlock: &Airlock,
    base: &Oid,
    tree: &Oid,
    patch: &Path,
) -> Result<Result<u64, String>, PatchError> {
    let scratch = tempfile::tempdir().map_err(io("create", Path::new("a temporary directory")))?;
    let dir = scratch.path();
    let index = dir.join("index");
    let with_index = || airlock.repo().env("GIT_INDEX_FILE", &index).deadline(PATCH_DEADLINE);
    with_index().args(["read-tree", base.as_str()]).run().await?;

    let mails = dir.join("mails");
    std::fs::create_dir(&mails).map_err(io("create", &mails))?;
    let split = airlock.repo().args(["mailsplit", "-b"]).arg(format!("-o{}", mails.display())).arg(patch);
    let count = match split.deadline(PATCH_DEADLINE).text().await {
        Ok(count) => count.parse::<u64>().unwrap_or(0),
        Err(GitError::Failed { stderr, .. }) => return Ok(Err(stderr)),
        Err(error) => return Err(error.into()),
    };
    if count == 0 || count > MAILS_MAX {
        return Ok(Err(format!("it has {count} commits")));
    }
    for number in 1..=count {
        if let Err(why) = apply(airlock, dir, &mails.join(format!("{number:04}")), &index).await? {
            return Ok(Err(format!("commit {number} of {count}: {why}")));
        }
    }
    let found = with_index().arg("write-tree").oid().await?;
    Ok(if found == *tree { Ok(count) } else { Err("it leads to another tree".into()) })
}

async fn apply(airlock: &Airlock, dir: &Path, mail: &Path, index: &Path) -> Result<Result<(), String>, PatchError> {
    let open = std::fs::File::open(mail).map_err(io("open", mail))?;
    let (message, patch) = (dir.join("message"), dir.join("patch"));
    let read = airlock.plain_git().args(["mailinfo", "--encoding=UTF-8"]).args([&message, &patch]);
    let about = match read.input(Input::File(open)).deadline(PATCH_DEADLINE).run().await {
        Ok(done) => done.stdout.text(),
        Err(GitError::Failed { stderr, .. }) => return Ok(Err(stderr)),
        Err(error) => return Err(error.into()),
    };
    // `git am` refuses a mail whose author or date git cannot use.
    let field =
        |name: &str| about.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let ident = airlock
        .plain_git()
        .args(["var", "GIT_AUTHOR_IDENT"])
        .env("GIT_AUTHOR_NAME", field("Author: "))
        .env("GIT_AUTHOR_EMAIL", field("Email: "))
        .env("GIT_AUTHOR_DATE", field("Date: "));
    match ident.run().await {
        Ok(_) if !field("Email: ").is_empty() => {}
        Ok(_) => return Ok(Err("its mail has no address".into())),
        Err(GitError::Failed { stderr, .. }) => return Ok(Err(stderr)),
        Err(error) => return Err(error.into()),
    }
    if std::fs::metadata(&patch).map_err(io("look at", &patch))?.len() == 0 {
        return Ok(Err("its mail has no patch".into()));
    }
    let applying =
        airlock.repo().env("GIT_INDEX_FILE", index).args(["apply", "--cached", "--whitespace=nowarn"]).arg(&patch);
    match applying.deadline(PATCH_DEADLINE).run().await {
        Ok(_) => Ok(Ok(())),
        Err(GitError::Failed { stderr, .. }) => Ok(Err(stderr)),
        Err(error) => Err(error.into()),
    }
}
