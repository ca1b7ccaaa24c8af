//! A host is killed with sandboxes in its hands: they end, the next start removes what it could not, and what is
//! somebody else's stays, however similar its name.

use std::fs;
use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use symphony::sandbox::Sandbox;

use super::ledger::{Marks, buried, cgroups, processes};
use super::{Soak, alone, spec};
use crate::machine::bench::{Awake, have_machines};
use crate::skip::{skip, skip_part};

const HOST: &str = "SYMPHONY_SOAK_HOST";
const EACH: u64 = 3;

#[test]
fn a_killed_host_leaves_nothing_and_others_are_untouched() {
    if !have_machines() {
        return;
    }
    alone("soak::host::a_killed_host_leaves_nothing_and_others_are_untouched", || async {
        let soak = Soak::new();
        if let Err(error) = soak.jail().trial(None).await {
            skip(error);
            return;
        }
        let mut host = Command::new("/proc/self/exe");
        host.args(["soak::host::a_host_boots_machines_and_jails_and_waits_to_be_killed", "--exact", "--nocapture"]);
        let mut host = host.env(HOST, soak.place.path()).stdout(Stdio::piped()).spawn().expect("a host starts");
        let marks = Marks::within(soak.place.path(), host.id());
        let said = host.stdout.take().expect("piped");
        let said = tokio::task::spawn_blocking(move || {
            std::io::BufReader::new(said).lines().map_while(Result::ok).find(|line| line.contains("all are awake"))
        });
        assert!(said.await.expect("read").is_some(), "the host holds its sandboxes");
        let running = processes(&marks);
        println!("{} processes, {} control groups before", running.len(), cgroups(host.id()).len());
        // Its launcher and its first process each, and an emulator or a guest program.
        assert!(running.len() as u64 >= 2 * EACH * 3, "the control: they run: {running:#?}");
        let others = Others::beside(&marks, &cgroups(host.id()));
        host.kill().expect("killed");
        host.wait().expect("reaped");
        let left = buried(&marks).await;
        println!("{} processes, {} control groups after", left.len(), cgroups(host.id()).len());
        assert!(left.is_empty(), "{left:#?}");
        // The next start.
        Awake::boot(&soak.jail(), spec(&soak.marks, 1, "next")).await.end().await;
        assert_eq!(cgroups(host.id()), Vec::<PathBuf>::new());
        others.check();
        // The work of the killed host is kept until somebody says otherwise, then it is gone.
        let machines = soak.machines(false);
        for number in 0..EACH {
            for disk in [format!("jail-{number}"), format!("machine-{number}")] {
                let disk = spec(&marks, 0, &disk).disk;
                assert!(disk.exists(), "{}", disk.display());
                machines.discard_disk(&disk).await.expect("removed");
            }
        }
        soak.jail().discard_disk(&spec(&soak.marks, 1, "next").disk).await.expect("removed");
        assert_eq!(fs::read_dir(soak.place.path().join("disks")).expect("made").count(), 0);
        assert_eq!(fs::read_dir(soak.place.path().join("tmp")).expect("made").count(), 0);
        others.end();
    });
}

/// The host of the test above, which kills it.
#[tokio::test]
async fn a_host_boots_machines_and_jails_and_waits_to_be_killed() {
    let Some(place) = std::env::var_os(HOST).map(PathBuf::from) else { return };
    let marks = Marks::within(&place, std::process::id());
    let jail = symphony::sandbox::jail::Jail::new(marks.exe.clone());
    let machines = symphony::sandbox::qemu::Qemu::new(
        marks.exe.clone(),
        false,
        Some(symphony::sandbox::qemu::Templates::new(place.join("templates"))),
    );
    let mut held = Vec::new();
    for number in 0..EACH {
        held.push(Awake::boot(&jail, spec(&marks, number, &format!("jail-{number}"))).await);
        held.push(Awake::boot(&machines, spec(&marks, EACH + number, &format!("machine-{number}"))).await);
    }
    // On a line of its own: the test program writes the test's name without an end.
    println!("\nall are awake");
    std::future::pending::<()>().await;
}

/// What looks like ours and is not.
struct Others {
    process: Child,
    groups: Vec<PathBuf>,
}

impl Others {
    /// A process with the name of an emulator; a control group that a living process made, and one with another
    /// mark whose maker is dead. `beside` are groups of ours, where there are any.
    fn beside(marks: &Marks, beside: &[PathBuf]) -> Self {
        // Not one that the host has, but in the same words.
        let name = format!("symphony-run-9{}", marks.maker);
        let mut process = Command::new("/bin/sh");
        process.args(["-c", "read line", "-name", &name]).stdin(Stdio::piped());
        let process = process.spawn().expect("a shell starts");
        let places: Vec<_> = beside.iter().filter_map(|group| group.parent()).collect();
        let mut groups = Vec::new();
        for place in places {
            for name in [format!("symphony-{}-1-0", process.id()), format!("symphonia-{}-1-0", marks.maker)] {
                let group = place.join(name);
                if !groups.contains(&group) {
                    fs::create_dir(&group).expect("where ours was made, another is");
                    groups.push(group);
                }
            }
        }
        if groups.is_empty() {
            skip_part("no control groups can be made here, so none of others is looked for");
        }
        Self { process, groups }
    }

    fn check(&self) {
        let process = PathBuf::from(format!("/proc/{}/cmdline", self.process.id()));
        assert!(!fs::read(process).expect("it runs").is_empty(), "the other's process is dead");
        for group in &self.groups {
            assert!(group.exists(), "{} was removed", group.display());
        }
        println!("others: 1 process and {} control groups are untouched", self.groups.len());
    }

    fn end(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("reaped");
        for group in &self.groups {
            fs::remove_dir(group).expect("removed");
        }
    }
}
