//! Real agents at a provider that fails: what each makes of it, and that its issue is done in the end or waits with the
//! right word, without a storm of requests.

use std::time::{Duration, Instant};

use super::{ALL, Agent, CLAUDE, CODEX, GEMINI, OPENCODE, ended, figure, jail, project};
use crate::model::server::{Fault, Server};
use crate::model::{KEY, command};
use crate::rig::{Project, Running};

/// A silent agent is given up sooner than usual.
const LIMITS: &str = "  turn_timeout_ms: 20000\n";
const MORE: &str = "budget:\n  failures_in_a_row: 2\n  no_progress: 2\n";

/// Requests for a title, or to see whether the provider is there: an agent makes them or not, as it comes.
const ASIDE: usize = 2;

/// The most requests of two runs that are all answered with an error.
const PATIENCE: usize = 16;

struct Case {
    name: &'static str,
    fault: Fault,
    /// So many requests are spoilt.
    times: usize,
    /// The log must say it.
    says: &'static str,
    /// The most runs that its issue may take, and the most requests beyond those of an issue where nothing goes wrong.
    most: (usize, usize),
}

/// Faults that pass. Every issue is done in the end.
const PASSING: [Case; 7] = [
    Case { name: "error 500, once", fault: Fault::Refusal(500, ""), times: 1, says: "answered 500", most: (1, 1) },
    Case { name: "a hang", fault: Fault::Hang, times: 1, says: "reason=timeout-silence", most: (2, 4) },
    Case {
        name: "429, to wait 2 s",
        fault: Fault::Refusal(429, "retry-after: 2\r\n"),
        times: 1,
        says: "answered 429 to conversation: nothing is asked for 2 s",
        most: (1, 1),
    },
    Case {
        name: "529, without a time",
        fault: Fault::Refusal(529, ""),
        times: 1,
        says: "answered 529 to conversation: nothing is asked for 5 s",
        most: (1, 1),
    },
    Case {
        name: "429, to wait 20 s",
        fault: Fault::Refusal(429, "retry-after: 20\r\n"),
        times: 1,
        says: "reason=provider-paused",
        most: (2, 2),
    },
    Case { name: "a slow drip", fault: Fault::Drip, times: 2, says: "", most: (1, 0) },
    Case { name: "half an answer", fault: Fault::Cut, times: 1, says: "", most: (2, 3) },
];

/// Works one issue to its end: the seconds, the runs, the requests.
fn work(project: &Project, running: &Running, server: &Server, name: &str) -> (Duration, usize, usize) {
    let runs = || std::fs::read_dir(project.dir().join(".symphony/runs")).map_or(0, Iterator::count);
    let (started, runs_before, asked_before) = (Instant::now(), runs(), server.asked().len());
    project.issue("Todo", name, "Make it.");
    ended(project, running, name);
    (started.elapsed(), runs() - runs_before, server.asked().len() - asked_before)
}

#[track_caller]
fn gets_over_them(agent: &Agent) {
    let Some(dir) = agent.programs() else { return };
    let server = Server::start();
    server.has_done("echo made >made.txt; git add -A; git commit -qm 'Make it'");
    let more = format!("{MORE}{}", jail(&dir));
    let project = project(agent, &server, &more, LIMITS);
    let front = project.read("WORKFLOW.md");
    // A wait that is longer is not sat out.
    project.write("WORKFLOW.md", &front.replacen("providers:\n", "providers:\n  hold_ms: 6000\n", 1));
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &ALL));
    let told = |what: &str, (took, runs, requests): (Duration, usize, usize), usual: usize| {
        figure(&format!(
            "{}: {what}: after {:.0} s, runs {runs}, requests {requests}, {usual} without",
            agent.adapter,
            took.as_secs_f64()
        ));
    };
    let at_first = work(&project, &running, &server, "A-0");
    assert!(project.exists("issues/Done/A-0.md"), "{}", running.log());
    let usual = at_first.2;
    told("nothing wrong", at_first, usual);
    for (number, case) in (1..).zip(&PASSING) {
        let name = format!("A-{number}");
        let before = running.log().len();
        server.spoil(case.fault.clone(), case.times);
        let seen = work(&project, &running, &server, &name);
        assert_eq!(server.lift(), case.times, "{}: it was hit", case.name);
        told(case.name, seen, usual);
        let log = running.log()[before..].to_owned();
        assert!(project.exists(&format!("issues/Done/{name}.md")), "{}: {log}", case.name);
        assert!(log.contains(case.says), "{}: no `{}` in {log}", case.name, case.says);
        let (_, runs, requests) = seen;
        assert!(runs <= case.most.0, "{}: {runs} runs: {log}", case.name);
        assert!(requests <= usual + case.most.1 + ASIDE, "{}: {requests} requests, {usual} without: {log}", case.name);
        project.wait_for(&format!(".symphony/patches/agent_{name}.patch"));
    }
    assert_eq!(server.dropped(), 1, "the request that hung was given up");

    // One that does not pass: given up after two runs.
    server.spoil(Fault::Refusal(500, ""), usize::MAX);
    let seen = work(&project, &running, &server, "B-1");
    server.lift();
    told("error 500, always", seen, usual);
    assert!(project.exists("issues/Parked/B-1.md"), "{}", running.log());
    let note = project.parked_note("B-1");
    assert!(note.contains(agent.given_up) && note.contains("500"), "{note}");
    assert_eq!(seen.1, 2, "{}", running.log());
    assert!(seen.2 <= PATIENCE, "{} requests", seen.2);

    // A credential that is not taken: it waits, and is no failure.
    server.refuse(KEY, || {});
    let asked = server.asked().len();
    project.issue("Todo", "C-1", "Make it.");
    let waits = |state: &serde_json::Value| {
        let rows = state["idle"].as_array().expect("rows");
        rows.iter().any(|row| row["issue_identifier"] == "C-1" && row["reason_code"] == "no-credential")
    };
    running.until_state("the issue to wait", waits);
    let asked = server.asked().len() - asked;
    figure(&format!("{}: error 401: waits, requests {asked}", agent.adapter));
    assert!((1..=2).contains(&asked), "one, or two that were under way at once: {asked}");
    assert!(running.log().contains("reason=provider-login") && project.exists("issues/Todo/C-1.md"));
    assert_eq!(running.stop(), 0);
}

#[test]
fn opencode_gets_over_what_passes_and_is_given_up_where_it_does_not() {
    gets_over_them(&OPENCODE);
}

#[test]
fn claude_code_gets_over_what_passes_and_is_given_up_where_it_does_not() {
    gets_over_them(&CLAUDE);
}

#[test]
fn codex_gets_over_what_passes_and_is_given_up_where_it_does_not() {
    gets_over_them(&CODEX);
}

#[test]
fn gemini_gets_over_what_passes_and_is_given_up_where_it_does_not() {
    gets_over_them(&GEMINI);
}
