//! Credentials stay on the host: they are found there, they are never found in a guest or a log.

use std::path::Path;

use serde_json::{Value, json};

use super::server::Server;
use super::{BOTH, KEY, command, noted, project, worked};
use crate::search::files_with;

/// Looks for words in everything the agent can see: its environment, every process, every file it may read.
pub(super) const SEARCH: &str = r#"
search() { # word
    env | grep -c "$1"
    # First read, then searched: the search's own arguments hold the word.
    local processes=$(cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n')
    grep -c "$1" <<<"$processes"
    grep -rls --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr --exclude=scenario.sh -e "$1" / 2>/dev/null | wc -l
    return 0
}
"#;

#[test]
fn a_planted_key_is_nowhere_in_the_guest_nor_in_anything_that_is_written() {
    let server = Server::start();
    // The word is put together in the guest, so that the search does not find itself.
    let scenario = format!(
        "{SEARCH}\nturn() {{ ask stream; note asked; answer=$(search planted-\"\"key-04''51); note key; \
         echo \"$ANTHROPIC_AUTH_TOKEN\" >~/planted; answer=$(search \"$ANTHROPIC_AUTH_TOKEN\"); note control; \
         say \"token $ANTHROPIC_AUTH_TOKEN said\"; done_; }}"
    );
    let project = project(&scenario, &server, "");
    let (notes, log) = worked(&project, &BOTH);
    assert!(server.asked().iter().all(|asked| asked.head.contains(KEY)), "the key was used: {:#?}", server.asked());
    assert_eq!(noted(&notes, "key").split_whitespace().collect::<Vec<_>>(), ["0", "0", "0"], "{notes}");
    let control = noted(&notes, "control").split_whitespace().all(|count| count != "0");
    assert!(control, "the same search finds what is there: {notes}");
    assert!(!log.contains(KEY) && !notes.contains(KEY), "{log}");
    assert_eq!(files_with(&project.dir(), KEY), Vec::<String>::new());
    // What an agent says of its own token is not written down either.
    // The end of a text may wait, in a frame of its own: its last letter can be the first of a token.
    assert!(project.transcripts().contains("token [redacted]"));
}

/// The control of the test above: what `stage` brings into a guest, the same searches find there.
#[test]
fn a_staged_login_is_in_the_guest_while_the_agent_works_and_not_in_anything_that_is_written() {
    let server = Server::start();
    let project = super::agents::project("claude", &server);
    let scenario = format!(
        "{SEARCH}\nturn() {{ answer=$(search planted-\"\"staged-log''in); note login; answer=$(stat -c '%a %U' ~/.claude/.credentials.json); note file; \
         answer=$(env | grep -c ANTHROPIC_BASE_URL); note broker; say \"it is $(grep -o 'planted-[a-z-]*' \
         ~/.claude/.credentials.json)\"; done_; }}"
    );
    super::agents::install(&project, "claude-agent-acp", &format!("{}\n{scenario}", super::TOOLS));
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("---\n", "---\ncredentials: stage\n", 1));
    log_in(&project.beside("home"), "planted-staged-login", FAR);
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    crate::rig::until("the issue to be done", || project.exists("issues/Done/A-1.md") || running.ended());
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let log = format!("{}\n{}", running.log(), running.client().get("/api/v1/state").body);
    assert_eq!(running.stop(), 0);
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    assert_eq!(
        noted(&notes, "file").trim(),
        "600 ".to_owned() + noted(&notes, "file").trim().split_once(' ').expect("an owner").1
    );
    let counts = |name| noted(&notes, name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!((counts("login")[2].as_str(), counts("broker")), ("1", vec!["0".to_owned()]), "{notes}");
    assert!(log.contains("credentials: stage") && log.contains("a login is copied into the sandbox"), "{log}");
    assert!(project.transcripts().contains("it is [redacted]"), "{}", project.transcripts());
    for word in ["planted-staged-login", "planted-refresh"] {
        assert!(!log.contains(word) && !notes.contains(word), "{word} in {log}\n{notes}");
        assert_eq!(files_with(&project.dir(), word), Vec::<String>::new(), "{word}");
    }
    assert!(server.asked().is_empty(), "it has a way of its own");
}

#[test]
fn without_a_login_to_stage_the_issue_is_parked_with_the_remedy() {
    let server = Server::start();
    let project = super::agents::project("claude", &server);
    super::agents::install(&project, "claude-agent-acp", "turn() { done_; }");
    project.write("WORKFLOW.md", &project.read("WORKFLOW.md").replacen("---\n", "---\ncredentials: stage\n", 1));
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    let note = project.parked_note("A-1");
    assert!(
        note.contains("there is no ~/.claude/.credentials.json on the host, nor ANTHROPIC_API_KEY; log in"),
        "{note}"
    );
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_refused_key_is_said_to_agent_and_operator_without_its_value() {
    let server = Server::start();
    server.refuse(KEY, || {});
    let project = project("turn() { ask stream; say \"heard ${answer//[^a-zA-Z0-9_ ]/ }\"; sleep 60; }", &server, "");
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &BOTH));
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    let why = state["idle"][0]["reason"].as_str().expect("a reason");
    assert!(why.contains("anthropic refuses the key in ANTHROPIC_API_KEY: start symphony with a key"), "{state}");
    assert!(project.transcripts().contains("heard HTTP 1 1 401"), "{}", project.transcripts());
    let log = format!("{}{state}{}", running.log(), project.transcripts());
    assert!(log.contains("model_login") && log.contains("provider-login") && !log.contains(KEY), "{log}");
    assert_eq!(server.asked().len(), 1, "it is asked once, and nothing more");
    assert_eq!(running.stop(), 0);
}

