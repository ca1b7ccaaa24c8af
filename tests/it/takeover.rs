//! A workflow that changes its runtime while work stands on the old one's disk. Real jails, one of them under another
//! name: each keeps its own disks, as different runtimes do.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use symphony::egress::Book;
use symphony::gateway::broker::Broker;
use symphony::gateway::egress::{Egress, Internet};
use symphony::git::Git;
use symphony::journal::{Journal, Origin};
use symphony::layout::Layout;
use symphony::run::line::{Ended, FromRun, Line};
use symphony::run::{Parts, Start, attempt};
use symphony::sandbox::choose::Sandboxes;
use symphony::sandbox::jail::Jail;
use symphony::sandbox::{BootError, BootSpec, Guest, Sandbox, TrialReport};
use symphony::tracker::markdown::MarkdownTracker;
use symphony::workflow_file::Environment;
use symphony_core::board::{FailureCode, Plan, RetryKind, RunEnd};
use symphony_core::budget::Allowance;
use symphony_core::ids::{RunId, WorkspaceKey};
use symphony_core::issue::Issue;
use symphony_core::runtimes::Kind;
use symphony_core::workflow::{Place, Workflow};
use tokio::sync::{mpsc, watch};

use crate::rig::{FRONT, Project, git, until};

/// A jail that passes for another runtime, or that does not work any more.
struct Posing {
    jail: Jail,
    label: &'static str,
    works: bool,
}

impl Sandbox for Posing {
    fn label(&self) -> &'static str {
        self.label
    }

    fn trial(&self, _: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        let forbidden = BootError::Forbidden { message: "no namespaces".into(), hint: "allow them".into() };
        if self.works { self.jail.trial(None) } else { Box::pin(async { Err(forbidden) }) }
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        self.jail.boot(spec)
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        self.jail.discard_disk(disk)
    }
}

/// One project, and runs in it one after the other.
struct Bench {
    project: Project,
    runs: u64,
}

impl Bench {
    fn new() -> Self {
        let project = Project::new();
        project.issue("Todo", "W-1", "The runs are told by the test.");
        Self { project, runs: 0 }
    }

    fn layout(&self) -> Layout {
        Layout::of(&self.project.dir())
    }

    fn disk(&self, runtime: &str) -> PathBuf {
        self.layout().work_disk(runtime, &key())
    }

    fn marker(&self) -> Option<String> {
        std::fs::read_to_string(self.layout().unexported(&key())).ok()
    }

