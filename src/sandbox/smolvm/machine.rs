//! Machines as words: their names, their labels, what one is made with, and which one is an issue's work disk.

use std::fmt;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use symphony_core::ids::{RunId, hash16};

use super::text;
use crate::sandbox::BootError;

/// What stands in place of the issue on a machine that was only tried out.
pub(super) const TRIAL: &str = "(trial)";
/// Longest part of a name that is there for people.
const SLUG: usize = 20;
const OWNER: &str = "symphony";
/// Where the guest finds the channel's socket.
pub(super) const GUEST_SOCKET: &str = "/run/symphony.sock";

/// A machine's name: `sy-<instance>-<slug>-<hash>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// The name of the machine of this work disk.
    pub(super) fn of(instance: &str, disk: &Path) -> Self {
        let plain = |text: &str, most: usize| {
            let mut out = String::new();
            for c in text.chars().map(|c| c.to_ascii_lowercase()) {
                match c.is_ascii_alphanumeric() {
                    true => out.push(c),
                    // Two in a row, or one at the end, are no name.
                    false if !out.is_empty() && !out.ends_with('-') => out.push('-'),
                    false => {}
                }
                if out.len() == most {
                    break;
                }
            }
            out.trim_end_matches('-').to_owned()
        };
        let slug = plain(&disk.file_name().unwrap_or_default().to_string_lossy(), SLUG);
        let slug = if slug.is_empty() { "x".to_owned() } else { slug };
        let hash = hash16(&format!("{instance}\n{}", disk.display()));
        let mark = hash16(instance);
        Self(format!("sy-{}-{slug}-{}", mark.get(..4).unwrap_or_default(), hash.get(..6).unwrap_or_default()))
    }

    /// A name read back, if it is one that [`Name::of`] makes.
    pub(super) fn read(text: &str) -> Option<Self> {
        let fits = text.len() <= 64
            && text.starts_with("sy-")
            && !text.contains("--")
            && !text.ends_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// A path in the machine, as `machine cp` takes it.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}:{path}", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One machine as smolvm lists it.
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

impl Row {
    /// The rows of `machine ls --json`: an array, or in older versions a map with one.
    pub(super) fn list(json: &str) -> Option<Vec<Self>> {
        #[derive(Deserialize)]
        struct Older {
            machines: Vec<Row>,
        }
        serde_json::from_str::<Vec<Self>>(json)
            .ok()
            .or_else(|| serde_json::from_str::<Older>(json).ok().map(|older| older.machines))
    }

    pub(super) fn is_of(&self, instance: &str) -> bool {
        let is = |key: &str, value: &str| self.labels.get(key).is_some_and(|found| found == value);
        is("owner", OWNER) && is("instance", instance)
    }

    pub(super) fn is_trial(&self) -> bool {
        self.labels.get("issue").is_some_and(|issue| issue == TRIAL)
    }
}

/// What a machine is made with.
pub(super) struct Order<'a> {
    pub(super) name: &'a Name,
    pub(super) instance: &'a str,
    pub(super) issue: &'a str,
    pub(super) run: RunId,
    pub(super) from: Option<&'a Path>,
    pub(super) image: Option<String>,
    pub(super) cpus: u32,
    pub(super) memory_mib: u64,
    pub(super) disk_mib: u64,
    pub(super) socket: &'a Path,
}

impl Order<'_> {
    /// `machine create …`. No network, no folder of the host, no variable.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut all = ["machine", "create", "--name", self.name.as_str()].map(str::to_owned).to_vec();
        let mut put = |flag: &str, value: String| all.extend([flag.to_owned(), value]);
        if self.cpus > 0 {
            put("--cpus", self.cpus.to_string());
        }
        if self.memory_mib > 0 {
            put("--mem", self.memory_mib.to_string());
        }
        if self.disk_mib > 0 {
            put("--storage", gib(self.disk_mib).to_string());
            put("--overlay", gib(self.disk_mib).to_string());
        }
        let run = self.run.0.to_string();
        for (key, value) in [("owner", OWNER), ("instance", self.instance), ("issue", self.issue), ("run", &run)] {
            put("--label", format!("{key}={value}"));
        }
        put("--mount-socket", format!("{}:{GUEST_SOCKET}", self.socket.display()));
        match (self.from, &self.image) {
            (Some(pack), _) => put("--from", text(pack)),
            (None, Some(image)) => {
                put("--image", image.clone());
                // Otherwise the image's own program runs, whatever that is.
                all.extend(["--", "sleep", "infinity"].map(str::to_owned));
            }
            (None, None) => {}
        }
        all
    }
}

