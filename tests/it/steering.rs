//! A question to a human, and the ways its answer comes back.

use serde_json::json;

use crate::rig::{Project, Running, until};

/// Asks once, then writes down the answer.
const ASKS: &str = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Which colour?'; exit 75; fi\nprintf '%s\\n' \"$SYMPHONY_ANSWER\" > colour.txt\n```";

fn asking() -> (Project, Running) {
    let project = Project::new();
    project.issue("Todo", "Q-1", ASKS);
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    (project, running)
}

#[test]
fn a_question_is_answered_over_the_api_and_the_work_goes_on() {
    let (project, running) = asking();
    let state = running.state();
    assert!(state["running"][0]["steering_question"].as_str().expect("text").contains("Which colour?"), "{state}");
    let answer = running.post("/api/v1/issues/Q-1/steering-reply", &json!({"text": "green"}));
    assert_eq!((answer.status, answer.json()["identifier"].clone()), (202, json!("Q-1")));
    until("the issue to be done", || project.exists("issues/Done/Q-1.md"));
    let clone = project.apply_patch("Q-1");
    assert_eq!(std::fs::read_to_string(clone.join("colour.txt")).expect("written"), "green\n");
    let late = running.post("/api/v1/issues/Q-1/steering-reply", &json!({"text": "red"}));
    assert_eq!((late.status, late.error_code()), (409, "no_pending_steering".into()));
}

#[test]
fn an_answer_needs_text_and_an_operator() {
    let (_project, running) = asking();
    let path = "/api/v1/issues/Q-1/steering-reply";
    let blank = running.post(path, &json!({"text": "  "}));
    assert_eq!((blank.status, blank.error_code()), (400, "bad_request".into()));
    let mut stranger = running.client();
    stranger.bearer = None;
    assert_eq!(stranger.post_json(path, &json!({"text": "red"})).status, 401);
    let client = running.client();
    assert_eq!(client.send("POST", path, &[("Content-Type", "text/plain")], "text=red").status, 415);
    assert_eq!(running.state()["running"][0]["steering_requested"], json!(true));
}

#[test]
fn once_ends_with_3_when_a_question_is_all_that_is_left() {
    let project = Project::new();
    project.issue("Todo", "Q-1", ASKS);
    project.issue("Todo", "A-1", "```sh\necho x > x.txt\n```");
    assert_eq!(project.once(), 3);
    assert!(project.exists("issues/Done/A-1.md") && project.exists("issues/Todo/Q-1.md"));
}

/// Regression: a checkpoint whose head the airlock already had was refused, and the last work with it.
#[test]
fn work_left_uncommitted_behind_a_known_head_survives_a_stop_and_a_restart() {
    let project = Project::new();
    let body = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 1 > one.txt; git add one.txt; git commit -qm One; echo 'Go on?'; exit 75; fi\nif [ ! -e two.txt ]; then echo 2 > two.txt; sleep 300; fi\n```";
    project.issue("Todo", "W-1", body);
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    assert_eq!(running.post("/api/v1/issues/W-1/steering-reply", &json!({"text": "yes"})).status, 202);
    running.until_state("the second turn", |s| s["running"][0]["turn_count"] == json!(2));
    let tree = project.dir().join(".symphony/disks/W-1/tree/two.txt");
    until("the second file", || tree.exists());
    let log = {
        running.signal(rustix::process::Signal::TERM);
        let mut running = running;
        assert_eq!(running.code(), 0);
        running.log()
    };
    assert!(!log.contains("not exported"), "{log}");
    let airlock = project.dir().join(".symphony/airlock/W-1.git");
    let files = crate::rig::git(&airlock, &["ls-tree", "--name-only", "refs/symphony/wip"]);
    assert!(files.contains("one.txt") && files.contains("two.txt"), "{files}");
}
