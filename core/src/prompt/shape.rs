//! What a template may look like, told from its text before the engine reads it.
//!
//! The engine recurses into nested brackets and into conditions, and looks at a text again from each place where a tag
//! could begin: a template that would take all the stack or hours of time is refused here, in one pass with a bound.

/// Most tags (`{% … %}`) in one template: the engine recurses into nested ones.
pub(super) const MAX_TAGS: usize = 500;
/// Most opening brackets in one tag or output: the engine recurses into nested ones, too.
const MAX_BRACKETS: usize = 50;
/// Most `and` and `or` in one tag: the engine recurses into them.
const MAX_WORDS: usize = 200;
/// How often a byte is looked at, on average. Tags that end are looked at once; one in whose quotes others seem to
/// begin is looked at again.
const MAX_LOOKS: usize = 32;
/// Most that the squares of the lengths of all runs of white space may add up to: the engine walks each from each of
/// its places.
const MAX_SPACE: usize = 40_000_000;

/// What the engine need not be asked.
#[derive(Debug)]
pub(super) struct Shape {
    /// Bytes of the longest tag.
    pub(super) longest_tag: usize,
}

/// The shape of a template, or the 1-based line of what it must not have and why.
pub(super) fn of(text: &str) -> Result<Shape, (u32, String)> {
    let bytes = text.as_bytes();
    let line = |at: usize| u32::try_from(text[..at].matches('\n').count()).unwrap_or(u32::MAX - 1) + 1;
    if text.matches("{%").count() > MAX_TAGS {
        return Err((1, format!("more than {MAX_TAGS} tags")));
    }
    let space = bytes
        .split(|b| !matches!(b, b' ' | b'\r' | b'\n'))
        .fold(0_usize, |sum, run| sum.saturating_add(run.len().saturating_mul(run.len())));
    if space > MAX_SPACE {
        return Err((1, "it has too long runs of spaces and empty lines: leave them out".to_owned()));
    }
    let (mut looks, mut longest_tag) = (0, 0);
    for at in 0..bytes.len().saturating_sub(1) {
        if bytes[at] != b'{' || !matches!(bytes[at + 1], b'{' | b'%') {
            continue;
        }
        let inside = Inside::of(&bytes[at + 2..]);
        looks += inside.length;
        if bytes[at + 1] == b'%' {
            longest_tag = longest_tag.max(inside.length);
        }
        let what = if inside.brackets > MAX_BRACKETS {
            format!("more than {MAX_BRACKETS} brackets in one tag")
        } else if inside.words > MAX_WORDS {
            format!("more than {MAX_WORDS} times `and` or `or` in one tag: use several conditions in each other")
        } else if looks > bytes.len().saturating_mul(MAX_LOOKS) {
            "a tag from here on, or a quote in it, has no end".to_owned()
        } else {
            continue;
        };
        return Err((line(at), what));
    }
    Ok(Shape { longest_tag })
}

/// What stands in one tag or output.
#[derive(Default)]
struct Inside {
    length: usize,
    brackets: usize,
    words: usize,
}

impl Inside {
    /// Counts to the end of the tag whose inside begins here, as the engine reads it: an end in quotes is none.
    fn of(bytes: &[u8]) -> Self {
        let mut inside = Self { length: bytes.len(), ..Self::default() };
        let mut quote = None;
        let mut word = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            match quote {
                Some(end) if byte == end => quote = None,
                Some(_) => {}
                None if matches!(byte, b'"' | b'\'') => quote = Some(byte),
                None if matches!(byte, b'}' | b'%') && bytes.get(at + 1) == Some(&b'}') => {
                    inside.length = at;
                    break;
                }
                None => inside.brackets += usize::from(matches!(byte, b'[' | b'(')),
            }
            if quote.is_none() && (byte.is_ascii_alphanumeric() || byte == b'_') {
                word += 1;
            } else {
                let before = &bytes[at - word..at];
                inside.words += usize::from(before == b"and" || before == b"or");
                word = 0;
            }
            // More is refused, and need not be known exactly.
            if inside.brackets > MAX_BRACKETS || inside.words > MAX_WORDS {
                inside.length = at;
                break;
            }
        }
        inside
    }
}
