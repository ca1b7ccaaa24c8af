//! Real files change, hints arrive.

use std::fs;

use tempfile::TempDir;
use tokio::sync::mpsc::Receiver as Hints;
use tokio::time::timeout;

use super::*;

/// Far beyond any real delay; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    dir: TempDir,
    hints: Hints<Nudge>,
    warnings: Vec<WatchWarning>,
    _watch: Watch,
}

impl World {
    fn new(make_root: bool) -> Self {
        let dir = TempDir::new().expect("directory");
        fs::write(dir.path().join("WORKFLOW.md"), "a").expect("write");
        if make_root {
            fs::create_dir_all(dir.path().join("issues/Todo")).expect("directories");
        }
        let (sender, hints) = mpsc::channel(1);
        let (watch, warnings) = watch(&dir.path().join("WORKFLOW.md"), &dir.path().join("issues"), sender);
        Self { dir, hints, warnings, _watch: watch }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// Waits for a hint of this kind.
    async fn expect(&mut self, wanted: Nudge) {
        let found = timeout(DEADLINE, async {
            while let Some(hint) = self.hints.recv().await {
                if hint == wanted {
                    return true;
                }
            }
            false
        });
        assert!(found.await.expect("a hint before the deadline"), "the thread ended");
    }

    /// Takes what earlier steps caused, until none came for a while.
    async fn settle(&mut self) -> usize {
        let mut taken = 0;
        while timeout(Duration::from_millis(300), self.hints.recv()).await.is_ok_and(|hint| hint.is_some()) {
            taken += 1;
        }
        taken
    }
}

#[tokio::test]
async fn a_file_dropped_into_a_state_is_a_hint() {
    let mut world = World::new(true);
    assert_eq!(world.warnings, []);
    fs::write(world.path("issues/Todo/A.md"), "x").expect("write");
    world.expect(Nudge::Tracker).await;
    world.settle().await;
    fs::create_dir(world.path("issues/Done")).expect("directory");
    world.expect(Nudge::Tracker).await;
    world.settle().await;
    fs::rename(world.path("issues/Todo/A.md"), world.path("issues/Done/A.md")).expect("move");
    world.expect(Nudge::Tracker).await;
    world.settle().await;
    fs::write(world.path("issues/Done/A.md"), "in a new directory").expect("write");
    world.expect(Nudge::Tracker).await;
}

#[tokio::test]
async fn a_state_directory_that_is_replaced_stays_watched() {
    let mut world = World::new(true);
    fs::remove_dir(world.path("issues/Todo")).expect("remove");
    fs::create_dir(world.path("issues/Todo")).expect("create");
    world.expect(Nudge::Tracker).await;
    world.settle().await;
    fs::write(world.path("issues/Todo/B.md"), "x").expect("write");
    world.expect(Nudge::Tracker).await;
}

#[tokio::test]
async fn the_workflow_file_is_watched_through_rename_over_and_recreation() {
    let mut world = World::new(true);
    let path = world.path("WORKFLOW.md");
    fs::write(&path, "b").expect("write");
    world.expect(Nudge::Workflow).await;
    world.settle().await;
    fs::write(world.path(".new"), "c").expect("write");
    fs::rename(world.path(".new"), &path).expect("rename");
    world.expect(Nudge::Workflow).await;
    world.settle().await;
    fs::remove_file(&path).expect("remove");
    world.expect(Nudge::Workflow).await;
    world.settle().await;
    fs::write(&path, "d").expect("write");
    world.expect(Nudge::Workflow).await;
}

#[tokio::test]
async fn a_missing_root_is_a_warning_and_is_watched_once_it_exists() {
    let mut world = World::new(false);
    assert!(world.warnings.iter().any(|warning| warning.path.ends_with("issues")), "{:?}", world.warnings);
    fs::create_dir_all(world.path("issues/Todo")).expect("directories");
    world.expect(Nudge::Tracker).await;
    world.settle().await;
    fs::write(world.path("issues/Todo/A.md"), "x").expect("write");
    world.expect(Nudge::Tracker).await;
}

#[tokio::test]
async fn a_burst_is_few_hints_and_its_end_is_never_lost() {
    let mut world = World::new(true);
    // Nobody takes hints meanwhile: the queue holds one, and the events must not be held up by it.
    for round in 0..500 {
        fs::write(world.path("issues/Todo/A.md"), round.to_string()).expect("write");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let taken = world.settle().await;
    assert!((1..100).contains(&taken), "{taken}");
    fs::write(world.path("issues/Todo/A.md"), "last").expect("write");
    world.expect(Nudge::Tracker).await;
}

#[tokio::test]
async fn hidden_files_and_reading_are_no_hints() {
    let mut world = World::new(true);
    fs::create_dir_all(world.path(".symphony/patches")).expect("directories");
    fs::write(world.path("issues/Todo/.A.md.swp"), "x").expect("write");
    fs::write(world.path("notes.txt"), "x").expect("write");
    fs::read(world.path("WORKFLOW.md")).expect("read");
    fs::read_dir(world.path("issues/Todo")).expect("list").for_each(drop);
    assert_eq!(world.settle().await, 0);
}

#[tokio::test]
async fn dropping_the_watch_ends_its_thread() {
    let World { mut hints, _watch, dir: _dir, .. } = World::new(true);
    drop(_watch);
    assert_eq!(timeout(DEADLINE, hints.recv()).await, Ok(None));
}
