//! What the broker saw of one turn's requests for inference, and what that says of the turn: an agent may end its turn as if
//! all were well although its model failed, or ask for minutes without a word.

use super::Provider;
use crate::time::Tick;

/// So many failures in a row, with no answer after them, say that the model is what fails.
const IN_A_ROW: u32 = 3;
/// So long nothing but what no wait mends is enough.
const BARRED_MS: u64 = 3000;
/// Characters of a model's own words.
const WORDS_MAX: usize = 240;

/// How a request came out, by the status of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is answered.
    Through,
    /// A quota or a login: a matter of the provider, not of this turn.
    Paused,
    /// It failed.
    Failed,
}

impl Came {
    /// What this status means.
    pub fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Through,
            401 | 429 | 529 => Self::Paused,
            _ => Self::Failed,
        }
    }
}

/// What a failure says of the next try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failed {
    /// It may fare better.
    #[default]
    Open,
    /// The workflow refused it, and does so until a person has changed that.
    ByWorkflow,
    /// Its provider knows no such model.
    NoModel,
}

/// The requests of one turn so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    asked: u32,
    answered: u32,
    failed: u32,
    row: Option<Row>,
    /// Who broke an answer off to make us wait, with no answer since.
    paused: Option<Provider>,
}

/// Failures without an answer between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    count: u32,
    first: Tick,
    last: Tick,
    /// The newest one.
    words: String,
    /// What the newest one says of the next try; [`Failed::Open`] if any of them leaves hope.
    failed: Failed,
}

impl Seen {
    /// A request came.
    pub fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }

    /// An answer came to its end.
    pub fn answered(&mut self) {
        self.answered = self.answered.saturating_add(1);
        (self.row, self.paused) = (None, None);
    }

    /// A request failed; `words` say who answered what.
    pub fn failed(&mut self, at: Tick, words: String, failed: Failed) {
        self.failed = self.failed.saturating_add(1);
        let row = self.row.as_ref();
        let (count, first) = row.map_or((0, at), |row| (row.count, row.first));
        let failed = if row.is_some_and(|row| row.failed == Failed::Open) { Failed::Open } else { failed };
        self.row = Some(Row { count: count.saturating_add(1), first, last: at, words, failed });
        // It is the newer word: what failed is no wait.
        self.paused = None;
    }

    /// An answer was broken off because its provider wants us to wait: that is no failure, and no answer.
    pub fn paused(&mut self, by: Provider) {
        self.paused = Some(by);
    }

    /// The provider whose wish to wait was the last that the agent heard of its models.
    pub fn waits_for(&self) -> Option<Provider> {
        self.paused
    }

    /// Why trying again is no use before a person has done something: whatever was asked was refused by the workflow, or
    /// for a model that is none. What is still under way may yet be answered.
    pub fn barred(&self) -> Option<String> {
        let over = self.answered == 0 && self.asked == self.failed;
        let Row { words, failed, .. } = self.row.as_ref().filter(|_| over)?;
        match failed {
            Failed::Open => None,
            Failed::ByWorkflow => Some(format!("the workflow refused whatever its model was asked: {words}")),
            Failed::NoModel => Some(format!(
                "its provider knows no such model: {words}; set `acp.model` in WORKFLOW.md to one that it has"
            )),
        }
    }

    /// The failures that nothing followed yet: how many, and a sentence about them.
    pub fn failing(&self) -> Option<(u32, String)> {
        self.row.as_ref().map(|row| match row.count {
            1 => (1, row.words.clone()),
            count => (count, format!("{}; {count} times in a row", row.words)),
        })
    }

    /// Why a turn that its agent ended as if all were well is none: its model failed, or was never asked although this agent
    /// cannot work without one.
    pub fn contradicts_end(&self, needs_model: bool) -> Option<String> {
        let nothing_came = self.answered == 0 && self.failed > 0;
        match &self.row {
            Some(row) if nothing_came || row.count >= IN_A_ROW => {
                let (_, failing) = self.failing()?;
                Some(format!("its model failed, and the agent ended its turn as if it had not: {failing}"))
            }
            _ if needs_model && self.asked == 0 => {
                Some("the agent ended its turn without asking its model anything".to_owned())
            }
            _ => None,
        }
    }

    /// Why it is no use to wait any longer: nothing but failures, for longer than everything may stand still, or none that
    /// a wait could mend. A model that fails is no movement, however often it is asked. 0 is no limit.
    pub fn hopeless(&self, limit_ms: u64) -> Option<String> {
        // Small requests beside the work come first with some agents.
        let lasted = |row: &Row| row.count >= IN_A_ROW && row.last.since(row.first) >= BARRED_MS;
        if let Some(words) = self.barred().filter(|_| self.row.as_ref().is_some_and(lasted)) {
            return Some(words);
        }
        let row = self.row.as_ref().filter(|row| limit_ms > 0 && row.count >= IN_A_ROW)?;
        let lasts = row.last.since(row.first);
        (lasts >= limit_ms).then(|| {
            let (count, words) = (row.count, &row.words);
            format!(
                "its model fails and the agent asks again and again, {count} times within {} s: {words}",
                lasts / 1000
            )
        })
    }
}

