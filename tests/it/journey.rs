//! The main job: a Markdown issue becomes a patch, in a sandbox, by one command.

use crate::rig::{FRONT, Project, git};

#[test]
fn an_issue_becomes_a_patch_that_git_am_applies_to_a_fresh_clone() {
    let project = Project::new();
    project.issue("Todo", "A-1", "Do this:\n\n```sh\nprintf 'made by %s\\n' \"$SYMPHONY_ISSUE_ID\" > made.txt\n```\n");
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Done/A-1.md") && !project.exists("issues/Todo/A-1.md"));
    let clone = project.apply_patch("A-1");
    assert_eq!(std::fs::read_to_string(clone.join("made.txt")).expect("made"), "made by A-1\n");
    assert_eq!(git(&clone, &["log", "-1", "--format=%s"]), "The title of A-1");
    assert_eq!(git(&project.dir(), &["status", "--porcelain"]), "", "the user's own repository is untouched");
}

#[test]
fn the_demo_of_this_repository_works_in_a_clone_of_it() {
    let project = Project::new();
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    // Regression: where the first command of the README had moved the issue, the second one failed here.
    let shipped = |file: &str| std::fs::read_to_string(here.join(file));
    let issue = shipped("issues/Todo/DEMO-1.md").or_else(|_| shipped("issues/Done/DEMO-1.md")).expect("shipped");
    project.write("WORKFLOW.md", &shipped("WORKFLOW.md").expect("shipped"));
    project.write("issues/Todo/DEMO-1.md", &issue);
    let output = project.run(&["WORKFLOW.md", "--once", "--port", "0"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(project.exists("issues/Done/DEMO-1.md") && project.exists(".symphony/patches/agent_DEMO-1.patch"));
    assert!(project.apply_patch("DEMO-1").join("examples/greeting.txt").exists());
}

#[test]
fn several_issues_run_at_once_within_the_slots_and_all_finish() {
    let project = Project::with(&FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents: 2\n"));
    for n in 1..=5 {
        project.issue("Todo", &format!("N-{n}"), &format!("```sh\nsleep 1; echo {n} > n{n}.txt\n```"));
    }
    let running = project.start();
    let mut most = 0;
    running.until_state("all five to finish", |state| {
        most = most.max(state["running"].as_array().map_or(0, Vec::len));
        (1..=5).all(|n| project.exists(&format!("issues/Done/N-{n}.md")))
    });
    assert_eq!(most, 2, "two slots, and both of them used");
    assert_eq!(running.stop(), 0);
}

#[test]
fn done_without_a_change_is_done_without_a_patch() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Done/A-1.md") && !project.exists(".symphony/patches/agent_A-1.patch"));
}

#[test]
fn work_that_an_agent_committed_itself_arrives_commit_by_commit() {
    let project = Project::new();
    let body = "```sh\nfor n in 1 2; do echo $n > $n.txt; git add $n.txt; git commit -qm \"Step $n\"; done\necho rest > rest.txt\n```";
    project.issue("Todo", "A-1", body);
    assert_eq!(project.once(), 0);
    let clone = project.apply_patch("A-1");
    assert_eq!(git(&clone, &["log", "-3", "--format=%s"]), "The title of A-1\nStep 2\nStep 1");
}

#[test]
fn a_failing_script_is_retried_and_then_parked_with_a_note_that_says_how_to_resume() {
    let project = Project::with(&format!("{FRONT}budget:\n  failures_in_a_row: 2\n"));
    project.issue("Todo", "A-1", "```sh\necho the reason; exit 7\n```");
    assert_eq!(project.once(), 3);
    let parked = project.parked_note("A-1");
    assert!(parked.contains("2 runs failed in a row") && parked.contains("the reason"), "{parked}");
    assert!(parked.contains("move this file back to `Todo/`"), "{parked}");
    assert!(!project.exists("issues/Done/A-1.md"));
}

#[test]
fn without_a_repository_the_work_leaves_a_patch_and_a_tar() {
    let project = Project::with(&format!("{FRONT}hooks:\n  after_create: |\n    echo start > start.txt\n"));
    project.issue("Todo", "A-1", "```sh\ncat start.txt > copy.txt\n```");
    assert_eq!(project.once(), 0);
    let patch = project.read(".symphony/patches/agent_A-1.patch");
    assert!(patch.contains("copy.txt") && project.exists(".symphony/patches/agent_A-1.tar"), "{patch}");
}

/// Regression: the base of plain files is dated 1, which git took for no date when work on it stayed uncommitted.
#[test]
fn without_a_repository_uncommitted_work_survives_a_question() {
    let project = Project::with(&format!("{FRONT}hooks:\n  after_create: echo start > start.txt\n"));
    project.issue("Todo", "A-1", "```sh\ncat start.txt > copy.txt\necho 'Go on?'; exit 75\n```");
    assert_eq!(project.once(), 3);
    assert!(project.exists("issues/Todo/A-1.md"), "the question waits, nothing is parked");
}

#[test]
fn without_a_port_there_is_no_dashboard_and_runs_still_work() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\necho x > x.txt\n```");
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("dashboard  none") && project.exists("issues/Done/A-1.md"), "{said}");
}
