//! Providers that would not answer: who waits for them, what that costs, and what brings an issue forward.

use super::*;
use crate::broker::Provider;
use crate::broker::quota::Pause;

fn asking(closed: &[(Provider, NoModel)]) -> Policy {
    let asks = [(StateName::new("Todo"), &[Provider::Anthropic][..])].into_iter().collect();
    Policy {
        models: ModelAccess { asks, closed: closed.iter().cloned().collect(), ..ModelAccess::default() },
        ..policy()
    }
}

fn paused() -> NoModel {
    NoModel::Paused(Pause::Asked, "2026-11-27T02:10:00Z".parse().expect("an instant"))
}

fn look(board: &mut Board, now: u64, names: &[(&str, &str)], policy: &Policy) -> Vec<Command> {
    board.step(Tick(now), Event::LookWanted, policy);
    let issues = names.iter().map(|(name, state)| issue(name, state)).collect();
    board.step(Tick(now), Event::PollEnded(Ok(Scan { issues, ..Scan::default() })), policy)
}

fn starts(commands: &[Command]) -> Vec<(&str, RunId)> {
    let plans = commands.iter().filter_map(|command| match command {
        Command::Start(plan) => Some((plan.issue.id.0.as_str(), plan.run)),
        _ => None,
    });
    plans.collect()
}

#[test]
fn an_issue_waits_for_the_only_provider_its_agent_asks_and_others_go_on() {
    let mut board = Board::new(Past::default());
    let names = [("A", "Todo"), ("B", "In Progress")];
    let closed = asking(&[(Provider::Anthropic, paused())]);
    assert_eq!(starts(&look(&mut board, 1, &names, &closed)), [("B", RunId(0))], "of B's agent nobody knows");
    let why = board.verdict(&issue("A", "Todo"), Tick(2), &closed).expect_err("it waits");
    assert_eq!((why.code(), why.to_string()), ("provider-paused", "anthropic asks to wait; resumes 02:10 UTC".into()));
    let other = asking(&[(Provider::OpenAi, NoModel::NoCredential("no key".into()))]);
    assert_eq!(starts(&look(&mut board, 3, &names, &other)), [("A", RunId(1))]);
}

#[test]
fn of_several_providers_one_is_enough_and_what_mends_itself_is_said_first() {
    let asks = [(StateName::new("Todo"), &[Provider::Anthropic, Provider::OpenAi][..])].into_iter().collect();
    let missing = |name: &str| NoModel::NoCredential(format!("no {name}"));
    let mut access = ModelAccess { asks, ..ModelAccess::default() };
    access.closed.insert(Provider::Anthropic, missing("a"));
    assert_eq!(access.admit(&StateName::new("Todo"), None), Ok(()));
    access.closed.insert(Provider::OpenAi, missing("o"));
    let said = |access: &ModelAccess| access.admit(&StateName::new("todo"), None).map_err(|why| why.to_string());
    assert_eq!(said(&access), Err("no a; or no o".into()));
    access.closed.insert(Provider::OpenAi, paused());
    assert_eq!(said(&access), Err("openai asks to wait; resumes 02:10 UTC".into()));
}

#[test]
fn a_run_that_a_provider_sent_away_costs_nothing_but_its_time_and_goes_on_when_that_provider_answers() {
    let mut board = Board::new(Past::default());
    // An agent of which nobody knows what it asks: without a memory of why, it would start again and again.
    let names = [("B", "In Progress")];
    let (open, closed) = (asking(&[]), asking(&[(Provider::OpenAi, paused())]));
    look(&mut board, 1, &names, &open);
    board.step(Tick(10), Event::TurnBegan(RunId(0), 1), &open);
    let end = RunEnd::Stopped(StopCause::ProviderPaused(Provider::OpenAi));
    board.step(Tick(500), Event::RunEnded(RunId(0), end, None), &open);
    let counters = board.counters(&IssueId("B".into()));
    let since = counters.since_grant();
    assert_eq!((since.sessions, since.turns, since.wall_ms), (0, 0, 499));
    assert_eq!((counters.failures_in_a_row, counters.unchanged_in_a_row), (0, 0));
    assert_eq!(counters.last.as_ref().map(|last| last.reason.as_str()), Some("provider-paused"));
    assert_eq!(starts(&look(&mut board, 600, &names, &closed)), []);
    let why = board.verdict(&issue("B", "In Progress"), Tick(700), &closed).expect_err("it waits");
    assert_eq!(why.code(), "provider-paused");
    assert_eq!(board.settled(Tick(700), &closed), None, "a wait ends by itself");
    let again = look(&mut board, 800, &names, &open);
    let Some(Command::Start(plan)) = again.iter().find(|command| matches!(command, Command::Start(_))) else {
        panic!("{again:?}")
    };
    assert_eq!((plan.kind, plan.attempt), (RetryKind::Continuation, Some(1)));
}

