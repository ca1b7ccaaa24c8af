//! The program itself over many runs: a thousand short ones, and ten at once with kills at random. Its descriptors,
//! threads, memory and journal stay as they were, and of what lies on the disk only what is kept on purpose grows.
//!
//! `SYMPHONY_SOAK_RUNS` and `SYMPHONY_SOAK_MINUTES` say how long: a little without them, 1000 and 30 in
//! `scripts/test-soak`.

use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ledger::{children, number, size_kib};
use crate::rig::{FRONT, Project, Running, git, processes_with};

/// Issues that wait for a slot.
const AHEAD: usize = 6;
/// Finished issues that stay in their directory.
const PRESENT: usize = 20;
/// Allocators keep some.
const RSS_MIB: i64 = 24;
/// SQLite's log may hold 1000 pages before they go into the file; the events that stay take less than one MiB.
const JOURNAL_KIB: i64 = 6 * 1024;
/// Work disks and workspaces of what happens to be under way.
const OTHER_KIB: i64 = 8 * 1024;
/// Descriptors that a program may hold at rest beyond those it held when it had just started.
const AT_REST: usize = 4;
/// Connections and pipes of what happens to be under way.
const DESCRIPTORS: usize = 12;

/// What the program holds while it works.
#[derive(Clone, Debug)]
struct Sample {
    done: usize,
    seconds: u64,
    descriptors: usize,
    threads: i64,
    rss_kib: i64,
    journal_kib: u64,
    /// What every issue leaves on purpose: airlock, patch, frames of its runs.
    kept_kib: u64,
    /// Everything else below `.symphony`: disks, workspaces, spools.
    other_kib: u64,
}

impl Sample {
    fn take(project: &Project, running: &Running, done: usize, since: Instant) -> Self {
        let (pid, own) = (running.pid(), project.dir().join(".symphony"));
        let status = format!("/proc/{pid}/status");
        let below = |names: &[&str]| names.iter().map(|name| size_kib(&own.join(name))).sum::<u64>();
        let (journal_kib, kept_kib) =
            (below(&["journal.db", "journal.db-wal"]), below(&["airlock", "patches", "runs"]));
        Self {
            done,
            seconds: since.elapsed().as_secs(),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            threads: number(&status, "Threads:"),
            rss_kib: number(&status, "VmRSS:"),
            journal_kib,
            kept_kib,
            other_kib: size_kib(&own).saturating_sub(journal_kib + kept_kib),
        }
    }
}

/// Raises the newest sample to what there is now: between two samples there are many moments, and a peak is one of them.
/// The first sample stays what the program held when it had just started.
fn watch(samples: &mut [Sample], running: &Running) {
    let [_, .., newest] = samples else { return };
    let pid = running.pid();
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    newest.descriptors = newest.descriptors.max(descriptors);
    newest.threads = newest.threads.max(number(&format!("/proc/{pid}/status"), "Threads:"));
}

fn table(samples: &[Sample]) -> String {
    let mut text = format!(
        "{:>7} {:>8} {:>11} {:>8} {:>9} {:>12} {:>9} {:>10}\n",
        "issues", "seconds", "descriptors", "threads", "RSS KiB", "journal KiB", "kept KiB", "other KiB"
    );
    for s in samples {
        let _ = writeln!(
            text,
            "{:>7} {:>8} {:>11} {:>8} {:>9} {:>12} {:>9} {:>10}",
            s.done, s.seconds, s.descriptors, s.threads, s.rss_kib, s.journal_kib, s.kept_kib, s.other_kib
        );
    }
    text
}

/// What grew from the first half to the second, in words.
fn grown(samples: &[Sample]) -> Vec<String> {
    let (early, late) = samples.split_at(samples.len() / 2);
    let most = |of: &[Sample], what: fn(&Sample) -> i64| of.iter().map(what).max().unwrap_or(0);
    let mut grown = vec![];
    for (name, what, slack) in [
        ("descriptors", (|s| s.descriptors.cast_signed() as i64) as fn(&Sample) -> i64, DESCRIPTORS as i64),
        ("RSS KiB", |s| s.rss_kib, RSS_MIB * 1024),
        ("other KiB", |s| s.other_kib.cast_signed(), OTHER_KIB),
    ] {
        let (before, after) = (most(early, what), most(late, what));
        if after > before + slack {
            grown.push(format!("{name}: {before} at most in the first half, {after} in the second"));
        }
    }
    let journal = most(samples, |s| s.journal_kib.cast_signed());
    if journal > JOURNAL_KIB {
        grown.push(format!("journal: {journal} KiB at most"));
    }
    grown
}

fn setting(name: &str, few: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(few)
}

