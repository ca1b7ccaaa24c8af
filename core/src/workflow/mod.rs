//! `WORKFLOW.md`: the typed truth. Parsing and its messages live beside this file.
//!
//! Knows nothing of files or the environment: paths are resolved against the directory it is handed.

mod adapter;
mod barred;
mod directories;
mod egress;
pub mod expand;
pub mod keys;
mod parse;
mod per_state;
pub mod problem;
mod profiles;
mod providers;
mod read;
mod retention;
mod secrets;
mod smolvm;
mod spending;
mod split;
mod states;
#[cfg(test)]
mod tests;

pub use adapter::{Adapter, Effort};
pub use barred::Barred;
pub use expand::Place;
pub use parse::is_loopback;
pub use per_state::{AgentOf, NoMove};
pub use problem::{Code, Problem, Severity};
pub(crate) use profiles::listed;
pub use profiles::{NoProfile, Profile, Sizes};
pub use providers::{Models, ProviderRule};
pub use retention::{Bounds, Retention, Transcripts};

use std::collections::BTreeMap;
use std::path::PathBuf;

use indexmap::IndexMap;

use crate::egress::AllowList;
use crate::ids::StateName;

/// A workflow that passed every check; relative paths are already absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// The directory of `WORKFLOW.md`; `.symphony/` stands in it.
    pub dir: PathBuf,
    /// The Liquid body, trimmed; empty means the default prompt.
    pub prompt: String,
    /// Where issues are.
    pub tracker: Tracker,
    /// What each state means, in declaration order.
    pub states: States,
    /// `polling.*`
    pub polling: Polling,
    /// `workspace.*`
    pub workspace: Workspace,
    /// `hooks.*`
    pub hooks: Hooks,
    /// `agent.*`
    pub agent: Agent,
    /// `acp.*`
    pub acp: Acp,
    /// `sandbox.*`
    pub sandbox: Sandbox,
    /// `smolvm.*`, read and kept for the smolvm runtime.
    pub smolvm: Smolvm,
    /// `server.*`
    pub server: Server,
    /// `mcp.*`
    pub mcp: Mcp,
    /// `handoff.*`
    pub handoff: Handoff,
    /// `budget.*`
    pub budget: Budget,
    /// `steering.*`
    pub steering: Steering,
    /// `retention.*`
    pub retention: Retention,
    /// `credentials`, `providers.*`, `egress.provider_tools`
    pub models: Models,
    /// `egress.allow`: hosts that every run may reach.
    pub egress: AllowList,
    /// `prices`, and what `budget.*` says of tokens and money.
    pub spending: crate::spend::Rules,
}

impl Workflow {
    /// Names the prompt: another text has another name.
    pub fn prompt_key(&self) -> String {
        crate::ids::hash16(&self.prompt)
    }
}

/// `tracker.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Tracker {
    /// The directory whose first-level directories are states.
    pub root: PathBuf,
    /// An issue needs all of them to be dispatched (C40), trimmed and lower-cased.
    pub required_labels: Vec<String>,
    /// What an issue does whose blocker was cancelled.
    pub on_blocker_cancelled: OnBlockerCancelled,
}

/// `tracker.on_blocker_cancelled`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBlockerCancelled {
    /// It waits, and says so, until a person edits it.
    Wait,
    /// It goes on as if the blocker were done.
    Unblock,
    /// It is parked.
    Park,
}

/// The role a state plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its issues are dispatched.
    Active,
    /// Its issues are finished.
    Terminal,
    /// Nobody touches its issues.
    Holding,
}

/// Every state with a role; a directory that is not listed is holding.
#[derive(Clone, Debug, PartialEq)]
pub struct States {
    /// In declaration order.
    pub rules: IndexMap<StateName, StateRule>,
    /// Whether the file used `states:` rather than the lists of 0.1.0.
    pub declared: bool,
}

