//! The command line and what a script sees of it: exit codes, messages, the one line with the port, the log format.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::{FRONT, Project};

/// Exit code and what was said on stderr.
fn refused(project: &Project, args: &[&str]) -> (i32, String) {
    let output = project.run(args);
    (output.status.code().expect("not killed"), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A start that must end with this code and these words.
#[track_caller]
fn ends(front: &str, args: &[&str], code: i32, words: &[&str]) {
    let (got, said) = refused(&Project::with(front), args);
    assert_eq!(got, code, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
}

/// `k=v` pairs of a log line; `None` when it is not one.
fn parsed(line: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = vec![];
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
        let (value, used) = if after.starts_with('"') {
            (values.next()?.ok()?, values.byte_offset())
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            (after[..end].to_owned(), end)
        };
        pairs.push((key.to_owned(), value));
        rest = after[used..].strip_prefix(' ').unwrap_or(&after[used..]);
        if key.is_empty() || key.contains(char::is_whitespace) {
            return None;
        }
    }
    Some(pairs)
}

#[test]
fn wrong_usage_and_an_unusable_workflow_are_2() {
    ends(FRONT, &["none.md"], 2, &["none.md", "No such file"]);
    ends(FRONT, &["--port", "x"], 2, &["--port"]);
    ends(FRONT, &["--port", "80abc"], 2, &["--port"]);
    ends(FRONT, &["--port"], 2, &["--port"]);
    ends(FRONT, &["WORKFLOW.md", "two.md"], 2, &["two.md"]);
    ends(FRONT, &["--frob"], 2, &["--frob"]);
    ends(FRONT, &["-x"], 2, &["-x"]);
    ends("acp: {adapter: script}\n", &[], 2, &["WORKFLOW.md:1:1:", "`tracker.kind` is missing", "kind: local"]);
    ends(&FRONT.replace("local", "linear"), &[], 2, &["WORKFLOW.md:3:3:", "`tracker.kind`", "local"]);
    ends(&format!("{FRONT}server: {{auth: none, host: 0.0.0.0}}\n"), &[], 2, &["`server.auth: none`", "loopback"]);
}

#[test]
fn a_start_that_fails_is_1_and_says_where() {
    ends(&format!("{FRONT}hooks: [1\n"), &[], 1, &["WORKFLOW.md:12:", "not valid YAML"]);
    ends("- a\n", &[], 1, &["WORKFLOW.md:2:1:", "must be a map"]);
    ends(
        &FRONT.replace("  kind: local\n", "  kind: local\n  root: ./nowhere\n"),
        &[],
        1,
        &["there is no issue directory", "mkdir -p", "nowhere/Todo"],
    );
    // A bind failure of 0.1.0, whose exit code is 1.
    ends(FRONT, &["--port", "70000"], 1, &["70000", "65535"]);
    ends(&format!("{FRONT}server: {{port: 70000}}\n"), &[], 1, &["WORKFLOW.md:12:", "`server.port`", "65535"]);
}

#[test]
fn a_problem_is_placed_in_the_file_that_has_it() {
    let project = Project::new();
    project.write("other.md", &format!("---\n{FRONT}server: {{port: 70000}}\n---\n"));
    let (code, said) = refused(&project, &["other.md"]);
    assert!(code == 1 && said.contains("other.md:12:") && !said.contains("WORKFLOW.md:"), "{said}");
}

#[test]
fn an_impossible_port_is_not_answered_with_a_default_of_minus_one() {
    let (_, said) = refused(&Project::with(&format!("{FRONT}server: {{port: -3}}\n")), &[]);
    assert!(said.contains("`server.port`") && !said.contains("-1"), "{said}");
}

#[test]
fn all_mistakes_of_a_workflow_are_said_at_once() {
    let front = "tracker: {kind: local}\nacp: {adapter: scrpt}\nhooks: {timeout_ms: 0}\nagent: {max_turns: -1}\n";
    ends(front, &[], 1, &[":3:16:", "`script`", ":4:21:", "hooks.timeout_ms", ":5:20:", "agent.max_turns"]);
}

#[test]
fn a_port_that_is_taken_is_1_and_nothing_ran() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("address").port().to_string();
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    let (code, said) = refused(&project, &["--once", "-p", &port]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&port) && said.to_lowercase().contains("in use"), "{said}");
    assert!(project.exists("issues/Todo/A-1.md"));
}

#[test]
fn help_is_0_and_on_stdout() {
    for flag in ["--help", "-h"] {
        let output = Project::new().run(&[flag]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        for word in ["WORKFLOW.md", "--port", "--once", "SYMPHONY_LOG_LEVEL"] {
            assert!(said.contains(word), "no {word} in {said}");
        }
    }
}

#[test]
fn both_signals_end_it_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let project = Project::new();
        let mut running = project.start_with(&[]);
        running.signal(signal);
        assert_eq!(running.code(), 0, "{signal:?}: {}", running.log());
    }
}

