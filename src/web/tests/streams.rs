//! The event stream, and that no open connection holds up a shutdown.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{House, PATIENCE};

/// An open stream and what it said so far.
struct Reader {
    stream: TcpStream,
    said: String,
}

impl Reader {
    async fn open(house: &House, more: &str) -> Self {
        let mut stream = TcpStream::connect(house.address).await.expect("connected");
        let head =
            format!("GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n{}\r\n{more}\r\n", house.address, house.bearer());
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut reader = Self { stream, said: String::new() };
        reader.until("\r\n\r\n").await;
        assert!(reader.said.contains("200 OK") && reader.said.contains("text/event-stream"), "{}", reader.said);
        reader
    }

    /// Reads until `text` was said.
    async fn until(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.said.contains(text) {
            let read = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
            let read = read.unwrap_or_else(|_| panic!("no `{text}` in {}", self.said)).expect("read");
            assert!(read > 0, "ended without `{text}`: {}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
}

#[tokio::test]
async fn a_reader_learns_of_each_change_at_once() {
    let house = House::open().await;
    let mut reader = Reader::open(&house, "").await;
    reader.until("id: 42\n").await;
    assert!(reader.said.contains("event: snapshot\n"));
    let began = Instant::now();
    house.publish(|_| ());
    reader.until("data: {\"version\":43}").await;
    assert!(began.elapsed() < Duration::from_secs(3), "took {:?}", began.elapsed());
}

#[tokio::test]
async fn a_reader_that_is_up_to_date_is_told_only_what_is_new() {
    let house = House::open().await;
    let mut reader = Reader::open(&house, "Last-Event-ID: 42\r\n").await;
    house.publish(|_| ());
    reader.until("id: 43\n").await;
    assert!(!reader.said.contains("id: 42"), "{}", reader.said);
    let mut behind = Reader::open(&house, "Last-Event-ID: 42\r\n").await;
    behind.until("id: 43\n").await;
}

#[tokio::test]
async fn a_burst_of_changes_is_a_handful_of_events() {
    let house = House::open().await;
    let mut reader = Reader::open(&house, "").await;
    for _ in 0..500 {
        house.publish(|_| ());
        tokio::task::yield_now().await;
    }
    reader.until("id: 542\n").await;
    assert!(reader.said.matches("event: snapshot").count() < 50, "{}", reader.said.len());
}

#[tokio::test]
async fn an_open_stream_and_a_silent_connection_do_not_hold_up_the_end() {
    let house = House::open().await;
    let mut reader = Reader::open(&house, "").await;
    let _silent = TcpStream::connect(house.address).await.expect("connected");
    let mut half = TcpStream::connect(house.address).await.expect("connected");
    half.write_all(b"POST /api/v1/issues HTTP/1.1\r\n").await.expect("sent");
    reader.until("id: 42\n").await;
    house.shutdown.cancel();
    timeout(Duration::from_secs(10), house.serving).await.expect("ended in time").expect("no panic").expect("served");
    let mut rest = vec![];
    timeout(PATIENCE, reader.stream.read_to_end(&mut rest)).await.expect("the stream ended").expect("cleanly");
    assert!(TcpStream::connect(house.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn dropping_the_server_ends_its_connections() {
    let house = House::open().await;
    let mut reader = Reader::open(&house, "").await;
    house.serving.abort();
    let mut rest = vec![];
    timeout(PATIENCE, reader.stream.read_to_end(&mut rest)).await.expect("the stream ended").expect("cleanly");
}

#[tokio::test]
async fn a_stream_ends_and_health_fails_when_nobody_publishes_any_more() {
    let House { address, token, snapshots, serving, .. } = House::open().await;
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    drop(snapshots);
    let mut rest = vec![];
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("ended").expect("cleanly");
    assert!(String::from_utf8_lossy(&rest).contains("id: 42"));
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let head = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut rest = vec![];
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("answered").expect("cleanly");
    assert!(String::from_utf8_lossy(&rest).starts_with("HTTP/1.1 503"));
    serving.abort();
}
