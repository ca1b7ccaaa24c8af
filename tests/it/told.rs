//! What a person says on the command line: `symphony answer` and `symphony say`, to a symphony that runs and to one that
//! does not.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;

use crate::rig::{Project, Running, until};

/// Writes down every prompt; done when one holds the word, and asks until then.
const ASKS: &str = r#"turn() {
    printf '%s\n' "$prompt" >>prompts.txt
    case $prompt in
    *green*) call mark_done '{"title":"Colour","summary":"It is known."}' ;;
    *) call request_human_steering '{"question":"Which colour?"}' ;;
    esac
}"#;
/// Works until it is cancelled; done when a prompt holds the word.
const WORKS: &str = r#"turn() {
    printf '%s\n' "$prompt" >>prompts.txt
    case $prompt in
    *"turn left"*) call mark_done '{"title":"Turn","summary":"Left."}' ;;
    *)
        say begun
        while IFS= read -r heard; do
            case $heard in *session/cancel*) reason=cancelled && return ;; esac
        done
        ;;
    esac
}"#;

/// Exit code, stdout and stderr.
fn tell(project: &Project, args: &[&str]) -> (i32, String, String) {
    let output = project.run(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("not killed"), text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn refused(project: &Project, args: &[&str], code: i32, words: &str) {
    let (got, out, err) = tell(project, args);
    assert_eq!((got, out.as_str()), (code, ""), "{err}");
    assert!(err.contains(words), "no {words:?} in {err}");
}

#[track_caller]
fn taken(project: &Project, args: &[&str], words: &str) {
    let (code, out, err) = tell(project, args);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains(words), "no {words:?} in {out}");
}

fn until_it_asks(running: &Running) {
    running.until_state("the question", |s| s["running"][0]["steering_requested"] == json!(true));
}

/// How many prompts of the finished issue held the word.
fn prompts_with(project: &Project, key: &str, word: &str) -> usize {
    let prompts = std::fs::read_to_string(project.apply_patch(key).join("prompts.txt")).expect("written");
    prompts.lines().filter(|prompt| prompt.contains(word)).count()
}

#[test]
fn an_answer_from_standard_input_reaches_the_script_agent_and_a_second_one_is_refused() {
    let project = Project::new();
    let body = "```sh\nif [ -z \"${SYMPHONY_ANSWER:-}\" ]; then echo 'Which colour?'; exit 75; fi\nprintf '%s\\n' \"$SYMPHONY_ANSWER\" > colour.txt\n```";
    project.issue("Todo", "Q-1", body);
    project.issue("Backlog", "B-1", "x");
    let running = project.start();
    until_it_asks(&running);
    let (_, said, _) = tell(&project, &["explain", "Q-1"]);
    assert!(said.contains("asks      Which colour?") && said.contains("symphony answer Q-1"), "{said}");
    refused(&project, &["answer", "Q-9", "x"], 2, "no issue, file or name `Q-9`");
    refused(&project, &["answer", "B-1", "x"], 1, "no question of B-1 is waiting");
    refused(&project, &["answer", "Q-1", " "], 2, "there are no words");
    refused(&project, &["answer", "Q-1"], 2, "there are no words");
    refused(&project, &["say", "Q-1", "x"], 1, "asks something itself");
    refused(&project, &["say", "B-1", "x"], 1, "no agent works on B-1");

    let mut command = project.command(&["answer", "q-1", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(b"green\n").expect("written");
    assert!(child.wait_with_output().expect("ends").status.success());
    refused(&project, &["answer", "Q-1", "red"], 1, "Q-1");
    until("the issue to be done", || project.exists("issues/Done/Q-1.md"));
    assert_eq!(std::fs::read_to_string(project.apply_patch("Q-1").join("colour.txt")).expect("written"), "green\n");
}

#[test]
fn an_answer_given_while_symphony_is_down_is_delivered_exactly_once() {
    let project = Project::acting(ASKS, "");
    project.issue("Todo", "Q-1", "Paint it.");
    refused(&project, &["answer", "Q-1", "green"], 1, "none has run there yet");
    let running = project.start();
    until_it_asks(&running);
    running.stop();
    refused(&project, &["answer", "Q-9", "green"], 2, "there is no issue `Q-9`");
    refused(&project, &["say", "Q-1", "x"], 1, "asks something itself");
    taken(&project, &["answer", "Q-1", "green"], "Q-1: kept");
    refused(&project, &["answer", "Q-1", "violet"], 1, "no question of Q-1 is waiting");
    let running = project.start();
    until("the issue to be done", || project.exists("issues/Done/Q-1.md"));
    running.stop();
    assert_eq!(prompts_with(&project, "Q-1", "green"), 1);
    assert!(!project.transcripts().contains("violet"), "the second answer reached the agent");
}

#[test]
fn words_said_now_cut_the_turn_short_and_words_for_the_next_turn_do_not() {
    let project = Project::acting(WORKS, "");
    project.issue("Todo", "W-1", "Go on.");
    let running = project.start();
    running.until_state("a turn", |s| s["running"][0]["last_message"].as_str().is_some_and(|m| m.contains("begun")));
    taken(&project, &["say", "W-1", "mind the step"], "goes with the agent's next prompt");
    assert_eq!(running.state()["running"][0]["turn_count"], json!(1), "it was interrupted");
    taken(&project, &["say", "W-1", "--now", "turn left"], "a turn under way is cancelled");
    until("the issue to be done", || project.exists("issues/Done/W-1.md"));
    running.stop();
    assert_eq!(prompts_with(&project, "W-1", "turn left"), 1);
    assert!(project.transcripts().contains("session/cancel") && project.exists(".symphony/runs/1/acp.jsonl"));
    assert!(!project.exists(".symphony/runs/2"), "the words needed another run");
}

#[test]
fn words_said_while_symphony_is_down_come_with_the_first_prompt() {
    let project = Project::acting(WORKS, "");
    project.issue("Backlog", "B-1", "Later.");
    let running = project.start();
    assert_eq!(running.stop(), 0);
    refused(&project, &["say", "B-1", "x"], 1, "B-1 is in Backlog, where nobody works");
    project.issue("Todo", "W-1", "Go on.");
    taken(&project, &["say", "W-1", "turn left"], "W-1: kept");
    let running = project.start();
    until("the issue to be done", || project.exists("issues/Done/W-1.md"));
    running.stop();
    assert_eq!(prompts_with(&project, "W-1", "turn left"), 1);
}
