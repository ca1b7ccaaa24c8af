//! Workflow files: defaults, expansion, and every complaint with its place.

use std::path::PathBuf;

use proptest::prelude::*;

mod barred;
mod providers;
mod spending;
mod steering;

use super::keys::KEYS;
use super::*;
use crate::yaml;

type Parsed = Result<(Workflow, Vec<Problem>), Vec<Problem>>;

fn parse(text: &str) -> Parsed {
    let env = |name: &str| (name == "ISSUES").then(|| "/from/env".to_owned());
    Workflow::parse(text, &Place { dir: "/w".into(), home: Some("/home/me".into()), env: &env })
}

/// A workflow of these settings that needs nothing else.
fn with(settings: &str) -> Parsed {
    let acp = if settings.contains("acp:") { "" } else { "acp: {adapter: script}\n" };
    let tracker = if settings.contains("tracker:") { "" } else { "tracker: {kind: local}\n" };
    parse(&format!("---\n{settings}\n{tracker}{acp}---\nwork on {{{{ issue.identifier }}}}\n"))
}

#[track_caller]
fn good(settings: &str) -> Workflow {
    let (workflow, problems) = with(settings).unwrap_or_else(|problems| panic!("{settings}: {problems:#?}"));
    assert_eq!(problems, [], "{settings}");
    workflow
}

#[track_caller]
fn warned(settings: &str) -> (Workflow, Problem) {
    let (workflow, problems) = with(settings).unwrap_or_else(|problems| panic!("{settings}: {problems:#?}"));
    let [problem] = problems.as_slice() else { panic!("{settings}: {problems:#?}") };
    assert_eq!(problem.severity, Severity::Warning, "{settings}");
    (workflow, problem.clone())
}

#[track_caller]
fn refused(settings: &str) -> Problem {
    let problems = with(settings).expect_err(settings);
    let errors: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    let [problem] = errors.as_slice() else { panic!("{settings}: {problems:#?}") };
    (*problem).clone()
}

const MINIMAL: &str = "---\ntracker:\n  kind: local\n---\n";

/// W1, W3.
#[test]
fn front_matter_and_body_are_told_apart() {
    let text =
        "---\ntracker: {kind: local}\nacp: {adapter: script}\nhooks:\n  after_run: |\n    ---\n    x\n---\n\n Body \n";
    let (workflow, problems) = parse(text).expect("valid");
    assert_eq!((workflow.prompt.as_str(), problems.len()), ("Body", 0));
    assert_eq!(workflow.hooks.after_run.as_deref(), Some("---\nx\n"));
    let crlf = parse(&text.replace('\n', "\r\n")).expect("valid").0;
    assert_eq!((crlf.prompt, crlf.hooks), (workflow.prompt, workflow.hooks));
}

/// W2, C37: no front matter is an empty configuration, which lacks the tracker's kind.
#[test]
fn a_file_without_front_matter_lacks_the_tracker_kind() {
    let problems = parse("just a prompt").expect_err("no kind");
    assert!(problems.iter().any(|problem| problem.code == Code::MissingTrackerKind), "{problems:?}");
    let late = parse(&format!("<!-- note -->\n{MINIMAL}")).expect_err("late fence");
    let kind = late.iter().find(|problem| problem.code == Code::MissingTrackerKind).expect("reported");
    assert!(kind.hint.as_deref().is_some_and(|hint| hint.contains("must start with")), "{kind}");
    assert_eq!(refused("tracker: {kind: linear}").code, Code::UnsupportedTrackerKind);
    for kind in ["local", "markdown", "file", "' local '"] {
        good(&format!("tracker: {{kind: {kind}}}"));
    }
}