/// Where issues stand that are neither done nor on their way, and why.
fn astray(project: &Project) -> String {
    let mut text = String::new();
    for state in fs::read_dir(project.dir().join("issues")).into_iter().flatten().flatten() {
        for file in
            fs::read_dir(state.path()).into_iter().flatten().flatten().filter(|_| !state.path().ends_with("Done"))
        {
            let words = fs::read_to_string(file.path()).unwrap_or_default();
            let why: Vec<&str> = words.lines().filter(|line| line.starts_with("Parked: ")).collect();
            let _ = writeln!(text, "{} {}", file.path().display(), why.join(" "));
        }
    }
    text
}

/// How many files stand in a state.
fn count(project: &Project, state: &str) -> usize {
    let files = fs::read_dir(project.dir().join("issues").join(state)).into_iter().flatten().flatten();
    files.filter(|file| !file.file_name().to_string_lossy().starts_with('.')).count()
}

/// People put finished issues away: what the program holds for an issue that is there is no leak. How many went.
fn put_away(project: &Project, keep: usize) -> usize {
    let away = project.beside("away");
    fs::create_dir_all(&away).expect("made");
    let files = fs::read_dir(project.dir().join("issues/Done")).into_iter().flatten().flatten();
    let mut done: Vec<_> =
        files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path()))).collect();
    done.sort();
    done.truncate(done.len().saturating_sub(keep));
    for (_, path) in &done {
        // Its workspace goes when symphony sees it in Done; a file that went at once would not be seen.
        let key = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if !project.exists(&format!(".symphony/workspaces/{key}")) {
            fs::rename(path, away.join(path.file_name().expect("a name"))).expect("moved");
        }
    }
    fs::read_dir(away).expect("there").count()
}

/// What a kill in the middle of a handoff left for a person is brought back by one, as its note says. How many.
fn resume(project: &Project) -> usize {
    let files = fs::read_dir(project.dir().join("issues/Parked")).into_iter().flatten().flatten();
    let handoffs = files.filter(|file| {
        fs::read_to_string(file.path()).is_ok_and(|text| text.contains("Parked: the work could not be handed off: "))
    });
    let back = |file: fs::DirEntry| fs::rename(file.path(), project.dir().join("issues/Todo").join(file.file_name()));
    handoffs.filter_map(|file| back(file).ok()).count()
}

/// A project whose runs may be as many and as bad as they like, and `at_once` of them.
fn project(at_once: usize) -> Project {
    let front = FRONT.replace("agent:\n", &format!("agent:\n  max_concurrent_agents: {at_once}\n"));
    Project::with(&format!(
        "{front}budget: {{sessions: 1000, turns: 10000, failures_in_a_row: 1000}}\nretention:\n  journal_events: 300\n"
    ))
}

/// After the last issue: the program ends in order, and nothing but what is kept on purpose is left of any.
fn end(project: &Project, running: Running, samples: &[Sample], issues: usize) {
    running.until_state("the last end", |state| state["running"] == serde_json::json!([]));
    // A thread for blocking calls stays while the looks give each of them work now and then: peaks of many at once may
    // stay, but what comes later adds none.
    let peak = samples[..samples.len() / 2].iter().map(|sample| sample.threads).max().unwrap_or(0);
    crate::rig::until("descriptors to be those of the start, and threads no more than in the first half", || {
        let now = Sample::take(project, &running, issues, Instant::now());
        now.descriptors <= samples[0].descriptors + AT_REST && now.threads <= peak
    });
    let own = project.dir().join(".symphony");
    let places = ["disks", "workspaces", "unexported"].map(|name| own.join(name));
    // In a place of its own among the workspaces they are made and removed.
    let left = || -> Vec<_> {
        let all = places.iter().flat_map(|place| fs::read_dir(place).into_iter().flatten().flatten());
        all.map(|entry| entry.path()).filter(|path| !path.ends_with(".symphony")).collect()
    };
    for _ in 0..300 {
        if left().is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = left();
    assert!(left.is_empty(), "work places of finished issues stay: {left:#?}");
    assert_eq!(running.stop(), 0);
    assert_eq!(put_away(project, PRESENT) + count(project, "Done"), issues);
    let patches = fs::read_dir(own.join("patches")).expect("patches").count();
    assert!(patches >= issues, "{patches} patches of {issues} issues");
    let report = symphony::journal::inspect::check(&own.join("journal.db"), None).expect("readable");
    let chain = report.chain.expect("our format").expect("whole");
    assert_eq!(report.differences, Vec::<String>::new());
    println!("journal: {} events, {:?}", chain.events, report.rows);
    assert!(chain.events <= 400, "{}", chain.events);
    let place = project.dir().parent().expect("a parent").display().to_string();
    crate::rig::until("the last process to end", || processes_with(&place).is_empty());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert!(!mounts.contains(&place), "still mounted: {mounts}");
}

/// Each commit of an issue is there, once, in order.
fn is_whole(project: &Project, name: &str, commits: &[&str]) {
    let clone = project.apply_patch(name);
    let range = format!("-{}", commits.len());
    let subjects = git(&clone, &["log", &range, "--reverse", "--format=%s"]);
    assert_eq!(subjects.lines().collect::<Vec<_>>(), commits, "{name}");
    fs::remove_dir_all(clone).expect("removed");
}

#[test]
fn many_short_runs_leave_the_program_as_small_as_it_was() {
    let issues = usize::try_from(setting("SYMPHONY_SOAK_RUNS", 24)).expect("a number");
    let project = project(4);
    let running = project.start();
    let (started, mut dropped, mut samples) = (Instant::now(), 0, Vec::<Sample>::new());
    let mut last = (0, Instant::now());
    loop {
        let done = put_away(&project, PRESENT) + count(&project, "Done");
        if done > last.0 {
            last = (done, Instant::now());
        }
        assert!(
            last.1.elapsed() < crate::rig::SOON,
            "{done} of {issues} are done, and no more come\n{}",
            running.log()
        );
        while dropped < issues && dropped < done + 4 + AHEAD {
            dropped += 1;
            project.issue(
                "Todo",
                &format!("A-{dropped}"),
                "```sh\necho 1 > one.txt\ngit add -A\ngit commit -qm One\n```",
            );
        }
        if done >= samples.len() * issues / 12 {
            // A person looks at it now and then.
            running.state();
            samples.push(Sample::take(&project, &running, done, started));
        }
        if done == issues {
            break;
        }
        watch(&mut samples, &running);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}", table(&samples));
    // Before that the program is warming up.
    let grown = grown(&samples[2..]);
    assert!(grown.is_empty(), "{grown:#?}");
    end(&project, running, &samples, issues);
    for name in ["A-1".to_owned(), format!("A-{}", issues / 2), format!("A-{issues}")] {
        is_whole(&project, &name, &["One"]);
    }
}

/// Three commits, each made once; a kill may come between any two lines.
const WORKS: &str = "```sh\nrm -f .git/*.lock\nfor n in 1 2 3; do\n[ \"$(git log --format=%s | grep -cx Step.$n)\" != 0 ] || \
                     { echo $n > $n.txt; git add -A; git commit -qm \"Step $n\"; }\nsleep 0.7\ndone\n```";

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % end
    }
}

