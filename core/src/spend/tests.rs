//! Nothing is lost, nothing passes a cap while the bounds of requests hold, and a day ends.

use jiff::civil::date;
use proptest::prelude::*;

use super::*;
use crate::broker::{Metered, Most, Provider};
use crate::ids::RunId;

fn usd(text: &str) -> Money {
    Money::parse(text).expect("an amount")
}

fn issue(name: &str) -> IssueId {
    IssueId(name.to_owned())
}

const TODAY: Date = date(2026, 1, 31);

/// `big` costs a dollar for a token of any kind; `own` only where it is named in full.
fn rules(caps: Caps) -> Rules {
    let million = usd("1000000");
    let rates =
        Rates { input: million, output: million, cache_read: million, cache_write: million, cache_write_1h: million };
    let prices = Prices(vec![("big*".to_owned(), Price { usual: rates, long: None })]);
    Rules { caps, prices, assumed_output: 100, ..Rules::default() }
}

fn of_issue(tokens: Option<u64>, money: Option<&str>) -> Caps {
    Caps { issue: Cap { tokens, money: money.map(usd) }, ..Caps::default() }
}

fn wanted(name: &str, model: &str, most: u64) -> Wanted {
    Wanted {
        run: RunId(1),
        issue: issue(name),
        day: TODAY,
        provider: Provider::Anthropic,
        model: model.to_owned(),
        tier: None,
        most: Most { input: most, output: 0, ..Most::default() },
    }
}

fn answer(model: &str, used: u64) -> Metered {
    let usage = Some(Usage { output: used, ..Usage::default() });
    Metered { provider: Provider::Anthropic, model: model.to_owned(), tier: None, usage, whole: true }
}

#[test]
fn a_request_waits_for_those_under_way_and_is_refused_only_when_it_cannot_fit() {
    let rules = rules(of_issue(Some(100), None));
    let mut ledger = Ledger::default();
    let first = ledger.reserve(wanted("A", "big", 60), &rules).expect("it fits");
    assert_eq!(ledger.reserve(wanted("A", "big", 60), &rules), Err(Denied::Busy { own: true }));
    ledger.reserve(wanted("B", "big", 60), &rules).expect("another issue has a budget of its own");
    ledger.settle(first.id, Some(&answer("big", 30)), &rules).expect("charged");
    let second = ledger.reserve(wanted("A", "big", 60), &rules).expect("the first took less than it could");
    ledger.settle(second.id, None, &rules).expect("charged");
    let met = Met { scope: Scope::Issue, unit: Unit::Tokens, day: TODAY, used: 90, asked: 20, answer: 0, allowed: 100 };
    assert_eq!(ledger.reserve(wanted("A", "big", 20), &rules), Err(Denied::Met(met)));
    assert_eq!(
        met.to_string(),
        "this issue has used 90 of 100 tokens (budget.tokens); the next request could take up to 20 tokens"
    );
    ledger.reserve(wanted("A", "big", 10), &rules).expect("exactly the rest");
    assert_eq!(
        (ledger.issue(&issue("A")).assumed, ledger.issue(&issue("A")).tokens()),
        (60, 90),
        "a cut answer took what it could"
    );
}

#[test]
fn an_issue_without_room_beside_the_requests_of_others_waits_until_one_of_them_ends() {
    let mut rules = rules(Caps { day: Cap { tokens: Some(100), money: None }, ..Caps::default() });
    let mut ledger = Ledger::default();
    let of = |name: &str, run, most| Wanted { run: RunId(run), ..wanted(name, "big", most) };
    let first = ledger.reserve(of("A", 1, 60), &rules).expect("it fits");
    assert_eq!(
        ledger.reserve(of("A", 1, 60), &rules),
        Err(Denied::Busy { own: true }),
        "its own requests are in its way"
    );
    assert_eq!(ledger.reserve(of("B", 2, 60), &rules), Err(Denied::Busy { own: false }));
    assert!(ledger.crowded_out(TODAY, &rules).is_empty(), "it asks again itself");
    ledger.crowd_out(of("B", 2, 60));
    assert_eq!(ledger.crowded_out(TODAY, &rules), [issue("B")].into());
    ledger.settle(first.id, Some(&answer("big", 40)), &rules).expect("charged");
    assert!(ledger.crowded_out(TODAY, &rules).is_empty(), "now there is room");
    let second = ledger.reserve(of("A", 3, 60), &rules).expect("which A takes");
    assert!(ledger.crowded_out(TODAY, &rules).is_empty(), "B was let go, and finds out itself");
    ledger.crowd_out(of("B", 2, 60));
    ledger.settle(second.id, Some(&answer("big", 60)), &rules).expect("charged");
    assert!(ledger.crowded_out(TODAY, &rules).is_empty(), "a cap that is met is another reason");
    // Another day is another budget.
    ledger.reserve(Wanted { day: date(2026, 2, 1), ..of("A", 4, 60) }, &rules).expect("it fits");
    ledger.crowd_out(of("B", 2, 60));
    assert_eq!(ledger.crowded_out(date(2026, 2, 1), &rules), [issue("B")].into());
    rules.caps = Caps::default();
    assert!(ledger.crowded_out(date(2026, 2, 1), &rules).is_empty(), "nor does a cap bind that is gone");
}

