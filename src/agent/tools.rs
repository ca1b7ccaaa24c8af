//! What an agent may ask of us: the tools as data, and the rules for their arguments.
//!
//! The door (`gateway::mcp`) turns requests into [`ToolCall`]s; the run decides and answers. Neither
//! names an issue: a call belongs to the run whose token it came with (C175). `mark_done` and
//! `request_human_steering` are 0.1.0's, to the letter.

mod hide;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::log::harmless;

/// Name of the tool that ends an issue.
pub const MARK_DONE: &str = "mark_done";
/// Name of the tool that asks a human.
pub const ASK_HUMAN: &str = "request_human_steering";
/// Name of the tool that moves an issue to another state.
pub const TRANSITION: &str = "transition";
/// Name of the tool that proposes another issue.
pub const PROPOSE_ISSUE: &str = "propose_issue";

/// Longest notes of a transition, in bytes: each stays in the issue, and so in every later prompt.
pub const NOTES_MAX: usize = 16 * 1024;
/// Longest title of a proposal, in characters.
const TITLE_MAX: usize = 200;
/// Bytes of a question, and of its context.
const QUESTION_MAX: usize = 16 * 1024;
/// Longest description of a proposal, in bytes: a person reads it before anything happens.
const DESCRIPTION_MAX: usize = 16 * 1024;
/// Most labels of a proposal, and the longest of them in characters.
const LABELS_MAX: usize = 20;
const LABEL_MAX: usize = 60;

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
/// What a call is told that comes before the session's first prompt: nobody has asked for anything yet.
pub const NO_TURN_TEXT: &str = "no turn of this session has begun; the call had no effect";

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
    /// The agent says its issue belongs in another state.
    Transition {
        /// As written; the run knows which states there are.
        to_state: String,
        /// For whoever takes the issue up next; not blank.
        notes: Option<String>,
    },
    /// The agent found work that is not its own.
    Propose(Proposal),
}

/// An issue that an agent proposes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// One line, not blank.
    pub title: String,
    /// Markdown, not blank.
    pub description: Option<String>,
    /// Each one line, not blank.
    pub labels: Vec<String>,
    /// Lower is more urgent.
    pub priority: Option<i64>,
}

/// What a tool says: a sentence, and the same as data where a program may act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// For the model.
    pub text: String,
    /// `structuredContent`
    pub data: Option<Value>,
}

impl Answer {
    /// A sentence with data beside it.
    pub fn with(text: impl Into<String>, data: Value) -> Self {
        Self { text: text.into(), data: Some(data) }
    }
}

impl<T: Into<String>> From<T> for Answer {
    fn from(text: T) -> Self {
        Self { text: text.into(), data: None }
    }
}

/// A request and where its answer goes. `Ok` is the tool's answer, `Err` a tool error the agent reads.
#[derive(Debug)]
pub struct ToolCall {
    /// What is asked.
    pub request: ToolRequest,
    /// Dropping it tells the agent that the run has ended.
    pub reply: oneshot::Sender<Result<Answer, Answer>>,
}

/// Why a call is not forwarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCall {
    /// No tool has this name.
    #[error("unknown tool `{0}`; there are {MARK_DONE}, {ASK_HUMAN}, {TRANSITION} and {PROPOSE_ISSUE}")]
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
            let title = line(arguments, MARK_DONE, "title")?;
            let summary = text(arguments, MARK_DONE, "summary")?.to_owned();
            Ok(ToolRequest::MarkDone { title, summary })
        }
        ASK_HUMAN => {
            let question = text(arguments, ASK_HUMAN, "question")?.to_owned();
            let context = optional(arguments, ASK_HUMAN, "context")?;
            // It is kept for good, and shown whole.
            if question.len() > QUESTION_MAX || context.as_ref().is_some_and(|text| text.len() > QUESTION_MAX) {
                let rule =
                    format!("`question` and `context` may each have {QUESTION_MAX} bytes; ask one short question");
                return bad(ASK_HUMAN, &rule);
            }
            Ok(ToolRequest::AskHuman { question, context })
        }
        TRANSITION => {
            let to_state = match arguments.get("to_state") {
                Some(Value::String(state)) => state.clone(),
                None | Some(Value::Null) => return bad(TRANSITION, "`to_state` is required"),
                Some(_) => return bad(TRANSITION, "`to_state` must be a string"),
            };
            let notes = optional(arguments, TRANSITION, "notes")?;
            if notes.as_ref().is_some_and(|notes| notes.len() > NOTES_MAX) {
                let hint = "commit the long part as a file and name it in the notes";
                return Err(BadCall::Argument(format!(
                    "notes_too_long: {TRANSITION}: `notes` is longer than {NOTES_MAX} bytes; {hint}"
                )));
            }
            Ok(ToolRequest::Transition { to_state, notes })
        }
        PROPOSE_ISSUE => proposal(arguments).map(ToolRequest::Propose),
        other => Err(BadCall::UnknownTool(other.chars().take(80).collect())),
    }
}

