//! The root of a machine looks for a credential of its host: in all of its memory, on its disks, in every environment, and
//! in what the emulator hands to a firmware.

use std::process::{Command, Stdio};

use super::bench::{Hostile, end, order};

const PLANTED: &str = "SYMPHONY_TEST_PLANTED";

/// As the machine gets it: so that it does not find what it was told to look for.
fn masked(secret: &str) -> String {
    secret.bytes().map(|byte| format!("{:02x}", byte ^ 0x55)).collect()
}

#[tokio::test]
async fn a_credential_of_the_host_is_nowhere_in_a_machine() {
    if Hostile::new().is_none() {
        return;
    }
    let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a number");
    let secret = format!("sk-planted-{}", random.trim());
    // A host process with the credential in its environment, as symphony would have it.
    let mut host = Command::new("/proc/self/exe");
    host.args(["hostile::machine::search::a_host_with_a_credential_boots_a_machine_that_looks_for_it", "--exact"]);
    host.args(["--nocapture"]).env(PLANTED, &secret).env("ANTHROPIC_API_KEY", &secret).stdin(Stdio::null());
    let output = host.output().expect("a host runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The host of the test above.
#[tokio::test]
async fn a_host_with_a_credential_boots_a_machine_that_looks_for_it() {
    let Some(secret) = std::env::var(PLANTED).ok() else { return };
    let hostile = Hostile::new().expect("asked before");
    let spec = hostile.spec("orders");
    // In files, where symphony keeps its own.
    for place in [hostile.bench.place.path(), spec.disk.parent().expect("a directory")] {
        std::fs::create_dir_all(place).expect("directory");
        std::fs::write(place.join("operator-token"), &secret).expect("written");
    }
    let mut guest = hostile.boot(spec.clone()).await.expect("it woke");
    let look = format!("find {}", masked(&secret));
    let nothing = order(&mut guest.io, &look).await;
    println!("{nothing}");
    let (found, read) = figures(&nothing);
    assert_eq!(found, [0, 0, 0, 0], "{nothing}");
    assert!(read[0] >= 200 && read[1] >= 90 && read[2] >= 10 && read[3] >= 5, "it looked at everything: {nothing}");
    // The control: what is there is found.
    assert_eq!(order(&mut guest.io, &format!("plant {}", masked(&secret))).await, "true");
    let planted = order(&mut guest.io, &look).await;
    let (found, _) = figures(&planted);
    assert!(found[0] > 0 && found[1] > 0, "{planted}");
    end(guest.life, &spec).await;
}

/// How often it was found in memory, disks, files and firmware, and how much of each was read.
fn figures(report: &str) -> (Vec<u64>, Vec<u64>) {
    let numbers = |line: &str| -> Option<(u64, u64)> {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?.parse().ok()?, words.nth(1)?.parse().ok()?))
    };
    report.lines().filter_map(numbers).unzip()
}
