//! The tracker hangs: in a look, in a move, in a note. It is shown, nothing stops, and it comes back.

use super::super::*;
use super::rig::{Rig, reason, rests, runs};
use super::world::{Part, Step};

/// What a look and a move may take.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn a_look_that_hangs_is_an_error_on_the_page_and_nothing_stops() {
    let rig = Rig::start(false, &[("A", &[&[Step::Turn, Step::Work(300), Step::Done]]), ("B", &[&[Step::Turn]])]);
    rig.until(|s| runs(s, "A") && runs(s, "B")).await;
    rig.world.hang(Part::Scan);
    let hung = Instant::now();
    rig.nudge(Nudge::Tracker).await;
    let seen = rig.until(|s| s.tracker_problem.is_some()).await;
    assert_eq!(seen.tracker_problem.as_deref(), Some("looking at the issues took longer than 30 s"));
    assert!((DEADLINE..DEADLINE + Duration::from_millis(51)).contains(&hung.elapsed()), "{:?}", hung.elapsed());
    assert!(runs(&seen, "A") && runs(&seen, "B"));
    // Nothing can be seen, so nothing is concluded and nothing starts; but a run ends when it ends.
    rig.drop_issue("C", &[&[Step::Done]]).await;
    let seen = rig.until(|s| !runs(s, "A")).await;
    assert!(runs(&seen, "B") && reason(&seen, "A") == "its file is being looked at again", "{:?}", seen.idle);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(rig.world.starts("C").is_empty() && rig.world.stop_of("B").is_none());
    rig.world.heal(Part::Scan);
    let healed = Instant::now();
    let seen = rig.until(|s| rests(s, "C", "Done")).await;
    assert_eq!(seen.tracker_problem, None);
    assert!(healed.elapsed() <= Duration::from_secs(61), "the look under way, the pause, the next one");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn parking_while_moves_hang_is_shown_as_parked_but_not_moved_until_a_person_moves_the_file() {
    let rig = Rig::start(false, &[]);
    rig.world.edit_workflow(|workflow| workflow.budget.failures_in_a_row = 1);
    rig.world.hang(Part::Move);
    rig.drop_issue("A", &[&[Step::Turn, Step::Fail], &[Step::Done]]).await;
    rig.until(|s| reason(s, "A").starts_with("parked: ")).await;
    let failed = Instant::now();
    rig.drop_issue("B", &[&[Step::Turn, Step::Done]]).await;
    rig.until(|s| rests(s, "B", "Done")).await;
    assert!(failed.elapsed() < Duration::from_secs(1), "nobody waits for the move");
    let trouble = "(it could not be moved: moving it took longer than 30 s)";
    let seen = rig.until(|s| reason(s, "A").ends_with(trouble)).await;
    assert!(failed.elapsed() <= DEADLINE + Duration::from_millis(50), "{:?}", failed.elapsed());
    assert_eq!(reason(&seen, "A"), format!("parked: a run failed: turn_failed: boom {trouble}"));
    assert!(rests(&seen, "A", "Todo"), "{:?}", seen.idle);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.world.starts("A").len(), 1, "parked is parked, wherever the file is");
    rig.world.heal(Part::Move);
    rig.place("A", "Parked").await;
    rig.until(|s| reason(s, "A") == "parked: a run failed: turn_failed: boom").await;
    rig.place("A", "Todo").await;
    rig.until(|s| rests(s, "A", "Done")).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_note_that_hangs_leaves_the_issue_parked_where_it_was_moved() {
    let rig = Rig::start(false, &[]);
    rig.world.edit_workflow(|workflow| workflow.budget.failures_in_a_row = 1);
    rig.world.hang(Part::Note);
    let begun = Instant::now();
    rig.drop_issue("A", &[&[Step::Turn, Step::Fail], &[Step::Done]]).await;
    rig.until(|s| reason(s, "A").starts_with("parked: ")).await;
    assert_eq!(rig.world.state("A"), "Parked");
    rig.drop_issue("B", &[&[Step::Turn, Step::Done]]).await;
    rig.until(|s| rests(s, "A", "Parked") && rests(s, "B", "Done")).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    // Given up after its time; the move stands.
    tokio::time::sleep(DEADLINE + Duration::from_secs(1)).await;
    let seen = rig.handle.snapshot();
    assert_eq!(
        (reason(&seen, "A").as_str(), rests(&seen, "A", "Parked")),
        ("parked: a run failed: turn_failed: boom", true)
    );
    rig.place("A", "Todo").await;
    rig.until(|s| rests(s, "A", "Done")).await;
    rig.stop().await;
}