/// W4, W5, C45, C68.
#[test]
fn paths_expand_and_an_unset_variable_is_an_error() {
    let workflow = good("tracker: {kind: local, root: $ISSUES}\nworkspace: {root: ~/ws, source: ../src}");
    assert_eq!(workflow.tracker.root, PathBuf::from("/from/env"));
    assert_eq!(workflow.workspace.root, PathBuf::from("/home/me/ws"));
    assert_eq!(workflow.workspace.source, Some(PathBuf::from("/src")));
    assert_eq!(good("acp: {command: $ISSUES}").acp.command.as_deref(), Some("$ISSUES"));
    for settings in ["tracker: {kind: local, root: $UNSET}", "workspace: {root: $UNSET}", "smolvm: {from: $UNSET}"] {
        let problem = refused(settings);
        assert_eq!((problem.code, problem.message.contains("UNSET")), (Code::UnsetVariable, true));
    }
    let alias = good("tracker: {kind: local, provider: {root: ./there, anything: 1}}");
    assert_eq!(alias.tracker.root, PathBuf::from("/w/there"));
    assert_eq!(refused("tracker: {kind: local, root: a, provider: {root: b}}").code, Code::Conflict);
}

/// W6, C41..C57.
#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let (workflow, problems) = parse(MINIMAL).expect("in force");
    assert_eq!(problems, []);
    assert_eq!((workflow.polling.interval_ms, workflow.polling.watch), (30_000, true));
    assert_eq!((workflow.agent.max_concurrent_agents, workflow.agent.max_turns), (10, 20));
    assert_eq!(workflow.agent.max_retry_backoff_ms, 300_000);
    assert_eq!((workflow.acp.command.as_deref(), workflow.acp.shell.as_str()), (None, "bash"));
    assert_eq!(workflow.acp.adapter, Adapter::Claude);
    assert_eq!((workflow.acp.prompt_timeout_ms, workflow.acp.stall_timeout_ms), (3_600_000, 300_000));
    assert_eq!(workflow.tracker.root, PathBuf::from("/w/issues"));
    assert_eq!(workflow.workspace.root, PathBuf::from("/w/.symphony/workspaces"));
    let names: Vec<_> = workflow.states.with_role(Role::Active).map(StateName::as_str).collect();
    assert_eq!(names, ["Todo", "In Progress"]);
    let names: Vec<_> = workflow.states.with_role(Role::Terminal).map(StateName::as_str).collect();
    assert_eq!(names, ["Closed", "Cancelled", "Canceled", "Duplicate", "Done"]);
    assert_eq!(workflow.states.done_target().as_str(), "Done");
    assert_eq!((workflow.server.port, workflow.server.host.as_str()), (None, "127.0.0.1"));
    let budget =
        Budget { sessions: 10, turns: 60, failures_in_a_row: 5, wall_ms: 14_400_000, bounces: 6, no_progress: 3 };
    assert_eq!(workflow.budget, budget);
    assert_eq!(workflow.tracker.on_blocker_cancelled, OnBlockerCancelled::Wait);
}

/// V1..V4, C78: the known adapters need no command; one replaces those that are not known.
#[test]
fn an_adapter_is_known_or_replaced_by_a_command() {
    for adapter in ["claude", "codex", "opencode", "gemini", "script"] {
        assert_eq!(good(&format!("acp:\n  adapter: {adapter}")).acp.adapter.name(), adapter);
    }
    let unknown = refused("acp: {adapter: claud}");
    assert_eq!(unknown.code, Code::UnknownAdapter);
    assert!(unknown.hint.as_deref().is_some_and(|h| h.contains("did you mean `claude`?") && h.contains("`script`")));
    assert_eq!(warned("acp: {adapter: goose, command: goose acp}").1.code, Code::UnknownAdapter);
    assert_eq!(refused("acp: {adapter: script, command: ' '}").code, Code::InvalidValue);
}

#[test]
fn an_agent_needs_the_providers_of_its_models() {
    let of = |adapter: Adapter, model| adapter.providers(model).iter().map(|one| one.name()).collect::<Vec<_>>();
    assert_eq!(of(Adapter::Claude, Some("openai/x")), ["anthropic"]);
    assert_eq!(of(Adapter::Codex, None), ["openai"]);
    assert_eq!(of(Adapter::OpenCode, Some("anthropic/x")), ["anthropic"]);
    assert_eq!(of(Adapter::OpenCode, Some("openai/x/y")), ["openai"]);
    assert_eq!(of(Adapter::OpenCode, Some("google/x")), ["google"]);
    assert_eq!(of(Adapter::OpenCode, None), ["anthropic", "openai", "google"]);
    assert_eq!(of(Adapter::Gemini, Some("anthropic/x")), ["google"]);
    assert!(of(Adapter::Script, Some("x")).is_empty());
}

