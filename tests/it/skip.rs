//! What a test says that cannot run here. A test that passes is silent, so what it prints with the usual macros nobody ever
//! sees; this goes to standard error itself, and `scripts/test` counts it.

use std::fmt::Display;
use std::io::Write as _;

/// The test did not run: here is why.
pub(crate) fn skip(reason: impl Display) {
    say("skipped", &reason);
}

/// A part of it did not.
pub(crate) fn skip_part(reason: impl Display) {
    say("skipped in part", &reason);
}

/// What a child said that ran the same test once more, as `whom`.
pub(crate) fn pass_on(whom: &str, stderr: &str) {
    for line in stderr.lines().filter(|line| line.starts_with("skipped")) {
        let reason = line.split_once(": ").map_or(line, |(_, reason)| reason);
        let reason = reason.rsplit_once(" [").map_or(reason, |(reason, _)| reason);
        skip_part(format_args!("{whom}: {reason}"));
    }
}

fn say(word: &str, reason: &dyn Display) {
    let reason = reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let thread = std::thread::current();
    // In one piece: tests run beside each other.
    let line = format!("{word}: {reason} [{}]\n", thread.name().unwrap_or("some test"));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Regression: the words were printed where the test harness keeps them to itself, and nobody saw that a test had not run.
#[test]
fn a_skipped_test_says_so_on_standard_error_although_it_passes() {
    const ONCE: &str = "SYMPHONY_TEST_SKIPS";
    if std::env::var_os(ONCE).is_some() {
        return skip("to be\nseen");
    }
    let name = "skip::a_skipped_test_says_so_on_standard_error_although_it_passes";
    let output = std::process::Command::new("/proc/self/exe").args([name, "--exact"]).env(ONCE, "1").output();
    let output = output.expect("the test program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains(&format!("skipped: to be seen [{name}]\n")), "{said}");
}

/// Regression: a suite that did not run, or in which every test skipped, was reported as passed.
#[test]
fn a_suite_that_did_not_run_is_reported_skipped_and_every_reason_is_listed() {
    let script = format!("{}/scripts/test", env!("CARGO_MANIFEST_DIR"));
    let trial = r#"
        eval "$(sed -n '/^failed=()/,/^}$/p' "$1")"
        some() { printf 'test x ... skipped: no thing [a::b]\nok\nskipped in part: half [a::c]\ntest result: ok. 3 passed; 0 failed\n'; }
        absent() { echo 'skipped: no browser'; return "$NOT_RUN"; }
        every() { printf 'skipped: no [a::b]\nskipped: no [a::c]\ntest result: ok. 2 passed; 0 failed\n'; }
        good() { echo 'test result: ok. 2 passed; 0 failed'; }
        bad() { return 101; }
        none() { echo 'test result: ok. 0 passed; 0 failed'; }
        liar() { printf 'skipped: x [a::b]\ntest result: FAILED. 1 passed; 1 failed\n'; return "$NOT_RUN"; }
        nul() { printf '\0skipped: no [a::b]\ntest result: ok. 1 passed; 0 failed\n'; }
        for name in some absent every good bad none liar nul; do suite "$name" 1 "$name" >/dev/null; done
        printf '%s\n' "${report[@]}" "${skipped[@]}" "failed: ${failed[*]}"
    "#;
    let output = std::process::Command::new("bash").args(["-uc", trial, "bash", &script]).output().expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let outcome = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
        line.rsplit_once(" s  ").map(|(_, outcome)| outcome.to_owned()).unwrap_or_default()
    };
    let outcomes = ["some", "absent", "every", "good", "bad", "none", "liar", "nul"].map(outcome);
    let wanted = ["passed, 2 skipped", "skipped", "skipped", "passed", "FAILED", "FAILED", "FAILED", "skipped"];
    assert_eq!(outcomes, wanted, "{said}");
    for line in ["some: skipped: no thing [a::b]", "some: skipped in part: half [a::c]", "absent: skipped: no browser"]
    {
        assert!(said.lines().any(|listed| listed == line), "{said}");
    }
    assert!(said.ends_with("failed: bad none liar\n"), "{said}");
}
