//! Real issue directories: scans, moves, notes, and what races with them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::executor::block_on;
use symphony_core::front_matter::Proposed;
use symphony_core::ids::{Identifier, RunId};
use tempfile::TempDir;

use super::*;

struct Tree {
    dir: TempDir,
    tracker: MarkdownTracker,
    runtime: tokio::runtime::Runtime,
}

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let tracker = MarkdownTracker::new(dir.path().to_path_buf());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let tree = Self { dir, tracker, runtime };
        for (file, text) in files {
            tree.write(file, text);
        }
        tree
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::create_dir_all(self.path(file).parent().expect("parent")).expect("directory");
        fs::write(self.path(file), text).expect("file");
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("readable")
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let _inside = self.runtime.enter();
        block_on(future)
    }

    fn try_scan(&self) -> Result<Scan, TrackerError> {
        self.run(self.tracker.scan())
    }

    fn scan(&self) -> Scan {
        self.try_scan().expect("a scan")
    }

    fn files(&self) -> Vec<String> {
        self.scan().issues.into_iter().map(|issue| issue.file).collect()
    }

    fn moved(&self, id: &str, from: &str, to: &str) -> Result<String, TrackerError> {
        let (id, from, to) = (IssueId(id.into()), StateName::new(from), StateName::new(to));
        let checked = self.run(self.tracker.check_move(&id, &from, &to));
        let moved = self.run(self.tracker.move_issue(&id, &from, &to)).map(|moved| moved.file);
        assert_eq!(checked.err(), moved.as_ref().err().cloned(), "check and move decide alike");
        moved
    }

    fn note(&self, id: &str, note: &str) -> Result<(), TrackerError> {
        self.run(self.tracker.append_note(&IssueId(id.into()), note))
    }

    fn create(&self, identifier: Option<&str>, state: &str) -> Result<Created, TrackerError> {
        let identifier = identifier.map(|name| Identifier(name.into()));
        let new = NewIssue { identifier, title: "New".into(), state: state.into(), ..NewIssue::default() };
        self.run(self.tracker.create(new))
    }

    /// Everything below the root, hidden files too.
    fn everything(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for dir in fs::read_dir(self.dir.path()).expect("root").flatten() {
            for file in fs::read_dir(dir.path()).expect("state").flatten() {
                all.insert(format!("{}/{}", dir.file_name().display(), file.file_name().display()));
            }
        }
        all
    }
}

#[test]
fn first_level_directories_are_states_and_their_markdown_files_issues() {
    let tree = Tree::new(&[
        ("In Progress/a.md", "text"),
        ("Todo/b.md", "---\nid: id-b\ntitle: B\n---\nblocked"),
        ("Todo/README.md", "treated like any file"),
        ("Todo/.hidden.md", "x"),
        ("Todo/.#b.md", "x"),
        ("Todo/~$b.md", "x"),
        ("Todo/b.md~", "x"),
        ("Todo/notes.txt", "x"),
        ("Todo/deeper/c.md", "x"),
        (".git/d.md", "x"),
    ]);
    fs::write(tree.path("loose.md"), "x").expect("file");
    fs::create_dir(tree.path("Todo/dir.md")).expect("directory");
    symlink("b.md", tree.path("Todo/link.md")).expect("link");
    let elsewhere = tempfile::tempdir().expect("a directory");
    fs::write(elsewhere.path().join("e.md"), "x").expect("file");
    symlink(elsewhere.path(), tree.path("Linked")).expect("link");
    let scan = tree.scan();
    let found: Vec<_> = scan.issues.iter().map(|i| (i.file.as_str(), i.state.as_str())).collect();
    let want = [
        ("In Progress/a.md", "In Progress"),
        ("Linked/e.md", "Linked"),
        ("Todo/README.md", "Todo"),
        ("Todo/b.md", "Todo"),
    ];
    assert_eq!(found, want);
    assert!(scan.malformed.is_empty() && scan.ambiguous.is_empty());
}

#[test]
fn blockers_are_resolved_over_all_states() {
    let tree = Tree::new(&[("Todo/a.md", "---\nblocked_by: [b, gone]\n---\n"), ("Done/b.md", "x")]);
    let scan = tree.scan();
    let blockers = &scan.issues.iter().find(|i| i.file == "Todo/a.md").expect("a").blocked_by;
    assert_eq!(blockers[0].state, Some(StateName::new("done")));
    assert_eq!((&blockers[1].id, &blockers[1].state), (&None, &None));
}

