//! Templates: fast when they work, never in the way when they do not.

use std::fs;
use std::os::unix::fs::FileExt;

use super::bench::{Awake, Bench, have_machines};
use crate::rig::{FRONT, Project};

#[tokio::test]
async fn a_template_that_does_not_restore_costs_time_and_no_run() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    Awake::boot(&bench.templated(), bench.spec("one")).await.end().await;
    let kept: Vec<_> = fs::read_dir(bench.place.path().join("templates")).expect("made").flatten().collect();
    let [template] = kept.as_slice() else { panic!("one template: {kept:?}") };
    let ram = fs::File::options().write(true).open(template.path().join("ram")).expect("opens");
    // The kernel's code is gone, and the machine with it.
    ram.write_all_at(&vec![0; 64 * 1024 * 1024], 0).expect("broken");
    // Another process of ours finds it.
    let other = bench.templated();
    let guest = Awake::boot(&other, bench.spec("two")).await;
    assert_eq!(guest.sh("id -u").await, "1000");
    assert!(!template.path().exists(), "what does not restore is thrown away");
    guest.end().await;
}

#[tokio::test]
async fn a_template_knows_no_issue_and_a_restored_machine_has_its_own_limits() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let qemu = bench.templated();
    // Known before the template is made: the place of the issue's disk, as its name might tell.
    let secret = format!("planted-{}-in-the-first-issue", std::process::id());
    let first = Awake::boot(&qemu, bench.spec(&secret)).await;
    first.sh(&format!("echo {secret} > /work/file && cat /work/file && sync")).await;
    // Restored from the same template: other room on the disk, other processes.
    let mut spec = bench.spec("two");
    (spec.disk_mib, spec.pids) = (64, 33);
    let second = Awake::boot(&qemu, spec).await;
    assert_eq!(second.sh("cat /sys/fs/cgroup/agent/pids.max").await, "33");
    assert_ne!(second.try_sh("head -c 100m /dev/zero > /work/big").await.0, symphony::sandbox::channel::Exit::Code(0));
    first.end().await;
    second.end().await;
    let mut files = Vec::new();
    for template in fs::read_dir(bench.place.path().join("templates")).expect("made").flatten() {
        files.extend(fs::read_dir(template.path()).expect("readable").flatten().map(|file| file.path()));
    }
    let holds = |path: &std::path::Path| {
        let bytes = fs::read(path).expect("readable");
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    };
    assert!(files.len() >= 3 && !files.iter().any(|file| holds(file)), "{files:?}");
    // The control: the search finds it where it is.
    let planted = bench.place.path().join("planted");
    fs::write(&planted, format!("x{secret}x")).expect("written");
    assert!(holds(&planted));
}

/// Regression: whose run met the trouble could not be told from the log.
#[test]
fn a_template_that_cannot_be_kept_is_logged_with_the_issue_whose_run_met_it_and_costs_nothing() {
    if !have_machines() {
        return;
    }
    let front = format!("{FRONT}sandbox: {{runtime: qemu, memory_mib: 512, cpus: 1, disk_mib: 1024}}\n");
    let mut project = Project::with(&front);
    project.microvms = true;
    let warns = |name: &str, expected: &[&str]| {
        project.issue("Todo", name, "```sh\necho x > x.txt\n```");
        let running = project.start();
        project.wait_for(&format!("issues/Done/{name}.md"));
        let log = running.log();
        let lines = expected.iter().map(|words| {
            let line = log.lines().find(|line| line.contains(words)).unwrap_or_else(|| panic!("no {words:?} in {log}"));
            assert!(line.contains(&format!(" issue_id={name} issue_identifier={name}")), "{line}");
            line.to_owned()
        });
        let lines: Vec<String> = lines.collect();
        assert_eq!(running.stop(), 0);
        lines
    };
    let templates = ".symphony/machines/templates";
    project.write(templates, "not a directory\n");
    let lines = warns("T-1", &["a template cannot be read", "no template could be made; machines boot cold"]);
    // It has the name of what it was made of: something stands in its place.
    let (_, name) = lines[0].split_once(&format!("{templates}/")).expect("its path");
    let name = name.split(' ').next().expect("its name");
    fs::remove_file(project.dir().join(templates)).expect("removed");
    project.write(&format!("{templates}/{name}"), "not a directory\n");
    // Put out of the way, but not deleted.
    warns("T-2", &["a template cannot be read", "a template cannot be removed"]);
}
