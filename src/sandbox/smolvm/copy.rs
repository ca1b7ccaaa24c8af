//! What is copied into a new machine: the guest program, and what the workflow lists. Nothing of the host is ever mounted.

use std::path::{Path, PathBuf};

use super::cli::Cli;
use super::machine::Name;
use super::{CREATING, failed, text};
use crate::process::{Outcome, Program};
use crate::sandbox::BootError;

/// Where the guest program is put.
pub(super) const GUEST: &str = "/opt/symphony/guest";
/// An archive on its way.
const ARCHIVE: &str = "/opt/symphony/incoming.tar";

/// Whether everything that is to be copied is there.
pub(super) fn check(copies: &[(PathBuf, String)]) -> Result<(), BootError> {
    for (from, _) in copies {
        if let Err(error) = std::fs::metadata(from) {
            return Err(BootError::Missing {
                what: format!("{} cannot be copied into the machine ({error})", from.display()),
                hint: "mend smolvm.volumes or smolvm.bin_path".to_owned(),
            });
        }
    }
    Ok(())
}

/// Copies everything. It belongs to root in the machine and nobody may write to it.
pub(super) async fn all(cli: &Cli, name: &Name, copies: &[(PathBuf, String)]) -> Result<(), BootError> {
    for (from, to) in copies {
        let words = format!("copied {} into its machine", from.display());
        match from.is_dir() {
            true => directory(cli, name, from, to, &words).await?,
            false => {
                let place = name.at(to);
                cli.call(["machine", "cp", &text(from), &place], CREATING).await.map_err(|e| failed(&words, e))?;
                run(cli, name, &["chmod", "a+rX,go-w", "--", to], &words).await?;
            }
        }
    }
    Ok(())
}

/// As one archive, which keeps modes and links as they are; `machine cp` takes single files.
async fn directory(cli: &Cli, name: &Name, from: &Path, to: &str, words: &str) -> Result<(), BootError> {
    let archive = tempfile::NamedTempFile::new().map_err(|e| super::stage(words, &e.to_string()))?;
    let packed = Program::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--file"])
        .args([archive.path().as_os_str(), "--directory".as_ref(), from.as_os_str(), ".".as_ref()])
        .run(CREATING)
        .await;
    if packed.outcome != Outcome::Exited(0) {
        return Err(super::stage(words, &packed.stderr.excerpt(400)));
    }
    let place = name.at(ARCHIVE);
    cli.call(["machine", "cp", &text(archive.path()), &place], CREATING).await.map_err(|e| failed(words, e))?;
    let unpack = "mkdir -p \"$2\" && tar -xf \"$1\" -C \"$2\" && rm \"$1\" && chmod -R a+rX,go-w \"$2\"";
    run(cli, name, &["/bin/sh", "-c", unpack, "sh", ARCHIVE, to], words).await
}

async fn run(cli: &Cli, name: &Name, program: &[&str], words: &str) -> Result<(), BootError> {
    let call = [&["machine", "exec", "--name", name.as_str(), "--"], program].concat();
    cli.call(call, CREATING).await.map(drop).map_err(|error| failed(words, error))
}
