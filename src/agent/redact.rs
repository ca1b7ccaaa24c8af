//! Secrets never reach a log, a transcript or a page: those that are known are replaced by value, others by their shape.

mod learned;
mod shapes;

use std::sync::Arc;

pub use learned::Learned;

const MARK: &str = "[redacted]";
/// Shorter values would hit ordinary words.
const SHORTEST: usize = 4;

/// Values that must not be written down. Clones share them; `Debug` does not show them.
#[derive(Clone, Default)]
pub struct Secrets {
    values: Arc<[String]>,
    learned: Learned,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({} values)", self.values.len())
    }
}

impl Secrets {
    /// Values of fewer than 4 bytes are ignored. A value is also known as it looks inside JSON.
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let mut all = forms(values);
        // The longest first, so that no secret's tail stays behind a shorter one that begins it.
        all.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values: all.into(), learned: Learned::default() }
    }

    /// These and one more.
    #[must_use]
    pub fn and(&self, value: &str) -> Self {
        Self::new(self.values.iter().cloned().chain([value.to_owned()])).learning(&self.learned)
    }

    /// These, and all that becomes known there.
    #[must_use]
    pub fn learning(self, learned: &Learned) -> Self {
        Self { learned: learned.clone(), ..self }
    }

    /// The first `cap` bytes of `text`, redacted; a secret that crosses the end is redacted whole.
    pub fn redact(&self, text: &str, cap: usize) -> String {
        let (bytes, learned) = (text.as_bytes(), self.learned.values());
        let mut out = String::with_capacity(text.len().min(cap));
        let mut at = 0;
        while at < text.len() && at < cap {
            let is_here = |secret: &&String| bytes[at..].starts_with(secret.as_bytes());
            let later = learned.iter().filter(is_here).map(String::len).max();
            if let Some(length) = self.values.iter().find(is_here).map(String::len).max(later) {
                out.push_str(MARK);
                at += length;
            } else if let Some(length) = bearer(&bytes[at..]) {
                out.push_str("Bearer ");
                out.push_str(MARK);
                at += length;
            } else if let Some(length) = shapes::length(&text[at..], &text[..at]) {
                out.push_str(MARK);
                at += length;
            } else {
                // `at` is always on a character boundary: secrets and bearers are whole strings.
                let Some(c) = text[at..].chars().next() else { break };
                out.push(c);
                at += c.len_utf8();
            }
        }
        out
    }
}

/// Each value as it is and as it looks inside JSON; those that would hit ordinary words are left out.
fn forms(values: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut all = Vec::new();
    for value in values.into_iter().filter(|v| v.len() >= SHORTEST) {
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        let escaped = quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned();
        if escaped != value && escaped.len() >= SHORTEST {
            all.push(escaped);
        }
        all.push(value);
    }
    all
}

/// The length of the bearer credential that `bytes` begins with.
fn bearer(bytes: &[u8]) -> Option<usize> {
    const WORD: &[u8] = b"bearer ";
    if bytes.len() <= WORD.len() || !bytes[..WORD.len()].eq_ignore_ascii_case(WORD) {
        return None;
    }
    let token = |b: &&u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    let length = bytes[WORD.len()..].iter().take_while(token).count();
    (length >= 8).then_some(WORD.len() + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_redacted_wherever_it_stands_and_however_json_spells_it() {
        let secrets = Secrets::new(["s3cret\"with\nlines".to_owned(), "tok".to_owned(), "tokenvalue".to_owned()]);
        let frame = serde_json::json!({"a": "s3cret\"with\nlines", "b": ["xtokenvaluex"]}).to_string();
        assert_eq!(secrets.redact(&frame, 1000), r#"{"a":"[redacted]","b":["x[redacted]x"]}"#);
        assert_eq!(secrets.redact("tok", 1000), "tok", "too short to be a secret");
    }

    #[test]
    fn every_bearer_is_redacted_even_an_unknown_one() {
        let secrets = Secrets::default();
        assert_eq!(secrets.redact("Authorization: bearer abcdefgh12==\"", 100), "Authorization: Bearer [redacted]\"");
        assert_eq!(secrets.redact("the bearer of news", 100), "the bearer of news");
    }

    #[test]
    fn a_cut_never_leaves_half_a_secret() {
        let secrets = Secrets::new(["0123456789".to_owned()]);
        assert_eq!(secrets.redact("ab0123456789cd", 5), "ab[redacted]");
        assert_eq!(secrets.redact("äöü", 3), "äö");
    }

    #[test]
    fn the_longer_of_two_secrets_that_begin_alike_wins() {
        let secrets = Secrets::new(["abcd".to_owned(), "abcdefgh".to_owned()]);
        assert_eq!(secrets.redact("abcdefgh", 100), MARK);
    }

    proptest::proptest! {
        #[test]
        fn no_known_secret_survives(
            secret in "[0-9\"\\\\\n]{4,9}",
            parts in proptest::collection::vec("[0-9 \n]{0,6}", 0..6),
            cap in 0_usize..60,
        ) {
            let text = parts.join(&secret);
            let secrets = Secrets::new([secret.clone()]);
            proptest::prop_assert!(!secrets.redact(&text, cap).contains(&secret));
            let quoted = serde_json::Value::from(secret).to_string();
            let json = serde_json::Value::from(text).to_string();
            proptest::prop_assert!(!secrets.redact(&json, 1000).contains(&quoted[1..quoted.len() - 1]));
        }
    }
}
