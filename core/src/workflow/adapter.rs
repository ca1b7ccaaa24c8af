//! Which agent runs, and whether it can be started today.

use super::problem::{Code, Problem, nearest};
use super::read::{Reader, Section, shortened};
use super::{Acp, Adapter, States};

const ADAPTERS: [Adapter; 3] = [Adapter::Claude, Adapter::Codex, Adapter::Script];

/// The adapter below `section`, and whether it was named. An unknown one is an error, unless a command
/// replaces the launch anyway (V2, V3).
pub(super) fn adapter_word(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    has_command: bool,
) -> (bool, Option<Adapter>) {
    let Some(text) = reader.string(section, "adapter") else { return (false, None) };
    if let Some(adapter) = ADAPTERS.into_iter().find(|adapter| adapter.name() == text.trim()) {
        return (true, Some(adapter));
    }
    let path = section.path_of("adapter");
    let place = section.get("adapter").map_or(section.place, |node| (node.line, node.column));
    let known = ADAPTERS.map(|adapter| format!("`{}`", adapter.name())).join(", ");
    let message = format!("`{path}`: there is no adapter `{}`", shortened(&text));
    let hint = match nearest(&text, ADAPTERS.map(Adapter::name)) {
        Some(meant) => format!("did you mean `{meant}`? Known are {known}; any other agent runs through `acp.command`"),
        None => format!("known are {known}; any other agent runs through `acp.command`"),
    };
    let problem = if has_command {
        Problem::warning(Code::UnknownAdapter, place, format!("{message}; `acp.command` applies"))
    } else {
        Problem::error(Code::UnknownAdapter, place, message)
    };
    reader.note(problem.about(path).hint(hint));
    (true, None)
}

/// How real agents are launched is not built yet; until it is they start only through `acp.command`
/// (DESIGN §6). An error that blocks dispatch, once per place that selects such an adapter.
pub(super) fn dispatchable(reader: &mut Reader<'_>, root: &Section<'_>, acp: &Acp, states: &States) {
    if acp.command.is_some() || reader.problems.iter().any(|problem| problem.code == Code::UnknownAdapter) {
        return;
    }
    let own: Vec<_> = states.rules.iter().filter(|(_, rule)| rule.role == super::Role::Active).collect();
    let mut selections = Vec::new();
    if own.is_empty() || own.iter().any(|(_, rule)| rule.adapter.is_none()) {
        let place = root.get("acp").and_then(|node| node.get("adapter")).map(|node| (node.line, node.column));
        let place = place.unwrap_or_else(|| root.place_of("acp"));
        selections.push((acp.adapter, "acp.adapter".to_owned(), place));
    }
    for (name, rule) in own {
        if let Some(adapter) = rule.adapter {
            let state = root.get("states").and_then(|node| node.get(name.as_str()));
            let place = state.and_then(|node| node.get("adapter")).map(|node| (node.line, node.column));
            selections.push((
                adapter,
                format!("states.{name}.adapter"),
                place.unwrap_or_else(|| root.place_of("states")),
            ));
        }
    }
    for (adapter, path, place) in selections {
        if adapter == Adapter::Script {
            continue;
        }
        let message = format!(
            "the adapter `{}` cannot start yet: real agents are not launched by name in this version",
            adapter.name()
        );
        let hint = "set `acp.command` to the command that starts the agent, or use `acp.adapter: script`";
        reader.note(Problem::error(Code::AdapterNeedsCommand, place, message).about(path).hint(hint));
    }
}
