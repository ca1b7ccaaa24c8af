//! The board in a hostile world, by seed: no tokio, no real time. `scripts/sim` runs more seeds than `scripts/test`.
//!
//! A failure prints its seed and the last 40 events. Seeds that once failed stand in `regressions.txt`.

mod asks;
mod check;
mod choices;
mod counts;
mod lines;
mod model;
mod people;
mod reach;
mod rules;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use choices::Choices;
use reach::Reached;
use world::World;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 4_000;

/// One life of one world; what it did last when something did not hold.
fn live(choices: Choices) -> Result<Reached, String> {
    let mut world = World::new(choices);
    let lived = catch_unwind(AssertUnwindSafe(|| world.live_to_the_end()));
    let Err(why) = lived else { return Ok(world.reached) };
    let said = why.downcast_ref::<String>().cloned();
    let said = said.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default();
    let last: Vec<String> = world.log.into_iter().collect();
    Err(format!("{said}\nthe last {} events:\n{}", last.len(), last.join("\n")))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_seed_catches_the_board_out() {
    // Panics are caught and told with their seed; the hook would print each once more.
    std::panic::set_hook(Box::new(|_| {}));
    let (from, seeds) = (number("SIM_FROM").unwrap_or(1), number("SIM_SEEDS").unwrap_or(SEEDS));
    let mut reached = Reached::new();
    let failed = (from..from + seeds).find_map(|seed| match live(Choices::of_seed(seed)) {
        Ok(more) => {
            reached.extend(more);
            None
        }
        Err(why) => Some((seed, why)),
    });
    drop(std::panic::take_hook());
    if let Some((seed, why)) = failed {
        panic!("seed {seed}: {why}\nagain: scripts/sim --seeds 1 --from {seed}");
    }
    if seeds >= SEEDS {
        assert_eq!(reach::missing(&reached), [], "these worlds are too tame: nothing in them led to this");
    }
    println!("{seeds} seeds from {from}: none failed");
}

#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    let seeds = include_str!("regressions.txt").lines().map(str::trim).filter(|line| !line.is_empty());
    for seed in seeds.filter(|line| !line.starts_with('#')) {
        let seed: u64 = seed.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a seed");
        if let Err(why) = live(Choices::of_seed(seed)) {
            panic!("seed {seed}: {why}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: number("SIM_CASES").and_then(|n| n.try_into().ok()).unwrap_or(300), max_shrink_iters: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same world driven by bytes, so that what fails shrinks to a short script.
    #[test]
    fn no_script_makes_board_and_model_disagree(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let lived = live(Choices::of_bytes(bytes));
        prop_assert!(lived.is_ok(), "{}", lived.err().unwrap_or_default());
    }
}
