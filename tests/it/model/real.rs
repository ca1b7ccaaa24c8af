//! The vendors' own programs, from issue to patch: in a jail, through the broker, with a provider on this machine.
//! `SYMPHONY_TEST_AGENTS` names the directory that `scripts/agent-programs` made; without it they are skipped.

mod faults;
mod machine;
mod peak;
mod steering;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::peak::Peak;
use super::server::{Asked, Server};
use super::talk::google_path;
use super::{BOTH, KEY, command};
use crate::rig::{FRONT, Project, Running, until, until_within};
use crate::skip::skip;

/// What the model has the agent do. The words that are searched for are put together there, so that nothing finds them
/// in the command itself, which agents keep in their homes.
const WORK: &str = "echo con''trol-0451 >~/control; echo made >made.txt; \
    { grep -rlsa planted-''key-0451 ~ /tmp; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a planted-''key-0451; } >found.txt; \
    grep -rlsa con''trol-0451 ~ >control.txt; git add -A; git commit -qm 'Make it'";

/// A vendor's program.
struct Agent {
    adapter: &'static str,
    program: &'static str,
    /// The conversation of the server, as the agent wants a model to be named.
    model: &'static str,
    /// What ends a run of it whose every request is answered with an error of the server: OpenCode asks on without a word.
    given_up: &'static str,
    /// How many it asks for by itself.
    hosts: usize,
}

const OPENCODE: Agent = Agent {
    adapter: "opencode",
    program: "opencode",
    model: "anthropic/conversation",
    given_up: "turn_timeout: the agent was silent for acp.turn_timeout_ms; meanwhile anthropic answered 500",
    hosts: 1,
};
const CLAUDE: Agent =
    Agent { adapter: "claude", program: "claude-agent-acp", model: "conversation", given_up: "turn_failed", hosts: 0 };
const CODEX: Agent =
    Agent { adapter: "codex", program: "codex-acp", model: "conversation", given_up: "turn_failed", hosts: 0 };

const GEMINI: Agent =
    Agent { adapter: "gemini", program: "gemini", model: "conversation", given_up: "turn_failed", hosts: 0 };

/// What all of them find on the host.
const ALL: [(&str, &str); 3] = [BOTH[0], BOTH[1], ("GEMINI_API_KEY", KEY)];

impl Agent {
    /// Where it is; `None`: it was said why it is not there.
    fn programs(&self) -> Option<PathBuf> {
        let Some(dir) = std::env::var_os("SYMPHONY_TEST_AGENTS").map(PathBuf::from) else {
            skip("no real agents: scripts/test and scripts/test-agents bring them");
            return None;
        };
        if !dir.join("bin").join(self.program).exists() {
            skip(format_args!("{} is not among the agents of this suite", self.program));
            return None;
        }
        Some(dir)
    }
}

/// A project for it, with all providers at `server`; `more` stands in the workflow, `acp` among its keys of the agent.
fn project(agent: &Agent, server: &Server, more: &str, acp: &str) -> Project {
    let project = Project::new();
    std::fs::create_dir_all(project.beside("home")).expect("home");
    let (url, Agent { adapter, model, .. }) = (&server.url, agent);
    // A test says how long an agent may take to start where that is long.
    let patience = if acp.contains("read_timeout_ms") { "" } else { "  read_timeout_ms: 80000\n" };
    let acp = format!("adapter: {adapter}\n  model: {model}\n  effort: high\n{patience}{acp}");
    let front = format!(
        "{}{more}providers:\n  anthropic:\n    base_url: {url}\n  openai:\n    base_url: {url}/v1\n  google:\n    base_url: {url}\n",
        FRONT.replace("adapter: script\n", &acp),
    );
    project.write("WORKFLOW.md", &format!("---\n{front}---\nMake a file, then call mark_done.\n"));
    project
}

/// What shows a jail this directory.
fn jail(dir: &Path) -> String {
    format!("sandbox:\n  jail:\n    read_only: [{}]\n", dir.display())
}

/// Waits until the issue is done or parked.
#[track_caller]
fn ended(project: &Project, running: &Running, name: &str) {
    let is_in = |state: &str| project.exists(&format!("issues/{state}/{name}.md"));
    until_within(Duration::from_secs(4 * 60), "the issue to be done", || {
        is_in("Done") || is_in("Parked") || running.ended()
    });
}

/// Not println!, which the test harness keeps to itself.
fn figure(said: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("figure: {said}\n").as_bytes());
}

