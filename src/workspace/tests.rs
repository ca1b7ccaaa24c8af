//! Real directories, real git, real hooks.

use std::os::unix::fs::PermissionsExt;

use symphony_core::ids::Identifier;
use symphony_core::workflow::{Checkout, Hooks, Seed};

use super::*;
use crate::git::scratch::git;

struct World {
    tmp: tempfile::TempDir,
    key: WorkspaceKey,
    settings: workflow::Workspace,
    hooks: Hooks,
    env: HookEnv,
}

impl World {
    fn new() -> Self {
        let tmp = tempfile::tempdir().expect("dir");
        let root = tmp.path().join("workspaces");
        std::fs::create_dir(tmp.path().join("source")).expect("dir");
        let settings = workflow::Workspace {
            root,
            source: None,
            base: None,
            seed: Seed::Tracked,
            seed_max_mib: 100,
            export_max_mib: 100,
            checkout: Checkout::Base,
        };
        let hooks = Hooks { timeout_ms: 30_000, ..Hooks::default() };
        Self { tmp, key: key("A-1"), settings, hooks, env: HookEnv::default() }
    }

    /// The same with a source repository of two commits on `main`.
    fn with_source() -> Self {
        let world = Self::new();
        let source = world.source();
        git(&source, &["init", "-q"]);
        for n in 0..2 {
            std::fs::write(source.join("f"), format!("{n}\n")).expect("write");
            git(&source, &["add", "-A"]);
            git(&source, &["commit", "-qm", "c"]);
        }
        world
    }

    fn source(&self) -> PathBuf {
        self.tmp.path().join("source")
    }

    fn workspaces(&self, instance: &str) -> Workspaces {
        let git = Git::new(&self.tmp.path().join("state")).expect("git");
        Workspaces::new(&self.settings.root, instance, git).expect("root")
    }

    async fn ensure(&self) -> Result<Ready, WorkspaceError> {
        self.ensure_as("me").await
    }

    async fn ensure_as(&self, instance: &str) -> Result<Ready, WorkspaceError> {
        let dir = self.source();
        self.workspaces(instance).ensure(&self.wanted(&dir)).await
    }

    async fn remove_as(&self, instance: &str) -> Result<bool, WorkspaceError> {
        let dir = self.source();
        self.workspaces(instance).remove(&self.wanted(&dir)).await
    }

    fn wanted<'a>(&'a self, dir: &'a Path) -> Wanted<'a> {
        let (key, settings, hooks, env) = (&self.key, &self.settings, &self.hooks, &self.env);
        Wanted { key, workflow_dir: dir, settings, hooks, env, log: None }
    }
}

fn key(name: &str) -> WorkspaceKey {
    WorkspaceKey::of(&Identifier(name.into())).expect("key")
}

