//! What becomes of an agent's word that was given when something else ends its turn.

use crate::rig::{Project, git};

/// Its word is accepted, and its turn stays open a while after it, as agents' turns do.
const SAYS_DONE_AND_TALKS_ON: &str =
    "turn() { echo kept > kept.txt; call mark_done '{\"title\":\"T\",\"summary\":\"S\"}'; sleep 600; }";

#[test]
fn work_that_is_said_to_be_done_is_handed_off_although_its_wall_time_ends_before_its_turn() {
    let project = Project::acting(SAYS_DONE_AND_TALKS_ON, "budget:\n  wall_ms: 4000\n");
    project.issue("Todo", "A-1", "Do it.");
    let output = project.run(&["WORKFLOW.md", "--once"]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(project.exists("issues/Done/A-1.md"), "{log}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn work_that_is_said_to_be_done_is_handed_off_although_symphony_is_stopped_before_its_turn_ends() {
    let project = Project::acting(SAYS_DONE_AND_TALKS_ON, "");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    running.until_state("its word", |state| state["running"][0]["marked_done"] == true);
    let log = running.log();
    assert_eq!(running.stop(), 0);
    assert!(project.exists("issues/Done/A-1.md"), "{log}");
}

/// What is not finished stays uncommitted: a commit is made at handoff only.
#[test]
fn work_that_a_person_stops_after_its_agent_said_done_stays_uncommitted() {
    let project = Project::acting(SAYS_DONE_AND_TALKS_ON, "");
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    running.until_state("its word", |state| state["running"][0]["marked_done"] == true);
    std::fs::create_dir_all(project.dir().join("issues/Backlog")).expect("made");
    std::fs::rename(project.dir().join("issues/Todo/A-1.md"), project.dir().join("issues/Backlog/A-1.md"))
        .expect("moved");
    running.until_state("the end of the run", |state| state["running"] == serde_json::json!([]));
    let airlock = project.dir().join(".symphony/airlock/A-1.git");
    let base = git(&project.dir(), &["rev-parse", "HEAD"]);
    assert_eq!(git(&airlock, &["rev-parse", "refs/symphony/head"]), base);
    assert_eq!(git(&airlock, &["show", "refs/symphony/wip:kept.txt"]), "kept");
    assert_eq!(running.stop(), 0);
}
