//! Trials that run by themselves, once, and what is said meanwhile. The runtimes are scripted: these tests are about
//! who is asked when.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use symphony_core::workflow::Place;
use tokio::sync::Semaphore;

use super::super::{BootSpec, Guest};
use super::*;

/// Ends its trial when it is let, as it was told.
struct Scripted {
    passes: AtomicBool,
    crashes: bool,
    may_end: Semaphore,
    trials: AtomicUsize,
    images: std::sync::Mutex<Vec<Option<PathBuf>>>,
}

impl Scripted {
    fn new(passes: bool) -> Arc<Self> {
        Arc::new(Self {
            passes: AtomicBool::new(passes),
            crashes: false,
            may_end: Semaphore::new(0),
            trials: AtomicUsize::new(0),
            images: Default::default(),
        })
    }

    fn ready(passes: bool) -> Arc<Self> {
        let scripted = Self::new(passes);
        scripted.may_end.add_permits(1);
        scripted
    }
}

impl Sandbox for Scripted {
    fn label(&self) -> &'static str {
        "scripted"
    }

    fn trial(&self, image: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        Box::pin(async move {
            self.images.lock().expect("unpoisoned").push(image);
            self.trials.fetch_add(1, Ordering::Relaxed);
            let _ = self.may_end.acquire().await;
            assert!(!self.crashes, "the trial crashes");
            let missing = BootError::Missing { what: "no image".to_owned(), hint: "build one".to_owned() };
            let report = TrialReport {
                kernel: "none",
                uid: None,
                cpus: String::new(),
                memory: String::new(),
                pids: String::new(),
                disk: String::new(),
                landlock_abi: 0,
                seccomp: false,
            };
            if self.passes.load(Ordering::Relaxed) { Ok(report) } else { Err(missing) }
        })
    }

    fn boot(&self, _: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        Box::pin(async { Err(BootError::Deadline(Duration::ZERO)) })
    }

    fn discard_disk<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        Box::pin(async { Ok(()) })
    }
}

fn workflow(sandbox: &str) -> Workflow {
    let text = format!("---\ntracker: {{kind: local}}\nsandbox: {{{sandbox}}}\n---\n");
    Workflow::parse(&text, &Place { dir: "/w".into(), home: None, env: &|_| None }).expect("valid").0
}

fn sandboxes(slots: &[(Kind, &Arc<Scripted>)]) -> Sandboxes {
    Sandboxes::new(slots.iter().map(|(kind, scripted)| (*kind, Arc::clone(scripted) as Arc<dyn Sandbox>)))
}

