//! What an answer used, read from its bytes as they pass. Providers' usage records only: no estimate is made here.

use memchr::{memchr, memchr2};
use serde_json::Value;

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
    /// Whether it comes as events; else it is one JSON text.
    is_stream: bool,
    line: Line,
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
/// Enough to tell `data` from the others.
const FIELD_MAX: usize = 8;

impl Meter {
    /// For an answer to `call` with this content type.
    pub fn new(call: Call, content_type: &str) -> Self {
        let is_stream = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        Self { call, is_stream, line: Line::default(), text: Pluck::default(), reading: Reading::default() }
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

    /// Whether the answer's own last word was seen.
    pub fn is_whole(&self) -> bool {
        self.reading.whole || (!self.is_stream && self.text.is_whole())
    }

    /// What it used.
    pub fn finish(mut self) -> Reading {
        let whole = self.is_whole();
        self.event();
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
        if self.is_stream {
            let kind = self.text.word(Wanted::Type);
            // One that broke off with an error used more than it says.
            let last = ["message_stop", "response.completed", "response.incomplete"];
            self.reading.whole |= kind.is_some_and(|kind| last.contains(&&*kind));
            // Google has no last event: its model says why it wrote no more, or why it wrote nothing.
            let reasons = [Wanted::FinishReason, Wanted::BlockReason].into_iter().filter_map(|why| self.text.word(why));
            let ended = reasons.into_iter().any(|why| !why.ends_with("_UNSPECIFIED"));
            self.reading.whole |= ended && self.call == Call::GenerateContent;
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
                if let Some(tier) = record.get("serviceTier").and_then(Value::as_str) {
                    self.reading.tier = unusual(None, google::tier(tier).as_deref());
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

/// The sum over the steps of one answer, of which a compaction makes several.
fn iterated(record: &Value, name: &str) -> u64 {
    let steps = record.get("iterations").and_then(Value::as_array).into_iter().flatten();
    steps.filter_map(|step| step.pointer(name).and_then(Value::as_u64)).fold(0, u64::saturating_add)
}
