//! A real agent asks a person, waits for the word, and goes on in the same conversation.

use serde_json::json;

use super::{ALL, Agent, CLAUDE, CODEX, GEMINI, OPENCODE, ended, figure, jail, project};
use crate::model::command;
use crate::model::server::Server;

const QUESTION: &str = "Which colour shall it be?";
/// Told by the person, and found nowhere else.
const ANSWER: &str = "answer-0452: the green one";

#[track_caller]
fn asks_and_goes_on(agent: &Agent) {
    let Some(dir) = agent.programs() else { return };
    let server = Server::start();
    server.has_asked(QUESTION, ANSWER);
    server.has_done("echo made >made.txt; git add -A; git commit -qm 'Make it'");
    let project = project(agent, &server, &jail(&dir), "");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &ALL));
    project.issue("Todo", "A-1", "Make it.");
    let state =
        running.until_state("the agent to ask", |state| state["running"][0]["steering_requested"] == json!(true));
    assert!(state["running"][0]["steering_question"].as_str().is_some_and(|said| said.contains(QUESTION)), "{state}");
    // Its turn ends or is ended; nothing is asked of the model until a person has answered.
    running.until_state("its turn to end", |state| state["running"][0]["phase"] == "waiting for a human");
    let before = server.asked();
    assert!(before.iter().all(|asked| !asked.body.to_string().contains(ANSWER)), "nobody has said it yet");
    let reply = running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": ANSWER}));
    assert_eq!(reply.status, 202, "{reply:?}");
    ended(&project, &running, "A-1");
    assert!(project.exists("issues/Done/A-1.md"), "{}\n{}", running.log(), project.transcripts());
    let after = &server.asked()[before.len()..];
    let told = after.iter().find(|asked| asked.body.to_string().contains(ANSWER)).expect("the model was told");
    // What it was told stands behind what it had asked: it is the same conversation.
    let told = told.body.to_string();
    let (asked, answered) = (told.find(QUESTION).expect("its question"), told.find(ANSWER).expect("the answer"));
    assert!(asked < answered, "{told}");
    assert_eq!(project.transcripts().matches("\"session/new\"").count(), 1, "one session");
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "one run");
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let clone = project.apply_patch("A-1");
    assert_eq!(std::fs::read_to_string(clone.join("made.txt")).expect("made"), "made\n");
    assert_eq!(running.stop(), 0);
    figure(&format!("{}: asked, and went on when told: {} requests", agent.adapter, server.asked().len()));
}

#[test]
fn opencode_asks_a_person_and_goes_on_in_the_same_session() {
    asks_and_goes_on(&OPENCODE);
}

#[test]
fn claude_code_asks_a_person_and_goes_on_in_the_same_session() {
    asks_and_goes_on(&CLAUDE);
}

#[test]
fn codex_asks_a_person_and_goes_on_in_the_same_session() {
    asks_and_goes_on(&CODEX);
}

#[test]
fn gemini_asks_a_person_and_goes_on_in_the_same_session() {
    asks_and_goes_on(&GEMINI);
}
