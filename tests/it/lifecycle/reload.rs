//! The workflow changes under a running program, and files are noticed.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{row, starts};
use crate::rig::{BODY, FRONT, Project, Running, until};

/// Waits for a human, then writes down which prompt it had.
const BODY_ASKS: &str = "```sh\n[ -n \"${SYMPHONY_ANSWER:-}\" ] || { echo 'Go on?'; exit 75; }\n```";

fn workflow(version: &str, front: &str) -> String {
    let say = format!("```sh\necho {version} > version.txt\n```");
    format!(
        "---\n{front}hooks:\n  after_run: echo {version} >> ../../../hooked\n---\n{{{{ issue.description }}}}\n\n{say}\n"
    )
}

fn asking() -> (Project, Running) {
    let project = Project::new();
    project.write("WORKFLOW.md", &workflow("one", FRONT));
    project.issue("Todo", "R-1", BODY_ASKS);
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    (project, running)
}

fn version_in_patch(project: &Project, key: &str) -> String {
    project.wait_for(&format!("issues/Done/{key}.md"));
    let clone = project.apply_patch(key);
    std::fs::read_to_string(clone.join("version.txt")).expect("written").trim().to_owned()
}

#[test]
fn a_new_version_counts_for_the_next_run_and_not_for_the_one_that_is_under_way() {
    let (project, running) = asking();
    project.write("WORKFLOW.md", &workflow("two", FRONT));
    project.issue("Todo", "R-2", "Nothing to ask.");
    assert_eq!(version_in_patch(&project, "R-2"), "two");
    assert_eq!(running.post("/api/v1/issues/R-1/steering-reply", &json!({"text": "yes"})).status, 202);
    assert_eq!(version_in_patch(&project, "R-1"), "one");
    until("both hooks", || project.read("hooked").lines().count() == 2);
    assert_eq!(project.read("hooked"), "two\none\n", "the hooks of a run are its own version's");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_broken_file_stops_new_runs_only_and_says_why_until_it_is_healed() {
    let (project, running) = asking();
    assert_eq!(running.state()["workflow"]["valid"], json!(true));
    project.write("WORKFLOW.md", "---\ntracker: [\n---\nbroken\n");
    let state = running.until_state("the problem", |state| state["workflow"]["valid"] == json!(false));
    assert!(state["workflow"]["problems"].to_string().contains("YAML"), "{state}");
    project.issue("Todo", "R-2", "Nothing to ask.");
    let state = running.until_state("its row", |state| row(state, "idle", "R-2").is_some());
    assert!(row(&state, "running", "R-1").is_some(), "{state}");
    assert_eq!(running.post("/api/v1/issues/R-1/steering-reply", &json!({"text": "yes"})).status, 202);
    assert_eq!(version_in_patch(&project, "R-1"), "one");
    assert_eq!(starts(&running, "R-2"), 0, "{}", running.log());
    project.write("WORKFLOW.md", &workflow("three", FRONT));
    assert_eq!(version_in_patch(&project, "R-2"), "three");
    assert_eq!(running.state()["workflow"]["valid"], json!(true));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_burst_a_rename_over_and_a_delete_and_recreate_all_end_with_the_last_version() {
    let project = Project::new();
    project.write("WORKFLOW.md", &workflow("first", FRONT));
    let running = project.start();
    let path = project.dir().join("WORKFLOW.md");
    let mut number = 0;
    let mut finishes_as = |version: &str| {
        number += 1;
        let key = format!("V-{number}");
        project.issue("Todo", &key, "Nothing to ask.");
        assert_eq!(version_in_patch(&project, &key), version);
    };
    for n in 0..40 {
        project.write("WORKFLOW.md", &workflow(&format!("burst{n}"), FRONT));
    }
    finishes_as("burst39");
    project.write("WORKFLOW.md.new", &workflow("renamed", FRONT));
    std::fs::rename(project.dir().join("WORKFLOW.md.new"), &path).expect("renamed");
    finishes_as("renamed");
    std::fs::remove_file(&path).expect("removed");
    running.until_state("the loss to show", |state| state["workflow"]["valid"] == json!(false));
    project.write("WORKFLOW.md", &workflow("recreated", FRONT));
    running.until_state("it to be well", |state| state["workflow"]["valid"] == json!(true));
    finishes_as("recreated");
    assert_eq!(running.stop(), 0);
}

/// A running program with these `polling` lines, after everything it does by itself.
fn polling(lines: &str) -> (Project, Running) {
    let project = Project::with(&FRONT.replace("polling:\n  interval_ms: 300\n", &format!("polling:\n{lines}")));
    project.issue("Todo", "P-0", "```sh\ntrue\n```");
    let running = project.start();
    project.wait_for("issues/Done/P-0.md");
    if lines.contains("60000") {
        rests(&project, &running, "P-0");
    }
    (project, running)
}

/// A run's end is followed by looks; at rest nothing is published any more.
fn rests(project: &Project, running: &Running, key: &str) {
    until("the workspace to go", || !project.exists(&format!(".symphony/workspaces/{key}")));
    let (mut version, mut since) = (json!(null), Instant::now());
    running.until_state("rest", |state| {
        if state["version"] != version {
            (version, since) = (state["version"].clone(), Instant::now());
        }
        state["running"] == json!([]) && since.elapsed() > Duration::from_millis(500)
    });
}

#[test]
fn a_dropped_file_is_noticed_long_before_the_next_poll() {
    let (project, running) = polling("  interval_ms: 60000\n");
    let dropped = Instant::now();
    project.issue("Todo", "P-1", "```sh\ntrue\n```");
    running.until_state("it to start", |_| starts(&running, "P-1") == 1);
    assert!(dropped.elapsed() < Duration::from_secs(20), "{:?}", dropped.elapsed());
    // So is the first file of a state whose directory did not exist.
    rests(&project, &running, "P-1");
    project.issue("In Progress", "P-2", "```sh\ntrue\n```");
    running.until_state("it to start", |_| starts(&running, "P-2") == 1);
    assert!(dropped.elapsed() < Duration::from_secs(50), "{:?}", dropped.elapsed());
    assert_eq!(running.stop(), 0);
}

#[test]
fn without_watching_a_file_waits_for_the_poll_or_for_a_person_who_asks() {
    let (project, running) = polling("  interval_ms: 60000\n  watch: false\n");
    project.issue("Todo", "P-1", "```sh\ntrue\n```");
    // The control of the test above: many times what the watch needs, and nothing has happened.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(starts(&running, "P-1"), 0);
    assert_eq!(running.post("/api/v1/refresh", &json!({})).status, 202);
    project.wait_for("issues/Done/P-1.md");
    assert_eq!(running.stop(), 0);
}

#[test]
fn without_watching_polling_alone_finds_files_and_new_versions() {
    let (project, running) = polling("  interval_ms: 300\n  watch: false\n");
    project.issue("Todo", "P-1", "```sh\ntrue\n```");
    project.wait_for("issues/Done/P-1.md");
    let front = FRONT.replace("polling:\n", "polling:\n  watch: false\n");
    project.write("WORKFLOW.md", &format!("---\n{front}---\n{BODY}\n```sh\necho new > new.txt\n```\n"));
    project.issue("Todo", "P-2", "```sh\ntrue\n```");
    project.wait_for("issues/Done/P-2.md");
    assert!(project.apply_patch("P-2").join("new.txt").exists());
    assert_eq!(running.stop(), 0);
}

/// Regression: two workflows whose tracker root was the same directory both ran its issues.
#[test]
fn of_two_workflows_with_one_tracker_root_one_runs_it_and_the_other_says_who() {
    let (first, second) = (Project::new(), Project::new());
    let running = first.start();
    let holder = format!("process {}, with the workflow in {}", running.pid(), first.dir().display());
    let own = second.read("WORKFLOW.md");
    let link = second.beside("link");
    std::os::unix::fs::symlink(first.dir().join("issues"), &link).expect("linked");
    let shared = own.replace("tracker:\n", &format!("tracker:\n  root: {}\n", link.display()));
    second.write("WORKFLOW.md", &shared);
    let refused = second.run(&["WORKFLOW.md", "--once"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains(&holder), "{said}");

    // A reload that asks for it keeps the root that is in force, and starts nothing.
    second.write("WORKFLOW.md", &own);
    let other = second.start();
    second.write("WORKFLOW.md", &shared);
    other.until_state("the trouble to be said", |state| state.to_string().contains(&holder));
    first.issue("Todo", "shared", "```sh\necho $$ >> n.txt; git add n.txt; git commit -qm Done\n```");
    second.issue("Todo", "own", "```sh\ntrue\n```");
    first.wait_for("issues/Done/shared.md");
    assert!(second.exists("issues/Todo/own.md") && !second.exists(".symphony/patches/agent_shared.patch"));
    // Once the other one has ended, the root is taken.
    assert_eq!(running.stop(), 0);
    other.until_state("the root to be taken", |state| !state.to_string().contains("another symphony"));
    first.issue("Todo", "later", "```sh\necho 1 >> n.txt; git add n.txt; git commit -qm Done\n```");
    first.wait_for("issues/Done/later.md");
    assert!(second.exists(".symphony/patches/agent_later.patch"));
}
