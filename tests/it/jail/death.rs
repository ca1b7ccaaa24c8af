//! However something ends, nothing of it lives on.

use std::process::{Command, Stdio};
use std::time::Duration;

use symphony::sandbox::Sandbox;

use super::bench::{Bench, SOON, alive, appears, both_ways, gone, launcher_of};

/// Leaves a process behind that no longer belongs to anybody and ignores polite signals.
fn orphan(mark: &str) -> String {
    format!("(setsid sh -c 'trap \"\" TERM HUP INT; while :; do sleep 1; done' {mark} >/dev/null 2>&1 3>&- &) & wait; ")
}

fn mark(word: &str) -> String {
    format!("{word}-{}-{}", std::process::id(), rustix::process::geteuid().as_raw())
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
        let launcher = launcher_of(&mark).expect("the launcher");
        let pid = rustix::process::Pid::from_raw(launcher).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
        let ending = tokio::time::timeout(SOON, guest.wait()).await.expect("the end is noticed");
        assert_eq!(ending.code, None, "{ending:?}");
        assert!(gone(&mark).await);
    });
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

#[test]
fn a_boot_given_up_at_any_moment_leaves_nothing() {
    both_ways("jail::death::a_boot_given_up_at_any_moment_leaves_nothing", |bench| async move {
        let mut spec = bench.spec("exit 0");
        spec.deadline = Duration::ZERO;
        let late = bench.jail.boot(spec).await;
        assert!(matches!(late, Err(symphony::sandbox::BootError::Deadline(_))), "{late:?}");
        let mark = mark("hasty");
        let mut booted = 0;
        for step in 0..24 {
            let spec = bench.spec(&format!("{} sleep 1000", orphan(&mark)));
            let patience = Duration::from_millis(step * step / 4);
            booted += usize::from(tokio::time::timeout(patience, bench.jail.boot(spec)).await.is_ok());
        }
        println!("{booted} of 24 booted before they were given up");
        assert!(gone(&mark).await);
        // A boot that was given up may still be making the disk; one that is not comes after it.
        bench.say("exit 0").await;
    });
}
