//! Credentials stay on the host: they are found there, they are never found in a guest or a log.

use std::path::Path;

use serde_json::{Value, json};

use super::server::Server;
use super::{BOTH, KEY, command, noted, project, worked};

/// Looks for words in everything the agent can see: its environment, every process, every file it may read.
const SEARCH: &str = r#"
search() { # word
    env | grep -c "$1"
    # First read, then searched: the search's own arguments hold the word.
    local processes=$(cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n')
    grep -c "$1" <<<"$processes"
    grep -rls --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr --exclude=scenario.sh -e "$1" / 2>/dev/null | wc -l
    return 0
}
"#;

/// Every file below `dir` that holds `word`.
fn files_with(dir: &Path, word: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            files_with(&path, word, found);
        } else if std::fs::read(&path).unwrap_or_default().windows(word.len()).any(|part| part == word.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
}

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
    let mut found = vec![];
    files_with(&project.dir(), KEY, &mut found);
    assert_eq!(found, Vec::<String>::new());
    // What an agent says of its own token is not written down either.
    assert!(project.transcripts().contains("token [redacted] said"));
}

#[test]
fn a_refused_key_is_said_to_agent_and_operator_without_its_value() {
    let server = Server::start();
    server.refuse(KEY, || {});
    let (notes, log) = worked(&project("turn() { ask stream; note refused; done_; }", &server, ""), &BOTH);
    let refused = noted(&notes, "refused");
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("ANTHROPIC_API_KEY"), "{notes}");
    assert!(log.contains("model_login") && !log.contains(KEY) && !notes.contains(KEY), "{log}");
}

/// A login of Claude Code in this home.
fn log_in(home: &Path, token: &str, expires_at: i64) {
    let login =
        json!({"claudeAiOauth": {"accessToken": token, "refreshToken": "planted-refresh", "expiresAt": expires_at}});
    std::fs::create_dir_all(home.join(".claude")).expect("directory");
    std::fs::write(home.join(".claude/.credentials.json"), login.to_string()).expect("login");
}

const FAR: i64 = 32_503_680_000_000;

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
fn an_expired_login_says_log_in_again_and_nothing_is_asked() {
    let server = Server::start();
    let project = project("turn() { ask stream; note asked; done_; }", &server, "");
    log_in(&project.beside("home"), "planted-login", 1000);
    let (notes, log) = worked(&project, &[]);
    let asked = noted(&notes, "asked");
    assert!(asked.starts_with("HTTP/1.1 401") && asked.contains("log in again on the host with `claude`"), "{notes}");
    assert!(server.asked().is_empty() && log.contains("model_login") && !log.contains("planted-login"), "{log}");
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
        .replace("    login: true\n", "");
    project.write("WORKFLOW.md", &away);
    // A login is good for its own provider only.
    log_in(&project.beside("home"), "planted-login", FAR);
    let (notes, _) = worked(&project, &[]);
    assert_eq!(noted(&notes, "variables").trim(), "0", "{notes}");
    let said = command(&project, &["doctor", "--json"], &[("OPENAI_API_KEY", KEY)]).output().expect("runs").stdout;
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    assert_eq!(said["models"][0]["ok"], false, "{said}");
    assert_eq!(said["models"][0]["says"], "no credential for anthropic on the host: set ANTHROPIC_API_KEY");
    assert_eq!(
        (&said["models"][1]["ok"], &said["models"][1]["says"]),
        (&json!(true), &json!("the key in OPENAI_API_KEY"))
    );
    assert!(!said.to_string().contains(KEY));
}
