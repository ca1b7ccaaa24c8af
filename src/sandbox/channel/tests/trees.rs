//! Seed, check and export against the real guest program and real git.

use std::path::Path;

use super::*;

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// A host repository with one commit; returns its oid.
fn host(dir: &Path) -> String {
    git(dir, &["init", "-q", "."]);
    for (name, text) in [("kept", "kept\n"), ("changed", "before\n"), ("deleted", "x\n"), (".gitignore", "ignored\n")] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", "base"]);
    git(dir, &["rev-parse", "HEAD"])
}

fn seed_request(head: &str) -> SeedRequest {
    SeedRequest {
        head: head.into(),
        branch: "agent/ABC-1".into(),
        wip: None,
        extra: None,
        shallow: Vec::new(),
        identity: Identity { name: "Agent".into(), email: "agent@example.org".into() },
        wipe: false,
        max_bytes: 10_000_000,
        timeout_ms: 30_000,
    }
}

fn export_request(have: &str) -> ExportRequest {
    ExportRequest {
        have: vec![have.into(), "0".repeat(39) + "1"],
        base: have.into(),
        max_bytes: 10_000_000,
        is_final: false,
        commit_message: None,
        timeout_ms: 30_000,
    }
}

/// Bundles the host's commits under the names a seed uses.
fn bundle(dir: &Path, refs: &[(&str, &str)]) -> Vec<u8> {
    let names: Vec<String> = refs.iter().map(|(name, _)| format!("refs/symphony/{name}")).collect();
    for ((_, oid), name) in refs.iter().zip(&names) {
        git(dir, &["update-ref", name, oid]);
    }
    let mut args = vec!["bundle", "create", "-q", ".git/out.bundle"];
    args.extend(names.iter().map(String::as_str));
    git(dir, &args);
    std::fs::read(dir.join(".git/out.bundle")).unwrap()
}