#[test]
fn under_a_cap_of_money_nothing_without_a_price_is_asked() {
    let rules = rules(of_issue(None, Some("100")));
    let mut ledger = Ledger::default();
    assert_eq!(ledger.reserve(wanted("A", "small", 1), &rules), Err(Denied::Unpriced("small".into())));
    let fast = Wanted { tier: Some("fast".into()), ..wanted("A", "big", 1) };
    assert_eq!(ledger.reserve(fast, &rules), Err(Denied::Unpriced("big fast".into())));
    let first = ledger.reserve(wanted("A", "big", 70), &rules).expect("it fits");
    assert_eq!(first.cost, Some(usd("70")));
    // It calls itself otherwise, and is charged as what was asked.
    ledger.settle(first.id, Some(&answer("alias", 40)), &rules).expect("charged");
    assert_eq!(ledger.issue(&issue("A")).money().as_deref(), Some("$40.00"));
    let Err(Denied::Met(met)) = ledger.reserve(wanted("A", "big", 61), &rules) else { panic!("it does not fit") };
    assert_eq!((met.code(), met.used, met.allowed), ("budget-usd", usd("40").0, usd("100").0));
    assert_eq!(Met::parse(met.code(), met.used, &met.kept()), Some(met));
}

/// Regression: a request for a million tokens of context was set aside for, and charged, as any other.
#[test]
fn under_a_cap_of_money_a_longer_context_is_asked_for_only_where_its_price_is_known() {
    let mut rules = rules(of_issue(None, Some("100")));
    let mut ledger = Ledger::default();
    let long = || Wanted { most: Most { input: 1, is_long: true, ..Most::default() }, ..wanted("A", "big", 0) };
    assert_eq!(ledger.reserve(long(), &rules), Err(Denied::NoLongPrice("big".into())));
    let price = &mut rules.prices.0[0].1;
    price.long = Some((200_000, price.usual));
    ledger.reserve(long(), &rules).expect("its price is known");
    rules.prices.0[0].1.long = None;
    rules.caps = of_issue(Some(100), None);
    ledger.reserve(long(), &rules).expect("tokens are tokens");
}

#[test]
fn without_a_price_tokens_are_counted_and_said_to_have_none() {
    let rules = rules(Caps::default());
    let mut ledger = Ledger::default();
    let mut ask = |model: &str, tier: Option<&str>| {
        let reserved = ledger.reserve(wanted("A", model, 50), &rules).expect("no cap");
        let metered = Metered { tier: tier.map(str::to_owned), ..answer(model, 7) };
        ledger.settle(reserved.id, Some(&metered), &rules).expect("charged");
        ledger.issue(&issue("A")).money().expect("something was used")
    };
    assert_eq!(ask("small", None), "7 unpriced tokens");
    assert_eq!(ask("big", None), "$7.00 + 7 unpriced tokens");
    assert_eq!(
        ask("big", Some("priority")),
        "$14.00 + 14 unpriced tokens",
        "charged as usual, and said to be of unknown price"
    );
    let line = ledger.issue(&issue("A")).line(&Cap { tokens: Some(100), money: Some(usd("20")) });
    assert_eq!(line, "21 of 100 tokens · $14.00 + 14 unpriced tokens of $20.00");
}