#[test]
fn an_empty_root_is_an_empty_scan_and_a_missing_one_an_error() {
    let tree = Tree::new(&[]);
    assert_eq!(tree.scan(), Scan::default());
    let gone = MarkdownTracker::new(tree.path("gone"));
    assert_eq!(tree.run(gone.scan()).expect_err("no root").code(), "local_root_read_error");
}

#[test]
fn a_state_directory_that_cannot_be_read_fails_the_whole_scan() {
    let tree = Tree::new(&[("Todo/a.md", "x")]);
    assert_eq!(tree.files(), ["Todo/a.md"]);
    // A link to nothing fails for every user, root included.
    symlink("/nonexistent/disk", tree.path("Review")).expect("link");
    let error = tree.try_scan().expect_err("unreadable");
    assert!(matches!(&error, TrackerError::RootRead { path, .. } if path.ends_with("Review")), "{error}");
    fs::remove_file(tree.path("Review")).expect("removed");
    assert_eq!(tree.files(), ["Todo/a.md"]);
}

#[test]
fn one_bad_file_is_named_and_disturbs_no_other() {
    let tree = Tree::new(&[("Todo/bad.md", "---\ntitle: [a\n---\n"), ("Todo/good.md", "x")]);
    fs::write(tree.path("Todo/big.md"), vec![b'x'; MAX_BYTES + 1]).expect("file");
    let scan = tree.scan();
    assert_eq!(scan.issues.len(), 1);
    let bad: Vec<_> = scan.malformed.iter().map(|m| (m.file.as_str(), m.line.is_some())).collect();
    assert_eq!(bad, [("Todo/bad.md", true), ("Todo/big.md", false)]);
}

#[test]
fn a_half_saved_file_is_malformed_until_it_is_whole_again() {
    let whole = "---\nid: real\ntitle: T\n---\nbody\n";
    let tree = Tree::new(&[("Todo/a.md", whole)]);
    assert_eq!(tree.scan().issues[0].id.0, "real");
    for half in ["", "---\nid: real\nti"] {
        tree.write("Todo/a.md", half);
        let scan = tree.scan();
        assert!(scan.issues.is_empty(), "{half:?} became an issue");
        assert!(scan.malformed[0].message.contains("half saved"), "{:?}", scan.malformed);
        // It stays so while it stands where an issue stood, however old it grows.
        let old = fs::FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(60));
        let file = fs::File::options().write(true).open(tree.path("Todo/a.md")).expect("file");
        file.set_times(old).expect("times");
        assert_eq!(tree.scan().malformed.len(), 1);
        tree.write("Todo/a.md", whole);
        let scan = tree.scan();
        assert_eq!((scan.issues[0].id.0.as_str(), scan.malformed.len()), ("real", 0));
    }
}

/// Regression: after two seconds it was an issue.
#[test]
fn a_file_that_is_empty_or_never_ends_its_front_matter_stays_malformed_however_old_it_is() {
    let tree = Tree::new(&[("Todo/a.md", ""), ("Todo/b.md", "---\nblocked_by: [c]\n\ntext\n")]);
    assert!(tree.scan().malformed.iter().all(|bad| bad.message.contains("half saved")), "{:?}", tree.scan());
    for name in ["a", "b"] {
        let old = fs::FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(60));
        let path = tree.path(&format!("Todo/{name}.md"));
        fs::File::options().write(true).open(path).expect("file").set_times(old).expect("times");
    }
    let scan = tree.scan();
    let said: Vec<_> = scan.malformed.iter().map(|bad| bad.message.as_str()).collect();
    assert!(said[0].contains("is empty; write into it") && said[1].contains("add a line `---`"), "{said:?}");
    assert!(scan.issues.is_empty());
}

#[test]
fn a_change_of_equal_length_is_seen_at_once() {
    let tree = Tree::new(&[("Todo/a.md", "---\ntitle: 00000\n---\n")]);
    for round in 1..200 {
        let title = format!("t{round:04}");
        fs::write(tree.path("Todo/a.md"), format!("---\ntitle: {title}\n---\n")).expect("file");
        assert_eq!(tree.scan().issues[0].title, title);
    }
}

