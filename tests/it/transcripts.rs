//! `symphony log`: a run's transcript for people, of finished runs and of one that is under way.

use std::io::Read as _;
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::rig::{FRONT, Project, until};

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_finished_run_is_shown_in_words_with_no_key_in_them_and_unknown_ones_are_refused() {
    let project = Project::with(FRONT);
    let (code, out, _) = said(&project.run(&["log"]));
    assert_eq!((code, out.as_str()), (0, "no transcripts are kept: no agent has run yet\n"));
    let key = format!("sk-ant-api03-{}", "aB3".repeat(20));
    let body = format!("```sh\nprintf 'found {key}\\033[2J\\n'\n# 2\n# 3\n# 4\necho made > made.txt\n```\n");
    project.issue("Todo", "LOG-1", &body);
    assert_eq!(project.once(), 0);
    let (code, out, err) = said(&project.run(&["log", "log-1"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("run 1 of LOG-1: "), "{out}");
    for wanted in
        ["Z  agent       ", "Z  prompt      ", "Z  tool        ", "Z  done        ", "Z  turn end    end_turn"]
    {
        assert!(out.contains(wanted), "no {wanted:?} in {out}");
    }
    assert!(out.contains("more lines (--whole)"), "{out}");
    let (_, whole, _) = said(&project.run(&["log", "--run", "1", "--whole"]));
    assert!(whole.lines().count() > out.lines().count() && whole.contains("echo made > made.txt"), "{whole}");
    // The agent shows what it prints, and the issue, which has the key in it, is its prompt.
    assert!(whole.contains("found [redacted]"), "{whole}");
    for text in [&out, &whole, &project.transcripts()] {
        assert!(!text.contains(&key) && !text.contains('\u{1b}'), "{text}");
    }
    let (code, out, _) = said(&project.run(&["log"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("run 1     LOG-1  "), "{out}");
    for (args, words) in [
        (&["log", "NOPE"][..], "no transcript of NOPE in "),
        (&["log", "--run", "9"], "no transcript of run 9 in "),
        (&["log", "--follow"], "whom to follow?"),
        (&["log", "LOG-1", "--run", "1"], "cannot be used with"),
    ] {
        let (code, _, err) = said(&project.run(args));
        assert!(code == 2 && err.contains(words), "{code} {err}");
    }
}

#[test]
fn a_run_under_way_is_followed_into_the_next_one() {
    let project = Project::with(FRONT);
    let body =
        "```sh\ntest -e tried || { touch tried; echo first-try; sleep 1; kill -9 $PPID; }\necho second-try\n```\n";
    project.issue("Todo", "LOG-2", body);
    let running = project.start();
    until("a transcript", || project.exists(".symphony/runs/1/acp.jsonl"));
    until("its first line", || !project.read(".symphony/runs/1/acp.jsonl").is_empty());
    let mut command = project.command(&["log", "LOG-2", "--follow"]);
    let mut follower = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut stdout = follower.stdout.take().expect("piped");
    let read = std::thread::spawn(move || {
        let (mut seen, mut part) = (String::new(), [0; 4096]);
        while !(seen.contains("run 2 of LOG-2") && seen.contains("turn end    end_turn")) {
            match stdout.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(read) => seen.push_str(&String::from_utf8_lossy(&part[..read])),
            }
        }
        seen
    });
    project.wait_for("issues/Done/LOG-2.md");
    until("the end of the second run to be shown", || read.is_finished());
    follower.kill().expect("killed");
    follower.wait().expect("ended");
    let seen = read.join().expect("read");
    assert!(seen.contains("run 1 of LOG-2"), "{seen}");
    assert!(seen.find("run 1 of LOG-2") < seen.find("run 2 of LOG-2"), "{seen}");
    drop(running);
}

/// Says it in pieces as agents do that stream, in words, in thoughts and as a tool's output, and asks about it.
const STREAMS: &str = r#"
update() { emit "{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{\"sessionId\":\"$session\",\"update\":{$1}}}"; }
in_pieces() { # what makes a message of a piece, the text
    local text=$2 n=0
    while [ -n "$text" ]; do
        "$1" "${text:0:5}"
        text=${text:5} n=$((n + 1))
        # What is gathered is shown every half second.
        [ "$1" != say ] || [ $((n % 4)) != 0 ] || sleep 0.6
    done
}
thinks() { update "\"sessionUpdate\":\"agent_thought_chunk\",\"content\":{\"type\":\"text\",\"text\":\"$1\"}"; }
puts_out() { update "\"sessionUpdate\":\"tool_call_update\",\"toolCallId\":\"t\",\"content\":[{\"type\":\"content\",\"content\":{\"type\":\"text\",\"text\":\"$1\"}}]"; }
turn() {
    local secrets="token $token and key KEY."
    case $turn in
    1)
        answer=$token; note token
        in_pieces say "I found $secrets"
        in_pieces thinks "So the $secrets"
        update '"sessionUpdate":"tool_call","toolCallId":"t","title":"look"'
        in_pieces puts_out "It says $secrets"
        call request_human_steering "{\"question\":\"What of the $secrets\"}"
        # Its end looks like the beginning of a key.
        say "I wait for the s" ;;
    *) call mark_done "{\"title\":\"Found a key\",\"summary\":\"It is the $secrets\"}" ;;
    esac
}"#;

/// Regression: a secret that came in several chunks was redacted in none, and shown whole by all that joins them.
#[test]
fn a_secret_that_is_streamed_in_chunks_is_whole_in_no_transcript_log_page_or_event() {
    let key = format!("ghp_{}", "aB3".repeat(12));
    let project = Project::acting(&STREAMS.replace("KEY", &key), "");
    project.issue("Todo", "LOG-3", "Look.");
    let running = project.start();
    running.until_state("the question", |state| state["running"][0]["steering_requested"] == true);
    until("the end of its turn", || project.read(".symphony/runs/1/acp.jsonl").contains("\"stopReason\""));
    let client = running.client();
    let claimed = client.get("/api/v1/LOG-3");
    let page = client.get("/").body + &client.get("/api/v1/state").body + &client.get("/api/v1/issues/LOG-3").body;
    let mut follower = project.command(&["log", "LOG-3", "--follow", "--whole"]);
    let mut follower = follower.stdout(Stdio::piped()).spawn().expect("started");
    let mut stdout = follower.stdout.take().expect("piped");
    let read = std::thread::spawn(move || {
        let (mut seen, mut part) = (vec![], [0; 4096]);
        while !String::from_utf8_lossy(&seen).contains("turn end ") {
            match stdout.read(&mut part) {
                Ok(0) | Err(_) => break,
                Ok(read) => seen.extend_from_slice(&part[..read]),
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    until("the turn to be shown", || read.is_finished());
    follower.kill().expect("killed");
    follower.wait().expect("ended");
    let followed = read.join().expect("read");
    let (code, shown, _) = said(&project.run(&["log", "LOG-3", "--whole"]));
    assert_eq!(code, 0);

    let events = claimed.json()["recent_events"].as_array().expect("events").clone();
    let message = |kind: &str| {
        let of_kind = events.iter().filter(|event| event["event"] == kind);
        of_kind.filter_map(|event| event["message"].as_str()).collect::<Vec<_>>().join("")
    };
    let lines = project.read(".symphony/runs/1/acp.jsonl");
    let frames: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let joined = |kind: &str, place: &str| -> String {
        let updates = frames.iter().filter_map(|line| line.pointer("/frame/params/update"));
        let of_kind = updates.filter(|update| update["sessionUpdate"] == kind);
        of_kind.filter_map(|update| update.pointer(place)?.as_str()).collect()
    };
    let [says, thinks] = ["agent_message_chunk", "agent_thought_chunk"].map(|kind| joined(kind, "/content/text"));
    let output = joined("tool_call_update", "/content/0/content/text");
    assert_eq!(says, "I found token [redacted] and key [redacted].I wait for the s");
    assert_eq!(thinks, "So the token [redacted] and key [redacted].");
    assert!(output.starts_with("It says token ") && output.contains(" and key ghp_"), "{output}");
    for text in [&shown, &followed] {
        assert!(text.contains("I found token [redacted] and key [redacted]."), "{text}");
        assert!(text.contains("I wait for the s\n"), "nothing is lost: {text}");
    }
    assert!(claimed.body.contains("What of the token [redacted] and key [redacted]."), "{}", claimed.body);

    let answered = running.post("/api/v1/issues/LOG-3/steering-reply", &json!({"text": "Leave it."}));
    assert!(answered.status < 300, "{}", answered.body);
    until("the issue to be done", || project.exists("issues/Done/LOG-3.md") || running.ended());
    project.wait_for(".symphony/patches/agent_LOG-3.patch");
    let patch = project.read(".symphony/patches/agent_LOG-3.patch");
    assert!(patch.contains("It is the token [redacted] and key [redacted]."), "{patch}");
    let notes = std::fs::read_to_string(project.apply_patch("LOG-3").join("notes.txt")).expect("notes");
    let token = notes.lines().nth(1).expect("a token");
    assert!(token.len() > 16, "{notes}");
    let log = running.log();
    let message = message("agent_message_chunk");
    assert!(message.contains("found"), "{events:?}");
    assert_eq!(running.stop(), 0);
    let done = project.read("issues/Done/LOG-3.md");
    for (name, text) in [
        ("says", &says),
        ("thinks", &thinks),
        ("output", &output),
        ("the transcript", &project.transcripts()),
        ("log", &shown),
        ("log --follow", &followed),
        ("events", &message),
        ("an issue's page", &claimed.body),
        ("pages", &page),
        ("the log of the program", &log),
        ("the issue", &done),
    ] {
        // Event by event and line by line it is not whole either once what stands between them is taken out.
        let together: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        for secret in [token, key.as_str()] {
            assert!(!text.contains(secret) && !together.contains(secret), "{secret} is in {name}: {text}");
        }
    }
}
