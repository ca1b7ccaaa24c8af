//! An issue file's text: split, read, resolved against the others, and written for a new issue.
//!
//! Rules of smol-symphony §1.4 with the coercions of C13 to C19. A file without front matter is all body; one that is
//! empty, or whose fields never end, is no issue. [`looks_half_saved`] tells the caller, who knows the file's
//! age, when to distrust any other. Must never panic on any bytes, nor read files.

mod keys;
mod unfinished;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::ids::{Identifier, IssueId, RunId, StateName, WorkspaceKey};
use crate::issue::{Ambiguity, Blocker, Issue, Malformed};
use crate::yaml::{self, Kind, Node};

pub use keys::KEYS;
pub use unfinished::looks_half_saved;

/// Longest issue file, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;
/// Longest `id` or `identifier`, in bytes.
pub const MAX_NAME: usize = 255;
/// Identifiers that are routes of the dashboard's API (trap T8).
pub const RESERVED: [&str; 5] = ["state", "refresh", "issues", "partials", "events"];

/// A file's text in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// The YAML between the fences, which starts at line 2 of the file.
    pub front: Option<&'a str>,
    /// Everything after the closing fence, or everything.
    pub body: &'a str,
    /// Whether an opening fence stands there that nothing closes.
    pub unclosed: bool,
}

/// Splits `text` at its fences: lines that are exactly `---` but for white space after it, the first of
/// them the first line. A byte order mark before it is skipped.
pub fn split(text: &str) -> Split<'_> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fence = |line: &str| line.trim_end() == "---";
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| fence(line)) else {
        return Split { front: None, body: text, unclosed: false };
    };
    let mut at = first.len();
    for line in lines {
        let next = at + line.len();
        if fence(line) {
            return Split { front: Some(&text[first.len()..at]), body: &text[next..], unclosed: false };
        }
        at = next;
    }
    Split { front: None, body: text, unclosed: true }
}

