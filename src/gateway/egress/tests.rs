//! The door over real sockets: what a guest says on a byte stream, and what arrives at a server of this machine.

mod troubles;

use std::path::Path;

use futures::future::BoxFuture;
use symphony_core::egress::Entry;
use symphony_core::egress::hello::UNRECOGNIZED_NAME;
use symphony_core::steering::By;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;

use super::*;
use crate::journal::{Journal, Origin, inspect};

/// Leads every name to one server of this machine.
struct Here(std::net::SocketAddr);

impl Dial for Here {
    fn dial<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(TcpStream, IpAddr), Denied>> {
        Box::pin(async move {
            let unreachable = |why: String| Denied::Unreachable { target: target.clone(), why };
            if target.host.as_str() == "down.example" {
                return Err(unreachable("refused".to_owned()));
            }
            let stream = TcpStream::connect(self.0).await.map_err(|error| unreachable(error.to_string()))?;
            Ok((stream, self.0.ip()))
        })
    }
}

struct House {
    dir: tempfile::TempDir,
    book: Book,
    server: TcpListener,
    egress: Egress,
    events: Arc<Mutex<Vec<EventRow>>>,
}

fn opened(path: &Path) -> Book {
    let origin = Origin { instance: "me-and-no-other-one".into(), last_run: 0 };
    let (journal, memory) = Journal::open(path, origin).expect("opens");
    Book::new(journal, memory.egress)
}

impl House {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let book = opened(&dir.path().join("journal.db"));
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let here = Here(server.local_addr().expect("bound"));
        let egress = Egress::new(book.clone(), Arc::new(here));
        Self { dir, book, server, egress, events: Arc::default() }
    }

    fn door(&self, run: u64, issue: &str, allow: &[&str]) -> Door {
        let allow = AllowList(allow.iter().map(|text| Entry::parse(text).expect("an entry")).collect());
        let events = self.events.clone();
        let tell: Tell = Arc::new(move |row| events.lock().expect("lock").push(row));
        self.egress.open(RunId(run), IssueId(issue.into()), allow, tell)
    }

    /// The journal, looked at from outside.
    fn rows(&self, sql: &str) -> Vec<String> {
        let db = rusqlite::Connection::open(self.dir.path().join("journal.db")).expect("db");
        let mut query = db.prepare(sql).expect("a query");
        let rows = query.query_map([], |row| row.get(0)).expect("rows");
        rows.map(|row| row.expect("text")).collect()
    }

    fn is_whole(&self) {
        let report = inspect::check(&self.dir.path().join("journal.db"), None).expect("readable");
        assert_eq!((report.differences, report.chain.expect("a chain").is_ok()), (vec![], true));
    }
}

/// Says this to the door; the head and body of the answer.
async fn asked(door: &Door, request: &str) -> (DuplexStream, String) {
    let (mut guest, host) = tokio::io::duplex(1 << 16);
    let door = door.clone();
    tokio::spawn(async move { door.serve(host).await });
    guest.write_all(request.as_bytes()).await.expect("written");
    let mut said = vec![];
    let whole = |said: &[u8]| {
        let text = String::from_utf8_lossy(said).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        (body.len() >= length.unwrap_or(0usize)).then_some(())
    };
    while whole(&said).is_none() {
        if guest.read_buf(&mut said).await.expect("readable") == 0 {
            break;
        }
    }
    (guest, String::from_utf8_lossy(&said).into_owned())
}

async fn connect(door: &Door, target: &str) -> (DuplexStream, String) {
    asked(door, &format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")).await
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("short").to_be_bytes(), bytes].concat()
}

/// A TLS hello for this name, in one record.
fn hello(name: &str) -> Vec<u8> {
    let sni = long(&[&[0], long(name.as_bytes()).as_slice()].concat());
    let extensions = [&[0, 0], long(&sni).as_slice()].concat();
    let hello = [&[3, 3], &[7; 32][..], &[0], &long(&[0x13, 1]), &[1, 0], &long(&extensions)].concat();
    let length = u32::try_from(hello.len()).expect("short").to_be_bytes();
    [&[22, 3, 1], long(&[&[1], &length[1..], &hello].concat()).as_slice()].concat()
}

