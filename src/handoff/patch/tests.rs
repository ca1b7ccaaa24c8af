//! Patches are applied by a real `git am` in a fresh clone of the base, and compared by tree.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use symphony_core::ids::{Identifier, WorkspaceKey};
use symphony_core::workflow::Seed;

use super::*;
use crate::airlock::{Claim, Limits};
use crate::git::Git;
use crate::git::scratch::try_git_as;
use crate::workspace::{BaseInfo, Ready};

fn try_git(dir: &Path, args: &[&str]) -> Result<String, String> {
    try_git_as("Guést Ünïcode", dir, args)
}

fn git(dir: &Path, args: &[&str]) -> String {
    try_git(dir, args).unwrap_or_else(|error| panic!("git {args:?}: {error}"))
}

struct World {
    tmp: tempfile::TempDir,
    airlock: Airlock,
    guest: PathBuf,
}

impl World {
    /// A workspace with some files, its airlock, and a guest that starts from the seed.
    async fn new(plain: bool) -> Self {
        let tmp = tempfile::tempdir().expect("dir");
        let workspace = tmp.path().join("workspace");
        std::fs::create_dir(&workspace).expect("dir");
        std::fs::write(workspace.join("text.txt"), "one\ntwo\nthree\n").expect("write");
        std::fs::write(workspace.join("dos.txt"), "one\r\ntwo\r\nthree\r\n").expect("write");
        let mut info = None;
        if !plain {
            git(&workspace, &["init", "-q"]);
            git(&workspace, &["add", "."]);
            git(&workspace, &["commit", "-qm", "first"]);
            let base = Oid::parse(&git(&workspace, &["rev-parse", "HEAD"])).expect("oid");
            info = Some(BaseInfo { base, shallow: vec![] });
        }
        let ready = Ready { path: workspace, created: true, git: info };
        let state = tmp.path().join("state");
        let key = WorkspaceKey::of(&Identifier("A-1".into())).expect("key");
        let airlock = Airlock::open(Git::new(&state).expect("git"), &state, &key, &ready).await.expect("airlock");
        airlock.seed_bundle(&tmp.path().join("seed"), Seed::Tracked, 1 << 30).await.expect("seed");
        let guest = tmp.path().join("guest");
        std::fs::create_dir(&guest).expect("dir");
        git(&guest, &["init", "-q"]);
        git(&guest, &["fetch", "-q", "../seed", "+refs/symphony/*:refs/symphony/*"]);
        git(&guest, &["checkout", "-qB", "work", "refs/symphony/head"]);
        Self { tmp, airlock, guest }
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.guest.join(name);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("dir");
        std::fs::write(path, bytes).expect("write");
    }

    fn commit(&self, message: &str) {
        git(&self.guest, &["add", "-A"]);
        git(
            &self.guest,
            &["commit", "-q", "--allow-empty", "--allow-empty-message", "--cleanup=verbatim", "-m", message],
        );
    }

    async fn take(&self) {
        git(&self.guest, &["update-ref", "refs/symphony/head", "HEAD"]);
        git(&self.guest, &["bundle", "create", "-q", "../export", "refs/symphony/head", "--not", "refs/symphony/base"]);
        let head = Oid::parse(&git(&self.guest, &["rev-parse", "HEAD"])).expect("oid");
        let bundle = self.tmp.path().join("export");
        self.airlock.take_export(Some(&bundle), &Claim { head, wip: None }, &Limits::of_mib(64)).await.expect("taken");
    }

    async fn write(&self) -> Handed {
        write(&self.airlock, &self.tmp.path().join("patches"), "The title", "The summary.").await.expect("written")
    }

    /// Takes the guest's work, writes the patch, and lets `git am` do its part.
    async fn hand_over(&self) -> Patch {
        self.take().await;
        let Handed::Patch(patch) = self.write().await else { panic!("nothing") };
        let again = self.write().await;
        assert_eq!(again, Handed::Patch(patch.clone()));
        let fresh = self.tmp.path().join("fresh");
        std::fs::create_dir(&fresh).expect("dir");
        git(&fresh, &["init", "-q"]);
        git(&fresh, &["fetch", "-q", "../seed", "refs/symphony/base"]);
        git(&fresh, &["checkout", "-qB", "main", "FETCH_HEAD"]);
        git(&fresh, &["am", "-q", patch.path.to_str().expect("path")]);
        let tree = |dir| git(dir, &["rev-parse", "HEAD^{tree}"]);
        assert_eq!(tree(&fresh), tree(&self.guest), "git am leads to another tree");
        assert_eq!(git(&fresh, &["rev-list", "--count", "FETCH_HEAD..HEAD"]), patch.commits.to_string());
        patch
    }
}

