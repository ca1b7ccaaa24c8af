//! Logins that symphony renews by itself, where a workflow says so: against a server on loopback that gives each refresh
//! token out once, and takes each once.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::credentials::{FAR, log_in};
use super::server::Server;
use super::{command, noted, project};
use crate::rig::{Project, Running, until};
use crate::search::files_with;
use crate::skip::skip;

const FILE: &str = ".claude/.credentials.json";
const OLD: &str = "planted-login-of-old";
/// Asks once; a refusal leaves its issue as it is.
const ASKS: &str = "turn() { ask stream; [[ $answer == *401* ]] && return; note asked; done_; }";

#[derive(Default)]
struct State {
    asked: Vec<Value>,
    /// What each exchange gives: the number of those before it.
    given: usize,
    /// Refresh tokens that are good.
    good: Vec<String>,
    /// What is answered instead of anything else.
    status: Option<u16>,
}

/// Renews logins; alive as long as the test program.
#[derive(Clone)]
struct Renewer {
    url: String,
    state: Arc<Mutex<State>>,
}

impl Renewer {
    /// It takes its time, so that whoever would ask beside another one does.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("bound"));
        let state = State { good: vec!["planted-refresh".to_owned()], ..State::default() };
        let this = Self { url, state: Arc::new(Mutex::new(state)) };
        let accepting = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = accepting.clone();
                std::thread::spawn(move || this.answer(&stream));
            }
        });
        this
    }

    fn asked(&self) -> Vec<Value> {
        self.state.lock().expect("lock").asked.clone()
    }

    fn says(&self, status: impl Into<Option<u16>>) {
        self.state.lock().expect("lock").status = status.into();
    }

    fn answer(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while reader.read_line(&mut head).ok()? > 2 {
            let line = head.lines().last().unwrap_or_default().to_lowercase();
            length = line.strip_prefix("content-length: ").map_or(length, |n| n.trim().parse().expect("a number"));
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let (status, said) = {
            let mut state = self.state.lock().expect("lock");
            state.asked.push(body.clone());
            let place = state.good.iter().position(|good| body["refresh_token"] == *good);
            match (state.status, place) {
                (Some(status), _) => {
                    (status, json!({"error": "invalid_grant", "error_description": body["refresh_token"]}))
                }
                (None, None) => (400, json!({"error": "invalid_grant", "error_description": body["refresh_token"]})),
                (None, Some(place)) => {
                    state.good.remove(place);
                    state.given += 1;
                    let number = state.given;
                    state.good.push(format!("planted-new-refresh-{number}"));
                    (
                        200,
                        json!({"access_token": access(number), "refresh_token": format!("planted-new-refresh-{number}"),
                        "id_token": "planted-new-id", "expires_in": 28800, "token_type": "Bearer"}),
                    )
                }
            }
        };
        std::thread::sleep(Duration::from_millis(700));
        let said = said.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n");
        stream.write_all(format!("{head}content-length: {}\r\n\r\n{said}", said.len()).as_bytes()).ok()
    }
}

/// As Codex wants it: three parts, of which the second says when it ends, far away.
fn access(number: usize) -> String {
    format!("planted-new-access-{number}.eyJleHAiOjMyNTAzNjgwMDAwfQ.s")
}

/// A project whose providers are at `server`, and whose logins are renewed.
fn renewing(scenario: &str, server: &Server) -> Project {
    let project = project(scenario, server, "");
    let workflow = project.read("WORKFLOW.md").replace("    login: true\n", "    login: true\n    refresh: true\n");
    project.write("WORKFLOW.md", &workflow.replace("/v1\n", "/v1\n    login: true\n    refresh: true\n"));
    project
}

/// With an expired login in a home of its own.
fn expired(home: &Path) {
    log_in(home, OLD, 1000);
    let file = home.join(FILE);
    let mut login: Value = serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    login["claudeAiOauth"]["subscriptionType"] = json!("max");
    login["claudeAiOauth"]["scopes"] = json!(["user:inference"]);
    login["more"] = json!({"than": ["we", "know"]});
    std::fs::write(&file, login.to_string()).expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
}

fn login(home: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(home.join(FILE)).expect("there")).expect("JSON")
}

fn start(project: &Project, home: &Path, renewer: &Renewer) -> Running {
    let env = [("SYMPHONY_TEST_TOKEN_URL", renewer.url.as_str())];
    let mut command = command(project, &["WORKFLOW.md", "--port", "0"], &env);
    command.env("HOME", home);
    project.start_command(command)
}