fn proposal(arguments: &Value) -> Result<Proposal, BadCall> {
    let title = line(arguments, PROPOSE_ISSUE, "title")?;
    if title.chars().count() > TITLE_MAX {
        return bad(
            PROPOSE_ISSUE,
            &format!("`title` is longer than {TITLE_MAX} characters; say more in `description`"),
        );
    }
    // A person decides by it: it must read as what it is, on the dashboard too.
    if harmless(&title) != title {
        return bad(PROPOSE_ISSUE, "`title` must be plain text, without control, direction or invisible characters");
    }
    let description = optional(arguments, PROPOSE_ISSUE, "description")?;
    if description.as_ref().is_some_and(|text| text.len() > DESCRIPTION_MAX) {
        return bad(PROPOSE_ISSUE, &format!("`description` is longer than {DESCRIPTION_MAX} bytes; shorten it"));
    }
    if description.as_ref().is_some_and(|text| text.contains('\0')) {
        return bad(PROPOSE_ISSUE, "`description` contains a NUL character; leave it out");
    }
    let labels = match arguments.get("labels") {
        None | Some(Value::Null) => vec![],
        Some(Value::Array(labels)) if labels.len() > LABELS_MAX => {
            return bad(PROPOSE_ISSUE, &format!("`labels` has more than {LABELS_MAX} entries"));
        }
        Some(Value::Array(labels)) => labels.iter().map(label).collect::<Result<_, _>>()?,
        Some(_) => return bad(PROPOSE_ISSUE, "`labels` must be a list of strings"),
    };
    let priority = match arguments.get("priority") {
        None | Some(Value::Null) => None,
        Some(number) => match number.as_i64() {
            Some(number) => Some(number),
            None => return bad(PROPOSE_ISSUE, "`priority` must be a whole number"),
        },
    };
    Ok(Proposal { title, description, labels, priority })
}

fn label(value: &Value) -> Result<String, BadCall> {
    let text = value.as_str().map(str::trim).unwrap_or_default();
    if text.is_empty() || text.chars().count() > LABEL_MAX || harmless(text) != text {
        let rule = format!("each of `labels` must be a string of 1 to {LABEL_MAX} characters on one line");
        return bad(PROPOSE_ISSUE, &rule);
    }
    Ok(text.to_owned())
}

fn bad<T>(tool: &str, what: &str) -> Result<T, BadCall> {
    Err(BadCall::Argument(format!("{tool}: {what}")))
}

/// A required argument that is one line with something in it.
fn line(arguments: &Value, tool: &str, key: &str) -> Result<String, BadCall> {
    let text = text(arguments, tool, key)?.trim();
    if text.chars().any(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')) {
        return bad(tool, &format!("`{key}` must be a single line (no newline)"));
    }
    Ok(text.to_owned())
}

/// An argument that may be left out; a blank one counts as that.
fn optional(arguments: &Value, tool: &str, key: &str) -> Result<Option<String>, BadCall> {
    match arguments.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.trim().is_empty())),
        Some(_) => bad(tool, &format!("`{key}` must be a string")),
    }
}

/// A required argument that is a string with something in it.
fn text<'a>(arguments: &'a Value, tool: &str, key: &str) -> Result<&'a str, BadCall> {
    match arguments.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        Some(Value::String(_)) => bad(tool, &format!("`{key}` must not be blank")),
        None | Some(Value::Null) => bad(tool, &format!("`{key}` is required")),
        Some(_) => bad(tool, &format!("`{key}` must be a string")),
    }
}