/// One entry of `states:`.
#[derive(Clone, Debug, PartialEq)]
pub struct StateRule {
    /// What the state means.
    pub role: Role,
    /// Overrides `acp.adapter`.
    pub adapter: Option<Adapter>,
    /// Overrides `acp.model`.
    pub model: Option<String>,
    /// Overrides `acp.effort`.
    pub effort: Option<Effort>,
    /// Overrides `agent.max_turns`.
    pub max_turns: Option<u32>,
    /// At most so many runs of issues in this state.
    pub max_concurrent: Option<u32>,
    /// States an agent may move an issue to from here; `None` is any.
    pub allowed_transitions: Option<Vec<StateName>>,
}

impl StateRule {
    /// A state of this role with no rules of its own.
    pub fn of(role: Role) -> Self {
        Self {
            role,
            adapter: None,
            model: None,
            effort: None,
            max_turns: None,
            max_concurrent: None,
            allowed_transitions: None,
        }
    }
}

/// Names of terminal states that mean an issue was given up, folded.
const CANCELLED: [&str; 7] = ["cancelled", "canceled", "duplicate", "rejected", "discarded", "won't do", "wontfix"];

impl States {
    /// The role of `state`; an unlisted directory is holding.
    pub fn role(&self, state: &StateName) -> Role {
        self.rules.get(state).map_or(Role::Holding, |rule| rule.role)
    }

    /// Where `mark_done` moves an issue: the terminal state named `done`, else the first terminal one.
    pub fn done_target(&self) -> StateName {
        let terminal = |(name, rule): (&StateName, &StateRule)| (rule.role == Role::Terminal).then(|| name.clone());
        let named = StateName::new("done");
        self.rules
            .iter()
            .filter_map(terminal)
            .find(|name| *name == named)
            .or_else(|| self.rules.iter().find_map(terminal))
            .unwrap_or_else(|| StateName::new("Done"))
    }

    /// Where a parked issue goes: the declared holding state named `parked`, else the first holding
    /// one, else `Parked`, which is created on demand (DESIGN §6).
    pub fn parking(&self) -> StateName {
        self.holding_named("Parked")
    }

    /// Where an issue goes that an agent proposes: the declared holding state named `triage`, else the first
    /// holding one, else `Triage`, which is created on demand (DESIGN §6).
    pub fn triage(&self) -> StateName {
        self.holding_named("Triage")
    }

    /// Where discarded issues go: the first terminal state that means cancelled, else the first terminal one.
    pub fn discard_target(&self) -> StateName {
        let cancelled = self.with_role(Role::Terminal).find(|name| self.is_cancelled(name));
        cancelled.or_else(|| self.with_role(Role::Terminal).next()).cloned().unwrap_or_else(|| StateName::new("Done"))
    }

    /// Whether `state` is a terminal one whose issues were given up rather than finished.
    pub fn is_cancelled(&self, state: &StateName) -> bool {
        self.role(state) == Role::Terminal && CANCELLED.contains(&state.folded().as_str())
    }

    fn holding_named(&self, name: &str) -> StateName {
        let mut named = StateName::new(name);
        let mut holding = self.with_role(Role::Holding);
        if let Some(found) = holding.clone().find(|state| **state == named).or_else(|| holding.next()) {
            return found.clone();
        }
        // Declared with another role, it is no place where nobody works.
        while self.rules.contains_key(&named) {
            named.0.push_str(" (held)");
        }
        named
    }

    /// The states with `role`, in declaration order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &StateName> + Clone {
        self.rules.iter().filter(move |(_, rule)| rule.role == role).map(|(name, _)| name)
    }
}

/// `polling.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Polling {
    /// Milliseconds between looks at the tracker, from the end of one to the start of the next.
    pub interval_ms: u64,
    /// Whether file events may bring a look forward.
    pub watch: bool,
}

/// `workspace.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Workspace {
    /// Host workspaces stand here, one directory an issue.
    pub root: PathBuf,
    /// The repository that is cloned when there is no `hooks.after_create`; `None`: the git top
    /// level that holds `WORKFLOW.md`.
    pub source: Option<PathBuf>,
    /// The branch or commit of `source` that work starts from; `None`: its HEAD.
    pub base: Option<String>,
    /// What of the host workspace goes into a fresh work disk.
    pub seed: Seed,
    /// The cap on everything that crosses into a fresh work disk, in MiB.
    pub seed_max_mib: u64,
    /// The cap on one export from a guest, in MiB.
    pub export_max_mib: u64,
    /// Whether the agent's branch is checked out in the host workspace.
    pub checkout: Checkout,
}

