//! Agents in a jail and their way to models: through the broker, with a credential that never comes near them.

mod agents;
pub(crate) mod credentials;
mod google;
mod lies;
pub(crate) mod memory;
mod passes;
mod quota;
mod real;
mod refusals;
// A release build knows no server but the real ones, and no test asks those.
#[cfg(debug_assertions)]
mod renewal;
pub(crate) mod server;
mod spending;
mod talk;
mod tls;

use std::process::Command;

use self::server::Server;
use crate::rig::{Project, until};

/// Looks like a key, and is found wherever it is.
pub(crate) const KEY: &str = "planted-key-0451-of-the-host";

/// What a scenario may use beside `agents/acp.sh`.
pub(crate) const TOOLS: &str = r#"
model() { local host=127.0.0.1:8485; http POST "$1" "$2" "Authorization: Bearer $ANTHROPIC_AUTH_TOKEN" "Content-Type: application/json" "${@:3}"; }
ask() { model /anthropic/v1/messages "{\"model\":\"$1\",\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"; }
done_() { call mark_done '{"title":"Asked","summary":"All of it."}'; }
"#;

/// A project whose agent plays this, with all providers at `server`.
fn project(scenario: &str, server: &Server, more: &str) -> Project {
    let project = Project::acting(&format!("{TOOLS}\n{scenario}"), &format!("{}{more}", providers(server)));
    std::fs::create_dir_all(project.beside("home")).expect("home");
    project
}

/// All of them at `server`.
pub(crate) fn providers(server: &Server) -> String {
    let url = &server.url;
    format!(
        "providers:\n  anthropic:\n    base_url: {url}/base/\n    login: true\n  openai:\n    base_url: {url}/v1\n  google:\n    base_url: {url}\n"
    )
}

/// The program with a home of its own, and no credential but what is given.
pub(crate) fn command(project: &Project, args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = project.command(args);
    for name in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "CLAUDE_CONFIG_DIR", "CODEX_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", project.beside("home")).envs(env.iter().copied());
    command
}

const BOTH: [(&str, &str); 2] = [("ANTHROPIC_API_KEY", KEY), ("OPENAI_API_KEY", KEY)];

/// Works an issue to its end, and returns what the agent noted and everything the program wrote to its log.
#[track_caller]
fn worked(project: &Project, env: &[(&str, &str)]) -> (String, String) {
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(project, &["WORKFLOW.md", "--port", "0"], env));
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let log = format!("{}\n{}", running.log(), running.client().get("/api/v1/state").body);
    assert_eq!(running.stop(), 0);
    (std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).unwrap_or_default(), log)
}

/// What the agent noted under a heading.
fn noted<'a>(notes: &'a str, name: &str) -> &'a str {
    let part = notes.split("== ").find_map(|part| part.strip_prefix(&format!("{name}\n")));
    part.unwrap_or_else(|| panic!("no {name} in:\n{notes}"))
}
