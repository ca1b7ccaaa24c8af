//! Files that are not whole: which may still be in someone's hands, and which are no issue however long they stand so.
//!
//! 0.1.0 ran a file whose front matter never ends as plain text, and an empty one as nothing. Whoever wrote
//! `blocked_by` there meant it, so here neither ever runs. A line `---` with plain text below it is a ruler: that
//! stays an issue without front matter, as in 0.1.0.

use super::{Split, split};

/// Longest first line that is taken for a field, up to its colon.
const KEY_MAX: usize = 40;

/// Whether `bytes` look like a file somebody is still writing: nothing in it, front matter without an end,
/// or the zeros of a lost write. Which of these may be an issue once it has been quiet for a while, `parse` says.
pub fn looks_half_saved(bytes: &[u8]) -> Option<&'static str> {
    if bytes.contains(&0) {
        return Some("the file contains a NUL byte");
    }
    let text = String::from_utf8_lossy(bytes);
    if is_empty(&text) {
        return Some("the file is empty");
    }
    split(&text).unclosed.then_some("the front matter that starts in line 1 is not closed by a line `---`")
}

/// Why `text` is no issue for as long as it stands so, with what to do about it.
pub(super) fn never_an_issue(text: &str, split: &Split<'_>) -> Option<&'static str> {
    if is_empty(text) {
        return Some("the file is empty; write into it what is to be done, or remove it");
    }
    (split.unclosed && opens_fields(split.body)).then_some(
        "the front matter that starts in line 1 has no end: add a line `---` below its last key; \
         if it is meant as text, leave line 1 empty",
    )
}

fn is_empty(text: &str) -> bool {
    text.trim_start_matches('\u{feff}').trim().is_empty()
}

/// Whether fields follow the fence, or nothing at all.
fn opens_fields(text: &str) -> bool {
    let mut lines = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).peekable();
    lines.peek().is_none() || lines.find(|line| !line.starts_with('#')).is_some_and(is_field)
}

/// `key:` or `key: value`, where the key is one word.
fn is_field(line: &str) -> bool {
    let Some((key, rest)) = line.split_once(':') else { return false };
    let word = |c: char| c.is_alphanumeric() || "_-.'\"".contains(c);
    let key = key.trim_end();
    !key.is_empty()
        && key.len() <= KEY_MAX
        && key.chars().all(word)
        && (rest.is_empty() || rest.starts_with([' ', '\t']))
}