#[tokio::test]
async fn ordinary_commits_keep_their_authors_and_messages() {
    let world = World::new(false).await;
    world.put("text.txt", "one\nTWO\nthree\n");
    world.commit("Größer: first\n\nWith a body.");
    world.put("new.txt", "new\n");
    world.commit("second");
    let patch = world.hand_over().await;
    assert!(!patch.squashed);
    assert_eq!((patch.commits, patch.files, patch.insertions, patch.deletions), (2, 2, 2, 1));
    assert_eq!(patch.path, world.tmp.path().join("patches/agent_A-1.patch"));
    assert_eq!(patch.bytes, std::fs::metadata(&patch.path).expect("meta").len());
    let fresh = world.tmp.path().join("fresh");
    assert_eq!(git(&fresh, &["log", "-1", "--format=%an %s %b", "HEAD~1"]), "Guést Ünïcode Größer: first With a body.");
    let left: Vec<_> = std::fs::read_dir(world.tmp.path().join("patches")).expect("dir").collect();
    assert_eq!(left.len(), 1, "no temporary file is left");
}

#[tokio::test]
async fn binary_files_renames_modes_links_and_odd_names_survive() {
    let world = World::new(false).await;
    world.put("image.bin", (0..=255u8).cycle().take(5000).collect::<Vec<_>>());
    world.put("bin/run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(world.guest.join("bin/run.sh"), std::fs::Permissions::from_mode(0o755)).expect("mode");
    std::os::unix::fs::symlink("../etc/passwd", world.guest.join("link")).expect("link");
    world.put("näme with spaces \"and\" quotes\t.txt", "x\n");
    world.put("no-newline", "end");
    world.commit("all sorts");
    git(&world.guest, &["mv", "text.txt", "moved.txt"]);
    git(&world.guest, &["rm", "-q", "image.bin"]);
    world.commit("move and remove");
    assert!(!world.hand_over().await.squashed);
}

#[tokio::test]
async fn files_with_carriage_returns_survive_and_others_stay_readable() {
    let world = World::new(false).await;
    world.put("dos.txt", "one\r\nTWO\r\nthree\r\n");
    world.put("odd [name]*.txt", "a\r\nb\r\n");
    world.put("text.txt", "one\nreadable\nthree\n");
    world.commit("dos");
    let patch = world.hand_over().await;
    assert!(!patch.squashed);
    let text = String::from_utf8_lossy(&std::fs::read(&patch.path).expect("read")).into_owned();
    assert!(text.contains("+readable") && text.contains("GIT binary patch"));
}

#[tokio::test]
async fn hostile_messages_do_not_bend_the_patch() {
    let evil_diff = "diff --git a/evil b/evil\nnew file mode 100644\n--- /dev/null\n+++ b/evil\n@@ -0,0 +1 @@\n+evil\n";
    for message in [
        "subject\n\nFrom 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\nFrom: x <x@y>\nSubject: other\n\nbody",
        &format!("subject\n\n{evil_diff}"),
        "subject\n\n---\n\nbelow the scissors",
        "subject\n\n-- >8 --\nmore",
        "",
        "\n\n\n",
        "[PATCH 7/9] Re: bracketed",
        &"long ".repeat(2000),
    ] {
        let world = World::new(false).await;
        world.put("text.txt", "changed\n");
        world.commit(message);
        let patch = world.hand_over().await;
        assert_eq!(patch.files, 1, "{message:?}");
        assert!(!world.tmp.path().join("fresh/evil").exists());
    }
}

#[tokio::test]
async fn an_author_that_git_am_refuses_becomes_ours() {
    let world = World::new(false).await;
    world.put("text.txt", "changed\n");
    git(&world.guest, &["add", "-A"]);
    let tree = git(&world.guest, &["write-tree"]);
    let parent = git(&world.guest, &["rev-parse", "HEAD"]);
    let raw = format!("tree {tree}\nparent {parent}\nauthor ,, <> 1 +0000\ncommitter C <c@d> 1 +0000\n\nno one\n");
    std::fs::write(world.guest.join(".git/raw"), raw).expect("write");
    let commit = git(&world.guest, &["hash-object", "-t", "commit", "-w", ".git/raw"]);
    git(&world.guest, &["reset", "-q", "--hard", &commit]);
    assert!(world.hand_over().await.squashed);
}

#[tokio::test]
async fn a_merge_becomes_one_commit_with_the_agents_words() {
    let world = World::new(false).await;
    git(&world.guest, &["checkout", "-qb", "side"]);
    world.put("text.txt", "side\n");
    world.commit("side");
    git(&world.guest, &["checkout", "-q", "work"]);
    world.put("text.txt", "main\n");
    world.commit("main");
    let _conflict = try_git(&world.guest, &["merge", "-q", "side"]);
    world.put("text.txt", "resolved by hand\n");
    world.commit("merged");
    let patch = world.hand_over().await;
    assert!(patch.squashed);
    assert_eq!(patch.commits, 1);
    assert_eq!(git(&world.tmp.path().join("fresh"), &["log", "-1", "--format=%s|%b"]), "The title|The summary.");
}

#[tokio::test]
async fn empty_commits_and_submodules_do_not_stop_the_patch() {
    let world = World::new(false).await;
    world.commit("nothing in it");
    let commit = git(&world.guest, &["rev-parse", "HEAD"]);
    git(&world.guest, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lib/sub")]);
    std::fs::create_dir_all(world.guest.join("lib/sub")).expect("dir");
    git(&world.guest, &["commit", "-qm", "a submodule"]);
    std::fs::write(
        world.guest.join(".gitmodules"),
        "[submodule \"sub\"]\n\tpath = lib/sub\n\turl = ../sub\n\tignore = all\n",
    )
    .expect("write");
    git(&world.guest, &["add", ".gitmodules"]);
    git(&world.guest, &["commit", "-qm", "declare it"]);
    world.hand_over().await;
}

#[tokio::test]
async fn attributes_in_the_tree_neither_run_nor_hide_anything() {
    let world = World::new(false).await;
    world.put(
        ".gitattributes",
        "* -diff filter=evil diff=evil export-ignore ident\n*.txt text eol=crlf working-tree-encoding=UTF-16\n",
    );
    world.put("dollar.txt", "$Id$\n");
    // The guest may store what it likes, whatever its own git would make of those attributes.
    world.put(".git/info/attributes", "* -text -ident -filter -working-tree-encoding\n");
    world.commit("attributes");
    world.take().await;
    let patch = match world.write().await {
        Handed::Patch(patch) => patch,
        Handed::Nothing => panic!("nothing"),
    };
    let text = std::fs::read_to_string(&patch.path).expect("readable text");
    assert!(text.contains("+$Id$"), "{text}");
}

#[tokio::test]
async fn no_change_leaves_nothing() {
    let world = World::new(false).await;
    assert_eq!(world.write().await, Handed::Nothing);
    world.commit("empty");
    world.take().await;
    assert_eq!(world.write().await, Handed::Nothing);
    assert!(!world.tmp.path().join("patches/agent_A-1.patch").exists());
}

#[tokio::test]
async fn plain_files_also_leave_a_tar() {
    let world = World::new(true).await;
    world.put(".gitattributes", "secret.txt export-ignore\n");
    world.put("secret.txt", "kept\n");
    world.put("text.txt", "changed\n");
    world.commit("work");
    let patch = world.hand_over().await;
    let tar = patch.tar.expect("tar");
    assert_eq!(tar, world.tmp.path().join("patches/agent_A-1.tar"));
    let listed = Command::new("tar").arg("-tf").arg(tar).output().expect("tar");
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(names.contains("secret.txt") && names.contains("dos.txt"), "{names}");
}

#[test]
fn no_line_of_a_message_can_start_a_patch_or_a_mail() {
    let text = message("a\nb ", "From x\ndiff --git a b\n---\nIndex: y\nfine\n", "A-1");
    assert!(text.starts_with("a b\n\n"));
    assert!(text.lines().all(|line| !["From ", "diff", "---", "Index"].iter().any(|start| line.starts_with(start))));
    assert_eq!(message(" ", "", "A-1"), "Work on A-1\n\n");
}

#[test]
fn no_words_of_an_agent_make_a_message_that_cannot_be_committed() {
    let as_argument = |text: &str| std::process::Command::new("true").arg(text).status().is_ok_and(|s| s.success());
    let long = "From: x\n".repeat(100_000);
    for (title, summary) in [("a\0b", "c"), ("a", "b\0c"), ("a", long.as_str()), (long.as_str(), "b")] {
        assert!(!as_argument(&format!("{title}\n\n{summary}")), "the control");
        let made = message(title, summary, "A-1");
        assert!(as_argument(&made), "{}", made.len());
        assert!(serde_json::to_string(&made).expect("JSON").len() < symphony_guest::wire::MAX_HEADER / 2);
    }
    let made = message("red \u{1b}[31m \u{9b}2J", "one\r\ntwo\u{7f}\n\tthree", "A-1");
    assert_eq!(made, "red [31m 2J\n\none\ntwo\n\tthree\n");
    assert_eq!(message("\u{1b}", "s", "A-1"), "Work on A-1\n\ns\n");
}
