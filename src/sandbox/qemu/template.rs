//! Templates: a machine saved after its boot, restored many times. They hold no secret and no issue's data, since they
//! are saved before the machine has been told either and with a disk that was never opened.
//!
//! On disk, below the workflow's own directory, a template is `<key>/{ram,state,about.json}`, made whole under another
//! name and renamed. In memory its RAM is a sealed anonymous file: every machine maps it privately, nobody, not even
//! an emulator that a guest has taken over, can write to it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use sha2::{Digest, Sha256};

use super::image::hex;
use crate::files;

/// Raised when what is saved, or how, changes.
const FORMAT: u32 = 1;
/// The state of the devices is some 70 KB.
pub(super) const LARGEST_STATE: u64 = 64 * 1024 * 1024;
/// How directories begin that are not templates yet.
const UNFINISHED: &str = "new-";
const CHUNK: usize = 1024 * 1024;

/// Everything that must be the same between the machine that was saved and the one that is restored.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(String);

impl Key {
    /// The parts, each on its own line; none of them holds one.
    pub(super) fn of(parts: &[&str]) -> Self {
        let text = parts.iter().fold(format!("format {FORMAT}\n"), |text, part| format!("{text}{part}\n"));
        Self(hex(&Sha256::digest(text)))
    }

    fn name(&self) -> &str {
        self.0.get(..32).unwrap_or(&self.0)
    }
}

/// A template in memory.
#[derive(Debug)]
pub(super) struct Template {
    ram: OwnedFd,
    state: Vec<u8>,
}

impl Template {
    /// The RAM, for one more machine.
    pub(super) fn ram(&self) -> io::Result<OwnedFd> {
        self.ram.try_clone()
    }

    /// The state of the devices.
    pub(super) fn state(&self) -> &[u8] {
        &self.state
    }
}

/// What is known about one key.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Unknown,
    Good(Arc<Template>),
    /// It could not be made or restored: this process does not try again.
    Bad,
}

/// All templates of a workflow. Clones are the same: there is one for each directory, since whoever removes a template must
/// know all that use it.
#[derive(Clone, Debug)]
pub struct Templates {
    dir: PathBuf,
    slots: Arc<Mutex<Slots>>,
}

/// What this process has asked for so far.
type Slots = HashMap<Key, Arc<tokio::sync::Mutex<Slot>>>;

impl Templates {
    /// Kept below `dir`, which is ours and private.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, slots: Arc::default() }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names of those that this process uses, makes or has given up.
    pub(crate) fn in_use(&self) -> BTreeSet<String> {
        self.slots().keys().map(|key| key.name().to_owned()).collect()
    }

