//! What an answer used, read from its bytes as they pass. Providers' usage records only: no estimate is made here.

use serde_json::Value;

use super::most::unusual;
use super::pluck::Pluck;
use super::{Call, Provider};

/// Tokens of one request. A cached token is in one of the last two and not in `input`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read by the model, without what came from or went into a cache.
    pub input: u64,
    /// Written by the model.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Written into the provider's cache.
    pub cache_write: u64,
}

impl Usage {
    /// Everything the model was given, cached or not.
    pub fn given(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }
}

/// One request that a provider answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    /// Who answered.
    pub provider: Provider,
    /// The model that answered, or else the one that was asked.
    pub model: String,
    /// The service tier or speed that it was answered in, if it was none of the ordinary ones: it may have another price.
    pub tier: Option<String>,
    /// What it used; `None`: the provider did not say.
    pub usage: Option<Usage>,
    /// Whether the answer came to its end.
    pub whole: bool,
}

/// What was read of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The model that answered, as it calls itself.
    pub model: Option<String>,
    /// As [`Metered::tier`].
    pub tier: Option<String>,
    /// The last usage record; `None`: there was none.
    pub usage: Option<Usage>,
    /// Whether the answer came to its end. A cut one used more than its record says.
    pub whole: bool,
}

/// Reads one answer. Its memory is bounded, whatever passes.
#[derive(Debug)]
pub struct Meter {
    call: Call,
    /// `None`: one JSON text; else where a line of events stands.
    events: Option<Line>,
    text: Pluck,
    reading: Reading,
}

/// Where in an event stream's line the next byte stands.
#[derive(Debug, Default)]
struct Line {
    /// The name of the field; complete after the colon.
    field: Vec<u8>,
    colon: bool,
    /// Whether a data line of this event was seen.
    data: bool,
    /// Its first bytes, for the word that ends a chat.
    head: Vec<u8>,
}

const DONE: &[u8] = b"[DONE]";

impl Meter {
    /// For an answer to `call` with this content type.
    pub fn new(call: Call, content_type: &str) -> Self {
        let is_stream = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        Self { call, events: is_stream.then(Line::default), text: Pluck::default(), reading: Reading::default() }
    }

    /// The next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.events {
                Some(_) => self.line(*byte),
                None => self.text.feed(*byte),
            }
        }
    }

    /// Whether the answer's own last word was seen.
    pub fn is_whole(&self) -> bool {
        self.reading.whole || (self.events.is_none() && self.text.is_whole())
    }

    /// What it used.
    pub fn finish(mut self) -> Reading {
        let whole = self.is_whole();
        self.event();
        Reading { whole, ..self.reading }
    }

    fn line(&mut self, byte: u8) {
        let Some(line) = &mut self.events else { return };
        match byte {
            b'\r' => {}
            b'\n' => {
                let blank = !line.colon && line.field.is_empty();
                line.field.clear();
                line.colon = false;
                if blank && line.data {
                    self.event();
                }
            }
            b':' if !line.colon => line.colon = true,
            // Enough to tell `data` from the others.
            _ if !line.colon && line.field.len() < 8 => line.field.push(byte),
            _ if line.field == b"data" => {
                line.data = true;
                if line.head.len() < DONE.len() && byte != b' ' {
                    line.head.push(byte);
                }
                self.text.feed(byte);
            }
            _ => {}
        }
    }

    /// One JSON text is complete, or as complete as it gets.
    fn event(&mut self) {
        let text = std::mem::take(&mut self.text);
        let done = self.events.take().map(|line| line.head == DONE);
        if let Some(done) = done {
            self.events = Some(Line::default());
            self.reading.whole |= done && self.call == Call::ChatCompletions;
        }
        if !text.is_whole() {
            return;
        }
        let kind = text.value("type");
        // One that broke off with an error used more than it says.
        let last = ["message_stop", "response.completed", "response.incomplete"];
        self.reading.whole |= done.is_some() && kind.is_some_and(|kind| last.iter().any(|last| kind == *last));
        for name in ["model", "message.model", "response.model"] {
            if let Some(Value::String(model)) = text.value(name) {
                self.reading.model = Some(model.chars().filter(|c| !c.is_control()).take(200).collect());
            }
        }
        for name in ["service_tier", "response.service_tier"] {
            if let Some(Value::String(tier)) = text.value(name) {
                self.reading.tier = unusual(None, Some(&tier));
            }
        }
        for name in ["usage", "message.usage", "response.usage"] {
            if let Some(record @ Value::Object(_)) = text.value(name) {
                self.take(&record);
            }
        }
    }

    /// A record replaces what an earlier one of the same answer said: they count from the beginning.
    fn take(&mut self, record: &Value) {
        let number = |name: &str| record.pointer(name).and_then(Value::as_u64);
        let usage = self.reading.usage.get_or_insert_default();
        match self.call {
            Call::Responses | Call::ChatCompletions => {
                let input = number("/input_tokens").or(number("/prompt_tokens")).unwrap_or(0);
                let cached =
                    number("/input_tokens_details/cached_tokens").or(number("/prompt_tokens_details/cached_tokens"));
                usage.cache_read = cached.unwrap_or(0).min(input);
                usage.input = input - usage.cache_read;
                usage.output = number("/output_tokens").or(number("/completion_tokens")).unwrap_or(0);
            }
            Call::Messages | Call::CountTokens | Call::Models => {
                let parts = [
                    ("/input_tokens", &mut usage.input),
                    ("/output_tokens", &mut usage.output),
                    ("/cache_read_input_tokens", &mut usage.cache_read),
                    ("/cache_creation_input_tokens", &mut usage.cache_write),
                ];
                for (name, part) in parts {
                    // What was shortened before it was answered is told apart, and is not in the number beside it.
                    *part = number(name).unwrap_or(*part).max(iterated(record, name));
                }
                let word = |name: &str| record.get(name).and_then(Value::as_str);
                if word("speed").or(word("service_tier")).is_some() {
                    self.reading.tier = unusual(word("speed"), word("service_tier"));
                }
            }
        }
    }
}

/// The sum over the steps of one answer, of which a compaction makes several.
fn iterated(record: &Value, name: &str) -> u64 {
    let steps = record.get("iterations").and_then(Value::as_array).into_iter().flatten();
    steps.filter_map(|step| step.pointer(name).and_then(Value::as_u64)).fold(0, u64::saturating_add)
}
