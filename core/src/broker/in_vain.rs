//! An issue whose own requests are refused again and again, while its provider answers others: such a wait mends nothing,
//! and has to end somewhere. While nobody is answered it is the provider that is out of order, and that is no failure of
//! any issue, however long it lasts.

/// Runs of one issue that may end over a short wait of its own without one answer between them.
pub const MOST: u32 = 10;

/// One issue's runs that were sent away since it was answered last. `C` tells credentials apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InVain<C> {
    times: u32,
    /// The credential with which it was sent away last, and how often that had been answered then.
    last: Option<(C, u64)>,
}

impl<C: Copy + PartialEq> InVain<C> {
    /// One of which an earlier process counted this.
    pub fn recalled(times: u32) -> Self {
        Self { times, last: None }
    }

    /// How often it counts.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Whether anybody was answered with this credential since the issue was sent away last; `answers`: how often it was
    /// good for an answer in this process.
    fn others_are_answered(&self, of: C, answers: u64) -> bool {
        match self.last {
            Some((last, then)) if last == of => answers != then,
            _ => answers > 0,
        }
    }

    /// Whether it was enough: to be sent away once more is a failure. Each failure takes an answer to others.
    pub fn is_enough(&mut self, of: C, answers: u64) -> bool {
        let enough = self.times >= MOST && self.others_are_answered(of, answers);
        if enough {
            self.last = Some((of, answers));
        }
        enough
    }

    /// A run of it ends over a refusal of its own.
    pub fn sent_away(&mut self, of: C, answers: u64) {
        if self.others_are_answered(of, answers) {
            self.times = self.times.saturating_add(1);
        }
        self.last = Some((of, answers));
    }

    /// A run of it ends over a budget that the requests of others hold.
    pub fn crowded_out(&mut self) {
        self.times = self.times.saturating_add(1);
    }

    /// Whether it was crowded out often enough: once more is a failure.
    pub fn is_crowded_out_enough(&self) -> bool {
        self.times >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: two hours of an overloaded provider cost an issue failures, and three had it parked.
    #[test]
    fn while_nobody_is_answered_no_issue_is_sent_away_in_vain() {
        let mut issue = InVain::default();
        for _ in 0..1000 {
            assert!(!issue.is_enough('a', 0));
            issue.sent_away('a', 0);
        }
        assert_eq!(issue.times(), 0);
        // Nor does what was answered before the outage count more than once.
        let mut issue = InVain::default();
        for _ in 0..1000 {
            assert!(!issue.is_enough('a', 7));
            issue.sent_away('a', 7);
        }
        assert_eq!(issue.times(), 1);
    }

    #[test]
    fn an_issue_that_is_refused_while_others_are_answered_fails_after_so_many_runs() {
        let mut issue = InVain::default();
        for answers in 1..=u64::from(MOST) {
            assert!(!issue.is_enough('a', answers));
            issue.sent_away('a', answers);
        }
        let answers = u64::from(MOST);
        assert!(!issue.is_enough('a', answers), "nobody was answered since");
        assert!(issue.is_enough('a', answers + 1));
        assert!(!issue.is_enough('a', answers + 1), "an outage that begins now costs no more failures");
        assert!(issue.is_enough('a', answers + 2));
    }

    #[test]
    fn another_credential_s_answers_say_nothing_of_this_one() {
        let mut issue = InVain::default();
        issue.sent_away('a', 3);
        issue.sent_away('b', 0);
        assert_eq!(issue.times(), 1, "a new one that answered nobody yet");
        issue.sent_away('b', 1);
        assert_eq!(issue.times(), 2);
    }

    #[test]
    fn what_an_earlier_process_counted_goes_on_once_somebody_is_answered() {
        let mut issue = InVain::recalled(MOST);
        assert!(!issue.is_enough('a', 0));
        assert!(issue.is_enough('a', 1));
        assert!(issue.is_crowded_out_enough());
        issue.crowded_out();
        assert_eq!(issue.times(), MOST + 1);
    }
}
