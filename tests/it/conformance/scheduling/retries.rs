//! What happens between two runs of an issue (specification C83, C106, C108–C122; traps T2–T5).

use serde_json::{Value, json};

use super::{ASKS, QUICK, answer, lists, order, rename, until_asked};
use crate::lifecycle::{mark, row, sleeper, sleepers, starts, until_gone};
use crate::rig::{FRONT, Project, Running, until};

const FAILS: &str = "```sh\nexit 7\n```";
/// Fails in its first run only.
const FAILS_ONCE: &str = "```sh\n[ -e ~/once ] || { touch ~/once; exit 7; }\n```";
/// An agent that never says that it is done.
const ENDS_ITS_TURN: &str = "turn() { :; }";

/// Milliseconds from the state's own time until a retry is due.
fn due_in(state: &Value, key: &str) -> i64 {
    let instant = |value: &Value| value.as_str().expect("text").parse::<jiff::Timestamp>().expect("an instant");
    let row = row(state, "retrying", key).expect("a retry");
    instant(&row["due_at"]).as_millisecond() - instant(&state["generated_at"]).as_millisecond()
}

fn until_retrying(running: &Running, key: &str) -> Value {
    running.until_state(&format!("the retry of {key}"), |state| row(state, "retrying", key).is_some())
}

fn set(project: &Project, from: &str, to: &str) {
    let text = project.read("WORKFLOW.md");
    assert!(text.contains(from), "{text}");
    project.write("WORKFLOW.md", &text.replace(from, to));
}

