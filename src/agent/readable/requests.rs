//! What a run used of models, as its transcript keeps it: a line for each request, and one for all at its end. Never a word
//! of what was asked or answered.

use serde_json::{Map, Value, json};
use symphony_core::broker::Usage;
use symphony_core::money::Money;
use symphony_core::spend::Sums;

/// The line of one request: `input`, `output`, `cache_read`, `cache_write` in tokens, `cost_usd` where it has a price, and
/// `charged`: what the provider `told`, or what was `reserved` because it did not tell.
pub(crate) fn request(provider: &str, model: &str, sums: &Sums) -> Value {
    let charged = if sums.assumed > 0 { "reserved" } else { "told" };
    let mut line = Map::from_iter([("provider".into(), json!(provider)), ("model".into(), json!(model))]);
    line.extend(counts(sums));
    line.insert("charged".into(), json!(charged));
    line.into()
}

/// The line of all; `unlisted` of them have no line of their own.
pub(crate) fn all(sums: &Sums, unlisted: u64) -> Value {
    let mut line = Map::from_iter([("requests".into(), json!(sums.requests))]);
    line.extend(counts(sums));
    if unlisted > 0 {
        line.insert("unlisted".into(), json!(unlisted));
    }
    line.into()
}

fn counts(sums: &Sums) -> Map<String, Value> {
    let Usage { input, output, cache_read, cache_write, cache_write_1h: _ } = sums.used;
    let used = [("input", input), ("output", output), ("cache_read", cache_read), ("cache_write", cache_write)];
    let mut line: Map<_, _> = used.map(|(name, tokens)| (name.to_owned(), json!(tokens))).into_iter().collect();
    if sums.cost.0 > 0 || sums.unpriced < sums.tokens() {
        line.insert("cost_usd".into(), json!(sums.cost.exact()));
    }
    for (name, tokens) in [("unpriced_tokens", sums.unpriced), ("reserved_tokens", sums.assumed)] {
        if tokens > 0 {
            line.insert(name.into(), json!(tokens));
        }
    }
    line
}

/// Reads either line, as far as it has the form.
fn sums(line: &Value) -> Sums {
    let number = |name: &str| line.get(name).and_then(Value::as_u64).unwrap_or(0);
    let used = Usage {
        input: number("input"),
        output: number("output"),
        cache_read: number("cache_read"),
        cache_write: number("cache_write"),
        cache_write_1h: None,
    };
    let cost = line.get("cost_usd").and_then(Value::as_str).and_then(Money::parse).unwrap_or_default();
    let requests = line.get("requests").and_then(Value::as_u64).unwrap_or(1);
    Sums { requests, used, cost, unpriced: number("unpriced_tokens"), assumed: number("reserved_tokens") }
}

/// Requests on their way to a reader: summed up turn by turn.
#[derive(Debug, Default)]
pub(super) struct Requests {
    turn: Sums,
    models: Vec<String>,
    all: Sums,
    /// Whether the file has said what all are.
    is_told: bool,
}

/// Models of a turn that are named.
const NAMED: usize = 3;

impl Requests {
    /// One more.
    pub(super) fn add(&mut self, line: &Value) {
        let one = sums(line);
        self.turn.add(&one);
        self.all.add(&one);
        let model = line.get("model").and_then(Value::as_str).unwrap_or_default();
        if self.models.len() < NAMED && !self.models.iter().any(|known| known == model) {
            self.models.push(model.to_owned());
        }
    }

    /// Those of the turn so far, in words; then another begins.
    pub(super) fn turn(&mut self) -> Option<String> {
        let (turn, models) = (std::mem::take(&mut self.turn), std::mem::take(&mut self.models));
        (turn.requests > 0).then(|| words(&turn, &format!(" to {}", models.join(", "))))
    }

    /// The file says what all are.
    pub(super) fn told(&mut self, line: &Value) -> String {
        self.is_told = true;
        words(&sums(line), " in all")
    }

    /// All so far, of a file that does not say it.
    pub(super) fn untold(&self) -> Option<String> {
        (self.all.requests > 0 && !self.is_told).then(|| words(&self.all, " so far"))
    }
}

fn words(sums: &Sums, which: &str) -> String {
    let Usage { input, output, cache_read, cache_write, cache_write_1h: _ } = sums.used;
    let s = if sums.requests == 1 { "" } else { "s" };
    let mut words = format!("{} request{s}{which}: {input} tokens in, {output} out", sums.requests);
    for (tokens, whence) in [(cache_read, "from the cache"), (cache_write, "into the cache")] {
        if tokens > 0 {
            words.push_str(&format!(", {tokens} {whence}"));
        }
    }
    if sums.assumed > 0 {
        words.push_str(&format!(" ({} of them assumed)", sums.assumed));
    }
    if let Some(money) = sums.money().filter(|_| sums.cost.0 > 0) {
        words.push_str(&format!(" · {money}"));
    }
    words
}
