//! The operator's hooks over the life of an issue.

use super::{mark, sleepers};
use crate::rig::{FRONT, Project};

/// Every hook writes a line about itself.
fn telling(hooks: &[(&str, &str)]) -> String {
    let mut front = format!("{FRONT}budget:\n  failures_in_a_row: 2\nhooks:\n  timeout_ms: 2000\n");
    for name in ["after_create", "before_run", "after_run", "before_remove"] {
        let more = hooks.iter().find(|(hook, _)| *hook == name).map_or("", |(_, more)| more);
        front.push_str(&format!("  {name}: |\n    echo \"{name} $SYMPHONY_ISSUE_IDENTIFIER $SYMPHONY_ISSUE_STATE run=$SYMPHONY_RUN_ID attempt=$SYMPHONY_ATTEMPT outcome=${{SYMPHONY_OUTCOME-unset}}\" >> ../../../told\n    [ -n \"$SYMPHONY_ISSUE_ID\" ] && [ \"$SYMPHONY_WORKFLOW\" = \"$(cd ../../.. && pwd)/WORKFLOW.md\" ]\n    {more}\n"));
    }
    front
}

#[test]
fn over_a_full_life_each_hook_runs_when_and_with_what_the_contract_says() {
    let project = Project::with(&telling(&[("after_create", "git clone -q ../../.. .")]));
    let body = "```sh\n[ -f ~/again ] || { touch ~/again; exit 1; }\necho x > x.txt\n```";
    project.issue("Todo", "H-1", body);
    assert_eq!(project.once(), 0);
    let told = project.read("told");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.len(), 6, "{told}");
    assert_eq!(lines[0], "after_create H-1 Todo run=1 attempt= outcome=unset");
    assert_eq!(lines[1], "before_run H-1 Todo run=1 attempt= outcome=unset");
    assert!(lines[2].starts_with("after_run H-1 Todo run=1 attempt= outcome=turn_failed"), "{told}");
    assert_eq!(lines[3], "before_run H-1 Todo run=2 attempt=1 outcome=unset");
    assert!(lines[4].starts_with("after_run H-1 ") && lines[4].ends_with(" run=2 attempt=1 outcome=done"), "{told}");
    assert!(lines[5].starts_with("before_remove H-1 Done run="), "{told}");
}

#[test]
fn a_hook_that_takes_too_long_ends_with_everything_it_started_and_after_run_still_runs() {
    let (mark, other) = (mark(), mark());
    let hang = format!("sleep {mark} & sleep {other} & wait");
    let project = Project::with(&telling(&[("before_run", &hang)]));
    project.issue("Todo", "H-1", "```sh\necho x > x.txt\n```");
    assert_eq!(project.once(), 3);
    assert!(sleepers(&mark).is_empty() && sleepers(&other).is_empty());
    let parked = project.parked_note("H-1");
    assert!(parked.contains("before_run_failed") && parked.contains("hooks.timeout_ms (2000 ms)"), "{parked}");
    let told = project.read("told");
    let ends = told.lines().filter(|line| line.starts_with("after_run") && line.contains("outcome=before_run_failed"));
    assert_eq!(ends.count(), 2, "{told}");
}

#[test]
fn a_failing_after_run_or_before_remove_changes_nothing() {
    let project = Project::with(&telling(&[("after_run", "exit 9"), ("before_remove", "exit 9")]));
    project.issue("Todo", "H-1", "```sh\necho x > x.txt\n```");
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Done/H-1.md") && !project.exists(".symphony/workspaces/H-1"));
}
