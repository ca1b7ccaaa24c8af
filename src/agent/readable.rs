//! A run's transcript for people: what the agent was told, said, thought, planned and did, in order.
//!
//! Pure: a line of the file goes in, what a person reads comes out. Agents wrote most of it, so nothing is believed to have
//! the form it should have, and the caller makes each line harmless.

pub(crate) mod requests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use self::requests::Requests;

/// Lines of a prompt or a failed tool's output that are shown unless all are wanted.
const BRIEF_LINES: usize = 6;
/// Requests under way that are remembered by their number.
const OPEN_MAX: usize = 1000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// When, as the file says it.
    pub at: String,
    /// What kind of thing it is, one word.
    pub what: &'static str,
    /// In words, perhaps of several lines.
    pub text: String,
}

/// Whose transcript it is, from its first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The name people use for the issue.
    pub identifier: String,
    /// Its stable key.
    pub issue: String,
    /// Its title.
    pub title: String,
}

impl About {
    /// Reads the first line of a transcript; `None` for one that says not whose it is.
    pub fn of(line: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| Some(line.get("about")?.get(key)?.as_str()?.to_owned());
        Some(Self { identifier: text("identifier")?, issue: text("issue")?, title: text("title")? })
    }

    /// The line that [`About::of`] reads.
    pub fn to_json(&self) -> Value {
        serde_json::json!({"identifier": self.identifier, "issue": self.issue, "title": self.title})
    }
}

/// Reads one transcript from its beginning.
#[derive(Debug, Default)]
pub struct Readable {
    /// Whether long texts are shown whole.
    whole: bool,
    /// What each open request asks, ours and the agent's.
    ours: BTreeMap<String, String>,
    theirs: BTreeMap<String, Value>,
    /// The title of each tool call that was shown.
    tools: BTreeMap<String, String>,
    /// Text that may go on in the next line.
    gathered: Option<Shown>,
    /// What was asked of models.
    requests: Requests,
    /// What was not shown, and how often.
    hidden: BTreeMap<String, u64>,
}

impl Readable {
    /// `whole`: prompts and outputs are not shortened.
    pub fn new(whole: bool) -> Self {
        Self { whole, ..Self::default() }
    }

