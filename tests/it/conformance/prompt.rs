//! What an agent is told (0.1.0 §1.3; P1–P5), seen by an agent that writes its prompts down.

use serde_json::json;

use crate::rig::{FRONT, Project};

const DONE: &str = "call mark_done '{\"title\":\"Note it\",\"summary\":\"Noted.\"}'";

/// The prompts an agent of this template got for issue A-1, in the order of its turns.
fn prompts(body: &str, issue: &str, turns: u32) -> String {
    let scenario = format!("turn() {{ answer=$prompt; note $turn; [ $turn -lt {turns} ] || {DONE}; }}");
    let project = Project::acting(&scenario, "");
    let front = project.read("WORKFLOW.md").split_inclusive("---\n").take(2).collect::<String>();
    project.write("WORKFLOW.md", &format!("{front}{body}"));
    project.write("issues/Todo/A-1.md", issue);
    project.issue("Done", "B-2", "An older one.");
    assert_eq!(project.once(), 0);
    std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("noted")
}

/// A start that this template prevents.
#[track_caller]
fn refused(body: &str, words: &[&str]) {
    let project = Project::new();
    project.write("WORKFLOW.md", &format!("---\n{FRONT}---\n{body}"));
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn every_documented_variable_reaches_the_agent() {
    let body = "{{ issue.identifier }};{{ issue.id }};{{ issue.title }};{{ issue.state }};{{ issue.priority }};{{ issue.labels | join: \"+\" }};{{ issue.labels.size }};{{ issue.url }};{% for b in issue.blocked_by %}{{ b.identifier }}={{ b.state }}{% endfor %};{{ attempt }};{{ issue.description }}";
    let issue = "---\nid: one\nidentifier: A-1\ntitle: '<b>Fix</b>'\npriority: 2\nlabels: [UI, Back End]\nblocked_by: [B-2]\nurl: https://x.example/1\n---\n\nThe body.\n";
    let prompt = prompts(body, issue, 1);
    let expected = "A-1;one;<b>Fix</b>;Todo;2;ui+back end;2;https://x.example/1;B-2=Done;;The body.";
    assert!(prompt.contains(expected), "nothing is escaped, nothing is missing: {prompt}");
}

#[test]
fn an_unknown_variable_or_filter_stops_the_start_with_its_line() {
    refused("fine\n{{ issue.nope }}\n", &["WORKFLOW.md:14:1:", "`issue.nope`", "identifier"]);
    refused("{% if issue.nope %}x{% endif %}", &["`issue.nope`"]);
    refused("{{ nope | default: 1 }}", &["`nope`"]);
    refused("{{ issue.title | frob }}", &["WORKFLOW.md:13:1:", "`frob`"]);
    refused("{% frob %}", &["frob"]);
    for inherited in ["toString", "constructor", "__proto__"] {
        refused(&format!("{{{{ issue.{inherited} }}}}"), &[inherited]);
    }
    refused("{% include 'x' %}", &["include"]);
}

#[test]
fn a_blank_template_still_says_what_to_do() {
    let prompt = prompts("\n \n", "---\ntitle: The title\n---\nThe body.\n", 1);
    for word in ["A-1", "The title", "The body."] {
        assert!(prompt.contains(word), "{prompt}");
    }
}

#[test]
fn a_turn_that_leaves_the_issue_active_is_followed_by_a_continuation() {
    let notes = prompts("First: {{ issue.title }}", "---\ntitle: The title\n---\n", 2);
    let (first, second) = notes.split_once("== 2").expect("two turns");
    assert!(first.contains("First: The title") && !second.contains("First: The title"), "{notes}");
    assert!(second.contains("Continue") && second.contains("mark_done"), "{notes}");
}

#[test]
fn a_retry_knows_that_it_is_one_and_why() {
    let body = "attempt {{ attempt }} {{ retry_kind }}: {{ last_end }}";
    let scenario = "turn() { case $prompt in 'attempt  : '*) reason=refusal ;; *) answer=$prompt; note seen; call mark_done '{\"title\":\"T\",\"summary\":\"S\"}' ;; esac; }";
    let project = Project::acting(scenario, "");
    let front = project.read("WORKFLOW.md").split_inclusive("---\n").take(2).collect::<String>();
    project.write("WORKFLOW.md", &format!("{front}{body}"));
    project.issue("Todo", "A-1", "Do it.");
    let running = project.start();
    project.wait_for("issues/Done/A-1.md");
    let prompt = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("noted");
    assert!(prompt.contains("attempt 1 failure:") && prompt.contains("refused"), "{prompt}");
    assert_eq!(running.state()["running"], json!([]));
}

/// The program's crates are built with other features than the core's own tests.
#[test]
fn an_issue_as_json_has_its_keys_in_order_in_the_program_too() {
    let prompt = prompts("{{ issue | json }}", "---\ntitle: The title\n---\n", 1);
    let keys: Vec<&str> =
        prompt.split("\\\"").filter(|part| ["assignee_id", "identifier", "title", "url"].contains(part)).collect();
    assert_eq!(keys, ["assignee_id", "identifier", "title", "url"], "{prompt}");
}