    /// Begins an attempt at W-1 under this runtime; `jail_works`: whether the jail still does.
    fn begin(&mut self, runtime: &str, script: &str, jail_works: bool) -> tokio::task::JoinHandle<Ended> {
        self.runs += 1;
        let run = RunId(self.runs);
        let dir = self.project.dir();
        let text = format!(
            "---\n{}mcp: {{enabled: false}}\nsandbox: {{runtime: {runtime}}}\n---\n{{{{ issue.description }}}}\n",
            FRONT.replace("agent:\n", "agent:\n  max_turns: 1\n")
        );
        let place = Place { dir: dir.clone(), home: None, env: &|_| None };
        let workflow = Arc::new(Workflow::parse(&text, &place).expect("valid").0);
        let exe = PathBuf::from(env!("CARGO_BIN_EXE_symphony"));
        let posing = |label, works| Arc::new(Posing { jail: Jail::new(exe.clone()), label, works }) as Arc<dyn Sandbox>;
        let sandboxes =
            Sandboxes::new([(Kind::QemuKvm, posing("qemu", true)), (Kind::Jail, posing("jail", jail_works))]);
        let layout = self.layout();
        symphony::files::create_private_dir(layout.root()).expect("directory");
        let (journal, memory) =
            Journal::open(&layout.journal(), Origin { instance: "of-this-test".into(), last_run: 0 }).expect("journal");
        let book = Book::new(journal.clone(), memory.egress);
        let parts = Arc::new(Parts {
            journal,
            git: Git::new(layout.root()).expect("git"),
            instance: memory.instance,
            layout,
            sandboxes: sandboxes.clone(),
            open_mcp: Arc::new(|_, _, _| Err("there are no tools".to_owned())),
            open_broker: Arc::new(|_, _, _, _| Box::pin(async { Err("there are no models".to_owned()) })),
            open_egress: Egress::new(book, Arc::new(Internet::default())).opening(),
            ask_credential: Arc::new(|_, _| Box::pin(async { Ok(()) })),
            stage: Broker::new(Environment { home: None, variable: Arc::new(|_| None) }).stage(),
            workflow_path: dir.join("WORKFLOW.md"),
        });
        let issue = Issue { description: Some(format!("```sh\n{script}\n```")), ..Issue::bare("W-1", "Todo") };
        let allowance = Allowance { turns: 10, wall_ms: 3_600_000 };
        let plan = Plan { run, issue, attempt: None, kind: RetryKind::First, last: None, allowance };
        let tracker = Arc::new(MarkdownTracker::after(workflow.tracker.root.clone(), vec![]));
        tokio::spawn(async move {
            sandboxes.settle(&workflow, crate::rig::SOON).await;
            let (reports, mut told) = mpsc::channel(64);
            let (_stop, stopped) = watch::channel(None);
            let (_letters, letters) = mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(report) = told.recv().await {
                    if let FromRun::Turn { kept, .. } = report {
                        let _ = kept.send(Ok(()));
                    }
                }
            });
            attempt(
                parts,
                Start {
                    plan,
                    workflow,
                    tracker,
                    letters: vec![],
                    session: None,
                    line: Line { run, reports, stop: stopped, letters },
                },
            )
            .await
        })
    }

    /// A run in the jail that is killed when it had committed and exported nothing.
    async fn leave_work_in_the_jail(&mut self) {
        self.leave_in_the_jail("echo kept > kept.txt; git add kept.txt; git commit -qm Kept; echo loose > loose.txt; touch ~/ready; sleep 300").await;
    }

    async fn leave_in_the_jail(&mut self, script: &str) {
        let run = self.begin("jail", script, true);
        let ready = self.disk("jail").join("home/ready");
        tokio::task::spawn_blocking(move || until("the agent", || ready.exists())).await.expect("ready");
        run.abort();
        let _ = run.await;
        assert_eq!(self.marker().as_deref(), Some("jail"));
    }
}

