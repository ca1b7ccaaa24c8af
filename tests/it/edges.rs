//! Odd input, end to end: names, files and repositories nobody planned for.

use std::os::unix::ffi::OsStrExt as _;

use serde_json::json;

use crate::rig::{FRONT, Project, git, until};

const WORK: &str = "```sh\necho work > work.txt\n```";

/// A project whose first failure parks the issue.
fn strict() -> Project {
    Project::with(&format!("{FRONT}budget:\n  failures_in_a_row: 1\n"))
}

fn patches(project: &Project) -> Vec<String> {
    let list = std::fs::read_dir(project.dir().join(".symphony/patches")).into_iter().flatten().flatten();
    let mut names: Vec<String> = list.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn what_a_person_commits_to_the_branch_between_runs_survives_the_next_run() {
    let project = strict();
    project.write("README.md", "one\ntwo\nthree\nfour\nfive\n");
    git(&project.dir(), &["commit", "-qam", "Lines"]);
    let body = "```sh\necho agent >> work.txt; git add work.txt; git commit -qm Agent\nsed -i s/one/ONE/ README.md\nexit 7\n```";
    project.issue("Todo", "A-1", body);
    assert_eq!(project.once(), 3, "parked with a commit and with uncommitted work");
    let workspace = project.dir().join(".symphony/workspaces/A-1");
    git(&workspace, &["checkout", "-q", "agent/A-1"]);
    std::fs::write(workspace.join("README.md"), "one\ntwo\nthree\nfour\nFIVE\n").expect("written");
    git(&workspace, &["commit", "-qam", "Human"]);
    std::fs::remove_file(project.dir().join("issues/Parked/A-1.md")).expect("removed");
    project.issue("Todo", "A-1", "```sh\ncat README.md; echo more >> work.txt\n```");
    assert_eq!(project.once(), 0);
    let clone = project.apply_patch("A-1");
    assert_eq!(git(&clone, &["log", "-3", "--format=%s"]), "The title of A-1\nHuman\nAgent");
    assert_eq!(std::fs::read_to_string(clone.join("README.md")).expect("text"), "ONE\ntwo\nthree\nfour\nFIVE\n");
}

#[test]
fn a_finished_issue_that_is_opened_again_goes_on_from_its_work() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\necho x >> work.txt\n```");
    assert_eq!(project.once(), 0);
    std::fs::rename(project.dir().join("issues/Done/A-1.md"), project.dir().join("issues/Todo/A-1.md")).expect("back");
    assert_eq!(project.once(), 0);
    let clone = project.apply_patch("A-1");
    assert_eq!(std::fs::read_to_string(clone.join("work.txt")).expect("text"), "x\nx\n");
    // With the patch applied, a third round starts from there.
    git(&project.dir(), &["am", "-q", ".symphony/patches/agent_A-1.patch"]);
    std::fs::rename(project.dir().join("issues/Done/A-1.md"), project.dir().join("issues/Todo/A-1.md")).expect("back");
    assert_eq!(project.once(), 0);
    assert!(project.read(".symphony/patches/agent_A-1.patch").contains("@@ -1,2 +1,3 @@"));
}

#[test]
fn odd_names_work_end_to_end_and_share_nothing() {
    let project = Project::new();
    let long = "n".repeat(150);
    for name in ["with space", "ünïcode ☃", "-dash", "a..b", "x.lock", "q'uote\"", long.as_str()] {
        project.issue("Todo", name, WORK);
    }
    for (file, identifier) in
        [("dots", "..x"), ("slash", "A/B"), ("underscore", "A_B"), ("many bytes", &"é".repeat(120))]
    {
        project.write(&format!("issues/Todo/{file}.md"), &format!("---\nidentifier: \"{identifier}\"\n---\n{WORK}\n"));
    }
    let files = std::fs::read_dir(project.dir().join("issues/Todo")).expect("issues").count();
    assert_eq!(project.once(), 0);
    assert_eq!(patches(&project).len(), files);
    assert_eq!(std::fs::read_dir(project.dir().join("issues/Done")).expect("done").count(), files);
}

#[test]
fn names_that_differ_only_by_case_are_shown_and_not_guessed() {
    let project = Project::new();
    project.issue("Todo", "Case", WORK);
    project.issue("Todo", "case", WORK);
    assert_eq!(project.once(), 3);
    assert!(project.exists("issues/Todo/Case.md") && patches(&project).is_empty());
}

#[test]
fn issues_without_front_matter_and_with_carriage_returns_are_issues() {
    let project = Project::new();
    project.write("issues/Todo/bare.md", &format!("Just text.\n\n{WORK}\n"));
    project.write("issues/Todo/crlf.md", "---\r\ntitle: CRLF\r\n---\r\n```sh\r\necho work > work.txt\r\n```\r\n");
    assert_eq!(project.once(), 0);
    assert_eq!(patches(&project), ["agent_bare.patch", "agent_crlf.patch"]);
    let clone = project.apply_patch("crlf");
    assert_eq!(std::fs::read_to_string(clone.join("work.txt")).expect("the name has no carriage return"), "work\n");
}

#[test]
fn an_issue_without_a_script_is_not_left_running() {
    let project = strict();
    project.issue("Todo", "empty", "");
    project.issue("Todo", "A-1", WORK);
    assert!([0, 3].contains(&project.once()));
    assert!(project.exists("issues/Done/A-1.md") && !project.exists("issues/Todo/empty.md"));
}

#[test]
fn a_file_name_that_is_not_utf_8_is_shown_and_stops_nothing() {
    let project = Project::new();
    let name = std::ffi::OsStr::from_bytes(b"bad\xff.md");
    std::fs::write(project.dir().join("issues/Todo").join(name), "text\n").expect("written");
    project.issue("Todo", "A-1", WORK);
    assert_eq!(project.once(), 3, "somebody has to rename it");
    assert!(project.exists("issues/Done/A-1.md"));
}

#[test]
fn a_tracker_root_may_be_a_link() {
    let project = Project::new();
    std::fs::rename(project.dir().join("issues"), project.beside("elsewhere")).expect("moved");
    std::os::unix::fs::symlink(project.beside("elsewhere"), project.dir().join("issues")).expect("linked");
    project.issue("Todo", "A-1", WORK);
    assert_eq!(project.once(), 0);
    assert!(project.beside("elsewhere/Done/A-1.md").exists());
}

#[test]
fn a_state_directory_that_can_never_be_read_ends_once_with_3() {
    let project = Project::new();
    std::os::unix::fs::symlink("/nonexistent/anywhere", project.dir().join("issues/Broken")).expect("linked");
    project.issue("Todo", "A-1", WORK);
    assert_eq!(project.once(), 3);
    assert!(project.exists("issues/Todo/A-1.md"), "nothing starts on half a look");
}

#[test]
fn a_workflow_in_a_subdirectory_works_on_the_whole_repository() {
    let project = Project::new();
    project.write("sub/WORKFLOW.md", &project.read("WORKFLOW.md"));
    project.write("sub/issues/Todo/A-1.md", WORK);
    assert_eq!(project.run(&["sub/WORKFLOW.md", "--once"]).status.code(), Some(0));
    assert!(project.read("sub/.symphony/patches/agent_A-1.patch").contains("b/work.txt"));
    assert_eq!(git(&project.dir(), &["status", "--porcelain", "--untracked-files=all", "sub/.symphony"]), "");
}

#[test]
fn without_any_repository_the_work_starts_from_nothing() {
    let project = Project::new();
    std::fs::remove_dir_all(project.dir().join(".git")).expect("removed");
    project.issue("Todo", "A-1", WORK);
    assert_eq!(project.once(), 0);
    assert!(patches(&project).contains(&"agent_A-1.tar".to_owned()));
}

#[test]
fn an_empty_repository_is_refused_in_words() {
    let project = strict();
    std::fs::remove_dir_all(project.dir().join(".git")).expect("removed");
    git(&project.dir(), &["init", "-q"]);
    project.issue("Todo", "A-1", WORK);
    let output = project.run(&["--once"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("commit something"), "{output:?}");
    assert!(project.exists("issues/Todo/A-1.md"), "it waits for a person and is not parked");
}

#[test]
fn detached_dirty_shallow_and_linked_sources_are_fine() {
    let project = Project::new();
    git(&project.dir(), &["commit", "-q", "--allow-empty", "-m", "Second"]);
    let url = format!("file://{}", project.dir().display());
    git(&project.dir(), &["clone", "-q", "--depth=1", &url, "../shallow"]);
    git(&project.dir(), &["worktree", "add", "-q", "--detach", "../linked"]);
    for source in ["shallow", "linked"] {
        let dir = project.beside(source);
        std::fs::write(dir.join("README.md"), "dirty\n").expect("written");
        std::fs::create_dir_all(dir.join("issues/Todo")).expect("issues");
        std::fs::write(dir.join("issues/Todo/A-1.md"), WORK).expect("written");
        let workflow = dir.join("WORKFLOW.md");
        assert_eq!(project.run(&[workflow.to_str().expect("path"), "--once"]).status.code(), Some(0), "{source}");
        let patch = std::fs::read_to_string(dir.join(".symphony/patches/agent_A-1.patch")).expect("patch");
        assert!(patch.contains("work.txt") && !patch.contains("dirty"), "{source}");
    }
}

#[test]
fn a_source_branch_named_agent_is_not_in_the_way() {
    let project = strict();
    git(&project.dir(), &["checkout", "-q", "-b", "agent"]);
    project.issue("Todo", "A-1", WORK);
    assert_eq!(project.once(), 0);
}

#[test]
fn submodules_and_lfs_pointers_pass_unchanged() {
    let project = Project::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    project.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n");
    project.write("big.bin", pointer);
    let dir = project.dir();
    git(&dir, &["add", "-A"]);
    let head = git(&dir, &["rev-parse", "HEAD"]);
    git(&dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{head},module")]);
    git(&dir, &["commit", "-q", "-m", "Pointers"]);
    project.issue("Todo", "A-1", "```sh\ncat big.bin > seen.txt\n```");
    assert_eq!(project.once(), 0);
    let patch = project.read(".symphony/patches/agent_A-1.patch");
    assert!(patch.contains("git-lfs") && !patch.contains("b/module") && !patch.contains("b/big.bin"), "{patch}");
}

#[test]
fn a_file_that_breaks_while_its_run_works_stops_nothing() {
    let project = Project::new();
    // The first turn ends without a word; then the file is whole again.
    project.issue(
        "Todo",
        "A-1",
        "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Go on?'; exit 75; fi\necho x > x.txt\n```",
    );
    let whole = project.read("issues/Todo/A-1.md");
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    project.write("issues/Todo/A-1.md", "---\ntitle: [unclosed\n---\nbroken\n");
    running.until_state("the broken file to be shown", |s| {
        s.to_string().contains("issues") && running.log().contains("not an issue")
    });
    assert_eq!(running.state()["running"][0]["issue_identifier"], json!("A-1"));
    project.write("issues/Todo/A-1.md", &whole);
    running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "yes"}));
    until("the issue to be done", || project.exists("issues/Done/A-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_workspace_goes_from_where_its_run_made_it_although_the_root_moved_on() {
    let project = Project::new();
    project.issue(
        "Todo",
        "A-1",
        "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Go on?'; exit 75; fi\necho x > x.txt\n```",
    );
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    let moved = project.read("WORKFLOW.md").replace("polling:", "workspace:\n  root: elsewhere\npolling:");
    project.write("WORKFLOW.md", &moved);
    until("the reload", || running.log().contains("workflow reloaded"));
    running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "yes"}));
    until("the issue to be done", || project.exists("issues/Done/A-1.md"));
    until("the old workspace to be gone", || !project.exists(".symphony/workspaces/A-1"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_run_keeps_the_tracker_root_it_started_with() {
    let project = Project::new();
    std::fs::create_dir_all(project.dir().join("other/Todo")).expect("root");
    project.issue(
        "Todo",
        "A-1",
        "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Go on?'; exit 75; fi\necho x > x.txt\n```",
    );
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace("kind: local", "kind: local\n  root: other"));
    until("the reload", || running.log().contains("workflow reloaded"));
    project.issue("../other/Todo", "B-1", WORK);
    until("an issue of the new root to be done", || project.exists("other/Done/B-1.md"));
    running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "yes"}));
    until("the issue of the old root to be done", || project.exists("issues/Done/A-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn after_the_tracker_root_moved_the_new_one_is_watched() {
    let project = Project::with(&FRONT.replace("interval_ms: 300", "interval_ms: 3600000"));
    std::fs::create_dir_all(project.dir().join("other/Todo")).expect("root");
    let running = project.start();
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replace("kind: local", "kind: local\n  root: other"));
    until("the reload", || running.log().contains("workflow reloaded"));
    running.until_state("the look to end", |s| s.is_object());
    project.write("other/Todo/A-1.md", WORK);
    until("the issue to be done", || project.exists("other/Done/A-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_lock_that_a_power_cut_left_costs_no_attempt() {
    let project = strict();
    project.issue("Todo", "A-1", "```sh\necho x >> work.txt\n[ -e go ] || { touch go; exit 7; }\n```");
    assert_eq!(project.once(), 3);
    let airlock = project.dir().join(".symphony/airlock/A-1.git/refs/symphony");
    let workspace = project.dir().join(".symphony/workspaces/A-1/.git/refs/heads/agent");
    let minute_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    for lock in [airlock.join("head.lock"), airlock.join("wip.lock"), workspace.join("A-1.lock")] {
        let file = std::fs::File::create(&lock).expect("lock");
        file.set_modified(minute_ago).expect("old");
    }
    std::fs::rename(project.dir().join("issues/Parked/A-1.md"), project.dir().join("issues/Todo/A-1.md"))
        .expect("back");
    assert_eq!(project.once(), 0);
}

#[test]
fn uncommitted_work_without_a_new_commit_is_a_checkpoint_like_any_other() {
    let project = Project::new();
    let body = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo half > half.txt; echo 'Go on?'; exit 75; fi\necho x > x.txt\n```";
    project.issue("Todo", "A-1", body);
    let running = project.start();
    running.until_state("the question", |s| {
        s["running"][0]["phase"] == json!("waiting for a human") || running.log().contains("run ended")
    });
    assert!(!running.log().contains("run ended"), "{}", running.log());
    running.post("/api/v1/issues/A-1/steering-reply", &json!({"text": "yes"}));
    until("the issue to be done", || project.exists("issues/Done/A-1.md"));
    let clone = project.apply_patch("A-1");
    assert!(clone.join("half.txt").exists() && clone.join("x.txt").exists());
    assert_eq!(running.stop(), 0);
}
