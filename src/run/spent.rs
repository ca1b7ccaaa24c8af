//! What each request of a run used of models, in the run's own transcript.

use std::sync::{Arc, OnceLock};

use symphony_core::broker::Metered;
use symphony_core::spend::Sums;

use crate::agent::readable::requests;
use crate::agent::transcript::Transcript;

/// Requests with a line of their own: an agent may make as many as it likes. Further ones are only in the sum.
const LISTED: u64 = 2000;

/// The list. Nothing is asked before there is a transcript.
#[derive(Default)]
pub(super) struct Spent {
    to: Arc<OnceLock<Transcript>>,
    all: Sums,
}

impl Spent {
    /// Where its transcript is put.
    pub(super) fn place(&self) -> Arc<OnceLock<Transcript>> {
        self.to.clone()
    }

    /// A request is over.
    pub(super) fn add(&mut self, metered: &Metered, charged: Option<Sums>) {
        let told = Sums { requests: 1, used: metered.usage.unwrap_or_default(), ..Sums::default() };
        let one = charged.unwrap_or(Sums { unpriced: told.tokens(), ..told });
        self.all.add(&one);
        if let Some(transcript) = self.to.get().filter(|_| self.all.requests <= LISTED) {
            transcript.request(metered.provider.name(), &metered.model, &one);
        }
    }
}

/// No more can come.
impl Drop for Spent {
    fn drop(&mut self) {
        if let Some(transcript) = self.to.get().filter(|_| self.all.requests > 0) {
            transcript.note("requests", requests::all(&self.all, self.all.requests.saturating_sub(LISTED)));
        }
    }
}

#[cfg(test)]
mod tests {
    use symphony_core::broker::{Provider, Usage};

    use super::*;
    use crate::agent::Secrets;

    #[test]
    fn an_agent_that_asks_without_end_fills_no_transcript_and_every_request_is_in_the_sum() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("run.jsonl");
        let mut spent = Spent::default();
        let usage = Some(Usage { output: 1, ..Usage::default() });
        let metered = Metered { provider: Provider::OpenAi, model: "m".into(), tier: None, usage, whole: true };
        spent.all.requests = LISTED - 1;
        spent.place().set(Transcript::open(&path, Secrets::default()).expect("opened")).expect("empty");
        for _ in 0..3 {
            spent.add(&metered, None);
        }
        drop(spent);
        let mut text = String::new();
        for _ in 0..500 {
            text = std::fs::read_to_string(&path).expect("readable");
            if text.contains("requests") {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert_eq!(lines[0]["request"]["charged"], "told");
        assert_eq!((&lines[1]["requests"]["requests"], &lines[1]["requests"]["unlisted"]), (&2002.into(), &2.into()));
    }
}
