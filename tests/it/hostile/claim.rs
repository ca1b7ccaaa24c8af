//! A link where `mark_done.md` goes: the claim is written where the host says, never where a guest points.

use super::hasty;
use crate::rig::Project;

/// Points every place the claim was ever written to at a directory of the host.
fn points_elsewhere(project: &Project) -> String {
    let victim = project.beside("victim");
    std::fs::create_dir(&victim).expect("a directory");
    std::fs::write(victim.join("mark_done.md"), "the host's own\n").expect("written");
    let v = victim.display();
    // The control: through such a link a host program does write.
    let plant = format!(
        "rm -rf .symphony-runtime; ln -s {v} .symphony-runtime; [ ! -d .git ] || ln -s {v} .git/symphony-runtime\n"
    );
    let control = project.beside("control");
    std::fs::create_dir_all(control.join(".git")).expect("a directory");
    super::host_sh(&control, &format!("{plant}echo '# forged' > .git/symphony-runtime/mark_done.md"));
    assert_eq!(std::fs::read_to_string(victim.join("mark_done.md")).expect("there"), "# forged\n");
    std::fs::write(victim.join("mark_done.md"), "the host's own\n").expect("written");
    plant
}

/// Two runs, so that the second one's host workspace has whatever of the first could get there.
fn the_claim_is_the_hosts(project: &Project, place: &str) {
    let plant = points_elsewhere(project);
    let body = format!(
        "```sh\n{plant}git add -A 2>/dev/null && git commit -qm link || true\n[ -f ~/again ] || {{ touch ~/again; exit 1; }}\necho work > work.txt\n```"
    );
    project.issue("Todo", "M-1", &body.replace("ln -s", "ln -sfn"));
    assert_eq!(project.once(), 0);
    let victim = project.beside("victim");
    assert_eq!(std::fs::read_to_string(victim.join("mark_done.md")).expect("there"), "the host's own\n");
    assert_eq!(std::fs::read_dir(&victim).expect("a directory").count(), 1);
    assert_eq!(project.read("claim"), "# The title of M-1\n", "after_run found it in {place}");
    assert!(project.read(".symphony/patches/agent_M-1.patch").contains("work.txt"));
}

fn reads(place: &str) -> String {
    format!("  after_run: |\n    [ ! -f {place}/mark_done.md ] || head -1 {place}/mark_done.md > ../../../claim\n")
}

#[test]
fn a_link_in_the_guests_repository_does_not_lead_the_claim_astray() {
    let place = ".git/symphony-runtime";
    let front = hasty(&format!("workspace:\n  checkout: agent\nhooks:\n{}", reads(place)));
    the_claim_is_the_hosts(&Project::with(&front), place);
}

#[test]
fn nor_does_one_in_a_work_tree_without_a_repository() {
    let place = ".symphony-runtime";
    let front = hasty(&format!("hooks:\n  after_create: echo start > start.txt\n{}", reads(place)));
    the_claim_is_the_hosts(&Project::with(&front), place);
}
