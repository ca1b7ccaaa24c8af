//! One program of an agent, and one try at a session with it.

use std::time::Duration;

use symphony_core::ids::RunId;
use symphony_core::runtimes::Kind;
use symphony_core::workflow::{Adapter, AgentOf, Workflow};
use symphony_guest::wire::{CheckRequest, Exit, Program as GuestProgram, RefusalKind, SpawnRequest};
use tokio::sync::{mpsc, watch};

use super::inside::{Door, forward};
use super::line::FromRun;
use crate::agent::error::{AgentError, INITIALIZE};
use crate::agent::event::Events;
use crate::agent::profile::{self, Launch, Program};
use crate::agent::session::{Session, StartOptions};
use crate::sandbox::channel::{Channel, ChannelError, ExitFuture, Killer};

/// Where the guest program has the agent's home: on the work disk, beside the tree.
pub(crate) const HOME: &str = "/home/agent";
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program that closed its output gets to have ended, and its last words to arrive.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For a few lines in a file.
const PREPARE_MS: u64 = 10_000;
/// Leaves these patterns out of what git takes for work, whoever runs it: what is tracked stays tracked.
const EXCLUDE: &str = r#"[ -d .git ] || exit 0
mkdir -p .git/info
for pattern; do
    grep -qxF -e "$pattern" .git/info/exclude 2>/dev/null || printf '%s\n' "$pattern" >>.git/info/exclude
