//! While the broker uses a key and a login of the host, neither is in any memory of the sandbox: not in what the agent can
//! read, and not in what only root of the host can, the guest program's and the launcher's.

use super::credentials::{FAR, log_in};
use super::server::Server;
use super::{KEY, TOOLS, agents, command, project};
use crate::rig::{Project, Running, until};
use crate::search::{Looked, below, files_with, memory};
use crate::skip::skip_part;

pub(crate) const LOGIN: &str = "planted-login-0451-of-the-host";

/// `look_for` reads all memory of every process that its user may read but its own, and says how often it found the words of its
/// arguments, which come masked, and the run's token.
const LOOK: &str = r#"
look_for() {
    perl -e '
        my @words = map { my $word = pack("H*", $_); $word ^ ("\x55" x length $word) } @ARGV;
        push @words, $ENV{ANTHROPIC_AUTH_TOKEN} // "no token";
        my @found = (0) x @words;
        my ($programs, $bytes) = (0, 0);
        for my $process (glob "/proc/[0-9]*") {
            next if $process eq "/proc/$$";
            open(my $maps, "<", "$process/maps") && open(my $memory, "<:raw", "$process/mem") or next;
            my $before = $bytes;
            while (<$maps>) {
                my ($at, $end) = /^([0-9a-f]+)-([0-9a-f]+) r/ or next;
                ($at, $end) = (hex $at, hex $end);
                while ($at < $end && sysseek $memory, $at, 0) {
                    my $read = sysread $memory, my $text, $end - $at < 1 << 20 ? $end - $at : 1 << 20 or last;
                    $bytes += $read;
                    for my $word (0 .. $#words) {
                        my $from = -1;
                        $found[$word]++ while ($from = index $text, $words[$word], $from + 1) >= 0;
                    }
                    # What lies across two pieces is whole in the next.
                    $at += $at + $read < $end ? $read - 100 : $read;
                }
            }
            $programs++ if $bytes > $before;
        }
        printf "key=%d login=%d token=%d programs=%d kib=%d", @found, $programs, $bytes / 1024;
    ' "$@"
}
"#;

