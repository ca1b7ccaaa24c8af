//! From the text of a `WORKFLOW.md` to a [`Workflow`], reporting everything that is wrong at once.

use super::adapter::{adapter_word, effort_word};
use super::expand::Place;
use super::problem::{Code, Problem};
use super::read::{MAX_MS, Reader, Section};
use super::split::split;
use super::states::{self, MAX_COUNT};
use super::{
    Acp, Adapter, Agent, Auth, Budget, Checkout, Handoff, Hooks, Jail, Mcp, Minimum, OnBlockerCancelled, Polling,
    Runtime, Sandbox, Seed, Server, Steering, Tracker, Workflow, Workspace, barred, egress, profiles, providers,
    retention, secrets, smolvm, spending,
};
use crate::prompt::Prompt;
use crate::spend::Rules;
use crate::yaml::{self, Kind};

/// 1 TiB and 1 PiB of headroom in MiB; more is a typing mistake.
const MAX_MIB: i64 = 1 << 30;

impl Workflow {
    /// Reads a workflow file. With `Ok` the file is in force, and its problems are warnings.
    ///
    /// # Errors
    /// Every problem, in the order of the file, when at least one forbids using the file.
    pub fn parse(text: &str, place: &Place<'_>) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut reader = Reader { place, problems: Vec::new() };
        let workflow = read(text, &mut reader);
        let mut problems = reader.problems;
        problems.sort_by_key(|problem| (problem.line, problem.column));
        match workflow {
            Some(workflow) if !problems.iter().any(Problem::is_error) => Ok((workflow, problems)),
            _ => Err(problems),
        }
    }
}

fn read(text: &str, reader: &mut Reader<'_>) -> Option<Workflow> {
    let Ok(parts) = split(text) else {
        let message = "the front matter starts here and does not end";
        let problem = Problem::error(Code::WorkflowParseError, (1, 1), message);
        reader.note(problem.hint("add a line that is exactly `---` after it"));
        return None;
    };
    let node = match yaml::parse(parts.front.unwrap_or_default(), u32::from(parts.front.is_some())) {
        Ok(node) => node,
        Err(error) => {
            let message = format!("the front matter is not valid YAML: {}", error.message);
            let problem = Problem::error(Code::WorkflowParseError, (error.line, error.column), message);
            reader.note(match yaml_hint(&error.message) {
                Some(hint) => problem.hint(hint),
                None => problem,
            });
            return None;
        }
    };
    let entries = match &node.kind {
        Kind::Map(entries) => entries.as_slice(),
        Kind::Null => &[],
        _ => {
            let message = format!("the front matter must be a map of settings, it is {}", node.kind_name());
            let problem = Problem::error(Code::FrontMatterNotAMap, (node.line, node.column), message);
            reader.note(problem.hint("write settings as `name:` followed by indented `key: value` lines"));
            return None;
        }
    };
    let root = Section { path: String::new(), entries, place: (1, 1) };
    reader.unknown_keys(&root, "");
    secrets::warn(reader, &node);
    let fenced_later = parts.front.is_none() && text.lines().any(|line| line.trim_end() == "---");
    let mut workflow = settings(reader, &root, fenced_later);
    barred::warn(reader, &root, &workflow);
    workflow.prompt = parts.body.to_owned();
    reader.problems.extend(Prompt::problems(parts.body, parts.body_line, &workflow.states));
    Some(workflow)
}

/// What usually lies behind a parser's words.
fn yaml_hint(message: &str) -> Option<&'static str> {
    let repairs = [
        ("tab", "indent with spaces"),
        ("mapping values are not allowed", "a value that contains `: ` must stand in quotes"),
        ("illegal placement of ':'", "a `[`, a `{` or a quote before it is not closed"),
        ("flow", "a `[` or a `{` is not closed"),
        ("quoted scalar", "a quote is not closed"),
        ("did not find expected key", "check the indentation of this line"),
    ];
    let message = message.to_lowercase();
    repairs.into_iter().find(|(said, _)| message.contains(said)).map(|(_, hint)| hint)
}