done"#;
/// Writes each text into the file before it, unless there is something of that name that an earlier run did not leave there:
/// a copy beside it says so. A state of the workflow may have another model or effort than the one before.
const FURNISH: &str = r#"umask 077
while [ $# -gt 1 ]; do
    if [ ! -e "$1" ] || { [ -e "$1.symphony" ] && [ "$(cat "$1")" = "$(cat "$1.symphony")" ]; }; then
        # Both or neither: a file without its copy is somebody else's for good.
        mkdir -p "${1%/*}" && rm -f "$1" && printf %s "$2" >"$1.symphony" && printf %s "$2" >"$1.new" && mv "$1.new" "$1" || exit
    fi
    shift 2
done"#;

/// A program with a session.
pub(crate) struct Started {
    pub(crate) session: Session,
    pub(crate) exit: ExitFuture,
    pub(crate) killer: Killer,
    /// Its words on their way to readers.
    pub(crate) doors: [Door; 2],
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    /// The program, or what it runs on, is not in the sandbox. Trying again would not bring it there; the words say what would.
    #[error("{0}")]
    Lacking(String),
    /// It could not be started.
    #[error(transparent)]
    Channel(ChannelError),
    /// It did not give us a session.
    #[error(transparent)]
    Agent(AgentError),
}

/// Where programs are looked for: first in what the workflow brings along for its agents.
pub(crate) fn search_path(workflow: &Workflow, kind: Kind) -> String {
    let brought: Vec<_> = match kind {
        Kind::Jail => {
            let listed = workflow.sandbox.jail.read_only.iter();
            listed.flat_map(|dir| [dir.join("bin"), dir.join("node_modules/.bin")]).collect()
        }
        Kind::Smolvm => workflow.smolvm.bin_path.iter().map(|_| "/opt/codex".into()).collect(),
        Kind::QemuKvm | Kind::QemuTcg => vec![],
    };
    let brought = brought.iter().map(|dir| dir.display().to_string()).filter(|dir| !dir.contains(':'));
    brought.chain([PATH.to_owned()]).collect::<Vec<_>>().join(":")
}

/// Starts it. What it says goes to `reports`, as of this run. Whoever has enough drops the future.
pub(crate) async fn start(
    channel: &Channel,
    (agent, kind): (&AgentOf<'_>, Kind),
    launch: &Launch,
    options: StartOptions,
    (run, reports): (RunId, mpsc::Sender<FromRun>),
) -> Result<Started, NotStarted> {
    prepare(channel, launch).await;
    let program = match &launch.program {
        Program::Builtin => GuestProgram::ScriptAgent,
        Program::Command(argv) => GuestProgram::Argv(argv.clone()),
    };
    let request = SpawnRequest { program, env: launch.env.clone(), cwd: None };
    let process = channel.spawn(request).await.map_err(|error| not_spawned(error, agent, kind))?;
    let (events_to, events) = mpsc::channel(256);
    let secrets = options.mcp.iter().fold(options.secrets.clone(), |secrets, mcp| secrets.and(&mcp.bearer));
    let sink = Events::new(events_to.clone(), secrets);
    let (last, words) = watch::channel(String::new());
    let mut doors = [
        Door(tokio::spawn(forward(events, run, reports))),
        Door(tokio::spawn(crate::agent::stderr::forward(process.stderr, sink, options.transcript.clone(), last))),
    ];
    match Session::start(process.stdout, process.stdin, options, events_to).await {
        Ok(session) => Ok(Started { session, exit: process.exit, killer: process.killer, doors }),
        Err(error @ AgentError::Transport { during: INITIALIZE, .. }) => {
            let Ok(Ok(Exit::Code(code @ (126 | 127)))) = tokio::time::timeout(LAST_WORDS, process.exit).await else {
                return Err(NotStarted::Agent(error));
            };
            let _ = tokio::time::timeout(LAST_WORDS, &mut doors[1].0).await;
            let said = words.borrow().clone();
            Err(ended_at_once(code, &said, agent, kind).map_or(NotStarted::Agent(error), NotStarted::Lacking))
        }
        Err(error) => Err(NotStarted::Agent(error)),
    }
}

/// What the agent's program writes into the work tree for itself is no work; what it wants in its home is there.
async fn prepare(channel: &Channel, launch: &Launch) {
    let own = launch.writes.iter().map(|&pattern| pattern.to_owned());
    quietly(channel, EXCLUDE, own.collect(), "the agent's own settings are not left out of its work").await;
    let files = launch.home.iter().flat_map(|(name, text)| [format!("{HOME}/{name}"), text.clone()]);
    quietly(channel, FURNISH, files.collect(), "the agent's home lacks a file that it wants").await;
}

/// Runs a script for an agent that can do without it.
async fn quietly(channel: &Channel, script: &str, arguments: Vec<String>, failed: &str) {
    if arguments.is_empty() {
        return;
    }
    let words = ["sh", "-c", script, "sh"].map(str::to_owned);
    let request = CheckRequest {
        argv: words.into_iter().chain(arguments).collect(),
        env: vec![("PATH".into(), PATH.into())],
        cwd: None,
        timeout_ms: PREPARE_MS,
        max_output: 1024,
    };
    match channel.check(request).await {
        Ok((outcome, _)) if outcome.exit == Exit::Code(0) => {}
        Ok((outcome, _)) => tracing::debug!(exit = ?outcome.exit, "{failed}"),
        Err(error) => tracing::debug!(%error, "{failed}"),
    }
}

fn not_spawned(error: ChannelError, agent: &AgentOf<'_>, kind: Kind) -> NotStarted {
    let install = profile::how_to_install(agent.adapter, kind).filter(|_| agent.command.is_none());
    match (&error, install) {
        (ChannelError::Refused(refusal), Some(install)) if refusal.kind == RefusalKind::Spawn => {
            NotStarted::Lacking(format!("{}; {install}", refusal.message))
        }
        _ => NotStarted::Channel(error),
    }
}

/// With these codes a shell, and `env` in the first line of a script, say that there is no such program, or that it cannot
/// be run.
fn ended_at_once(code: i32, said: &str, agent: &AgentOf<'_>, kind: Kind) -> Option<String> {
    let said = if said.is_empty() { String::new() } else { format!(", and said: {said}") };
    let (what, remedy) = match (agent.command, agent.adapter) {
        (Some(_), _) => ("`acp.command`".to_owned(), profile::how_to_bring(kind).to_owned()),
        (None, Adapter::Script) => return None,
        (None, adapter) => (format!("the program of `{}`", adapter.name()), profile::how_to_install(adapter, kind)?),
    };
    Some(format!(
        "{what} ended at once with exit code {code}{said}; it, or what it runs on, is not in the sandbox: {remedy}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_in_the_home_already_is_left_as_it_is_unless_it_is_ours_unchanged() {
        let home = tempfile::tempdir().expect("a directory");
        let place = |name: &str| home.path().join(name);
        std::fs::create_dir(place(".mine")).expect("made");
        std::fs::write(place(".mine/one"), "mine").expect("written");
        let furnish = |text: &str| {
            let words = [place(".mine/one"), "new".into(), place(".new/two"), text.into()];
            let ran = std::process::Command::new("sh").args(["-c", FURNISH, "sh"]).args(words).status();
            assert!(ran.expect("a shell").success());
        };
        let read = |name: &str| std::fs::read_to_string(place(name)).expect("there");
        furnish("a 'b'\n$c");
        assert_eq!((read(".mine/one").as_str(), read(".new/two").as_str()), ("mine", "a 'b'\n$c"));
        furnish("for another state");
        assert_eq!((read(".mine/one").as_str(), read(".new/two").as_str()), ("mine", "for another state"));
        std::fs::write(place(".new/two"), "the agent's own").expect("written");
        furnish("later");
        assert_eq!(read(".new/two"), "the agent's own");
    }

    fn agent(adapter: Adapter, command: Option<&str>) -> AgentOf<'_> {
        AgentOf { adapter, command, model: None, effort: None, max_turns: 1 }
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_its_own_words_and_how_to_bring_it() {
        let claude = agent(Adapter::Claude, None);
        let says = ended_at_once(127, "env: 'node': No such file or directory", &claude, Kind::Jail).expect("said");
        for part in ["`claude` ended at once with exit code 127, and said: env: 'node'", "on Node 22", "read_only"] {
            assert!(says.contains(part), "no {part} in {says}");
        }
        let says = ended_at_once(126, "", &agent(Adapter::Claude, Some("x")), Kind::QemuKvm).expect("said");
        assert!(
            says.contains("`acp.command` ended at once with exit code 126; it,") && says.contains("image"),
            "{says}"
        );
        assert_eq!(ended_at_once(127, "", &agent(Adapter::Script, None), Kind::Jail), None);
    }
}
