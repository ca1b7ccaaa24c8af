//! `states:`, or the two lists of 0.1.0: which directory names mean what.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::adapter::{adapter_word, effort_word};
use super::problem::{Code, Problem};
use super::read::{Reader, Section, shortened, whole_of};
use super::{Role, StateRule, States};
use crate::ids::StateName;
use crate::spelling::nearest;

const ACTIVE: [&str; 2] = ["Todo", "In Progress"];
const TERMINAL: [&str; 5] = ["Closed", "Cancelled", "Canceled", "Duplicate", "Done"];
/// One claim, one sandbox: nobody runs more than this.
pub(super) const MAX_COUNT: i64 = 1_000_000;

/// Reads whichever of the two forms the file uses; both together are an error.
pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>, tracker: &Section<'_>, has_command: bool) -> States {
    let lists = tracker.get("active_states").is_some() || tracker.get("terminal_states").is_some();
    if root.get("states").is_none() {
        return from_lists(reader, tracker);
    }
    if lists {
        let place = root.place_of("states");
        let message = "`states` and the lists `tracker.active_states`, `tracker.terminal_states` exclude each other";
        let hint = "keep `states:` and give each state its role there";
        reader.note(Problem::error(Code::Conflict, place, message).about("states").hint(hint));
    }
    declared(reader, root, has_command)
}

fn from_lists(reader: &mut Reader<'_>, tracker: &Section<'_>) -> States {
    let mut rules: IndexMap<StateName, StateRule> = IndexMap::new();
    let lists = [("active_states", Role::Active, &ACTIVE[..]), ("terminal_states", Role::Terminal, &TERMINAL[..])];
    for (key, role, default) in lists {
        let place = tracker.place_of(key);
        let written = reader.strings(tracker, key, true);
        let explicit = written.is_some();
        let names = written.unwrap_or_else(|| default.iter().map(|name| ((*name).to_owned(), place)).collect());
        if names.is_empty() {
            let what = if role == Role::Active { "no issue will ever start" } else { "finished issues go to `Done`" };
            let path = tracker.path_of(key);
            reader.note(Problem::warning(Code::InvalidValue, place, format!("`{path}` is empty: {what}")).about(path));
        }
        for (name, place) in names {
            let state = StateName::new(name.trim());
            if !usable(reader, &state, place) {
                continue;
            }
            match rules.get(&state).map(|rule| rule.role) {
                // A default does not argue with what was written.
                Some(other) if other != role && explicit => {
                    let message = format!("the state `{state}` is both active and terminal");
                    let hint = "an issue there would start and be finished at once; keep it in one list";
                    reader.note(Problem::error(Code::Conflict, place, message).about(tracker.path_of(key)).hint(hint));
                }
                Some(_) => {
                    if explicit {
                        let message = format!("the state `{state}` stands in the list twice");
                        reader.note(Problem::warning(Code::InvalidValue, place, message).about(tracker.path_of(key)));
                    }
                }
                None => {
                    rules.insert(state, StateRule::of(role));
                }
            }
        }
    }
    States { rules, declared: false }
}

fn declared(reader: &mut Reader<'_>, root: &Section<'_>, has_command: bool) -> States {
    let entries = root.get("states").and_then(|node| node.as_map()).unwrap_or_default();
    if entries.is_empty() {
        reader.invalid(root, "states", "must be a map of at least one active and one terminal state", EXAMPLE);
    }
    let section = Section { path: "states".to_owned(), entries, place: root.place_of("states") };
    let mut rules: IndexMap<StateName, StateRule> = IndexMap::new();
    let mut targets = Vec::new();
    for entry in entries {
        let (state, place) = (StateName::new(entry.key.trim()), (entry.line, entry.column));
        if !usable(reader, &state, place) {
            continue;
        }
        if rules.contains_key(&state) {
            let message = format!("the state `{state}` stands twice; case does not distinguish states");
            reader.note(Problem::error(Code::Conflict, place, message).about(section.path_of(&entry.key)));
            continue;
        }
        let Some(entry_rule) = one(reader, &section, &entry.key, has_command, &mut targets) else { continue };
        rules.insert(state, entry_rule);
    }
    for (path, target, place) in targets {
        if !rules.contains_key(&target) {
            let message = format!("`{path}` names the state `{}`, which is not declared", shortened(target.as_str()));
            let problem = Problem::error(Code::InvalidValue, place, message).about(path);
            let meant = nearest(target.as_str(), rules.keys().map(StateName::as_str));
            reader.note(match meant {
                Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
                None => problem.hint("declare it under `states:`"),
            });
        }
    }
    for (role, name) in [(Role::Active, "active"), (Role::Terminal, "terminal")] {
        // A state that was refused above may have been the one.
        if rules.len() == entries.len() && !rules.is_empty() && !rules.values().any(|rule| rule.role == role) {
            let message = format!("no state has the role `{name}`");
            reader.note(Problem::error(Code::InvalidValue, section.place, message).about("states").hint(EXAMPLE));
        }
    }
    States { rules, declared: true }
}

