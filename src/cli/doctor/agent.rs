//! `symphony doctor --agent NAME`: starts that agent for real, in a throw-away sandbox of the kind that the workflow gets,
//! makes a session with it and says what it found. No prompt is sent, no model is asked, and no credential is used.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use symphony_core::broker::Provider;
use symphony_core::ids::{Identifier, RunId};
use symphony_core::issue::Issue;
use symphony_core::runtimes::Kind;
use symphony_core::workflow::{Adapter, AgentOf, Workflow};
use symphony_guest::wire::CheckRequest;
use tokio::sync::mpsc;

use super::Access;
use crate::agent::error::AgentError;
use crate::agent::profile::{self, Inside, Launch, Program};
use crate::agent::redact::Secrets;
use crate::agent::session::{Greeting, McpServer, StartOptions};
use crate::gateway::mcp::{Bearer, Endpoint};
use crate::run::inside::TREE;
use crate::run::program::{self, HOME, NotStarted, Started, search_path};
use crate::sandbox::channel::Channel;
use crate::sandbox::choose::{Picked, Sandboxes};
use crate::sandbox::{BootSpec, Life};

/// For the runtimes of the workflow to be tried.
const TRIALS: Duration = Duration::from_secs(600);
/// What an agent that finds its tools beside its start gets to find them.
const LISTING: Duration = Duration::from_secs(10);
/// What it gets to end.
const GRACE: Duration = Duration::from_secs(5);
const PORT: u16 = 8484;
/// Where models would be: nobody is there.
const MODELS: u16 = 8485;
const STEP_MS: u64 = 30_000;
/// Names of a list that a terminal shows.
const SHOWN: usize = 12;
/// KiB of all processes but the one that counts them.
const MEMORY: &str = r#"sum=0
for dir in /proc/[0-9]*; do
    [ "$dir" = "/proc/$$" ] && continue
    while read -r name value _; do [ "$name" = VmRSS: ] && sum=$((sum + value)); done <"$dir/status"
done 2>/dev/null
echo $sum"#;

/// What came of it. Fields are only ever added.
#[derive(Debug, Default, Serialize)]
pub(super) struct Tried {
    program_version: &'static str,
    /// As it was named.
    agent: String,
    /// Whether it has a session.
    pub(super) ok: bool,
    /// What was started, or why there is no session and what to do.
    says: String,
    /// The label of the sandbox that it was tried in.
    sandbox: Option<&'static str>,
    /// As it calls itself.
    name: Option<String>,
    version: Option<String>,
    load_session: Option<bool>,
    resume_session: Option<bool>,
    mcp_http: Option<bool>,
    image_prompts: Option<bool>,
    /// Whether it asked for our tools within some seconds.
    tools_listed: Option<bool>,
    modes: Vec<String>,
    models: Vec<String>,
    boot_ms: Option<u64>,
    initialize_ms: Option<u64>,
    session_ms: Option<u64>,
    /// Of all its processes, with its session and before any prompt.
    memory_mib: Option<u64>,
    /// The version that symphony is tried with, of an agent that is started by its name.
    tried_with: Option<&'static str>,
    /// The way to the models that it asks; any one would do. Empty where a workflow's command or a staged login is its own way.
    pub(super) credentials: Vec<Access>,
}

/// The agent of this name: an adapter, or `command` for the workflow's own.
///
/// # Errors
/// What can be named.
pub(super) fn named<'a>(name: &str, workflow: &'a Workflow) -> Result<AgentOf<'a>, String> {
    let acp = &workflow.acp;
    let of = |adapter: Adapter, command| AgentOf {
        adapter,
        command,
        model: acp.model.as_deref().filter(|_| command.is_some() || adapter == acp.adapter),
        effort: acp.effort,
        max_turns: 1,
    };
    match (Adapter::all().find(|adapter| adapter.name() == name), acp.command.as_deref()) {
        (Some(adapter), _) => Ok(of(adapter, None)),
        (None, Some(command)) if name == "command" => Ok(of(acp.adapter, Some(command))),
        (None, None) if name == "command" => {
            Err("acp.command is missing: the workflow names no agent of its own".to_owned())
        }
        (None, command) => {
            let mut known: Vec<_> = Adapter::all().map(Adapter::name).collect();
            known.extend(command.map(|_| "command"));
            Err(format!("there is no agent `{name}`; known are {}", known.join(", ")))
        }
    }
}