#[test]
fn a_days_budget_that_was_met_shuts_until_it_is_raised_or_the_day_is_over() {
    let caps = Caps { day: Cap { tokens: Some(100), money: None }, ..Caps::default() };
    let rules = rules(caps);
    let mut ledger = Ledger::default();
    assert!(matches!(ledger.reserve(wanted("C", "big", u64::MAX), &rules), Err(Denied::Met(_))));
    assert_eq!(ledger.shut(TODAY, &caps), None, "who asks for too much stops nobody else");
    let first = ledger.reserve(wanted("A", "big", 90), &rules).expect("it fits");
    ledger.settle(first.id, Some(&answer("big", 90)), &rules).expect("charged");
    assert_eq!(ledger.shut(TODAY, &caps), None);
    let Err(Denied::Met(met)) = ledger.reserve(wanted("B", "big", 30), &rules) else { panic!("it does not fit") };
    assert_eq!(ledger.shut(TODAY, &caps), Some(met), "met, although 10 are left");
    assert!(met.until().starts_with("it goes on when 2026-02-01 begins"), "{}", met.until());

    let standing = |ledger: &Ledger, today| Standing { today, caps: ledger.caps(today, &caps), ..Standing::default() };
    let tomorrow = date(2026, 2, 1);
    assert!(!standing(&ledger, TODAY).is_over(&issue("B"), &met));
    assert!(standing(&ledger, tomorrow).is_over(&issue("B"), &met));
    assert_eq!(ledger.shut(tomorrow, &caps), None);
    let late = Wanted { day: tomorrow, ..wanted("B", "big", 100) };
    ledger.reserve(late, &rules).expect("a day begins with its whole budget");

    let day = Place::Day(TODAY);
    assert_eq!(ledger.may_raise(&day, Unit::Tokens, 100, &caps), Ok(()));
    ledger.raise(Raise { place: day.clone(), unit: Unit::Tokens, by: 50 });
    assert_eq!(ledger.may_raise(&day, Unit::Tokens, 100, &caps), Err(Raising::Already));
    assert_eq!(ledger.may_raise(&day, Unit::Money, 100, &caps), Err(Raising::NoCap));
    assert!(standing(&ledger, TODAY).is_over(&issue("B"), &met) && ledger.shut(TODAY, &caps).is_none());
    assert_eq!(ledger.caps(tomorrow, &caps).day.tokens, Some(100), "what was allowed today is not allowed tomorrow");
}

#[test]
fn an_issue_that_has_nothing_left_is_told_and_a_removed_cap_is_over() {
    let caps = of_issue(Some(100), None);
    let rules = rules(caps);
    let mut ledger = Ledger::default();
    let first = ledger.reserve(wanted("A", "big", 100), &rules).expect("it fits");
    ledger.settle(first.id, Some(&answer("big", 100)), &rules).expect("charged");
    let met = ledger.used_up(TODAY, &caps)[&issue("A")];
    assert_eq!((met.used, met.asked, met.allowed), (100, 0, 100));
    let standing = Standing { today: TODAY, caps, ..Standing::default() };
    assert!(!standing.is_over(&issue("A"), &met) && Standing::default().is_over(&issue("A"), &met));
    ledger.raise(Raise { place: Place::Issue(issue("A")), unit: Unit::Tokens, by: 1 });
    let raised = Standing { raised: ledger.raised_issues(&caps), ..standing };
    assert!(raised.is_over(&issue("A"), &met) && ledger.used_up(TODAY, &caps).is_empty());
    let renewed = raised.renewed(&issue("A"), &met);
    assert!(!raised.is_over(&issue("A"), &renewed), "only the next change counts");
    // Regression: an issue that could not be brought back could not be raised any more.
    let now = ledger.in_the_way(&issue("A"), &renewed, TODAY, &caps).expect("it waits for the next change");
    assert_eq!((now.least().as_str(), now.enough(0).is_err(), now.enough(1)), ("more than 0 tokens", true, Ok(())));
}