/// A login of Claude Code in this home.
pub(crate) fn log_in(home: &Path, token: &str, expires_at: i64) {
    let login =
        json!({"claudeAiOauth": {"accessToken": token, "refreshToken": "planted-refresh", "expiresAt": expires_at}});
    std::fs::create_dir_all(home.join(".claude")).expect("directory");
    std::fs::write(home.join(".claude/.credentials.json"), login.to_string()).expect("login");
}

pub(crate) const FAR: i64 = 32_503_680_000_000;

#[test]
fn a_login_is_used_and_read_again_when_the_provider_refuses_it() {
    let server = Server::start();
    let project = project("turn() { ask stream; note asked; done_; }", &server, "");
    let home = project.beside("home");
    log_in(&home, "planted-old-login", FAR);
    let renewed = home.clone();
    server.refuse("planted-old-login", move || log_in(&renewed, "planted-new-login", FAR));
    let (notes, _) = worked(&project, &[]);
    assert!(noted(&notes, "asked").starts_with("HTTP/1.1 200"), "{notes}");
    let heads: Vec<String> = server.asked().into_iter().map(|asked| asked.head).collect();
    assert_eq!(heads.len(), 2, "{heads:#?}");
    assert!(
        heads[1].contains("authorization: bearer planted-new-login")
            && heads[1].contains("anthropic-beta: oauth-2025-04-20")
    );
    // Read, and never written.
    let kept: Value =
        serde_json::from_slice(&std::fs::read(home.join(".claude/.credentials.json")).expect("there")).expect("JSON");
    assert_eq!(kept["claudeAiOauth"]["refreshToken"], "planted-refresh");
}

#[test]
fn an_expired_login_says_log_in_again_and_the_issue_goes_on_with_a_new_one() {
    let server = Server::start();
    let project = project("turn() { ask stream; [[ $answer == *401* ]] && return; note asked; done_; }", &server, "");
    let home = project.beside("home");
    log_in(&home, "planted-login", 1000);
    project.issue("Todo", "A-1", "Ask.");
    let running = project.start_command(command(&project, &["WORKFLOW.md", "--port", "0"], &[]));
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    assert!(state.to_string().contains("log in again on the host with `claude`"), "{state}");
    assert!(server.asked().is_empty() && !running.log().contains("planted-login"), "{}", running.log());
    log_in(&home, "planted-new-login", FAR);
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    assert!(noted(&notes, "asked").contains("HTTP/1.1 200"), "{notes}");
    assert_eq!((server.asked().len(), running.stop()), (1, 0));
}

#[test]
fn without_a_credential_an_agent_is_told_of_no_model_and_the_doctor_says_why() {
    let server = Server::start();
    let project = project(
        "turn() { answer=$(env | grep -c -e _BASE_URL -e AUTH_TOKEN -e API_KEY -e CODEX_CONFIG); note variables; done_; }",
        &server,
        "",
    );
    let workflow = project.read("WORKFLOW.md");
    let away = workflow
        .replace(&format!("{}/base/", server.url), "https://models.example.org")
        .replace(&format!("{}/v1", server.url), "https://models.example.org/v1")
        .replace(&format!("  google:\n    base_url: {}\n", server.url), "")
        .replace("    login: true\n", "");
    project.write("WORKFLOW.md", &away);
    // A login is good for its own provider only, and so is a key whose variable nobody named.
    log_in(&project.beside("home"), "planted-login", FAR);
    let (notes, _) = worked(&project, &[]);
    assert_eq!(noted(&notes, "variables").trim(), "0", "{notes}");
    let told = || {
        let said = command(&project, &["doctor", "--json"], &[("OPENAI_API_KEY", KEY)]).output().expect("runs").stdout;
        let said: Value = serde_json::from_slice(&said).expect("JSON");
        assert!(!said.to_string().contains(KEY));
        said["models"].clone()
    };
    let said = told();
    assert_eq!(said[0]["ok"], false, "{said}");
    assert_eq!(said[0]["says"], "no credential for anthropic on the host: set ANTHROPIC_API_KEY");
    assert_eq!((&said[2]["provider"], &said[2]["ok"]), (&json!("google"), &json!(false)), "{said}");
    assert_eq!(said[1]["ok"], false, "{said}");
    assert!(
        said[1]["says"].as_str().is_some_and(|says| says.contains("`providers.openai.api_key_env: OPENAI_API_KEY`"))
    );
    project
        .write("WORKFLOW.md", &away.replace("example.org/v1\n", "example.org/v1\n    api_key_env: OPENAI_API_KEY\n"));
    let said = told();
    assert_eq!((&said[1]["ok"], &said[1]["says"]), (&json!(true), &json!("the key in OPENAI_API_KEY")));
}
