//! A host and a port, in the one spelling in which they are compared, kept and shown.

use core::net::IpAddr;
use std::fmt;

/// Longest name, and longest part of one (RFC 1035).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// The name of a host: lower case, as in DNS (`xn--…`), without a dot at its end. Never an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The name; it is resolved on the host, once.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// Why a text names no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// An address, however it is written.
    #[error("is an address; only names are decided over")]
    Address,
    /// A name without a dot: what it means depends on where it is asked.
    #[error("has no dot; write the whole name")]
    NoDot,
    /// It cannot be a name.
    #[error("is no name of a host")]
    NoName,
    /// Without a port, or with one that is none.
    #[error("must end with a port from 1 to 65535")]
    Port,
}

impl Host {
    /// Reads a name.
    ///
    /// # Errors
    /// It is an address, or no name that stands for one host everywhere.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let host = Self::parse_suffix(text)?;
        if host.0.contains('.') { Ok(host) } else { Err(BadHost::NoDot) }
    }

    /// The same, also of a name without a dot.
    pub(super) fn parse_suffix(text: &str) -> Result<Self, BadHost> {
        if text.starts_with('[') || text.parse::<IpAddr>().is_ok() {
            return Err(BadHost::Address);
        }
        // Long before it is taken apart: it comes from a guest.
        if text.is_empty() || text.len() > 4 * NAME_MAX {
            return Err(BadHost::NoName);
        }
        let name = idna::domain_to_ascii(text).map_err(|_| BadHost::NoName)?;
        let name = name.strip_suffix('.').unwrap_or(&name);
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let is_label = |label: &str| {
            let edge = label.starts_with('-') || label.ends_with('-');
            (1..=LABEL_MAX).contains(&label.len()) && !edge && label.chars().all(letter)
        };
        if name.len() > NAME_MAX || !name.split('.').all(is_label) {
            return Err(BadHost::NoName);
        }
        // `127.1`, `2130706433` and `0x7f.1` are addresses to every resolver.
        let last = name.rsplit('.').next().unwrap_or_default();
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if digits(last) || hex {
            return Err(BadHost::Address);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it lies below `suffix`; no name lies below itself.
    pub(super) fn is_below(&self, suffix: &Self) -> bool {
        self.0.strip_suffix(&suffix.0).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }
}

impl Target {
    /// Reads `host:port`.
    ///
    /// # Errors
    /// One of them is none.
    pub fn parse(text: &str) -> Result<Self, BadHost> {
        let (host, port) = text.rsplit_once(':').ok_or(BadHost::Port)?;
        // An address in brackets, or one without them, has more colons.
        if host.contains(':') {
            return Err(BadHost::Address);
        }
        Ok(Self { host: Host::parse(host)?, port: port_of(port)? })
    }

    /// A name and port that were read before, as the journal has them.
    pub fn kept(host: String, port: u16) -> Self {
        Self { host: Host(host), port }
    }
}

/// A port in digits.
pub(super) fn port_of(text: &str) -> Result<u16, BadHost> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0).ok_or(BadHost::Port)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