#[test]
fn names_of_which_no_answer_told_take_no_place_and_those_of_the_workflow_always_have_one() {
    let mut rules = rules(Caps::default());
    rules.models.insert("of-the-workflow".to_owned());
    rules.prices.0.push(("priced fast".to_owned(), rules.prices.0[0].1));
    let mut ledger = Ledger::default();
    let mut cut = |model: &str, told: Option<&str>| {
        let reserved = ledger.reserve(wanted("A", model, 5), &rules).expect("no cap");
        let answer = told.map(|told| answer(told, 5));
        let entry = ledger.settle(reserved.id, answer.as_ref(), &rules).expect("charged").entry;
        assert!(told.is_some() || entry.model == reserved.model, "a start after a kill charges the same");
        entry.model
    };
    // An agent hangs up on each of its inventions; `big*` has a price, which makes no name of it real.
    for number in 0..1000 {
        assert_eq!(cut(&format!("big-{number}"), None), "(others)");
    }
    assert_eq!(cut("big", Some("big-real")), "big-real");
    assert_eq!(cut("big-real", None), "big-real", "an answer told it");
    for number in 0..1000 {
        cut("x", Some(&format!("echo-{number}")));
    }
    assert_eq!(cut("x", Some("one-more")), "(others)", "a provider that repeats inventions fills its own part");
    for model in ["of-the-workflow", "priced"] {
        assert_eq!((cut(model, None).as_str(), cut("x", Some(model)).as_str()), (model, model));
    }
    assert_eq!(cut("priced fast", None), "(others)", "a tier is no part of a name");
}

#[test]
fn what_an_issue_waits_for_is_told_as_it_is_now_and_with_the_least_raise_that_helps() {
    let caps = Caps { workflow: Cap { tokens: Some(1000), money: None }, ..of_issue(Some(100), None) };
    let rules = rules(caps);
    let mut ledger = Ledger::default();
    let first = ledger.reserve(wanted("A", "big", 90), &rules).expect("it fits");
    ledger.settle(first.id, Some(&answer("big", 90)), &rules).expect("charged");
    let Err(Denied::Met(met)) = ledger.reserve(wanted("A", "big", 30), &rules) else { panic!("it does not fit") };
    let (id, place) = (issue("A"), Place::Issue(issue("A")));
    let now = |ledger: &Ledger, caps: &Caps| ledger.in_the_way(&id, &met, TODAY, caps);
    assert_eq!((now(&ledger, &caps), met.lacks(), met.least().as_str()), (Some(met), 20, "at least 20 tokens"));
    let said = met.enough(19).expect_err("too little");
    assert_eq!(
        said,
        "that is not enough: 90 tokens of 100 tokens is used and the next request could take up to 30 tokens; raise budget.tokens by at least 20 tokens"
    );
    assert_eq!(met.enough(20), Ok(()));
    ledger.raise(Raise { place: place.clone(), unit: Unit::Tokens, by: 1 });
    assert_eq!(now(&ledger, &caps), Some(Met { allowed: 101, ..met }), "it can still be raised, from where it is");
    ledger.raise(Raise { place, unit: Unit::Tokens, by: 19 });
    assert_eq!(now(&ledger, &caps), None, "it goes back by itself");
    let workflow = Caps { workflow: Cap { tokens: Some(90), money: None }, ..caps };
    let other = now(&ledger, &workflow).expect("another cap is in the way");
    assert_eq!((other.key(), other.least().as_str()), ("budget.workflow.tokens", "more than 0 tokens"));
    let none = Met { unit: Unit::Money, used: 6_148_233_000, allowed: 5_000_000_000, asked: 0, ..met };
    assert_eq!(
        none.enough(10_000_000).expect_err("too little"),
        "that is not enough: $6.15 of $5.00 is used; raise budget.usd by more than $1.15"
    );
    assert_eq!(Met { asked: 15_000_000, ..none }.least(), "at least $1.17");
}

