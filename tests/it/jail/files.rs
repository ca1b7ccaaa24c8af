//! Files: what a guest can read, write and make.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use symphony::sandbox::Sandbox;

use super::bench::{both_ways, is_root, outside};

#[test]
fn host_secrets_are_not_readable_inside() {
    both_ways("jail::files::host_secrets_are_not_readable_inside", |bench| async move {
        let shared = bench.place.path().join("shared");
        fs::create_dir(&shared).expect("a directory");
        fs::write(shared.join("open"), "open").expect("a file");
        let beside = bench.place.path().join("secret");
        let within = shared.join("secret");
        for secret in [&beside, &within] {
            fs::write(secret, "planted").expect("a file");
            fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).expect("a mode");
        }
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).expect("a mode");
        let read = |path: &std::path::Path| format!("cat {} 2>/dev/null || echo refused", path.display());
        let inside = async |script: String| {
            let mut spec = bench.spec(&format!("exec >&3; {script}"));
            spec.read_only = vec![shared.clone()];
            bench.run_spec(spec).await.0.trim().to_owned()
        };
        assert_eq!(outside(&read(&beside)), "planted");
        assert_eq!(outside(&read(&within)), "planted");
        assert_eq!(inside(read(&shared.join("open"))).await, "open");
        assert_eq!(inside(read(&beside)).await, "refused");
        if is_root() {
            assert_ne!(outside("cat /etc/shadow 2>/dev/null || echo refused"), "refused");
            // An ordinary user's own files in a listed path are meant to be readable; root's are not.
            assert_eq!(inside(read(&within)).await, "refused");
        }
        for path in ["/etc/shadow", "/etc/sudoers", "/etc/ssh", "/etc/environment", "/root", "/sys", "/boot", "/opt"] {
            let look = format!("ls -d {path} 2>/dev/null || echo absent");
            assert_eq!(inside(look).await, "absent", "{path}");
        }
    });
}

#[test]
fn only_the_work_tree_home_and_scratch_are_writable() {
    both_ways("jail::files::only_the_work_tree_home_and_scratch_are_writable", |bench| async move {
        let try_in = |place: &str| format!("(: > {place}/x) 2>/dev/null && echo yes || echo no");
        for place in ["/work", "/home/agent", "/state", "/tmp", "/dev/shm", "/var/tmp"] {
            assert_eq!(bench.say(&try_in(place)).await, "yes", "{place}");
        }
        for place in ["", "/usr", "/usr/bin", "/etc", "/dev", "/run", "/run/symphony", "/home", "/proc", "/var"] {
            assert_eq!(bench.say(&try_in(place)).await, "no", "{place}");
        }
        let settings = bench
            .say("for f in kernel/core_pattern kernel/hostname vm/overcommit_memory net/ipv4/ip_forward; do (echo 1 > /proc/sys/$f) 2>/dev/null && echo \"wrote $f\"; done; (echo b > /proc/sysrq-trigger) 2>/dev/null; true")
            .await;
        assert_eq!(settings, "");
        let sealed = bench.say("grep -cE ' /proc/sys ro,' /proc/self/mountinfo").await;
        assert_eq!(sealed, "1");
        assert_eq!(bench.say("echo masked > /proc/keys; cat /proc/keys /proc/kcore | wc -c").await, "0");
    });
}

#[test]
fn device_nodes_and_setuid_files_gain_nothing() {
    both_ways("jail::files::device_nodes_and_setuid_files_gain_nothing", |bench| async move {
        let made = bench
            .say("cd /work; mknod d b 1 0 2>/dev/null && echo device; cp /bin/sh s; chmod 6755 s; ./s -c 'id -u'; mkfifo f && echo fifo")
            .await;
        assert_eq!(made, "1000\nfifo");
        if is_root() {
            // The control: outside, such a file makes an ordinary user its owner.
            let gain = "d=$(mktemp -d); chmod 755 $d; cp /bin/sh $d/s; chmod 4755 $d/s; \
                setpriv --reuid 65534 --clear-groups $d/s -p -c 'id -u'; rm -r $d";
            assert_eq!(outside(gain), "0");
        }
        let tree = bench.disk().join("tree");
        let file = fs::metadata(tree.join("s")).expect("the guest's file");
        let uid = fs::metadata(&tree).expect("the tree").uid();
        assert_ne!((file.uid(), file.gid()), (0, 0));
        assert_eq!(file.uid(), uid, "one user owns the whole disk");
        if is_root() {
            assert_ne!(uid, 0);
            let parent = fs::metadata(bench.disk()).expect("the disk");
            assert_eq!((parent.uid(), parent.mode() & 0o777), (0, 0o700), "no other user gets near that file");
        }
        let mounts =
            bench.say("grep -E ' /(work|home/agent|state) ' /proc/self/mountinfo | grep -c 'nosuid,nodev'").await;
        assert_eq!(mounts, "3");
    });
}

#[test]
fn disks_of_root_made_side_by_side_have_a_user_each_and_keep_it() {
    both_ways("jail::files::disks_of_root_made_side_by_side_have_a_user_each_and_keep_it", |bench| async move {
        let uid_of = async |name: &str| {
            let mut spec = bench.spec("exit 0");
            spec.disk = bench.place.path().join(name);
            let mut guest = bench.jail.boot(spec).await.expect("the jail boots");
            guest.wait().await;
            guest.report.uid
        };
        let names = ["a", "b", "c", "d", "e", "f"];
        let uids = futures::future::join_all(names.map(uid_of)).await;
        assert!(!uids.contains(&Some(0)));
        let distinct: std::collections::BTreeSet<_> = uids.iter().collect();
        assert_eq!(distinct.len(), if is_root() { names.len() } else { 1 }, "{uids:?}");
        assert_eq!(futures::future::join_all(names.map(uid_of)).await, uids, "a disk keeps its user");
    });
}

#[test]
fn a_read_only_path_may_not_cover_the_jails_own() {
    both_ways("jail::files::a_read_only_path_may_not_cover_the_jails_own", |bench| async move {
        for path in ["/", "/proc", "/dev", "/work/x", "/etc", "/etc/shadow", "/tmp", "/home", "/run"] {
            let mut spec = bench.spec("exit 0");
            spec.read_only = vec![path.into()];
            let refused = bench.jail.boot(spec).await;
            assert!(refused.is_err(), "{path} must be refused");
        }
    });
}