#[test]
fn the_bound_port_stands_on_one_line_that_a_script_can_read() {
    for args in [&["--port", "0"][..], &["--port=0"], &["-p", "0"], &["WORKFLOW.md", "-p0"]] {
        let running = Project::new().start_with(args);
        let log = running.log();
        let line = log.lines().find(|l| l.contains("msg=\"http server listening\"")).expect("the line");
        let port: u16 = line.rsplit_once(" port=").expect("a port").1.parse().expect("a number");
        assert!(port > 0 && running.client().address.ends_with(&format!(":{port}")), "{line}");
        assert_eq!(running.client().get("/healthz").status, 200);
    }
}

#[test]
fn the_flag_wins_over_the_workflow_s_port() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("address").port();
    let project = Project::with(&format!("{FRONT}server: {{port: {port}}}\n"));
    assert_eq!(project.run(&["--once", "--port", "0"]).status.code(), Some(0));
}

#[test]
fn every_line_on_stderr_is_a_log_line_and_none_holds_the_operator_token() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\necho \"a 'quoted' = text\"; echo x > x\n```");
    let output = project
        .command(&["--once", "--port", "0"])
        .env("SYMPHONY_LOG_LEVEL", "debug")
        .stdin(Stdio::null())
        .output()
        .expect("starts");
    assert_eq!(output.status.code(), Some(0));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let (mut levels, mut sessions, mut about_issue) = (vec![], vec![], 0);
    for line in err.lines() {
        let pairs = parsed(line).unwrap_or_else(|| panic!("not a log line: {line}"));
        let keys: Vec<&str> = pairs.iter().take(3).map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["ts", "level", "msg"], "{line}");
        assert!(pairs[0].1.len() == 24 && pairs[0].1.ends_with('Z'), "{line}");
        let value = |key: &str| pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        assert_eq!(value("issue_id"), value("issue_identifier"), "both or neither: {line}");
        about_issue += usize::from(value("issue_identifier") == Some("A-1"));
        sessions.extend(value("session_id").map(str::to_owned));
        levels.push(pairs[1].1.clone());
    }
    assert!(levels.iter().all(|level| ["debug", "info", "warn", "error"].contains(&level.as_str())), "{levels:?}");
    assert!(about_issue > 3, "no line about the issue names it: {err}");
    assert_eq!(sessions, ["script-1", "script-1"], "a session's start and end name it: {err}");
    let (_, token) = out.split_once("token=").expect("the login link is on stdout");
    let token = token.split_whitespace().next().expect("a token");
    assert!(token.len() >= 32 && !err.contains(token));
    let stored = project.read(".symphony/operator-token");
    assert!(!err.contains(stored.trim()));
}

#[test]
fn the_log_level_is_honoured() {
    let project = Project::new();
    let said = |level: &str| {
        let output = project.command(&["--once"]).env("SYMPHONY_LOG_LEVEL", level).stdin(Stdio::null()).output();
        String::from_utf8_lossy(&output.expect("starts").stderr).into_owned()
    };
    assert!(said("info").contains("symphony started"));
    assert_eq!(said("error"), "");
    assert!(said("nonsense").contains("symphony started"), "what is not known is info");
}

#[test]
fn a_path_elsewhere_is_taken_with_its_own_directory() {
    let project = Project::new();
    let elsewhere = project.beside("elsewhere");
    std::fs::create_dir(&elsewhere).expect("directory");
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    let workflow = project.dir().join("WORKFLOW.md");
    let mut command = project.command(&[workflow.to_str().expect("utf-8"), "--once"]);
    let output = command.current_dir(&elsewhere).stdin(Stdio::null()).output().expect("starts");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(project.exists("issues/Done/A-1.md"), "relative paths start at the workflow's directory");
    assert_eq!(std::fs::read_dir(&elsewhere).expect("read").count(), 0, "and nothing is left where it was started");
}

#[test]
fn a_second_program_on_the_same_workflow_is_1() {
    let project = Project::new();
    let running = project.start();
    let (code, said) = refused(&project, &["--once"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&running.pid().to_string()), "it says who holds it: {said}");
}

#[test]
fn open_to_this_machine_is_allowed_when_it_is_said() {
    let project = Project::with(&format!("{FRONT}server: {{auth: none, port: 0}}\n"));
    let running = project.start_with(&[]);
    let log = running.log();
    let line = log.lines().find(|l| l.contains("http server listening")).expect("the line");
    let port = line.rsplit_once(" port=").expect("a port").1;
    let client = crate::http::Client { address: format!("127.0.0.1:{port}"), bearer: None };
    assert_ne!(client.get("/api/v1/state").json()["running"], Value::Null);
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let mut command = project.command(&["--once", "--port", "0"]);
    let status = command.stdin(Stdio::null()).stdout(full()).stderr(full()).status().expect("starts");
    assert_eq!(status.code(), Some(0));
    assert!(project.exists("issues/Done/A-1.md"));
}

