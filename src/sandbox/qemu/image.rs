//! The image a machine boots: a directory that `scripts/build-vm.sh` made.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::place;
use crate::sandbox::BootError;

/// How to get one.
const HINT: &str =
    "run scripts/build-vm.sh in a clone of symphony, or name an image with sandbox.image or SYMPHONY_VM_IMAGE";
const VARIABLE: &str = "SYMPHONY_VM_IMAGE";
const FORMAT: u32 = 1;
/// Files that every image has, and the one that some have.
const ALWAYS: [&str; 3] = ["vmlinux", "initrd.cpio", "root.erofs"];
const AGENTS: &str = "agents.erofs";
/// A manifest lists a few hundred packages.
const LONGEST_MANIFEST: u64 = 4 * 1024 * 1024;

/// A usable image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Where it stands.
    pub(super) dir: PathBuf,
    /// Whether it has a layer with agents.
    pub(super) agents: bool,
    /// What it is, as text: its manifest's hash.
    pub(super) identity: String,
    /// The Debian packages in it.
    packages: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    format: u32,
    arch: String,
    protocol: u32,
    #[serde(default)]
    inputs: Vec<Input>,
    outputs: std::collections::BTreeMap<String, Output>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
}

#[derive(Debug, Deserialize)]
struct Output {
    sha256: String,
    bytes: u64,
}

impl Image {
    /// Finds and checks the image: the one that is named, else the one of the user, else the one that was built beside
    /// this program. Blocking.
    pub(super) fn find(named: Option<&Path>, places: &[PathBuf]) -> Result<Self, BootError> {
        if let Some(dir) = named {
            return Self::open(dir);
        }
        // One that cannot be looked at is not passed over: what is in the next may be something else.
        match places.iter().find(|dir| dir.join("manifest.json").try_exists().unwrap_or(true)) {
            // What the variable names is a person's word, like `named`.
            Some(dir) if variable(VARIABLE).is_some() => Self::open(dir),
            Some(dir) => Self::trusted(dir),
            None => {
                let (what, hint) = nowhere(places, variable(VARIABLE).as_deref());
                Err(missing(what, &hint))
            }
        }
    }

    /// Where an image is looked for, best first: where `SYMPHONY_VM_IMAGE` says, and then nowhere else; in the user's
    /// data directory; in the clone that built this program.
    pub(super) fn places(exe: &Path) -> Vec<PathBuf> {
        if let Some(named) = variable(VARIABLE) {
            return vec![named];
        }
        let data = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
        let mut places: Vec<PathBuf> = data.map(|data| data.join("symphony/vm")).into_iter().collect();
        places.extend(place::of_clone(exe));
        places
    }

    /// One that was found unasked: nobody else can have put it there.
    fn trusted(dir: &Path) -> Result<Self, BootError> {
        let image = Self::open(dir)?;
        let files = ALWAYS.iter().chain(&[AGENTS, "manifest.json"]).map(|name| dir.join(name));
        match std::iter::once(dir.to_owned()).chain(files).find_map(|path| place::strange(&path)) {
            None => Ok(image),
            Some(why) => {
                let shown = dir.display();
                let hint = format!(
                    "if it is what you want to boot, take it over (chown, chmod go-w), or name it: sandbox.image: {shown}"
                );
                Err(missing(format!("the VM image {shown} is not used: {why}"), &hint))
            }
        }
    }

    /// Why the guest program at `path`, which was found where images are, may be a stranger's.
    pub(super) fn strange_guest(path: &Path) -> Option<String> {
        let beside = path.parent().filter(|_| variable(VARIABLE).is_none())?;
        place::strange(beside).or_else(|| place::strange(path))
    }

