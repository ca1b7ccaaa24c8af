//! Machines from their first start to their end.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use symphony::sandbox::channel::Channel;
use symphony::sandbox::{BootSpec, Sandbox as _};
use symphony_guest::wire::CheckRequest;

use super::bench::{Bench, GRACE, INSTANCE, block_on};
use crate::rig::{SOON, until};

pub(super) async fn says(channel: &Channel, script: &str) -> String {
    let request = CheckRequest {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: None,
        timeout_ms: 30_000,
        max_output: 4096,
    };
    let (outcome, output) = channel.check(request).await.expect("runs");
    format!("{}{}", String::from_utf8_lossy(&output), if outcome.timed_out { " timed out" } else { "" })
}

#[test]
fn a_machine_is_kept_stopped_started_again_with_its_files_and_deleted_with_its_disk() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let runtime = bench.runtime();
        let guest = runtime.boot(bench.spec("APP-1")).await.expect("boots");
        let (io, mut life) = guest.into_parts();
        let (channel, hello) = Channel::open(io, "token-1", SOON).await.expect("says hello");
        assert!(!hello.tree && hello.marker.is_none());
        let said = says(&channel, "id -u; echo kept > /work/file; echo $$; ls -a /home").await;
        let root = rustix::process::geteuid().is_root();
        // Started as root, the guest gives root up; in a namespace of one user it is that user.
        assert!(said.starts_with(if root { "1000\n" } else { "0\n" }), "{said}");
        channel.marker("the marker").await.expect("kept");
        channel.shutdown(GRACE).await.expect("says goodbye");
        drop(channel);
        let ending = life.stop(GRACE).await;
        assert_eq!((ending.code, ending.killed), (Some(0), false), "{ending:?}");
        let [(name, state)] = &bench.machines()[..] else { panic!("{:?}", bench.machines()) };
        assert_eq!(state, "stopped");
        assert_eq!(bench.monitors(), [""; 0]);
        let note = bench.disk("APP-1").join("smolvm/machine");
        assert_eq!(std::fs::read_to_string(&note).expect("kept").trim(), name);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&note).expect("there"));
        assert_eq!(mode & 0o777, 0o600);

        // Another life of symphony, with other settings: the machine is the one it was.
        let again = bench.runtime();
        let mut spec = bench.spec("APP-1");
        spec.memory_mib = 4096;
        let guest = again.boot(spec).await.expect("boots again");
        let (io, mut life) = guest.into_parts();
        let (channel, hello) = Channel::open(io, "token-2", SOON).await.expect("says hello");
        assert_eq!(hello.marker.as_deref(), Some("the marker"));
        assert_eq!(says(&channel, "cat /work/file").await, "kept\n");
        drop(channel);
        life.stop(GRACE).await;
        assert_eq!(bench.log().lines().filter(|line| line.starts_with("machine create --name")).count(), 1);

        again.discard_disk(&bench.disk("APP-1")).await.expect("goes");
        assert_eq!((bench.machines(), bench.disk("APP-1").exists()), (vec![], false));
        let log = bench.log();
        let (stop, delete) =
            (log.rfind("machine stop").expect("stopped"), log.find("machine delete").expect("deleted"));
        assert!(stop < delete, "it is stopped before it is deleted:\n{log}");
        again.discard_disk(&bench.disk("APP-1")).await.expect("a missing one is success");
    });
}

