//! Somebody kills a part of a run, or the whole program, at the worst moment.

use rustix::process::Signal;

use super::{ancestor, mark, send, sleeper, sleepers, starts, until_gone};
use crate::rig::{FRONT, Project, git, until};

/// Commits at once, then, in its first run only, sleeps until it is killed. What it commits says which run did.
fn commits_and_sleeps(mark: &str) -> String {
    format!(
        "```sh\necho run >> ~/runs\nif [ ! -f early.txt ]; then wc -l < ~/runs > early.txt; git add -A; git commit -qm Early; fi\n[ $(wc -l < ~/runs) -gt 1 ] || sleep {mark}\nwc -l < ~/runs > late.txt\n```"
    )
}

/// The patch holds what the first run committed and what the second one finished.
fn nothing_was_lost(project: &Project, key: &str) {
    let clone = project.apply_patch(key);
    let number = |name: &str| std::fs::read_to_string(clone.join(name)).expect("a file").trim().to_owned();
    assert_eq!((number("early.txt").as_str(), number("late.txt").as_str()), ("1", "2"), "{key}");
    assert_eq!(git(&clone, &["log", "-2", "--format=%s"]), format!("The title of {key}\nEarly"));
}

/// From the sleeping program up: its shell, the agent, the guest program, the jail's first process, the launcher.
const VICTIMS: [(&str, u32); 4] = [("agent", 2), ("guest", 3), ("init", 4), ("launcher", 5)];

#[test]
fn killing_the_agent_the_guest_program_or_the_whole_jail_mid_turn_ends_the_run_and_the_next_one_finishes() {
    let project = Project::new();
    let marks = VICTIMS.map(|_| mark());
    for ((name, _), mark) in VICTIMS.iter().zip(&marks) {
        project.issue("Todo", name, &commits_and_sleeps(mark));
    }
    let running = project.start();
    for ((name, generations), mark) in VICTIMS.iter().zip(&marks) {
        let asleep = sleeper(mark);
        let victim = ancestor(asleep, *generations);
        assert_eq!(ancestor(asleep, 6), running.pid(), "the family is as this test believes");
        send(victim, Signal::KILL);
        until_gone(mark);
        until(&format!("{name} to be done"), || project.exists(&format!("issues/Done/{name}.md")));
        nothing_was_lost(&project, name);
        assert_eq!(starts(&running, name), 2, "{}", running.log());
        let log = running.log();
        let ended = log.lines().find(|line| line.contains("run ended") && line.contains(&format!("={name} ")));
        assert!(ended.is_some_and(|line| line.contains("port_exit")), "{name}: {ended:?}");
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn kill_9_of_symphony_leaves_no_process_and_a_restart_finishes_with_exactly_one_agent() {
    let project = Project::new();
    let mark = mark();
    project.issue("Todo", "K-1", &commits_and_sleeps(&mark));
    let running = project.start();
    sleeper(&mark);
    running.signal(Signal::KILL);
    until_gone(&mark);
    drop(running);

    let running = project.start();
    until("the issue to be done", || project.exists("issues/Done/K-1.md"));
    nothing_was_lost(&project, "K-1");
    assert_eq!((starts(&running, "K-1"), sleepers(&mark).len()), (1, 0));
    assert!(running.log().contains("run_id=2"), "numbers go on: {}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn kill_9_of_symphony_ends_its_hooks_too() {
    let mark = mark();
    let project = Project::with(&format!(
        "{FRONT}hooks:\n  before_run: |\n    [ -f ../../../again ] || {{ touch ../../../again; sleep {mark} & wait; }}\n"
    ));
    project.issue("Todo", "K-1", "```sh\necho x > x.txt\n```");
    let running = project.start();
    sleeper(&mark);
    running.signal(Signal::KILL);
    until_gone(&mark);
    drop(running);
    assert_eq!(project.once(), 0);
    assert!(project.exists(".symphony/patches/agent_K-1.patch"));
}

#[test]
fn a_guest_program_that_stands_still_costs_a_bounded_time_and_its_work_is_kept() {
    let project = Project::with(&FRONT.replace("acp:\n", "acp:\n  stall_timeout_ms: 1500\n  turn_timeout_ms: 1500\n"));
    let mark = mark();
    project.issue("Todo", "P-1", &commits_and_sleeps(&mark));
    let running = project.start();
    let guest = ancestor(sleeper(&mark), 3);
    send(guest, Signal::STOP);
    until_gone(&mark);
    until("the issue to be done", || project.exists("issues/Done/P-1.md"));
    nothing_was_lost(&project, "P-1");
    assert_eq!(running.stop(), 0);
}

/// Regression: the sweep of finished issues removed a work disk whose commits had never come out.
#[test]
fn a_work_disk_whose_work_never_came_out_is_kept_though_a_person_finished_the_issue() {
    let project = Project::new();
    project.issue(
        "Todo",
        "A-1",
        "```sh\necho x > x.txt; git add x.txt; git commit -qm X; touch ~/ready; sleep 300\n```",
    );
    project.issue("Todo", "B-1", "```sh\necho y > y.txt\n```");
    let running = project.start();
    project.wait_for(".symphony/disks/A-1/home/ready");
    until("the disk of B-1 to go", || project.exists("issues/Done/B-1.md") && !project.exists(".symphony/disks/B-1"));
    running.signal(Signal::KILL);
    drop(running);
    std::fs::create_dir_all(project.dir().join("issues/Done")).expect("directory");
    std::fs::rename(project.dir().join("issues/Todo/A-1.md"), project.dir().join("issues/Done/A-1.md")).expect("moved");
    project.once();
    assert!(project.exists(".symphony/disks/A-1/tree/x.txt"), "kept");
}
