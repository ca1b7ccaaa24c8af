//! Secrets that become known while runs go on: a login that was renewed has tokens that no run was started with.

use std::sync::{Arc, PoisonError, RwLock};

/// Values that are kept: those of many renewals.
const KEPT: usize = 256;

/// Values that must not be written down from now on. Clones share them; `Debug` does not show them.
#[derive(Clone, Default)]
pub struct Learned(Arc<RwLock<Arc<[String]>>>);

impl std::fmt::Debug for Learned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Learned({} values)", self.values().len())
    }
}

impl Learned {
    /// Known to every holder from here on. Of very many the oldest are forgotten.
    pub fn add(&self, values: impl IntoIterator<Item = String>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<String> = known.to_vec();
        for value in super::forms(values) {
            if !all.contains(&value) {
                all.push(value);
            }
        }
        *known = all.split_off(all.len().saturating_sub(KEPT)).into();
    }

    /// As they are now.
    pub(super) fn values(&self) -> Arc<[String]> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Secrets;
    use super::*;

    #[test]
    fn what_is_learned_later_is_redacted_by_who_was_there_before() {
        let learned = Learned::default();
        let secrets = Secrets::new(["abcdefgh".to_owned()]).learning(&learned).and("a-bearer");
        assert_eq!(secrets.redact("to\"ken-1", 100), "to\"ken-1");
        learned.add(["to\"ken-1".to_owned(), "abcdefghij".to_owned()]);
        assert_eq!(secrets.redact("to\"ken-1 to\\\"ken-1 a-bearer", 100), "[redacted] [redacted] [redacted]");
        assert_eq!(secrets.redact("abcdefghij abcdefgh", 100), "[redacted] [redacted]", "the longer one first");
        assert!(!format!("{learned:?} {secrets:?}").contains("ken-1"));
    }

    #[test]
    fn of_very_many_the_newest_are_kept() {
        let learned = Learned::default();
        learned.add((0..1000).map(|number| format!("value-{number}")));
        learned.add(["value-999".to_owned()]);
        let values = learned.values();
        assert_eq!((values.len(), values.last().map(String::as_str)), (KEPT, Some("value-999")));
    }
}