fn settings(reader: &mut Reader<'_>, root: &Section<'_>, fenced_later: bool) -> Workflow {
    let section = reader.section(root, "tracker", "tracker");
    let tracker = tracker(reader, &section, fenced_later);
    let acp_section = reader.section(root, "acp", "acp");
    let acp = acp(reader, &acp_section);
    let mut states = states::read(reader, root, &section, acp.command.is_some());
    let agent = agent(reader, root, &mut states);
    let sandbox = sandbox(reader, root);
    let smolvm = smolvm::read(reader, root, &sandbox, providers::is_staged(root));
    let outward = reader.section(root, "egress", "egress");
    let of_states = states.rules.values().filter_map(|rule| rule.model.as_ref());
    let models = acp.model.iter().chain(of_states).cloned().collect();
    Workflow {
        dir: reader.place.dir.clone(),
        prompt: String::new(),
        tracker,
        states,
        polling: polling(reader, root),
        workspace: workspace(reader, root),
        hooks: hooks(reader, root),
        agent,
        acp,
        sandbox,
        smolvm,
        server: server(reader, root),
        mcp: mcp(reader, root),
        handoff: handoff(reader, root),
        budget: budget(reader, root),
        steering: steering(reader, root),
        retention: retention::read(reader, root),
        models: providers::read(reader, root, &outward),
        egress: egress::allowed(reader, &outward),
        spending: Rules { models, ..spending::read(reader, root) },
    }
}

