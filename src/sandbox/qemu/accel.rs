//! How a machine's processor is run: by the host's own, or emulated.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How a machine's processor is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// Translation. Upstream does not treat it as a security boundary.
    Tcg {
        /// What the guest's kernel is told about its clock.
        tsc_khz: u64,
    },
}

impl Accelerator {
    /// Emulation, with the speed of the host's clock.
    pub(super) fn tcg() -> Self {
        static SPEED: OnceLock<u64> = OnceLock::new();
        Self::Tcg { tsc_khz: *SPEED.get_or_init(measure) }
    }

    /// The devices of the host it needs.
    pub(super) fn devices(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["kvm"],
            Self::Tcg { .. } => &[],
        }
    }
}

/// Ticks of the time stamp counter in a millisecond.
fn measure() -> u64 {
    let (started, from) = pair();
    std::thread::sleep(Duration::from_millis(50));
    let (ended, to) = pair();
    let khz = u128::from(to.saturating_sub(from)) * 1_000_000 / ended.duration_since(started).as_nanos().max(1);
    u64::try_from(khz).unwrap_or(0).max(1)
}

/// The clock and the counter at the same moment: of several readings the one that took least.
fn pair() -> (Instant, u64) {
    let readings = (0..32).map(|_| {
        let before = ticks();
        let now = Instant::now();
        let after = ticks();
        (after.wrapping_sub(before), now, before + after.wrapping_sub(before) / 2)
    });
    readings.min_by_key(|(took, ..)| *took).map_or_else(|| (Instant::now(), ticks()), |(_, now, ticks)| (now, ticks))
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: reads a counter that every x86-64 processor has.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Other processors have no such counter, and no image yet either.
#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> u64 {
    0
}
