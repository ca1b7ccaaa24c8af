//! Questions, answers and due times outlive the run that made them, and the process.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{FRONT, Project, Running, until};

/// Asks once, then writes down the answer.
const ASKS: &str = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Which colour?'; exit 75; fi\nprintf '%s\\n' \"$SYMPHONY_ANSWER\" >> colour.txt\n```";
const REPLY: &str = "/api/v1/issues/Q-1/steering-reply";

fn asking(front: &str) -> (Project, Running) {
    let project = Project::with(&format!("{FRONT}{front}"));
    project.issue("Todo", "Q-1", ASKS);
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    (project, running)
}

fn killed(running: Running) {
    running.signal(Signal::KILL);
    drop(running);
}

fn why(state: &Value, name: &str) -> String {
    let idle = state["idle"].as_array().cloned().unwrap_or_default();
    let row = idle.into_iter().find(|row| row["issue_identifier"] == json!(name)).unwrap_or_default();
    row["reason_code"].as_str().or(row["code"].as_str()).unwrap_or_default().to_owned() + &row.to_string()
}

fn colour(project: &Project) -> String {
    project.wait_for("issues/Done/Q-1.md");
    let clone = project.apply_patch("Q-1");
    std::fs::read_to_string(clone.join("colour.txt")).expect("written")
}

/// How many prompts of all runs hold this text.
fn prompts_with(project: &Project, text: &str) -> usize {
    project.transcripts().lines().filter(|line| line.contains("session/prompt") && line.contains(text)).count()
}

#[test]
fn a_question_survives_a_kill_and_its_answer_starts_the_issue_again() {
    let (project, running) = asking("");
    killed(running);
    let running = project.start();
    let state = running.until_state("the question", |s| why(s, "Q-1").contains("awaiting-answer"));
    assert_eq!(state["running"], json!([]), "it holds no slot: {state}");
    assert_eq!(running.post(REPLY, &json!({"text": "green"})).status, 202);
    assert_eq!(colour(&project), "green\n");
    let late = running.post(REPLY, &json!({"text": "red"}));
    assert_eq!((late.status, late.error_code()), (409, "no_pending_steering".into()));
    assert_eq!(prompts_with(&project, "The answer:"), 1);
}

#[test]
fn an_answer_that_was_accepted_is_delivered_once_although_symphony_is_killed_right_after() {
    let (project, running) = asking("");
    assert_eq!(running.post(REPLY, &json!({"text": "green"})).status, 202);
    killed(running);
    let _running = project.start();
    assert_eq!(colour(&project), "green\n", "nobody was asked again");
}

#[test]
fn a_question_that_waits_too_long_gives_its_sandbox_back_and_its_work_is_kept() {
    let (project, running) = asking("steering:\n  release_after_ms: 300\n");
    running.until_state("the release", |s| s["running"] == json!([]) && why(s, "Q-1").contains("awaiting-answer"));
    assert_eq!(running.post(REPLY, &json!({"text": "green"})).status, 202);
    assert_eq!(colour(&project), "green\n");
}

#[test]
fn a_default_answers_a_question_that_nobody_answers_also_one_whose_time_ended_while_symphony_was_down() {
    let (project, running) = asking("steering:\n  answer_within_ms: 1500\n  default_answer: blue\n");
    killed(running);
    let _running = project.start();
    assert_eq!(colour(&project), "blue\n");
    assert_eq!(prompts_with(&project, "Nobody answered your question in time"), 1);
}

#[test]
fn an_issue_that_ran_when_symphony_was_killed_starts_again_and_is_told_so() {
    let project = Project::new();
    project.issue("Todo", "K-1", "```sh\nif [ -e one.txt ]; then exit 0; fi\necho 1 > one.txt\ngit add one.txt\ngit commit -qm One\nsleep 300\n```");
    let running = project.start();
    let made = project.dir().join(".symphony/disks/K-1/tree/one.txt");
    until("the first file", || made.exists());
    killed(running);
    let _running = project.start();
    project.wait_for("issues/Done/K-1.md");
    assert_eq!(prompts_with(&project, "symphony ended without a word while this run was under way"), 1);
    assert!(project.apply_patch("K-1").join("one.txt").exists(), "no commit is lost");
}

#[test]
fn a_retry_keeps_its_due_time_and_its_count_over_a_kill() {
    let front = FRONT.replace("max_retry_backoff_ms: 300", "max_retry_backoff_ms: 600000");
    let project = Project::with(&front);
    let at = |text: &str| text.parse::<jiff::Timestamp>().expect("an instant");
    // A busy machine may take longer to start again than the retry waits: then it runs, as it should, and shows nothing.
    for name in ["F-1", "F-2", "F-3"] {
        project.issue("Todo", name, "```sh\nexit 1\n```");
        let row = |s: &Value| {
            let rows = s["retrying"].as_array().cloned().unwrap_or_default();
            rows.into_iter().find(|row| row["issue_identifier"] == json!(name)).unwrap_or_default()
        };
        let due = |s: &Value| row(s)["due_at"].as_str().map(str::to_owned);
        let running = project.start();
        let before = due(&running.until_state("the retry", |s| due(s).is_some())).expect("due");
        killed(running);
        let running = project.start();
        let state = running.until_state("the same retry", |s| due(s).is_some());
        if at(&before) > jiff::Timestamp::now() {
            let apart = at(&due(&state).expect("due")).duration_since(at(&before)).abs();
            assert!(apart < jiff::SignedDuration::from_secs(2), "{apart:?}");
            assert_eq!(row(&state)["attempt"], json!(1));
            return;
        }
        killed(running);
        std::fs::remove_file(project.dir().join(format!("issues/Todo/{name}.md"))).expect("removed");
    }
    panic!("three times it took longer than ten seconds to start again");
}

#[test]
fn a_word_that_comes_before_the_agent_says_done_is_heard_before_the_work_is_handed_off() {
    let project = Project::new();
    project.issue(
        "Todo",
        "M-1",
        "```sh\necho 1 > one.txt\ntouch begun\nwhile [ ! -e go ]; do sleep 0.1; done\nrm -f begun go\n```",
    );
    let running = project.start();
    let tree = project.dir().join(".symphony/disks/M-1/tree");
    until("the turn", || tree.join("begun").exists());
    let said = running.post("/api/v1/issues/M-1/message", &json!({"text": "Use tabs.", "when": "next_turn"}));
    assert_eq!(said.status, 202);
    std::fs::write(tree.join("go"), "").expect("written");
    project.wait_for("issues/Done/M-1.md");
    assert_eq!(prompts_with(&project, "Use tabs."), 1);
}
