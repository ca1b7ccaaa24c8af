//! How each agent is launched: data for the guest program, which does the launching.
//!
//! The environment is built from nothing: no variable of the host reaches an agent (C6).

use serde_json::json;
use symphony_core::broker::Provider;
use symphony_core::issue::Issue;
use symphony_core::workflow::{Adapter, AgentOf};

/// What the guest program starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The `script` agent, built into the guest program.
    Builtin,
    /// A program of the sandbox, with its arguments.
    Command(Vec<String>),
}

/// How an agent is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What is started, in the work tree.
    pub program: Program,
    /// Its whole environment, sorted by name.
    pub env: Vec<(String, String)>,
    /// A mode to set once in the session.
    pub mode: Option<&'static str>,
}

/// Why an agent cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// How it is launched is not built yet (DESIGN §6).
    #[error(
        "the `{0}` adapter cannot be launched by name yet. Start it through `acp.command`, or use `acp.adapter: script`"
    )]
    NoLaunch(&'static str),
    /// A command that is only blanks.
    #[error("`acp.command` is blank; remove it or name a command")]
    BlankCommand,
}

/// Where things are inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// `PATH` for the agent.
    pub path: String,
    /// The agent's home.
    pub home: String,
}

/// The launch of `agent` for `issue`. Its command wins over the profile and is kept verbatim (C53); `shell` runs it.
///
/// # Errors
/// When the profile needs something that does not exist yet.
pub fn launch(agent: &AgentOf<'_>, shell: &str, issue: &Issue, inside: &Inside) -> Result<Launch, ProfileError> {
    let program = match (agent.command, agent.adapter) {
        (Some(command), _) if command.trim().is_empty() => return Err(ProfileError::BlankCommand),
        (Some(command), _) => Program::Command(vec![shell.to_owned(), "-lc".into(), command.to_owned()]),
        (None, Adapter::Script) => Program::Builtin,
        (None, other) => return Err(ProfileError::NoLaunch(other.name())),
    };
    let mode = match agent.adapter {
        // Offered only where IS_SANDBOX=1; asks for no permission and writes no settings.
        Adapter::Claude => Some("bypassPermissions"),
        Adapter::Codex => Some("agent-full-access"),
        Adapter::Script => None,
    };
    Ok(Launch { program, env: environment(agent, issue, inside), mode })
}

/// What tells an agent that its models are at `url`, under its run's token.
pub fn model_variables(provider: Provider, url: String, token: &str) -> Vec<(String, String)> {
    let named = |name: &str, value: String| (name.to_owned(), value);
    match provider {
        Provider::Anthropic => {
            vec![named("ANTHROPIC_BASE_URL", url), named("ANTHROPIC_AUTH_TOKEN", token.to_owned())]
        }
        Provider::OpenAi => {
            // Codex hears of no address but in its configuration, and searches the web unless told not to.
            let codex = json!({
                "model_provider": "symphony",
                "model_providers": {"symphony": {
                    "name": "symphony", "base_url": url, "env_key": "OPENAI_API_KEY", "wire_api": "responses",
                }},
                "web_search": "disabled",
            });
            vec![
                named("CODEX_CONFIG", codex.to_string()),
                named("OPENAI_BASE_URL", url),
                named("OPENAI_API_KEY", token.to_owned()),
            ]
        }
    }
}

