//! A few values out of a JSON text as its bytes pass, in bounded memory: an answer may be of any length.
//!
//! Reads the provider's answers only. It does not validate: a text that is no JSON yields nothing of use, and never more
//! memory. It costs little: the insides of strings, which are most of an answer, are searched and not stepped through.

use std::borrow::Cow;

use memchr::memchr2;

/// What is wanted, by the keys that lead to it: at most two, of which the second may stand in each object of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Type,
    Model,
    Usage,
    Tier,
    MessageModel,
    MessageUsage,
    ResponseModel,
    ResponseUsage,
    ResponseTier,
    ModelVersion,
    UsageMetadata,
    BlockReason,
    FinishReason,
    Error,
    ResponseError,
    Code,
    Message,
}

/// How many there are.
const WANTED: usize = Wanted::Message as usize + 1;
/// Most bytes of one value.
const VALUE_MAX: usize = 16 * 1024;
/// Longer keys are none of ours.
const KEY_MAX: usize = 16;

/// The reader of one text after another. What it has made room for stays for the next text.
#[derive(Debug, Default)]
pub(super) struct Pluck {
    depth: usize,
    /// Whether the containers at depth 1 to 3 are objects.
    object: [bool; 4],
    /// The keys under way at depth 1 to 3.
    keys: [Key; 4],
    /// Whether the next string is a key.
    key_next: bool,
    in_key: bool,
    in_string: bool,
    escaped: bool,
    /// What is being taken, and since which depth.
    taking: Option<(Wanted, usize)>,
    /// What was taken of it so far.
    bytes: Vec<u8>,
    taken: [Option<Vec<u8>>; WANTED],
    begun: bool,
}

/// A key; longer than [`KEY_MAX`]: no match.
#[derive(Debug, Default)]
struct Key {
    bytes: [u8; KEY_MAX + 1],
    length: usize,
}

impl Key {
    fn push(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let taken = bytes.len().min(room.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.length += taken;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Pluck {
    /// The next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let read = if self.in_string { self.string(bytes) } else { self.between(bytes) };
            bytes = &bytes[read..];
        }
    }

    /// Whether a whole text was read.
    pub(super) fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }

    /// What was found; a later one of the same name counts.
    pub(super) fn value(&self, wanted: Wanted) -> Option<serde_json::Value> {
        serde_json::from_slice(self.taken[wanted as usize].as_deref()?).ok()
    }

    /// What was found, if it is a string.
    pub(super) fn word(&self, wanted: Wanted) -> Option<Cow<'_, str>> {
        let found = self.taken[wanted as usize].as_deref()?;
        let borrowed = serde_json::from_slice::<&str>(found).map(Cow::Borrowed);
        // One with an escape in it.
        borrowed.or_else(|_| serde_json::from_slice::<String>(found).map(Cow::Owned)).ok()
    }

    /// The next text begins.
    pub(super) fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        *self = Self { bytes, ..Self::default() };
    }

    /// Reads within a string; how many bytes.
    fn string(&mut self, bytes: &[u8]) -> usize {
        // Whatever stands behind a backslash ends nothing.
        let skip = usize::from(self.escaped);
        let found = memchr2(b'"', b'\\', &bytes[skip..]).map(|at| at + skip);
        let read = found.map_or(bytes.len(), |at| at + 1);
        self.escaped = found.is_some_and(|at| bytes[at] == b'\\');
        self.in_string = found.is_none() || self.escaped;
        self.keep(&bytes[..read]);
        if self.in_key {
            let end = if self.in_string { read } else { read - 1 };
            self.keys[self.depth].push(&bytes[..end]);
            self.in_key = self.in_string;
        }
        read
    }

    /// Reads up to the next string; how many bytes.
    fn between(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            let kept = std::slice::from_ref(byte);
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.in_key = std::mem::take(&mut self.key_next);
                    if self.in_key {
                        self.keys[self.depth].length = 0;
                    }
                    self.keep(kept);
                    return at + 1;
                }
                b'{' | b'[' => {
                    // A message that is a word is wanted whole, one that holds others only for what is in it.
                    self.taking.take_if(|(wanted, depth)| *wanted == Wanted::Message && *depth == self.depth);
                    self.keep(kept);
                    self.begun = true;
                    self.depth = self.depth.saturating_add(1);
                    self.key_next = false;
                    if let Some(object) = self.object.get_mut(self.depth) {
                        *object = *byte == b'{';
                        self.key_next = *object;
                        self.keys[self.depth].length = 0;
                    }
                }
                b'}' | b']' => {
                    self.end_value();
                    self.depth = self.depth.saturating_sub(1);
                    self.keep(kept);
                    self.key_next = false;
                }
                b',' => {
                    self.end_value();
                    self.keep(kept);
                    self.key_next = self.depth > 0 && self.object.get(self.depth).is_some_and(|object| *object);
                }
                b':' => {
                    self.keep(kept);
                    self.begin_value();
                }
                _ => self.keep(kept),
            }
        }
        bytes.len()
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.taking.is_none() {
            return;
        }
        match self.bytes.len() + bytes.len() <= VALUE_MAX {
            true => self.bytes.extend_from_slice(bytes),
            false => self.taking = None,
        }
    }

    fn begin_value(&mut self) {
        if self.taking.is_none()
            && let Some(wanted) = self.wanted()
        {
            self.taking = Some((wanted, self.depth));
            self.bytes.clear();
        }
    }

    /// What the keys lead to.
    fn wanted(&self) -> Option<Wanted> {
        let [_, outer, inner, innermost] = &self.keys;
        match (self.depth, self.object) {
            (1, [_, true, ..]) => match outer.as_bytes() {
                b"type" => Some(Wanted::Type),
                b"model" => Some(Wanted::Model),
                b"usage" => Some(Wanted::Usage),
                b"service_tier" => Some(Wanted::Tier),
                b"modelVersion" => Some(Wanted::ModelVersion),
                b"usageMetadata" => Some(Wanted::UsageMetadata),
                b"error" => Some(Wanted::Error),
                b"code" => Some(Wanted::Code),
                b"message" => Some(Wanted::Message),
                _ => None,
            },
            (2, [_, true, true, _]) => match (outer.as_bytes(), inner.as_bytes()) {
                (b"message", b"model") => Some(Wanted::MessageModel),
                (b"message", b"usage") => Some(Wanted::MessageUsage),
                (b"response", b"model") => Some(Wanted::ResponseModel),
                (b"response", b"usage") => Some(Wanted::ResponseUsage),
                (b"response", b"service_tier") => Some(Wanted::ResponseTier),
                (b"response", b"error") => Some(Wanted::ResponseError),
                (b"promptFeedback", b"blockReason") => Some(Wanted::BlockReason),
                _ => None,
            },
            (3, [_, true, false, true]) => match (outer.as_bytes(), innermost.as_bytes()) {
                (b"candidates", b"finishReason") => Some(Wanted::FinishReason),
                _ => None,
            },
            _ => None,
        }
    }

    /// A comma, or the end of what holds the value.
    fn end_value(&mut self) {
        if let Some((wanted, _)) = self.taking.take_if(|(_, depth)| *depth == self.depth) {
            self.taken[wanted as usize] = Some(self.bytes.clone());
        }
    }
}