/// `workspace.seed`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seed {
    /// Committed files only.
    Tracked,
    /// Also what `after_create` left untracked or ignored.
    All,
}

/// `workspace.checkout`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkout {
    /// HEAD stays detached at the base; no file an agent wrote appears on the host.
    Base,
    /// The agent's branch is checked out after each export: hooks then handle agent-written files.
    Agent,
}

/// `hooks.*`: shell scripts that run on the host, in the workspace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hooks {
    /// Once, when the workspace is made.
    pub after_create: Option<String>,
    /// Before each run; failure fails the run.
    pub before_run: Option<String>,
    /// After each run for which `before_run` was started.
    pub after_run: Option<String>,
    /// Before the workspace is removed.
    pub before_remove: Option<String>,
    /// Deadline of each, in milliseconds; the whole process group is killed at it.
    pub timeout_ms: u64,
}

/// `agent.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Runs at once, over all states.
    pub max_concurrent_agents: u32,
    /// Autonomous turns in one run.
    pub max_turns: u32,
    /// Cap of the failure back-off, in milliseconds.
    pub max_retry_backoff_ms: u64,
    /// Runs at once per state.
    pub max_concurrent_agents_by_state: BTreeMap<StateName, u32>,
}

/// `acp.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Acp {
    /// Which profile launches the agent.
    pub adapter: Adapter,
    /// Replaces the profile's launch command.
    pub command: Option<String>,
    /// Runs `command` as `<shell> -lc <command>`.
    pub shell: String,
    /// Model of the agent, handed to it in its environment.
    pub model: Option<String>,
    /// How much that is to think; `None`: the agent's own choice.
    pub effort: Option<Effort>,
    /// Whether a run continues the session of the one before, where the agent offers that.
    pub resume: bool,
    /// Total time of one prompt, in milliseconds.
    pub prompt_timeout_ms: u64,
    /// Answer to `initialize`, and to making or continuing a session, in milliseconds.
    pub read_timeout_ms: u64,
    /// From starting the sandbox to the guest program's hello, in milliseconds.
    pub boot_timeout_ms: u64,
    /// Longest silence of the agent within a turn, in milliseconds (C55); 0 disables.
    pub turn_timeout_ms: u64,
    /// Longest silence of the whole channel while no tool call is open, in milliseconds (C120); 0 disables.
    pub stall_timeout_ms: u64,
}

/// `sandbox.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Sandbox {
    /// Which runtime isolates a run.
    pub runtime: Runtime,
    /// `microvm` forbids the jail.
    pub minimum: Minimum,
    /// Memory that must be available on the host before one more run starts, in MiB; 0: not asked.
    pub reserve_mib: u64,
    /// What a microVM boots; `None` is the runtime's default.
    pub image: Option<PathBuf>,
    /// Processors of a microVM.
    pub cpus: u32,
    /// Memory of a microVM, in MiB.
    pub memory_mib: u64,
    /// The work disk of a microVM, in MiB.
    pub disk_mib: u64,
    /// Processes and threads in a microVM; 0 is unlimited.
    pub pids: u64,
    /// The largest single file in a microVM, in MiB; 0 is unlimited.
    pub file_size_mib: u64,
    /// Whether machines are restored from one that was saved after its boot.
    pub templates: bool,
    /// The profile of an issue that names none.
    pub profile: Option<String>,
    /// What an issue may choose instead, in declaration order.
    pub profiles: IndexMap<String, Profile>,
    /// `sandbox.jail.*`
    pub jail: Jail,
}

/// `sandbox.runtime`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// The strongest that passes a real trial.
    Auto,
    /// Namespaces on the host's kernel.
    Jail,
    /// A microVM under QEMU.
    Qemu,
    /// A microVM under smolvm.
    Smolvm,
}

