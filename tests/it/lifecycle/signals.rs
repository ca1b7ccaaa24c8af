//! The first signal drains, the second kills, and nothing stays behind.

use rustix::process::Signal;

use super::{mark, sleeper, sleepers, until_gone};
use crate::rig::{FRONT, Project, git};

#[test]
fn the_first_signal_cancels_exports_runs_after_run_and_leaves_no_process() {
    let project = Project::with(&format!(
        "{FRONT}hooks:\n  after_run: |\n    printf %s \"$SYMPHONY_OUTCOME\" > ../../../outcome\n"
    ));
    let mark = mark();
    project.issue(
        "Todo",
        "T-1",
        &format!("```sh\necho made > made.txt; git add -A; git commit -qm Made\nsleep {mark}\n```"),
    );
    let running = project.start();
    sleeper(&mark);
    assert_eq!(running.stop(), 0);
    assert!(sleepers(&mark).is_empty());
    let outcome = project.read("outcome");
    assert!(outcome.contains("stopped") && outcome.contains("shutting down"), "{outcome}");
    let said = project.read(".symphony/runs/1/acp.jsonl");
    assert!(said.contains("session/cancel"), "{said}");
    let airlock = project.dir().join(".symphony/airlock/T-1.git");
    assert_eq!(git(&airlock, &["--git-dir=.", "log", "-1", "--format=%s", "refs/symphony/head"]), "Made");
    assert!(project.exists("issues/Todo/T-1.md"), "it goes on after the next start");
}

#[test]
fn a_second_signal_kills_at_once_and_leaves_no_process_either() {
    let hook = mark();
    let project = Project::with(&format!("{FRONT}hooks:\n  after_run: sleep {hook} & wait\n"));
    let agent = mark();
    project.issue("Todo", "T-1", &format!("```sh\nsleep {agent}\n```"));
    let mut running = project.start();
    sleeper(&agent);
    running.signal(Signal::TERM);
    sleeper(&hook);
    running.signal(Signal::TERM);
    assert_eq!(running.code(), 1);
    until_gone(&hook);
    assert!(sleepers(&agent).is_empty());
}

#[test]
fn a_second_symphony_on_the_same_workflow_is_refused_and_the_first_goes_on() {
    let project = Project::new();
    let running = project.start();
    let refused = project.run(&["WORKFLOW.md", "--once"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another symphony runs on this workflow") && said.contains(&running.pid().to_string()),
        "{said}"
    );
    project.issue("Todo", "A-1", "```sh\necho x > x.txt\n```");
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
    // Freed with its holder; and the numbers of runs go on.
    project.issue("Todo", "A-2", "```sh\ntrue\n```");
    assert_eq!(project.once(), 0);
    assert!(project.exists(".symphony/runs/2") && project.exists("issues/Done/A-2.md"));
}

/// Regression: the banner came before anybody listened for signals, and who was quick killed instead of stopping.
#[test]
fn a_stop_at_the_first_line_of_the_banner_is_in_order() {
    use std::io::BufRead as _;
    for round in 0..20 {
        let project = Project::new();
        let mut command = project.command(&["WORKFLOW.md"]);
        let mut child =
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("starts");
        let mut lines = std::io::BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.next().is_some_and(|line| line.is_ok_and(|line| line.starts_with("symphony "))));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        // Nobody may be stopped from saying the rest.
        let _ = lines.count();
        assert_eq!(child.wait().expect("a child").code(), Some(0), "round {round}");
    }
}
