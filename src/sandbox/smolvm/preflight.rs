//! Whether smolvm can be used here at all: the program, its version, the kernel's door. All of it is cheap, and every
//! refusal says what to do.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::cli::{Cli, Failure};
use super::{OLDEST, Places, QUICK, Settings};
use crate::sandbox::BootError;

const INSTALL: &str = "install it from smolmachines.com (the PyPI package called `smolvm` is another program), or choose \
                       another sandbox.runtime";
const UPGRADE: &str = "upgrade smolvm";
const KVM_GROUP: &str = "add yourself to the group that owns it (usermod -aG kvm NAME), then log in again";

/// Finds the program and checks all that can be checked without starting a machine.
pub(super) async fn check(settings: &Settings, places: &Places) -> Result<Cli, BootError> {
    let bin = find(settings.bin.as_deref()).ok_or_else(|| missing("smolvm is not installed", INSTALL))?;
    let cli = Cli::new(bin.clone());
    let said = cli.call(["--version"], QUICK).await;
    let said =
        said.map_err(|error| missing(&format!("{} does not work: {}", bin.display(), error.message), INSTALL))?;
    let Some(version) = version(&said) else {
        return Err(missing(&format!("{} does not say its version", bin.display()), INSTALL));
    };
    if version < OLDEST {
        let show = |v: [u32; 3]| v.map(|n| n.to_string()).join(".");
        let what = format!("smolvm {} ({}) is too old, symphony needs {}", show(version), bin.display(), show(OLDEST));
        return Err(missing(&what, UPGRADE));
    }
    if !places.guest.is_file() {
        let what = format!("the guest program for machines, {}, is not there", places.guest.display());
        return Err(missing(&what, "build it with scripts/build-guest, or an image with scripts/build-vm.sh"));
    }
    if let Some(why) = crate::sandbox::qemu::strange_guest(&places.guest) {
        let hint = "build one of your own with scripts/build-guest";
        return Err(missing(&format!("the guest program for machines is not used: {why}"), hint));
    }
    kvm(&places.kvm)?;
    let help = cli.call(["machine", "create", "--help"], QUICK).await.unwrap_or_default();
    Ok(cli.with_json_errors(help.contains("--error-format")))
}

/// As configured, then `$SMOLVM`, the path, and where its installer puts it.
fn find(configured: Option<&Path>) -> Option<PathBuf> {
    let runs =
        |path: &Path| path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0);
    if let Some(path) = configured {
        return runs(path).then(|| path.to_owned());
    }
    if let Some(path) = std::env::var_os("SMOLVM").filter(|path| !path.is_empty()).map(PathBuf::from) {
        return (path.is_absolute() && runs(&path)).then_some(path);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let installed = home.iter().flat_map(|home| [home.join(".local/bin"), home.join(".smolvm")]);
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(installed).collect();
    dirs.into_iter().filter(|dir| dir.is_absolute()).map(|dir| dir.join("smolvm")).find(|path| runs(path))
}

fn version(said: &str) -> Option<[u32; 3]> {
    let word = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = word.split('.').map(|part| {
        let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| &part[..end]);
        digits.parse::<u32>().ok()
    });
    Some([parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)])
}

fn kvm(path: &Path) -> Result<(), BootError> {
    match std::fs::File::options().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                no_kvm(&format!("{}: permission denied", path.display()), KVM_GROUP)
            }
            _ => no_kvm(&format!("{}: {error}", path.display()), NO_KVM),
        }),
    }
}

const NO_KVM: &str = "load kvm_intel or kvm_amd, turn on virtualisation in the firmware or nested virtualisation in the \
                      surrounding machine, or choose another sandbox.runtime";

fn no_kvm(message: &str, hint: &str) -> BootError {
    missing(&format!("smolvm needs KVM ({message})"), hint)
}

/// What a failure of smolvm means to the one who must mend it, where that is known.
pub(super) fn explain(failure: &Failure) -> Option<BootError> {
    let said = failure.message.to_lowercase();
    if failure.usage {
        return Some(missing(&format!("smolvm does not know an argument: {}", failure.message), UPGRADE));
    }
    if failure.code == "KVM_UNAVAILABLE" || said.contains("kvm not available") {
        return Some(no_kvm(&failure.message, NO_KVM));
    }
    if said.contains("kvm permission denied") || (said.contains("kvmopen") && said.contains("acces")) {
        return Some(no_kvm(&failure.message, KVM_GROUP));
    }
    if failure.code == "HYPERVISOR_UNAVAILABLE" || said.contains("libkrun not found") {
        return Some(missing(&failure.message, "smolvm's own parts are missing: install it again"));
    }
    if said.contains("layers directory not found") {
        // Measured with 1.32.2: a machine that was made from a directory mounts it at every start.
        let what = format!("the image that its machine was made from is gone ({})", failure.message);
        return Some(missing(&what, "put it back where it was; the machine still has its work"));
    }
    None
}

fn missing(what: &str, hint: &str) -> BootError {
    BootError::Missing { what: what.to_owned(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("smolvm 1.32.2\n"), Some([1, 32, 2]));
        assert_eq!(version("smolvm 1.9.0-rc1 (abc)"), Some([1, 9, 0]));
        assert_eq!(version("smolvm 2.0"), Some([2, 0, 0]));
        assert_eq!(version("what"), None);
        for (said, enough) in [("1.32.2", true), ("1.8.3", true), ("1.8.2", false), ("0.99.9", false), ("10.0.0", true)]
        {
            assert_eq!(version(said).expect("a version") >= OLDEST, enough, "{said}");
        }
    }

    #[test]
    fn known_failures_say_what_to_do() {
        let failure = |code: &str, message: &str, usage| Failure {
            code: code.into(),
            message: message.into(),
            usage,
            timed_out: false,
        };
        let said = |failure: &Failure| explain(failure).map(|error| error.to_string()).unwrap_or_default();
        let old = said(&failure("", "error: unexpected argument '--label' found", true));
        assert!(old.contains("upgrade"), "{old}");
        let denied = said(&failure("SMOLVM_ERROR", "agent operation failed: KVM permission denied", false));
        assert!(denied.contains("group"), "{denied}");
        let absent = said(&failure("SMOLVM_ERROR", "KVM not available", false));
        assert!(absent.contains("virtualisation"), "{absent}");
        let gone = said(&failure("SMOLVM_ERROR", "boot: packed layers directory not found at /x: restart it", false));
        assert!(gone.contains("/x") && gone.contains("put it back"), "{gone}");
        assert_eq!(explain(&failure("SMOLVM_ERROR", "machine is not running", false)), None);
    }

    #[test]
    fn a_door_that_is_missing_or_shut_is_told_apart() {
        let error = kvm(Path::new("/no/such/device")).expect_err("missing").to_string();
        assert!(error.contains("needs KVM") && error.contains("kvm_amd"), "{error}");
        assert!(kvm(Path::new("/dev/null")).is_ok());
    }
}
