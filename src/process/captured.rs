//! Output of a program, kept up to a cap; the rest is counted.

/// The beginning and the end of a stream; the middle is only counted.
#[derive(Clone, Debug, Default)]
pub struct Captured {
    head: Vec<u8>,
    tail: Vec<u8>,
    total: u64,
    head_cap: usize,
    tail_cap: usize,
}

impl Captured {
    pub(super) fn split(cap: usize) -> Self {
        Self { head_cap: cap / 2, tail_cap: cap / 2, ..Self::default() }
    }

    pub(super) fn whole(cap: usize) -> Self {
        Self { head_cap: cap, ..Self::default() }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let room = self.head_cap.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        bytes = &bytes[room..];
        if bytes.is_empty() || self.tail_cap == 0 {
            return;
        }
        self.tail.extend_from_slice(bytes);
        // Trimmed only now and then, so that long output costs one copy, not one per read.
        if self.tail.len() > self.tail_cap * 2 {
            self.tail.drain(..self.tail.len() - self.tail_cap);
        }
    }

    /// All bytes the program wrote, kept or not.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Whether every byte was kept.
    pub fn complete(&self) -> bool {
        self.total == (self.head.len() + self.tail.len()) as u64
    }

    /// What was kept of the beginning; the whole stream if it is [`Captured::complete`] and whole.
    pub fn bytes(&self) -> Vec<u8> {
        let tail = &self.tail[self.tail.len().saturating_sub(self.tail_cap)..];
        let cut = self.total.saturating_sub((self.head.len() + tail.len()) as u64);
        let mut out = self.head.clone();
        if cut > 0 && self.tail_cap > 0 {
            out.extend_from_slice(format!("\n[… {cut} bytes left out …]\n").as_bytes());
        }
        out.extend_from_slice(tail);
        out
    }

    /// As text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// As text of at most `max` bytes and a few, beginning and end kept; for messages and logs.
    pub fn excerpt(&self, max: usize) -> String {
        let mut short = Self::split(max);
        short.push(&self.bytes());
        short.text().trim().to_owned()
    }
}
