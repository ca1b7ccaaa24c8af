//! The workflows a world may be under.

use indexmap::IndexMap;
use jiff::civil::date;
use symphony_core::board::{Closed, Memory, ModelAccess, NoModel, Policy, Profiles, Refusal};
use symphony_core::broker::Provider;
use symphony_core::broker::quota::Pause;
use symphony_core::ids::{IssueId, StateName};
use symphony_core::spend::{Cap, Caps, Met, Scope, Standing, Unit};
use symphony_core::workflow::{Budget, OnBlockerCancelled, Role, StateRule, States};

use crate::choices::Choices;
use crate::world::NAMES;

pub(crate) fn policy(choices: &mut Choices) -> Policy {
    let active = |max_concurrent| StateRule { max_concurrent, ..StateRule::of(Role::Active) };
    let rules: IndexMap<StateName, StateRule> = [
        ("Todo", active(choices.one(&[None, Some(1), Some(2)]))),
        ("Review", active(None)),
        ("Parked", StateRule::of(Role::Holding)),
        ("Done", StateRule::of(Role::Terminal)),
        ("Cancelled", StateRule::of(Role::Terminal)),
    ]
    .map(|(name, rule)| (StateName::new(name), rule))
    .into_iter()
    .collect();
    Policy {
        states: States { rules, declared: true },
        max_concurrent: choices.one(&[2, 1, 3, 10]),
        max_backoff_ms: choices.one(&[300_000, 1, 20_000]),
        interval_ms: choices.one(&[30_000, 1, 3_600_000]),
        required_labels: choices.one(&[vec![], vec!["go".to_owned()]]),
        budget: Budget {
            sessions: choices.one(&[10, 1, 3]),
            turns: choices.one(&[60, 1, 6]),
            failures_in_a_row: choices.one(&[5, 1, 2]),
            wall_ms: choices.one(&[14_400_000, 60_000, 3_000]),
            bounces: choices.one(&[6, 1, 2]),
            no_progress: choices.one(&[3, 1, 2]),
        },
        release_after_ms: choices.one(&[1_800_000, 1, 5_000]),
        on_blocker_cancelled: choices.one(&[
            OnBlockerCancelled::Wait,
            OnBlockerCancelled::Unblock,
            OnBlockerCancelled::Park,
        ]),
        prompt: choices.one(&["p1", "p2"]).to_owned(),
        profiles: profiles(choices),
        models: models(choices),
        memory: choices.one(&[None, Some(Memory { available_mib: 100_000, needed_mib: 1_000 })]),
        spend: spend(choices),
        closed: choices.rarely(8).then_some(Closed::WorkflowBroken),
    }
}

/// Caps that a reload raises, lowers or takes away, days, and issues without room beside the requests of others.
fn spend(choices: &mut Choices) -> Standing {
    let cap = Cap { tokens: choices.one(&[Some(100), Some(200), None]), money: None };
    let today = choices.one(&[date(2026, 1, 31), date(2026, 2, 1)]);
    let spend = Standing { today, caps: Caps { issue: cap, day: cap, workflow: cap }, ..Standing::default() };
    let shut = choices.rarely(8).then(|| met(&spend, Scope::Day));
    let crowded_out = NAMES.iter().filter(|_| choices.rarely(10)).map(|name| IssueId((*name).into())).collect();
    Standing { shut, crowded_out, ..spend }
}

/// A cap of this scope, met now.
pub(crate) fn met(spend: &Standing, scope: Scope) -> Met {
    let allowed = spend.caps.of(scope).tokens.unwrap_or(100);
    Met { scope, unit: Unit::Tokens, day: spend.today, used: allowed, asked: 1, answer: 0, allowed }
}

/// `small` is always listed, `image` may be refused, and `gone` never is listed.
fn profiles(choices: &mut Choices) -> Profiles {
    let lacking = Refusal::Lacking { what: "no image".to_owned(), hint: "build one".to_owned() };
    let refused = [Refusal::Runtime("names an image".to_owned()), lacking.clone(), Refusal::Unclear("EIO".to_owned())];
    let [never, not_yet, perhaps] = refused.map(Some);
    let refused = choices.one(&[None, never, not_yet, perhaps]);
    Profiles {
        unnamed: choices.rarely(8).then_some(lacking),
        default: choices.one(&[None, Some("small".to_owned())]),
        listed: [("small".to_owned(), None), ("image".to_owned(), refused)].into_iter().collect(),
    }
}

/// The agent in `Todo` asks one provider, of the one in `Review` nobody knows.
fn models(choices: &mut Choices) -> ModelAccess {
    let paused = |pause| Some(NoModel::Paused(pause, jiff::Timestamp::UNIX_EPOCH));
    let (asked, empty) = (paused(Pause::Asked), paused(Pause::Empty));
    let closed = choices.one(&[None, None, asked, empty, Some(NoModel::NoCredential("no key".to_owned()))]);
    ModelAccess {
        asks: [(StateName::new("Todo"), &[Provider::Anthropic][..])].into_iter().collect(),
        closed: closed.map(|why| (Provider::Anthropic, why)).into_iter().collect(),
        ..ModelAccess::default()
    }
}
