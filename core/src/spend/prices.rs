//! What tokens cost, by model: the table that the workflow brings. There is none of our own: it would go stale unseen.

use crate::broker::{Most, Usage, Writes};
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
    /// Written into it, for minutes.
    pub cache_write: Money,
    /// Written into it, for an hour.
    pub cache_write_1h: Money,
}

/// What a model costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// As a rule.
    pub usual: Rates,
    /// Of a request that gives the model more than so many tokens: of all its tokens.
    pub long: Option<(u64, Rates)>,
}

impl Rates {
    /// `asked`: what the request may write into the cache, where the provider's record does not say.
    fn cost(&self, used: &Usage, asked: Writes) -> Money {
        let unsaid = if asked == Writes::Hour { used.cache_write } else { 0 };
        let for_an_hour = used.cache_write_1h.unwrap_or(unsaid).min(used.cache_write);
        sum(&[
            (used.input, self.input),
            (used.output, self.output),
            (used.cache_read, self.cache_read),
            (used.cache_write - for_an_hour, self.cache_write),
            (for_an_hour, self.cache_write_1h),
        ])
    }

    fn most(&self, most: Most) -> Money {
        let written = match most.writes {
            Writes::Nothing => self.input,
            Writes::Minutes => self.cache_write,
            Writes::Hour => self.cache_write.max(self.cache_write_1h),
        };
        sum(&[(most.input, self.input.max(self.cache_read).max(written)), (most.output, self.output)])
    }
}

impl Price {
    /// What this use costs; a part of a nano-dollar counts as one. `asked`: what the request may write into the cache,
    /// where the provider's record does not tell how long that is kept.
    pub fn cost(&self, used: &Usage, asked: Writes) -> Money {
        let long = self.long.filter(|(above, _)| used.given() > *above);
        long.map_or(self.usual, |(_, rates)| rates).cost(used, asked)
    }

    /// What a request can cost at most: of each token the dearest kind it may turn out to be.
    pub fn most(&self, most: Most) -> Money {
        self.dearest(most, |rates| rates.most(most))
    }

    /// What of [`Price::most`] is for the answer.
    pub fn longest_answer(&self, most: Most) -> Money {
        self.dearest(most, |rates| sum(&[(most.output, rates.output)]))
    }

    fn dearest(&self, most: Most, of: impl Fn(&Rates) -> Money) -> Money {
        let long = self.long.filter(|(above, _)| most.input > *above);
        of(&self.usual).max(long.map_or(Money(0), |(_, rates)| of(&rates)))
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
pub struct Prices(pub Vec<(String, Price)>);

impl Prices {
    /// Whether an entry names this model in full.
    pub fn names(&self, model: &str) -> bool {
        self.0.iter().any(|(entry, _)| entry.split(' ').next() == Some(model))
    }

    /// The price of this model in this tier; the longest entry that fits, a whole name before any beginning.
    pub fn of(&self, model: &str, tier: Option<&str>) -> Option<Price> {
        let fits = |entry: &str| {
            let (name, of_tier) = entry.split_once(' ').map_or((entry, None), |(name, tier)| (name, Some(tier.trim())));
            let rank = match name.strip_suffix('*') {
                Some(beginning) => model.starts_with(beginning).then_some((false, beginning.len())),
                None => (name == model).then_some((true, name.len())),
            };
            rank.filter(|_| of_tier == tier)
        };
        let fitting = self.0.iter().filter_map(|(entry, price)| Some((fits(entry)?, *price)));
        fitting.max_by_key(|(rank, _)| *rank).map(|(_, price)| price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(nano: u64) -> Price {
        let rate = Money(nano);
        let usual = Rates { input: rate, output: rate, cache_read: rate, cache_write: rate, cache_write_1h: rate };
        Price { usual, long: None }
    }

    #[test]
    fn the_longest_entry_wins_and_a_tier_has_a_price_of_its_own_or_none() {
        let table = [("*", 1), ("big*", 2), ("big-1*", 3), ("big-1", 4), ("big-1* fast", 5)];
        let prices = Prices(table.map(|(name, nano)| (name.to_owned(), flat(nano))).to_vec());
        let of = |model, tier| prices.of(model, tier).map(|price| price.usual.input.0);
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

    fn dollars(text: &str) -> Money {
        Money::parse(text).expect("an amount")
    }

    fn rates(all: [&str; 5]) -> Rates {
        let [input, output, cache_read, cache_write, cache_write_1h] = all.map(dollars);
        Rates { input, output, cache_read, cache_write, cache_write_1h }
    }

    #[test]
    fn a_request_is_reserved_at_the_dearest_rate_and_charged_at_its_own() {
        let price = Price { usual: rates(["3", "15", "0.3", "3.75", "6"]), long: None };
        let most = |writes| price.most(Most { input: 1_000_000, output: 100_000, writes, is_long: false });
        assert_eq!(
            [Writes::Nothing, Writes::Minutes, Writes::Hour].map(most),
            [dollars("4.5"), dollars("5.25"), dollars("7.5")]
        );
        let used = Usage { input: 1000, output: 100, cache_read: 10_000, cache_write: 500, cache_write_1h: None };
        let cost = |used: &Usage, asked| price.cost(used, asked).exact();
        assert_eq!(cost(&used, Writes::Minutes), "0.009375");
        // Regression: what is kept for an hour was charged as what is kept for minutes.
        assert_eq!(cost(&used, Writes::Hour), "0.0105", "all of it may be, where nobody says");
        let split = Usage { cache_write_1h: Some(200), ..used };
        assert_eq!((cost(&split, Writes::Hour), cost(&split, Writes::Minutes)), ("0.009825".into(), "0.009825".into()));
        let lie = Usage { cache_write_1h: Some(u64::MAX), ..used };
        assert_eq!(cost(&lie, Writes::Minutes), "0.0105");
        assert_eq!(flat(1).cost(&Usage { input: 1, ..Usage::default() }, Writes::Nothing), Money(1), "a part counts");
        let most = Usage { input: u64::MAX, ..Usage::default() };
        assert_eq!(flat(u64::MAX).cost(&most, Writes::Nothing), Money(u64::MAX));
    }

    /// Regression: a request with a long context was charged, and set aside for, as a short one.
    #[test]
    fn a_long_context_has_its_own_price_for_all_tokens_of_the_request() {
        let long = rates(["6", "22.5", "0.6", "7.5", "12"]);
        let price = Price { usual: rates(["3", "15", "0.3", "3.75", "6"]), long: Some((200_000, long)) };
        let used = |cached| Usage { input: 100_000, output: 1000, cache_read: cached, ..Usage::default() };
        assert_eq!(price.cost(&used(100_000), Writes::Nothing), dollars("0.345"));
        assert_eq!(price.cost(&used(100_001), Writes::Nothing).exact(), "0.6825006", "cached tokens are given too");
        let most = |input| Most { input, output: 1000, ..Most::default() };
        assert_eq!(price.most(most(200_000)), dollars("0.615"));
        assert_eq!(price.most(most(200_001)).exact(), "1.222506");
        assert_eq!(
            (price.longest_answer(most(200_000)), price.longest_answer(most(200_001))),
            (dollars("0.015"), dollars("0.0225"))
        );
    }
}
