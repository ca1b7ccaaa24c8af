//! When something last moved: one number, cheap to touch from any task.
//!
//! Owns no rule; `symphony_core::patience` judges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphony_core::time::Tick;
use tokio::time::Instant;

/// The instant of the newest activity. Clones share it.
#[derive(Clone, Debug)]
pub struct Activity {
    origin: Instant,
    newest: Arc<AtomicU64>,
}

impl Activity {
    /// A clock whose origin, and newest activity, is now.
    pub fn new() -> Self {
        Self { origin: Instant::now(), newest: Arc::new(AtomicU64::new(0)) }
    }

    /// Something moved now.
    pub fn touch(&self) {
        self.newest.fetch_max(self.now().0, Ordering::Relaxed);
    }

    /// Milliseconds since something moved.
    pub fn idle_ms(&self) -> u64 {
        self.now().since(Tick(self.newest.load(Ordering::Relaxed)))
    }

    /// Now, on this clock.
    pub(crate) fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}
