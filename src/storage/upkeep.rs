//! What a running symphony removes by itself, once after its start and then daily: only what no run can come to need.
//!
//! Work disks, workspaces and airlocks belong to issues, and here nobody knows what the board is about to do with an issue:
//! they are never even listed, but for disks and workspaces whose removal was cut off. It runs beside everything, and nothing waits
//! for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use symphony_core::retention::plan;
use symphony_core::snapshot::Snapshot;
use symphony_core::workflow::Workflow;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Stock;
use crate::journal::{self, Journal, Limit};
use crate::layout::Layout;
use crate::sandbox::qemu::Templates;

const BETWEEN: Duration = Duration::from_secs(24 * 60 * 60);

/// The task, and what it needs.
pub struct Upkeep {
    /// Where things stand. The workflow's lock is held.
    pub layout: Layout,
    /// It is told how large it may grow.
    pub journal: Journal,
    /// Who this symphony is, across restarts.
    pub instance: String,
    /// They know which of them are in use.
    pub templates: Option<Templates>,
    /// Runs with a lower number began before this process did.
    pub next_run: u64,
    /// They say which runs began since, and which are alive.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The workflow in force. May block.
    pub in_force: Arc<dyn Fn() -> Arc<Workflow> + Send + Sync>,
}

impl Upkeep {
    /// Ends when the conductor is gone.
    pub async fn run(mut self) {
        let mut due = Instant::now();
        loop {
            let running = running(&self.snapshots.borrow_and_update());
            // Numbers only grow, and a run is in the snapshot from its beginning: what is below one that was there began.
            self.next_run = running.last().map_or(self.next_run, |run| self.next_run.max(run.saturating_add(1)));
            if due <= Instant::now() {
                let pass = self.pass(running);
                if let Err(error) = tokio::task::spawn_blocking(pass).await {
                    tracing::error!(%error, "cleaning up crashed; this is a bug in symphony");
                }
                due = Instant::now() + BETWEEN;
            }
            tokio::select! {
                changed = self.snapshots.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    /// One look and what follows from it. What is not running now never runs again.
    fn pass(&self, running: BTreeSet<u64>) -> impl FnOnce() + Send + 'static {
        let (layout, instance, templates) = (self.layout.clone(), self.instance.clone(), self.templates.clone());
        let journal = self.journal.clone();
        let (next_run, snapshots, in_force) = (self.next_run, self.snapshots.clone(), self.in_force.clone());
        move || {
            let workflow = in_force();
            let had_key = layout.journal_key().exists();
            match journal::key::load_or_create(&layout.journal_key()) {
                Ok(secret) => {
                    if let (false, Ok(Some(signer))) = (had_key, journal::inspect::signer(&layout.journal())) {
                        tracing::warn!(%signer, "the key of the journal was lost and a new one made, which does not vouch for what the old one signed; stop symphony and let `symphony journal compact --new-key` sign anew");
                    }
                    journal.keep_within(Limit::of(workflow.retention.journal_events, &instance, secret));
                }
                Err(error) => tracing::warn!(%error, "the journal grows without a limit"),
            }
            let mut stock = Stock::default();
            stock.templates(&layout, templates.as_ref());
            stock.runs(&layout, next_run, &running);
            stock.journal(&layout);
            stock.disk_rests(&layout);
            stock.half_removed(&workflow.workspace.root, &instance);
            for error in &stock.inventory.errors {
                tracing::warn!(%error, "nothing is cleaned up: something could not be looked at");
            }
            let (mut things, mut freed) = (0_u64, 0_u64);
            let verdicts = plan(&stock.inventory, &workflow.retention);
            for (at, (item, verdict)) in stock.inventory.items.iter().zip(verdicts).enumerate() {
                let Ok(due) = verdict else { continue };
                if snapshots.borrow().draining {
                    break;
                }
                let (kind, bytes) = (item.kind.as_str(), item.bytes.unwrap_or(0));
                match stock.remove(at, templates.as_ref()) {
                    Ok(()) => {
                        (things, freed) = (things.saturating_add(1), freed.saturating_add(bytes));
                        tracing::info!(kind, path = %item.place, bytes, reason = %due, "removed");
                    }
                    Err(error) => tracing::warn!(kind, path = %item.place, %error, "cannot be removed"),
                }
            }
            if things > 0 {
                tracing::info!(things, freed_bytes = freed, "cleaned up what nobody needs");
            }
        }
    }
}

fn running(snapshot: &Snapshot) -> BTreeSet<u64> {
    snapshot.running.iter().map(|row| row.run.0).collect()
}