/// Regression: a rescue, and a run whose stopped machine holds work, failed when the image had lost a package since.
#[test]
fn a_machine_that_exists_is_started_whatever_its_image_lacks_by_now_and_no_new_one_is_made_of_it() {
    let Some(bench) = Bench::new() else { return };
    let image = bench.root().join("image");
    let status = image.join("var/lib/dpkg/status");
    std::fs::create_dir_all(status.parent().expect("a directory")).expect("made");
    std::fs::write(&status, "Package: git\nStatus: install ok installed\n").expect("written");
    let spec = |key: &str| BootSpec { image: Some(image.clone()), packages: vec!["git".into()], ..bench.spec(key) };
    let made = |bench: &Bench| bench.log().lines().filter(|line| line.starts_with("machine create --name")).count();
    block_on(async {
        let runtime = bench.runtime();
        let guest = runtime.boot(spec("APP-7")).await.expect("it has git");
        let (io, mut life) = guest.into_parts();
        let (channel, _) = Channel::open(io, "token-1", SOON).await.expect("says hello");
        says(&channel, "echo kept > /work/file").await;
        drop(channel);
        life.stop(GRACE).await;

        std::fs::write(&status, "").expect("written");
        let again = async |expected: &str| {
            let guest = bench.runtime().boot(spec("APP-7")).await.expect("boots again");
            let (io, mut life) = guest.into_parts();
            let (channel, _) = Channel::open(io, "token-2", SOON).await.expect("says hello");
            assert_eq!(says(&channel, "cat /work/file").await, expected);
            drop(channel);
            life.stop(GRACE).await;
        };
        again("kept\n").await;
        let error = runtime.boot(spec("APP-8")).await.expect_err("a new one would lack it").to_string();
        assert!(error.contains("lacks git: ") && error.contains("scripts/build-smolvm-image"), "{error}");
        assert_eq!((made(&bench), bench.disk("APP-8").exists()), (1, false), "nothing is left of what was refused");

        // A machine of a directory mounts it at every start.
        let aside = bench.root().join("aside");
        std::fs::rename(&image, &aside).expect("moved");
        let error = runtime.boot(spec("APP-7")).await.expect_err("nothing to mount").to_string();
        assert!(error.contains("put it back where it was"), "{error}");
        std::fs::rename(&aside, &image).expect("moved back");
        again("kept\n").await;

        // Only a note is left of it: it would be a new one.
        let name = bench.machines().remove(0).0;
        bench.call(&["machine", "delete", "--name", &name]);
        runtime.boot(spec("APP-7")).await.expect_err("a new one would lack it");
        assert_eq!(made(&bench), 1);
    });
}

#[test]
fn no_machine_has_a_network_a_folder_or_a_variable_and_each_carries_our_labels() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let guest = bench.runtime().boot(bench.spec("APP-2")).await.expect("boots");
        guest.stop(GRACE).await;
        let log = bench.log();
        let create = log.lines().find(|line| line.starts_with("machine create --name")).expect("made");
        for word in create.split(' ') {
            assert!(!["--net", "-v", "--volume", "-e", "--env", "-p"].contains(&word), "{create}");
        }
        for label in ["owner=symphony", &format!("instance={INSTANCE}"), "issue=APP-2", "run=7"] {
            assert!(create.contains(&format!("--label {label}")), "{create}");
        }
        assert!(create.contains("--cpus 1 --mem 256 --storage 2 --overlay 2"), "{create}");
    });
}

#[test]
fn where_mounted_sockets_do_not_work_the_streams_of_a_call_are_the_channel() {
    let Some(bench) = Bench::new() else { return };
    bench.mood("no-socket");
    block_on(async {
        let runtime = bench.runtime();
        let guest = runtime.boot(bench.spec("APP-3")).await.expect("boots all the same");
        let (io, mut life) = guest.into_parts();
        let (channel, _) = Channel::open(io, "token", SOON).await.expect("says hello");
        assert_eq!(says(&channel, "echo to the output; echo to the error >&2").await.len(), 27);
        channel.shutdown(GRACE).await.expect("says goodbye");
        drop(channel);
        let ending = life.stop(GRACE).await;
        assert_eq!(ending.code, Some(0), "{ending:?}");
    });
    assert!(bench.log().lines().any(|line| line.contains(" -i ") && line.contains("--stdio")), "{}", bench.log());
}

#[test]
fn a_guest_that_is_dropped_takes_its_machine_down() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let guest = bench.runtime().boot(bench.spec("APP-4")).await.expect("boots");
        assert_eq!(bench.monitors().len(), 1);
        drop(guest);
        until("the machine to stop", || bench.monitors().is_empty());
    });
}