#[test]
fn an_issue_that_moves_all_the_time_is_never_missing_and_never_twice() {
    let tree = Tree::new(&[("Todo/a.md", "x"), ("Review/b.md", "y")]);
    assert_eq!(tree.files(), ["Review/b.md", "Todo/a.md"]);
    let stop = AtomicBool::new(false);
    let (mut good, mut bad, mut moves) = (0_u32, 0_u32, 0_u32);
    std::thread::scope(|scope| {
        let mover = scope.spawn(|| {
            let mut moves = 0;
            while !stop.load(Ordering::Relaxed) {
                tree.rename("Todo/a.md", "Review/a.md");
                tree.rename("Review/a.md", "Todo/a.md");
                moves += 2;
            }
            moves
        });
        let end = Instant::now() + Duration::from_secs(2);
        let mut wrong = None;
        while Instant::now() < end && wrong.is_none() {
            // A process that has just started knows nothing yet, and must not miss it either.
            let newcomer = MarkdownTracker::new(tree.dir.path().to_path_buf());
            let tracker = if (good + bad) % 8 == 7 { &newcomer } else { &tree.tracker };
            match tree.run(tracker.scan()) {
                Ok(scan) if scan.issues.len() == 2 && scan.ambiguous.is_empty() && scan.malformed.is_empty() => {
                    good += 1;
                }
                Ok(scan) => wrong = Some(format!("{scan:?}")),
                Err(error) if error.to_string().contains("keeps changing") => bad += 1,
                Err(error) => wrong = Some(error.to_string()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        moves = mover.join().expect("mover");
        assert_eq!(wrong, None);
    });
    assert!(good > 10 && moves > 100, "{good} scans, {bad} refused, {moves} moves");
    println!("{good} scans and {bad} refused during {moves} moves");
}

#[test]
fn a_removed_file_is_missing_from_the_next_scan() {
    let tree = Tree::new(&[("Todo/a.md", "x"), ("Todo/b.md", "x")]);
    assert_eq!(tree.files().len(), 2);
    fs::remove_file(tree.path("Todo/a.md")).expect("removed");
    assert_eq!(tree.files(), ["Todo/b.md"]);
}

#[test]
fn a_save_by_rename_keeps_the_issue() {
    let tree = Tree::new(&[("Todo/a.md", "one")]);
    assert_eq!(tree.files(), ["Todo/a.md"]);
    tree.write("Todo/.a.md.swp", "two");
    tree.rename("Todo/.a.md.swp", "Todo/a.md");
    assert_eq!(tree.scan().issues[0].description.as_deref(), Some("two"));
}

#[test]
fn the_same_name_in_two_places_is_ambiguous() {
    let tree = Tree::new(&[("Todo/a.md", "x"), ("Done/a.md", "x"), ("Todo/b.md", "x"), ("Todo/B.md", "x")]);
    fs::create_dir(tree.path("Review")).expect("directory");
    let scan = tree.scan();
    assert!(scan.issues.is_empty());
    let files: Vec<_> = scan.ambiguous.iter().map(|a| a.files.join(" ")).collect();
    assert_eq!(files, ["Todo/B.md Todo/b.md", "Done/a.md Todo/a.md"]);
    let error = tree.moved("a", "Review", "Cancelled").expect_err("which one?");
    let text = error.to_string();
    assert!(error.code() == "local_issue_ambiguous" && text.contains("Todo/") && text.contains("Done/"), "{text}");
    // The from-state says which is meant (M5, M6).
    assert_eq!(tree.moved("a", "Todo", "Review").expect("moved"), "Review/a.md");
}

#[test]
fn states_that_differ_only_in_case_are_one_state() {
    let tree = Tree::new(&[("todo/a.md", "x"), ("TODO/b.md", "x"), ("done/c.md", "x")]);
    let scan = tree.scan();
    assert_eq!(scan.issues.iter().filter(|i| i.state == StateName::new("Todo")).count(), 2);
    assert_eq!(tree.moved("a", "Todo", "Done").expect("moved"), "done/a.md");
    assert_eq!(tree.moved("b", "Todo", "todo").expect("there"), "TODO/b.md");
    assert!(!tree.path("Done").exists());
}

#[test]
fn a_move_renames_the_file_and_makes_its_directory() {
    let text = "---\nid: i\n---\nbody";
    let tree = Tree::new(&[("Todo/a.md", text)]);
    let before = fs::metadata(tree.path("Todo/a.md")).expect("file").ino();
    assert_eq!(tree.moved("i", "todo", "Done").expect("moved"), "Done/a.md");
    assert_eq!((tree.read("Done/a.md").as_str(), tree.path("Todo/a.md").exists()), (text, false));
    assert_eq!(fs::metadata(tree.path("Done/a.md")).expect("file").ino(), before);
    assert_eq!(tree.moved("i", "Todo", "Done").expect("already there"), "Done/a.md");
}

#[test]
fn a_move_never_overwrites_what_stands_in_the_target() {
    let tree = Tree::new(&[("Todo/a.md", "live"), ("done/a.md", "---\nid: other\nidentifier: o\n---\n")]);
    for to in ["Done", "done"] {
        let error = tree.moved("a", "Todo", to).expect_err("taken");
        assert_eq!(error, TrackerError::TargetExists("done/a.md".into()));
    }
    assert_eq!(error_of_rename(&tree), ErrorKind::AlreadyExists);
    assert_eq!(tree.read("Todo/a.md"), "live");
    assert!(tree.read("done/a.md").contains("other"));
}

/// The two ways to rename, past the check that would have refused.
fn error_of_rename(tree: &Tree) -> ErrorKind {
    let (from, to) = (tree.path("Todo/a.md"), tree.path("done/a.md"));
    let fallback = disk::link_and_unlink(&from, &to).expect_err("taken").kind();
    assert_eq!(fallback, disk::rename_to_free_name(&from, &to).expect_err("taken").kind());
    fallback
}

#[test]
fn the_fallback_for_old_file_systems_moves_too() {
    let tree = Tree::new(&[("Todo/a.md", "x"), ("Done/b.md", "x")]);
    disk::link_and_unlink(&tree.path("Todo/a.md"), &tree.path("Done/a.md")).expect("moved");
    assert_eq!(tree.files(), ["Done/a.md", "Done/b.md"]);
}

#[test]
fn an_operators_move_wins_over_an_agents() {
    let tree = Tree::new(&[("Todo/a.md", "x")]);
    tree.scan();
    fs::create_dir(tree.path("Cancelled")).expect("directory");
    tree.rename("Todo/a.md", "Cancelled/a.md");
    let error = tree.moved("a", "Todo", "Done").expect_err("moved away");
    let want = TrackerError::Elsewhere { id: "a".into(), actual: "Cancelled".into(), expected: "Todo".into() };
    assert_eq!(error, want);
    assert_eq!(tree.files(), ["Cancelled/a.md"]);
    assert_eq!(tree.moved("nobody", "Todo", "Done").expect_err("missing").code(), "local_issue_not_found");
}

#[test]
fn names_that_are_no_states_are_refused() {
    let tree = Tree::new(&[("Todo/a.md", "x")]);
    for to in ["", " ", "../up", "a/b", ".git", "a\nb"] {
        assert_eq!(tree.moved("a", "Todo", to).expect_err(to).code(), "local_issue_invalid");
        assert_eq!(tree.create(None, to).expect_err(to).code(), "local_issue_invalid");
    }
    assert_eq!(tree.everything().len(), 1);
}

#[test]
fn racing_movers_move_an_issue_once() {
    let tree = Tree::new(&[("Todo/a.md", "x")]);
    let targets = ["Done", "Review", "Cancelled", "Parked"];
    let won: usize = std::thread::scope(|scope| {
        let racers = targets.map(|to| {
            let racer = MarkdownTracker::new(tree.dir.path().to_path_buf());
            scope.spawn(move || {
                racer.shared.move_issue(&IssueId("a".into()), &StateName::new("Todo"), &StateName::new(to)).is_ok()
            })
        });
        racers.into_iter().map(|racer| usize::from(racer.join().expect("racer"))).sum()
    });
    assert_eq!((won, tree.files().len()), (1, 1));
}

#[test]
fn a_note_is_appended_and_every_other_byte_kept() {
    let text = "---\r\nid:   i # mine\r\n---\r\n\r\nbody";
    let tree = Tree::new(&[("Todo/a.md", text), ("Todo/b.md", "line\n")]);
    let private = fs::Permissions::from_mode(0o640);
    fs::set_permissions(tree.path("Todo/a.md"), private).expect("mode");
    tree.note("i", "first").expect("noted");
    tree.note("i", "second\n").expect("noted");
    tree.note("b", "third").expect("noted");
    assert_eq!(tree.read("Todo/a.md"), format!("{text}\n\nfirst\n\nsecond\n"));
    assert_eq!(tree.read("Todo/b.md"), "line\n\nthird\n");
    assert_eq!(fs::metadata(tree.path("Todo/a.md")).expect("file").mode() & 0o777, 0o640);
    assert_eq!(tree.everything().len(), 2, "nothing is left behind");
    assert_eq!(tree.note("nobody", "x").expect_err("missing").code(), "local_issue_not_found");
    let long = "x".repeat(MAX_BYTES);
    assert_eq!(tree.note("i", &long).expect_err("too long").code(), "local_issue_invalid");
    assert_eq!(tree.scan().issues.len(), 2);
}

#[test]
fn a_note_never_undoes_a_save_that_came_in_between() {
    let tree = Tree::new(&[("Todo/a.md", "version 0\n")]);
    let path = tree.path("Todo/a.md");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let noter = scope.spawn(|| {
            let mut notes = 0;
            while !stop.load(Ordering::Relaxed) {
                match disk::append(&path, "note", MAX_BYTES) {
                    Ok(Appended::Yes) => notes += 1,
                    Ok(Appended::Busy) => {}
                    other => panic!("{other:?}"),
                }
            }
            notes
        });
        for version in 1..=300_u32 {
            tree.write("Todo/.save", &format!("version {version}\n"));
            tree.rename("Todo/.save", "Todo/a.md");
            std::thread::sleep(Duration::from_micros(u64::from(version % 7) * 300));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(noter.join().expect("noter") > 0);
    });
    assert!(tree.read("Todo/a.md").starts_with("version 300\n"));
    assert_eq!(tree.everything().len(), 1);
}

#[test]
fn a_file_that_changed_since_it_was_read_is_not_swapped() {
    let tree = Tree::new(&[("Todo/a.md", "current")]);
    let mut draft = disk::draft(&tree.path("Todo")).expect("draft");
    std::io::Write::write_all(&mut draft, b"stale and a note").expect("written");
    let path = tree.path("Todo/a.md");
    assert!(!disk::swap_if_unchanged(draft, &path, b"stale", b"stale and a note", MAX_BYTES).expect("no error"));
    assert_eq!((tree.read("Todo/a.md").as_str(), tree.everything().len()), ("current", 1));
}

#[test]
fn a_move_waits_for_a_save_and_tells_a_broken_file_from_a_missing_one() {
    let tree = Tree::new(&[("Todo/a.md", "---\nid: i\n---\n")]);
    tree.scan();
    tree.write("Todo/a.md", "---\nid: i\n");
    let error = tree.moved("i", "Todo", "Done").expect_err("half saved");
    assert!(matches!(&error, TrackerError::Io { message, .. } if message.contains("half saved")), "{error}");
    let writer = tree.path("Todo/a.md");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(30));
            fs::write(writer, "---\nid: i\n---\n").expect("saved");
        });
        let (id, from, to) = (IssueId("i".into()), StateName::new("Todo"), StateName::new("Done"));
        assert!(tree.run(tree.tracker.move_issue(&id, &from, &to)).is_ok());
    });
}

