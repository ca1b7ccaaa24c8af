//! Doors into the kernel: shut inside, open outside.

use std::collections::BTreeMap;
use std::net::TcpListener;

use super::bench::{appears, both_ways, held_by_the_keepers, is_root, outside};
use crate::skip::skip;

type Answers = BTreeMap<String, i32>;

fn answers(text: &str) -> Answers {
    // The harness may print its own words in front of the first line.
    let lines = text.lines().filter_map(|line| Some(line.split_once("probe ")?.1));
    let pair = |line: &str| line.split_once(' ').and_then(|(name, errno)| Some((name.to_owned(), errno.parse().ok()?)));
    lines.filter_map(pair).collect()
}

#[test]
fn namespace_mount_trace_key_and_ring_calls_are_refused() {
    both_ways("jail::kernel::namespace_mount_trace_key_and_ring_calls_are_refused", |bench| async move {
        // A copy, because the repository may stand where the jail has its own directories.
        let me = bench.place.path().join("it");
        std::fs::copy("/proc/self/exe", &me).expect("this test program can be copied");
        let probe =
            format!("SYMPHONY_PROBE=1 {} jail::probe::system_calls_are_answered --exact --nocapture", me.display());
        let mut spec = bench.spec(&format!("exec >&3 2>&3; {probe}"));
        spec.read_only = vec![me];
        let (said, ending) = bench.run_spec(spec).await;
        let inside = answers(&said);
        assert!(inside.len() > 20, "the probe runs inside: {said}\n{ending:?}");
        let free = answers(&outside(&probe));

        for (name, errno) in &inside {
            let expected = match name.as_str() {
                "clone3" | "unknown_call" | "personality" => libc::ENOSYS,
                "netlink" | "packet" | "alg" | "vsock" => libc::EAFNOSUPPORT,
                _ => libc::EPERM,
            };
            assert_eq!(*errno, expected, "{name} inside; outside it is {:?}", free.get(name));
        }
        let open =
            ["clone_newuser", "unshare", "setns", "process_vm_readv", "keyctl", "ptrace", "personality", "netlink"];
        for name in open {
            let errno = free.get(name).copied();
            assert!(
                !matches!(errno, None | Some(libc::EPERM | libc::EAFNOSUPPORT | libc::ENOSYS)),
                "{name}: {errno:?}"
            );
        }
    });
}

#[test]
fn no_port_of_the_host_is_reachable() {
    both_ways("jail::kernel::no_port_of_the_host_is_reachable", |bench| async move {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let knock =
            format!("if bash -c ': </dev/tcp/127.0.0.1/{port}' 2>/dev/null; then echo open; else echo shut; fi");
        assert_eq!(outside(&knock), "open");
        assert_eq!(bench.say(&knock).await, "shut");
        let interfaces = bench.say("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await;
        assert_eq!(interfaces, "lo");
    });
}

#[test]
fn an_abstract_socket_of_the_host_is_not_reachable() {
    both_ways("jail::kernel::an_abstract_socket_of_the_host_is_not_reachable", |bench| async move {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("symphony-test-{}-{}", std::process::id(), rustix::process::geteuid().as_raw());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let _listener = std::os::unix::net::UnixListener::bind_addr(&address).expect("a socket");
        let look = format!("grep -c {name} /proc/net/unix || true");
        assert_eq!(outside(&look), "1");
        assert_eq!(bench.say(&look).await, "0");
    });
}

#[test]
fn the_user_inside_is_1000_without_capabilities_and_root_is_nobody() {
    both_ways("jail::kernel::the_user_inside_is_1000_without_capabilities_and_root_is_nobody", |bench| async move {
        assert_eq!(bench.say("id -u; id -g; id -un; hostname").await, "1000\n1000\nagent\nsymphony");
        let map = bench.say("cat /proc/self/uid_map").await;
        let fields: Vec<&str> = map.split_whitespace().collect();
        assert_eq!((fields.first(), fields.get(2), fields.len()), (Some(&"1000"), Some(&"1"), 3), "{map}");
        assert_ne!(fields.get(1), Some(&"0"), "never the host's root");
        let status = bench.say("grep -E '^(Cap|NoNewPrivs|Seccomp:|Groups)' /proc/self/status").await;
        for line in status.lines().filter(|line| line.starts_with("Cap")) {
            assert!(line.ends_with("0000000000000000"), "{status}");
        }
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    });
}

#[test]
fn nothing_the_host_has_open_is_open_inside() {
    both_ways("jail::kernel::nothing_the_host_has_open_is_open_inside", |bench| async move {
        // A descriptor without close-on-exec, as a careless library leaves it.
        let leak = std::fs::File::open("/etc/passwd").expect("a file");
        rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("a flag");
        let list = "cd /proc/self/fd; for f in *; do readlink $f; done | grep -c /etc/passwd || true";
        assert_eq!(outside(list), "1");
        assert_eq!(bench.say(list).await, "0");
        if is_root() {
            let mark = format!("kept-{}", std::process::id());
            let guest = bench.boot(&format!("echo up >&3; sh -c 'sleep 1000; :' {mark}")).await;
            appears(&mark).await;
            let [launcher, first] = &held_by_the_keepers(&mark)[..] else { panic!("two keepers") };
            assert!(!launcher.iter().any(|link| link.contains("/etc/passwd")), "{launcher:?}");
            assert_eq!(first.iter().filter(|link| *link != "/dev/null").count(), 1, "only the error stream: {first:?}");
            guest.stop(std::time::Duration::ZERO).await;
        }
        // The last is the directory that `ls` itself opens; 3 is the channel.
        let (list, _) = bench.run("exec ls /proc/self/fd >&3").await;
        assert_eq!(list.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
        // Pid 1 holds neither the channel nor the host; nobody inside may even look.
        assert_eq!(bench.say("ls /proc/1/fd >/dev/null 2>&1 && echo seen || echo hidden").await, "hidden");
    });
}

#[test]
fn landlock_forbids_what_the_mounts_would_allow() {
    both_ways("jail::kernel::landlock_forbids_what_the_mounts_would_allow", |bench| async move {
        let report = symphony::sandbox::Sandbox::trial(&bench.jail, None).await.expect("the trial passes");
        if report.landlock_abi == 0 {
            skip("this kernel has no Landlock");
            return;
        }
        let rename = "{ echo renamed > /proc/self/comm; } 2>/dev/null; cat /proc/$$/comm";
        assert_eq!(outside(rename), "renamed");
        assert_eq!(bench.say(rename).await, "sh");
    });
}
