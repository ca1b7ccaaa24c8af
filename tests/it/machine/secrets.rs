//! While the broker uses a key and a login of the host for an agent in a machine, neither is in the emulator's memory, of
//! which the machine's own is a part.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::bench::{acting, have_machines};
use crate::model::credentials::{FAR, log_in};
use crate::model::memory::{LOGIN, not_written, of_the_sandbox, said, token, using};
use crate::model::server::Server;
use crate::model::{KEY, command, providers};
use crate::rig::{FRONT, Project, Running, until};
use crate::search::Looked;
use crate::skip::skip;

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

/// The image of these tests, with a layer over it in which `program` is `agents/acp.sh`, playing this; `None`: no layer can
/// be made here.
fn image_with(dir: &Path, program: &str, scenario: &str) -> Option<PathBuf> {
    let (image, layer) = (dir.join("image"), dir.join("layer/usr/local/bin"));
    std::fs::create_dir_all(&image).and_then(|()| std::fs::create_dir_all(&layer)).expect("made");
    let given = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/image");
    for name in ["vmlinux", "initrd.cpio", "root.erofs", "symphony-guest"] {
        // Links of names within one file system; a jail shows this directory alone.
        let (from, to) = (given.join(name), image.join(name));
        std::fs::hard_link(&from, &to).or_else(|_| std::fs::copy(&from, &to).map(drop)).expect("there");
    }
    for (name, text) in [
        ("acp.sh", include_str!("../agents/acp.sh")),
        ("scenario.sh", scenario),
        (program, "#!/bin/sh\nexec bash /usr/local/bin/acp.sh /usr/local/bin/scenario.sh\n"),
    ] {
        std::fs::write(layer.join(name), text).expect("written");
        std::fs::set_permissions(layer.join(name), std::fs::Permissions::from_mode(0o755)).expect("mode");
    }
    let packed = image.join("agents.erofs");
    let made = Command::new("mkfs.erofs").arg("--all-root").arg(&packed).arg(dir.join("layer")).output().ok()?;
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(given.join("manifest.json")).expect("there")).expect("JSON");
    let bytes = std::fs::metadata(&packed).expect("made").len();
    manifest["outputs"]["agents.erofs"] = serde_json::json!({"sha256": "of this test", "bytes": bytes});
    std::fs::write(image.join("manifest.json"), manifest.to_string()).expect("written");
    Some(image)
}

/// The other half of the control: a login that `stage` brings into a machine, the same search finds there.
#[test]
fn a_staged_login_is_in_the_memory_of_the_machine_and_the_same_search_finds_it() {
    if !have_machines() {
        return;
    }
    let place = tempfile::tempdir().expect("directory");
    let scenario =
        "turn() { local login=$(cat ~/.claude/.credentials.json); say \"holds ${#login} bytes.\"; sleep 600; }";
    let Some(image) = image_with(place.path(), "claude-agent-acp", scenario) else {
        return skip("mkfs.erofs is not installed");
    };
    let mut project = Project::new();
    project.microvms = true;
    let sandbox = format!(
        "sandbox: {{runtime: qemu, image: '{}', memory_mib: 512, cpus: 1, disk_mib: 1024, templates: false}}\n",
        image.display()
    );
    let front = FRONT.replace("adapter: script", "adapter: claude");
    project.write("WORKFLOW.md", &format!("---\ncredentials: stage\n{front}{sandbox}---\nWork.\n"));
    log_in(&project.beside("home"), LOGIN, FAR);
    project.issue("Todo", "A-1", "Work.");
    let running = start(&project, &[]);
    assert_ne!(said(&project, "holds"), "0 bytes");
    if let Some(looked) = search(&running, "no such word") {
        assert!(looked.found[0] == 0 && looked.found[1] > 0 && looked.found[2] == 0, "{looked:?}");
    }
    let log = running.log();
    assert_eq!(running.stop(), 0);
    not_written(&project, &log);
}
