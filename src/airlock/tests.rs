//! Real git on both sides: a host workspace, and a "guest" repository whose bundles we take.

use std::process::Command;

use symphony_core::ids::Identifier;
use symphony_core::workflow::{Checkout, Seed};

use super::*;
pub(super) use crate::git::scratch::git;
use crate::workspace::BaseInfo;

mod hostile;

pub(super) fn oid(dir: &Path, name: &str) -> Oid {
    Oid::parse(&git(dir, &["rev-parse", name])).expect("object name")
}

pub(super) struct World {
    pub tmp: tempfile::TempDir,
    pub airlock: Airlock,
    pub ready: Ready,
}

pub(super) const LIMITS: Limits =
    Limits { bundle_bytes: 8 << 20, unpacked_bytes: 64 << 20, deadline: Duration::from_secs(60) };

impl World {
    /// A workspace with one commit, and its airlock.
    pub(super) async fn new() -> Self {
        let tmp = tempfile::tempdir().expect("dir");
        let workspace = tmp.path().join("workspace");
        std::fs::create_dir(&workspace).expect("dir");
        git(&workspace, &["init", "-q"]);
        std::fs::write(workspace.join("file.txt"), "one\n").expect("write");
        git(&workspace, &["add", "."]);
        git(&workspace, &["commit", "-qm", "first"]);
        git(&workspace, &["branch", "agent/A-1"]);
        git(&workspace, &["checkout", "-q", "--detach"]);
        let base = oid(&workspace, "HEAD");
        let ready = Ready { path: workspace, created: true, git: Some(BaseInfo { base, shallow: vec![] }) };
        Self::open(tmp, ready).await
    }

    pub(super) async fn open(tmp: tempfile::TempDir, ready: Ready) -> Self {
        let state = tmp.path().join("state");
        let airlock = Airlock::open(Git::new(&state).expect("git"), &state, &key(), &ready).await.expect("airlock");
        Self { tmp, airlock, ready }
    }

    pub(super) async fn reopen(&self) -> Airlock {
        let state = self.tmp.path().join("state");
        Airlock::open(Git::new(&state).expect("git"), &state, &key(), &self.ready).await.expect("airlock")
    }

    /// What a guest does with a seed bundle: a repository of its own on the head.
    pub(super) async fn guest(&self) -> PathBuf {
        let seed = self.airlock.seed_bundle(&self.tmp.path().join("seed"), Seed::Tracked, 1 << 30).await.expect("seed");
        let guest = self.tmp.path().join("guest");
        unpack(&seed, &guest);
        guest
    }

    /// Bundles `refs` of the guest, without what the host has, as the guest program does.
    pub(super) fn export(&self, guest: &Path, head: &str, wip: Option<&str>) -> (PathBuf, Claim) {
        git(guest, &["update-ref", HEAD, head]);
        let mut args = vec!["bundle", "create", "-q", "../export", HEAD];
        if let Some(wip) = wip {
            git(guest, &["update-ref", WIP, wip]);
            args.push(WIP);
        }
        args.extend(["--not", BASE]);
        git(guest, &args);
        let claim = Claim { head: oid(guest, head), wip: wip.map(|wip| oid(guest, wip)) };
        (self.tmp.path().join("export"), claim)
    }
}

pub(super) fn key() -> WorkspaceKey {
    WorkspaceKey::of(&Identifier("A-1".into())).expect("key")
}

fn unpack(seed: &SeedPlan, guest: &Path) {
    std::fs::create_dir(guest).expect("dir");
    git(guest, &["init", "-q"]);
    let shallow: String = seed.shallow.iter().map(|oid| format!("{oid}\n")).collect();
    if !shallow.is_empty() {
        std::fs::write(guest.join(".git/shallow"), shallow).expect("shallow");
    }
    git(guest, &["fetch", "-q", seed.bundle.to_str().expect("path"), "+refs/symphony/*:refs/symphony/*"]);
    git(guest, &["checkout", "-qB", &seed.branch, seed.head.as_str()]);
}

