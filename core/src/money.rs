//! Amounts of US dollars as whole nano-dollars: sums are exact, and no rounding adds up.

use std::fmt;

/// Nano-dollars in a dollar.
const NANO: u64 = 1_000_000_000;
/// Digits behind the point.
const PLACES: usize = 9;
/// Digits before it: more is a slip of the finger.
const WHOLE_MAX: usize = 9;

/// An amount in nano-dollars. Its text is for people, rounded; [`Money::exact`] is the amount itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub u64);

impl Money {
    /// Reads `5`, `0.25` or `$12.50`: at most nine digits before and behind the point.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('$').unwrap_or(text).trim_start();
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let part = part.trim_end_matches('0');
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = whole.len() <= WHOLE_MAX && part.len() <= PLACES;
        if !fits || !digits(whole) || !digits(part) || !text.bytes().any(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: u64 = format!("{part:0<PLACES$}").parse().ok()?;
        Some(Self(whole * NANO + part))
    }

    /// All of it, at least to the cent, without the sign of the currency: what [`Money::parse`] reads back.
    pub fn exact(self) -> String {
        let text = format!("{}.{:09}", self.0 / NANO, self.0 % NANO);
        let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
        let part = part.trim_end_matches('0');
        format!("{whole}.{part:0<2}")
    }

    /// The sum, as large as it gets.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// As it is shown, but never less than it is: to the cent, below a dollar to the hundredth of a cent.
    pub fn rounded_up(self) -> String {
        let step = if self.0 < NANO { 100_000 } else { 10_000_000 };
        format!("${}", Self(self.0.div_ceil(step).saturating_mul(step)).exact())
    }

    /// As a number of dollars, for programs that count in those; not exact.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / NANO as f64
    }
}

impl fmt::Display for Money {
    /// To the cent; below a dollar to the hundredth of a cent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = if self.0 < NANO { 100_000 } else { 10_000_000 };
        let rounded = self.0.saturating_add(step / 2) / step * step;
        match (self.0, rounded) {
            (0, _) => f.write_str("$0.00"),
            (_, 0) => f.write_str("less than $0.0001"),
            _ => write!(f, "${}", Self(rounded).exact()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them_and_nothing_else_is_one() {
        let read = |text| Money::parse(text).map(|money| money.0);
        assert_eq!(read("5"), Some(5 * NANO));
        assert_eq!(read(" $12.50 "), Some(12_500_000_000));
        assert_eq!([read("0.000000001"), read(".5"), read("1.")], [Some(1), Some(500_000_000), Some(NANO)]);
        assert_eq!(read("999999999.999999999"), Some(999_999_999_999_999_999));
        assert_eq!(read("0.50000000000000"), Some(500_000_000));
        for wrong in
            ["", "$", ".", "-1", "+1", "1,000", "1e3", "five", "1.2.3", "0.0000000001", "1000000000", "1 2", "€5"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_amount_is_said_short_and_can_be_had_whole() {
        let said = |nano| (Money(nano).to_string(), Money(nano).exact());
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(said(0), pair("$0.00", "0.00"));
        assert_eq!(said(12_345_678_901), pair("$12.35", "12.345678901"));
        assert_eq!(said(4_200_000), pair("$0.0042", "0.0042"));
        assert_eq!(said(500_000_000), pair("$0.50", "0.50"));
        assert_eq!(said(1), pair("less than $0.0001", "0.000000001"));
        for nano in [0, 1, 999, NANO, 123_456_789_012] {
            assert_eq!(Money::parse(&Money(nano).exact()), Some(Money(nano)));
        }
    }
}