/// C32, C33.
#[test]
fn broken_front_matter_says_where() {
    for (text, code, place) in [
        ("---\na: 1\n", Code::WorkflowParseError, (1, 1)),
        ("---\n- a\n---\n", Code::FrontMatterNotAMap, (2, 1)),
        ("---\ntext\n---\n", Code::FrontMatterNotAMap, (2, 1)),
        ("---\nhooks: {}\nhooks: {}\n---\n", Code::WorkflowParseError, (3, 1)),
    ] {
        let problems = parse(text).expect_err(text);
        assert_eq!((problems[0].code, (problems[0].line, problems[0].column)), (code, place), "{text}");
    }
    for (front, place, hint) in [
        ("a: [b, c\nd: 1", (3, 2), "not closed"),
        ("a: b: c", (2, 5), "in quotes"),
        ("a:\n  b: 1\n c: 2", (4, 2), "indentation"),
    ] {
        let problem = &parse(&format!("---\n{front}\n---\n")).expect_err(front)[0];
        assert_eq!((problem.line, problem.column), place, "{problem}");
        assert!(problem.hint.as_deref().is_some_and(|text| text.contains(hint)), "{problem}");
    }
    let tab = &parse("---\nagent:\n\tmax_turns: 1\n---\n").expect_err("tab")[0];
    assert_eq!((tab.line, tab.hint.as_deref()), (3, Some("indent with spaces")), "{tab}");
}

#[test]
fn unknown_keys_warn_with_place_and_meaning() {
    for (settings, message, hint) in [
        ("poling: {interval_ms: 5}", "`poling`", Some("did you mean `polling`?")),
        ("agent:\n  max-turn: 3", "`agent.max-turn`", Some("did you mean `max_turns`?")),
        ("max_turns: 3", "`max_turns`", Some("did you mean `agent.max_turns`?")),
        ("sandbox: {jail: {pid: 3}}", "`sandbox.jail.pid`", Some("did you mean `pids`?")),
        ("zebra: 1", "`zebra`", None),
    ] {
        let (_, problem) = warned(settings);
        assert_eq!((problem.code, problem.hint.as_deref()), (Code::UnknownKey, hint), "{settings}");
        assert!(problem.message.contains(message), "{problem}");
    }
    let (_, problem) = warned("agent:\n  max_trns: 3");
    assert_eq!(
        problem.to_string(),
        "3:3: unknown key `agent.max_trns`, it is ignored (hint: did you mean `max_turns`?)"
    );
}

/// Coercion of 0.1.0, made visible.
#[test]
fn wrong_types_keep_the_default_and_warn() {
    for settings in [
        "polling: {interval_ms: soon}",
        "polling: {watch: yes}",
        "agent: 5",
        "hooks: {after_run: [a]}",
        "mcp: {enabled: 'false'}",
        "server: {port: '8080'}",
        "agent: {max_concurrent_agents_by_state: {Todo: 0}}",
        "agent: {max_concurrent_agents_by_state: {Tood: 2}}",
        "agent: {max_concurrent_agents_by_state: 3}",
        "tracker: {kind: local, active_states: [Todo, 5]}",
        "smolvm: {forward_env: HOME}",
        "handoff: {pull_request: auto}",
        "agent: {max_concurrent_agents: 0}",
    ] {
        let (workflow, problem) = warned(settings);
        assert!(workflow.polling.watch && workflow.mcp.enabled && problem.key.is_some(), "{settings}");
    }
    let workflow =
        good("polling: {interval_ms: '250'}\nagent: {max_turns: 3.9}\nacp: {adapter: script, stall_timeout_ms: -1}");
    assert_eq!((workflow.polling.interval_ms, workflow.agent.max_turns), (250, 3));
    assert_eq!(workflow.acp.stall_timeout_ms, 0);
}

