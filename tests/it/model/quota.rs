//! Providers that ask to wait, or take no credential: nothing more is asked, nothing fails, and all goes on by itself.

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;

use super::credentials::{FAR, log_in};
use super::server::Server;
use super::{BOTH, command, noted, project};
use crate::rig::{Project, until};

fn idle<'s>(state: &'s Value, name: &str) -> &'s Value {
    let rows = state["idle"].as_array().into_iter().flatten();
    rows.into_iter().find(|row| row["issue_identifier"] == name).unwrap_or(&Value::Null)
}

fn notes(project: &Project, name: &str) -> String {
    project.wait_for(&format!(".symphony/patches/agent_{name}.patch"));
    std::fs::read_to_string(project.apply_patch(name).join("notes.txt")).expect("notes")
}

#[test]
fn while_a_short_wait_lasts_requests_are_held_nothing_is_asked_and_no_timer_runs() {
    let server = Server::start();
    server.limit("/messages", 429, "retry-after: 20\r\n", usize::MAX);
    let project = project("turn() { ask stream; note asked; done_; }", &server, "");
    // Shorter than the wait: the limits of a silent agent must not count it.
    let workflow = project.read("WORKFLOW.md");
    let limits = "acp:\n  turn_timeout_ms: 12000\n  stall_timeout_ms: 12000\n";
    assert!(workflow.contains("acp:\n"), "{workflow}");
    project.write("WORKFLOW.md", &workflow.replacen("acp:\n", limits, 1));
    let names = ["A-1", "B-2", "C-3"];
    names.iter().for_each(|name| project.issue("Todo", name, "Ask."));
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    running.until_state("all three to be held", |state| {
        let rows = state["running"].as_array().expect("rows");
        rows.len() == 3 && rows.iter().all(|row| row["phase"] == "waiting for its model provider")
    });
    let refused = server.lift();
    assert!((1..=3).contains(&refused), "at most one for each that was under way: {refused}");
    for name in names {
        assert!(noted(&notes(&project, name), "asked").contains("HTTP/1.1 200"), "the agent saw a slow answer");
    }
    assert_eq!(server.asked().len(), refused + 3, "each was asked again once");
    assert_eq!(
        std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(),
        3,
        "no run ended over it"
    );
    assert!(running.log().contains("anthropic answered 429 to stream: nothing is asked for 20 s"), "{}", running.log());
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_longer_wait_ends_the_run_cleanly_and_it_goes_on_by_itself_while_other_providers_keep_going() {
    let server = Server::start();
    server.limit("/messages", 529, "retry-after: 30\r\n", usize::MAX);
    // An agent that goes on asking, as real ones do.
    let scenario = r#"sessions=resume
    turn() {
        case $prompt in
        *B-2*) model /openai/v1/chat/completions '{"model":"chat","stream":true,"messages":[]}'; note asked; done_; return ;;
        esac
        echo "at $past" >>work.txt
        for _ in 1 2 3 4 5; do ask stream; [[ $answer == HTTP/1.1\ 200* ]] && break; done
        [[ $answer == HTTP/1.1\ 200* ]] || { sleep 60; return; }
        note asked; done_
    }"#;
    let project = project(scenario, &server, "  hold_ms: 500\n");
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let state =
        running.until_state("the issue to wait", |state| idle(state, "A-1")["reason_code"] == "provider-paused");
    let row = idle(&state, "A-1");
    let why = row["reason"].as_str().expect("a reason");
    assert!(why.starts_with("anthropic asks to wait; resumes ") && why.ends_with(" UTC"), "{state}");
    let told = command(&project, &["explain", "A-1"], &[]).output().expect("runs").stdout;
    assert!(String::from_utf8_lossy(&told).contains(why), "{}", String::from_utf8_lossy(&told));
    let log = running.log();
    assert!(log.contains("reason=provider-paused") && !log.contains("agent-error"), "{log}");
    project.issue("Todo", "B-2", "Ask another.");
    assert!(noted(&notes(&project, "B-2"), "asked").contains("hello"), "the other provider answers");
    assert_eq!(server.lift(), 1, "five tries of the agent, one request");
    let notes = notes(&project, "A-1");
    assert!(noted(&notes, "asked").contains("HTTP/1.1 200"), "{notes}");
    let work = std::fs::read_to_string(project.beside("clone-A-1").join("work.txt")).expect("work");
    assert_eq!(work, "at 1\nat 2\n", "its work was taken, and its session went on");
    assert_eq!(std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count(), 3, "two of A, one of B");
    assert_eq!(server.asked().len(), 3);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_login_that_is_refused_stops_its_provider_until_it_is_another_one() {
    let server = Server::start();
    server.refuse("planted-old-login", || {});
    // One that goes on asking, and then ends its turn as if all were well, as some do.
    let scenario = r#"turn() {
        for _ in 1 2 3; do ask stream; [[ $answer == HTTP/1.1\ 200* ]] && { note asked; done_; return; }; done
    }"#;
    let project = project(scenario, &server, "");
    log_in(&project.beside("home"), "planted-old-login", FAR);
    let names = ["A-1", "B-2", "C-3"];
    names.iter().for_each(|name| project.issue("Todo", name, "Ask."));
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    let waits = |state: &Value| names.iter().all(|name| idle(state, name)["reason_code"] == "no-credential");
    let state = running.until_state("all three to wait", waits);
    assert!(state.to_string().contains("anthropic refuses the login of Claude Code"), "{state}");
    assert!((1..=3).contains(&server.asked().len()), "one for each at most: {:#?}", server.asked());
    let asked = server.asked().len();
    // Looks come and go, and one more issue is new.
    project.issue("Todo", "D-4", "Ask.");
    running.until_state("the new one to wait", |state| idle(state, "D-4")["reason_code"] == "no-credential");
    assert_eq!(server.asked().len(), asked);
    log_in(&project.beside("home"), "planted-new-login", FAR);
    for name in names {
        assert!(noted(&notes(&project, name), "asked").contains("HTTP/1.1 200"));
    }
    assert!(!project.dir().join("issues/Parked").exists(), "nobody was parked");
    assert_eq!(running.stop(), 0);
}

