//! Explanations as text for a terminal: dense, aligned, without colour. Pure; the caller makes each line harmless.

use std::path::Path;

use jiff::Timestamp;
use symphony_core::budget::Spoken;

use crate::handoff::patch::command;
use crate::operator::{Answer, Explanation, Of};

/// Columns kept for names: a longer one pushes its line, not all lines.
const NAME_MAX: usize = 24;

/// Longest cause of a failure in a list, in characters.
const CAUSE_MAX: usize = 120;

/// One line for everything that is not running fine, below the headings of the dashboard.
pub(super) fn overview(answer: &Answer) -> Vec<String> {
    // What a person has to mend stands in the list.
    let is_listed =
        |notice: &&String| answer.issues.iter().any(|one| one.status == "broken" && notice.contains(&one.reason));
    let mut lines: Vec<String> =
        answer.notices.iter().filter(|notice| !is_listed(notice)).map(|notice| format!("! {notice}")).collect();
    let width = |text: &str| text.chars().count();
    let names = answer.issues.iter().map(|one| width(&label(one))).filter(|len| *len <= NAME_MAX).max().unwrap_or(0);
    let words = answer.issues.iter().map(|one| width(word(one))).max().unwrap_or(0);
    let mut group = "";
    for one in &answer.issues {
        if one.group != group {
            group = &one.group;
            let count = answer.issues.iter().filter(|other| other.group == one.group).count();
            lines.push(format!("{group} ({count})"));
        }
        lines.push(format!("  {:names$}  {:words$}  {}", label(one), word(one), sentence(one)));
    }
    if answer.done > 0 {
        lines.push(format!("done ({})", answer.done));
    }
    if lines.is_empty() {
        lines.push("no issues".to_owned());
    }
    lines
}

/// The place of a file that cannot be read says more than its name.
fn label(one: &Explanation) -> String {
    match (one.id.is_some(), one.files.as_slice()) {
        (false, [place]) => place.clone(),
        _ => one.name.clone(),
    }
}

/// The status, or, where the heading says that already, the state.
fn word(one: &Explanation) -> &str {
    match (one.status.as_str(), &one.state) {
        ("waiting" | "holding", Some(state)) => state,
        (status, _) => status,
    }
}

fn sentence(one: &Explanation) -> String {
    match (&one.run, one.files.len()) {
        (Some(run), _) => match &run.question {
            Some(question) => format!("turn {}: {question}", run.turn),
            None => format!("turn {} · {}", run.turn, run.phase),
        },
        (None, _) if one.question.is_some() => format!("released: {}", one.question.as_deref().unwrap_or_default()),
        (None, 2..) => format!("{} ({})", one.reason, one.files.join(", ")),
        (None, _) => match &one.due_at {
            Some(due) => format!("{} ({}){}", one.reason, clock(due), cause(one)),
            // The word before it says so already.
            None => one.reason.strip_prefix("parked: ").unwrap_or(&one.reason).to_owned(),
        },
    }
}

/// Why there has to be a next attempt, and how many there may be.
fn cause(one: &Explanation) -> String {
    let failures = one.used.iter().find(|of| of.budget == "failures_in_a_row" && of.used > 0);
    let Some((failures, last)) = failures.zip(one.last_end.as_ref()) else { return String::new() };
    let message: String = last.message.chars().take(CAUSE_MAX).collect();
    let cut = if message.len() < last.message.len() { "…" } else { "" };
    format!(" · failed {} of {}: {message}{cut}", failures.used, failures.allowed)
}

/// All that is known of each, a line a fact.
pub(super) fn details(answer: &Answer, now: Timestamp) -> Vec<String> {
    let mut lines = vec![];
    for (number, one) in answer.issues.iter().enumerate() {
        if number > 0 {
            lines.push(String::new());
        }
        lines.extend(detail(one, now));
    }
    lines
}

fn detail(one: &Explanation, now: Timestamp) -> Vec<String> {
    let mut lines = vec![match &one.title {
        Some(title) if *title != one.name => format!("{}: {title}", one.name),
        _ => one.name.clone(),
    }];
    let mut fact = |name: &str, value: &str| lines.push(format!("  {name:<9} {value}"));
    fact("status", &one.status);
    if let Some(state) = &one.state {
        fact("state", state);
    }
    if let Some(id) = one.id.as_ref().filter(|id| **id != one.name) {
        fact("id", id);
    }
    if let Some(run) = &one.run {
        let attempt = run.attempt.map_or(String::new(), |attempt| format!(" · attempt {attempt}"));
        let session = if run.session_continued { " · session continued" } else { "" };
        let (number, phase, since) = (run.run_id, &run.phase, clock(&run.started_at));
        fact("run", &format!("{number} · {phase} · turn {}{attempt}{session} · since {since}", run.turn));
        fact("sandbox", &run.sandbox);
        run.question.iter().for_each(|question| fact("asks", question));
    } else {
        fact("why", &one.reason);
        one.question.iter().for_each(|question| fact("asks", question));
    }
    one.notes.iter().for_each(|note| fact("", note));
    one.files.iter().for_each(|file| fact("file", file));
    if let Some(due) = &one.due_at {
        fact("due", &format!("{} ({})", clock(due), relative(due, now)));
    }
    if let Some(last) = &one.last_end {
        // A parked one was often parked over just that.
        let said = one.reason.contains(&last.message);
        fact("last run", &if said { last.reason.clone() } else { format!("{}: {}", last.reason, last.message) });
        last.left.iter().for_each(|left| fact("it left", left));
    }
    // An issue that is put aside has its next allowance already: its zeros would contradict the reason.
    let fresh = one.used.iter().all(|of| of.used == 0);
    if let Some(ever) = one.runs_ever.filter(|ever| *ever > 0 && fresh) {
        let runs = if ever == 1 { "run" } else { "runs" };
        fact("used", &format!("nothing of the present allowance; {ever} {runs} in all"));
    } else if one.runs_ever.is_some_and(|ever| ever > 0) {
        let used: Vec<String> = one.used.iter().map(spoken).collect();
        fact("used", &used.join(" · "));
        let sessions = one.used.iter().find(|of| of.budget == "sessions").map(|of| of.used);
        if let Some(ever) = one.runs_ever.filter(|ever| Some(u64::from(*ever)) != sessions) {
            fact("", &format!("of the present allowance; {ever} runs in all"));
        }
    }
    one.patch.iter().for_each(|patch| fact("patch", &command(Path::new(patch))));
    one.models.iter().for_each(|models| fact("models", models));
    one.remedy.iter().for_each(|remedy| fact("next", remedy));
    lines
}

fn spoken(of: &Of) -> String {
    match of.budget.strip_suffix("_ms") {
        Some(name) => {
            // Below a second nobody counts.
            let used = if of.used < 1000 { 0 } else { of.used / 1000 * 1000 };
            let used = if used == 0 { "0 s".to_owned() } else { Spoken(used).to_string() };
            format!("{name} {used} of {}", Spoken(of.allowed))
        }
        None => format!("{} {} of {}", of.budget.replace('_', " "), of.used, of.allowed),
    }
}

/// To the second, in UTC.
fn clock(at: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => at.to_owned(),
    }
}

fn relative(at: &str, now: Timestamp) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return "at an unknown time".to_owned() };
    match u64::try_from(at.as_millisecond().saturating_sub(now.as_millisecond())) {
        Ok(ms @ 1000..) => format!("in {}", Spoken(ms / 1000 * 1000)),
        _ => "now".to_owned(),
    }
}

#[cfg(test)]
mod tests;
