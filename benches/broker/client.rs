//! The agent's part, a process of its own: asks, and says how long that took.
//! `first N`, `bulk BYTES` or `meet N`, then the addresses to ask in turn, each as `HOST:PORT/PREFIX`; the token is in the
//! environment. One line for each figure: address, nanoseconds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const TOKEN: &str = "SYMPHONY_BENCH_TOKEN";
/// Whoever waits longer was not let through.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let (what, number, ways) = (&words[0], words[1].parse::<usize>().expect("a number"), &words[2..]);
    match what.as_str() {
        "first" => first(number, ways),
        "bulk" => bulk(number, ways),
        _ => meet(number, &ways[0]),
    }
}

fn say(way: &str, took: Duration) {
    println!("{way} {}", took.as_nanos());
}

fn connect(way: &str) -> TcpStream {
    let stream = TcpStream::connect(way.split('/').next().expect("an address")).expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

fn ask(stream: &mut TcpStream, way: &str, model: &str) {
    let prefix = way.split_once('/').map_or("", |(_, prefix)| prefix);
    let token = std::env::var(TOKEN).expect("a token");
    let body =
        format!(r#"{{"model":"{model}","max_tokens":9,"stream":true,"messages":[{{"role":"user","content":"hi"}}]}}"#);
    let head = format!(
        "POST /{prefix}v1/messages HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).expect("taken");
}

/// Reads to the end of an answer; how long it took to the first byte of its body, and how many bytes there were.
fn read(stream: &mut TcpStream, began: Instant) -> Result<(Duration, usize), std::io::Error> {
    let mut part = vec![0; 256 * 1024];
    let (mut head, mut body, mut first, mut end) = (vec![], 0, None, vec![]);
    loop {
        let read = stream.read(&mut part)?;
        assert!(read > 0, "the answer was cut: {}", String::from_utf8_lossy(&head));
        let mut data = &part[..read];
        if first.is_none() {
            head.extend_from_slice(data);
            let Some(at) = head.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
            if head.len() == at + 4 {
                continue;
            }
            first = Some(began.elapsed());
            data = &head[at + 4..];
        }
        body += data.len();
        end.extend_from_slice(&data[data.len().saturating_sub(7)..]);
        end.drain(..end.len().saturating_sub(7));
        if end.ends_with(b"\r\n0\r\n\r\n") {
            return Ok((first.expect("it began"), body));
        }
    }
}

/// Connections that are kept, as agents keep theirs.
fn first(rounds: usize, ways: &[String]) {
    let mut open: Vec<TcpStream> = ways.iter().map(|way| connect(way)).collect();
    for round in 0..rounds + 20 {
        for (stream, way) in open.iter_mut().zip(ways) {
            let began = Instant::now();
            ask(stream, way, "first");
            let (took, _) = read(stream, began).expect("an answer");
            // The first ones open connections behind.
            if round >= 20 {
                say(way, took);
            }
        }
    }
}

fn bulk(bytes: usize, ways: &[String]) {
    for way in ways {
        let mut stream = connect(way);
        let began = Instant::now();
        ask(&mut stream, way, &format!("bulk-{bytes}"));
        let (_, read) = read(&mut stream, began).expect("an answer");
        assert!(read >= bytes, "{read} of {bytes}");
        say(way, began.elapsed());
    }
}

/// So many streams that all have to be open at the same time.
fn meet(streams: usize, way: &str) {
    let way: Arc<str> = way.into();
    let asking = (0..streams).map(|_| {
        let way = way.clone();
        std::thread::spawn(move || {
            let mut stream = connect(&way);
            let began = Instant::now();
            ask(&mut stream, &way, &format!("meet-{streams}"));
            read(&mut stream, began).map(|(first, _)| first)
        })
    });
    for one in asking.collect::<Vec<_>>() {
        if let Ok(first) = one.join().expect("it asks") {
            say(&way, first);
        }
    }
}
