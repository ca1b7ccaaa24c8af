//! Budgets in tokens and money: the run that met one ends, its issue is put aside, and comes back when there is more.

use jiff::civil::{Date, date};

use super::*;
use crate::spend::{Cap, Caps, Met, Scope, Standing, Unit};

const TODAY: Date = date(2026, 1, 31);

fn met(scope: Scope) -> Met {
    Met { scope, unit: Unit::Tokens, day: TODAY, used: 90, asked: 20, answer: 0, allowed: 100 }
}

fn standing(tokens: u64) -> Standing {
    let cap = Cap { tokens: Some(tokens), money: None };
    Standing { today: TODAY, caps: Caps { issue: cap, day: cap, workflow: cap }, ..Standing::default() }
}

/// A-1 was running and met this cap; it stands in the parking state now.
fn parked(scope: Scope) -> World {
    let mut w = World::new();
    w.policy.spend = standing(100);
    let (_, run, _) = starts(&w.look(&[issue("A-1", "Todo")]))[0].clone();
    let stop = w.step(Event::SpendMet(run, met(scope)));
    assert!(stop.contains(&Command::Stop(run, StopCause::Spend)), "{stop:?}");
    assert_eq!(w.step(Event::SpendMet(run, met(scope))), [], "it is told once");
    let out = w.step(Event::RunEnded(run, RunEnd::Stopped(StopCause::Spend), None));
    let reason = ParkReason::Spend(met(scope));
    let parks = |c: &Command| matches!(c, Command::Park { reason: found, .. } if *found == reason);
    assert!(out.iter().any(parks), "{out:?}");
    let counters = w.board.counters(&id("A-1"));
    assert_eq!(counters.failures_in_a_row, 0, "nobody failed");
    assert_eq!(counters.last.map(|last| last.reason), Some(EndReason::BudgetSpend));
    w.step(Event::ParkEnded(id("A-1"), Ok(())));
    w.look(&[issue("A-1", "Parked")]);
    w
}

fn resumes(out: &[Command]) -> bool {
    out.iter().any(|command| matches!(command, Command::Resume { issue, .. } if *issue == id("A-1")))
}

#[test]
fn an_issue_parked_over_its_budget_comes_back_when_there_is_more_and_not_before() {
    let mut w = parked(Scope::Issue);
    let here = [issue("A-1", "Parked")];
    assert!(!resumes(&w.look(&here)));
    w.policy.spend.today = date(2026, 2, 1);
    assert!(!resumes(&w.look(&here)), "another day is no more for an issue");
    w.policy.spend.raised.insert(id("A-1"), Cap { tokens: Some(101), money: None });
    w.policy.spend.issues.insert(id("A-1"), met(Scope::Issue));
    assert!(!resumes(&w.look(&here)), "not while nothing is left of it all the same");
    w.policy.spend.issues.clear();
    assert!(resumes(&w.look(&here)));
}

#[test]
fn an_issue_parked_over_a_days_budget_comes_back_with_the_next_day() {
    let mut w = parked(Scope::Day);
    let here = [issue("A-1", "Parked")];
    w.policy.spend.shut = Some(met(Scope::Day));
    assert!(!resumes(&w.look(&here)));
    w.policy.spend = Standing { today: date(2026, 2, 1), ..standing(100) };
    assert!(resumes(&w.look(&here)));
    w.step(Event::ResumeEnded(id("A-1"), Err("no room".into())));
    assert!(!resumes(&w.look(&here)), "a move that failed is not tried at each look");
}

#[test]
fn while_the_budget_of_all_is_met_nothing_that_needs_a_model_starts_and_says_when_it_goes_on() {
    let mut w = World::new();
    w.policy.spend = Standing { shut: Some(met(Scope::Day)), ..standing(100) };
    let (a, b) = (issue("A-1", "Todo"), issue("B-1", "In Progress"));
    w.policy.spend.modelless.insert(StateName::new("In Progress"));
    let started = starts(&w.look(&[a.clone(), b]));
    assert_eq!(started.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["B-1"], "it needs no model");
    let why = w.board.verdict(&a, Tick(0), &w.policy).expect_err("it waits");
    assert_eq!(why.code(), "spend");
    assert_eq!(
        why.to_string(),
        "all issues together have on 2026-01-31 used 90 of 100 tokens (budget.day.tokens); it goes on when \
         2026-02-01 begins, or when budget.day.tokens is raised"
    );
}

#[test]
fn an_issue_with_nothing_left_is_parked_without_a_run() {
    let mut w = World::new();
    w.policy.spend = standing(100);
    w.policy.spend.issues.insert(id("A-1"), met(Scope::Issue));
    let out = w.look(&[issue("A-1", "Todo")]);
    assert!(starts(&out).is_empty());
    assert!(out.iter().any(|command| matches!(command, Command::Park { reason: ParkReason::Spend(_), .. })), "{out:?}");
}

#[test]
fn a_cap_met_while_work_is_handed_off_or_a_person_moved_the_issue_parks_nothing() {
    let mut w = World::new();
    let (_, run, _) = starts(&w.look(&[issue("A-1", "Todo")]))[0].clone();
    w.step(Event::RunFinishing(run));
    assert_eq!(w.step(Event::SpendMet(run, met(Scope::Issue))), []);

    let mut w = World::new();
    let (_, run, _) = starts(&w.look(&[issue("A-1", "Todo")]))[0].clone();
    w.step(Event::SpendMet(run, met(Scope::Issue)));
    w.look(&[issue("A-1", "Done")]);
    let out = w.step(Event::RunEnded(run, RunEnd::Stopped(StopCause::Spend), None));
    assert!(!out.iter().any(|command| matches!(command, Command::Park { .. })), "{out:?}");
}

#[test]
fn a_run_without_room_in_a_budget_costs_nothing_but_its_time_and_goes_on_when_there_is_some() {
    let mut w = World::new();
    w.policy.spend = standing(100);
    let a = issue("A-1", "Todo");
    let (_, run, _) = starts(&w.look(std::slice::from_ref(&a)))[0].clone();
    w.step(Event::TurnBegan(run, 1));
    w.now = Tick(w.now.0 + 500);
    w.step(Event::RunEnded(run, RunEnd::Stopped(StopCause::BudgetBusy), None));
    let counters = w.board.counters(&id("A-1"));
    let since = counters.since_grant();
    assert_eq!((since.sessions, since.turns, counters.failures_in_a_row, counters.unchanged_in_a_row), (0, 0, 0, 0));
    assert_eq!(counters.last.map(|last| last.reason.as_str()), Some("budget-busy"));
    w.policy.spend.crowded_out.insert(id("A-1"));
    assert!(starts(&w.look(std::slice::from_ref(&a))).is_empty());
    assert_eq!(w.board.verdict(&a, w.now, &w.policy).expect_err("it waits").code(), "no-budget-room");
    assert_eq!(w.board.settled(w.now, &w.policy), None, "requests end by themselves");
    w.policy.spend.modelless.insert(StateName::new("Todo"));
    assert_eq!(w.board.verdict(&a, w.now, &w.policy), Ok(()), "an agent without a model needs no room");
    w.policy.spend.modelless.clear();
    w.policy.spend.crowded_out.clear();
    assert_eq!(starts(&w.look(&[a])).len(), 1);
}
