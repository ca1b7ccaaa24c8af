//! Models that no request would pass with are told at load.

use super::*;
use crate::ids::StateName;

fn of(workflow: &Workflow, state: &str) -> Option<String> {
    workflow.barred(&StateName::new(state)).map(|barred| barred.why)
}

/// Regression: every issue of such a state was started once, refused its model, and parked.
#[test]
fn a_model_without_a_price_under_a_cap_of_money_or_outside_the_list_is_told_with_its_place() {
    let (workflow, problem) =
        warned("acp: {adapter: claude, model: big-1}\nbudget: {usd: 5}\nprices:\n  small*: {input: 1, output: 1}");
    let said = of(&workflow, "Todo").expect("barred");
    assert_eq!(said, "its agent is to ask `big-1`, which has no price, and the workflow bounds money");
    assert_eq!((problem.is_error(), problem.line, problem.key.as_deref()), (false, 2, Some("acp.model")));
    assert!(problem.message.ends_with(&said), "{problem}");
    assert!(problem.hint.as_deref().is_some_and(|hint| hint.contains("`big-1: {input: …, output: …}`")), "{problem}");

    let states = "states:\n  Todo: {role: active}\n  Plan: {role: active, adapter: opencode, model: openai/g-1}\n  Done: {role: terminal}";
    let listed = format!("acp: {{adapter: claude, model: big-1}}\nproviders: {{openai: {{models: [g-2]}}}}\n{states}");
    let (workflow, problem) = warned(&listed);
    assert_eq!(of(&workflow, "Todo"), None, "nothing is said of its provider's");
    let said = of(&workflow, "Plan").expect("barred");
    assert_eq!(said, "its agent is to ask `g-1`, which `providers.openai.models` does not list (it lists g-2)");
    assert_eq!((problem.line, problem.key.as_deref()), (6, Some("states.Plan.model")));
}

#[test]
fn a_longer_context_needs_a_price_of_its_own_under_a_cap_of_money() {
    let file = |more: &str| {
        format!(
            "acp: {{model: 'big-1[1m]'}}\nbudget: {{day: {{usd: 5}}}}\nprices: {{big*: {{input: 1, output: 1{more}}}}}"
        )
    };
    let (workflow, _) = warned(&file(""));
    assert!(of(&workflow, "Todo").is_some_and(|why| why.contains("`big-1` with a longer context")));
    assert_eq!(of(&good(&file(", long_context: {above: 200000, input: 2, output: 2}")), "Todo"), None);
}

#[test]
fn nothing_is_claimed_of_a_model_that_only_its_agent_knows_or_that_no_cap_of_money_counts() {
    for settings in [
        "acp: {model: opus}\nbudget: {usd: 5}",
        "acp: {model: 'sonnet[1m]'}\nbudget: {usd: 5}",
        "acp: {adapter: gemini, model: pro}\nbudget: {usd: 5}",
        // Regression: these are names of the agents' own, too.
        "acp: {model: fable}\nbudget: {usd: 5}",
        "acp: {model: Opus}\nbudget: {usd: 5}",
        "acp: {adapter: gemini, model: auto-gemini-3}\nbudget: {usd: 5}",
        "acp: {adapter: opencode, model: big-1}\nbudget: {usd: 5}",
        "acp: {adapter: script, model: big-1}\nbudget: {usd: 5}",
        "acp: {command: mine, model: big-1}\nbudget: {usd: 5}",
        "budget: {usd: 5}",
        "acp: {model: big-1}\nbudget: {tokens: 5}",
        "acp: {adapter: codex, model: g-1}\nbudget: {usd: 5}\nprices: {g-*: {input: 1, output: 1}}\nproviders: {openai: {models: [g-1]}, anthropic: {models: [x]}}",
    ] {
        let workflow = good(settings);
        assert_eq!(of(&workflow, "Todo"), None, "{settings}");
    }
}
