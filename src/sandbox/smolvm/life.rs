//! A running machine as its host holds it: it is stopped in every case, and deleted only when its work is no longer needed.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::cli::Cli;
use super::exec::Exec;
use super::machine::Name;
use super::place::Place;
use super::{STOPPING, failed, stage, sweep};
use crate::sandbox::{BootError, Ending};

/// How long the call may take to notice that its machine stopped.
const BURIAL: Duration = Duration::from_secs(10);

/// A machine that may be running. Dropped, it is stopped by a program that outlives us.
#[derive(Debug)]
pub(super) struct Running {
    cli: Cli,
    name: Name,
    place: Place,
    armed: bool,
}

impl Running {
    pub(super) fn new(cli: Cli, name: Name, place: Place) -> Self {
        Self { cli, name, place, armed: true }
    }

    /// Stops it, and makes sure that nothing of it runs on.
    pub(super) async fn stop(mut self) {
        self.stop_now().await;
    }

    async fn stop_now(&mut self) {
        // Once more, when the first try failed: smolvm may have been busy with the machine.
        for _ in 0..2 {
            match self.cli.stop(&self.name).await {
                Ok(()) => {
                    self.armed = false;
                    break;
                }
                Err(error) => {
                    tracing::warn!(machine = self.name.as_str(), error = %error.message, "a machine could not be stopped");
                }
            }
        }
        if let Some(dir) = self.cli.directory(&self.name).await {
            sweep::end_monitors(|monitor| monitor.starts_with(&dir)).await;
        }
        let _ = std::fs::remove_file(self.place.socket(&self.name));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.armed {
            self.cli.stop_detached(&self.name);
        }
    }
}

/// The hold on one machine and the guest program in it.
#[derive(Debug)]
pub(super) struct Life {
    // Dropped in this order: the call, then its machine.
    exec: Exec,
    running: Running,
}

impl Life {
    pub(super) fn new(exec: Exec, running: Running) -> Self {
        Self { exec, running }
    }

    async fn end(&mut self, grace: Duration) -> Ending {
        let ended = timeout(grace, self.exec.ended()).await;
        let killed = ended.is_err();
        self.running.stop_now().await;
        if killed && timeout(BURIAL, self.exec.ended()).await.is_err() {
            self.exec.kill();
            let _ = timeout(BURIAL, self.exec.ended()).await;
        }
        Ending { code: ended.ok().flatten(), killed, out_of_memory: false, stderr: self.exec.stderr() }
    }
}

impl crate::sandbox::Life for Life {
    fn wait(&mut self) -> BoxFuture<'_, Ending> {
        async {
            let code = self.exec.ended().await;
            Ending { code, killed: false, out_of_memory: false, stderr: self.exec.stderr() }
        }
        .boxed()
    }

    fn stop(&mut self, grace: Duration) -> BoxFuture<'_, Ending> {
        self.end(grace).boxed()
    }

    fn stderr(&self) -> String {
        self.exec.stderr()
    }
}

/// Stops a machine, then deletes it and what belongs to it on the host.
pub(super) async fn remove(cli: &Cli, place: &Place, instance: &str, name: &Name) -> Result<(), BootError> {
    let dir = match cli.machines().await {
        Ok(rows) if rows.iter().all(|row| row.name != name.as_str()) => None,
        // Whatever a note says: only what is labelled as ours is.
        Ok(rows) if rows.iter().any(|row| row.name == name.as_str() && !row.is_of(instance)) => {
            return Err(stage("removed its machine", &format!("{name} exists and is not ours")));
        }
        Ok(_) => {
            // Never the other way round: a deleted machine's monitor may live on, unseen.
            cli.stop(name).await.map_err(|error| failed("stopped its machine", error))?;
            let dir = cli.directory(name).await;
            match cli.call(["machine", "delete", "--name", name.as_str(), "-f"], STOPPING).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other.map_err(|error| failed("deleted its machine", error))?),
            }
            dir
        }
        Err(error) => return Err(failed("listed its machines", error)),
    };
    if let Some(dir) = dir {
        sweep::end_monitors(|monitor| monitor.starts_with(&dir)).await;
    }
    let _ = std::fs::remove_file(place.socket(name));
    Ok(())
}
