//! Requests after a wait: one at a time until one is answered, then the others soon after each other.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use symphony_core::broker::Provider;
use symphony_core::broker::quota::{MAX, Pause};

use super::super::standing::{Leave, Standings};
use crate::journal::standings::{Said, Standing, Told};
use crate::journal::{Journal, Origin};

const OF: [u8; 32] = [7; 32];

#[tokio::test(start_paused = true)]
async fn after_a_wait_one_request_goes_first_and_the_others_follow_its_answer() {
    let standings = Arc::new(Standings::default());
    let mut changes = standings.changes();
    let sent = standings.now();
    standings.wait(&OF, Provider::OpenAi, sent, Duration::from_secs(30), Pause::Asked).await;
    assert!(changes.has_changed().expect("there"), "whoever starts runs hears of it");
    changes.mark_unchanged();
    assert!(matches!(standings.leave(&OF).await, Leave::Until(_, Pause::Asked)));
    assert!(matches!(standings.leave(&[8; 32]).await, Leave::Go(None)), "another credential is not concerned");
    changes.changed().await.expect("and of its end");
    let Leave::Go(Some(first)) = standings.leave(&OF).await else { panic!("it may go") };
    let (of_others, asked) = (standings.clone(), standings.now());
    let other = tokio::spawn(async move { of_others.leave(&OF).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!other.is_finished(), "it waits for the answer of the first");
    standings.answered(&OF, asked).await;
    drop(first);
    assert!(matches!(other.await.expect("no panic"), Leave::Go(None)));
    assert!(matches!(standings.leave(&OF).await, Leave::Go(None)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_does_not_hold_up_the_others_for_ever() {
    let standings = Arc::new(Standings::default());
    standings.wait(&OF, Provider::OpenAi, standings.now(), Duration::from_secs(1), Pause::Asked).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let Leave::Go(Some(_first)) = standings.leave(&OF).await else { panic!("it may go") };
    assert!(matches!(standings.leave(&OF).await, Leave::Go(None)));
}

/// Regression: all that waited behind an answer that takes long went at the same instant.
#[tokio::test(start_paused = true)]
async fn those_that_wait_no_longer_for_an_answer_leave_one_after_another() {
    let standings = Arc::new(Standings::default());
    standings.wait(&OF, Provider::OpenAi, standings.now(), Duration::from_secs(1), Pause::Asked).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let Leave::Go(Some(_first)) = standings.leave(&OF).await else { panic!("it may go") };
    let others = (0..8).map(|_| {
        let standings = standings.clone();
        tokio::spawn(async move {
            assert!(matches!(standings.leave(&OF).await, Leave::Go(None)));
            tokio::time::Instant::now()
        })
    });
    let left = futures::future::join_all(others.collect::<Vec<_>>()).await;
    let instants: std::collections::BTreeSet<_> = left.into_iter().map(|at| at.expect("no panic")).collect();
    assert_eq!(instants.len(), 8, "each at an instant of its own: {instants:?}");
}

#[tokio::test]
async fn what_is_refused_stays_refused_and_what_is_remembered_has_a_bound() {
    let standings = Arc::new(Standings::default());
    standings.refuse(&OF, Provider::OpenAi, "log in again".to_owned()).await;
    assert!(matches!(standings.leave(&OF).await, Leave::Never(said) if said == "log in again"));
    // Nor does an answer to an older request undo it.
    standings.answered(&OF, standings.now()).await;
    assert!(matches!(standings.leave(&OF).await, Leave::Never(_)));
    for other in 0..=255 {
        standings.refuse(&[other; 32], Provider::OpenAi, String::new()).await;
    }
    let mut kept = 0;
    for other in 0..=255 {
        kept += usize::from(matches!(standings.leave(&[other; 32]).await, Leave::Never(_)));
    }
    assert_eq!(kept, 64);
}

/// What a journal holds after its process ended.
fn kept(path: &std::path::Path) -> (Journal, Told) {
    let (journal, memory) = Journal::open(path, Origin::default()).expect("opens");
    (journal, memory.told)
}

#[tokio::test]
async fn a_pause_outlives_its_process_until_an_answer_and_nothing_kept_holds_the_credential_or_its_own_hash() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.db");
    let (journal, told) = kept(&path);
    let standings = Standings::recalled(&journal, &told);
    standings.wait(&OF, Provider::OpenAi, standings.now(), Duration::from_secs(600), Pause::Empty).await;
    // Over before anybody could start again.
    standings.wait(&[8; 32], Provider::OpenAi, standings.now(), Duration::from_secs(1), Pause::Asked).await;
    drop((standings, journal));
    let (journal, told) = kept(&path);
    let [Standing { credential, said: Said::Wait { until, pause: Pause::Empty, in_a_row: 1 }, .. }] =
        told.standings.as_slice()
    else {
        panic!("{told:?}")
    };
    assert!(*credential != OF && *until > Timestamp::now(), "{told:?}");
    let next = Standings::recalled(&journal, &told);
    assert!(matches!(next.glance(&OF), Leave::Until(_, Pause::Empty)));
    assert!(matches!(next.glance(&[8; 32]), Leave::Go(None)));
    assert_eq!(next.in_a_row_with(&OF, next.now()), 2, "patience goes on where it was");
    next.answered(&OF, next.now()).await;
    drop((next, journal));
    assert_eq!(kept(&path).1.standings, []);
    let report = crate::journal::inspect::check(&path, None).expect("readable");
    assert_eq!(report.differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_credential_is_tried_by_one_request_alone_after_a_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("journal.db");
    let (journal, told) = kept(&path);
    let standings = Standings::recalled(&journal, &told);
    standings.refuse(&OF, Provider::Anthropic, "no".to_owned()).await;
    assert!(matches!(standings.glance(&OF), Leave::Never(_)));
    drop((standings, journal));
    let (journal, told) = kept(&path);
    let next = Standings::recalled(&journal, &told);
    assert!(next.goes_alone(&OF) && !next.goes_alone(&[8; 32]));
    let Leave::Go(Some(_alone)) = next.leave(&OF).await else { panic!("it may go") };
}

/// A clock that was wrong when it was said, or is set back now, shuts nobody out for longer than any provider can.
#[tokio::test]
async fn no_clock_makes_a_pause_that_was_kept_longer_than_the_longest() {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, told) = kept(&dir.path().join("journal.db"));
    for (ahead, waits) in [(SignedDuration::from_hours(24 * 365), true), (SignedDuration::from_hours(-3), false)] {
        let standings = Standings::recalled(&journal, &told);
        standings.wait(&OF, Provider::OpenAi, standings.now(), Duration::from_secs(60), Pause::Asked).await;
        let mut odd = kept_rows(&dir.path().join("journal.db"));
        let Said::Wait { until, .. } = &mut odd.standings[0].said else { panic!("{odd:?}") };
        *until = Timestamp::now() + ahead;
        let next = Standings::recalled(&journal, &odd);
        match next.glance(&OF) {
            Leave::Until(at, _) => assert!(waits && at <= tokio::time::Instant::now() + MAX),
            _ => assert!(!waits && next.goes_alone(&OF)),
        }
    }
}

fn kept_rows(path: &std::path::Path) -> Told {
    crate::journal::recall(path).expect("readable").told
}