#[test]
fn meaningless_or_dangerous_values_are_errors() {
    for settings in [
        "polling: {interval_ms: 0}",
        "hooks: {timeout_ms: 0}",
        "agent: {max_turns: 0}",
        "agent: {max_turns: -2}",
        "agent: {max_retry_backoff_ms: -1}",
        "acp: {adapter: script, read_timeout_ms: 0}",
        "acp: {adapter: script, prompt_timeout_ms: 9e14}",
        "server: {port: 70000}",
        "server: {auth: off}",
        "sandbox: {runtime: docker}",
        "sandbox: {minimum: vm}",
        "workspace: {seed: everything}",
        "tracker: {kind: local, active_states: 'Todo, Doing'}",
        "tracker: {kind: local, required_labels: bug}",
        "tracker: {kind: local, active_states: ['a/b']}",
        "tracker: {kind: local, active_states: [..]}",
        "budget: {sessions: 0}",
    ] {
        let problem = refused(settings);
        assert!(problem.code == Code::InvalidValue && !problem.message.is_empty(), "{settings}: {problem}");
    }
    assert!(refused("tracker: {kind: local, active_states: 'Todo, Doing'}").to_string().contains("`[Todo, Doing]`"));
}

#[test]
fn a_rescue_gets_the_larger_of_the_profiles_and_the_usual_sizes_and_never_less_than_the_defaults() {
    use crate::runtimes::Kind;
    let workflow = good(
        "sandbox:\n  memory_mib: 1024\n  disk_mib: 100\n  jail: {memory_mib: 64, pids: 9, file_size_mib: 1}\n  profiles:\n    big: {cpus: 8, memory_mib: 9000, \
         disk_mib: 9000, pids: 0, file_size_mib: 0, image: vm/big, packages: [curl]}",
    );
    let sandbox = &workflow.sandbox;
    let big = sandbox.profile_of(Some("big")).expect("listed");
    let jail = sandbox.rescue_sizes(None, Kind::Jail, &workflow.smolvm);
    assert_eq!((jail.memory_mib, jail.pids, jail.file_size_mib, jail.disk_mib), (4096, 512, 4096, 0));
    let usual = sandbox.rescue_sizes(None, Kind::QemuKvm, &workflow.smolvm);
    assert_eq!((usual.cpus, usual.memory_mib, usual.disk_mib, usual.file_size_mib), (2, 1024, 100, 4096));
    let large = sandbox.rescue_sizes(big, Kind::QemuKvm, &workflow.smolvm);
    assert_eq!((large.cpus, large.memory_mib, large.disk_mib, large.image), (8, 9000, 9000, None));
    assert!(large.pids > 1 << 20 && large.file_size_mib > 1 << 20, "no limit stays none");
    assert!(large.packages.is_empty(), "work is not kept waiting for what only the agent needs");
}

#[test]
fn a_profile_falls_back_to_the_sandbox_and_a_jail_to_its_own_limits() {
    use crate::runtimes::Kind;
    let workflow = good(
        "sandbox:\n  cpus: 4\n  disk_mib: 100\n  profile: small\n  jail: {pids: 9}\n  profiles:\n    small: {memory_mib: 128}\n    \
         big: {image: vm/big, cpus: 8, pids: 0, packages: [python3-venv, g++, g++]}\n    empty:",
    );
    let sandbox = &workflow.sandbox;
    let sizes = |name, kind| sandbox.sizes(sandbox.profile_of(name).expect("listed"), kind, &workflow.smolvm);
    let small = sizes(None, Kind::QemuKvm);
    assert_eq!((small.cpus, small.memory_mib, small.disk_mib, small.pids, small.image), (4, 128, 100, 512, None));
    let big = sizes(Some("big"), Kind::QemuTcg);
    assert_eq!((big.cpus, big.memory_mib, big.pids, big.file_size_mib), (8, 2048, 1 << 22, 4096), "0 is no limit");
    assert_eq!(
        (big.image, big.packages),
        (Some("/w/vm/big".into()), vec!["python3-venv".to_owned(), "g++".to_owned()])
    );
    let jail = sizes(Some("empty"), Kind::Jail);
    assert_eq!((jail.cpus, jail.memory_mib, jail.disk_mib, jail.pids, jail.file_size_mib), (0, 4096, 0, 9, 4096));
    assert_eq!(sizes(None, Kind::Jail).memory_mib, 128);
    assert_eq!(sizes(Some("empty"), Kind::Smolvm).cpus, 4);
    let unlisted = sandbox.profile_of(Some("Big")).expect_err("no fallback").to_string();
    assert!(unlisted.contains("`Big`") && unlisted.contains("small, big, empty"), "{unlisted}");
    let general = good("sandbox: {memory_mib: 700, pids: 7, jail: {pids: 8}}").sandbox;
    assert_eq!((general.jail.memory_mib, general.jail.pids, general.jail.file_size_mib), (700, 8, 4096));
    let smolvm = good("smolvm: {mem_mib: 99, image: 'alpine:3'}");
    let sizes = smolvm.sandbox.sizes(None, Kind::Smolvm, &smolvm.smolvm);
    assert_eq!((sizes.memory_mib, sizes.cpus, sizes.image), (99, 2, Some("alpine:3".into())));
}

