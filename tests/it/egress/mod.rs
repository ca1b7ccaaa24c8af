//! The way out of a sandbox, in an internet of the test's own: real jails, real curl and git, real TLS.

mod decisions;
mod lab;
mod reach;

use self::lab::Lab;
use crate::rig::{FRONT, Project};

/// A project whose `script` agent is shown the authority of the lab, and may reach these hosts.
fn project(lab: &Lab, allow: &str) -> Project {
    let shown = lab.shown();
    let shown = shown.display();
    Project::with(&format!(
        "{FRONT}agent:\n  max_concurrent_agents: 4\n  max_retry_backoff_ms: 300\nsandbox:\n  jail:\n    read_only: [{shown}]\negress:\n  allow: [{allow}]\n"
    )
    .replacen("agent:\n  max_retry_backoff_ms: 300\n", "", 1))
}

/// A block for the `script` agent; `get` asks for a page over TLS.
fn block(lab: &Lab, lines: &str) -> String {
    let ca = lab.shown().join("cert.pem");
    format!(
        "```sh\nget() {{ curl -sS --max-time 60 --cacert {} \"$@\"; }}\nca={}\n{lines}\n```",
        ca.display(),
        ca.display()
    )
}

/// What an agent wrote, once its issue is done.
fn left(project: &Project, issue: &str, file: &str) -> String {
    project.wait_for(&format!("issues/Done/{issue}.md"));
    project.wait_for(&format!(".symphony/patches/agent_{issue}.patch"));
    let clone = project.beside(&format!("clone-{issue}"));
    let clone = if clone.exists() { clone } else { project.apply_patch(issue) };
    std::fs::read_to_string(clone.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
