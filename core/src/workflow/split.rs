//! Where the front matter ends and the prompt begins (contract §1.2).
//!
//! A fence is an unindented line that is exactly `---`, trailing whitespace and CRLF allowed.

/// The two halves of a workflow file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split<'t> {
    /// The text between the fences; `None` when the file does not start with one.
    pub(super) front: Option<&'t str>,
    /// The prompt, trimmed.
    pub(super) body: &'t str,
    /// 1-based line on which the prompt starts.
    pub(super) body_line: u32,
}

/// The opening fence has no partner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unterminated;

/// Splits a file. Whatever does not start with a fence is all prompt.
///
/// # Errors
/// When the file starts with a fence and no second one follows.
pub(super) fn split(text: &str) -> Result<Split<'_>, Unterminated> {
    let fence = |line: &str| line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty());
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().unwrap_or("");
    if !fence(first) {
        return Ok(with_body(None, text, 1));
    }
    let mut end = first.len();
    for (index, line) in lines.enumerate() {
        if fence(line) {
            let body = &text[end + line.len()..];
            let line = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(3);
            return Ok(with_body(Some(&text[first.len()..end]), body, line));
        }
        end += line.len();
    }
    Err(Unterminated)
}

fn with_body<'t>(front: Option<&'t str>, rest: &'t str, line: u32) -> Split<'t> {
    let body = rest.trim();
    let blank = &rest[..rest.len() - rest.trim_start().len()];
    let skipped = u32::try_from(blank.matches('\n').count()).unwrap_or(u32::MAX);
    Split { front, body, body_line: line.saturating_add(skipped) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_split_the_file_and_an_indented_one_does_not() {
        let text = "--- \r\nhooks:\r\n  after_run: |\r\n    ---\r\n---\r\n\r\n Hello \r\n";
        let got = split(text).expect("terminated");
        assert_eq!(got.front, Some("hooks:\r\n  after_run: |\r\n    ---\r\n"));
        assert_eq!((got.body, got.body_line), ("Hello", 7));
    }

    #[test]
    fn a_file_that_does_not_start_with_a_fence_is_all_prompt() {
        for text in ["\u{feff}---\na: 1\n---\n", "\n---\n---\n", "<!-- x -->\n---\n---\n", "---yaml\n", "----\n", ""] {
            assert_eq!(split(text).expect("no fence").front, None, "{text:?}");
        }
    }

    #[test]
    fn a_fence_without_a_partner_is_an_error() {
        assert_eq!(split("---\na: 1\n"), Err(Unterminated));
        assert_eq!(split("---"), Err(Unterminated));
        assert_eq!(split("---\n---").expect("empty").front, Some(""));
    }
}