/// Tries it.
pub(super) async fn try_it(name: &str, agent: &AgentOf<'_>, workflow: &Workflow, sandboxes: &Sandboxes) -> Tried {
    let mut tried = Tried { program_version: env!("CARGO_PKG_VERSION"), agent: name.to_owned(), ..Tried::default() };
    tried.tried_with = profile::tried_version(agent.adapter).filter(|_| agent.command.is_none());
    sandboxes.settle(workflow, TRIALS).await;
    let says = match sandboxes.pick(workflow) {
        Err(closed) => Err(closed.why().to_owned()),
        Ok(picked) => {
            tried.sandbox = Some(picked.sandbox.label());
            in_sandbox(agent, workflow, &picked, &mut tried).await
        }
    };
    tried.ok = says.is_ok();
    tried.says = says.unwrap_or_else(|why| why);
    tried
}

async fn in_sandbox(
    agent: &AgentOf<'_>,
    workflow: &Workflow,
    picked: &Picked,
    tried: &mut Tried,
) -> Result<String, String> {
    let place = tokio::task::spawn_blocking(tempfile::tempdir).await.map_err(|error| error.to_string())?;
    let place = place.map_err(|error| format!("cannot make a temporary directory: {error}"))?;
    let disk = place.path().join("disk");
    let began = Instant::now();
    let guest = picked.sandbox.boot(spec(workflow, picked.kind, &disk)).await.map_err(|error| error.to_string());
    let said = match guest {
        Err(error) => Err(error),
        Ok(guest) => {
            let (io, life) = guest.into_parts();
            let token = crate::random::token(16).map_err(|error| error.to_string())?;
            let deadline = Duration::from_millis(workflow.acp.boot_timeout_ms);
            match Channel::open(io, &token, deadline).await {
                Ok((channel, _)) => {
                    tried.boot_ms = Some(millis(began.elapsed()));
                    let said = with_channel(agent, workflow, picked.kind, &channel, tried).await;
                    let _ = channel.shutdown(GRACE).await;
                    ended(life).await;
                    said
                }
                Err(error) => Err(format!("{error}; it said: {}", ended(life).await)),
            }
        }
    };
    let discarded = picked.sandbox.discard_disk(&disk).await;
    said.and_then(|said| discarded.map(|()| said).map_err(|error| error.to_string()))
}

async fn ended(mut life: Box<dyn Life>) -> String {
    life.stop(GRACE).await.stderr.trim().to_owned()
}

/// As a run of an issue without a profile of its own would get it.
fn spec(workflow: &Workflow, kind: Kind, disk: &Path) -> BootSpec {
    let sandbox = &workflow.sandbox;
    let sizes = sandbox.sizes(sandbox.profile_of(None).ok().flatten(), kind, &workflow.smolvm);
    BootSpec {
        run: RunId(0),
        disk: disk.to_owned(),
        image: sizes.image,
        packages: sizes.packages,
        templates: false,
        read_only: sandbox.jail.read_only.clone(),
        cpus: sizes.cpus,
        memory_mib: sizes.memory_mib,
        pids: sizes.pids,
        file_size_mib: sizes.file_size_mib,
        disk_mib: sizes.disk_mib,
        deadline: Duration::from_millis(workflow.acp.boot_timeout_ms),
        program: vec![],
    }
}

