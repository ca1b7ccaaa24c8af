//! Troubles that are no kill: a journal that cannot be written, issues that cannot be moved, a machine that sleeps.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{FRONT, Project, git, until};

/// Says whether it ran beside another, and commits before and after a while.
const WORKS: &str = "```sh\nexec 8>>~/lock; flock -n 8 || { echo twice > overlap.txt; git add overlap.txt; }\n[ -e early.txt ] || { echo 1 > early.txt; git add -A; git commit -qm Early; }\nsleep 2\necho 2 > late.txt\n```";

fn is_whole(project: &Project, key: &str) {
    let clone = project.apply_patch(key);
    assert!(clone.join("early.txt").exists() && clone.join("late.txt").exists(), "{key}");
    assert!(!clone.join("overlap.txt").exists(), "{key} ran twice at once");
    assert_eq!(git(&clone, &["log", "-2", "--format=%s"]), format!("The title of {key}\nEarly"));
    let journal =
        symphony::journal::inspect::check(&project.dir().join(".symphony/journal.db"), None).expect("readable");
    journal.chain.expect("our format").expect("whole");
}

#[test]
fn a_journal_that_cannot_be_written_for_a_while_is_said_and_costs_no_work() {
    for (error, words) in [("enospc", "cannot grow"), ("eio", "cannot be used")] {
        let project = Project::new();
        for name in ["A-1", "B-1"] {
            project.issue("Todo", name, WORKS);
        }
        let order = format!("journal/*/torn:4-9={error}");
        let running = project.start_in(&["WORKFLOW.md", "--port", "0"], &[("SYMPHONY_FAILPOINT", &order)]);
        until("both to be done by themselves", || {
            ["A-1", "B-1"].iter().all(|name| project.exists(&format!("issues/Done/{name}.md")))
        });
        running.until_state("the last end", |state| state["running"] == serde_json::json!([]));
        let log = running.log();
        assert!(log.contains(words), "{log}");
        assert_eq!(running.stop(), 0);
        for name in ["A-1", "B-1"] {
            is_whole(&project, name);
        }
    }
}

#[test]
fn finished_work_whose_issue_cannot_be_moved_is_kept_and_the_next_start_hands_it_off() {
    let project = Project::new();
    project.issue("Todo", "A-1", WORKS);
    // Neither to Done nor to Parked, as in a directory that became read-only.
    let env = [("SYMPHONY_FAILPOINT", "issue/move/before:1-=eio")];
    let running = project.start_in(&["WORKFLOW.md", "--port", "0"], &env);
    until("its trouble to be said", || running.log().contains("an issue could not be parked"));
    running.until_state("the end of the run", |state| state["running"] == serde_json::json!([]));
    assert!(project.exists("issues/Todo/A-1.md") && project.exists(".symphony/patches/agent_A-1.patch"));
    assert_eq!(running.stop(), 0);

    let running = project.start();
    project.wait_for("issues/Done/A-1.md");
    assert_eq!(running.stop(), 0);
    is_whole(&project, "A-1");
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/patches")).expect("patches").count(), 1);
}

#[test]
fn a_kill_while_the_journal_makes_room_leaves_the_old_chain_or_the_new_one() {
    let one_by_one = FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents: 1\n");
    for point in ["before", "torn", "after"] {
        let project = Project::with(&format!("{one_by_one}retention:\n  journal_events: 10\n"));
        let names: Vec<String> = (1..=8).map(|number| format!("A-{number}")).collect();
        for name in &names {
            project.issue("Todo", name, "```sh\ntrue\n```");
        }
        let order = format!("journal/compacted/{point}");
        let mut running = project.start_in(&["WORKFLOW.md", "--port", "0"], &[("SYMPHONY_FAILPOINT", &order)]);
        until("the kill", || running.ended());
        assert!(running.killed(), "{}", running.log());
        let running = project.start();
        until("all to be done", || names.iter().all(|name| project.exists(&format!("issues/Done/{name}.md"))));
        running.until_state("the last end", |state| state["running"] == serde_json::json!([]));
        assert_eq!(running.stop(), 0);
        let path = project.dir().join(".symphony/journal.db");
        let report = symphony::journal::inspect::check(&path, None).expect("readable");
        let chain = report.chain.expect("our format").expect("whole");
        assert!(chain.checkpoint.is_some() && chain.events <= 26, "{point}: {chain:?}");
        let rows = |table| report.rows.iter().find(|(name, _)| *name == table).expect("counted").1;
        assert!(rows("runs") < 8 && rows("counters") == 8, "{point}: {:?}", report.rows);
    }
}

/// All processes below one, and itself first.
fn family(top: i32) -> Vec<i32> {
    let parent_of = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").expect("proc").flatten();
    let all: Vec<i32> = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let mut family = vec![top];
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        family.extend(all.iter().filter(|pid| parent_of(**pid) == Some(parent)));
        at += 1;
    }
    family
}

/// As an hour asleep is to limits of an hour.
#[test]
fn a_machine_that_sleeps_longer_than_every_limit_loses_nothing_and_runs_nothing_twice() {
    let limits = "acp:\n  stall_timeout_ms: 5000\n  turn_timeout_ms: 5000\n  prompt_timeout_ms: 6000\n";
    let project = Project::with(&FRONT.replace("acp:\n", limits));
    project.issue("Todo", "A-1", WORKS);
    let running = project.start();
    project.wait_for(".symphony/disks/A-1/tree/early.txt");
    let asleep = family(running.pid());
    assert!(asleep.len() > 3, "the sandbox is among them");
    let send = |signal| {
        for pid in &asleep {
            let _ = kill_process(Pid::from_raw(*pid).expect("a pid"), signal);
        }
    };
    send(Signal::STOP);
    std::thread::sleep(Duration::from_secs(8));
    send(Signal::CONT);
    until("the issue to be done", || project.exists("issues/Done/A-1.md"));
    running.until_state("the end of its run", |state| state["running"] == serde_json::json!([]));
    assert_eq!(running.stop(), 0);
    is_whole(&project, "A-1");
}
