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
    // Within a longer word it is no prefix. A line break in JSON ends with a letter.
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if let [.., first, last] = before.as_bytes()
        && is_word(*last)
        && *first != b'\\'
    {
        return None;
    }
    if before.len() == 1 && before.bytes().all(is_word) {
        return None;
    }
    if text.starts_with(KEY_BEGINS) {
        return private_key(text);
    }
    let (prefix, least, more) = *PREFIXES.iter().find(|(prefix, ..)| text.starts_with(prefix))?;
    let own = |b: &u8| b.is_ascii_alphanumeric() || b"-_".contains(b) || more.as_bytes().contains(b);
    let rest = &text.as_bytes()[prefix.len()..];
    // A look at its beginning decides: a long text that is no key must not be measured again at each of its letters.
    let beginning = rest[..rest.len().min(LOOK)].iter().take_while(|b| own(b)).count();
    // A word of lower-case letters and dashes is a name, such as that of a directory.
    let is_plain = rest[..beginning].iter().all(|b| b.is_ascii_lowercase() || b"-_.".contains(b));
    (beginning >= least && !is_plain).then(|| prefix.len() + rest.iter().take_while(|b| own(b)).count())
}

/// From mark to mark; one without an end goes as far as is looked.
fn private_key(text: &str) -> Option<usize> {
    let head = text.get(..text.len().min(80)).or_else(|| text.get(..KEY_BEGINS.len()))?;
    head.contains(KEY).then_some(())?;
    let mut end = text.len().min(KEY_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let within = &text[..end];
    let Some(last) = within.find(KEY_ENDS) else { return Some(within.len()) };
    let after = &within[last + KEY_ENDS.len()..];
    Some(after.find("-----").map_or(within.len(), |at| last + KEY_ENDS.len() + at + 5))
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
