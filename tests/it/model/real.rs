//! The vendors' own programs, from issue to patch: in a jail, through the broker, with a provider on this machine.
//! `SYMPHONY_TEST_AGENTS` names the directory that `scripts/agent-programs` made; without it they are skipped.

use std::path::PathBuf;
use std::time::Instant;

use super::server::Server;
use super::{BOTH, KEY, command};
use crate::rig::{FRONT, Project, until};
use crate::skip::skip;

/// What the model has the agent do. The words that are searched for are put together there, so that nothing finds them
/// in the command itself, which agents keep in their homes.
const WORK: &str = "echo con''trol-0451 >~/control; echo made >made.txt; \
    { grep -rlsa planted-''key-0451 ~ /tmp; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -a planted-''key-0451; } >found.txt; \
    grep -rlsa con''trol-0451 ~ >control.txt; git add -A; git commit -qm 'Make it'";

/// `None`: it was said why it is not there.
fn programs(program: &str) -> Option<PathBuf> {
    let Some(dir) = std::env::var_os("SYMPHONY_TEST_AGENTS").map(PathBuf::from) else {
        skip("no real agents: scripts/test and scripts/test-agents bring them");
        return None;
    };
    if !dir.join("bin").join(program).exists() {
        skip(format_args!("{program} is not among the agents of this suite"));
        return None;
    }
    Some(dir)
}

/// Memory of all processes whose program is below `dir`, in MiB.
fn memory(dir: &std::path::Path) -> u64 {
    let mut kib = 0;
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        if std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe.starts_with(dir)) {
            let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            kib += rss.and_then(|rss| rss.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    kib / 1024
}

/// A project for this agent, its providers at `server`.
fn project(dir: &std::path::Path, adapter: &str, model: &str, server: &Server, more: &str) -> Project {
    let project = Project::new();
    std::fs::create_dir_all(project.beside("home")).expect("home");
    let url = &server.url;
    let front = format!(
        "{}sandbox:\n  jail:\n    read_only: [{}]\nproviders:\n  anthropic:\n    base_url: {url}\n  openai:\n    base_url: {url}/v1\n{more}",
        FRONT.replace(
            "adapter: script\n",
            &format!("adapter: {adapter}\n  model: {model}\n  effort: high\n  read_timeout_ms: 80000\n")
        ),
        dir.display()
    );
    project.write("WORKFLOW.md", &format!("---\n{front}---\nMake a file, then call mark_done.\n"));
    project
}

#[track_caller]
fn makes_a_patch(adapter: &str, program: &str, model: &str) {
    let Some(dir) = programs(program) else { return };
    let server = Server::start();
    server.has_done(WORK);
    let project = project(&dir, adapter, model, &server, "");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let started = Instant::now();
    project.issue("Todo", "A-1", "Make it.");
    until("the first request", || !server.asked().is_empty() || project.exists("issues/Parked/A-1.md"));
    let (first, memory) = (started.elapsed(), memory(&dir));
    until("the issue to be done", || project.exists("issues/Done/A-1.md") || project.exists("issues/Parked/A-1.md"));
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
        body["output_config"]["effort"] == "high" || body["reasoning"]["effort"] == "high"
    });
    assert!(effort.count() > 0, "nobody was told how much to think: {asked:#?}");
    assert!(!project.transcripts().contains(KEY) && !running.log().contains(KEY));
    // Every answer says that it used 10 + 200 in and 50 out.
    let asked = server.asked();
    assert!(asked.len() >= 3 && asked.iter().all(|asked| asked.head.contains(KEY)), "{asked:#?}");
    let state = running.client().get("/api/v1/state").body;
    let used = asked.iter().filter(|asked| asked.body["model"] == "conversation").count();
    let totals = format!("\"input_tokens\":{},\"output_tokens\":{},", 210 * used, 50 * used);
    assert!(state.contains(&totals), "no {totals} in {state}");
    assert_eq!(running.stop(), 0);
    // What it looked for on the network by itself: refused, and a card each for a person.
    let db = rusqlite::Connection::open(project.dir().join(".symphony/journal.db")).expect("the journal");
    let mut hosts = db.prepare("SELECT DISTINCT host || ':' || port FROM egress_reached ORDER BY 1").expect("a query");
    let hosts: Vec<String> =
        hosts.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("text")).collect();
    // Not println!, which the test harness keeps to itself.
    let figure = format!(
        "figure: {adapter}: first request after {first:.1?}, all after {whole:.1?}, {memory} MiB at the first request, {} requests, hosts asked for: {hosts:?}\n",
        asked.len()
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr(), figure.as_bytes());
}

#[test]
fn opencode_makes_a_patch() {
    makes_a_patch("opencode", "opencode", "anthropic/conversation");
}

#[test]
fn claude_code_makes_a_patch() {
    makes_a_patch("claude", "claude-agent-acp", "conversation");
}

#[test]
fn codex_makes_a_patch() {
    makes_a_patch("codex", "codex-acp", "conversation");
}

/// A turn that the agent itself takes for a good one.
#[track_caller]
fn is_a_failure(adapter: &str, program: &str, model: &str, words: &str) {
    let Some(dir) = programs(program) else { return };
    let server = Server::start();
    let project = project(&dir, adapter, model, &server, "budget:\n  failures_in_a_row: 1\n");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
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
    is_a_failure("codex", "codex-acp", "broken", "openai answered 500 to broken: the oven is on fire");
}
