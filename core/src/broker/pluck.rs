//! A few values out of a JSON text as its bytes pass, in bounded memory: an answer may be of any length.
//!
//! Reads the provider's answers only. It does not validate: a text that is no JSON yields nothing of use, and never more
//! memory.

/// Keys wanted, at most two deep.
const WANTED: [&str; 9] = [
    "type",
    "model",
    "usage",
    "service_tier",
    "message.model",
    "message.usage",
    "response.model",
    "response.usage",
    "response.service_tier",
];
/// Most bytes of one value.
const VALUE_MAX: usize = 16 * 1024;
/// Longer keys are none of ours.
const KEY_MAX: usize = 16;

/// The reader of one text.
#[derive(Debug, Default)]
pub(super) struct Pluck {
    depth: usize,
    /// Whether the containers at depth 1 and 2 are objects.
    object: [bool; 3],
    /// The keys under way at depth 1 and 2; longer than [`KEY_MAX`]: no match.
    keys: [Vec<u8>; 3],
    /// Whether the next string is a key.
    key_next: bool,
    in_key: bool,
    in_string: bool,
    escaped: bool,
    taking: Option<Taking>,
    taken: Vec<(&'static str, Vec<u8>)>,
    begun: bool,
}

#[derive(Debug)]
struct Taking {
    name: &'static str,
    depth: usize,
    bytes: Vec<u8>,
}

impl Pluck {
    pub(super) fn feed(&mut self, byte: u8) {
        if self.in_string {
            self.string(byte);
            return;
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.in_key = std::mem::take(&mut self.key_next);
                if self.in_key {
                    self.keys[self.depth].clear();
                }
                self.keep(byte);
            }
            b'{' | b'[' => {
                self.keep(byte);
                self.begun = true;
                self.depth = self.depth.saturating_add(1);
                self.key_next = false;
                if let Some(object) = self.object.get_mut(self.depth) {
                    *object = byte == b'{';
                    self.key_next = byte == b'{';
                    self.keys[self.depth].clear();
                }
            }
            b'}' | b']' => {
                self.end_value();
                self.depth = self.depth.saturating_sub(1);
                self.keep(byte);
                self.key_next = false;
            }
            b',' => {
                self.end_value();
                self.keep(byte);
                self.key_next = self.object.get(self.depth).copied().unwrap_or(false) && self.depth > 0;
            }
            b':' => {
                self.keep(byte);
                self.begin_value();
            }
            _ => self.keep(byte),
        }
    }

    /// Whether a whole text was read.
    pub(super) fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }

    /// What was found, by name; a later one of the same name counts.
    pub(super) fn value(&self, name: &str) -> Option<serde_json::Value> {
        let found = self.taken.iter().rfind(|(taken, _)| *taken == name)?;
        serde_json::from_slice(&found.1).ok()
    }

    fn string(&mut self, byte: u8) {
        self.keep(byte);
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => {
                self.in_string = false;
                self.in_key = false;
                return;
            }
            _ => {}
        }
        if self.in_key && self.keys[self.depth].len() <= KEY_MAX {
            self.keys[self.depth].push(byte);
        }
    }

    fn keep(&mut self, byte: u8) {
        let Some(taking) = &mut self.taking else { return };
        match taking.bytes.len() < VALUE_MAX {
            true => taking.bytes.push(byte),
            false => self.taking = None,
        }
    }

    fn begin_value(&mut self) {
        if self.taking.is_some() {
            return;
        }
        let matches = |wanted: &&str| match (self.depth, wanted.split_once('.')) {
            (1, None) => self.keys[1] == wanted.as_bytes(),
            (2, Some((outer, inner))) => {
                self.object[1] && self.keys[1] == outer.as_bytes() && self.keys[2] == inner.as_bytes()
            }
            _ => false,
        };
        if let Some(name) = self.object.get(self.depth).and_then(|is| WANTED.into_iter().find(|w| *is && matches(w))) {
            self.taking = Some(Taking { name, depth: self.depth, bytes: Vec::new() });
        }
    }

    /// A comma, or the end of what holds the value.
    fn end_value(&mut self) {
        if let Some(taking) = self.taking.take_if(|taking| taking.depth == self.depth) {
            self.taken.retain(|(name, _)| *name != taking.name);
            self.taken.push((taking.name, taking.bytes));
        }
    }
}
