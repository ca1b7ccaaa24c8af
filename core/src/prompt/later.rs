//! The prompts after the first one: fixed texts, no template.
//!
//! The name a model sees for a tool differs between agents, so the texts name tool and server apart.

use super::Attempt;

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

/// Hands a human's answer to the agent that asked (contract §1.3).
pub fn steering_reply(question: &str, context: Option<&str>, reply: &str, tools: bool) -> String {
    let mut text = format!("A human answered your question.\n\nYour question:\n\n{}", question.trim());
    if let Some(context) = context.map(str::trim).filter(|context| !context.is_empty()) {
        text.push_str(&format!("\n\nThe context you gave:\n\n{context}"));
    }
    text.push_str(&format!("\n\nThe answer:\n\n{}\n\nContinue with the issue.", reply.trim()));
    if tools {
        text.push_str(
            " When it is finished, call the mark_done tool of the symphony MCP server; \
             if you need to know more, ask again with its request_human_steering tool.",
        );
    }
    collapsed(&text)
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
    fn a_steering_reply_repeats_question_context_and_answer_without_wide_gaps() {
        let text = steering_reply("Which\n\n\n\nport?\n", Some("two are free"), "8080\r\n\r\n\r\nplease", true);
        for part in ["Which\n\nport?", "two are free", "8080\n\nplease", "mark_done", "request_human_steering"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("\n\n\n"));
        let bare = steering_reply("Which port?", Some("  "), "8080", false);
        assert!(!bare.contains("context") && !bare.contains("mark_done"));
    }
}
