//! What an answer used, read from its bytes as they pass. Providers' usage records only: no estimate is made here.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde_json::{Value, json};

use super::most::unusual;
use super::pluck::{Pluck, Wanted};
use super::{Call, Provider, google};

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
    /// How much of that is kept for an hour, which costs more; `None`: the record does not tell it apart.
    pub cache_write_1h: Option<u64>,
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
    /// Whether the answer came to its end, or its provider said what it used before it broke off with an error.
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
    /// As [`Metered::whole`]. A cut one used more than its record says.
    pub whole: bool,
}

/// Reads one answer. Its memory is bounded, whatever passes.
#[derive(Debug)]
pub struct Meter {
    call: Call,
    /// Whether it comes as events; else it is one JSON text.
    is_stream: bool,
    line: Line,
    text: Pluck,
    reading: Reading,
    /// What its provider broke it off with.
    error: Option<Value>,
    /// Whether a model of Google's said why it writes no more. Another answer of several may go on, so only the end of all is
    /// the end.
    ended: bool,
    /// Parts of what the model wrote; each is a token at least.
    parts: u64,
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
/// Enough to tell `data` from the others.
const FIELD_MAX: usize = 8;

impl Meter {
    /// For an answer to `call` with this content type.
    pub fn new(call: Call, content_type: &str) -> Self {
        let is_stream = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        Self {
            call,
            is_stream,
            line: Line::default(),
            text: Pluck::default(),
            reading: Reading::default(),
            error: None,
            ended: false,
            parts: 0,
        }
    }

