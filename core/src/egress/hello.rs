//! The first bytes of a connection: a TLS ClientHello, and the name in it.
//!
//! One reading, strict: what is not exactly one hello with exactly one name in clear is refused, so that no server finds
//! another name in the same bytes. A hello with an encrypted one (ECH) beside it is refused too: its real name is hidden.

use std::collections::BTreeSet;

/// Longest hello, with the records that carry it. Those of today have half a KiB to two.
pub const HELLO_MAX: usize = 16 * 1024;

/// The alert that says a name is not known here: what a client makes of it names the trouble.
pub const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_MAX: usize = 16 * 1024;
const SERVER_NAME: u16 = 0;
/// Encrypted ClientHello (RFC 9849), and the draft before it.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Why the first bytes do not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHello {
    /// Something else than TLS.
    #[error("only TLS may pass, and what was sent is not")]
    NotTls,
    /// TLS, but not as it is written down.
    #[error("the TLS hello is malformed")]
    Malformed,
    /// It does not end.
    #[error("the TLS hello is longer than {HELLO_MAX} bytes")]
    TooLong,
    /// It does not say who is meant.
    #[error("the TLS hello names no server (SNI)")]
    NoName,
    /// It hides who is meant.
    #[error("the TLS hello encrypts the name of its server (ECH); turn that off")]
    Encrypted,
    /// It means another one.
    #[error("the TLS hello names {0}, which is not the host that was asked for")]
    OtherName(String),
}

/// The name in a hello that begins with `bytes`; `None`: more of it must come.
///
/// # Errors
/// Whatever follows, it does not pass.
pub fn server_name(bytes: &[u8]) -> Result<Option<String>, BadHello> {
    // `announced`: by the records so far, whether or not all of it is there.
    let (mut message, mut announced) = (Vec::new(), 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        if rest[0] != HANDSHAKE || rest.get(1).is_some_and(|major| *major != 3) {
            // What began as TLS is told in TLS that it does not go on so.
            return Err(if message.is_empty() { BadHello::NotTls } else { BadHello::Malformed });
        }
        let Some((head, body)) = rest.split_at_checked(5) else { break };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 || length > RECORD_MAX {
            return Err(BadHello::Malformed);
        }
        announced += length;
        message.extend_from_slice(&body[..length.min(body.len())]);
        if let Some(name) = read_message(&message, announced)? {
            return Ok(Some(name));
        }
        rest = body.get(length..).unwrap_or_default();
    }
    if bytes.len() >= HELLO_MAX { Err(BadHello::TooLong) } else { Ok(None) }
}

/// The name in a handshake message, once all of it is there.
fn read_message(message: &[u8], announced: usize) -> Result<Option<String>, BadHello> {
    if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(BadHello::Malformed);
    }
    let Some((head, body)) = message.split_at_checked(4) else { return Ok(None) };
    let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    if length > HELLO_MAX {
        return Err(BadHello::TooLong);
    }
    // Nothing else may ride in a hello's records.
    if announced > length + 4 {
        return Err(BadHello::Malformed);
    }
    match body.get(..length) {
        None => Ok(None),
        Some(hello) => read_hello(hello).ok_or(BadHello::Malformed)?.map(Some),
    }
}

/// `None`: it is malformed.
fn read_hello(mut hello: &[u8]) -> Option<Result<String, BadHello>> {
    let hello = &mut hello;
    let version = take(hello, 2)?;
    if version[0] != 3 {
        return None;
    }
    take(hello, 32)?;
    let session = short(hello)?;
    let suites = long(hello)?;
    let compressions = short(hello)?;
    if session.len() > 32 || suites.is_empty() || suites.len() % 2 != 0 || compressions.is_empty() {
        return None;
    }
    if hello.is_empty() {
        return Some(Err(BadHello::NoName));
    }
    let mut extensions = long(hello)?;
    if !hello.is_empty() {
        return None;
    }
    let (mut seen, mut name) = (BTreeSet::new(), None);
    while !extensions.is_empty() {
        let kind = number(&mut extensions)?;
        let body = long(&mut extensions)?;
        if !seen.insert(kind) {
            return None;
        }
        if kind == SERVER_NAME {
            name = Some(read_name(body)?);
        }
    }
    if ENCRYPTED.iter().any(|kind| seen.contains(kind)) {
        return Some(Err(BadHello::Encrypted));
    }
    Some(name.ok_or(BadHello::NoName))
}

/// A list of exactly one host name.
fn read_name(mut body: &[u8]) -> Option<String> {
    let body = &mut body;
    let mut list = long(body)?;
    let kind = take(&mut list, 1)?[0];
    let name = long(&mut list)?;
    if !body.is_empty() || !list.is_empty() || kind != 0 {
        return None;
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    if name.is_empty() || name.len() > 255 || !name.iter().all(plain) {
        return None;
    }
    Some(String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn take<'b>(from: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, rest) = from.split_at_checked(length)?;
    *from = rest;
    Some(taken)
}

fn number(from: &mut &[u8]) -> Option<u16> {
    take(from, 2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
}

/// What has its length in one byte before it, and in two.
fn short<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take(from, 1)?[0];
    take(from, length.into())
}

fn long<'b>(from: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = number(from)?;
    take(from, length.into())
}
