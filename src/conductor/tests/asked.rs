//! Questions that outlive their runs, and words that nobody asked for.

use symphony_core::ids::Identifier;
use symphony_core::snapshot::AskedRow;
use symphony_core::steering::By;

use super::super::handle::AnswerError;
use super::super::*;
use super::rig::{Rig, reason, rests, runs};
use super::world::{Step, World};

const ASKS: &[Step] = &[Step::Turn, Step::Ask, Step::Done];

fn asked<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a AskedRow> {
    snapshot.asked.iter().find(|row| row.identifier.0 == name)
}

async fn answer(rig: &Rig, name: &str, question: Option<u64>) -> Result<Timestamp, AnswerError> {
    rig.handle.answer(Identifier(name.into()), question, "that one".into(), By::Api).await
}

#[tokio::test(start_paused = true)]
async fn a_question_that_waits_for_long_gives_its_slot_back_and_comes_back_with_the_answer() {
    let world = World::new(|workflow| workflow.agent.max_concurrent_agents = 1);
    world.put("A", &[ASKS]);
    world.put("B", &[&[Step::Work(60), Step::Done]]);
    let rig = Rig::on(world, false);
    rig.until(|s| s.running.iter().any(|row| row.question.is_some())).await;
    let begun = Instant::now();
    rig.until(|s| rests(s, "B", "Done")).await;
    let (cause, at) = rig.world.stop_of("A").expect("asked to stop");
    assert_eq!(cause, StopCause::Released);
    assert!(at - begun <= Duration::from_secs(1801));
    let seen = rig.until(|s| asked(s, "A").is_some() && s.running.is_empty()).await;
    assert_eq!(reason(&seen, "A"), "its agent asked a question; the answer starts it again");
    let number = asked(&seen, "A").map(|row| row.question.id);
    answer(&rig, "A", number).await.expect("taken");
    assert!(matches!(answer(&rig, "A", number).await, Err(AnswerError::AnsweredAlready(_))));
    let seen = rig.until(|s| rests(s, "A", "Done")).await;
    assert!(seen.asked.is_empty());
    assert_eq!(rig.world.starts("A").len(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_survives_a_crash_and_an_answer_given_before_one_is_delivered_after_it() {
    let rig = Rig::start(false, &[("A", &[ASKS]), ("B", &[ASKS])]);
    rig.until(|s| s.running.iter().filter(|row| row.question.is_some()).count() == 2).await;
    let rig = rig.crash().await;
    rig.until(|s| asked(s, "A").is_some() && asked(s, "B").is_some() && s.running.is_empty()).await;
    answer(&rig, "A", None).await.expect("taken");
    // It is accepted, so it is kept: whether its run has begun when the second crash comes does not matter.
    let rig = rig.crash().await;
    let seen = rig.until(|s| rests(s, "A", "Done")).await;
    assert!(asked(&seen, "A").is_none() && asked(&seen, "B").is_some());
    assert_eq!(rig.world.starts("B").len(), 1, "nobody answered it");
    let memory = rig.memory().await;
    assert!(memory.letters.is_empty() && memory.questions.len() == 1);
}

#[tokio::test(start_paused = true)]
async fn a_person_who_moves_the_issue_away_takes_its_question_back() {
    let rig = Rig::start(false, &[("A", &[ASKS])]);
    rig.until(|s| s.running.iter().any(|row| row.question.is_some())).await;
    let rig = rig.restart().await;
    rig.until(|s| asked(s, "A").is_some()).await;
    rig.place("A", "Done").await;
    rig.until(|s| rests(s, "A", "Done") && s.asked.is_empty()).await;
    assert!(matches!(answer(&rig, "A", None).await, Err(AnswerError::NotWaiting(_))));
    assert!(rig.memory().await.questions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_needs_somebody_who_hears_it_and_comes_with_the_next_run() {
    let rig = Rig::start(false, &[("A", &[&[Step::Turn, Step::Work(60), Step::Fail]]), ("B", &[ASKS])]);
    rig.until(|s| runs(s, "A") && s.running.iter().any(|row| row.question.is_some())).await;
    let say = async |to: &str| rig.handle.say(Identifier(to.into()), "Use tabs.".into(), false, By::Cli).await;
    say("A").await.expect("taken");
    assert!(matches!(say("B").await, Err(AnswerError::AsksItself(_))));
    assert!(matches!(say("C").await, Err(AnswerError::NoSuchIssue(_))));
    answer(&rig, "B", None).await.expect("taken");
    rig.until(|s| rests(s, "B", "Done")).await;
    assert!(matches!(say("B").await, Err(AnswerError::NobodyWorks(_))));
    let memory = rig.memory().await;
    let texts: Vec<_> = memory.letters.values().flatten().map(|letter| letter.text.as_str()).collect();
    assert_eq!(texts, ["Use tabs."], "no turn took it");
}
