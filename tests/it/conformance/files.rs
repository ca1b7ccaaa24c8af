//! Workflow files, issue files, moves and workspaces as 0.1.0 had them (§1.2, §1.4, §1.5; W, S, T, M, V).

use serde_json::{Value, json};

use crate::rig::{BODY, FRONT, Project, until};

fn idle_reason(state: &Value, identifier: &str) -> String {
    let rows = state["idle"].as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["issue_identifier"] == json!(identifier));
    row.and_then(|row| row["reason"].as_str()).unwrap_or_default().to_owned()
}

#[track_caller]
fn refused(text: &str, code: i32, words: &[&str]) {
    let project = Project::new();
    project.write("WORKFLOW.md", text);
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[test]
fn a_file_without_front_matter_is_all_prompt_and_lacks_a_tracker() {
    refused("Just a prompt.\n", 2, &["WORKFLOW.md:1:1:", "`tracker.kind` is missing"]);
    refused("<!-- a comment first -->\n---\ntracker: {kind: local}\n---\nx\n", 2, &["`tracker.kind` is missing"]);
    refused("---\ntracker: {kind: local}\n", 1, &["WORKFLOW.md:1:1:", "does not end"]);
}

#[test]
fn an_indented_fence_inside_a_hook_is_text_of_the_hook() {
    let hook = "hooks:\n  before_run: |\n    cat > ../../../hook.txt <<'X'\n    ---\n    inside\n    ---\n    X\n";
    let project = Project::with(&format!("{FRONT}{hook}"));
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    assert_eq!(project.once(), 0);
    assert_eq!(project.read("hook.txt"), "---\ninside\n---\n");
}

#[test]
fn a_variable_stands_for_a_path_only_when_it_is_the_whole_value() {
    let front = |root: &str| FRONT.replace("kind: local\n", &format!("kind: local\n  root: {root}\n"));
    refused(&format!("---\n{}---\n{BODY}", front("$UNSET_FOR_SURE")), 1, &["WORKFLOW.md:4:", "`UNSET_FOR_SURE`"]);
    refused(&format!("---\n{}---\n{BODY}", front("$HOME/sub")), 1, &["$HOME/sub"]);
    let project = Project::with(&front("$ISSUES_OF_THIS_TEST"));
    let root = project.beside("elsewhere");
    std::fs::create_dir_all(root.join("Todo")).expect("directories");
    std::fs::write(root.join("Todo/A-1.md"), "```sh\ntrue\n```\n").expect("an issue");
    let mut command = project.command(&["--once"]);
    let status = command.env("ISSUES_OF_THIS_TEST", &root).stdin(std::process::Stdio::null()).status().expect("starts");
    assert!(status.success() && root.join("Done/A-1.md").exists());
}

#[test]
fn an_adapter_must_be_known_unless_a_command_replaces_it() {
    let with = |acp: &str| format!("---\n{}---\n{BODY}", FRONT.replace("  adapter: script\n", acp));
    refused(&with("  adapter: goose\n"), 1, &["`goose`", "acp.command", "script"]);
    refused(&with("  adapter: script\n  command: '  '\n"), 1, &["`acp.command` is blank"]);
    let project = Project::acting("turn() { call mark_done '{\"title\":\"T\",\"summary\":\"S\"}'; }", "");
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace("acp:\n", "acp:\n  adapter: goose\n"));
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 0, "the command is what counts");
}

#[test]
fn only_active_states_are_worked_on_and_every_other_issue_says_why_it_waits() {
    let project = Project::new();
    project.issue("Backlog", "B-1", "```sh\ntrue\n```");
    project.issue("todo", "A-1", "```sh\ntrue\n```");
    project.write("issues/Todo/C-1.md", "---\ntitle: Blocked\nblocked_by: [NO-9]\n---\n```sh\ntrue\n```\n");
    project.write("issues/Todo/notes.txt", "not an issue");
    let running = project.start();
    project.wait_for("issues/Done/A-1.md");
    let state = running
        .until_state("the blocked one alone", |s| !idle_reason(s, "C-1").is_empty() && s["running"] == json!([]));
    assert!(idle_reason(&state, "C-1").contains("NO-9"), "an unknown blocker blocks, and says so: {state}");
    assert!(project.exists("issues/Backlog/B-1.md") && project.exists("issues/Todo/C-1.md"));
}

