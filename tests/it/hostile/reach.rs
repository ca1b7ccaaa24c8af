//! What a guest can reach of its host: its own MCP endpoint, and nothing else.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{hasty, host_sh};
use crate::fake_agent;
use crate::rig::{Project, until};

/// `tcp ADDRESS PORT`, `unix PATH` and `abstract NAME` say whether somebody answers there.
const TRY: &str = r#"tcp() { if timeout 10 bash -c "exec 3<>/dev/tcp/$1/$2" 2>/dev/null; then echo open; else echo closed; fi; }
unix() { perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Peer => $ARGV[0]) ? "open\n" : "closed\n"' "$1"; }
abstract() { perl -MIO::Socket::UNIX -e 'print IO::Socket::UNIX->new(Peer => "\0$ARGV[0]") ? "open\n" : "closed\n"' "$1"; }
"#;

/// What the guest wrote into `found.txt`.
pub(super) fn found(project: &Project, key: &str) -> String {
    until(&format!("{key} to be done"), || project.exists(&format!("issues/Done/{key}.md")));
    std::fs::read_to_string(project.apply_patch(key).join("found.txt")).expect("the guest wrote it")
}

#[test]
fn a_guest_reaches_no_port_or_socket_of_the_host_and_its_own_gateway() {
    let project = Project::with(&hasty(""));
    let running = project.start();
    let visitors = Arc::new(AtomicUsize::new(0));
    let count = || {
        let visitors = visitors.clone();
        move || {
            visitors.fetch_add(1, Ordering::SeqCst);
        }
    };
    let tcp = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = tcp.local_addr().expect("bound").port();
    let path = project.beside("socket");
    let unix = UnixListener::bind(&path).expect("a socket");
    let name = format!("symphony-test-{port}");
    let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name")).expect("a socket");
    let (a, b, c) = (count(), count(), count());
    std::thread::spawn(move || tcp.incoming().for_each(|_| a()));
    std::thread::spawn(move || unix.incoming().for_each(|_| b()));
    std::thread::spawn(move || hidden.incoming().for_each(|_| c()));

    let operator = running.client().address;
    let operator = operator.rsplit_once(':').expect("a port").1;
    // How this machine calls itself to others, if it has a network at all.
    let outward = std::net::UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()))
        .map_or_else(|_| "127.0.0.2".to_owned(), |address| address.ip().to_string());
    let path = path.display();
    let tries = format!(
        "{TRY}echo loopback $(tcp 127.0.0.1 {port})\necho outward $(tcp {outward} {port})\necho operator $(tcp 127.0.0.1 {operator})\necho unix $(unix {path})\necho abstract $(abstract {name})\n"
    );
    let all = |word: &str| {
        let names = ["loopback", "outward", "operator", "unix", "abstract"];
        names.iter().map(|name| format!("{name} {word}\n")).collect::<String>()
    };
    assert_eq!(host_sh(&project.dir(), &tries), all("open"), "from outside everything is there");
    until("the visitors to be counted", || visitors.load(Ordering::SeqCst) == 4);

    project.issue("Todo", "R-1", &format!("```sh\n{{ {tries}echo gateway $(tcp 127.0.0.1 8484)\n}} > found.txt\n```"));
    assert_eq!(found(&project, "R-1"), all("closed") + "gateway open\n");
    assert_eq!(visitors.load(Ordering::SeqCst), 4, "nobody else came");
    assert_eq!(running.stop(), 0);
}