#[tokio::test]
async fn what_may_not_pass_is_refused_in_words_and_nothing_is_dialled() {
    let house = House::new().await;
    let door = house.door(1, "a", &["good.example"]);
    for (request, status, says) in [
        ("GET http://good.example/ HTTP/1.1\r\nHost: good.example\r\n\r\n", 405, "only https passes here"),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "only https"),
        ("CONNECT 10.0.0.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403, "is an address"),
        ("CONNECT [::1]:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403, "is an address"),
        ("CONNECT localhost:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no dot"),
        ("CONNECT good.example HTTP/1.1\r\nHost: x\r\n\r\n", 400, "a port"),
        ("CONNECT good.example:80 HTTP/1.1\r\nHost: x\r\n\r\n", 403, "good.example:80 is not in egress.allow"),
        ("CONNECT x.good.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", 403, "a person was asked"),
    ] {
        let (_, said) = asked(&door, request).await;
        let (line, _) = said.split_once("\r\n").expect("a line");
        assert!(line.starts_with(&format!("HTTP/1.1 {status} ")) && line.contains(says), "{request}: {said}");
        assert!(said.trim_end().ends_with(&line[13..]), "the body says the same: {said}");
    }
    let cards: Vec<_> = house.book.entries().0.iter().map(|card| card.target.to_string()).collect();
    assert_eq!(cards, ["good.example:80", "x.good.example:443"]);
    door.close().await;
    let row = "SELECT host || ' ' || rule || ' ' || denied FROM egress_reached WHERE port = 0";
    assert_eq!(house.rows(row), ["(no host) no-target 6"], "the end of a run writes all counts");
    house.is_whole();
}

#[tokio::test]
async fn bytes_pass_both_ways_after_the_right_hello_and_each_end_by_itself() {
    let house = House::new().await;
    let door = house.door(1, "a", &["*.good.example"]);
    let (mut guest, said) = connect(&door, "API.good.example:443").await;
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n"), "{said}");
    let (mut server, _) = house.server.accept().await.expect("dialled");
    let hello = hello("api.good.example");
    // In pieces, and with what may follow at once.
    guest.write_all(&hello[..7]).await.expect("written");
    tokio::task::yield_now().await;
    guest.write_all(&[&hello[7..], b"more"].concat()).await.expect("written");
    let mut got = vec![0; hello.len() + 4];
    server.read_exact(&mut got).await.expect("passed");
    assert_eq!(got, [&hello[..], b"more"].concat());
    guest.shutdown().await.expect("ended");
    assert_eq!(server.read(&mut got).await.expect("an end"), 0, "the guest's end is passed on");
    server.write_all(b"the answer").await.expect("written");
    server.shutdown().await.expect("ended");
    let mut answer = String::new();
    guest.read_to_string(&mut answer).await.expect("readable");
    assert_eq!(answer, "the answer", "the other way is open until its own end");
    door.close().await;
    let row = "SELECT host || ':' || port || ' ' || rule || ' ' || address || ' ' || connections || ' ' || sent || ' ' || received
        FROM egress_reached";
    let wanted = format!("api.good.example:443 egress.allow: *.good.example 127.0.0.1 1 {} 10", hello.len() + 4);
    assert_eq!(house.rows(row), [wanted]);
    house.is_whole();
}

#[tokio::test]
async fn a_hello_for_another_host_or_none_at_all_gives_the_server_not_one_byte() {
    let house = House::new().await;
    let door = house.door(1, "a", &["good.example"]);
    for (first, says) in [
        (hello("evil.example"), "names evil.example"),
        (b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n".to_vec(), "is not"),
        (b"SSH-2.0-agent\r\n".to_vec(), "is not"),
        (vec![22, 3, 1, 0, 0], "malformed"),
    ] {
        let (mut guest, said) = connect(&door, "good.example:443").await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        let (mut server, _) = house.server.accept().await.expect("dialled");
        guest.write_all(&first).await.expect("written");
        let mut back = vec![];
        guest.read_to_end(&mut back).await.expect("ended");
        assert!(back.is_empty() || back == UNRECOGNIZED_NAME, "{back:?}");
        let mut got = vec![];
        server.read_to_end(&mut got).await.expect("ended");
        assert_eq!(got, b"", "{says}");
    }
    let told: Vec<String> = house.events.lock().expect("lock").iter().map(|row| row.message.clone()).collect();
    assert_eq!(told.len(), 1, "told seldom: {told:?}");
    assert!(told[0].contains("names evil.example"), "{told:?}");
    door.close().await;
    let row = "SELECT rule || ' ' || connections || ' ' || denied || ' ' || sent FROM egress_reached";
    assert_eq!(house.rows(row), ["cut 4 4 0"]);
}

#[tokio::test]
async fn a_decision_applies_at_once_and_once_is_for_one_connection_that_came_to_be() {
    let house = House::new().await;
    let (a, b) = (house.door(1, "a", &[]), house.door(2, "b", &[]));
    let status = async |door: &Door, target: &str| connect(door, target).await.1[9..12].to_owned();
    let card = |house: &House, of: &str| {
        house.book.entries().0.iter().find(|card| card.target.to_string() == of).expect("a card").id
    };
    for host in ["once.example:443", "down.example:443", "issue.example:443", "always.example:443", "never.example:443"]
    {
        assert_eq!((status(&a, host).await, status(&a, host).await), ("403".into(), "403".into()));
    }
    assert_eq!(house.book.entries().0.iter().map(|card| card.times).collect::<Vec<_>>(), [2; 5], "one card each");
    for (host, verb) in [
        ("once.example:443", Verb::Once),
        ("down.example:443", Verb::Once),
        ("issue.example:443", Verb::Issue),
        ("always.example:443", Verb::Always),
        ("never.example:443", Verb::Never),
    ] {
        let number = card(&house, host);
        house.book.decide(number, verb, By::Api).await.expect("taken");
        let late = house.book.decide(number, Verb::Never, By::Dashboard).await.expect_err("too late");
        assert!(late.to_string().contains("decided already"), "{late}");
    }
    assert_eq!(status(&a, "down.example:443").await, "502");
    assert_eq!(status(&a, "down.example:443").await, "502", "what did not come to be used nothing up");
    let (both, first) = tokio::join!(status(&a, "once.example:443"), status(&a, "once.example:443"));
    let mut once = [both, first];
    once.sort();
    assert_eq!(once, ["200", "403"], "of two at the same time");
    for (host, here, there) in
        [("issue.example:443", "200", "403"), ("always.example:443", "200", "200"), ("never.example:443", "403", "403")]
    {
        assert_eq!((status(&a, host).await.as_str(), status(&b, host).await.as_str()), (here, there), "{host}");
    }
    let (_, said) = connect(&b, "never.example:443").await;
    assert!(said.contains("never to be reached"), "{said}");
    assert!(house.book.entries().0.iter().all(|card| card.target.to_string() != "never.example:443"));
    let always = house.book.entries().1.iter().find(|decision| decision.verb == Verb::Always).expect("it holds").id;
    house.book.forget(always).await.expect("done");
    assert!(house.book.forget(always).await.is_err(), "only once");
    assert_eq!(status(&b, "always.example:443").await, "403", "taken back at once");

    // Another process knows all of it.
    let before = house.book.entries();
    drop((a, b));
    house.is_whole();
    let again = opened(&house.dir.path().join("journal.db")).entries();
    assert_eq!(again.1, before.1);
    let cards = |entries: &[symphony_core::egress::Card]| entries.iter().map(|card| card.id).collect::<Vec<_>>();
    assert_eq!(cards(&again.0), cards(&before.0));
    house.book.withdraw(&IssueId("b".into())).await.expect("kept");
    assert!(house.book.entries().0.iter().all(|card| card.issue.0 != "b"));
    house.is_whole();
}

#[tokio::test]
async fn a_flood_of_made_up_hosts_fills_neither_inbox_nor_journal() {
    let house = House::new().await;
    let door = house.door(1, "a", &["*.wild.example"]);
    for number in 0..300 {
        let (_, said) = connect(&door, &format!("h{number}.example:443")).await;
        assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    }
    for _ in 0..300 {
        connect(&door, "h0.example:443").await;
    }
    let (_, said) = connect(&door, "h299.example:443").await;
    assert!(said.contains("was not asked for"), "{said}");
    assert_eq!(house.book.entries().0.len(), symphony_core::egress::CARDS_OF_ISSUE);
    let reach = house.book.reach_of(RunId(1));
    assert_eq!((reach.denied, reach.hosts), (601, 0));
    door.close().await;
    let count = |sql: &str| house.rows(sql)[0].parse::<u32>().expect("a number");
    assert_eq!(count("SELECT '' || count(*) FROM egress_reached"), 17, "16, and all others together");
    assert_eq!(count("SELECT '' || denied FROM egress_reached WHERE host = '(other hosts)'"), 285);
    let events = count("SELECT '' || count(*) FROM events");
    assert!(events < 60, "{events} events for 901 requests");
    house.is_whole();
}

#[tokio::test]
async fn a_door_that_is_closed_drops_what_is_under_way_and_serves_nobody() {
    let house = House::new().await;
    let door = house.door(1, "a", &["good.example"]);
    let (mut guest, _) = connect(&door, "good.example:443").await;
    let (mut server, _) = house.server.accept().await.expect("dialled");
    guest.write_all(&hello("good.example")).await.expect("written");
    let mut byte = [0];
    server.read_exact(&mut byte).await.expect("passed");
    door.close().await;
    let mut rest = vec![];
    server.read_to_end(&mut rest).await.expect("ended");
    assert_eq!(guest.read(&mut byte).await.expect("ended"), 0);
    let (_, said) = connect(&door, "good.example:443").await;
    assert_eq!(said, "", "closed unread");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_unread() {
    let house = House::new().await;
    let door = house.door(1, "a", &[]);
    let mut held = vec![];
    for _ in 0..CONNECTIONS {
        let (guest, host) = tokio::io::duplex(1024);
        let door = door.clone();
        tokio::spawn(async move { door.serve(host).await });
        held.push(guest);
    }
    while door.0.connections.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let (mut one_more, host) = tokio::io::duplex(1024);
    door.serve(host).await;
    assert_eq!(one_more.read(&mut [0]).await.expect("an end"), 0);
    assert_eq!(house.events.lock().expect("lock")[0].event, "egress_refused");
    held.clear();
}