#[test]
fn a_profile_that_cannot_be_is_an_error_at_its_place() {
    for (settings, said) in [
        ("sandbox: {profile: big}", "it lists none"),
        ("sandbox: {profile: bgi, profiles: {big: {}}}", "did you mean `big`?"),
        ("sandbox: {profiles: [big]}", "must be a map"),
        ("sandbox: {profiles: {big: 5}}", "must be a map"),
        ("sandbox: {profiles: {'a b': {}}}", "no name for a profile"),
        ("sandbox: {profiles: {big: {cpus: 0}}}", "at least 1"),
        ("sandbox: {disk_mib: 262145}", "at most 262144"),
        ("sandbox: {profiles: {big: {packages: [Rust]}}}", "no name of a Debian package"),
        ("sandbox: {profiles: {big: {packages: ['-x']}}}", "no name of a Debian package"),
        ("sandbox: {profiles: {big: {packages: git}}}", "must be a list"),
    ] {
        let problem = refused(settings).to_string();
        assert!(problem.starts_with("2:") && problem.contains(said), "{settings}: {problem}");
    }
    let (_, problem) = warned("sandbox: {profiles: {big: {memory_mb: 5}}}");
    assert_eq!(problem.hint.as_deref(), Some("did you mean `memory_mib`?"));
}

#[test]
fn contradictions_are_errors() {
    for settings in [
        "tracker: {kind: local, active_states: [Todo], terminal_states: [todo]}",
        "tracker: {kind: local, active_states: [Todo]}\nstates: {Todo: {role: active}, Done: {role: terminal}}",
        "states: {Todo: {role: active}, TODO: {role: holding}, Done: {role: terminal}}",
        "sandbox: {runtime: jail, minimum: microvm}",
        "sandbox: {runtime: jail}\nsmolvm: {cpus: 1}",
    ] {
        assert_eq!(refused(settings).code, Code::Conflict, "{settings}");
    }
    assert_eq!(refused("server: {auth: none, host: 0.0.0.0}").code, Code::OpenServerWithoutAuth);
    good("server: {auth: none, host: '[::1]'}");
    good("server: {host: 0.0.0.0, port: 0}");
}

#[test]
fn a_written_active_state_may_be_one_of_the_default_terminal_ones() {
    let states = good("tracker: {kind: local, active_states: [Closed]}").states;
    assert_eq!(states.role(&StateName::new("closed")), Role::Active);
}

#[test]
fn states_carry_their_rules_in_order() {
    let workflow = good(
        "states:\n  Todo: {role: active, max_turns: 3, max_concurrent: 2, adapter: script, model: m}\n  \
         Review: {role: active, allowed_transitions: [todo, Done]}\n  Held: {role: holding}\n  Done: {role: terminal}\n\
         agent: {max_concurrent_agents_by_state: {review: 4}}",
    );
    let rules: Vec<_> = workflow.states.rules.iter().collect();
    assert_eq!(rules.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["Todo", "Review", "Held", "Done"]);
    assert_eq!((rules[0].1.max_turns, rules[0].1.max_concurrent), (Some(3), Some(2)));
    assert_eq!((rules[0].1.adapter, rules[0].1.model.as_deref()), (Some(Adapter::Script), Some("m")));
    assert_eq!(rules[1].1.max_concurrent, Some(4));
    assert_eq!(rules[1].1.allowed_transitions.as_ref().map(Vec::len), Some(2));
    assert_eq!(workflow.states.parking().as_str(), "Held");
    assert!(workflow.states.declared);
    for settings in [
        "states: {}",
        "states: {Todo: active, Done: {role: terminal}, X: {role: active}}",
        "states: {Todo: {}, X: {role: active}, Done: {role: terminal}}",
        "states: {Todo: {role: busy}, X: {role: active}, Done: {role: terminal}}",
        "states: {Todo: {role: 3, all 6}}",
        "states: {Todo: {role: active}}",
        "states: {Todo: {role: active, allowed_transitions: [Dne]}, Done: {role: terminal}}",
    ] {
        assert_eq!(refused(settings).code, Code::InvalidValue, "{settings}");
    }
}