fn tries(scripted: &Scripted) -> usize {
    scripted.trials.load(Ordering::Relaxed)
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn who_asks_during_a_trial_is_told_and_not_kept_waiting_and_its_end_is_a_change() {
    let (qemu, jail) = (Scripted::new(true), Scripted::ready(true));
    let all = sandboxes(&[(Kind::QemuKvm, &qemu), (Kind::Jail, &jail)]);
    let auto = workflow("runtime: auto");
    all.settle(&auto, Duration::from_secs(1)).await;
    let told = all.pick(&auto).map(|picked| picked.kind).expect_err("not yet");
    assert_eq!(told, Closed::TryingSandbox("qemu is being tried".to_owned()));
    let mut changes = all.changes();
    qemu.may_end.add_permits(1);
    changes.changed().await.expect("a change");
    assert_eq!(all.pick(&auto).map(|picked| picked.kind), Ok(Kind::QemuKvm));
    for _ in 0..3 {
        all.settle(&auto, LONG).await;
    }
    assert_eq!((tries(&qemu), tries(&jail)), (1, 1), "each once");
}

#[tokio::test(start_paused = true)]
async fn a_reload_tries_what_was_never_tried_and_emulation_only_after_kvm_failed() {
    let (kvm, tcg, jail) = (Scripted::ready(false), Scripted::ready(true), Scripted::ready(true));
    let all = sandboxes(&[(Kind::QemuKvm, &kvm), (Kind::QemuTcg, &tcg), (Kind::Jail, &jail)]);
    all.settle(&workflow("runtime: jail"), LONG).await;
    assert_eq!((tries(&kvm), tries(&tcg), tries(&jail)), (0, 0, 1));
    all.settle(&workflow("runtime: auto"), LONG).await;
    assert_eq!((tries(&kvm), tries(&tcg)), (1, 0));
    all.settle(&workflow("runtime: qemu"), LONG).await;
    let picked = all.pick(&workflow("runtime: qemu")).map_err(|closed| closed.why().to_owned()).expect("tcg");
    assert!(picked.kind == Kind::QemuTcg && picked.reason.ends_with(": no image"), "{}", picked.reason);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_crashes_or_never_ends_is_a_reason_like_any_other() {
    let crashing = Arc::new(Scripted {
        passes: AtomicBool::new(true),
        crashes: true,
        may_end: Semaphore::new(1),
        trials: AtomicUsize::new(0),
        images: Default::default(),
    });
    let endless = Scripted::new(true);
    let all = sandboxes(&[(Kind::Smolvm, &crashing), (Kind::QemuKvm, &endless)]);
    let demanding = workflow("minimum: microvm");
    all.settle(&demanding, LONG).await;
    let why = all.pick(&demanding).map(|picked| picked.kind).expect_err("nothing");
    assert!(why.why().contains("crashed") && why.why().contains("within 300 s"), "{why:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_has_the_owner_that_works_and_the_jail_is_asked_last() {
    let (kvm, tcg, jail) = (Scripted::ready(false), Scripted::ready(true), Scripted::ready(false));
    let all = sandboxes(&[(Kind::Jail, &jail), (Kind::QemuTcg, &tcg), (Kind::QemuKvm, &kvm)]);
    let usual = workflow("runtime: jail");
    assert_eq!(all.working("qemu", &usual).await.map(|picked| picked.kind), Ok(Kind::QemuTcg));
    assert_eq!(all.working("jail", &usual).await.map(|picked| picked.kind), Err("no image: build one".to_owned()));
    assert_eq!(
        all.working("smolvm", &usual).await.map(|picked| picked.kind),
        Err("this symphony has no smolvm".to_owned())
    );
    let owners: Vec<_> = all.owners().iter().map(|picked| picked.kind).collect();
    assert_eq!(owners, [Kind::QemuTcg, Kind::Jail]);
}

/// Regression: who installed what was missing had to start symphony again.
#[tokio::test(start_paused = true)]
async fn what_failed_is_tried_again_at_growing_intervals_and_taken_when_it_works() {
    let (kvm, jail) = (Scripted::ready(false), Scripted::ready(true));
    let all = sandboxes(&[(Kind::QemuKvm, &kvm), (Kind::Jail, &jail)]);
    let auto = workflow("runtime: auto");
    all.settle(&auto, LONG).await;
    // A look every second, for ten minutes.
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        all.begin(&auto);
        kvm.may_end.add_permits(1);
        assert_eq!(all.pick(&auto).map(|picked| picked.kind), Ok(Kind::Jail), "what works stands meanwhile");
    }
    assert_eq!((tries(&kvm), tries(&jail)), (5, 1), "at once, then after 30, 60, 120 and 240 seconds");
    kvm.passes.store(true, Ordering::Relaxed);
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        all.begin(&auto);
        kvm.may_end.add_permits(1);
    }
    assert_eq!(all.pick(&auto).map(|picked| picked.kind), Ok(Kind::QemuKvm));
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_is_asked_for_its_work_disk_is_tried_with_the_image_of_the_workflow() {
    let tcg = Scripted::ready(true);
    let all = sandboxes(&[(Kind::QemuTcg, &tcg)]);
    let images = || tcg.images.lock().expect("unpoisoned").clone();
    let with_image = workflow("runtime: jail, image: vm/own");
    for _ in 0..2 {
        assert_eq!(all.working("qemu", &with_image).await.map(|picked| picked.kind), Ok(Kind::QemuTcg));
        assert_eq!(images(), [Some("/w/vm/own".into())], "once");
    }
    tcg.may_end.add_permits(1);
    assert_eq!(all.working("qemu", &workflow("runtime: jail")).await.map(|picked| picked.kind), Ok(Kind::QemuTcg));
    assert_eq!(images(), [Some("/w/vm/own".into()), None], "what one image did says nothing of another");
}

/// Boots only where its image stands.
struct Imaged(PathBuf, Arc<Scripted>);

impl Sandbox for Imaged {
    fn label(&self) -> &'static str {
        "imaged"
    }

    fn trial(&self, image: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        self.1.passes.store(self.0.exists(), Ordering::Relaxed);
        self.1.trial(image)
    }

    fn has(&self, image: Option<PathBuf>, packages: Vec<String>) -> BoxFuture<'_, Result<(), BootError>> {
        Box::pin(async move {
            if image.as_deref() == Some(Path::new("/w/vm/far")) {
                return Err(BootError::Unreadable { what: "EIO".to_owned(), hint: "mend it".to_owned() });
            }
            match image.unwrap_or_else(|| self.0.clone()).exists() && packages.is_empty() {
                true => Ok(()),
                false => Err(BootError::Missing { what: "no image".to_owned(), hint: "build one".to_owned() }),
            }
        })
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        self.1.boot(spec)
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        self.1.discard_disk(disk)
    }
}

