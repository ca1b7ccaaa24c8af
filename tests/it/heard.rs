//! Whether what a person says is heard, exactly once, whatever the agent does in that turn and whatever becomes of the
//! journal meanwhile.

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::rig::{Project, Running, until};

const REPLY: &str = "/api/v1/issues/Q-1/steering-reply";
const START: &[&str] = &["WORKFLOW.md", "--port", "0"];

/// One issue, Q-1, whose agent plays this.
fn acting(scenario: &str, front: &str, env: &[(&str, &str)]) -> (Project, Running) {
    let project = Project::acting(scenario, front);
    project.issue("Todo", "Q-1", "Paint it.");
    let running = project.start_in(START, env);
    (project, running)
}

fn until_it_says(running: &Running, word: &str) {
    running.until_state(word, |s| s["running"][0]["last_message"].as_str().is_some_and(|m| m.contains(word)));
}

fn until_it_asks(running: &Running, question: &str) {
    running.until_state(question, |s| {
        let row = &s["running"][0];
        row["steering_requested"] == json!(true) && row["steering_question"] == json!(question)
    });
}

fn answered(running: &Running, text: &str) {
    assert_eq!(running.post(REPLY, &json!({"text": text})).status, 202);
}

fn say(running: &Running, text: &str, when: &str) -> Value {
    let said = running.post("/api/v1/issues/Q-1/message", &json!({"text": text, "when": when}));
    assert_eq!(said.status, 202, "{}", said.body);
    said.json()
}

/// Lets an agent go on that waits for a file.
fn go(project: &Project) {
    std::fs::write(project.dir().join(".symphony/disks/Q-1/tree/go"), "").expect("written");
}

/// The prompts of all runs, oldest first, as they were sent.
fn prompts(project: &Project) -> Vec<String> {
    let mut all = vec![];
    for run in (1..).map(|run| format!(".symphony/runs/{run}/acp.jsonl")).take_while(|path| project.exists(path)) {
        all.extend(project.read(&run).lines().filter(|line| line.contains("session/prompt")).map(str::to_owned));
    }
    all
}

fn prompts_with(project: &Project, word: &str) -> usize {
    prompts(project).iter().filter(|prompt| prompt.contains(word)).count()
}

fn count(project: &Project, query: &str) -> i64 {
    let path = project.dir().join(".symphony/journal.db");
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    db.query_row(query, [], |row| row.get(0)).expect("counts")
}

#[test]
fn an_agent_that_was_answered_before_it_said_done_may_ask_something_else_and_is_answered() {
    let scenario = r#"turn() {
        case $turn in
        1)
            call request_human_steering '{"question":"First?"}'
            say begun
            while [ ! -e go ]; do sleep 0.1; done
            call mark_done '{"title":"x","summary":"y"}'
            ;;
        2) call request_human_steering '{"question":"Second?"}' ;;
        *) call mark_done '{"title":"x","summary":"y"}' ;;
        esac
    }"#;
    let (project, running) = acting(scenario, "", &[]);
    until_it_says(&running, "begun");
    answered(&running, "green");
    go(&project);
    until_it_asks(&running, "Second?");
    answered(&running, "violet");
    project.wait_for("issues/Done/Q-1.md");
    running.stop();
    assert_eq!((prompts_with(&project, "green"), prompts_with(&project, "violet")), (1, 1));
}

#[test]
fn a_letter_whose_turn_could_not_be_ended_in_the_journal_is_not_in_a_second_turn() {
    let scenario = r#"turn() {
        case $prompt in *Paint*) [ -e asked ] || { touch asked; call request_human_steering '{"question":"Which?"}'; return; } ;; esac
        [ -e go ] && call mark_done '{"title":"x","summary":"y"}' || sleep 0.3
    }"#;
    let (project, running) = acting(scenario, "", &[("SYMPHONY_FAILPOINT", "journal/turn_ended/before:1=eio")]);
    until_it_asks(&running, "Which?");
    answered(&running, "green");
    until("a second run", || project.exists(".symphony/runs/2/acp.jsonl") && prompts(&project).len() > 2);
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    go(&project);
    let running = project.start();
    project.wait_for("issues/Done/Q-1.md");
    running.stop();
    assert_eq!(prompts_with(&project, "green"), 1);
    assert_eq!(count(&project, "SELECT count(*) FROM letters WHERE taken_at IS NULL"), 0);
}

