//! The smallest HTTP client that can test a server: one request, one connection, everything visible.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Where to, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: String,
    pub(crate) bearer: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The stable code of an error answer.
    pub(crate) fn error_code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    /// A browser that followed the login link, and the cookie that it sends.
    pub(crate) fn browser(&self) -> (Self, String) {
        let browser = Self { bearer: None, ..self.clone() };
        let answer = browser.get(&format!("/login?token={}", self.bearer.as_deref().expect("a token")));
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        let pair = cookie.split(';').next().expect("a pair").to_owned();
        (browser, pair)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_send(method, path, headers, body).expect("an answer")
    }

    /// The same, of a server that may die any moment.
    pub(crate) fn try_post_json(&self, path: &str, body: &Value) -> std::io::Result<Answer> {
        self.try_send("POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    fn try_send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request.push_str(&format!("Host: {}\r\n", self.address));
        }
        if let Some(bearer) = &self.bearer {
            request.push_str(&format!("Authorization: Bearer {bearer}\r\n"));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        request.push_str(body);
        stream.write_all(request.as_bytes())?;
        let text = String::from_utf8_lossy(&read(stream)?).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body =
            if head.to_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        Ok(Answer { status, head: head.to_owned(), body })
    }
}

/// To the end of the answer, or of the connection where the answer does not say how long it is.
fn read(stream: TcpStream) -> std::io::Result<Vec<u8>> {
    let mut stream = BufReader::new(stream);
    let (mut raw, mut length) = (Vec::new(), None);
    while stream.read_until(b'\n', &mut raw)? > 0 && !raw.ends_with(b"\r\n\r\n") {
        let line = raw.rsplit(|byte| *byte == b'\n').nth(1).unwrap_or_default();
        let line = String::from_utf8_lossy(line).to_lowercase();
        length = length.or(line.strip_prefix("content-length:").and_then(|n| n.trim().parse::<u64>().ok()));
    }
    // An endless limit: the server closes, as it was asked to.
    stream.take(length.unwrap_or(u64::MAX)).read_to_end(&mut raw)?;
    Ok(raw)
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    whole
}
