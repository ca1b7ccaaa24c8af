//! Requests after a wait: one at a time until one is answered, then the others soon after each other.

use std::sync::Arc;
use std::time::Duration;

use symphony_core::broker::quota::Pause;

use super::super::standing::{Leave, Standings};

const OF: [u8; 32] = [7; 32];

#[tokio::test(start_paused = true)]
async fn after_a_wait_one_request_goes_first_and_the_others_follow_its_answer() {
    let standings = Arc::new(Standings::default());
    let mut changes = standings.changes();
    let sent = standings.now();
    standings.wait(&OF, sent, Duration::from_secs(30), Pause::Asked);
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
    standings.answered(&OF, asked);
    drop(first);
    assert!(matches!(other.await.expect("no panic"), Leave::Go(None)));
    assert!(matches!(standings.leave(&OF).await, Leave::Go(None)));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_long_does_not_hold_up_the_others_for_ever() {
    let standings = Arc::new(Standings::default());
    standings.wait(&OF, standings.now(), Duration::from_secs(1), Pause::Asked);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let Leave::Go(Some(_first)) = standings.leave(&OF).await else { panic!("it may go") };
    assert!(matches!(standings.leave(&OF).await, Leave::Go(None)));
}

/// Regression: all that waited behind an answer that takes long went at the same instant.
#[tokio::test(start_paused = true)]
async fn those_that_wait_no_longer_for_an_answer_leave_one_after_another() {
    let standings = Arc::new(Standings::default());
    standings.wait(&OF, standings.now(), Duration::from_secs(1), Pause::Asked);
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
    standings.refuse(&OF, "log in again".to_owned());
    assert!(matches!(standings.leave(&OF).await, Leave::Never(said) if said == "log in again"));
    // Nor does an answer to an older request undo it.
    standings.answered(&OF, standings.now());
    assert!(matches!(standings.leave(&OF).await, Leave::Never(_)));
    for other in 0..=255 {
        standings.refuse(&[other; 32], String::new());
    }
    let mut kept = 0;
    for other in 0..=255 {
        kept += usize::from(matches!(standings.leave(&[other; 32]).await, Leave::Never(_)));
    }
    assert_eq!(kept, 64);
}
