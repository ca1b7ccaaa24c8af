//! Renews a login that has ended, where a workflow says `refresh: true`: one exchange for all requests that wait for it, none
//! for a refresh token that was refused, and nothing is asked unless the answer can be kept.
//!
//! A renewal makes the old refresh token worthless: from the answer to the rename the new one is in this process alone. An
//! exchange is a task of its own, so no agent that hangs up ends it, and the program's end waits for it.

mod lock;
mod place;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Request, header};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use symphony_core::broker::login::{self, Login, Merged, NoRenewal};
use tokio::time::Instant;

use self::lock::{Held, NotHeld};
use self::place::{Draft, Place};
use super::credential::{Fingerprint, read, read_now};
use super::upstream::Upstream;
use crate::agent::redact::Learned;

/// Longest exchange. With what is done on the disk around it, it is over before anybody takes our lock for abandoned.
const EXCHANGE: Duration = Duration::from_secs(30);
/// How long another one that renews the same login is waited for, and how often it is looked at.
const PATIENCE: Duration = Duration::from_secs(40);
const STEP: Duration = Duration::from_millis(100);
/// After a refusal, how long what another one may just have written is looked for: Codex keeps no lock while it asks.
const GRACE: Duration = Duration::from_secs(3);
/// Longest answer.
const ANSWER_MAX: usize = 64 * 1024;
/// Refresh tokens that are remembered as refused.
const REMEMBERED: usize = 64;
/// Tries to put an answer on the disk.
const TRIES: u32 = 3;
/// For tests, in a build with debug assertions only: a server on this machine that stands for those that renew.
#[cfg(debug_assertions)]
const TEST_URL: &str = "SYMPHONY_TEST_TOKEN_URL";

/// Why a login is not renewed. Its words are for a person, and hold nothing of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRenewed {
    /// The server will not.
    #[error("the server that renews it refuses{}: it was revoked, or renewed elsewhere", in_brackets(*.0))]
    Refused(Option<&'static str>),
    /// Nothing to renew it with.
    #[error("it cannot be renewed: it has no refresh token")]
    NoToken,
    /// It could not be kept.
    #[error("it cannot be renewed: {0}")]
    NoPlace(String),
    /// No answer, or one that says later.
    #[error("the server that renews it {0}; symphony asks again by itself")]
    Later(String),
    /// Another program has its lock for too long.
    #[error("another program has been renewing it for too long; symphony looks again by itself")]
    Busy,
    /// It was renewed, and is lost.
    #[error("it was renewed, and the new one could not be kept ({0})")]
    Lost(String),
    /// The program ends.
    #[error("symphony is about to end")]
    Ending,
}

fn in_brackets(word: Option<&str>) -> String {
    word.map(|word| format!(" ({word})")).unwrap_or_default()
}

/// All renewals of this process.
pub(super) struct Renewals {
    upstream: Arc<Upstream>,
    /// Where a test has its own server.
    elsewhere: Option<String>,
    claude: One,
    codex: One,
    learned: Learned,
    ending: AtomicBool,
}

/// Those of one login.
#[derive(Default)]
struct One {
    /// Whoever has it is the only one that asks.
    turn: tokio::sync::Mutex<()>,
    past: Mutex<Past>,
}

/// What came of earlier tries.
#[derive(Default)]
struct Past {
    /// Never again with these.
    refused: HashMap<Fingerprint, NotRenewed>,
    /// Not before then, and how often in a row.
    later: Option<(Instant, u32, NotRenewed)>,
}