fn number(project: &Project, sql: &str) -> i64 {
    let db = Connection::open(project.dir().join(".symphony/journal.db")).expect("a journal");
    db.query_row(sql, [], |r| r.get(0)).expect("a number")
}

#[test]
fn a_pause_outlives_a_kill_and_the_next_process_asks_nothing_before_its_end() {
    let server = Server::start();
    server.limit("/messages", 429, "retry-after: 60\r\n", usize::MAX);
    let scenario =
        r#"turn() { ask stream; if [[ $answer == *"HTTP/1.1 200"* ]]; then note asked; done_; else sleep 60; fi; }"#;
    let project = project(scenario, &server, "  hold_ms: 500\n");
    project.issue("Todo", "A-1", "Ask.");
    let start = || project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let waits = |state: &Value| idle(state, "A-1")["reason_code"] == "provider-paused";
    let mut running = start();
    running.until_state("the issue to wait", waits);
    let asked = server.asked().len();
    assert_eq!(asked, 1);
    running.signal(Signal::KILL);
    assert!(running.killed());
    let kept = std::fs::read(project.dir().join(".symphony/journal.db")).expect("a journal");
    assert!(!String::from_utf8_lossy(&kept).contains(super::KEY), "the key itself is not kept");
    let running = start();
    let state = running.until_state("the issue to wait again", waits);
    let why = idle(&state, "A-1")["reason"].as_str().expect("a reason");
    assert!(why.starts_with("anthropic asks to wait; resumes "), "{state}");
    assert!(running.client().get("/").body.contains("asks to wait; resumes "), "the page says so too");
    assert_eq!(server.asked().len(), asked, "the next process asked again");
    server.lift();
    // By itself, when its time has come.
    assert!(noted(&notes(&project, "A-1"), "asked").contains("HTTP/1.1 200"));
    assert_eq!(server.asked().len(), asked + 1);
    assert_eq!(running.stop(), 0);
    assert_eq!(number(&project, "SELECT count(*) FROM standings"), 0, "the answer ended it");
    let report =
        symphony::journal::inspect::check(&project.dir().join(".symphony/journal.db"), None).expect("readable");
    assert_eq!(report.differences, Vec::<String>::new());
}

#[test]
fn a_refused_login_is_tried_once_after_a_start_whoever_waits_for_it() {
    let server = Server::start();
    server.refuse("planted-old-login", || {});
    let scenario = r#"turn() { ask stream; [[ $answer == *"HTTP/1.1 200"* ]] && { note asked; done_; }; }"#;
    let project = project(scenario, &server, "");
    log_in(&project.beside("home"), "planted-old-login", FAR);
    let names = ["A-1", "B-2", "C-3"];
    names.iter().for_each(|name| project.issue("Todo", name, "Ask."));
    let start = || project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    let waits = |state: &Value| names.iter().all(|name| idle(state, name)["reason_code"] == "no-credential");
    let mut running = start();
    running.until_state("all three to wait", waits);
    running.signal(Signal::KILL);
    assert!(running.killed());
    let asked = server.asked().len();
    let running = start();
    running.until_state("all three to wait again", waits);
    assert_eq!(server.asked().len(), asked + 1, "one of them tried it for all");
    log_in(&project.beside("home"), "planted-new-login", FAR);
    for name in names {
        assert!(noted(&notes(&project, name), "asked").contains("HTTP/1.1 200"));
    }
    assert_eq!(running.stop(), 0);
}

