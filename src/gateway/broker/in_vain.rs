//! Issues whose own requests are refused again and again: such a wait mends nothing, and has to end somewhere.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use symphony_core::ids::IssueId;

/// Runs of one issue that may end over a short wait of its own without one answer between them.
pub(super) const MOST: u32 = 10;
/// Issues that are remembered at once.
const REMEMBERED: usize = 1024;

/// How often each was sent away since it was answered last. In memory only.
#[derive(Default)]
pub(super) struct InVain(Mutex<HashMap<IssueId, u32>>);

impl InVain {
    fn lock(&self) -> MutexGuard<'_, HashMap<IssueId, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run of the issue ends over a refusal of its own.
    pub(super) fn sent_away(&self, issue: &IssueId) {
        let mut all = self.lock();
        if all.len() >= REMEMBERED
            && !all.contains_key(issue)
            && let Some(some) = all.keys().next().cloned()
        {
            all.remove(&some);
        }
        let times = all.entry(issue.clone()).or_default();
        *times = times.saturating_add(1);
    }

    /// Whether it was enough.
    pub(super) fn is_enough(&self, issue: &IssueId) -> bool {
        self.lock().get(issue).is_some_and(|times| *times >= MOST)
    }

    /// One of its requests was answered.
    pub(super) fn answered(&self, issue: &IssueId) {
        self.lock().remove(issue);
    }
}
