//! What providers said last of each credential, for all runs together: until when nothing is asked with it, or that it is no
//! good. In memory only: after a restart one request for each run finds it out again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use symphony_core::broker::quota::{self, Pause, Standing};
use symphony_core::time::Tick;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::credential::Fingerprint;

/// Credentials that are remembered at once; people change them by hand.
const REMEMBERED: usize = 64;
/// Who waits for another request to be answered goes without that after this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two requests that leave after a wait.
const SPACING: Duration = Duration::from_millis(100);

/// Whether a request may go.
pub(super) enum Leave {
    /// It may. The permit is kept until its answer begins.
    Go(Option<OwnedSemaphorePermit>),
    /// Not before this, and why.
    Until(Instant, Pause),
    /// Its credential is no good; what was said of it.
    Never(String),
}

/// All of them.
pub(super) struct Standings {
    origin: Instant,
    all: Mutex<HashMap<Fingerprint, Entry>>,
    /// Credentials that were good for an answer.
    good: Mutex<HashSet<Fingerprint>>,
    /// Told when something may have become possible, or impossible.
    changed: watch::Sender<()>,
}

struct Entry {
    standing: Standing,
    refused: Option<String>,
    /// For those that go one at a time.
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    /// Whose turn it is; kept until an answer begins.
    turn: Arc<Semaphore>,
    /// Who leaves now without waiting for that.
    pace: Arc<Mutex<Option<Instant>>>,
}

impl Gate {
    fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), pace: Arc::default() }
    }

    /// Resolves at an instant of its own for each, [`SPACING`] apart.
    async fn spaced(&self) {
        let at = {
            let mut last = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let at = last.map_or(now, |last| last.max(now)) + SPACING;
            *last = Some(at);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

impl Default for Standings {
    fn default() -> Self {
        Self { origin: Instant::now(), all: Mutex::default(), good: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Standings {
    fn lock(&self) -> MutexGuard<'_, HashMap<Fingerprint, Entry>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now, on the clock of the others.
    pub(super) fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn instant(&self, at: Tick) -> Instant {
        // No wait is longer than this, so no instant is out of range.
        let ahead = at.since(self.now()).min(u64::try_from(quota::MAX.as_millis()).unwrap_or(u64::MAX));
        Instant::now() + Duration::from_millis(ahead)
    }

    fn state(&self, of: &Fingerprint) -> Result<(quota::Leave, Pause, Gate), String> {
        let all = self.lock();
        let Some(entry) = all.get(of) else { return Ok((quota::Leave::Go, Pause::default(), Gate::new())) };
        match &entry.refused {
            Some(said) => Err(said.clone()),
            None => Ok((entry.standing.leave(self.now()), entry.standing.pause(), entry.gate.clone())),
        }
    }

    /// Whether a request may go, at once.
    pub(super) fn glance(&self, of: &Fingerprint) -> Leave {
        match self.state(of) {
            Err(said) => Leave::Never(said),
            Ok((quota::Leave::Until(at), pause, _)) => Leave::Until(self.instant(at), pause),
            Ok((quota::Leave::Go | quota::Leave::Alone, ..)) => Leave::Go(None),
        }
    }

    /// Whether one goes alone now: others wait for its answer.
    pub(super) fn goes_alone(&self, of: &Fingerprint) -> bool {
        matches!(self.state(of), Ok((quota::Leave::Alone, ..)))
    }

    /// Whether a request may go. After a wait they go one at a time until one is answered, and the others soon after each
    /// other: a provider that just recovered is not run over.
    pub(super) async fn leave(&self, of: &Fingerprint) -> Leave {
        let gate = match self.state(of) {
            Ok((quota::Leave::Alone, _, gate)) => gate,
            _ => return self.glance(of),
        };
        // One that takes long must not hold up all others.
        let permit = tokio::time::timeout(PATIENCE, gate.turn.clone().acquire_owned()).await.ok().and_then(Result::ok);
        // Nor do all others go at once then.
        if permit.is_none() {
            gate.spaced().await;
        }
        match self.state(of) {
            Ok((quota::Leave::Alone, ..)) => Leave::Go(permit),
            Ok((quota::Leave::Go, ..)) => {
                gate.spaced().await;
                Leave::Go(None)
            }
            _ => self.glance(of),
        }
    }

    fn change(&self, of: &Fingerprint, change: impl FnOnce(&mut Entry)) {
        let mut all = self.lock();
        if all.len() >= REMEMBERED
            && !all.contains_key(of)
            && let Some(some) = all.keys().next().copied()
        {
            all.remove(&some);
        }
        change(all.entry(*of).or_insert_with(|| Entry {
            standing: Standing::default(),
            refused: None,
            gate: Gate::new(),
        }));
        drop(all);
        self.changed.send_replace(());
    }

    /// Refusals in a row with that of a request that was sent then.
    pub(super) fn in_a_row_with(&self, of: &Fingerprint, sent: Tick) -> u32 {
        self.lock().get(of).map_or(1, |entry| entry.standing.in_a_row_with(sent))
    }

    /// The provider asks to wait.
    pub(super) fn wait(self: &Arc<Self>, of: &Fingerprint, sent: Tick, wait: Duration, pause: Pause) {
        self.change(of, |entry| entry.standing.refused(sent, self.now(), wait, pause));
        // Whoever waits for this elsewhere hears of it then.
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(this) = this.upgrade() {
                this.changed.send_replace(());
            }
        });
    }

    /// The provider does not take the credential.
    pub(super) fn refuse(&self, of: &Fingerprint, said: String) {
        self.change(of, |entry| entry.refused = Some(said));
    }

    /// A request that was sent then was answered.
    pub(super) fn answered(&self, of: &Fingerprint, sent: Tick) {
        let mut all = self.lock();
        let Some(entry) = all.get_mut(of) else { return };
        entry.standing.answered(sent);
        if entry.refused.is_none() && entry.standing == Standing::default() {
            all.remove(of);
        }
    }

    /// It was good for an answer.
    pub(super) fn was_good(&self, of: &Fingerprint) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert(*of);
    }

    /// Whether it ever was, as far as is remembered.
    pub(super) fn is_known_good(&self, of: &Fingerprint) -> bool {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).contains(of)
    }

    /// Told when something changed.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The same instant on the clock of the world.
    pub(super) fn of_the_world(at: Instant) -> Timestamp {
        let ahead = jiff::SignedDuration::try_from(at.saturating_duration_since(Instant::now())).unwrap_or_default();
        let now = Timestamp::now();
        now.checked_add(ahead).unwrap_or(now)
    }
}
