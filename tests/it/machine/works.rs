//! A machine does what a run needs of it, cold and restored.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Instant;

use symphony::sandbox::qemu::Qemu;
use symphony::sandbox::{BootSpec, Sandbox};

use super::bench::{Awake, Bench, have_machines};
use crate::skip::skip_part;

/// The default of `sandbox.disk_mib`: the image brings a file system of this size.
const USUAL_MIB: u64 = 8192;
/// The UUID of the file system that the image brings (vm/image.d/blank.sh). Formatting draws one.
const BROUGHT: &str = "5f0e7a526c1d4d1e9b5373796d626c6b";

/// The work disk's file on the host, and its file system's UUID as it stands there.
fn uuid(spec: &BootSpec) -> String {
    let image = File::open(spec.disk.join("state/work.img")).expect("the disk is a file");
    let mut uuid = [0; 16];
    image.read_exact_at(&mut uuid, 1024 + 0x68).expect("readable");
    uuid.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file system that nothing is wrong with, by the word of the one program that knows. Nothing is mounted or changed.
fn sound(spec: &BootSpec) {
    let image = spec.disk.join("state/work.img");
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    match Command::new("e2fsck").env("PATH", path).args(["-f", "-n"]).arg(image).output() {
        Ok(said) => assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stdout)),
        Err(error) => skip_part(format_args!("the check of a work disk; e2fsck does not start: {error}")),
    }
}

/// A new disk of the usual size has the image's file system, and takes work as any other.
async fn takes_the_file_system_that_the_image_brings(bench: &Bench, runtime: &Qemu) {
    let mut spec = bench.spec("usual");
    spec.disk_mib = USUAL_MIB;
    let guest = Awake::boot(runtime, spec.clone()).await;
    assert_eq!(guest.sh("stat -c '%U %a' /work /home/agent /state | sort -u").await, "agent 755");
    let write = "head -c 96m /dev/urandom > /work/big && mkdir /home/agent/d && touch /home/agent/d/f && sync && sha256sum < /work/big";
    let sum = guest.sh(write).await;
    guest.end().await;
    assert_eq!(uuid(&spec), BROUGHT);
    sound(&spec);
    let guest = Awake::boot(runtime, spec.clone()).await;
    assert_eq!(guest.sh("sha256sum < /work/big && ls /home/agent/d").await, format!("{sum}\nf"));
    guest.end().await;
    sound(&spec);
    // The control: a disk of another size is formatted.
    let other = bench.spec("other");
    Awake::boot(runtime, other.clone()).await.end().await;
    assert_ne!(uuid(&other), BROUGHT);
    sound(&other);
}

#[tokio::test]
async fn a_new_disk_of_the_usual_size_takes_the_file_system_of_the_image_when_its_machine_is_booted_cold() {
    if have_machines() {
        let bench = Bench::new();
        takes_the_file_system_that_the_image_brings(&bench, &bench.cold()).await;
    }
}

#[tokio::test]
async fn a_new_disk_of_the_usual_size_takes_the_file_system_of_the_image_when_its_machine_is_restored() {
    if have_machines() {
        let bench = Bench::new();
        takes_the_file_system_that_the_image_brings(&bench, &bench.templated()).await;
    }
}

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
    for disk_mib in [1024, USUAL_MIB] {
        is_formatted_again_or_left_alone(disk_mib).await;
    }
}

async fn is_formatted_again_or_left_alone(disk_mib: u64) {
    let bench = Bench::new();
    let qemu = bench.cold();
    let spec = || BootSpec { disk_mib, ..bench.spec("one") };
    let guest = Awake::boot(&qemu, spec()).await;
    guest.sh("i=0; while [ $i -lt 400 ]; do echo lost > /work/$i; i=$((i+1)); done").await;
    guest.end().await;
    let image = spec().disk.join("state/work.img");
    let open = || File::options().read(true).write(true).open(&image).expect("the disk is a file");
    // The beginning is written last: without it nothing ever was on this disk, whatever else stands there.
    open().write_all_at(&vec![0; 64 * 1024], 0).expect("written");
    let guest = Awake::boot(&qemu, spec()).await;
    assert_eq!(guest.sh("ls -A /work && echo new > /work/file && cat /work/file").await, "new");
    guest.end().await;
    sound(&spec());
    // The control: what is not blank is somebody's.
    open().write_all_at(&[1; 64 * 1024], 0).expect("written");
    let error = qemu.boot(spec()).await.expect_err("it is not used").to_string();
    assert!(error.contains("it is left as it is"), "{error}");
    let mut head = vec![0; 64 * 1024];
    open().read_exact_at(&mut head, 0).expect("readable");
    assert!(head.iter().all(|byte| *byte == 1));
}