    fn open(dir: &Path) -> Result<Self, BootError> {
        // The launcher that shows it to the emulator stands elsewhere.
        let dir = &std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let shown = dir.display();
        let path = dir.join("manifest.json");
        let mut text = Vec::new();
        // Built elsewhere, it would not be found: this place would still be the one.
        let rebuild = &format!("build it with scripts/build-vm.sh --output {shown} of this version");
        let unreadable = |path: &Path, error: &std::io::Error| {
            let what = format!("cannot read {}: {error}", path.display());
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => missing(what, rebuild),
                _ => BootError::Unreadable { what, hint: rebuild.clone() },
            }
        };
        let file = crate::files::open_plain(&path).map_err(|error| unreadable(&path, &error))?;
        file.take(LONGEST_MANIFEST).read_to_end(&mut text).map_err(|error| unreadable(&path, &error))?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| missing(format!("{} is not a manifest: {error}", path.display()), rebuild))?;
        if manifest.format != FORMAT || manifest.protocol != symphony_guest::wire::VERSION {
            return Err(missing(format!("the VM image {shown} is of another version of symphony"), rebuild));
        }
        if manifest.arch != std::env::consts::ARCH {
            let arch = &manifest.arch;
            return Err(missing(format!("the VM image {shown} is for {arch}, not for this machine"), rebuild));
        }
        if let Some(name) = ALWAYS.iter().find(|name| !manifest.outputs.contains_key(**name)) {
            return Err(missing(format!("the VM image {shown} has no {name}"), rebuild));
        }
        for (name, output) in &manifest.outputs {
            let plain = ALWAYS.contains(&name.as_str()) || name == AGENTS;
            if !plain {
                continue;
            }
            let file = dir.join(name);
            let length = match fs::metadata(&file) {
                Ok(meta) if meta.is_file() => meta.len(),
                Ok(_) => return Err(unreadable(&file, &std::io::Error::other("it is no regular file"))),
                Err(error) => return Err(unreadable(&file, &error)),
            };
            if length != output.bytes {
                let bytes = output.bytes;
                return Err(missing(format!("{shown}/{name} has {length} bytes, its manifest says {bytes}"), rebuild));
            }
        }
        let agents = manifest.outputs.contains_key(AGENTS);
        let identity =
            manifest.outputs.iter().map(|(name, output)| format!("{name} {}\n", output.sha256)).collect::<String>();
        let identity = hex(&Sha256::digest(identity));
        let packages = manifest.inputs.into_iter().map(|input| input.name).collect();
        Ok(Self { dir: dir.to_owned(), agents, identity, packages })
    }

    /// Whether all of these Debian packages are in it.
    pub(super) fn has(&self, wanted: &[String]) -> Result<(), BootError> {
        let lacks: Vec<&str> = wanted.iter().filter(|name| !self.packages.contains(name)).map(String::as_str).collect();
        if lacks.is_empty() {
            return Ok(());
        }
        let options: String = lacks.iter().map(|name| format!(" --package {name}")).collect();
        let dir = self.dir.display();
        Err(BootError::Missing {
            what: format!("the VM image {dir} lacks {}", lacks.join(", ")),
            hint: format!(
                "build one with scripts/build-vm.sh --output DIRECTORY{options}, and name it with `image` in the profile"
            ),
        })
    }
}

/// Bytes as people write hashes.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of a variable that says something.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where there is no image, and how to get one. `named` is what [`VARIABLE`] says, which excludes every other place.
fn nowhere(places: &[PathBuf], named: Option<&Path>) -> (String, String) {
    if let Some(named) = named.map(Path::display) {
        let what = format!("there is no VM image in {named}, where {VARIABLE} says, and no other place counts");
        return (what, format!("build it with scripts/build-vm.sh --output {named}, or unset {VARIABLE}"));
    }
    let searched: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    (format!("there is no VM image in {}", searched.join(" or ")), HINT.to_owned())
}

