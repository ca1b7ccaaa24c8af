//! The host's side of one issue, from workspace to patch and cleanup, each step twice: everything is
//! opened anew in between, as after a crash.

use std::path::{Path, PathBuf};

use symphony::agent::mark_done;
use symphony::airlock::{Advance, Airlock, Claim, Limits};
use symphony::git::{Git, Oid};
use symphony::handoff::patch;
use symphony::hooks::{Hook, HookEnv};
use symphony::workspace::{Ready, Wanted, Workspaces};
use symphony_core::ids::{Identifier, WorkspaceKey};
use symphony_core::workflow::{Checkout, Hooks, Seed, Workspace};

use crate::rig::git;

struct Project {
    tmp: tempfile::TempDir,
    key: WorkspaceKey,
    settings: Workspace,
    hooks: Hooks,
    env: HookEnv,
}

impl Project {
    fn dir(&self) -> PathBuf {
        self.tmp.path().join("project")
    }

    fn state(&self) -> PathBuf {
        self.dir().join(".symphony")
    }

    fn wanted<'a>(&'a self, dir: &'a Path) -> Wanted<'a> {
        let (key, settings, hooks, env) = (&self.key, &self.settings, &self.hooks, &self.env);
        Wanted { key, workflow_dir: dir, settings, hooks, env, log: None }
    }

    fn workspaces(&self) -> Workspaces {
        let git = Git::new(&self.state()).expect("git");
        Workspaces::new(&self.settings.root, "instance", git).expect("workspaces")
    }

    async fn open(&self) -> (Ready, Airlock) {
        let dir = self.dir();
        let ready = self.workspaces().ensure(&self.wanted(&dir)).await.expect("workspace");
        let git = Git::new(&self.state()).expect("git");
        let airlock = Airlock::open(git, &self.state(), &self.key, &ready).await.expect("airlock");
        (ready, airlock)
    }
}

fn project() -> Project {
    let tmp = tempfile::tempdir().expect("dir");
    let dir = tmp.path().join("project");
    std::fs::create_dir(&dir).expect("dir");
    git(&dir, &["init", "-q"]);
    std::fs::write(dir.join("README"), "hello\n").expect("write");
    std::fs::write(dir.join(".gitignore"), ".symphony\n").expect("write");
    git(&dir, &["add", "-A"]);
    git(&dir, &["commit", "-qm", "first"]);
    let settings = Workspace {
        root: dir.join(".symphony/workspaces"),
        source: None,
        base: None,
        seed: Seed::Tracked,
        seed_max_mib: 64,
        export_max_mib: 64,
        checkout: Checkout::Base,
    };
    let after_run = "head -1 .git/symphony-runtime/mark_done.md > ../seen; git log --format=%s \"agent/$(basename \"$PWD\")\" >> ../seen";
    let hooks = Hooks { after_run: Some(after_run.into()), timeout_ms: 30_000, ..Hooks::default() };
    let key = WorkspaceKey::of(&Identifier("DEMO-1".into())).expect("key");
    Project { tmp, key, settings, hooks, env: HookEnv::default() }
}

#[tokio::test]
async fn an_issue_goes_from_workspace_to_patch_and_every_step_may_be_repeated() {
    let project = project();
    let (_, airlock) = project.open().await;
    let seed_file = project.tmp.path().join("seed");
    let seed = airlock.seed_bundle(&seed_file, Seed::Tracked, 1 << 20).await.expect("seed");

    // The guest: one commit, and a change that it never committed.
    let guest = project.tmp.path().join("guest");
    std::fs::create_dir(&guest).expect("dir");
    git(&guest, &["init", "-q"]);
    git(&guest, &["fetch", "-q", "../seed", "+refs/symphony/*:refs/symphony/*"]);
    git(&guest, &["checkout", "-qB", &seed.branch, seed.head.as_str()]);
    std::fs::write(guest.join("README"), "hello world\n").expect("write");
    git(&guest, &["commit", "-qam", "greet the world"]);
    std::fs::write(guest.join("NEW"), "left uncommitted\n").expect("write");
    git(&guest, &["add", "-A"]);
    let tree = git(&guest, &["write-tree"]);
    let wip = git(&guest, &["commit-tree", &tree, "-p", "HEAD", "-m", "wip"]);
    git(&guest, &["update-ref", "refs/symphony/head", "HEAD"]);
    git(&guest, &["update-ref", "refs/symphony/wip", &wip]);
    let refs = ["refs/symphony/head", "refs/symphony/wip", "--not", "refs/symphony/base"];
    git(&guest, &[&["bundle", "create", "-q", "../export"], &refs[..]].concat());
    let claim = Claim { head: Oid::parse(&git(&guest, &["rev-parse", "HEAD"])).expect("oid"), wip: Oid::parse(&wip) };

    let export = project.tmp.path().join("export");
    let mut patches = Vec::new();
    for _ in 0..2 {
        let (_, airlock) = project.open().await;
        // After the first round the work is committed; the same export would undo that, so a
        // restart takes it only while it is the newest word.
        if patches.is_empty() {
            airlock.take_export(Some(&export), &claim, &Limits::of_mib(64)).await.expect("taken");
        }
        let (_, airlock) = project.open().await;
        airlock.commit_wip("Finish").await.expect("committed");
        let (ready, airlock) = project.open().await;
        let moved = airlock.advance_branch(Checkout::Base).await.expect("moved");
        assert!(matches!(moved, Advance::Advanced { .. }), "{moved:?}");
        let written = patch::write(&airlock, &project.state().join("patches"), "Finish", "All.").await.expect("patch");
        let patch::Handed::Patch(patch) = written else { panic!("nothing") };
        assert_eq!((patch.commits, patch.files, patch.squashed), (2, 2, false));
        patches.push(std::fs::read(&patch.path).expect("read"));
        mark_done::write(&ready.path, "Finish", "All.").expect("mark_done.md");
        let dir = project.dir();
        project.wanted(&dir).hook(Hook::AfterRun, &ready.path).expect("hook").run().await.expect("after_run");
    }
    assert_eq!(patches[0], patches[1]);
    let seen = std::fs::read_to_string(project.settings.root.join("seen")).expect("after_run saw it");
    assert_eq!(seen, "# Finish\nFinish\ngreet the world\nfirst\n");

    // A person applies it to the project itself.
    let patch = project.state().join("patches/agent_DEMO-1.patch");
    git(&project.dir(), &["am", "-q", patch.to_str().expect("path")]);
    assert_eq!(git(&project.dir(), &["rev-parse", "HEAD^{tree}"]), tree);

    let dir = project.dir();
    for there in [true, false] {
        assert_eq!(project.workspaces().remove(&project.wanted(&dir)).await.expect("removed"), there);
        assert_eq!(Airlock::remove(&project.state(), &project.key).await.expect("removed"), there);
    }
    assert!(patch.exists(), "the patch stays");
}
