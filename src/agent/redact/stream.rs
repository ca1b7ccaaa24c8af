//! A text that comes in pieces: what may be shown of it now, and what has to wait, for it may be the beginning of a secret.
//!
//! Pure. Whatever the pieces, what was passed is together what the whole text is redacted: no secret is in it, and nothing
//! else is missing. Only where a text is interrupted more is hidden: what looks like half a secret.

use super::shapes::{self, HALF, SoFar};
use super::{Found, MARK, Secrets, is_bearer_so_far};

/// How much of what was passed says whether a word begins behind it.
const CONTEXT: usize = 2;

/// How a text was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// It is over, but another one of its kind may take up what it left.
    Text,
    /// The next piece belongs to it, and cannot be waited for.
    Piece,
}

/// One text, up to now. Its memory is bounded by the longest secret.
#[derive(Clone, Default)]
pub(crate) struct Stream {
    /// As it came: what was passed and matters still, then what waits.
    text: String,
    /// In front of it nothing is looked at again.
    from: usize,
    /// In front of it all was passed.
    shown: usize,
    /// Whether what was passed behind `from` was a mark.
    marked: bool,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({} bytes wait)", self.text.len() - self.shown)
    }
}

/// What is known of a place whose text may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Here {
    /// All.
    Decided,
    /// A secret is there, and may be longer.
    GoesOn,
    /// More text decides; with `half` it is a good part of a secret already.
    Perhaps { half: bool },
}

impl Stream {
    /// Whether nothing of it is remembered.
    pub(crate) fn is_idle(&self) -> bool {
        self.text.is_empty()
    }

    /// The next piece; what may be shown now.
    pub(crate) fn feed(&mut self, secrets: &Secrets, piece: &str) -> String {
        self.text.push_str(piece);
        self.pass(secrets, None)
    }

    /// It is interrupted: what waited, redacted.
    pub(crate) fn pause(&mut self, secrets: &Secrets, pause: Pause) -> String {
        self.pass(secrets, Some(pause))
    }

    fn pass(&mut self, secrets: &Secrets, pause: Option<Pause>) -> String {
        let learned = secrets.learned.values();
        let text = std::mem::take(&mut self.text);
        let known = secrets.values.iter().chain(learned.iter()).map(String::len);
        let longest = known.max().unwrap_or(0).max(shapes::UNDECIDED_MAX);
        let (mut out, mut at) = (String::new(), self.from);
        // What is remembered, and the secret that goes on at the end.
        let (mut left, mut goes_on, mut marked) = (None, None, false);
        while at < text.len() {
            let found = secrets.found(&learned, &text, at);
            let rest = text.len() - at;
            let reaches = rest <= longest || found.as_ref().is_some_and(|found| found.length == rest);
            let here = if reaches { secrets.here(&learned, &text, at, found.as_ref()) } else { Here::Decided };
            if let Here::Perhaps { .. } = here {
                left.get_or_insert(at);
                if pause.is_none() {
                    break;
                }
            }
            let (said, length) = match (found, here) {
                (_, Here::Perhaps { half: true }) => ("", rest),
                (Some(Found { said, length, .. }), _) => (said, length),
                (None, _) => {
                    let Some(c) = text[at..].chars().next() else { break };
                    if at >= self.shown {
                        out.push(c);
                    }
                    (at, marked) = (at + c.len_utf8(), false);
                    continue;
                }
            };
            if here == Here::GoesOn {
                goes_on = Some(at);
            }
            if at >= self.shown {
                out.push_str(said);
            }
            let end = at + length;
            if end > self.shown && (at >= self.shown || !self.marked) {
                out.push_str(MARK);
            }
            (at, marked) = (end, true);
        }
        self.keep(text, at, (left, goes_on, marked), pause);
        out
    }

    /// Forgets what matters no more.
    fn keep(
        &mut self,
        mut text: String,
        at: usize,
        (left, goes_on, marked): (Option<usize>, Option<usize>, bool),
        pause: Option<Pause>,
    ) {
        let goes_on = goes_on.filter(|_| pause != Some(Pause::Text));
        let from = left.or(goes_on);
        if pause.is_some() && from.is_none() {
            *self = Self::default();
            return;
        }
        if pause.is_none() && at < self.shown {
            // It waits within what was passed when the text was interrupted.
        } else {
            (self.shown, self.marked) = (at, marked && from.is_some());
        }
        self.from = from.unwrap_or(at);
        // All of it was passed: its beginning tells as much.
        if left.is_none() && goes_on.is_some() {
            text.truncate(self.from + shapes::stump(&text[self.from..]));
            self.shown = text.len();
        }
        let mut context = self.from.saturating_sub(CONTEXT);
        while !text.is_char_boundary(context) {
            context -= 1;
        }
        self.text = text.split_off(context);
        (self.from, self.shown) = (self.from - context, self.shown - context);
    }
}

/// Lines that come one after the other: a secret may have several.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines(Stream);

impl Lines {
    /// The next line, or a piece of one whose end is still to come; `None`: there is nothing to show.
    pub(crate) fn line(&mut self, secrets: &Secrets, text: &str, is_whole: bool) -> Option<String> {
        let mut said = self.0.feed(secrets, text);
        if is_whole {
            said.push_str(&self.0.feed(secrets, "\n"));
        }
        shown(&said)
    }

    /// There are no more; what waited.
    pub(crate) fn end(&mut self, secrets: &Secrets) -> Option<String> {
        shown(&self.0.pause(secrets, Pause::Text))
    }
}

fn shown(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Secrets {
    fn here(&self, learned: &[String], text: &str, at: usize, found: Option<&Found>) -> Here {
        let (before, rest) = text.split_at(at);
        let longer = |value: &&String| value.len() > rest.len() && value.starts_with(rest);
        let mut longer = self.values.iter().chain(learned).filter(longer).map(String::len).peekable();
        if longer.peek().is_some() {
            let half = longer.any(|length| rest.len() >= HALF || (rest.len() >= 4 && rest.len() * 2 >= length));
            return Here::Perhaps { half };
        }
        let (so_far, ends_here) = match found {
            Some(found) if found.is_known => return Here::Decided,
            found if is_bearer_so_far(rest.as_bytes()) => (SoFar::Undecided, found),
            found => (shapes::so_far(rest, before), found),
        };
        match (so_far, ends_here) {
            (SoFar::Decided, _) => Here::Decided,
            (_, Some(_)) => Here::GoesOn,
            (so_far, None) => Here::Perhaps { half: so_far == SoFar::Half },
        }
    }
}

#[cfg(test)]
mod tests;