#[test]
fn a_stamp_is_trusted_only_when_no_change_can_hide_behind_it() {
    let now = SystemTime::now();
    let nanos = now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_nanos() as i128 | 1;
    for (age_ms, trusted) in [(0, false), (10, false), (100, true), (-5, false), (-3_600_000, true)] {
        assert_eq!(listing::settled(nanos - age_ms * 1_000_000, now), trusted, "{age_ms} ms");
    }
    let whole = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    assert!(!listing::settled(999_000_000_000, whole) && listing::settled(900_000_000_000, whole));
}

#[test]
fn creators_in_several_processes_never_share_a_number_or_a_name() {
    let tree = Tree::new(&[("Done/41.md", "x"), ("Todo/half.md", "---\n- no map\n---\n")]);
    let (numbers, named) = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..8)
            .map(|at| {
                // Each has its own descriptors and memory, as a process has.
                let creator = MarkdownTracker::new(tree.dir.path().to_path_buf());
                scope.spawn(move || {
                    let state = if at % 2 == 0 { "Todo" } else { "Triage" };
                    let new = NewIssue { title: "N".into(), state: state.into(), ..NewIssue::default() };
                    let numbers: Vec<_> = (0..5)
                        .map(|_| creator.shared.create(&new, Timestamp::UNIX_EPOCH).expect("created").identifier.0)
                        .collect();
                    let identifier = Some(Identifier(if at % 2 == 0 { "One Name" } else { "one_name" }.into()));
                    let named = NewIssue { identifier, ..new };
                    (numbers, creator.shared.create(&named, Timestamp::UNIX_EPOCH).is_ok())
                })
            })
            .collect();
        let all: Vec<_> = creators.into_iter().map(|creator| creator.join().expect("creator")).collect();
        let named = all.iter().filter(|(_, named)| *named).count();
        (all.into_iter().flat_map(|(numbers, _)| numbers).collect::<Vec<_>>(), named)
    });
    let distinct: BTreeSet<u32> = numbers.iter().map(|n| n.parse().expect("a number")).collect();
    assert_eq!(distinct, (42..82).collect());
    assert_eq!(named, 1);
    let scan = tree.scan();
    assert_eq!((scan.issues.len(), scan.ambiguous.len()), (42, 0));
    assert!(tree.everything().iter().all(|file| file.ends_with(".md")), "nothing is left behind");
}

