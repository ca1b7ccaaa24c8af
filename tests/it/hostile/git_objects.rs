//! Repositories that a guest breaks or forges: nothing of the host is read or written through them, and
//! each run ends with work handed over or with a word that says what is wrong.

use super::{hasty, host_sh};
use crate::rig::{Project, git};

/// How such a run ends.
enum End {
    /// With a patch that holds `work.txt`.
    Done,
    /// Parked, with this in its note.
    Parked(&'static str),
}

use End::{Done, Parked};

const NO_COMMIT: &str = "the work tree has no commit to export";
const NOT_ON_BASE: &str = "does not descend from";

/// What the guest does in its work tree. `$P` is the project on the host, `$SECRET` a blob that only an
/// unrelated branch there holds.
const CASES: [(&str, &str, End); 18] = [
    (
        "index-lock",
        "touch .git/index.lock .git/HEAD.lock .git/refs/heads/x.lock; echo work > work.txt",
        Parked("index.lock"),
    ),
    ("no-git", "rm -rf .git; echo work > work.txt", Parked(NO_COMMIT)),
    ("git-is-a-link", "mv .git .elsewhere; ln -s $P/.git .git; echo work > work.txt", Parked(NO_COMMIT)),
    ("git-is-a-file", "rm -rf .git; echo \"gitdir: $P/.git\" > .git; echo work > work.txt", Parked(NO_COMMIT)),
    (
        "objects-link",
        "rm -rf .git/objects; ln -s $P/.git/objects .git/objects; echo work > work.txt",
        Parked(NO_COMMIT),
    ),
    ("objects-etc", "rm -rf .git/objects; ln -s /etc .git/objects; echo work > work.txt", Parked(NO_COMMIT)),
    ("objects-inside", "mv .git/objects /home/agent/o; ln -s /home/agent/o .git/objects; echo work > work.txt", Done),
    ("alternates", "echo $P/.git/objects > .git/objects/info/alternates; echo work > work.txt", Done),
    (
        "secret-blob",
        "echo $P/.git/objects > .git/objects/info/alternates\nt=$( (git ls-tree HEAD; printf '100644 blob %s\\tsecret.txt\\n' $SECRET) | git mktree --missing)\ngit reset -q --soft $(git commit-tree $t -p HEAD -m steal); echo work > work.txt",
        Parked("unable to read"),
    ),
    (
        "dot-git-entry",
        "b=$(echo x | git hash-object -w --stdin); d=$(printf '100644 blob %s\\tconfig\\n' $b | git mktree)\nt=$( (git ls-tree HEAD; printf '040000 tree %s\\t.git\\n' $d) | git mktree); git update-ref HEAD $(git commit-tree $t -p HEAD -m entry)",
        Parked("hasDotgit"),
    ),
    (
        "gitmodules-link",
        "b=$(printf /etc/passwd | git hash-object -w --stdin)\nt=$( (git ls-tree HEAD; printf '120000 blob %s\\t.gitmodules\\n' $b) | git mktree); git update-ref HEAD $(git commit-tree $t -p HEAD -m link)",
        Parked("gitmodulesSymlink"),
    ),
    (
        "gitmodules-option",
        "printf '[submodule \"../../x\"]\\n\\tpath = m\\n\\turl = --upload-pack=touch\\n' > .gitmodules; echo work > work.txt",
        Parked("gitmodulesName"),
    ),
    ("runtime-link", "ln -s $P .symphony-runtime; ln -s $P .git/symphony-runtime; echo work > work.txt", Done),
    (
        "too-large",
        "head -c 3000000 /dev/urandom > large; echo work > work.txt",
        Parked("bytes; at most 1048576 are taken"),
    ),
    ("orphan", "git checkout -q --orphan new; echo work > work.txt", Parked(NOT_ON_BASE)),
    (
        "head-elsewhere",
        "git update-ref refs/heads/other $(git commit-tree HEAD^{tree} -m root); git symbolic-ref HEAD refs/heads/other; echo work > work.txt",
        Parked(NOT_ON_BASE),
    ),
    ("head-garbage", "echo garbage > .git/HEAD; echo work > work.txt", Parked(NO_COMMIT)),
    (
        "corrupt",
        "git repack -qad; for p in .git/objects/pack/*.pack; do chmod u+w $p; echo broken > $p; done; echo work > work.txt",
        Parked(NO_COMMIT),
    ),
];

fn planted(name: &str, plant: &str, project: &Project, secret: &str) {
    let given = format!("P={} SECRET={secret}", project.dir().display());
    project.issue("Todo", name, &format!("```sh\n{given}\n{plant}\n```"));
}

/// A project whose repository has a secret on a branch that no issue starts from.
fn project_with_a_secret() -> (Project, String) {
    let project = Project::with(&hasty("workspace:\n  export_max_mib: 1\n"));
    let dir = project.dir();
    git(&dir, &["checkout", "-q", "--orphan", "private"]);
    project.write("secret.txt", "the secret of the host\n");
    git(&dir, &["add", "-f", "secret.txt"]);
    git(&dir, &["commit", "-q", "-m", "secret"]);
    let secret = git(&dir, &["rev-parse", "HEAD:secret.txt"]);
    git(&dir, &["checkout", "-q", "-f", "main"]);
    (project, secret)
}

#[test]
fn a_repository_that_a_guest_broke_or_forged_ends_in_work_or_in_a_word_and_never_touches_the_host() {
    let (project, secret) = project_with_a_secret();
    let dir = project.dir();
    let of_the_host = || (git(&dir, &["for-each-ref"]), git(&dir, &["status", "--porcelain"]), files(&dir));
    for (name, plant, _) in &CASES {
        planted(name, plant, &project, &secret);
    }
    let before = of_the_host();
    assert_eq!(project.once(), 3, "some are parked");
    for (name, _, end) in &CASES {
        match end {
            Done => {
                assert!(project.exists(&format!("issues/Done/{name}.md")), "{name}");
                assert!(project.read(&format!(".symphony/patches/agent_{name}.patch")).contains("+work"), "{name}");
            }
            Parked(word) => {
                let note = project.parked_note(name);
                assert!(note.contains(word), "{name}: {note}");
                assert!(!project.exists(&format!(".symphony/patches/agent_{name}.patch")), "{name}");
            }
        }
    }
    assert_eq!(before, of_the_host(), "the user's own repository is untouched");
}

#[test]
fn a_guest_does_not_obtain_an_object_of_the_host_that_a_host_process_would_read_for_it() {
    let (project, secret) = project_with_a_secret();
    let (_, plant, _) = CASES.iter().find(|(name, ..)| *name == "secret-blob").expect("the case");
    // Without a jail around it, the same lines steal the secret.
    let clone = project.beside("control");
    git(&project.dir(), &["clone", "-q", "--no-local", "--single-branch", ".", clone.to_str().expect("utf-8")]);
    assert_eq!(host_sh(&clone, &format!("git cat-file -e {secret} 2>/dev/null || echo absent")), "absent\n");
    host_sh(&clone, &format!("P={} SECRET={secret}\n{plant}", project.dir().display()));
    assert_eq!(host_sh(&clone, "git show HEAD:secret.txt"), "the secret of the host\n");

    planted("secret-blob", plant, &project, &secret);
    assert_eq!(project.once(), 3);
    let airlock = project.dir().join(".symphony/airlock/secret-blob.git");
    let has = |oid: &str| host_sh(&airlock, &format!("git --git-dir=. cat-file -e {oid} 2>/dev/null && echo yes"));
    assert_eq!((has(&secret).as_str(), has("refs/symphony/base").as_str()), ("", "yes\n"));
}

#[test]
fn a_repository_that_was_broken_is_made_anew_when_a_person_asks_for_another_try() {
    let project = Project::with(&hasty(""));
    let body = "```sh\nif [ ! -f /home/agent/again ]; then touch /home/agent/again; rm -rf .git; fi\necho work > work.txt\n```";
    project.issue("Todo", "B-1", body);
    assert_eq!(project.once(), 3);
    let note = project.parked_note("B-1");
    assert!(note.contains(NO_COMMIT) && note.contains("until the issue is tried again"), "{note}");
    std::fs::rename(project.dir().join("issues/Parked/B-1.md"), project.dir().join("issues/Todo/B-1.md"))
        .expect("moved");
    assert_eq!(project.once(), 0);
    assert!(project.apply_patch("B-1").join("work.txt").exists());
}

#[test]
fn locks_that_a_killed_git_left_do_not_stop_the_next_run() {
    let project = Project::with(&hasty(""));
    let body = "```sh\n[ -f /home/agent/again ] || { touch /home/agent/again .git/index.lock .git/HEAD.lock .git/refs/heads/agent/L-1.lock; exit 1; }\necho work > work.txt\n```";
    project.issue("Todo", "L-1", body);
    assert_eq!(project.once(), 0);
    assert!(project.apply_patch("L-1").join("work.txt").exists());
}

#[test]
fn uncommitted_work_on_an_unmoved_head_survives_a_failed_turn() {
    let project = Project::with(&hasty(""));
    let body = "```sh\n[ -f early.txt ] || { echo early > early.txt; exit 1; }\necho late > late.txt\n```";
    project.issue("Todo", "U-1", body);
    assert_eq!(project.once(), 0);
    let clone = project.apply_patch("U-1");
    assert!(clone.join("early.txt").exists() && clone.join("late.txt").exists());
}

/// Every path of the project that is not symphony's, with its size.
fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u64)> {
    let (mut pending, mut found) = (vec![dir.to_owned()], vec![]);
    while let Some(at) = pending.pop() {
        for entry in std::fs::read_dir(&at).expect("a directory").map(|entry| entry.expect("an entry")) {
            let meta = entry.metadata().expect("it exists");
            match entry.file_name().to_str() {
                Some(".symphony" | "issues") if at == dir => {}
                _ if meta.is_dir() => pending.push(entry.path()),
                _ => found.push((entry.path(), meta.len())),
            }
        }
    }
    found.sort();
    found
}
