//! The whole program with its runs in machines: issue in, question, patch out, and nothing lost on the way.

use serde_json::json;

use super::bench::{acting, have_machines};
use crate::rig::{FRONT, Project, Running, until};

/// Asks once, then writes down the answer and the kernel it ran on.
const ASKS: &str = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Which colour?'; exit 75; fi\nprintf '%s\\n' \"$SYMPHONY_ANSWER\" > colour.txt\nuname -n > host.txt; ls /sys/class/net > net.txt\n```";

fn project(templates: bool) -> Project {
    let sandbox =
        format!("sandbox: {{runtime: qemu, memory_mib: 512, cpus: 1, disk_mib: 1024, templates: {templates}}}\n");
    let mut project = Project::with(&format!("{FRONT}{sandbox}"));
    project.microvms = true;
    project
}

fn ask_and_answer(project: &Project, running: &Running, name: &str) {
    project.issue("Todo", name, ASKS);
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    let label = running.state()["running"][0]["sandbox"].clone();
    assert!(label.as_str().is_some_and(|label| label.starts_with("qemu (")), "{label}");
    let path = format!("/api/v1/issues/{name}/steering-reply");
    assert_eq!(running.post(&path, &json!({"text": "green"})).status, 202);
    until("the issue to be done", || project.exists(&format!("issues/Done/{name}.md")));
    let clone = project.apply_patch(name);
    let read = |file: &str| std::fs::read_to_string(clone.join(file)).expect("written");
    assert_eq!(
        (read("colour.txt"), read("host.txt"), read("net.txt")),
        ("green\n".into(), "symphony\n".into(), "lo\n".into())
    );
}

#[test]
fn an_issue_goes_from_todo_to_a_patch_in_a_machine_that_is_booted_cold() {
    if !have_machines() {
        return;
    }
    let project = project(false);
    let running = project.start();
    ask_and_answer(&project, &running, "Q-1");
    assert!(!project.exists(".symphony/machines/templates"));
}

#[test]
fn an_issue_goes_from_todo_to_a_patch_in_a_machine_that_is_restored_from_a_template() {
    if !have_machines() {
        return;
    }
    let project = project(true);
    let running = project.start();
    ask_and_answer(&project, &running, "Q-1");
    ask_and_answer(&project, &running, "Q-2");
    let log = running.log();
    assert!(!log.contains("boots cold") && !log.contains("boot cold"), "{log}");
    let templates = std::fs::read_dir(project.dir().join(".symphony/machines/templates")).expect("made");
    assert_eq!(templates.count(), 1);
    until("the disks to be gone", || {
        std::fs::read_dir(project.dir().join(".symphony/machines/qemu")).is_ok_and(|disks| disks.count() == 0)
    });
}

#[test]
fn work_in_a_machine_survives_a_kill_of_symphony() {
    if !have_machines() {
        return;
    }
    let project = project(true);
    let body = "```sh\nif [ ! -e one.txt ]; then echo 1 > one.txt; git add one.txt; git commit -qm One; sync; sleep 300; fi\necho 2 > two.txt\n```";
    project.issue("Todo", "K-1", body);
    let running = project.start();
    running.until_state("a turn", |s| s["running"][0]["turn_count"] == json!(1));
    // The guest's own clock is not ours: that its commit was flushed cannot be seen from here.
    std::thread::sleep(std::time::Duration::from_secs(4));
    running.signal(rustix::process::Signal::KILL);
    drop(running);
    let running = project.start();
    until("the issue to be done", || project.exists("issues/Done/K-1.md"));
    let clone = project.apply_patch("K-1");
    assert!(clone.join("one.txt").exists() && clone.join("two.txt").exists());
    let log = crate::rig::git(&clone, &["log", "--format=%s"]);
    assert!(log.contains("One"), "the commit of the killed run came out: {log}");
    drop(running);
}

#[test]
fn a_late_answer_goes_to_the_session_that_asked_on_the_disk_of_its_machine() {
    if !have_machines() {
        return;
    }
    let scenario = "sessions=load\nturn() { if [ $past = 1 ]; then call request_human_steering '{\"question\":\"Which colour?\"}'; \
                    else call mark_done '{\"title\":\"The end\",\"summary\":\"All.\"}'; fi; }\n";
    let project = acting(scenario, "steering: {release_after_ms: 300}\n");
    project.issue("Todo", "S-1", "Do it well.");
    let running = project.start();
    running.until_state("the release", |s| s["running"] == json!([]) && s["asked"][0]["steering_question"].is_string());
    assert_eq!(running.post("/api/v1/issues/S-1/steering-reply", &json!({"text": "green"})).status, 202);
    until("the issue to be done", || project.exists("issues/Done/S-1.md"));
    let log = running.log();
    assert!(log.contains("agent session continued") && !log.contains("not continued"), "{log}");
    let prompts = project.transcripts().lines().filter(|line| line.contains("session/prompt")).count();
    assert_eq!(prompts, 2);
}
