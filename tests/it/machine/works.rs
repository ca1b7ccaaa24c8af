//! A machine does what a run needs of it, cold and restored.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use symphony::sandbox::Sandbox;

use super::bench::{Awake, Bench, have_machines};

#[tokio::test]
async fn a_machine_boots_works_keeps_its_disk_and_ends_in_order() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let qemu = bench.cold();
    let started = Instant::now();
    let guest = Awake::boot(&qemu, bench.spec("one")).await;
    println!("cold boot to hello: {:?}", started.elapsed());
    assert!(!guest.hello.tree && guest.hello.marker.is_none());
    assert_eq!(guest.sh("id -u; hostname; pwd").await, "1000\nsymphony\n/work");
    assert!(guest.sh("git --version").await.starts_with("git version"));
    assert_eq!(guest.sh("ls /sys/class/net").await, "lo");
    guest.sh("echo kept > /work/file && echo home > /home/agent/file").await;
    guest.channel.marker("a marker").await.expect("stored");
    let ending = guest.end().await;
    assert_eq!((ending.code, ending.killed), (Some(0), false), "{ending:?}");
    let guest = Awake::boot(&qemu, bench.spec("one")).await;
    assert_eq!(guest.hello.marker.as_deref(), Some("a marker"));
    assert_eq!(guest.sh("cat /work/file /home/agent/file").await, "kept\nhome");
    guest.end().await;
    qemu.discard_disk(&bench.spec("one").disk).await.expect("removed");
    assert!(!bench.spec("one").disk.exists());
}

#[tokio::test]
async fn a_restored_machine_is_as_good_as_a_booted_one() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let qemu = bench.templated();
    let started = Instant::now();
    let first = Awake::boot(&qemu, bench.spec("one")).await;
    println!("template and first restore: {:?}", started.elapsed());
    let started = Instant::now();
    let second = Awake::boot(&qemu, bench.spec("two")).await;
    println!("second restore: {:?}", started.elapsed());
    let random = "cat /proc/sys/kernel/random/uuid";
    assert_ne!(first.sh(random).await, second.sh(random).await);
    let now = jiff::Timestamp::now().as_second();
    let theirs: i64 = second.sh("date +%s").await.parse().expect("a time");
    assert!((now - theirs).abs() < 60, "{now} {theirs}");
    first.sh("echo kept > /work/file").await;
    assert_ne!(second.try_sh("cat /work/file").await.0, symphony::sandbox::channel::Exit::Code(0));
    first.end().await;
    second.end().await;
    let again = Awake::boot(&qemu, bench.spec("one")).await;
    assert_eq!(again.sh("cat /work/file").await, "kept");
    again.end().await;
}

#[tokio::test]
async fn a_disk_whose_formatting_was_cut_off_is_formatted_and_anything_else_is_left_alone() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let qemu = bench.cold();
    let guest = Awake::boot(&qemu, bench.spec("one")).await;
    guest.sh("echo lost > /work/file").await;
    guest.end().await;
    let image = bench.spec("one").disk.join("state/work.img");
    let open = || std::fs::File::options().read(true).write(true).open(&image).expect("the disk is a file");
    // The beginning is written last: without it nothing ever was on this disk, whatever else stands there.
    open().write_all_at(&vec![0; 64 * 1024], 0).expect("written");
    let guest = Awake::boot(&qemu, bench.spec("one")).await;
    assert_eq!(guest.sh("ls -A /work && echo new > /work/file && cat /work/file").await, "new");
    guest.end().await;
    // The control: what is not blank is somebody's.
    open().write_all_at(&[1; 64 * 1024], 0).expect("written");
    let error = qemu.boot(bench.spec("one")).await.expect_err("it is not used").to_string();
    assert!(error.contains("it is left as it is"), "{error}");
    let mut head = vec![0; 64 * 1024];
    open().read_exact_at(&mut head, 0).expect("readable");
    assert!(head.iter().all(|byte| *byte == 1));
}
