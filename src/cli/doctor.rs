//! `symphony doctor`: tries every runtime on this machine for real, and says what each enforces and which one a workflow
//! would get. Needs no lock and no state directory: it may run beside a symphony.

mod agent;
mod text;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use symphony_core::board::ModelAccess;
use symphony_core::broker::Provider;
use symphony_core::issue::Issue;
use symphony_core::runtimes::Kind;
use symphony_core::workflow::{Minimum, Place, Role, Runtime, Smolvm, Workflow};

use crate::agent::profile::{self, Inside, Program};
use crate::gateway::broker::Broker;
use crate::log::harmless;
use crate::process;
use crate::run::models::closures;
use crate::sandbox::choose::Sandboxes;
use crate::sandbox::measure::{Measured, Verdict, boots, measure};
use crate::workflow_file::{Environment, WorkflowFile};

/// Which workflow to look at.
#[derive(Debug, Args)]
#[command(
    after_help = "Each runtime boots throw-away guests, which try to exceed their limits; that takes a while.\n\nExit codes: 0 the workflow can run here; 1 it cannot: its file has errors, its runtime does not work, an agent cannot be started,\nor the profile of its issues is refused; 2 wrong usage, or no file where --workflow says.\nWith --agent: 0 it has a session; 1 it has none; 2 there is no agent of that name."
)]
pub struct Doctor {
    /// The workflow to look at; without it `WORKFLOW.md`, and where there is none, the defaults.
    #[arg(long, value_name = "PATH")]
    pub workflow: Option<PathBuf>,
    /// The findings as JSON.
    #[arg(long)]
    pub json: bool,
    /// Starts this agent in a sandbox and says what it can do, instead: claude, codex, opencode, gemini, script, or
    /// `command` for that of `acp.command`.
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
}

/// Everything that was found out. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Findings {
    program_version: &'static str,
    /// Absolute; `null`: there is none, and the defaults were looked at.
    workflow: Option<String>,
    /// What is wrong with it.
    problems: Vec<String>,
    /// Whether the file has errors: everything else is then about the defaults.
    broken: bool,
    /// `sandbox.runtime`
    runtime: &'static str,
    git: Git,
    available_mib: Option<u64>,
    agents: Vec<Agent>,
    models: Vec<Access>,
    runtimes: Vec<Tried>,
    /// What `auto` takes.
    auto: Choice,
    /// What the workflow gets.
    chosen: Choice,
    profiles: Vec<Asked>,
}

impl Findings {
    /// Whether runs of the workflow could start here. Without a file there is no agent to ask for.
    fn can_run(&self) -> bool {
        let agents = self.workflow.is_none() || self.agents.iter().all(|agent| agent.ok);
        let refused = self.profiles.iter().any(|profile| profile.default && !profile.ok);
        !self.broken && self.chosen.runtime.is_some() && agents && !refused
    }
}

/// The git of this machine.
#[derive(Debug, Serialize)]
struct Git {
    ok: bool,
    /// Its version, or why there is none.
    says: String,
}

/// One profile, asked of the runtime that the workflow gets.
#[derive(Debug, PartialEq, Serialize)]
struct Asked {
    profile: String,
    /// Whether issues that name none get it.
    default: bool,
    /// Whether the runtime can have it.
    ok: bool,
    /// With what, or why not.
    says: String,
}

/// The agent of one state.
#[derive(Debug, PartialEq, Serialize)]
struct Agent {
    state: String,
    /// Whether it could be started.
    ok: bool,
    /// What is started, or why nothing is.
    says: String,
}

/// The way to one provider's models.
#[derive(Debug, PartialEq, Serialize)]
struct Access {
    provider: &'static str,
    /// Whether agents can be told of it.
    ok: bool,
    /// With which credential, or why there is none.
    says: String,
}

/// One runtime.
#[derive(Debug, Serialize)]
struct Tried {
    runtime: &'static str,
    works: bool,
    label: Option<&'static str>,
    /// Why it does not work, or what kernel the guest has.
    says: String,
    booted_ms: Option<u64>,
    limits: Vec<Limit>,
}

/// One limit of a runtime.
#[derive(Debug, Serialize)]
struct Limit {
    what: &'static str,
    /// `enforced`, `not-enforced` or `unclear`.
    verdict: &'static str,
    /// By what, or why it is unclear.
    says: String,
}

/// A decision.
#[derive(Debug, PartialEq, Serialize)]
struct Choice {
    /// `null`: nothing.
    runtime: Option<&'static str>,
    reason: String,
}

