//! `prices`, and what `budget` says of tokens and money. Whatever is wrong here is an error: a cap that is not read would
//! be no cap.

use super::problem::{Code, Problem};
use super::providers::is_staged;
use super::read::{Reader, Section, whole_of};
use crate::money::Money;
use crate::spend::{Cap, Caps, Price, Prices, Rates, Rules};
use crate::yaml::{Kind, Node};

/// More tokens are a typing mistake.
const MAX_TOKENS: i64 = 1_000_000_000_000_000;
/// Longest entry of the price table.
const MAX_NAME: usize = 240;

pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Rules {
    // Its keys are checked where the rest of it is read.
    let entries = root.get("budget").and_then(Node::as_map).unwrap_or_default();
    let budget = Section { path: "budget".to_owned(), entries, place: root.place_of("budget") };
    let day = map(reader, &budget, "day", "budget.day", "write `{tokens: 20000000, usd: 50}`");
    let workflow = map(reader, &budget, "workflow", "budget.workflow", "write `{tokens: 100000000, usd: 500}`");
    let caps = Caps { issue: cap(reader, &budget), day: cap(reader, &day), workflow: cap(reader, &workflow) };
    let capped = [caps.issue, caps.day, caps.workflow].iter().any(|cap| cap.tokens.is_some() || cap.money.is_some());
    if capped && is_staged(root) {
        let message = "`credentials: stage` and a cap of `budget` contradict each other: nobody counts what an agent with a \
                       login of its own uses";
        let problem = Problem::error(Code::Conflict, root.place_of("credentials"), message).about("credentials");
        reader.note(problem.hint("remove one of them; through the broker every request is counted"));
    }
    let entries = root.get("egress").and_then(Node::as_map).unwrap_or_default();
    let egress = Section { path: "egress".to_owned(), entries, place: root.place_of("egress") };
    if capped && egress.get("provider_tools").is_some_and(|node| node.kind == Kind::Bool(true)) {
        let message = "with `egress.provider_tools` a cap of `budget` is no bound: what searches find, files, containers and \
                       stored answers hold, and what a use of such a tool costs, stands in no request and is set aside for by nobody";
        let problem = Problem::warning(Code::Conflict, egress.place_of("provider_tools"), message);
        reader.note(
            problem
                .about("egress.provider_tools")
                .hint("remove one of them, or set the cap lower than what you can bear"),
        );
    }
    let assumed = tokens(reader, &budget, "assumed_output_tokens").unwrap_or(Rules::ASSUMED_OUTPUT);
    Rules { caps, prices: prices(reader, root), assumed_output: assumed, ..Rules::default() }
}

/// The map below `key`; anything else is an error.
fn map<'n>(reader: &mut Reader<'_>, parent: &Section<'n>, key: &str, known: &str, hint: &str) -> Section<'n> {
    let node = parent.get(key);
    if let Some(node) = node.filter(|node| node.as_map().is_none()) {
        reader.invalid(parent, key, &format!("must be a map, it is {}", node.kind_name()), hint);
    }
    let entries = node.and_then(Node::as_map).unwrap_or_default();
    let section = Section { path: parent.path_of(key), entries, place: parent.place_of(key) };
    reader.unknown_keys(&section, known);
    section
}

fn cap(reader: &mut Reader<'_>, section: &Section<'_>) -> Cap {
    let money = usd(reader, section, "usd");
    if money == Some(Money(0)) {
        reader.invalid(section, "usd", "must be more than 0", "remove it for no cap");
    }
    Cap { tokens: tokens(reader, section, "tokens"), money }
}