/// A number that was checked to be in range.
fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn big(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn tracker(reader: &mut Reader<'_>, section: &Section<'_>, fenced_later: bool) -> Tracker {
    let place = section.place_of("kind");
    match reader.string(section, "kind").as_deref().map(str::trim) {
        Some("local" | "markdown" | "file") => {}
        None | Some("") => {
            let problem =
                Problem::error(Code::MissingTrackerKind, place, "`tracker.kind` is missing").about("tracker.kind");
            reader.note(problem.hint(if fenced_later {
                "the file must start with the line `---`, with nothing before it"
            } else {
                "write `tracker:` and below it `kind: local`"
            }));
        }
        Some(_) => {
            let message = "`tracker.kind` names a tracker that does not exist here";
            let problem = Problem::error(Code::UnsupportedTrackerKind, place, message).about("tracker.kind");
            reader.note(problem.hint("use `local`: issues are Markdown files below `tracker.root`"));
        }
    }
    // Keys below `provider` belong to the adapter; unknown ones are kept silently (C38).
    let provider = section.get("provider").and_then(|node| node.as_map()).unwrap_or_default();
    let provider =
        Section { path: section.path_of("provider"), entries: provider, place: section.place_of("provider") };
    if section.get("root").is_some() && provider.get("root").is_some() {
        let message = "`tracker.root` and `tracker.provider.root` are the same setting";
        let problem = Problem::error(Code::Conflict, provider.place_of("root"), message).about("tracker.provider.root");
        reader.note(problem.hint("keep one of them"));
    }
    let root = reader.path(section, "root").or_else(|| reader.path(&provider, "root"));
    let labels = reader.strings(section, "required_labels", true).unwrap_or_default();
    let cancelled = [
        ("wait", OnBlockerCancelled::Wait),
        ("unblock", OnBlockerCancelled::Unblock),
        ("park", OnBlockerCancelled::Park),
    ];
    Tracker {
        root: root.unwrap_or_else(|| reader.place.dir.join("issues")),
        // A blank label matches nothing, so it is kept (C40).
        required_labels: labels.into_iter().map(|(label, _)| label.trim().to_lowercase()).collect(),
        on_blocker_cancelled: reader
            .word(section, "on_blocker_cancelled", &cancelled)
            .unwrap_or(OnBlockerCancelled::Wait),
    }
}

fn acp(reader: &mut Reader<'_>, section: &Section<'_>) -> Acp {
    let command = reader.filled(section, "command");
    let has_command = section.get("command").is_some();
    let (_, adapter) = adapter_word(reader, section, has_command);
    let silence = |reader: &mut Reader<'_>, key, default| big(reader.number(section, key, default, i64::MIN..=MAX_MS));
    Acp {
        adapter: adapter.unwrap_or(Adapter::Claude),
        command,
        shell: reader.filled(section, "shell").unwrap_or_else(|| "bash".to_owned()),
        model: reader.filled(section, "model"),
        effort: effort_word(reader, section),
        resume: reader.boolean(section, "resume", true),
        prompt_timeout_ms: big(reader.number(section, "prompt_timeout_ms", 3_600_000, 1..=MAX_MS)),
        read_timeout_ms: big(reader.number(section, "read_timeout_ms", 30_000, 1..=MAX_MS)),
        boot_timeout_ms: big(reader.number(section, "boot_timeout_ms", 60_000, 1..=MAX_MS)),
        // Zero or less disables (C57).
        turn_timeout_ms: silence(reader, "turn_timeout_ms", 3_600_000),
        stall_timeout_ms: silence(reader, "stall_timeout_ms", 300_000),
    }
}

fn agent(reader: &mut Reader<'_>, root: &Section<'_>, states: &mut super::States) -> Agent {
    let section = reader.section(root, "agent", "agent");
    let slots = reader.number(&section, "max_concurrent_agents", 10, i64::MIN..=MAX_COUNT);
    if slots <= 0 {
        let message = "`agent.max_concurrent_agents` is not positive: no issue will start";
        let place = section.place_of("max_concurrent_agents");
        reader.note(Problem::warning(Code::InvalidValue, place, message).about("agent.max_concurrent_agents"));
    }
    Agent {
        max_concurrent_agents: count(slots.max(0)),
        max_turns: count(reader.number(&section, "max_turns", 20, 1..=MAX_COUNT)),
        max_retry_backoff_ms: big(reader.number(&section, "max_retry_backoff_ms", 300_000, 1..=MAX_MS)),
        max_concurrent_agents_by_state: states::limits(reader, &section, states),
    }
}

fn polling(reader: &mut Reader<'_>, root: &Section<'_>) -> Polling {
    let section = reader.section(root, "polling", "polling");
    Polling {
        interval_ms: big(reader.number(&section, "interval_ms", 30_000, 1..=MAX_MS)),
        watch: reader.boolean(&section, "watch", true),
    }
}

fn workspace(reader: &mut Reader<'_>, root: &Section<'_>) -> Workspace {
    let section = reader.section(root, "workspace", "workspace");
    let seeds = [("tracked", Seed::Tracked), ("all", Seed::All)];
    let checkouts = [("base", Checkout::Base), ("agent", Checkout::Agent)];
    Workspace {
        root: reader.path(&section, "root").unwrap_or_else(|| reader.place.dir.join(".symphony/workspaces")),
        source: reader.path(&section, "source"),
        base: reader.filled(&section, "base"),
        seed: reader.word(&section, "seed", &seeds).unwrap_or(Seed::All),
        seed_max_mib: big(reader.number(&section, "seed_max_mib", 2048, 1..=MAX_MIB)),
        export_max_mib: big(reader.number(&section, "export_max_mib", 512, 1..=MAX_MIB)),
        checkout: reader.word(&section, "checkout", &checkouts).unwrap_or(Checkout::Base),
    }
}

fn hooks(reader: &mut Reader<'_>, root: &Section<'_>) -> Hooks {
    let section = reader.section(root, "hooks", "hooks");
    let mut script = |key| reader.string(&section, key).filter(|text| !text.trim().is_empty());
    let (after_create, before_run) = (script("after_create"), script("before_run"));
    let (after_run, before_remove) = (script("after_run"), script("before_remove"));
    let timeout_ms = big(reader.number(&section, "timeout_ms", 60_000, 1..=MAX_MS));
    Hooks { after_create, before_run, after_run, before_remove, timeout_ms }
}

fn sandbox(reader: &mut Reader<'_>, root: &Section<'_>) -> Sandbox {
    let smolvm = root.get("smolvm").and_then(|node| node.as_map()).is_some_and(|entries| !entries.is_empty());
    let section = reader.section(root, "sandbox", "sandbox");
    let runtimes =
        [("auto", Runtime::Auto), ("jail", Runtime::Jail), ("qemu", Runtime::Qemu), ("smolvm", Runtime::Smolvm)];
    let runtime = reader.word(&section, "runtime", &runtimes).unwrap_or(Runtime::Auto);
    let minimums = [("jail", Minimum::Jail), ("microvm", Minimum::Microvm)];
    let minimum = reader.word(&section, "minimum", &minimums).unwrap_or(Minimum::Jail);
    let place = section.place_of("runtime");
    if runtime == Runtime::Jail && (minimum == Minimum::Microvm || smolvm) {
        let other = if smolvm { "a `smolvm` section" } else { "`sandbox.minimum: microvm`" };
        let message = format!("`sandbox.runtime: jail` contradicts {other}, which asks for a microVM");
        let problem = Problem::error(Code::Conflict, place, message).about("sandbox.runtime");
        reader.note(problem.hint("remove one of the two"));
    }
    let base = profiles::values(reader, &section);
    let listed = profiles::profiles(reader, &section);
    let profile = profiles::default_profile(reader, &section, &listed);
    let jail = reader.section(&section, "jail", "sandbox.jail");
    let mut read_only = Vec::new();
    for (text, place) in reader.strings(&jail, "read_only", true).unwrap_or_default() {
        match super::expand::path(&text, reader.place) {
            _ if text.trim().is_empty() => {}
            Ok(path) => read_only.push(path),
            Err(error) => {
                let message = format!("`sandbox.jail.read_only`: {error}");
                reader.note(Problem::error(Code::UnsetVariable, place, message).about("sandbox.jail.read_only"));
            }
        }
    }
    // What is written for every runtime holds for the jail too, unless its own key says otherwise.
    let mut limit = |key, general: Option<u64>, default, max| {
        let default = general.and_then(|written| i64::try_from(written).ok()).unwrap_or(default);
        big(reader.number(&jail, key, default, 0..=max))
    };
    let jail = Jail {
        read_only,
        memory_mib: limit("memory_mib", base.memory_mib, 4096, MAX_MIB),
        pids: limit("pids", base.pids, 512, MAX_COUNT),
        file_size_mib: limit("file_size_mib", base.file_size_mib, 4096, MAX_MIB),
    };
    Sandbox {
        runtime,
        minimum,
        reserve_mib: big(reader.number(&section, "reserve_mib", 512, 0..=MAX_MIB)),
        image: base.image,
        cpus: base.cpus.unwrap_or(2),
        memory_mib: base.memory_mib.unwrap_or(2048),
        disk_mib: base.disk_mib.unwrap_or(8192),
        pids: base.pids.unwrap_or(512),
        file_size_mib: base.file_size_mib.unwrap_or(4096),
        templates: reader.boolean(&section, "templates", true),
        profile,
        profiles: listed,
        jail,
    }
}

fn server(reader: &mut Reader<'_>, root: &Section<'_>) -> Server {
    let section = reader.section(root, "server", "server");
    // Digits in quotes are not a port, as in 0.1.0.
    let quoted = section.get("port").is_some_and(|node| node.as_str().is_some());
    let port = if quoted {
        let message = "`server.port` must be a number without quotes; there is no dashboard";
        let place = section.place_of("port");
        reader.note(Problem::warning(Code::WrongType, place, message).about("server.port").hint("remove the quotes"));
        None
    } else {
        reader.whole(&section, "port").and_then(|number| {
            let port = u16::try_from(number).ok();
            if port.is_none() {
                reader.invalid(&section, "port", "must be at least 0 and at most 65535", "0 takes any free port");
            }
            port
        })
    };
    let host = reader.filled(&section, "host").map_or_else(|| "127.0.0.1".to_owned(), |host| host.trim().to_owned());
    let auths = [("token", Auth::Token), ("none", Auth::None)];
    let auth = reader.word(&section, "auth", &auths).unwrap_or(Auth::Token);
    if auth == Auth::None && !is_loopback(&host) {
        let message = "`server.auth: none` is allowed only on a loopback address: anybody who reaches the address \
                       could command the agents";
        let problem = Problem::error(Code::OpenServerWithoutAuth, section.place_of("auth"), message);
        reader.note(problem.about("server.auth").hint("set `server.host: 127.0.0.1`, or use `server.auth: token`"));
    }
    Server { port, host, auth }
}

/// Whether only this machine reaches `host`. A name other than `localhost` is not trusted to.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<core::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn mcp(reader: &mut Reader<'_>, root: &Section<'_>) -> Mcp {
    let section = reader.section(root, "mcp", "mcp");
    for key in ["host", "host_url"] {
        let Some(node) = section.get(key) else { continue };
        // The default of 0.1.0, written out, asks for nothing.
        if node.as_str() != Some("127.0.0.1") {
            let message = format!("`mcp.{key}` is not used: agents reach our tools on their own loopback");
            let problem = Problem::warning(Code::Unused, section.place_of(key), message);
            reader.note(problem.about(format!("mcp.{key}")).hint("remove it"));
        }
    }
    Mcp {
        enabled: reader.boolean(&section, "enabled", true),
        host: Some(reader.string(&section, "host").unwrap_or_else(|| "127.0.0.1".to_owned())),
        host_url: reader.string(&section, "host_url"),
    }
}