/// The environment contract: what an agent may rely on. Values are one line, NUL-free.
fn environment(agent: &AgentOf<'_>, issue: &Issue, inside: &Inside) -> Vec<(String, String)> {
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let model = agent.model.map(clean);
    // Claude Code takes its model from here; every other agent wants it in its command or its configuration.
    let for_claude = model.clone().filter(|_| agent.adapter == Adapter::Claude);
    let mut env: Vec<(&str, String)> = vec![
        ("CI", "1".to_owned()),
        ("HOME", inside.home.clone()),
        ("IS_SANDBOX", "1".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("PATH", inside.path.clone()),
        ("SYMPHONY_ISSUE_ID", clean(&issue.id.0)),
        ("SYMPHONY_ISSUE_IDENTIFIER", clean(&issue.identifier.0)),
        ("SYMPHONY_ISSUE_TITLE", clean(&issue.title)),
        ("TERM", "dumb".to_owned()),
    ];
    env.extend(for_claude.map(|model| ("ANTHROPIC_MODEL", model)));
    env.extend(model.map(|model| ("SYMPHONY_MODEL", model)));
    env.sort();
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use symphony_core::ids::IssueId;

    use super::*;

    fn issue() -> Issue {
        Issue { id: IssueId("id-1".into()), title: "First\nline".into(), ..Issue::bare("A-1", "Todo") }
    }

    fn launched(adapter: Adapter, command: Option<&str>, model: Option<&str>) -> Result<Launch, ProfileError> {
        let inside = Inside { path: "/usr/bin:/bin".into(), home: "/home/agent".into() };
        launch(&AgentOf { adapter, command, model, max_turns: 1 }, "bash", &issue(), &inside)
    }

    #[test]
    fn a_command_is_kept_verbatim_and_wins_over_the_profile() {
        let command = "echo $HOME ~ \"x\"; exec  my-agent --acp";
        for adapter in [Adapter::Claude, Adapter::Codex, Adapter::Script] {
            let program = launched(adapter, Some(command), None).map(|launch| launch.program);
            assert_eq!(program, Ok(Program::Command(vec!["bash".into(), "-lc".into(), command.into()])));
        }
        assert_eq!(launched(Adapter::Script, Some(" \n"), None), Err(ProfileError::BlankCommand));
    }

    #[test]
    fn script_is_built_in_and_the_others_say_what_they_miss() {
        assert_eq!(launched(Adapter::Script, None, None).map(|launch| launch.program), Ok(Program::Builtin));
        for adapter in [Adapter::Claude, Adapter::Codex] {
            let error = launched(adapter, None, None).expect_err("no launch");
            assert!(error.to_string().contains(adapter.name()) && error.to_string().contains("acp.command"), "{error}");
        }
    }

    #[test]
    fn the_environment_is_the_contract_and_nothing_of_the_host() {
        let env = launched(Adapter::Script, None, None).expect("launch").env;
        let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        let contract = [
            "CI",
            "HOME",
            "IS_SANDBOX",
            "LANG",
            "PATH",
            "SYMPHONY_ISSUE_ID",
            "SYMPHONY_ISSUE_IDENTIFIER",
            "SYMPHONY_ISSUE_TITLE",
            "TERM",
        ];
        assert_eq!(names, contract);
        assert!(env.contains(&("SYMPHONY_ISSUE_TITLE".into(), "First line".into())));
        assert!(env.contains(&("HOME".into(), "/home/agent".into())));
    }

    #[test]
    fn an_agent_is_told_where_its_models_are_in_the_words_it_knows() {
        let of = |provider| model_variables(provider, "http://127.0.0.1:1/x".into(), "token");
        let anthropic = of(Provider::Anthropic);
        assert!(anthropic.contains(&("ANTHROPIC_BASE_URL".into(), "http://127.0.0.1:1/x".into())));
        assert!(anthropic.contains(&("ANTHROPIC_AUTH_TOKEN".into(), "token".into())));
        let openai: std::collections::BTreeMap<_, _> = of(Provider::OpenAi).into_iter().collect();
        assert_eq!(
            (openai["OPENAI_BASE_URL"].as_str(), openai["OPENAI_API_KEY"].as_str()),
            ("http://127.0.0.1:1/x", "token")
        );
        let codex: serde_json::Value = serde_json::from_str(&openai["CODEX_CONFIG"]).expect("JSON");
        assert_eq!(codex["model_providers"]["symphony"]["base_url"], "http://127.0.0.1:1/x");
        assert!(!openai["CODEX_CONFIG"].contains("token"), "it is in the variable that is named there");
    }

    #[test]
    fn a_model_reaches_every_agent_and_claude_under_the_name_it_knows() {
        for (adapter, names) in [
            (Adapter::Claude, &["ANTHROPIC_MODEL", "SYMPHONY_MODEL"][..]),
            (Adapter::Codex, &["SYMPHONY_MODEL"]),
            (Adapter::Script, &["SYMPHONY_MODEL"]),
        ] {
            let env = launched(adapter, Some("x"), Some("m\n1")).expect("launch").env;
            let found: Vec<_> = env.iter().filter(|(_, value)| value == "m 1").map(|(name, _)| name.as_str()).collect();
            assert_eq!(found, names, "{adapter:?}");
            assert!(env.is_sorted());
        }
    }
}
