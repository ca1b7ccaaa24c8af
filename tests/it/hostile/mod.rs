//! A guest that means harm. The `sh` blocks of an issue are the attacker, the real binary is the host,
//! and every attack is first shown to work where nothing stops it.

mod claim;
mod forgery;
mod git_config;
mod git_objects;
mod machine;
mod reach;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::rig::{FRONT, Project, git};

/// One thing to try.
struct Attack {
    /// The issue's name.
    name: &'static str,
    /// What the guest does in its work tree. `$S` is the file that must not come to exist.
    plant: &'static str,
    /// What somebody innocent does in that tree afterwards, which springs the trap.
    spring: &'static str,
}

impl Attack {
    fn sentinel(&self, project: &Project) -> PathBuf {
        project.beside(&format!("sentinel-{}", self.name))
    }

    /// The attack as an issue: plant it, then do a little work.
    fn issue(&self, project: &Project) {
        let sentinel = self.sentinel(project);
        let body = format!("```sh\nS={}\n{}\necho work > work.txt\n```", sentinel.display(), self.plant);
        project.issue("Todo", self.name, &body);
    }

    /// Shows that the attack works on a host that lets it: sprung in a plain clone, it leaves its mark.
    fn works_in_a_plain_clone(&self, project: &Project) {
        let clone = project.beside(&format!("control-{}", self.name));
        let source = project.dir();
        git(&source, &["clone", "-q", ".", clone.to_str().expect("utf-8")]);
        let sentinel = self.sentinel(project);
        host_sh(&clone, &format!("S={}\n{}", sentinel.display(), self.plant));
        host_sh(&clone, self.spring);
        assert!(sentinel.exists(), "{}: this attack does not even work without a defence", self.name);
        std::fs::remove_file(&sentinel).expect("removed");
    }

    fn left_no_mark(&self, project: &Project, after: &str) {
        assert!(!self.sentinel(project).exists(), "{} ran on the host: {after}", self.name);
    }
}

/// A script on the host, with git as a person has it. What it says and how it ends does not matter here.
fn host_sh(dir: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir).stdin(Stdio::null());
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Tester"),
        ("GIT_AUTHOR_EMAIL", "tester@example.org"),
        ("GIT_COMMITTER_NAME", "Tester"),
        ("GIT_COMMITTER_EMAIL", "tester@example.org"),
    ] {
        command.env(name, value);
    }
    let output = command.output().expect("sh");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Two failures park, and further front matter.
fn hasty(more: &str) -> String {
    format!("{FRONT}budget:\n  failures_in_a_row: 2\n{more}")
}
