//! How each agent is launched: data for the guest program, which does the launching.
//!
//! The environment is built from nothing: no variable of the host reaches an agent (C6).

mod gemini;

use serde_json::{Value, json};
use symphony_core::broker::Provider;
use symphony_core::issue::Issue;
use symphony_core::runtimes::Kind;
use symphony_core::workflow::{Adapter, AgentOf};

/// Files: name and text.
pub type Home = Vec<(&'static str, String)>;

/// An agent that is started by its name. What the names and values do was measured with the version of `package`.
struct Known {
    /// Looked for in the `PATH` of the sandbox, with its arguments.
    program: &'static [&'static str],
    /// Where it is from.
    package: &'static str,
    /// What it runs on, beside itself.
    needs: &'static str,
    /// A mode to set once, in which it asks for no permission and writes no settings into the work tree.
    mode: Option<&'static str>,
    /// What it is told besides.
    env: &'static [(&'static str, &'static str)],
    /// The variable that tells it how much its model is to think, where it has one.
    effort: Option<&'static str>,
    /// Settings of its own that it was seen to write into the work tree: they are left out of its work unless somebody
    /// adds them by force, or they were in it before. As patterns of git.
    writes: &'static [&'static str],
    /// Files that it wants in its home, and what is in them; one that somebody else put there is left as it is.
    home: fn(&AgentOf<'_>) -> Home,
}

const CLAUDE: Known = Known {
    program: &["claude-agent-acp"],
    package: "@agentclientprotocol/claude-agent-acp@0.100.0",
    needs: " (on Node 22 or newer)",
    // Offered to root only where IS_SANDBOX=1.
    mode: Some("bypassPermissions"),
    // Else it retries for three minutes without a word, and looks for updates and feature switches that it cannot reach.
    env: &[
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("CLAUDE_CODE_MAX_RETRIES", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
    ],
    effort: Some("CLAUDE_CODE_EFFORT_LEVEL"),
    // Where it keeps what is allowed from now on.
    writes: &["/.claude/settings.local.json"],
    home: |_| vec![],
};
const CODEX: Known = Known {
    program: &["codex-acp"],
    package: "@agentclientprotocol/codex-acp@2.6.0",
    needs: " (on Node 20 or newer)",
    mode: Some("agent-full-access"),
    env: &[],
    effort: None,
    writes: &[],
    // Else it asks github.com, api.github.com and chatgpt.com for a list of plugins in every run. It looks at this before
    // `CODEX_CONFIG` reaches it, so only the file tells it.
    home: |_| vec![(".codex/config.toml", "[features]\nplugins = false\n".to_owned())],
};
const OPENCODE: Known = Known {
    program: &["opencode", "acp"],
    package: "opencode-ai@1.18.33",
    needs: "",
    // As it comes it asks nothing.
    mode: None,
    env: &[
        ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
        ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
        ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ],
    effort: None,
    writes: &[],
    home: |_| vec![],
};
const GEMINI: Known = Known {
    program: &["gemini", "--acp"],
    package: "@google/gemini-cli@0.61.0",
    needs: " (on Node 20 or newer)",
    mode: Some("yolo"),
    env: &[
        // Else it starts itself anew, with half of the machine's memory for its heap.
        ("GEMINI_CLI_NO_RELAUNCH", "1"),
        // Else MCP servers that it is given vanish without a word.
        ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
    ],
    effort: None,
    writes: &[],
    home: |agent| vec![(".gemini/settings.json", gemini::settings(agent).to_string())],
};
/// What agents of `acp.command` were seen to write, whichever that is.
const OF_COMMANDS: &[&str] = &["/.claude/settings.local.json", "/.qwen/settings.json*"];

/// `None`: it is built in.
fn known(adapter: Adapter) -> Option<&'static Known> {
    match adapter {
        Adapter::Claude => Some(&CLAUDE),
        Adapter::Codex => Some(&CODEX),
        Adapter::OpenCode => Some(&OPENCODE),
        Adapter::Gemini => Some(&GEMINI),
        Adapter::Script => None,
    }
}

