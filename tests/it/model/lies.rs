//! Agents whose turn ends well although their model failed, and agents that ask for ever without a word. What codex-acp
//! 2.6 does at each failure but 401 is done here by agents of a few lines.

use super::server::Server;
use super::{BOTH, agents, command, project};
use crate::lifecycle::{mark, row, until_gone};
use crate::rig::{Project, Running, until};

/// The same issue is not tried for long.
const SHORT: &str = "budget:\n  failures_in_a_row: 2\n  no_progress: 2\n";

fn start(project: &Project) -> Running {
    project.issue("Todo", "A-1", "Ask.");
    project.start_command(command(project, &["WORKFLOW.md", "--port", "0"], &BOTH))
}

/// Runs this turn until its issue is parked; the note, and what was said about it.
fn parked(turn: &str) -> (String, String) {
    let server = Server::start();
    let project = project(turn, &server, SHORT);
    let running = start(&project);
    let note = project.parked_note("A-1");
    let said = format!("{}\n{}", running.log(), running.client().get("/api/v1/state").body);
    assert_eq!(running.stop(), 0);
    (note, said)
}

#[test]
fn a_turn_that_ends_well_although_its_model_failed_is_a_failure_in_the_model_s_words() {
    for (turn, words) in [
        ("ask broken; say 'unexpected status 500'", "anthropic answered 500 to broken: the oven is on fire"),
        ("ask unknown", "anthropic answered 404 to unknown: there is no such model"),
        ("ask cut", "the answer of anthropic to cut broke off"),
        ("ask broken-late", "anthropic broke off its answer to broken-late with api_error: the oven went out"),
        ("ask cut-late", "the answer of anthropic to cut-late broke off"),
    ] {
        let (note, said) = parked(&format!("turn() {{ {turn}; }}"));
        assert!(
            note.contains("turn_failed: its model failed, and the agent ended its turn as if it had not"),
            "{note}"
        );
        assert!(note.contains(words), "no `{words}` in {note}");
        assert!(!said.contains("no-progress") && said.contains("agent-error"), "{said}");
    }
}

/// Regression: such a run was tried five times, each time with the same answer.
#[test]
fn a_model_or_request_that_the_workflow_refuses_parks_its_issue_after_one_run_with_the_remedy() {
    const PRICED: &str = "prices:\n  other: {input: 3, output: 15}\nbudget:\n  usd: 5\n";
    const LISTED: &str = "login: true\n    models: [other]";
    let container = "model /anthropic/v1/messages '{\"model\":\"json\",\"messages\":[],\"container\":\"c\"}'";
    for (workflow, turn, words) in [
        (PRICED, "ask stream", "symphony answered 400: `stream` has no price, and the workflow bounds money: add"),
        ("", "ask stream", "the model `stream` is not allowed here; the workflow lists: other"),
        ("", container, "allow it with `egress.provider_tools: true` in WORKFLOW.md"),
        (PRICED, "while :; do ask stream; done", "`stream` has no price"),
    ] {
        let server = Server::start();
        let project = project(&format!("turn() {{ {turn}; }}"), &server, workflow);
        if words.contains("the workflow lists") {
            project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("login: true", LISTED, 1));
        }
        let running = start(&project);
        let note = project.parked_note("A-1");
        assert!(
            note.contains("its agent cannot work here: the workflow refused whatever its model was asked"),
            "{note}"
        );
        assert!(note.contains(words), "no `{words}` in {note}");
        assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "one run");
        assert_eq!(running.stop(), 0);
    }
}

/// Regression: a model that its provider does not know was tried five times, each time with the same answer.
#[test]
fn a_model_that_its_provider_does_not_know_parks_its_issue_after_one_run_with_the_remedy() {
    let server = Server::start();
    let project = project("turn() { ask no-such-model; }", &server, "");
    let running = start(&project);
    let note = project.parked_note("A-1");
    assert!(
        note.contains("its agent cannot work here: its provider knows no such model: anthropic answered 404"),
        "{note}"
    );
    assert!(note.contains("model: no-such-model; set `acp.model` in WORKFLOW.md"), "{note}");
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "one run");
    assert_eq!(running.stop(), 0);
}