#[test]
fn each_state_decides_about_its_agent_and_falls_back_to_the_workflow() {
    let workflow = good(
        "acp: {adapter: codex, command: x --acp, model: big, effort: high}\nagent: {max_turns: 7}\nstates:\n  Todo: {role: active}\n  \
         Review: {role: active, adapter: claude, model: small, effort: low, max_turns: 2}\n  \
         Chores: {role: active, adapter: script}\n  Done: {role: terminal}",
    );
    let agent = |state: &str| {
        let of = workflow.agent_of(&StateName::new(state));
        (of.adapter, of.command, of.model, of.max_turns)
    };
    let effort = |state: &str| workflow.agent_of(&StateName::new(state)).effort.map(Effort::name);
    assert_eq!((effort("Todo"), effort("Review")), (Some("high"), Some("low")));
    assert!(
        refused("acp: {adapter: codex, effort: hihg}").hint.is_some_and(|hint| hint.contains("did you mean `high`"))
    );
    assert_eq!(agent("todo"), (Adapter::Codex, Some("x --acp"), Some("big"), 7));
    assert_eq!(agent("Review"), (Adapter::Claude, Some("x --acp"), Some("small"), 2));
    assert_eq!(agent("Chores"), (Adapter::Script, None, Some("big"), 7), "what is built in needs no command");
}