/// The version of `adapter` that symphony is tried with.
pub fn tried_version(adapter: Adapter) -> Option<&'static str> {
    known(adapter)?.package.rsplit_once('@').map(|(_, version)| version)
}

/// How the program of `adapter` gets into a sandbox of this kind; `None` where nothing has to.
pub fn how_to_install(adapter: Adapter, kind: Kind) -> Option<String> {
    let Known { package, needs, .. } = known(adapter)?;
    Some(match kind {
        Kind::Jail => format!(
            "on this machine, `npm install --global {package}`{needs} makes it visible if npm installs below /usr; or install it with \
             `--prefix DIR` and list DIR in `sandbox.jail.read_only`: programs are looked for in its `bin` and `node_modules/.bin` too"
        ),
        Kind::Smolvm => format!("the image of the machine (`smolvm.image`) must contain it: {package} of npm{needs}"),
        Kind::QemuKvm | Kind::QemuTcg => {
            format!("build the image with `scripts/build-vm.sh --agents`, which brings {package}")
        }
    })
}

/// How an agent of `acp.command` gets into a sandbox of this kind.
pub fn how_to_bring(kind: Kind) -> &'static str {
    match kind {
        Kind::Jail => {
            "a jail sees programs below /usr, and in the `bin` and `node_modules/.bin` of what `sandbox.jail.read_only` lists; \
             a script needs its interpreter there, too"
        }
        Kind::Smolvm | Kind::QemuKvm | Kind::QemuTcg => {
            "the image of the machine must contain it and, if it is a script, its interpreter"
        }
    }
}

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
    /// What its program writes into the work tree for itself, as patterns of git.
    pub writes: &'static [&'static str],
    /// Files that its program wants in its home, where nobody else put one there.
    pub home: Home,
}

/// Why an agent cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
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
/// A blank command.
pub fn launch(agent: &AgentOf<'_>, shell: &str, issue: &Issue, inside: &Inside) -> Result<Launch, ProfileError> {
    let program = match (agent.command, agent.adapter) {
        (Some(command), _) if command.trim().is_empty() => return Err(ProfileError::BlankCommand),
        (Some(command), _) => Program::Command(vec![shell.to_owned(), "-lc".into(), command.to_owned()]),
        (None, adapter) => match known(adapter) {
            None => Program::Builtin,
            Some(known) => Program::Command(known.program.iter().map(|&word| word.to_owned()).collect()),
        },
    };
    let mode = known(agent.adapter).and_then(|known| known.mode);
    let (writes, home) = match (agent.command, known(agent.adapter)) {
        (Some(_), _) => (OF_COMMANDS, vec![]),
        (None, known) => known.map_or((&[][..], vec![]), |known| (known.writes, (known.home)(agent))),
    };
    Ok(Launch { program, env: environment(agent, issue, inside), mode, writes, home })
}

/// What tells an agent where its models are: the providers that it can reach, each with its address on the guest's
/// loopback, all under its run's token.
pub fn model_variables(agent: &AgentOf<'_>, ways: &[(Provider, String)], token: &str) -> Vec<(String, String)> {
    let mut variables = vec![];
    let mut add = |name: &str, value: String| variables.push((name.to_owned(), value));
    for (provider, url) in ways {
        match provider {
            Provider::Anthropic => {
                add("ANTHROPIC_BASE_URL", url.clone());
                add("ANTHROPIC_AUTH_TOKEN", token.to_owned());
            }
            Provider::OpenAi => {
                add("CODEX_CONFIG", codex_config(agent, url).to_string());
                add("OPENAI_BASE_URL", url.clone());
                add("OPENAI_API_KEY", token.to_owned());
            }
            Provider::Google => {
                add("GOOGLE_GEMINI_BASE_URL", url.clone());
                add("GEMINI_API_KEY", token.to_owned());
            }
        }
    }
    if !ways.is_empty() {
        add("OPENCODE_CONFIG_CONTENT", opencode_config(agent, ways).to_string());
    }
    variables
}

