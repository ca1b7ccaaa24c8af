//! Something never ends: an attempt, a removal. Everything else goes on, and symphony itself can always be ended.

use super::super::shutdown::{DRAIN_DEADLINE, KILL_DEADLINE};
use super::super::*;
use super::rig::{Rig, conductor, reason, rests, runs};
use super::world::{Part, Step, World};

/// As often as readers may see something new at most.
const FRESH: Duration = Duration::from_millis(50);

#[tokio::test(start_paused = true)]
async fn beside_a_wedged_run_everything_goes_on_and_readers_see_it_at_once() {
    let rig = Rig::start(false, &[("A", &[&[Step::Turn, Step::Wedge]])]);
    let mut version = rig.until(|s| runs(s, "A")).await.version;
    for number in 0..20 {
        let (name, dropped) = (format!("B-{number}"), Instant::now());
        rig.drop_issue(&name, &[&[Step::Turn, Step::Work(10), Step::Done]]).await;
        let seen = rig.until(|s| runs(s, &name)).await;
        assert!(dropped.elapsed() <= FRESH, "{:?}", dropped.elapsed());
        assert!(seen.version > version && runs(&seen, "A"));
        version = rig.until(|s| rests(s, &name, "Done")).await.version;
        assert!(dropped.elapsed() <= Duration::from_secs(10) + FRESH, "{:?}", dropped.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wedged_run_is_asked_to_stop_when_its_wall_time_is_used_up_and_keeps_its_slot_until_it_ends() {
    const WALL_MS: u64 = 754_321;
    let world = World::new(|workflow| {
        (workflow.budget.wall_ms, workflow.agent.max_concurrent_agents) = (WALL_MS, 1);
    });
    world.put("A", &[&[Step::Turn, Step::Wedge]]);
    let rig = Rig::on(world, false);
    rig.until(|s| runs(s, "A")).await;
    rig.drop_issue("B", &[&[Step::Done]]).await;
    let seen = rig.until(|s| s.running.iter().any(|row| row.phase == "stopping: out of wall time")).await;
    let (cause, at) = rig.world.stop_of("A").expect("asked to stop");
    assert_eq!(cause, StopCause::WallTime);
    assert_eq!(at - rig.world.starts("A")[0].at, Duration::from_millis(WALL_MS));
    assert_eq!(reason(&seen, "B"), "all 1 slots are taken");
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert!(rig.world.starts("B").is_empty() && rig.world.starts("A").len() == 1, "its sandbox may still be there");
}

/// Stops a conductor on this world by these signals, each so long after the one before; how it ended, and when.
async fn stopped(world: Arc<World>, signals: &[u64]) -> (Option<Settled>, Duration) {
    let dir = tempfile::tempdir().expect("directory");
    let (conductor, _handle) = conductor(&world, &dir, false);
    let mut signals = signals.iter();
    let asked = async || match signals.next() {
        Some(after) => tokio::time::sleep(Duration::from_secs(*after)).await,
        None => std::future::pending().await,
    };
    let (_nudge, nudges) = mpsc::channel(1);
    let begun = Instant::now();
    (conductor.run_until_asked(nudges, asked).await, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_a_wedged_run_ignores_is_cut_off_at_its_deadline() {
    let world = World::new(|_| {});
    world.put("A", &[&[Step::Turn, Step::Wedge]]);
    world.put("B", &[&[Step::Turn]]);
    let begun = Instant::now();
    let (settled, took) = stopped(world.clone(), &[60]).await;
    assert_eq!((settled, took), (None, Duration::from_secs(60) + DRAIN_DEADLINE));
    for name in ["A", "B"] {
        assert_eq!(world.stop_of(name), Some((StopCause::Drain, begun + Duration::from_secs(60))), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_signal_ends_everything_at_once_whatever_hangs() {
    let world = World::new(|_| {});
    world.hang(Part::Removal);
    world.put("A", &[&[Step::Turn, Step::Wedge]]);
    world.put("B", &[&[Step::Done]]);
    assert_eq!(stopped(world, &[60, 5]).await, (None, Duration::from_secs(65)));
    // Also in the middle of a look that hangs: only the journal's last writes have a moment more.
    let world = World::new(|_| {});
    world.put("A", &[&[Step::Turn, Step::Wedge]]);
    let hangs = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(55)).await;
        hangs.hang(Part::Scan);
    });
    let (settled, took) = stopped(world, &[61, 1]).await;
    assert_eq!(settled, None);
    assert!(took <= Duration::from_secs(62) + KILL_DEADLINE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_everybody_heeds_ends_at_once_and_is_no_failure() {
    let world = World::new(|_| {});
    world.put("A", &[&[Step::Turn]]);
    world.put("B", &[&[Step::Ask]]);
    assert_eq!(stopped(world, &[60]).await, (Some(Settled::Finished), Duration::from_secs(60)));
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_never_ends_is_given_up_after_a_quarter_of_an_hour_and_holds_up_nothing_else() {
    let rig = Rig::start(false, &[]);
    rig.world.hang(Part::Removal);
    let begun = Instant::now();
    rig.drop_issue("A", &[&[Step::Done]]).await;
    rig.until(|s| reason(s, "A") == "its old workspace is being removed").await;
    // The other slot and this one are free meanwhile.
    rig.drop_issue("B", &[&[Step::Work(60), Step::Fail]]).await;
    rig.drop_issue("C", &[&[]]).await;
    rig.until(|s| runs(s, "B") && runs(s, "C")).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    rig.until(|s| s.retrying.iter().any(|row| row.identifier.0 == "B")).await;
    // A person wants A done once more: it starts when the removal is given up, not before.
    rig.drop_issue("A", &[&[]]).await;
    rig.until(|s| runs(s, "A")).await;
    let again = rig.world.starts("A")[1].at - begun;
    assert_eq!(again, Duration::from_secs(15 * 60));
    rig.stop().await;
}