fn handoff(reader: &mut Reader<'_>, root: &Section<'_>) -> Handoff {
    let section = reader.section(root, "handoff", "handoff");
    if reader.word(&section, "pull_request", &[("auto", true), ("never", false)]) == Some(true) {
        let message = "`handoff.pull_request: auto` does nothing yet";
        let problem = Problem::warning(Code::NotBuiltYet, section.place_of("pull_request"), message);
        reader.note(problem.about("handoff.pull_request").hint("open the pull request in `hooks.after_run` for now"));
    }
    Handoff { patch: reader.boolean(&section, "patch", true) }
}

fn budget(reader: &mut Reader<'_>, root: &Section<'_>) -> Budget {
    let section = reader.section(root, "budget", "budget");
    let mut counted = |key, default| count(reader.number(&section, key, default, 1..=MAX_COUNT));
    Budget {
        sessions: counted("sessions", 10),
        turns: counted("turns", 60),
        failures_in_a_row: counted("failures_in_a_row", 5),
        bounces: counted("bounces", 6),
        no_progress: counted("no_progress", 3),
        wall_ms: big(reader.number(&section, "wall_ms", 14_400_000, 1..=MAX_MS)),
    }
}

fn steering(reader: &mut Reader<'_>, root: &Section<'_>) -> Steering {
    let section = reader.section(root, "steering", "steering");
    let within = section.get("answer_within_ms").is_some();
    Steering {
        release_after_ms: big(reader.number(&section, "release_after_ms", 1_800_000, 1..=MAX_MS)),
        answer_within_ms: within.then(|| big(reader.number(&section, "answer_within_ms", MAX_MS, 1..=MAX_MS))),
        default_answer: reader
            .filled(&section, "default_answer")
            .unwrap_or_else(|| Steering::DEFAULT_ANSWER.to_owned()),
    }
}
