//! A guest that floods what it can reach fills neither the host's log nor its patience.

use crate::rig::{Project, until};

#[test]
fn a_guest_that_opens_connection_after_connection_costs_one_log_line() {
    let project = Project::new();
    let flood = "for round in 1 2 3; do\n  bash -c 'for i in $(seq 60); do exec {fd}<>/dev/tcp/127.0.0.1/8484; done; \
                 sleep 1' 2>/dev/null || true\ndone\necho flooded > flooded.txt";
    project.issue("Todo", "FLOOD-1", &format!("```sh\n{flood}\n```"));
    let running = project.start();
    until("the issue to be done", || project.exists("issues/Done/FLOOD-1.md"));
    let log = running.log();
    assert_eq!(log.matches("too many MCP connections").count(), 1, "{log}");
    assert!(project.apply_patch("FLOOD-1").join("flooded.txt").exists());
}

#[test]
fn a_spoilt_tree_with_locked_directories_is_replaced_by_the_next_run() {
    let project = Project::new();
    let spoil = "if [ ! -e ~/again ]; then\n  touch ~/again\n  git checkout -q --orphan other; git commit -qm other\n  \
                 mkdir -p ro/in; echo x > ro/in/f; chmod 555 ro/in; chmod 000 ro\n  echo forged > /state/marker\n  exit 1\nfi\n\
                 test ! -e ro; echo fine > fine.txt";
    project.issue("Todo", "SPOIL-1", &format!("```sh\n{spoil}\n```"));
    assert_eq!(project.once(), 0);
    assert!(project.apply_patch("SPOIL-1").join("fine.txt").exists());
}