/// Whole GiB, rounded up: the unit smolvm has.
pub(super) fn gib(mib: u64) -> u64 {
    mib.div_ceil(1024)
}

fn note(disk: &Path) -> PathBuf {
    disk.join("smolvm").join("machine")
}

/// The machine that is this work disk, if it has one.
pub(super) fn remembered(disk: &Path) -> Result<Option<Name>, BootError> {
    let path = note(disk);
    let open = std::fs::File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path);
    let text = open.and_then(|file| io::read_to_string(io::Read::take(file, 256)));
    match text {
        Ok(text) => match Name::read(text.trim()) {
            Some(name) => Ok(Some(name)),
            None => Err(broken("use", &path, "it names no machine of ours (hint: remove it to begin anew)")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(broken("read", &path, &error.to_string())),
    }
}

/// Notes which machine is this work disk.
pub(super) fn remember(disk: &Path, name: &Name) -> Result<(), BootError> {
    let path = note(disk);
    crate::files::create_private_dir(&disk.join("smolvm"))
        .and_then(|()| crate::files::write_atomically(&path, format!("{name}\n").as_bytes()))
        .map_err(|error| broken("write", &path, &error.to_string()))
}

/// Removes the note and the directories that held nothing else.
pub(super) fn forget(disk: &Path) -> Result<(), BootError> {
    let gone = |path: &Path, removed: io::Result<()>| match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let message = format!("{error} (hint: what else stands there is of another runtime)");
            Err(broken("remove", path, &message))
        }
        _ => Ok(()),
    };
    let (note, above) = (note(disk), disk.join("smolvm"));
    gone(&note, std::fs::remove_file(&note))?;
    gone(&above, std::fs::remove_dir(&above))?;
    gone(disk, std::fs::remove_dir(disk))
}

fn broken(action: &'static str, path: &Path, message: &str) -> BootError {
    BootError::Disk { action, path: path.display().to_string(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disk_gets_a_name_that_smolvm_accepts_and_that_is_read_back() {
        for disk in ["APP-1", "a--b", "-", "ünï", "x.y_z", "a-very-long-identifier-of-an-issue-", "1"] {
            let name = Name::of("instance", &Path::new("/d").join(disk));
            assert_eq!(Name::read(name.as_str()), Some(name.clone()), "{disk}");
            assert!(name.as_str().len() <= 36, "{name}");
            assert_ne!(name, Name::of("another", &Path::new("/d").join(disk)));
        }
        for bad in ["", "default", "sy-", "sy-a--b", "sy-a/../b", "sy-a:b", "sy-A", "sy-a b", "sy-a\nb"] {
            assert_eq!(Name::read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_machine_is_made_without_network_folders_and_variables() {
        let name = Name::of("i", Path::new("/d/A-1"));
        let mut order = Order {
            name: &name,
            instance: "i",
            issue: "A-1",
            run: RunId(7),
            from: None,
            image: Some("debian".into()),
            cpus: 2,
            memory_mib: 512,
            disk_mib: 1500,
            socket: Path::new("/s"),
        };
        let all = order.arguments();
        for never in ["--net", "-v", "--volume", "--env", "-e", "-p", "--ssh-agent"] {
            assert!(!all.iter().any(|arg| arg == never), "{never} in {all:?}");
        }
        let line = all.join(" ");
        assert!(
            line.contains("--storage 2 --overlay 2") && line.ends_with("--image debian -- sleep infinity"),
            "{line}"
        );
        order.from = Some(Path::new("/pack"));
        let line = order.arguments().join(" ");
        assert!(line.ends_with("--from /pack") && !line.contains("debian"), "{line}");
    }

    #[test]
    fn lists_of_old_and_new_versions_are_read_and_only_our_machines_are_ours() {
        let row = r#"{"name":"sy-a","state":"stopped","labels":{"owner":"symphony","instance":"i"}}"#;
        for list in [format!("[{row}]"), format!("{{\"machines\":[{row}]}}")] {
            let rows = Row::list(&list).expect("readable");
            assert!(rows[0].is_of("i") && !rows[0].is_of("j") && !rows[0].is_trial());
        }
        let others = Row::list(r#"[{"name":"sy-a","state":"running"}]"#).expect("readable");
        assert!(!others[0].is_of("i"));
        assert!(Row::list("no").is_none());
    }
}
