//! `GET /api/v1/events`: says that there is a new snapshot, within 250 ms and never more often than that.
//!
//! An event names the snapshot; what it holds is read from the other routes. So a slow reader costs
//! nothing: it gets one event for however many snapshots it missed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures::Stream;
use futures::stream::unfold;
use symphony_core::snapshot::Snapshot;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;

/// The shortest time between two events of one stream.
const PACE: Duration = Duration::from_millis(200);
/// How often a silent stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Feed {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    /// The version the reader knows.
    known: Option<u64>,
    shutdown: CancellationToken,
    /// Whether an event was sent just now.
    pacing: bool,
}

/// The stream of one reader. Without `Last-Event-ID` the current version comes at once.
pub(super) async fn stream(
    State(app): State<Shared>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let known = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.trim().parse().ok());
    let feed = Feed { snapshots: app.handle.watch(), known, shutdown: app.shutdown.clone(), pacing: false };
    Sse::new(unfold(feed, next)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn next(mut feed: Feed) -> Option<(Result<Event, Infallible>, Feed)> {
    let shutdown = feed.shutdown.clone();
    tokio::select! {
        () = shutdown.cancelled() => None,
        version = feed.changed() => {
            let version = version?;
            let event = Event::default().id(version.to_string()).event("snapshot");
            Some((Ok(event.data(format!("{{\"version\":{version}}}"))), feed))
        }
    }
}

impl Feed {
    /// The next version the reader does not know; `None` when nobody publishes any more.
    async fn changed(&mut self) -> Option<u64> {
        if self.pacing {
            sleep(PACE).await;
        }
        loop {
            let version = self.snapshots.borrow_and_update().version;
            if self.known != Some(version) {
                self.known = Some(version);
                self.pacing = true;
                return Some(version);
            }
            self.snapshots.changed().await.ok()?;
        }
    }
}
