//! Cards of hosts, and the issues that they are of.

use symphony_core::egress::Target;

use super::super::*;
use super::rig::Rig;
use super::world::{Part, Step, World};
use crate::journal::Origin;

/// A world whose journal has a card of each of these.
async fn asked(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let (journal, _) = Journal::open(&dir.path().join("journal.db"), Origin::default()).expect("opens");
    for name in names {
        let target = Target::parse("asked.example:443").expect("a host");
        journal.egress_asked(RunId(1), IssueId((*name).into()), target).await.expect("kept");
    }
    dir
}

fn cards(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.hosts_asked.iter().map(|row| row.card.issue.0.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn cards_of_an_issue_whose_file_is_gone_are_withdrawn_at_the_second_good_look() {
    let world = World::new(|_| {});
    world.put("HELD", &[&[Step::Done]]);
    world.place("HELD", "Parked");
    world.put("RUNS", &[&[Step::Turn]]);
    world.hang(Part::Scan);
    let rig = Rig::again(world, false, asked(&["GONE", "HELD", "RUNS"]).await);
    rig.until(|s| s.tracker_problem.is_some()).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(cards(&rig.handle.snapshot()), ["GONE", "HELD", "RUNS"], "what could not be looked at is not gone");
    rig.world.heal(Part::Scan);
    rig.until(|s| cards(s) == ["HELD", "RUNS"]).await;
    // A run that lives may still need it.
    rig.world.delete("RUNS");
    rig.world.delete("HELD");
    rig.until(|s| cards(s) == ["RUNS"]).await;
    rig.until(|s| cards(s).is_empty() && s.running.is_empty()).await;
    assert!(rig.memory().await.egress.cards.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_read_may_be_the_one_that_seems_gone() {
    let world = World::new(|_| {});
    world.malform("GONE.md");
    let rig = Rig::again(world, false, asked(&["GONE"]).await);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(cards(&rig.handle.snapshot()), ["GONE"]);
    rig.world.mend();
    rig.until(|s| cards(s).is_empty()).await;
    rig.stop().await;
}