/// Regression: a title for which there is no price parked the issue beside a main request that was still under way.
#[test]
fn what_the_workflow_refuses_beside_a_request_that_still_runs_is_a_failure_and_tried_again() {
    let server = Server::start();
    let priced = "prices:\n  slow: {input: 3, output: 15}\nbudget:\n  usd: 5\n  failures_in_a_row: 2\n";
    // The agent gives its turn up over the refusal, while its main request runs.
    let project = project("turn() { (ask slow) & sleep 1; ask stream; }", &server, priced);
    let running = start(&project);
    let note = project.parked_note("A-1");
    assert!(note.contains("turn_failed: ") && note.contains("`stream` has no price"), "{note}");
    assert!(!note.contains("cannot work here"), "{note}");
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 2);
    assert_eq!(running.stop(), 0);
}

#[test]
fn one_answer_of_a_model_makes_the_turn_the_agent_s_own_affair() {
    let server = Server::start();
    let turns = "turn() { case $turn in 1) ask broken; ask broken; ask stream ;; *) ask stream; done_ ;; esac; }";
    let project = project(turns, &server, SHORT);
    let running = start(&project);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || project.exists("issues/Parked/A-1.md"));
    assert!(project.exists("issues/Done/A-1.md"), "{}", running.log());
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "no run failed");
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_agent_of_a_command_that_asks_no_model_is_not_judged_by_that() {
    let server = Server::start();
    let project = project("turn() { [ $turn = 1 ] || done_; }", &server, SHORT);
    let running = start(&project);
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || project.exists("issues/Parked/A-1.md"));
    assert!(project.exists("issues/Done/A-1.md"), "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn an_agent_of_a_vendor_that_asks_its_model_nothing_is_named_for_that() {
    let server = Server::start();
    let project = agents::project("claude", &server);
    agents::install(&project, "claude-agent-acp", "turn() { say 'all fine'; }");
    let workflow = project.read("WORKFLOW.md").replacen("---\n", &format!("---\n{SHORT}"), 1);
    project.write("WORKFLOW.md", &workflow);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let note = project.parked_note("A-1");
    assert!(note.contains("turn_failed: the agent ended its turn without asking its model anything"), "{note}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn silent_retries_are_told_while_they_last_and_end_at_the_limit_of_a_standstill() {
    let server = Server::start();
    let mark = mark();
    // It does not hear that its turn is cancelled: it ends with its program, and so does what it started.
    let retries = format!("turn() {{ sleep {mark} & while :; do ask broken; sleep 0.2; done; }}");
    let project = project(&retries, &server, "budget:\n  failures_in_a_row: 1\n");
    let workflow = project.read("WORKFLOW.md").replace("acp:\n", "acp:\n  stall_timeout_ms: 3000\n");
    project.write("WORKFLOW.md", &workflow);
    let running = start(&project);
    let state = running.until_state("what the broker sees to be said", |state| {
        row(state, "running", "A-1")
            .is_some_and(|row| row.to_string().contains("times in a row; the agent goes on asking"))
    });
    assert!(state.to_string().contains("anthropic answered 500 to broken: the oven is on fire"), "{state}");
    let note = project.parked_note("A-1");
    assert!(note.contains("turn_failed: its model fails and the agent asks again and again"), "{note}");
    assert!(note.contains("anthropic answered 500 to broken: the oven is on fire"), "{note}");
    assert!(running.log().contains("the model fails again and again"), "{}", running.log());
    until_gone(&mark);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_limit_of_silence_that_is_met_while_the_model_fails_says_so() {
    let server = Server::start();
    let project = project("turn() { ask broken; ask broken; sleep 60; }", &server, "budget:\n  failures_in_a_row: 1\n");
    let workflow = project.read("WORKFLOW.md").replace("acp:\n", "acp:\n  turn_timeout_ms: 2000\n");
    project.write("WORKFLOW.md", &workflow);
    let running = start(&project);
    let note = project.parked_note("A-1");
    assert!(note.contains("turn_timeout: the agent was silent for acp.turn_timeout_ms; meanwhile anthropic"), "{note}");
    assert_eq!(running.stop(), 0);
}