#[test]
fn of_two_guests_at_once_each_can_use_only_its_own_endpoint_and_token() {
    // The tokens travel through the questions, reversed because symphony hides them from people.
    let parts = r#"
status() { post "$1" "$2" '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | sed -n '1s/HTTP.1.1 \([0-9]*\).*/\1/p'; }
on_prompt() {
  if [ -z "$answer" ]; then
    tool request_human_steering "{\"question\":\"$(printf %s "$token" | rev)\"}" > /dev/null; stop end_turn; return
  fi
  other=$(printf %s "$answer" | rev); here=$(basename "$(dirname "$path")")
  case $here in T-1) there=/api/v1/issues/T-2/mcp ;; *) there=/api/v1/issues/T-1/mcp ;; esac
  { echo own $(status "$path" "$token"); echo their-token $(status "$path" "$other"); echo no-token $(status "$path" "")
    echo their-path $(status "$there" "$token"); echo both $(status "$there" "$other"); } > /work/found.txt
  mark_done > /dev/null; stop end_turn
}"#;
    let project = fake_agent::project(parts, "", "");
    project.issue("Todo", "T-1", "one");
    project.issue("Todo", "T-2", "two");
    let running = project.start();
    let state = running.until_state("both to ask", |state| {
        let rows = state["running"].as_array().map_or(&[][..], Vec::as_slice);
        rows.len() == 2 && rows.iter().all(|row| row["steering_requested"] == json!(true))
    });
    let token = |key: &str| {
        let rows = state["running"].as_array().expect("rows").iter();
        let row = rows.clone().find(|row| row["issue_identifier"] == json!(key)).expect("a row");
        row["steering_question"].as_str().expect("a question").to_owned()
    };
    assert!(token("T-1").len() >= 32 && token("T-1") != token("T-2"), "{state}");
    for (to, of) in [("T-1", "T-2"), ("T-2", "T-1")] {
        let answer = running.post(&format!("/api/v1/issues/{to}/steering-reply"), &json!({"text": token(of)}));
        assert_eq!(answer.status, 202);
    }
    for key in ["T-1", "T-2"] {
        assert_eq!(found(&project, key), "own 200\ntheir-token 404\nno-token 401\ntheir-path 404\nboth 404\n");
    }
    assert_eq!(running.stop(), 0);
}

#[test]
fn secrets_of_the_environment_the_operators_token_and_symphonys_directory_are_not_inside() {
    let project = Project::with(&hasty(""));
    let secret = "a-secret-of-the-environment";
    let look = format!(
        "{{ env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; cat {0}/.symphony/operator-token 2>&1; ls -a {0} {0}/.symphony 2>&1; }} || true\n",
        project.dir().display()
    );
    project.issue(
        "Todo",
        "S-1",
        &format!("```sh\n{{ {look}}} > found.txt\nls -a / ~ /state >> found.txt 2>&1 || true\n```"),
    );
    let mut command = project.command(&["WORKFLOW.md", "--once", "--port", "0"]);
    command.env("FOO_SECRET", secret).env("ANTHROPIC_API_KEY", secret);
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = project.read(".symphony/operator-token");
    let (token, inside) = (token.trim(), found(&project, "S-1"));
    assert!(inside.contains("SYMPHONY_ISSUE_ID=S-1"), "the control of this look: {inside}");
    assert!(!inside.contains(secret) && !inside.contains("FOO_SECRET") && !inside.contains(token), "{inside}");
    assert!(!inside.contains("journal") && !inside.contains("WORKFLOW.md"), "{inside}");
    // The same look from outside sees the token and the directory.
    let outside = host_sh(&project.dir(), &look);
    assert!(outside.contains(token) && outside.contains("journal"), "{outside}");
}

/// A scan of all of them, so that no port of ours is safe only because nobody thought of it.
#[test]
fn of_all_ports_of_its_loopback_a_guest_finds_its_gateway_and_of_symphonys_sockets_none() {
    let project = Project::with(&hasty(""));
    let running = project.start();
    let operator = running.client().address;
    let operator = operator.rsplit_once(':').expect("a port").1.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let planted = listener.local_addr().expect("bound").port().to_string();
    // A socket that happens to be given the port it connects to reaches itself.
    let scan = r#"perl -MSocket -e 'for my $p (PORTS) { socket(my $s, AF_INET, SOCK_STREAM, 0) or die; connect($s, sockaddr_in($p, inet_aton("127.0.0.1"))) or next; print "port $p\n" if getsockname($s) ne getpeername($s); }'"#;
    let own = project.runtime_dir().join("symphony");
    let sockets = format!("for s in {}/*; do echo socket $(unix $s); done", own.display());
    let look = |ports: &str| format!("{TRY}{}\n{sockets}\n", scan.replace("PORTS", ports));
    // Only what is ours: the listeners of other tests count who comes.
    let outside = host_sh(&project.dir(), &look(&format!("{operator}, {planted}")));
    for open in [format!("port {operator}\n"), format!("port {planted}\n"), "socket open\n".to_owned()] {
        assert!(outside.contains(&open), "the control, from outside it is there: {open} {outside}");
    }
    project.issue("Todo", "P-1", &format!("```sh\n{{ {}}} > found.txt\n```", look("1 .. 65535")));
    assert_eq!(found(&project, "P-1"), "port 8484\nport 8486\nsocket closed\n");
    assert_eq!(running.stop(), 0);
}
