//! `listen`: a port on the guest's loopback whose connections become streams to the host. It lives as long as its request's
//! stream. Half-closes are passed on; a broken half breaks the other visibly (a reset, not an end).

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::mux::MuxStream;
use crate::serve::{Guest, refuse};
use crate::wire::{
    self, FrameKind, ListenRequest, Listening, MAX_LISTENERS, MAX_RELAYS_PER_LISTENER, RELAYS_RESERVED, Refusal,
    RefusalKind, RelayHeader,
};

/// Between two failed accepts (out of descriptors), so that failing does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves one listen request until its stream closes.
pub(crate) async fn listen(guest: &Arc<Guest>, mut stream: MuxStream, request: ListenRequest) {
    let Ok(_permit) = guest.listeners.try_acquire() else {
        let words = format!("at most {MAX_LISTENERS} ports are relayed at a time");
        return refuse(stream, Refusal::new(RefusalKind::TooLarge, words)).await;
    };
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, request.port)).await {
        Ok(listener) => listener,
        Err(e) => {
            let words = format!("cannot listen on 127.0.0.1:{} in the guest: {e}", request.port);
            return refuse(stream, Refusal::new(RefusalKind::Listen, words)).await;
        }
    };
    let port = listener.local_addr().map_or(request.port, |a| a.port());
    if wire::write_json(&mut stream, FrameKind::Reply, &Listening { port }).await.is_err() {
        return;
    }
    let relays = Arc::new(Semaphore::new(MAX_RELAYS_PER_LISTENER));
    let reserve = Arc::new(Semaphore::new(RELAYS_RESERVED));
    let accept = async {
        loop {
            let Ok(permit) = Arc::clone(&relays).acquire_owned().await else { return };
            let Ok((connection, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (guest, reserve) = (Arc::clone(guest), Arc::clone(&reserve));
            tokio::spawn(async move {
                // A connection that finds no room waits for it, as in the accept queue.
                let room = tokio::select! {
                    biased;
                    own = reserve.acquire() => own,
                    one_of_all = guest.relays.acquire() => one_of_all,
                };
                if let Ok(_room) = room {
                    relay(&guest, connection, port).await;
                }
                drop(permit);
            });
        }
    };
    tokio::select! {
        () = accept => {}
        // Nothing is expected here but the end.
        _ = wire::read_frame(&mut stream) => {}
    }
    let _ = stream.shutdown().await;
}

async fn relay(guest: &Guest, mut connection: TcpStream, port: u16) {
    // The end of an answer is a small write behind another: held back for an acknowledgement, it comes 40 ms late.
    let _ = connection.set_nodelay(true);
    let carried = async {
        let mut stream = guest.mux.open().await?;
        wire::write_header(&mut stream, &RelayHeader { listen: port }).await.map_err(std::io::Error::other)?;
        copy_bidirectional(&mut connection, &mut stream).await
    }
    .await;
    if carried.is_err() {
        // The program must see a broken connection, not a complete answer.
        let _ = rustix::net::sockopt::set_socket_linger(&connection, Some(Duration::ZERO));
    }
}
