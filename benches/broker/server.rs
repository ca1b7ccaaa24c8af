//! The provider, a process of its own: what it answers is told by the model that is asked for.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

/// Streams that wait for each other.
type Meeting = Arc<(Mutex<usize>, Condvar)>;

pub(super) fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("bound"));
    let meeting = Meeting::default();
    for stream in listener.incoming().flatten() {
        let meeting = meeting.clone();
        std::thread::spawn(move || {
            stream.set_nodelay(true).expect("a socket");
            let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
            while answer(&stream, &mut reader, &meeting).is_some() {}
        });
    }
}

fn answer(mut out: &TcpStream, reader: &mut BufReader<TcpStream>, meeting: &Meeting) -> Option<()> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let model = body.split("\"model\":\"").nth(1)?.split('"').next()?;
    let event = chunk(1);
    out.write_all(HEAD).ok()?;
    match model.split_once('-') {
        // So many bytes, as fast as they are taken.
        Some(("bulk", bytes)) => {
            let many = chunk(64);
            let mut left: usize = bytes.parse().ok()?;
            while left > 0 {
                out.write_all(&many).ok()?;
                left = left.saturating_sub(many.len());
            }
        }
        // The first event at once; the rest when so many are at this point.
        Some(("meet", others)) => {
            out.write_all(&event).ok()?;
            let others: usize = others.parse().ok()?;
            let (count, arrived) = &**meeting;
            let mut count = count.lock().expect("lock");
            *count += 1;
            arrived.notify_all();
            // It never goes down, so each round asks for more.
            while *count % others != 0 && *count < others {
                count = arrived.wait(count).expect("lock");
            }
            drop(count);
            for _ in 0..50 {
                out.write_all(&event).ok()?;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        _ => out.write_all(&event).ok()?,
    }
    out.write_all(b"0\r\n\r\n").ok()
}

/// Events as a model sends them, about a kilobyte each, in one chunk.
fn chunk(events: usize) -> Vec<u8> {
    let data = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#;
    let event = format!("event: content_block_delta\ndata: {data}{}\"}}}}\n\n", "x".repeat(900));
    let body = event.repeat(events);
    format!("{:x}\r\n{body}\r\n", body.len()).into_bytes()
}
