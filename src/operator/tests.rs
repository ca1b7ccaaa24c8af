//! Both ends on a real socket: what they refuse, and that nobody can hold them up.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use symphony_core::board::NotNow;
use symphony_core::ids::{Identifier, IssueId, StateName};
use symphony_core::snapshot::{IdleRow, Snapshot, Spent};
use symphony_core::workflow::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::place::{own_uid, runtime_dir};
use super::*;
use crate::conductor::handle::Handle;
use crate::skip::skip;

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct House {
    tmp: tempfile::TempDir,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    _snapshots: watch::Sender<Arc<Snapshot>>,
}

fn idle(name: &str) -> IdleRow {
    IdleRow {
        id: IssueId(name.into()),
        identifier: Identifier(name.into()),
        title: "A title".into(),
        state: StateName::new("Todo"),
        role: Role::Active,
        why: Some(NotNow::OnHold),
        last: None,
        spent: Spent::default(),
        proposed_by: None,
        proposal: None,
        labels: vec![],
    }
}

impl House {
    async fn open() -> Self {
        let tmp = tempfile::tempdir().expect("directory");
        let socket = place(tmp.path()).listen().expect("ours");
        let (snapshots, readers) = watch::channel(Arc::new(Snapshot { idle: vec![idle("A-1")], ..Snapshot::empty() }));
        let (requests, _) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(socket, Handle::new(readers, requests), stop.clone()));
        Self { tmp, stop, serving: Some(serving), _snapshots: snapshots }
    }

    fn path(&self) -> PathBuf {
        place(self.tmp.path()).path()
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream
    }

    /// Sends bytes as they are; what came back until the end.
    async fn raw(&self, bytes: Vec<u8>) -> String {
        let mut stream = self.connect();
        blocking(move || {
            // A refusal may come, and the connection end, before all is written.
            let _ = stream.write_all(&bytes);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        })
        .await
    }

    async fn refusal(&self, request: &str) -> String {
        let answer = self.raw(format!("{request}\n").into_bytes()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{e}: {answer}"));
        for field in ["message", "hint"] {
            assert!(answer["error"][field].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
        }
        answer["error"]["code"].as_str().expect("a code").to_owned()
    }
}

fn place(dir: &Path) -> Place {
    Place::below(&dir.join("symphony"), Path::new("/a/project"))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test]
async fn both_ends_agree_and_the_file_goes_with_the_listener() {
    let mut house = House::open().await;
    let dir = house.tmp.path().join("symphony");
    assert_eq!(std::fs::metadata(&dir).expect("made").mode() & 0o777, 0o700);
    let place = place(house.tmp.path());
    let at = place.clone();
    let answer = blocking(move || ask(&at, Some("a-1"))).await.expect("answered");
    assert_eq!((answer.v, answer.issues.len()), (1, 1));
    assert_eq!(answer.issues[0].reason, NotNow::OnHold.to_string());
    let at = place.clone();
    assert_eq!(blocking(move || ask(&at, None)).await.expect("answered").issues[0].name, "A-1");
    let at = place.clone();
    let missing = blocking(move || ask(&at, Some("A-2"))).await.expect_err("no such issue");
    let AskError::Refused(refusal) = missing else { panic!("{missing}") };
    assert_eq!((refusal.code.as_str(), refusal.hint.as_str()), ("no-such-issue", "did you mean A-1?"));
    house.stop.cancel();
    house.serving.take().expect("serves").await.expect("ends");
    assert!(!house.path().exists());
    assert!(matches!(blocking(move || ask(&place, None)).await, Err(AskError::Nobody(_))));
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_a_code_and_a_hint() {
    let house = House::open().await;
    for (request, code) in [
        ("garbage", "bad-request"),
        ("\u{0}\u{1b}[2J", "bad-request"),
        ("[]", "unknown-version"),
        ("{}", "unknown-version"),
        (r#"{"v":2,"command":"explain"}"#, "unknown-version"),
        (r#"{"v":"1","command":"explain"}"#, "unknown-version"),
        (r#"{"v":1,"command":"stop"}"#, "unknown-command"),
        (r#"{"v":1}"#, "unknown-command"),
        (r#"{"v":1,"command":"explain","issue":7}"#, "bad-request"),
        (r#"{"v":1,"command":"explain","issue":"A-9\u001b[31m"}"#, "no-such-issue"),
    ] {
        assert_eq!(house.refusal(request).await, code, "{request}");
    }
    assert_eq!(house.raw(vec![0xff, 0xfe, b'\n']).await.matches("bad-request").count(), 1);
}

#[tokio::test]
async fn words_are_refused_that_are_not_for_exactly_one_issue_of_exactly_this_workflow() {
    let house = House::open().await;
    for (mut request, code) in [
        (json!({"issue": "A-1", "text": "x"}), "bad-request"),
        (json!({"issue": "A-1", "workflow": "", "text": " "}), "bad-request"),
        (json!({"workflow": "", "text": "x"}), "bad-request"),
        (json!({"issue": "A-1", "workflow": "/elsewhere/WORKFLOW.md", "text": "x"}), "other-workflow"),
        (json!({"issue": "A-2", "workflow": "", "text": "x"}), "no-such-issue"),
        // Nobody reads the mailbox of this house.
        (json!({"issue": "A-1", "workflow": "", "text": "x"}), "shutting-down"),
    ] {
        for command in ["answer", "say"] {
            request["v"] = json!(1);
            request["command"] = json!(command);
            assert_eq!(house.refusal(&request.to_string()).await, code, "{request}");
        }
    }
}

#[tokio::test]
async fn a_line_that_does_not_end_is_cut_off_and_refused() {
    let house = House::open().await;
    let long = |len: usize| vec![b'x'; len];
    for len in [1_000_000, 1_000_001, 8 * 1024 * 1024] {
        let mut stream = house.connect();
        let answer = blocking(move || {
            let _ = stream.write_all(&long(len));
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer);
            answer
        })
        .await;
        assert!(answer.contains("too-long"), "{len}: {answer}");
    }
    let padded = format!("{}{}\n", json!({"v": 1, "command": "explain", "issue": null}), " ".repeat(60_000));
    assert!(house.raw(padded.into_bytes()).await.contains("\"v\":1"), "a long line that ends in time is fine");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut_off_and_holds_up_nobody() {
    let house = House::open().await;
    // As many as are served at once, and none of them says a whole line.
    let mut silent = vec![];
    for _ in 0..16 {
        let mut stream = tokio::net::UnixStream::connect(house.path()).await.expect("connected");
        stream.write_all(b"{\"v\":1").await.expect("half a line");
        silent.push(stream);
    }
    let mut next = tokio::net::UnixStream::connect(house.path()).await.expect("connected");
    next.write_all(b"{\"v\":1,\"command\":\"explain\",\"issue\":null}\n").await.expect("sent");
    let mut answer = String::new();
    next.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.contains("A-1"), "{answer}");
    for mut stream in silent {
        let mut said = vec![];
        let _ = stream.read_to_end(&mut said).await;
        assert_eq!(said, b"", "it was closed without an answer");
    }
}

#[tokio::test]
async fn two_at_once_are_both_answered() {
    let house = House::open().await;
    let (mut first, mut second) = (house.connect(), house.connect());
    let answers = blocking(move || {
        let read = |stream: &mut UnixStream| {
            stream.write_all(b"{\"v\":1,\"command\":\"explain\",\"issue\":\"A-1\"}\n").expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("answered");
            answer
        };
        let second = read(&mut second);
        (read(&mut first), second)
    })
    .await;
    assert_eq!(answers.0, answers.1);
    assert!(answers.0.ends_with("}\n") && answers.0.lines().count() == 1, "{}", answers.0);
}

#[test]
fn a_socket_that_a_dead_symphony_left_is_replaced() {
    let tmp = tempfile::tempdir().expect("directory");
    let place = place(tmp.path());
    drop(place.listen().expect("listens"));
    // As after a kill: the file stays, nobody listens.
    drop(std::os::unix::net::UnixListener::bind(place.path()).expect("bound"));
    assert!(place.connect().expect("ours").is_none());
    assert!(place.path().exists());
    let listening = place.listen().expect("replaced");
    let connected = place.connect().expect("ours").is_some();
    drop(listening);
    assert!(connected && !place.path().exists());
}

#[test]
fn a_directory_that_others_made_or_may_enter_is_not_used() {
    let tmp = tempfile::tempdir().expect("directory");
    let dir = tmp.path().join("symphony");
    let refused =
        || (place(tmp.path()).listen().expect_err("refused"), place(tmp.path()).connect().expect_err("refused"));
    let elsewhere = tmp.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("directory");
    std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o700)).expect("mode");
    symlink(&elsewhere, &dir).expect("link");
    assert!(matches!(refused(), (PlaceError::NotADirectory(_), PlaceError::NotADirectory(_))), "{:?}", refused());
    assert_eq!(std::fs::read_dir(&elsewhere).expect("read").count(), 0, "no link was followed");
    std::fs::remove_file(&dir).expect("removed");
    std::fs::write(&dir, "").expect("a file");
    assert!(matches!(refused().0, PlaceError::NotADirectory(_)));
    std::fs::remove_file(&dir).expect("removed");
    std::fs::create_dir(&dir).expect("directory");
    for mode in [0o755, 0o710, 0o702] {
        std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).expect("mode");
        assert!(refused().0.to_string().contains(&format!("chmod 700 {}", dir.display())), "{mode:o}");
    }
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).expect("mode");
    if own_uid() == 0 {
        std::os::unix::fs::chown(&dir, Some(65534), None).expect("chown");
        assert!(matches!(refused(), (PlaceError::Foreign { owner: 65534, .. }, PlaceError::Foreign { .. })));
    } else {
        skip("only root can give a directory away");
    }
}

#[test]
fn the_place_is_the_first_that_is_ours_and_its_name_is_short() {
    let tmp = tempfile::tempdir().expect("directory");
    let ours = tmp.path().as_os_str();
    assert_eq!(runtime_dir(Some(ours), own_uid()), tmp.path().join("symphony"));
    let nobody = 4_000_000_000;
    for not_ours in [Some(ours), Some(OsStr::new("relative")), Some(OsStr::new("")), Some(OsStr::new("/nowhere")), None]
    {
        assert_eq!(runtime_dir(not_ours, nobody), Path::new("/tmp/symphony-4000000000"), "{not_ours:?}");
    }
    let of = |workflow: &str| Place::below(Path::new("/d"), Path::new(workflow)).path();
    let long = of(&"/very/long".repeat(100));
    assert_eq!(long.as_os_str().len(), "/d/0123456789abcdef.sock".len());
    assert_ne!(of("/a"), of("/b"));
}

#[test]
fn a_path_longer_than_a_socket_s_address_is_no_hindrance() {
    let tmp = tempfile::tempdir().expect("directory");
    let deep = tmp.path().join("d".repeat(200));
    std::fs::create_dir(&deep).expect("directory");
    let place = place(&deep);
    let _listening = place.listen().expect("listens");
    assert!(place.connect().expect("ours").is_some());
}

#[tokio::test]
async fn another_user_is_closed_without_an_answer() {
    if own_uid() != 0 {
        skip("only root can become another user");
        return;
    }
    let house = House::open().await;
    // Even where the directory would let them in.
    for open in [house.tmp.path().to_owned(), house.tmp.path().join("symphony")] {
        std::fs::set_permissions(open, PermissionsExt::from_mode(0o755)).expect("mode");
    }
    std::fs::set_permissions(house.path(), PermissionsExt::from_mode(0o777)).expect("mode");
    let script = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.settimeout(20)\ns.connect(sys.argv[1])\ntry:\n  s.sendall(b'{\"v\":1,\"command\":\"explain\",\"issue\":null}\\n')\n  print('got', s.recv(10))\nexcept OSError:\n  print('got', b'')\n";
    let path = house.path();
    let asked = blocking(move || {
        use std::os::unix::process::CommandExt as _;
        Command::new("python3").args(["-c", script]).arg(path).uid(65534).gid(65534).output()
    })
    .await;
    match asked {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim(), "got b''", "{}", String::from_utf8_lossy(&output.stderr));
        }
        Err(error) => skip(format_args!("no python3 to be another user with: {error}")),
    }
    assert!(house.raw(b"{\"v\":1,\"command\":\"explain\",\"issue\":null}\n".to_vec()).await.contains("A-1"));
}
