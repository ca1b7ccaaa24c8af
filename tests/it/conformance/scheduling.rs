//! Who runs when, seen from outside (specification C79–C107): order, slots, one list for each issue.

mod retries;
mod stops;

use serde_json::{Value, json};

use crate::lifecycle::{row, starts};
use crate::rig::{FRONT, Project, Running};

const QUICK: &str = "```sh\ntrue\n```";
/// Runs until somebody answers.
const ASKS: &str = "```sh\n[ -n \"${SYMPHONY_ANSWER:-}\" ] || { echo 'Go on?'; exit 75; }\n```";

fn rename(project: &Project, from: &str, to: &str) {
    let to = project.dir().join(to);
    std::fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
    std::fs::rename(project.dir().join(from), to).expect("renamed");
}

fn until_asked(running: &Running, key: &str) -> Value {
    running.until_state(&format!("the question of {key}"), |state| {
        row(state, "running", key).is_some_and(|row| row["steering_requested"] == json!(true))
    })
}

fn answer(running: &Running, key: &str) {
    let path = format!("/api/v1/issues/{key}/steering-reply");
    assert_eq!(running.post(&path, &json!({"text": "yes"})).status, 202);
}

/// The lists of the state in which an issue stands.
fn lists(state: &Value, key: &str) -> Vec<&'static str> {
    ["running", "retrying", "idle"].into_iter().filter(|list| row(state, list, key).is_some()).collect()
}

/// The issues whose runs started, by the log, in order.
fn order(log: &str) -> Vec<String> {
    let starts = log.lines().filter(|line| line.contains("run starts"));
    let name = |line: &str| line.split("issue_identifier=").nth(1)?.split(' ').next().map(str::to_owned);
    starts.filter_map(name).collect()
}

#[test]
fn with_one_slot_issues_run_by_priority_then_age_then_name_and_the_first_at_once() {
    let front = FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents: 1\n");
    let project = Project::with(&front.replace("interval_ms: 300\n", "interval_ms: 3600000\n  watch: false\n"));
    let young = "created_at: 2024-01-03T00:00:00Z\n";
    for (name, front) in [
        ("A-2", "created_at: 2024-01-05T00:00:00Z\n"),
        ("A-10", "created_at: 2024-01-05T00:00:00Z\n"),
        ("five", &format!("priority: 5\n{young}")),
        ("null", "created_at: 2024-01-02T00:00:00Z\n"),
        ("zero", "priority: 0\ncreated_at: 2024-01-01T00:00:00Z\n"),
        ("undated", "created_at: unknown\n"),
        ("four", &format!("priority: 4\n{young}")),
        ("one", "priority: 1\n"),
    ] {
        project.write(&format!("issues/Todo/{name}.md"), &format!("---\n{front}---\n{QUICK}\n"));
    }
    let output = project.run(&["--once"]);
    assert_eq!(output.status.code(), Some(0));
    let expected = ["one", "four", "zero", "null", "five", "A-10", "A-2", "undated"];
    assert_eq!(order(&String::from_utf8_lossy(&output.stderr)), expected);
}

