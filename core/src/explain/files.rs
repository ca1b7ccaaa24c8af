//! What is wrong or odd with the file of an issue that is known all the same.

use super::QUOTE_MAX;
use crate::board::one_line;
use crate::ids::IssueId;
use crate::issue::Ambiguity;
use crate::snapshot::Snapshot;

/// What a run does whose file cannot be read, or stands there twice.
const GOES_ON: &str = "its run goes on, and cannot be finished until that is mended";

/// An issue that is claimed stays known while its file cannot be read.
pub(super) fn notes(snapshot: &Snapshot, id: &IssueId, identifier: &str, runs: bool) -> Vec<String> {
    let is_it = |name: &str| name == id.0 || name == identifier;
    let malformed = snapshot.malformed.iter().filter(|file| is_it(file.stem()));
    let ambiguous = snapshot.ambiguous.iter().filter(|name| is_it(&name.name));
    let mut notes: Vec<String> = malformed
        .map(|file| format!("{}: {}", file.place(), one_line(&file.message, QUOTE_MAX)))
        .chain(ambiguous.map(|name| format!("{}: {}", name.files.join(", "), about_name(snapshot, name))))
        .collect();
    if runs && !notes.is_empty() {
        notes.push(GOES_ON.to_owned());
    }
    notes.extend(snapshot.oddities.get(id).into_iter().flatten().cloned());
    notes
}

/// What it means that a name stands in several places; a run of that name has begun before.
pub fn about_name(snapshot: &Snapshot, name: &Ambiguity) -> String {
    let runs = snapshot.running.iter().any(|row| name.name == row.id.0 || name.name == row.identifier.0);
    if runs { format!("`{}` stands in several places; {GOES_ON}", name.name) } else { name.sentence() }
}