#[test]
fn a_run_that_used_its_turns_is_followed_by_another_after_a_second() {
    let project = Project::acting(ENDS_ITS_TURN, "");
    set(&project, "agent:\n", "agent:\n  max_turns: 1\n");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    let state = until_retrying(&running, "A-1");
    let waits = row(&state, "retrying", "A-1").expect("a retry");
    assert_eq!((&waits["attempt"], &waits["error"]), (&json!(1), &Value::Null), "{state}");
    assert_eq!(waits["retry_kind"], json!("continuation"));
    assert!((0..=1000).contains(&due_in(&state, "A-1")), "{state}");
    until("the next run", || starts(&running, "A-1") == 2);
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_agent_that_only_ends_its_turns_is_parked_when_its_runs_or_its_turns_are_used_up() {
    for (budget, runs, prompts, note) in [
        ("sessions: 2", 2, 4, "2 runs ended without the issue being finished (budget.sessions)"),
        ("turns: 3", 2, 3, "3 turns did not finish the issue (budget.turns)"),
        ("no_progress: 1", 1, 2, "1 runs in a row changed no file and no state (budget.no_progress)"),
    ] {
        let project = Project::acting(ENDS_ITS_TURN, &format!("budget: {{{budget}}}\n"));
        set(&project, "agent:\n", "agent:\n  max_turns: 2\n");
        project.issue("Todo", "A-1", "Do it.");
        let output = project.run(&["--once"]);
        assert_eq!(output.status.code(), Some(3), "{budget}");
        assert!(project.parked_note("A-1").contains(note), "{budget}: {}", project.parked_note("A-1"));
        assert_eq!(order(&String::from_utf8_lossy(&output.stderr)).len(), runs, "{budget}");
        let sent = |frames: &str| frames.matches("\"method\":\"session/prompt\"").count();
        assert_eq!(sent(&project.transcripts().replace("\\\"", "\"")), prompts, "{budget}");
    }
}

#[test]
fn an_issue_that_leaves_during_its_back_off_is_released_and_starts_at_once_when_it_comes_back() {
    let front = FRONT.replace("backoff_ms: 300\n", "backoff_ms: 60000\n");
    let project = Project::with(&format!("{front}hooks:\n  before_remove: touch ../../../removed-${{PWD##*/}}\n"));
    for name in ["gone", "done", "review"] {
        project.issue("Todo", name, FAILS);
    }
    let running = project.start();
    running.until_state("three retries", |state| state["counts"]["retrying"] == json!(3));
    std::fs::remove_file(project.dir().join("issues/Todo/gone.md")).expect("deleted");
    rename(&project, "issues/Todo/done.md", "issues/Done/done.md");
    rename(&project, "issues/Todo/review.md", "issues/Review/review.md");
    let state = running.until_state("no retries", |state| state["counts"]["retrying"] == json!(0));
    assert_eq!(state["running"], json!([]));
    until("the workspace of the finished one to go", || !project.exists(".symphony/workspaces/done"));
    assert!(project.exists("removed-done"), "before_remove ran");
    for kept in ["gone", "review"] {
        assert!(project.exists(&format!(".symphony/workspaces/{kept}")) && !project.exists(&format!("removed-{kept}")));
    }
    running.until_state("the removal to end", |state| {
        row(state, "idle", "done").is_some_and(|row| row["reason_code"] == json!("terminal"))
    });
    // No claim leaked: each starts at once, although its back-off would last a minute.
    for name in ["done", "review"] {
        assert_eq!(starts(&running, name), 1);
    }
    std::fs::remove_file(project.dir().join("issues/Done/done.md")).expect("deleted");
    std::fs::remove_file(project.dir().join("issues/Review/review.md")).expect("deleted");
    for name in ["gone", "done", "review"] {
        project.issue("Todo", name, QUICK);
        project.wait_for(&format!("issues/Done/{name}.md"));
        assert_eq!(starts(&running, name), 2);
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_due_retry_without_a_slot_says_so_keeps_its_number_and_gets_the_slot_that_frees() {
    let front = FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents: 1\n");
    let project = Project::with(&front.replace("backoff_ms: 300\n", "backoff_ms: 1000\n"));
    project.write("issues/Todo/retry.md", &format!("---\npriority: 1\n---\n{FAILS_ONCE}\n"));
    // It takes the slot as soon as the first run has failed.
    project.write("issues/Todo/holder.md", &format!("---\npriority: 2\n---\n{ASKS}\n"));
    let running = project.start();
    until_asked(&running, "holder");
    project.write("issues/Todo/fresh.md", &format!("---\npriority: 1\n---\n{QUICK}\n"));
    let waiting = |state: &Value| {
        row(state, "retrying", "retry")
            .filter(|_| row(state, "idle", "fresh").is_some())
            .is_some_and(|row| row["error"] == json!("no available orchestrator slots") && row["attempt"] == json!(1))
    };
    running.until_state("it to wait for the slot", waiting);
    for _ in 0..10 {
        running.post("/api/v1/refresh", &json!({}));
        assert!(waiting(&running.state()), "{}", running.state());
    }
    answer(&running, "holder");
    for name in ["holder", "retry", "fresh"] {
        project.wait_for(&format!("issues/Done/{name}.md"));
    }
    assert_eq!(order(&running.log()), ["retry", "holder", "retry", "fresh"]);
    let again = running.log().lines().filter(|line| line.contains("run starts")).nth(2).expect("a start").to_owned();
    assert!(again.contains("attempt=1"), "{again}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn while_the_issues_cannot_be_read_a_due_retry_waits_and_a_running_agent_lives() {
    let project = Project::with(&FRONT.replace("backoff_ms: 300\n", "backoff_ms: 2500\n"));
    let mark = mark();
    project.issue("Todo", "A-1", &format!("```sh\n[ -e ~/slept ] || {{ touch ~/slept; sleep {mark}; }}\n```"));
    let running = project.start();
    let asleep = sleeper(&mark);
    project.issue("Todo", "B-2", FAILS_ONCE);
    until_retrying(&running, "B-2");
    rename(&project, "issues", "away");
    project.write("issues", "no directory\n");
    let state = running.until_state("the failed look", |state| {
        row(state, "retrying", "B-2")
            .is_some_and(|row| row["error"].as_str().is_some_and(|error| error.starts_with("retry refresh failed: ")))
    });
    assert!(state["tracker"]["problem"].as_str().is_some_and(|problem| problem.contains("issues")), "{state}");
    assert_eq!(lists(&state, "A-1"), ["running"]);
    assert_eq!((sleepers(&mark), starts(&running, "B-2")), (vec![asleep], 1));
    std::fs::remove_file(project.dir().join("issues")).expect("removed");
    rename(&project, "away", "issues");
    project.wait_for("issues/Done/B-2.md");
    assert_eq!((sleepers(&mark), starts(&running, "A-1"), starts(&running, "B-2")), (vec![asleep], 1, 2));
    assert_eq!(running.state()["tracker"]["problem"], Value::Null);
    // Reconciling goes on too.
    rename(&project, "issues/Todo/A-1.md", "issues/Backlog/A-1.md");
    until_gone(&mark);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_stalled_agent_is_ended_and_stays_in_the_retry_list_until_it_is_due() {
    let mark = mark();
    let project = Project::acting(&format!("turn() {{ sleep {mark}; }}"), "");
    set(&project, "backoff_ms: 300\n", "backoff_ms: 60000\n");
    set(&project, "acp:\n", "acp:\n  stall_timeout_ms: 500\n");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    let state = until_retrying(&running, "A-1");
    let error = row(&state, "retrying", "A-1").expect("a retry")["error"].as_str().unwrap_or_default().to_owned();
    assert!(error.starts_with("stalled: "), "{error}");
    assert!((5000..=10_000).contains(&due_in(&state, "A-1")), "{state}");
    until_gone(&mark);
    for _ in 0..20 {
        running.post("/api/v1/refresh", &json!({}));
        assert_eq!(lists(&running.state(), "A-1"), ["retrying"]);
    }
    assert_eq!((sleepers(&mark).len(), starts(&running, "A-1")), (0, 1));
    assert_eq!(running.stop(), 0);
}

#[test]
fn preparing_a_workspace_is_no_stall() {
    let hook = "hooks:\n  after_create: git clone -q ../../.. . && sleep 3\n";
    let front = FRONT.replace("acp:\n", "acp:\n  stall_timeout_ms: 2000\n");
    let project = Project::with(&format!("{front}{hook}"));
    project.issue("Todo", "A-1", QUICK);
    let output = project.run(&["--once"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), order(&log).len()), (Some(0), 1), "{log}");
    assert!(!log.contains("stalled: "), "{log}");
}

#[test]
fn a_sandbox_that_does_not_come_up_is_a_retry_that_says_so_and_others_go_on() {
    let project = Project::with(&format!("{FRONT}budget: {{failures_in_a_row: 999, sessions: 999}}\n"));
    std::fs::create_dir(project.dir().join("shown")).expect("a directory");
    let shown = project.dir().join("shown");
    set(&project, "acp:\n", &format!("sandbox:\n  jail:\n    read_only: [{}]\nacp:\n", shown.display()));
    let running = project.start();
    std::fs::remove_dir(&shown).expect("removed");
    project.issue("Todo", "A-1", QUICK);
    let state = running.until_state("the failure", |state| {
        row(state, "retrying", "A-1").is_some_and(|row| row["error"].to_string().contains("sandbox_boot_failed"))
    });
    assert!(row(&state, "retrying", "A-1").expect("a retry")["attempt"].as_u64() >= Some(1), "{state}");
    std::fs::create_dir(&shown).expect("made again");
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
}
