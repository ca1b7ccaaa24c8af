//! The prompts after the first one: fixed texts, no template.
//!
//! The name a model sees for a tool differs between agents, so the texts name tool and server apart.

use super::Attempt;
use crate::steering::{Asked, By, Letter};

/// Asks the agent to go on in the same session (contract §1.3). `turn` is 1-based.
pub fn continuation(turn: u32, max_turns: u32, tools: bool) -> String {
    let mut text = format!(
        "Continue working on the same issue. This is turn {turn} of at most {max_turns} in this session; \
         everything you did so far is still there. Do not start over: look at what is left, and do it."
    );
    text.push_str(if tools {
        " When the issue is finished, summarise what you did and call the mark_done tool of the symphony MCP server."
    } else {
        " When the issue is finished, summarise what you did."
    });
    text
}

/// Ends a first prompt with how the last run ended and what it left; nothing where there was none.
pub(super) fn about_last_run(prompt: &mut String, attempt: &Attempt) {
    let Some(end) = &attempt.last_end else { return };
    prompt.push_str(&format!("\n\nThis issue was worked on before. How the last run ended: {end}"));
    if let Some(left) = &attempt.last_left {
        prompt.push_str(&format!("\nWhat it left: {left}"));
    }
    prompt.push_str("\nLook at what is there before you start.");
}

/// Hands a human's words to the agent (contract §1.3): answers with their questions, and what nobody asked for.
pub fn letters(letters: &[Letter], tools: bool) -> String {
    let mut parts: Vec<String> = letters.iter().map(letter).collect();
    let mut last = "Continue with the issue.".to_owned();
    if tools {
        last.push_str(
            " When it is finished, call the mark_done tool of the symphony MCP server; \
             if you need to know more, ask again with its request_human_steering tool.",
        );
    }
    parts.push(last);
    collapsed(&parts.join("\n\n"))
}

fn letter(letter: &Letter) -> String {
    let said = letter.text.trim();
    let Some(Asked { question, context }) = &letter.answers else {
        return format!("A human has something to tell you:\n\n{said}");
    };
    let mut text = match letter.by {
        By::Deadline => "Nobody answered your question in time.".to_owned(),
        By::Dashboard | By::Api | By::Cli => "A human answered your question.".to_owned(),
    };
    text.push_str(&format!("\n\nYour question:\n\n{}", question.trim()));
    if let Some(context) = context.as_deref().map(str::trim).filter(|context| !context.is_empty()) {
        text.push_str(&format!("\n\nThe context you gave:\n\n{context}"));
    }
    let label = if letter.by == By::Deadline { "What counts as the answer" } else { "The answer" };
    text.push_str(&format!("\n\n{label}:\n\n{said}"));
    text
}

/// Runs of three and more newlines become two.
fn collapsed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut newlines = 0;
    for c in text.replace("\r\n", "\n").chars() {
        newlines = if c == '\n' { newlines + 1 } else { 0 };
        if newlines <= 2 {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_counts_turns_and_names_the_tool_only_when_there_is_one() {
        let with = continuation(2, 20, true);
        assert!(
            with.contains("turn 2 of at most 20") && with.contains("the mark_done tool of the symphony MCP server")
        );
        assert!(!continuation(2, 20, false).contains("mark_done"));
    }

    #[test]
    fn a_run_after_another_learns_in_a_few_lines_how_that_one_ended_and_what_it_left() {
        let (mut first, mut later) = ("Do it.".to_owned(), "Do it.".to_owned());
        about_last_run(&mut first, &Attempt::default());
        assert_eq!(first, "Do it.");
        let said = |text: &str| Some(text.to_owned());
        let attempt = Attempt { last_end: said("stalled: x"), last_left: said("1 commit"), ..Attempt::default() };
        about_last_run(&mut later, &attempt);
        assert!(later.starts_with("Do it.\n\n") && later.contains("ended: stalled: x\nWhat it left: 1 commit\n"));
    }

    #[test]
    fn letters_repeat_question_context_and_answer_without_wide_gaps_and_say_who_spoke() {
        let letter = |by, context: Option<&str>, text: &str| Letter {
            id: 1,
            answers: Some(Asked { question: "Which\n\n\n\nport?\n".into(), context: context.map(Into::into) }),
            text: text.into(),
            by,
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        let text = letters(&[letter(By::Api, Some("two are free"), "8080\r\n\r\n\r\nplease")], true);
        for part in ["Which\n\nport?", "two are free", "8080\n\nplease", "mark_done", "request_human_steering"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("\n\n\n"));
        let bare = letters(&[letter(By::Deadline, Some("  "), "8080")], false);
        assert!(!bare.contains("context") && !bare.contains("mark_done") && bare.contains("in time"));
        let told = Letter { answers: None, ..letter(By::Cli, None, "Use tabs.") };
        let both = letters(&[told, letter(By::Cli, None, "8080")], false);
        assert!(both.find("Use tabs.") < both.find("8080") && both.contains("something to tell you"));
    }
}
