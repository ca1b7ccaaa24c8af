//! What tokens cost, by model: the table that the workflow brings. There is none of our own: it would go stale unseen.

use crate::broker::{Most, Usage};
use crate::money::Money;

/// What a million tokens of each kind cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Given to the model.
    pub input: Money,
    /// Written by it.
    pub output: Money,
    /// Read from the provider's cache.
    pub cache_read: Money,
    /// Written into it.
    pub cache_write: Money,
}

impl Rates {
    /// What this use costs; a part of a nano-dollar counts as one.
    pub fn cost(&self, used: &Usage) -> Money {
        let parts = [
            (used.input, self.input),
            (used.output, self.output),
            (used.cache_read, self.cache_read),
            (used.cache_write, self.cache_write),
        ];
        sum(&parts)
    }

    /// What of [`Rates::most`] is for the answer.
    pub fn longest_answer(&self, most: Most) -> Money {
        sum(&[(most.output, self.output)])
    }

    /// What a request can cost at most: of each token the dearest kind it may turn out to be.
    pub fn most(&self, most: Most) -> Money {
        let given = self.input.max(self.cache_read).max(self.cache_write);
        sum(&[(most.input, given), (most.output, self.output)])
    }
}

fn sum(parts: &[(u64, Money)]) -> Money {
    let nano = parts.iter().map(|(tokens, rate)| u128::from(*tokens) * u128::from(rate.0));
    let nano = nano.fold(0_u128, u128::saturating_add).div_ceil(1_000_000);
    Money(u64::try_from(nano).unwrap_or(u64::MAX))
}

/// The table. An entry is a model's name, or its beginning and a `*`; a service tier or speed that has another price
/// stands behind a space: `big-1* priority`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prices(pub Vec<(String, Rates)>);

impl Prices {
    /// Whether an entry names this model in full.
    pub fn names(&self, model: &str) -> bool {
        self.0.iter().any(|(entry, _)| entry.split(' ').next() == Some(model))
    }

    /// The rates of this model in this tier; the longest entry that fits, a whole name before any beginning.
    pub fn of(&self, model: &str, tier: Option<&str>) -> Option<Rates> {
        let fits = |entry: &str| {
            let (name, of_tier) = entry.split_once(' ').map_or((entry, None), |(name, tier)| (name, Some(tier.trim())));
            let rank = match name.strip_suffix('*') {
                Some(beginning) => model.starts_with(beginning).then_some((false, beginning.len())),
                None => (name == model).then_some((true, name.len())),
            };
            rank.filter(|_| of_tier == tier)
        };
        let fitting = self.0.iter().filter_map(|(entry, rates)| Some((fits(entry)?, *rates)));
        fitting.max_by_key(|(rank, _)| *rank).map(|(_, rates)| rates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(nano: u64) -> Rates {
        Rates { input: Money(nano), output: Money(nano), cache_read: Money(nano), cache_write: Money(nano) }
    }

    #[test]
    fn the_longest_entry_wins_and_a_tier_has_a_price_of_its_own_or_none() {
        let table = [("*", 1), ("big*", 2), ("big-1*", 3), ("big-1", 4), ("big-1* fast", 5)];
        let prices = Prices(table.map(|(name, nano)| (name.to_owned(), flat(nano))).to_vec());
        let of = |model, tier| prices.of(model, tier).map(|rates| rates.input.0);
        assert_eq!(
            [of("other", None), of("big-2", None), of("big-12", None), of("big-1", None)].map(Option::unwrap),
            [1, 2, 3, 4]
        );
        assert_eq!(
            (of("big-1", Some("fast")), of("big-2", Some("fast")), of("big-1", Some("flex"))),
            (Some(5), None, None)
        );
        assert_eq!(Prices(vec![("big*".into(), flat(1))]).of("small", None), None);
    }

    #[test]
    fn a_request_is_reserved_at_the_dearest_rate_and_charged_at_its_own() {
        let dollars = |text| Money::parse(text).expect("an amount");
        let rates = Rates {
            input: dollars("3"),
            output: dollars("15"),
            cache_read: dollars("0.3"),
            cache_write: dollars("3.75"),
        };
        assert_eq!(rates.most(Most { input: 1_000_000, output: 100_000 }), dollars("5.25"));
        let used = Usage { input: 1000, output: 100, cache_read: 10_000, cache_write: 500 };
        assert_eq!(rates.cost(&used).exact(), "0.009375");
        assert_eq!(flat(1).cost(&Usage { input: 1, ..Usage::default() }), Money(1), "a part counts as a whole");
        assert_eq!(flat(u64::MAX).cost(&Usage { input: u64::MAX, ..Usage::default() }), Money(u64::MAX));
    }
}
