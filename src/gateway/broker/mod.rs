//! The model broker of one run: HTTP/1.1 on byte streams from the run's own guest, forwarded to a provider with the host's
//! credential.
//!
//! Owns the run's token, limits and life. What is forwarded is decided in `symphony_core::broker`. No credential goes to a
//! guest, into a log or an error. A login is renewed and its file replaced only where a workflow says `refresh: true`, in
//! `renewal.rs`: that can log its owner out.

pub(crate) mod credential;
mod forward;
mod hold;
mod in_vain;
mod passing;
mod purse;
mod renewal;
mod renewing;
mod standing;
#[cfg(test)]
mod tests;
mod unread;
mod upstream;
mod watched;
mod witness;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use symphony_core::board::{NoModel, StopCause};
use symphony_core::broker::{BODY_MAX, Provider};
use symphony_core::snapshot::EventRow;
use symphony_core::workflow::Models;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::credential::Fingerprint;
use self::in_vain::Tries;
pub use self::purse::Purse;
use self::renewal::Renewals;
use self::standing::{Leave, Standings};
use self::unread::Unread;
use self::upstream::Upstream;
use self::witness::Witness;
use super::mcp::Bearer;
use crate::agent::redact::Learned;
use crate::journal::Journal;
use crate::journal::standings::Told;
use crate::run::line::Report;
use crate::run::models::AskCredential;
use crate::run::stage::{ReadLogin, Stage};
use crate::workflow_file::Environment;

/// Connections at once; a further one is closed unread.
const CONNECTIONS: usize = 64;
/// Longest time for a request's head, which is also the longest pause between two requests.
const HEAD: Duration = Duration::from_secs(120);
/// Bodies that are read at the same time.
const CHECKS: usize = 2;
/// Request bodies held at once for one run, in KiB. A further request waits.
const ROOM_KIB: usize = 2 * BODY_MAX / 1024;
/// The same trouble is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// What all runs share: the way to providers, and where credentials are.
#[derive(Clone)]
pub struct Broker {
    upstream: Arc<Upstream>,
    /// Bodies are read by so many at once, of all runs: what they make of memory is bounded, and others have threads left.
    checks: Arc<Semaphore>,
    /// What providers said last of each credential.
    standings: Arc<Standings>,
    /// Issues that are never answered.
    in_vain: Arc<Tries>,
    /// Logins that are renewed here, and the tokens that are known from it.
    renewals: Arc<Renewals>,
    learned: Learned,
    environment: Environment,
}

impl Broker {
    /// Credentials are looked for in `environment` and its home, at each request anew.
    pub fn new(environment: Environment) -> Self {
        let (upstream, learned) = (Arc::new(Upstream::default()), Learned::default());
        Self {
            renewals: Arc::new(Renewals::new(upstream.clone(), &*environment.variable, learned.clone())),
            learned,
            upstream,
            checks: Arc::new(Semaphore::new(CHECKS)),
            standings: Arc::default(),
            in_vain: Arc::default(),
            environment,
        }
    }

    /// The same with what providers told earlier processes; what they say from now on is kept in `journal`.
    pub fn recalled(environment: Environment, journal: &Journal, told: &Told) -> Self {
        Self {
            standings: Standings::recalled(journal, told),
            in_vain: Arc::new(Tries::recalled(journal, &told.in_vain)),
            ..Self::new(environment)
        }
    }

    /// The door of one run, open until [`Door::close`]. What passes it is charged to `purse` and reported to `reports`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn open(&self, models: Models, purse: Purse, reports: mpsc::Sender<Report>) -> Result<Door, getrandom::Error> {
        Ok(Door(Arc::new(Shared {
            broker: self.clone(),
            models: Arc::new(models),
            purse,
            bearer: Bearer::random()?,
            reports,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            closed: CancellationToken::new(),
            offered: OnceLock::new(),
            held: watch::Sender::new(0),
            over: watch::Sender::new(None),
            refused: Mutex::default(),
            vain: AtomicBool::default(),
            told: Mutex::default(),
            witness: Witness::new(),
        })))
    }
}

impl Broker {
    /// Why no request can go to `provider` now, for the floors below.
    pub fn asked(&self) -> AskCredential {
        let broker = self.clone();
        Arc::new(move |workflow, provider| {
            let broker = broker.clone();
            Box::pin(async move { broker.closed(&workflow.models, provider).await })
        })
    }

