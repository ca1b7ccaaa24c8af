//! What a person reads, line by line.

use super::*;
use crate::operator::{LastEnd, Run};

fn blank(name: &str, status: &str, group: &str) -> Explanation {
    Explanation {
        name: name.into(),
        id: Some(name.into()),
        title: Some(name.into()),
        state: Some("Todo".into()),
        status: status.into(),
        group: group.into(),
        reason: "a reason".into(),
        reason_code: None,
        notes: vec![],
        run: None,
        question: None,
        due_at: None,
        last_end: None,
        used: vec![],
        models: None,
        runs_ever: None,
        files: vec![],
        patch: None,
        remedy: None,
    }
}

fn answer(issues: Vec<Explanation>) -> Answer {
    Answer {
        v: 1,
        generated_at: "2026-01-02T03:00:00.000Z".into(),
        workflow: "/w/WORKFLOW.md".into(),
        sandbox: "jail".into(),
        sandbox_reason: "it was asked for".into(),
        notices: vec!["draining".into()],
        issues,
        done: 2,
    }
}

fn run(question: Option<&str>) -> Run {
    Run {
        run_id: 7,
        phase: "working".into(),
        sandbox: "jail".into(),
        turn: 2,
        session_continued: true,
        attempt: None,
        started_at: "2026-01-02T02:59:00.000Z".into(),
        question: question.map(str::to_owned),
    }
}

#[test]
fn an_overview_has_a_line_for_each_below_its_heading() {
    let bad = Explanation {
        id: None,
        state: None,
        files: vec!["Todo/bad.md:3:7".into()],
        ..blank("Todo/bad.md", "malformed", "needs you")
    };
    let issues = vec![
        Explanation { run: Some(run(Some("which?"))), ..blank("A-1", "asking", "needs you") },
        Explanation { reason: "parked: too much".into(), ..blank("P-1", "parked", "needs you") },
        bad,
        Explanation { run: Some(run(None)), ..blank("R-1", "running", "running") },
        Explanation { due_at: Some("2026-01-02T03:00:40.000Z".into()), ..blank("F-1", "retrying", "waiting") },
        blank("W-1", "waiting", "waiting"),
    ];
    let expected = [
        "! draining",
        "needs you (3)",
        "  A-1              asking     turn 2: which?",
        "  P-1              parked     too much",
        "  Todo/bad.md:3:7  malformed  a reason",
        "running (1)",
        "  R-1              running    turn 2 · working",
        "waiting (2)",
        "  F-1              retrying   a reason (2026-01-02T03:00:40Z)",
        "  W-1              Todo       a reason",
        "done (2)",
    ];
    assert_eq!(overview(&answer(issues)), expected);
    let nothing = Answer { notices: vec![], done: 0, ..answer(vec![]) };
    assert_eq!(overview(&nothing), ["no issues"]);
}

#[test]
fn a_line_about_a_failing_issue_says_how_often_it_failed_and_of_what() {
    let of = |used| Of { budget: "failures_in_a_row".into(), used, allowed: 5 };
    let last = LastEnd { reason: "agent-error".into(), message: "turn_failed: boom".into(), left: None };
    let due_at = Some("2026-01-02T03:00:40.000Z".into());
    let failing = |used| Explanation {
        due_at: due_at.clone(),
        last_end: Some(last.clone()),
        used: vec![of(used)],
        ..blank("F-1", "retrying", "waiting")
    };
    let line = |used| overview(&Answer { notices: vec![], done: 0, ..answer(vec![failing(used)]) })[1].clone();
    assert_eq!(line(2), "  F-1  retrying  a reason (2026-01-02T03:00:40Z) · failed 2 of 5: turn_failed: boom");
    assert_eq!(line(0), "  F-1  retrying  a reason (2026-01-02T03:00:40Z)", "a continuation");
}

#[test]
fn what_a_person_has_to_mend_stands_in_the_list_and_is_not_said_twice() {
    let problem = "WORKFLOW.md:3:1: no such key";
    let broken =
        Explanation { id: None, state: None, reason: problem.into(), ..blank("WORKFLOW.md", "broken", "needs you") };
    let said = Answer {
        notices: vec![format!("the workflow file is not in force: {problem}"), "draining".into()],
        done: 0,
        ..answer(vec![broken])
    };
    assert_eq!(overview(&said), ["! draining", "needs you (1)", "  WORKFLOW.md  broken  WORKFLOW.md:3:1: no such key"]);
}

#[test]
fn the_details_say_when_how_far_and_what_next() {
    let of = |budget: &str, used, allowed| Of { budget: budget.into(), used, allowed };
    let one = Explanation {
        title: Some("Fix it".into()),
        due_at: Some("2026-01-02T03:00:40.000Z".into()),
        last_end: Some(LastEnd {
            reason: "agent-error".into(),
            message: "turn_failed: boom".into(),
            left: Some("1 commit in the work tree".into()),
        }),
        used: vec![of("sessions", 3, 10), of("failures_in_a_row", 1, 5), of("wall_ms", 180_250, 14_400_000)],
        runs_ever: Some(13),
        notes: vec!["a note".into()],
        remedy: Some("Do this.".into()),
        ..blank("F-1", "retrying", "waiting")
    };
    let now = "2026-01-02T03:00:02.500Z".parse().expect("an instant");
    let zeros = one.used.iter().map(|of| Of { used: 0, ..of.clone() }).collect();
    let parked = answer(vec![Explanation { used: zeros, runs_ever: Some(1), ..one.clone() }]);
    let fresh = "  used      nothing of the present allowance; 1 run in all";
    assert!(details(&parked, now).iter().any(|line| line == fresh), "an allowance that was granted anew");
    let expected = [
        "F-1: Fix it",
        "  status    retrying",
        "  state     Todo",
        "  why       a reason",
        "            a note",
        "  due       2026-01-02T03:00:40Z (in 37 s)",
        "  last run  agent-error: turn_failed: boom",
        "  it left   1 commit in the work tree",
        "  used      sessions 3 of 10 · failures in a row 1 of 5 · wall 3 min of 4 h",
        "            of the present allowance; 13 runs in all",
        "  next      Do this.",
    ];
    assert_eq!(details(&answer(vec![one]), now), expected);
}

#[test]
fn a_run_says_in_two_words_that_its_agent_s_session_goes_on() {
    let now = "2026-01-02T03:00:02.500Z".parse().expect("an instant");
    let of = |run| details(&answer(vec![Explanation { run: Some(run), ..blank("R-1", "running", "running") }]), now);
    let line = |session: &str| format!("  run       7 · working · turn 2{session} · since 2026-01-02T02:59:00Z");
    assert!(of(run(None)).contains(&line(" · session continued")), "{:?}", of(run(None)));
    assert!(of(Run { session_continued: false, ..run(None) }).contains(&line("")));
}
