//! Connections made inside the guest, arriving as streams here. A stream that names no listener of ours is reset; one that
//! does not say what it is for within a few seconds, too.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use symphony_guest::mux::MuxStream;
use symphony_guest::wire::{self, ListenRequest, Listening, MAX_RELAYS_PER_LISTENER, RelayHeader, Request};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ANSWER_DEADLINE, Channel, ChannelError};

const HEADER_DEADLINE: Duration = Duration::from_secs(10);
const MAX_RELAY_HEADER: usize = 256;

/// Who waits for connections to which guest port.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<HashMap<u16, mpsc::Sender<MuxStream>>>);

impl Listeners {
    fn lock(&self) -> MutexGuard<'_, HashMap<u16, mpsc::Sender<MuxStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections to one guest port. Dropping it closes the port.
#[derive(Debug)]
pub struct Incoming {
    port: u16,
    connections: mpsc::Receiver<MuxStream>,
    request: MuxStream,
    listeners: Arc<Listeners>,
}

impl Incoming {
    /// The port inside the guest.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next connection; `None` when the listener or the channel is gone. Cancellation-safe.
    pub async fn accept(&mut self) -> Option<MuxStream> {
        let mut end = [0];
        tokio::select! {
            biased;
            connection = self.connections.recv() => connection,
            // The guest says nothing more on this stream, so this is its end.
            _ = self.request.read(&mut end) => None,
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.listeners.lock().remove(&self.port);
    }
}

pub(super) async fn listen(channel: &Channel, port: u16) -> Result<Incoming, ChannelError> {
    let (announce, connections) = mpsc::channel(MAX_RELAYS_PER_LISTENER);
    let (request, bound) = channel
        .within("listen", ANSWER_DEADLINE, async {
            let mut stream = channel.send(&Request::Listen(ListenRequest { port })).await?;
            let bound: Listening = channel.answer(&mut stream, "listen").await?;
            Ok((stream, bound.port))
        })
        .await?;
    if bound == 0 || (port != 0 && bound != port) {
        return Err(ChannelError::Protocol(format!("port {bound} was bound where {port} was asked for")));
    }
    if channel.listeners.lock().insert(bound, announce).is_some() {
        return Err(ChannelError::Protocol(format!("port {bound} was bound twice")));
    }
    Ok(Incoming { port: bound, connections, request, listeners: Arc::clone(&channel.listeners) })
}

/// Hands each stream the guest opens to its listener, until the channel ends. The multiplexer bounds their number.
pub(super) async fn accept_all(mut inbound: mpsc::Receiver<MuxStream>, listeners: Arc<Listeners>) {
    while let Some(mut stream) = inbound.recv().await {
        let listeners = Arc::clone(&listeners);
        tokio::spawn(async move {
            let header = wire::read_header::<RelayHeader>(&mut stream, MAX_RELAY_HEADER);
            let Ok(Ok(header)) = timeout(HEADER_DEADLINE, header).await else { return };
            let announce = listeners.lock().get(&header.listen).cloned();
            if let Some(announce) = announce {
                let _ = announce.try_send(stream);
            }
        });
    }
    listeners.lock().clear();
}
