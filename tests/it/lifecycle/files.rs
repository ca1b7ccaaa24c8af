//! A person works with the files of issues while agents work on them.

use std::time::Duration;

use serde_json::json;

use super::{mark, row, sleeper, starts, until_gone};
use crate::rig::{Project, Running, git, until};

const ASKS: &str = "```sh\n[ -n \"${SYMPHONY_ANSWER:-}\" ] || { echo 'Go on?'; exit 75; }\necho x > x.txt\n```";

fn asking() -> (Project, Running, u64) {
    let project = Project::new();
    project.issue("Todo", "E-1", ASKS);
    let running = project.start();
    let state = running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    let run = state["running"][0]["run_id"].as_u64().expect("a number");
    (project, running, run)
}

/// A file that cannot be read as an issue, and the state that shows that it was looked at.
fn after_a_look(project: &Project, running: &Running, name: &str) -> serde_json::Value {
    project.write(&format!("issues/Backlog/{name}.md"), "---\ntitle: [\n---\n");
    running.until_state("a look", |state| state["tracker"]["malformed"].to_string().contains(name))
}

fn finishes_in_its_first_run(project: &Project, running: Running) {
    assert_eq!(running.post("/api/v1/issues/E-1/steering-reply", &json!({"text": "yes"})).status, 202);
    until("the issue to be done", || project.exists("issues/Done/E-1.md"));
    assert_eq!(starts(&running, "E-1"), 1, "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_editors_save_by_rename_does_not_disturb_the_run() {
    let (project, running, run) = asking();
    let at = |name: &str| project.dir().join("issues/Todo").join(name);
    for round in 0..5 {
        let text = format!("---\ntitle: Saved {round} times\n---\n{ASKS}\n");
        // A new file put over the old one, and the old one set aside as a backup.
        project.write("issues/Todo/.E-1.md.swp", &text);
        std::fs::rename(at(".E-1.md.swp"), at("E-1.md")).expect("renamed");
        std::fs::rename(at("E-1.md"), at("E-1.md~")).expect("renamed");
        project.write("issues/Todo/E-1.md", &text);
    }
    let state = after_a_look(&project, &running, "look");
    assert_eq!(row(&state, "running", "E-1").expect("it runs")["run_id"], json!(run), "{state}");
    finishes_in_its_first_run(&project, running);
}

#[test]
fn a_half_saved_file_is_shown_and_does_not_disturb_the_run() {
    let (project, running, run) = asking();
    let whole = project.read("issues/Todo/E-1.md");
    project.write("issues/Todo/E-1.md", "---\ntitle: \"half a ti");
    let state =
        running.until_state("it to be shown", |state| state["tracker"]["malformed"].to_string().contains("E-1.md"));
    assert_eq!(row(&state, "running", "E-1").expect("it runs")["run_id"], json!(run), "{state}");
    // Several looks later it is still so.
    for name in ["one", "two"] {
        let state = after_a_look(&project, &running, name);
        assert_eq!(row(&state, "running", "E-1").expect("it runs")["run_id"], json!(run), "{state}");
    }
    project.write("issues/Todo/E-1.md", &whole);
    running.until_state("it to be well", |state| !state["tracker"]["malformed"].to_string().contains("E-1.md"));
    finishes_in_its_first_run(&project, running);
}

#[test]
fn moving_a_running_issue_away_stops_its_run_and_keeps_its_commits() {
    let project = Project::new();
    let targets = [("C-1", "Cancelled"), ("B-1", "Backlog")];
    let marks = targets.map(|_| mark());
    for ((key, target), mark) in targets.iter().zip(&marks) {
        std::fs::create_dir_all(project.dir().join("issues").join(target)).expect("a state");
        let body = format!("```sh\necho made > made.txt; git add -A; git commit -qm Made\nsleep {mark}\n```");
        project.issue("Todo", key, &body);
    }
    let running = project.start();
    for ((key, target), mark) in targets.iter().zip(&marks) {
        sleeper(mark);
        let file = |state: &str| project.dir().join(format!("issues/{state}/{key}.md"));
        std::fs::rename(file("Todo"), file(target)).expect("moved");
        until_gone(mark);
        running.until_state("the claim to end", |state| {
            row(state, "running", key).is_none() && row(state, "retrying", key).is_none()
        });
        let workspace = format!(".symphony/workspaces/{key}");
        match *target {
            "Cancelled" => until("the workspace to be removed", || !project.exists(&workspace)),
            _ => assert!(project.exists(&workspace)),
        }
        let airlock = project.dir().join(format!(".symphony/airlock/{key}.git"));
        assert_eq!(git(&airlock, &["--git-dir=.", "log", "-1", "--format=%s", "refs/symphony/head"]), "Made");
        assert!(file(target).exists() && starts(&running, key) == 1);
        assert!(!project.exists(&format!(".symphony/patches/agent_{key}.patch")), "nobody said done");
    }
    assert_eq!(running.stop(), 0);
}

/// Regression: two seconds after they were saved, the first ran as plain text without its blocker and its profile, and
/// the second as an agent without a task.
#[test]
fn a_file_that_never_ends_its_front_matter_or_is_empty_never_runs_and_says_what_to_do() {
    let project = Project::new();
    project
        .write("issues/Todo/OPEN.md", "---\ntitle: unclosed\nblocked_by: [BLK]\nprofile: nosuch\n\n```sh\ntrue\n```\n");
    project.write("issues/Todo/NIL.md", "\n");
    for name in ["OPEN", "NIL"] {
        let old = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now() - Duration::from_secs(60));
        let path = project.dir().join(format!("issues/Todo/{name}.md"));
        std::fs::File::options().write(true).open(path).expect("file").set_times(old).expect("times");
    }
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "somebody has to mend them: {said}");
    for words in ["add a line `---` below its last key", "the file is empty; write into it"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(project.exists("issues/Todo/OPEN.md") && project.exists("issues/Todo/NIL.md"));
    assert!(!project.dir().join(".symphony/runs").read_dir().is_ok_and(|mut runs| runs.next().is_some()), "{said}");
}

/// Regression: the log said that none of them runs, while one did.
#[test]
fn a_file_that_breaks_or_is_doubled_while_its_issue_runs_is_said_not_to_stop_the_run() {
    let (project, running, _) = asking();
    let whole = project.read("issues/Todo/E-1.md");
    project.write("issues/Backlog/E-1.md", &whole);
    running.until_state("it to be shown", |state| state["tracker"]["ambiguous"].to_string().contains("E-1.md"));
    until("the log", || running.log().contains("its run goes on, and cannot be finished until one is left"));
    let page = running.client().get("/").body;
    assert!(page.contains("its run goes on, and cannot be finished until that is mended"), "{page}");
    std::fs::remove_file(project.dir().join("issues/Backlog/E-1.md")).expect("removed");
    running.until_state("one to be left", |state| !state["tracker"]["ambiguous"].to_string().contains("E-1.md"));
    project.write("issues/Todo/E-1.md", "---\ntitle: [\n---\n");
    until("the log", || running.log().contains("its run goes on, and cannot be finished until the file is mended"));
    project.write("issues/Todo/E-1.md", &whole);
    assert!(!running.log().contains("none of them runs"), "{}", running.log());
    finishes_in_its_first_run(&project, running);
}
