//! What is said on the channel before the guest program has it: the host's end. The machine may be hostile from its
//! first byte on, so one short line is all it gets to say.

use std::time::{SystemTime, UNIX_EPOCH};

use symphony_guest::wire::{MachineOrder, MachineReady, VERSION, Wake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::sandbox::BootSpec;

/// Bytes of the line a machine may say.
const LONGEST: usize = 4096;

/// Waits until the machine says that it can be woken, or that it is awake.
pub(super) async fn ready(io: &mut UnixStream) -> Result<(), String> {
    let mut line = Vec::new();
    loop {
        let byte = io.read_u8().await.map_err(|_| "it ended before it was ready".to_owned())?;
        match byte {
            b'\n' => break,
            _ if line.len() >= LONGEST => return Err("it said something else than that it is ready".to_owned()),
            byte => line.push(byte),
        }
    }
    let ready: MachineReady =
        serde_json::from_slice(&line).map_err(|_| "it said something else than that it is ready".to_owned())?;
    match (ready.version, ready.failed) {
        (VERSION, None) => Ok(()),
        (VERSION, Some(why)) => Err(format!("it said: {}", why.escape_debug())),
        (theirs, _) => {
            Err(format!("its image speaks version {theirs}, this symphony {VERSION}; build the image again"))
        }
    }
}

/// Gives an order.
pub(super) async fn order(io: &mut UnixStream, order: &MachineOrder) -> Result<(), String> {
    let mut line = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    line.push(b'\n');
    io.write_all(&line).await.map_err(|error| format!("it does not listen: {error}"))
}

/// What a machine is woken with: the time and randomness of now.
pub(super) fn wake(spec: &BootSpec) -> Result<MachineOrder, String> {
    let entropy = crate::random::token(48).map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_nanos = u64::try_from(now.as_nanos()).unwrap_or(0);
    Ok(MachineOrder::Wake(Wake {
        entropy,
        unix_nanos,
        disk_mib: spec.disk_mib,
        pids: spec.pids,
        file_size_mib: spec.file_size_mib,
    }))
}
