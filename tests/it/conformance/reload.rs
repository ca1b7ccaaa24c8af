//! Settings and hooks of a workflow while the program runs (specification C34–C57, C69–C77, C142–C148).

use serde_json::json;

use crate::rig::{FRONT, Project, Running, until};

const QUICK: &str = "```sh\ntrue\n```";

/// Saves the workflow as many editors do: a new file renamed over the old one.
fn save(project: &Project, text: &str) {
    project.write(".WORKFLOW.md.new", text);
    std::fs::rename(project.dir().join(".WORKFLOW.md.new"), project.dir().join("WORKFLOW.md")).expect("renamed");
}

fn reloads(running: &Running) -> usize {
    running.log().matches("workflow reloaded").count()
}

#[test]
fn a_saved_workflow_governs_the_next_run_without_a_restart() {
    let hook = |word: &str| format!("{FRONT}hooks:\n  before_run: echo {word} >> ../../../hooked.txt\n");
    let project = Project::with(&hook("one"));
    let running = project.start();
    project.issue("Todo", "A-1", QUICK);
    project.wait_for("issues/Done/A-1.md");
    let text = project.read("WORKFLOW.md");
    save(&project, &text.replace("echo one", "echo two").replace("[Todo, In Progress]", "[Ready]"));
    until("the reload", || reloads(&running) == 1);
    project.issue("Todo", "B-2", QUICK);
    project.issue("Ready", "C-3", QUICK);
    project.wait_for("issues/Done/C-3.md");
    assert_eq!(project.read("hooked.txt"), "one\ntwo\n");
    assert!(project.exists("issues/Todo/B-2.md"), "no longer an active state");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_broken_or_deleted_workflow_starts_nothing_new_and_stops_nothing() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then exit 75; fi\n```");
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    let good = project.read("WORKFLOW.md");
    save(&project, &good.replace("kind: local", "kind: [local"));
    let state = running.until_state("the problem", |s| s["workflow"]["valid"] == json!(false));
    assert!(state["workflow"]["problems"][0].as_str().is_some_and(|p| p.contains("WORKFLOW.md:4:")), "{state}");
    project.issue("Todo", "B-2", QUICK);
    let state = running.until_state("B-2 to wait", |s| s["idle"][0]["issue_identifier"] == json!("B-2"));
    assert_eq!(state["running"][0]["issue_identifier"], json!("A-1"), "running work goes on: {state}");
    std::fs::remove_file(project.dir().join("WORKFLOW.md")).expect("deleted");
    running.until_state("the missing file", |s| s["workflow"]["problems"].to_string().contains("No such file"));
    assert_eq!(running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "go"})).status, 202);
    project.wait_for("issues/Done/A-1.md");
    assert!(project.exists("issues/Todo/B-2.md"));
    save(&project, &good);
    project.wait_for("issues/Done/B-2.md");
    let complaints = running.log().matches("not valid YAML").count();
    assert!((1..=2).contains(&complaints), "said once, not at every look: {complaints}\n{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn only_issues_with_every_required_label_start() {
    let project = Project::with(&FRONT.replace("kind: local\n", "kind: local\n  required_labels: [Agent, ' ok ']\n"));
    for (name, labels) in [("A-1", "[AGENT, OK, more]"), ("B-2", "[agent]"), ("C-3", "[]")] {
        project.write(&format!("issues/Todo/{name}.md"), &format!("---\nlabels: {labels}\n---\n{QUICK}\n"));
    }
    project.once();
    assert!(project.exists("issues/Done/A-1.md"));
    assert!(project.exists("issues/Todo/B-2.md") && project.exists("issues/Todo/C-3.md"));
}

#[test]
fn slots_of_a_state_are_counted_without_case() {
    let front = FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents_by_state: {TODO: 1, In Progress: 0}\n");
    let project = Project::with(&front);
    for name in ["A-1", "B-2", "C-3"] {
        let body = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then exit 75; fi\n```";
        project.issue("Todo", name, body);
    }
    let running = project.start();
    running.until_state("a question", |s| s["running"][0]["steering_requested"] == json!(true));
    let state = running.until_state("the others to wait", |s| s["idle"].as_array().is_some_and(|idle| idle.len() == 2));
    assert_eq!(state["running"].as_array().map(Vec::len), Some(1), "{state}");
    assert!(state["idle"][0]["reason"].as_str().is_some_and(|r| !r.is_empty()), "{state}");
}

#[test]
fn hooks_run_once_each_in_the_workspace_and_in_order() {
    let line = |name: &str| {
        format!(
            "  {name}: echo {name} $SYMPHONY_ISSUE_ID ${{SYMPHONY_OUTCOME:--}} ${{PWD##*/}} >> ../../../order.txt\n"
        )
    };
    let hooks: String = ["before_run", "after_run", "before_remove"].map(line).concat();
    let project = Project::with(&format!(
        "{FRONT}hooks:\n{hooks}  after_create: git clone -q ../../.. . && echo after_create >> ../../../order.txt\n"
    ));
    project.issue("Todo", "A-1", "```sh\nif [ ! -e ~/once ]; then touch ~/once; exit 3; fi; echo x > x\n```");
    assert_eq!(project.once(), 0);
    let order = project.read("order.txt");
    let names: Vec<&str> = order.lines().filter_map(|l| l.split_whitespace().next()).collect();
    let expected = ["after_create", "before_run", "after_run", "before_run", "after_run", "before_remove"];
    assert_eq!(names, expected, "{order}");
    assert!(order.lines().skip(1).all(|l| l.contains(" A-1 ") && l.ends_with(" A-1")), "{order}");
}

#[test]
fn a_failing_before_run_fails_the_run_and_after_run_still_runs() {
    let hooks = "hooks:\n  before_run: echo the reason >&2; exit 4\n  after_run: touch ../../../after.txt; exit 9\n";
    let project = Project::with(&format!("{FRONT}{hooks}budget: {{failures_in_a_row: 1}}\n"));
    project.issue("Todo", "A-1", QUICK);
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3));
    assert!(
        said.contains("msg=\"hook started\" hook=before_run") && said.contains("msg=\"hook failed\" hook=before_run")
    );
    let parked = project.parked_note("A-1");
    assert!(parked.contains("before_run") && parked.contains("the reason"), "{parked}");
    assert!(project.exists("after.txt"));
}

#[test]
fn a_hook_that_hangs_is_killed_with_everything_it_started() {
    let hooks = "hooks:\n  timeout_ms: 500\n  after_run: sleep 3171 & sleep 3171\n";
    let project = Project::with(&format!("{FRONT}{hooks}"));
    project.issue("Todo", "A-1", QUICK);
    let output = project.run(&["--once"]);
    assert_eq!(output.status.code(), Some(0), "after_run is ignored");
    assert!(String::from_utf8_lossy(&output.stderr).contains("msg=\"hook failed\" hook=after_run"), "and logged");
    assert!(crate::rig::processes_with("sleep 3171").is_empty());
}
