//! `symphony gc` on real files with the real binary: what goes, and everything that keeps it.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::rig::{FRONT, Project, git};

fn old(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(400 * 24 * 60 * 60);
    File::open(path).expect("there").set_modified(then).expect("aged");
}

/// A directory with all that stands directly in it: the time of any of it keeps it.
fn old_with_parts(dir: &Path) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        old(&entry.path());
    }
    old(dir);
}

/// A project that ran once, with an old work disk of a finished issue and an old rest of a removal.
fn project() -> Project {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\necho x > x\n```");
    assert_eq!(project.once(), 0);
    for name in ["A-1", "+gone-B-1"] {
        let disk = project.dir().join(".symphony/disks").join(name);
        fs::create_dir_all(disk.join("tree/deep")).expect("a disk");
        old_with_parts(&disk);
    }
    project
}

/// A directory below `.symphony/` with a file in it, not used for long.
fn aged(project: &Project, place: &str, file: &str) {
    project.write(&format!(".symphony/{place}/{file}"), "x");
    for path in [format!(".symphony/{place}/{file}"), format!(".symphony/{place}")] {
        old(&project.dir().join(path));
    }
}

/// Frames of a run that began long before, a template, a copy of the journal, and what removals of each left.
fn what_no_run_needs(project: &Project) {
    project.write(".symphony/runs/1/acp.jsonl", "{}");
    for entry in fs::read_dir(project.dir().join(".symphony/runs/1")).expect("a run").flatten() {
        old(&entry.path());
    }
    old(&project.dir().join(".symphony/runs/1"));
    aged(project, "runs/+gone-1", "acp.jsonl");
    aged(project, &template('a'), "about.json");
    aged(project, "machines/templates/+gone-x", "ram");
    project.write(".symphony/journal.db.format-1", "x");
    old(&project.dir().join(".symphony/journal.db.format-1"));
}

fn template(digit: char) -> String {
    format!("machines/templates/{}", digit.to_string().repeat(32))
}

const GOING: [&str; 5] = [
    "runs/1",
    "runs/+gone-1",
    "machines/templates/+gone-x",
    "journal.db.format-1",
    "templates/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

/// Ages everything at once, and copies of the journal too.
const WITH_BACKUPS: &str = "retention:\n  journal_backups: {days: 9}\n";

fn gc(project: &Project, args: &[&str]) -> (i32, Value) {
    let output = project.run(&[&["gc", "--json"], args].concat());
    (output.status.code().expect("ended"), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn reason(report: &Value, end: &str) -> (String, String) {
    let items = report["items"].as_array().expect("items");
    let found = items.iter().find(|item| item["path"].as_str().is_some_and(|path| path.ends_with(end)));
    let found = found.unwrap_or_else(|| panic!("no {end} in {report:#}"));
    let word = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (word("verdict"), word("reason_code"))
}

fn words(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

#[test]
fn a_dry_run_says_what_the_next_one_removes_and_patches_and_fresh_runs_stay() {
    let project = project();
    let (code, report) = gc(&project, &["--dry-run"]);
    assert_eq!((code, reason(&report, "disks/A-1")), (0, words("would-go", "issue-finished")));
    assert!(project.exists(".symphony/disks/A-1/tree") && project.exists(".symphony/disks/+gone-B-1"));
    let (code, report) = gc(&project, &[]);
    assert_eq!((code, reason(&report, "disks/A-1")), (0, words("removed", "issue-finished")));
    assert_eq!(reason(&report, "+gone-B-1"), words("removed", "unfinished"));
    assert_eq!(reason(&report, "patches"), words("kept", "always"));
    assert_eq!(reason(&report, "runs/1"), words("kept", "not-yet"));
    assert_eq!(reason(&report, "airlock/A-1.git"), words("kept", "always"));
    assert!(!project.exists(".symphony/disks/A-1") && !project.exists(".symphony/disks/+gone-B-1"));
    assert!(project.exists(".symphony/patches/agent_A-1.patch"));
}

/// Regression: the time of its top directory was taken for that of its last use, and no write below changes it.
#[test]
fn a_disk_or_workspace_that_was_written_into_lately_stays_however_old_its_directory_is() {
    let project = with_workspace("exit 0");
    let symphony = project.dir().join(".symphony");
    let parts = ["disks/A-1", "disks/A-1+left-7", "machines/qemu/A-1"];
    for place in parts {
        let disk = symphony.join(place);
        fs::create_dir_all(disk.join("tree")).expect("a disk");
        fs::create_dir_all(disk.join("state")).expect("a disk");
        old_with_parts(&disk);
    }
    fs::write(symphony.join("machines/qemu/A-1/granted-mib"), "8192").expect("written");
    fs::write(symphony.join("machines/qemu/A-1/state/work.img"), "an image").expect("written");
    fs::write(symphony.join("disks/A-1/tree/f"), "now").expect("written");
    fs::write(symphony.join("disks/A-1+left-7/tree/f"), "now").expect("written");
    fs::write(symphony.join("workspaces/A-1/f"), "now").expect("written");
    let all = parts.into_iter().chain(["workspaces/A-1"]);
    for place in all.clone() {
        // A file in place of a directory changes the time of what is above it.
        if place.starts_with("machines") {
            for part in ["state", "granted-mib"] {
                old(&symphony.join(place).join(part));
            }
        }
        old(&symphony.join(place));
    }
    let (code, report) = gc(&project, &[]);
    assert_eq!(code, 0, "{report:#}");
    for place in all {
        assert_eq!(reason(&report, &format!(".symphony/{place}")), words("kept", "not-yet"), "{place}");
    }
    for file in ["disks/A-1/tree", "disks/A-1+left-7/tree", "machines/qemu/A-1/state/work.img", "workspaces/A-1/f"] {
        old(&symphony.join(file));
    }
    let (_, report) = gc(&project, &[]);
    for place in parts.into_iter().chain(["workspaces/A-1"]) {
        assert_eq!(reason(&report, &format!(".symphony/{place}")), words("removed", "issue-finished"), "{place}");
    }
}

#[test]
fn links_marks_strangers_and_issues_that_are_not_finished_keep_a_disk() {
    let project = project();
    let disks = project.dir().join(".symphony/disks");
    project.issue("Backlog", "C-1", "Later.");
    let outside = project.beside("outside");
    fs::create_dir_all(outside.join("tree")).expect("outside");
    for name in ["C-1", "D-1"] {
        fs::create_dir_all(disks.join(name).join("tree")).expect("a disk");
        old_with_parts(&disks.join(name));
    }
    fs::create_dir_all(project.dir().join(".symphony/unexported")).expect("made");
    project.write(".symphony/unexported/A-1", "jail");
    project.issue("Done", "E-1", "Done.");
    project.issue("Done", "F-1", "Done.");
    std::os::unix::fs::symlink(&outside, disks.join("E-1")).expect("a link");
    fs::create_dir_all(disks.join("F-1/precious")).expect("a stranger");
    old_with_parts(&disks.join("F-1"));
    let (code, report) = gc(&project, &[]);
    assert_eq!(code, 0);
    for (end, why) in [
        ("disks/A-1", "unexported"),
        ("disks/C-1", "issue-held"),
        ("disks/D-1", "issue-unknown"),
        ("disks/E-1", "link"),
        ("disks/F-1", "not-ours"),
    ] {
        assert_eq!(reason(&report, end), words("kept", why), "{end}");
        assert!(fs::symlink_metadata(project.dir().join(".symphony").join(end)).is_ok(), "{end}");
    }
    assert!(outside.join("tree").exists());
    assert_eq!(reason(&report, "+gone-B-1").0, "removed", "the control");
}

#[test]
fn anything_that_cannot_be_looked_at_keeps_everything() {
    for broken in ["runs", "journal.db", "issues"] {
        let project = project();
        let place =
            project.dir().join(if broken == "issues" { "issues".into() } else { format!(".symphony/{broken}") });
        fs::rename(&place, project.beside("away")).expect("moved");
        if broken == "runs" {
            // Root may read any directory; a file in its place is unreadable to everybody.
            fs::write(&place, "").expect("a file");
        }
        let (code, report) = gc(&project, &[]);
        assert_eq!((code, reason(&report, "disks/A-1")), (1, words("kept", "inventory-failed")), "{broken}");
        assert!(project.exists(".symphony/disks/A-1/tree") && project.exists(".symphony/disks/+gone-B-1"));
    }
}

#[test]
fn a_journal_that_cannot_be_read_or_is_empty_keeps_everything() {
    for text in ["no database at all, but long enough to have been one", ""] {
        let project = project();
        what_no_run_needs(&project);
        for file in ["journal.db-wal", "journal.db-shm"] {
            let _ = fs::remove_file(project.dir().join(".symphony").join(file));
        }
        project.write(".symphony/journal.db", text);
        let (code, report) = gc(&project, &[]);
        assert_eq!((code, report["freed_bytes"].as_u64()), (1, Some(0)));
        let items = report["items"].as_array().expect("items");
        assert!(items.iter().all(|item| item["verdict"] == "kept" && item["reason_code"] == "inventory-failed"));
        assert!(project.exists(".symphony/disks/A-1/tree") && project.exists(".symphony/runs/+gone-1"));
        assert_eq!(project.read(".symphony/journal.db"), text, "it is left as it was found");
    }
}

#[test]
fn old_frames_templates_and_copies_of_the_journal_go_but_notes_and_what_looks_like_them_stay() {
    let project = project();
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("---\n", &format!("---\n{WITH_BACKUPS}"), 1));
    what_no_run_needs(&project);
    // None of them a run that began, or a template.
    for place in ["runs/2", "runs/01", "machines/templates/b", "disks/.discard-A-1"] {
        aged(&project, place, "acp.jsonl");
    }
    let (code, report) = gc(&project, &[]);
    assert_eq!(code, 0);
    for end in GOING {
        assert_eq!(reason(&report, end).0, "removed", "{end}");
    }
    for end in ["runs/2", "runs/01", "templates/b", "disks/.discard-A-1"] {
        assert_eq!(reason(&report, end), words("kept", "not-ours"), "{end}");
    }
    assert!(
        ["runs/1", "runs/+gone-1", "journal.db.format-1"]
            .iter()
            .all(|end| !project.exists(&format!(".symphony/{end}")))
    );
    // Notes that may not be in their issue yet, even where they cannot be read.
    fs::create_dir_all(project.dir().join(".symphony/runs/1")).expect("made");
    std::os::unix::fs::symlink("nowhere", project.dir().join(".symphony/runs/1/notes.md")).expect("a link");
    old(&project.dir().join(".symphony/runs/1"));
    assert_eq!(reason(&gc(&project, &[]).1, "runs/1"), words("kept", "unexported"));
}

/// Regression: any `journal.db.*` was taken for a copy that symphony made, and the operator's own went by default.
#[test]
fn copies_of_the_journal_that_a_person_made_stay_and_only_those_with_a_name_of_ours_go() {
    let project = project();
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("---\n", &format!("---\n{WITH_BACKUPS}"), 1));
    let (own, theirs) = (
        ["format-1", "format-2.1"],
        ["1", "bak", "2026-01-01", "format-", "format-1.bak", "format-x", "format-1.1.1", "formats-1"],
    );
    for name in own.into_iter().chain(theirs) {
        project.write(&format!(".symphony/journal.db.{name}"), "x");
        old(&project.dir().join(format!(".symphony/journal.db.{name}")));
    }
    let (code, report) = gc(&project, &[]);
    assert_eq!(code, 0, "{report:#}");
    for name in own {
        assert_eq!(reason(&report, &format!("/journal.db.{name}")).0, "removed", "{name}");
    }
    for name in theirs {
        assert_eq!(reason(&report, &format!("/journal.db.{name}")), words("kept", "not-ours"), "{name}");
        assert!(project.exists(&format!(".symphony/journal.db.{name}")), "{name}");
    }
}

/// Regression: machines of smolvm and what nobody knows took room that no list showed.
#[test]
fn everything_in_our_directory_is_listed_with_its_size_and_what_is_not_known_stays() {
    let project = project();
    project.write(".symphony/strange/deep", &"x".repeat(3 << 20));
    project.write(".symphony/smolvm/d/disk.raw", &"x".repeat(5 << 20));
    project.write(".symphony/machines/smolvm/A-1/smolvm/machine", "sy-abcd-a-1-abcdef");
    let (code, report) = gc(&project, &[]);
    assert_eq!(code, 0, "{report:#}");
    let items = report["items"].as_array().expect("items");
    let bytes = |end: &str| {
        let found = items.iter().find(|item| item["path"].as_str().is_some_and(|path| path.ends_with(end)));
        found.unwrap_or_else(|| panic!("no {end} in {report:#}"))["bytes"].as_u64()
    };
    assert_eq!(reason(&report, ".symphony/strange"), words("kept", "not-ours"));
    assert!(bytes(".symphony/strange").is_some_and(|bytes| bytes >= 3 << 20));
    assert!(bytes(".symphony/smolvm").is_some_and(|bytes| bytes >= 5 << 20));
    assert_eq!(bytes("machines/smolvm/A-1"), None, "where smolvm cannot be asked its size is not known");
    assert_eq!(reason(&report, ".symphony/lock"), words("kept", "always"));
    let containers = ["airlock", "disks", "machines", "runs", "workspaces"];
    for entry in fs::read_dir(project.dir().join(".symphony")).expect("ours").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let listed = items.iter().filter(|item| item["path"].as_str() == entry.path().to_str()).count();
        assert_eq!(listed, usize::from(!containers.contains(&name.as_str())), "{name}");
    }
}

/// Regression: a symphony starts on such a directory, and nothing of it was ever cleaned up.
#[test]
fn our_directory_itself_may_be_a_link() {
    let project = project();
    let (place, real) = (project.dir().join(".symphony"), project.beside("elsewhere"));
    fs::rename(&place, &real).expect("moved");
    std::os::unix::fs::symlink(&real, &place).expect("linked");
    let (code, report) = gc(&project, &[]);
    assert_eq!((code, reason(&report, "disks/A-1")), (0, words("removed", "issue-finished")), "{report:#}");
    assert!(!real.join("disks/A-1").exists() && real.join("patches").exists());
}

/// Regression: the finished one counted, although nobody knows what the other is to be.
#[test]
fn a_name_that_a_file_has_too_that_cannot_be_read_is_certainly_nobodys() {
    let project = project();
    project.write("issues/Todo/A-1.md", "---\ntitle: [\n---\nHalf of it.\n");
    let (_, report) = gc(&project, &[]);
    assert_eq!(reason(&report, "disks/A-1"), words("kept", "issue-unknown"), "{report:#}");
    fs::remove_file(project.dir().join("issues/Todo/A-1.md")).expect("removed");
    assert_eq!(reason(&gc(&project, &[]).1, "disks/A-1").0, "removed", "the control");
}

/// A project whose issue was parked and then given up by a person, so that its workspace still stands.
fn with_workspace(hook: &str) -> Project {
    let hook = format!("hooks:\n  before_remove: {hook}\nbudget:\n  failures_in_a_row: 1\n");
    let project = Project::with(&format!("{FRONT}{hook}"));
    project.issue("Todo", "A-1", "```sh\nexit 1\n```");
    assert_eq!(project.once(), 3);
    fs::create_dir_all(project.dir().join("issues/Done")).expect("a state");
    fs::rename(project.dir().join("issues/Parked/A-1.md"), project.dir().join("issues/Done/A-1.md")).expect("moved");
    old_with_parts(&project.dir().join(".symphony/workspaces/A-1"));
    project
}

#[test]
fn the_workspace_of_a_finished_issue_goes_after_its_hook_whose_failure_is_said() {
    let project = with_workspace("pwd > ../../seen; exit 7");
    let output = project.run(&["gc", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("standard output is the report alone");
    assert_eq!(reason(&report, "workspaces/A-1"), words("removed", "issue-finished"));
    assert!(project.read(".symphony/seen").trim_end().ends_with("/.symphony/workspaces/A-1"));
    assert!(!project.exists(".symphony/workspaces/A-1") && !project.exists(".symphony/workspaces/.symphony/A-1.json"));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("hook failed") && log.contains("ended with code 7"), "{log}");
}

/// Where workspaces are while they are removed: whose they are is in the path.
fn removing(project: &Project) -> String {
    let mark: Value = serde_json::from_str(&project.read(".symphony/workspaces/.symphony/A-1.json")).expect("JSON");
    format!("workspaces/.symphony/removing/{}", mark["instance"].as_str().expect("a name"))
}

#[test]
fn what_was_cut_off_while_a_workspace_was_made_or_removed_goes_and_what_others_left_stays() {
    let project = with_workspace("exit 0");
    let ours = removing(&project);
    aged(&project, &format!("{ours}/B-1"), "half");
    aged(&project, "workspaces/.symphony/removing/another/B-2", "half");
    aged(&project, "workspaces/.symphony/making/A-1", "half");
    aged(&project, "workspaces/.symphony/making/B-3", "half");
    let (code, report) = gc(&project, &[]);
    assert_eq!((code, reason(&report, &format!("{ours}/B-1"))), (0, words("removed", "unfinished")));
    assert_eq!(reason(&report, "making/A-1"), words("removed", "unfinished"));
    assert_eq!(reason(&report, "making/B-3"), words("kept", "not-ours"));
    assert!(!project.exists(&format!(".symphony/{ours}/B-1")) && !project.exists(".symphony/workspaces/A-1"));
    assert!(project.exists(".symphony/workspaces/.symphony/removing/another/B-2/half"));
    assert!(project.exists(".symphony/workspaces/.symphony/making/B-3/half"));
}

#[test]
fn a_running_symphony_removes_by_itself_what_no_run_needs_and_nothing_of_an_issue() {
    let project = with_workspace("touch ../../seen");
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("---\n", &format!("---\n{WITH_BACKUPS}"), 1));
    git(&project.dir(), &["commit", "-qam", "Keep less"]);
    // Worked on, so that the board leaves its things alone.
    fs::rename(project.dir().join("issues/Done/A-1.md"), project.dir().join("issues/Parked/A-1.md")).expect("moved");
    let half = format!("{}/B-1", removing(&project));
    what_no_run_needs(&project);
    aged(&project, &half, "half");
    for place in ["disks/+gone-B-1", "disks/B-1", "airlock/B-1.git"] {
        aged(&project, place, "x");
    }
    // Regression, found by a soak of 30 minutes: what kills left of disks stayed until somebody called `symphony gc`.
    let rest = "disks/+gone-B-1";
    aged(&project, "disks/+gone-B-2", "work");
    aged(&project, "unexported", "B-2");
    let running = project.start();
    crate::rig::until("the pass after the start", || running.log().contains("cleaned up what nobody needs"));
    let log = running.log();
    for end in GOING.into_iter().chain([half.as_str(), rest]) {
        assert!(log.lines().any(|line| line.contains("msg=removed") && line.contains(end)), "{end}: {log}");
    }
    assert!(
        log.contains("things=7")
            && !project.exists(".symphony/runs/1")
            && !project.exists(".symphony/disks/+gone-B-1")
            && !project.exists(&format!(".symphony/{half}"))
    );
    for place in ["disks/+gone-B-2", "disks/B-1", "airlock/B-1.git", "workspaces/A-1"] {
        assert!(project.exists(&format!(".symphony/{place}")), "{place}");
    }
    assert!(!project.exists(".symphony/seen"), "no hook ran");
    assert_eq!(running.stop(), 0);
}

#[test]
fn while_a_symphony_runs_nothing_is_removed() {
    let project = project();
    project.issue("Backlog", "B-1", "Later.");
    let running = project.start();
    crate::rig::until("the pass after the start", || running.log().contains("cleaned up what nobody needs"));
    aged(&project, "disks/+gone-B-3", "x");
    let rest = project.dir().join(".symphony/disks/+gone-B-3");
    assert_eq!(gc(&project, &[]).0, 1);
    assert!(rest.exists());
    assert_eq!(running.stop(), 0);
    assert_eq!(gc(&project, &[]).0, 0);
    assert!(!rest.exists(), "the control");
}

/// Regression: "nothing shows that this symphony made it" was said of a workspace with our mark on it.
#[test]
fn a_workspace_whose_issue_was_deleted_is_ours_and_stays_for_a_person_to_look_at() {
    let project = Project::with(&format!("{FRONT}budget: {{failures_in_a_row: 1}}\n"));
    project.issue("Todo", "DEL", "```sh\necho x > x; exit 3\n```");
    assert_eq!(project.once(), 3);
    fs::remove_file(project.dir().join("issues/Parked/DEL.md")).expect("deleted");
    let (_, report) = gc(&project, &["--dry-run"]);
    assert_eq!(reason(&report, "workspaces/DEL"), words("kept", "issue-unknown"), "{report:#}");
    let text = |args: &[&str]| {
        let output = project.run(&[&["gc", "--dry-run"], args].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let short = text(&[]);
    assert!(short.contains("workspaces/DEL: its issue is gone"), "{short}");
    assert!(short.contains("kept, as it should be: ") && short.contains("1 journal ("), "{short}");
    assert!(!short.contains("  journal.db: "), "what nobody need look at is summed up: {short}");
    let long = text(&["--verbose"]);
    assert!(long.contains("  journal.db: it is never removed") && !long.contains("kept, as it should be"), "{long}");
}
