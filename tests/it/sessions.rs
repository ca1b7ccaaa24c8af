//! A later run goes on with its agent's session: after a kill, a late answer, a failure; and does without it, at no cost
//! but the conversation, whenever the agent or the circumstances do not let it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{FRONT, Project, Running, git, until};

/// Ends its issue.
const FINISH: &str = "finish() { call mark_done '{\"title\":\"The end\",\"summary\":\"All of it.\"}'; }\n";

fn acting(sessions: &str, turn: &str, front: &str) -> Project {
    let project = Project::acting(&scenario(sessions, turn), front);
    project.issue("Todo", "S-1", "Do it well.");
    project
}

fn scenario(sessions: &str, turn: &str) -> String {
    format!("sessions={sessions}\n{FINISH}turn() {{\n{turn}\n}}\n")
}

/// What the agent does from its next start on.
fn becomes(project: &Project, scenario: &str) {
    std::fs::write(project.beside("agent/scenario.sh"), scenario).expect("written");
}

/// Our messages of this method to the agent of one run, oldest first.
fn sent(project: &Project, run: u32, method: &str) -> Vec<Value> {
    let frames = frames(project, run);
    let ours = frames.iter().filter(|frame| frame["dir"] == json!("out")).map(message);
    ours.filter(|message| message["method"] == json!(method)).map(|message| message["params"].clone()).collect()
}

fn frames(project: &Project, run: u32) -> Vec<Value> {
    let text = project.read(&format!(".symphony/runs/{run}/acp.jsonl"));
    text.lines().map(|line| serde_json::from_str(line).expect("a frame")).collect()
}

fn message(frame: &Value) -> Value {
    match &frame["frame"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
        other => other.clone(),
    }
}

fn prompts(project: &Project, run: u32) -> Vec<String> {
    let prompts = sent(project, run, "session/prompt");
    prompts.iter().map(|params| params["prompt"][0]["text"].as_str().expect("text").to_owned()).collect()
}

/// The names of the sessions that prompts of this run went to.
fn prompted(project: &Project, run: u32) -> Vec<String> {
    let prompts = sent(project, run, "session/prompt");
    prompts.iter().map(|params| params["sessionId"].as_str().expect("a session").to_owned()).collect()
}

fn runs(project: &Project) -> usize {
    std::fs::read_dir(project.dir().join(".symphony/runs")).expect("runs").count()
}

fn killed(running: Running) {
    running.signal(Signal::KILL);
    drop(running);
}

fn in_tree(project: &Project, name: &str) {
    let place = project.dir().join(".symphony/disks/S-1/tree").join(name);
    until(&format!("{name} in the work tree"), || place.exists());
}