/// Neither in what is written nor in what is said.
#[track_caller]
fn kept_quiet(project: &Project, running: &Running) {
    let said = format!("{}\n{}", running.log(), running.client().get("/api/v1/state").body);
    for word in [OLD, "planted-refresh", "planted-new-access", "planted-new-refresh", "planted-new-id"] {
        assert!(!said.contains(word), "{word} in {said}");
        assert_eq!(files_with(&project.dir(), word), Vec::<String>::new(), "{word}");
    }
}

#[test]
fn a_login_that_has_ended_is_renewed_once_for_twenty_requests_and_its_file_keeps_all_else() {
    let (server, renewer) = (Server::start(), Renewer::start());
    // The word is put together in the guest, so that it stands in no file of its project.
    let scenario = "turn() { for n in {1..20}; do ( ask stream; [[ $answer == HTTP/1.1\\ 200* ]] && : >~/ok-$n ) & done; wait; \
                    answer=$(ls ~/ok-* | wc -l); note answered; answer=$(grep -rls planted-\"\"new / --include='*.json' 2>/dev/null | wc -l); note found; \
                    say \"told planted-\"\"new-access-1.eyJleHAiOjMyNTAzNjgwMDAwfQ.s and planted-\"\"new-refresh-1 .\"; done_; }";
    let project = renewing(scenario, &server);
    let home = project.beside("home");
    expired(&home);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    assert!(running.log().contains("of anthropic and openai: symphony renews them"), "{}", running.log());
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    assert_eq!((noted(&notes, "answered").trim(), noted(&notes, "found").trim()), ("20", "0"), "{notes}");
    let asked = renewer.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(
        asked[0],
        json!({"grant_type": "refresh_token", "refresh_token": "planted-refresh", "scope": "user:inference",
            "client_id": "9d1c250a-e61b-44d9-88ed-5944d1962f5e"})
    );
    let heads: Vec<String> = server.asked().into_iter().map(|asked| asked.head).collect();
    let bearer = format!("authorization: bearer {}", access(1).to_lowercase());
    assert!(heads.len() == 20 && heads.iter().all(|head| head.contains(&bearer)), "{heads:#?}");
    let kept = login(&home);
    assert_eq!(kept["claudeAiOauth"]["refreshToken"], "planted-new-refresh-1");
    assert!(kept["claudeAiOauth"]["expiresAt"].as_i64() > Some(1_700_000_000_000), "{kept}");
    assert_eq!(
        (&kept["claudeAiOauth"]["subscriptionType"], &kept["more"]),
        (&json!("max"), &json!({"than": ["we", "know"]}))
    );
    assert_eq!(std::fs::metadata(home.join(FILE)).expect("there").permissions().mode() & 0o7777, 0o600);
    let beside: Vec<_> = std::fs::read_dir(home.join(".claude")).expect("lists").flatten().collect();
    assert!(beside.len() == 1 && !home.join(".claude.lock").exists(), "neither drafts nor locks: {beside:?}");
    assert!(running.log().contains("a login was renewed on the host"), "{}", running.log());
    assert!(project.transcripts().contains("told [redacted] and [redacted] ."), "{}", project.transcripts());
    kept_quiet(&project, &running);
    assert_eq!(running.stop(), 0);
}

#[test]
fn two_symphonies_renew_one_login_once_for_each_of_its_ends() {
    let (server, renewer) = (Server::start(), Renewer::start());
    let (one, other) = (renewing(ASKS, &server), renewing(ASKS, &server));
    let home = one.beside("home");
    expired(&home);
    let running = [&one, &other].map(|project| start(project, &home, &renewer));
    for (round, issue) in ["A-1", "B-1"].into_iter().enumerate() {
        for project in [&one, &other] {
            project.issue("Todo", issue, "Ask.");
        }
        for project in [&one, &other] {
            project.wait_for(&format!(".symphony/patches/agent_{issue}.patch"));
            let notes = std::fs::read_to_string(project.apply_patch(issue).join("notes.txt")).expect("notes");
            assert!(noted(&notes, "asked").starts_with("HTTP/1.1 200"), "{notes}");
        }
        assert_eq!(renewer.asked().len(), round + 1, "{:?}", renewer.asked());
        let mut ended = login(&home);
        ended["claudeAiOauth"]["expiresAt"] = json!(1000);
        std::fs::write(home.join(FILE), ended.to_string()).expect("written");
    }
    for (project, running) in [&one, &other].into_iter().zip(running) {
        kept_quiet(project, &running);
        assert_eq!(running.stop(), 0);
    }
}

