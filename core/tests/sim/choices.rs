//! Where the world's decisions come from: a seed, or bytes that proptest can shrink.

/// A source of decisions. The same source gives the same world.
pub(crate) enum Choices {
    /// SplitMix64.
    Seeded(u64),
    /// Bytes, then zeros: zero is always the calm choice.
    Bytes(std::vec::IntoIter<u8>),
}

impl Choices {
    pub(crate) fn of_seed(seed: u64) -> Self {
        Self::Seeded(seed)
    }

    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into_iter())
    }

    fn next(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                z ^ (z >> 31)
            }
            Self::Bytes(bytes) => bytes.next().map_or(0, u64::from),
        }
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    /// Whether something unusual happens, in so many of 100 cases.
    pub(crate) fn rarely(&mut self, percent: u64) -> bool {
        // The high values, so that zero is calm.
        self.next() % 100 >= 100 - percent
    }

    /// One of these.
    pub(crate) fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Milliseconds: mostly moments, sometimes minutes, rarely hours.
    pub(crate) fn delay(&mut self) -> u64 {
        match self.below(20) {
            0..=9 => self.below(50) as u64,
            10..=15 => self.below(3_000) as u64,
            16..=18 => self.below(120_000) as u64,
            _ => self.below(3_600_000) as u64,
        }
    }
}
