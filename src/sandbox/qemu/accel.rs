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

/// Ticks of the time stamp counter in a millisecond, rounded: two starts of symphony must not differ in it, since it
/// is part of a template's key.
fn measure() -> u64 {
    const ROUND: u64 = 10_000;
    let (started, from) = (Instant::now(), ticks());
    std::thread::sleep(Duration::from_millis(40));
    let (to, nanos) = (ticks(), started.elapsed().as_nanos());
    let khz = u128::from(to.saturating_sub(from)) * 1_000_000 / nanos.max(1);
    let khz = u64::try_from(khz).unwrap_or(0);
    ((khz + ROUND / 2) / ROUND).max(1) * ROUND
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
