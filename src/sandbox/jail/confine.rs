//! What pid 1 takes away from itself, and so from everything it starts.
//!
//! The order matters: limits and capabilities first, then no_new_privs, Landlock, and the system call
//! filter last, because the filter forbids what the steps before it need.

use std::fs;
use std::io;

use landlock::{
    ABI, Access, AccessFs, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};

use super::filter;
use super::wire::{During, Facts, Failure, LaunchSpec};

/// Confines the calling process for good and measures the result.
pub(super) fn confine(spec: &LaunchSpec, uid: u32) -> Result<Facts, Failure> {
    let nproc = limits(spec).during("set its limits")?;
    capabilities().during("dropped its capabilities")?;
    let landlock_abi =
        landlock().map_err(|message| Failure { stage: "confined its file access".to_owned(), message, errno: None })?;
    // Read while nothing can be hidden; the filter goes on right after and is checked below.
    filter::install().map_err(|message| Failure {
        stage: "filtered its system calls".to_owned(),
        message,
        errno: None,
    })?;
    let status = fs::read_to_string("/proc/self/status").during("measured itself")?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bare = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"]
        .iter()
        .all(|name| field(name).is_some_and(|bits| bits.bytes().all(|b| b == b'0')));
    if !bare || field("NoNewPrivs:") != Some("1") {
        let message = "a capability is left, or new ones could be had".to_owned();
        return Err(Failure { stage: "measured itself".to_owned(), message, errno: None });
    }
    Ok(Facts { uid, landlock_abi, seccomp: field("Seccomp:") == Some("2"), nproc })
}

/// Whether the process limit counts the jail alone (Linux 5.14), and could be set.
fn limits(spec: &LaunchSpec) -> io::Result<bool> {
    const MIB: u64 = 1024 * 1024;
    // A crash must not hand guest data to a root helper: the kernel starts no piped core handler at
    // a limit of 1, but does at 0; and no core file fits into one byte.
    cap(Resource::Core, 1)?;
    cap(Resource::Fsize, spec.file_size_mib.saturating_mul(MIB))?;
    cap(Resource::Nofile, 65_536)?;
    cap(Resource::Memlock, 8 * MIB)?;
    cap(Resource::Msgqueue, MIB)?;
    cap(Resource::Sigpending, 16_384)?;
    cap(Resource::Rtprio, 0)?;
    if spec.limit_data {
        cap(Resource::Data, spec.memory_mib.saturating_mul(MIB))?;
    }
    let counted = kernel_at_least(5, 14);
    if counted {
        cap(Resource::Nproc, spec.pids)?;
    }
    Ok(counted)
}

/// Lowers a limit; never tries to raise one.
fn cap(resource: Resource, value: u64) -> io::Result<()> {
    let now = rustix::process::getrlimit(resource);
    let value = now.maximum.map_or(value, |maximum| value.min(maximum));
    Ok(setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })?)
}

fn kernel_at_least(major: u32, minor: u32) -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}

fn capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for capability in 0..64 {
        // SAFETY: a prctl without pointers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            // Past the last capability this kernel knows.
            break;
        }
    }
    let bits = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(bits)?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// A second wall behind the mounts: writing only where the guest may, and no signal or abstract
/// socket across the jail's edge. As much as the kernel knows; returns the ABI in force.
fn landlock() -> Result<u32, String> {
    let abi = ABI::V9;
    let all = AccessFs::from_all(abi);
    let build = || -> Result<landlock::RestrictionStatus, Box<dyn std::error::Error>> {
        let mut rules = Ruleset::default()
            .handle_access(all)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)?
            .create()?
            .add_rule(PathBeneath::new(PathFd::new("/")?, AccessFs::from_read(abi)))?
            .add_rule(PathBeneath::new(
                PathFd::new("/dev")?,
                AccessFs::from_read(abi) | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev,
            ))?;
        // Nobody needs a device node, and without capabilities nobody could make one.
        let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        for place in ["/work", "/home/agent", "/state", "/tmp", "/dev/shm"] {
            rules = rules.add_rule(PathBeneath::new(PathFd::new(place)?, write))?;
        }
        Ok(rules.restrict_self()?)
    };
    let status = build().map_err(|error| error.to_string())?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::NotEnforced, _) => 0,
        (_, LandlockStatus::Available { effective_abi, .. }) => effective_abi as u32,
        _ => 0,
    })
}
