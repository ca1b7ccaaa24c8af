//! A client for one MCP server over plain HTTP: initialize, list, call. One connection per request, everything bounded.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const MAX_ANSWER: u64 = 1024 * 1024;
const DEADLINE: Duration = Duration::from_secs(60);

/// An MCP server as `session/new` names it.
#[derive(Clone, Debug)]
pub(super) struct Server {
    authority: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Server {
    /// The first HTTP server of an ACP `mcpServers` list.
    pub(super) fn from_acp(servers: &Value) -> Option<Self> {
        servers.as_array()?.iter().find_map(|server| {
            let rest = server["url"].as_str()?.strip_prefix("http://")?;
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let headers = server["headers"].as_array().into_iter().flatten().filter_map(|h| {
                let (name, value) = (h["name"].as_str()?, h["value"].as_str()?);
                // A line break would end the header.
                (!name.contains(['\r', '\n']) && !value.contains(['\r', '\n'])).then(|| (name.into(), value.into()))
            });
            Some(Self { authority: authority.into(), path: format!("/{path}"), headers: headers.collect() })
        })
    }

    /// Calls a tool in a conversation of its own.
    ///
    /// # Errors
    /// The server cannot be reached, lacks the tool, or the tool says it failed: in its words.
    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Result<String, String> {
        let about = json!({"protocolVersion": "2025-06-18", "capabilities": {},
            "clientInfo": {"name": "symphony-script", "version": env!("CARGO_PKG_VERSION")}});
        self.request(1, "initialize", about).await?;
        self.post(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        let tools = self.request(2, "tools/list", json!({})).await?;
        let known = tools["tools"].as_array().is_some_and(|all| all.iter().any(|t| t["name"] == tool));
        if !known {
            return Err(format!("the MCP server has no tool `{tool}`"));
        }
        let result = self.request(3, "tools/call", json!({"name": tool, "arguments": arguments})).await?;
        let texts = result["content"].as_array().into_iter().flatten().filter_map(|c| c["text"].as_str());
        let text = texts.collect::<Vec<_>>().join("\n");
        if result["isError"] == true { Err(format!("{tool}: {text}")) } else { Ok(text) }
    }

    async fn request(&self, id: u32, method: &str, params: Value) -> Result<Value, String> {
        let body = self.post(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await?;
        let mut answer: Value = serde_json::from_str(&body).map_err(|e| format!("{method}: no JSON came back: {e}"))?;
        if let Some(error) = answer.get("error") {
            return Err(format!("{method}: {}", error["message"].as_str().unwrap_or("failed")));
        }
        Ok(answer["result"].take())
    }

    async fn post(&self, message: &Value) -> Result<String, String> {
        timeout(DEADLINE, self.exchange(message.to_string()))
            .await
            .map_err(|_| "the MCP server did not answer in time".to_owned())?
    }

    async fn exchange(&self, body: String) -> Result<String, String> {
        let broken = |e: std::io::Error| format!("the MCP server at {} cannot be reached: {e}", self.authority);
        let mut stream = TcpStream::connect(&self.authority).await.map_err(broken)?;
        let mut head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n\
             Connection: close\r\nContent-Length: {}\r\n",
            self.path,
            self.authority,
            body.len()
        );
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.map_err(broken)?;
        let mut raw = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut raw).await.map_err(broken)?;
        parse_answer(&raw)
    }
}

fn parse_answer(raw: &[u8]) -> Result<String, String> {
    let split = raw.windows(4).position(|w| w == b"\r\n\r\n").ok_or("the MCP server broke off")?;
    let head = String::from_utf8_lossy(&raw[..split]).to_lowercase();
    let mut body = raw[split + 4..].to_vec();
    let has = |name: &str, word: &str| {
        head.lines().any(|l| l.split_once(':').is_some_and(|(n, v)| n == name && v.contains(word)))
    };
    if has("transfer-encoding", "chunked") {
        body = dechunk(&body).ok_or("the MCP server broke off")?;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    let status: u16 = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    if !(200..300).contains(&status) {
        let words: String = body.chars().take(300).collect();
        return Err(format!("the MCP server answered {status}: {words}"));
    }
    if has("content-type", "text/event-stream") {
        let mut data = body.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim).filter(|d| !d.is_empty());
        return data.next_back().map(str::to_owned).ok_or_else(|| "the MCP server sent no event".into());
    }
    Ok(body)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}
