//! Which agent runs: the word that names it, and whose models it needs.

use super::problem::{Code, Problem};
use super::read::{Reader, Section, shortened};
use crate::broker::Provider;
use crate::spelling::nearest;

/// Agents that need no `acp.command`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adapter {
    /// `claude-agent-acp`.
    Claude,
    /// `codex-acp`.
    Codex,
    /// `opencode acp`.
    OpenCode,
    /// `gemini --acp`.
    Gemini,
    /// The agent built into the guest program: runs the fenced `sh` blocks of the issue.
    Script,
}

const ADAPTERS: [Adapter; 5] = [Adapter::Claude, Adapter::Codex, Adapter::OpenCode, Adapter::Gemini, Adapter::Script];

/// How much a model is to think: the words that all agents started by their name know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// `low`
    Low,
    /// `medium`
    Medium,
    /// `high`
    High,
    /// `xhigh`
    XHigh,
    /// `max`
    Max,
}

impl Effort {
    const ALL: [Self; 5] = [Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// The word, as agents and providers spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }
}

/// The effort below `section`, if it says one.
pub(super) fn effort_word(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Effort> {
    reader.word(section, "effort", &Effort::ALL.map(|effort| (effort.name(), effort)))
}

impl Adapter {
    /// The name in `acp.adapter`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::OpenCode => "opencode",
            Self::Gemini => "gemini",
            Self::Script => "script",
        }
    }

    /// Where in its home it keeps its login, and with whom that is; `None` of one that keeps none of its own.
    pub fn login_file(self) -> Option<(&'static str, Provider)> {
        match self {
            Self::Claude => Some((".claude/.credentials.json", Provider::Anthropic)),
            Self::Codex => Some((".codex/auth.json", Provider::OpenAi)),
            Self::OpenCode | Self::Gemini | Self::Script => None,
        }
    }

    /// Whose models it asks for `model`; any one of them would do, and none means that it works without models.
    pub fn providers(self, model: Option<&str>) -> &'static [Provider] {
        match self {
            Self::Claude => &[Provider::Anthropic],
            Self::Codex => &[Provider::OpenAi],
            // Its models have their provider's name in front; without one it takes what it finds.
            Self::OpenCode => match model.and_then(|model| model.split_once('/')) {
                Some(("anthropic", _)) => &[Provider::Anthropic],
                Some(("openai", _)) => &[Provider::OpenAi],
                Some(("google", _)) => &[Provider::Google],
                _ => &Provider::ALL,
            },
            Self::Gemini => &[Provider::Google],
            Self::Script => &[],
        }
    }

    /// The agents that are started by a name.
    pub fn all() -> impl Iterator<Item = Self> {
        ADAPTERS.into_iter()
    }
}

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
