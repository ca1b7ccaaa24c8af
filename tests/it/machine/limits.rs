//! What a machine may use is bounded, and what it uses up is its own.

use symphony::sandbox::channel::Exit;

use super::bench::{Awake, Bench, have_machines};

#[tokio::test]
async fn a_machine_s_disk_processes_and_memory_have_their_limits() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec("tight");
    (spec.disk_mib, spec.pids, spec.memory_mib) = (64, 40, 384);
    let disk = spec.disk.clone();
    let guest = Awake::boot(&bench.cold(), spec).await;
    guest.sh("head -c 20m /dev/zero > /work/fits && sync").await;
    let (exit, text) = guest.try_sh("head -c 100m /dev/zero > /work/big").await;
    assert!(exit != Exit::Code(0) && text.contains("No space left"), "{exit:?} {text}");
    let written = std::process::Command::new("du").args(["-sm"]).arg(&disk).output().expect("du runs");
    let written = String::from_utf8_lossy(&written.stdout).split_whitespace().next().map(str::to_owned);
    let written: u64 = written.and_then(|mib| mib.parse().ok()).expect("a number");
    assert!((20..=66).contains(&written), "{written} MiB on the host");
    let fork = "i=0; while [ $i -lt N ]; do sleep 20 & i=$((i+1)); done; echo all";
    let (exit, text) = guest.try_sh(&fork.replace('N', "60")).await;
    assert!(exit != Exit::Code(0) || !text.ends_with("all"), "{exit:?} {text}");
    guest.channel.clear(std::time::Duration::from_secs(10)).await.expect("cleared");
    assert_eq!(guest.sh(&fork.replace('N', "10")).await, "all", "the control: a few can start");
    guest.channel.clear(std::time::Duration::from_secs(10)).await.expect("cleared");
    // `tail` keeps what has no line end in memory.
    let hog = "head -c SIZE /dev/zero | tail | wc -c";
    assert_eq!(guest.sh(&hog.replace("SIZE", "20m")).await, "20971520");
    assert_ne!(guest.try_sh(&hog.replace("SIZE", "600m")).await.1, "629145600");
    let ending = guest.end().await;
    assert!(ending.out_of_memory, "{ending:?}");
}

#[tokio::test]
async fn a_disk_that_was_given_more_room_grows_and_keeps_what_it_holds() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec("growing");
    spec.disk_mib = 64;
    let guest = Awake::boot(&bench.cold(), spec.clone()).await;
    guest.sh("echo kept > /work/file").await;
    guest.end().await;
    spec.disk_mib = 256;
    let guest = Awake::boot(&bench.cold(), spec.clone()).await;
    assert_eq!(guest.sh("head -c 100m /dev/zero > /work/big && cat /work/file").await, "kept");
    guest.end().await;
    // Less room than it holds: it is not cut off.
    spec.disk_mib = 64;
    let guest = Awake::boot(&bench.cold(), spec.clone()).await;
    assert_eq!(guest.sh("cat /work/file && stat -c %s /work/big").await, "kept\n104857600");
    guest.sh("head -c 60m /dev/urandom > /work/more && sync && sha256sum /work/more > /work/sum").await;
    guest.end().await;
    let guest = Awake::boot(&bench.cold(), spec).await;
    guest.sh("sha256sum -c /work/sum").await;
    guest.end().await;
}
