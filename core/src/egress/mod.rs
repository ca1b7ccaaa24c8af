//! Egress: which hosts an agent may reach, who said so, and what it is told when it may not.
//!
//! Pure. A host is decided by its name ([`AllowList`], [`Ledger`]); every address that the name has must be one of the public
//! internet ([`address`]); and the first bytes of a connection must be TLS for that name ([`hello`]).

pub mod address;
mod allow;
pub mod hello;
mod ledger;
mod target;
#[cfg(test)]
mod tests;
mod words;

pub use allow::{AllowList, BadEntry, Entry};
pub use ledger::{
    Asking, CARDS, CARDS_OF_ISSUE, Card, Decision, Kept, Ledger, Named, NotDecided, Settles, Verb, Verdict,
};
pub use target::{BadHost, Host, Target};
pub use words::{Denied, Reach, Rule};

/// What a connection carries when nothing else is written.
pub const PORT: u16 = 443;
