//! Every key of `WORKFLOW.md` with its default, once. Unknown keys are told by this table, and
//! `WORKFLOW.template.md` is tested against it.

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Dotted path; `*` stands for a name of the author's, `[]` for each item of a list.
    pub path: &'static str,
    /// The default as YAML; empty for a key that has children.
    pub default: &'static str,
}

const fn key(path: &'static str, default: &'static str) -> Key {
    Key { path, default }
}

/// The whole table, in the order of the template.
pub const KEYS: &[Key] = &[
    key("tracker", ""),
    key("tracker.kind", "local"),
    key("tracker.root", "./issues"),
    key("tracker.required_labels", "[]"),
    key("tracker.on_blocker_cancelled", "wait"),
    key("tracker.active_states", "[Todo, In Progress]"),
    key("tracker.terminal_states", "[Closed, Cancelled, Canceled, Duplicate, Done]"),
    key("states", ""),
    key("states.*", ""),
    key("states.*.role", "active"),
    key("states.*.adapter", "null"),
    key("states.*.model", "null"),
    key("states.*.effort", "null"),
    key("states.*.max_turns", "null"),
    key("states.*.max_concurrent", "null"),
    key("states.*.allowed_transitions", "null"),
    key("polling", ""),
    key("polling.interval_ms", "30000"),
    key("polling.watch", "true"),
    key("workspace", ""),
    key("workspace.root", ".symphony/workspaces"),
    key("workspace.source", "null"),
    key("workspace.base", "null"),
    key("workspace.seed", "all"),
    key("workspace.seed_max_mib", "2048"),
    key("workspace.export_max_mib", "512"),
    key("workspace.checkout", "base"),
    key("hooks", ""),
    key("hooks.after_create", "null"),
    key("hooks.before_run", "null"),
    key("hooks.after_run", "null"),
    key("hooks.before_remove", "null"),
    key("hooks.timeout_ms", "60000"),
    key("agent", ""),
    key("agent.max_concurrent_agents", "10"),
    key("agent.max_turns", "20"),
    key("agent.max_retry_backoff_ms", "300000"),
    key("agent.max_concurrent_agents_by_state", "{}"),
    key("acp", ""),
    key("acp.adapter", "claude"),
    key("acp.command", "null"),
    key("acp.shell", "bash"),
    key("acp.model", "null"),
    key("acp.effort", "null"),
    key("acp.resume", "true"),
    key("acp.boot_timeout_ms", "60000"),
    key("acp.read_timeout_ms", "30000"),
    key("acp.turn_timeout_ms", "3600000"),
    key("acp.stall_timeout_ms", "300000"),
    key("acp.prompt_timeout_ms", "3600000"),
    key("sandbox", ""),
    key("sandbox.runtime", "auto"),
    key("sandbox.minimum", "jail"),
    key("sandbox.reserve_mib", "512"),
    key("sandbox.image", "null"),
    key("sandbox.cpus", "2"),
    key("sandbox.memory_mib", "2048"),
    key("sandbox.disk_mib", "8192"),
    key("sandbox.pids", "512"),
    key("sandbox.file_size_mib", "4096"),
    key("sandbox.templates", "true"),
    key("sandbox.profile", "null"),
    key("sandbox.profiles", ""),
    key("sandbox.profiles.*", ""),
    key("sandbox.profiles.*.image", "null"),
    key("sandbox.profiles.*.cpus", "null"),
    key("sandbox.profiles.*.memory_mib", "null"),
    key("sandbox.profiles.*.disk_mib", "null"),
    key("sandbox.profiles.*.pids", "null"),
    key("sandbox.profiles.*.file_size_mib", "null"),
    key("sandbox.profiles.*.packages", "[]"),
    key("sandbox.jail", ""),
    key("sandbox.jail.read_only", "[]"),
    key("sandbox.jail.memory_mib", "4096"),
    key("sandbox.jail.pids", "512"),
    key("sandbox.jail.file_size_mib", "4096"),
    key("smolvm", ""),
    key("smolvm.image", "null"),
    key("smolvm.from", "null"),
    key("smolvm.cpus", "2"),
    key("smolvm.mem_mib", "2048"),
    key("smolvm.net", "false"),
    key("smolvm.bin_path", "null"),
    key("smolvm.volumes", "[]"),
    key("smolvm.forward_env", "[OPENAI_API_KEY, ANTHROPIC_API_KEY]"),
    key("smolvm.endpoint", "null"),
    key("credentials", "broker"),
    key("providers", ""),
    key("providers.anthropic", ""),
    key("providers.anthropic.base_url", "null"),
    key("providers.anthropic.api_key_env", "ANTHROPIC_API_KEY"),
    key("providers.anthropic.models", "null"),
    key("providers.anthropic.login", "false"),
    key("providers.openai", ""),
    key("providers.openai.base_url", "null"),
    key("providers.openai.api_key_env", "OPENAI_API_KEY"),
    key("providers.openai.models", "null"),
    key("providers.openai.login", "false"),
    key("egress", ""),
    key("egress.provider_tools", "false"),
    key("server", ""),
    key("server.port", "null"),
    key("server.host", "127.0.0.1"),
    key("server.auth", "token"),
    key("mcp", ""),
    key("mcp.enabled", "true"),
    key("mcp.host", "127.0.0.1"),
    key("mcp.host_url", "null"),
    key("handoff", ""),
    key("handoff.patch", "true"),
    key("handoff.pull_request", "never"),
    key("budget", ""),
    key("budget.sessions", "10"),
    key("budget.turns", "60"),
    key("budget.failures_in_a_row", "5"),
    key("budget.wall_ms", "14400000"),
    key("budget.bounces", "6"),
    key("budget.no_progress", "3"),
    key("steering", ""),
    key("steering.release_after_ms", "1800000"),
    key("steering.answer_within_ms", "null"),
    key("steering.default_answer", "null"),
    key("retention", ""),
    key("retention.workspaces_days", "7"),
    key("retention.work_disks_days", "7"),
    key("retention.templates", ""),
    key("retention.templates.max", "8"),
    key("retention.templates.days", "30"),
    key("retention.transcripts", ""),
    key("retention.transcripts.days", "30"),
    key("retention.transcripts.max_mib", "2048"),
    key("retention.journal_backups", ""),
    key("retention.journal_backups.max", "5"),
    key("retention.journal_backups.days", "0"),
    key("retention.journal_events", "50000"),
];

/// Keys of 0.1.0 that are read without complaint and do nothing here; the template leaves them out.
pub const VESTIGIAL: &[&str] = &["tracker.endpoint", "tracker.api_key", "tracker.project_slug", "tracker.provider"];

/// The names that may stand directly below `parent` (`""` is the top).
pub fn children(parent: &str) -> impl Iterator<Item = &'static str> {
    let paths = KEYS.iter().map(|key| key.path).chain(VESTIGIAL.iter().copied());
    let parent = parent.to_owned();
    paths.filter_map(move |path| {
        let rest = if parent.is_empty() { Some(path) } else { path.strip_prefix(&parent)?.strip_prefix('.') }?;
        (!rest.contains('.') && rest != "*").then_some(rest)
    })
}

/// The path of a key elsewhere that has this name: a key that slipped into the wrong section.
pub fn elsewhere(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| key.path)
        .find(|path| path.rsplit('.').next() == Some(name) && path.contains('.') && !path.contains('*'))
}
