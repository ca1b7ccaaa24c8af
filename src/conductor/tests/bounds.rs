//! What bounds a run and the looks: budgets, memory, storms of hints.

use std::sync::atomic::Ordering;

use symphony_core::ids::Identifier;

use super::super::*;
use super::rig::{Rig, reason, rests, runs};
use super::world::{Step, World};

#[tokio::test(start_paused = true)]
async fn waiting_for_a_human_costs_no_wall_time_and_the_clock_goes_on_with_the_answer() {
    let world = World::new(|workflow| workflow.budget.wall_ms = 600_000);
    world.put("A", &[&[Step::Turn, Step::Work(200), Step::Ask, Step::Work(3600)]]);
    let rig = Rig::on(world, false);
    rig.until(|s| s.running.iter().any(|row| row.question.is_some())).await;
    tokio::time::sleep(Duration::from_secs(3 * 24 * 3600)).await;
    assert_eq!(rig.world.stop_of("A"), None);
    let answered = Instant::now();
    rig.handle
        .answer(Identifier("A".into()), None, "that one".into(), symphony_core::steering::By::Api)
        .await
        .expect("taken");
    let seen = rig.until(|s| rests(s, "A", "Parked")).await;
    let (cause, at) = rig.world.stop_of("A").expect("asked to stop");
    assert_eq!((cause, at - answered), (StopCause::WallTime, Duration::from_secs(400)));
    assert_eq!(reason(&seen, "A"), "parked: 10 min of runs did not finish the issue (budget.wall_ms)");
    let counters = rig.memory().await.counters.remove(&IssueId("A".into())).expect("remembered");
    assert_eq!((counters.used.wall_ms, counters.since_grant().wall_ms), (600_000, 0), "parking ends the allowance");
}

#[tokio::test(start_paused = true)]
async fn turns_are_counted_as_they_begin_and_no_crash_gives_them_back() {
    let world = World::new(|workflow| workflow.budget.turns = 5);
    let two = [Step::Turn, Step::Work(10), Step::Turn, Step::AskOffRecord];
    world.put("A", &[&two, &two, &[Step::Turn, Step::Work(10), Step::TurnsUsed]]);
    let mut rig = Rig::on(world, false);
    for _ in 0..2 {
        // The agent is prompted only when the journal has counted the turn; it says so by asking.
        rig.until(|s| s.running.iter().any(|row| row.question.is_some())).await;
        rig = rig.crash().await;
    }
    let seen = rig.until(|s| rests(s, "A", "Parked")).await;
    let left: Vec<u32> = rig.world.starts("A").iter().map(|start| start.allowance.turns).collect();
    assert_eq!(left, [5, 3, 1]);
    assert_eq!(reason(&seen, "A"), "parked: 5 turns did not finish the issue (budget.turns)");
    let counters = rig.memory().await.counters.remove(&IssueId("A".into())).expect("remembered");
    assert_eq!((counters.used.turns, counters.used.sessions), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn a_second_run_waits_for_memory_says_so_and_starts_when_it_is_back() {
    let world = World::new(|workflow| workflow.sandbox.reserve_mib = 1000);
    let free = |mib: u64| *world.available_mib.lock().expect("lock") = Some(mib);
    free(1500);
    world.put("A", &[&[Step::Work(5), Step::Turn, Step::Work(3600), Step::Done]]);
    world.put("B", &[&[Step::Done]]);
    let rig = Rig::on(world.clone(), false);
    let booting = "this machine has 1500 MiB of memory left, a run needs 1000 MiB and one more is just starting";
    let seen = rig.until(|s| reason(s, "B") == booting).await;
    assert!(runs(&seen, "A"));
    free(600);
    rig.until(|s| reason(s, "B") == "this machine has 600 MiB of memory left, a run needs 1000 MiB").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(rig.world.starts("B").is_empty());
    free(1000);
    let back = Instant::now();
    let seen = rig.until(|s| rests(s, "B", "Done")).await;
    assert!(runs(&seen, "A") && back.elapsed() <= Duration::from_secs(31), "at the next poll");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn storms_of_hints_reloads_and_refreshes_cause_few_looks_and_one_run() {
    let world = World::new(|_| {});
    *world.look_takes.lock().expect("lock") = Duration::from_millis(20);
    world.put("A", &[&[Step::Turn]]);
    let rig = Rig::on(world, false);
    rig.until(|s| runs(s, "A")).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let looks = || rig.world.looks.load(Ordering::Relaxed);

    for (nth, hint) in [Nudge::Tracker, Nudge::Workflow].into_iter().enumerate() {
        let before = looks();
        for _ in 0..1000 {
            rig.nudge(hint).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!((1..=2).contains(&(looks() - before)), "storm {nth}: {} looks", looks() - before);
    }
    let before = looks();
    let asked = (0..1000).map(|_| rig.handle.refresh());
    let wanted_already = futures::future::join_all(asked).await.into_iter().filter(|asked| *asked == Ok(true)).count();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!((1..=2).contains(&(looks() - before)), "{} looks", looks() - before);
    assert!(wanted_already >= 998, "{wanted_already}");

    // Spread over time: one look after the other, never two at once.
    let before = looks();
    for _ in 0..1000 {
        rig.nudge(Nudge::Tracker).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spread = looks() - before;
    assert!((2..=5000 / 20 + 2).contains(&spread), "{spread} looks");
    assert_eq!(rig.world.starts("A").len(), 1);
    rig.stop().await;
}
