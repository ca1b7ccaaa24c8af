//! What can be told of a machine's image without booting it. An image is the operator's; nothing a guest wrote is in it.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use crate::sandbox::BootError;

/// Debian's own list of what is installed, in a directory with a root file system.
const STATUS: &str = "var/lib/dpkg/status";
/// A full desktop's list has a few MiB.
const LONGEST: u64 = 64 * 1024 * 1024;

/// Whether the image is there, as far as it is a path, and has these Debian packages. Blocking.
pub(super) fn has(image: Option<&Path>, packages: &[String]) -> Result<(), BootError> {
    let Some(image) = image else { return unseen("smolvm's own image", packages) };
    let shown = image.display().to_string();
    if !image.is_absolute() {
        return unseen(&format!("the image {shown}"), packages);
    }
    let about = fs::metadata(image).map_err(|error| untold(image, &error))?;
    if !about.is_dir() {
        return unseen(&format!("the image {shown}"), packages);
    }
    if packages.is_empty() {
        return Ok(());
    }
    let status = image.join(STATUS);
    let text = match read(&status) {
        Ok(text) => text,
        // Not a Debian: then it has none of its packages.
        Err(error) if absent(&error) => String::new(),
        Err(error) => return Err(untold(&status, &error)),
    };
    let there = installed(&text);
    let lacks: Vec<&str> = packages.iter().map(String::as_str).filter(|name| !there.contains(name)).collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let options = lacks.join(" ");
    Err(BootError::Missing {
        what: format!("the image {shown} lacks {}", lacks.join(", ")),
        hint: format!(
            "build one with scripts/build-smolvm-image DIRECTORY {options}, and name it with `image` in the profile"
        ),
    })
}

/// Of what cannot be looked into nobody knows what is in it, and nothing is taken for granted.
fn unseen(image: &str, packages: &[String]) -> Result<(), BootError> {
    if packages.is_empty() {
        return Ok(());
    }
    let (wanted, options) = (packages.join(", "), packages.join(" "));
    Err(BootError::Missing {
        what: format!("whether {image} has {wanted} cannot be seen from outside"),
        hint: format!(
            "name a directory with `image` in the profile (scripts/build-smolvm-image DIRECTORY {options} makes one), or remove `packages`"
        ),
    })
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn untold(path: &Path, error: &io::Error) -> BootError {
    let shown = path.display();
    match absent(error) {
        true => BootError::Missing {
            what: format!("there is no image {shown}"),
            hint: format!("make it with scripts/build-smolvm-image {shown}, or name another one"),
        },
        false => BootError::Unreadable {
            what: format!("cannot look at {shown}: {error}"),
            hint: "let symphony's user read it".to_owned(),
        },
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    crate::files::open_plain(path)?.take(LONGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The packages that Debian calls installed; one that was removed keeps its entry.
fn installed(status: &str) -> Vec<&str> {
    status.split("\n\n").filter_map(entry).collect()
}

/// The name of an entry's package, if it is installed.
fn entry(text: &str) -> Option<&str> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let is_installed = value("Status:").is_some_and(|status| status.ends_with(" installed"));
    value("Package:").filter(|_| is_installed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(image: Option<&Path>, packages: &[&str]) -> Result<(), BootError> {
        has(image, &packages.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_directory_has_what_debian_calls_installed_in_it() {
        let place = tempfile::tempdir().expect("directory");
        let error = said(Some(&place.path().join("gone")), &[]).expect_err("not there");
        assert!(
            matches!(&error, BootError::Missing { hint, .. } if hint.contains("scripts/build-smolvm-image")),
            "{error}"
        );
        said(Some(place.path()), &[]).expect("it is there");
        said(Some(place.path()), &["git"]).expect_err("no Debian");
        fs::create_dir_all(place.path().join("var/lib/dpkg")).expect("made");
        let status = "Package: git\nStatus: install ok installed\nVersion: 1\n\nPackage: curl\nStatus: deinstall ok config-files\n";
        fs::write(place.path().join(STATUS), status).expect("written");
        said(Some(place.path()), &["git"]).expect("installed");
        let error = said(Some(place.path()), &["git", "curl", "jq"]).expect_err("removed").to_string();
        assert!(error.contains(" lacks curl, jq: ") && error.contains("DIRECTORY curl jq,"), "{error}");
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_called_missing() {
        let place = tempfile::tempdir().expect("directory");
        // Not even root follows a link to itself, or reads a directory as a file.
        let round = place.path().join("round");
        std::os::unix::fs::symlink("round", &round).expect("linked");
        fs::create_dir_all(place.path().join(STATUS)).expect("made");
        for (image, packages) in [(round.as_path(), &[] as &[&str]), (place.path(), &["git"])] {
            let error = said(Some(image), packages).expect_err("nobody knows");
            assert!(
                matches!(&error, BootError::Unreadable { what, .. } if what.starts_with("cannot look at ")),
                "{error:?}"
            );
        }
        said(Some(place.path()), &[]).expect("nothing of it needs to be read");
        // Regression: the look at a pipe never ended.
        fs::remove_dir(place.path().join(STATUS)).expect("removed");
        rustix::fs::mkfifoat(rustix::fs::CWD, place.path().join(STATUS), 0o600.into()).expect("a pipe");
        let error = said(Some(place.path()), &["git"]).expect_err("nobody knows");
        assert!(matches!(&error, BootError::Unreadable { .. }), "{error:?}");
    }

    /// Regression: under smolvm `packages` of a profile were not asked for at all.
    #[test]
    fn packages_of_an_image_that_cannot_be_looked_into_are_not_taken_for_granted() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for image in [None, Some(Path::new("alpine:3.20")), Some(file.path())] {
            said(image, &[]).expect("nothing is asked of it");
            let error = said(image, &["git"]).expect_err("nobody knows");
            assert!(matches!(&error, BootError::Missing { what, .. } if what.contains("cannot be seen")), "{error}");
        }
    }
}