/// Regression: the note said "moved back without that, it may use no more" while something was left, and nothing of the
/// answer that asked for too much.
#[test]
fn what_lets_a_request_pass_is_told_with_what_is_left_and_a_shorter_answer_where_that_is_enough() {
    let mut rules = rules(of_issue(Some(1000), None));
    let mut ledger = Ledger::default();
    let most = Most { input: 300, output: 900, ..Most::default() };
    let Err(Denied::Met(met)) = ledger.reserve(Wanted { most, ..wanted("A", "big", 0) }, &rules) else {
        panic!("it does not fit")
    };
    assert_eq!(
        met.to_string(),
        "this issue has used 0 of 1000 tokens (budget.tokens); the next request could take up to 1200 tokens, 900 of them for its answer"
    );
    assert_eq!(
        met.remedy("move it back", "symphony raise"),
        "Raise `budget.tokens` in the dashboard's inbox, with `symphony raise`, or in the workflow file, by at least 200 tokens, and the issue goes back by itself; moved back without that, it may use no more than the 1000 tokens that are left. Or have its agent ask for shorter answers, by 200 tokens (what names no maximum is taken at `budget.assumed_output_tokens`), then move it back."
    );
    let long = Met { asked: 2000, answer: 900, ..met };
    assert!(!long.remedy("", "").contains("shorter"), "no answer is short enough");
    let spent = Met { used: 1000, asked: 0, answer: 0, ..met };
    assert!(spent.remedy("", "").ends_with("moved back without that, it may use no more."), "{}", spent.remedy("", ""));

    rules.caps = of_issue(None, Some("1000"));
    let Err(Denied::Met(met)) = ledger.reserve(Wanted { most, ..wanted("A", "big", 0) }, &rules) else {
        panic!("it does not fit")
    };
    assert!(met.to_string().ends_with("could take up to $1200.00, $900.00 of it for its answer"), "{met}");
    assert!(met.remedy("", "").contains("shorter answers, by $200.00 of their price"), "{}", met.remedy("", ""));
    assert_eq!(Met::parse(met.code(), met.used, &met.kept()), Some(met));
    let before = Met { answer: 0, ..met };
    let kept = format!("{} {} {}", met.allowed, met.asked, met.day);
    assert_eq!(Met::parse(met.code(), met.used, &kept), Some(before), "as it was kept before");
}

#[test]
fn names_that_an_agent_invents_are_told_apart_only_so_far() {
    let rules = rules(Caps::default());
    let mut ledger = Ledger::default();
    for number in 0..1000 {
        let reserved = ledger.reserve(wanted("A", "x", 5), &rules).expect("no cap");
        ledger.settle(reserved.id, Some(&answer(&format!("m{number}"), 1)), &rules).expect("charged");
    }
    let models: Vec<_> = ledger.models(TODAY).map(|(_, model, today, ever)| (model.to_owned(), today, ever)).collect();
    assert!(models.len() <= 201, "{}", models.len());
    assert_eq!(models.iter().map(|(_, today, _)| today.tokens()).sum::<u64>(), 1000);
    assert!(models.iter().any(|(model, ..)| model == "(others)"));
}

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        name: u8,
        day: u8,
        input: u64,
        output: u64,
        priced: bool,
    },
    /// The nth of those under way used so many parts of a hundred of what it may.
    Settle {
        nth: usize,
        part: u64,
        whole: bool,
    },
    Release {
        nth: usize,
    },
    Raise {
        place: u8,
        unit: bool,
        by: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let reserve = (0..3_u8, 0..2_u8, 0..60_u64, 0..60_u64, any::<bool>())
        .prop_map(|(name, day, input, output, priced)| Step::Reserve { name, day, input, output, priced });
    let settle = (0..6_usize, 0..=200_u64, prop::bool::weighted(0.8)).prop_map(|(nth, part, whole)| Step::Settle {
        nth,
        part,
        whole,
    });
    let release = (0..6_usize).prop_map(|nth| Step::Release { nth });
    let raise = (0..5_u8, any::<bool>(), 1..80_u64).prop_map(|(place, unit, by)| Step::Raise { place, unit, by });
    prop::collection::vec(prop_oneof![6 => reserve, 4 => settle, 1 => release, 1 => raise], 0..80)
}

fn cap() -> impl Strategy<Value = Cap> {
    let amount = || prop::option::of(1..400_u64);
    (amount(), amount()).prop_map(|(tokens, dollars)| Cap { tokens, money: dollars.map(|d| Money(d * 1_000_000_000)) })
}

