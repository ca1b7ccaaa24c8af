//! Real child programs, their output, their deadlines and their descendants.

use super::*;

fn sh(script: &str) -> Program {
    Program::new("sh").args(["-c", script])
}

/// Whether a process is gone or at most a zombie.
fn gone(pid: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => true,
    }
}

async fn soon_gone(pid: &str) -> bool {
    for _ in 0..100 {
        if gone(pid) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

#[tokio::test]
async fn output_and_exit_code_are_reported() {
    let done = sh("printf out; printf err >&2; exit 7").run(Duration::from_secs(10)).await;
    assert_eq!(done.outcome, Outcome::Exited(7));
    assert!(done.drained);
    assert_eq!((done.stdout.text().as_str(), done.stderr.text().as_str()), ("out", "err"));
}

#[tokio::test]
async fn a_signal_and_a_missing_program_are_told_apart() {
    assert_eq!(sh("kill -9 $$").run(Duration::from_secs(10)).await.outcome, Outcome::Signalled(9));
    let missing = Program::new("/no/such/program").run(Duration::from_secs(1)).await;
    assert!(matches!(missing.outcome, Outcome::CouldNotStart(_)));
    let nowhere = sh("true").cwd(Path::new("/no/such/dir")).run(Duration::from_secs(1)).await;
    assert!(matches!(&nowhere.outcome, Outcome::CouldNotStart(why) if why.contains("/no/such/dir")));
}

#[tokio::test]
async fn a_deadline_ends_the_whole_group_even_if_a_descendant_holds_the_pipe() {
    let started = Instant::now();
    let done = sh("sleep 600 & echo $!; trap '' TERM; wait; sleep 600").run(Duration::from_millis(300)).await;
    assert_eq!(done.outcome, Outcome::TimedOut);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    assert!(soon_gone(&done.stdout.text()).await, "the background sleep survived");
}

#[tokio::test]
async fn what_a_program_leaves_in_its_group_is_killed_when_it_ends() {
    let started = Instant::now();
    let done = sh("sleep 600 & echo $!").run(Duration::from_secs(60)).await;
    assert_eq!(done.outcome, Outcome::Exited(0));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(soon_gone(&done.stdout.text()).await);
}

#[tokio::test]
async fn a_descendant_that_left_the_group_cannot_hold_the_call() {
    let started = Instant::now();
    // It ends by itself soon after, so the test leaves nothing behind.
    let done = sh("setsid sleep 15 & sleep 0.1; echo here").run(Duration::from_secs(60)).await;
    assert_eq!(done.outcome, Outcome::Exited(0));
    assert_eq!(done.stdout.text(), "here\n");
    assert!(!done.drained, "whoever needs all of the output is told that there may be more");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_leash_lets_a_program_end_by_itself_and_is_gone_with_it() {
    let done = sh("echo $$; exit 3").leashed().run(Duration::from_secs(10)).await;
    assert_eq!(done.outcome, Outcome::Exited(3));
    let group = done.stdout.text().trim().to_owned();
    for _ in 0..100 {
        let watchers = std::fs::read_dir("/proc").expect("proc").flatten().filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.ends_with(format!("\0sh\0{group}\0").as_bytes())
        });
        if watchers.count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the watcher of group {group} is still there");
}

#[tokio::test]
async fn dropping_the_call_kills_the_group() {
    let dir = tempfile::tempdir().expect("dir");
    let pidfile = dir.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pidfile.display());
    let _ = tokio::time::timeout(Duration::from_secs(2), sh(&script).run(Duration::from_secs(600))).await;
    let pid = std::fs::read_to_string(pidfile).expect("started");
    assert!(soon_gone(&pid).await);
}

#[tokio::test]
async fn long_output_keeps_its_beginning_and_end_and_is_counted() {
    let done =
        sh("echo first; head -c 1000000 /dev/zero | tr '\\0' x; echo; echo last").run(Duration::from_secs(30)).await;
    let text = done.stdout.text();
    assert!(text.starts_with("first\n") && text.ends_with("last\n") && text.contains("left out"));
    assert!(text.len() < 70_000);
    assert_eq!(done.stdout.total(), 1_000_012);
    assert!(!done.stdout.complete());
    assert!(done.stdout.excerpt(1000).len() < 1100);
}

#[tokio::test]
async fn a_file_takes_output_up_to_its_cap() {
    let file = tempfile::NamedTempFile::new().expect("file");
    let sink = Sink::File { file: file.reopen().expect("file"), max: 10 };
    let done = sh("printf 0123456789abcdef").sink(sink).run(Duration::from_secs(10)).await;
    assert_eq!(std::fs::read(file.path()).expect("read"), b"0123456789");
    assert_eq!(done.stdout.total(), 16);
}

#[tokio::test]
async fn bytes_and_files_are_read_and_null_is_empty() {
    let big = vec![b'a'; 300_000];
    let done = sh("wc -c").input(Input::Bytes(big)).run(Duration::from_secs(10)).await;
    assert_eq!(done.stdout.text().trim(), "300000");
    assert_eq!(sh("wc -c").run(Duration::from_secs(10)).await.stdout.text().trim(), "0");
}

#[tokio::test]
async fn the_environment_is_empty_unless_asked_for() {
    let bare = sh("env").env("ONE", "1").run(Duration::from_secs(10)).await.stdout.text();
    assert!(bare.contains("ONE=1") && !bare.contains("CARGO_MANIFEST_DIR"));
    let own = sh("env").own_environment().run(Duration::from_secs(10)).await.stdout.text();
    assert!(own.contains("CARGO_MANIFEST_DIR"));
}

#[tokio::test]
async fn processor_time_is_limited() {
    let limits = Rlimits { cpu_seconds: Some(1), memory_bytes: None };
    let done = sh("while :; do :; done").rlimits(limits).run(Duration::from_secs(60)).await;
    assert!(matches!(done.outcome, Outcome::Signalled(_)), "{:?}", done.outcome);
}