impl One {
    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Renewals {
    /// Tokens that are seen here go to `learned`, for whoever writes anything down.
    pub(super) fn new(upstream: Arc<Upstream>, variable: &crate::workflow_file::Variable, learned: Learned) -> Self {
        let (claude, codex) = (One::default(), One::default());
        Self { upstream, elsewhere: elsewhere(variable), claude, codex, learned, ending: AtomicBool::new(false) }
    }

    fn one(&self, login: Login) -> &One {
        match login {
            Login::Claude => &self.claude,
            Login::Codex => &self.codex,
        }
    }

    /// Whether a renewal of this login could be asked for now. Asks nobody, and changes nothing.
    pub(super) async fn glance(&self, login: Login, path: &Path) -> Result<(), NotRenewed> {
        let (file, path) = (load(path).await?, path.to_owned());
        self.barred(login, &file)?;
        blocking(move || Place::of(&path).map(drop)).await
    }

    /// Sees to it that the login is not about to end. `Err` says why it may be over, and after how long it is worth another
    /// look, if it is.
    pub(super) async fn renew(
        self: &Arc<Self>,
        login: Login,
        path: PathBuf,
    ) -> Result<(), (NotRenewed, Option<Duration>)> {
        match load(&path).await {
            Ok(file) if !login.is_due(&file, Timestamp::now()) => return Ok(()),
            Ok(file) => self.barred(login, &file).map_err(|why| (why, None))?,
            Err(why) => return Err((why, None)),
        }
        let this = self.clone();
        // Whoever waits for it may go away; it goes on to its end.
        let renewing = tokio::spawn(async move {
            let _turn = this.one(login).turn.lock().await;
            // Whoever had it before may have renewed it, or learned that nobody can.
            match load(&path).await {
                Ok(file) if !login.is_due(&file, Timestamp::now()) => return Ok(()),
                Ok(file) => this.barred(login, &file).map_err(|why| (why, None))?,
                Err(why) => return Err((why, None)),
            }
            let (asked, ended) = this.once(login, &path).await;
            this.remember(login, asked, ended)
        });
        renewing.await.unwrap_or_else(|_| Err((NotRenewed::NoPlace("renewing it crashed".to_owned()), None)))
    }

    /// No further renewal begins; one that is under way is waited for.
    pub(super) async fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        for one in [&self.claude, &self.codex] {
            if tokio::time::timeout(EXCHANGE, one.turn.lock()).await.is_err() {
                tracing::warn!("a login is still being renewed; it may be lost");
            }
        }
    }

