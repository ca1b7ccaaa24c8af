//! What happened, a line each: what a failing seed prints.

use symphony_core::board::{Command, Event};

/// An event in a line.
pub(crate) fn brief(event: &Event) -> String {
    let Event::PollEnded(Ok(scan)) = event else { return format!("{event:?}") };
    let mut text = "look:".to_owned();
    for issue in &scan.issues {
        let by: Vec<_> = issue.blocked_by.iter().map(|b| b.identifier.0.as_str()).collect();
        text.push_str(&format!(" {} {}", issue.id, issue.state));
        if !issue.dispatchable || issue.labels.is_empty() || !by.is_empty() {
            text.push_str(&format!(" (go: {}, {:?}, by {by:?})", issue.dispatchable, issue.labels));
        }
        text.push(',');
    }
    text.push_str(&format!(" torn: {:?}", scan.malformed.iter().map(|m| &m.file).collect::<Vec<_>>()));
    text
}

/// A command in a line.
pub(crate) fn short(command: &Command) -> String {
    match command {
        Command::Start(plan) => format!(
            "Start({}, {} in {}, {:?} attempt {:?}, {:?}, after {:?})",
            plan.run,
            plan.issue.id,
            plan.issue.state,
            plan.kind,
            plan.attempt,
            plan.allowance,
            plan.last.as_ref().map(|last| last.reason)
        ),
        Command::RemoveWorkspace(issue) => format!("RemoveWorkspace({} in {})", issue.id, issue.state),
        other => format!("{other:?}"),
    }
}
