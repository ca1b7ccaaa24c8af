//! The root of a machine and its disks: what is read-only stays as it is, and the work disk has an end.

use std::fs;
use std::path::Path;

use super::bench::{Hostile, end, order, untouched};

/// Finds the device of a disk by its name.
const DEVICE: &str =
    "device() { for b in /sys/block/*; do [ \"$(cat $b/serial 2>/dev/null)\" = $1 ] && echo /dev/${b##*/}; done; }\n";

/// MiB that a file really has on the host.
fn blocks(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).expect("there")) / 2048
}

#[tokio::test]
async fn as_root_of_a_machine_the_image_cannot_be_written_and_the_work_disk_ends_where_its_limit_is() {
    let Some(hostile) = Hostile::new() else { return };
    let mut spec = hostile.spec("orders");
    spec.disk_mib = 32;
    let mut guest = hostile.boot(spec.clone()).await.expect("it woke");
    let mut sh = async |script: &str| order(&mut guest.io, &format!("sh {}", script.replace('\n', ";"))).await;
    let write = |device: &str, place: &str| {
        format!("{DEVICE}d=$(device {device}); dd if=/dev/urandom of=$d bs=1M {place} oflag=direct conv=notrunc 2>&1 && echo written")
            .replace("; }\n", "; }\n")
    };
    let said = sh(&write("work", "count=4")).await;
    assert!(said.contains("written"), "the control: the work disk takes it: {said}");
    let said = sh(&format!("{DEVICE}blockdev --setrw $(device root) 2>&1; {}", write("root", "count=1"))).await;
    assert!(!said.contains("written") && said.contains("dd: "), "{said}");
    let work = spec.disk.join("state/work.img");
    let small = blocks(&work);
    assert!((4..=8).contains(&small), "the control: what is written takes room: {small} MiB");
    for place in ["seek=31 count=2", "seek=100000 count=1", "seek=262143 count=1"] {
        let said = sh(&write("work", place)).await;
        assert!(!said.contains("written") && said.contains("rror"), "{place}: {said}");
    }
    let said = sh(&write("work", "count=32")).await;
    assert!(said.contains("written"), "up to its limit it can be used: {said}");
    end(guest.life, &spec).await;
    assert!((32..=33).contains(&blocks(&work)), "{} MiB", blocks(&work));
    assert!(untouched(&spec));
}
