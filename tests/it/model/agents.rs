//! Agents that are started by their name: what they are told, and what is said where they cannot start.

use std::os::unix::fs::PermissionsExt as _;

use super::server::Server;
use super::{BOTH, command, noted};
use crate::rig::{FRONT, Project, until};

/// A project for an agent of this name, all providers at `server`; below `bin` is what the sandbox has.
pub(super) fn project(adapter: &str, server: &Server) -> Project {
    let project = Project::new();
    let url = &server.url;
    let bin = project.beside("brought").canonicalize().unwrap_or_else(|_| project.beside("brought"));
    std::fs::create_dir_all(bin.join("bin")).expect("made");
    std::fs::create_dir_all(project.beside("home")).expect("home");
    let front = format!(
        "{}sandbox:\n  jail:\n    read_only: [{}]\nproviders:\n  anthropic:\n    base_url: {url}\n  openai:\n    base_url: {url}/v1\n  google:\n    base_url: {url}\n",
        FRONT.replace("adapter: script\n", &format!("adapter: {adapter}\n  model: some/model-1\n  effort: high\n")),
        bin.display()
    );
    project.write("WORKFLOW.md", &format!("---\n{front}---\nWork.\n"));
    project.issue("Todo", "A-1", "Work.");
    project
}

/// Notes what it was told.
const NOTES: &str = "turn() { answer=$(env); note told; answer=$ARGUMENTS; note arguments; answer=$(cd; cat .codex/config.toml); note home; \
                     call mark_done '{\"title\":\"Told\",\"summary\":\"All of it.\"}'; }";

/// A stand-in for the vendor's program, which plays this.
pub(super) fn install(project: &Project, program: &str, scenario: &str) {
    let dir = project.beside("brought").canonicalize().expect("there");
    std::fs::write(dir.join("scenario.sh"), scenario).expect("scenario");
    std::fs::write(dir.join("acp.sh"), include_str!("../agents/acp.sh")).expect("agent");
    let path = dir.join("bin").join(program);
    let at = dir.display();
    std::fs::write(&path, format!("#!/bin/sh\nexport ARGUMENTS=\"$*\"\nexec bash {at}/acp.sh {at}/scenario.sh\n"))
        .expect("program");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}

/// Regression: an agent that started was all doctor said, though its issues would have waited for a key.
#[test]
fn doctor_says_with_which_credential_an_agent_would_ask_its_models_and_what_version_is_tried() {
    let server = Server::start();
    let project = project("claude", &server);
    install(&project, "claude-agent-acp", "");
    let workflow = project.read("WORKFLOW.md").replace(&format!("  anthropic:\n    base_url: {}\n", server.url), "");
    project.write("WORKFLOW.md", &workflow);
    let said = |env: &[(&str, &str)]| {
        let output = command(&project, &["doctor", "--agent", "claude"], env).output().expect("starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let without = said(&[]);
    assert!(
        without.contains("credential anthropic: ! no credential for anthropic on the host: set ANTHROPIC_API_KEY"),
        "{without}"
    );
    assert!(!without.contains("openai"), "it does not ask there: {without}");
    assert!(without.contains("; symphony is tried with 0.100.0"), "{without}");
    let with = said(&BOTH);
    assert!(
        with.contains("credential anthropic: the key in ANTHROPIC_API_KEY") && !with.contains(super::KEY),
        "{with}"
    );
}

#[test]
fn an_agent_starts_by_its_name_from_a_listed_path_and_is_told_model_and_broker() {
    for (adapter, program, told) in [
        (
            "claude",
            "claude-agent-acp",
            &[
                "ANTHROPIC_MODEL=some/model-1",
                "CLAUDE_CODE_EFFORT_LEVEL=high",
                "CLAUDE_CODE_MAX_RETRIES=1",
                "IS_SANDBOX=1",
            ][..],
        ),
        (
            "codex",
            "codex-acp",
            &[
                "\"model\":\"some/model-1\"",
                "\"model_reasoning_effort\":\"high\"",
                "OPENAI_BASE_URL=http://127.0.0.1:8485/openai/v1",
            ],
        ),
        ("opencode", "opencode", &["http://127.0.0.1:8485/anthropic/v1", "\"small_model\":\"some/model-1\""]),
    ] {
        let server = Server::start();
        let project = project(adapter, &server);
        install(&project, program, NOTES);
        let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
        until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
        project.wait_for(".symphony/patches/agent_A-1.patch");
        let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
        for part in told {
            assert!(noted(&notes, "told").contains(part), "{adapter}: no {part} in {notes}");
        }
        assert_eq!(noted(&notes, "arguments").trim(), if adapter == "opencode" { "acp" } else { "" });
        let home = if adapter == "codex" { "[features]\nplugins = false" } else { "" };
        assert_eq!(noted(&notes, "home").trim(), home, "what it wants in its home is there");
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn a_program_that_the_sandbox_lacks_parks_the_issue_after_one_run_and_says_how_to_install_it() {
    let server = Server::start();
    let project = project("claude", &server);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let note = project.parked_note("A-1");
    for part in
        ["cannot start `claude-agent-acp`", "npm install --global @agentclientprotocol/claude-agent-acp@", "read_only"]
    {
        assert!(note.contains(part), "no {part} in {note}");
    }
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "no retry");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_program_whose_interpreter_is_missing_parks_the_issue_after_one_run_and_says_what_it_runs_on() {
    let server = Server::start();
    let project = project("claude", &server);
    let path = project.beside("brought").canonicalize().expect("there").join("bin/claude-agent-acp");
    std::fs::write(&path, "#!/usr/bin/env no-such-node\n").expect("program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let note = project.parked_note("A-1");
    for part in ["`claude` ended at once with exit code 127", "no-such-node", "on Node 22 or newer"] {
        assert!(note.contains(part), "no {part} in {note}");
    }
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "no retry");
    let tried = command(&project, &["doctor", "--agent", "claude", "--json"], &[]).output().expect("runs");
    let tried: serde_json::Value = serde_json::from_slice(&tried.stdout).expect("JSON");
    assert!(tried["ok"] == false && tried["says"].as_str().is_some_and(|says| says.contains("on Node 22")), "{tried}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn without_a_credential_for_its_provider_an_issue_waits_with_the_remedy_and_starts_when_there_is_one() {
    let server = Server::start();
    let project = project("codex", &server);
    install(&project, "codex-acp", NOTES);
    let own = project.read("WORKFLOW.md").replace(&format!("\n    base_url: {}/v1", server.url), " {}");
    project.write("WORKFLOW.md", &own);
    let only_the_other = [("ANTHROPIC_API_KEY", super::KEY)];
    let remedy = "no credential for openai on the host: set OPENAI_API_KEY, or log in with `codex login`";
    let said = command(&project, &["doctor"], &only_the_other).output().expect("runs").stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains(&format!("codex-acp: {remedy}")), "{said}");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &only_the_other));
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    assert_eq!(state["idle"][0]["reason"], remedy, "{state}");
    let told = command(&project, &["explain", "A-1"], &[]).output().expect("runs").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(told.contains(remedy) && told.contains("It starts by itself once there is one that works."), "{told}");
    assert!(!project.exists(".symphony/workspaces/A-1") && !project.exists("issues/Parked/A-1.md"));
    let login = project.beside("home/.codex");
    std::fs::create_dir_all(&login).expect("directory");
    std::fs::write(login.join("auth.json"), r#"{"OPENAI_API_KEY": "planted-new-key"}"#).expect("a login");
    project.wait_for(".symphony/patches/agent_A-1.patch");
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 1, "none before it");
    assert_eq!(running.stop(), 0);
}
