//! What an agent says of itself before its first prompt: read leniently, for people.

use std::time::Duration;

use serde_json::Value;

/// Names that are kept of a list, and characters of each.
const NAMES: usize = 40;
const NAME_MAX: usize = 100;

/// What was said, and how long it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// Its name for itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `session/load`
    pub load: bool,
    /// `session/resume`
    pub resume: bool,
    /// MCP servers over HTTP: without them it can use none of our tools.
    pub mcp_http: bool,
    /// Images in prompts.
    pub images: bool,
    /// The modes that a session can be in.
    pub modes: Vec<String>,
    /// The models that it offers to choose from.
    pub models: Vec<String>,
    /// Until it answered `initialize`.
    pub initialized: Duration,
    /// And then until it had a session.
    pub began: Duration,
}

impl Greeting {
    /// From the answers to `initialize` and `session/new`.
    pub(super) fn of(agent: &Value, session: &Value, initialized: Duration, began: Duration) -> Self {
        let text = |path: &str| agent.pointer(path).and_then(Value::as_str).map(short).unwrap_or_default();
        let is = |path: &str| agent.pointer(path) == Some(&Value::Bool(true));
        let resume = agent.pointer("/agentCapabilities/sessionCapabilities/resume");
        let mut models = names(session.pointer("/models/availableModels"), "modelId");
        // Newer agents offer them among other things to set.
        let options = session.get("configOptions").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(model) = options.iter().find(|option| option["category"] == "model" || option["id"] == "model")
            && models.is_empty()
        {
            models = names(model.get("options"), "value");
        }
        Self {
            name: text("/agentInfo/name"),
            version: text("/agentInfo/version"),
            load: is("/agentCapabilities/loadSession"),
            resume: matches!(resume, Some(Value::Object(_) | Value::Bool(true))),
            mcp_http: is("/agentCapabilities/mcpCapabilities/http"),
            images: is("/agentCapabilities/promptCapabilities/image"),
            modes: names(session.pointer("/modes/availableModes"), "id"),
            models,
            initialized,
            began,
        }
    }

    /// Its name and version, as far as it said them.
    pub fn who(&self) -> String {
        let name = if self.name.is_empty() { "the agent" } else { &self.name };
        format!("{name} {}", self.version).trim_end().to_owned()
    }
}

/// What stands under `key` in each item; lists may be grouped.
fn names(list: Option<&Value>, key: &str) -> Vec<String> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let one = |item: &Value| item.get(key).and_then(Value::as_str).map(short);
    let grouped = |item: &Value| item.get("options").and_then(Value::as_array).cloned();
    let all = items.iter().flat_map(|item| grouped(item).unwrap_or_else(|| vec![item.clone()]));
    all.filter_map(|item| one(&item)).take(NAMES).collect()
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_agent_says_of_itself_is_read_and_what_it_does_not_say_is_absent() {
        let agent = json!({"protocolVersion": 1, "agentInfo": {"name": "a\u{1b}gent", "version": "1.2"}, "agentCapabilities": {
            "loadSession": true, "mcpCapabilities": {"http": true}, "promptCapabilities": {"image": true},
            "sessionCapabilities": {"resume": {}}}});
        let session = json!({"modes": {"availableModes": [{"id": "plan"}, 3, {"id": "code"}]},
            "configOptions": [{"id": "model", "options": [{"value": "m-1"}, {"options": [{"value": "m-2"}]}]}]});
        let greeting = Greeting::of(&agent, &session, Duration::ZERO, Duration::ZERO);
        assert_eq!(greeting.who(), "agent 1.2");
        assert!(greeting.load && greeting.resume && greeting.mcp_http && greeting.images);
        assert_eq!(
            (greeting.modes, greeting.models),
            (vec!["plan".into(), "code".into()], vec!["m-1".into(), "m-2".into()])
        );
        let session = json!({"models": {"availableModels": [{"modelId": "m"}]}});
        assert_eq!(Greeting::of(&json!({}), &session, Duration::ZERO, Duration::ZERO).models, ["m"]);
        for senseless in [json!(null), json!([1]), json!({"agentInfo": 3, "modes": "all", "configOptions": [7]})] {
            let none = Greeting::of(&senseless, &senseless, Duration::ZERO, Duration::ZERO);
            assert_eq!((none.who().as_str(), none.load), ("the agent", false));
        }
    }
}
