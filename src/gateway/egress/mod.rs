//! The way out of one run: HTTP CONNECT on byte streams from the run's own guest, to hosts that somebody allowed.
//!
//! Owns the door's limits and life. Who may be reached is decided in `symphony_core::egress`. A stream comes over the run's own
//! channel, which is all that says whose it is: there is no token to steal. Nothing reaches a server before its first bytes are
//! a TLS hello for exactly the host that was asked for.

mod dial;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
mod tunnel;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use symphony_core::egress::{AllowList, Denied, Rule, Target, Verb};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::snapshot::EventRow;
use symphony_guest::wire::MAX_RELAYS_PER_LISTENER;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::dial::{Dial, Internet};
use crate::egress::{Book, Counts, Page};
use crate::run::egress::{EgressDoor, OpenEgress, Tell};

/// Connections at once; a further one is closed unread. The guest's relay carries as many, and one that has ended there may not
/// have ended here yet.
const CONNECTIONS: usize = MAX_RELAYS_PER_LISTENER + 16;
/// Hosts that are looked up and called at once; further ones wait. The resolver is everybody's.
const DIALS: usize = 8;
/// Longest time for a request's head.
const HEAD: Duration = Duration::from_secs(30);
/// Longest head.
const HEAD_MAX: usize = 16 * 1024;
/// Counts of a run that goes on are so far behind in the journal at most.
const WRITTEN_EVERY: Duration = Duration::from_secs(300);
/// The same kind of trouble is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// What all runs share.
#[derive(Clone)]
pub struct Egress {
    book: Book,
    dial: Arc<dyn Dial>,
}

impl Egress {
    /// A way to the internet of this machine.
    pub fn new(book: Book, dial: Arc<dyn Dial>) -> Self {
        Self { book, dial }
    }

    /// The same, for the floor of the runs.
    pub fn opening(self) -> OpenEgress {
        Arc::new(move |run, issue, workflow, tell| {
            let door = self.open(run, issue, workflow.egress.clone(), tell);
            let (serving, keeping, closing) = (door.clone(), door.clone(), door);
            EgressDoor {
                serve: Arc::new(move |stream| {
                    let door = serving.clone();
                    Box::pin(async move { door.serve(stream).await })
                }),
                keep: Box::pin(async move { keeping.keep().await }),
                close: Box::new(move || Box::pin(async move { closing.close().await })),
            }
        })
    }

    /// The door of one run, open until [`Door::close`].
    pub fn open(&self, run: RunId, issue: IssueId, allow: AllowList, tell: Tell) -> Door {
        Door(Arc::new(Shared {
            page: self.book.open(run, issue),
            dial: self.dial.clone(),
            allow,
            tell,
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            dials: Semaphore::new(DIALS),
            closed: CancellationToken::new(),
            told: Mutex::default(),
        }))
    }
}

/// The door of one run. Clones share everything.
#[derive(Clone)]
pub struct Door(Arc<Shared>);

struct Shared {
    page: Page,
    dial: Arc<dyn Dial>,
    allow: AllowList,
    tell: Tell,
    connections: Arc<Semaphore>,
    dials: Semaphore,
    closed: CancellationToken,
    /// When each kind of trouble was told last: a guest can make it as often as it likes.
    told: Mutex<BTreeMap<&'static str, Instant>>,
}

/// A connection that may be used, once its guest has read the answer.
struct Passage {
    guest: OnUpgrade,
    server: TcpStream,
    target: Target,
    counts: Arc<Counts>,
}

impl Door {
    /// Serves one connection from the guest until either side ends it or the door is closed.
    pub async fn serve(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Ok(_permit) = self.0.connections.clone().try_acquire_owned() else {
            self.tell("egress_refused", "", || {
                format!("the agent holds {CONNECTIONS} connections to the network; further ones are closed")
            });
            return;
        };
        // Also while a request is decided: what it waits for is dropped.
        tokio::select! {
            () = self.converse(io) => {}
            () = self.0.closed.cancelled() => {}
        }
    }

