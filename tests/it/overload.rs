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
