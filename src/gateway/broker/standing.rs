//! What providers said last of each credential, for all runs together: until when nothing is asked with it, or that it is no
//! good. The journal keeps it: a restart waits as long as this process would have. A credential that was refused is tried
//! once more after a start, by one request alone, for its owner may have mended it at the provider.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use symphony_core::broker::Provider;
use symphony_core::broker::quota::{self, Pause, Standing};
use symphony_core::time::Tick;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::credential::Fingerprint;
use crate::journal::standings::{Said, Standing as Kept, Told};
use crate::journal::{Journal, Written};

/// Credentials that are remembered at once; people change them by hand.
const REMEMBERED: usize = 64;
/// Who waits for another request to be answered goes without that after this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// Waits that are shorter are over before another process has started, and too many to keep.
const KEPT_FROM: Duration = Duration::from_secs(5);
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
    /// Where they outlive this process.
    journal: Option<Journal>,
    /// Under this credentials are hashed for it.
    key: [u8; 32],
    /// By that hash.
    all: Mutex<HashMap<Name, Entry>>,
    /// Credentials that were taken, and how often each was good for a whole answer.
    good: Mutex<HashMap<Fingerprint, u64>>,
    /// Told when something may have become possible, or impossible.
    changed: watch::Sender<()>,
}

/// A credential, as the journal calls it: nobody without its key can try which one it is.
type Name = [u8; 32];

struct Entry {
    standing: Standing,
    refused: Option<String>,
    /// Whether the journal knows of it.
    kept: bool,
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
        Self {
            origin: Instant::now(),
            journal: None,
            key: [0; 32],
            all: Mutex::default(),
            good: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self { standing: Standing::default(), refused: None, kept: false, gate: Gate::new() }
    }
}

impl Standings {
    /// With what earlier processes were told; what is said from now on is kept in `journal`.
    pub(super) fn recalled(journal: &Journal, told: &Told) -> Arc<Self> {
        let Some(key) = told.key else { return Arc::default() };
        let this = Arc::new(Self { journal: Some(journal.clone()), key, ..Self::default() });
        let now = Timestamp::now();
        for kept in &told.standings {
            let (wait, pause, in_a_row) = match &kept.said {
                // A clock that was set back, or a row that makes no sense, lengthens nothing beyond all bounds.
                Said::Wait { until, pause, in_a_row } => {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    (wait.min(quota::MAX), *pause, *in_a_row)
                }
                Said::Refused => (Duration::ZERO, Pause::default(), 1),
            };
            let standing = Standing::recalled(this.now(), wait, pause, in_a_row);
            this.lock().insert(kept.credential, Entry { standing, kept: true, ..Entry::new() });
            this.tell_after(wait);
        }
        this
    }

    fn name(&self, of: &Fingerprint) -> Name {
        let mut digest = Sha256::new();
        for part in [&self.key, of] {
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Entry>> {
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
        let Some(entry) = all.get(&self.name(of)) else { return Ok((quota::Leave::Go, Pause::default(), Gate::new())) };
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

    /// Makes the change, and has the journal told what came of it, in the order of changes.
    fn change(
        &self,
        of: &Fingerprint,
        provider: Provider,
        change: impl FnOnce(&mut Entry) -> Option<Said>,
    ) -> Vec<Written<()>> {
        let (name, mut all, mut writes) = (self.name(of), self.lock(), vec![]);
        if all.len() >= REMEMBERED
            && !all.contains_key(&name)
            && let Some(some) = all.keys().next().copied()
            && all.remove(&some).is_some_and(|entry| entry.kept)
        {
            writes.extend(self.journal.as_ref().map(|journal| journal.standing_over(some)));
        }
        let entry = all.entry(name).or_insert_with(Entry::new);
        if let (Some(said), Some(journal)) = (change(entry), &self.journal) {
            entry.kept = true;
            writes.push(journal.standing(Kept { credential: name, provider, said }));
        }
        drop(all);
        self.changed.send_replace(());
        writes
    }

    /// Whoever waits for the end of a wait elsewhere hears of it then.
    pub(super) fn tell_after(self: &Arc<Self>, wait: Duration) {
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            if let Some(this) = this.upgrade() {
                this.changed.send_replace(());
            }
        });
    }

    /// Refusals in a row with that of a request that was sent then.
    pub(super) fn in_a_row_with(&self, of: &Fingerprint, sent: Tick) -> u32 {
        self.lock().get(&self.name(of)).map_or(1, |entry| entry.standing.in_a_row_with(sent))
    }

    /// The provider asks to wait. As for all that is said here, it counts at once; what comes back is done when the journal
    /// has it.
    pub(super) fn wait(
        self: &Arc<Self>,
        of: &Fingerprint,
        provider: Provider,
        sent: Tick,
        wait: Duration,
        pause: Pause,
    ) -> impl Future<Output = ()> + use<> {
        let writes = self.change(of, provider, |entry| {
            entry.standing.refused(sent, self.now(), wait, pause);
            let (until, in_a_row) = entry.standing.wait();
            let until = Self::of_the_world(self.instant(until));
            let is_kept = entry.kept || wait >= KEPT_FROM;
            is_kept.then(|| Said::Wait { until, pause: entry.standing.pause(), in_a_row })
        });
        self.tell_after(wait);
        kept(writes)
    }

    /// The provider does not take the credential.
    pub(super) fn refuse(
        &self,
        of: &Fingerprint,
        provider: Provider,
        said: String,
    ) -> impl Future<Output = ()> + use<> {
        let writes = self.change(of, provider, |entry| {
            entry.refused = Some(said);
            Some(Said::Refused)
        });
        kept(writes)
    }

    /// A request that was sent then was answered.
    pub(super) fn answered(&self, of: &Fingerprint, sent: Tick) -> impl Future<Output = ()> + use<> {
        kept(self.over(of, sent))
    }

    fn over(&self, of: &Fingerprint, sent: Tick) -> Option<Written<()>> {
        let (name, mut all) = (self.name(of), self.lock());
        let entry = all.get_mut(&name)?;
        entry.standing.answered(sent);
        if entry.refused.is_some() || entry.standing != Standing::default() {
            return None;
        }
        let was_kept = all.remove(&name).is_some_and(|entry| entry.kept);
        self.journal.as_ref().filter(|_| was_kept).map(|journal| journal.standing_over(name))
    }

    /// It was taken: an answer begins.
    pub(super) fn was_good(&self, of: &Fingerprint) {
        self.good(of, 0);
    }

    /// It was good for a whole answer.
    pub(super) fn was_answered(&self, of: &Fingerprint) {
        self.good(of, 1);
    }

    fn good(&self, of: &Fingerprint, more: u64) {
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if good.len() >= REMEMBERED && !good.contains_key(of) {
            good.clear();
        }
        let answers = good.entry(*of).or_default();
        *answers = answers.saturating_add(more);
    }

    /// How often it was good for a whole answer, as far as is remembered; `None`: it never was taken.
    pub(super) fn answers(&self, of: &Fingerprint) -> Option<u64> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner).get(of).copied()
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

/// What cannot be kept is known to this process all the same.
async fn kept(writes: impl IntoIterator<Item = Written<()>>) {
    for written in writes {
        if let Err(error) = written.await {
            tracing::warn!(%error, "what a provider said of a credential could not be kept; after a restart it is asked again");
        }
    }
}
