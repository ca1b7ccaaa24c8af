//! What an agent tells that symphony has no word for: kinds of updates and notifications of its vendor. They change nothing,
//! so they are counted, and told once.

use std::collections::BTreeMap;

/// Kinds that are told apart.
const KINDS: usize = 16;
/// Characters of a kind.
const KIND_MAX: usize = 60;

/// Counts by kind. Bounded, whatever an agent thinks of.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    kinds: BTreeMap<String, u64>,
    more: u64,
}

impl Ignored {
    /// One of this kind came.
    pub(crate) fn count(&mut self, kind: &str) {
        let kind: String = kind.chars().take(KIND_MAX).collect();
        if let Some(count) = self.kinds.get_mut(&kind) {
            *count = count.saturating_add(1);
        } else if self.kinds.len() < KINDS {
            self.kinds.insert(kind, 1);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// A sentence about all of them, if there were any.
    pub(crate) fn told(&self) -> Option<String> {
        let counted = self.kinds.values().fold(self.more, |sum, count| sum.saturating_add(*count));
        let kinds = self.kinds.iter().map(|(kind, count)| format!("{kind} ({count})"));
        let more = (self.more > 0).then(|| format!("others ({})", self.more));
        let list = kinds.chain(more).collect::<Vec<_>>().join(", ");
        (counted > 0).then(|| format!("{counted} messages of kinds that symphony does not know: {list}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_and_what_is_too_much_is_one_kind() {
        let mut ignored = Ignored::default();
        assert_eq!(ignored.told(), None);
        for kind in ["hologram", "_auth/status_update", "hologram"] {
            ignored.count(kind);
        }
        let told = "3 messages of kinds that symphony does not know: _auth/status_update (1), hologram (2)";
        assert_eq!(ignored.told().as_deref(), Some(told));
        for kind in 0..1000 {
            ignored.count(&format!("{kind}{}", "x".repeat(10_000)));
        }
        let told = ignored.told().expect("some");
        assert!(told.starts_with("1003 messages") && told.ends_with("others (986)"), "{told}");
        assert!(told.len() < 2 * KINDS * KIND_MAX, "{}", told.len());
    }
}
