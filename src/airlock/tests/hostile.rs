//! What a hostile guest may send. Each case also shows that no ref moved.

use super::*;

async fn refused(world: &World, bundle: Option<&Path>, claim: &Claim) -> AirlockError {
    let before = world.airlock.head().await.expect("head");
    let error = world.airlock.take_export(bundle, claim, &LIMITS).await.expect_err("refused");
    assert_eq!(world.airlock.head().await.expect("head"), before);
    assert_eq!(world.airlock.wip().await.expect("wip"), None);
    error
}

/// A commit in the guest of a tree made from raw `ls-tree` lines, which git itself would not write.
fn raw_tree_commit(guest: &Path, entries: &[(&str, &str, &str)]) -> Oid {
    let mut raw = Vec::new();
    for (mode, name, content) in entries {
        let hex = if *mode == "40000" {
            let blob = hash(guest, "blob", b"[core]\n\tfsmonitor = touch pwned\n");
            let mut inner = b"100644 config\0".to_vec();
            inner.extend(bytes_of(&blob));
            hash(guest, "tree", &inner)
        } else {
            hash(guest, "blob", content.as_bytes())
        };
        raw.extend_from_slice(format!("{mode} {name}\0").as_bytes());
        raw.extend(bytes_of(&hex));
    }
    let tree = hash(guest, "tree", &raw);
    let commit = git(guest, &["commit-tree", &tree, "-p", "HEAD", "-m", "evil"]);
    Oid::parse(&commit).expect("commit")
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

fn hash(guest: &Path, kind: &str, content: &[u8]) -> String {
    let file = guest.join(".git/raw-object");
    std::fs::write(&file, content).expect("write");
    git(guest, &["hash-object", "-w", "--literally", "-t", kind, ".git/raw-object"])
}

#[tokio::test]
async fn trees_that_git_must_not_check_out_are_rejected() {
    let world = World::new().await;
    let guest = world.guest().await;
    for entries in [
        &[("40000", ".git", "")][..],
        &[("40000", ".GIT", "")],
        &[("120000", ".gitmodules", "/etc/passwd")],
        &[("100644", "..", "x")],
        &[("100644", "a/b", "x")],
        &[("100644", ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = -u./evil\n")],
    ] {
        let evil = raw_tree_commit(&guest, entries);
        let (bundle, claim) = world.export(&guest, evil.as_str(), None);
        let error = refused(&world, Some(&bundle), &claim).await;
        assert!(matches!(error, AirlockError::ObjectsRejected(_)), "{entries:?}: {error}");
        assert!(error.is_for_the_agent());
        // Nothing of it stays in reach of a later claim.
        assert!(matches!(refused(&world, None, &claim).await, AirlockError::Incomplete(_)));
    }
}

#[tokio::test]
async fn claims_and_refs_must_agree_exactly() {
    let world = World::new().await;
    let guest = world.guest().await;
    let first = commit_file(&guest, "a", "a");
    let second = commit_file(&guest, "b", "b");
    let (bundle, _) = world.export(&guest, "HEAD", None);
    let claim = |head: &Oid, wip: Option<&Oid>| Claim { head: head.clone(), wip: wip.cloned() };
    for wrong in [claim(&first, None), claim(&second, Some(&second)), claim(world.airlock.base(), None)] {
        let error = refused(&world, Some(&bundle), &wrong).await;
        assert!(matches!(error, AirlockError::ClaimMismatch { .. }), "{error}");
    }
    for name in [
        "refs/heads/main",
        "refs/symphony/base",
        "refs/symphony/head/x",
        "refs/symphony/HEAD",
        "refs/tags/refs/symphony/head",
    ] {
        git(&guest, &["update-ref", "-d", HEAD]);
        git(&guest, &["update-ref", name, second.as_str()]);
        git(&guest, &["bundle", "create", "-q", "../odd", name, &format!("^{}", world.airlock.base())]);
        let error = refused(&world, Some(&world.tmp.path().join("odd")), &claim(&second, None)).await;
        assert!(matches!(error, AirlockError::ClaimMismatch { .. }), "{name}: {error}");
        git(&guest, &["update-ref", "-d", name]);
    }
    git(&guest, &["update-ref", HEAD, second.as_str()]);
    git(&guest, &["bundle", "create", "-q", "../extra", HEAD, "refs/heads/agent/A-1"]);
    let error = refused(&world, Some(&world.tmp.path().join("extra")), &claim(&second, None)).await;
    assert!(matches!(error, AirlockError::ClaimMismatch { .. }), "{error}");
}

#[tokio::test]
async fn a_new_history_is_refused_with_advice_for_the_agent() {
    let world = World::new().await;
    let guest = world.guest().await;
    git(&guest, &["checkout", "-q", "--orphan", "fresh"]);
    git(&guest, &["commit", "-qm", "a new world"]);
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    let error = refused(&world, Some(&bundle), &claim).await;
    assert!(matches!(error, AirlockError::NotOnBase { .. }) && error.to_string().contains("rebase"), "{error}");
    assert!(error.is_for_the_agent());
}

#[tokio::test]
async fn uncommitted_work_must_start_at_the_base_too() {
    let world = World::new().await;
    let guest = world.guest().await;
    commit_file(&guest, "a", "a");
    let tree = git(&guest, &["write-tree"]);
    let orphan = git(&guest, &["commit-tree", &tree, "-m", "orphan"]);
    let (bundle, claim) = world.export(&guest, "HEAD", Some(&orphan));
    assert!(matches!(refused(&world, Some(&bundle), &claim).await, AirlockError::NotOnBase { .. }));
}

#[tokio::test]
async fn broken_packs_and_things_that_are_no_bundle_are_refused() {
    let world = World::new().await;
    let guest = world.guest().await;
    commit_file(&guest, "a", &"text\n".repeat(1000));
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    let good = std::fs::read(&bundle).expect("read");
    let try_bytes = async |bytes: &[u8]| {
        std::fs::write(&bundle, bytes).expect("write");
        refused(&world, Some(&bundle), &claim).await
    };
    assert!(matches!(try_bytes(b"").await, AirlockError::NotABundle(_)));
    assert!(matches!(try_bytes(b"#!/bin/sh\n").await, AirlockError::NotABundle(_)));
    assert!(matches!(try_bytes(&good[..good.len() / 2]).await, AirlockError::ObjectsRejected(_)));
    let mut flipped = good.clone();
    let at = flipped.len() - 40;
    flipped[at] ^= 0xff;
    assert!(matches!(try_bytes(&flipped).await, AirlockError::ObjectsRejected(_)));
    let header_end = good.windows(2).position(|two| two == b"\n\n").expect("header") + 2;
    assert!(matches!(try_bytes(&good[..header_end]).await, AirlockError::ObjectsRejected(_)));
    // The control: untouched, it is taken.
    std::fs::write(&bundle, &good).expect("write");
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
}

#[tokio::test]
async fn a_bundle_that_leaves_objects_out_is_refused() {
    let world = World::new().await;
    let guest = world.guest().await;
    let first = commit_file(&guest, "a", "a");
    commit_file(&guest, "b", "b");
    git(&guest, &["update-ref", HEAD, "HEAD"]);
    git(&guest, &["bundle", "create", "-q", "../export", HEAD, &format!("^{first}")]);
    let bundle = world.tmp.path().join("export");
    let claim = Claim { head: oid(&guest, "HEAD"), wip: None };
    assert!(matches!(refused(&world, Some(&bundle), &claim).await, AirlockError::Incomplete(_)));
    // The same without the line that admits it.
    let bytes = std::fs::read(&bundle).expect("read");
    let text: Vec<&[u8]> = bytes.splitn(3, |byte| *byte == b'\n').collect();
    let forged = [text[0], b"\n", text[2]].concat();
    std::fs::write(&bundle, forged).expect("write");
    let error = refused(&world, Some(&bundle), &claim).await;
    assert!(matches!(error, AirlockError::ObjectsRejected(_) | AirlockError::Incomplete(_)), "{error}");
    // And filtered.
    git(&guest, &["bundle", "create", "-q", "../export", "--filter=blob:none", HEAD]);
    assert!(matches!(refused(&world, Some(&bundle), &claim).await, AirlockError::NotABundle(_)));
}

#[tokio::test]
async fn size_is_capped_packed_and_unpacked() {
    let world = World::new().await;
    let guest = world.guest().await;
    commit_file(&guest, "zeros", &"0".repeat(3 << 20));
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    for limits in [Limits { bundle_bytes: 100, ..LIMITS }, Limits { unpacked_bytes: 1 << 20, ..LIMITS }] {
        let error = world.airlock.take_export(Some(&bundle), &claim, &limits).await.expect_err("refused");
        assert!(matches!(error, AirlockError::ExportTooLarge { .. }), "{error}");
        assert_eq!(&world.airlock.head().await.expect("head"), world.airlock.base());
    }
}

#[tokio::test]
async fn a_link_or_a_pipe_in_place_of_the_bundle_is_not_read() {
    let world = World::new().await;
    let guest = world.guest().await;
    commit_file(&guest, "a", "a");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    let link = world.tmp.path().join("link");
    std::os::unix::fs::symlink(&bundle, &link).expect("link");
    assert!(matches!(refused(&world, Some(&link), &claim).await, AirlockError::Io { .. }));
    let pipe = world.tmp.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    assert!(matches!(refused(&world, Some(&pipe), &claim).await, AirlockError::Io { .. }));
}

#[tokio::test]
async fn a_claim_of_something_that_is_no_commit_is_refused() {
    let world = World::new().await;
    let tree = world.airlock.tree_of(world.airlock.base()).await.expect("tree");
    assert!(matches!(refused(&world, None, &Claim { head: tree, wip: None }).await, AirlockError::Incomplete(_)));
}

/// A checkpoint of uncommitted work on a head that was exported before: git names only the new ref.
#[tokio::test]
async fn an_export_may_leave_out_a_ref_that_is_here_already() {
    let world = World::new().await;
    let guest = world.guest().await;
    let head = commit_file(&guest, "a", "a");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("first");
    let wip = commit_file(&guest, "b", "b");
    git(&guest, &["update-ref", "refs/symphony/wip", wip.as_str()]);
    git(&guest, &["update-ref", HEAD, head.as_str()]);
    git(&guest, &["bundle", "create", "-q", "../wip", "refs/symphony/wip", HEAD, &format!("^{head}")]);
    let claim = Claim { head: head.clone(), wip: Some(wip.clone()) };
    let bundle = world.tmp.path().join("wip");
    let taken = world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("second");
    assert_eq!((taken.head, taken.wip), (head, Some(wip)));
}
