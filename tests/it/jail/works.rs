//! What a program in the jail can do.

use std::time::Duration;

use symphony::sandbox::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bench::{SOON, both_ways};

#[test]
fn a_program_runs_and_speaks_over_descriptor_three() {
    both_ways("jail::works::a_program_runs_and_speaks_over_descriptor_three", |bench| async move {
        let mut guest = bench.boot("read line <&3; echo \"heard $line\" >&3; echo oops >&2; exit 7").await;
        guest.io.write_all(b"hello\n").await.expect("the channel takes bytes");
        let mut said = String::new();
        tokio::time::timeout(SOON, guest.io.read_to_string(&mut said)).await.expect("in time").expect("readable");
        assert_eq!(said, "heard hello\n");
        let ending = guest.stop(Duration::from_secs(20)).await;
        assert_eq!((ending.code, ending.killed, ending.stderr.as_str()), (Some(7), false, "oops\n"));
    });
}

#[test]
fn a_trial_measures_what_is_enforced() {
    both_ways("jail::works::a_trial_measures_what_is_enforced", |bench| async move {
        let report = bench.jail.trial().await.expect("the trial passes");
        println!("{report:?}");
        assert!(report.seccomp);
        assert_ne!(report.uid, 0);
    });
}
