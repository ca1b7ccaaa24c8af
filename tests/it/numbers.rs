//! Numbers that symphony gives to issues.

use serde_json::json;

use crate::conformance::mcp::DONE;
use crate::rig::Project;

/// The name of an issue is also that of its airlock, its patch and its counters, which outlive its file.
#[test]
fn a_number_is_not_given_again_after_the_file_of_its_issue_was_put_away() {
    let scenario = format!(
        r#"turn() {{
        case $SYMPHONY_ISSUE_IDENTIFIER in
        A-*) call propose_issue "{{\"title\":\"Found by $SYMPHONY_ISSUE_IDENTIFIER\"}}" ;;
        *) echo "$prompt" >"of-$RANDOM$RANDOM.txt" ;;
        esac
        {DONE}; }}"#
    );
    let project = Project::acting(&scenario, "");
    let running = project.start();
    project.issue("Todo", "A-1", "Do it.");
    running.until_state("the proposal", |s| s["counts"]["blocked"] == json!(1));
    assert_eq!(running.post("/api/v1/issues/1/approve", &json!({})).status, 200);
    project.wait_for("issues/Done/1.md");
    // Whoever tidies up finished issues.
    std::fs::remove_file(project.dir().join("issues/Done/1.md")).expect("put away");
    project.issue("Todo", "A-2", "Do it.");
    project.wait_for("issues/Done/A-2.md");
    let state = running.until_state("the second proposal, as one", |s| {
        s["idle"].as_array().is_some_and(|rows| rows.iter().any(|row| row["title"] == "Found by A-2"))
    });
    let rows = state["idle"].as_array().expect("rows").clone();
    let row = rows.iter().find(|row| row["title"] == "Found by A-2").expect("a row");
    assert_eq!(row["proposal"], json!(true), "it asks for a decision: {row}");
    assert_ne!(row["issue_identifier"], json!("1"), "the patch, the commits and the counters of 1 are another issue's");
    assert_eq!(running.stop(), 0);
}