/// Regression: the usual image, built while symphony ran, was taken up after a pause of up to an hour.
#[tokio::test(start_paused = true)]
async fn a_runtime_whose_image_came_is_tried_again_at_the_next_look_and_once() {
    let place = tempfile::tempdir().expect("directory");
    let image = place.path().join("image");
    let scripted = Scripted::new(true);
    scripted.may_end.add_permits(9);
    let imaged: Arc<dyn Sandbox> = Arc::new(Imaged(image.clone(), scripted.clone()));
    let (all, qemu) = (Sandboxes::new([(Kind::QemuKvm, imaged)]), workflow("minimum: microvm"));
    all.settle(&qemu, LONG).await;
    for _ in 0..3 {
        all.notice(&qemu).await;
        all.begin(&qemu);
    }
    assert_eq!(tries(&scripted), 1, "what is not there is not tried");
    std::fs::write(&image, "").expect("written");
    let mut changes = all.changes();
    changes.mark_unchanged();
    all.notice(&qemu).await;
    changes.changed().await.expect("a change");
    assert_eq!(all.pick(&qemu).map(|picked| picked.kind), Ok(Kind::QemuKvm));
    all.notice(&qemu).await;
    assert_eq!(tries(&scripted), 2);
    let profiles =
        workflow("minimum: microvm, profiles: {big: {packages: [curl]}, far: {image: vm/far}, small: {cpus: 1}}");
    let stocks = all.stocks(&profiles, Kind::QemuKvm).await;
    assert!(matches!(&stocks[&Some("big".to_owned())], Stock::Lacking { .. }), "{stocks:?}");
    assert_eq!(stocks[&Some("far".to_owned())], Stock::Unclear("EIO: mend it".to_owned()));
    assert_eq!((&stocks[&Some("small".to_owned())], &stocks[&None]), (&Stock::Complete, &Stock::Complete));
}

/// Has two good images; every other one hangs, as on a file system that is gone.
struct Hanging(AtomicUsize);

impl Sandbox for Hanging {
    fn label(&self) -> &'static str {
        "hanging"
    }

    fn trial(&self, _: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        Box::pin(async { Err(BootError::Missing { what: "no image".to_owned(), hint: "build one".to_owned() }) })
    }

    fn has(&self, image: Option<PathBuf>, _: Vec<String>) -> BoxFuture<'_, Result<(), BootError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match image.as_deref() {
                None => Ok(()),
                Some(image) if image == Path::new("/w/good") => Ok(()),
                Some(_) => std::future::pending().await,
            }
        })
    }

    fn boot(&self, _: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        Box::pin(async { Err(BootError::Deadline(Duration::ZERO)) })
    }

    fn discard_disk<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Regression: each took its five seconds of the half minute that a look at the issues has, and none was ever known; and each
/// look left another thread that waited for ever.
#[tokio::test(start_paused = true)]
async fn images_that_hang_cost_one_deadline_together_and_one_look_each_and_only_their_profiles_wait() {
    let hanging = Arc::new(Hanging(AtomicUsize::new(0)));
    let all = Sandboxes::new([(Kind::QemuKvm, hanging.clone() as Arc<dyn Sandbox>)]);
    let hung: String = (0..7).map(|n| format!("h{n}: {{image: hung/{n}}}, ")).collect();
    let profiles = workflow(&format!("profiles: {{{hung} good: {{image: good}}, small: {{cpus: 1}}}}"));
    let begun = Instant::now();
    let stocks = all.stocks(&profiles, Kind::QemuKvm).await;
    assert_eq!(begun.elapsed(), looks::LOOK_DEADLINE, "all of them together");
    let unclear = |stocks: &Stocks| stocks.values().filter(|stock| matches!(stock, Stock::Unclear(_))).count();
    let complete = |stocks: &Stocks| ["good", "small"].map(|name| stocks[&Some(name.to_owned())].clone());
    assert_eq!((unclear(&stocks), complete(&stocks)), (7, [Stock::Complete, Stock::Complete]));
    assert_eq!((&stocks[&None], hanging.0.load(Ordering::Relaxed)), (&Stock::Complete, 9), "the usual one once");
    // The next looks know at once, and begin none of those anew.
    for more in 1..4 {
        let begun = Instant::now();
        let stocks = all.stocks(&profiles, Kind::QemuKvm).await;
        assert_eq!((unclear(&stocks), begun.elapsed()), (7, Duration::ZERO));
        assert_eq!(complete(&stocks), [Stock::Complete, Stock::Complete]);
        assert_eq!(hanging.0.load(Ordering::Relaxed), 9 + 2 * more);
    }
}
