//! However a machine or its host ends, no emulator lives on, and what was flushed is still there.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::bench::{Awake, Bench, SOON, have_machines};
use crate::jail::bench::{alive, appears, gone};

fn name(run: u64) -> String {
    format!("symphony-run-{run}")
}

/// Runs that no other test has, nor this one in another process.
fn run(number: u64) -> u64 {
    u64::from(std::process::id()) * 1000 + number
}

#[tokio::test]
async fn dropping_a_machine_kills_it_and_its_disk_is_sound() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec("dropped");
    spec.run.0 = run(1);
    let guest = Awake::boot(&bench.cold(), spec.clone()).await;
    assert!(alive(&name(run(1))), "the control: an emulator runs under this name");
    guest.sh("echo kept > /work/file && sync").await;
    drop(guest);
    assert!(gone(&name(run(1))).await);
    let guest = Awake::boot(&bench.cold(), spec).await;
    assert_eq!(guest.sh("cat /work/file").await, "kept");
    guest.end().await;
}

#[tokio::test]
async fn killing_the_host_process_leaves_no_machine() {
    if !have_machines() {
        return;
    }
    let mark = run(2);
    let mut host = Command::new("/proc/self/exe");
    host.args(["machine::death::a_host_boots_a_machine_and_waits_to_be_killed", "--exact", "--nocapture"]);
    host.env("SYMPHONY_TEST_MACHINE_HOST", mark.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut host = host.spawn().expect("a host starts");
    appears(&name(mark)).await;
    host.kill().expect("killed");
    host.wait().expect("reaped");
    assert!(gone(&name(mark)).await);
}

/// The host of the test above, which kills it.
#[tokio::test]
async fn a_host_boots_a_machine_and_waits_to_be_killed() {
    let Some(mark) = std::env::var("SYMPHONY_TEST_MACHINE_HOST").ok() else { return };
    let bench = Bench::new();
    let mut spec = bench.spec("one");
    spec.run.0 = mark.parse().expect("a number");
    let mut guest = Awake::boot(&bench.cold(), spec).await;
    let _ = tokio::time::timeout(SOON, guest.life.wait()).await;
}

#[tokio::test]
async fn a_boot_given_up_at_any_moment_leaves_no_machine() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let (cold, templated) = (bench.cold(), bench.templated());
    Awake::boot(&templated, bench.spec("first")).await.end().await;
    let mut booted = 0;
    // From the launcher's first steps to a machine that is awake, twice as long as that usually takes.
    let moments = (0..7).map(|step| (&cold, step * step * 90)).chain((0..10).map(|step| (&templated, step * 80)));
    for (runtime, millis) in moments {
        let mut spec = bench.spec("given-up");
        spec.run.0 = run(3);
        let boot = symphony::sandbox::Sandbox::boot(runtime, spec);
        booted += usize::from(tokio::time::timeout(Duration::from_millis(millis), boot).await.is_ok());
    }
    println!("{booted} of 17 booted before they were given up");
    // The disk that was given up so often is as good as any.
    Awake::boot(&cold, bench.spec("given-up")).await.end().await;
    assert!(gone(&name(run(3))).await);
}

/// Regression: the emulator of a machine that was dropped held the disk for a moment longer, and the next boot failed.
#[tokio::test]
async fn a_machine_boots_on_the_disk_of_one_that_was_dropped_just_now_and_two_never_share_one() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    for (disk, qemu) in [("cold", bench.cold()), ("restored", bench.templated())] {
        for round in 0..2 {
            let guest = Awake::boot(&qemu, bench.spec(disk)).await;
            // Memory that takes a while to be given back.
            guest.sh("head -c 200m /dev/zero | tail -c 150m > /dev/null; echo here >> /work/rounds; sync").await;
            assert_eq!(guest.sh("wc -l < /work/rounds").await, (round + 1).to_string());
            drop(guest);
        }
    }
    let templates = || std::fs::read_dir(bench.place.path().join("templates")).map_or(0, |found| found.count());
    assert_eq!(templates(), 1, "no template was given up for it");
    let qemu = bench.templated();
    let one = Awake::boot(&qemu, bench.spec("same")).await;
    let mut spec = bench.spec("same");
    spec.deadline = Duration::from_secs(8);
    let two = symphony::sandbox::Sandbox::boot(&qemu, spec).await;
    assert!(two.is_err(), "the disk has an owner");
    one.sh("echo mine > /work/file").await;
    one.end().await;
}
