//! A machine that wants more than it was given: of the console, of the channel, of memory, of processes.

use tokio::io::AsyncReadExt;

use super::bench::{Hostile, end, figure, order};

/// MiB of the machines here, and what their emulators have beside it.
const MACHINE: u64 = 256;
const BESIDE: u64 = 512;

#[tokio::test]
async fn floods_of_console_memory_and_processes_stay_within_the_machine() {
    let Some(hostile) = Hostile::new() else { return };
    let spec = hostile.spec("orders");
    let mut guest = hostile.boot(spec.clone()).await.expect("it woke");
    assert_eq!(order(&mut guest.io, "console 600").await, "600", "the control: all of it was written");
    let console = guest.stderr();
    assert!((60 * 1024..=64 * 1024).contains(&console.len()), "{}", console.len());
    assert_eq!(order(&mut guest.io, "memory").await, "signal 9", "its own kernel killed it");
    let most = figure(&spec, "VmHWM") / 1024;
    assert!(most > MACHINE / 2, "the control: {most} MiB were taken");
    assert!(most <= MACHINE + BESIDE, "{most} MiB");
    let before = figure(&spec, "Threads");
    let started: u64 = order(&mut guest.io, "processes").await.parse().expect("a number");
    assert!(started > 500, "the control: {started} processes in the machine");
    let after = figure(&spec, "Threads");
    println!("{most} MiB, {started} processes, {before} and {after} threads of the emulator");
    assert!(after <= before.max(8) + 64, "{before} {after}");
    end(guest.life, &spec).await;
}

#[tokio::test]
async fn a_flood_on_a_channel_that_nobody_reads_waits_in_the_machine() {
    let Some(hostile) = Hostile::new() else { return };
    let spec = hostile.spec("flood");
    let mut guest = hostile.boot(spec.clone()).await.expect("it woke");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let most = figure(&spec, "VmHWM") / 1024;
    assert!(most <= MACHINE + BESIDE, "{most} MiB");
    // The control: it would go on as long as somebody reads.
    let mut bytes = vec![0; 8 * 1024 * 1024];
    guest.io.read_exact(&mut bytes).await.expect("there is more");
    assert!(bytes.iter().all(|byte| *byte == b'x'));
    end(guest.life, &spec).await;
}

#[tokio::test]
async fn a_machine_that_does_not_read_holds_up_only_whoever_writes_to_it() {
    use tokio::io::AsyncWriteExt;
    let Some(hostile) = Hostile::new() else { return };
    let spec = hostile.spec("deaf");
    let mut guest = hostile.boot(spec.clone()).await.expect("it woke");
    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0_u64;
    // Written until nothing more is taken: that must come, and soon.
    while let Ok(Ok(())) = tokio::time::timeout(std::time::Duration::from_secs(2), guest.io.write_all(&block)).await {
        sent += block.len() as u64;
        assert!(sent < 256 * 1024 * 1024, "it is kept somewhere");
    }
    println!("{sent} bytes were taken");
    assert!(figure(&spec, "VmHWM") / 1024 <= MACHINE + BESIDE);
    end(guest.life, &spec).await;
}