    /// Removes one that nothing in this process uses. Whoever asks for it later finds none, and makes it again. Blocking.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        let place = self.dir.join(name);
        let doomed = {
            // Held over the rename alone: nobody begins to use it meanwhile.
            let slots = self.slots();
            if slots.keys().any(|key| key.name() == name) {
                return Err(io::Error::other("it is in use"));
            }
            files::doom(&place)?
        };
        files::remove_tree(&doomed)
    }

    /// A directory to make a template in. One that is left is swept.
    pub(super) fn workplace(&self) -> io::Result<tempfile::TempDir> {
        files::create_private_dir(&self.dir)?;
        tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.dir)
    }

    /// Removes what was not finished. Only while nobody makes one.
    pub(super) async fn sweep(&self) -> io::Result<()> {
        let dir = self.dir.clone();
        let work = move || -> io::Result<()> {
            let entries = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// The template of this key: loaded, or else made by `make`. Callers of one key wait for each other, and `make`
    /// runs once. `None`: there is none, and machines boot cold.
    pub(super) async fn get(
        &self,
        key: &Key,
        make: impl AsyncFnOnce() -> Result<(OwnedFd, Vec<u8>), String>,
    ) -> Option<Arc<Template>> {
        let slot = Arc::clone(self.slots().entry(key.clone()).or_default());
        let mut slot = slot.lock().await;
        match &*slot {
            Slot::Good(template) => {
                // Nobody waits for it.
                let place = self.dir.join(key.name());
                drop(tokio::task::spawn_blocking(move || files::touch(&place)));
                return Some(Arc::clone(template));
            }
            Slot::Bad => return None,
            Slot::Unknown => {}
        }
        let place = self.dir.join(key.name());
        let known = key.clone();
        let read = tokio::task::spawn_blocking({
            let place = place.clone();
            move || load(&place, &known)
        });
        let loaded = match read.await {
            Ok(Ok(Some(template))) => Ok(template),
            Ok(Ok(None)) => self.made(key, &place, make().await).await,
            Ok(Err(error)) => {
                tracing::warn!(path = %place.display(), %error, "a template cannot be read; it is made again");
                discard(&place);
                self.made(key, &place, make().await).await
            }
            Err(error) => Err(error.to_string()),
        };
        match loaded {
            Ok(template) => {
                let template = Arc::new(template);
                *slot = Slot::Good(Arc::clone(&template));
                Some(template)
            }
            Err(error) => {
                tracing::warn!(%error, "no template could be made; machines boot cold");
                *slot = Slot::Bad;
                None
            }
        }
    }

    /// It did not restore: it is thrown away, and this process makes no other.
    pub(super) async fn reject(&self, key: &Key) {
        let slot = self.slots().get(key).map(Arc::clone);
        if let Some(slot) = slot {
            *slot.lock().await = Slot::Bad;
        }
        let place = self.dir.join(key.name());
        let _ = tokio::task::spawn_blocking(move || discard(&place)).await;
    }

    async fn made(
        &self,
        key: &Key,
        place: &Path,
        made: Result<(OwnedFd, Vec<u8>), String>,
    ) -> Result<Template, String> {
        let (ram, state) = made?;
        let (key, place) = (key.clone(), place.to_owned());
        // Whose run this is stands in what is logged.
        let span = tracing::Span::current();
        let keep = move || -> io::Result<Template> {
            let _inside = span.enter();
            seal(&ram)?;
            let template = Template { ram, state };
            // It serves this process even where it cannot be kept for the next.
            if let Err(error) = store(&template, &place, &key) {
                tracing::warn!(path = %place.display(), %error, "a template could not be kept");
                discard(&place);
            }
            Ok(template)
        };
        tokio::task::spawn_blocking(keep).await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}

/// An anonymous file of `mib` MiB for a machine's RAM.
pub(super) fn blank_ram(mib: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let ram = rustix::fs::memfd_create("symphony-template", flags)?;
    rustix::fs::ftruncate(&ram, mib.saturating_mul(1024 * 1024))?;
    Ok(ram)
}

fn seal(ram: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_add_seals(ram, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?)
}

fn about(key: &Key, state: &[u8], ram_bytes: u64) -> serde_json::Value {
    serde_json::json!({"format": FORMAT, "key": key.0, "state": hex(&Sha256::digest(state)), "ram_bytes": ram_bytes})
}

fn load(place: &Path, key: &Key) -> io::Result<Option<Template>> {
    let said = match fs::read(place.join("about.json")) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut state = Vec::new();
    File::open(place.join("state"))?.take(LARGEST_STATE).read_to_end(&mut state)?;
    let file = File::open(place.join("ram"))?;
    let bytes = file.metadata()?.len();
    let said: serde_json::Value = serde_json::from_slice(&said)?;
    if said != about(key, &state, bytes) {
        return Err(io::Error::other("it is not what it says it is"));
    }
    let ram = blank_ram(bytes / (1024 * 1024))?;
    copy_data(&file, &File::from(ram.try_clone()?), bytes)?;
    seal(&ram)?;
    files::touch(place);
    Ok(Some(Template { ram, state }))
}

fn store(template: &Template, place: &Path, key: &Key) -> io::Result<()> {
    let parent = place.parent().unwrap_or(Path::new("/"));
    files::create_private_dir(parent).map_err(io::Error::other)?;
    let new = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent)?;
    let ram = File::from(template.ram.try_clone()?);
    let bytes = ram.metadata()?.len();
    let kept = File::create(new.path().join("ram"))?;
    kept.set_len(bytes)?;
    copy_data(&ram, &kept, bytes)?;
    kept.sync_all()?;
    let write = |name: &str, bytes: &[u8]| -> io::Result<()> {
        let mut file = File::create(new.path().join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write("state", &template.state)?;
    write("about.json", about(key, &template.state, bytes).to_string().as_bytes())?;
    discard(place);
    fs::rename(new.path(), place)?;
    // Renamed: there is nothing left to remove under the old name.
    let _ = new.keep();
    Ok(())
}

fn discard(place: &Path) {
    if let Err(error) = files::doom(place).and_then(|doomed| files::remove_tree(&doomed))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %place.display(), %error, "a template cannot be removed");
    }
}

/// Copies what is not a hole; `to` is all holes.
fn copy_data(from: &File, to: &File, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        let data = match rustix::fs::seek(from.as_fd(), rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from.as_fd(), rustix::fs::SeekFrom::Hole(data))?;
        at = data;
        while at < end {
            let most = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let chunk = buffer.get_mut(..most).unwrap_or_default();
            from.read_exact_at(chunk, at)?;
            to.write_all_at(chunk, at)?;
            at += most as u64;
        }
    }
    let mut to = to;
    to.seek(SeekFrom::Start(0)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn ram(text: &[u8]) -> OwnedFd {
        let ram = blank_ram(4).expect("memory");
        File::from(ram.try_clone().expect("a copy")).write_all_at(text, 2 * 1024 * 1024).expect("written");
        ram
    }

    #[tokio::test]
    async fn a_template_is_made_once_and_found_again_by_another_process() {
        let place = tempfile::tempdir().expect("directory");
        let key = Key::of(&["a", "b"]);
        let first = Templates::new(place.path().to_owned());
        let made = first.get(&key, async || Ok((ram(b"pages"), b"state".to_vec()))).await.expect("made");
        assert_eq!(made.state(), b"state");
        let again = first.get(&key, async || panic!("made twice")).await.expect("kept");
        assert!(Arc::ptr_eq(&made, &again));
        let other = Templates::new(place.path().to_owned());
        let loaded = other.get(&key, async || panic!("made twice")).await.expect("loaded");
        let mut text = [0; 5];
        File::from(loaded.ram().expect("a copy")).read_exact_at(&mut text, 2 * 1024 * 1024).expect("read");
        assert_eq!((&text, loaded.state()), (b"pages", b"state".as_slice()));
        // The control: another key is another template.
        let other_key = Key::of(&["a", "c"]);
        assert!(other.get(&other_key, async || Err("asked for".to_owned())).await.is_none());
    }

    #[tokio::test]
    async fn a_template_says_when_it_was_used_last_and_goes_only_while_nothing_uses_it() {
        let place = tempfile::tempdir().expect("directory");
        let key = Key::of(&["k"]);
        let kept = place.path().join(key.name());
        let used = || fs::metadata(&kept).and_then(|about| about.modified()).expect("there");
        let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let age = || File::open(&kept).and_then(|dir| dir.set_modified(long_ago)).expect("aged");
        Templates::new(place.path().to_owned()).get(&key, async || Ok((ram(b"pages"), vec![1]))).await.expect("made");
        age();
        // Loaded, then found in memory.
        let templates = Templates::new(place.path().to_owned());
        templates.get(&key, async || panic!("made twice")).await.expect("loaded");
        assert!(used() > long_ago);
        age();
        templates.get(&key, async || panic!("made twice")).await.expect("in memory");
        let soon = async {
            while used() == long_ago {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), soon).await.expect("it says so");
        // A clone is the same.
        let error = templates.clone().remove(key.name()).expect_err("it is in use");
        assert!(error.to_string().contains("in use") && kept.join("ram").exists());
        let next = Templates::new(place.path().to_owned());
        next.remove(key.name()).expect("nothing in this process uses it");
        assert_eq!(fs::read_dir(place.path()).expect("lists").count(), 0);
        let again = next.get(&key, async || Ok((ram(b"pages"), vec![2]))).await.expect("made again");
        assert_eq!(again.state(), [2]);
    }

    #[tokio::test]
    async fn the_memory_of_a_template_cannot_be_written_through_any_descriptor() {
        let place = tempfile::tempdir().expect("directory");
        let templates = Templates::new(place.path().to_owned());
        let made = templates.get(&Key::of(&["k"]), async || Ok((ram(b"pages"), vec![1]))).await.expect("made");
        let file = File::from(made.ram().expect("a copy"));
        assert!(file.write_all_at(b"other", 0).is_err());
        let door = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let opened = File::options().read(true).write(true).open(door).expect("opens, as the emulator must");
        assert!(opened.write_all_at(b"other", 0).is_err() && opened.set_len(0).is_err());
        // The control: before it is sealed, it can be.
        let blank = File::from(blank_ram(1).expect("memory"));
        assert!(blank.write_all_at(b"other", 0).is_ok());
    }

    #[tokio::test]
    async fn a_template_that_was_tampered_with_is_made_again_and_a_rejected_one_is_not() {
        let place = tempfile::tempdir().expect("directory");
        let key = Key::of(&["k"]);
        let first = Templates::new(place.path().to_owned());
        first.get(&key, async || Ok((ram(b"pages"), vec![1]))).await.expect("made");
        fs::write(place.path().join(key.name()).join("state"), b"forged").expect("written");
        let second = Templates::new(place.path().to_owned());
        let made = second.get(&key, async || Ok((ram(b"pages"), vec![2]))).await.expect("made again");
        assert_eq!(made.state(), [2]);
        let left = second.workplace().expect("made").keep();
        second.sweep().await.expect("swept");
        assert!(!left.exists() && place.path().join(key.name()).exists());
        assert!(second.in_use().contains(key.name()) && second.remove(key.name()).is_err());
        second.reject(&key).await;
        assert!(second.get(&key, async || panic!("made after it was rejected")).await.is_none());
        assert!(!place.path().join(key.name()).exists());
    }
}
