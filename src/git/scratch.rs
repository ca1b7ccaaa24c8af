//! git as tests run it: nobody's configuration, a fixed author.

use std::path::Path;
use std::process::Command;

/// Runs git in `dir` as this author: what it printed, or what it complained of.
pub(crate) fn try_git_as(author: &str, dir: &Path, args: &[&str]) -> Result<String, String> {
    let out = Command::new("git")
        .args(["-c", &format!("user.name={author}"), "-c", "user.email=guest@example.org"])
        .args(["-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
}

/// Runs git in `dir`; anything but success fails the test.
pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    try_git_as("Guest", dir, args).unwrap_or_else(|error| panic!("git {args:?}: {error}"))
}