    /// What `credentials: stage` copies, for the floors below.
    pub fn stage(&self) -> Stage {
        let (files, variables) = (self.environment.clone(), self.environment.clone());
        let login: ReadLogin = Arc::new(move |provider| {
            let environment = files.clone();
            Box::pin(async move { credential::login_text(provider, &environment).await })
        });
        Stage { login, variable: Arc::new(move |name| (variables.variable)(name)) }
    }

    async fn closed(&self, models: &Models, provider: Provider) -> Result<(), NoModel> {
        let found = self.glance(models, provider).await.map_err(|none| NoModel::NoCredential(none.to_string()))?;
        let Some(credential) = found else { return Ok(()) };
        match self.standings.glance(&credential.fingerprint()) {
            Leave::Go(_) => Ok(()),
            Leave::Until(at, pause) => Err(NoModel::Paused(pause, Standings::of_the_world(at))),
            Leave::Never(said) => Err(NoModel::NoCredential(said)),
        }
    }

    /// Told when [`Self::asked`] may answer otherwise.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.standings.changes()
    }
}

/// The door of one run. Clones share everything.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

struct Shared {
    broker: Broker,
    models: Arc<Models>,
    purse: Purse,
    bearer: Bearer,
    reports: mpsc::Sender<Report>,
    connections: Arc<Semaphore>,
    room: Arc<Semaphore>,
    closed: CancellationToken,
    /// The providers of which the agent was told.
    offered: OnceLock<Vec<Provider>>,
    /// Requests that wait for a provider's leave.
    held: watch::Sender<usize>,
    /// Why the run is to end: its provider does not answer it.
    over: watch::Sender<Option<StopCause>>,
    /// The credential with which a request of the run was refused for a short while, with no answer since.
    refused: Mutex<Option<Fingerprint>>,
    /// Whether the run was told that it asks in vain, with no answer since.
    vain: AtomicBool,
    /// When each kind of trouble was told last: a guest can make it as often as it likes.
    told: Mutex<HashMap<&'static str, Instant>>,
    witness: Witness,
}

impl Door {
    /// The run's token; a secret, but worth nothing outside this run.
    pub fn token(&self) -> &str {
        self.0.bearer.reveal()
    }

    /// Where an agent finds its models, when the guest listens on its loopback `port`: only those for which there is a
    /// credential, expired or not.
    pub async fn ways(&self, port: u16) -> Vec<(Provider, String)> {
        let mut ways = vec![];
        for provider in Provider::ALL {
            let found = credential::find(provider, self.0.models.of(provider), &self.0.broker.environment).await;
            if found.is_err_and(|none| none.is_absent()) {
                continue;
            }
            ways.push((provider, format!("http://127.0.0.1:{port}{}", provider.prefix())));
        }
        let _ = self.0.offered.set(ways.iter().map(|(provider, _)| *provider).collect());
        ways
    }

    /// How many requests wait for their provider's leave.
    pub fn held(&self) -> watch::Receiver<usize> {
        self.0.held.subscribe()
    }

    /// Why the run is to end, once it is.
    pub fn over(&self) -> watch::Receiver<Option<StopCause>> {
        self.0.over.subscribe()
    }

    /// Ends it: what is under way is dropped, here and at the provider, and the token is worthless from now on.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Serves one connection from the guest until either side closes it or the door is closed.
    pub async fn serve(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        if self.0.closed.is_cancelled() {
            return;
        }
        let Ok(_permit) = self.0.connections.clone().try_acquire_owned() else {
            self.tell("model_refused", || {
                format!("the agent holds {CONNECTIONS} connections to its models; further ones are closed")
            });
            return;
        };
        let door = self.clone();
        let service = service_fn(move |request| {
            let door = door.clone();
            async move { Ok::<_, Infallible>(door.answer(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(Unread::new(io)), service);
        let ended = tokio::select! {
            ended = connection => ended,
            () = self.0.closed.cancelled() => Ok(()),
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a model connection of the guest broke");
        }
    }

    /// An event for the run's history; lost when nobody takes it, and told seldom.
    fn tell(&self, event: &'static str, message: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(event).is_some_and(|last| now.duration_since(*last) < TOLD_AGAIN) {
            return;
        }
        told.insert(event, now);
        let row = EventRow { at: jiff::Timestamp::now(), event: event.to_owned(), message: message() };
        let _ = self.0.reports.try_send(Report::Event(row));
    }
}
