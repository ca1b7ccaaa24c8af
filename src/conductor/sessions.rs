//! The newest session of each issue's agent, as the journal has it: handed to the issue's next run, and forgotten when the
//! agent's home goes.

use symphony_core::ids::{IssueId, RunId};
use symphony_core::session::Kept;
use tokio::sync::oneshot;

use super::{Conductor, Hands};

impl<H: Hands> Conductor<H> {
    pub(super) fn keep_session(
        &mut self,
        run: RunId,
        session: Option<Kept>,
        kept: oneshot::Sender<Result<(), String>>,
    ) {
        let Some(live) = self.live.get(&run) else { return };
        let issue = live.issue.id.clone();
        match session.clone() {
            Some(session) => self.sessions.insert(issue.clone(), session),
            None => self.sessions.remove(&issue),
        };
        let written = self.journal.session(Some(run), issue, session);
        self.tasks.spawn(async move {
            // A run that is gone does not want to know.
            let _ = kept.send(written.await.map_err(|error| error.to_string()));
        });
    }

    pub(super) fn forget_session(&mut self, issue: &IssueId) {
        if self.sessions.remove(issue).is_none() {
            return;
        }
        let (written, issue) = (self.journal.session(None, issue.clone(), None), issue.clone());
        self.tasks.spawn(async move {
            if let Err(error) = written.await {
                tracing::error!(issue_id = %issue, %error, "an agent's session that is gone could not be forgotten");
            }
        });
    }
}
