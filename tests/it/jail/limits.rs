//! Limits: a greedy guest hurts only itself.

use std::time::{Duration, Instant};
use symphony::sandbox::Guest;

use symphony::sandbox::Sandbox;

use super::bench::{SOON, both_ways};

#[test]
fn a_fork_bomb_is_stopped_and_the_jail_still_ends() {
    both_ways("jail::limits::a_fork_bomb_is_stopped_and_the_jail_still_ends", |bench| async move {
        let mut spec = bench.spec(
            "exec 2>/dev/null; bomb() { bomb | bomb & }; bomb; sleep 1; echo armed >&3; while :; do sleep 1; done",
        );
        spec.pids = 60;
        let mut guest = bench.jail.boot(spec).await.expect("the jail boots");
        assert_ne!(guest.report.pids, "none");
        let mut said = [0; 5];
        let _ =
            tokio::time::timeout(Duration::from_secs(5), tokio::io::AsyncReadExt::read_exact(&mut guest.io, &mut said))
                .await;
        let now = Instant::now();
        guest.stop(Duration::from_millis(100)).await;
        assert!(now.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn processes_beyond_the_limit_cannot_start() {
    both_ways("jail::limits::processes_beyond_the_limit_cannot_start", |bench| async move {
        let many = "i=0; while [ $i -lt 60 ]; do sleep 20 & i=$((i+1)); done 2>/dev/null; echo all >&3";
        let mut roomy = bench.spec(many);
        roomy.pids = 200;
        assert_eq!(bench.run_until_line(roomy).await, "all\n");
        let mut tight = bench.spec(many);
        tight.pids = 20;
        assert_eq!(bench.run_until_line(tight).await, "");
    });
}

#[test]
fn a_memory_hog_is_stopped() {
    both_ways("jail::limits::a_memory_hog_is_stopped", |bench| async move {
        // `tail` keeps what has no line end in memory.
        let hog = "head -c 200m /dev/zero | tail | wc -c >&3";
        let mut roomy = bench.spec(hog);
        roomy.memory_mib = 1024;
        assert_eq!(bench.run_spec(roomy).await.0.trim(), "209715200");
        let mut tight = bench.spec(hog);
        tight.memory_mib = 96;
        let mut guest = bench.jail.boot(tight).await.expect("the jail boots");
        let by_cgroup = guest.report.memory.starts_with("cgroup");
        let mut said = String::new();
        let read = tokio::io::AsyncReadExt::read_to_string(&mut guest.io, &mut said);
        tokio::time::timeout(SOON, read).await.expect("in time").expect("readable");
        assert_ne!(said.trim(), "209715200");
        let ending = guest.wait().await;
        assert_eq!(ending.out_of_memory, by_cgroup, "{ending:?}");
    });
}

#[test]
fn a_file_cannot_outgrow_its_limit() {
    both_ways("jail::limits::a_file_cannot_outgrow_its_limit", |bench| async move {
        let mut spec = bench.spec("head -c 5m /dev/zero > /work/big 2>/dev/null; stat -c %s /work/big >&3");
        spec.file_size_mib = 2;
        assert_eq!(bench.run_spec(spec).await.0.trim(), "2097152");
        let spec = bench.spec("head -c 5m /dev/zero > /work/big; stat -c %s /work/big >&3");
        assert_eq!(bench.run_spec(spec).await.0.trim(), "5242880");
    });
}

#[test]
fn a_flood_on_the_error_stream_is_drained_and_capped() {
    both_ways("jail::limits::a_flood_on_the_error_stream_is_drained_and_capped", |bench| async move {
        let (said, ending) = bench.run("head -c 3000000 /dev/zero >&2; echo done >&3").await;
        assert_eq!(said, "done\n");
        assert!((60 * 1024..=64 * 1024).contains(&ending.stderr.len()), "{}", ending.stderr.len());
    });
}

#[test]
fn a_second_jail_of_the_same_run_is_limited_like_the_first() {
    both_ways("jail::limits::a_second_jail_of_the_same_run_is_limited_like_the_first", |bench| async move {
        // A rescue boots for the same run, and the first jail's groups may still be there.
        let first = bench.spec("sleep 1000");
        let mut second = first.clone();
        second.disk = bench.place.path().join("other");
        let first = bench.jail.boot(first).await.expect("the jail boots");
        let second = bench.jail.boot(second).await.expect("the jail boots");
        let limits = |guest: &Guest| (guest.report.memory.clone(), guest.report.pids.clone());
        assert_eq!(limits(&second), limits(&first));
        first.stop(Duration::ZERO).await;
        second.stop(Duration::ZERO).await;
    });
}
