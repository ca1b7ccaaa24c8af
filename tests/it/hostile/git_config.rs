//! Configuration and files of a guest's repository that make git run programs: none runs on the host,
//! not even through the hooks that 0.1.0 shipped.

use super::{Attack, hasty, host_sh};
use crate::rig::{Project, git};

/// Everything here makes a plain git run a program of the guest's choice.
const ATTACKS: [Attack; 8] = [
    Attack { name: "fsmonitor", plant: "git config core.fsmonitor \"touch $S; false\"", spring: "git status" },
    Attack {
        name: "hooks",
        plant: "mkdir -p .git/hooks\nfor h in post-checkout pre-commit post-commit reference-transaction pre-push post-rewrite post-merge post-index-change; do\n  printf '#!/bin/sh\\ntouch %s 2>/dev/null; true\\n' \"$S\" > .git/hooks/$h; chmod +x .git/hooks/$h\ndone",
        spring: "git commit -q --allow-empty -m x",
    },
    Attack {
        name: "hookspath",
        plant: "mkdir -p hooks\nfor h in post-checkout pre-commit post-commit reference-transaction post-index-change; do\n  printf '#!/bin/sh\\ntouch %s 2>/dev/null; true\\n' \"$S\" > hooks/$h; chmod +x hooks/$h\ndone\ngit config core.hooksPath hooks",
        spring: "git commit -q --allow-empty -m x",
    },
    Attack {
        name: "gpg",
        plant: "cat > sign.sh <<END\n#!/bin/sh\ntouch $S 2>/dev/null\ncat > /dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\nprintf -- '-----BEGIN PGP SIGNATURE-----\\n\\nx\\n-----END PGP SIGNATURE-----\\n'\nEND\nchmod +x sign.sh\ngit config gpg.program ./sign.sh; git config commit.gpgsign true; git config log.showSignature true",
        spring: "git commit -q --allow-empty -m x; git log -1",
    },
    Attack {
        name: "filter",
        plant: "echo '* filter=evil' > .gitattributes\ngit config filter.evil.clean \"touch $S 2>/dev/null; cat\"; git config filter.evil.smudge \"touch $S 2>/dev/null; cat\"",
        spring: "echo more >> README.md; git add -A; git checkout -q -f HEAD",
    },
    Attack {
        name: "diff",
        plant: "printf '* diff=evil\\n' > .gitattributes\ngit config diff.evil.textconv \"touch $S 2>/dev/null; cat\"; git config diff.external \"touch $S 2>/dev/null; true\"\necho more >> README.md; git add -A; git commit -qm more",
        spring: "git diff HEAD~; git log -p --ext-diff -2; git format-patch --stdout -1",
    },
    Attack {
        name: "ssh",
        plant: "git config core.sshCommand \"touch $S; false\"; git remote remove origin 2>/dev/null || true\ngit remote add origin ssh://nobody@127.0.0.1/nothing.git\ngit config credential.helper \"!touch $S\"",
        spring: "git fetch origin",
    },
    Attack {
        name: "submodule",
        plant: "printf '[submodule \"m\"]\\n\\tpath = m\\n\\turl = ./\\n' > .gitmodules; git add .gitmodules\ngit update-index --add --cacheinfo 160000,$(git rev-parse HEAD),m; git commit -qm module\ngit config submodule.recurse true; git config submodule.m.update \"!touch $S #\"",
        spring: "git -c protocol.file.allow=always submodule update --init",
    },
];

/// What 0.1.0 shipped, with two lines that keep what it saw.
const HOOKS: &str = r#"hooks:
  after_create: |
    git clone --quiet --local --no-tags --branch main "$PWD/../../.." .
    for remote in $(git remote); do git remote remove "$remote"; done
    git config user.name symphony-agent
    git config user.email agent@symphony.local
    git checkout --quiet -b "agent/$(basename "$PWD")"
  after_run: |
    id=$(basename "$PWD"); root=$PWD/../../..; branch=agent/$id
    mkdir -p "$root/out"
    [ -f "$root/issues/Done/$id.md" ] || exit 0
    git rev-parse --verify --quiet "refs/heads/$branch" || exit 0
    git status; git log -p -3 "$branch"; git diff main "$branch"
    base=$(git merge-base main "$branch")
    [ "$(git rev-list --count "$base..$branch")" -gt 0 ] || exit 0
    head -1 .git/symphony-runtime/mark_done.md | sed 's/^# //' > "$root/out/$id.title"
    git format-patch --stdout "$base..$branch" > "$root/out/agent_$id.patch"
    cp -a . "$root/out/workspace-$id"
"#;

fn all_run_and_none_reaches_the_host(project: &Project) {
    for attack in &ATTACKS {
        attack.works_in_a_plain_clone(project);
        attack.issue(project);
    }
    assert_eq!(project.once(), 0);
    for attack in &ATTACKS {
        let name = attack.name;
        attack.left_no_mark(project, "during the run");
        assert!(project.exists(&format!("issues/Done/{name}.md")), "{name} did not end");
        let clone = project.apply_patch(name);
        assert_eq!(std::fs::read_to_string(clone.join("work.txt")).expect("the work"), "work\n", "{name}");
        attack.left_no_mark(project, "when its patch was applied");
    }
}

#[test]
fn configuration_that_a_guest_plants_runs_nothing_on_the_host_and_its_work_arrives() {
    all_run_and_none_reaches_the_host(&Project::with(&hasty("")));
}

#[test]
fn nor_does_it_when_the_agents_branch_is_checked_out_on_the_host() {
    all_run_and_none_reaches_the_host(&Project::with(&hasty("workspace:\n  checkout: agent\n")));
}

#[test]
fn the_hooks_that_0_1_0_shipped_meet_the_done_file_and_the_claim_and_nothing_a_guest_planted() {
    let project = Project::with(&hasty(HOOKS));
    for attack in &ATTACKS {
        attack.issue(&project);
    }
    assert_eq!(project.once(), 0);
    for attack in &ATTACKS {
        let name = attack.name;
        attack.left_no_mark(&project, "in after_run");
        assert_eq!(project.read(&format!("out/{name}.title")), format!("The title of {name}\n"));
        let patch = project.read(&format!("out/agent_{name}.patch"));
        assert!(patch.contains("work.txt"), "{patch}");
        // Plain git, without the overrides that hooks have, in what the hook worked in.
        let workspace = project.dir().join(format!("out/workspace-{name}"));
        let keys = git(&workspace, &["config", "--local", "--name-only", "--list"]);
        for planted in ["fsmonitor", "hookspath", "gpg", "filter", "diff", "sshcommand", "submodule", "credential"] {
            assert!(!keys.contains(planted), "{name}: {keys}");
        }
        host_sh(&workspace, &format!("git checkout -q agent/{name}; {}", attack.spring));
        attack.left_no_mark(&project, "by git in the host workspace");
    }
}
