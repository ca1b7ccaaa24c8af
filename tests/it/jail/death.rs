//! However something ends, nothing of it lives on.

use std::process::{Command, Stdio};
use std::time::Duration;

use symphony::sandbox::Sandbox;

use super::bench::{Bench, SOON, alive, both_ways, gone};

/// Leaves a process behind that no longer belongs to anybody and ignores polite signals.
fn orphan(mark: &str) -> String {
    format!("(setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done' {mark} >/dev/null 2>&1 3>&- &) & wait; ")
}

fn mark(word: &str) -> String {
    format!("{word}-{}-{}", std::process::id(), rustix::process::geteuid().as_raw())
}

async fn appears(mark: &str) {
    for _ in 0..200 {
        if alive(mark) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{mark} never started: the test would prove nothing");
}

#[test]
fn an_orphan_dies_with_its_jail() {
    both_ways("jail::death::an_orphan_dies_with_its_jail", |bench| async move {
        let mark = mark("orphan");
        let mut guest = bench.boot(&format!("{} cat <&3", orphan(&mark))).await;
        appears(&mark).await;
        // The program ends by itself when its channel does.
        let (_, nothing) = tokio::net::UnixStream::pair().expect("a pair");
        guest.io = nothing;
        let ending = guest.stop(SOON).await;
        assert!(!ending.killed, "{ending:?}");
        assert!(!alive(&mark), "stop returns when nothing is left");
    });
}

#[test]
fn a_guest_that_will_not_end_is_killed() {
    both_ways("jail::death::a_guest_that_will_not_end_is_killed", |bench| async move {
        let mark = mark("stubborn");
        let guest = bench.boot(&format!("{} trap '' TERM HUP INT; while :; do sleep 1; done", orphan(&mark))).await;
        appears(&mark).await;
        let ending = guest.stop(Duration::from_millis(200)).await;
        assert!(ending.killed && ending.code.is_none(), "{ending:?}");
        assert!(!alive(&mark));
    });
}

#[test]
fn dropping_a_guest_kills_it() {
    both_ways("jail::death::dropping_a_guest_kills_it", |bench| async move {
        let mark = mark("dropped");
        let guest = bench.boot(&format!("{} sleep 1000", orphan(&mark))).await;
        appears(&mark).await;
        drop(guest);
        assert!(gone(&mark).await);
    });
}

#[test]
fn killing_the_launcher_leaves_nothing() {
    both_ways("jail::death::killing_the_launcher_leaves_nothing", |bench| async move {
        let mark = mark("gatekeeper");
        let mut guest = bench.boot(&format!("{} sleep 1000", orphan(&mark))).await;
        appears(&mark).await;
        let children = children_of(std::process::id());
        let launcher = children.iter().find(|(_, command)| command.contains("__jail")).expect("the launcher").0;
        let pid = rustix::process::Pid::from_raw(launcher).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        let ending = tokio::time::timeout(SOON, guest.wait()).await.expect("the end is noticed");
        assert_eq!(ending.code, None, "{ending:?}");
        assert!(gone(&mark).await);
    });
}

fn children_of(parent: u32) -> Vec<(i32, String)> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let child = |entry: std::fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let of: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        (of == parent).then(|| (pid, String::from_utf8_lossy(&command).into_owned()))
    };
    processes.filter_map(child).collect()
}

#[test]
fn killing_the_host_process_leaves_nothing() {
    both_ways("jail::death::killing_the_host_process_leaves_nothing", |bench| async move {
        let mark = mark("host");
        let mut host = Command::new("/proc/self/exe");
        host.args(["jail::death::a_host_boots_a_jail_and_waits_to_be_killed", "--exact", "--nocapture"]);
        host.env("SYMPHONY_TEST_HOST", &mark)
            .env("TMPDIR", bench.place.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut host = host.spawn().expect("a host starts");
        appears(&mark).await;
        host.kill().expect("killed");
        host.wait().expect("reaped");
        assert!(gone(&mark).await);
    });
}

/// The host of the test above, which kills it.
#[test]
fn a_host_boots_a_jail_and_waits_to_be_killed() {
    let Some(mark) = std::env::var_os("SYMPHONY_TEST_HOST") else { return };
    let script = format!("{} sleep 1000", orphan(&mark.to_string_lossy()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let bench = Bench::new();
        let mut guest = bench.jail.boot(bench.spec(&script)).await.expect("the jail boots");
        let _ = tokio::time::timeout(SOON, guest.wait()).await;
    });
}
