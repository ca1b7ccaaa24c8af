//! YAML as a tree in which every value knows its place, so that a message can point at it.
//!
//! YAML 1.2 core schema, as in 0.1.0: timestamps, `yes`, `no`, `on`, `off` are strings, a key that stands
//! twice is an error. Issue files are written by agents, so size, depth and the work of aliases are bounded.
//! Built on the event parser of serde-saphyr: its deserializer follows YAML 1.1 in places and would hide
//! what was quoted. Must never panic, recurse with its input, or expand an alias beyond the budget.

mod scalar;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span};

use scalar::{plain, tagged};

/// Longest accepted text, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Most values in one tree, those an alias repeats included.
pub const MAX_NODES: usize = 50_000;
/// Deepest nesting, that of repeated aliases included.
pub const MAX_DEPTH: usize = 64;
/// Most bytes of all strings together, those an alias repeats included.
pub const MAX_TEXT: usize = 4 * 1024 * 1024;

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// 1-based line in the file.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
}

/// The kinds of the core schema.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`, nothing else.
    Bool(bool),
    /// Decimal, `0o` or `0x`; whole numbers beyond 64 bits are [`Kind::Float`].
    Int(i64),
    /// May be infinite or not a number.
    Float(f64),
    /// Everything else, and everything quoted.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// Entries in the order of the file; each key once.
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key's text; numbers and booleans as keys keep their spelling.
    pub key: String,
    /// 1-based line of the key.
    pub line: u32,
    /// 1-based column of the key, in characters.
    pub column: u32,
    /// The value.
    pub value: Node,
}

/// Text that is not YAML, or more than we are willing to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct YamlError {
    /// 1-based line in the file.
    pub line: u32,
    /// 1-based column, in characters.
    pub column: u32,
    /// What is wrong, in plain words.
    pub message: String,
}

impl Node {
    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match &self.kind {
            Kind::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The entries, if it is a map.
    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The items, if it is a list.
    pub fn as_seq(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Seq(items) => Some(items),
            _ => None,
        }
    }

    /// The value of `key`, if this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// The kind in a reader's words, with its article: `a list`.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Str(_) => "a string",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }
}

/// Reads one document. `lines_before` is how many lines of the file stand before `text`, so that places
/// are those of the file. Nothing but comments is `Null`.
///
/// # Errors
/// Text that is not one YAML document, a repeated key, or a breach of a budget, each with its place.
pub fn parse(text: &str, lines_before: u32) -> Result<Node, YamlError> {
    if text.len() > MAX_BYTES {
        let message = format!("the text is longer than {MAX_BYTES} bytes");
        return Err(YamlError { line: lines_before.saturating_add(1), column: 1, message });
    }
    let mut options = granit_parser::options! { flow_nesting_limit: MAX_DEPTH, block_nesting_limit: MAX_DEPTH };
    options.set_emit_comments(false);
    let mut builder = Builder::new(lines_before);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|e| builder.refused_by_parser(&e))?;
        builder.take(event, span)?;
    }
    let nothing = Node { kind: Kind::Null, line: lines_before.saturating_add(1), column: 1 };
    Ok(builder.root.unwrap_or(nothing))
}

/// A finished value with what repeating it would cost.
#[derive(Clone)]
struct Built {
    node: Node,
    cost: Cost,
}

/// What a value adds to the budgets.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    text: usize,
    height: usize,
}

/// A list or map that is not closed yet.
struct Open {
    anchor: usize,
    line: u32,
    column: u32,
    cost: Cost,
    items: Items,
}

enum Items {
    Seq(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashSet<String>, key: Option<(String, u32, u32)> },
}

struct Builder {
    lines_before: u32,
    documents: usize,
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    spent: Cost,
    root: Option<Node>,
}

impl Builder {
    fn new(lines_before: u32) -> Self {
        let (open, anchors) = (Vec::new(), HashMap::new());
        Self { lines_before, documents: 0, open, anchors, spent: Cost::default(), root: None }
    }

    /// File coordinates of a parser position.
    fn place(&self, mark: &granit_parser::Marker) -> (u32, u32) {
        let line = u32::try_from(mark.line()).unwrap_or(u32::MAX).max(1);
        let column = u32::try_from(mark.col()).unwrap_or(u32::MAX);
        (line.saturating_add(self.lines_before), column.saturating_add(1))
    }

    fn error(&self, span: Span, message: impl Into<String>) -> YamlError {
        let (line, column) = self.place(&span.start);
        YamlError { line, column, message: message.into() }
    }

