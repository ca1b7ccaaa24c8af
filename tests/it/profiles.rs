//! `profile:` in an issue's front matter, as people see it: what it changes, and what is said of one that cannot be had.

use std::path::Path;

use crate::machine::bench::have_machines;
use crate::rig::{FRONT, Project};

const PROFILES: &str = "sandbox:\n  runtime: jail\n  jail: {pids: 500}\n  profiles:\n    small: {file_size_mib: 1}\n    vm: {image: ./vm/out}\n    tools: {packages: [ripgrep]}\n";

fn chore(project: &Project, name: &str, profile: &str, script: &str) {
    let text = format!("---\n{profile}\n---\n```sh\n{script}\n```\n");
    project.write(&format!("issues/Todo/{name}.md"), &text);
}

#[test]
fn a_profile_that_cannot_be_had_is_said_everywhere_and_never_replaced_by_another() {
    let project = Project::with(&format!("{FRONT}{PROFILES}"));
    chore(&project, "LOST-1", "profile: smal", "true");
    chore(&project, "VM-1", "profile: vm", "true");
    chore(&project, "TOOLS-1", "profile: tools", "true");
    let running = project.start();
    let wanted = [
        ("LOST-1", "unknown-profile", "the workflow lists no profile `smal` (it lists small, vm, tools)"),
        ("VM-1", "profile-refused", "its profile `vm` names an image, which a jail cannot have"),
        ("TOOLS-1", "profile-refused", "its profile `tools` names packages, which a jail cannot have"),
    ];
    for (name, code, words) in wanted {
        let state = running.until_state(&format!("{name} to wait"), |state| {
            state["idle"].as_array().is_some_and(|rows| rows.iter().any(|row| row["issue_identifier"] == name))
        });
        let rows = state["idle"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["issue_identifier"] == name).expect("a row");
        assert_eq!(row["reason_code"], code);
        let reason = row["reason"].as_str().expect("a sentence");
        assert!(reason.starts_with(words), "{reason}");
        assert!(!row["remedy"].as_str().expect("something can be done").is_empty());
        let page = running.client().get("/").body;
        assert!(page.contains(words), "the page lacks {words:?}");
        let said = project.run(&["explain", name]);
        assert!(String::from_utf8_lossy(&said.stdout).contains(words));
        assert!(!project.exists(&format!(".symphony/disks/{name}")), "nothing was booted for it");
    }
    // The name is corrected, and it runs, with that profile's limit.
    chore(
        &project,
        "LOST-1",
        "profile: small",
        "dd if=/dev/zero of=big bs=1M count=3 2>/dev/null || true; wc -c < big > size.txt; rm big; git add size.txt",
    );
    project.wait_for("issues/Done/LOST-1.md");
    let clone = project.apply_patch("LOST-1");
    assert_eq!(std::fs::read_to_string(clone.join("size.txt")).expect("made").trim(), "1048576");
    assert_eq!(running.stop(), 0);
}