#[track_caller]
fn makes_a_patch(agent: &Agent) {
    let Some(dir) = agent.programs() else { return };
    let server = Server::start();
    server.has_done(WORK);
    let project = project(agent, &server, &jail(&dir), "");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &ALL));
    let peak = Peak::below(running.pid(), move |exe| exe.starts_with(&dir));
    let started = Instant::now();
    project.issue("Todo", "A-1", "Make it.");
    until("the first request", || !server.asked().is_empty() || project.exists("issues/Parked/A-1.md"));
    let first = started.elapsed();
    ended(&project, &running, "A-1");
    assert!(project.exists("issues/Done/A-1.md"), "{}\n{}", running.log(), project.transcripts());
    let whole = started.elapsed();
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let clone = project.apply_patch("A-1");
    let read = |name: &str| std::fs::read_to_string(clone.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(read("made.txt"), "made\n");
    assert_eq!(read("found.txt"), "", "the key is nowhere near the agent");
    assert!(read("control.txt").contains("control"), "the same search finds what is there");
    let mut made: Vec<String> =
        std::fs::read_dir(&clone).expect("a clone").flatten().map(|e| e.file_name().to_string_lossy().into()).collect();
    made.sort();
    let expected = [".git", ".gitignore", "README.md", "WORKFLOW.md", "control.txt", "found.txt", "made.txt"];
    assert!(made.iter().all(|name| expected.contains(&name.as_str())), "it wrote what was no work: {made:?}");
    // Told as `high`, each in its provider's own field.
    let asked = server.asked();
    let effort = asked.iter().filter(|asked| {
        let body = &asked.body;
        body["output_config"]["effort"] == "high"
            || body["reasoning"]["effort"] == "high"
            || body["generationConfig"]["thinkingConfig"]["thinkingLevel"] == "high"
    });
    assert!(effort.count() > 0, "nobody was told how much to think: {asked:#?}");
    assert!(!project.transcripts().contains(KEY) && !running.log().contains(KEY));
    // Every answer says that it used 10 + 200 in and 50 out.
    let asked = server.asked();
    assert!(asked.len() >= 3 && asked.iter().all(|asked| asked.head.contains(KEY)), "{asked:#?}");
    let state = running.client().get("/api/v1/state").body;
    let of_google = |asked: &Asked| google_path(&asked.head).is_some_and(|(model, _)| model == "conversation");
    let used = asked.iter().filter(|asked| asked.body["model"] == "conversation" || of_google(asked)).count();
    let totals = format!("\"input_tokens\":{},\"output_tokens\":{},", 210 * used, 50 * used);
    assert!(state.contains(&totals), "no {totals} in {state}");
    let memory = peak.said();
    assert_eq!(running.stop(), 0);
    // What it looked for on the network by itself: refused, and a card each for a person.
    let db = rusqlite::Connection::open(project.dir().join(".symphony/journal.db")).expect("the journal");
    let mut hosts = db.prepare("SELECT DISTINCT host || ':' || port FROM egress_reached ORDER BY 1").expect("a query");
    let hosts: Vec<String> =
        hosts.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("text")).collect();
    assert!(hosts.len() == agent.hosts, "{} asks for {hosts:?}", agent.adapter);
    figure(&format!(
        "{} in the jail: first request after {first:.1?}, all after {whole:.1?}, {memory}, {} requests, hosts asked for: {hosts:?}",
        agent.adapter,
        asked.len()
    ));
}

#[test]
fn opencode_makes_a_patch() {
    makes_a_patch(&OPENCODE);
}

#[test]
fn opencode_makes_a_patch_with_a_model_of_google_s() {
    makes_a_patch(&Agent { model: "google/conversation", ..OPENCODE });
}

#[test]
fn claude_code_makes_a_patch() {
    makes_a_patch(&CLAUDE);
}

#[test]
fn codex_makes_a_patch() {
    makes_a_patch(&CODEX);
}

#[test]
fn gemini_makes_a_patch() {
    makes_a_patch(&GEMINI);
}

/// A turn that the agent itself takes for a good one.
#[track_caller]
fn is_a_failure(agent: &Agent, words: &str) {
    let Some(dir) = agent.programs() else { return };
    let server = Server::start();
    let project = project(agent, &server, &format!("{}budget:\n  failures_in_a_row: 1\n", jail(&dir)), "");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &ALL));
    project.issue("Todo", "A-1", "Make it.");
    let note = project.parked_note("A-1");
    let frames = project.transcripts();
    assert!(frames.contains("end_turn"), "it says no more that such a turn ended well: {frames}");
    assert!(note.contains("its model failed, and the agent ended its turn as if it had not"), "{note}");
    assert!(note.contains(words), "no `{words}` in {note}");
    assert_eq!(running.stop(), 0);
}

#[test]
fn codex_ends_a_turn_well_whose_model_failed_and_is_not_believed() {
    let broken = Agent { model: "broken", ..CODEX };
    is_a_failure(&broken, "openai answered 500 to broken: the oven is on fire");
}
