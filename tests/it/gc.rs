//! `symphony gc` on real files with the real binary: what goes, and everything that keeps it.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::rig::Project;

fn old(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(400 * 24 * 60 * 60);
    File::open(path).expect("there").set_modified(then).expect("aged");
}

/// A project that ran once, with an old work disk of a finished issue and an old rest of a removal.
fn project() -> Project {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\necho x > x\n```");
    assert_eq!(project.once(), 0);
    for name in ["A-1", ".discard-B-1"] {
        let disk = project.dir().join(".symphony/disks").join(name);
        fs::create_dir_all(disk.join("tree/deep")).expect("a disk");
        old(&disk);
    }
    project
}

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
    assert!(project.exists(".symphony/disks/A-1/tree") && project.exists(".symphony/disks/.discard-B-1"));
    let (code, report) = gc(&project, &[]);
    assert_eq!((code, reason(&report, "disks/A-1")), (0, words("removed", "issue-finished")));
    assert_eq!(reason(&report, ".discard-B-1"), words("removed", "removal-begun"));
    assert_eq!(reason(&report, "patches"), words("kept", "always"));
    assert_eq!(reason(&report, "runs/1"), words("kept", "not-yet"));
    assert_eq!(reason(&report, "airlock/A-1.git"), words("kept", "not-handed-off"));
    assert!(!project.exists(".symphony/disks/A-1") && !project.exists(".symphony/disks/.discard-B-1"));
    assert!(project.exists(".symphony/patches/agent_A-1.patch"));
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
        old(&disks.join(name));
    }
    fs::create_dir_all(project.dir().join(".symphony/unexported")).expect("made");
    project.write(".symphony/unexported/A-1", "jail");
    project.issue("Done", "E-1", "Done.");
    project.issue("Done", "F-1", "Done.");
    std::os::unix::fs::symlink(&outside, disks.join("E-1")).expect("a link");
    fs::create_dir_all(disks.join("F-1/precious")).expect("a stranger");
    old(&disks.join("F-1"));
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
    assert_eq!(reason(&report, ".discard-B-1").0, "removed", "the control");
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
        assert!(project.exists(".symphony/disks/A-1/tree") && project.exists(".symphony/disks/.discard-B-1"));
    }
}

#[test]
fn while_a_symphony_runs_nothing_is_removed() {
    let project = project();
    project.issue("Backlog", "B-1", "Later.");
    let running = project.start();
    let rest = project.dir().join(".symphony/disks/.discard-B-1");
    assert_eq!(gc(&project, &[]).0, 1);
    assert!(rest.exists());
    assert_eq!(running.stop(), 0);
    assert_eq!(gc(&project, &[]).0, 0);
    assert!(!rest.exists(), "the control");
}