#[test]
fn a_refused_renewal_stops_dispatch_with_the_remedy_is_not_asked_for_again_and_a_new_login_works() {
    let (server, renewer) = (Server::start(), Renewer::start());
    renewer.says(400);
    let project = renewing(ASKS, &server);
    let home = project.beside("home");
    expired(&home);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    let is_waiting = |state: &Value| state["idle"][0]["reason_code"] == "no-credential";
    let state = running.until_state("the issue to wait", is_waiting);
    let why = state["idle"][0]["reason"].as_str().expect("a reason");
    assert!(why.contains("has expired, and the server that renews it refuses (invalid_grant)"), "{why}");
    assert!(why.contains("log in again on the host with `claude`"), "{why}");
    assert_eq!(login(&home)["claudeAiOauth"]["refreshToken"], "planted-refresh");
    project.issue("Todo", "B-1", "Ask, too.");
    for _ in 0..5 {
        assert_eq!(running.post("/api/v1/refresh", &json!({})).status, 202);
        running.until_state("both to wait", |state| state["idle"].as_array().is_some_and(|idle| idle.len() == 2));
    }
    assert_eq!((renewer.asked().len(), server.asked().len()), (1, 0));
    kept_quiet(&project, &running);
    log_in(&home, "planted-other-login", FAR);
    project.wait_for(".symphony/patches/agent_B-1.patch");
    project.wait_for(".symphony/patches/agent_A-1.patch");
    assert_eq!((renewer.asked().len(), running.stop()), (1, 0));
}