pub(super) fn commit_file(dir: &Path, name: &str, text: &str) -> Oid {
    std::fs::write(dir.join(name), text).expect("write");
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", &format!("change {name}")]);
    oid(dir, "HEAD")
}

#[tokio::test]
async fn work_goes_in_comes_back_and_moves_the_branch() {
    let world = World::new().await;
    let guest = world.guest().await;
    let before = oid(&world.ready.path, "agent/A-1");
    let head = commit_file(&guest, "new.txt", "two\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    for _ in 0..2 {
        let taken = world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
        assert_eq!(taken, Checkpoint { head: head.clone(), wip: None, commits: 1 });
    }
    for _ in 0..2 {
        let moved = world.airlock.advance_branch(Checkout::Base).await.expect("moved");
        assert_eq!(moved, Advance::Advanced { head: head.clone() });
    }
    assert_eq!(oid(&world.ready.path, "agent/A-1"), head);
    assert_eq!(oid(&world.ready.path, "HEAD"), before, "HEAD stays at the base");
    assert!(!world.ready.path.join("new.txt").exists(), "no agent file appears on the host");
    assert_eq!(git(&world.ready.path, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn the_agents_files_appear_on_the_host_only_when_asked_for() {
    let world = World::new().await;
    let guest = world.guest().await;
    for name in ["a.txt", "b.txt"] {
        commit_file(&guest, name, "x\n");
        let (bundle, claim) = world.export(&guest, "HEAD", None);
        world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
        world.airlock.advance_branch(Checkout::Agent).await.expect("moved");
        assert!(world.ready.path.join(name).exists());
        assert_eq!(git(&world.ready.path, &["status", "--porcelain"]), "");
        assert_eq!(git(&world.ready.path, &["symbolic-ref", "HEAD"]), "refs/heads/agent/A-1");
    }
}

#[tokio::test]
async fn a_branch_that_a_person_moved_is_left_alone() {
    let world = World::new().await;
    let guest = world.guest().await;
    let head = commit_file(&guest, "agent.txt", "a\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    git(&world.ready.path, &["checkout", "-q", "agent/A-1"]);
    let theirs = commit_file(&world.ready.path, "person.txt", "p\n");
    let moved = world.airlock.advance_branch(Checkout::Base).await.expect("answered");
    assert_eq!(moved, Advance::Diverged { found: Some(theirs.clone()) });
    assert_eq!(oid(&world.ready.path, "agent/A-1"), theirs);
    assert_eq!(oid(&world.ready.path, HEAD), head, "the run's work can be found");
    // A restart in between forgets neither.
    let again = world.reopen().await;
    assert_eq!(again.head().await.expect("head"), head, "the work is not replaced");
    assert_eq!(
        again.advance_branch(Checkout::Base).await.expect("answered"),
        Advance::Diverged { found: Some(theirs) }
    );
}

#[tokio::test]
async fn a_branch_that_is_checked_out_moves_without_looking_like_changes() {
    let world = World::new().await;
    let guest = world.guest().await;
    git(&world.ready.path, &["checkout", "-q", "agent/A-1"]);
    commit_file(&guest, "agent.txt", "a\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    world.airlock.advance_branch(Checkout::Base).await.expect("moved");
    assert_eq!(git(&world.ready.path, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn what_a_person_adds_to_the_branch_between_runs_is_where_the_next_run_starts() {
    let world = World::new().await;
    git(&world.ready.path, &["checkout", "-q", "agent/A-1"]);
    let theirs = commit_file(&world.ready.path, "person.txt", "p\n");
    assert_eq!(world.reopen().await.head().await.expect("head"), theirs);
}

#[tokio::test]
async fn amended_and_rebased_work_is_fine() {
    let world = World::new().await;
    let guest = world.guest().await;
    commit_file(&guest, "a.txt", "a\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    world.airlock.advance_branch(Checkout::Base).await.expect("moved");
    git(&guest, &["commit", "-q", "--amend", "-m", "better"]);
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    let taken = world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    assert_eq!((&taken.head, taken.commits), (&oid(&guest, "HEAD"), 1));
    // Symphony may be restarted before the branch follows.
    let moved = world.reopen().await.advance_branch(Checkout::Base).await.expect("moved");
    assert_eq!(moved, Advance::Advanced { head: taken.head });
}

#[tokio::test]
async fn uncommitted_work_travels_beside_the_head_and_becomes_a_commit_at_handoff() {
    let world = World::new().await;
    let guest = world.guest().await;
    commit_file(&guest, "a.txt", "a\n");
    std::fs::write(guest.join("a.txt"), "unfinished\n").expect("write");
    git(&guest, &["add", "-A"]);
    let tree = git(&guest, &["write-tree"]);
    let wip = git(&guest, &["commit-tree", &tree, "-p", "HEAD", "-m", "wip"]);
    let (bundle, claim) = world.export(&guest, "HEAD", Some(&wip));
    let taken = world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    assert_eq!(taken.wip, claim.wip);
    let seed =
        world.reopen().await.seed_bundle(&world.tmp.path().join("s"), Seed::Tracked, 1 << 30).await.expect("seed");
    assert_eq!((seed.head, seed.wip), (claim.head.clone(), claim.wip));
    let done = world.airlock.commit_wip("Title").await.expect("committed").expect("something");
    assert_eq!(world.airlock.head().await.expect("head"), done);
    assert_eq!(world.airlock.tree_of(&done).await.expect("tree").as_str(), tree);
    assert_eq!(world.airlock.commit_wip("Title").await.expect("again"), None);
}

#[tokio::test]
async fn a_stale_lock_is_swept_and_a_fresh_one_is_respected() {
    let world = World::new().await;
    let lock = world.airlock.dir.join("refs/symphony/wip.lock");
    let file = std::fs::File::create(&lock).expect("lock");
    world.reopen().await;
    assert!(lock.exists());
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).expect("time");
    world.reopen().await;
    assert!(!lock.exists());
}

#[tokio::test]
async fn nothing_new_needs_no_bundle() {
    let world = World::new().await;
    let claim = Claim { head: world.airlock.base().clone(), wip: None };
    let taken = world.airlock.take_export(None, &claim, &LIMITS).await.expect("taken");
    assert_eq!(taken.commits, 0);
}

#[tokio::test]
async fn untracked_and_ignored_files_are_seeded_when_asked_for_and_never_symphonys_own() {
    let world = World::new().await;
    let ws = &world.ready.path;
    std::fs::write(ws.join(".gitignore"), "node_modules\n").expect("write");
    std::fs::create_dir_all(ws.join("node_modules/x")).expect("dir");
    std::fs::write(ws.join("node_modules/x/i.js"), "crlf\r\n").expect("write");
    std::fs::write(ws.join(".gitattributes"), "* text=auto filter=evil\n").expect("write");
    std::fs::create_dir(ws.join(".symphony-runtime")).expect("dir");
    std::fs::write(ws.join(".symphony-runtime/secret"), "s").expect("write");
    let seed = world.airlock.seed_bundle(&world.tmp.path().join("s"), Seed::All, 1 << 20).await.expect("seed");
    let guest = world.tmp.path().join("guest");
    let extra = seed.extra.clone().expect("extra files");
    unpack(&seed, &guest);
    let names = git(&guest, &["ls-tree", "-r", "--name-only", extra.as_str()]);
    assert_eq!(names, ".gitattributes\n.gitignore\nnode_modules/x/i.js");
    assert_eq!(git(&guest, &["cat-file", "-s", &format!("{extra}:node_modules/x/i.js")]), "6");
    let too_small = world.airlock.seed_bundle(&world.tmp.path().join("s"), Seed::All, 10).await;
    assert!(matches!(too_small, Err(AirlockError::SeedTooLarge { max: 10, .. })), "{too_small:?}");
}

#[tokio::test]
async fn plain_files_are_imported_as_one_base_commit_byte_for_byte() {
    let tmp = tempfile::tempdir().expect("dir");
    let files = tmp.path().join("files");
    std::fs::create_dir_all(files.join(".symphony")).expect("dir");
    std::fs::write(files.join("crlf.txt"), "a\r\n").expect("write");
    std::fs::write(files.join(".gitattributes"), "* text=auto\n").expect("write");
    std::fs::write(files.join(".gitignore"), "ignored\n").expect("write");
    std::fs::write(files.join("ignored"), "i").expect("write");
    std::fs::write(files.join(".symphony/x"), "x").expect("write");
    std::os::unix::fs::symlink("/etc/passwd", files.join("link")).expect("link");
    let world = World::open(tmp, Ready { path: files, created: true, git: None }).await;
    let guest = world.guest().await;
    assert_eq!(
        git(&guest, &["ls-tree", "-r", "--name-only", BASE]),
        ".gitattributes\n.gitignore\ncrlf.txt\nignored\nlink"
    );
    assert_eq!(git(&guest, &["cat-file", "-s", &format!("{BASE}:crlf.txt")]), "3");
    assert_eq!(git(&guest, &["cat-file", "-p", &format!("{BASE}:link")]), "/etc/passwd");
    commit_file(&guest, "new.txt", "n\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    let moved = world.airlock.advance_branch(Checkout::Base).await.expect("answered");
    assert_eq!(moved, Advance::NoRepository);
    assert_eq!(world.reopen().await.head().await.expect("head"), claim.head);
}

#[tokio::test]
async fn a_shallow_workspace_crosses_with_its_shallow_file() {
    let tmp = tempfile::tempdir().expect("dir");
    let deep = tmp.path().join("deep");
    std::fs::create_dir(&deep).expect("dir");
    git(&deep, &["init", "-q"]);
    for n in 0..3 {
        commit_file(&deep, "f", &format!("{n}\n"));
    }
    git(tmp.path(), &["clone", "-q", "--depth=1", &format!("file://{}", deep.display()), "workspace"]);
    let path = tmp.path().join("workspace");
    let base = oid(&path, "HEAD");
    let git_info = Some(BaseInfo { base: base.clone(), shallow: vec![base.clone()] });
    let world = World::open(tmp, Ready { path, created: true, git: git_info }).await;
    let guest = world.guest().await;
    assert_eq!(git(&guest, &["rev-list", "--count", "HEAD"]), "1");
    commit_file(&guest, "g", "g\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    let taken = world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    assert_eq!(taken.commits, 1);
}

#[tokio::test]
async fn a_new_workspace_on_a_newer_base_keeps_the_older_work() {
    let mut world = World::new().await;
    let guest = world.guest().await;
    let head = commit_file(&guest, "a.txt", "a\n");
    let (bundle, claim) = world.export(&guest, "HEAD", None);
    world.airlock.take_export(Some(&bundle), &claim, &LIMITS).await.expect("taken");
    let old = world.airlock.base().clone();
    let new = commit_file(&world.ready.path, "upstream.txt", "u\n");
    git(&world.ready.path, &["branch", "-f", "agent/A-1", new.as_str()]);
    world.ready.git = Some(BaseInfo { base: new.clone(), shallow: vec![] });
    let airlock = world.reopen().await;
    assert_eq!((airlock.base(), airlock.head().await.expect("head")), (&new, new.clone()));
    assert_eq!(airlock.lookup(&format!("refs/symphony/old/{old}/head")).await.expect("kept"), Some(head));
}

#[tokio::test]
async fn nothing_of_the_workspace_is_hard_linked_or_borrowed() {
    use std::os::unix::fs::MetadataExt;
    let world = World::new().await;
    assert!(!world.airlock.dir.join("objects/info/alternates").exists());
    let mut pending = vec![world.airlock.dir.join("objects")];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).expect("dir").map(|entry| entry.expect("entry")) {
            let meta = entry.metadata().expect("meta");
            if meta.is_dir() { pending.push(entry.path()) } else { assert_eq!(meta.nlink(), 1, "{:?}", entry.path()) }
        }
    }
    let mode = std::fs::metadata(&world.airlock.dir).expect("meta").mode();
    assert_eq!(mode & 0o777, 0o700);
}