#[test]
fn a_full_state_is_passed_by_and_its_slots_count_where_issues_stand_now() {
    let front = FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents_by_state: {Todo: 1}\n");
    let project = Project::with(&front);
    for (state, name, priority) in [("Todo", "A-1", 1), ("Todo", "B-2", 2), ("In Progress", "C-3", 3)] {
        project.write(&format!("issues/{state}/{name}.md"), &format!("---\npriority: {priority}\n---\n{ASKS}\n"));
    }
    let running = project.start();
    until_asked(&running, "A-1");
    let state = until_asked(&running, "C-3");
    let waits = row(&state, "idle", "B-2").expect("it waits");
    assert_eq!(
        (&waits["reason"], &waits["reason_code"]),
        (&json!("all 1 slots of Todo are taken"), &json!("no-state-slot"))
    );
    rename(&project, "issues/Todo/A-1.md", "issues/In Progress/A-1.md");
    let state = until_asked(&running, "B-2");
    assert!(row(&state, "running", "A-1").is_some_and(|row| row["state"] == json!("In Progress")), "{state}");
    assert_eq!((starts(&running, "A-1"), starts(&running, "B-2")), (1, 1));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_hundred_refreshes_start_nothing_twice() {
    let project = Project::with(&FRONT.replace("backoff_ms: 300\n", "backoff_ms: 60000\n"));
    project.issue("Todo", "A-1", ASKS);
    project.issue("Todo", "B-2", "```sh\nexit 7\n```");
    let running = project.start();
    until_asked(&running, "A-1");
    running.until_state("the retry", |state| row(state, "retrying", "B-2").is_some());
    for _ in 0..100 {
        assert_eq!(running.post("/api/v1/refresh", &json!({})).status, 202);
    }
    // A file that comes later is seen later.
    project.issue("Todo", "C-3", QUICK);
    project.wait_for("issues/Done/C-3.md");
    let state = running.state();
    assert_eq!((lists(&state, "A-1"), lists(&state, "B-2")), (vec!["running"], vec!["retrying"]));
    assert_eq!((starts(&running, "A-1"), starts(&running, "B-2")), (1, 1));
    assert_eq!(running.stop(), 0);
}

#[test]
fn every_issue_stands_in_exactly_one_list_at_every_moment() {
    let project = Project::with(&format!("{FRONT}budget: {{failures_in_a_row: 3}}\n"));
    project.issue("Todo", "ask", ASKS);
    project.issue("Todo", "fail", "```sh\nexit 7\n```");
    project.issue("Todo", "done", QUICK);
    project.issue("Backlog", "rest", QUICK);
    project.write("issues/Todo/wait.md", &format!("---\nblocked_by: [ask]\n---\n{QUICK}\n"));
    let running = project.start();
    let mut answered = false;
    running.until_state("the first look", |state| !lists(state, "rest").is_empty());
    running.until_state("all to be at rest", |state| {
        for key in ["ask", "fail", "done", "rest", "wait"] {
            assert_eq!(lists(state, key).len(), 1, "{key}: {state}");
        }
        if !answered && row(state, "running", "ask").is_some_and(|row| row["steering_requested"] == json!(true)) {
            answer(&running, "ask");
            answered = true;
        }
        let at = |key: &str, place: &str| row(state, "idle", key).is_some_and(|row| row["state"] == json!(place));
        at("ask", "Done") && at("done", "Done") && at("wait", "Done") && at("fail", "Parked")
    });
    assert_eq!(starts(&running, "fail"), 3);
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_edit_of_a_running_issue_is_shown_and_a_new_blocker_does_not_stop_it() {
    let project = Project::new();
    project.issue("Todo", "A-1", ASKS);
    project.issue("Backlog", "B-2", QUICK);
    let running = project.start();
    until_asked(&running, "A-1");
    project.write("issues/Todo/A-1.md", &format!("---\ntitle: Another\npriority: 1\nblocked_by: [B-2]\n---\n{ASKS}\n"));
    running.until_state("the edit", |state| {
        row(state, "running", "A-1").is_some_and(|row| row["title"] == json!("Another"))
    });
    answer(&running, "A-1");
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(starts(&running, "A-1"), 1);
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_issue_on_hold_does_not_start_and_a_running_one_that_is_held_stops() {
    let project = Project::new();
    project.write("issues/Todo/A-1.md", &format!("---\nhold: true\n---\n{ASKS}\n"));
    let running = project.start();
    let held = |state: &Value| row(state, "idle", "A-1").is_some_and(|row| row["reason_code"] == json!("on-hold"));
    running.until_state("the hold", held);
    assert_eq!(starts(&running, "A-1"), 0);
    project.issue("Todo", "A-1", ASKS);
    until_asked(&running, "A-1");
    project.write("issues/Todo/A-1.md", &format!("---\nhold: true\n---\n{ASKS}\n"));
    running.until_state("the hold", held);
    assert!(project.exists(".symphony/workspaces/A-1") && starts(&running, "A-1") == 1);
    assert_eq!(running.stop(), 0);
}

#[test]
fn each_word_of_an_agent_moves_the_time_of_its_last_event_on() {
    let scenario = "turn() { say hello; call request_human_steering '{\"question\":\"Go on?\"}'; }";
    let project = Project::acting(scenario, "");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    let at =
        |state: &Value| row(state, "running", "A-1").expect("it runs")["last_event_at"].as_str().map(str::to_owned);
    let first = at(&until_asked(&running, "A-1")).expect("an instant");
    answer(&running, "A-1");
    running.until_state("a later event", |state| {
        row(state, "running", "A-1").is_some_and(|row| row["turn_count"] == json!(2))
            && at(state).is_some_and(|second| second > first)
    });
    let state = running.state();
    assert_eq!(state["rate_limits"], Value::Null, "no agent tells them yet");
    assert_eq!(running.stop(), 0);
}
