//! What an agent does, as one-line events for people. The full frames are in the transcript.

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::redact::Secrets;

/// Longest message of an event, in characters (0.1.0's limit).
pub const MESSAGE_CHARS: usize = 240;

/// Something the agent did. For show: an outcome is never only an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEvent {
    /// When it was seen (C168).
    pub at: Timestamp,
    /// The kind, named as in 0.1.0 and C169.
    pub kind: &'static str,
    /// One line: no control characters, redacted, at most [`MESSAGE_CHARS`] characters.
    pub message: String,
    /// Whether a tool call is open now.
    pub tool_open: bool,
}

/// Where events go. Sending never waits: when the reader is behind, events are dropped, because the
/// connection's dispatch must not stand still for a display.
#[derive(Clone, Debug)]
pub struct Events {
    to: mpsc::Sender<AgentEvent>,
    secrets: Secrets,
}

impl Events {
    /// Events to `to`, with every secret in `secrets` redacted.
    pub fn new(to: mpsc::Sender<AgentEvent>, secrets: Secrets) -> Self {
        Self { to, secrets }
    }

    /// What is redacted in them.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Sends one event, or drops it when the reader is behind or gone.
    pub fn send(&self, kind: &'static str, message: &str, tool_open: bool) {
        let message = one_line(&self.secrets.redact(message, 4 * MESSAGE_CHARS));
        drop(self.to.try_send(AgentEvent { at: Timestamp::now(), kind, message, tool_open }));
    }

    /// `text` as it may be shown in an error.
    pub(crate) fn presentable(&self, text: &str) -> String {
        one_line(&self.secrets.redact(text, 4 * MESSAGE_CHARS))
    }
}

/// `text` on one line: control characters become single spaces, the rest is cut at [`MESSAGE_CHARS`].
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut blank = true;
    let mut count = 0;
    for c in text.chars() {
        // Direction overrides and zero-width marks can make a line read as what it is not.
        let hidden =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
        if hidden {
            continue;
        }
        let c = if c.is_control() || c.is_whitespace() || matches!(c, '\u{2028}' | '\u{2029}') { ' ' } else { c };
        if c == ' ' && blank {
            continue;
        }
        if count == MESSAGE_CHARS {
            line.pop();
            line.push('…');
            return line;
        }
        blank = c == ' ';
        line.push(c);
        count += 1;
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_control_or_hidden_characters() {
        assert_eq!(one_line("  a\n\tb\u{1b}[31m\u{202e}c\u{0}  "), "a b [31mc");
    }

    #[test]
    fn a_message_is_cut_at_its_limit_by_characters() {
        let long = one_line(&"ä".repeat(1000));
        assert_eq!(long.chars().count(), MESSAGE_CHARS);
        assert!(long.ends_with('…'));
        assert_eq!(one_line(&"x".repeat(MESSAGE_CHARS)).len(), MESSAGE_CHARS);
    }

    #[test]
    fn a_reader_that_is_behind_never_blocks_the_sender() {
        let (to, mut from) = mpsc::channel(1);
        let events = Events::new(to, Secrets::default());
        events.send("plan", "first", false);
        events.send("plan", "second", false);
        assert_eq!(from.try_recv().map(|e| e.message), Ok("first".to_owned()));
        assert!(from.try_recv().is_err());
    }
}
