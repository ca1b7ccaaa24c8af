//! Typed reading of front matter: every getter takes what it can use and notes what it cannot.
//!
//! Where 0.1.0 silently fell back to the default on a wrong type, we fall back too, and say so; but not below
//! `sandbox`, where a default can be weaker than what was meant, nor below `retention`, where it can remove what was
//! meant to stay. Values never stand in a message unless they are words of a closed list.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::expand::{self, Place};
use super::keys;
use super::problem::{Code, Problem};
use crate::spelling::nearest;
use crate::yaml::{Entry, Kind, Node};

/// Ten years in milliseconds: beyond it, adding to a clock could overflow.
pub(super) const MAX_MS: i64 = 315_360_000_000;

/// One map of the file, or the empty stand-in for an absent one.
#[derive(Clone)]
pub(super) struct Section<'n> {
    pub(super) path: String,
    pub(super) entries: &'n [Entry],
    pub(super) place: (u32, u32),
}

impl<'n> Section<'n> {
    /// The value of a key; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The place of a key, or of the section where the key is absent.
    pub(super) fn place_of(&self, key: &str) -> (u32, u32) {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.place, |entry| (entry.line, entry.column))
    }
}

pub(super) struct Reader<'a> {
    pub(super) place: &'a Place<'a>,
    pub(super) problems: Vec<Problem>,
}

fn at(node: &Node) -> (u32, u32) {
    (node.line, node.column)
}

/// A wrong type: an error where a default could be weaker than what was meant, a warning elsewhere, which says what happens instead.
fn mistyped(path: &str, place: (u32, u32), message: String, instead: &str) -> Problem {
    let problem = match path.split('.').next() {
        // Whoever writes `smolvm` asks for a microVM: another default could be a weaker one.
        Some("sandbox" | "retention" | "steering" | "providers" | "egress" | "credentials") => {
            Problem::error(Code::WrongType, place, message)
        }
        // Caps of money may stand in it.
        Some("smolvm" | "budget") if !path.contains('.') => Problem::error(Code::WrongType, place, message),
        _ => Problem::warning(Code::WrongType, place, format!("{message}; {instead}")),
    };
    problem.about(path)
}

