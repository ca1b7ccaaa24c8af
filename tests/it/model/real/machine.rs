//! A real agent in a microVM, from issue to patch. `SYMPHONY_TEST_AGENT_IMAGE` names an image with the layer of agents;
//! where the machine is emulated, its processors are some ten times slower, and so are the limits here.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::peak::Peak;
use super::{ALL, Agent, CLAUDE, CODEX, GEMINI, OPENCODE, figure, project};
use crate::model::server::Server;
use crate::model::{KEY, command};
use crate::rig::until_within;
use crate::skip::skip;

const LONG: Duration = Duration::from_secs(8 * 60);

/// `None`: it was said why there is none.
fn image() -> Option<PathBuf> {
    let Some(image) = std::env::var_os("SYMPHONY_TEST_AGENT_IMAGE").map(PathBuf::from) else {
        skip("there is no image with agents; scripts/test-agents builds one where QEMU and npm are installed");
        return None;
    };
    assert!(image.join("agents.erofs").exists(), "{} has no layer of agents", image.display());
    Some(image)
}

#[track_caller]
fn makes_a_patch_in_a_machine(agent: &Agent) {
    let Some(image) = image() else { return };
    let server = Server::start();
    server.has_done("uname -n >host.txt; ls /sys/class/net >net.txt; git add -A; git commit -qm 'Make it'");
    let sandbox = format!(
        "sandbox:\n  runtime: qemu\n  image: {}\n  templates: false\n  memory_mib: 2048\n  cpus: 2\n",
        image.display()
    );
    let limits = "  boot_timeout_ms: 240000\n  read_timeout_ms: 300000\n";
    let project = project(agent, &server, &sandbox, limits);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &ALL));
    let peak = Peak::below(running.pid(), |exe| {
        exe.file_name().is_some_and(|name| name.to_string_lossy().starts_with("qemu-system-"))
    });
    let started = Instant::now();
    project.issue("Todo", "A-1", "Make it.");
    let over = || project.exists("issues/Done/A-1.md") || project.exists("issues/Parked/A-1.md");
    until_within(LONG, "the first request", || !server.asked().is_empty() || over());
    let first = started.elapsed();
    let label = running.state()["running"][0]["sandbox"].as_str().unwrap_or_default().to_owned();
    until_within(LONG, "the issue to be done", over);
    let whole = started.elapsed();
    assert!(project.exists("issues/Done/A-1.md"), "{}\n{}", running.log(), project.transcripts());
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let clone = project.apply_patch("A-1");
    let read = |name: &str| std::fs::read_to_string(clone.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    // It ran in the machine, and the machine has no network.
    assert_eq!((read("host.txt").as_str(), read("net.txt").as_str()), ("symphony\n", "lo\n"));
    assert!(label.starts_with("qemu ("), "{label}");
    assert!(server.asked().iter().all(|asked| asked.head.contains(KEY)) && !project.transcripts().contains(KEY));
    let memory = peak.said();
    assert_eq!(running.stop(), 0);
    figure(&format!(
        "{} in {label}: first request after {first:.1?}, all after {whole:.1?}, {memory} (the emulator), {} requests",
        agent.adapter,
        server.asked().len()
    ));
}

#[test]
fn opencode_makes_a_patch_in_a_machine() {
    makes_a_patch_in_a_machine(&OPENCODE);
}

#[test]
fn claude_code_makes_a_patch_in_a_machine() {
    makes_a_patch_in_a_machine(&CLAUDE);
}

#[test]
fn codex_makes_a_patch_in_a_machine() {
    makes_a_patch_in_a_machine(&CODEX);
}

#[test]
fn gemini_makes_a_patch_in_a_machine() {
    makes_a_patch_in_a_machine(&GEMINI);
}
