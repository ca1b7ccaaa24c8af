//! `prices`, and what `budget` says of tokens and money. Whatever is wrong here is an error: a cap that is not read would
//! be no cap.

use super::problem::{Code, Problem};
use super::providers::is_staged;
use super::read::{Reader, Section, whole_of};
use crate::money::Money;
use crate::spend::{Cap, Caps, Prices, Rates, Rules};
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
        let mut of = |key: &str| usd(reader, &one, key);
        let (input, output) = (of("input"), of("output"));
        let (cache_read, cache_write) = (of("cache_read"), of("cache_write"));
        let (Some(input), Some(output)) = (input, output) else {
            // What was written and is wrong is complained of already.
            if entry.value.as_map().is_some() && (one.get("input").is_none() || one.get("output").is_none()) {
                reader.invalid(&section, &entry.key, "needs both `input` and `output`", HINT);
            }
            continue;
        };
        let name = tier.map_or_else(|| model.to_owned(), |tier| format!("{model} {tier}"));
        let (cache_read, cache_write) = (cache_read.unwrap_or(input), cache_write.unwrap_or(input));
        table.push((name, Rates { input, output, cache_read, cache_write }));
    }
    Prices(table)
}