/// Any process below the program, or none when it has none.
fn somebody(running: &Running, dice: &mut Dice) -> Option<u32> {
    let mut found = children(running.pid().cast_unsigned());
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(children(parent));
        at += 1;
    }
    (!found.is_empty()).then(|| found[dice.below(found.len())])
}

#[test]
fn kills_at_random_lose_no_issue_and_leave_nothing_behind() {
    let minutes = setting("SYMPHONY_SOAK_MINUTES", 0);
    let (long, seed) = (Duration::from_secs(if minutes == 0 { 20 } else { 60 * minutes }), std::process::id());
    println!("seed {seed}");
    let mut dice = Dice(u64::from(seed));
    let project = project(10);
    let mut running = project.start();
    let (started, mut dropped, mut samples) = (Instant::now(), 0, Vec::<Sample>::new());
    let (mut kills, mut restarts, mut resumed) = (0, 0, 0);
    let mut last = (0, Instant::now());
    loop {
        let done = put_away(&project, PRESENT) + count(&project, "Done");
        if done > last.0 {
            last = (done, Instant::now());
        }
        assert!(
            last.1.elapsed() < 2 * crate::rig::SOON,
            "{done} of {dropped}, and no more come\n{}\n{}",
            astray(&project),
            running.log()
        );
        resumed += resume(&project);
        let over = started.elapsed() >= long;
        if over && done == dropped {
            break;
        }
        while !over && dropped < done + 10 + AHEAD {
            dropped += 1;
            project.issue("Todo", &format!("A-{dropped}"), WORKS);
        }
        let elapsed = started.elapsed().as_secs();
        if elapsed >= samples.len() as u64 * long.as_secs() / 12 {
            running.state();
            samples.push(Sample::take(&project, &running, done, started));
        }
        match dice.below(if over { usize::MAX >> 33 } else { 400 }) {
            // About one in two minutes of the program itself, one in three seconds of something below it.
            0 => {
                running.signal(Signal::KILL);
                assert!(running.killed());
                running = project.start();
                restarts += 1;
            }
            1..=15 => {
                if let Some(pid) = somebody(&running, &mut dice).and_then(|pid| Pid::from_raw(pid.cast_signed())) {
                    kills += usize::from(kill_process(pid, Signal::KILL).is_ok());
                }
            }
            _ => {}
        }
        watch(&mut samples, &running);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}", table(&samples));
    println!(
        "{dropped} issues, {kills} kills below the program, {restarts} of it, {resumed} issues brought back, seed {seed}"
    );
    let grown = grown(&samples[2..]);
    assert!(grown.is_empty(), "seed {seed}: {grown:#?}");
    end(&project, running, &samples, dropped);
    for number in 1..=dropped {
        // All of a short soak, some of a long one.
        if dropped < 40 || number % (dropped / 20) == 0 {
            is_whole(&project, &format!("A-{number}"), &["Step 1", "Step 2", "Step 3"]);
        }
    }
}
