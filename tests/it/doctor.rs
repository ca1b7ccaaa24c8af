//! `symphony doctor` on this machine: real trials, and limits that were really tried.

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use serde_json::Value;
use symphony::sandbox::jail::Jail;
use symphony::sandbox::measure::{Verdict, measure};
use symphony::sandbox::{BootError, BootSpec, Guest, Sandbox, TrialReport};

use crate::jail::bench::{both_ways, program};
use crate::rig::{FRONT, Project};
use crate::skip::skip_part;

fn doctor(project: &Project, args: &[&str]) -> (i32, String) {
    let output = project.run(&[&["doctor"], args].concat());
    (output.status.code().expect("not killed"), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn json(project: &Project, args: &[&str]) -> (i32, Value) {
    let (code, out) = doctor(project, &[args, &["--json"]].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}

fn runtime<'a>(found: &'a Value, name: &str) -> &'a Value {
    let all = found["runtimes"].as_array().expect("a list");
    all.iter().find(|one| one["runtime"] == name).unwrap_or_else(|| panic!("no {name} in {found}"))
}

#[test]
fn every_runtime_is_tried_its_limits_are_measured_and_nothing_is_left() {
    let project = Project::new();
    let (code, found) = json(&project, &[]);
    assert_eq!(code, 0, "{found}");
    let names: Vec<_> =
        found["runtimes"].as_array().expect("a list").iter().map(|one| one["runtime"].clone()).collect();
    assert_eq!(names, ["smolvm", "qemu-kvm", "qemu-tcg", "jail"]);
    let jail = runtime(&found, "jail");
    assert_eq!(jail["works"], true);
    let verdict = |what: &str| {
        let limits = jail["limits"].as_array().expect("a list");
        limits.iter().find(|limit| limit["what"] == what).expect("measured")["verdict"].clone()
    };
    for what in ["network", "file size", "processes"] {
        assert_eq!(verdict(what), "enforced", "{what}");
    }
    assert_eq!(verdict("disk"), "not-enforced", "a jail's disk is a directory");
    assert_eq!(found["agents"][0]["says"], "script, built in");
    assert!(!project.exists(".symphony"), "it needs no state of its own");
    let (_, text) = doctor(&project, &[]);
    for line in
        ["  git       2", "  agent     script, built in", "jail: works; ", "  disk       NOT enforced", "auto takes "]
    {
        assert!(text.lines().any(|found| found.starts_with(line)), "no {line:?} in\n{text}");
    }
}

#[test]
fn a_demand_that_this_machine_cannot_meet_is_exit_code_1_and_says_what_auto_would_take() {
    let project = Project::with(&format!("{FRONT}sandbox: {{minimum: microvm}}\n"));
    let (code, found) = json(&project, &[]);
    let microvm = ["smolvm", "qemu-kvm"].iter().any(|name| runtime(&found, name)["works"] == true);
    assert_eq!(code, i32::from(!microvm));
    if microvm {
        skip_part("this machine has a microVM");
        return;
    }
    assert_eq!(found["chosen"]["runtime"], Value::Null);
    let reason = found["chosen"]["reason"].as_str().expect("a sentence");
    assert!(reason.contains("sandbox.minimum is microvm") && reason.contains("smolvm") && reason.contains("qemu"));
    assert_eq!(found["auto"]["runtime"], "jail");
}

#[test]
fn a_broken_workflow_fails_but_none_is_only_said_unless_it_was_named() {
    let project = Project::new();
    project.write("WORKFLOW.md", "---\ntracker: {kind: local}\nsandbox: {runtime: docker}\n---\n");
    let (code, text) = doctor(&project, &[]);
    assert!(code == 1 && text.contains("! ") && text.contains("WORKFLOW.md:3:"), "{code}: {text}");
    assert!(text.contains("what follows is about the defaults"), "{text}");
    let missing = project.run(&["doctor", "--workflow", "none.md"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no workflow file at none.md"));
    std::fs::remove_file(project.dir().join("WORKFLOW.md")).expect("removed");
    let (code, found) = json(&project, &[]);
    assert_eq!((code, &found["workflow"], &found["problems"]), (0, &Value::Null, &serde_json::json!([])));
    assert_eq!(found["git"]["ok"], true);
    assert_eq!(found["agents"][0]["ok"], false, "the default needs a command");
    assert_eq!(project.run(&["doctor", "--what"]).status.code(), Some(2));
}

#[test]
fn an_agent_that_cannot_start_and_a_default_profile_that_is_refused_are_exit_code_1() {
    let profiles = "  profiles:\n    big: {pids: 600}\n    vm: {image: ./vm/out}\n";
    let with = |front: &str, profile: &str| {
        let project = Project::with(&format!("{front}sandbox:\n  runtime: jail\n{profile}{profiles}"));
        doctor(&project, &[])
    };
    let (code, text) = with(FRONT, "  profile: big\n");
    assert!(code == 0 && text.contains("profile big (the default): jail"), "{code}: {text}");
    assert!(text.contains("profile vm: refused: it names an image, which a jail cannot have"), "{text}");
    let (code, text) = with(FRONT, "  profile: vm\n");
    assert!(code == 1 && text.contains("profile vm (the default): refused: "), "{code}: {text}");
    let (code, text) = with("tracker: {kind: local}\n", "");
    assert!(code == 1 && text.contains("  agent     ! "), "{code}: {text}");
}

#[test]
fn it_runs_beside_a_symphony() {
    let project = Project::new();
    project.issue("Todo", "W-1", "```sh\ntouch ~/ready; while [ ! -e ~/go ]; do sleep 0.1; done; echo x > x.txt\n```");
    let running = project.start();
    project.wait_for(".symphony/disks/W-1/home/ready");
    assert_eq!(doctor(&project, &[]).0, 0);
    std::fs::write(project.dir().join(".symphony/disks/W-1/home/go"), "").expect("written");
    project.wait_for("issues/Done/W-1.md");
    assert_eq!(running.stop(), 0);
}

/// Regression: one process was judged, so a limit that holds for each of them counted as one of the sandbox. An ordinary
/// user has no control group here.
#[test]
fn memory_that_is_limited_per_process_only_is_measured_as_not_enforced() {
    both_ways("doctor::memory_that_is_limited_per_process_only_is_measured_as_not_enforced", |bench| async move {
        let measured = measure(&bench.jail, None).await.expect("boots");
        let finding = measured.findings.iter().find(|finding| finding.what == "memory").expect("measured");
        let expected = if finding.by == "per process only" { Verdict::NotEnforced } else { Verdict::Enforced };
        println!("{}: {:?}", finding.by, finding.verdict);
        assert_eq!(finding.verdict, expected, "{}", finding.by);
    });
}

/// A jail without limits: the negative control of the measurements.
struct Lax(Jail);

impl Sandbox for Lax {
    fn label(&self) -> &'static str {
        self.0.label()
    }

    fn trial(&self, _: Option<PathBuf>) -> BoxFuture<'_, Result<TrialReport, BootError>> {
        self.0.trial(None)
    }

    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<Guest, BootError>> {
        self.0.boot(BootSpec { memory_mib: 1 << 20, pids: 1 << 20, file_size_mib: 1 << 20, ..spec })
    }

    fn discard_disk<'a>(&'a self, disk: &'a Path) -> BoxFuture<'a, Result<(), BootError>> {
        self.0.discard_disk(disk)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_are_off_are_measured_as_not_enforced() {
    let lax = Lax(Jail::new(program()));
    let measured = measure(&lax, None).await.expect("boots");
    for what in ["file size", "disk", "processes", "memory"] {
        let finding = measured.findings.iter().find(|finding| finding.what == what).expect("measured");
        assert_eq!(finding.verdict, Verdict::NotEnforced, "{what}");
    }
}

#[test]
fn an_agent_is_started_for_real_and_says_what_it_is_and_can() {
    let scenario = "sessions=load";
    let project = Project::acting(scenario, "");
    let (code, tried) = json(&project, &["--agent", "command"]);
    assert_eq!((code, &tried["ok"]), (0, &Value::Bool(true)), "{tried}");
    assert_eq!(
        (&tried["load_session"], &tried["resume_session"]),
        (&Value::Bool(true), &Value::Bool(false)),
        "{tried}"
    );
    assert_eq!((&tried["mcp_http"], &tried["tools_listed"]), (&Value::Bool(true), &Value::Bool(true)), "{tried}");
    for measured in ["boot_ms", "initialize_ms", "session_ms", "memory_mib"] {
        assert!(tried[measured].is_u64(), "no {measured} in {tried}");
    }
    let (_, text) = doctor(&project, &["--agent", "command"]);
    assert!(text.contains("its sessions (session/load)") && text.contains("it asked for ours"), "{text}");
    let (code, text) = doctor(&project, &["--agent", "script"]);
    assert!(code == 0 && text.contains("script, built in") && text.contains("before its first prompt"), "{text}");
    let (code, text) = doctor(&project, &["--agent", "opencode"]);
    assert!(code == 1 && text.contains("opencode-ai@") && text.contains("sandbox.jail.read_only"), "{text}");
    let unknown = project.run(&["doctor", "--agent", "claud"]);
    assert_eq!(unknown.status.code(), Some(2));
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        said.contains("there is no agent `claud`; known are claude, codex, opencode, gemini, script, command"),
        "{said}"
    );
    assert!(!project.exists(".symphony"), "it needs no state of its own");
}

/// Regression: a program in `bin/` took what a stranger had put into `vm/image` two directories up for its clone's.
#[test]
fn a_program_that_lies_elsewhere_takes_no_planted_image() {
    let mut project = Project::with(&format!("{FRONT}sandbox: {{minimum: microvm}}\n"));
    project.microvms = true;
    let (planted, program) = (project.beside("vm/image"), project.beside("trial/bin/symphony"));
    std::fs::create_dir_all(&planted).expect("made");
    std::fs::create_dir_all(program.parent().expect("below")).expect("made");
    std::fs::copy(env!("CARGO_BIN_EXE_symphony"), &program).expect("copied");
    std::fs::write(planted.join("manifest.json"), "planted").expect("planted");
    std::fs::write(planted.join("symphony-guest"), "planted").expect("planted");
    let program = program.to_str().expect("a path");
    let mut doctor = project.around(program, &["doctor", "--json"]);
    let output = doctor.env("XDG_DATA_HOME", project.beside("data")).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("there is no VM image in "), "{said}");
    assert!(!said.contains(planted.to_str().expect("a path")) && !said.contains("not a manifest"), "{said}");
}