fn missing(what: impl Into<String>, hint: &str) -> BootError {
    BootError::Missing { what: what.into(), hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{BootError, Image};

    fn image(dir: &Path, manifest: &str) {
        for name in super::ALWAYS {
            std::fs::write(dir.join(name), name).expect("written");
        }
        std::fs::write(dir.join("manifest.json"), manifest).expect("written");
    }

    fn manifest(format: u32, arch: &str, root_bytes: usize) -> String {
        let protocol = symphony_guest::wire::VERSION;
        format!(
            r#"{{"format":{format},"arch":"{arch}","protocol":{protocol},"inputs":[{{"name":"git","version":"1","sha256":"a"}}],
            "outputs":{{"vmlinux":{{"sha256":"1","bytes":7}},"initrd.cpio":{{"sha256":"2","bytes":11}},"root.erofs":{{"sha256":"3","bytes":{root_bytes}}}}}}}"#
        )
    }

    #[test]
    fn an_image_is_used_only_when_it_is_whole_and_ours() {
        let place = tempfile::tempdir().expect("directory");
        let arch = std::env::consts::ARCH;
        image(place.path(), &manifest(1, arch, 10));
        let good = Image::find(None, &[place.path().to_owned()]).expect("the control");
        assert!(!good.agents);
        good.has(&["git".to_owned()]).expect("it is in");
        let error = good.has(&["git".to_owned(), "curl".to_owned()]).expect_err("it is not").to_string();
        assert!(error.contains("lacks curl") && error.contains("--package curl"), "{error}");
        let cases = [
            (manifest(2, arch, 10), "another version"),
            (manifest(1, "vax", 10), "is for vax"),
            (manifest(1, arch, 11), "its manifest says 11"),
            ("{}".to_owned(), "is not a manifest"),
        ];
        for (text, said) in cases {
            image(place.path(), &text);
            let error = Image::find(Some(place.path()), &[]).expect_err(said).to_string();
            let builds = format!("scripts/build-vm.sh --output {}", place.path().display());
            assert!(error.contains(said) && error.contains(&builds), "{error}");
        }
        let error = Image::find(None, &[place.path().join("nowhere")]).expect_err("nothing there").to_string();
        assert!(error.contains("there is no VM image in ") && error.contains("scripts/build-vm.sh"), "{error}");
    }

    /// What cannot be looked at is not called missing: nobody knows, and the next look may.
    #[test]
    fn an_image_that_cannot_be_read_is_told_from_one_that_is_not_there() {
        let place = tempfile::tempdir().expect("directory");
        let manifest_file = place.path().join("manifest.json");
        let said = |named: Option<&Path>| Image::find(named, &[place.path().to_owned()]).expect_err("no image");
        assert!(matches!(said(Some(place.path())), BootError::Missing { .. }), "an empty directory");
        // No user can read a directory as a file, and none can follow a link to itself.
        std::fs::create_dir(&manifest_file).expect("made");
        for named in [Some(place.path()), None] {
            let error = said(named);
            let BootError::Unreadable { what, .. } = &error else { panic!("{error:?}") };
            assert!(what.contains("cannot read ") && what.contains("manifest.json"), "{what}");
        }
        std::fs::remove_dir(&manifest_file).expect("removed");
        // Regression: the look at a pipe never ended.
        rustix::fs::mkfifoat(rustix::fs::CWD, &manifest_file, 0o600.into()).expect("a pipe");
        for named in [Some(place.path()), None] {
            assert!(matches!(said(named), BootError::Unreadable { .. }), "a pipe");
        }
        std::fs::remove_file(&manifest_file).expect("removed");
        std::os::unix::fs::symlink("manifest.json", &manifest_file).expect("linked");
        assert!(matches!(said(None), BootError::Unreadable { .. }), "it is not passed over for the next place");
        std::fs::remove_file(&manifest_file).expect("removed");
        image(place.path(), &manifest(1, std::env::consts::ARCH, 10));
        std::fs::remove_file(place.path().join("root.erofs")).expect("removed");
        assert!(matches!(said(None), BootError::Missing { .. }), "a file of it is gone");
        std::os::unix::fs::symlink("root.erofs", place.path().join("root.erofs")).expect("linked");
        assert!(matches!(said(None), BootError::Unreadable { .. }), "a file of it cannot be looked at");
    }

    /// Regression: it was booted.
    #[test]
    fn an_image_that_others_may_write_is_used_only_when_a_person_names_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().expect("directory");
        image(place.path(), &manifest(1, std::env::consts::ARCH, 10));
        let places = [place.path().to_owned()];
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
        };
        for name in ["", "manifest.json", "vmlinux", "root.erofs"] {
            let planted = place.path().join(name);
            let usual = std::fs::metadata(&planted).expect("there").permissions().mode();
            set(&planted, 0o777);
            let error = Image::find(None, &places).expect_err("planted").to_string();
            assert!(error.contains("is not used") && error.contains("can be written by others"), "{error}");
            Image::find(Some(place.path()), &[]).expect("named");
            set(&planted, usual);
            Image::find(None, &places).expect("the control");
        }
    }

    #[test]
    fn where_no_image_is_the_places_that_were_searched_are_named() {
        let places = ["/data/vm".into(), "/clone/vm/image".into()];
        assert_eq!(super::nowhere(&places, None).0, "there is no VM image in /data/vm or /clone/vm/image");
        let (named, hint) = super::nowhere(&places[..1], Some(Path::new("/data/vm")));
        assert!(hint.starts_with("build it with scripts/build-vm.sh --output /data/vm"), "{hint}");
        assert!(named.starts_with("there is no VM image in /data/vm, where SYMPHONY_VM_IMAGE says"), "{named}");
    }
}