#[test]
fn what_the_workflow_lists_is_copied_in_and_cannot_be_written_to() {
    let Some(bench) = Bench::new() else { return };
    let tools = bench.root().join("tools");
    std::fs::create_dir_all(tools.join("deep")).expect("made");
    std::fs::write(tools.join("deep/tool"), "a tool\n").expect("written");
    let mut settings = bench.settings();
    settings.copies = vec![(tools.clone(), "/opt/codex".into())];
    block_on(async {
        let runtime = symphony::sandbox::smolvm::Smolvm::new(settings.clone(), bench.places());
        let guest = runtime.boot(bench.spec("APP-5")).await.expect("boots");
        let (io, mut life) = guest.into_parts();
        let (channel, _) = Channel::open(io, "token", SOON).await.expect("says hello");
        let said = says(&channel, "cat /opt/codex/deep/tool; echo more >> /opt/codex/deep/tool && echo written").await;
        assert!(said.contains("a tool\n"), "{said}");
        if rustix::process::geteuid().is_root() {
            assert!(!said.contains("written"), "{said}");
        }
        life.stop(GRACE).await;
        assert_eq!(std::fs::read_to_string(tools.join("deep/tool")).expect("there"), "a tool\n");

        settings.copies = vec![(bench.root().join("nothing"), "/x".into())];
        let runtime = symphony::sandbox::smolvm::Smolvm::new(settings, bench.places());
        let error = runtime.boot(bench.spec("APP-6")).await.expect_err("there is nothing to copy").to_string();
        assert!(error.contains("nothing") && error.contains("smolvm.volumes"), "{error}");
        assert_eq!(bench.machines().len(), 1, "nothing was made for it");
    });
}

#[test]
fn an_interrupted_start_leaves_nothing_running() {
    let Some(bench) = Bench::new() else { return };
    bench.mood("hang");
    block_on(async {
        let runtime = bench.runtime();
        let mut spec = bench.spec("APP-7");
        spec.deadline = Duration::from_secs(3);
        let error = runtime.boot(spec).await.expect_err("it never starts").to_string();
        assert!(error.contains("within 3 s"), "{error}");
    });
    assert_eq!(bench.monitors(), [""; 0]);
}

#[test]
fn a_sweep_ends_what_was_left_and_touches_nothing_of_others() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        // One run that lives, and one machine that a killed symphony left running.
        let live = bench.runtime().boot(bench.spec("LIVE")).await.expect("boots");
        let left = bench.runtime().boot(bench.spec("LEFT")).await.expect("boots");
        std::mem::forget(left);
        // Somebody else's machine in the same place, and a start that was interrupted, its machine deleted unstopped.
        bench.call(&["machine", "create", "--name", "others", "--label", "owner=somebody"]);
        bench.call(&["machine", "create", "--name", "sy-leaked", "--label", "owner=somebody"]);
        bench.mood("hang");
        let mut start = Command::new(bench.bin().join("smolvm"));
        start.args(["machine", "start", "--name", "sy-leaked"]).env("SMOLVM_DATA_DIR", bench.data());
        let mut start = start
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("starts");
        until("the third monitor", || bench.monitors().len() == 3);
        start.kill().expect("killed");
        start.wait().expect("gone");
        bench.mood("");
        bench.call(&["machine", "delete", "--name", "sy-leaked", "-f"]);
        bench.call(&["machine", "delete", "--name", "others", "-f"]);
        bench.call(&["machine", "create", "--name", "sy-others", "--label", "owner=somebody"]);
        bench.call(&["machine", "start", "--name", "sy-others"]);
        assert_eq!(bench.monitors().len(), 4, "deleting it left its monitor: otherwise nothing is tested");
        // A monitor of another data directory, which is none of ours.
        let foreign = bench.root().join("elsewhere/vms/x/boot-config.json");
        let mut decoy = Command::new(bench.bin().join("smolvm")).arg("_boot-vm").arg(&foreign).spawn().expect("runs");

        let swept = bench.runtime().sweep_but(&[bench.disk("LIVE")]).await.expect("sweeps");
        assert_eq!((swept.stopped.len(), swept.monitors), (1, 1), "{swept:?}");
        let states = bench.machines();
        let state = |part: &str| states.iter().find(|(name, _)| name.contains(part)).map(|(_, state)| state.as_str());
        assert_eq!(
            (state("live"), state("left"), state("others")),
            (Some("running"), Some("stopped"), Some("running"))
        );
        assert_eq!(bench.monitors().len(), 2);
        assert!(decoy.try_wait().expect("a child").is_none(), "the decoy was ended");
        decoy.kill().expect("killed");
        decoy.wait().expect("gone");
        let again = bench.runtime().sweep_but(&[bench.disk("LIVE")]).await.expect("sweeps");
        assert_eq!((again.stopped.len(), again.monitors), (0, 0));
        live.stop(GRACE).await;
        bench.call(&["machine", "stop", "--name", "sy-others"]);
    });
}