#[test]
fn parked_and_proposed_issues_never_land_in_a_state_somebody_works_in() {
    let workflow = good("acp: {adapter: script}\nstates: {Triage: {role: active}, Parked: {role: terminal}}");
    for state in [workflow.states.triage(), workflow.states.parking()] {
        assert_eq!(workflow.states.role(&state), Role::Holding, "{state}");
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let problems =
        parse("---\ntracker: {kind: nope}\nagent: {max_turns: 0}\nzzz: 1\npolling: {interval_ms: 0}\n---\n{{ nope }}")
            .expect_err("wrong");
    let lines: Vec<_> = problems.iter().map(|problem| problem.line).collect();
    assert!(lines.is_sorted(), "{lines:?}");
    for line in [2, 3, 4, 5, 7] {
        assert!(lines.contains(&line), "line {line} in {problems:#?}");
    }
}

/// C36 as decided: a template that cannot be filled in is a problem of the file, at its line.
#[test]
fn a_wrong_prompt_is_a_problem_at_its_line() {
    let problems = parse(&format!("{MINIMAL}\n\nHello\n{{% if issue.nope %}}{{% endif %}}")).expect_err("wrong");
    let [problem] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!((problem.code, problem.line), (Code::TemplateRenderError, 8), "{problem}");
}

/// C233.
#[test]
fn a_literal_secret_warns_and_is_not_repeated() {
    let token = format!("sk-ant-{}", "a1b2".repeat(6));
    for settings in [
        format!("tracker: {{kind: local, api_key: {token}}}"),
        "tracker: {kind: local, api_key: hunter2}".to_owned(),
        format!("hooks: {{before_run: 'export KEY={token}'}}"),
    ] {
        let (_, problem) = warned(&settings);
        assert_eq!(problem.code, Code::LiteralSecret, "{settings}");
        assert!(!format!("{problem:?}").contains("hunter2") && !format!("{problem:?}").contains(&token));
    }
    good("tracker: {kind: local, api_key: $LINEAR_API_KEY}");
}

#[test]
fn a_full_file_of_0_1_0_works() {
    let (workflow, problems) = with(
        "tracker: {kind: local, root: ./issues, endpoint: x, project_slug: y, active_states: [Todo], terminal_states: [Done]}\n\
         smolvm: {image: i, cpus: 4, mem_mib: 4096, net: false, volumes: [{host: ~/c, guest: /c, readonly: true}], \
         forward_env: [], endpoint: unix:///x}\nserver: {port: 8787, host: 127.0.0.1}\n\
         mcp: {enabled: true, host: 127.0.0.1, host_url: 'http://h:1/'}",
    )
    .expect("in force");
    let unused: Vec<_> = problems.iter().map(|problem| (problem.code, problem.key.as_deref())).collect();
    assert_eq!(unused, [(Code::Unused, Some("smolvm.endpoint")), (Code::Unused, Some("mcp.host_url"))]);
    assert!(workflow.smolvm.present && !workflow.smolvm.net && workflow.smolvm.forward_env.is_empty());
    assert_eq!(workflow.smolvm.volumes[0].host, PathBuf::from("/home/me/c"));
    assert_eq!((workflow.smolvm.endpoint.as_deref(), workflow.server.port), (Some("unix:///x"), Some(8787)));
}

#[test]
fn what_a_machine_does_not_give_is_said_where_it_is_asked_for() {
    let (_, problem) = warned("smolvm: {image: i, net: true}");
    assert_eq!((problem.code, problem.line, problem.column), (Code::Unused, 2, 20));
    assert!(problem.to_string().contains("egress.allow"), "{problem}");
    // ISSUES is set, NOTHING is not, and the default list asks for nothing.
    let (_, problem) = warned("smolvm: {forward_env: [NOTHING, ISSUES]}");
    assert!(problem.message.contains("ISSUES is not forwarded"), "{problem}");
    assert!(!problem.to_string().contains("/from/env"), "{problem}");
    good("smolvm: {image: i}");
    for writable in ["{host: /h, guest: /g}", "{host: /h, guest: /g, readonly: false}"] {
        let problem = refused(&format!("smolvm: {{volumes: [{writable}]}}"));
        assert_eq!(problem.code, Code::InvalidValue);
        assert!(problem.to_string().contains("readonly: true"), "{problem}");
    }
}

const TEMPLATE: &str = include_str!("../../../WORKFLOW.template.md");

/// The template with every `#key:` line in force; prose comments start with `# `.
fn uncommented() -> String {
    let on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with("  ") || !rest.starts_with(' ') => rest.to_owned(),
        _ => line.to_owned(),
    };
    TEMPLATE.lines().map(on).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_stands_in_the_template_with_its_default() {
    let text = uncommented();
    let parts = split::split(&text).expect("fences");
    let root = yaml::parse(parts.front.expect("front matter"), 1).expect("valid YAML");
    for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
        let mut node = Some(&root);
        for part in key.path.split('.') {
            node = match part {
                "*" => node.and_then(|node| node.as_map()?.first()).map(|entry| &entry.value),
                name => node.and_then(|node| node.get(name)),
            };
        }
        let shown = node.unwrap_or_else(|| panic!("`{}` is missing in the template", key.path));
        let default = yaml::parse(key.default, 0).expect("valid default");
        assert_eq!(plain(shown), plain(&default), "`{}` at line {}", key.path, shown.line);
    }
}

