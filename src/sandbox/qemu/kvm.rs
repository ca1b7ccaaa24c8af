//! Whether hardware virtualisation can be had. That `/dev/kvm` opens proves nothing: only a machine that boots does. Where
//! it opens and nothing boots, that takes seconds to find out, so it is remembered until the host boots again.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::sandbox::BootError;

/// Whether `/dev/kvm` opens at all.
///
/// # Errors
/// What is missing, and how to get it.
pub(super) fn opens() -> Result<(), BootError> {
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    let Err(error) = opened else { return Ok(()) };
    let (what, hint) = match error.kind() {
        ErrorKind::PermissionDenied => (
            "/dev/kvm may not be opened by this user".to_owned(),
            "add the user to the device's group (often `kvm`) and log in again",
        ),
        ErrorKind::NotFound => (
            "there is no /dev/kvm".to_owned(),
            "switch virtualisation on in the firmware, or use a machine that has it",
        ),
        _ => (format!("/dev/kvm cannot be opened: {error}"), "see what the kernel log says about kvm"),
    };
    Err(BootError::Missing { what, hint: hint.to_owned() })
}

/// A device that opens and boots nothing; `why` in a few words.
pub(super) fn pretends(why: &str) -> BootError {
    BootError::Missing {
        what: format!("/dev/kvm is there, but no machine boots on it ({why})"),
        hint: "usual where KVM is nested or emulated; sandbox.runtime: qemu names emulation, which is slow and no \
               security boundary"
            .to_owned(),
    }
}

/// What [`Memory`] knows, in a few words.
pub(super) const REMEMBERED: &str = "tried since the host booted; `symphony doctor` tries again";

/// What was found out about one emulator and one image since the host booted.
#[derive(Debug)]
pub(super) struct Memory {
    place: Option<PathBuf>,
    about: String,
}

impl Memory {
    /// About these.
    pub(super) fn about(emulator: &str, image: &str) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        let place = cache.filter(|_| !boot.is_empty()).map(|cache| cache.join("symphony/kvm-pretends"));
        Self { place, about: format!("{}\n{emulator}\n{image}\n", boot.trim()) }
    }

    /// Whether no machine booted.
    pub(super) fn pretended(&self) -> bool {
        self.place.as_ref().is_some_and(|place| fs::read_to_string(place).is_ok_and(|text| text == self.about))
    }

    /// Remembers that no machine booted. Where that cannot be kept, the next start finds out again.
    pub(super) fn remember(&self) {
        let Some(place) = &self.place else { return };
        let kept = place.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(place, &self.about));
        if let Err(error) = kept {
            tracing::debug!(path = %place.display(), %error, "what was found out about /dev/kvm is not kept");
        }
    }

    /// A machine booted after all.
    pub(super) fn forget(&self) {
        if let Some(place) = &self.place {
            let _ = fs::remove_file(place);
        }
    }
}
