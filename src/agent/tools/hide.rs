//! What an agent asks of us, without secrets: its questions, claims and proposals are shown, kept and become files.

use super::ToolRequest;
use crate::agent::redact::Secrets;

impl ToolRequest {
    /// The same request with every secret redacted in what people read of it.
    pub(crate) fn hide(&mut self, secrets: &Secrets) {
        let hide = |text: &mut String| *text = secrets.redact(text, usize::MAX);
        match self {
            Self::MarkDone { title, summary } => [title, summary].into_iter().for_each(hide),
            Self::AskHuman { question, context } => {
                [Some(question), context.as_mut()].into_iter().flatten().for_each(hide)
            }
            // A state is looked up by its name.
            Self::Transition { to_state: _, notes } => notes.iter_mut().for_each(hide),
            Self::Propose(proposal) => {
                let texts = [Some(&mut proposal.title), proposal.description.as_mut()].into_iter().flatten();
                texts.chain(&mut proposal.labels).for_each(hide);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{ASK_HUMAN, MARK_DONE, PROPOSE_ISSUE, TRANSITION, parse};
    use super::*;

    /// Regression: a question with the run's token in it stood on the dashboard as it came.
    #[test]
    fn no_text_that_a_tool_is_given_keeps_a_secret() {
        let secrets = Secrets::new(["hunter22".to_owned()]);
        for (name, arguments) in [
            (MARK_DONE, json!({"title": "a hunter22", "summary": "b hunter22"})),
            (ASK_HUMAN, json!({"question": "a hunter22?", "context": "b hunter22"})),
            (TRANSITION, json!({"to_state": "Review", "notes": "a hunter22"})),
            (PROPOSE_ISSUE, json!({"title": "a hunter22", "description": "b hunter22", "labels": ["hunter22"]})),
        ] {
            let mut request = parse(name, &arguments).expect("taken");
            request.hide(&secrets);
            let said = format!("{request:?}");
            assert!(!said.contains("hunter22") && said.contains("a [redacted]"), "{said}");
        }
    }
}
