//! `egress.allow`: the hosts that every run of a workflow may reach.

use std::fmt;

use super::target::port_of;
use super::{BadHost, Host, PORT, Target};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pattern: Pattern,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exactly(Host),
    /// Every name below this one, and not this one.
    Below(Host),
}

/// Why an entry cannot be used, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// A URL or a part of one.
    #[error("is not only a host")]
    Url,
    /// A star anywhere but as the whole first part.
    #[error("has a `*` where none may be")]
    Star,
    /// Every host.
    #[error("would allow every host")]
    All,
    /// Anybody can have a name below it.
    #[error("would allow every host below `{0}`, where anybody can have one")]
    PublicSuffix(Host),
    /// The host is none.
    #[error("{0}")]
    Host(BadHost),
}

impl BadEntry {
    /// What to write instead.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Url => "write `host` or `host:port`, without a scheme, a path or a user",
            Self::Star => "write `*.example.com` for every host below example.com, or the whole name",
            Self::All | Self::PublicSuffix(_) => "name the hosts, or a suffix that belongs to one owner",
            Self::Host(BadHost::Address) => "write its name: the name is what TLS is checked for",
            Self::Host(BadHost::NoDot) => "write the whole name, like `host.example.com`",
            Self::Host(BadHost::NoName) => "write `host`, `host:port` or `*.suffix`",
            Self::Host(BadHost::Port) => "a port is a number from 1 to 65535; without one it is 443",
        }
    }
}

impl From<BadHost> for BadEntry {
    fn from(bad: BadHost) -> Self {
        Self::Host(bad)
    }
}

impl Entry {
    /// Reads `host`, `host:port`, `*.suffix` or `*.suffix:port`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadEntry> {
        let text = text.trim();
        if text.contains("://") || text.contains(['/', '@', '?', '#']) {
            return Err(BadEntry::Url);
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, _)) if name.contains(':') => return Err(BadHost::Address.into()),
            Some((name, port)) => (name, port_of(port)?),
            None => (text, PORT),
        };
        let pattern = match name.strip_prefix("*.") {
            _ if name == "*" || name == "*." => return Err(BadEntry::All),
            Some(suffix) if suffix.contains('*') => return Err(BadEntry::Star),
            None if name.contains('*') => return Err(BadEntry::Star),
            None => Pattern::Exactly(Host::parse(name)?),
            Some(suffix) => {
                let suffix = Host::parse_suffix(suffix)?;
                if !is_one_owners(&suffix) {
                    return Err(BadEntry::PublicSuffix(suffix));
                }
                Pattern::Below(suffix)
            }
        };
        Ok(Self { pattern, port })
    }

    fn allows(&self, target: &Target) -> bool {
        let name = match &self.pattern {
            Pattern::Exactly(host) => *host == target.host,
            // Below an owner's name there may be one whose parts are anybody's: `s3` of a provider's own name.
            Pattern::Below(suffix) => {
                let domain = psl::domain_str(target.host.as_str()).and_then(|domain| Host::parse_suffix(domain).ok());
                target.host.is_below(suffix)
                    && domain.is_some_and(|domain| domain == *suffix || suffix.is_below(&domain))
            }
        };
        name && self.port == target.port
    }
}

/// Whether what is right below this name is its owner's. By the list of public suffixes; of a top level that is not on it,
/// the top level itself. The list names some suffixes only by all that is below them.
fn is_one_owners(suffix: &Host) -> bool {
    let below = format!("x.{suffix}");
    psl::domain_str(suffix.as_str()).is_some() && psl::domain_str(&below).is_some()
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.pattern {
            Pattern::Exactly(host) => write!(f, "{host}")?,
            Pattern::Below(suffix) => write!(f, "*.{suffix}")?,
        }
        if self.port == PORT { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// All entries; without one nothing is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(pub Vec<Entry>);

impl AllowList {
    /// The first entry that allows it.
    pub fn entry(&self, target: &Target) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.allows(target))
    }
}
