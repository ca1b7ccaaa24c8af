//! Figures of one kind: how they are summed up and set against each other.

use std::time::Duration;

/// Milliseconds, measured one after the other.
#[derive(Default)]
pub(super) struct Series {
    name: &'static str,
    values: Vec<f64>,
}

impl Series {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, values: Vec::new() }
    }

    pub(super) fn add(&mut self, time: Duration) {
        self.values.push(time.as_secs_f64() * 1000.0);
    }

    /// The smallest value that `percent` of all are not above.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    pub(super) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    /// One row of a table.
    pub(super) fn row(&self) {
        let [p50, p95, p99] = [50, 95, 99].map(|percent| self.percentile(percent));
        println!("| {:<44} | {:>4} | {p50:>8.2} | {p95:>8.2} | {p99:>8.2} |", self.name, self.values.len());
    }

    pub(super) fn head() {
        println!("| {:<44} | {:>4} | {:>8} | {:>8} | {:>8} |", "milliseconds", "n", "p50", "p95", "p99");
        println!("| {} | ---: | -------: | -------: | -------: |", "-".repeat(44));
    }
}

/// One line: a figure, its bound, and whether it is kept.
pub(super) fn verdict(what: &str, figure: &str, met: Option<bool>) {
    let word = match met {
        Some(true) => "met",
        Some(false) => "not met",
        None => "no bound",
    };
    println!("{what}: {figure}: {word}");
}
