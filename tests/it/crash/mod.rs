//! `kill -9` of the real binary at every point where it writes something down, and what must hold after the restart.
//!
//! The points are `symphony::failpoint::STEPS`; a point that is new there is killed at here without another line.

mod check;
mod drive;
mod troubles;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use symphony::failpoint;

use self::drive::Scene;
use crate::skip::skip;

/// Points that the scenario cannot come to, each with the reason.
const OUT_OF_REACH: &[(&str, &str)] = &[
    ("journal/probed", "a write of no meaning, made only after another one failed"),
    ("journal/raised", "nobody is at a cap here; model/spending.rs kills at it"),
    ("journal/compacted", "the other checks read all events; troubles.rs kills at it"),
];

/// The points that every run of the tests kills at: one of each kind of promise.
const ALWAYS: &[&str] = &[
    "journal/made/torn",
    "journal/run_started/after",
    "journal/turn_began/torn",
    "journal/turn_ended/after",
    "journal/reserved/after",
    "journal/settled/before",
    "journal/standing/after",
    "journal/in_vain/torn",
    "journal/asked/after",
    "journal/answered/after",
    "journal/run_ended/before",
    "journal/parked/after",
    "journal/egress_decided/after",
    "issue/move/after",
    "airlock/refs/after",
    "patch/write/after",
    "branch/advance/torn",
];

fn is_out_of_reach(point: &str) -> bool {
    OUT_OF_REACH.iter().any(|(step, _)| point.starts_with(step))
}

/// How often an undisturbed run comes to each point.
fn passes() -> BTreeMap<String, usize> {
    let scene = Scene::new();
    let log = scene.project.beside("points");
    let died = scene.run(&[("SYMPHONY_FAILPOINT_LOG", log.to_str().expect("utf-8"))]);
    assert!(!died, "nobody asked for it");
    let wrong = check::all(&scene);
    assert!(wrong.is_empty(), "without any kill: {wrong:#?}");
    assert!(scene.project.read("issues/Parked/B-1.md").contains("Parked: "), "the note of its parking");
    let mut passes = BTreeMap::new();
    for point in std::fs::read_to_string(log).expect("written").lines() {
        *passes.entry(point.to_owned()).or_default() += 1;
    }
    passes
}

/// Runs until it dies at the point, then again until everything is settled. What is wrong then; `None`: it never died.
fn case(order: &str) -> Option<Vec<String>> {
    let scene = Scene::new();
    let died = scene.run(&[("SYMPHONY_FAILPOINT", order)]);
    if !died {
        return None;
    }
    assert!(!scene.run(&[]), "it ends by itself the second time");
    Some(check::all(&scene))
}

/// Carries out the cases, some at once. Prints each, and returns what went wrong.
fn matrix(orders: &[String], at_once: usize) -> Vec<String> {
    let (next, wrong) = (AtomicUsize::new(0), Mutex::new(vec![]));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(order) = orders.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let begun = Instant::now();
                    let found = match catch_unwind(AssertUnwindSafe(|| case(order))) {
                        Ok(Some(found)) => found,
                        Ok(None) => vec!["it was never reached".to_owned()],
                        Err(panic) => {
                            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                            vec![format!("the case could not be carried out: {text}")]
                        }
                    };
                    let outcome = if found.is_empty() { "well".to_owned() } else { format!("WRONG: {found:#?}") };
                    println!("{order}: {} s, {outcome}", begun.elapsed().as_secs());
                    wrong.lock().expect("lock").extend(found.into_iter().map(|what| format!("{order}: {what}")));
                }
            });
        }
    });
    println!("{} kills in {} s", orders.len(), started.elapsed().as_secs());
    wrong.into_inner().expect("lock")
}

#[test]
fn a_kill_at_one_point_of_each_kind_loses_nothing_and_starts_nothing_twice() {
    let orders: Vec<String> = ALWAYS.iter().map(|point| (*point).to_owned()).collect();
    let wrong = matrix(&orders, 3);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// `scripts/test-crash`: all of them, each that is passed more than once also at its second time.
#[test]
fn a_kill_at_every_point_loses_nothing_and_starts_nothing_twice() {
    let Some(only) = std::env::var("SYMPHONY_CRASH_MATRIX").ok() else {
        skip("the whole matrix takes a while; scripts/test-crash runs it");
        return;
    };
    let passes = passes();
    let (mut orders, mut unreached) = (vec![], vec![]);
    for point in failpoint::points().filter(|point| only == "all" || point.contains(&only)) {
        match passes.get(&point).copied().unwrap_or(0) {
            0 if is_out_of_reach(&point) => {}
            0 => unreached.push(point),
            // What happens to an issue's file is few and different things: all of them.
            times => {
                let most = if point.starts_with("issue/") { 6 } else { 2 };
                orders.extend((1..=times.min(most)).map(|time| format!("{point}:{time}")));
            }
        }
    }
    for (step, why) in OUT_OF_REACH {
        println!("not reached: {step}: {why}");
    }
    println!("{} points, {} kills", failpoint::points().count(), orders.len());
    // A run waits more than it works.
    let at_once = std::thread::available_parallelism().map_or(2, usize::from) * 4;
    let wrong = matrix(&orders, at_once);
    assert!(unreached.is_empty(), "the scenario does not come to {unreached:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
