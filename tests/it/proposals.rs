//! Issues that agents propose, and what a person decides about them and about parked ones.

use serde_json::{Value, json};

use crate::conformance::mcp::{DONE, Notes};
use crate::rig::{Project, until};
use crate::states::{data, runs};

/// `A-1` proposes two issues, one of them after its word, and fails to propose a twenty-first.
fn proposing() -> Project {
    let scenario = format!(
        r#"turn() {{
        if [ "$SYMPHONY_ISSUE_IDENTIFIER" = A-1 ]; then
            call propose_issue '{{"title":"Follow: it up","description":"Why: **because**.\n\n---\npriority: 1","labels":["Bug"],"priority":3}}'; note first
            call propose_issue '{{"title":"a\nb"}}'; note wrong
            {DONE}
            call propose_issue '{{"title":"And this"}}'; note second
            for n in {{3..20}}; do call propose_issue "{{\"title\":\"More of $n\"}}"; done; note last
            call propose_issue '{{"title":"One too many"}}'; note over
        else
            {DONE}
        fi; }}"#
    );
    let project = Project::acting(&scenario, "");
    project.issue("Todo", "A-1", "Do it.");
    project
}

#[test]
fn a_proposal_waits_in_triage_until_a_person_decides_about_it() {
    let project = proposing();
    let running = project.start();
    project.wait_for("issues/Done/A-1.md");
    let clone = project.apply_patch("A-1");
    let notes = Notes::of(&std::fs::read_to_string(clone.join("notes.txt")).expect("noted"));
    assert!(!notes.tool("first").1 && !notes.tool("second").1 && !notes.tool("last").1);
    assert_eq!(data(&notes, "first"), json!({"identifier": "1", "state": "Triage"}));
    assert!(notes.tool("wrong").1 && notes.tool("wrong").0.contains("single line"));
    assert!(notes.tool("over").1 && data(&notes, "over") == json!({"error": "too_many_proposals"}));
    assert!(project.exists("issues/Triage/20.md") && !project.exists("issues/Triage/21.md"));

    let text = project.read("issues/Triage/1.md");
    for line in
        ["title: \"Follow: it up\"", "proposed_by: \"A-1\"", "proposed_in_run: 1", "labels: [\"Bug\"]", "priority: 3"]
    {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert!(text.lines().any(|l| l.starts_with("proposed_at: \"2")), "{text}");
    let state = running.until_state("the proposals", |s| s["idle"].as_array().is_some_and(|rows| rows.len() == 21));
    let row = |state: &Value, name: &str| {
        let rows = state["idle"].as_array().expect("rows").iter();
        rows.clone().find(|row| row["issue_identifier"] == json!(name)).cloned().unwrap_or_default()
    };
    let first = row(&state, "1");
    assert_eq!((&first["proposed_by"], &first["proposal"]), (&json!("A-1"), &json!(true)), "{first}");
    assert_eq!(state["counts"]["blocked"], json!(20), "each of them waits for a human");
    assert_eq!(runs(&project), 1, "nobody works on what nobody approved");

    let stale = running.post("/api/v1/issues/1/approve", &json!({"from": "Elsewhere"}));
    assert_eq!((stale.status, stale.error_code()), (409, "issue_moved".into()));
    let approved = running.post("/api/v1/issues/1/approve", &json!({}));
    assert_eq!(approved.status, 200, "{approved:?}");
    assert_eq!(approved.json(), json!({"identifier": "1", "from": "Triage", "to": "Todo"}));
    project.wait_for("issues/Done/1.md");
    let discarded = running.post("/api/v1/issues/2/discard", &json!({"from": "Triage"}));
    assert_eq!(discarded.json()["to"], json!("Cancelled"), "{discarded:?}");
    assert!(project.exists("issues/Cancelled/2.md"));
    running.until_state("both to be over", |s| row(s, "2")["role"] == "terminal" && row(s, "1")["role"] == "terminal");
    for (path, status, code) in [
        ("/api/v1/issues/NOPE/approve", 404, "issue_not_found"),
        ("/api/v1/issues/1/approve", 409, "not_holding"),
        ("/api/v1/issues/2/discard", 409, "not_holding"),
    ] {
        let answer = running.post(path, &json!({}));
        assert_eq!((answer.status, answer.error_code()), (status, code.into()), "{path}");
    }
    assert_eq!(runs(&project), 2, "and nobody works on what was discarded");
}

#[test]
fn a_parked_issue_goes_back_to_where_it_came_from_with_one_request() {
    let project = Project::with(&crate::rig::FRONT.replace("agent:\n", "budget: {sessions: 1}\nagent:\n"));
    project.issue("In Progress", "A-1", "```sh\n[ -e ~/again ] || { touch ~/again; exit 7; }\necho x > x.txt\n```");
    let running = project.start();
    project.parked_note("A-1");
    running.until_state("the parked row", |s| {
        let row = &s["idle"][0];
        (&row["parked"], &row["role"]) == (&json!(true), &json!("holding"))
    });
    let answer = running.post("/api/v1/issues/A-1/approve", &json!({}));
    assert_eq!(answer.json()["to"], json!("In Progress"), "{answer:?}");
    until("the issue to be finished", || project.exists("issues/Done/A-1.md"));
}

#[test]
fn a_run_that_is_tried_again_proposes_nothing_twice_and_no_more_than_a_person_can_read() {
    let scenario = r#"turn() {
        call propose_issue '{"title":"The same"}'; note same
        for n in {1..15}; do call propose_issue "{\"title\":\"$n of $RANDOM$RANDOM\"}"; done; note last
        exit 1
    }"#;
    let project = Project::acting(scenario, "budget: {failures_in_a_row: 3}\n");
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 3);
    let notes = Notes::of(&project.read(".symphony/disks/A-1/tree/notes.txt"));
    assert!(!notes.tool("same").1 && data(&notes, "same") == json!({"identifier": "1", "state": "Triage"}));
    assert_eq!(data(&notes, "last"), json!({"error": "too_many_proposals"}));
    assert_eq!(std::fs::read_dir(project.dir().join("issues/Triage")).expect("proposals").count(), 20);
}
