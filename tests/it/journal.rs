//! The journal of the real binary: damaged, read-only, on a full disk; and the commands that look at it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::jail::bench::reachable;
use crate::rig::{FRONT, Project, until};
use crate::skip::skip;

const SCRIPT: &str = "```sh\necho done > done.txt; git add done.txt; git commit -qm Done\n```";

fn journal(project: &Project, args: &[&str]) -> (i32, String, String) {
    let output = project.run(&[&["journal"], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

fn store(project: &Project, name: &str) -> PathBuf {
    project.dir().join(".symphony").join(name)
}

/// A project with one issue done.
fn with_a_past() -> Project {
    let project = Project::new();
    project.issue("Todo", "one", SCRIPT);
    assert_eq!(project.once(), 0);
    project
}

fn runs(project: &Project) -> Vec<String> {
    let dir = std::fs::read_dir(store(project, "runs")).expect("runs");
    let mut names: Vec<String> = dir.flatten().map(|run| run.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_damaged_journal_is_refused_and_once_it_is_moved_away_nothing_of_ours_is_strange() {
    let project = with_a_past();
    let (path, mark) = (store(&project, "journal.db"), project.read(".symphony/instance"));
    // The first page of the events: an index of an empty table could be mended, and its loss costs an export nothing.
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_URI;
    let db = rusqlite::Connection::open_with_flags(format!("file:{}?immutable=1", path.display()), flags).expect("db");
    let page = "SELECT rootpage FROM sqlite_schema WHERE name = 'events'";
    let page: u32 = db.query_row(page, [], |r| r.get(0)).expect("its page");
    drop(db);
    let mut bytes = std::fs::read(&path).expect("reads");
    let at = (page as usize - 1) * 4096;
    bytes[at..at + 200].fill(0x5A);
    std::fs::write(&path, &bytes).expect("written");

    project.issue("Todo", "two", SCRIPT);
    let output = project.run(&["WORKFLOW.md", "--once"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(path.to_str().expect("utf-8")) && said.contains("is damaged"), "{said}");
    assert!(said.contains("journal export") && said.contains("away together and start again"), "{said}");
    assert!(std::fs::read(&path).expect("reads") == bytes && project.exists("issues/Todo/two.md"), "changed");
    let (code, _, said) = journal(&project, &["check"]);
    assert!(code == 1 && said.contains("is damaged"), "{said}");
    let saved = project.beside("saved.jsonl");
    let (code, _, said) = journal(&project, &["export", "--output", saved.to_str().expect("utf-8")]);
    let saved = std::fs::read_to_string(saved).expect("saved");
    assert!(code == 1 && said.contains("not readable"), "{said}");
    assert!(saved.lines().count() > 3 && saved.contains("\"instance\""), "{saved}");

    // One who moves only the file leaves a log beside it; that must not come back to life.
    std::fs::write(store(&project, "journal.db-wal"), "left over").expect("written");
    std::fs::rename(&path, project.beside("away.db")).expect("moved");
    let before = runs(&project);
    assert_eq!(project.once(), 0);
    assert_eq!(project.read(".symphony/instance"), mark);
    let after = runs(&project);
    assert_eq!((after.len(), after[..before.len()] == before), (before.len() + 1, true), "{before:?}, {after:?}");
    let (code, said, _) = journal(&project, &["check", "--json"]);
    let report: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((code, &report["sound"], report["instance"].as_str()), (0, &Value::Bool(true), Some(mark.trim())));
}

#[test]
fn the_journal_is_checked_and_exported_while_symphony_runs_and_compacted_only_after() {
    let project = with_a_past();
    let secret = project.read(".symphony/journal-key");
    let running = project.start();
    let (code, said, _) = journal(&project, &["check"]);
    assert_eq!(code, 0, "{said}");
    for part in ["format    5", "whole from the beginning", "runs 1", "key  ", "instance  "] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert!(!said.contains(secret.trim()));
    let (code, said, _) = journal(&project, &["export", "WORKFLOW.md"]);
    let rows: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(code == 0 && rows.iter().any(|row| row["table"] == "events" && row["kind"] == "run_ended"), "{said}");
    let file = project.beside("export.jsonl");
    let name = file.to_str().expect("utf-8");
    assert_eq!(journal(&project, &["export", "--output", name]).0, 0);
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    let (code, _, said) = journal(&project, &["export", "--output", name]);
    assert!(code == 1 && said.contains("exists"), "{said}");
    let (code, _, said) = journal(&project, &["compact", "--keep", "2"]);
    assert!(code == 1 && said.contains(&format!("process {}", running.pid())), "{said}");
    running.stop();

    let (code, said, _) = journal(&project, &["compact", "--keep", "2"]);
    assert!(code == 0 && said.contains("events removed; a checkpoint at event "), "{said}");
    let (code, said, _) = journal(&project, &["check"]);
    assert!(
        code == 0 && said.contains("whole from the checkpoint at event ") && said.contains("signed by key"),
        "{said}"
    );
    // The mark and the numbers are as before, and the chain goes on.
    project.issue("Todo", "two", SCRIPT);
    assert_eq!((project.once(), runs(&project).len()), (0, 2));
    assert_eq!(journal(&project, &["check"]).0, 0);

    // Another key in the place of ours.
    std::fs::write(store(&project, "journal-key"), "11".repeat(32)).expect("written");
    let (code, said, error) = journal(&project, &["check"]);
    assert!(
        code == 1 && said.contains("broken: ") && error.contains("not by this installation's key"),
        "{said}{error}"
    );
    assert!(error.contains("(hint: "), "{error}");
    let (code, _, error) = journal(&project, &["compact", "--keep", "1"]);
    assert!(code == 1 && error.contains("not by this installation's key"), "{error}");
}

/// Regression: after a lost key nothing was said, and there was no way on.
#[test]
fn a_lost_key_is_told_at_the_start_and_a_new_one_signs_anew() {
    let project = with_a_past();
    assert_eq!(journal(&project, &["compact", "--keep", "2"]).0, 0);
    std::fs::remove_file(store(&project, "journal-key")).expect("lost");
    let running = project.start();
    until("the loss to be told", || running.log().contains("journal compact --new-key"));
    running.stop();
    let (code, _, error) = journal(&project, &["check"]);
    assert!(code == 1 && error.contains("symphony journal compact --new-key"), "{error}");
    let (code, said, error) = journal(&project, &["compact", "--new-key"]);
    assert!(code == 0 && said.contains("no event was removed; the checkpoint at event "), "{said}{error}");
    let (code, said, _) = journal(&project, &["check"]);
    assert!(code == 0 && said.contains("state     as the events that stand say"), "{said}");
    assert!(said.contains("unproven  that nothing came after event "), "{said}");
}

/// Regression: a directory that stood there before stayed open to everybody, and so did the journal and the lock.
#[test]
fn what_others_could_read_or_lock_is_withheld_from_them_at_the_start() {
    let project = with_a_past();
    let dir = project.dir().join(".symphony");
    mode(&dir, 0o755);
    for name in ["journal.db", "lock"] {
        mode(&store(&project, name), 0o644);
    }
    assert_eq!(project.once(), 0);
    let of = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let found = [of(&dir), of(&store(&project, "journal.db")), of(&store(&project, "lock"))];
    assert_eq!(found, [0o700, 0o600, 0o600]);
    let fresh = with_a_past();
    assert_eq!([of(&store(&fresh, "journal.db")), of(&store(&fresh, "lock"))], [0o600, 0o600]);
}

/// Regression: with the journal moved away, answers went into a file that nobody found again.
#[test]
fn with_the_journal_moved_away_nothing_starts_until_it_is_back() {
    let project = with_a_past();
    let running = project.start();
    let path = store(&project, "journal.db");
    std::fs::rename(&path, project.beside("away.db")).expect("moved");
    project.issue("Todo", "two", SCRIPT);
    running.until_state("the issue to wait", |state| {
        let rows = ["idle", "retrying"].into_iter().filter_map(|kind| state[kind].as_array()).flatten();
        rows.into_iter()
            .any(|row| row["issue_identifier"] == "two" && row.to_string().contains("moved, removed or replaced"))
    });
    std::fs::rename(project.beside("away.db"), &path).expect("put back");
    project.wait_for("issues/Done/two.md");
}

#[test]
fn without_a_journal_the_commands_say_so_and_make_nothing() {
    let project = Project::new();
    for args in [&["check"][..], &["export"], &["compact"]] {
        let (code, _, said) = journal(&project, args);
        assert!(code == 1 && said.contains("there is no journal at"), "{said}");
    }
    assert!(!project.exists(".symphony"));
    assert_eq!(journal(&project, &["check", "no/such/place/WORKFLOW.md"]).0, 2);
}

/// The binary as a user who is not root, when the tester is.
fn as_somebody(project: &Project, args: &[&str]) -> Output {
    let place = tempfile::tempdir().expect("a directory");
    let program = reachable(place.path(), Path::new(env!("CARGO_BIN_EXE_symphony")));
    let mut command = project.around(program.to_str().expect("utf-8"), args);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.stdin(Stdio::null()).output().expect("starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn a_journal_that_may_not_be_written_is_refused_with_its_reason_and_can_still_be_read() {
    let project = with_a_past();
    let (dir, path) = (project.dir().join(".symphony"), store(&project, "journal.db"));
    if rustix::process::geteuid().is_root() {
        mode(project.dir().parent().expect("parent"), 0o755);
        let own =
            Command::new("chown").args(["-R", "65534:65534"]).arg(project.dir()).arg(project.runtime_dir()).status();
        assert!(own.expect("chown").success());
    }
    let refused = |what: &str| {
        let output = as_somebody(&project, &["WORKFLOW.md", "--once"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains("journal.db cannot be written") && said.contains("and its directory"), "{what}: {said}");
    };
    let readable = |what: &str| {
        assert_eq!(as_somebody(&project, &["journal", "check"]).status.code(), Some(0), "{what}");
        let output = as_somebody(&project, &["journal", "export"]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("run_ended"), "{what}");
    };
    let before = std::fs::read(&path).expect("reads");
    mode(&path, 0o444);
    refused("a file that is read-only");
    readable("a file that is read-only");
    mode(&path, 0o644);
    for end in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
    mode(&dir, 0o555);
    refused("a directory that is read-only");
    readable("a directory that is read-only");
    mode(&dir, 0o755);
    assert_eq!(std::fs::read(&path).expect("reads"), before);
    assert_eq!(as_somebody(&project, &["journal", "check"]).status.code(), Some(0));
}

/// All of `.symphony` on a small disk of its own, in a mount namespace that ends with the program.
#[test]
fn on_a_full_disk_nothing_new_starts_and_with_room_it_goes_on_by_itself() {
    if !rustix::process::geteuid().is_root() {
        skip("only root can mount a small disk");
        return;
    }
    let project = Project::new();
    let dir = project.dir().join(".symphony");
    std::fs::create_dir(&dir).expect("made");
    let enter = format!("mount -t tmpfs -o size=64m,mode=700 small '{}' && exec \"$@\"", dir.display());
    let program = env!("CARGO_BIN_EXE_symphony");
    let args = ["--mount", "--propagation", "private", "sh", "-c", &enter, "sh", program, "WORKFLOW.md", "--port", "0"];
    let running = project.start_command(project.around("unshare", &args));
    if running.log().contains("mount: ") {
        skip(format_args!("no small disk can be mounted here: {}", running.log()));
        return;
    }
    // From outside, through its root.
    let inside = PathBuf::from(format!("/proc/{}/root{}", running.pid(), dir.display()));
    project.issue("Todo", "first", SCRIPT);
    project.wait_for("issues/Done/first.md");
    running.until_state("the run to end", |state| state["running"].as_array().is_some_and(Vec::is_empty));

    let ballast = inside.join("ballast");
    let mut file = std::fs::File::create(&ballast).expect("made");
    let full = loop {
        if let Err(error) = std::io::Write::write_all(&mut file, &[1; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    for name in ["second", "third"] {
        project.issue("Todo", name, SCRIPT);
    }
    running.until_state("the trouble to be said", |state| state.to_string().contains("make room on that disk"));
    let of = |name: &str| {
        let state = running.state();
        let rows = ["idle", "retrying"].into_iter().filter_map(|kind| state[kind].as_array().cloned()).flatten();
        rows.into_iter().find(|row| row["issue_identifier"] == name)
    };
    until("the issues to wait for it", || of("third").is_some_and(|row| row["reason_code"] == "journal"));
    assert!(project.exists("issues/Todo/second.md") && project.exists("issues/Todo/third.md"));

    std::fs::remove_file(&ballast).expect("removed");
    drop(file);
    for name in ["second", "third"] {
        project.wait_for(&format!("issues/Done/{name}.md"));
    }
    running.until_state("all to end", |state| state["running"].as_array().is_some_and(Vec::is_empty));
    // The journal as it stands, in a place where the command sees it.
    let copy = Project::with(FRONT);
    std::fs::create_dir(copy.dir().join(".symphony")).expect("made");
    for name in ["journal.db", "journal.db-wal", "journal-key"] {
        std::fs::copy(inside.join(name), store(&copy, name)).expect("copied");
    }
    let (code, said, error) = journal(&copy, &["check"]);
    assert!(code == 0 && said.contains("whole from the beginning"), "{said}{error}");
}
