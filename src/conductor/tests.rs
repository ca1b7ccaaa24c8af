//! The conductor under paused time, with a scripted world.

mod asked;
mod bounds;
mod clock;
mod heard;
mod hosts;
mod retries;
mod rig;
mod time;
mod tracker;
mod wedged;
mod world;

use symphony_core::ids::Identifier;
use symphony_core::steering::By;

use self::handle::AnswerError;
use self::rig::{Rig, gaps, rests, runs};
use self::world::Step;
use super::*;

#[tokio::test(start_paused = true)]
async fn once_ends_when_everything_is_finished() {
    let rig = Rig::start(true, &[("A", &[&[Step::Done]]), ("B", &[&[Step::Done]]), ("C", &[&[Step::Done]])]);
    assert_eq!(rig.end.await.expect("ends"), Settled::Finished);
    assert_eq!(["A", "B", "C"].map(|name| rig.world.starts(name).len()), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn once_ends_with_needs_human_when_a_question_is_all_that_is_left() {
    let rig = Rig::start(true, &[("A", &[&[Step::Ask]]), ("B", &[&[Step::Done]])]);
    assert_eq!(rig.end.await.expect("ends"), Settled::NeedsHuman);
}

#[tokio::test(start_paused = true)]
async fn an_answer_reaches_the_run_once_and_the_second_one_is_refused() {
    let rig = Rig::start(false, &[("A", &[&[Step::Ask, Step::Work(60), Step::Done]]), ("B", &[&[Step::AskOffRecord]])]);
    rig.until(|s| s.running.iter().filter(|r| r.question.is_some()).count() == 2).await;
    let name = |name: &str| Identifier(name.into());
    let answer = async |to: &str| rig.handle.answer(name(to), None, "that one".into(), By::Api).await;
    assert_eq!(answer("C").await, Err(AnswerError::NotWaiting(name("C"))));
    assert_eq!(answer("B").await, Err(AnswerError::NotWaiting(name("B"))), "the journal has no question for it");
    let (first, second) = futures::join!(answer("A"), answer("A"));
    assert!(first.is_ok());
    assert_eq!(second, Err(AnswerError::AnsweredAlready(name("A"))));
    rig.until(|s| rests(s, "A", "Done")).await;
    assert_eq!(answer("A").await, Err(AnswerError::NotWaiting(name("A"))));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_and_seconds_of_ended_runs_stay_in_the_totals() {
    let spend = |tokens| [Step::Spend(tokens), Step::Work(60), Step::Done];
    let rig = Rig::start(false, &[("A", &[&spend(10)]), ("B", &[&spend(20)]), ("C", &[&spend(u64::MAX)])]);
    let seen = rig.until(|s| ["A", "B", "C"].iter().all(|name| rests(s, name, "Done")) && s.running.is_empty()).await;
    let tokens = seen.totals.tokens;
    // An agent's own numbers: absurd ones stop at the largest, they do not wrap or crash.
    assert_eq!((tokens.input, tokens.output), (u64::MAX, 3));
    assert_eq!(seen.totals.seconds_running, 180.0);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_finished_issue_left_is_shown_until_it_is_put_back_to_work() {
    let rig = Rig::start(false, &[("A", &[&[Step::Done]]), ("B", &[&[Step::Done]])]);
    let seen = rig.until(|s| s.finished.len() == 2).await;
    assert!(seen.finished.iter().all(|row| row.outcome == "done") && seen.finished[0].at >= seen.finished[1].at);
    rig.drop_issue("A", &[&[]]).await;
    let seen = rig.until(|s| runs(s, "A")).await;
    let left: Vec<_> = seen.finished.iter().map(|row| row.identifier.0.as_str()).collect();
    assert_eq!(left, ["B"]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_issue_is_tried_again_after_ten_twenty_and_forty_seconds_and_then_parked() {
    let rig = Rig::start(true, &[("A", &[&[Step::Fail]])]);
    assert_eq!(rig.end.await.expect("ends"), Settled::NeedsHuman);
    assert_eq!(gaps(&rig.world.starts("A")), [10_000, 20_000, 40_000, 80_000]);
    assert_eq!(rig.world.state("A"), "Parked");
}

#[tokio::test(start_paused = true)]
async fn a_row_shows_what_isolates_that_run_whatever_new_runs_get() {
    let rig = Rig::start(false, &[("A", &[&[Step::Isolated("qemu (TCG)")]]), ("B", &[&[Step::Turn]])]);
    let seen = rig.until(|s| runs(s, "A") && s.running.iter().any(|row| row.sandbox == "qemu (TCG)")).await;
    let of = |name: &str| seen.running.iter().find(|row| row.id.0 == name).map(|row| row.sandbox.as_str());
    assert_eq!((of("A"), of("B")), (Some("qemu (TCG)"), Some("scripted")));
    assert_eq!((seen.sandbox.as_str(), seen.sandbox_reason.as_str()), ("scripted", "a test"));
    rig.stop().await;
}
