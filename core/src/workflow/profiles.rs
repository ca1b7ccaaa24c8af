//! `sandbox.profiles` and the values they fall back to: what one sandbox gets.

use std::path::PathBuf;

use indexmap::IndexMap;

use super::problem::{Code, Problem};
use super::read::{Reader, Section, shortened};
use super::states::MAX_COUNT;
use super::{Sandbox, Smolvm};
use crate::runtimes::Kind;
use crate::spelling::nearest;

/// Names a person types into front matter.
const MAX_NAME: usize = 64;
/// The largest work disk, in MiB: 256 GiB.
const MAX_DISK: i64 = 262_144;
/// More memory, in MiB, is a typing mistake.
const MAX_MIB: i64 = 1 << 30;
/// No machine boots with less, in MiB.
const MIN_MEMORY: i64 = 64;
/// No file system fits into less, in MiB.
const MIN_DISK: i64 = 64;
const MAX_CPUS: i64 = 256;
/// What 0 stands for: more MiB than any machine has, and less than overflows as bytes.
const ANY_MIB: u64 = 1 << 30;
/// What 0 stands for: as many processes as Linux has numbers for.
const ANY_PIDS: u64 = 1 << 22;

/// The defaults of a jail, below which nothing is rescued.
const LEAST_MIB: u64 = 4096;
const LEAST_PIDS: u64 = 512;

/// What was written; everything else falls back to the values of `sandbox`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// What a microVM boots.
    pub image: Option<PathBuf>,
    /// Processors of a microVM.
    pub cpus: Option<u32>,
    /// Memory of everything inside, in MiB.
    pub memory_mib: Option<u64>,
    /// The work disk of a microVM, in MiB.
    pub disk_mib: Option<u64>,
    /// Processes and threads inside; 0 is unlimited.
    pub pids: Option<u64>,
    /// The largest single file inside, in MiB; 0 is unlimited.
    pub file_size_mib: Option<u64>,
    /// Debian packages that the image must contain.
    pub packages: Vec<String>,
}

impl Profile {
    /// Why a sandbox of this kind cannot be what the profile asks for, in words that follow its name.
    pub fn refused_by(&self, kind: Kind) -> Option<String> {
        let what = match (kind.is_microvm(), &self.image, self.packages.is_empty()) {
            (false, Some(_), _) => "an image",
            (false, None, false) => "packages",
            _ => return None,
        };
        Some(format!("names {what}, which a jail cannot have: inside are the programs of this machine"))
    }
}

/// What one sandbox gets, with nothing left open.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// What a microVM boots: an absolute path, or else a name that the runtime knows.
    pub image: Option<PathBuf>,
    /// Processors; 0 is not limited.
    pub cpus: u32,
    /// MiB of memory. Where the workflow sets no limit, here and below, it is a number that nothing reaches.
    pub memory_mib: u64,
    /// MiB of work disk; 0 where it is a directory of the host.
    pub disk_mib: u64,
    /// Processes and threads.
    pub pids: u64,
    /// MiB of a single file.
    pub file_size_mib: u64,
    /// Debian packages that the image must contain.
    pub packages: Vec<String>,
}

/// A profile that the workflow does not list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the workflow lists no profile `{name}` (it lists {})", listed(.profiles))]
pub struct NoProfile {
    /// As written.
    pub name: String,
    /// Those that it does list.
    pub profiles: Vec<String>,
}

/// Names as a sentence needs them.
pub(crate) fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

impl Sandbox {
    /// The profile of an issue that names this one, or none: then the workflow's default.
    ///
    /// # Errors
    /// When it is not listed. There is no fallback.
    pub fn profile_of(&self, named: Option<&str>) -> Result<Option<&Profile>, NoProfile> {
        let Some(name) = named.or(self.profile.as_deref()) else { return Ok(None) };
        let unlisted = || NoProfile { name: name.to_owned(), profiles: self.profiles.keys().cloned().collect() };
        self.profiles.get(name).map(Some).ok_or_else(unlisted)
    }

    /// What a sandbox of this kind gets. A jail takes `sandbox.jail` where the profile says nothing, smolvm its own
    /// section.
    pub fn sizes(&self, profile: Option<&Profile>, kind: Kind, smolvm: &Smolvm) -> Sizes {
        let none = Profile::default();
        let profile = profile.unwrap_or(&none);
        let or = |limit: u64, any| if limit == 0 { any } else { limit };
        let sizes = self.written(profile, kind, smolvm);
        Sizes {
            memory_mib: or(sizes.memory_mib, ANY_MIB),
            pids: or(sizes.pids, ANY_PIDS),
            file_size_mib: or(sizes.file_size_mib, ANY_MIB),
            ..sizes
        }
    }

    /// What a sandbox without an agent gets that takes work off a disk: never less than a run of this profile, than the
    /// usual run, or than the defaults, since for want of room git fails like on a broken tree. It needs no package of the
    /// profile: those are the agent's.
    pub fn rescue_sizes(&self, profile: Option<&Profile>, kind: Kind, smolvm: &Smolvm) -> Sizes {
        let usual = self.sizes(None, kind, smolvm);
        let own = self.sizes(profile, kind, smolvm);
        // A jail only limits; a machine's memory must be there.
        let memory_mib = if kind == Kind::Jail { LEAST_MIB } else { 0 };
        Sizes {
            cpus: usual.cpus.max(own.cpus),
            memory_mib: usual.memory_mib.max(own.memory_mib).max(memory_mib),
            disk_mib: usual.disk_mib.max(own.disk_mib),
            pids: usual.pids.max(own.pids).max(LEAST_PIDS),
            file_size_mib: usual.file_size_mib.max(own.file_size_mib).max(LEAST_MIB),
            packages: vec![],
            image: usual.image,
        }
    }