fn tokens(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<u64> {
    let node = section.get(key)?;
    match whole_of(node).filter(|number| (1..=MAX_TOKENS).contains(number)) {
        Some(number) => u64::try_from(number).ok(),
        None => {
            let what = format!("must be a number of tokens above 0, it is {}", said(node));
            reader.invalid(section, key, &what, "write it in digits, like 2000000");
            None
        }
    }
}

fn usd(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Money> {
    let node = section.get(key)?;
    let read = match &node.kind {
        Kind::Int(number) => Money::parse(&number.to_string()),
        // Its shortest text is what was written.
        Kind::Float(number) => Money::parse(&number.to_string()),
        Kind::Str(text) => Money::parse(text),
        _ => None,
    };
    if read.is_none() {
        let what = format!("must be an amount in US dollars, it is {}", said(node));
        reader.invalid(section, key, &what, "write it like 5 or 0.25, with at most nine digits behind the point");
    }
    read
}

fn said(node: &Node) -> String {
    match &node.kind {
        Kind::Int(number) => number.to_string(),
        Kind::Float(number) => number.to_string(),
        _ => node.kind_name().to_owned(),
    }
}

fn prices(reader: &mut Reader<'_>, root: &Section<'_>) -> Prices {
    const HINT: &str = "write `example-1*: {input: 3, output: 15}` below it: US dollars for a million tokens";
    let Some(node) = root.get("prices") else { return Prices::default() };
    let Some(entries) = node.as_map() else {
        reader.invalid(root, "prices", &format!("must be a map of models, it is {}", node.kind_name()), HINT);
        return Prices::default();
    };
    let section = Section { path: "prices".to_owned(), entries, place: root.place_of("prices") };
    let mut table = vec![];
    for entry in entries {
        let name = entry.key.trim();
        let (model, tier) = name.split_once(' ').map_or((name, None), |(model, tier)| (model, Some(tier.trim())));
        let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let star = model.find('*').is_none_or(|at| at + 1 == model.len());
        if !word(model) || !tier.is_none_or(word) || !star || name.len() > MAX_NAME {
            let hint = "a name, or its beginning and one `*` at the end, and behind a space a service tier or speed";
            reader.invalid(&section, &entry.key, "is no name of a model", hint);
            continue;
        }
        let one = map(reader, &section, &entry.key, "prices.*", HINT);
        let usual = rates(reader, &section, &entry.key, &one);
        let long = one.get("long_context").map(|_| long(reader, &one));
        // What is wrong was complained of.
        let (Some(usual), None | Some(Some(_))) = (usual, long) else { continue };
        let name = tier.map_or_else(|| model.to_owned(), |tier| format!("{model} {tier}"));
        table.push((name, Price { usual, long: long.flatten() }));
    }
    Prices(table)
}

/// The price of a request that gives the model more than so many tokens.
fn long(reader: &mut Reader<'_>, price: &Section<'_>) -> Option<(u64, Rates)> {
    const HINT: &str = "write `{above: 200000, input: 6, output: 22.5}`: US dollars for a million tokens";
    let section = map(reader, price, "long_context", "prices.*.long_context", HINT);
    let found = rates(reader, price, "long_context", &section);
    let above = tokens(reader, &section, "above");
    if found.is_some() && section.get("above").is_none() {
        reader.invalid(price, "long_context", "needs `above`: from how many tokens on it counts", HINT);
    }
    Some((above?, found?))
}

/// What a map says that a million tokens cost. What is not said of writing into a cache is what Anthropic takes for it.
fn rates(reader: &mut Reader<'_>, parent: &Section<'_>, key: &str, section: &Section<'_>) -> Option<Rates> {
    const HINT: &str = "write both, as in `{input: 3, output: 15}`: US dollars for a million tokens";
    let mut of = |key: &str| usd(reader, section, key);
    let (input, output, cache_read) = (of("input"), of("output"), of("cache_read"));
    let (cache_write, cache_write_1h) = (of("cache_write"), of("cache_write_1h"));
    let (Some(input), Some(output)) = (input, output) else {
        // What was written and is wrong is complained of already.
        let is_map = parent.get(key).is_some_and(|node| node.as_map().is_some());
        if is_map && (section.get("input").is_none() || section.get("output").is_none()) {
            reader.invalid(parent, key, "needs both `input` and `output`", HINT);
        }
        return None;
    };
    let cache_write = cache_write.unwrap_or(Money(input.0.saturating_mul(5).div_ceil(4)));
    let cache_write_1h = cache_write_1h.unwrap_or(Money(input.0.saturating_mul(2)).max(cache_write));
    Some(Rates { input, output, cache_read: cache_read.unwrap_or(input), cache_write, cache_write_1h })
}