/// What tells programs where the network is: a proxy on the guest's loopback, for everything but that loopback, where models
/// and our tools are. Plain http goes there too, to be told why it does not pass.
pub fn egress_variables(port: u16) -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{port}");
    let mut variables = vec![("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned())];
    for (name, value) in
        [("HTTPS_PROXY", proxy.as_str()), ("HTTP_PROXY", &proxy), ("NO_PROXY", "localhost,127.0.0.1,::1")]
    {
        variables.push((name.to_owned(), value.to_owned()));
        variables.push((name.to_lowercase(), value.to_owned()));
    }
    variables
}

/// Codex hears of no address but in its configuration, and searches the web unless told not to. Untold, it asks thirty times
/// in one turn while its model fails: each stream six times, each request for one five times.
fn codex_config(agent: &AgentOf<'_>, url: &str) -> Value {
    let mut config = json!({
        "model_provider": "symphony",
        "model_providers": {"symphony": {
            "name": "symphony", "base_url": url, "env_key": "OPENAI_API_KEY", "wire_api": "responses",
            "request_max_retries": 1, "stream_max_retries": 2,
        }},
        "web_search": "disabled",
    });
    if let Some(model) = model_for(agent, Adapter::Codex) {
        config["model"] = json!(model);
    }
    if let Some(effort) = agent.effort.filter(|_| agent.adapter == Adapter::Codex) {
        config["model_reasoning_effort"] = json!(effort.name());
    }
    config
}

/// OpenCode's providers are those of this list only; it finds the token in the variables that the configuration names.
fn opencode_config(agent: &AgentOf<'_>, ways: &[(Provider, String)]) -> Value {
    let mut config = json!({"share": "disabled", "autoupdate": false, "provider": {}, "enabled_providers": []});
    for (provider, url) in ways {
        let (url, key) = match provider {
            Provider::Anthropic => (format!("{url}/v1"), "{env:ANTHROPIC_AUTH_TOKEN}"),
            Provider::OpenAi => (url.clone(), "{env:OPENAI_API_KEY}"),
            Provider::Google => (format!("{url}/v1beta"), "{env:GEMINI_API_KEY}"),
        };
        config["provider"][provider.name()] = json!({"options": {"baseURL": url, "apiKey": key}});
        if let Some(list) = config["enabled_providers"].as_array_mut() {
            list.push(json!(provider.name()));
        }
    }
    let Some(model) = model_for(agent, Adapter::OpenCode) else { return config };
    // For titles it would choose a model of its own.
    (config["model"], config["small_model"]) = (json!(model), json!(model));
    if let Some((provider, name)) = model.split_once('/')
        && let Some(known) = config["provider"].get_mut(provider)
    {
        // One that its catalogue does not know is a model all the same.
        known["models"] = json!({name: {}});
        if let Some(effort) = agent.effort {
            known["models"][name]["options"] = match provider {
                "openai" => json!({"reasoningEffort": effort.name()}),
                "google" => json!({"thinkingConfig": gemini::thinking(name, effort)}),
                _ => json!({"effort": effort.name()}),
            };
        }
    }
    config
}

/// The model of an agent that is this one.
fn model_for(agent: &AgentOf<'_>, adapter: Adapter) -> Option<String> {
    agent.model.filter(|_| agent.adapter == adapter).map(clean)
}

/// One line.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The environment contract: what an agent may rely on. Values are one line, NUL-free.
fn environment(agent: &AgentOf<'_>, issue: &Issue, inside: &Inside) -> Vec<(String, String)> {
    let model = agent.model.map(clean);
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
    env.extend(model_for(agent, Adapter::Claude).map(|model| ("ANTHROPIC_MODEL", model)));
    env.extend(model_for(agent, Adapter::Gemini).map(|model| ("GEMINI_MODEL", model)));
    env.extend(
        known(agent.adapter).into_iter().flat_map(|known| known.env).map(|&(name, value)| (name, value.to_owned())),
    );
    env.extend(model.map(|model| ("SYMPHONY_MODEL", model)));
    if let Some(effort) = agent.effort {
        let own = known(agent.adapter).and_then(|known| known.effort);
        env.extend(own.into_iter().chain(["SYMPHONY_EFFORT"]).map(|name| (name, effort.name().to_owned())));
    }
    env.sort();
    env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use symphony_core::ids::IssueId;
    use symphony_core::workflow::Effort;

    use super::*;

    fn issue() -> Issue {
        Issue { id: IssueId("id-1".into()), title: "First\nline".into(), ..Issue::bare("A-1", "Todo") }
    }

    fn launched(adapter: Adapter, command: Option<&str>, model: Option<&str>) -> Result<Launch, ProfileError> {
        let inside = Inside { path: "/usr/bin:/bin".into(), home: "/home/agent".into() };
        launch(&AgentOf { adapter, command, model, effort: None, max_turns: 1 }, "bash", &issue(), &inside)
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
    fn what_is_not_built_in_is_a_program_of_the_sandbox_and_how_to_install_it_is_known() {
        assert_eq!(launched(Adapter::Script, None, None).map(|launch| launch.program), Ok(Program::Builtin));
        for (adapter, argv, mode) in [
            (Adapter::Claude, &["claude-agent-acp"][..], Some("bypassPermissions")),
            (Adapter::Codex, &["codex-acp"], Some("agent-full-access")),
            (Adapter::OpenCode, &["opencode", "acp"], None),
            (Adapter::Gemini, &["gemini", "--acp"], Some("yolo")),
        ] {
            let launch = launched(adapter, None, None).expect("launch");
            let argv = argv.iter().map(|&word| word.to_owned()).collect();
            assert_eq!((launch.program, launch.mode), (Program::Command(argv), mode));
            assert!(launch.env.is_sorted());
            for kind in Kind::ALL {
                let how = how_to_install(adapter, kind).expect("known");
                // A package without a version would be whatever is newest: nobody has measured that.
                assert!(how.contains(adapter.name()) && how.rsplit_once('@').is_some(), "{how}");
            }
        }
        assert_eq!(how_to_install(Adapter::Script, Kind::Jail), None);
    }

    #[test]
    fn a_file_for_the_home_is_of_the_agent_that_is_started_by_its_name_alone() {
        let home = |adapter, command| launched(adapter, command, None).expect("launch").home;
        let plugins = "[features]\nplugins = false\n".to_owned();
        assert_eq!(home(Adapter::Codex, None), [(".codex/config.toml", plugins)]);
        assert_eq!(home(Adapter::Gemini, None)[0].0, ".gemini/settings.json");
        assert!(home(Adapter::Gemini, Some("mine")).is_empty());
        assert!(home(Adapter::Codex, Some("mine")).is_empty() && home(Adapter::Claude, None).is_empty());
    }

    /// The versions that a user is told of are those that are in the image, and that were measured.
    #[test]
    fn the_packages_are_those_of_the_image() {
        let pinned: Value = serde_json::from_str(include_str!("../../vm/agents/package.json")).expect("JSON");
        for adapter in [CLAUDE, CODEX, GEMINI] {
            let (name, version) = adapter.package.rsplit_once('@').expect("a version");
            assert_eq!(pinned["dependencies"][name], version);
        }
        let (_, version) = OPENCODE.package.rsplit_once('@').expect("a version");
        assert_eq!(pinned["dependencies"]["opencode-linux-x64-baseline"], version);
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
        let ways = Provider::ALL.map(|provider| (provider, format!("http://127.0.0.1:1/{}", provider.name())));
        let of = |adapter, model, ways: &[_]| {
            let agent = AgentOf { adapter, command: None, model, effort: Some(Effort::High), max_turns: 1 };
            model_variables(&agent, ways, "secret").into_iter().collect::<std::collections::BTreeMap<_, _>>()
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let all = of(Adapter::Codex, Some("m"), &ways);
        assert_eq!(all["ANTHROPIC_BASE_URL"], "http://127.0.0.1:1/anthropic");
        assert_eq!(
            (all["OPENAI_BASE_URL"].as_str(), all["OPENAI_API_KEY"].as_str()),
            ("http://127.0.0.1:1/openai", "secret")
        );
        assert_eq!(all["ANTHROPIC_AUTH_TOKEN"], "secret");
        let codex = json(&all["CODEX_CONFIG"]);
        assert_eq!(codex["model_providers"]["symphony"]["base_url"], "http://127.0.0.1:1/openai");
        assert_eq!(codex["model_reasoning_effort"], "high");
        let retries =
            ["request_max_retries", "stream_max_retries"].map(|key| &codex["model_providers"]["symphony"][key]);
        assert_eq!(retries, [&json!(1), &json!(2)], "thirty requests of one turn");
        assert_eq!((&codex["model"], codex.to_string().contains("secret")), (&json!("m"), false));
        assert!(json(&all["OPENCODE_CONFIG_CONTENT"]).get("model").is_none(), "it is Codex' model");

        let one = of(Adapter::OpenCode, Some("anthropic/m/1"), &ways[..1]);
        let config = json(&one["OPENCODE_CONFIG_CONTENT"]);
        assert_eq!((&config["model"], &config["enabled_providers"]), (&json!("anthropic/m/1"), &json!(["anthropic"])));
        let anthropic = &config["provider"]["anthropic"];
        assert_eq!(anthropic["options"]["baseURL"], "http://127.0.0.1:1/anthropic/v1");
        assert_eq!(
            (&anthropic["models"], config.to_string().contains("secret")),
            (&json!({"m/1": {"options": {"effort": "high"}}}), false)
        );
        assert_eq!(
            (all["GOOGLE_GEMINI_BASE_URL"].as_str(), all["GEMINI_API_KEY"].as_str()),
            ("http://127.0.0.1:1/google", "secret")
        );
        let google = of(Adapter::OpenCode, Some("google/gemini-2.5-x"), &ways[2..]);
        let google = json(&google["OPENCODE_CONFIG_CONTENT"]);
        assert_eq!(google["provider"]["google"]["options"]["baseURL"], "http://127.0.0.1:1/google/v1beta");
        let thinks = &google["provider"]["google"]["models"]["gemini-2.5-x"]["options"]["thinkingConfig"];
        assert_eq!(thinks["thinkingBudget"], 24_576);
        assert!(!one.contains_key("OPENAI_API_KEY") && of(Adapter::Claude, None, &[]).is_empty());
    }

    #[test]
    fn an_effort_reaches_every_agent_and_claude_under_the_name_it_knows() {
        let inside = Inside { path: "/bin".into(), home: "/home/agent".into() };
        let told = |adapter, effort| {
            let agent = AgentOf { adapter, command: None, model: None, effort, max_turns: 1 };
            let env = launch(&agent, "bash", &issue(), &inside).expect("launch").env;
            env.into_iter().filter(|(name, _)| name.contains("EFFORT")).collect::<Vec<_>>()
        };
        let both = [("CLAUDE_CODE_EFFORT_LEVEL".into(), "max".into()), ("SYMPHONY_EFFORT".into(), "max".into())];
        assert_eq!(told(Adapter::Claude, Some(Effort::Max)), both);
        assert_eq!(told(Adapter::Script, Some(Effort::Max)), both[1..]);
        assert!(told(Adapter::Claude, None).is_empty());
    }

    #[test]
    fn a_model_reaches_every_agent_and_some_under_the_name_they_know() {
        for (adapter, names) in [
            (Adapter::Claude, &["ANTHROPIC_MODEL", "SYMPHONY_MODEL"][..]),
            (Adapter::Gemini, &["GEMINI_MODEL", "SYMPHONY_MODEL"]),
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
