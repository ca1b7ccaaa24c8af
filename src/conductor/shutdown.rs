//! How the conductor ends when somebody asks: the first time it drains, with a deadline, the second time it kills.

use std::time::Duration;

use symphony_core::board::Settled;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Conductor, Hands};
use crate::nudge::Nudge;

/// What a drain may take: every run cancels, exports, runs its hook and loses its sandbox meanwhile.
pub(super) const DRAIN_DEADLINE: Duration = Duration::from_secs(90);
/// What may follow after everything was dropped: the last writes to the journal.
pub(super) const KILL_DEADLINE: Duration = Duration::from_secs(10);

impl<H: Hands> Conductor<H> {
    /// Runs until it ends by itself or `asked` resolves, which it does each time somebody wants the program to stop.
    /// `None`: the drain had to be cut off.
    pub async fn run_until_asked(self, nudges: mpsc::Receiver<Nudge>, mut asked: impl AsyncFnMut()) -> Option<Settled> {
        let (drain, kill) = (CancellationToken::new(), CancellationToken::new());
        let work = self.run(nudges, drain.clone(), kill.clone());
        tokio::pin!(work);
        tokio::select! {
            settled = &mut work => return Some(settled),
            () = asked() => {}
        }
        tracing::info!(
            "stopping: turns under way are ended and their work is kept, which may take {} s; a second signal kills everything at once",
            DRAIN_DEADLINE.as_secs()
        );
        drain.cancel();
        tokio::select! {
            // A person asked for the stop: whatever is left is no failure.
            _ = &mut work => return Some(Settled::Finished),
            () = asked() => tracing::warn!("killing everything"),
            () = tokio::time::sleep(DRAIN_DEADLINE) => tracing::error!("the drain took too long; killing everything"),
        }
        kill.cancel();
        let _ = tokio::time::timeout(KILL_DEADLINE, work).await;
        None
    }
}
