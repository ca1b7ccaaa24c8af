//! Whether the model that a state's agent is told to ask would be refused at our own door: by a list of models, or for want
//! of a price. Known before anything runs; of a name that an agent makes another one of, nothing is claimed.

use super::problem::{Code, Problem};
use super::read::{Reader, Section};
use super::{Adapter, Role, Workflow};
use crate::ids::StateName;
use crate::yaml::Node;

/// Behind a name, Claude Code's word for a longer context than is usual.
const LONG: &str = "[1m]";
/// Names of which Gemini CLI makes those of the newest models; others of that kind begin with `auto`.
const OF_GEMINI: [&str; 3] = ["pro", "flash", "flash-lite"];

/// A model that no request would pass with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// Its name, as requests bear it.
    pub model: String,
    /// Why, a sentence without its end.
    pub why: String,
    /// What to do about it, the same.
    pub hint: String,
}

impl Adapter {
    /// The name that requests of this agent bear when it is told `model`, and whether they ask for a longer context; `None`
    /// where only the agent knows.
    fn asks(self, model: &str) -> Option<(&str, bool)> {
        let (name, is_long) = match self {
            Self::Claude => model.strip_suffix(LONG).map_or((model, false), |name| (name, true)),
            Self::OpenCode => (model.split_once('/')?.1, false),
            Self::Codex | Self::Gemini => (model, false),
            Self::Script => return None,
        };
        let lower = name.to_lowercase();
        let only_the_agent_knows = match self {
            // Its own names are single words, like `opus`; those of models have a number.
            Self::Claude => !(lower.contains('-') && lower.contains(|c: char| c.is_ascii_digit())),
            Self::Gemini => lower.starts_with("auto") || OF_GEMINI.contains(&lower.as_str()),
            _ => false,
        };
        (!only_the_agent_knows).then_some((name, is_long))
    }
}

impl Workflow {
    /// What keeps the agent of this state from its model, as far as this file says it.
    pub fn barred(&self, state: &StateName) -> Option<Barred> {
        let agent = self.agent_of(state);
        // What a command asks nobody knows, and an agent with a login of its own asks past us.
        if agent.command.is_some() || self.stages(&agent) {
            return None;
        }
        let told = agent.model?.trim();
        let (name, is_long) = agent.adapter.asks(told)?;
        let [provider] = agent.adapter.providers(Some(told)) else { return None };
        let barred = |why: String, hint: String| Some(Barred { model: name.to_owned(), why, hint });
        if let Some(listed) = &self.models.of(*provider).models
            && !listed.iter().any(|model| model == name)
        {
            let (key, listed) = (format!("providers.{}.models", provider.name()), listed.join(", "));
            let why = format!("its agent is to ask `{name}`, which `{key}` does not list (it lists {listed})");
            return barred(why, format!("add it to `{key}`, or name another model"));
        }
        if !self.spending.caps.count_money() {
            return None;
        }
        match self.spending.prices.of(name, None) {
            None => barred(
                format!("its agent is to ask `{name}`, which has no price, and the workflow bounds money"),
                format!("add `{name}: {{input: …, output: …}}` below `prices`, in US dollars for a million tokens"),
            ),
            Some(price) if is_long && price.long.is_none() => barred(
                format!("its agent is to ask `{name}` with a longer context, of which its price says nothing"),
                format!("add `long_context: {{above: 200000, input: …, output: …}}` to it, or name it without {LONG}"),
            ),
            Some(_) => None,
        }
    }
}

/// A warning, for other states may work well: issues of such a state wait.
pub(super) fn warn(reader: &mut Reader<'_>, root: &Section<'_>, workflow: &Workflow) {
    let mut said = vec![];
    for state in workflow.states.with_role(Role::Active) {
        let Some(Barred { why, hint, .. }) = workflow.barred(state) else { continue };
        let states = below(root, "states");
        let own = states.entries.iter().find(|entry| StateName::new(entry.key.trim()) == *state);
        let own = own.map(|entry| below(&states, &entry.key)).filter(|own| own.get("model").is_some());
        let section = own.unwrap_or_else(|| below(root, "acp"));
        let key = section.path_of("model");
        if said.contains(&(key.clone(), why.clone())) {
            continue;
        }
        let place = section.get("model").map_or(section.place, |node| (node.line, node.column));
        let message = format!("no issue in `{state}` will start: {why}");
        reader.note(Problem::warning(Code::Conflict, place, message).about(key.clone()).hint(hint));
        said.push((key, why));
    }
}

/// The map below `key`, whose keys are checked where it is read.
fn below<'n>(section: &Section<'n>, key: &str) -> Section<'n> {
    let entries = section.get(key).and_then(Node::as_map).unwrap_or_default();
    Section { path: section.path_of(key), entries, place: section.place_of(key) }
}
