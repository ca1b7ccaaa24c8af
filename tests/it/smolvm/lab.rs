//! Real machines: only where the kernel really starts one (`scripts/test-smolvm` brings such a place with it).
//! `SYMPHONY_TEST_SMOLVM` names the real command line's directory, `SYMPHONY_TEST_IMAGE` a root file system with git, and
//! `SYMPHONY_TEST_GUEST` the static guest program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use symphony::sandbox::Sandbox as _;
use symphony::sandbox::channel::Channel;
use symphony::sandbox::smolvm::{Places, Settings, Smolvm};
use symphony_core::board::Settled;

use super::bench::{INSTANCE, block_on};
use super::issues::{parked, work};
use super::machines::says;
use crate::rig::{FRONT, Project};
use crate::skip::skip;

/// A start may be tried twice, each an emulated machine within an emulated machine.
const BOOT: Duration = Duration::from_secs(300);

#[test]
fn a_real_machine_works_on_an_issue_is_started_again_and_leaves_nothing() {
    let from = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(cli), Some(image), Some(guest)) =
        (from("SYMPHONY_TEST_SMOLVM"), from("SYMPHONY_TEST_IMAGE"), from("SYMPHONY_TEST_GUEST"))
    else {
        skip("no place with real machines was named; scripts/test-smolvm has one");
        return;
    };
    let settings = Settings {
        bin: Some(cli.join("smolvm")),
        image: Some(image.display().to_string()),
        cpus: 2,
        memory_mib: 1024,
        ..Settings::default()
    };
    let started = Instant::now();
    let tell = |what: &str, since: Instant| println!("figure: {what}: {:.1} s", since.elapsed().as_secs_f64());
    let front = FRONT.replace("acp:\n", "acp:\n  boot_timeout_ms: 300000\n");
    let front = format!("{front}sandbox:\n  memory_mib: 1024\n");
    let project = Project::with(&front);
    let places =
        Places { root: project.dir().join(".symphony"), guest, instance: INSTANCE.into(), kvm: "/dev/kvm".into() };
    symphony::files::create_private_dir(&places.root).expect("made");
    let runtime = Arc::new(Smolvm::new(settings, places));
    block_on(async {
        let since = Instant::now();
        let report = runtime.trial(None).await.expect("the trial passes");
        tell("trial (make, start, hello, stop, delete)", since);
        println!("{report:?}");

        let disk = project.dir().join(".symphony/disks/KEPT");
        let spec = symphony::sandbox::BootSpec {
            run: symphony_core::ids::RunId(1),
            disk: disk.clone(),
            image: None,
            packages: vec![],
            templates: false,
            read_only: vec![],
            cpus: 2,
            memory_mib: 1024,
            pids: 0,
            file_size_mib: 0,
            // A disk of another size than smolvm's own is unpacked first, which takes minutes where it is emulated.
            disk_mib: 0,
            deadline: BOOT,
            program: vec![],
        };
        for (round, expected) in [("first boot", ""), ("boot of the stopped machine", "kept\n")] {
            let since = Instant::now();
            let guest = runtime.boot(spec.clone()).await.expect("boots");
            let (io, mut life) = guest.into_parts();
            let (channel, _) = Channel::open(io, "token", BOOT).await.expect("says hello");
            tell(round, since);
            assert_eq!(says(&channel, "cat /work/file 2>/dev/null; echo kept > /work/file").await, expected);
            println!(
                "{}",
                says(&channel, "id; uname -r; echo $$; ls /sys/class/net; ls -ld /work /home/agent /state /tmp").await
            );
            let since = Instant::now();
            let id = says(&channel, "id -u").await;
            assert_eq!(id, "1000\n", "the guest program gave up root");
            tell("one command over the channel", since);
            channel.shutdown(Duration::from_secs(20)).await.expect("says goodbye");
            drop(channel);
            let since = Instant::now();
            let ending = life.stop(Duration::from_secs(20)).await;
            tell("stop", since);
            assert_eq!(ending.code, Some(0), "{ending:?}");
        }
        runtime.discard_disk(&disk).await.expect("goes");
    });
    project.issue("Todo", "APP-1", "```sh\necho from a machine > made.txt\nuname -r > kernel.txt\n```\n");
    let since = Instant::now();
    let settled = block_on(work(&project.dir(), runtime.clone()));
    tell("an issue from Todo to its patch, its own trial included", since);
    assert_eq!(settled, Settled::Finished, "{}", parked(&project, "APP-1"));
    let clone = project.apply_patch("APP-1");
    assert_eq!(std::fs::read_to_string(clone.join("made.txt")).expect("in the patch"), "from a machine\n");
    let theirs = std::fs::read_to_string(clone.join("kernel.txt")).expect("in the patch");
    let ours = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    assert_ne!(theirs.trim(), ours.trim(), "it ran under a kernel of its own");
    let swept = block_on(runtime.sweep_but(&[])).expect("sweeps");
    assert_eq!((swept.stopped.len(), swept.deleted.len(), swept.monitors), (0, 0, 0), "{swept:?}");
    assert_eq!(crate::rig::processes_with("_boot-vm"), [""; 0]);
    tell("all of it", started);
}