#[tokio::test]
async fn the_source_is_cloned_at_its_head_with_a_branch_and_no_way_back() {
    let world = World::with_source();
    let ready = world.ensure().await.expect("ready");
    let head = git(&world.source(), &["rev-parse", "HEAD"]);
    assert!(ready.created);
    assert_eq!(ready.path, world.settings.root.canonicalize().expect("root").join("A-1"));
    assert_eq!(ready.git.as_ref().map(|git| git.base.to_string()), Some(head.clone()));
    let ws = &ready.path;
    for name in ["HEAD", "agent/A-1", "main"] {
        assert_eq!(git(ws, &["rev-parse", name]), head);
    }
    assert_eq!(git(ws, &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD", "detached");
    assert_eq!(git(ws, &["status", "--porcelain"]), "");
    assert_eq!(git(ws, &["remote"]), "");
    assert_eq!(git(ws, &["config", "--local", "user.email"]), "agent@symphony.local");
    assert_eq!(git(ws, &["rev-list", "--count", "HEAD"]), "2");
    assert!(!ws.join(".git/objects/info/alternates").exists());
    let again = world.ensure().await.expect("ready");
    assert_eq!(again, Ready { created: false, ..ready });
}

#[tokio::test]
async fn a_base_may_be_a_branch_or_a_commit_and_must_exist() {
    let mut world = World::with_source();
    let first = git(&world.source(), &["rev-parse", "HEAD~1"]);
    git(&world.source(), &["branch", "old", &first]);
    for (name, base) in [("B-1", "old".to_owned()), ("B-2", first.clone())] {
        world.key = key(name);
        world.settings.base = Some(base);
        let ready = world.ensure().await.expect("ready");
        assert_eq!(ready.git.map(|git| git.base.to_string()), Some(first.clone()));
    }
    world.key = key("B-3");
    for base in ["nowhere", "--upload-pack=x"] {
        world.settings.base = Some(base.into());
        assert!(matches!(world.ensure().await, Err(WorkspaceError::NoBase { .. })));
        assert!(!world.settings.root.join("B-3").exists());
    }
}

#[tokio::test]
async fn a_shallow_source_is_recorded_as_such() {
    let mut world = World::with_source();
    let url = format!("file://{}", world.source().display());
    git(world.tmp.path(), &["clone", "-q", "--depth=1", &url, "shallow"]);
    world.settings.source = Some(world.tmp.path().join("shallow"));
    let info = world.ensure().await.expect("ready").git.expect("git");
    assert_eq!(info.shallow, [info.base]);
}

#[tokio::test]
async fn a_partial_source_is_cloned_without_its_history() {
    let mut world = World::with_source();
    git(&world.source(), &["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", world.source().display());
    git(world.tmp.path(), &["clone", "-q", "--filter=blob:none", &url, "partial"]);
    world.settings.source = Some(world.tmp.path().join("partial"));
    let ready = world.ensure().await.expect("ready");
    let info = ready.git.clone().expect("git");
    assert_eq!(info.shallow, [info.base]);
    assert_eq!(std::fs::read_to_string(ready.path.join("f")).expect("file"), "1\n");
    let state = world.tmp.path().join("state");
    let git = Git::new(&state).expect("git");
    let airlock = crate::airlock::Airlock::open(git, &state, &world.key, &ready).await.expect("airlock");
    let plan = airlock.seed_bundle(&world.tmp.path().join("seed"), Seed::Tracked, 1 << 20).await.expect("seed");
    assert_eq!(plan.shallow, info.shallow);
}

/// As root over a repository of another user; otherwise over one's own, which must work as well.
#[tokio::test]
async fn a_source_of_another_user_can_be_cloned() {
    let world = World::with_source();
    if rustix::process::geteuid().is_root() {
        let mut pending = vec![world.source()];
        while let Some(at) = pending.pop() {
            std::os::unix::fs::lchown(&at, Some(54_321), Some(54_321)).expect("chown");
            if at.is_dir() {
                pending.extend(std::fs::read_dir(&at).expect("dir").map(|entry| entry.expect("entry").path()));
            }
        }
    }
    assert!(world.ensure().await.expect("ready").git.is_some());
}

#[tokio::test]
async fn a_source_that_is_no_repository_is_an_error_but_none_at_all_means_plain_files() {
    let mut world = World::new();
    assert_eq!(world.ensure().await.expect("ready").git, None);
    world.key = key("A-2");
    world.settings.source = Some(world.source());
    assert!(matches!(world.ensure().await, Err(WorkspaceError::NoSource { .. })));
}

#[tokio::test]
async fn after_create_replaces_the_clone_and_runs_once_in_the_final_place() {
    let mut world = World::with_source();
    world.hooks.after_create = Some(
        "echo x >> ../ran; git clone -q --local --no-tags \"$PWD/../../source\" .; git remote remove origin; \
         git checkout -q -b agent/$(basename \"$PWD\"); touch untracked"
            .into(),
    );
    let ready = world.ensure().await.expect("ready");
    world.ensure().await.expect("ready");
    assert_eq!(std::fs::read_to_string(world.settings.root.join("ran")).expect("ran"), "x\n");
    assert_eq!(git(&ready.path, &["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD", "detached");
    assert_eq!(git(&ready.path, &["rev-parse", "agent/A-1"]), ready.git.expect("git").base.to_string());
    assert_eq!(git(&ready.path, &["status", "--porcelain"]), "?? untracked", "no file was touched");
}

#[tokio::test]
async fn a_failed_after_create_leaves_nothing_and_runs_again() {
    let mut world = World::new();
    world.hooks.after_create = Some("touch half; test -e ../ok".into());
    assert!(matches!(world.ensure().await, Err(WorkspaceError::AfterCreate(HookError::Failed { .. }))));
    assert!(!world.settings.root.join("A-1").exists());
    std::fs::write(world.settings.root.join("ok"), "").expect("write");
    assert!(world.ensure().await.expect("ready").created);
}

#[tokio::test]
async fn a_workspace_that_a_crash_left_half_made_is_made_again() {
    let mut world = World::new();
    world.hooks.after_create = Some("touch half; sleep 600".into());
    let cut = tokio::time::timeout(Duration::from_millis(500), world.ensure()).await;
    assert!(cut.is_err());
    assert!(world.settings.root.join("A-1").exists(), "the crash left something");
    world.hooks.after_create = Some("test ! -e half".into());
    assert!(world.ensure().await.expect("ready").created);
}

#[tokio::test]
async fn links_files_and_foreign_directories_are_refused_and_untouched() {
    let mut world = World::new();
    world.hooks.after_create = Some("touch ../ran".into());
    world.hooks.before_remove = Some("touch ../ran".into());
    let root = world.settings.root.clone();
    let elsewhere = world.tmp.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).expect("dir");
    std::fs::create_dir_all(&root).expect("dir");
    std::fs::write(elsewhere.join("precious"), "p").expect("write");

    std::os::unix::fs::symlink(&elsewhere, root.join("A-1")).expect("link");
    assert!(matches!(world.ensure().await, Err(WorkspaceError::IsSymlink(_))));
    assert!(matches!(world.remove_as("me").await, Err(WorkspaceError::IsSymlink(_))));
    std::fs::remove_file(root.join("A-1")).expect("remove");

    std::fs::write(root.join("A-1"), "file").expect("write");
    assert!(matches!(world.ensure().await, Err(WorkspaceError::NotADirectory(_))));
    assert!(matches!(world.remove_as("me").await, Err(WorkspaceError::NotADirectory(_))));
    std::fs::remove_file(root.join("A-1")).expect("remove");

    std::fs::create_dir(root.join("A-1")).expect("dir");
    std::fs::write(root.join("A-1/theirs"), "t").expect("write");
    assert!(matches!(world.ensure().await, Err(WorkspaceError::NotOurs(_))));
    assert!(matches!(world.remove_as("me").await, Err(WorkspaceError::NotOurs(_))));
    assert!(root.join("A-1/theirs").exists() && elsewhere.join("precious").exists());
    assert!(!root.join("ran").exists(), "no hook ran");
}

#[tokio::test]
async fn another_instances_workspace_is_not_ours() {
    let world = World::new();
    world.ensure_as("other").await.expect("ready");
    assert!(matches!(world.ensure_as("me").await, Err(WorkspaceError::NotOurs(_))));
    assert!(matches!(world.remove_as("me").await, Err(WorkspaceError::NotOurs(_))));
    assert!(world.remove_as("other").await.expect("removed"));
}

#[tokio::test]
async fn a_failing_before_remove_does_not_keep_the_workspace() {
    let mut world = World::new();
    world.hooks.before_remove = Some("touch ../ran; exit 1".into());
    world.ensure().await.expect("ready");
    assert!(world.remove_as("me").await.expect("removed"));
    assert!(world.settings.root.join("ran").exists());
    assert!(!world.settings.root.join("A-1").exists());
    assert!(!world.remove_as("me").await.expect("nothing left"));
}

#[tokio::test]
async fn a_removal_that_was_cut_off_is_ended_by_the_next_and_never_seen_as_a_workspace() {
    let world = World::new();
    let ready = world.ensure().await.expect("ready");
    let doomed = removing(ready.path.parent().expect("a root"), "me").join("A-1");
    // As a kill between the rename and the end of the deletion leaves it.
    std::fs::create_dir_all(doomed.parent().expect("a parent")).expect("made");
    std::fs::write(ready.path.join("half"), "").expect("written");
    std::fs::rename(&ready.path, &doomed).expect("renamed");
    let again = world.ensure().await.expect("a new one");
    assert!(again.created && !again.path.join("half").exists() && doomed.join("half").exists());
    assert!(world.remove_as("me").await.expect("removed"));
    assert!(!doomed.exists() && !again.path.exists());
    // Nor does one stay whose workspace is gone.
    std::fs::create_dir_all(doomed.join("rest")).expect("made");
    assert!(!world.remove_as("me").await.expect("nothing left"));
    assert!(!doomed.exists());
}

#[tokio::test]
async fn linked_worktrees_and_linked_git_directories_are_refused() {
    let mut world = World::with_source();
    for script in ["git -C ../../source worktree add -q -f --detach \"$PWD\"", "ln -s ../../source/.git .git"] {
        world.hooks.after_create = Some(format!("rm -rf .git; {script}"));
        let refused = world.ensure().await;
        assert!(matches!(refused, Err(WorkspaceError::LinkedGit(_))), "{refused:?}");
        assert!(!world.settings.root.join("A-1").exists());
    }
    assert!(world.source().join(".git/HEAD").exists());
}

#[tokio::test]
async fn the_root_is_private_and_may_itself_be_a_link() {
    let mut world = World::new();
    world.ensure().await.expect("ready");
    let mode = std::fs::metadata(&world.settings.root).expect("meta").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let link = world.tmp.path().join("link");
    std::os::unix::fs::symlink(&world.settings.root, &link).expect("link");
    world.settings.root = link;
    assert!(!world.ensure().await.expect("ready").created);
}

#[test]
fn keys_stay_below_the_root() {
    let world = World::new();
    let workspaces = world.workspaces("me");
    let root = world.settings.root.canonicalize().expect("root");
    assert_eq!(workspaces.path(&key("..fix")).expect("accepted"), root.join("..fix"));
    assert_eq!(workspaces.path(&key("../../x")).expect("bent").parent(), Some(root.as_path()));
    assert!(matches!(workspaces.path(&key(".symphony")), Err(WorkspaceError::InvalidKey(_))));
}

/// Everything in a source that could make git start a program leaves a mark.
#[tokio::test]
async fn nothing_that_a_source_carries_runs_while_it_is_cloned_and_read() {
    let world = World::with_source();
    let source = world.source();
    let sentinel = world.tmp.path().join("sentinel");
    let mark = world.tmp.path().join("mark");
    std::fs::write(&mark, format!("#!/bin/sh\ntouch {}\ncat\n", sentinel.display())).expect("write");
    std::fs::set_permissions(&mark, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let mark = mark.to_str().expect("path");
    std::fs::write(source.join(".gitattributes"), "* filter=evil diff=evil\n").expect("write");
    git(&source, &["add", "-A"]);
    git(&source, &["commit", "-qm", "attributes"]);
    for name in [
        "core.fsmonitor",
        "gpg.program",
        "filter.evil.smudge",
        "filter.evil.clean",
        "diff.evil.textconv",
        "diff.external",
        "uploadpack.packObjectsHook",
        "core.pager",
        "core.alternateRefsCommand",
    ] {
        git(&source, &["config", name, mark]);
    }
    git(&source, &["config", "log.showSignature", "true"]);
    for hook in ["post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc"] {
        std::fs::create_dir_all(source.join(".git/hooks")).expect("dir");
        std::fs::copy(mark, source.join(".git/hooks").join(hook)).expect("hook");
    }
    let ready = world.ensure().await.expect("ready");
    assert!(!sentinel.exists(), "something ran during the clone");
    let state = world.tmp.path().join("state");
    let git_cli = Git::new(&state).expect("git");
    let airlock = crate::airlock::Airlock::open(git_cli.clone(), &state, &world.key, &ready).await.expect("airlock");
    airlock.seed_bundle(&world.tmp.path().join("seed"), Seed::All, 1 << 20).await.expect("seed");
    // Also a workspace in which a hook left such settings.
    std::fs::copy(source.join(".git/config"), ready.path.join(".git/config")).expect("copy");
    std::fs::create_dir_all(ready.path.join(".git/hooks")).expect("dir");
    for hook in ["post-checkout", "reference-transaction", "post-index-change"] {
        std::fs::copy(mark, ready.path.join(".git/hooks").join(hook)).expect("hook");
    }
    std::fs::write(ready.path.join("untracked"), "u").expect("write");
    let again = crate::airlock::Airlock::open(git_cli, &state, &world.key, &ready).await.expect("airlock");
    again.seed_bundle(&world.tmp.path().join("seed"), Seed::All, 1 << 20).await.expect("seed");
    again.advance_branch(Checkout::Base).await.expect("advanced");
    assert!(!sentinel.exists(), "something ran while the workspace was read");
    // The control: plain git runs it.
    git(&source, &["status"]);
    assert!(sentinel.exists());
}
