//! A clock that jumps between two processes: what was due is due at once, or after the cap, never in a year.

use jiff::SignedDuration;
use symphony_core::board::{Due, RetryKind};
use symphony_core::steering::{Asked, Default as Spare};

use super::super::letters::until;
use super::super::past::past;
use super::super::*;

const CAP: u64 = 300_000;

fn now() -> Timestamp {
    "2026-05-01T12:00:00Z".parse().expect("a time")
}

/// What a process that was written to at `now` makes of something due so many hours from then.
fn waits(hours: i64) -> u64 {
    let until = now() + SignedDuration::from_hours(hours);
    let due = Due { until, kind: RetryKind::Failure, error: Some("boom".into()) };
    let memory = Memory { waiting: [(IssueId("A".into()), due)].into(), ..Memory::default() };
    past(&memory, CAP, now()).waiting[&IssueId("A".into())].until.0
}

#[test]
fn what_is_due_waits_no_longer_than_the_cap_however_the_clock_jumped() {
    assert_eq!([waits(-24 * 365), waits(0), waits(1), waits(24 * 365 * 100)], [1, 1, CAP, CAP]);
    let soon = now() + SignedDuration::from_millis(1_500);
    assert_eq!([until(soon, now()), until(now(), soon), until(now(), now())], [1_500, 0, 0]);
    assert_eq!(until(Timestamp::MAX, Timestamp::MIN) > 0, until(Timestamp::MIN, Timestamp::MAX) == 0);
}

#[test]
fn a_default_whose_time_is_over_counts_at_once_after_the_clock_jumped_ahead() {
    let question = OpenQuestion {
        id: 1,
        run: RunId(1),
        asked: Asked { question: "Which?".into(), context: None },
        asked_at: now(),
        default: Some(Spare { at: now() + SignedDuration::from_hours(1), text: "this".into() }),
    };
    let memory = Memory { questions: [(IssueId("A".into()), question)].into(), ..Memory::default() };
    let at = |now| past(&memory, CAP, now).asked[&IssueId("A".into())];
    assert_eq!(at(now() + SignedDuration::from_hours(24)), Some(Tick(1)));
    assert_eq!(at(now()), Some(Tick(3_600_000)));
}