    /// Why nothing is asked with the refresh token of this file.
    fn barred(&self, login: Login, file: &Value) -> Result<(), NotRenewed> {
        let token = login.refresh_token(file).ok_or(NotRenewed::NoToken)?;
        let past = self.one(login).past();
        if let Some(why) = past.refused.get(&fingerprint(token)) {
            return Err(why.clone());
        }
        match &past.later {
            Some((until, _, why)) if *until > Instant::now() => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// What came of it counts for later ones.
    fn remember(
        &self,
        login: Login,
        asked: Option<Fingerprint>,
        ended: Result<(), Failed>,
    ) -> Result<(), (NotRenewed, Option<Duration>)> {
        let mut past = self.one(login).past();
        let (why, after) = match ended {
            Ok(()) => {
                past.later = None;
                return Ok(());
            }
            Err(Failed { why, known: true, .. }) => return Err((why, None)),
            Err(Failed { why, after, .. }) => (why, after),
        };
        match (&why, asked) {
            (NotRenewed::Refused(_) | NotRenewed::Lost(_), Some(asked)) => {
                if past.refused.len() >= REMEMBERED {
                    past.refused.clear();
                }
                past.refused.insert(asked, why.clone());
                tracing::warn!(login = ?login, %why, "a login was not renewed");
                Err((why, None))
            }
            (NotRenewed::Ending, _) => Err((why, None)),
            _ => {
                let in_a_row = past.later.as_ref().map_or(1, |(_, in_a_row, _)| in_a_row.saturating_add(1));
                let wait = login::pause(in_a_row, after);
                past.later = Some((Instant::now() + wait, in_a_row, why.clone()));
                tracing::warn!(login = ?login, %why, seconds = wait.as_secs(), "a login was not renewed");
                Err((why, Some(wait)))
            }
        }
    }

    /// One try, alone; also with which refresh token something was asked.
    async fn once(&self, login: Login, path: &Path) -> (Option<Fingerprint>, Result<(), Failed>) {
        let mut asked = None;
        let ended = self.under_lock(login, path, &mut asked).await;
        let Err(Failed { why: NotRenewed::Refused(_), known: false, .. }) = &ended else { return (asked, ended) };
        // The locks are free again: whoever else renewed it can write.
        let since = Instant::now();
        while since.elapsed() < GRACE {
            if let Ok(file) = load(path).await
                && login.refresh_token(&file).map(fingerprint) != asked
                && !login.is_over(&file, Timestamp::now())
            {
                return (asked, Ok(()));
            }
            tokio::time::sleep(STEP).await;
        }
        (asked, ended)
    }

    async fn under_lock(&self, login: Login, path: &Path, asked: &mut Option<Fingerprint>) -> Result<(), Failed> {
        let named = path.to_owned();
        let place = Arc::new(blocking(move || Place::of(&named)).await?);
        let held = self.locked(login, path, &place).await?;
        let ended = self.exchange(login, path, place, asked).await;
        // Removing what is a lock may take a moment.
        let _ = tokio::task::spawn_blocking(move || drop(held)).await;
        ended
    }

    async fn locked(&self, login: Login, path: &Path, place: &Arc<Place>) -> Result<Held, Failed> {
        let since = Instant::now();
        loop {
            if self.ending.load(Ordering::SeqCst) {
                return Err(NotRenewed::Ending.into());
            }
            let (named, at) = (path.to_owned(), place.clone());
            let taken = tokio::task::spawn_blocking(move || lock::take(login, &named, at.dir())).await;
            match taken {
                Ok(Ok(held)) => return Ok(held),
                Ok(Err(NotHeld::Busy)) if since.elapsed() < PATIENCE => tokio::time::sleep(STEP).await,
                Ok(Err(NotHeld::Busy)) => return Err(NotRenewed::Busy.into()),
                Ok(Err(NotHeld::Broken(why))) => return Err(NotRenewed::NoPlace(why).into()),
                Err(_) => return Err(NotRenewed::NoPlace("locking it crashed".to_owned()).into()),
            }
        }
    }

    /// Under all locks: what stands there now is looked at, and what comes back is put in its place.
    async fn exchange(
        &self,
        login: Login,
        path: &Path,
        place: Arc<Place>,
        asked: &mut Option<Fingerprint>,
    ) -> Result<(), Failed> {
        let file = load(path).await?;
        if !login.is_due(&file, Timestamp::now()) {
            return Ok(());
        }
        self.barred(login, &file).map_err(|why| Failed { known: true, ..Failed::from(why) })?;
        let (Some(token), Some(body)) = (login.refresh_token(&file).map(str::to_owned), login.request(&file)) else {
            return Err(NotRenewed::NoToken.into());
        };
        *asked = Some(fingerprint(&token));
        self.learned.add(login.secrets(&file));
        let at = place.clone();
        let draft = blocking(move || at.draft()).await?;
        let answer = self.ask(login, &body).await?;
        self.learned.add(Login::tokens(&answer));
        let path = path.to_owned();
        let kept = tokio::task::spawn_blocking(move || {
            let now = Timestamp::now();
            // What its owner changed meanwhile stays; half a file is no reason to lose the answer.
            let current = match read_now(&path) {
                Ok(None) => return Err("its file was removed meanwhile".to_owned()),
                Ok(Some(text)) => serde_json::from_slice(&text).unwrap_or(file),
                Err(_) => file,
            };
            match login.merged(current, &token, &answer, now) {
                Merged::Theirs => Ok(false),
                Merged::Renewed(file) => {
                    put(&place, draft, &login.text(&file)).map(|()| login.is_due(&file, Timestamp::now()))
                }
            }
        });
        let kept = kept.await.unwrap_or_else(|_| Err("writing it crashed".to_owned()));
        let is_due_again = kept.map_err(NotRenewed::Lost)?;
        tracing::info!(login = ?login, "a login was renewed on the host");
        match is_due_again {
            // Or every request would renew it.
            true => Err(NotRenewed::Later("renewed it for a moment only".to_owned()).into()),
            false => Ok(()),
        }
    }

    async fn ask(&self, login: Login, body: &Value) -> Result<Value, Failed> {
        let url = self.elsewhere.as_deref().unwrap_or(login.token_url());
        let mut request = Request::new(Body::from(body.to_string()));
        *request.method_mut() = Method::POST;
        let later = |why: String| Failed::from(NotRenewed::Later(why));
        *request.uri_mut() = url.parse().map_err(|_| later("has no address".to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("symphony/", env!("CARGO_PKG_VERSION"))));
        let exchange = async {
            let sent = self.upstream.send(request).await;
            let answer = sent.map_err(|unsent| later(format!("cannot be reached ({})", unsent.why)))?;
            let (head, body) = answer.into_parts();
            let body = to_bytes(Body::new(body), ANSWER_MAX).await;
            let body = body.map_err(|_| later("broke off its answer".to_owned()))?;
            let after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let status = head.status.as_u16();
            login::renewal(status, after, &body).map_err(|none| match none {
                NoRenewal::Refused(word) => NotRenewed::Refused(word).into(),
                NoRenewal::Later(after) => Failed { after, ..later(format!("answered {status}")) },
            })
        };
        tokio::time::timeout(EXCHANGE, exchange)
            .await
            .unwrap_or_else(|_| Err(later(format!("gave no answer within {} s", EXCHANGE.as_secs()))))
    }
}

/// Why a try came to nothing, and what the server asked to wait.
struct Failed {
    why: NotRenewed,
    after: Option<Duration>,
    /// It was known before, and nothing was tried.
    known: bool,
}

impl From<NotRenewed> for Failed {
    fn from(why: NotRenewed) -> Self {
        Self { why, after: None, known: false }
    }
}

/// The answer exists nowhere else: what fails for a moment is tried again.
fn put(place: &Place, draft: Draft, text: &str) -> Result<(), String> {
    let mut ended = draft.put(text).map_err(|error| error.to_string());
    for _ in 1..TRIES {
        if ended.is_ok() {
            break;
        }
        std::thread::sleep(STEP);
        ended = place.draft().and_then(|draft| draft.put(text).map_err(|error| error.to_string()));
    }
    ended
}

/// The file as it stands.
async fn load(path: &Path) -> Result<Value, NotRenewed> {
    let text = read(path).await.map_err(NotRenewed::NoPlace)?;
    let text = text.ok_or_else(|| NotRenewed::NoPlace("there is no file".to_owned()))?;
    // Its parser's words would quote it.
    serde_json::from_slice(&text).map_err(|_| NotRenewed::NoPlace("the file is not JSON".to_owned()))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, NotRenewed> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("looking at it crashed".to_owned())).map_err(NotRenewed::NoPlace)
}

/// Tells refresh tokens apart, in memory only.
fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token.as_bytes()).into()
}

/// A release build has no trace of it, and no address beyond this machine is taken: whatever stands in an environment, a
/// refresh token goes to its own server only.
#[cfg(debug_assertions)]
fn elsewhere(variable: &crate::workflow_file::Variable) -> Option<String> {
    let is_here = |url: &axum::http::Uri| url.scheme_str() == Some("http") && url.host() == Some("127.0.0.1");
    variable(TEST_URL).filter(|url| url.parse().is_ok_and(|url| is_here(&url)))
}

#[cfg(not(debug_assertions))]
fn elsewhere(_variable: &crate::workflow_file::Variable) -> Option<String> {
    None
}
