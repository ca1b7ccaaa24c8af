//! Whether what a person says is heard, and what the one who says it is told.

use symphony_core::ids::Identifier;
use symphony_core::steering::By;

use super::super::handle::{AnswerError, Taken};
use super::super::*;
use super::rig::{Rig, rests, runs};
use super::world::{Step, World};

fn name(name: &str) -> Identifier {
    Identifier(name.into())
}

async fn answer(rig: &Rig, to: &str, question: Option<u64>) -> Result<Timestamp, AnswerError> {
    rig.handle.answer(name(to), question, "that one".into(), By::Api).await
}

async fn say(rig: &Rig, to: &str) -> Result<Taken, AnswerError> {
    rig.handle.say(name(to), "Use tabs.".into(), false, By::Cli).await
}

fn asks(snapshot: &Snapshot, question: u64) -> bool {
    let open = |q: &symphony_core::snapshot::Question| q.id == question && !q.answered;
    snapshot.running.iter().any(|row| row.question.as_ref().is_some_and(open))
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_older_question_leaves_the_open_one_open() {
    let rig = Rig::start(false, &[("A", &[&[Step::Turn, Step::Ask, Step::Ask, Step::Done]])]);
    rig.until(|s| asks(s, 1)).await;
    answer(&rig, "A", Some(1)).await.expect("taken");
    rig.until(|s| asks(s, 2)).await;
    assert_eq!(answer(&rig, "A", Some(1)).await, Err(AnswerError::AnsweredAlready(name("A"))));
    assert_eq!(answer(&rig, "A", Some(7)).await, Err(AnswerError::NotWaiting(name("A"))));
    // What is published from here on is newer than both answers.
    rig.nudge(Nudge::Tracker).await;
    let version = rig.handle.snapshot().version;
    let seen = rig.until(|s| s.version > version + 1).await;
    assert!(asks(&seen, 2), "{:?}", seen.running);
    // It waits, and so it gives its slot back in time.
    rig.until(|s| s.running.is_empty() && s.asked.len() == 1).await;
    assert_eq!(rig.world.stop_of("A").map(|(cause, _)| cause), Some(StopCause::Released));
    answer(&rig, "A", Some(2)).await.expect("taken");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_open_in_a_turn_after_done_was_said_is_shown_again() {
    let steps = &[Step::Turn, Step::AskAndGoOn, Step::Mark, Step::Work(60), Step::Turn, Step::Work(60)];
    let rig = Rig::start(false, &[("A", &[steps])]);
    rig.until(|s| s.running.iter().any(|row| row.marked_done && row.question.is_none())).await;
    rig.until(|s| s.running.iter().any(|row| row.turn_count == 2) && asks(s, 1)).await;
    answer(&rig, "A", None).await.expect("taken");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_work_is_being_handed_off_is_told_nothing_and_answers_come_too_late() {
    let rig = Rig::start(false, &[("A", &[&[Step::Turn, Step::AskAndGoOn, Step::Mark, Step::HandOff(60)]])]);
    rig.until(|s| s.running.iter().any(|row| row.phase == "handing off")).await;
    assert_eq!(say(&rig, "A").await, Err(AnswerError::HandingOff(name("A"))));
    assert_eq!(answer(&rig, "A", None).await, Err(AnswerError::HandingOff(name("A"))));
    assert_eq!(answer(&rig, "A", Some(1)).await, Err(AnswerError::HandingOff(name("A"))));
    rig.until(|s| rests(s, "A", "Done")).await;
    let memory = rig.memory().await;
    assert!(memory.letters.is_empty() && memory.questions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn words_that_came_too_late_are_shown_until_the_issue_is_put_back_to_work() {
    let rig = Rig::start(false, &[("A", &[&[Step::Turn, Step::Work(60), Step::Done], &[]])]);
    rig.until(|s| s.running.iter().any(|row| row.turn_count == 1)).await;
    assert_eq!(say(&rig, "A").await.map(|taken| taken.waits), Ok(None));
    let seen = rig.until(|s| rests(s, "A", "Done")).await;
    assert_eq!(seen.unheard[&IssueId("A".into())], ["Use tabs."]);
    let told = symphony_core::explain::find(&seen, "A").expect("known").remove(0).notes.join("; ");
    assert!(told.contains("no agent heard: Use tabs."), "{told}");
    let rig = rig.restart().await;
    rig.until(|s| s.unheard.len() == 1).await;
    rig.place("A", "Todo").await;
    let seen = rig.until(|s| runs(s, "A")).await;
    assert!(seen.unheard.is_empty(), "its run has them");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn words_for_an_issue_that_does_not_run_say_what_they_wait_for() {
    let world = World::new(|workflow| workflow.tracker.required_labels = vec!["go".into()]);
    world.put("A", &[&[]]);
    let rig = Rig::on(world, false);
    rig.until(|s| s.idle.iter().any(|row| row.identifier.0 == "A")).await;
    let waits = say(&rig, "A").await.expect("taken").waits;
    assert_eq!(waits.as_deref(), Some("lacks the required label `go`"));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn words_that_are_kept_while_symphony_ends_are_said_to_be_taken() {
    let world = World::new(|workflow| workflow.tracker.required_labels = vec!["go".into()]);
    world.put("A", &[&[]]);
    let rig = Rig::on(world, false);
    rig.until(|s| rests(s, "A", "Todo")).await;
    let held = rig.hold_journal();
    let (drain, said) = (rig.drain.clone(), say(&rig, "A"));
    let stop = async {
        // It was heard before the program is asked to end, and is written when it ends.
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        drain.cancel();
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        held.execute_batch("ROLLBACK").expect("free");
    };
    let (said, ()) = futures::join!(said, stop);
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(rig.memory().await.letters[&IssueId("A".into())].len(), 1);
}