#[test]
fn a_new_issue_is_a_complete_file_that_reads_back() {
    let tree = Tree::new(&[("todo/a.md", "x")]);
    let new = NewIssue {
        identifier: Some(Identifier("A B/c".into())),
        title: " Fix: \"it\" ".into(),
        state: "Todo".into(),
        description: Some("Do it.\n".into()),
        priority: Some(2),
        labels: vec!["Bug".into()],
        blocked_by: vec!["a".into()],
        proposed: Some(Proposed { by: Identifier("P-1".into()), run: RunId(3) }),
    };
    let created = tree.run(tree.tracker.create(new)).expect("created");
    assert_eq!((created.identifier.0.as_str(), created.state.as_str()), ("A_B_c", "todo"));
    assert_eq!(created.path, tree.path("todo/A_B_c.md").display().to_string());
    let scan = tree.scan();
    let issue = scan.issues.iter().find(|i| i.identifier == created.identifier).expect("there");
    assert_eq!((issue.title.as_str(), issue.description.as_deref()), ("Fix: \"it\"", Some("Do it.")));
    assert_eq!((issue.priority, issue.labels.concat().as_str()), (Some(2), "bug"));
    assert_eq!(issue.blocked_by[0].state, Some(StateName::new("todo")));
    assert!(issue.created_at.is_some());
    assert_eq!(issue.proposed_by.as_deref(), Some("P-1"));
}

