//! Issues whose own requests are refused again and again: such a wait mends nothing, and has to end somewhere.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use symphony_core::ids::IssueId;

use crate::journal::{Journal, Written};

/// Runs of one issue that may end over a short wait of its own without one answer between them.
pub(super) const MOST: u32 = 10;
/// Issues that are remembered at once.
const REMEMBERED: usize = 1024;

/// How often each was sent away since it was answered last. The journal keeps it: an issue must not go round for ever
/// because this process ends now and then.
#[derive(Default)]
pub(super) struct InVain {
    times: Mutex<BTreeMap<IssueId, u32>>,
    journal: Option<Journal>,
}

impl InVain {
    /// With what earlier processes counted, and kept in `journal` from now on.
    pub(super) fn recalled(journal: &Journal, times: &BTreeMap<IssueId, u32>) -> Self {
        Self { times: Mutex::new(times.clone()), journal: Some(journal.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IssueId, u32>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, issue: IssueId, times: u32) -> Option<Written<()>> {
        self.journal.as_ref().map(|journal| journal.in_vain(issue, times))
    }

    /// A run of the issue ends over a refusal of its own.
    pub(super) async fn sent_away(&self, issue: &IssueId) {
        let writes = {
            let (mut all, mut writes) = (self.lock(), vec![]);
            if all.len() >= REMEMBERED
                && !all.contains_key(issue)
                && let Some((some, _)) = all.pop_first()
            {
                writes.extend(self.write(some, 0));
            }
            let times = all.entry(issue.clone()).or_default();
            *times = times.saturating_add(1);
            writes.extend(self.write(issue.clone(), *times));
            writes
        };
        kept(writes).await;
    }

    /// Whether it was enough.
    pub(super) fn is_enough(&self, issue: &IssueId) -> bool {
        self.lock().get(issue).is_some_and(|times| *times >= MOST)
    }

    /// One of its requests was answered.
    pub(super) async fn answered(&self, issue: &IssueId) {
        let written = {
            let mut all = self.lock();
            all.remove(issue).and_then(|_| self.write(issue.clone(), 0))
        };
        kept(written).await;
    }
}

/// What cannot be kept is known to this process all the same.
async fn kept(writes: impl IntoIterator<Item = Written<()>>) {
    for written in writes {
        if let Err(error) = written.await {
            tracing::warn!(%error, "how often an issue was sent away could not be kept; a restart counts fewer");
        }
    }
}
