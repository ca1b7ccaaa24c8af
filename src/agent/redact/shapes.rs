//! What a secret of a well-known kind looks like, for those that nobody told us of: an agent that finds a key in a file
//! shows it in its next message.
//!
//! By prefix and length only. A key without a prefix of its own, such as a bare string of hex digits, cannot be told from
//! a commit's name and stays.

/// How such a secret begins, how many characters of its alphabet follow at least, and which it has beside letters, digits,
/// `-` and `_`.
const PREFIXES: &[(&str, usize, &str)] = &[
    // Anthropic and OpenAI, keys and tokens of a login alike.
    ("sk-", 20, ""),
    // GitHub: personal, OAuth, user-to-server, server-to-server, refresh, fine-grained.
    ("ghp_", 30, ""),
    ("gho_", 30, ""),
    ("ghu_", 30, ""),
    ("ghs_", 30, ""),
    ("ghr_", 30, ""),
    ("github_pat_", 30, ""),
    ("glpat-", 16, ""),
    // AWS: the identifiers of keys, long-lived and temporary.
    ("AKIA", 16, ""),
    ("ASIA", 16, ""),
    // Google: keys of an API, tokens of a login.
    ("AIza", 30, ""),
    ("ya29.", 20, "."),
    // Slack.
    ("xoxb-", 20, ""),
    ("xoxp-", 20, ""),
    ("xoxa-", 20, ""),
    ("xapp-", 20, ""),
    // Registries and the like.
    ("npm_", 30, ""),
    ("pypi-", 40, ""),
    ("hf_", 30, ""),
    ("xai-", 40, ""),
    ("gsk_", 40, ""),
    // A JSON web token: the first part is `{"` in base64, three parts have a dot between them.
    ("eyJ", 40, "."),
];

/// Bytes that are looked at before something counts as a key.
const LOOK: usize = 256;

/// What stands around a private key. Between the marks anything is part of it.
const KEY_BEGINS: &str = "-----BEGIN ";
const KEY: &str = "PRIVATE KEY-----";
const KEY_ENDS: &str = "-----END ";
/// Longest private key that is looked for, in bytes.
const KEY_MAX: usize = 16 * 1024;

/// The length of the secret that `text` begins with; `before` is all that stands in front of it.
pub(super) fn length(text: &str, before: &str) -> Option<usize> {
    if is_within_a_word(before) {
        return None;
    }
    if text.starts_with(KEY_BEGINS) {
        return private_key(text);
    }
    let (prefix, least, more) = *PREFIXES.iter().find(|(prefix, ..)| text.starts_with(prefix))?;
    let rest = &text.as_bytes()[prefix.len()..];
    let beginning = beginning(rest, more);
    (beginning >= least && !is_plain(&rest[..beginning]))
        .then(|| prefix.len() + rest.iter().take_while(|b| is_own(**b, more)).count())
}

/// Within a longer word nothing begins. A line break in JSON ends with a letter.
fn is_within_a_word(before: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match before.as_bytes() {
        [.., first, last] => is_word(*last) && *first != b'\\',
        [only] => is_word(*only),
        [] => false,
    }
}

/// Whether this byte can stand in a key that has `more` beside the usual ones.
fn is_own(byte: u8, more: &str) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || more.as_bytes().contains(&byte)
}

/// A look at its beginning decides: a long text that is no key must not be measured again at each of its letters.
fn beginning(rest: &[u8], more: &str) -> usize {
    rest[..rest.len().min(LOOK)].iter().take_while(|b| is_own(**b, more)).count()
}

/// A word of lower-case letters and dashes is a name, such as that of a directory.
fn is_plain(word: &[u8]) -> bool {
    word.iter().all(|b| b.is_ascii_lowercase() || b"-_.".contains(b))
}

/// What a text that ends here may yet be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SoFar {
    /// Whatever follows changes nothing.
    Decided,
    /// What follows decides, or belongs to it.
    Undecided,
    /// The same, and it looks like a good part of a secret already.
    Half,
}

/// Bytes of a secret that tell more than they hide.
pub(super) const HALF: usize = 8;
/// A text that is longer than this is no beginning of a key.
pub(super) const UNDECIDED_MAX: usize = LOOK + 16;

