//! What the broker saw of one turn's requests for inference, and what that says of the turn: an agent may end its turn as if
//! all were well although its model failed, or ask for minutes without a word.

use crate::time::Tick;

/// So many failures in a row, with no answer after them, say that the model is what fails.
const IN_A_ROW: u32 = 3;
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

/// The requests of one turn so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    asked: u32,
    answered: u32,
    failed: u32,
    row: Option<Row>,
}

/// Failures without an answer between them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    count: u32,
    first: Tick,
    last: Tick,
    /// The newest one.
    words: String,
    /// Whether each was refused by the workflow.
    barred: bool,
}

impl Seen {
    /// A request came.
    pub fn asked(&mut self) {
        self.asked = self.asked.saturating_add(1);
    }

    /// An answer came to its end.
    pub fn answered(&mut self) {
        self.answered = self.answered.saturating_add(1);
        self.row = None;
    }

    /// A request failed; `words` say who answered what. `barred`: the workflow is what refused it.
    pub fn failed(&mut self, at: Tick, words: String, barred: bool) {
        self.failed = self.failed.saturating_add(1);
        let (count, first, before) = self.row.as_ref().map_or((0, at, true), |row| (row.count, row.first, row.barred));
        self.row = Some(Row { count: count.saturating_add(1), first, last: at, words, barred: barred && before });
    }

    /// Why trying again is no use before a person has done something: the workflow refused whatever was asked.
    pub fn barred(&self) -> Option<String> {
        let row = self.row.as_ref().filter(|row| row.barred && self.answered == 0)?;
        Some(row.words.clone())
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
        if let Some(words) = self.barred().filter(|_| self.failed >= IN_A_ROW) {
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
            seen.failed(Tick(*at), "p answered 500 to m".into(), false);
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
        seen.failed(Tick(4), "no title for you".into(), false);
        seen.failed(Tick(5), "nor for you".into(), true);
        assert_eq!(seen.contradicts_end(true), None, "a request beside the work may fail");
        seen.failed(Tick(6), "gone".into(), false);
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

    #[test]
    fn what_the_workflow_refuses_is_no_use_to_ask_again_unless_something_else_was_said_too() {
        let mut seen = Seen::default();
        assert_eq!(seen.barred(), None);
        for at in [0, 1, 2] {
            assert_eq!(seen.hopeless(1000), None, "an agent may ask for something else");
            seen.failed(Tick(at), "m has no price".into(), true);
            assert_eq!(seen.barred().as_deref(), Some("m has no price"));
        }
        assert_eq!(seen.hopeless(1000).as_deref(), Some("m has no price"), "at once");
        let mut other = seen.clone();
        other.failed(Tick(3), "p answered 500".into(), false);
        assert_eq!((other.barred(), other.hopeless(1000)), (None, None), "that may mend itself");
        seen.answered();
        seen.failed(Tick(4), "m has no price".into(), true);
        assert_eq!(seen.barred(), None, "its work goes on without");
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
