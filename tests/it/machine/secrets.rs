//! While the broker uses a key and a login of the host for an agent in a machine, neither is in the emulator's memory, of
//! which the machine's own is a part.

use super::bench::{acting, have_machines};
use crate::model::credentials::{FAR, log_in};
use crate::model::memory::{LOGIN, not_written, of_the_sandbox, token, using};
use crate::model::server::Server;
use crate::model::{KEY, command, providers};
use crate::rig::{Project, Running, until};
use crate::search::Looked;

/// The search: it must have read what the machine has.
fn search(running: &Running, control: &str) -> Option<Looked> {
    let looked = of_the_sandbox(running, control)?;
    let emulators = looked.programs.iter().filter(|exe| exe.to_string_lossy().contains("/qemu-system-")).count();
    assert!(emulators == 1 && looked.bytes >= 512 << 20, "{looked:?}");
    Some(looked)
}

fn start(project: &Project, env: &[(&str, &str)]) -> Running {
    project.start_command(command(project, &["WORKFLOW.md", "--port", "0"], env))
}

#[test]
fn while_the_broker_uses_a_key_and_a_login_neither_is_in_the_memory_of_the_machine_and_a_staged_key_is() {
    if !have_machines() {
        return;
    }
    let server = Server::start();
    let project = acting(&using("look() { :; }"), &providers(&server));
    std::fs::create_dir_all(project.beside("home")).expect("home");
    log_in(&project.beside("home"), LOGIN, FAR);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &[("OPENAI_API_KEY", KEY)]);
    let token = token(&project);
    let before = server.asked().len();
    if let Some(looked) = search(&running, &token) {
        assert!(looked.found[..2] == [0, 0] && looked.found[2] > 0, "{looked:?}");
    }
    until("requests during the search", || server.asked().len() > before + 1);
    server.release();
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let heads: Vec<String> = server.asked().into_iter().map(|asked| asked.head).collect();
    for word in [KEY, LOGIN] {
        assert!(heads.iter().filter(|head| head.contains(word)).count() > 2, "{word} was in use: {heads:#?}");
    }
    let log = format!("{}\n{}", running.log(), running.client().get("/api/v1/state").body);
    assert_eq!(running.stop(), 0);
    // Nor is it in the template, which the next machine is restored from.
    assert!(project.exists(".symphony/machines/templates"));
    not_written(&project, &log);

    // The control: a variable that `stage` brings into a machine, the same search finds there.
    let again = Server::start();
    let workflow = project.read("WORKFLOW.md").replace(&server.url, &again.url);
    let staged = "---\ncredentials: stage\nsmolvm: {forward_env: [STAGED]}\n";
    project.write("WORKFLOW.md", &workflow.replacen("---\n", staged, 1));
    project.issue("Todo", "B-1", "Ask.");
    let running = start(&project, &[("OPENAI_API_KEY", "sk-another"), ("STAGED", KEY)]);
    until("the next agent", || again.asked().iter().any(|asked| asked.body["model"] == "slow"));
    if let Some(looked) = search(&running, "no such word") {
        assert!(looked.found[0] > 0 && looked.found[2] == 0, "{looked:?}");
    }
    let log = running.log();
    assert_eq!(running.stop(), 0);
    not_written(&project, &log);
}