async fn shell(rig: &Rig, script: &str) -> (CheckOutcome, String) {
    let request = CheckRequest {
        argv: vec!["sh".into(), "-ec".into(), script.into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: None,
        timeout_ms: 20_000,
        max_output: 10_000,
    };
    let (outcome, output) = rig.channel.check(request).await.unwrap();
    (outcome, String::from_utf8(output).unwrap())
}

#[tokio::test]
async fn work_goes_in_and_comes_out_and_uncommitted_work_survives_a_round_trip() {
    let repo = tempfile::tempdir().unwrap();
    let base = host(repo.path());
    let rig = boot().await;
    let bytes = bundle(repo.path(), &[("head", &base)]);
    rig.channel.seed(seed_request(&base), &mut bytes.as_slice()).await.unwrap();

    let (outcome, said) =
        shell(&rig, "git branch --show-current; git status --porcelain; git log --format=%s; echo err >&2; exit 5")
            .await;
    assert_eq!((outcome.exit, said.as_str()), (Exit::Code(5), "agent/ABC-1\nbase\nerr\n"));
    let mut out = Vec::new();
    let nothing = rig.channel.export(export_request(&base), &mut out).await.unwrap();
    assert!(nothing.empty && nothing.wip.is_none() && nothing.head == base && out.is_empty(), "{nothing:?}");

    let work = "echo new > committed; git add committed; git commit -qm work; echo after > changed; rm deleted; \
                echo u > untracked; echo i > ignored; touch .git/index.lock";
    assert_eq!(shell(&rig, work).await.0.exit, Exit::Code(0));
    let exported = rig.channel.export(export_request(&base), &mut out).await.unwrap();
    assert_eq!(exported.branch.as_deref(), Some("agent/ABC-1"));
    let wip = exported.wip.clone().unwrap();
    let again = rig.channel.export(export_request(&base), &mut Vec::new()).await.unwrap();
    assert_eq!(again, exported, "an unchanged tree exports the same commits");

    std::fs::write(repo.path().join(".git/in.bundle"), &out).unwrap();
    git(repo.path(), &["fetch", "-q", ".git/in.bundle", "refs/symphony/*:refs/in/*"]);
    assert_eq!(git(repo.path(), &["rev-parse", "refs/in/head", "refs/in/wip"]), format!("{}\n{wip}", exported.head));
    assert_eq!(git(repo.path(), &["rev-parse", "refs/in/wip^"]), exported.head);

    // The next run, on another disk: everything as it was left, uncommitted.
    let next = boot().await;
    let bytes = bundle(repo.path(), &[("head", &exported.head), ("wip", &wip)]);
    let mut request = seed_request(&exported.head);
    request.wip = Some(wip);
    next.channel.seed(request, &mut bytes.as_slice()).await.unwrap();
    let (_, status) = shell(&next, "git status --porcelain; cat changed untracked").await;
    assert_eq!(status, " M changed\n D deleted\n?? untracked\nafter\nu\n");

    let mut last = export_request(&exported.head);
    last.is_final = true;
    last.commit_message = Some("The rest".into());
    let last = next.channel.export(last, &mut Vec::new()).await.unwrap();
    assert!(last.wip.is_none() && !last.empty);
    let (_, log) = shell(&next, "git status --porcelain; git log -1 --format='%s %an'").await;
    assert_eq!(log, "The rest Agent\n");
}

#[tokio::test]
async fn a_tree_that_is_kept_is_told_in_the_hello_and_not_overwritten_unasked() {
    let repo = tempfile::tempdir().unwrap();
    let base = host(repo.path());
    let bytes = bundle(repo.path(), &[("head", &base)]);
    let rig = boot().await;
    rig.channel.seed(seed_request(&base), &mut bytes.as_slice()).await.unwrap();
    rig.channel.shutdown(LONG).await.unwrap();
    let Rig { channel, guest, dir, .. } = rig;
    drop((channel, guest));
    let rig = boot_in(dir).await;
    assert!(rig.info.tree);
    let refused = rig.channel.seed(seed_request(&base), &mut bytes.as_slice()).await;
    assert!(matches!(refused, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::Tree));
    let mut wipe = seed_request(&base);
    wipe.wipe = true;
    rig.channel.seed(wipe, &mut bytes.as_slice()).await.unwrap();
}

#[tokio::test]
async fn a_seed_that_breaks_leaves_no_tree_and_says_why() {
    let rig = boot().await;
    let refused = rig.channel.seed(seed_request(&"a".repeat(40)), &mut b"this is no bundle".as_slice()).await;
    assert!(matches!(&refused, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::Git), "{refused:?}");
    let big = vec![0; 11_000_000];
    let refused = rig.channel.seed(seed_request(&"a".repeat(40)), &mut big.as_slice()).await;
    assert!(matches!(&refused, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::TooLarge), "{refused:?}");
    let refused = rig.channel.export(export_request(&"a".repeat(40)), &mut Vec::new()).await;
    assert!(matches!(&refused, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::Tree), "{refused:?}");
}

#[tokio::test]
async fn extra_files_are_laid_beside_the_tree_uncommitted() {
    let repo = tempfile::tempdir().unwrap();
    let base = host(repo.path());
    std::fs::write(repo.path().join("ignored"), "secret sauce\n").unwrap();
    git(repo.path(), &["read-tree", "--empty"]);
    git(repo.path(), &["add", "-f", "ignored"]);
    let tree = git(repo.path(), &["write-tree"]);
    let extra = git(repo.path(), &["commit-tree", &tree, "-m", "extra"]);
    let bytes = bundle(repo.path(), &[("head", &base), ("extra", &extra)]);
    let rig = boot().await;
    let mut request = seed_request(&base);
    request.extra = Some(extra);
    rig.channel.seed(request, &mut bytes.as_slice()).await.unwrap();
    assert_eq!(shell(&rig, "git status --porcelain; cat ignored").await.1, "secret sauce\n");
}

#[tokio::test]
async fn a_check_is_killed_at_its_deadline_and_its_output_is_capped() {
    let rig = boot().await;
    let mut request = CheckRequest {
        argv: vec!["sh".into(), "-c".into(), "echo begin; yes | head -c 100000; echo end; sleep 1000 & wait".into()],
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        cwd: None,
        timeout_ms: 1000,
        max_output: 1000,
    };
    let (outcome, output) = rig.channel.check(request.clone()).await.unwrap();
    assert_eq!((outcome.exit, outcome.timed_out, outcome.truncated), (Exit::Signal(9), true, true));
    assert!(output.len() <= 1000 && output.starts_with(b"begin\n") && output.ends_with(b"end\n"));
    request.argv = vec!["no-such-check".into()];
    assert!(matches!(rig.channel.check(request).await, Err(ChannelError::Refused(r)) if r.kind == RefusalKind::Spawn));
}

#[tokio::test]
async fn an_index_that_is_a_pipe_or_a_device_holds_up_no_export() {
    for trap in ["mkfifo .git/index", "ln -s /dev/zero .git/index", "mkdir .git/index"] {
        let host_dir = tempfile::tempdir().unwrap();
        let base = host(host_dir.path());
        let rig = boot().await;
        let bytes = bundle(host_dir.path(), &[("head", &base)]);
        rig.channel.seed(seed_request(&base), &mut bytes.as_slice()).await.unwrap();
        shell(&rig, &format!("echo new > new; rm .git/index; {trap}")).await;
        let mut out = Vec::new();
        let exported =
            rig.channel.export(export_request(&base), &mut out).await.unwrap_or_else(|e| panic!("{trap}: {e}"));
        assert!(exported.wip.is_some() && !out.is_empty(), "{trap}");
        let mut last = export_request(&base);
        (last.is_final, last.commit_message) = (true, Some("The rest".into()));
        let last = rig.channel.export(last, &mut Vec::new()).await.unwrap_or_else(|e| panic!("{trap}: {e}"));
        assert!(last.wip.is_none() && last.head != base, "{trap}");
        rig.channel.ping(Duration::from_secs(10)).await.unwrap();
    }
}