fn place_of(number: u8) -> Place {
    match number {
        0..3 => Place::Issue(issue(&number.to_string())),
        3 => Place::Day(TODAY),
        _ => Place::Workflow,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn totals_are_never_lost_and_a_cap_is_passed_only_by_what_was_in_flight_and_broke_its_bound(
        issues in cap(), days in cap(), all in cap(), steps in steps(), honest in any::<bool>()
    ) {
        let rules = rules(Caps { issue: issues, day: days, workflow: all });
        let mut ledger = Ledger::default();
        let (mut open, mut charged, mut raises): (Vec<Reservation>, Vec<Entry>, Vec<Raise>) = Default::default();
        // What answers used beyond the most that was reserved for them, in tokens.
        let mut beyond = 0;
        for step in steps {
            match step {
                Step::Reserve { name, day, input, output, priced } => {
                    let day = if day == 0 { TODAY } else { date(2026, 2, 1) };
                    let model = if priced { "big" } else { "small" };
                    let wanted = Wanted { day, most: Most { input, output, ..Most::default() }, ..wanted(&name.to_string(), model, 0) };
                    match ledger.reserve(wanted, &rules) {
                        Ok(reservation) => open.push(reservation),
                        Err(Denied::NoLongPrice(_)) => prop_assert!(false, "nobody asked for that"),
                        Err(Denied::Unpriced(_)) => prop_assert!(!priced && rules.caps.count_money()),
                        Err(Denied::Busy { .. }) => prop_assert!(!open.is_empty(), "nobody waits for nobody"),
                        Err(Denied::Met(met)) => prop_assert!(met.used + met.asked > met.allowed),
                    }
                }
                Step::Settle { nth, part, whole } if nth < open.len() => {
                    let reservation = open.remove(nth);
                    let most = reservation.of.most;
                    let part = if honest { part.min(100) } else { part };
                    let used = Usage { input: most.input * part / 100, output: most.output * part / 100, ..Usage::default() };
                    let metered = Metered { usage: Some(used), whole, ..answer(&reservation.of.model, 0) };
                    let entry = ledger.settle(reservation.id, Some(&metered), &rules).expect("open").entry;
                    let expected = if whole { used.input + used.output } else { most.tokens() };
                    prop_assert_eq!(entry.sums.tokens(), expected);
                    prop_assert_eq!(entry.sums.assumed, if whole { 0 } else { expected });
                    beyond += expected.saturating_sub(most.tokens());
                    charged.push(entry);
                }
                Step::Release { nth } if nth < open.len() => {
                    prop_assert!(ledger.release(open.remove(nth).id));
                }
                Step::Raise { place, unit, by } => {
                    let (unit, by) = if unit { (Unit::Tokens, by) } else { (Unit::Money, by * 1_000_000_000) };
                    raises.push(Raise { place: place_of(place), unit, by });
                    ledger.raise(Raise { place: place_of(place), unit, by });
                }
                Step::Settle { .. } | Step::Release { .. } => {}
            }
            // Each budget, against what was charged to it.
            let places = (0..5).map(place_of).chain([Place::Day(date(2026, 2, 1))]);
            for place in places {
                let is_of = |entry: &&Entry| match &place {
                    Place::Issue(issue) => entry.issue == *issue,
                    Place::Day(day) => entry.day == *day,
                    Place::Workflow => true,
                };
                let mut sums = Sums::default();
                charged.iter().filter(is_of).for_each(|entry| sums.add(&entry.sums));
                let (known, cap) = match &place {
                    Place::Issue(issue) => (ledger.issue(issue), ledger.cap_of(issue, &rules.caps)),
                    Place::Day(day) => (ledger.day(*day), ledger.caps(*day, &rules.caps).day),
                    Place::Workflow => (ledger.all(), ledger.caps(TODAY, &rules.caps).workflow),
                };
                prop_assert_eq!(known, sums);
                for (unit, more) in [(Unit::Tokens, beyond), (Unit::Money, beyond * 1_000_000_000)] {
                    prop_assert!(cap.of(unit).is_none_or(|allowed| known.of(unit) <= allowed + more), "{place:?} {unit:?}");
                }
            }
        }
        // The next process charges what was under way, and knows the same.
        let mut entries = charged.clone();
        entries.extend(open.iter().map(Reservation::assumed));
        let next = Ledger::new(Past { entries, raises });
        let under_way: u64 = open.iter().map(|open| open.of.most.tokens()).sum();
        prop_assert_eq!(next.all().tokens(), ledger.all().tokens() + under_way);
        prop_assert_eq!(next.caps(TODAY, &rules.caps), ledger.caps(TODAY, &rules.caps));
        let by_model: u64 = next.models(TODAY).map(|(.., ever)| ever.tokens()).sum();
        prop_assert_eq!(by_model, next.all().tokens());
    }
}
