//! The first prompt of a run that continues an agent's session: the agent knows its task, so it is told what happened
//! since. Whatever the session may not know is said in full.

use super::Attempt;
use crate::issue::Issue;

/// What the session knows of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task<'a> {
    /// A turn of it was given this very text, and answered.
    Known,
    /// The same, but the workflow has words for a run like this one: they and the task, whole.
    Again(&'a str),
    /// It was given another text; this one counts.
    Changed(&'a str),
}

/// What an agent is told whose session goes on.
pub fn resumed(issue: &Issue, attempt: &Attempt, task: Task<'_>, tools: bool) -> String {
    let title = issue.title.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut text = format!(
        "This is your session on the issue {}: {title}, continued. Programs you had started are gone; the work tree \
         holds what was kept of your work.",
        issue.identifier
    );
    if let Some(end) = &attempt.last_end {
        text.push_str(&format!("\n\nHow the last run ended: {end}"));
    }
    if let Some(left) = &attempt.last_left {
        text.push_str(&format!("\nWhat it left: {left}"));
    }
    match task {
        Task::Known => text.push_str("\n\nThe task is still the same."),
        Task::Again(whole) => text.push_str(&format!(
            "\n\nThe task is still the same. With what is to be said to this run, it reads:\n\n{}",
            whole.trim()
        )),
        Task::Changed(now) => {
            text.push_str(&format!("\n\nThe task was changed meanwhile. It reads now:\n\n{}", now.trim()))
        }
    }
    text.push_str("\n\nDo not start over: look at what is there, and do what is left.");
    text.push_str(if tools {
        " When the issue is finished, summarise what you did and call the mark_done tool of the symphony MCP server."
    } else {
        " When the issue is finished, summarise what you did."
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issue() -> Issue {
        Issue { title: "Mend\nthe roof".into(), ..Issue::bare("A-1", "Todo") }
    }

    #[test]
    fn a_continued_session_hears_how_the_last_run_ended_and_not_its_task_again() {
        let said = |text: &str| Some(text.to_owned());
        let attempt =
            Attempt { last_end: said("agent-exit: it died"), last_left: said("1 commit"), ..Attempt::default() };
        let text = resumed(&issue(), &attempt, Task::Known, true);
        for part in [
            "issue A-1: Mend the roof,",
            "ended: agent-exit: it died\nWhat it left: 1 commit",
            "still the same",
            "mark_done",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        let bare = resumed(&issue(), &Attempt::default(), Task::Known, false);
        assert!(!bare.contains("last run") && !bare.contains("mark_done"), "{bare}");
    }

    #[test]
    fn a_task_that_changed_is_said_whole() {
        let text = resumed(&issue(), &Attempt::default(), Task::Changed("A-1: Mend the door\n\nIt squeaks."), true);
        assert!(
            text.contains("changed meanwhile. It reads now:\n\nA-1: Mend the door\n\nIt squeaks.\n\nDo not"),
            "{text}"
        );
        assert!(!text.contains("still the same"));
    }

    #[test]
    fn what_the_workflow_says_to_a_retry_is_said_with_the_task_that_stayed_the_same() {
        let text = resumed(&issue(), &Attempt::default(), Task::Again("Mend it.\nThe 2nd time: slowly.\n"), true);
        assert!(text.contains("still the same. With"), "{text}");
        assert!(text.contains("reads:\n\nMend it.\nThe 2nd time: slowly.\n\nDo not"), "{text}");
    }
}