#[test]
fn without_refresh_in_the_workflow_nothing_is_asked_and_nothing_written() {
    let (server, renewer) = (Server::start(), Renewer::start());
    let project = project(ASKS, &server, "");
    let home = project.beside("home");
    expired(&home);
    let before = login(&home);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    assert!(state.to_string().contains("has expired: log in again on the host with `claude`"), "{state}");
    assert_eq!((renewer.asked(), login(&home)), (vec![], before));
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_login_that_could_not_be_kept_is_not_renewed_and_the_doctor_says_so() {
    let (server, renewer) = (Server::start(), Renewer::start());
    let project = renewing(ASKS, &server);
    let home = project.beside("home");
    expired(&home);
    let doctor = |mut around: Command| {
        around.env("HOME", &home).env("SYMPHONY_TEST_TOKEN_URL", &renewer.url);
        let said = around.stdin(Stdio::null()).output().expect("runs").stdout;
        let said: Value = serde_json::from_slice(&said).expect("JSON");
        (said["models"][0]["ok"] == true, said["models"][0]["says"].as_str().unwrap_or_default().to_owned())
    };
    let own = || command(&project, &["doctor", "--json"], &[]);
    let (ok, says) = doctor(own());
    assert!(ok && says.ends_with("which has expired; symphony renews it for the next request"), "{says}");
    std::fs::set_permissions(home.join(FILE), std::fs::Permissions::from_mode(0o400)).expect("mode");
    let (ok, says) = doctor(own());
    assert!(!ok && says.contains("it cannot be renewed: its file is read-only; log in again"), "{says}");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    assert!(state.to_string().contains("its file is read-only"), "{state}");
    assert_eq!(running.stop(), 0);
    assert_eq!(login(&home)["claudeAiOauth"]["accessToken"], OLD);
    assert_eq!(renewer.asked(), Vec::<Value>::new(), "nothing that could not be kept is asked for");
}

#[test]
fn a_kill_during_a_renewal_leaves_the_old_file_whole_and_nothing_that_holds_up_the_next() {
    let (server, renewer) = (Server::start(), Renewer::start());
    renewer.says(503);
    let project = renewing(ASKS, &server);
    let home = project.beside("home");
    expired(&home);
    let before = login(&home);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    until("the exchange to begin", || !renewer.asked().is_empty());
    drop(running);
    assert_eq!(login(&home), before);
    let left = std::fs::read_dir(home.join(".claude")).expect("lists").flatten().map(|entry| entry.path());
    let left: Vec<_> = left.filter(|path| *path != home.join(FILE)).collect();
    let lock = home.join(".claude/.oauth_refresh.lock");
    let (locks, drafts): (Vec<_>, Vec<_>) = left.iter().partition(|path| path.is_dir());
    assert!(locks == [&lock] && drafts.len() == 1, "{left:?}");
    let draft = std::fs::read(drafts[0]).expect("a draft");
    assert!(draft.iter().all(|byte| *byte == b' '), "there is nothing in it yet");
    // What a minute does.
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(90);
    for lock in [lock, home.join(".claude.lock")] {
        std::fs::File::open(&lock).and_then(|lock| lock.set_modified(long_ago)).expect("aged");
    }
    renewer.says(None);
    let running = start(&project, &home, &renewer);
    project.wait_for(".symphony/patches/agent_A-1.patch");
    assert_eq!(login(&home)["claudeAiOauth"]["refreshToken"], "planted-new-refresh-1");
    assert_eq!(std::fs::read_dir(home.join(".claude")).expect("lists").count(), 1, "nothing of it is left");
    kept_quiet(&project, &running);
    assert_eq!(running.stop(), 0);
}

/// As a container mounts a login: a rename cannot replace it, which would show only after the exchange.
#[test]
fn a_login_that_is_mounted_by_itself_is_not_renewed() {
    let (server, home) = (Server::start(), tempfile::tempdir().expect("directory"));
    let project = renewing("turn() { :; }", &server);
    expired(home.path());
    let inside = "mount --bind \"$HOME/.claude/.credentials.json\" \"$HOME/.claude/.credentials.json\" || exit 77; exec \"$0\" doctor --json";
    let mut around = project.around("unshare", &["-m", "sh", "-c", inside, env!("CARGO_BIN_EXE_symphony")]);
    around.env("HOME", home.path()).env_remove("CLAUDE_CONFIG_DIR").env_remove("CODEX_HOME");
    let said = match around.stdin(Stdio::null()).output() {
        Ok(said) if !said.stdout.is_empty() => said.stdout,
        _ => return skip("nothing can be mounted here"),
    };
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    let says = said["models"][0]["says"].as_str().unwrap_or_default();
    assert!(says.contains("its file is mounted by itself; mount its directory"), "{said}");
}

#[test]
fn a_login_of_codex_is_renewed_in_its_own_fields() {
    let (server, renewer) = (Server::start(), Renewer::start());
    let scenario = "turn() { host=127.0.0.1:8485 http POST /openai/v1/chat/completions \
                    '{\"model\":\"chat\",\"stream\":true,\"messages\":[]}' 'Host: 127.0.0.1:8485' \"Authorization: Bearer $OPENAI_API_KEY\"; note asked; done_; }";
    let project = renewing(scenario, &server);
    let (home, file) = (project.beside("home"), project.beside("home").join(".codex/auth.json"));
    std::fs::create_dir_all(home.join(".codex")).expect("directory");
    let auth = json!({
        "auth_mode": "chatgpt", "OPENAI_API_KEY": null, "more": 1,
        "tokens": {"id_token": "old-id", "access_token": "h.eyJleHAiOjEwMDB9.s", "refresh_token": "planted-refresh", "account_id": "a-1"},
        "last_refresh": "2026-01-01T00:00:00Z",
    });
    std::fs::write(&file, auth.to_string()).expect("written");
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    project.wait_for(".symphony/patches/agent_A-1.patch");
    let notes = std::fs::read_to_string(project.apply_patch("A-1").join("notes.txt")).expect("notes");
    assert!(noted(&notes, "asked").starts_with("HTTP/1.1 200"), "{notes}");
    let head = &server.asked()[0].head;
    assert!(head.contains(&access(1).to_lowercase()) && head.contains("chatgpt-account-id: a-1"), "{head}");
    assert_eq!(renewer.asked()[0]["client_id"], "app_EMoamEEZ73f0CkXaXp7hrann");
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).expect("there")).expect("JSON");
    let mut expected = auth;
    expected["tokens"] = json!({"id_token": "planted-new-id", "access_token": access(1), "refresh_token": "planted-new-refresh-1", "account_id": "a-1"});
    expected["last_refresh"] = kept["last_refresh"].clone();
    assert_eq!(kept, expected);
    assert_ne!(kept["last_refresh"], "2026-01-01T00:00:00Z");
    kept_quiet(&project, &running);
    assert_eq!(running.stop(), 0);
}

#[test]
fn a_server_that_cannot_be_asked_now_is_not_asked_by_every_look() {
    let (server, renewer) = (Server::start(), Renewer::start());
    renewer.says(503);
    let project = renewing(ASKS, &server);
    let home = project.beside("home");
    expired(&home);
    project.issue("Todo", "A-1", "Ask.");
    let running = start(&project, &home, &renewer);
    let state = running.until_state("the issue to wait", |state| state["idle"][0]["reason_code"] == "no-credential");
    assert!(
        state.to_string().contains("the server that renews it answered 503; symphony asks again by itself"),
        "{state}"
    );
    for _ in 0..5 {
        assert_eq!(running.post("/api/v1/refresh", &json!({})).status, 202);
    }
    until("the looks to be over", || running.state()["idle"][0]["reason_code"] == "no-credential");
    assert_eq!(renewer.asked().len(), 1);
    kept_quiet(&project, &running);
    assert_eq!(running.stop(), 0);
}