/// Regression: such an answer counted as cut: all that was set aside was charged for it, again and again, and its issue was
/// parked within seconds.
#[test]
fn an_error_within_a_stream_pauses_its_provider_as_its_status_would_and_costs_what_was_told() {
    let server = Server::start();
    server.break_off("/messages", "overloaded_error");
    // One that asks again at once, and one that ends its turn as if all were well.
    let scenario = r#"sessions=resume
    turn() {
        case $prompt in
        *A-1*) for _ in 1 2 3 4 5; do ask stream; [[ $answer == *message_stop* ]] && break; done ;;
        *) ask stream ;;
        esac
        if [[ $answer == *message_stop* ]]; then note asked; done_; fi
    }"#;
    let more = "  hold_ms: 500\nbudget:\n  failures_in_a_row: 1\n  no_progress: 1\n";
    let project = project(scenario, &server, more);
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let state =
        running.until_state("the issue to wait", |state| idle(state, "A-1")["reason_code"] == "provider-paused");
    assert_eq!(state["spend"]["ever"]["requests"], 1, "{state}");
    assert_eq!(state["spend"]["ever"]["total_tokens"], 211, "what was told, and no more: {state}");
    let log = running.log();
    assert!(log.contains("anthropic broke off its answer to stream with overloaded_error: it is broken off"), "{log}");
    project.issue("Todo", "B-2", "Ask.");
    running.until_state("both to have been sent away", |_| server.asked().len() >= 3);
    server.lift();
    for name in ["A-1", "B-2"] {
        assert!(noted(&notes(&project, name), "asked").contains("message_stop"));
    }
    assert!(!project.dir().join("issues/Parked").exists(), "nobody was parked: {}", running.log());
    assert!(!running.log().contains("agent-error"), "{}", running.log());
    assert_eq!(number(&project, "SELECT coalesce(sum(assumed), 0) FROM spend"), 0);
    assert_eq!(running.stop(), 0);
}

/// Each login has a limit of its own: with one alone, the waits would grow to minutes.
struct Logins {
    home: std::path::PathBuf,
    last: std::cell::Cell<i64>,
}

impl Logins {
    fn new(project: &Project) -> Self {
        let logins = Self { home: project.beside("home"), last: std::cell::Cell::new(-1) };
        logins.one_for(0);
        logins
    }

    /// A new one whenever this changes.
    fn one_for(&self, number: i64) {
        if self.last.replace(number) != number {
            log_in(&self.home, &format!("planted-login-{number}"), FAR);
        }
    }
}

/// Regression: an issue that is never answered went round for ever when its process ended now and then.
#[test]
fn how_often_an_issue_was_sent_away_while_others_were_answered_is_counted_over_a_kill() {
    let server = Server::start();
    server.limit_model("stream", 429, "retry-after: 1\r\n");
    // Another issue is answered with each login before this one asks.
    let scenario = r#"turn() {
        case $prompt in
        *B-2*) while :; do ask json; [[ $answer == *"HTTP/1.1 200"* ]] || return; sleep 0.1; done ;;
        esac
        sleep 0.7; ask stream; [[ $answer == *"HTTP/1.1 400"* ]] && exit 1; :
    }"#;
    let project = project(scenario, &server, "  hold_ms: 0\n");
    ["A-1", "B-2"].iter().for_each(|name| project.issue("Todo", name, "Ask."));
    let start = || project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    let logins = Logins::new(&project);
    let times = || {
        let times = number(&project, "SELECT coalesce(max(times), 0) FROM in_vain");
        logins.one_for(times);
        times
    };
    let mut running = start();
    until("it was sent away four times", || times() >= 4);
    running.signal(Signal::KILL);
    assert!(running.killed());
    let running = start();
    let failures = || number(&project, "SELECT coalesce(max(failures_in_a_row), 0) FROM counters");
    until("its agent is told of a failure", || times() > 0 && failures() > 0);
    assert_eq!(times(), 10);
    let asked = server.asked().iter().filter(|asked| asked.body["model"] == "stream").count();
    assert!(asked >= 11, "{asked} requests");
    assert_eq!(running.stop(), 0);
}

/// Regression: two hours of an overloaded provider cost an issue its first failures, and three had it parked.
#[test]
fn an_outage_in_which_nobody_is_answered_is_counted_against_no_issue() {
    let server = Server::start();
    server.limit("/messages", 529, "retry-after: 1\r\n", usize::MAX);
    let scenario = r#"turn() {
        ask stream; [[ $answer == *"HTTP/1.1 400"* ]] && exit 1
        if [[ $answer == *"HTTP/1.1 200"* ]]; then note asked; done_; fi
    }"#;
    let project = project(scenario, &server, "  hold_ms: 0\n");
    project.issue("Todo", "A-1", "Ask.");
    let logins = Logins::new(&project);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    until("it was sent away fourteen times", || {
        let asked = server.asked().len();
        logins.one_for(i64::try_from(asked).expect("few"));
        asked >= 14
    });
    assert_eq!(number(&project, "SELECT count(*) FROM in_vain"), 0);
    assert_eq!(number(&project, "SELECT coalesce(max(failures_in_a_row), 0) FROM counters"), 0);
    server.lift();
    assert!(noted(&notes(&project, "A-1"), "asked").contains("HTTP/1.1 200"));
    assert_eq!(running.stop(), 0);
}