/// The tools as `tools/list` shows them: name, description and input schema.
pub fn described() -> [(&'static str, &'static str, Value); 4] {
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
        (
            TRANSITION,
            "Move the issue to another state of the workflow, for example on to review or back with comments. A state \
             that is not allowed is refused, and the refusal names those that are. Commit your work first. After it, \
             end your turn: the issue moves when the turn has ended.",
            json!({
                "type": "object",
                "properties": {
                    "to_state": string("The state the issue belongs in now."),
                    "notes": string("For whoever takes the issue up there: what you did, found or miss. Markdown; it is added to the issue."),
                },
                "required": ["to_state"],
                "additionalProperties": false,
            }),
        ),
        (
            PROPOSE_ISSUE,
            "Propose another issue for work that you found and that is not part of yours. A person decides about it; \
             nobody works on it before. Your turn goes on.",
            json!({
                "type": "object",
                "properties": {
                    "title": string("One line that says what is to be done, at most 200 characters."),
                    "description": string("What is wrong, what should be, how to see it. Markdown."),
                    "labels": {"type": "array", "items": {"type": "string"}, "description": "At most 20, each one line."},
                    "priority": {"type": "integer", "description": "1 is most urgent, 4 least."},
                },
                "required": ["title"],
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
        let long = "x".repeat(QUESTION_MAX + 1);
        for asked in [json!({"question": long}), json!({"question": "q", "context": long})] {
            assert!(refused(ASK_HUMAN, asked).contains("ask one short question"));
        }
        assert!(parse(ASK_HUMAN, &json!({"question": &long[1..], "context": &long[1..]})).is_ok());
        let taken = parse(ASK_HUMAN, &json!({"question": "q", "context": null, "issue": "OTHER-1"}));
        assert_eq!(taken, Ok(ToolRequest::AskHuman { question: "q".into(), context: None }));
    }

    #[test]
    fn a_transition_wants_a_state_and_takes_notes_up_to_a_size() {
        assert!(refused(TRANSITION, json!({})).contains("`to_state` is required"));
        assert!(refused(TRANSITION, json!({"to_state": ["Done"]})).contains("`to_state` must be a string"));
        assert!(refused(TRANSITION, json!({"to_state": "Done", "notes": 1})).contains("`notes` must be a string"));
        let long = "x".repeat(NOTES_MAX + 1);
        assert!(refused(TRANSITION, json!({"to_state": "Done", "notes": long})).starts_with("notes_too_long: "));
        let taken = parse(TRANSITION, &json!({"to_state": " Done", "notes": &long[1..]}));
        let notes = Some(long[1..].to_owned());
        assert_eq!(taken, Ok(ToolRequest::Transition { to_state: " Done".into(), notes }));
        let bare = parse(TRANSITION, &json!({"to_state": "Done", "notes": " \n"}));
        assert_eq!(bare, Ok(ToolRequest::Transition { to_state: "Done".into(), notes: None }));
    }

    #[test]
    fn a_proposal_is_checked_field_by_field() {
        for (arguments, wrong) in [
            (json!({}), "`title` is required"),
            (json!({"title": "a\nb"}), "single line"),
            (json!({"title": "x".repeat(201)}), "longer than 200 characters"),
            (json!({"title": "t", "description": ["d"]}), "`description` must be a string"),
            (json!({"title": "t", "description": "a\u{0}b"}), "`description` contains a NUL"),
            (json!({"title": "t", "description": "x".repeat(DESCRIPTION_MAX + 1)}), "`description` is longer"),
            (json!({"title": "t", "labels": "bug"}), "list of strings"),
            (json!({"title": "t", "labels": vec!["x"; 21]}), "more than 20"),
            (json!({"title": "t", "labels": ["a", 7]}), "each of `labels`"),
            (json!({"title": "t", "labels": [" "]}), "each of `labels`"),
            (json!({"title": "t", "labels": ["a\nhold: false"]}), "each of `labels`"),
            (json!({"title": "t", "labels": ["x".repeat(61)]}), "each of `labels`"),
            (json!({"title": "t", "labels": ["a\u{200b}"]}), "each of `labels`"),
            (json!({"title": "Evil \u{202e}gnp.exe"}), "plain text"),
            (json!({"title": "nul \u{0} or \u{1b}[2J"}), "plain text"),
            (json!({"title": "tag \u{e0041}"}), "plain text"),
            (json!({"title": "t", "priority": "high"}), "whole number"),
            (json!({"title": "t", "priority": 1.5}), "whole number"),
        ] {
            let said = refused(PROPOSE_ISSUE, arguments);
            assert!(said.starts_with("propose_issue: ") && said.contains(wrong), "{said}");
        }
        let full = json!({"title": " t ", "description": "d", "labels": [" bug "], "priority": 2});
        let (title, description) = ("t".to_owned(), Some("d".to_owned()));
        let wanted = Proposal { title, description, labels: vec!["bug".into()], priority: Some(2) };
        assert_eq!(parse(PROPOSE_ISSUE, &full), Ok(ToolRequest::Propose(wanted)));
    }

    #[test]
    fn an_unknown_tool_is_named_in_the_error() {
        assert!(refused("rm_rf", json!({})).contains("unknown tool `rm_rf`"));
    }
}