/// Reads the issue in `bytes`. `file` is its path below the tracker root, ending in `.md`; `state` is the
/// name of its directory. Blockers are left unresolved, see [`resolve`].
///
/// `id` and `identifier` default to the file's stem, and so does a missing, blank or non-string `title` to
/// the identifier (C13). Whole numbers are taken as text where a name is wanted. Anything else of the wrong
/// kind counts as absent (C185).
///
/// # Errors
/// Text that is too long, empty or not UTF-8, front matter that has no end or is not a YAML map, and identifiers that
/// cannot name a workspace or a page.
pub fn parse(file: &str, state: &str, bytes: &[u8]) -> Result<Issue, Malformed> {
    let bad = |place: Option<(u32, u32)>, message: String| Malformed {
        file: file.to_owned(),
        line: place.map(|p| p.0),
        column: place.map(|p| p.1),
        message,
    };
    if bytes.len() > MAX_BYTES {
        return Err(bad(None, too_long()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let message = "the file is not UTF-8 here; save it in that encoding".to_owned();
        bad(Some(place_of(bytes, e.valid_up_to())), message)
    })?;
    if let Some(zero) = bytes.iter().position(|b| *b == 0) {
        let message = "the file contains a NUL byte; was it only half saved?".to_owned();
        return Err(bad(Some(place_of(bytes, zero)), message));
    }
    let parts = split(text);
    if let Some(why) = unfinished::never_an_issue(text, &parts) {
        return Err(bad(parts.unclosed.then_some((1, 1)), why.to_owned()));
    }
    let Split { front, body, .. } = parts;
    let fields = yaml::parse(front.unwrap_or(""), 1).map_err(|e| bad(Some((e.line, e.column)), e.message))?;
    if !fields.is_null() && fields.as_map().is_none() {
        let message =
            format!("the front matter is {}, not a map of fields such as `title: Fix it`", fields.kind_name());
        return Err(bad(Some((fields.line, fields.column)), message));
    }
    let string = |key: &str| fields.get(key).and_then(Node::as_str).map(str::trim).filter(|s| !s.is_empty());
    let stem = stem_of(file);
    let name = |key: &str| -> Result<String, Malformed> {
        let node = fields.get(key);
        let name = node.and_then(scalar_text).unwrap_or_else(|| stem.to_owned());
        let wrong = if name.len() > MAX_NAME {
            format!("the {key} is longer than {MAX_NAME} bytes; shorten it")
        } else if name.chars().any(char::is_control) {
            format!("the {key} contains a line break or a control character; use plain text")
        } else {
            return Ok(name);
        };
        Err(bad(node.map(|n| (n.line, n.column)), wrong))
    };
    let id = name("id")?;
    let identifier = Identifier(name("identifier")?);
    let fault = match WorkspaceKey::of(&identifier) {
        Err(e) => Some(e.to_string()),
        Ok(_) if RESERVED.contains(&identifier.0.as_str()) => {
            Some(format!("`{identifier}` is a page of the dashboard"))
        }
        Ok(_) => None,
    };
    if let Some(fault) = fault {
        let place = fields.get("identifier").map(|n| (n.line, n.column));
        return Err(bad(place, format!("{fault}; give the issue another `identifier`")));
    }
    let blockers = fields.get("blocked_by").map(names).unwrap_or_default();
    let owned = |key: &str| string(key).map(str::to_owned);
    let instant = |key: &str| string(key).and_then(|text| text.parse::<Timestamp>().ok());
    Ok(Issue {
        id: IssueId(id),
        title: owned("title").unwrap_or_else(|| identifier.0.clone()),
        identifier,
        description: Some(body.trim()).filter(|b| !b.is_empty()).map(str::to_owned),
        priority: fields.get("priority").and_then(whole),
        state: StateName::new(state),
        branch_name: owned("branch_name"),
        url: owned("url"),
        assignee_id: owned("assignee_id"),
        labels: labels(fields.get("labels")),
        blocked_by: blockers
            .into_iter()
            .map(|name| Blocker { id: None, identifier: Identifier(name), state: None })
            .collect(),
        dispatchable: !fields.get("hold").is_some_and(holds),
        profile: fields.get("profile").and_then(profile),
        created_at: instant("created_at"),
        updated_at: instant("updated_at"),
        proposed_by: owned("proposed_by"),
        file: file.to_owned(),
        oddities: fields.as_map().map(keys::oddities).unwrap_or_default(),
    })
}

/// What is said of a file over [`MAX_BYTES`].
pub fn too_long() -> String {
    format!("the file is longer than {MAX_BYTES} bytes; shorten it or link to the long part")
}

/// The file's name without directory and `.md`.
pub fn stem_of(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.strip_suffix(".md").unwrap_or(name)
}

/// Takes apart what stands alone and what shares an id, or an identifier whose workspace would be the same
/// directory where case does not count. Nothing ambiguous is left among the issues.
pub fn separate(issues: Vec<Issue>) -> (Vec<Issue>, Vec<Ambiguity>) {
    /// What must be unique, and what people call it.
    type Name = fn(&Issue) -> (String, &str);
    let mut ambiguous: Vec<Ambiguity> = Vec::new();
    let mut out: BTreeSet<String> = BTreeSet::new();
    let ways: [Name; 2] = [|i| (folded_key(&i.identifier), &i.identifier.0), |i| (i.id.0.clone(), &i.id.0)];
    for way in ways {
        let mut groups: BTreeMap<String, Vec<&Issue>> = BTreeMap::new();
        for issue in &issues {
            groups.entry(way(issue).0).or_default().push(issue);
        }
        for group in groups.values().filter(|group| group.len() > 1) {
            let mut files: Vec<String> = group.iter().map(|issue| issue.file.clone()).collect();
            files.sort();
            out.extend(files.iter().cloned());
            if ambiguous.iter().all(|known| known.files != files) {
                ambiguous.push(Ambiguity { name: way(group[0]).1.to_owned(), files });
            }
        }
    }
    ambiguous.sort_by(|a, b| (&a.name, &a.files).cmp(&(&b.name, &b.files)));
    (issues.into_iter().filter(|issue| !out.contains(&issue.file)).collect(), ambiguous)
}

/// The workspace directory of `identifier` as a file system blind to case would see it.
pub fn folded_key(identifier: &Identifier) -> String {
    WorkspaceKey::of(identifier).map_or_else(|_| identifier.0.to_lowercase(), |key| key.as_str().to_lowercase())
}

/// Fills in each blocker's id and state: by identifier, else by id, else by file stem (C17). What matches
/// nothing stays `None`, and blocks.
pub fn resolve(issues: &mut [Issue]) {
    let mut known: HashMap<String, (IssueId, StateName)> = HashMap::new();
    let ways: [fn(&Issue) -> &str; 3] = [|i| &i.identifier.0, |i| &i.id.0, |i| stem_of(&i.file)];
    for way in ways {
        for issue in issues.iter() {
            known.entry(way(issue).to_owned()).or_insert_with(|| (issue.id.clone(), issue.state.clone()));
        }
    }
    for blocker in issues.iter_mut().flat_map(|issue| &mut issue.blocked_by) {
        let (id, state) = known.get(&blocker.identifier.0).cloned().unzip();
        (blocker.id, blocker.state) = (id, state);
    }
}

/// What a new issue's file says.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// Both `id` and `identifier`.
    pub identifier: &'a str,
    /// One line.
    pub title: &'a str,
    /// Markdown body.
    pub description: Option<&'a str>,
    /// Any integer.
    pub priority: Option<i64>,
    /// As typed.
    pub labels: &'a [String],
    /// Identifiers.
    pub blocked_by: &'a [String],
    /// Who proposed it, if an agent did.
    pub proposed: Option<&'a Proposed>,
}