#[test]
fn an_identifier_that_is_taken_anywhere_or_cannot_be_one_is_refused() {
    let tree = Tree::new(&[("Done/a.md", "---\nid: key\nidentifier: Name\n---\n")]);
    for taken in ["a", "A", "key", "name"] {
        assert_eq!(tree.create(Some(taken), "Todo"), Err(TrackerError::TargetExists("Done/a.md".into())), "{taken}");
    }
    for bad in ["", "..", ".hidden", "state", "events", &"x".repeat(101)] {
        assert_eq!(tree.create(Some(bad), "Todo").expect_err(bad).code(), "local_issue_invalid");
    }
    let blank = NewIssue { title: " ".into(), state: "Todo".into(), ..NewIssue::default() };
    assert_eq!(tree.run(tree.tracker.create(blank)).expect_err("blank").code(), "local_issue_invalid");
    assert_eq!(tree.create(None, "Todo").expect("created").identifier.0, "1");
}

#[test]
fn five_thousand_unchanged_issues_are_not_read_again() {
    let tree = Tree::new(&[("Done/0.md", "x")]);
    for at in 0..5000 {
        let text =
            format!("---\nid: id-{at}\ntitle: Title {at}\nlabels: [a, b]\npriority: 2\n---\n\nSome body {at}.\n");
        fs::write(tree.path(&format!("Done/n{at}.md")), text).expect("file");
    }
    assert_eq!(tree.scan().issues.len(), 5001);
    std::thread::sleep(Duration::from_millis(50));
    tree.scan();
    let reads = || tree.tracker.shared.memory.lock().expect("memory").opened;
    let before = reads();
    let start = Instant::now();
    let scan = tree.scan();
    println!("a scan of {} unchanged issues took {:?}", scan.issues.len(), start.elapsed());
    assert_eq!(reads(), before);
    tree.write("Done/n7.md", "changed");
    tree.scan();
    assert_eq!(reads(), before + 1);
}
