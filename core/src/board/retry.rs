//! When to try again.

use super::words::RetryKind;
use crate::budget::Counters;

/// Delay before a run that continues a clean one (C83, C110).
pub const CONTINUATION_MS: u64 = 1000;
/// First step of the failure back-off (C109).
const FIRST_BACKOFF_MS: u64 = 10_000;
/// `2^10` of the first step is far above any cap; larger exponents would only overflow.
const MAX_EXPONENT: u32 = 10;

/// `min(10 s · 2^(n−1), cap)` after the n-th failure in a row, in milliseconds.
pub fn backoff_ms(failures_in_a_row: u32, cap_ms: u64) -> u64 {
    let exponent = failures_in_a_row.saturating_sub(1).min(MAX_EXPONENT);
    (FIRST_BACKOFF_MS << exponent).min(cap_ms)
}

/// The number the prompt and the API show (C64, C111): none before the first run, then the
/// failures in a row, or 1 after a clean end.
pub fn attempt(counters: &Counters, kind: RetryKind) -> Option<u32> {
    match kind {
        RetryKind::First => None,
        RetryKind::Continuation => Some(1),
        RetryKind::Failure => Some(counters.failures_in_a_row.max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_from_ten_seconds_to_the_cap() {
        let steps: Vec<u64> = (1..=7).map(|n| backoff_ms(n, 300_000) / 1000).collect();
        assert_eq!(steps, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff_ms(u32::MAX, u64::MAX), 10_240_000);
        assert_eq!(backoff_ms(1, 200), 200);
    }
}
