//! The guest's end of the channel: takes each stream the host opens, reads its request, and hands it on. When the channel
//! closes, for whatever reason, everything that was spawned dies and the program exits (the dead-man rule).

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio::time::timeout;

use crate::child::Groups;
use crate::mux::{Mux, MuxStream, Side};
use crate::run::Dirs;
use crate::wire::{
    self, FrameKind, Hello, HelloInfo, MAX_HEADER, MAX_LISTENERS, MAX_MARKER, MAX_RELAYS, RELAYS_RESERVED, Refusal,
    RefusalKind, Request, VERSION,
};
use crate::{check, export, init, listen, seed, spawn, state};

/// For a request's header to arrive once its stream is open.
const HEADER_DEADLINE: Duration = Duration::from_secs(30);

/// What the operations share.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) dirs: Dirs,
    pub(crate) self_argv: Vec<OsString>,
    pub(crate) mux: Mux,
    pub(crate) groups: Groups,
    pub(crate) listeners: Semaphore,
    /// Connections of all listeners beyond what each has for itself.
    pub(crate) relays: Semaphore,
    /// Seed and export work on one tree: one at a time.
    pub(crate) tree: Mutex<()>,
    greeted: AtomicBool,
    shutdown: Notify,
}

impl Guest {
    /// The working directory of a request.
    pub(crate) fn cwd(&self, named: Option<&str>) -> PathBuf {
        named.map_or_else(|| self.dirs.work.clone(), |dir| self.dirs.work.join(dir))
    }
}

/// Serves the channel until it closes or a shutdown is asked for.
pub(crate) async fn serve<T>(channel: T, dirs: Dirs, self_argv: Vec<OsString>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mux, mut inbound) = Mux::start(channel, Side::Guest);
    let guest = Arc::new(Guest {
        dirs,
        self_argv,
        mux,
        groups: Groups::default(),
        listeners: Semaphore::new(MAX_LISTENERS),
        relays: Semaphore::new(MAX_RELAYS - MAX_LISTENERS * RELAYS_RESERVED),
        tree: Mutex::new(()),
        greeted: AtomicBool::new(false),
        shutdown: Notify::new(),
    });
    loop {
        tokio::select! {
            stream = inbound.recv() => match stream {
                Some(stream) => {
                    let guest = Arc::clone(&guest);
                    tokio::spawn(async move { answer(&guest, stream).await });
                }
                None => break,
            },
            () = guest.shutdown.notified() => break,
        }
    }
    guest.groups.kill_all();
    // Nothing is awaited from here on, so nothing new is spawned; the namespace's first process reaps.
    rustix::fs::sync();
}

async fn answer(guest: &Arc<Guest>, mut stream: MuxStream) {
    let request = match timeout(HEADER_DEADLINE, wire::read_header::<Request>(&mut stream, MAX_HEADER)).await {
        Ok(Ok(request)) => request,
        Ok(Err(e)) => return refuse(stream, Refusal::new(RefusalKind::BadRequest, e.to_string())).await,
        Err(_) => return,
    };
    if !guest.greeted.load(Ordering::Relaxed) && !matches!(request, Request::Hello(_)) {
        return refuse(stream, Refusal::new(RefusalKind::BadRequest, "the first request must be a hello")).await;
    }
    match request {
        Request::Hello(hello) => match greet(guest, hello) {
            Ok(info) => reply(stream, &info).await,
            Err(refusal) => refuse(stream, refusal).await,
        },
        Request::Ping => reply(stream, &()).await,
        Request::Marker { text } => {
            if text.len() > MAX_MARKER {
                let words = format!("a marker has at most {MAX_MARKER} bytes");
                return refuse(stream, Refusal::new(RefusalKind::TooLarge, words)).await;
            }
            match state::set_marker(&guest.dirs.state, &text) {
                Ok(()) => reply(stream, &()).await,
                Err(e) => refuse(stream, Refusal::new(RefusalKind::Io, format!("cannot store the marker: {e}"))).await,
            }
        }
        Request::Clear => {
            guest.groups.kill_all();
            init::kill_all_others().await;
            reply(stream, &()).await;
        }
        Request::Shutdown => {
            guest.groups.kill_all();
            rustix::fs::sync();
            reply(stream, &()).await;
            // The driver sends the reply before it sees this stream closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            guest.shutdown.notify_one();
        }
        Request::Spawn(request) => spawn::spawn(guest, stream, request).await,
        Request::Listen(request) => listen::listen(guest, stream, request).await,
        Request::Check(request) => check::check(guest, stream, request).await,
        Request::Seed(request) => seed::serve(guest, stream, request).await,
        Request::Export(request) => export::serve(guest, stream, request).await,
    }
}

fn greet(guest: &Guest, hello: Hello) -> Result<HelloInfo, Refusal> {
    if hello.version != VERSION {
        let words = format!("this guest program speaks version {VERSION}, not {}", hello.version);
        return Err(Refusal::new(RefusalKind::Version, words));
    }
    if guest.greeted.swap(true, Ordering::Relaxed) {
        return Err(Refusal::new(RefusalKind::BadRequest, "a hello was already answered on this channel"));
    }
    Ok(HelloInfo {
        version: VERSION,
        token: hello.token,
        program: env!("CARGO_PKG_VERSION").into(),
        tree: state::tree_ready(&guest.dirs.state),
        marker: state::marker(&guest.dirs.state),
    })
}

/// Answers and ends the stream.
pub(crate) async fn reply<T: serde::Serialize>(mut stream: impl AsyncWrite + Unpin, value: &T) {
    if wire::write_json(&mut stream, FrameKind::Reply, value).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// Refuses and ends the stream.
pub(crate) async fn refuse(mut stream: impl AsyncWrite + Unpin, refusal: Refusal) {
    if wire::write_json(&mut stream, FrameKind::Error, &refusal).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
