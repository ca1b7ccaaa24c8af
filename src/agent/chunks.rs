//! What an agent says in pieces, as it may be written down and shown: no secret in it, also none that comes in several.
//!
//! Stands in front of the transcript and of everything that reads updates, so that all of them see the same. Of a running
//! text the end waits while it may be the beginning of a secret. Nothing else waits: there, and where a text is
//! interrupted, what looks like half a secret is hidden.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::redact::{Pause, Secrets, Stream};
use super::transcript::FRAME_CAP;

/// Running texts that are followed at once: of an agent that has more all are interrupted.
const TEXTS_MAX: usize = 16;
/// Other texts of which something is remembered.
const PIECES_MAX: usize = 256;
/// Names of fields whose text is a name itself.
const NAMES: [&str; 7] = ["sessionId", "sessionUpdate", "toolCallId", "messageId", "type", "kind", "status"];

/// Where an update has its running text.
const TEXT: &str = "/params/update/content/text";

/// A text of one kind that runs on in one session.
#[derive(Debug)]
struct Text {
    session: Value,
    kind: String,
    stream: Stream,
}

/// All that one agent says.
#[derive(Debug)]
pub(crate) struct Chunks {
    secrets: Secrets,
    texts: Vec<Text>,
    pieces: BTreeMap<String, Stream>,
}

impl Chunks {
    pub(crate) fn new(secrets: Secrets) -> Self {
        Self { secrets, texts: vec![], pieces: BTreeMap::new() }
    }

    /// A message of the agent as it may be shown, and in front of it what waited until now.
    pub(crate) fn take<'l>(&mut self, line: &'l str) -> (Vec<String>, Cow<'l, str>) {
        let Ok(mut frame) = serde_json::from_str::<Value>(line) else { return (vec![], line.into()) };
        // An answer ends the turn; nobody waits with a question for the end of a text.
        let is_notice = frame.get("method").is_some() && frame.get("id").is_none();
        if !is_notice {
            self.pieces.clear();
        }
        // Of longer ones only the beginning is written down, redacted whole.
        if !is_notice || line.len() > FRAME_CAP {
            return (self.rest(), line.into());
        }
        let name = |pointer: &str| frame.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let kind = name("/params/update/sessionUpdate").to_owned();
        let mut place = format!("{} {kind} {}", name("/method"), name("/params/update/toolCallId"));
        let session = frame.pointer("/params/sessionId").cloned().unwrap_or_default();
        let is_text = kind.ends_with("_chunk");
        // What says nothing to a reader interrupts nothing.
        let interrupts = is_text || matches!(kind.as_str(), "tool_call" | "tool_call_update" | "plan");
        let mut before = vec![];
        if interrupts {
            before = self.interrupt(|text| text.kind != kind || text.session != session);
        }
        let (mut changed, mut running) = (false, None);
        if is_text && let Some(Value::String(text)) = frame.pointer_mut(TEXT) {
            // Looked at here, and not again below.
            let text = std::mem::take(text);
            let secrets = self.secrets.clone();
            let said = self.text(&session, &kind, &mut before).feed(&secrets, &text);
            (changed, running) = (said != text, Some(said));
        }
        changed |= self.look(&mut frame, &mut place);
        if let (Some(said), Some(text)) = (running, frame.pointer_mut(TEXT)) {
            *text = said.into();
        }
        (before, if changed { frame.to_string().into() } else { line.into() })
    }

    /// What waits still, at the end of a turn or of the agent.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.interrupt(|_| true)
    }

    /// The stream of a text; there is room for it.
    fn text(&mut self, session: &Value, kind: &str, before: &mut Vec<String>) -> &mut Stream {
        let known = self.texts.iter().position(|text| text.kind == kind && text.session == *session);
        let at = known.unwrap_or_else(|| {
            if self.texts.len() >= TEXTS_MAX {
                before.extend(self.rest());
                self.texts.clear();
            }
            self.texts.push(Text { session: session.clone(), kind: kind.to_owned(), stream: Stream::default() });
            self.texts.len() - 1
        });
        &mut self.texts[at].stream
    }

    /// These texts are interrupted: what waited of each, as a message of its kind.
    fn interrupt(&mut self, which: impl Fn(&Text) -> bool) -> Vec<String> {
        let mut said = vec![];
        for text in self.texts.iter_mut().filter(|text| which(text)) {
            let waited = text.stream.pause(&self.secrets, Pause::Text);
            if !waited.is_empty() {
                let content = json!({"type": "text", "text": waited});
                // The agent said the words, and not the message.
                let meta = json!({"symphony/waited": true});
                let update = json!({"sessionUpdate": text.kind, "content": content, "_meta": meta});
                let params = json!({"sessionId": text.session, "update": update});
                said.push(json!({"jsonrpc": "2.0", "method": "session/update", "params": params}).to_string());
            }
        }
        self.texts.retain(|text| !text.stream.is_idle());
        said
    }

    /// Every other text of a message goes on what stood at its place before; whether that hid something.
    fn look(&mut self, value: &mut Value, place: &mut String) -> bool {
        let within = place.len();
        let mut changed = false;
        match value {
            Value::String(text) if !text.is_empty() => {
                let mut stream = self.pieces.remove(place).unwrap_or_default();
                let said = stream.feed(&self.secrets, text) + &stream.pause(&self.secrets, Pause::Piece);
                if !stream.is_idle() && self.pieces.len() < PIECES_MAX {
                    self.pieces.insert(place.clone(), stream);
                }
                if said != *text {
                    (*text, changed) = (said, true);
                }
            }
            Value::Array(all) => {
                for (at, one) in all.iter_mut().enumerate() {
                    place.push_str(&format!("/{at}"));
                    changed |= self.look(one, place);
                    place.truncate(within);
                }
            }
            Value::Object(all) => {
                for (name, one) in
                    all.iter_mut().filter(|(name, one)| !(one.is_string() && NAMES.contains(&name.as_str())))
                {
                    place.push('/');
                    place.push_str(name);
                    changed |= self.look(one, place);
                    place.truncate(within);
                }
            }
            _ => {}
        }
        changed
    }
}

#[cfg(test)]
mod tests;
