//! Numbers, durations, addresses and long lines, as the page says them. Pure.

/// An address from front matter, if it is one a browser should follow.
pub(super) fn link(url: Option<&str>) -> Option<String> {
    url.filter(|url| url.starts_with("https://") || url.starts_with("http://")).map(str::to_owned)
}

/// The first line of `text`, at most `max` characters.
pub(super) fn short(text: &str, max: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", line.get(..at).unwrap_or(line)),
        None => line.to_owned(),
    }
}

/// `9`, `9.9k`, `1.2M`
pub(super) fn count(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{:.1}k", (number / 100) as f64 / 10.0),
        _ => format!("{:.1}M", (number / 100_000) as f64 / 10.0),
    }
}

/// `9s`, `2m`, `1h 5m`
pub(super) fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Prose, or what stands between backticks in it.
pub(super) struct Piece {
    pub(super) is_code: bool,
    pub(super) text: String,
}

/// A sentence of ours, with its backticks read as people mean them.
pub(super) fn pieces(sentence: &str) -> Vec<Piece> {
    let pieces =
        sentence.split('`').enumerate().map(|(at, text)| Piece { is_code: at % 2 == 1, text: text.to_owned() });
    pieces.filter(|piece| !piece.text.is_empty()).collect()
}

/// One path segment (RFC 3986 unreserved characters stay).
pub(super) fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts = [0, 999, 1_000, 9_949, 123_456, 1_250_000].map(count);
        assert_eq!(counts, ["0", "999", "1.0k", "9.9k", "123.4k", "1.2M"]);
        assert_eq!([0.0, 59.9, 60.0, 3_900.0].map(duration), ["0s", "59s", "1m", "1h 5m"]);
    }

    #[test]
    fn long_lines_are_cut_at_a_character() {
        assert_eq!(short("äöü\nnext", 3), "äöü");
        assert_eq!(short("äöüß", 3), "äöü…");
    }

    #[test]
    fn an_identifier_becomes_one_path_segment() {
        assert_eq!(percent_encoded("a/b ä?"), "a%2Fb%20%C3%A4%3F");
    }

    #[test]
    fn what_stands_between_backticks_is_code() {
        let said: Vec<_> = pieces("Move it to `Todo/`.").into_iter().map(|piece| (piece.is_code, piece.text)).collect();
        assert_eq!(said, [(false, "Move it to ".into()), (true, "Todo/".into()), (false, ".".into())]);
    }

    #[test]
    fn only_web_addresses_become_links() {
        assert_eq!(link(Some("javascript:alert(1)")), None);
        assert_eq!(link(Some("https://example.org")).as_deref(), Some("https://example.org"));
    }
}