impl Runtime {
    /// The word in the workflow.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Jail => "jail",
            Self::Qemu => "qemu",
            Self::Smolvm => "smolvm",
        }
    }
}

/// `sandbox.minimum`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimum {
    /// Any runtime will do.
    Jail,
    /// Only a microVM will do.
    Microvm,
}

/// `sandbox.jail.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Jail {
    /// Host paths that exist read-only inside, at the same place.
    pub read_only: Vec<PathBuf>,
    /// Memory of everything inside, in MiB; 0 is unlimited.
    pub memory_mib: u64,
    /// Processes and threads inside; 0 is unlimited.
    pub pids: u64,
    /// The largest single file inside, in MiB; 0 is unlimited.
    pub file_size_mib: u64,
}

/// `smolvm.*` of 0.1.0, kept as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Smolvm {
    /// Whether any key of the section was written: that forbids the jail (DESIGN §6).
    pub present: bool,
    /// Image reference.
    pub image: Option<String>,
    /// Packed machine; wins over `image`.
    pub from: Option<PathBuf>,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// Outbound network, as asked for: a machine has none, and who asks is told.
    pub net: bool,
    /// Directory of agent binaries.
    pub bin_path: Option<PathBuf>,
    /// Host directories copied into the guest.
    pub volumes: Vec<SmolvmVolume>,
    /// Host variables that 0.1.0 copied into the guest; none is, until there is a broker.
    pub forward_env: Vec<String>,
    /// Parsed, unused, as in 0.1.0.
    pub endpoint: Option<String>,
}

/// One entry of `smolvm.volumes`.
#[derive(Clone, Debug, PartialEq)]
pub struct SmolvmVolume {
    /// Path on the host.
    pub host: PathBuf,
    /// Path in the guest.
    pub guest: String,
    /// Whether the guest may not write to it.
    pub readonly: bool,
}

/// `server.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// `None`: no dashboard; 0: any free port.
    pub port: Option<u16>,
    /// Address to bind.
    pub host: String,
    /// Who may use it.
    pub auth: Auth,
}

/// `server.auth`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everything but `/healthz` needs the operator token.
    Token,
    /// Nobody is asked; refused on anything but a loopback address.
    None,
}

/// `mcp.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Mcp {
    /// Whether the agent gets our tools.
    pub enabled: bool,
    /// Read for 0.1.0, unused: the endpoint is on the guest's own loopback.
    pub host: Option<String>,
    /// Read for 0.1.0, unused: the endpoint is on the guest's own loopback.
    pub host_url: Option<String>,
}

/// `handoff.*`
#[derive(Clone, Debug, PartialEq)]
pub struct Handoff {
    /// Whether a finished issue leaves `.symphony/patches/agent_<key>.patch`.
    pub patch: bool,
}

/// `budget.*`: where retrying ends. Each bound parks the issue that meets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// Runs of one issue.
    pub sessions: u32,
    /// Prompts of one issue that no human asked for, over all its runs.
    pub turns: u32,
    /// Failed runs in a row.
    pub failures_in_a_row: u32,
    /// Time of all runs of one issue, in milliseconds, without waiting for a human.
    pub wall_ms: u64,
    /// Moves of an agent back into a state the issue had been in.
    pub bounces: u32,
    /// Runs in a row that end by themselves and change neither tree nor state.
    pub no_progress: u32,
}

/// `steering.*`: how long agents wait for humans.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// A run that has waited so long gives its slot and its sandbox back; the answer starts the issue again.
    pub release_after_ms: u64,
    /// After so long a default counts as the answer; `None`: questions wait for ever.
    pub answer_within_ms: Option<u64>,
    /// That default, where the agent names none.
    pub default_answer: String,
}

impl Steering {
    /// What an agent is told that names no default itself.
    pub const DEFAULT_ANSWER: &str = "Nobody answered in time. Decide yourself, take the choice that is easiest to undo, and say in your summary what you chose and why.";
}
