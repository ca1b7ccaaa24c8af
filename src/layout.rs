//! Where things stand below `.symphony/`. Everything in it is the host's; only work disks are written by guests.

use std::path::{Path, PathBuf};

use symphony_core::ids::{RunId, WorkspaceKey};

/// The `.symphony` directory of one workflow.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Below the directory of `WORKFLOW.md`.
    pub fn of(workflow_dir: &Path) -> Self {
        Self { root: workflow_dir.join(".symphony") }
    }

    /// The directory itself, 0700.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// SQLite: runs, counters, questions.
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    /// The mark of what this installation made; the journal has it too.
    pub fn instance(&self) -> PathBuf {
        self.root.join("instance")
    }

    /// Signs the journal's checkpoints, 0600.
    pub fn journal_key(&self) -> PathBuf {
        self.root.join("journal-key")
    }

    /// Held while a symphony runs on this workflow.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// The operator's secret, 0600.
    pub fn operator_token(&self) -> PathBuf {
        self.root.join("operator-token")
    }

    /// The quarantine repository of each issue, `<key>.git`.
    pub fn airlocks(&self) -> PathBuf {
        self.root.join("airlock")
    }

    /// Finished patches.
    pub fn patches(&self) -> PathBuf {
        self.root.join("patches")
    }

    /// The guest's own storage for an issue: opaque, a cache. Never enter, read or configure from it. Each runtime has
    /// its own kind, so each has its own place; `runtime` is its word in the workflow.
    pub fn work_disk(&self, runtime: &str, key: &WorkspaceKey) -> PathBuf {
        let place = if runtime == "jail" { self.root.join("disks") } else { self.root.join("machines").join(runtime) };
        place.join(key.as_str())
    }

    /// Machines saved after their boot. They hold nothing of an issue, and are made again when they are missing.
    pub fn templates(&self) -> PathBuf {
        self.root.join("machines").join("templates")
    }

    /// The directory of [`Self::unexported`].
    pub fn marks(&self) -> PathBuf {
        self.root.join("unexported")
    }

    /// Stands while a work disk may hold work that never came out of it; such a disk is not removed. What it says is
    /// the word of the runtime that has the disk.
    pub fn unexported(&self, key: &WorkspaceKey) -> PathBuf {
        self.marks().join(key.as_str())
    }

    /// Where that stood before: it is still read. Another issue may have its disk of this name, a directory.
    pub fn unexported_before(&self, key: &WorkspaceKey) -> PathBuf {
        self.root.join("disks").join(format!("{}.unexported", key.as_str()))
    }

    /// Where a work disk goes that was given up in this run. No key has a `+` in it.
    pub fn given_up(&self, runtime: &str, key: &WorkspaceKey, run: RunId) -> PathBuf {
        self.work_disk(runtime, key).with_file_name(format!("{}+left-{run}", key.as_str()))
    }

    /// What each run leaves, by its number.
    pub fn runs(&self) -> PathBuf {
        self.root.join("runs")
    }

    /// Everything one run leaves: its log, its frames, bundles on their way.
    pub fn run(&self, run: RunId) -> PathBuf {
        self.runs().join(run.to_string())
    }
}