async fn with_channel(
    agent: &AgentOf<'_>,
    workflow: &Workflow,
    kind: Kind,
    channel: &Channel,
    tried: &mut Tried,
) -> Result<String, String> {
    let issue = Issue::bare("DOCTOR-0", "Todo");
    let inside = Inside { path: search_path(workflow, kind), home: HOME.into() };
    let launch = profile::launch(agent, &workflow.acp.shell, &issue, &inside).map_err(|error| error.to_string())?;
    let launch = with_models(launch, agent);
    check(channel, "git init -q .").await?;
    let (calls, _nobody) = mpsc::channel(1);
    let bearer = Bearer::random().map_err(|error| error.to_string())?;
    let door = Endpoint::new(&Identifier("DOCTOR-0".into()), bearer.clone(), calls);
    let mut incoming = channel.listen(PORT).await.map_err(|error| error.to_string())?;
    let serving = door.clone();
    let relay = tokio::spawn(async move {
        while let Some(stream) = incoming.accept().await {
            let door = serving.clone();
            tokio::spawn(async move { door.serve(stream).await });
        }
    });
    let before = memory(channel).await;
    let options = StartOptions {
        cwd: TREE.into(),
        client_version: env!("CARGO_PKG_VERSION").into(),
        title: "a look at the agent".into(),
        mcp: Some(McpServer { url: door.url(PORT), bearer: bearer.reveal().to_owned() }),
        resume: None,
        mode: launch.mode.map(str::to_owned),
        read_timeout: Duration::from_millis(workflow.acp.read_timeout_ms),
        max_line: 0,
        secrets: Secrets::default(),
        transcript: None,
    };
    // What it says on the way is told by nobody.
    let (reports, _unread) = mpsc::channel(1);
    let started = program::start(channel, (agent, kind), &launch, options, (RunId(0), reports)).await;
    let told = match started {
        Err(not) => Err(format!("{not}{}", patience(&not, kind))),
        Ok(Started { session, exit, killer, doors }) => {
            note(tried, session.greeting());
            let mut listed = door.tools_listed();
            let seen = tokio::time::timeout(LISTING, listed.wait_for(|listed| *listed)).await;
            tried.tools_listed = Some(seen.is_ok_and(|seen| seen.is_ok()));
            tried.memory_mib = memory(channel).await.zip(before).map(|(now, before)| now.saturating_sub(before) / 1024);
            session.close(GRACE).await;
            killer.kill();
            drop((exit, doors));
            Ok(match &launch.program {
                Program::Builtin => "script, built in".to_owned(),
                Program::Command(argv) => argv.join(" "),
            })
        }
    };
    door.close();
    relay.abort();
    told
}

/// What to do about an agent that is not to blame for its slowness.
fn patience(not: &NotStarted, kind: Kind) -> &'static str {
    match (not, kind) {
        (NotStarted::Agent(AgentError::Response { .. }), Kind::QemuTcg) => {
            ": an emulated machine is some ten times slower than others, so raise that"
        }
        _ => "",
    }
}

/// Some agents look for their provider before they greet. Nobody is at this address, and the token is none.
fn with_models(mut launch: Launch, agent: &AgentOf<'_>) -> Launch {
    if launch.program != Program::Builtin {
        let at = |provider: Provider| (provider, format!("http://127.0.0.1:{MODELS}{}", provider.prefix()));
        launch.env.extend(profile::model_variables(agent, &Provider::ALL.map(at), "of-nobody"));
        launch.env.sort();
    }
    launch
}

fn note(tried: &mut Tried, greeting: &Greeting) {
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (tried.name, tried.version) = (said(&greeting.name), said(&greeting.version));
    (tried.load_session, tried.resume_session) = (Some(greeting.load), Some(greeting.resume));
    (tried.mcp_http, tried.image_prompts) = (Some(greeting.mcp_http), Some(greeting.images));
    (tried.modes, tried.models) = (greeting.modes.clone(), greeting.models.clone());
    (tried.initialize_ms, tried.session_ms) = (Some(millis(greeting.initialized)), Some(millis(greeting.began)));
}