#[test]
fn a_missing_credential_waits_for_a_person_without_parking() {
    let mut board = Board::new(Past::default());
    let closed = asking(&[(Provider::Anthropic, NoModel::NoCredential("no key: set KEY".into()))]);
    let commands = look(&mut board, 1, &[("A", "Todo")], &closed);
    assert!(
        !commands.iter().any(|command| matches!(command, Command::Start(_) | Command::Park { .. })),
        "{commands:?}"
    );
    look(&mut board, 300, &[("A", "Todo")], &closed);
    assert_eq!(board.settled(Tick(301), &closed), Some(Settled::NeedsHuman));
    let appeared = look(&mut board, 400, &[("A", "Todo")], &asking(&[]));
    assert_eq!(starts(&appeared), [("A", RunId(0))]);
}

/// Regression: `--once` waited for ever for an account without credit, and nobody was told what to do.
#[test]
fn an_account_without_credit_is_a_matter_for_a_person_and_asked_again_by_itself() {
    let mut board = Board::new(Past::default());
    let empty = NoModel::Paused(Pause::Empty, "2026-11-27T03:10:00Z".parse().expect("an instant"));
    let closed = asking(&[(Provider::Anthropic, empty.clone())]);
    look(&mut board, 1, &[("A", "Todo")], &closed);
    let why = board.verdict(&issue("A", "Todo"), Tick(2), &closed).expect_err("it waits");
    assert_eq!(why.code(), "no-credit");
    assert!(why.to_string().contains("no credit left: add credit there, or change the key"), "{why}");
    assert!(why.to_string().ends_with("asked again at 03:10 UTC"), "{why}");
    assert_eq!(board.settled(Tick(3), &closed), Some(Settled::NeedsHuman));
    assert_eq!(starts(&look(&mut board, 4, &[("A", "Todo")], &asking(&[]))), [("A", RunId(0))]);
    // Beside another provider: what mends itself is said first, and of what does not, all of it.
    let asks = [(StateName::new("Todo"), &[Provider::Anthropic, Provider::OpenAi][..])].into_iter().collect();
    let mut access =
        ModelAccess { asks, closed: [(Provider::Anthropic, empty)].into_iter().collect(), ..ModelAccess::default() };
    let said = |access: &ModelAccess| access.admit(&StateName::new("Todo"), None).map_err(|why| why.to_string());
    access.closed.insert(Provider::OpenAi, paused());
    assert_eq!(said(&access), Err("openai asks to wait; resumes 02:10 UTC".into()));
    access.closed.insert(Provider::OpenAi, NoModel::NoCredential("no key".into()));
    let both = said(&access).expect_err("closed");
    assert!(both.starts_with("anthropic says that ") && both.ends_with("03:10 UTC; or no key"), "{both}");
}

#[test]
fn while_a_request_is_held_no_wall_time_passes_and_none_runs_out() {
    let mut board = Board::new(Past::default());
    let mut policy = asking(&[]);
    policy.budget.wall_ms = 1000;
    look(&mut board, 0, &[("A", "Todo")], &policy);
    board.step(Tick(400), Event::Held(RunId(0), true), &policy);
    assert_eq!(board.step(Tick(50_000), Event::Woke, &policy).iter().find(|c| matches!(c, Command::Stop(..))), None);
    assert_eq!(board.counters_at(Tick(50_000), &IssueId("A".into())).used.wall_ms, 400);
    board.step(Tick(60_000), Event::Held(RunId(0), false), &policy);
    let over = board.step(Tick(60_600), Event::Woke, &policy);
    assert!(over.contains(&Command::Stop(RunId(0), StopCause::WallTime)), "{over:?}");
}
