//! An issue as every part of symphony sees it, and the order in which issues start.

use std::cmp::Ordering;

use jiff::Timestamp;

use crate::ids::{Identifier, IssueId, StateName};

/// One Markdown file, normalised (C9): absent fields are `None` or empty, never missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Stable across moves between states.
    pub id: IssueId,
    /// Names workspace, branch, patch, routes.
    pub identifier: Identifier,
    /// Never empty; falls back to the identifier.
    pub title: String,
    /// The trimmed body; `None` when empty.
    pub description: Option<String>,
    /// Lower is more urgent; 1..4 are the ranked ones (C99).
    pub priority: Option<i64>,
    /// The directory's name, verbatim.
    pub state: StateName,
    /// Passed through from front matter.
    pub branch_name: Option<String>,
    /// Passed through from front matter.
    pub url: Option<String>,
    /// Passed through from front matter.
    pub assignee_id: Option<String>,
    /// Trimmed, lower-cased, without blanks or duplicates (C16).
    pub labels: Vec<String>,
    /// Resolved against every state directory (C17).
    pub blocked_by: Vec<Blocker>,
    /// `false` when the file says `hold: true` (C18).
    pub dispatchable: bool,
    /// Which of the workflow's `sandbox.profiles` its runs get; `None` is the workflow's default.
    pub profile: Option<String>,
    /// Front matter, if it is an instant.
    pub created_at: Option<Timestamp>,
    /// Front matter, if it is an instant.
    pub updated_at: Option<Timestamp>,
    /// Front matter `proposed_by`: the issue whose agent proposed this one.
    pub proposed_by: Option<String>,
    /// Where the file is, relative to the tracker root: `<state directory>/<name>.md`.
    pub file: String,
    /// What of its front matter counts for nothing, in the order of the file.
    pub oddities: Vec<Oddity>,
}

/// A key nobody knows, or a value of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oddity {
    /// 1-based.
    pub line: u32,
    /// 1-based, in characters.
    pub column: u32,
    /// What is odd, and what may have been meant.
    pub message: String,
    /// Whether the issue does not start for it: what was meant may be that it waits.
    pub holds: bool,
}

/// An issue that must end first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// `None` when no such issue exists.
    pub id: Option<IssueId>,
    /// As it was written in `blocked_by`.
    pub identifier: Identifier,
    /// `None` when no such issue exists.
    pub state: Option<StateName>,
}

impl Issue {
    /// An issue of which nothing is known but its name and its state.
    pub fn bare(name: &str, state: &str) -> Self {
        Self {
            id: IssueId(name.into()),
            identifier: Identifier(name.into()),
            title: name.into(),
            description: None,
            priority: None,
            state: StateName::new(state),
            branch_name: None,
            url: None,
            assignee_id: None,
            labels: vec![],
            blocked_by: vec![],
            dispatchable: true,
            profile: None,
            created_at: None,
            updated_at: None,
            proposed_by: None,
            file: format!("{state}/{name}.md"),
            oddities: vec![],
        }
    }

    /// What may mean that it has to wait, if anything does.
    pub fn doubt(&self) -> Option<&Oddity> {
        self.oddities.iter().find(|odd| odd.holds)
    }

    /// What is odd about its file, each with its place.
    pub fn remarks(&self) -> impl Iterator<Item = String> {
        self.oddities.iter().map(|odd| format!("{}:{}:{}: {}", self.file, odd.line, odd.column, odd.message))
    }

    /// The file's name without its directory: what stays the same when the issue moves.
    pub fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or(&self.file)
    }
}

/// Dispatch order (C99..C101): priority 1..4 first, then everything else; oldest first, undated
/// last; then the identifier by bytes. A total order, so the same files always start alike.
pub fn dispatch_order(a: &Issue, b: &Issue) -> Ordering {
    let rank = |issue: &Issue| issue.priority.filter(|p| (1..=4).contains(p)).unwrap_or(5);
    let age = |issue: &Issue| (issue.created_at.is_none(), issue.created_at);
    rank(a)
        .cmp(&rank(b))
        .then_with(|| age(a).cmp(&age(b)))
        .then_with(|| a.identifier.cmp(&b.identifier))
        .then_with(|| a.id.cmp(&b.id))
}

/// Everything one look at the tracker found. A failed look is an error, never an empty `Scan`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Well-formed issues of every state, each id and identifier once.
    pub issues: Vec<Issue>,
    /// Files that could not be read as an issue.
    pub malformed: Vec<Malformed>,
    /// Names that stand in more than one place; none of their files is in `issues`.
    pub ambiguous: Vec<Ambiguity>,
}

/// A file that is not an issue right now: half-saved, or wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Malformed {
    /// Relative to the tracker root.
    pub file: String,
    /// 1-based, when known.
    pub line: Option<u32>,
    /// 1-based, when known.
    pub column: Option<u32>,
    /// What is wrong, for the person who wrote the file.
    pub message: String,
}

impl Malformed {
    /// The file with what is known of the place in it: `Todo/A-1.md:3:7`.
    pub fn place(&self) -> String {
        match (self.line, self.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", self.file),
            (Some(line), None) => format!("{}:{line}", self.file),
            (None, _) => self.file.clone(),
        }
    }

    /// What the issue would be called if its file said nothing else.
    pub fn stem(&self) -> &str {
        let name = self.file.rsplit('/').next().unwrap_or(&self.file);
        name.strip_suffix(".md").unwrap_or(name)
    }
}

/// One identifier or id, several files.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ambiguity {
    /// The name they share.
    pub name: String,
    /// All files that claim it, relative to the tracker root.
    pub files: Vec<String>,
}

impl Ambiguity {
    /// What it means for the issue.
    pub fn sentence(&self) -> String {
        format!("`{}` stands in several places; nothing is done until one is left", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue(identifier: &str, priority: Option<i64>, created: Option<&str>) -> Issue {
        let created_at = created.map(|t| t.parse().expect("instant"));
        Issue { priority, created_at, ..Issue::bare(identifier, "Todo") }
    }

    #[test]
    fn order_is_priority_then_age_then_identifier() {
        let old = Some("2020-01-01T00:00:00Z");
        let new = Some("2026-01-01T00:00:00Z");
        let mut issues = [
            issue("undated", None, None),
            issue("zero", Some(0), new),
            issue("five", Some(5), old),
            issue("four", Some(4), new),
            issue("one-b", Some(1), None),
            issue("one-a", Some(1), old),
            issue("A-2", None, new),
            issue("A-10", None, new),
        ];
        issues.sort_by(dispatch_order);
        let names: Vec<_> = issues.iter().map(|i| i.identifier.0.as_str()).collect();
        assert_eq!(names, ["one-a", "one-b", "four", "five", "A-10", "A-2", "zero", "undated"]);
    }
}