/// A value without its place.
fn plain(node: &yaml::Node) -> String {
    match &node.kind {
        yaml::Kind::Seq(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_template_parses_and_says_the_defaults() {
    let (template, problems) = parse(TEMPLATE).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(problems, []);
    let (minimal, _) = parse(MINIMAL).expect("in force");
    assert_eq!(Workflow { prompt: String::new(), ..template }, minimal);
    let without_states = uncommented().replace("\n  active_states:", "\n  #").replace("\n  terminal_states:", "\n  #");
    let problems = parse(&without_states).map_or_else(|problems| problems, |(_, problems)| problems);
    assert_eq!(problems, []);
}

proptest! {
    #[test]
    fn any_bytes_in_no_panic_out(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse(&text);
        let _ = parse(&format!("---\n{text}\n---\n"));
    }

    #[test]
    fn any_settings_in_no_panic_out(key in 0..KEYS.len(), value in "[-a-zA-Z0-9 ,.:/$~\\[\\]{}'\"]{0,24}") {
        let mut text = String::from("---\n");
        for (depth, part) in KEYS[key].path.split('.').enumerate() {
            text.push_str(&format!("\n{}{}:", "  ".repeat(depth), if part == "*" { "Todo" } else { part }));
        }
        let parsed = parse(&format!("{text} {value}\n---\nbody"));
        let problems = parsed.map_or_else(|problems| problems, |(_, problems)| problems);
        prop_assert!(problems.iter().all(|problem| problem.line >= 1 && problem.column >= 1));
    }
}

/// Regression: a wrong type below `sandbox` was a warning, and the default, which may be weaker, applied.
#[test]
fn retention_reads_every_key_and_a_wrong_type_in_it_is_an_error_with_its_place() {
    let with =
        |settings: &str| parse(&format!("---\ntracker: {{kind: local}}\nacp: {{adapter: script}}\n{settings}\n---\n"));
    let (workflow, problems) = with(
        "retention:\n  workspaces_days: 1\n  work_disks_days: 2\n  templates: {max: 3, days: 4}\n  transcripts: {days: 5, max_mib: 6}\n  journal_backups: {max: 7, days: 8}\n  journal_events: 9",
    )
    .expect("in force");
    assert_eq!(problems, []);
    let expected = Retention {
        workspaces_days: 1,
        work_disks_days: 2,
        templates: Bounds { max: 3, days: 4 },
        transcripts: Transcripts { days: 5, max_mib: 6 },
        journal_backups: Bounds { max: 7, days: 8 },
        journal_events: 9,
    };
    assert_eq!(workflow.retention, expected);
    for (settings, about, place) in [
        ("retention: 7", "retention", (4, 1)),
        ("retention:\n  work_disks_days: a week", "retention.work_disks_days", (5, 20)),
        ("retention:\n  templates: [3]", "retention.templates", (5, 3)),
        ("retention:\n  transcripts: {days: {}}", "retention.transcripts.days", (5, 23)),
        ("retention:\n  workspaces_days: -1", "retention.workspaces_days", (5, 20)),
    ] {
        let problems = with(settings).expect_err("not in force");
        let problem = problems.iter().find(|problem| problem.is_error()).expect("an error");
        assert_eq!((problem.key.as_deref(), (problem.line, problem.column)), (Some(about), place), "{settings}");
    }
    let (_, problems) = with("retention:\n  workspace_days: 1\n  templates: {mx: 1}").expect("in force");
    let hints: Vec<_> = problems.iter().map(|problem| problem.hint.as_deref().unwrap_or_default()).collect();
    assert_eq!(hints, ["did you mean `workspaces_days`?", "did you mean `max`?"]);
}

#[test]
fn a_wrong_type_below_sandbox_is_an_error_and_never_the_default() {
    for (settings, about) in [
        ("sandbox: microvm", "sandbox"),
        ("smolvm: true", "smolvm"),
        ("sandbox: {runtime: [qemu]}", "sandbox.runtime"),
        ("sandbox: {minimum: [microvm]}", "sandbox.minimum"),
        ("sandbox: {image: {dir: /x}}", "sandbox.image"),
        ("sandbox: {profile: [big], profiles: {big: {}}}", "sandbox.profile"),
        ("sandbox: {memory_mib: lots}", "sandbox.memory_mib"),
        ("sandbox: {jail: {pids: few}}", "sandbox.jail.pids"),
        ("sandbox: {profiles: {big: {image: 5}}}", "sandbox.profiles.big.image"),
        ("sandbox: {profiles: {big: {cpus: many}}}", "sandbox.profiles.big.cpus"),
        ("sandbox: {profiles: {big: {packages: [5]}}}", "sandbox.profiles.big.packages"),
        ("sandbox: {profiles: {big: {packages: {a: b}}}}", "sandbox.profiles.big.packages"),
    ] {
        let problem = refused(settings);
        assert_eq!((problem.code, problem.key.as_deref()), (Code::WrongType, Some(about)), "{settings}");
        assert!(!problem.message.contains("applies") && !problem.message.contains("ignored"), "{}", problem.message);
    }
    assert!(warned("polling: {interval_ms: often}").1.message.ends_with("; the default applies"));
}

#[test]
fn a_key_that_only_a_profile_has_is_sent_there() {
    let hint = warned("sandbox: {packages: [curl]}").1.hint.expect("a hint");
    assert_eq!(hint, "it belongs in a profile: `sandbox.profiles.<name>.packages`");
}