fn key() -> WorkspaceKey {
    WorkspaceKey::of(&Issue::bare("W-1", "Todo").identifier).expect("a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn work_on_the_disk_of_another_runtime_is_rescued_through_that_runtime_first() {
    let mut bench = Bench::new();
    bench.leave_work_in_the_jail().await;
    let script = "cat loose.txt > seen.txt; git add seen.txt; git commit -qm Seen";
    let ended = bench.begin("qemu", script, true).await.expect("ends");
    assert_eq!(ended.end, RunEnd::TurnsUsed);
    let airlock = bench.project.dir().join(".symphony/airlock/W-1.git");
    let show = |path: &str| git(&airlock, &["show", &format!("refs/symphony/head:{path}")]);
    assert_eq!((show("kept.txt").trim(), show("seen.txt").trim()), ("kept", "loose"));
    assert_eq!(bench.marker(), None);
    assert!(!bench.disk("jail").exists() && bench.disk("qemu").exists(), "the older copy is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_its_runtime_cannot_give_out_any_more_stops_the_run_and_stays() {
    let mut bench = Bench::new();
    bench.leave_work_in_the_jail().await;
    let ended = bench.begin("qemu", "true", false).await.expect("ends");
    let RunEnd::Failed(failure) = ended.end else { panic!("{:?}", ended.end) };
    assert_eq!(failure.code, FailureCode::RescueFailed);
    for words in ["of jail", "no namespaces", "nothing was removed", "hint: make jail work here again"] {
        assert!(failure.message.contains(words), "no {words:?} in {}", failure.message);
    }
    assert_eq!(bench.marker().as_deref(), Some("jail"));
    assert!(bench.disk("jail").join("tree/loose.txt").exists() && !bench.disk("qemu").exists());
    // Back on the old runtime, it goes on where it was.
    let ended =
        bench.begin("jail", "test -e loose.txt && git add . && git commit -qm Loose", true).await.expect("ends");
    assert_eq!(ended.end, RunEnd::TurnsUsed);
    assert_eq!(bench.marker(), None);
}

/// What the airlock holds of W-1, by the subjects of its commits.
fn subjects(bench: &Bench) -> String {
    git(&bench.project.dir().join(".symphony/airlock/W-1.git"), &["log", "--all", "--format=%s"])
}

fn rescue_failed(end: RunEnd) -> String {
    let RunEnd::Failed(failure) = end else { panic!("{end:?}") };
    assert_eq!(failure.code, FailureCode::RescueFailed, "{}", failure.message);
    failure.message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_killed_in_any_git_does_not_destroy_the_work_that_it_was_saving() {
    for next in ["jail", "qemu"] {
        let mut bench = Bench::new();
        bench.leave_work_in_the_jail().await;
        // Regression, found by a soak of 30 minutes: a bundle's lock that stayed kept the work on its disk for ever.
        for left in ["export.index", "export.index.lock", "extra.index.lock", "export.bundle", "export.bundle.lock"] {
            std::fs::write(bench.disk("jail").join("state").join(left), "").expect("what a killed git leaves");
        }
        let ended = bench.begin(next, "test -e loose.txt", true).await.expect("ends");
        assert_eq!(ended.end, RunEnd::TurnsUsed, "{next}");
        assert!(subjects(&bench).contains("Kept"), "{next}: {}", subjects(&bench));
        assert_eq!(bench.marker(), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescue_has_room_for_what_a_run_with_more_room_did() {
    let mut bench = Bench::new();
    let script = "echo kept > kept.txt; git add kept.txt; git commit -qm Kept; head -c 3000000 /dev/urandom > loose.bin; touch ~/ready; sleep 300";
    bench.leave_in_the_jail(script).await;
    let ended = bench.begin("qemu, jail: {file_size_mib: 1, memory_mib: 16}", "test -e loose.bin", true).await;
    assert_eq!(ended.expect("ends").end, RunEnd::TurnsUsed);
    assert!(subjects(&bench).contains("Kept"), "{}", subjects(&bench));
    assert!(!bench.disk("jail").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_that_fails_on_the_old_disk_stops_the_run_and_the_disk_and_its_mark_stay() {
    for next in ["qemu", "jail"] {
        let mut bench = Bench::new();
        bench.leave_work_in_the_jail().await;
        let config = bench.disk("jail").join("tree/.git/config");
        let good = std::fs::read(&config).expect("a config");
        std::fs::write(&config, "[broken").expect("written");
        for _ in 0..2 {
            let message = rescue_failed(bench.begin(next, "true", true).await.expect("ends").end);
            assert!(message.contains("bad config") && message.contains("hint: "), "{message}");
            assert_eq!(bench.marker().as_deref(), Some("jail"), "{next}");
            assert!(bench.disk("jail").join("tree/loose.txt").exists(), "{next}");
        }
        // Mended, it goes on where it was.
        std::fs::write(&config, good).expect("written");
        let ended = bench.begin(next, "test -e loose.txt", true).await.expect("ends");
        assert_eq!(ended.end, RunEnd::TurnsUsed, "{next}");
        assert!(subjects(&bench).contains("Kept"), "{next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_a_repository_is_put_aside_and_not_deleted() {
    let mut bench = Bench::new();
    bench.leave_work_in_the_jail().await;
    std::fs::remove_dir_all(bench.disk("jail").join("tree/.git")).expect("removed");
    let workspace = bench.layout().root().join("workspaces/W-1");
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 60 * 60);
    for dir in [&bench.disk("jail"), &workspace] {
        std::fs::File::open(dir).and_then(|dir| dir.set_modified(long_ago)).expect("aged");
    }
    let ended = bench.begin("qemu", "test ! -e loose.txt", true).await.expect("ends");
    assert_eq!(ended.end, RunEnd::TurnsUsed);
    let aside = bench.layout().given_up("jail", &key(), RunId(2));
    assert!(aside.join("tree/loose.txt").exists() && !bench.disk("jail").exists());
    // They are kept for some days since their last use, which was now.
    for dir in [&aside, &workspace] {
        assert!(std::fs::metadata(dir).and_then(|about| about.modified()).expect("a time") > long_ago, "{dir:?}");
    }
    assert_eq!(bench.marker(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_cannot_be_written_ends_the_run_before_its_agent_starts() {
    let mut bench = Bench::new();
    let place = bench.layout().unexported(&key());
    std::fs::create_dir_all(place.join("in the way")).expect("directory");
    let ended = bench.begin("jail", "touch ~/started", true).await.expect("ends");
    let RunEnd::Failed(failure) = ended.end else { panic!("{:?}", ended.end) };
    assert_eq!(failure.code, FailureCode::SandboxBootFailed);
    assert!(failure.message.contains("cannot mark the work disk"), "{}", failure.message);
    assert!(bench.disk("jail").join("home").exists() && !bench.disk("jail").join("home/started").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mark_of_an_unknown_word_is_refused_and_an_empty_one_in_the_old_place_is_the_jails() {
    let mut bench = Bench::new();
    bench.leave_work_in_the_jail().await;
    let place = bench.layout().unexported(&key());
    std::fs::write(&place, "jai").expect("written");
    let message = rescue_failed(bench.begin("qemu", "true", true).await.expect("ends").end);
    assert!(message.contains("\"jai\"") && message.contains("nothing was removed"), "{message}");
    assert!(bench.disk("jail").join("tree/loose.txt").exists() && bench.marker().is_some());
    std::fs::remove_file(&place).expect("removed");
    std::fs::write(bench.layout().unexported_before(&key()), "").expect("an old mark");
    let ended = bench.begin("qemu", "test -e loose.txt", true).await.expect("ends");
    assert_eq!(ended.end, RunEnd::TurnsUsed);
    assert!(subjects(&bench).contains("Kept"), "{}", subjects(&bench));
    assert!(!bench.layout().unexported_before(&key()).exists() && !bench.disk("jail").exists());
}

/// Regression: the mark went without a word, the issue ran to its end on what was left, and nobody knew that work was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_whose_disk_is_gone_stops_the_run_and_stays_until_the_disk_is_back_or_the_mark_is_removed() {
    for next in ["jail", "qemu"] {
        let mut bench = Bench::new();
        bench.leave_work_in_the_jail().await;
        let (disk, away) = (bench.disk("jail"), bench.project.beside("away"));
        std::fs::rename(&disk, &away).expect("moved");
        // The second time an empty disk stands there.
        for _ in 0..2 {
            let message = rescue_failed(bench.begin(next, "true", true).await.expect("ends").end);
            let mark = bench.layout().unexported(&key());
            let hint = format!("{} to give that work up", mark.display());
            assert!(message.contains("no work tree is on it") && message.contains(&hint), "{message}");
            assert_eq!(bench.marker().as_deref(), Some("jail"), "{next}");
        }
        std::fs::remove_dir_all(&disk).expect("removed");
        std::fs::rename(&away, &disk).expect("moved back");
        let ended = bench.begin(next, "test -e loose.txt", true).await.expect("ends");
        assert_eq!(ended.end, RunEnd::TurnsUsed, "{next}");
        assert!(subjects(&bench).contains("Kept"), "{next}: {}", subjects(&bench));
    }
    let mut bench = Bench::new();
    bench.leave_work_in_the_jail().await;
    std::fs::remove_dir_all(bench.disk("jail")).expect("removed");
    std::fs::remove_file(bench.layout().unexported(&key())).expect("given up");
    let ended = bench.begin("jail", "test ! -e loose.txt", true).await.expect("ends");
    assert_eq!((ended.end, bench.marker()), (RunEnd::TurnsUsed, None));
}
