//! What is tried again, when, with which number, and what the journal remembers of it.

use symphony_core::board::{EndReason, RetryKind};

use super::super::*;
use super::rig::{Rig, gaps, reason, rests};
use super::world::{Step, World};

/// Seconds one attempt of the long story takes.
const TAKES: u64 = 300;

#[tokio::test(start_paused = true)]
async fn over_two_hours_failures_back_off_to_the_cap_and_only_failures_count() {
    let world = World::new(|workflow| {
        (workflow.budget.sessions, workflow.budget.failures_in_a_row) = (100, 100);
    });
    let (fail, used) = ([Step::Turn, Step::Work(TAKES), Step::Fail], [Step::Turn, Step::Work(TAKES), Step::TurnsUsed]);
    world.put("A", &[&fail, &fail, &fail, &used, &used, &fail]);
    let begun = Instant::now();
    let rig = Rig::on(world, false);

    // What readers saw of A, each change once.
    let (mut watch, mut seen) = (rig.handle.watch(), Vec::<String>::new());
    let watching = async {
        loop {
            let snapshot = watch.borrow_and_update().clone();
            let running = snapshot.running.iter().map(|r| format!("runs {:?}", r.attempt));
            let waiting = snapshot.retrying.iter().map(|r| {
                let why = r.why.as_ref().map(symphony_core::board::NotNow::code).unwrap_or_default();
                format!("waits {} {why} {}", r.attempt, r.error.clone().unwrap_or_default())
            });
            let of_a =
                snapshot.running.iter().map(|r| &r.identifier).chain(snapshot.retrying.iter().map(|r| &r.identifier));
            let line = running.chain(waiting).zip(of_a).find(|(_, name)| name.0 == "A").map(|(line, _)| line);
            seen.extend(line.filter(|line| seen.last() != Some(line)));
            if snapshot.retrying.iter().any(|row| row.attempt == 12) {
                break;
            }
            watch.changed().await.expect("the conductor lives");
        }
    };
    // Others come and go meanwhile.
    let others = async {
        for number in 0.. {
            rig.drop_issue(&format!("B-{number}"), &[&[Step::Work(200), Step::Done]]).await;
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = others => {}
    }
    assert!(begun.elapsed() > Duration::from_secs(7200));

    let starts = rig.world.starts("A");
    let waits: Vec<u64> = gaps(&starts).iter().map(|gap| gap - TAKES * 1000).collect();
    let expected = [10, 20, 40, 1, 1, 10, 20, 40, 80, 160, 300, 300, 300, 300, 300, 300];
    assert_eq!(waits, expected.map(|seconds| seconds * 1000));
    let attempts: Vec<_> = starts.iter().map(|start| start.attempt).collect();
    assert_eq!(attempts[..7], [None, Some(1), Some(2), Some(3), Some(1), Some(1), Some(1)]);
    assert_eq!(attempts[7..], (2..=11).map(Some).collect::<Vec<_>>());
    let kinds: Vec<_> = starts[..7].iter().map(|start| start.kind).collect();
    use RetryKind::{Continuation, Failure, First};
    assert_eq!(kinds, [First, Failure, Failure, Failure, Continuation, Continuation, Failure]);
    let boom = "turn_failed: boom";
    // At both ends of a wait a look is under way; otherwise it says what it waits for.
    let passing =
        |line: &String| line.contains(" unconfirmed ") || line.ends_with(&format!("  {boom}")) || line.ends_with("  ");
    let seen: Vec<String> = seen.into_iter().filter(|line| !passing(line)).collect();
    let story =
        ["runs None", &format!("waits 1 backing-off {boom}"), "runs Some(1)", &format!("waits 2 backing-off {boom}")];
    assert_eq!(seen[..4], story);
    assert_eq!(seen[6..10], ["runs Some(3)", "waits 1 backing-off ", "runs Some(1)", "waits 1 backing-off "]);
    assert!(seen.iter().all(|line| line.starts_with("runs ") || line.contains(" backing-off ")), "{seen:?}");
    let others = (0..12).filter(|number| rig.world.state(&format!("B-{number}")) == "Done").count();
    assert_eq!(others, 12, "nobody else was held up");

    let counters = rig.memory().await.counters.remove(&IssueId("A".into())).expect("remembered");
    assert_eq!((counters.used.sessions, counters.used.turns, counters.failures_in_a_row), (17, 17, 12));
    assert_eq!(counters.used.wall_ms, 17 * TAKES * 1000);
    let last = counters.last.expect("remembered");
    assert_eq!((last.reason, last.end.as_str()), (EndReason::AgentError, boom));
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_the_middle_of_a_back_off_keeps_the_due_time_and_the_count() {
    let rig = Rig::start(false, &[("A", &[&[Step::Fail]])]);
    rig.until(|s| s.retrying.iter().any(|row| row.attempt == 3)).await;
    let begun = Instant::now();
    let rig = rig.restart().await;
    rig.until(|s| s.retrying.iter().any(|row| row.attempt == 4)).await;
    let starts = rig.world.starts("A");
    // The clock of the world goes on while tokio's stands: a second of it may be gone.
    let waited = (starts[3].at - begun).as_secs_f64();
    assert!((39.0..=40.1).contains(&waited), "{waited}");
    assert_eq!((starts[3].attempt, starts[3].kind), (Some(3), RetryKind::Failure));
    rig.until(|s| rests(s, "A", "Parked")).await;
    assert_eq!(gaps(&rig.world.starts("A"))[3..], [80_000]);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_cannot_be_filled_in_parks_until_there_is_another_also_across_a_restart() {
    let world = World::new(|workflow| workflow.prompt = "broken".into());
    world.put("A", &[&[Step::Render, Step::Done]]);
    let rig = Rig::on(world, false);
    let parked = |s: &Snapshot| rests(s, "A", "Parked") && reason(s, "A") == "parked: broken";
    rig.until(parked).await;
    // Neither time nor looks nor other settings bring it back, nor does a restart.
    let rests_for_an_hour = async |rig: &Rig| {
        let (parked, starts) = (rig.world.state("A"), rig.world.starts("A").len());
        for _ in 0..60 {
            rig.nudge(Nudge::Workflow).await;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!((parked.as_str(), rig.world.state("A").as_str()), ("Parked", "Parked"));
        assert_eq!(rig.world.starts("A").len(), starts);
    };
    rests_for_an_hour(&rig).await;
    rig.world.edit_workflow(|workflow| workflow.agent.max_turns += 1);
    rests_for_an_hour(&rig).await;
    let rig = rig.restart().await;
    rig.until(parked).await;
    rests_for_an_hour(&rig).await;
    assert_eq!(rig.world.starts("A").len(), 1);

    rig.world.edit_workflow(|workflow| workflow.prompt = "mended".into());
    rig.nudge(Nudge::Workflow).await;
    rig.until(|s| rests(s, "A", "Done")).await;
    assert_eq!(rig.world.starts("A").len(), 2);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_changed_while_symphony_was_down_brings_its_issues_back() {
    let world = World::new(|workflow| workflow.prompt = "broken".into());
    world.put("A", &[&[Step::Render, Step::Done]]);
    let rig = Rig::on(world, false);
    rig.until(|s| rests(s, "A", "Parked")).await;
    let (world, dir) = rig.stop().await;
    world.edit_workflow(|workflow| workflow.prompt = "mended".into());
    let rig = Rig::again(world, false, dir);
    rig.until(|s| rests(s, "A", "Done")).await;
    rig.stop().await;
}