impl Reader<'_> {
    pub(super) fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// The map below `key`; anything else counts as empty. `known` is the path in [`keys::KEYS`].
    pub(super) fn section<'n>(&mut self, parent: &Section<'n>, key: &str, known: &str) -> Section<'n> {
        let path = parent.path_of(key);
        let place = parent.place_of(key);
        let entries = match parent.get(key).map(|node| &node.kind) {
            Some(Kind::Map(entries)) => entries.as_slice(),
            None => &[],
            Some(_) => {
                let node = parent.get(key).map_or("something", Node::kind_name);
                let problem = mistyped(&path, place, format!("`{path}` must be a map, it is {node}"), "it is ignored");
                self.note(problem);
                &[]
            }
        };
        let section = Section { path, entries, place };
        self.unknown_keys(&section, known);
        section
    }

    /// Warns of every key that is not in the table (C34).
    pub(super) fn unknown_keys(&mut self, section: &Section<'_>, known: &str) {
        for entry in section.entries {
            if keys::children(known).any(|name| name == entry.key) {
                continue;
            }
            let path = section.path_of(&entry.key);
            let place = (entry.line, entry.column);
            let mut problem = Problem::warning(Code::UnknownKey, place, format!("unknown key `{path}`, it is ignored"))
                .about(path.as_str());
            if let Some(meant) = nearest(&entry.key, keys::children(known)) {
                problem = problem.hint(format!("did you mean `{meant}`?"));
            } else if let Some(other) = keys::elsewhere(&entry.key) {
                problem = problem.hint(format!("did you mean `{other}`?"));
            } else if known == "sandbox" && keys::children("sandbox.profiles.*").any(|name| name == entry.key) {
                problem = problem.hint(format!("it belongs in a profile: `sandbox.profiles.<name>.{}`", entry.key));
            }
            self.note(problem);
        }
    }

    fn wrong_type(&mut self, section: &Section<'_>, key: &str, node: &Node, wanted: &str) {
        let path = section.path_of(key);
        let message = format!("`{path}` must be {wanted}, it is {}", node.kind_name());
        let problem = mistyped(&path, at(node), message, "the default applies");
        let quoted = wanted == "a string" && matches!(node.kind, Kind::Bool(_) | Kind::Int(_) | Kind::Float(_));
        self.note(if quoted { problem.hint("put it in quotes") } else { problem });
    }

    pub(super) fn invalid(&mut self, section: &Section<'_>, key: &str, what: &str, hint: &str) {
        let path = section.path_of(key);
        let place = section.get(key).map_or(section.place_of(key), at);
        let message = format!("`{path}` {what}");
        self.note(Problem::error(Code::InvalidValue, place, message).about(path).hint(hint));
    }

    pub(super) fn string(&mut self, section: &Section<'_>, key: &str) -> Option<String> {
        let node = section.get(key)?;
        match &node.kind {
            Kind::Str(text) => Some(text.clone()),
            _ => {
                self.wrong_type(section, key, node, "a string");
                None
            }
        }
    }

    /// A string with something in it; a blank one is an error.
    pub(super) fn filled(&mut self, section: &Section<'_>, key: &str) -> Option<String> {
        let text = self.string(section, key)?;
        if text.trim().is_empty() {
            self.invalid(section, key, "is blank", "give it a value, or remove the line");
            return None;
        }
        Some(text)
    }

    pub(super) fn boolean(&mut self, section: &Section<'_>, key: &str, default: bool) -> bool {
        let Some(node) = section.get(key) else { return default };
        match node.kind {
            Kind::Bool(value) => value,
            _ => {
                self.wrong_type(section, key, node, "`true` or `false`");
                default
            }
        }
    }

    /// A whole number, if there is one; coerced as in 0.1.0: fractions truncated, digits in quotes read.
    pub(super) fn whole(&mut self, section: &Section<'_>, key: &str) -> Option<i64> {
        let node = section.get(key)?;
        let number = whole_of(node);
        if number.is_none() {
            self.wrong_type(section, key, node, "a whole number");
        }
        number
    }

    /// A whole number within `range`; outside it is an error.
    pub(super) fn number(&mut self, section: &Section<'_>, key: &str, default: i64, range: RangeInclusive<i64>) -> i64 {
        let Some(number) = self.whole(section, key) else { return default };
        if range.contains(&number) {
            return number;
        }
        let bounds = if number < *range.start() {
            format!("must be at least {}", range.start())
        } else {
            format!("must be at most {}", range.end())
        };
        self.invalid(section, key, &bounds, &format!("the default is {default}"));
        default
    }

    /// Strings of a list; a single string instead of a list is an error when `strict` (C41).
    pub(super) fn strings(
        &mut self,
        section: &Section<'_>,
        key: &str,
        strict: bool,
    ) -> Option<Vec<(String, (u32, u32))>> {
        let node = section.get(key)?;
        let Some(items) = node.as_seq() else {
            if let (true, Some(text)) = (strict, node.as_str()) {
                let example: Vec<_> = text.split(',').map(str::trim).collect();
                let hint = format!("write it as a list: `[{}]`", example.join(", "));
                self.invalid(section, key, "must be a list, it is a string", &hint);
            } else {
                self.wrong_type(section, key, node, "a list");
            }
            return None;
        };
        let mut found = Vec::new();
        for item in items {
            match item.as_str() {
                Some(text) => found.push((text.to_owned(), at(item))),
                None => {
                    let path = section.path_of(key);
                    let message = format!("an entry of `{path}` must be a string, it is {}", item.kind_name());
                    self.note(mistyped(&path, at(item), message, "it is ignored").hint("put it in quotes"));
                }
            }
        }
        Some(found)
    }

    /// One word of a closed list; another word is an error.
    pub(super) fn word<T: Copy>(&mut self, section: &Section<'_>, key: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(section, key)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text.trim()) {
            return Some(*value);
        }
        let known = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let hint = match nearest(&text, words.iter().map(|(word, _)| *word)) {
            Some(meant) => format!("did you mean `{meant}`? It can be {known}"),
            None => format!("it can be {known}"),
        };
        self.invalid(section, key, &format!("cannot be `{}`", shortened(&text)), &hint);
        None
    }

    /// A path, expanded and absolute.
    pub(super) fn path(&mut self, section: &Section<'_>, key: &str) -> Option<PathBuf> {
        let text = self.filled(section, key)?;
        let place = section.get(key).map_or(section.place, at);
        match expand::path(&text, self.place) {
            Ok(path) => Some(path),
            Err(error) => {
                let name = section.path_of(key);
                let message = format!("`{name}`: {error}");
                self.note(
                    Problem::error(Code::UnsetVariable, place, message).about(name).hint("set it, or write a path"),
                );
                None
            }
        }
    }
}

/// 0.1.0's reading of a whole number.
pub(super) fn whole_of(node: &Node) -> Option<i64> {
    match &node.kind {
        Kind::Int(number) => Some(*number),
        // In range by the check; the fraction goes, as in 0.1.0.
        #[expect(clippy::cast_possible_truncation, reason = "truncation is the rule, and the range is checked")]
        Kind::Float(number) if number.abs() < 9e15 => Some(*number as i64),
        Kind::Str(text) => {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { text.parse().ok() } else { None }
        }
        _ => None,
    }
}

/// At most 40 characters, so that a pasted document does not become a message.
pub(super) fn shortened(text: &str) -> String {
    let mut shown: String = text.trim().chars().take(40).collect();
    if shown.len() < text.trim().len() {
        shown.push('…');
    }
    shown
}
