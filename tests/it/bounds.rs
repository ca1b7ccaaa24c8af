//! Runaway issues and scarce machines, as a user meets them: the real binary, a real agent program, real files.

use serde_json::json;

use crate::rig::{FRONT, Project, until};

/// An agent whose turns end by themselves and do nothing.
const IDLE: &str = "turn() { :; }";

#[test]
fn runs_that_change_nothing_are_parked_although_none_of_them_failed() {
    let project = Project::acting(IDLE, "budget:\n  no_progress: 2\n");
    let workflow = project.read("WORKFLOW.md").replace("agent:\n", "agent:\n  max_turns: 1\n");
    project.write("WORKFLOW.md", &workflow);
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 3);
    let note = project.parked_note("A-1");
    assert!(note.contains("2 runs in a row changed no file and no state (budget.no_progress)"), "{note}");
    assert!(note.contains("move this file back to `Todo/`"), "{note}");
}

#[test]
fn an_agent_that_works_on_and_on_is_stopped_when_its_wall_time_is_over_and_its_work_is_kept() {
    let project = Project::acting("turn() { echo kept > kept.txt; sleep 600; }", "budget:\n  wall_ms: 3000\n");
    project.issue("Todo", "A-1", "Do it.");
    let output = project.run(&["WORKFLOW.md", "--once"]);
    assert_eq!(output.status.code(), Some(3));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("reason=budget-wall"), "{log}");
    let note = project.parked_note("A-1");
    assert!(note.contains("(budget.wall_ms)"), "{note}");
    let airlock = project.dir().join(".symphony/airlock/A-1.git");
    assert_eq!(crate::rig::git(&airlock, &["show", "refs/symphony/wip:kept.txt"]), "kept");
}

#[test]
fn turns_are_counted_over_all_runs_of_an_issue() {
    let project = Project::acting("turn() { echo $RANDOM >> more.txt; }", "budget:\n  turns: 3\n");
    let workflow = project.read("WORKFLOW.md").replace("agent:\n", "agent:\n  max_turns: 2\n");
    project.write("WORKFLOW.md", &workflow);
    project.issue("Todo", "A-1", "Do it.");
    let output = project.run(&["WORKFLOW.md", "--once"]);
    assert_eq!(output.status.code(), Some(3));
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(log.contains("reason=turns-used") && log.contains("reason=budget-turns"), "{log}");
    assert_eq!(project.transcripts().matches("\"session/prompt\"").count(), 3);
    assert!(project.parked_note("A-1").contains("3 turns did not finish the issue (budget.turns)"));
}

#[test]
fn a_prompt_that_cannot_be_filled_in_parks_its_issue_until_the_prompt_is_mended() {
    let project = Project::new();
    let broken = "{% if issue.title == 'Odd' %}{{ 1 | divided_by: 0 }}{% endif %}";
    let workflow = project.read("WORKFLOW.md");
    project.write("WORKFLOW.md", &format!("{workflow}{broken}\n"));
    project.write("issues/Todo/A-1.md", "---\ntitle: Odd\n---\n```sh\necho x > x.txt\n```\n");
    project.issue("Todo", "B-1", "```sh\necho x > x.txt\n```");
    let running = project.start();
    let note = project.parked_note("A-1");
    assert!(note.contains("Mend the prompt in the workflow file and the issue goes back by itself"), "{note}");
    project.wait_for("issues/Done/B-1.md");
    assert!(!running.log().contains("attempt=1"), "it was tried once: {}", running.log());
    project.write("WORKFLOW.md", &workflow);
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_run_that_this_machine_cannot_hold_waits_and_says_so() {
    let project = Project::with(&format!("{FRONT}sandbox:\n  reserve_mib: 1000000000\n"));
    project.issue("Todo", "A-1", "```sh\necho x > x.txt\n```");
    let running = project.start();
    let state = running.until_state("the reason", |state| state["idle"][0]["reason_code"] == "no-memory");
    let reason = state["idle"][0]["reason"].as_str().expect("a sentence");
    assert!(reason.contains("MiB of memory left, a run needs 1000000000 MiB"), "{reason}");
    assert_eq!(state["running"], json!([]));
    let workflow = project.read("WORKFLOW.md").replace("reserve_mib: 1000000000", "reserve_mib: 1");
    project.write("WORKFLOW.md", &workflow);
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
}

#[test]
fn what_becomes_of_an_issue_whose_blocker_was_cancelled_stands_in_the_workflow() {
    let project = Project::new();
    project.issue("Cancelled", "A-1", "Never mind.");
    project.write("issues/Todo/B-1.md", "---\ntitle: B\nblocked_by: [A-1]\n---\n```sh\necho x > x.txt\n```\n");
    let running = project.start();
    let of = |state: &serde_json::Value, name: &str| {
        let rows = state["idle"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["issue_identifier"] == name).unwrap_or_default()
    };
    let state = running.until_state("the reason", |state| of(state, "B-1")["reason_code"] == "blocker-cancelled");
    let reason = of(&state, "B-1")["reason"].as_str().expect("a sentence").to_owned();
    assert_eq!(
        reason,
        "blocked by A-1, which was cancelled (it is in Cancelled); remove it from `blocked_by` to go on"
    );
    let workflow = project.read("WORKFLOW.md");
    let with =
        |rule: &str| workflow.replace("  kind: local\n", &format!("  kind: local\n  on_blocker_cancelled: {rule}\n"));
    project.write("WORKFLOW.md", &with("park"));
    assert!(project.parked_note("B-1").contains("it waits for A-1, which was cancelled"));
    project.write("WORKFLOW.md", &with("unblock"));
    until("the workflow to be read", || running.state()["workflow"]["valid"] == true);
    std::fs::rename(project.dir().join("issues/Parked/B-1.md"), project.dir().join("issues/Todo/B-1.md"))
        .expect("moved");
    project.wait_for("issues/Done/B-1.md");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_run_after_another_is_told_how_that_one_ended_and_what_it_left() {
    // The template of this project does not name `last_end`.
    let scenario = "turn() { case $prompt in *'worked on before'*) answer=$prompt; note seen; call mark_done '{\"title\":\"T\",\"summary\":\"S\"}' ;; *) echo half > half.txt; git add half.txt; git commit -qm Half; exit 7 ;; esac; }";
    let project = Project::acting(scenario, "");
    project.issue("Todo", "A-1", "Do it.");
    assert_eq!(project.once(), 0);
    let clone = project.apply_patch("A-1");
    let prompt = std::fs::read_to_string(clone.join("notes.txt")).expect("noted");
    assert!(prompt.contains("How the last run ended: agent-exit: port_exit: "), "{prompt}");
    assert!(prompt.contains("What it left: 1 commit in the work tree"), "{prompt}");
    assert_eq!(std::fs::read_to_string(clone.join("half.txt")).expect("kept"), "half\n");
}