/// Where a proposed issue comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The issue whose agent proposed it.
    pub by: Identifier,
    /// The run in which it did.
    pub run: RunId,
}

/// The text of a new issue's file in the format of 0.1.0 (§1.10): strings quoted as JSON, which is YAML too.
pub fn render_new(new: &NewFile<'_>, now: Timestamp) -> String {
    let list = |items: &[String]| items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", ");
    let now = quoted(&format!("{now:.3}"));
    let (identifier, title) = (quoted(new.identifier), quoted(new.title));
    let mut text = format!("---\nid: {identifier}\nidentifier: {identifier}\ntitle: {title}\n");
    text.push_str(&format!("created_at: {now}\nupdated_at: {now}\n"));
    if let Some(priority) = new.priority {
        text.push_str(&format!("priority: {priority}\n"));
    }
    for (key, items) in [("labels", new.labels), ("blocked_by", new.blocked_by)] {
        if !items.is_empty() {
            text.push_str(&format!("{key}: [{}]\n", list(items)));
        }
    }
    if let Some(Proposed { by, run }) = new.proposed {
        let by = quoted(&by.0);
        text.push_str(&format!("proposed_by: {by}\nproposed_at: {now}\nproposed_in_run: {}\n", run.0));
    }
    text.push_str("---\n");
    let body = new.description.unwrap_or("").trim();
    if !body.is_empty() {
        text.push_str(&format!("\n{body}\n"));
    }
    text
}

/// `text` as a JSON string that is also a double-quoted YAML scalar on one line.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Breaks and characters that YAML folds or forbids.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// 1-based line and column (in characters) of the byte at `at`.
fn place_of(bytes: &[u8], at: usize) -> (u32, u32) {
    let before = &bytes[..at.min(bytes.len())];
    let line = before.iter().filter(|b| **b == b'\n').count() + 1;
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// A non-blank string, or a whole number as text.
fn scalar_text(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::Str(text) => Some(text.trim().to_owned()).filter(|t| !t.is_empty()),
        Kind::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Names in a list, each once. One name alone counts as a list of it; an item may be a map that has an
/// `identifier` or `id`.
fn names(node: &Node) -> Vec<String> {
    let items = node.as_seq().unwrap_or(std::slice::from_ref(node));
    let mut names: Vec<String> = Vec::new();
    let name = |item: &Node| scalar_text(item).or_else(|| scalar_text(item.get("identifier").or(item.get("id"))?));
    for name in items.iter().filter_map(name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// What is no name counts as one that nobody lists: a choice is never dropped silently.
fn profile(node: &Node) -> Option<String> {
    let is_choice = !node.is_null() && node.as_str().is_none_or(|text| !text.trim().is_empty());
    is_choice.then(|| scalar_text(node).unwrap_or_else(|| node.kind_name().to_owned()))
}

fn labels(node: Option<&Node>) -> Vec<String> {
    let items = node.and_then(Node::as_seq).unwrap_or_default();
    let mut labels: Vec<String> = Vec::new();
    for label in items.iter().filter_map(scalar_text).map(|label| label.to_lowercase()) {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}

/// A whole number, or its text (C14).
fn whole(node: &Node) -> Option<i64> {
    match &node.kind {
        Kind::Int(number) => Some(*number),
        Kind::Str(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `hold: true`. YAML 1.2 reads `yes` and `on` as strings; who writes them means to hold.
fn holds(node: &Node) -> bool {
    match &node.kind {
        Kind::Bool(hold) => *hold,
        Kind::Str(text) => ["true", "yes", "on"].contains(&text.trim().to_lowercase().as_str()),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