/// Whether more text could change what [`length`] says.
pub(super) fn so_far(text: &str, before: &str) -> SoFar {
    if is_within_a_word(before) {
        return SoFar::Decided;
    }
    if text.starts_with(KEY_BEGINS) {
        let undecided = match private_key(text) {
            None => text.len() < HEAD,
            Some(length) => length == text.len() && !is_closed(text) && text.len() < KEY_MAX,
        };
        return if undecided { SoFar::Undecided } else { SoFar::Decided };
    }
    let Some((prefix, _, more)) = PREFIXES.iter().find(|(prefix, ..)| text.starts_with(prefix)) else {
        let begins = KEY_BEGINS.starts_with(text) || PREFIXES.iter().any(|(prefix, ..)| prefix.starts_with(text));
        return if begins { SoFar::Undecided } else { SoFar::Decided };
    };
    let rest = &text.as_bytes()[prefix.len()..];
    let beginning = beginning(rest, more);
    if rest.iter().any(|b| !is_own(*b, more)) || (beginning == LOOK && is_plain(&rest[..beginning])) {
        return SoFar::Decided;
    }
    if beginning >= HALF && !is_plain(&rest[..beginning]) { SoFar::Half } else { SoFar::Undecided }
}

/// The beginning of a secret that goes on, as short as it can be to be known as that again. A private key has its end to
/// come, and is kept whole.
pub(super) fn stump(text: &str) -> usize {
    if text.starts_with(KEY_BEGINS) { text.len() } else { text.len().min(UNDECIDED_MAX) }
}

/// Longest first line of a private key.
const HEAD: usize = 80;

/// At most so many bytes of it, in whole characters.
fn first(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// From mark to mark; one without an end goes as far as is looked.
fn private_key(text: &str) -> Option<usize> {
    first(text, HEAD).contains(KEY).then_some(())?;
    let within = first(text, KEY_MAX);
    Some(closing(within).unwrap_or(within.len()))
}

/// Where a private key has its end.
fn closing(within: &str) -> Option<usize> {
    let after = within.find(KEY_ENDS)? + KEY_ENDS.len();
    within[after..].find("-----").map(|at| after + at + 5)
}

fn is_closed(text: &str) -> bool {
    closing(first(text, KEY_MAX)).is_some()
}

#[cfg(test)]
mod tests {
    use crate::agent::redact::Secrets;

    fn shown(text: &str) -> String {
        Secrets::default().redact(text, 100_000)
    }

    #[test]
    fn keys_of_well_known_kinds_are_redacted_wherever_they_stand() {
        let long = "aB3".repeat(20);
        for prefix in ["sk-ant-api03-", "sk-proj-", "ghp_", "github_pat_", "AKIA", "AIza", "xoxb-", "npm_", "eyJ"] {
            let key = format!("{prefix}{long}");
            for (before, after) in [("KEY=", "\n"), ("\"", "\","), ("", ""), ("https://u:", "@h/")] {
                assert_eq!(shown(&format!("{before}{key}{after}")), format!("{before}[redacted]{after}"), "{prefix}");
            }
        }
        let in_json = serde_json::json!({"text": format!("one\nghp_{long}\tAKIA{long}")}).to_string();
        assert_eq!(shown(&in_json), r#"{"text":"one\n[redacted]\t[redacted]"}"#);
        assert_eq!(
            shown("a eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N b"),
            "a [redacted] b"
        );
    }

    #[test]
    fn a_private_key_goes_with_all_that_stands_between_its_marks() {
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXkt\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
        assert_eq!(shown(&format!("a {key} b")), "a [redacted] b");
        let in_json = serde_json::json!({ "text": key }).to_string();
        assert_eq!(shown(&in_json), r#"{"text":"[redacted]"}"#);
        assert_eq!(shown("-----BEGIN RSA PRIVATE KEY-----\ncut off here"), "[redacted]");
        let public = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        assert_eq!(shown(public), public);
    }

    /// Regression: each of the beginnings was followed to the end of the line, which kept a processor busy for minutes.
    #[test]
    fn a_long_line_that_only_looks_like_keys_is_read_about_once() {
        let line = "sk-".repeat(1_000_000);
        assert_eq!(Secrets::default().redact(&line, 60_000), line[..60_000]);
    }

    #[test]
    fn ordinary_words_stay_as_they_are() {
        for text in [
            "task-force-and-a-very-long-name-of-a-branch",
            "sk-learn",
            "a sk-very-long-name-of-a-directory-in-lower-case",
            "risk-0123456789abcdefABCDEF0123456789",
            "eyJ is how such a token begins",
            "0123456789abcdef0123456789abcdef01234567",
            "ghp_short1",
            "-----BEGIN ä",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