    /// The next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if !self.is_stream {
            return self.text.feed(bytes);
        }
        while !bytes.is_empty() {
            let read = if self.line.colon { self.behind_colon(bytes) } else { self.field(bytes) };
            bytes = &bytes[read..];
        }
    }

    /// Whether the answer's own last word was seen, and no error before it.
    pub fn is_whole(&self) -> bool {
        (self.reading.whole || self.is_one_text()) && self.broke_off().is_none()
    }

    /// Whether the answer is one JSON text, and all of it was seen.
    fn is_one_text(&self) -> bool {
        !self.is_stream && self.text.is_whole()
    }

    fn broke_off(&self) -> Option<Cow<'_, Value>> {
        let now = || if self.is_one_text() { self.broken() } else { None };
        self.error.as_ref().map(Cow::Borrowed).or_else(|| now().map(Cow::Owned))
    }

    /// The error that its provider broke it off with, in the shape of a refusal's words: the event's own, never one that
    /// stands in what the model wrote.
    pub fn error(&self) -> Option<String> {
        Some(json!({"error": self.broke_off()?}).to_string())
    }

    /// Whether its provider did nothing for it: it broke it off before the model wrote anything, and says of no use.
    pub fn is_refusal(&self) -> bool {
        self.parts == 0 && self.reading.usage.is_none() && self.error.is_some()
    }

    /// No more bytes come. An error may stand in an event that nothing closed.
    pub fn end(&mut self) {
        if self.is_stream || self.broke_off().is_some() {
            let whole = self.reading.whole;
            self.event();
            self.reading.whole = whole || (self.ended && self.error.is_none());
        }
    }

    /// What it used. One that an error broke off used what its provider told, and what it wrote: a token for each part at
    /// least. One of which nothing was told is as good as cut.
    pub fn finish(mut self) -> Reading {
        let whole = self.is_whole();
        self.end();
        self.event();
        if let (Some(_), Some(usage)) = (&self.error, &mut self.reading.usage) {
            usage.output = usage.output.max(self.parts);
            return Reading { whole: true, ..self.reading };
        }
        Reading { whole, ..self.reading }
    }

    /// Reads up to a line's colon; how many bytes.
    fn field(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\r' => {}
                b'\n' => self.end_line(),
                b':' => {
                    self.line.colon = true;
                    return at + 1;
                }
                _ if self.line.field.len() < FIELD_MAX => self.line.field.push(*byte),
                _ => {}
            }
        }
        bytes.len()
    }

    /// Reads up to a line's end, or to a byte that is no part of it; how many bytes.
    fn behind_colon(&mut self, bytes: &[u8]) -> usize {
        let is_data = self.line.field == b"data";
        let found = if is_data { memchr2(b'\n', b'\r', bytes) } else { memchr(b'\n', bytes) };
        let end = found.unwrap_or(bytes.len());
        if is_data && end > 0 {
            let data = &bytes[..end];
            self.line.data = true;
            let wanted = DONE.len() - self.line.head.len();
            if wanted > 0 {
                self.line.head.extend(data.iter().filter(|byte| **byte != b' ').take(wanted));
            }
            self.text.feed(data);
        }
        if bytes.get(end) == Some(&b'\n') {
            self.end_line();
        }
        bytes.len().min(end + 1)
    }

    fn end_line(&mut self) {
        let blank = !self.line.colon && self.line.field.is_empty();
        self.line.field.clear();
        self.line.colon = false;
        if blank && self.line.data {
            self.event();
        }
    }

    /// One JSON text is complete, or as complete as it gets.
    fn event(&mut self) {
        let done = self.line.head == DONE && self.call == Call::ChatCompletions;
        self.reading.whole |= done;
        self.line.data = false;
        self.line.head.clear();
        if self.text.is_whole() {
            self.read();
        }
        self.text.clear();
    }

    /// What a whole text says.
    fn read(&mut self) {
        // What comes behind its last word is no part of it.
        if self.error.is_none() && !self.reading.whole {
            self.error = self.broken();
        }
        if self.is_stream {
            self.parts += u64::from(self.error.is_none() && self.is_part());
            let kind = self.text.word(Wanted::Type);
            let last = ["message_stop", "response.completed", "response.incomplete"];
            self.reading.whole |= kind.is_some_and(|kind| last.contains(&&*kind));
            // Google has no last event: its model says why it wrote no more, or why it wrote nothing.
            let reasons = [Wanted::FinishReason, Wanted::BlockReason].into_iter().filter_map(|why| self.text.word(why));
            let ended = reasons.into_iter().any(|why| !why.ends_with("_UNSPECIFIED"));
            self.ended |= ended && self.call == Call::GenerateContent;
        }
        for model in [Wanted::ModelVersion, Wanted::Model, Wanted::MessageModel, Wanted::ResponseModel] {
            if let Some(model) = self.text.word(model) {
                self.reading.model = Some(model.chars().filter(|c| !c.is_control()).take(200).collect());
            }
        }
        for tier in [Wanted::Tier, Wanted::ResponseTier] {
            if let Some(tier) = self.text.word(tier) {
                self.reading.tier = unusual(None, Some(&tier));
            }
        }
        for usage in [Wanted::UsageMetadata, Wanted::Usage, Wanted::MessageUsage, Wanted::ResponseUsage] {
            if let Some(record @ Value::Object(_)) = self.text.value(usage) {
                self.take(&record);
            }
        }
    }

    /// The error that this text is.
    fn broken(&self) -> Option<Value> {
        let kind = self.text.word(Wanted::Type);
        let kind = kind.as_deref().filter(|_| self.is_stream);
        let own = || match self.text.value(Wanted::Error)? {
            Value::String(words) if !words.is_empty() => Some(json!({"message": words})),
            Value::Object(error) if !error.is_empty() => Some(Value::Object(error)),
            _ => None,
        };
        match (self.call, kind) {
            (Call::Responses, Some("response.failed")) => {
                Some(self.text.value(Wanted::ResponseError).filter(Value::is_object).unwrap_or_else(|| json!({})))
            }
            (Call::Responses | Call::Messages, Some("error")) => Some(own().unwrap_or_else(|| {
                let word = |wanted| self.text.word(wanted);
                json!({"code": word(Wanted::Code), "message": word(Wanted::Message)})
            })),
            (Call::Responses | Call::Messages, Some(_)) => None,
            _ => own(),
        }
    }

    /// Whether this event is a part of what the model writes.
    fn is_part(&self) -> bool {
        let kind = self.text.word(Wanted::Type).unwrap_or_default();
        match self.call {
            Call::Messages => kind == "content_block_delta",
            Call::Responses => kind.ends_with(".delta") || kind.starts_with("response.output_"),
            _ => self.text.is_whole(),
        }
    }

    /// A record replaces what an earlier one of the same answer said: they count from the beginning.
    fn take(&mut self, record: &Value) {
        let number = |name: &str| record.pointer(name).and_then(Value::as_u64);
        if let (Call::GenerateContent, Some(Value::String(tier))) = (self.call, record.get("serviceTier")) {
            self.reading.tier = unusual(None, google::tier(tier).as_deref());
        }
        // One without a number tells nothing: newer streams of Google's have such in every event.
        if !holds_a_number(record) {
            return;
        }
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
            Call::GenerateContent | Call::CountContent => {
                if let Some(prompt) = number("/promptTokenCount") {
                    usage.cache_read = number("/cachedContentTokenCount").unwrap_or(0).min(prompt);
                    let of_tools = number("/toolUsePromptTokenCount").unwrap_or(0);
                    usage.input = (prompt - usage.cache_read).saturating_add(of_tools);
                }
                let (said, thought) = (number("/candidatesTokenCount"), number("/thoughtsTokenCount"));
                if said.or(thought).is_some() {
                    usage.output = said.unwrap_or(0).saturating_add(thought.unwrap_or(0));
                }
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
                const HOUR: &str = "/cache_creation/ephemeral_1h_input_tokens";
                let kept_long = number(HOUR).or(usage.cache_write_1h);
                usage.cache_write_1h = kept_long.map(|tokens| tokens.max(iterated(record, HOUR)));
                let word = |name: &str| record.get(name).and_then(Value::as_str);
                if word("speed").or(word("service_tier")).is_some() {
                    self.reading.tier = unusual(word("speed"), word("service_tier"));
                }
            }
        }
    }
}

fn holds_a_number(record: &Value) -> bool {
    match record {
        Value::Number(_) => true,
        Value::Object(fields) => fields.values().any(holds_a_number),
        Value::Array(items) => items.iter().any(holds_a_number),
        _ => false,
    }
}

/// The sum over the steps of one answer, of which a compaction makes several.
fn iterated(record: &Value, name: &str) -> u64 {
    let steps = record.get("iterations").and_then(Value::as_array).into_iter().flatten();
    steps.filter_map(|step| step.pointer(name).and_then(Value::as_u64)).fold(0, u64::saturating_add)
}