/// Regression: such an issue failed its runs one after the other until it was parked.
#[test]
fn an_issue_whose_image_is_missing_waits_unstarted_is_told_of_once_and_starts_when_the_image_comes() {
    if !have_machines() {
        return;
    }
    let sandbox = "sandbox:\n  runtime: qemu\n  memory_mib: 512\n  cpus: 1\n  disk_mib: 1024\n  templates: false\n  profiles:\n    big: {image: ./vm/big}\n";
    let mut project = Project::with(&format!("{FRONT}{sandbox}"));
    project.microvms = true;
    chore(&project, "BIG-1", "profile: big", "echo x > x.txt");
    let running = project.start();
    let waits = |state: &serde_json::Value| {
        let rows = state["idle"].as_array().cloned().unwrap_or_default();
        rows.into_iter().find(|row| row["issue_identifier"] == "BIG-1" && row["reason_code"] == "image-missing")
    };
    let state = running.until_state("BIG-1 to wait", |state| waits(state).is_some());
    let row = waits(&state).expect("just seen");
    let image = project.dir().join("vm/big");
    let words = "its profile `big` has nothing to boot: cannot read ";
    let remedy = format!("Build it with scripts/build-vm.sh --output {} of this version. It starts", image.display());
    assert!(row["reason"].as_str().is_some_and(|reason| reason.starts_with(words)), "{row}");
    assert!(row["remedy"].as_str().is_some_and(|said| said.starts_with(&remedy)), "{row}");
    let page = running.client().get("/").body;
    assert!(page.contains(words) && page.contains(&remedy), "{page}");
    let said = project.run(&["explain", "BIG-1"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains(words) && said.contains(&remedy), "{said}");

    // Looks go on meanwhile, and so do others.
    chore(&project, "PLAIN-1", "title: Plain", "echo y > y.txt");
    project.wait_for("issues/Done/PLAIN-1.md");
    let row = waits(&running.state()).expect("it still waits");
    assert_eq!((&row["last_end"], &row["attempt"]), (&serde_json::Value::Null, &serde_json::Value::Null), "{row}");
    let runs = |project: &Project| std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count();
    assert_eq!((runs(&project), project.exists(".symphony/machines/qemu/BIG-1")), (1, false), "nothing was booted");
    let told = || {
        let log = running.log();
        let lines = log.lines().filter(|line| line.contains("waits for what its sandbox boots"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let [line] = &told()[..] else { panic!("once: {:?}", told()) };
    assert!(line.contains("issue_identifier=BIG-1") && line.contains("build-vm.sh"), "{line}");

    // Complete at once, as the script puts it there.
    let (built, coming) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/image"), project.dir().join("vm/coming"));
    std::fs::create_dir_all(&coming).expect("made");
    for file in std::fs::read_dir(built).expect("an image").flatten() {
        std::fs::copy(file.path(), coming.join(file.file_name())).expect("copied");
    }
    std::fs::rename(&coming, &image).expect("there");
    project.wait_for("issues/Done/BIG-1.md");
    let clone = project.apply_patch("BIG-1");
    assert_eq!(std::fs::read_to_string(clone.join("x.txt")).expect("made"), "x\n");
    assert_eq!((runs(&project), told().len()), (2, 1));
    assert_eq!(running.stop(), 0);
}

#[test]
fn every_row_says_what_isolates_its_run_and_the_page_and_the_banner_say_why() {
    let project = Project::new();
    project.issue("Todo", "W-1", "```sh\ntouch ~/ready; sleep 300\n```");
    let running = project.start();
    project.wait_for(".symphony/disks/W-1/home/ready");
    let state = running.until_state("the run", |state| state["counts"]["running"] == 1);
    let (row, reason) = (&state["running"][0], state["sandbox_reason"].as_str().expect("a reason"));
    assert_eq!(row["sandbox"], state["sandbox"]);
    let label = row["sandbox"].as_str().expect("a label");
    assert!(!label.is_empty() && !reason.is_empty());
    assert!(running.log().contains(&format!("  sandbox    {label}: {reason}")), "the banner");
    let page = running.client().get("/").body;
    assert!(page.contains(reason) && page.contains(&format!(" · {label} · ")), "{page}");
    let said = project.run(&["explain", "W-1"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains(&format!("  sandbox   {label}\n")));
    assert_eq!(running.stop(), 0);
}

/// Regression: a jail took 0, which is no limit, for a limit of nothing, and did not boot.
#[test]
fn a_limit_of_0_is_none() {
    let project = Project::with(&format!("{FRONT}sandbox:\n  jail: {{memory_mib: 0, pids: 0, file_size_mib: 0}}\n"));
    chore(&project, "W-1", "title: Free", "echo x > x.txt");
    assert_eq!(project.once(), 0);
    assert!(project.exists("issues/Done/W-1.md"));
}
