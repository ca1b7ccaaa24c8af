//! Who is stopped and what is removed (specification C123–C133; traps T1, T6, T9).

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{ASKS, QUICK, answer, lists, rename, until_asked};
use crate::lifecycle::{mark, row, sleeper, starts, until_gone};
use crate::rig::{FRONT, Project, until};

#[test]
fn a_running_issue_that_loses_its_label_its_state_or_its_file_is_stopped_and_its_workspace_kept() {
    let project = Project::with(&FRONT.replace("kind: local\n", "kind: local\n  required_labels: [agent]\n"));
    let names = ["label", "moved", "file"];
    let marks = names.map(|_| mark());
    for (name, mark) in names.iter().zip(&marks) {
        let text = format!("---\nlabels: [agent]\n---\n```sh\nsleep {mark}\n```\n");
        project.write(&format!("issues/Todo/{name}.md"), &text);
    }
    let running = project.start();
    for mark in &marks {
        sleeper(mark);
    }
    let text = project.read("issues/Todo/label.md");
    project.write("issues/Todo/label.md", &text.replace("[agent]", "[]"));
    rename(&project, "issues/Todo/moved.md", "issues/Backlog/moved.md");
    std::fs::remove_file(project.dir().join("issues/Todo/file.md")).expect("deleted");
    for mark in &marks {
        until_gone(mark);
    }
    // Files that stood still for one look only are looked at again first.
    let code = |state: &Value, name| row(state, "idle", name).map(|row| row["reason_code"].clone());
    let state = running.until_state("no claim", |state| {
        state["running"] == json!([])
            && lists(state, "file").is_empty()
            && ["label", "moved"].iter().all(|name| code(state, name) != Some(json!("unconfirmed")))
    });
    let codes = ["label", "moved"].map(|name| code(&state, name));
    assert_eq!(codes, [Some(json!("missing-label")), Some(json!("holding"))], "{state}");
    assert_eq!(state["retrying"], json!([]));
    for name in names {
        assert!(project.exists(&format!(".symphony/workspaces/{name}")) && starts(&running, name) == 1, "{name}");
    }
    // A label gates work, not the end of it: the unlabelled one is cleaned up when it is finished.
    rename(&project, "issues/Todo/label.md", "issues/Done/label.md");
    until("the workspace to go", || !project.exists(".symphony/workspaces/label"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn before_remove_of_an_issue_that_was_finished_by_hand_sees_no_agent_any_more() {
    let mark = mark();
    let look = format!(
        "hooks:\n  before_remove: |\n    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'slee[p] {mark}' && echo alive > ../../../seen.txt || echo gone > ../../../seen.txt\n  after_run: |\n    echo yes > ../../../after_run.txt\n"
    );
    let project = Project::with(&format!("{FRONT}{look}"));
    project.issue("Todo", "A-1", &format!("```sh\nsleep {mark}\n```"));
    let running = project.start();
    sleeper(&mark);
    rename(&project, "issues/Todo/A-1.md", "issues/Done/A-1.md");
    until("the workspace to go", || !project.exists(".symphony/workspaces/A-1"));
    assert_eq!((project.read("seen.txt").as_str(), project.read("after_run.txt").as_str()), ("gone\n", "yes\n"));
    assert_eq!(starts(&running, "A-1"), 1);
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_issue_that_is_moved_between_active_states_all_the_time_is_never_stopped() {
    let project = Project::with(&FRONT.replace("interval_ms: 300", "interval_ms: 50"));
    project.issue("Todo", "A-1", ASKS);
    let running = project.start();
    let run = row(&until_asked(&running, "A-1"), "running", "A-1").expect("it runs")["run_id"].clone();
    let places = ["issues/Todo/A-1.md", "issues/In Progress/A-1.md"];
    for round in 0..400 {
        rename(&project, places[round % 2], places[(round + 1) % 2]);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    project.issue("Todo", "B-2", QUICK);
    project.wait_for("issues/Done/B-2.md");
    let state = running.state();
    assert_eq!(row(&state, "running", "A-1").expect("it runs")["run_id"], run, "{state}");
    answer(&running, "A-1");
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(starts(&running, "A-1"), 1, "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn at_the_start_workspaces_of_finished_issues_go_and_all_others_stay() {
    let project = Project::with(&format!("{FRONT}hooks:\n  before_remove: touch ../../../removed-${{PWD##*/}}\n"));
    for name in ["finished", "open"] {
        project.issue("Todo", name, ASKS);
    }
    let running = project.start();
    until_asked(&running, "finished");
    until_asked(&running, "open");
    running.signal(Signal::KILL);
    drop(running);
    rename(&project, "issues/Todo/finished.md", "issues/Done/finished.md");
    rename(&project, "issues/Todo/open.md", "issues/Backlog/open.md");
    // Not made by symphony: reported, never removed.
    project.write(".symphony/workspaces/foreign/kept.txt", "kept");
    project.issue("Done", "foreign", QUICK);
    let running = project.start();
    until("the workspace to go", || !project.exists(".symphony/workspaces/finished"));
    running.until_state("all to be at rest", |state| {
        ["finished", "foreign"]
            .iter()
            .all(|name| row(state, "idle", name).is_some_and(|row| row["reason_code"] == json!("terminal")))
    });
    assert!(project.exists("removed-finished") && !project.exists("removed-open"));
    assert!(project.exists(".symphony/workspaces/open") && project.exists(".symphony/workspaces/foreign/kept.txt"));
    assert!(running.log().contains("issue_identifier=foreign"), "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_finished_state_that_cannot_be_read_is_shown_and_nothing_starts_until_it_can() {
    let project = Project::new();
    std::os::unix::fs::symlink("/nonexistent/anywhere", project.dir().join("issues/Done")).expect("linked");
    project.issue("Todo", "A-1", QUICK);
    let running = project.start();
    let state = running.until_state("the problem", |state| state["tracker"]["problem"] != Value::Null);
    assert!(state["tracker"]["problem"].to_string().contains("Done"), "{state}");
    assert_eq!(starts(&running, "A-1"), 0);
    std::fs::remove_file(project.dir().join("issues/Done")).expect("removed");
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
}