#[test]
fn a_letter_that_the_agent_acted_on_is_taken_although_its_turn_broke() {
    let scenario = r#"turn() {
        case $prompt in
        *green*) call mark_done '{"title":"x","summary":"y"}' && reason=refusal ;;
        *) call request_human_steering '{"question":"Which?"}' ;;
        esac
    }"#;
    let (project, running) = acting(scenario, "", &[]);
    until_it_asks(&running, "Which?");
    answered(&running, "green");
    project.wait_for("issues/Done/Q-1.md");
    running.stop();
    assert_eq!(count(&project, "SELECT count(*) FROM letters WHERE taken_at IS NULL"), 0);
    assert_eq!(prompts_with(&project, "green"), 1);
}

#[test]
fn words_said_in_the_last_turn_are_heard_in_one_that_is_free() {
    for when in ["now", "next_turn"] {
        let scenario = r#"turn() {
            case $prompt in *"turn left"*) call mark_done '{"title":"x","summary":"y"}'; return ;; esac
            say begun
            while [ ! -e go ]; do
                IFS= read -r -t 0.1 heard
                case $heard in *session/cancel*) reason=cancelled && return ;; esac
            done
        }"#;
        let (project, running) = acting(scenario, "budget:\n  turns: 1\n", &[]);
        until_it_says(&running, "begun");
        say(&running, "turn left", when);
        if when == "next_turn" {
            go(&project);
        }
        project.wait_for("issues/Done/Q-1.md");
        running.stop();
        assert_eq!(prompts_with(&project, "turn left"), 1, "{when}");
        assert_eq!(prompts_with(&project, "turn 2 of at most 1"), 0, "{when}");
    }
}

#[test]
fn a_turn_that_was_cut_short_with_a_question_in_it_is_followed_by_no_empty_prompt() {
    let scenario = r#"turn() {
        case $turn in
        1)
            say begun
            while IFS= read -r heard; do
                case $heard in *session/cancel*)
                    call request_human_steering '{"question":"Which?"}'
                    reason=cancelled
                    return
                    ;;
                esac
            done
            ;;
        2 | 3) : ;;
        *) call mark_done '{"title":"x","summary":"y"}' ;;
        esac
    }"#;
    let (project, running) = acting(scenario, "", &[]);
    until_it_says(&running, "begun");
    say(&running, "stop it", "now");
    until_it_asks(&running, "Which?");
    answered(&running, "green");
    project.wait_for("issues/Done/Q-1.md");
    running.stop();
    let prompts = prompts(&project);
    assert!(prompts[1].contains("stop it") && prompts[1].contains("green"), "{}", prompts[1]);
    for prompt in &prompts[2..] {
        assert!(prompt.contains("Continue working on the same issue"), "{prompt}");
    }
}

#[test]
fn the_end_of_a_run_that_the_journal_lost_is_kept_when_it_works_again() {
    let project = Project::new();
    project.issue("Todo", "F-1", "```sh\nif [ -e one ]; then exit 0; fi\ntouch one\nexit 1\n```");
    let running = project.start_in(START, &[("SYMPHONY_FAILPOINT", "journal/run_ended/before:1=enospc")]);
    project.wait_for("issues/Done/F-1.md");
    until("both ends", || count(&project, "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL") == 2);
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    let _running = project.start();
    let cut_off = "SELECT count(*) FROM runs WHERE reason = 'cut-off'";
    assert_eq!(count(&project, cut_off), 0);
    assert_eq!(count(&project, "SELECT count(*) FROM counters WHERE last_reason = 'done'"), 1);
}

#[test]
fn an_issue_is_not_put_aside_for_a_journal_that_is_full() {
    let project = Project::new();
    project.issue("Todo", "F-1", "```sh\necho 1 > one.txt\n```");
    let running = project.start_in(START, &[("SYMPHONY_FAILPOINT", "journal/run_started/before:1-7=enospc")]);
    project.wait_for("issues/Done/F-1.md");
    assert!(!project.exists("issues/Parked/F-1.md"));
    running.stop();
}

#[test]
fn words_for_an_issue_that_lacks_its_label_are_not_said_to_come_with_the_next_prompt() {
    let project = Project::new();
    let text = project.read("WORKFLOW.md").replace("tracker:\n", "tracker:\n  required_labels: [go]\n");
    project.write("WORKFLOW.md", &text);
    project.issue("Todo", "Q-1", "```sh\ntrue\n```");
    let running = project.start();
    running.until_state("the issue", |s| s["idle"].as_array().is_some_and(|rows| rows.len() == 1));
    let waits = say(&running, "x", "next_turn")["waits"].clone();
    assert_eq!(waits, json!("lacks the required label `go`"));
    let told = project.run(&["say", "Q-1", "--now", "y"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("kept for the issue's next run") && told.contains("lacks the required label"), "{told}");
}
