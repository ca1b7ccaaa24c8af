//! What earlier lives of symphony left running: machines that no run holds, and monitors (`_boot-vm`) that smolvm itself
//! forgot. Only what carries our labels, or runs in our own data directory, is touched; each process is looked at again
//! before each signal.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::cli::Cli;
use super::machine::{Name, Row};
use super::place::Place;
use super::{failed, life, machine};
use crate::sandbox::BootError;

/// What a monitor gets to end by itself.
const TERM_GRACE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Machines that ran for nobody, and are stopped now.
    pub stopped: Vec<String>,
    /// Machines of trials, deleted.
    pub deleted: Vec<String>,
    /// Monitors without a machine, ended.
    pub monitors: usize,
}

pub(super) async fn sweep(cli: &Cli, place: &Place, instance: &str, live: &[Name]) -> Result<Swept, BootError> {
    let rows = cli.machines().await.map_err(|error| failed("listed its machines", error))?;
    let mut swept = Swept::default();
    // Directories whose monitors are somebody's: of runs that live, and of machines that are not ours.
    let mut kept: Vec<PathBuf> = Vec::new();
    for row in &rows {
        let name = Name::read(&row.name);
        match name {
            Some(name) if row.is_of(instance) && !live.contains(&name) => {
                tidy(cli, place, instance, row, &name, &mut swept).await?
            }
            Some(name) => kept.extend(cli.directory(&name).await),
            // A name we do not make: its directory cannot be asked for safely, so no monitor is ended at all.
            None => return Ok(swept),
        }
    }
    // Their machines are gone.
    for disk in place.trial_disks() {
        if let Err(error) = machine::forget(&disk) {
            tracing::debug!(%error, "what a trial left stays");
        }
    }
    let data = place.data();
    let ours = |dir: &Path| dir.starts_with(&data) && !kept.iter().any(|kept| dir.starts_with(kept));
    swept.monitors = end_monitors(ours).await;
    Ok(swept)
}

async fn tidy(
    cli: &Cli,
    place: &Place,
    instance: &str,
    row: &Row,
    name: &Name,
    swept: &mut Swept,
) -> Result<(), BootError> {
    if row.is_trial() {
        life::remove(cli, place, instance, name).await?;
        swept.deleted.push(row.name.clone());
        return Ok(());
    }
    if row.state != "stopped" {
        // Also one that was never started, as far as smolvm knows: an interrupted start leaves it running.
        cli.stop(name).await.map_err(|error| failed("stopped a machine", error))?;
        if row.state != "created" {
            swept.stopped.push(row.name.clone());
        }
    }
    Ok(())
}

/// A monitor, by what cannot be another process's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Monitor {
    pid: i32,
    started: u64,
    dir: PathBuf,
}

impl Monitor {
    /// The process, if it is a monitor of a machine and may be ours to signal.
    fn at(pid: i32) -> Option<Self> {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        words.find(|word| *word == b"_boot-vm")?;
        let config = PathBuf::from(String::from_utf8_lossy(words.next()?).into_owned());
        let dir = config.parent().filter(|dir| dir.is_absolute())?.to_owned();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the name, which may hold anything: state is the third field, the start time the 22nd.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            return None;
        }
        Some(Self { pid, started: fields.get(19)?.parse().ok()?, dir })
    }

    fn lives(&self) -> bool {
        Self::at(self.pid).as_ref() == Some(self)
    }

    fn signal(&self, signal: Signal) {
        if self.lives()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Ends every monitor whose machine's directory is `wanted`; returns how many there were.
pub(super) async fn end_monitors(wanted: impl Fn(&Path) -> bool) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let found: Vec<Monitor> = pids.filter_map(Monitor::at).filter(|monitor| wanted(&monitor.dir)).collect();
    for monitor in &found {
        tracing::info!(pid = monitor.pid, dir = %monitor.dir.display(), "ending a machine that smolvm forgot");
        monitor.signal(Signal::TERM);
    }
    let patience = tokio::time::Instant::now() + TERM_GRACE;
    while found.iter().any(Monitor::lives) && tokio::time::Instant::now() < patience {
        tokio::time::sleep(PAUSE).await;
    }
    for monitor in &found {
        monitor.signal(Signal::KILL);
    }
    found.len()
}