impl Doctor {
    /// Tries, prints, and says whether the workflow has what it asks for.
    pub async fn run(&self) -> ExitCode {
        let (exe, place) = match std::env::current_exe().and_then(|exe| Ok((exe, tempfile::tempdir()?))) {
            Ok(both) => both,
            Err(error) => {
                let _ = writeln!(
                    std::io::stderr(),
                    "symphony: cannot find the running program, or make a temporary directory: {error}"
                );
                return ExitCode::from(1);
            }
        };
        let read = match (Read::of(self.workflow.as_deref().unwrap_or(Path::new("WORKFLOW.md"))), &self.workflow) {
            (Read { path: None, .. }, Some(named)) => {
                let _ = writeln!(std::io::stderr(), "symphony: there is no workflow file at {}", named.display());
                return ExitCode::from(2);
            }
            (read, _) => read,
        };
        let sandboxes = Sandboxes::for_a_look(&exe, place.path(), &read.workflow);
        if let Some(name) = &self.agent {
            return self.try_agent(name, &read, &sandboxes).await;
        }
        let findings = examine(read, &sandboxes).await;
        let text = match self.json {
            true => serde_json::to_string_pretty(&findings).expect("strings, numbers and lists are JSON") + "\n",
            // What a workflow and a guest said is in it: nothing of it may reach the terminal as an instruction.
            false => text::lines(&findings).iter().map(|line| harmless(line) + "\n").collect(),
        };
        let _ = std::io::stdout().write_all(text.as_bytes());
        if findings.can_run() { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }

    async fn try_agent(&self, name: &str, read: &Read, sandboxes: &Sandboxes) -> ExitCode {
        // The defaults are another sandbox, and perhaps another agent.
        if read.broken {
            let _ = writeln!(std::io::stderr(), "symphony: {}", harmless(&read.problems.join("; ")));
            return ExitCode::from(1);
        }
        let agent = match agent::named(name, &read.workflow) {
            Ok(agent) => agent,
            Err(why) => {
                let _ = writeln!(std::io::stderr(), "symphony: {}", harmless(&why));
                return ExitCode::from(2);
            }
        };
        let mut tried = agent::try_it(name, &agent, &read.workflow, sandboxes).await;
        if agent.command.is_none() && !read.workflow.stages(&agent) {
            let asked = agent.adapter.providers(agent.model);
            let all = models(&read.workflow).await;
            tried.credentials =
                all.into_iter().filter(|to| asked.iter().any(|asked| asked.name() == to.provider)).collect();
        }
        let text = match self.json {
            true => serde_json::to_string_pretty(&tried).expect("strings, numbers and lists are JSON") + "\n",
            false => agent::lines(&tried).iter().map(|line| harmless(line) + "\n").collect(),
        };
        let _ = std::io::stdout().write_all(text.as_bytes());
        if tried.ok { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

async fn examine(read: Read, sandboxes: &Sandboxes) -> Findings {
    let workflow = &read.workflow;
    sandboxes.try_all(workflow).await;
    let mut runtimes = vec![];
    for kind in Kind::ALL {
        runtimes.push(tried(kind, sandboxes, workflow).await);
    }
    let profiles = profiles(sandboxes, workflow).await;
    Findings {
        program_version: env!("CARGO_PKG_VERSION"),
        workflow: read.path,
        problems: read.problems,
        broken: read.broken,
        runtime: workflow.sandbox.runtime.as_str(),
        git: git().await,
        available_mib: crate::memory::available_mib(),
        agents: agents(workflow).await,
        models: models(workflow).await,
        runtimes,
        auto: chosen(sandboxes, &as_auto(workflow)),
        chosen: chosen(sandboxes, workflow),
        profiles,
    }
}

/// A workflow file, as far as it can be used.
struct Read {
    path: Option<String>,
    workflow: Workflow,
    problems: Vec<String>,
    broken: bool,
}

impl Read {
    fn of(path: &Path) -> Self {
        let file = if path.is_dir() { path.join("WORKFLOW.md") } else { path.to_owned() };
        let path = file.as_path();
        let shown = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match WorkflowFile::load(path, Environment::of_process()) {
            Ok(file) => Self {
                path: Some(shown.display().to_string()),
                workflow: file.workflow().as_ref().clone(),
                problems: file.problems().iter().map(|problem| problem.in_file(file.path())).collect(),
                broken: false,
            },
            Err(error) => {
                let there = path.exists();
                let problems = error.to_string().lines().map(str::to_owned).collect();
                Self {
                    path: there.then(|| shown.display().to_string()),
                    workflow: defaults(&shown),
                    problems: if there { problems } else { vec![] },
                    broken: there,
                }
            }
        }
    }
}

/// What holds where nothing is written.
fn defaults(path: &Path) -> Workflow {
    let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
    let place = Place { dir, home: None, env: &|_| None };
    let parsed = Workflow::parse("---\ntracker: {kind: local}\n---\n", &place);
    parsed.expect("the smallest workflow is valid").0
}

/// The same workflow, if it left the choice to symphony and demanded nothing.
fn as_auto(workflow: &Workflow) -> Workflow {
    let mut auto = workflow.clone();
    (auto.sandbox.runtime, auto.sandbox.minimum) = (Runtime::Auto, Minimum::Jail);
    auto.smolvm = Smolvm::default();
    auto
}

fn chosen(sandboxes: &Sandboxes, workflow: &Workflow) -> Choice {
    match sandboxes.pick(workflow) {
        Ok(picked) => Choice { runtime: Some(picked.kind.as_str()), reason: picked.reason },
        Err(closed) => Choice { runtime: None, reason: closed.why().to_owned() },
    }
}

/// Each profile of the workflow: whether the runtime that it gets can have it. One with an image or packages of its own is booted.
async fn profiles(sandboxes: &Sandboxes, workflow: &Workflow) -> Vec<Asked> {
    let picked = sandboxes.pick(workflow);
    let mut asked = vec![];
    for (name, profile) in &workflow.sandbox.profiles {
        let (ok, says) = match &picked {
            Err(_) => (false, "nothing works here that it could be asked of".to_owned()),
            Ok(picked) => match profile.refused_by(picked.kind) {
                Some(why) => (false, format!("it {why}")),
                // What the trials booted is what it boots.
                None if profile.image.is_none() && profile.packages.is_empty() => (true, picked.kind.to_string()),
                None => {
                    let sizes = workflow.sandbox.sizes(Some(profile), picked.kind, &workflow.smolvm);
                    match boots(picked.sandbox.as_ref(), sizes.image, sizes.packages).await {
                        Ok(()) => (true, format!("{}, it boots", picked.kind)),
                        Err(why) => (false, why),
                    }
                }
            },
        };
        let default = workflow.sandbox.profile.as_ref() == Some(name);
        asked.push(Asked { profile: name.clone(), default, ok, says });
    }
    asked
}

async fn tried(kind: Kind, sandboxes: &Sandboxes, workflow: &Workflow) -> Tried {
    let fails = |label, why: String| Tried {
        runtime: kind.as_str(),
        works: false,
        label,
        says: why,
        booted_ms: None,
        limits: vec![],
    };
    let Some((_, sandbox)) = sandboxes.all().find(|(has, _)| *has == kind) else {
        return fails(None, "this symphony does not have it".to_owned());
    };
    let label = Some(sandbox.label());
    match sandboxes.report(kind) {
        Some(Ok(_)) => {}
        Some(Err(error)) => return fails(label, error.to_string()),
        None => return fails(label, "its trial did not end".to_owned()),
    }
    let image = workflow.sandbox.sizes(None, kind, &workflow.smolvm).image;
    match measure(sandbox.as_ref(), image).await {
        Ok(measured) => Tried {
            runtime: kind.as_str(),
            works: true,
            label,
            says: format!("the guest's kernel is {}", measured.report.kernel),
            booted_ms: u64::try_from(measured.booted.as_millis()).ok(),
            limits: limits(measured),
        },
        // Its trial passed: it works, only nothing could be measured.
        Err(why) => Tried { works: true, ..fails(label, format!("its limits could not be measured: {why}")) },
    }
}

fn limits(measured: Measured) -> Vec<Limit> {
    let limit = |finding: crate::sandbox::measure::Finding| {
        let (verdict, says) = match finding.verdict {
            Verdict::Enforced => ("enforced", finding.by),
            Verdict::NotEnforced => ("not-enforced", finding.by),
            Verdict::Unclear(why) => ("unclear", why),
        };
        Limit { what: finding.what, verdict, says }
    };
    measured.findings.into_iter().map(limit).collect()
}

async fn git() -> Git {
    let finished = process::Program::new("git").args(["--version"]).run(std::time::Duration::from_secs(10)).await;
    let said = String::from_utf8_lossy(&finished.stdout.bytes()).trim().to_owned();
    match finished.success() {
        true => Git { ok: true, says: said.strip_prefix("git version ").unwrap_or(&said).to_owned() },
        false => Git { ok: false, says: "git does not run here; symphony cannot work without it".to_owned() },
    }
}

/// The credential for each provider, as far as the host can tell without asking one.
async fn models(workflow: &Workflow) -> Vec<Access> {
    let broker = Broker::new(Environment::of_process());
    let mut all = vec![];
    for provider in Provider::ALL {
        let (ok, says) = match broker.access(&workflow.models, provider).await {
            Ok(says) => (true, says),
            Err(why) => (false, why),
        };
        all.push(Access { provider: provider.name(), ok, says });
    }
    all
}

/// The agent of each active state: whether it would find a model. What exists inside a sandbox only a run can tell.
async fn agents(workflow: &Workflow) -> Vec<Agent> {
    let (asked, shared) = (Broker::new(Environment::of_process()).asked(), Arc::new(workflow.clone()));
    let closed = closures(&shared, &asked).await;
    let mut all = vec![];
    for state in workflow.states.with_role(Role::Active) {
        let inside = Inside { path: String::new(), home: String::new() };
        let agent = workflow.agent_of(state);
        let access = ModelAccess::of(workflow, closed.clone()).admit(state, None).map_err(|why| why.to_string());
        let launch = profile::launch(&agent, &workflow.acp.shell, &Issue::bare("any", state.as_str()), &inside);
        let (ok, says) = match (launch.map(|launch| launch.program), access) {
            (Err(error), _) => (false, error.to_string()),
            (Ok(Program::Builtin), _) => (true, "script, built in".to_owned()),
            (Ok(Program::Command(argv)), Ok(())) => (true, argv.join(" ")),
            (Ok(Program::Command(argv)), Err(why)) => (false, format!("{}: {why}", argv.join(" "))),
        };
        all.push(Agent { state: state.0.clone(), ok, says });
    }
    all
}