#[test]
fn a_trial_boots_for_real_and_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let report = bench.runtime().trial(None).await.expect("passes");
        assert!(report.kernel.starts_with("its own"), "{report:?}");
    });
    assert_eq!((bench.machines(), bench.monitors().len()), (vec![], 0));
    let left: Vec<_> = std::fs::read_dir(bench.root().join("smolvm")).expect("there").flatten().collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// Regression: the size of a machine was that of the note with its name.
#[test]
fn a_machine_is_found_where_smolvm_keeps_it_and_one_that_does_not_exist_is_not_asked_for() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let runtime = bench.runtime();
        assert_eq!(runtime.elsewhere(&bench.disk("A-1")).await, None, "no machine is remembered");
        let guest = runtime.boot(bench.spec("A-1")).await.expect("boots");
        guest.stop(GRACE).await;
        let place = runtime.elsewhere(&bench.disk("A-1")).await.expect("it has a machine");
        assert!(place.is_dir() && place.starts_with(bench.data()), "{}", place.display());
        let note = bench.disk("B-1").join("smolvm");
        std::fs::create_dir_all(&note).expect("made");
        std::fs::write(note.join("machine"), "sy-gone").expect("written");
        assert_eq!(runtime.elsewhere(&bench.disk("B-1")).await, None);
        assert!(!bench.log().contains("data-dir --name sy-gone"), "{}", bench.log());
    });
}

/// Regression: whatever machine a note named was deleted.
#[test]
fn a_machine_of_somebody_else_is_not_removed_whatever_a_note_says() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        let runtime = bench.runtime();
        let guest = runtime.boot(bench.spec("A-1")).await.expect("boots");
        guest.stop(GRACE).await;
        bench.call(&["machine", "create", "--name", "sy-others", "--label", "owner=somebody"]);
        std::fs::write(bench.disk("A-1").join("smolvm/machine"), "sy-others").expect("written");
        let refused = runtime.discard_disk(&bench.disk("A-1")).await.expect_err("it is not ours").to_string();
        assert!(refused.contains("sy-others exists and is not ours"), "{refused}");
        assert!(bench.machines().iter().any(|(name, _)| name == "sy-others"));
        assert!(bench.disk("A-1").join("smolvm/machine").exists());
    });
}

/// Regression: each trial that was killed left its directory for ever.
#[test]
fn what_a_killed_trial_left_is_swept_with_its_machine() {
    let Some(bench) = Bench::new() else { return };
    block_on(async {
        bench.runtime().trial(None).await.expect("passes");
        let place = bench.root().join("smolvm");
        let (noted, bare) = (place.join("trial-a1"), place.join("trial-b2"));
        std::fs::create_dir_all(noted.join("smolvm")).expect("made");
        std::fs::create_dir_all(&bare).expect("made");
        std::fs::write(noted.join("smolvm/machine"), "sy-trial").expect("written");
        let labels = ["--label", "owner=symphony", "--label", "issue=(trial)"];
        let instance = format!("instance={INSTANCE}");
        bench.call(&[&["machine", "create", "--name", "sy-trial"][..], &labels, &["--label", &instance]].concat());
        let swept = bench.runtime().sweep_but(&[]).await.expect("sweeps");
        assert_eq!(swept.deleted, ["sy-trial"]);
        assert!(!noted.exists() && !bare.exists() && place.join("d").is_dir());
    });
}
