//! What the new-issue form holds when it is drawn. Pure.

use symphony_core::snapshot::Snapshot;

use super::view;

/// The new-issue form: what was typed, and what came of it.
#[derive(Default)]
pub(super) struct NewIssueForm {
    pub(super) open: bool,
    pub(super) identifier: String,
    pub(super) title: String,
    pub(super) state: String,
    pub(super) priority: String,
    pub(super) labels: String,
    pub(super) description: String,
    pub(super) states: Vec<String>,
    pub(super) created: Option<String>,
    pub(super) error: Option<String>,
}

impl NewIssueForm {
    /// An empty form; open only when a look has shown that nothing exists at all.
    pub(super) fn empty(snapshot: &Snapshot) -> Self {
        let nothing = snapshot.running.is_empty() && snapshot.retrying.is_empty() && snapshot.idle.is_empty();
        Self { open: nothing && !snapshot.polling, state: view::first_active(snapshot), ..Self::default() }
            .with_states(snapshot)
    }

    /// The states a form may name.
    pub(super) fn with_states(mut self, snapshot: &Snapshot) -> Self {
        self.states = snapshot.states.iter().map(|row| row.name.0.clone()).collect();
        self
    }
}
