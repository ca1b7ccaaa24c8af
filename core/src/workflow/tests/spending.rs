//! `prices` and budgets in tokens and money.

use super::*;
use crate::money::Money;
use crate::spend::{Cap, Caps, Price, Rates, Rules};

fn usd(text: &str) -> Money {
    Money::parse(text).expect("an amount")
}

#[test]
fn budgets_and_prices_are_read_as_written_and_there_are_none_by_default() {
    assert_eq!(good("").spending, Rules::default());
    let rules = good(
        "budget: {tokens: 2000000, usd: 2.50, assumed_output_tokens: 4000, day: {usd: '$20'}, workflow: {tokens: 9}}\n\
         prices:\n  big-1.5*: {input: 3, output: 15.0, cache_read: 0.3, cache_write: 3.75}\n  \"*\": {input: 0, output: 0}\n  \
         big-1.5* priority: {input: 6, output: 30}",
    )
    .spending;
    let caps = Caps {
        issue: Cap { tokens: Some(2_000_000), money: Some(usd("2.5")) },
        day: Cap { tokens: None, money: Some(usd("20")) },
        workflow: Cap { tokens: Some(9), money: None },
    };
    assert_eq!((rules.caps, rules.assumed_output), (caps, 4000));
    let usual = Rates {
        input: usd("3"),
        output: usd("15"),
        cache_read: usd("0.3"),
        cache_write: usd("3.75"),
        cache_write_1h: usd("6"),
    };
    assert_eq!(rules.prices.of("big-1.5-a", None), Some(Price { usual, long: None }));
    // Regression: what is written into a cache was taken for plain input where its price was not said.
    let dear = rules.prices.of("big-1.5-a", Some("priority")).expect("priced").usual;
    assert_eq!(
        (dear.input, dear.cache_read, dear.cache_write, dear.cache_write_1h),
        (usd("6"), usd("6"), usd("7.5"), usd("12")),
        "as Anthropic does, unless said"
    );
    assert_eq!(rules.prices.of("other", None).map(|price| price.usual.output), Some(Money(0)));
    let own = "prices: {a: {input: 1, output: 5, cache_write: 9, long_context: {above: 200000, input: 2, output: 7.5}}, b: {input: 1, output: 1, cache_write_1h: 1}}";
    let own = good(own).spending.prices;
    let (usual, long) = own.of("a", None).map(|price| (price.usual, price.long)).expect("priced");
    assert_eq!((usual.cache_write, usual.cache_write_1h), (usd("9"), usd("9")), "what is dearer counts");
    let (above, long) = long.expect("priced");
    assert_eq!((above, long.input, long.output, long.cache_write_1h), (200_000, usd("2"), usd("7.5"), usd("4")));
    assert_eq!(own.of("b", None).map(|price| price.usual.cache_write_1h), Some(usd("1")));
}

#[test]
fn a_cap_or_price_that_cannot_be_read_is_an_error_with_its_place_and_a_hint() {
    for (settings, key, column) in [
        ("budget: {tokens: lots}", "budget.tokens", 18),
        ("budget: {tokens: 0}", "budget.tokens", 18),
        ("budget: {usd: -1}", "budget.usd", 15),
        ("budget: {usd: 0}", "budget.usd", 15),
        ("budget: {usd: [5]}", "budget.usd", 15),
        ("budget: {day: 5}", "budget.day", 15),
        ("budget: {workflow: {usd: five}}", "budget.workflow.usd", 26),
        ("budget: {assumed_output_tokens: 1.5.2}", "budget.assumed_output_tokens", 33),
        ("prices: 5", "prices", 9),
        ("prices: {a: 5}", "prices.a", 13),
        ("prices: {a: {input: 1}}", "prices.a", 13),
        ("prices: {a: {input: 1, output: x}}", "prices.a.output", 32),
        ("prices: {a: {input: 1, output: 1, cache_write_1h: x}}", "prices.a.cache_write_1h", 51),
        ("prices: {a: {input: 1, output: 1, long_context: 5}}", "prices.a.long_context", 49),
        ("prices: {a: {input: 1, output: 1, long_context: {above: 9, input: 1}}}", "prices.a.long_context", 49),
        ("prices: {a: {input: 1, output: 1, long_context: {input: 1, output: 1}}}", "prices.a.long_context", 49),
        ("prices: {a*b: {input: 1, output: 1}}", "prices.a*b", 15),
    ] {
        let problem = refused(settings);
        assert_eq!(
            (problem.key.as_deref(), problem.line, problem.column),
            (Some(key), 2, column),
            "{settings}: {problem}"
        );
        assert!(problem.hint.is_some(), "{settings}: {problem}");
    }
    assert!(refused("budget: 5").is_error());
    let (_, problem) = warned("budget: {day: {token: 5}}");
    assert!(problem.to_string().contains("did you mean `tokens`?"), "{problem}");
    let (_, problem) = warned("prices: {a: {input: 1, output: 1, cached: 1}}");
    assert_eq!(problem.code, Code::UnknownKey);
}

/// Regression: what the provider's own tools use stands in no request, and a cap beside them was promised to hold.
#[test]
fn a_cap_beside_the_providers_own_tools_is_told_to_be_no_bound() {
    for budget in ["budget: {tokens: 5}", "budget: {day: {usd: 5}}", "budget: {workflow: {tokens: 5}}"] {
        let (_, problem) = warned(&format!("egress: {{provider_tools: true}}\n{budget}"));
        assert_eq!((problem.key.as_deref(), problem.line, problem.column), (Some("egress.provider_tools"), 2, 10));
        assert!(problem.message.contains("is no bound"), "{problem}");
        good(&format!("egress: {{provider_tools: false}}\n{budget}"));
    }
    good("egress: {provider_tools: true}\nbudget: {sessions: 5}");
}
