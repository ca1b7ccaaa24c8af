//! Hooks as real shells in real workspaces.

use std::time::Instant;

use super::*;

fn env() -> HookEnv {
    HookEnv {
        issue_id: "id-1".into(),
        identifier: "A-1".into(),
        state: "In Progress".into(),
        attempt: Some(2),
        workflow: "/w/WORKFLOW.md".into(),
        run: Some(7),
        outcome: Some("done".into()),
    }
}

async fn run(dir: &Path, script: &str, deadline: Duration, log: Option<&Path>) -> Result<(), HookError> {
    let env = env();
    HookRun { hook: Hook::BeforeRun, script, workspace: dir, env: &env, deadline, log }.run().await
}

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_hook_runs_in_the_workspace_and_knows_its_run() {
    let dir = tempfile::tempdir().expect("dir");
    let workspace = dir.path().canonicalize().expect("path");
    let script = "pwd > out; basename \"$PWD\" >> out; env | grep ^SYMPHONY_ | sort >> out; test -z \"$(cat)\"";
    run(&workspace, script, LONG, None).await.expect("ran");
    let out = std::fs::read_to_string(workspace.join("out")).expect("written");
    let name = workspace.file_name().expect("name").to_string_lossy().into_owned();
    let expected = [
        &workspace.display().to_string(),
        &name,
        "SYMPHONY_ATTEMPT=2",
        "SYMPHONY_ISSUE_ID=id-1",
        "SYMPHONY_ISSUE_IDENTIFIER=A-1",
        "SYMPHONY_ISSUE_STATE=In Progress",
        "SYMPHONY_OUTCOME=done",
        "SYMPHONY_RUN_ID=7",
        "SYMPHONY_WORKFLOW=/w/WORKFLOW.md",
    ];
    assert_eq!(out.trim().lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn symphonys_own_environment_is_passed_on() {
    let dir = tempfile::tempdir().expect("dir");
    run(dir.path(), "test -n \"$CARGO_MANIFEST_DIR\"", LONG, None).await.expect("passed on");
}

#[tokio::test]
async fn failure_timeout_and_a_missing_workspace_are_told_apart() {
    let dir = tempfile::tempdir().expect("dir");
    let failed = run(dir.path(), "echo reason >&2; exit 3", LONG, None).await;
    assert_eq!(failed, Err(HookError::Failed { hook: Hook::BeforeRun, code: 3, output: "reason".into() }));
    let killed = run(dir.path(), "kill -9 $$", LONG, None).await;
    assert!(matches!(killed, Err(HookError::Signalled { signal: 9, .. })), "{killed:?}");
    let gone = run(&dir.path().join("gone"), "true", LONG, None).await;
    assert!(matches!(gone, Err(HookError::CouldNotStart { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_hook_that_hangs_ends_in_time_with_everything_it_started() {
    let dir = tempfile::tempdir().expect("dir");
    let started = Instant::now();
    let hung = run(dir.path(), "sleep 600 & echo $! > pid; wait", Duration::from_millis(300), None).await;
    assert!(matches!(hung, Err(HookError::TimedOut { after_ms: 300, .. })), "{hung:?}");
    assert!(started.elapsed() < Duration::from_secs(8));
    let pid = std::fs::read_to_string(dir.path().join("pid")).expect("pid");
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..200 {
        match std::fs::read_to_string(&stat) {
            Ok(text) if !text.contains(") Z ") => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => return,
        }
    }
    panic!("the sleep survived");
}

#[tokio::test]
async fn output_goes_to_the_runs_log_and_is_short_in_errors() {
    let dir = tempfile::tempdir().expect("dir");
    let log = dir.path().join("run.log");
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the reason >&2; exit 1";
    let failed = run(dir.path(), script, LONG, Some(&log)).await.expect_err("failed").to_string();
    assert!(failed.len() < 4096 && failed.contains("the reason"), "{} bytes", failed.len());
    run(dir.path(), "echo second", LONG, Some(&log)).await.expect("ran");
    let text = std::fs::read_to_string(&log).expect("log");
    assert!(text.len() < 200_000 && text.contains("the reason\n") && text.contains("second\n"), "{} bytes", text.len());
}

#[tokio::test]
async fn a_log_that_is_a_link_is_not_followed() {
    let dir = tempfile::tempdir().expect("dir");
    let (target, log) = (dir.path().join("target"), dir.path().join("run.log"));
    std::fs::write(&target, "untouched").expect("write");
    std::os::unix::fs::symlink(&target, &log).expect("link");
    run(dir.path(), "echo text", LONG, Some(&log)).await.expect("the hook itself is fine");
    assert_eq!(std::fs::read_to_string(&target).expect("read"), "untouched");
}

/// A repository whose own hook and file monitor leave a mark when git runs them.
fn armed_repository(dir: &Path) {
    let script = format!(
        "set -e; git init -q .; git config user.email a@b; git config user.name n\n\
         printf '#!/bin/sh\\ntouch {0}/sentinel\\n' > mark; chmod +x mark; mkdir -p .husky; cp mark .husky/pre-commit\n\
         git config core.hooksPath .husky; git config core.fsmonitor \"$PWD/mark\"; echo x > x; git -c core.fsmonitor=false add x",
        dir.display()
    );
    let status = std::process::Command::new("sh").args(["-ec", &script]).current_dir(dir).status().expect("sh");
    assert!(status.success());
}

#[tokio::test]
async fn git_in_a_hook_runs_no_hook_of_the_repository() {
    let dir = tempfile::tempdir().expect("dir");
    armed_repository(dir.path());
    run(dir.path(), "git status --porcelain && git commit -qm made", LONG, None).await.expect("ran");
    assert!(!dir.path().join("sentinel").exists());
    // The control: without the overrides it would have run.
    let plain = "unset GIT_CONFIG_COUNT; git status --porcelain && git commit -q --allow-empty -m made";
    run(dir.path(), plain, LONG, None).await.expect("ran");
    assert!(dir.path().join("sentinel").exists());
}

#[test]
fn overrides_come_after_settings_that_the_environment_has_already() {
    let env = git::overrides_for_hooks(Some("3"));
    assert!(env.contains(&("GIT_CONFIG_COUNT".into(), "5".into())));
    assert!(env.contains(&("GIT_CONFIG_KEY_3".into(), "core.hooksPath".into())));
}