/// A provider's own words about a failure, out of the body of its answer: one short line.
pub fn words_of(body: &str) -> String {
    let read = serde_json::from_str::<serde_json::Value>(body).ok();
    let named = ["/error/message", "/message", "/error", "/detail"];
    let said = read.as_ref().and_then(|read| named.iter().find_map(|name| read.pointer(name)?.as_str()));
    let line: Vec<&str> = said.unwrap_or(body).split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = line.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(failures: &[u64]) -> Seen {
        let mut seen = Seen::default();
        for at in failures {
            seen.asked();
            seen.failed(Tick(*at), "p answered 500 to m".into(), Failed::Open);
        }
        seen
    }

    #[test]
    fn a_turn_whose_requests_all_failed_did_not_end_well_and_says_with_what() {
        let why = after(&[0, 1]).contradicts_end(true).expect("it failed");
        assert!(why.contains("p answered 500 to m; 2 times in a row"), "{why}");
        assert!(after(&[0]).contradicts_end(false).is_some(), "whoever asked, also an agent that nobody knows");
    }

    #[test]
    fn one_answer_is_enough_unless_nothing_but_failures_followed_it() {
        let mut seen = after(&[0, 1, 2, 3]);
        seen.answered();
        assert_eq!(seen.contradicts_end(true), None);
        seen.failed(Tick(4), "no title for you".into(), Failed::Open);
        seen.failed(Tick(5), "nor for you".into(), Failed::ByWorkflow);
        assert_eq!(seen.contradicts_end(true), None, "a request beside the work may fail");
        seen.failed(Tick(6), "gone".into(), Failed::Open);
        assert!(seen.contradicts_end(true).is_some_and(|why| why.contains("gone; 3 times")));
    }

    #[test]
    fn only_an_agent_that_needs_a_model_is_told_that_it_asked_none() {
        assert!(Seen::default().contradicts_end(true).is_some_and(|why| why.contains("without asking")));
        assert_eq!(Seen::default().contradicts_end(false), None);
        let mut under_way = Seen::default();
        under_way.asked();
        assert_eq!(under_way.contradicts_end(true), None, "what it was told is not known");
    }

    #[test]
    fn repeated_failure_is_no_movement_and_has_the_limit_of_a_standstill() {
        assert_eq!(after(&[0, 400, 999]).hopeless(1000), None, "not long enough");
        assert_eq!(after(&[0, 5000]).hopeless(1000), None, "not often enough");
        let why = after(&[0, 400, 1000]).hopeless(1000).expect("hopeless");
        assert!(why.contains("3 times within 1 s: p answered 500 to m"), "{why}");
        assert_eq!(after(&[0, 400, 100_000]).hopeless(0), None, "there is no limit");
        let mut seen = after(&[0, 400, 1000]);
        seen.answered();
        assert_eq!(seen.hopeless(1000), None);
    }

    fn refused(seen: &mut Seen, at: u64, words: &str, failed: Failed) {
        seen.asked();
        seen.failed(Tick(at), words.into(), failed);
    }

    #[test]
    fn what_the_workflow_refuses_is_no_use_to_ask_again_unless_something_else_was_said_too() {
        const WHY: &str = "the workflow refused whatever its model was asked: m has no price";
        let mut seen = Seen::default();
        assert_eq!(seen.barred(), None);
        for at in [0, 1, 3000] {
            assert_eq!(seen.hopeless(100_000), None, "an agent may ask for something else");
            refused(&mut seen, at, "m has no price", Failed::ByWorkflow);
            assert_eq!(seen.barred().as_deref(), Some(WHY));
        }
        assert_eq!(seen.hopeless(100_000).as_deref(), Some(WHY), "long before all that stands still");
        let mut other = seen.clone();
        refused(&mut other, 3001, "p answered 500", Failed::Open);
        assert_eq!((other.barred(), other.hopeless(100_000)), (None, None), "that may mend itself");
        refused(&mut other, 4, "m has no price", Failed::ByWorkflow);
        assert_eq!(other.barred(), None, "and still may");
        seen.asked();
        seen.answered();
        refused(&mut seen, 4, "m has no price", Failed::ByWorkflow);
        assert_eq!(seen.barred(), None, "its work goes on without");
    }

    /// Regression: a title that had no price parked an issue whose main request was under way.
    #[test]
    fn what_is_refused_beside_a_request_that_still_runs_or_has_to_wait_bars_nothing() {
        let mut seen = Seen::default();
        seen.asked();
        for at in 0..5 {
            refused(&mut seen, at, "m has no price", Failed::ByWorkflow);
            assert_eq!((seen.barred(), seen.hopeless(1000)), (None, None));
        }
        let mut broke = seen.clone();
        broke.failed(Tick(9), "the answer broke off".into(), Failed::Open);
        assert_eq!((broke.barred(), broke.hopeless(1000)), (None, None));
        seen.failed(Tick(9000), "m has no price".into(), Failed::ByWorkflow);
        assert!(seen.barred().is_some() && seen.hopeless(100_000).is_some(), "all of them are over");
    }

    /// Regression: a mistyped model was tried five times, each time with the same answer.
    #[test]
    fn a_model_that_its_provider_does_not_know_is_for_a_person() {
        let mut seen = Seen::default();
        refused(&mut seen, 0, "p answered 404 to m", Failed::NoModel);
        let why = seen.barred().expect("barred");
        assert!(why.contains("no such model: p answered 404 to m; set `acp.model`"), "{why}");
    }

    #[test]
    fn who_wants_us_to_wait_is_known_until_something_is_answered() {
        let mut seen = Seen::default();
        seen.asked();
        seen.paused(Provider::OpenAi);
        assert_eq!((seen.waits_for(), seen.failing(), seen.barred()), (Some(Provider::OpenAi), None, None));
        seen.asked();
        assert_eq!(seen.waits_for(), Some(Provider::OpenAi));
        seen.answered();
        assert_eq!(seen.waits_for(), None);
        // Regression: a failure after a wait ended the run as if it still had to wait, and cost nothing.
        seen.paused(Provider::OpenAi);
        refused(&mut seen, 1, "p answered 500", Failed::Open);
        assert_eq!(seen.waits_for(), None);
    }

    #[test]
    fn quotas_and_logins_are_nobody_s_failed_turn() {
        for (status, came) in [
            (200, Came::Through),
            (400, Came::Failed),
            (401, Came::Paused),
            (403, Came::Failed),
            (429, Came::Paused),
            (500, Came::Failed),
            (529, Came::Paused),
        ] {
            assert_eq!(Came::of(status), came, "{status}");
        }
    }

    #[test]
    fn a_provider_s_words_are_found_in_every_shape_and_are_one_short_line() {
        for body in [
            r#"{"type":"error","error":{"type":"api_error","message":"it\nis broken"}}"#,
            r#"{"message":"it is broken"}"#,
            r#"{"error":"it is broken"}"#,
            "it is\r\n broken",
        ] {
            assert_eq!(words_of(body), "it is broken", "{body}");
        }
        assert_eq!(words_of(&"ä".repeat(5000)).chars().count(), WORDS_MAX + 1);
    }
}
