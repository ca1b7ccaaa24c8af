//! The operator's door: dashboard, JSON API and event stream on one listener.
//!
//! It reads snapshots and leaves requests in the conductor's mailbox ([`crate::conductor::handle::Handle`]); it
//! lists, creates and, on a person's word, moves issues through the tracker. It decides nothing about runs, and nothing that a guest can
//! reach leads here. Every byte that an agent or an issue wrote is escaped or sanitised before it is shown.

mod api;
mod assets;
mod create;
mod decide;
mod error;
mod events;
mod form;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod guard;
mod host;
mod hosts;
mod inbox;
mod listen;
mod markdown;
mod page;
mod raise;
mod router;
mod say;
mod steer;
mod token;
mod view;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use symphony_core::workflow::Auth;
use tokio_util::sync::CancellationToken;

use crate::conductor::handle::Handle;
use crate::tracker::Tracker;

pub use listen::{BindError, ServeError, bind, reachable, serve};
pub use token::{OperatorToken, TokenError};

/// Everything the door needs; cheap to make, handed to [`serve`].
pub struct Door {
    /// Snapshots and requests.
    pub handle: Handle,
    /// Lists, creates and moves issues.
    pub tracker: Arc<dyn Tracker>,
    /// Who is the operator.
    pub token: OperatorToken,
    /// `server.auth`.
    pub auth: Auth,
    /// `server.host` as configured: the one name beside `localhost` that `Host` may carry.
    pub host: String,
}

/// What every handler sees.
struct App {
    handle: Handle,
    tracker: Arc<dyn Tracker>,
    token: OperatorToken,
    auth: Auth,
    names: host::Names,
    /// Ends every open stream.
    shutdown: CancellationToken,
}

/// The state of the router.
type Shared = Arc<App>;
