//! Trying a template on issues that could exist, before one does.

use jiff::Timestamp;

use super::{Attempt, Prompt, PromptError, RetryKind, bounds};
use crate::ids::{Identifier, IssueId, StateName};
use crate::issue::{Blocker, Issue};
use crate::workflow::{Code, Problem, States};

/// Most that all samples together may cost.
const MAX_SPENT: u64 = 2 * bounds::MAX_SPENT;

pub(super) fn check(prompt: &Prompt, states: &States, first_line: u32) -> Vec<Problem> {
    let attempts = [
        Attempt::default(),
        Attempt {
            number: Some(1),
            retry_kind: Some(RetryKind::Continuation),
            last_end: Some("the run used up its turns".to_owned()),
            last_left: Some("1 commit in the work tree".to_owned()),
        },
        Attempt {
            number: Some(2),
            retry_kind: Some(RetryKind::Failure),
            last_end: Some("the agent ended unexpectedly".to_owned()),
            last_left: None,
        },
    ];
    let mut problems: Vec<Problem> = Vec::new();
    let mut spent = 0;
    for state in states.rules.keys() {
        for attempt in &attempts {
            for issue in [full(state), bare(state)] {
                let (cost, filled) = prompt.fill(&issue, attempt);
                spent += cost;
                // Many states and a costly template: what is left shows when it is used.
                if spent > MAX_SPENT {
                    return problems;
                }
                if let Err(error) = filled {
                    let problem = problem(&error, first_line);
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
    }
    problems
}

/// A prompt's error as a problem of the file in which the prompt starts at `first_line`.
pub(super) fn problem(error: &PromptError, first_line: u32) -> Problem {
    let (code, line) = match error {
        PromptError::Parse { line, .. } => (Code::TemplateParseError, *line),
        PromptError::Render { line, .. } => (Code::TemplateRenderError, *line),
    };
    let (PromptError::Parse { message, .. } | PromptError::Render { message, .. }) = error;
    let place = (first_line.saturating_add(line.saturating_sub(1)), 1);
    Problem::error(code, place, format!("the prompt: {message}"))
}

fn bare(state: &StateName) -> Issue {
    Issue { title: "A sample".to_owned(), ..Issue::bare("SAMPLE-1", state.as_str()) }
}

fn full(state: &StateName) -> Issue {
    let some = |text: &str| Some(text.to_owned());
    let blocker = |known: bool| Blocker {
        id: known.then(|| IssueId("other".to_owned())),
        identifier: Identifier("SAMPLE-0".to_owned()),
        state: known.then(|| state.clone()),
    };
    Issue {
        description: some("What is to be done."),
        priority: Some(1),
        branch_name: some("sample"),
        url: some("https://example.org/1"),
        assignee_id: some("somebody"),
        labels: vec!["bug".to_owned(), "small".to_owned()],
        blocked_by: vec![blocker(true), blocker(false)],
        created_at: Some(Timestamp::UNIX_EPOCH),
        updated_at: Some(Timestamp::UNIX_EPOCH),
        ..bare(state)
    }
}
