//! `symphony explain`: the same sentence as the API's, for every way of not running.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::rig::{FRONT, Project, Running, until};

/// Exit code, stdout and stderr of `symphony explain`.
fn explain(project: &Project, args: &[&str]) -> (i32, String, String) {
    let output = project.run(&[&["explain"], args].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

fn answered(project: &Project, args: &[&str]) -> String {
    let (code, out, err) = explain(project, args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    out
}

/// The row of an issue that does not run.
fn row(state: &Value, identifier: &str) -> Option<Value> {
    let rows = ["idle", "retrying"].into_iter().flat_map(|kind| state[kind].as_array().cloned().unwrap_or_default());
    rows.into_iter().find(|row| row["issue_identifier"] == identifier)
}

/// Waits until the API gives this reason, and checks that the command says the same sentence.
#[track_caller]
fn says(project: &Project, running: &Running, identifier: &str, code: &str, words: &str) -> String {
    let state = running.until_state(&format!("{identifier} to be {code}"), |state| {
        row(state, identifier).is_some_and(|row| row["reason_code"] == code)
    });
    let reason = row(&state, identifier).expect("a row")["reason"].as_str().expect("a sentence").to_owned();
    assert!(reason.contains(words), "{reason}");
    let said = answered(project, &[identifier]);
    assert!(said.lines().any(|line| line.trim_start() == format!("why       {reason}")), "no {reason:?} in {said}");
    said
}

fn sockets(project: &Project) -> Vec<PathBuf> {
    let dir = std::fs::read_dir(project.runtime_dir().join("symphony")).expect("the directory");
    dir.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn every_reason_of_an_issue_that_waits_is_the_same_sentence_everywhere() {
    let project = Project::with(&FRONT.replace("kind: local\n", "kind: local\n  required_labels: [go]\n"));
    let issue = |name: &str, more: &str| {
        project.write(&format!("issues/Todo/{name}.md"), &format!("---\nlabels: [go]\n{more}---\n```sh\ntrue\n```\n"));
    };
    issue("BLOCKED", "blocked_by: [HELD]\n");
    issue("ROUND-1", "blocked_by: [ROUND-2]\n");
    issue("ROUND-2", "blocked_by: [ROUND-1]\n");
    issue("LOST", "blocked_by: [NO-9]\n");
    issue("STAYS", "hold: true\n");
    issue("GIVEN-UP", "blocked_by: [OLD]\n");
    project.issue("Cancelled", "OLD", "");
    project.issue("Todo", "UNLABELLED", "```sh\ntrue\n```");
    project.issue("Backlog", "HELD", "```sh\ntrue\n```");
    project.write("issues/Todo/BAD.md", "---\ntitle: ok\nlabels: [half saved\n---\n");
    project.issue("Todo", "TWICE", "x");
    project.issue("In Progress", "TWICE", "y");
    let running = project.start();

    let blocked = says(&project, &running, "BLOCKED", "blocked", "blocked by HELD, which is in Backlog");
    assert!(blocked.contains("HELD: nobody works in this state"), "{blocked}");
    assert!(blocked.contains("next      Finish HELD first"), "{blocked}");
    says(&project, &running, "ROUND-1", "blocker-cycle", "ROUND-1 → ROUND-2 → ROUND-1");
    says(&project, &running, "LOST", "unknown-blocker", "NO-9, which does not exist");
    says(&project, &running, "STAYS", "on-hold", "hold: true");
    says(&project, &running, "GIVEN-UP", "blocker-cancelled", "OLD, which was cancelled");
    says(&project, &running, "UNLABELLED", "missing-label", "`go`");
    says(&project, &running, "HELD", "holding", "nobody works in this state");
    says(&project, &running, "OLD", "terminal", "finished");

    let malformed = running.state()["tracker"]["malformed"][0].clone();
    let place = format!("Todo/BAD.md:{}:{}", malformed["line"], malformed["column"]);
    for name in ["BAD", "Todo/BAD.md"] {
        let bad = answered(&project, &[name]);
        assert!(bad.contains(&place) && bad.contains("status    malformed"), "no {place} in {bad}");
    }
    let twice = answered(&project, &["TWICE"]);
    assert!(twice.contains("file      Todo/TWICE.md") && twice.contains("file      In Progress/TWICE.md"), "{twice}");

    let all = answered(&project, &[]);
    let mut rest = all.as_str();
    for next in ["needs you (6)", &place, "TWICE", "LOST", "waiting (3)", "BLOCKED", "holding (1)", "HELD", "done (1)"]
    {
        let at = rest.find(next).unwrap_or_else(|| panic!("`{next}` is missing, or not after the one before: {all}"));
        rest = &rest[at..];
    }
    assert!(!all.contains("OLD  "), "what is finished is counted only: {all}");

    assert_eq!(running.state()["counts"]["blocked"], 6, "as many as the command line lists");
    let header = running.client().get("/api/v1/partials/header").body;
    assert!(header.contains("6 need you") && header.contains("badge attention"), "{header}");

    let detail = running.client().get("/api/v1/issues/BLOCKED").json();
    let json: Value = serde_json::from_str(&answered(&project, &["BLOCKED", "--json"])).expect("JSON");
    assert_eq!(json["issues"][0], detail["explanation"]);
    assert_eq!(running.client().get("/api/v1/BLOCKED").status, 404, "0.1.0 knows of claimed ones only");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_failing_one_says_when_it_is_due_how_it_ended_and_what_is_left() {
    let project = Project::with(&FRONT.replace("max_retry_backoff_ms: 300\n", "max_retry_backoff_ms: 300000\n"));
    project.issue("Todo", "FAIL-1", "```sh\necho broken; exit 3\n```");
    let running = project.start();
    let said = says(&project, &running, "FAIL-1", "backing-off", "waits for its next attempt");
    let state = running.state();
    let row = row(&state, "FAIL-1").expect("retrying");
    let due = row["due_at"].as_str().expect("an instant");
    assert!(said.contains(&format!("due       {}Z (in ", &due[..19])), "no {due} in {said}");
    let end = &row["last_end"];
    let (reason, message) = (end["reason"].as_str().expect("a word"), end["message"].as_str().expect("a line"));
    assert!(said.contains(&format!("last run  {reason}: {message}")), "no {end} in {said}");
    assert!(said.contains("sessions 1 of 10") && said.contains("failures in a row 1 of 5"), "{said}");
    let page = running.client().get("/api/v1/partials/disk").body;
    assert!(page.contains("waits for its next attempt") && page.contains(reason), "{page}");
}

#[test]
fn a_parked_one_says_what_to_do_and_its_words_are_no_instructions_to_a_terminal() {
    let project = Project::with(&format!("{FRONT}budget: {{failures_in_a_row: 1}}\n"));
    let title = "title: \"an \\e[31mevil \\x9b2J title\"\n";
    project.write("issues/Todo/PARK-1.md", &format!("---\n{title}---\n```sh\nprintf 'a\\033[2Jb'; exit 3\n```\n"));
    let running = project.start();
    let state = running.until_state("the parking", |s| {
        row(s, "PARK-1").is_some_and(|row| row["reason_code"] == "parked" && row["state"] == "Parked")
    });
    let remedy = row(&state, "PARK-1").expect("a row")["remedy"].as_str().expect("a remedy").to_owned();
    let said = says(&project, &running, "PARK-1", "parked", "a run failed");
    assert!(remedy.contains("`Todo/`") && said.contains(&remedy), "{said}");
    for out in [said, answered(&project, &["PARK-1", "--json"]), answered(&project, &[])] {
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
    }
    assert!(answered(&project, &["PARK-1"]).contains("\\u001b[31mevil \\u009b2J"));
    let page = running.client().get("/api/v1/partials/attention").body;
    assert!(page.contains("that grants a new allowance of runs"), "{page}");
}

#[test]
fn a_run_is_told_by_its_phase_and_a_full_house_by_its_slots() {
    let front = FRONT.replace("agent:\n", "agent:\n  max_concurrent_agents: 1\n");
    let project = Project::with(&front);
    project.write("issues/Todo/ASK-1.md", "---\npriority: 1\n---\n```sh\necho 'Which way?'; exit 75\n```\n");
    project.issue("Todo", "LATER", "```sh\ntrue\n```");
    let running = project.start();
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == true);
    says(&project, &running, "LATER", "no-slot", "all 1 slots are taken");
    let asking = answered(&project, &["ASK-1"]);
    assert!(asking.contains("status    asking") && asking.contains("asks      Which way?"), "{asking}");
    assert!(asking.contains("next      Answer"), "{asking}");
    let all = answered(&project, &[]);
    assert!(all.contains("needs you (1)\n  ASK-1") && all.contains("turn 1: Which way?"), "{all}");
}

/// Regression: where the patch is was known only to the process that wrote it.
#[test]
fn a_finished_issue_names_its_patch_while_that_is_there_also_after_a_restart() {
    let project = Project::new();
    project.issue("Todo", "A-1", "```sh\necho new >new.txt\n```");
    let running = project.start();
    project.wait_for("issues/Done/A-1.md");
    let patch = project.dir().join(".symphony/patches/agent_A-1.patch");
    let command = format!("git am {}", patch.display());
    let line = format!("patch     {command}");
    until("the patch to be told", || answered(&project, &["A-1"]).contains(&line));
    assert_eq!(running.stop(), 0);

    let running = project.start();
    running.until_state("the issues to be read", |state| row(state, "A-1").is_some());
    until("the patch to be told again", || answered(&project, &["A-1"]).contains(&line));
    let page = running.client().get("/api/v1/partials/disk").body;
    assert!(page.contains("done (1)") && page.contains(&command), "{page}");
    assert_eq!(row(&running.state(), "A-1").expect("a row")["patch"], patch.display().to_string());
    std::fs::remove_file(&patch).expect("removed");
    running.post("/api/v1/refresh", &serde_json::json!({}));
    until("it to be gone", || !answered(&project, &["A-1"]).contains("git am"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_broken_workflow_holds_every_issue_and_names_its_place() {
    let project = Project::new();
    project.issue("Backlog", "A-1", "```sh\ntrue\n```");
    let running = project.start();
    let whole = project.read("WORKFLOW.md");
    project.write("WORKFLOW.md", &whole.replace("interval_ms: 300", "interval_ms: -5"));
    running.until_state("the broken workflow", |s| s["workflow"]["valid"] == false);
    std::fs::rename(project.dir().join("issues/Backlog/A-1.md"), project.dir().join("issues/Todo/A-1.md"))
        .expect("moved");
    let said = says(&project, &running, "A-1", "workflow-broken", "the workflow file has errors");
    let problem = running.state()["workflow"]["problems"][0].as_str().expect("a problem").to_owned();
    assert!(problem.starts_with("WORKFLOW.md:7:") && said.contains(&problem), "no {problem:?} in {said}");
    let all = answered(&project, &[]);
    assert!(all.starts_with("needs you (1)\n  WORKFLOW.md  broken") && all.contains(&problem), "{all}");
    let header = running.client().get("/api/v1/partials/header").body;
    assert!(header.contains("1 needs you") && header.contains("badge attention"), "{header}");
}

#[test]
fn when_nobody_runs_it_says_how_to_start_one_and_an_unknown_issue_is_2() {
    let project = Project::new();
    let (code, out, said) = explain(&project, &["A-1"]);
    assert_eq!((code, out.as_str()), (1, ""));
    let path = project.dir().join("WORKFLOW.md");
    assert!(said.contains(&format!("no symphony runs on {}", path.display())), "{said}");
    assert!(said.contains(&format!("start one: symphony {}", path.display())), "{said}");

    project.issue("Backlog", "Feature-12", "x");
    let running = project.start();
    running.until_state("the issue", |s| row(s, "Feature-12").is_some());
    let (code, out, said) = explain(&project, &["Faeture-12"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        said.contains("no issue, file or name `Faeture-12`") && said.contains("did you mean Feature-12?"),
        "{said}"
    );
    assert!(answered(&project, &["feature-12"]).starts_with("Feature-12"), "its case does not matter when it is one");
    for wrong in [&["A", "B"][..], &["--frob"], &["A", "--port", "1"], &["--workflow", "no/such/place/W.md"]] {
        assert_eq!(explain(&project, wrong).0, 2, "{wrong:?}");
    }
    let other = project.beside("other");
    std::fs::create_dir(&other).expect("directory");
    let output = project.command(&["explain"]).env("XDG_RUNTIME_DIR", &other).output().expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("(process {})", running.pid())) && said.contains("XDG_RUNTIME_DIR"), "{said}");
    project.write("second.md", "another workflow");
    let (code, _, said) = explain(&project, &["--workflow", "second.md"]);
    assert!(code == 1 && said.contains("second.md") && said.contains("runs") && said.contains("WORKFLOW.md"), "{said}");
    let elsewhere = project.beside("elsewhere");
    std::fs::create_dir(&elsewhere).expect("directory");
    std::os::unix::fs::symlink(project.dir(), elsewhere.join("link")).expect("link");
    for workflow in ["link/WORKFLOW.md", "link"] {
        let mut command = project.command(&["explain", "Feature-12", "--workflow", workflow]);
        let output = command.current_dir(&elsewhere).output().expect("starts");
        assert_eq!(output.status.code(), Some(0), "the workflow decides, not where one stands: {workflow}");
    }
}

#[test]
fn the_socket_is_private_and_goes_with_its_symphony_however_that_ends() {
    let project = Project::new();
    let dir = project.runtime_dir().join("symphony");
    let running = project.start();
    let socket = sockets(&project);
    assert_eq!(socket.len(), 1);
    let mode = std::fs::metadata(&dir).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(running.stop(), 0);
    assert_eq!(sockets(&project), Vec::<PathBuf>::new());
    assert!(dir.exists(), "other workflows may use it");
    // Killed, it leaves its socket; the next one takes its place.
    drop(project.start());
    assert_eq!(sockets(&project), socket);
    assert_eq!(explain(&project, &[]).0, 1);
    let _running = project.start();
    assert_eq!(answered(&project, &[]), "no issues\n");
}

#[test]
fn a_directory_that_is_not_ours_alone_is_said_and_no_reason_not_to_work() {
    let project = Project::new();
    let dir = project.runtime_dir().join("symphony");
    let elsewhere = project.beside("planted");
    std::fs::create_dir(&elsewhere).expect("directory");
    std::os::unix::fs::symlink(&elsewhere, &dir).expect("link");
    project.issue("Todo", "A-1", "```sh\ntrue\n```");
    let running = project.start();
    project.wait_for("issues/Done/A-1.md");
    let log = running.log();
    let line = log.lines().find(|line| line.contains("no socket for local commands")).expect("a warning");
    assert!(line.contains("level=warn") && line.contains("hint"), "{line}");
    assert_eq!(std::fs::read_dir(&elsewhere).expect("read").count(), 0, "no link was followed");
    let (code, _, said) = explain(&project, &["A-1"]);
    assert!(code == 1 && said.contains("is not a directory"), "{said}");
    std::fs::remove_file(&dir).expect("removed");
    until("the end", || running.log().contains("symphony started"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_workflow_that_is_called_like_the_command_needs_a_path() {
    let project = Project::new();
    project.write("explain", &project.read("WORKFLOW.md"));
    let output = project.run(&["./explain", "--once"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(project.run(&["explain"]).status.code(), Some(1), "without one it is the command");
    let help = project.run(&["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("symphony ./explain"));
}

/// Regression: `blocked-by`, `prioriti` and `priority: high` counted for nothing without a word, and all ran at once.
#[test]
fn keys_that_nobody_knows_are_told_and_one_that_may_mean_a_blocker_holds_its_issue() {
    let project = Project::new();
    project.write("issues/Todo/HELD.md", "---\nblocked-by: [OTHER]\n---\n```sh\ntrue\n```\n");
    project.write("issues/Todo/ODD.md", "---\nprioriti: 1\npriority: high\nhold: true\n---\n```sh\ntrue\n```\n");
    project.write("issues/Todo/RUNS.md", "---\nowner: ann\n---\n```sh\ntrue\n```\n");
    let running = project.start();
    let words = "unknown key `blocked-by` (did you mean `blocked_by`?)";
    let held = says(&project, &running, "HELD", "doubtful-key", words);
    assert!(held.contains("Todo/HELD.md:2:1: unknown key") && held.contains("next      Correct that key"), "{held}");
    let odd = answered(&project, &["ODD"]);
    for remark in [
        "Todo/ODD.md:2:1: unknown key `prioriti` (did you mean `priority`?)",
        "Todo/ODD.md:3:11: `priority` is not a whole number",
    ] {
        assert!(odd.contains(remark) && running.log().contains(remark), "no {remark:?} in {odd} or {}", running.log());
        assert!(running.state()["tracker"]["warnings"].to_string().contains(remark));
        assert!(running.client().get("/").body.contains("did you mean"), "the page");
    }
    // A key of another tool's stops nothing.
    project.wait_for("issues/Done/RUNS.md");
    let text = project.read("issues/Todo/HELD.md").replace("blocked-by: [OTHER]\n", "");
    project.write("issues/Todo/HELD.md", &text);
    project.wait_for("issues/Done/HELD.md");
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_file_that_stands_in_no_state_is_told_to_who_asks_for_it() {
    let project = Project::new();
    project.write("issues/Stray.md", "text\n");
    let running = project.start();
    until("the warning", || running.log().contains("`Stray.md` stands beside the state directories"));
    running.until_state("the warning", |state| state["workflow"]["warnings"].to_string().contains("Stray.md"));
    let output = project.run(&["explain", "Stray"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("move it into one"), "{said}");
    assert_eq!(running.stop(), 0);
}