async fn check(channel: &Channel, script: &str) -> Result<String, String> {
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let env = vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())];
    let request = CheckRequest { argv, env, cwd: None, timeout_ms: STEP_MS, max_output: 4096 };
    let (_, output) = channel.check(request).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&output).trim().to_owned())
}

async fn memory(channel: &Channel) -> Option<u64> {
    check(channel, MEMORY).await.ok()?.parse().ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// For a terminal; the caller makes each line harmless.
pub(super) fn lines(tried: &Tried) -> Vec<String> {
    let mut lines = vec![format!("symphony {}", tried.program_version)];
    let mut fact = |name: &str, value: &str| lines.push(format!("  {name:<10} {value}"));
    fact("agent", &format!("{}: {}{}", tried.agent, if tried.ok { "" } else { "! " }, tried.says));
    if let Some(sandbox) = tried.sandbox {
        fact("sandbox", sandbox);
    }
    if tried.ok {
        let unnamed = || "it does not say".to_owned();
        fact("name", &tried.name.clone().unwrap_or_else(unnamed));
        let version = tried.version.clone().unwrap_or_else(unnamed);
        fact(
            "version",
            &match tried.tried_with.filter(|with| *with != version) {
                Some(with) => format!("{version}; symphony is tried with {with}"),
                None => version,
            },
        );
        let yes = |is: Option<bool>| if is == Some(true) { "yes" } else { "no" };
        let resumes = (tried.resume_session, tried.load_session);
        fact(
            "continues",
            match resumes {
                (Some(true), _) => "its sessions (session/resume)",
                (_, Some(true)) => "its sessions (session/load)",
                _ => "no session: each run begins anew",
            },
        );
        fact(
            "tools",
            match (tried.mcp_http, tried.tools_listed) {
                (_, Some(true)) => "MCP over HTTP; it asked for ours",
                _ => "MCP over HTTP; it did not ask for ours before its first prompt",
            },
        );
        fact("images", yes(tried.image_prompts));
        let list = |names: &[String]| match names.len() {
            0 => "none named".to_owned(),
            more @ SHOWN.. => format!("{}, … ({more} are named)", names[..SHOWN].join(", ")),
            _ => names.join(", "),
        };
        fact("modes", &list(&tried.modes));
        fact("models", &list(&tried.models));
    }
    // Without any of them its issues wait, whatever else works.
    let has_one = tried.credentials.iter().any(|to| to.ok);
    for to in tried.credentials.iter().filter(|to| to.ok || !has_one) {
        fact("credential", &format!("{}: {}{}", to.provider, if to.ok { "" } else { "! " }, to.says));
    }
    let times = [("booted", tried.boot_ms), ("initialize", tried.initialize_ms), ("session", tried.session_ms)];
    for (name, ms) in times.into_iter().filter_map(|(name, ms)| Some((name, ms?))) {
        fact(name, &format!("{ms} ms"));
    }
    if let Some(mib) = tried.memory_mib {
        fact("memory", &format!("{mib} MiB, with its session"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::error::INITIALIZE;

    #[test]
    fn a_slow_start_in_an_emulated_machine_is_told_to_be_waited_for_and_no_other_is() {
        let slow = NotStarted::Agent(AgentError::Response { during: INITIALIZE, after_ms: 5000 });
        let said = format!("{slow}{}", patience(&slow, Kind::QemuTcg));
        assert!(
            said.contains("(`acp.read_timeout_ms`): an emulated machine") && said.ends_with("raise that"),
            "{said}"
        );
        assert_eq!(patience(&slow, Kind::Jail), "");
        assert_eq!(patience(&NotStarted::Lacking("it".into()), Kind::QemuTcg), "");
    }
}
