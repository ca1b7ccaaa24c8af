//! What an agent reads where it may not go, and what is told of where it went.

use core::net::IpAddr;
use std::fmt;

use super::hello::BadHello;
use super::{BadHost, Target, Verb};

/// By what a connection was allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// This entry of `egress.allow`.
    Listed(String),
    /// A decision, by its number.
    Decided(Verb, u64),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(entry) => write!(f, "egress.allow: {entry}"),
            Self::Decided(verb, id) => write!(f, "decision {id}: {}", verb.as_str()),
        }
    }
}

/// Why there is no connection, in words for an agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Something else than CONNECT.
    #[error("symphony: only https passes here (the CONNECT method); plain http is not carried")]
    Plain,
    /// A target that is none.
    #[error("symphony: the host to connect to {0}")]
    NoTarget(BadHost),
    /// Nobody has allowed it yet.
    #[error("symphony: {0} is not in egress.allow; a person was asked; try again later or go on without it")]
    Asked(Target),
    /// Too many hosts wait for a person already.
    #[error(
        "symphony: {0} is not in egress.allow; so many hosts wait for a person already that this one was not asked for; go on without it"
    )]
    Crowded(Target),
    /// It could not be written down.
    #[error("symphony: {0} cannot be decided now: its journal cannot be written; try again later")]
    NotKept(Target),
    /// A person said no.
    #[error("symphony: a person decided that {0} is never to be reached from here; go on without it")]
    Never(Target),
    /// The name does not lead anywhere.
    #[error("symphony: {target} has no address: {why}")]
    NoAddress {
        /// What was asked for.
        target: Target,
        /// What the resolver said.
        why: String,
    },
    /// The name leads where nobody may go.
    #[error(
        "symphony: {target} leads to {address}, which is {kind}; only hosts of the public internet are reached from here"
    )]
    Forbidden {
        /// What was asked for.
        target: Target,
        /// One of its addresses.
        address: IpAddr,
        /// What kind of address that is.
        kind: &'static str,
    },
    /// It does not answer.
    #[error("symphony: {target} cannot be reached: {why}")]
    Unreachable {
        /// What was asked for.
        target: Target,
        /// What the system said.
        why: String,
    },
    /// The first bytes are not TLS for that host.
    #[error("symphony: the connection to {target} was cut: {why}")]
    Cut {
        /// What was asked for.
        target: Target,
        /// What is wrong with them.
        why: BadHello,
    },
    /// The run is over.
    #[error("symphony: the run is over")]
    Over,
}

impl Denied {
    /// The status of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::Plain => 405,
            Self::NoTarget(BadHost::Address) => 403,
            Self::NoTarget(_) => 400,
            Self::Asked(_) | Self::Crowded(_) | Self::Never(_) | Self::Forbidden { .. } | Self::Cut { .. } => 403,
            Self::NoAddress { .. } | Self::Unreachable { .. } => 502,
            Self::NotKept(_) | Self::Over => 503,
        }
    }

    /// The stable word that the journal has.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::NoTarget(_) => "no-target",
            Self::Asked(_) => "asked",
            Self::Crowded(_) => "crowded",
            Self::NotKept(_) => "not-kept",
            Self::Never(_) => "never",
            Self::NoAddress { .. } => "no-address",
            Self::Forbidden { .. } => "forbidden-address",
            Self::Unreachable { .. } => "unreachable",
            Self::Cut { .. } => "cut",
            Self::Over => "over",
        }
    }
}

/// What a run reached, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// Hosts that it was connected to.
    pub hosts: u64,
    /// Connections to them.
    pub connections: u64,
    /// Requests that were refused, or cut.
    pub denied: u64,
    /// Bytes to them.
    pub sent: u64,
    /// Bytes from them.
    pub received: u64,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hosts, connections, denied, sent, received } = self;
        let s = |n: u64| if n == 1 { "" } else { "s" };
        write!(
            f,
            "network: {hosts} host{} reached over {connections} connection{}, {sent} bytes sent and {received} received, {denied} request{} denied",
            s(*hosts),
            s(*connections),
            s(*denied)
        )
    }
}