    /// Takes one line of the file.
    pub fn line(&mut self, line: &str) -> Vec<Shown> {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return self.after("torn", String::new(), "a line of the transcript is not whole".to_owned());
        };
        let at = line.get("at").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(lost) = line.get("dropped").and_then(Value::as_u64) {
            return self.after("lost", at, format!("{lost} frames: the disk did not keep up"));
        }
        if let Some(end) = line.get("full").and_then(Value::as_str) {
            return self.after("end", at, end.to_owned());
        }
        if let Some(request) = line.get("request") {
            self.requests.add(request);
            return vec![];
        }
        if let Some(all) = line.get("requests") {
            let said = self.requests.told(all);
            return self.with_requests(at.clone(), |this| this.after("used", at, said));
        }
        let frame = line.get("frame").unwrap_or(&Value::Null);
        match (line.get("dir").and_then(Value::as_str), frame) {
            (Some("stderr"), Value::String(text)) => self.after("stderr", at, text.trim_end().to_owned()),
            (Some(_), Value::String(_)) => {
                let bytes = line.get("bytes").and_then(Value::as_u64).unwrap_or(0);
                self.after(
                    "cut",
                    at,
                    format!("a frame of {bytes} bytes, or one that is no JSON; the file has its beginning"),
                )
            }
            (Some("out"), frame) => self.out(at, frame),
            (Some("in"), frame) => self.incoming(at, frame),
            _ => vec![],
        }
    }

    /// The text that was still gathered. More of it may follow.
    pub fn flush(&mut self) -> Option<Shown> {
        self.gathered.take()
    }

    /// What was asked of models so far, of a run that did not come to say it.
    pub fn used(&self) -> Option<String> {
        self.requests.untold()
    }

    /// What was not shown, for the end.
    pub fn hidden(&self) -> Option<String> {
        let counted: Vec<_> = self.hidden.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        (!counted.is_empty()).then(|| counted.join(", "))
    }

    /// Gathered text first: the order in which things happened.
    fn after(&mut self, what: &'static str, at: String, text: String) -> Vec<Shown> {
        self.flush().into_iter().chain([Shown { at, what, text }]).collect()
    }

    /// What was asked of models up to here goes before that.
    fn with_requests(&mut self, at: String, then: impl FnOnce(&mut Self) -> Vec<Shown>) -> Vec<Shown> {
        let mut shown = match self.requests.turn() {
            Some(said) => self.after("models", at, said),
            None => vec![],
        };
        shown.extend(then(self));
        shown
    }

    fn hide(&mut self, kind: &str) -> Vec<Shown> {
        if self.hidden.len() < OPEN_MAX {
            *self.hidden.entry(kind.chars().take(60).collect()).or_default() += 1;
        }
        vec![]
    }

    fn out(&mut self, at: String, frame: &Value) -> Vec<Shown> {
        let id = frame.get("id").map(Value::to_string).unwrap_or_default();
        let Some(method) = frame.get("method").and_then(Value::as_str) else {
            return self.our_answer(at, &id, frame);
        };
        if !id.is_empty() && self.ours.len() < OPEN_MAX {
            self.ours.insert(id, method.to_owned());
        }
        match method {
            "session/prompt" => {
                let blocks = frame.pointer("/params/prompt").and_then(Value::as_array);
                let texts = blocks.into_iter().flatten().filter_map(|block| block.get("text").and_then(Value::as_str));
                let text = texts.collect::<Vec<_>>().join("\n");
                let text = self.brief(&text);
                self.with_requests(at.clone(), |this| this.after("prompt", at, text))
            }
            "session/cancel" => self.after("cancel", at, "the turn is to end".to_owned()),
            "session/load" | "session/resume" => {
                self.after("session", at, "an earlier session is asked for".to_owned())
            }
            _ => vec![],
        }
    }

    /// What symphony answered to a request of the agent.
    fn our_answer(&mut self, at: String, id: &str, frame: &Value) -> Vec<Shown> {
        let Some(asked) = self.theirs.remove(id) else { return vec![] };
        let method = asked.get("method").and_then(Value::as_str).unwrap_or_default();
        if method != "session/request_permission" {
            let refused = frame.get("error").and_then(|error| error.get("message")).and_then(Value::as_str);
            let said = format!("{method}: {}", refused.unwrap_or("answered"));
            return self.after("request", at, said);
        }
        let title = asked.pointer("/params/toolCall/title").and_then(Value::as_str).unwrap_or("a tool");
        let chosen = frame.pointer("/result/outcome/optionId");
        let options = asked.pointer("/params/options").and_then(Value::as_array);
        let option = options.into_iter().flatten().find(|option| option.get("optionId") == chosen && chosen.is_some());
        let word = option.and_then(|option| option.get("kind").or_else(|| option.get("name"))).and_then(Value::as_str);
        let said = format!("{} → {}", first_line(title), word.unwrap_or("refused"));
        self.after("permission", at, said)
    }

    fn incoming(&mut self, at: String, frame: &Value) -> Vec<Shown> {
        let id = frame.get("id").map(Value::to_string);
        match (frame.get("method").and_then(Value::as_str), id) {
            (Some("session/update"), _) => self.update(at, frame.pointer("/params/update").unwrap_or(&Value::Null)),
            (Some(_), Some(id)) => {
                if self.theirs.len() < OPEN_MAX {
                    self.theirs.insert(id, frame.clone());
                }
                vec![]
            }
            (Some(method), None) => self.hide(method),
            (None, Some(id)) => self.answer(at, &id, frame),
            (None, None) => self.hide("message without a method"),
        }
    }

    /// What the agent answered to a request of ours.
    fn answer(&mut self, at: String, id: &str, frame: &Value) -> Vec<Shown> {
        let method = self.ours.remove(id).unwrap_or_default();
        if let Some(error) = frame.get("error") {
            let message = error.get("message").and_then(Value::as_str).unwrap_or("no message");
            let details = error.pointer("/data/details").or_else(|| error.get("data")).map(|data| match data {
                Value::String(text) => format!(" ({})", first_line(text)),
                other => format!(" ({})", first_line(&other.to_string())),
            });
            let said = format!("{method}: {message}{}", details.unwrap_or_default());
            return self.after("error", at, said);
        }
        let result = frame.get("result").unwrap_or(&Value::Null);
        let text = |pointer: &str| result.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        match method.as_str() {
            "initialize" => {
                let name = text("/agentInfo/name");
                let said =
                    format!("{} {}", if name.is_empty() { "an unnamed one" } else { name }, text("/agentInfo/version"));
                self.after("agent", at, said.trim_end().to_owned())
            }
            "session/new" | "session/load" | "session/resume" => {
                let model = text("/models/currentModelId");
                let model = if model.is_empty() { String::new() } else { format!(", model {model}") };
                self.after("session", at, format!("begun{model}"))
            }
            "session/prompt" => {
                let mut said = text("/stopReason").to_owned();
                for (word, pointer) in [("in", "/usage/inputTokens"), ("out", "/usage/outputTokens")] {
                    if let Some(tokens) = result.pointer(pointer).and_then(Value::as_u64) {
                        said.push_str(&format!(", {tokens} tokens {word}"));
                    }
                }
                self.with_requests(at.clone(), |this| this.after("turn end", at, said))
            }
            _ => vec![],
        }
    }

    fn update(&mut self, at: String, update: &Value) -> Vec<Shown> {
        match update.get("sessionUpdate").and_then(Value::as_str).unwrap_or_default() {
            "agent_message_chunk" => self.chunk("says", at, update),
            "agent_thought_chunk" => self.chunk("thinks", at, update),
            "tool_call" | "tool_call_update" => self.tool(at, update),
            "plan" => {
                let entries = update.get("entries").and_then(Value::as_array);
                let lines = entries.into_iter().flatten().map(|entry| {
                    let mark = match entry.get("status").and_then(Value::as_str) {
                        Some("completed") => "[x]",
                        Some("in_progress") => "[>]",
                        _ => "[ ]",
                    };
                    format!("{mark} {}", first_line(entry.get("content").and_then(Value::as_str).unwrap_or_default()))
                });
                let text = lines.collect::<Vec<_>>().join("\n");
                self.after("plan", at, text)
            }
            "usage_update" => {
                let number = |key: &str| update.get(key).and_then(Value::as_u64);
                match (number("used"), number("size")) {
                    (Some(used), Some(size)) => self.after("context", at, format!("{used} of {size} tokens")),
                    _ => self.hide("usage_update"),
                }
            }
            other => self.hide(other),
        }
    }

    fn chunk(&mut self, what: &'static str, at: String, update: &Value) -> Vec<Shown> {
        let content = update.get("content").unwrap_or(&Value::Null);
        let text = match content.get("text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => format!("[{}]", content.get("type").and_then(Value::as_str).unwrap_or("unknown")),
        };
        if let Some(gathered) = self.gathered.as_mut().filter(|gathered| gathered.what == what) {
            gathered.text.push_str(&text);
            return vec![];
        }
        let before = self.flush();
        self.gathered = Some(Shown { at, what, text });
        before.into_iter().collect()
    }

    fn tool(&mut self, at: String, update: &Value) -> Vec<Shown> {
        let text = |key: &str| update.get(key).and_then(Value::as_str);
        let id = text("toolCallId").unwrap_or_default().to_owned();
        let title = text("title").map(|title| first_line(title).to_owned());
        let known = self.tools.get(&id).cloned();
        if let Some(title) = title.clone().filter(|_| self.tools.len() < OPEN_MAX || known.is_some()) {
            self.tools.insert(id, title);
        }
        let name = title.clone().or_else(|| known.clone()).unwrap_or_else(|| "a tool".to_owned());
        match text("status") {
            Some("failed") => {
                let output = self.brief(&output(update));
                self.after("failed", at, if output.is_empty() { name } else { format!("{name}\n{output}") })
            }
            Some("completed") => self.after("done", at, name),
            // A call is shown once, and again when it is called something else.
            _ if known.is_none() || title.is_some_and(|title| Some(title) != known) => {
                let kind = text("kind").map(|kind| format!(" ({kind})")).unwrap_or_default();
                self.after("tool", at, format!("{name}{kind}"))
            }
            _ => self.hide("tool_call_update"),
        }
    }

    fn brief(&self, text: &str) -> String {
        let lines: Vec<&str> = text.trim().lines().collect();
        if self.whole || lines.len() <= BRIEF_LINES {
            return lines.join("\n");
        }
        let more = lines.len() - BRIEF_LINES;
        format!("{}\n… {more} more lines (--whole)", lines[..BRIEF_LINES].join("\n"))
    }
}

/// The text that a tool left.
fn output(update: &Value) -> String {
    let content = update.get("content").and_then(Value::as_array);
    let texts = content.into_iter().flatten().filter_map(|one| one.pointer("/content/text").and_then(Value::as_str));
    texts.collect::<Vec<_>>().join("\n")
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}