/// Regression: `symphony status` could not read the workflow file `…/status`.
#[test]
fn a_word_that_is_no_command_and_no_file_is_said_to_be_none() {
    for word in ["help", "run", "status", "init"] {
        ends(FRONT, &[word], 2, &[&format!("there is no command `{word}`; see --help")]);
    }
    for path in ["./status", "status.md", "dir/status"] {
        ends(FRONT, &[path], 2, &["cannot read the workflow file", "status"]);
    }
    let project = Project::new();
    project.write("status", "- a\n");
    let (code, said) = refused(&project, &["status"]);
    assert!(code != 0 && said.contains("status:1:1"), "a file of that name is a workflow: {said}");
}

#[test]
fn commands_without_a_workflow_file_say_so_and_name_it_alike() {
    let project = Project::new();
    std::fs::create_dir(project.dir().join("empty")).expect("made");
    for command in [&["explain"][..], &["explain", "A-1"], &["say", "A-1", "x"]] {
        let (code, said) = refused(&project, &[command, &["--workflow", "empty/WORKFLOW.md"]].concat());
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("there is no workflow file at") && !said.contains("start one"), "{said}");
    }
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    assert_eq!(project.once(), 0);
    for command in [&["gc", "--dry-run"][..], &["journal", "check"]] {
        for whose in [&["--workflow", "WORKFLOW.md"][..], &["WORKFLOW.md"], &[]] {
            let output = project.run(&[command, whose].concat());
            assert_eq!(output.status.code(), Some(0), "{command:?} {whose:?}: {output:?}");
        }
        let both = [command, &["a.md", "--workflow", "b.md"]].concat();
        assert_eq!(refused(&project, &both).0, 2, "{both:?}");
    }
    let help = project.run(&["gc", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes: 0 done; 1 nothing was removed"));
    let (code, said) = refused(&project, &["doctor", "--agent", "command"]);
    assert!(code == 2 && said.contains("acp.command is missing"), "{said}");
}

/// Regression: both were only in the log, and the second not even there.
#[test]
fn warnings_of_the_workflow_and_its_directories_stand_on_the_banner() {
    let project = Project::with(&FRONT.replace("[Todo, In Progress]", "[Tood]").replace("acp:", "acpp: 1\nacp:"));
    let output = project.run(&["--once"]);
    let said = String::from_utf8_lossy(&output.stdout);
    for words in
        ["  attention  WORKFLOW.md:", "unknown key `acpp`", "  attention  the active state `Tood` has no directory"]
    {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
}

#[test]
fn outside_git_the_banner_says_that_work_starts_from_nothing_and_a_tar_is_what_one_takes() {
    let project = Project::new();
    std::fs::remove_dir_all(project.dir().join(".git")).expect("removed");
    project.issue("Todo", "A-1", "```sh\necho work > work.txt\n```");
    let output = project.run(&["--once"]);
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(
        said.contains("  work from  nothing: ") && said.contains("hooks.after_create can put files there"),
        "{said}"
    );
    assert!(said.contains("unpack agent_<issue>.tar") && !said.contains("git am"), "{said}");
    let tar = project.dir().join(".symphony/patches/agent_A-1.tar");
    assert!(log.contains(&format!("tar -xf {}", tar.display())) && !log.contains("git am"), "{log}");
    assert!(tar.exists());
}

/// Regression: each run failed with `has no commit HEAD`, was tried again, and the issue was parked.
#[test]
fn in_a_repository_without_commits_nothing_starts_until_there_is_one_and_no_failure_is_counted() {
    let project = Project::new();
    let git_dir = project.dir().join(".git");
    std::fs::remove_dir_all(&git_dir).expect("removed");
    crate::rig::git(&project.dir(), &["init", "-q", "-b", "main"]);
    project.issue("Todo", "A-1", "```sh\necho work > work.txt\n```");
    let running = project.start();
    let state = running.until_state("the reason", |state| state["idle"][0]["reason_code"] == "no-source");
    assert!(state["idle"][0]["reason"].to_string().contains("has no commit `HEAD`; commit something"), "{state}");
    assert!(running.log().contains("  attention  "), "{}", running.log());
    crate::rig::git(&project.dir(), &["add", "-A"]);
    crate::rig::git(&project.dir(), &["commit", "-q", "-m", "Begin"]);
    project.wait_for("issues/Done/A-1.md");
    let runs = std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count();
    assert_eq!(runs, 1, "the first run was the only one");
    assert_eq!(running.stop(), 0);
}
