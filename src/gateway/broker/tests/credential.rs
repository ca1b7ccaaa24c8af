//! Credentials: which is found, where it goes, and that nothing shows it. The broker itself is tested through the program,
//! in `tests/it/model`.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use symphony_core::broker::Provider;
use symphony_core::workflow::ProviderRule;

use super::super::credential::{NoCredential, Remedy, Source, find};
use crate::workflow_file::Environment;

fn environment(home: &Path, key: Option<(&'static str, &'static str)>) -> Environment {
    let variable = move |name: &str| key.filter(|(named, _)| *named == name).map(|(_, value)| value.to_owned());
    Environment { home: Some(home.to_owned()), variable: Arc::new(variable) }
}

fn rule(base_url: Option<&str>) -> ProviderRule {
    ProviderRule {
        base_url: base_url.map(str::to_owned),
        api_key_env: None,
        models: None,
        login: false,
        refresh: false,
    }
}

fn write(home: &Path, file: &str, text: &str) {
    let path = home.join(file);
    std::fs::create_dir_all(path.parent().expect("parent")).expect("directory");
    std::fs::write(path, text).expect("written");
}

/// `{"exp":…}` between two dots, as a token carries it.
fn token(exp: i64) -> String {
    format!("h.{}.s", super::super::super::mcp::base64url(json!({"exp": exp}).to_string().as_bytes()))
}

#[tokio::test]
async fn a_key_wins_over_a_login_and_neither_is_shown() {
    let home = tempfile::tempdir().expect("directory");
    write(
        home.path(),
        ".claude/.credentials.json",
        &json!({"claudeAiOauth": {"accessToken": "login-1234"}}).to_string(),
    );
    let rule = rule(None);
    let login = find(Provider::Anthropic, &rule, &environment(home.path(), None)).await.expect("a login");
    assert_eq!((&login.source, login.headers[0].1.as_bytes()), (&Source::Claude, b"Bearer login-1234".as_slice()));
    let with_key = environment(home.path(), Some(("ANTHROPIC_API_KEY", " key-5678\n")));
    let key = find(Provider::Anthropic, &rule, &with_key).await.expect("a key");
    assert_eq!((key.headers[0].0.as_str(), key.headers[0].1.as_bytes()), ("x-api-key", b"key-5678".as_slice()));
    for credential in [login, key] {
        let shown = format!("{credential:?} {:?} {}", credential.headers, credential.source);
        assert!(!shown.contains("1234") && !shown.contains("5678"), "{shown}");
    }
}

#[tokio::test]
async fn a_login_goes_to_its_own_provider_only() {
    let home = tempfile::tempdir().expect("directory");
    let auth = json!({"OPENAI_API_KEY": null, "tokens": {"access_token": token(i64::MAX / 2000), "account_id": "a-1"}});
    write(home.path(), ".codex/auth.json", &auth.to_string());
    let at = async |base_url| find(Provider::OpenAi, &rule(base_url), &environment(home.path(), None)).await;
    let own = at(None).await.expect("a login");
    assert_eq!(own.base_url, "https://chatgpt.com/backend-api/codex");
    assert_eq!((own.headers[1].0.as_str(), own.headers[1].1.as_bytes()), ("chatgpt-account-id", b"a-1".as_slice()));
    let other = at(Some("https://models.example.org/v1")).await.expect_err("not its own");
    assert!(matches!(&other, NoCredential::Absent { remedy: Remedy::Set(_), .. }), "{other}");
    // Regression: whatever listened on this machine got it, too.
    let local = Some("http://127.0.0.1:11434/v1");
    assert_eq!(at(local).await.expect("no key is needed").source, Source::Nothing);
    let rule = ProviderRule { login: true, ..rule(local) };
    let asked_for = find(Provider::OpenAi, &rule, &environment(home.path(), None)).await.expect("a login");
    assert_eq!(asked_for.source, Source::Codex);
}

#[tokio::test]
async fn what_has_expired_or_is_broken_says_so_without_a_word_of_it() {
    let home = tempfile::tempdir().expect("directory");
    let of = async || find(Provider::OpenAi, &rule(None), &environment(home.path(), None)).await;
    write(home.path(), ".codex/auth.json", &json!({"tokens": {"access_token": token(1000)}}).to_string());
    let expired = of().await.expect_err("expired").to_string();
    assert!(expired.contains("log in again on the host with `codex login`"), "{expired}");
    for broken in ["secret-word", "{\"secret-word\": 1}", "{\"tokens\": {\"access_token\": \"secret-word\\n\"}}"] {
        write(home.path(), ".codex/auth.json", broken);
        let said = of().await.expect_err(broken).to_string();
        assert!(said.contains("cannot be used") && !said.contains("secret-word"), "{said}");
    }
    write(home.path(), ".codex/auth.json", &json!({"OPENAI_API_KEY": "k-1"}).to_string());
    assert_eq!(of().await.expect("a key").base_url, "https://api.openai.com/v1");
}