#[test]
fn a_blocked_issue_starts_when_its_blocker_is_finished() {
    let project = Project::new();
    project.write("issues/Todo/A-1.md", "---\npriority: 1\nblocked_by: [B-2]\n---\n```sh\ntrue\n```\n");
    project.write("issues/In Progress/B-2.md", "---\npriority: 3\n---\n```sh\ntest ! -e done-a\n```\n");
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Done/A-1.md") && project.exists("issues/Done/B-2.md"));
}

#[test]
fn a_name_in_two_places_is_shown_with_both_and_not_guessed() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    project.issue("In Progress", "A-1", "```sh\ntrue\n```");
    let running = project.start();
    let state = running.until_state("the ambiguity", |s| s["tracker"]["ambiguous"][0]["name"] == json!("A-1"));
    let files = state["tracker"]["ambiguous"][0]["files"].to_string();
    assert!(files.contains("Todo/A-1.md") && files.contains("In Progress/A-1.md"), "{state}");
    assert_eq!(state["running"], json!([]));
    std::fs::remove_file(project.dir().join("issues/In Progress/A-1.md")).expect("removed");
    project.wait_for("issues/Done/A-1.md");
}

#[test]
fn a_file_that_is_gone_ends_its_run_and_moves_nothing() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\nsleep 60\n```");
    let running = project.start();
    running.until_state("the run", |s| s["running"][0]["turn_count"] == json!(1));
    std::fs::remove_file(project.dir().join("issues/Todo/A-1.md")).expect("removed");
    running.until_state("its end", |s| s["running"] == json!([]) && s["retrying"] == json!([]));
    assert!(!project.exists("issues/Done/A-1.md"));
}

#[test]
fn identifiers_never_leave_the_workspace_root() {
    let hook = "hooks:\n  before_run: pwd >> ../../../places.txt\nbudget: {failures_in_a_row: 1}\n";
    let project = Project::with(&format!("{FRONT}{hook}"));
    for (file, identifier) in [("a", "A B C"), ("b", "foo/../bar"), ("c", "..fix"), ("d", "A_B_C")] {
        project.write(
            &format!("issues/Todo/{file}.md"),
            &format!("---\nidentifier: \"{identifier}\"\n---\n```sh\ntrue\n```\n"),
        );
    }
    project.write("issues/Todo/e.md", "---\nidentifier: \"..\"\n---\n```sh\ntrue\n```\n");
    let running = project.start();
    until("four workspaces", || project.exists("places.txt") && project.read("places.txt").lines().count() >= 4);
    let root = project.dir().join(".symphony/workspaces");
    let mut names: Vec<String> = project
        .read("places.txt")
        .lines()
        .map(|place| std::path::Path::new(place).strip_prefix(&root).expect("below the root").display().to_string())
        .collect();
    names.sort();
    assert_eq!(names[0], "..fix");
    assert!(names[1].starts_with("A_B_C") && names[2].starts_with("A_B_C") && names[1] != names[2], "{names:?}");
    assert!(names[3].starts_with("foo_.._bar"), "{names:?}");
    until("the impossible one to be set aside", || {
        !project.exists("issues/Todo/e.md") || {
            let state = running.state();
            !state["tracker"]["malformed"].as_array().is_none_or(Vec::is_empty) || !idle_reason(&state, "..").is_empty()
        }
    });
    assert!(!project.exists("issues/Done/e.md"));
}

#[test]
fn what_agent_and_workflow_of_0_1_0_say_is_understood() {
    // The keys 0.1.0 shipped with, vestigial ones included.
    let front = "tracker:\n  kind: local\n  endpoint: https://x.example\n  project_slug: abc\n  active_states: [Todo, In Progress]\n  terminal_states: [Done, Cancelled]\npolling:\n  interval_ms: 300\nworkspace:\n  root: ./ws\nhooks:\n  timeout_ms: 60000\nagent:\n  max_concurrent_agents: 2\n  max_turns: 20\n  max_retry_backoff_ms: 300000\nacp:\n  adapter: script\n  shell: bash\n  prompt_timeout_ms: 3600000\n  stall_timeout_ms: 300000\nserver:\n  host: 127.0.0.1\nmcp:\n  enabled: true\n  host: 127.0.0.1\n";
    let project = Project::with(front);
    project.write(".gitignore", "/.symphony\n/issues\n/ws\n");
    project.issue("Todo", "A-1", "```sh\necho x > x.txt\n```");
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("unknown key") && !said.contains("level=warn"), "{said}");
    assert!(project.apply_patch("A-1").join("x.txt").exists());
}