    fn refused_by_parser(&self, error: &granit_parser::ScanError) -> YamlError {
        let (line, column) = self.place(error.marker());
        YamlError { line, column, message: error.info() }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), YamlError> {
        let (line, column) = self.place(&span.start);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.error(span, "a second YAML document starts here; one is allowed"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.key_is_due() {
                    return self.key(&text, anchor, line, column, span);
                }
                let core = tag.as_deref().and_then(|tag| tag.core_suffix().map(str::to_owned));
                let kind = match (core.as_deref(), tag.is_some()) {
                    (Some(name @ ("null" | "bool" | "int" | "float")), _) => tagged(name, &text)
                        .ok_or_else(|| self.error(span, format!("`{}` is not of the type !!{name}", short(&text))))?,
                    (_, true) => Kind::Str(text.into_owned()),
                    (None, false) if style == ScalarStyle::Plain => plain(&text),
                    (_, false) => Kind::Str(text.into_owned()),
                };
                let text = if let Kind::Str(text) = &kind { text.len() } else { 0 };
                let cost = Cost { nodes: 1, text, height: 1 };
                self.spend(cost, span)?;
                return self.put(Built { node: Node { kind, line, column }, cost }, anchor, span);
            }
            Event::SequenceStart(_, anchor, _) => self.start(anchor, line, column, Items::Seq(Vec::new()), span)?,
            Event::MappingStart(_, anchor, _) => {
                let items = Items::Map { entries: Vec::new(), seen: HashSet::new(), key: None };
                self.start(anchor, line, column, items, span)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Err(self.error(span, "unexpected end")) };
                let kind = match open.items {
                    Items::Seq(items) => Kind::Seq(items),
                    Items::Map { entries, .. } => Kind::Map(entries),
                };
                self.spend(Cost { nodes: 1, ..Cost::default() }, span)?;
                let cost = Cost { nodes: open.cost.nodes + 1, height: open.cost.height + 1, ..open.cost };
                let node = Node { kind, line: open.line, column: open.column };
                return self.put(Built { node, cost }, open.anchor, span);
            }
            Event::Alias(anchor) => {
                let Some(cost) = self.anchors.get(&anchor).map(|built| built.cost) else {
                    return Err(self.error(span, "the alias refers to a value that is not complete"));
                };
                self.spend(cost, span)?;
                let built = self.anchors.get(&anchor).cloned();
                if self.key_is_due() {
                    let Some(Built { node: Node { kind: Kind::Str(text), .. }, .. }) = built else {
                        return Err(self.error(span, "only a string can be repeated as a key"));
                    };
                    return self.key(&text, 0, line, column, span);
                }
                return built.map_or(Ok(()), |built| self.put(built, 0, span));
            }
            _ => {}
        }
        Ok(())
    }

    fn key_is_due(&self) -> bool {
        matches!(self.open.last(), Some(Open { items: Items::Map { key: None, .. }, .. }))
    }

    fn start(&mut self, anchor: usize, line: u32, column: u32, items: Items, span: Span) -> Result<(), YamlError> {
        if self.key_is_due() {
            return Err(self.error(span, "a list or a map cannot be a key"));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(self.error(span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.open.push(Open { anchor, line, column, cost: Cost::default(), items });
        Ok(())
    }

    fn key(&mut self, text: &str, anchor: usize, line: u32, column: u32, span: Span) -> Result<(), YamlError> {
        let cost = Cost { nodes: 1, text: text.len(), height: 1 };
        self.spend(cost, span)?;
        if anchor != 0 {
            let node = Node { kind: Kind::Str(text.to_owned()), line, column };
            self.anchors.insert(anchor, Built { node, cost });
        }
        let new = match self.open.last_mut() {
            Some(Open { items: Items::Map { seen, key, .. }, cost: total, .. }) => {
                total.add(cost);
                *key = Some((text.to_owned(), line, column));
                seen.insert(text.to_owned())
            }
            _ => true,
        };
        if !new {
            return Err(self.error(span, format!("the key `{}` stands here a second time", short(text))));
        }
        Ok(())
    }

    /// Puts a complete, paid value into the innermost open list or map, or makes it the root.
    fn put(&mut self, built: Built, anchor: usize, span: Span) -> Result<(), YamlError> {
        if anchor != 0 {
            // What is kept for aliases is a second copy.
            self.spend(built.cost, span)?;
            self.anchors.insert(anchor, built.clone());
        }
        let Built { node, cost } = built;
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.cost.add(cost);
        match &mut open.items {
            Items::Seq(items) => items.push(node),
            Items::Map { entries, key, .. } => {
                if let Some((key, line, column)) = key.take() {
                    entries.push(Entry { key, line, column, value: node });
                }
            }
        }
        Ok(())
    }

    /// Takes `cost` from the budgets before anything is built.
    fn spend(&mut self, cost: Cost, span: Span) -> Result<(), YamlError> {
        self.spent.add(cost);
        let breach = if self.spent.nodes > MAX_NODES {
            format!("more than {MAX_NODES} values, those that aliases repeat included")
        } else if self.spent.text > MAX_TEXT {
            format!("more than {MAX_TEXT} bytes of text, that which aliases repeat included")
        } else if self.open.len() + cost.height > MAX_DEPTH {
            format!("nested deeper than {MAX_DEPTH} levels")
        } else {
            return Ok(());
        };
        Err(self.error(span, breach))
    }
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.text = self.text.saturating_add(other.text);
        self.height = self.height.max(other.height);
    }
}

/// At most 40 characters of `text`, for a message.
fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(40).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