#[tokio::test]
async fn a_server_on_this_machine_needs_none() {
    let home = tempfile::tempdir().expect("directory");
    let local = rule(Some("http://127.0.0.1:11434/v1"));
    let found = find(Provider::OpenAi, &local, &environment(home.path(), None)).await.expect("nothing is needed");
    assert_eq!((found.source, found.headers.len()), (Source::Nothing, 0));
}

/// Regression: a key that stands in the environment for its own provider went to whatever address a workflow named.
#[tokio::test]
async fn a_key_goes_to_another_server_only_when_its_variable_is_named_beside_the_address() {
    let home = tempfile::tempdir().expect("directory");
    let environment = environment(home.path(), Some(("OPENAI_API_KEY", "key-1")));
    let at = async |base_url: &str, named: bool| {
        let api_key_env = named.then(|| "OPENAI_API_KEY".to_owned());
        let rule = ProviderRule { api_key_env, ..rule(Some(base_url)) };
        find(Provider::OpenAi, &rule, &environment).await
    };
    let refused = at("https://models.example.org/v1", false).await.expect_err("not meant for it").to_string();
    assert!(
        refused.contains("`providers.openai.api_key_env: OPENAI_API_KEY`") && !refused.contains("key-1"),
        "{refused}"
    );
    assert_eq!(at("https://models.example.org/v1", true).await.expect("named").headers.len(), 1);
    assert_eq!(at("http://127.0.0.1:11434/v1", false).await.expect("on this machine").headers.len(), 1);
}

#[tokio::test]
async fn a_pipe_a_directory_or_an_endless_file_in_the_place_of_a_login_holds_nobody_up() {
    let home = tempfile::tempdir().expect("directory");
    let of = async || find(Provider::OpenAi, &rule(None), &environment(home.path(), None)).await;
    let path = home.path().join(".codex/auth.json");
    std::fs::create_dir_all(&path).expect("a directory");
    assert!(of().await.is_err_and(|why| why.to_string().contains("no file of a login")));
    std::fs::remove_dir(&path).expect("removed");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).expect("a pipe");
    assert!(of().await.is_err_and(|why| why.to_string().contains("no file of a login")));
    std::fs::remove_file(&path).expect("removed");
    std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
    assert!(of().await.is_err_and(|why| why.to_string().contains("no file of a login")));
    std::fs::remove_file(&path).expect("removed");
    write(home.path(), ".codex/auth.json", &" ".repeat(2 << 20));
    assert!(of().await.is_err_and(|why| why.to_string().contains("no file of a login")));
}

/// A login of Gemini CLI lies in `.gemini`; it is for another API.
#[tokio::test]
async fn google_takes_a_key_in_its_own_header_and_no_login() {
    let home = tempfile::tempdir().expect("home");
    write(home.path(), ".gemini/oauth_creds.json", r#"{"access_token":"a-login"}"#);
    let of = async |key, rule: &ProviderRule| find(Provider::Google, rule, &environment(home.path(), key)).await;
    let found = of(Some(("GEMINI_API_KEY", "key-1")), &rule(None)).await.expect("a key");
    let (name, value) = &found.headers[0];
    assert_eq!((name.as_str(), value.to_str().ok(), value.is_sensitive()), ("x-goog-api-key", Some("key-1"), true));
    assert_eq!((found.headers.len(), &*found.base_url), (1, "https://generativelanguage.googleapis.com"));
    let none = of(None, &rule(None)).await.expect_err("none").to_string();
    assert!(none.contains("set GEMINI_API_KEY") && none.ends_with("a login of Gemini CLI is not used"), "{none}");
    let elsewhere = of(Some(("GEMINI_API_KEY", "key-1")), &rule(Some("https://models.example.org"))).await;
    let said = elsewhere.expect_err("not meant").to_string();
    assert!(said.contains("`providers.google.api_key_env: GEMINI_API_KEY`"), "{said}");
}
