//! Tokens and money on the wire. Money is text: exact, in US dollars. Pure.

use serde::Serialize;
use symphony_core::snapshot::{ModelRow, Spend};
use symphony_core::spend::{Cap, Sums};

/// What was used.
#[derive(Serialize)]
pub(super) struct Used {
    requests: u64,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_tokens: u64,
    cache_write_tokens: u64,
    total_tokens: u64,
    /// Of what has a price.
    usd: String,
    unpriced_tokens: u64,
    /// Set aside for answers that did not say what they used.
    assumed_tokens: u64,
}

#[derive(Serialize)]
struct Allowed {
    tokens: Option<u64>,
    usd: Option<String>,
}

#[derive(Serialize)]
struct Caps {
    issue: Allowed,
    day: Allowed,
    workflow: Allowed,
}

#[derive(Serialize)]
struct Model<'a> {
    provider: &'a str,
    model: &'a str,
    today: Used,
    ever: Used,
}

/// `spend` of `GET /api/v1/state`
#[derive(Serialize)]
pub(super) struct All<'a> {
    day: &'a str,
    zone: &'a str,
    today: Used,
    ever: Used,
    allowed: Caps,
    models: Vec<Model<'a>>,
}

impl Used {
    pub(super) fn of(sums: &Sums) -> Self {
        Self {
            requests: sums.requests,
            input_tokens: sums.used.input,
            output_tokens: sums.used.output,
            cache_read_tokens: sums.used.cache_read,
            cache_write_tokens: sums.used.cache_write,
            total_tokens: sums.tokens(),
            usd: sums.cost.exact(),
            unpriced_tokens: sums.unpriced,
            assumed_tokens: sums.assumed,
        }
    }
}

impl Allowed {
    fn of(cap: &Cap) -> Self {
        Self { tokens: cap.tokens, usd: cap.money.map(|money| money.exact()) }
    }
}

impl<'a> All<'a> {
    pub(super) fn of(spend: &'a Spend) -> Self {
        let caps = &spend.caps;
        Self {
            day: &spend.day,
            zone: &spend.zone,
            today: Used::of(&spend.today),
            ever: Used::of(&spend.ever),
            allowed: Caps {
                issue: Allowed::of(&caps.issue),
                day: Allowed::of(&caps.day),
                workflow: Allowed::of(&caps.workflow),
            },
            models: spend.models.iter().map(Model::of).collect(),
        }
    }
}

impl<'a> Model<'a> {
    fn of(row: &'a ModelRow) -> Self {
        let (today, ever) = (Used::of(&row.today), Used::of(&row.ever));
        Self { provider: &row.provider, model: &row.model, today, ever }
    }
}
