//! Every key of an issue's front matter, and what is said of any other.
//!
//! Other tools' keys are tolerated (0.1.0; C34 asks for a warning), and a value of no use never makes a file malformed
//! (C185): both are said, and the issue runs. Only a key that is nearly `blocked_by`, `profile` or `hold` keeps it from
//! starting: who wrote `blocked-by` meant it to wait, and a run too early cannot be taken back. The file stays an issue
//! all the same (C18: whether it may be dispatched is the adapter's word).

use jiff::Timestamp;

use crate::issue::Oddity;
use crate::yaml::{Entry, Kind, Node};

/// Every key that counts, or that symphony itself writes.
pub const KEYS: [&str; 16] = [
    "id",
    "identifier",
    "title",
    "priority",
    "labels",
    "blocked_by",
    "hold",
    "profile",
    "branch_name",
    "url",
    "assignee_id",
    "created_at",
    "updated_at",
    "proposed_by",
    "proposed_at",
    "proposed_in_run",
];
/// What other tools call what is said elsewhere here.
const ELSEWHERE: [(&str, &str); 13] = [
    ("state", "an issue's state is the directory its file stands in"),
    ("status", "an issue's state is the directory its file stands in"),
    ("description", "what is to be done stands below the front matter"),
    ("body", "what is to be done stands below the front matter"),
    ("model", "`acp.model` or `states.*.model` of the workflow names the model"),
    ("adapter", "`acp.adapter` or `states.*.adapter` of the workflow names the agent"),
    ("agent", "`acp.adapter` or `states.*.adapter` of the workflow names the agent"),
    ("effort", "`acp.effort` or `states.*.effort` of the workflow says how much it thinks"),
    ("sandbox", "`profile` names one of the workflow's `sandbox.profiles`"),
    ("tags", "did you mean `labels`?"),
    ("depends_on", "did you mean `blocked_by`?"),
    ("dependencies", "did you mean `blocked_by`?"),
    ("blockers", "did you mean `blocked_by`?"),
];
/// Oddities of one file that are told, and how much of a key.
const TOLD: usize = 8;
const SHOWN: usize = 40;

/// What of these fields counts for nothing, in the order of the file.
pub(super) fn oddities(fields: &[Entry]) -> Vec<Oddity> {
    let mut all: Vec<Oddity> = fields.iter().filter_map(|field| unknown(field).or_else(|| unusable(field))).collect();
    // What holds the issue is never among those that are cut.
    all.sort_by_key(|odd| !odd.holds);
    let more = all.len().saturating_sub(TOLD);
    all.truncate(TOLD);
    all.sort_by_key(|odd| (odd.line, odd.column));
    if let (1.., Some(last)) = (more, all.last_mut()) {
        last.message.push_str(&format!("; and {more} more like it"));
    }
    all
}

fn unknown(field: &Entry) -> Option<Oddity> {
    if KEYS.contains(&field.key.as_str()) {
        return None;
    }
    let shown: String = field.key.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    let key = folded(&field.key);
    let held = ["blocked_by", "profile", "hold"].into_iter().find(|meant| is_nearly(&key, meant));
    let holds = held.is_some() && !says_nothing(&field.value);
    let hint = held
        .or_else(|| KEYS.into_iter().find(|known| *known == key))
        .map(|meant| format!("did you mean `{meant}`?"))
        .or_else(|| ELSEWHERE.iter().find(|(name, _)| *name == key).map(|(_, hint)| (*hint).to_owned()))
        .or_else(|| crate::spelling::nearest(&key, KEYS).map(|meant| format!("did you mean `{meant}`?")));
    let hint = hint.map_or(String::new(), |hint| format!(" ({hint})"));
    Some(Oddity { line: field.line, column: field.column, message: format!("unknown key `{shown}`{hint}"), holds })
}

/// As it would be spelled here.
fn folded(key: &str) -> String {
    key.trim().to_lowercase().replace(['-', ' ', '.'], "_")
}

/// Whether a person who wrote `key` most likely meant `meant`. Short words are near to too many others, and other tools
/// have times that end in `_at`.
fn is_nearly(key: &str, meant: &str) -> bool {
    match meant {
        "hold" => key == meant || key == "on_hold",
        "blocked_by" if ["blocked", "blockedby"].contains(&key) => true,
        _ => {
            key.chars().next() == meant.chars().next() && !key.ends_with("_at") && strsim::osa_distance(key, meant) <= 2
        }
    }
}

/// `blocked-by: []` asks for nothing.
fn says_nothing(value: &Node) -> bool {
    match &value.kind {
        Kind::Null | Kind::Bool(false) => true,
        Kind::Str(text) => text.trim().is_empty(),
        Kind::Seq(items) => items.is_empty(),
        _ => false,
    }
}

/// A value that cannot be what its key is for. Nothing at all is no value.
fn unusable(field: &Entry) -> Option<Oddity> {
    let value = &field.value;
    let blank = matches!(&value.kind, Kind::Str(text) if text.trim().is_empty());
    if value.is_null() || blank {
        return None;
    }
    let text = value.as_str();
    let (good, wanted) = match field.key.as_str() {
        "id" | "identifier" => (super::scalar_text(value).is_some(), "a name, so the file's name counts"),
        "title" => (text.is_some(), "text, so the identifier counts"),
        "priority" => (super::whole(value).is_some(), "a whole number, so the issue has none"),
        "labels" => (value.as_seq().is_some(), "a list, so the issue has none"),
        "blocked_by" => {
            let names = super::names(value).len();
            (
                names > 0 || value.as_seq().is_some_and(<[Node]>::is_empty),
                "a list of names, so nothing blocks the issue",
            )
        }
        "hold" => {
            let word = text
                .is_some_and(|text| ["true", "yes", "on", "false", "no", "off"].contains(&text.to_lowercase().trim()));
            (word || matches!(value.kind, Kind::Bool(_)), "`true` or `false`, so the issue is not held")
        }
        "created_at" | "updated_at" => (
            text.is_some_and(|text| text.trim().parse::<Timestamp>().is_ok()),
            "an instant such as 2026-01-31T12:00:00Z, so the issue has none",
        ),
        "branch_name" | "url" | "assignee_id" | "proposed_by" => (text.is_some(), "text, so it counts as absent"),
        // A profile that is no name is refused by the board; what symphony writes for itself it does not read.
        _ => return None,
    };
    let message = || format!("`{}` is not {wanted}", field.key);
    (!good).then(|| Oddity { line: value.line, column: value.column, message: message(), holds: false })
}
