//! Log lines: `ts=<ISO ms Z> level=<l> msg=<m> k=v…`, one line an event, on stderr (0.1.0 §1.1).
//!
//! Values with white space, quotes or `=` are quoted as JSON strings. A sink that fails is ignored:
//! logging must never stop the program.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::Timestamp;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Longest value of one field; agents write some of them.
const MAX_VALUE: usize = 2000;

/// Starts logging at the level `SYMPHONY_LOG_LEVEL` names (debug, info, warn, error; default info).
pub fn start(level: Option<&str>) {
    let filter = match level.map(str::to_ascii_lowercase).as_deref() {
        Some("debug") => LevelFilter::DEBUG,
        Some("warn") => LevelFilter::WARN,
        Some("error") => LevelFilter::ERROR,
        _ => LevelFilter::INFO,
    };
    // Only our own lines: libraries log frames and headers, which carry tokens.
    let ours = tracing_subscriber::filter::filter_fn(|meta| meta.target().starts_with("symphony"));
    let started = tracing_subscriber::registry().with(Lines.with_filter(ours).with_filter(filter)).try_init();
    debug_assert!(started.is_ok(), "logging is started once");
}

struct Lines;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        // What the surroundings know, such as whose run it is.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(surroundings) = span.extensions().get::<Fields>() {
                fields.rest.push_str(&surroundings.rest);
            }
        }
        let line = format!(
            "ts={} level={level} msg={}{}\n",
            Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"),
            quoted(&fields.message),
            fields.rest
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn put(&mut self, name: &str, value: &str) {
        if name == "message" {
            self.message = value.to_owned();
        } else {
            let _ = write!(self.rest, " {name}={}", quoted(value));
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

/// As it stands where that is unambiguous, else as a JSON string; long values end in `…`.
fn quoted(value: &str) -> String {
    let cut = match value.char_indices().nth(MAX_VALUE) {
        Some((at, _)) => format!("{}…", &value[..at]),
        None => value.to_owned(),
    };
    let plain = !cut.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"' || c == '=');
    let plain = plain && !cut.chars().any(deceives);
    if plain { cut } else { harmless(&serde_json::Value::String(cut).to_string()) }
}

/// A path as one types it into a shell.
pub fn typed(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@%".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// `line` with every character that a terminal would act on, or that would deceive its reader, spelled as JSON does.
pub fn harmless(line: &str) -> String {
    line.chars().map(shown).collect()
}

/// JSON leaves the upper control characters as they are, and U+009B begins a terminal's escape sequence as
/// well as ESC [ does; direction marks make a line read as what it is not.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
        )
}

fn shown(c: char) -> String {
    if !deceives(c) {
        return c.into();
    }
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn values_are_quoted_exactly_when_a_reader_would_stumble() {
        assert_eq!(quoted("Todo"), "Todo");
        assert_eq!(quoted("In Progress"), r#""In Progress""#);
        assert_eq!(quoted("a=b"), r#""a=b""#);
        assert_eq!(quoted("line\nbreak"), r#""line\nbreak""#);
        assert_eq!(quoted(""), "");
        assert_eq!(quoted("ä→"), "ä→");
        assert!(quoted(&"x".repeat(5000)).len() < 2100);
    }
    #[test]
    fn an_agent_cannot_send_a_terminal_sequence_or_a_second_line_through_the_log() {
        let hostile = "a\u{1b}[2Jb\u{9b}31mc\u{7f}d\u{85}ts=1\u{202e}e\u{2028}f\rg\u{e0041}h\u{61c}";
        let line = quoted(hostile);
        assert!(line.is_ascii() && !line.chars().any(char::is_control), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), hostile);
        assert_eq!(quoted("\u{9b}x"), "\"\\u009bx\"");
    }
}
