//! Issues whose own requests are refused again and again while others are answered, for all runs together. The journal
//! keeps how often: an issue must not go round for ever because this process ends now and then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use symphony_core::broker::InVain;
use symphony_core::ids::IssueId;

use super::credential::Fingerprint;
use crate::journal::{Journal, Written};

/// Issues that are remembered at once.
const REMEMBERED: usize = 1024;

/// How often each was sent away since it was answered last.
#[derive(Default)]
pub(super) struct Tries {
    all: Mutex<BTreeMap<IssueId, InVain<Fingerprint>>>,
    journal: Option<Journal>,
}

impl Tries {
    /// With what earlier processes counted, and kept in `journal` from now on.
    pub(super) fn recalled(journal: &Journal, times: &BTreeMap<IssueId, u32>) -> Self {
        let all = times.iter().map(|(issue, times)| (issue.clone(), InVain::recalled(*times)));
        Self { all: Mutex::new(all.collect()), journal: Some(journal.clone()) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<IssueId, InVain<Fingerprint>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, issue: IssueId, times: u32) -> Option<Written<()>> {
        self.journal.as_ref().map(|journal| journal.in_vain(issue, times))
    }

    fn change(&self, issue: &IssueId, change: impl FnOnce(&mut InVain<Fingerprint>)) -> Vec<Written<()>> {
        let (mut all, mut writes) = (self.lock(), vec![]);
        if all.len() >= REMEMBERED
            && !all.contains_key(issue)
            && let Some((some, forgotten)) = all.pop_first()
            && forgotten.times() > 0
        {
            writes.extend(self.write(some, 0));
        }
        let tries = all.entry(issue.clone()).or_default();
        let before = tries.times();
        change(tries);
        if tries.times() != before {
            writes.extend(self.write(issue.clone(), tries.times()));
        }
        writes
    }

    /// A run of the issue ends over a refusal of its own, with a credential that was good for so many answers. What comes
    /// back is done when the journal has it; the count has changed already.
    pub(super) fn sent_away(&self, issue: &IssueId, of: Fingerprint, answers: u64) -> impl Future<Output = ()> + use<> {
        kept(self.change(issue, |tries| tries.sent_away(of, answers)))
    }

    /// A run of the issue ends over a budget that the requests of others hold.
    pub(super) fn crowded_out(&self, issue: &IssueId) -> impl Future<Output = ()> + use<> {
        kept(self.change(issue, InVain::crowded_out))
    }

    /// Whether the issue was sent away often enough, while others were answered.
    pub(super) fn is_enough(&self, issue: &IssueId, of: Fingerprint, answers: u64) -> bool {
        self.lock().get_mut(issue).is_some_and(|tries| tries.is_enough(of, answers))
    }

    /// Whether it was crowded out often enough.
    pub(super) fn is_crowded_out_enough(&self, issue: &IssueId) -> bool {
        self.lock().get(issue).is_some_and(InVain::is_crowded_out_enough)
    }

    /// One of its requests was answered.
    pub(super) fn answered(&self, issue: &IssueId) -> impl Future<Output = ()> + use<> {
        let mut all = self.lock();
        let forgotten = all.remove(issue).filter(|tries| tries.times() > 0);
        kept(forgotten.and_then(|_| self.write(issue.clone(), 0)).into_iter().collect())
    }
}

/// What cannot be kept is known to this process all the same.
async fn kept(writes: Vec<Written<()>>) {
    for written in writes {
        if let Err(error) = written.await {
            tracing::warn!(%error, "how often an issue was sent away could not be kept; a restart counts fewer");
        }
    }
}