    async fn converse(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let passage: Arc<Mutex<Option<Passage>>> = Arc::default();
        let (door, slot) = (self.clone(), passage.clone());
        let service = service_fn(move |request| {
            let (door, slot) = (door.clone(), slot.clone());
            async move { Ok::<_, Infallible>(door.answer(request, &slot).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_MAX)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an egress connection of the guest broke");
            return;
        }
        let taken = passage.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Passage { guest, server, target, counts }) = taken else { return };
        let Ok(guest) = guest.await else { return };
        let cut = tokio::select! {
            carried = tunnel::carry(TokioIo::new(guest), server, &target.host, &counts) => {
                carried.err().map(|why| Denied::Cut { target: target.clone(), why })
            }
            () = self.0.page.forbidden(&target, &self.0.allow) => Some(Denied::Never(target.clone())),
        };
        if let Some(cut) = cut {
            self.refuse(Some(&target), &cut).await;
        }
    }

    async fn answer(&self, request: Request<Incoming>, slot: &Mutex<Option<Passage>>) -> Response<Body> {
        let target = match target_of(&request) {
            Ok(target) => target,
            Err(denied) => {
                self.refuse(None, &denied).await;
                return refusal(&denied);
            }
        };
        match self.passage(request, &target).await {
            Ok(passage) => {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(passage);
                Response::new(Body::empty())
            }
            Err(denied) => {
                self.refuse(Some(&target), &denied).await;
                refusal(&denied)
            }
        }
    }

    /// Name, then address, then the journal; the first byte comes after all of them.
    async fn passage(&self, request: Request<Incoming>, target: &Target) -> Result<Passage, Denied> {
        self.0.page.rule(target, &self.0.allow).await?;
        let turn = self.0.dials.acquire().await.map_err(|_| Denied::Over)?;
        let (server, address) = self.0.dial.dial(target).await?;
        drop(turn);
        let (rule, counts) = self.0.page.passes(target, &self.0.allow, address).await?;
        self.tell_passed(target, &rule, address);
        Ok(Passage { guest: hyper::upgrade::on(request), server, target: target.clone(), counts })
    }

    async fn refuse(&self, target: Option<&Target>, denied: &Denied) {
        self.tell("egress_denied", denied.code(), || denied.to_string());
        self.0.page.denied(target, denied).await;
    }

    /// What a person allowed once is worth a line; what is listed is in the journal and in the counts.
    fn tell_passed(&self, target: &Target, rule: &Rule, address: IpAddr) {
        if let Rule::Decided(Verb::Once, _) = rule {
            self.say("egress_once", format!("{target} was reached once, at {address}"));
        }
    }

    /// An event for the run's history, told seldom.
    fn tell(&self, event: &'static str, kind: &'static str, message: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(kind).is_some_and(|last| now.duration_since(*last) < TOLD_AGAIN) {
            return;
        }
        told.insert(kind, now);
        self.say(event, message());
    }

    fn say(&self, event: &str, message: String) {
        (self.0.tell)(EventRow { at: jiff::Timestamp::now(), event: event.to_owned(), message });
    }

    /// Keeps the journal near the counts, until the door is closed.
    pub async fn keep(&self) {
        while self.0.closed.run_until_cancelled(tokio::time::sleep(WRITTEN_EVERY)).await.is_some() {
            self.0.page.write().await;
        }
    }

    /// Ends it: what is under way is dropped, and the run's last counts are written down.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.0.page.write().await;
    }
}

fn target_of(request: &Request<Incoming>) -> Result<Target, Denied> {
    if request.method() != Method::CONNECT {
        return Err(Denied::Plain);
    }
    let uri = request.uri();
    let authority = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
    Target::parse(authority.map_or("", |authority| authority.as_str())).map_err(Denied::NoTarget)
}

/// In the body, and in the reason of the status line: many clients show nothing else of an answer to CONNECT.
fn refusal(denied: &Denied) -> Response<Body> {
    let words = denied.to_string();
    let mut response = Response::new(Body::from(format!("{words}\n")));
    *response.status_mut() = StatusCode::from_u16(denied.status()).unwrap_or(StatusCode::FORBIDDEN);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Ok(reason) = ReasonPhrase::try_from(words.into_bytes()) {
        response.extensions_mut().insert(reason);
    }
    response
}