/// Asks with the key and with the login, before the search and all through it, and holds an answer open meanwhile.
const USES: &str = r#"
both() { ask stream; http POST /openai/v1/chat/completions '{"model":"chat","stream":true,"messages":[]}' "Host: 127.0.0.1:8485" "x-api-key: $OPENAI_API_KEY"; }
turn() {
    local host=127.0.0.1:8485
    both; both
    ( until [ -e ~/over ]; do both; sleep 0.2; done ) &
    exec 7<>/dev/tcp/127.0.0.1/8485
    local body='{"model":"slow","max_tokens":9,"stream":true,"messages":[]}'
    printf 'POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\nx-api-key: %s\r\nContent-Length: %s\r\n\r\n%s' "$ANTHROPIC_AUTH_TOKEN" "${#body}" "$body" >&7
    while IFS= read -r part <&7; do [[ $part == *message_start* ]] && break; done
    say "looked $(look)."
    local at turned=
    for ((at = ${#ANTHROPIC_AUTH_TOKEN} - 1; at >= 0; at--)); do turned+=${ANTHROPIC_AUTH_TOKEN:at:1}; done
    say "turned $turned."
    answer=$(cat <&7); note rest
    : >~/over; wait
    host=${url#http://}; host=${host%%/*}; done_
}
"#;

/// A scenario for `agents/acp.sh`; `look` is what the agent itself does.
pub(crate) fn using(look: &str) -> String {
    format!("{TOOLS}\n{look}\n{USES}")
}

/// As the sandbox gets it, so that nothing finds what it was told to look for.
fn masked(word: &str) -> String {
    word.bytes().map(|byte| format!("{:02x}", byte ^ 0x55)).collect()
}

fn looking() -> String {
    format!("{LOOK}\nlook() {{ look_for {} {}; }}", masked(KEY), masked(LOGIN))
}

/// What the agent said between `word` and the end of its sentence, once it did.
pub(crate) fn said(project: &Project, word: &str) -> String {
    let mut said = String::new();
    until(&format!("the agent to say that it {word}"), || {
        let frames = if project.exists(".symphony/runs") { project.transcripts() } else { String::new() };
        let rest = frames.split_once(&format!("\"{word} "));
        said = rest.and_then(|(_, rest)| rest.split_once(".\"")).map(|(said, _)| said.to_owned()).unwrap_or_default();
        !said.is_empty()
    });
    said
}

/// The token of the run, as [`USES`] tells it.
pub(crate) fn token(project: &Project) -> String {
    said(project, "turned").chars().rev().collect()
}

/// All memory of all processes below symphony, searched for key, login and this; `None`: it was said why not.
pub(crate) fn of_the_sandbox(running: &Running, control: &str) -> Option<Looked> {
    if !rustix::process::geteuid().is_root() {
        skip_part("only root may read the memory of a guest program");
        return None;
    }
    Some(memory(&below(running.pid()), &[KEY, LOGIN, control]))
}

/// What is written, and what is said, holds neither.
#[track_caller]
pub(crate) fn not_written(project: &Project, log: &str) {
    for word in [KEY, LOGIN] {
        assert!(!log.contains(word), "{log}");
        assert_eq!(files_with(&project.dir(), word), Vec::<String>::new());
    }
}

#[test]
fn while_the_broker_uses_a_key_and_a_login_neither_is_in_any_memory_of_the_jail() {
    let server = Server::start();
    let project = project(&format!("{}\n{USES}", looking()), &server, "");
    log_in(&project.beside("home"), LOGIN, FAR);
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[("OPENAI_API_KEY", KEY)]));
    let looked = said(&project, "looked");
    assert!(looked.starts_with("key=0 login=0 token=") && !looked.contains("token=0 "), "{looked}");
    let token = token(&project);
    let before = server.asked().len();
    if let Some(looked) = of_the_sandbox(&running, &token) {
        assert!(looked.found[..2] == [0, 0] && looked.found[2] > 0 && looked.programs.len() >= 4, "{looked:?}");
    }
    until("requests during the search", || server.asked().len() > before + 2);
    server.release();
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let heads: Vec<String> = server.asked().into_iter().map(|asked| asked.head).collect();
    assert!(heads.iter().all(|head| head.contains(KEY) || head.contains(LOGIN)), "{heads:#?}");
    for word in [KEY, LOGIN] {
        assert!(heads.iter().filter(|head| head.contains(word)).count() > 3, "{word} was in use: {heads:#?}");
    }
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    assert!(notes.contains("message_stop"), "an answer was under way all the time: {notes}");
    let log = format!("{}\n{}", running.log(), running.client().get("/api/v1/state").body);
    assert_eq!(running.stop(), 0);
    not_written(&project, &log);
}

/// The control of the test above: what `stage` brings into a jail, the same two searches find there.
#[test]
fn what_is_staged_is_in_the_memory_of_the_jail_and_the_same_searches_find_it() {
    let server = Server::start();
    let project = agents::project("claude", &server);
    let scenario = format!(
        "{TOOLS}\n{}\nturn() {{ local login=$(cat ~/.claude/.credentials.json); say \"looked $(look).\"; sleep 600; }}",
        looking()
    );
    agents::install(&project, "claude-agent-acp", &scenario);
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("---\n", "---\ncredentials: stage\n", 1));
    log_in(&project.beside("home"), LOGIN, FAR);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[("OPENAI_API_KEY", KEY)]));
    let looked = said(&project, "looked");
    assert!(looked.starts_with("key=") && !looked.contains("key=0 ") && !looked.contains("login=0 "), "{looked}");
    if let Some(looked) = of_the_sandbox(&running, "no such word") {
        assert!(looked.found[0] > 0 && looked.found[1] > 0 && looked.found[2] == 0, "{looked:?}");
    }
    let log = running.log();
    assert_eq!(running.stop(), 0);
    not_written(&project, &log);
}
