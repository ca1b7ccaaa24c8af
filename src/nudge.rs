//! Hints from the file system that it is worth looking now. Polling is the truth: a hint may come for
//! nothing, and one that never comes costs at most a polling interval.
//!
//! Watches the tracker root, its state directories (also new ones) and the directory of `WORKFLOW.md`, none
//! of them recursively. Must never read an issue, and never block the thread that receives the events.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// How long events gather before they become one hint.
const DEBOUNCE: Duration = Duration::from_millis(20);

const TRACKER: u8 = 1;
const WORKFLOW: u8 = 2;
const REWATCH: u8 = 4;
const STOP: u8 = 8;

/// What is worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// An issue file or a state directory.
    Tracker,
    /// The workflow file.
    Workflow,
}

/// A directory that cannot be watched; polling still finds what happens there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot watch {path}: {message}; changes there are noticed by polling only")]
pub struct WatchWarning {
    /// Which directory.
    pub path: PathBuf,
    /// What the system said.
    pub message: String,
}

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    signal: Arc<Signal>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.signal.raise(STOP);
    }
}

/// Starts to watch. `workflow` is the absolute path of the workflow file, `root` that of the tracker.
/// Hints of one kind that were not taken yet are one hint. The thread ends when the [`Watch`] is dropped, or at
/// the first hint after the receiver is. Where nothing can be watched at all, the receiver ends at once.
pub fn watch(workflow: &Path, root: &Path, hints: mpsc::Sender<Nudge>) -> (Watch, Vec<WatchWarning>) {
    let (wake, woken) = sync_channel(1);
    let signal = Arc::new(Signal { raised: AtomicU8::new(0), wake });
    let watch = Watch { signal: Arc::clone(&signal) };
    let places = Places { workflow: workflow.to_owned(), root: root.to_owned() };
    let unavailable = |message: String| vec![WatchWarning { path: root.to_owned(), message }];

    let (seen, by) = (places.clone(), Arc::clone(&signal));
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let flags = event.map_or(TRACKER | WORKFLOW | REWATCH, |event| seen.classify(&event));
        if flags != 0 {
            by.raise(flags);
        }
    });
    let watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => return (watch, unavailable(error.to_string())),
    };
    let mut watched = Watched { watcher, places, paths: BTreeSet::new() };
    let mut warnings = watched.renew();
    let spawned = std::thread::Builder::new()
        .name("symphony-nudge".to_owned())
        .spawn(move || forward(&signal, &woken, &mut watched, &hints));
    if let Err(error) = spawned {
        warnings.extend(unavailable(error.to_string()));
    }
    (watch, warnings)
}

/// What was raised and not yet taken. Raising never blocks.
#[derive(Debug)]
struct Signal {
    raised: AtomicU8,
    wake: SyncSender<()>,
}

impl Signal {
    fn raise(&self, flags: u8) {
        self.raised.fetch_or(flags, Ordering::SeqCst);
        // Full means that a wake-up is on its way, and it will take these flags too.
        let _ = self.wake.try_send(());
    }
}

fn forward(signal: &Signal, woken: &Receiver<()>, watched: &mut Watched, hints: &mpsc::Sender<Nudge>) {
    while woken.recv().is_ok() {
        if signal.raised.load(Ordering::SeqCst) & STOP == 0 {
            std::thread::sleep(DEBOUNCE);
        }
        let flags = signal.raised.swap(0, Ordering::SeqCst);
        if flags & STOP != 0 {
            return;
        }
        // Before the hint: the look it causes then finds what came before the new watch was in place.
        if flags & REWATCH != 0 {
            watched.renew();
        }
        for (flag, hint) in [(WORKFLOW, Nudge::Workflow), (TRACKER, Nudge::Tracker)] {
            if flags & flag != 0 && hints.blocking_send(hint).is_err() {
                return;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Places {
    workflow: PathBuf,
    root: PathBuf,
}

impl Places {
    /// Which flags an event raises; 0 for one that is none of our business.
    fn classify(&self, event: &Event) -> u8 {
        if event.need_rescan() {
            return TRACKER | WORKFLOW | REWATCH;
        }
        let structural = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => return 0,
            EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => true,
            _ => false,
        };
        event.paths.iter().fold(0, |flags, path| flags | self.of_path(path, structural))
    }

    fn of_path(&self, path: &Path, structural: bool) -> u8 {
        if path == self.workflow {
            return WORKFLOW;
        }
        let Ok(below) = path.strip_prefix(&self.root) else { return 0 };
        // Hidden names are neither states nor issues: `.symphony`, editors' and our own temporary files.
        if below.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".")) {
            return 0;
        }
        // The root itself and what stands directly below it may be a directory that came or went.
        if structural && below.components().count() <= 1 { TRACKER | REWATCH } else { TRACKER }
    }

    /// Every directory worth a watch, as of now.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::from([self.root.clone()]);
        found.extend(self.workflow.parent().map(Path::to_owned));
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        found.extend(entries.map(|entry| entry.path()).filter(|path| !hidden(path) && path.is_dir()));
        found
    }
}

struct Watched {
    watcher: RecommendedWatcher,
    places: Places,
    paths: BTreeSet<PathBuf>,
}

impl Watched {
    /// Watches what is there now. A directory that was replaced has the old name and needs a new watch, so
    /// all are renewed.
    fn renew(&mut self) -> Vec<WatchWarning> {
        for path in std::mem::take(&mut self.paths) {
            // It may be gone, and then there is nothing to stop.
            let _ = self.watcher.unwatch(&path);
        }
        let mut warnings = Vec::new();
        for path in self.places.directories() {
            match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.paths.insert(path);
                }
                Err(error) => warnings.push(WatchWarning { path, message: error.to_string() }),
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