const EXAMPLE: &str = "for example `Todo: {role: active}` and `Done: {role: terminal}`";

fn one(
    reader: &mut Reader<'_>,
    states: &Section<'_>,
    key: &str,
    has_command: bool,
    targets: &mut Vec<(String, StateName, (u32, u32))>,
) -> Option<StateRule> {
    if states.get(key).and_then(|node| node.as_map()).is_none() {
        reader.invalid(states, key, "must be a map with a `role`", EXAMPLE);
        return None;
    }
    let section = reader.section(states, key, "states.*");
    let roles = [("active", Role::Active), ("terminal", Role::Terminal), ("holding", Role::Holding)];
    let before = reader.problems.len();
    let role = reader.word(&section, "role", &roles);
    if role.is_none() && !reader.problems[before..].iter().any(Problem::is_error) {
        // A value of another kind is ignored elsewhere, for a default; a role has none.
        reader.problems.truncate(before);
        let what = if section.get("role").is_some() { "must be a word" } else { "is missing" };
        reader.invalid(&section, "role", what, "it can be `active`, `terminal`, `holding`");
    }
    let mut found = StateRule::of(role?);
    found.adapter = adapter_word(reader, &section, has_command).1;
    found.model = reader.filled(&section, "model");
    found.effort = effort_word(reader, &section);
    if section.get("max_turns").is_some() {
        found.max_turns = u32::try_from(reader.number(&section, "max_turns", 20, 1..=MAX_COUNT)).ok();
    }
    if section.get("max_concurrent").is_some() {
        found.max_concurrent = u32::try_from(reader.number(&section, "max_concurrent", 1, 1..=MAX_COUNT)).ok();
    }
    if let Some(names) = reader.strings(&section, "allowed_transitions", true) {
        let path = section.path_of("allowed_transitions");
        let states = names.into_iter().map(|(name, place)| {
            let state = StateName::new(name.trim());
            targets.push((path.clone(), state.clone(), place));
            state
        });
        found.allowed_transitions = Some(states.collect());
    }
    Some(found)
}

/// A state is one directory name; anything else would leave the tracker.
fn usable(reader: &mut Reader<'_>, state: &StateName, place: (u32, u32)) -> bool {
    let name = state.as_str();
    let fine = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0', '\n']);
    if !fine {
        let message = format!("`{}` cannot be a state: a state is the name of a directory", shortened(name));
        let hint = "use a name without `/` that does not start with a dot";
        reader.note(Problem::error(Code::InvalidValue, place, message).hint(hint));
    }
    fine
}

/// `agent.max_concurrent_agents_by_state`: invalid entries are ignored with a warning (C52). Fills the
/// rules that have no number of their own.
pub(super) fn limits(reader: &mut Reader<'_>, agent: &Section<'_>, states: &mut States) -> BTreeMap<StateName, u32> {
    const KEY: &str = "max_concurrent_agents_by_state";
    let mut limits = BTreeMap::new();
    let Some(node) = agent.get(KEY) else { return limits };
    let path = agent.path_of(KEY);
    let Some(entries) = node.as_map() else {
        let message = format!("`{path}` must be a map, it is {}; it is ignored", node.kind_name());
        reader.note(Problem::warning(Code::WrongType, (node.line, node.column), message).about(path));
        return limits;
    };
    for entry in entries {
        let (place, path) = ((entry.line, entry.column), format!("{path}.{}", entry.key));
        let state = StateName::new(entry.key.trim());
        let number = whole_of(&entry.value).filter(|n| (1..=MAX_COUNT).contains(n)).and_then(|n| u32::try_from(n).ok());
        let Some(number) = number else {
            let message = format!("`{path}` must be a positive whole number; it is ignored");
            reader.note(Problem::warning(Code::WrongType, place, message).about(path));
            continue;
        };
        match states.rules.get_mut(&state) {
            Some(rule) if rule.max_concurrent.is_some() => {
                let message = format!("`{path}` is ignored: `states.{}.max_concurrent` says it already", entry.key);
                reader.note(Problem::warning(Code::Conflict, place, message).about(path));
                continue;
            }
            Some(rule) => rule.max_concurrent = Some(number),
            None => {
                let problem = Problem::warning(Code::UnknownKey, place, format!("`{path}`: no such state")).about(path);
                let meant = nearest(&entry.key, states.rules.keys().map(StateName::as_str));
                reader.note(match meant {
                    Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
                    None => problem,
                });
            }
        }
        limits.insert(state, number);
    }
    limits
}