#[test]
fn a_run_that_was_cut_off_goes_on_in_its_session_and_nothing_of_its_history_is_news() {
    let turn = "[ $past = 1 ] && { touch begun; sleep 300; }\nsay 'new words'; echo $past >past.txt\n\
                while [ ! -e go ]; do sleep 0.1; done; rm -f begun go; finish";
    let project = acting("load", turn, "");
    let running = project.start();
    in_tree(&project, "begun");
    killed(running);
    let running = project.start();
    in_tree(&project, "past.txt");
    let state = running.until_state("the second run", |s| s["running"][0]["turn_count"] == json!(1));
    let row = &state["running"][0];
    assert_eq!((&row["session_id"], &row["session_continued"]), (&json!("s-1"), &json!(true)), "{row}");
    let explained = project.run(&["explain", "S-1"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains(" · session continued · since "), "{explained}");
    std::fs::write(project.dir().join(".symphony/disks/S-1/tree/go"), "").expect("written");
    project.wait_for("issues/Done/S-1.md");
    let log = running.log();
    assert!(log.contains("agent session continued") && !log.contains("not continued"), "{log}");
    assert_eq!((sent(&project, 1, "session/new").len(), sent(&project, 2, "session/new").len()), (1, 0));
    let loads = sent(&project, 2, "session/load");
    assert_eq!((loads.len(), &loads[0]["sessionId"], &loads[0]["cwd"]), (1, &json!("s-1"), &json!("/work")));
    let (old, new) = (&sent(&project, 1, "session/new")[0]["mcpServers"], &loads[0]["mcpServers"]);
    assert_eq!(old[0]["url"], new[0]["url"], "the same door");
    assert_eq!(prompted(&project, 2), ["s-1"]);
    // Nobody knows whether the turn that was cut off reached the session: its task is said again.
    let prompt = &prompts(&project, 2)[0];
    assert!(prompt.contains("symphony ended without a word") && prompt.contains("Do it well."), "{prompt}");
    let clone = project.apply_patch("S-1");
    let read = |name| std::fs::read_to_string(clone.join(name)).expect("there");
    assert_eq!((read("past.txt"), read("history.txt")), ("2\n".into(), "s-1\n".into()), "the control: it was told");
    let told = frames(&project, 2).iter().map(Value::to_string).collect::<String>();
    assert!(told.contains("new words") && !told.contains("of old"), "{told}");
}

#[test]
fn a_late_answer_goes_to_the_session_that_asked_and_says_no_more_than_it_must() {
    let turn = "[ $past = 1 ] && { call request_human_steering '{\"question\":\"Which colour?\"}'; return; }\nfinish";
    let project = acting("resume", turn, "steering:\n  release_after_ms: 300\n");
    let running = project.start();
    running.until_state("the release", |s| s["running"] == json!([]) && s["asked"][0]["steering_question"].is_string());
    let answer = running.post("/api/v1/issues/S-1/steering-reply", &json!({"text": "green"}));
    assert_eq!(answer.status, 202);
    project.wait_for("issues/Done/S-1.md");
    assert_eq!((sent(&project, 2, "session/new").len(), sent(&project, 2, "session/load").len()), (0, 0));
    assert_eq!(sent(&project, 2, "session/resume").len(), 1);
    assert_eq!(prompted(&project, 2), ["s-1"]);
    let prompt = &prompts(&project, 2)[0];
    for part in ["S-1: The title of S-1", "The task is still the same.", "Which colour?", "green"] {
        assert!(prompt.contains(part), "{part:?} in {prompt}");
    }
    assert!(!prompt.contains("Do it well."), "{prompt}");
    let all = (1..=2).flat_map(|run| prompts(&project, run));
    assert_eq!(all.filter(|prompt| prompt.contains("The answer:")).count(), 1);
}

#[test]
fn a_retry_goes_on_in_the_session_and_hears_why_and_what_changed_in_its_issue() {
    // The second turn waits for the issue to change, and fails; the third one is the retry's.
    let turn =
        "case $past in\n1) ;;\n2) touch begun; while [ ! -e go ]; do sleep 0.1; done; exit 1 ;;\n*) finish ;;\nesac";
    let project = acting("load", turn, "");
    let running = project.start();
    in_tree(&project, "begun");
    project.issue("Todo", "S-1", "Do it better.");
    running.until_state("the new text", |s| s["running"][0]["issue_body"].to_string().contains("better"));
    std::fs::write(project.dir().join(".symphony/disks/S-1/tree/go"), "").expect("written");
    project.wait_for("issues/Done/S-1.md");
    assert_eq!((runs(&project), prompted(&project, 2)), (2, vec!["s-1".to_owned()]));
    let prompt = &prompts(&project, 2)[0];
    for part in ["How the last run ended: agent-exit", "The task was changed meanwhile.", "Do it better."] {
        assert!(prompt.contains(part), "{part:?} in {prompt}");
    }
    assert!(running.log().contains("agent session continued"));
}

#[test]
fn a_session_that_the_agent_does_not_know_or_refuses_costs_nothing_but_the_conversation() {
    for (sessions, turn) in [
        ("load", "[ $session = s-1 ] && { rm $HOME/session-s-1; exit 1; }\nfinish"),
        ("refuse", "[ $session = s-1 ] && exit 1\nfinish"),
    ] {
        let project = acting(sessions, turn, "budget:\n  failures_in_a_row: 2\n");
        let running = project.start();
        project.wait_for("issues/Done/S-1.md");
        let said = running.log();
        let told: Vec<_> = said.lines().filter(|line| line.contains("last session is not continued")).collect();
        assert!(told.len() == 1 && told[0].contains("there is no session s-1"), "{told:?}");
        assert_eq!((runs(&project), sent(&project, 2, "session/load").len()), (2, 1));
        assert_eq!(sent(&project, 2, "initialize").len(), 1, "the same program");
        assert_ne!(prompted(&project, 2), ["s-1"]);
        let prompt = &prompts(&project, 2)[0];
        assert!(prompt.contains("Do it well.") && prompt.contains("agent-exit"), "{prompt}");
    }
}

#[test]
fn an_agent_that_dies_or_hangs_over_its_session_is_started_again_in_the_same_run_with_a_new_one() {
    for sessions in ["die", "hang"] {
        let project = acting(sessions, "[ $session = s-1 ] && exit 1\nfinish", "budget:\n  failures_in_a_row: 2\n");
        let workflow = project.read("WORKFLOW.md").replace("acp:\n", "acp:\n  read_timeout_ms: 2000\n");
        project.write("WORKFLOW.md", &workflow);
        let running = project.start();
        project.wait_for("issues/Done/S-1.md");
        assert_eq!((runs(&project), sent(&project, 2, "session/load").len()), (2, 1), "{sessions}");
        assert_eq!(sent(&project, 2, "initialize").len(), 2, "{sessions}: once more");
        assert_eq!(prompted(&project, 2), ["s-2"]);
        assert!(prompts(&project, 2)[0].contains("Do it well."));
        let said = running.log();
        assert_eq!(said.lines().filter(|line| line.contains("last session is not continued")).count(), 1, "{said}");
    }
}

#[test]
fn a_call_of_a_session_s_history_is_never_the_word_of_the_session_that_is_prompted() {
    // The history's program ends and another one begins a new session, or the session itself goes on.
    for (after, sessions, programs) in [("exit 1", ["s-2", "s-2"], 2), ("", ["s-1", "s-1"], 1)] {
        let history = format!(
            "history() {{ call mark_done '{{\"title\":\"Stale\",\"summary\":\"Of old.\"}}'; note history; {after}; }}\n"
        )
        .replace("; ; }", "; }");
        // The first prompt of the second run is answered without a call.
        let turn = "[ -e notes.txt ] || exit 1\n[ $turn = 1 ] || finish";
        let project = Project::acting(&format!("{history}{}", scenario("load", turn)), "");
        let workflow = project.read("WORKFLOW.md").replace("acp:\n", "acp:\n  read_timeout_ms: 5000\n");
        project.write("WORKFLOW.md", &workflow);
        project.issue("Todo", "S-1", "Do it well.");
        let _running = project.start();
        project.wait_for("issues/Done/S-1.md");
        let patch = project.read(".symphony/patches/agent_S-1.patch");
        assert_eq!((runs(&project), prompted(&project, 2)), (2, sessions.map(str::to_owned).to_vec()), "{patch}");
        assert_eq!(sent(&project, 2, "initialize").len(), programs);
        assert!(patch.contains("The end") && !patch.contains("Stale"), "{patch}");
        assert!(patch.contains("no turn of this session has begun"), "the control: it called, and was told: {patch}");
    }
}

#[test]
fn a_continued_session_hears_what_the_template_says_to_a_retry_and_else_nothing_twice() {
    let turn = "case $past in\n1) ;;\n2) exit 1 ;;\n*) finish ;;\nesac";
    for (words, heard) in [
        ("{% if attempt %}RETRY-RULES {{ attempt }} {{ retry_kind }}: {{ last_end }}{% endif %}", true),
        ("{% if last_end %}RETRY-RULES {{ last_end }}{% endif %}", false),
    ] {
        let project = acting("load", turn, "");
        project.write("WORKFLOW.md", &format!("{}\n{words}\n", project.read("WORKFLOW.md")));
        let running = project.start();
        project.wait_for("issues/Done/S-1.md");
        assert!(running.log().contains("agent session continued"));
        let (first, second) = (&prompts(&project, 1)[0], &prompts(&project, 2)[0]);
        assert!(!first.contains("RETRY-RULES"), "{first}");
        assert!(second.contains("The task is still the same."), "{second}");
        assert_eq!(second.contains("RETRY-RULES 1 failure: agent-exit: "), heard, "{second}");
        assert_eq!(second.contains("Do it well."), heard, "{second}");
    }
}

#[test]
fn a_session_over_which_symphony_was_killed_is_not_tried_a_second_time() {
    let project = acting("hang", "[ $session = s-1 ] && { touch begun; sleep 300; }\nfinish", "");
    let running = project.start();
    in_tree(&project, "begun");
    killed(running);
    let running = project.start();
    let transcript = ".symphony/runs/2/acp.jsonl";
    until("the try", || project.exists(transcript) && project.read(transcript).contains("session/load"));
    killed(running);
    let running = project.start();
    project.wait_for("issues/Done/S-1.md");
    assert_eq!((sent(&project, 3, "session/load").len(), prompted(&project, 3)), (0, vec!["s-2".to_owned()]));
    assert!(running.log().contains("continuing the last one led nowhere"));
}

#[test]
fn a_session_that_answers_no_turn_any_more_is_left_behind() {
    let project = acting("load", "[ $session = s-1 ] && exit 1\nfinish", "");
    assert_eq!(project.once(), 0);
    assert_eq!([1, 2, 3].map(|run| prompted(&project, run)).concat(), ["s-1", "s-1", "s-2"]);
    assert_eq!((sent(&project, 2, "session/load").len(), sent(&project, 3, "session/load").len()), (1, 0));
}

#[test]
fn another_agent_another_state_and_an_issue_that_was_finished_begin_new_sessions() {
    let turn =
        "case $session in\ns-1) exit 1 ;;\ns-2) call transition '{\"to_state\":\"Review\"}' ;;\n*) finish ;;\nesac";
    let states = "states:\n  Todo: {role: active, allowed_transitions: [Review, Done]}\n  Review: {role: active}\n  Done: {role: terminal}\n";
    let project = acting("load", turn, states);
    let lists = "  active_states: [Todo, In Progress]\n  terminal_states: [Done, Cancelled]\n";
    let workflow = project
        .read("WORKFLOW.md")
        .replace(lists, "")
        .replace("max_retry_backoff_ms: 300", "max_retry_backoff_ms: 3000");
    project.write("WORKFLOW.md", &workflow);
    let running = project.start();
    running.until_state("the failure", |s| s["retrying"][0]["issue_identifier"] == json!("S-1"));
    project.write("WORKFLOW.md", &workflow.replace("acp.sh ", "acp.sh  "));
    project.wait_for("issues/Done/S-1.md");
    assert_eq!([1, 2, 3].map(|run| prompted(&project, run)).concat(), ["s-1", "s-2", "s-3"]);
    let log = running.log();
    assert!(log.contains("another agent is chosen") && log.contains("the issue is in another state"), "{log}");
    // The home goes with the issue's work disk, and the session's name with it.
    until("the work disk to go", || !project.exists(".symphony/disks/S-1"));
    becomes(&project, &scenario("load", "finish"));
    std::fs::rename(project.dir().join("issues/Done/S-1.md"), project.dir().join("issues/Review/S-1.md"))
        .expect("back");
    until("a fourth run", || runs(&project) == 4);
    project.wait_for("issues/Done/S-1.md");
    assert_eq!(running.stop(), 0);
    let export = project.run(&["journal", "export"]);
    let export = String::from_utf8_lossy(&export.stdout).into_owned();
    let kinds = |kind: &str| export.lines().filter(|line| line.contains(&format!("\"{kind}\""))).count();
    assert_eq!((kinds("session_tried"), kinds("session_forgotten")), (0, 2), "{export}");
    assert!(kinds("session_kept") >= 4 && !export.contains("acp.sh"), "the command is none of its words");
}

#[test]
fn without_acp_resume_every_run_has_a_session_of_its_own() {
    let project = acting("load", "[ $session = s-1 ] && exit 1\nfinish", "");
    let workflow = project.read("WORKFLOW.md").replace("acp:\n", "acp:\n  resume: false\n");
    project.write("WORKFLOW.md", &workflow);
    git(&project.dir(), &["commit", "-q", "-a", "-m", "Off"]);
    assert_eq!(project.once(), 0);
    assert_eq!((prompted(&project, 2), sent(&project, 2, "session/load").len()), (vec!["s-2".to_owned()], 0));
    assert!(!FRONT.contains("resume"), "the control: the others have the default");
}
