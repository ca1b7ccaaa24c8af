//! The time of a run that a crash ends.

use super::super::*;
use super::rig::Rig;
use super::world::{Step, World};

#[tokio::test(start_paused = true)]
async fn the_time_of_a_long_turn_is_counted_although_a_crash_ends_it() {
    let world = World::new(|workflow| workflow.budget.wall_ms = 3_600_000);
    let long = [Step::Turn, Step::Work(3_500)];
    world.put("A", &[&long, &long]);
    let rig = Rig::on(world, false);
    rig.until(|s| s.running.iter().any(|row| row.turn_count == 1)).await;
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    let rig = rig.crash().await;
    rig.until(|s| s.running.iter().any(|row| row.turn_count == 1)).await;
    let left: Vec<u64> = rig.world.starts("A").iter().map(|start| start.allowance.wall_ms / 60_000).collect();
    assert!(left[0] == 60 && (10..=11).contains(&left[1]), "{left:?} minutes; at most one is forgotten");
    rig.stop().await;
}
