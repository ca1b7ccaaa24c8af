//! What an agent may ask of us: the two tools of 0.1.0 as data, and the rules for their arguments.
//!
//! The door (`gateway::mcp`) turns requests into [`ToolCall`]s; the run decides and answers. Neither
//! names an issue: a call belongs to the run whose token it came with (C175).

use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Name of the tool that ends an issue.
pub const MARK_DONE: &str = "mark_done";
/// Name of the tool that asks a human.
pub const ASK_HUMAN: &str = "request_human_steering";

/// What `mark_done` says when the claim was taken.
pub const MARKED_DONE_TEXT: &str =
    "Marked as done. Your work is checked and handed off when this turn ends: stop here and end your turn now.";
/// What `request_human_steering` says when the question was taken.
pub const ASKED_TEXT: &str =
    "Your question was passed on. End your turn now: the human's reply arrives as your next prompt.";
/// What a second question is told while the first one waits.
pub const ASKED_ALREADY_TEXT: &str = "a question is already waiting for its answer; end your turn";
/// What a call is told after its run has ended (J17).
pub const RUN_ENDED_TEXT: &str = "this run has ended; the call had no effect";

/// A request of the agent that passed the checks of its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolRequest {
    /// The agent says its issue is done.
    MarkDone {
        /// One line, not blank.
        title: String,
        /// Not blank.
        summary: String,
    },
    /// The agent asks a human.
    AskHuman {
        /// Not blank.
        question: String,
        /// What the human should know.
        context: Option<String>,
    },
}

/// A request and where its answer goes. `Ok` is the tool's text, `Err` a tool error the agent reads.
#[derive(Debug)]
pub struct ToolCall {
    /// What is asked.
    pub request: ToolRequest,
    /// Dropping it tells the agent that the run has ended.
    pub reply: oneshot::Sender<Result<String, String>>,
}

/// Why a call is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCall {
    /// No tool has this name.
    #[error("unknown tool `{0}`; there are `mark_done` and `request_human_steering`")]
    UnknownTool(String),
    /// An argument is missing or wrong: a tool error the agent can repair.
    #[error("{0}")]
    Argument(String),
}

/// The request that tool `name` with `arguments` makes.
///
/// # Errors
/// An unknown name, or an argument that is missing, blank or of the wrong shape.
pub fn parse(name: &str, arguments: &Value) -> Result<ToolRequest, BadCall> {
    match name {
        MARK_DONE => {
            let title = text(arguments, MARK_DONE, "title")?.trim().to_owned();
            if title.chars().any(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')) {
                return Err(BadCall::Argument("mark_done: `title` must be a single line (no newline)".into()));
            }
            let summary = text(arguments, MARK_DONE, "summary")?.to_owned();
            Ok(ToolRequest::MarkDone { title, summary })
        }
        ASK_HUMAN => {
            let question = text(arguments, ASK_HUMAN, "question")?.to_owned();
            let context = match arguments.get("context") {
                None | Some(Value::Null) => None,
                Some(Value::String(context)) => Some(context.clone()).filter(|c| !c.trim().is_empty()),
                Some(_) => return Err(BadCall::Argument(format!("{ASK_HUMAN}: `context` must be a string"))),
            };
            Ok(ToolRequest::AskHuman { question, context })
        }
        other => Err(BadCall::UnknownTool(other.chars().take(80).collect())),
    }
}

/// A required argument that is a string with something in it.
fn text<'a>(arguments: &'a Value, tool: &str, key: &str) -> Result<&'a str, BadCall> {
    match arguments.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        Some(Value::String(_)) => Err(BadCall::Argument(format!("{tool}: `{key}` must not be blank"))),
        None | Some(Value::Null) => Err(BadCall::Argument(format!("{tool}: `{key}` is required"))),
        Some(_) => Err(BadCall::Argument(format!("{tool}: `{key}` must be a string"))),
    }
}

/// The tools as `tools/list` shows them: name, description and input schema.
pub fn described() -> [(&'static str, &'static str, Value); 2] {
    let string = |description: &str| json!({"type": "string", "description": description});
    [
        (
            MARK_DONE,
            "Say that the issue is finished. Commit your work first. Nothing is undone by calling it twice. \
             After it, end your turn.",
            json!({
                "type": "object",
                "properties": {
                    "title": string("One line that says what was done, at most 72 characters if possible: it becomes the title of the change."),
                    "summary": string("What was done and why, for the person who reviews it. Markdown."),
                },
                "required": ["title", "summary"],
                "additionalProperties": false,
            }),
        ),
        (
            ASK_HUMAN,
            "Ask a human when you cannot go on without a decision. After it, end your turn: the reply is your next prompt.",
            json!({
                "type": "object",
                "properties": {
                    "question": string("What you need to know. Markdown."),
                    "context": string("What the human should know to answer. Markdown."),
                },
                "required": ["question"],
                "additionalProperties": false,
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, arguments: Value) -> String {
        match parse(name, &arguments) {
            Err(error) => error.to_string(),
            Ok(request) => panic!("taken: {request:?}"),
        }
    }

    #[test]
    fn mark_done_wants_a_title_of_one_line_and_a_summary() {
        assert!(refused(MARK_DONE, json!({"summary": "s"})).contains("`title` is required"));
        assert!(refused(MARK_DONE, json!({"title": "  ", "summary": "s"})).contains("`title` must not be blank"));
        assert!(refused(MARK_DONE, json!({"title": "a\nb", "summary": "s"})).contains("single line"));
        assert!(refused(MARK_DONE, json!({"title": "t", "summary": "\n "})).contains("`summary` must not be blank"));
        assert!(refused(MARK_DONE, json!({"title": 5, "summary": "s"})).contains("must be a string"));
        let long = "x".repeat(100);
        let taken = parse(MARK_DONE, &json!({"title": long, "summary": " s "}));
        assert_eq!(taken, Ok(ToolRequest::MarkDone { title: long, summary: " s ".into() }), "72 is advice");
    }

    #[test]
    fn a_question_may_stand_without_context() {
        assert!(refused(ASK_HUMAN, json!({"question": ""})).contains("`question` must not be blank"));
        assert!(refused(ASK_HUMAN, json!({"question": "q", "context": 1})).contains("`context` must be a string"));
        let taken = parse(ASK_HUMAN, &json!({"question": "q", "context": null, "issue": "OTHER-1"}));
        assert_eq!(taken, Ok(ToolRequest::AskHuman { question: "q".into(), context: None }));
    }

    #[test]
    fn an_unknown_tool_is_named_in_the_error() {
        assert!(refused("rm_rf", json!({})).contains("unknown tool `rm_rf`"));
    }
}