    /// With 0 where there is no limit.
    fn written(&self, profile: &Profile, kind: Kind, smolvm: &Smolvm) -> Sizes {
        match kind {
            Kind::Jail => Sizes {
                image: None,
                cpus: 0,
                memory_mib: profile.memory_mib.unwrap_or(self.jail.memory_mib),
                disk_mib: 0,
                pids: profile.pids.unwrap_or(self.jail.pids),
                file_size_mib: profile.file_size_mib.unwrap_or(self.jail.file_size_mib),
                packages: vec![],
            },
            Kind::Smolvm => Sizes {
                image: profile
                    .image
                    .clone()
                    .or_else(|| smolvm.from.clone())
                    .or_else(|| smolvm.image.as_ref().map(PathBuf::from)),
                cpus: profile.cpus.unwrap_or(smolvm.cpus),
                memory_mib: profile.memory_mib.unwrap_or(smolvm.mem_mib),
                ..self.written(profile, Kind::QemuKvm, smolvm)
            },
            Kind::QemuKvm | Kind::QemuTcg => Sizes {
                image: profile.image.clone().or_else(|| self.image.clone()),
                cpus: profile.cpus.unwrap_or(self.cpus),
                memory_mib: profile.memory_mib.unwrap_or(self.memory_mib),
                disk_mib: profile.disk_mib.unwrap_or(self.disk_mib),
                pids: profile.pids.unwrap_or(self.pids),
                file_size_mib: profile.file_size_mib.unwrap_or(self.file_size_mib),
                packages: profile.packages.clone(),
            },
        }
    }
}

/// The values of one section that can be a profile's.
pub(super) fn values(reader: &mut Reader<'_>, section: &Section<'_>) -> Profile {
    let mut number = |key, default, min, max| {
        section.get(key)?;
        u64::try_from(reader.number(section, key, default, min..=max)).ok()
    };
    let cpus = number("cpus", 2, 1, MAX_CPUS).and_then(|cpus| u32::try_from(cpus).ok());
    let memory_mib = number("memory_mib", 2048, MIN_MEMORY, MAX_MIB);
    let disk_mib = number("disk_mib", 8192, MIN_DISK, MAX_DISK);
    let pids = number("pids", 512, 0, MAX_COUNT);
    let file_size_mib = number("file_size_mib", 4096, 0, MAX_MIB);
    Profile {
        image: reader.path(section, "image"),
        cpus,
        memory_mib,
        disk_mib,
        pids,
        file_size_mib,
        packages: packages(reader, section),
    }
}

/// `sandbox.profiles`
pub(super) fn profiles(reader: &mut Reader<'_>, sandbox: &Section<'_>) -> IndexMap<String, Profile> {
    let mut profiles = IndexMap::new();
    let Some(node) = sandbox.get("profiles") else { return profiles };
    let Some(entries) = node.as_map() else {
        reader.invalid(sandbox, "profiles", "must be a map of profiles", "write `big: {memory_mib: 8192}` below it");
        return profiles;
    };
    let path = sandbox.path_of("profiles");
    let section = Section { path, entries, place: sandbox.place_of("profiles") };
    for entry in entries {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if entry.key.is_empty() || entry.key.len() > MAX_NAME || !entry.key.chars().all(plain) {
            let message = format!("`{}` is no name for a profile", shortened(&entry.key));
            let problem = Problem::error(Code::InvalidValue, (entry.line, entry.column), message);
            let hint = format!("use at most {MAX_NAME} letters, digits, `.`, `_` and `-`");
            reader.note(problem.about(section.path.as_str()).hint(hint));
            continue;
        }
        if !entry.value.is_null() && entry.value.as_map().is_none() {
            reader.invalid(&section, &entry.key, "must be a map of its settings", "write `{memory_mib: 8192}`");
            continue;
        }
        let one = reader.section(&section, &entry.key, "sandbox.profiles.*");
        profiles.insert(entry.key.clone(), values(reader, &one));
    }
    profiles
}

/// `sandbox.profile`, which must be one of those.
pub(super) fn default_profile(
    reader: &mut Reader<'_>,
    sandbox: &Section<'_>,
    profiles: &IndexMap<String, Profile>,
) -> Option<String> {
    let name = reader.filled(sandbox, "profile")?;
    let name = name.trim();
    // A list that is wrong itself is complained of already.
    if profiles.contains_key(name) {
        return Some(name.to_owned());
    }
    let names: Vec<String> = profiles.keys().cloned().collect();
    let what = format!("names `{}`, which `sandbox.profiles` does not list", shortened(name));
    let hint = match nearest(name, profiles.keys().map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("it lists {}", listed(&names)),
    };
    reader.invalid(sandbox, "profile", &what, &hint);
    None
}

/// Names as Debian's policy has them.
fn packages(reader: &mut Reader<'_>, section: &Section<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for (name, place) in reader.strings(section, "packages", true).unwrap_or_default() {
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_name = name.len() >= 2 && name.starts_with(first) && name.chars().all(|c| first(c) || "+-.".contains(c));
        if !is_name || name.len() > MAX_NAME {
            let path = section.path_of("packages");
            let message = format!("`{path}`: `{}` is no name of a Debian package", shortened(&name));
            let problem = Problem::error(Code::InvalidValue, place, message).about(path);
            reader.note(problem.hint("lower-case letters, digits, `+`, `-` and `.`, such as `python3-venv`"));
        } else if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}
