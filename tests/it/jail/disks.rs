//! Work disks: removed whatever a guest made of them, and nothing else.

use std::fs;

use rustix::fs::{Mode, OFlags};
use symphony::sandbox::{BootError, Sandbox};

use super::bench::{both_ways, is_root, skip_unless_again};

#[test]
fn a_disk_with_locked_directories_and_links_is_removed_and_nothing_else() {
    both_ways(
        "jail::disks::a_disk_with_locked_directories_and_links_is_removed_and_nothing_else",
        |bench| async move {
            let host = bench.place.path().join("host");
            fs::create_dir(&host).expect("a directory");
            fs::write(host.join("kept"), "kept").expect("a file");
            let script = format!(
                "cd /work; ln -s {0} link; ln -s {0}/kept file; mkdir -p a/b/c locked/in; ln -s {0} a/b/c/link; echo x > locked/in/f; \
             mkfifo pipe; chmod 000 locked/in locked a/b; chmod 000 /home/agent",
                host.display()
            );
            bench.say(&script).await;
            assert!(bench.disk().join("tree/link").symlink_metadata().is_ok(), "the guest did its part");
            bench.jail.discard_disk(&bench.disk()).await.expect("removed");
            assert!(bench.disk().symlink_metadata().is_err());
            assert_eq!(fs::read_to_string(host.join("kept")).expect("still there"), "kept");
            let left: Vec<_> =
                fs::read_dir(bench.place.path()).expect("readable").flatten().map(|e| e.file_name()).collect();
            assert_eq!(left, ["host"]);
            bench.jail.discard_disk(&bench.disk()).await.expect("a missing disk is no error");
        },
    );
}

#[test]
fn a_guest_that_locks_its_own_disk_does_not_lock_out_the_next_one() {
    both_ways("jail::disks::a_guest_that_locks_its_own_disk_does_not_lock_out_the_next_one", |bench| async move {
        bench.say("echo kept > /work/f; chmod 000 /work /home/agent /state; cat /work/f 2>/dev/null || true").await;
        let mode = |part: &str| {
            let meta = fs::metadata(bench.disk().join(part)).expect("a part of the disk");
            std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777
        };
        assert_eq!(mode("tree"), 0, "the guest did its part");
        assert_eq!(bench.say("cat /work/f; touch /state/x /home/agent/x").await, "kept");
    });
}

#[test]
fn a_disk_nested_beyond_any_path_is_removed() {
    both_ways("jail::disks::a_disk_nested_beyond_any_path_is_removed", |bench| async move {
        bench.say("echo ready").await;
        // 3000 levels of 20 characters: far more than a path, or descriptors, could hold.
        let name = "dddddddddddddddddddd";
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = rustix::fs::open(bench.disk().join("tree"), flags, Mode::empty()).expect("the tree");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, name, Mode::RWXU).expect("a level");
            let below = rustix::fs::openat(&here, name, flags, Mode::empty()).expect("a level");
            rustix::fs::fchmod(&here, Mode::empty()).expect("locked");
            here = below;
        }
        drop(here);
        bench.jail.discard_disk(&bench.disk()).await.expect("removed");
        assert!(bench.disk().symlink_metadata().is_err());
    });
}

#[test]
fn a_link_in_the_place_of_a_disk_is_not_followed() {
    both_ways("jail::disks::a_link_in_the_place_of_a_disk_is_not_followed", |bench| async move {
        let host = bench.place.path().join("host");
        fs::create_dir_all(host.join("tree")).expect("a directory");
        std::os::unix::fs::symlink(&host, bench.disk()).expect("a link");
        let refused = bench.jail.discard_disk(&bench.disk()).await;
        assert!(matches!(refused, Err(BootError::Disk { .. })), "{refused:?}");
        assert!(host.join("tree").is_dir());
    });
}

#[test]
fn a_mount_in_a_disk_is_not_entered_and_the_rest_is_kept() {
    both_ways("jail::disks::a_mount_in_a_disk_is_not_entered_and_the_rest_is_kept", |bench| async move {
        if !is_root() {
            skip_unless_again("only root can mount here");
            return;
        }
        bench.say("mkdir /work/m").await;
        let alone = std::thread::spawn(move || {
            // Mounts of this thread alone, and of those it starts.
            // SAFETY: no other thread shares this one's file system state afterwards.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.expect("a namespace");
            let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).expect("private");
            let none = rustix::mount::MountFlags::empty();
            rustix::mount::mount("tmpfs", bench.disk().join("tree/m"), "tmpfs", none, c"").expect("mounted");
            fs::write(bench.disk().join("tree/m/kept"), "kept").expect("a file");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let refused = runtime.block_on(bench.jail.discard_disk(&bench.disk())).expect_err("it must be refused");
            assert!(refused.to_string().contains("unmount"), "{refused}");
            let kept = bench.place.path().join("+gone-disk/tree/m");
            assert_eq!(fs::read_to_string(kept.join("kept")).expect("still there"), "kept");
            rustix::mount::unmount(&kept, rustix::mount::UnmountFlags::empty()).expect("unmounted");
            runtime.block_on(bench.jail.discard_disk(&bench.disk())).expect("removed at the second try");
            assert_eq!(fs::read_dir(bench.place.path()).expect("readable").count(), 0);
        });
        alone.join().expect("no panic");
    });
}
