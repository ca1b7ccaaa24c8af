//! A conductor at work in a scripted world, and what a test asks of its snapshots.

use symphony_core::snapshot::IdleRow;

use super::super::*;
use super::world::{Script, Started, Step, World, looked};
use crate::journal::Origin;

/// A conductor on this world, with the journal of this directory.
pub(super) fn conductor(
    world: &Arc<World>,
    dir: &tempfile::TempDir,
    once: bool,
) -> (Conductor<Script>, handle::Handle) {
    // Tasks of a conductor that died here may still be closing it, which no dead process does.
    let mut opened = Journal::open(&dir.path().join("journal.db"), Origin::default());
    for _ in 0..100 {
        if opened.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
        opened = Journal::open(&dir.path().join("journal.db"), Origin::default());
    }
    let (journal, memory) = opened.expect("opens");
    let book = crate::egress::Book::new(journal.clone(), memory.egress.clone());
    let facts = Facts { workflow_path: "WORKFLOW.md".into(), once, book };
    let hands = Arc::new(Script::new(world.clone(), journal.clone()));
    let first = looked(world);
    let metering = crate::metering::Metering::new(journal.clone(), &memory, &first.workflow.spending);
    Conductor::new(hands, first, journal, memory, metering, facts)
}

/// A conductor at work.
pub(super) struct Rig {
    pub(super) world: Arc<World>,
    pub(super) handle: handle::Handle,
    pub(super) drain: CancellationToken,
    nudge: mpsc::Sender<Nudge>,
    pub(super) end: tokio::task::JoinHandle<Settled>,
    dir: tempfile::TempDir,
}

impl Rig {
    /// On the usual workflow, with these issues.
    pub(super) fn start(once: bool, issues: &[(&str, &[&[Step]])]) -> Self {
        let world = World::new(|_| {});
        for (name, attempts) in issues {
            world.put(name, attempts);
        }
        Self::on(world, once)
    }

    pub(super) fn on(world: Arc<World>, once: bool) -> Self {
        Self::again(world, once, tempfile::tempdir().expect("directory"))
    }

    pub(super) fn again(world: Arc<World>, once: bool, dir: tempfile::TempDir) -> Self {
        let (conductor, handle) = conductor(&world, &dir, once);
        let (nudge, nudges) = mpsc::channel(8);
        let drain = CancellationToken::new();
        let end = tokio::spawn(conductor.run(nudges, drain.clone(), CancellationToken::new()));
        Self { world, handle, drain, nudge, end, dir }
    }

    /// The first snapshot, from the present one on, that is so. What does not come in two days never comes.
    pub(super) async fn until(&self, what: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut watch = self.handle.watch();
        let coming = async {
            loop {
                let seen = watch.borrow_and_update().clone();
                if what(&seen) {
                    return seen;
                }
                watch.changed().await.expect("the conductor lives");
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(2 * 24 * 3600), coming).await;
        seen.unwrap_or_else(|_| panic!("it never comes: {:#?}", self.handle.snapshot()))
    }

    pub(super) async fn nudge(&self, nudge: Nudge) {
        self.nudge.send(nudge).await.expect("sent");
    }

    /// Drops an issue, and the file watcher notices.
    pub(super) async fn drop_issue(&self, name: &str, attempts: &[&[Step]]) {
        self.world.put(name, attempts);
        self.nudge(Nudge::Tracker).await;
    }

    /// Somebody moves a file, and the file watcher notices.
    pub(super) async fn place(&self, name: &str, to: &str) {
        self.world.place(name, to);
        self.nudge(Nudge::Tracker).await;
    }

    /// Somebody else writes the journal: ours waits until this is dropped.
    pub(super) fn hold_journal(&self) -> rusqlite::Connection {
        let held = rusqlite::Connection::open(self.dir.path().join("journal.db")).expect("opens");
        held.execute_batch("BEGIN IMMEDIATE").expect("held");
        held
    }

    pub(super) async fn stop(self) -> (Arc<World>, tempfile::TempDir) {
        self.drain.cancel();
        self.end.await.expect("ends");
        (self.world, self.dir)
    }

    /// Stops it in order and starts it again on the same world and journal.
    pub(super) async fn restart(self) -> Self {
        let (world, dir) = self.stop().await;
        Self::again(world, false, dir)
    }

    /// It dies where it stands, and is started again.
    pub(super) async fn crash(self) -> Self {
        self.end.abort();
        assert!(self.end.await.is_err_and(|error| error.is_cancelled()));
        Self::again(self.world, false, self.dir)
    }

    /// What the journal remembers after it ended.
    pub(super) async fn memory(self) -> Memory {
        let (_, dir) = self.stop().await;
        Journal::open(&dir.path().join("journal.db"), Origin::default()).expect("opens").1
    }
}

/// Whether an issue stands in this state and no run of it is alive.
pub(super) fn rests(snapshot: &Snapshot, name: &str, state: &str) -> bool {
    snapshot.idle.iter().any(|row| row.identifier.0 == name && row.state.0 == state)
}

/// Why an issue does not run, as its row says it.
pub(super) fn reason(snapshot: &Snapshot, name: &str) -> String {
    snapshot.idle.iter().find(|row| row.identifier.0 == name).map(IdleRow::reason).unwrap_or_default()
}

pub(super) fn runs(snapshot: &Snapshot, name: &str) -> bool {
    snapshot.running.iter().any(|row| row.identifier.0 == name)
}

/// Milliseconds from each start to the next.
pub(super) fn gaps(starts: &[Started]) -> Vec<u64> {
    let ms = |pair: &[Started]| u64::try_from((pair[1].at - pair[0].at).as_millis()).expect("small");
    starts.windows(2).map(ms).collect()
}
