//! An emulator that its guest has taken over: a shell in its place, with everything it is given.

use std::net::TcpListener;

use symphony::sandbox::{BootSpec, Sandbox};
use tokio::io::AsyncReadExt;

use super::bench::figure;
use crate::jail::bench::{is_root, outside};
use crate::machine::bench::{Awake, Bench, SOON, have_machines};

/// What a shell in the place of the emulator says.
async fn said(qemu: &symphony::sandbox::qemu::Qemu, spec: BootSpec, script: &str) -> String {
    let program = ["/bin/bash", "-c", &format!("exec >&3 2>&1\n{script}")].map(str::to_owned).to_vec();
    let mut guest = qemu.stand_in(spec, program).await.expect("a shell starts there");
    let mut said = String::new();
    tokio::time::timeout(SOON, guest.io.read_to_string(&mut said)).await.expect("in time").expect("readable");
    said
}

#[tokio::test]
async fn from_the_emulator_s_place_templates_images_disks_files_and_ports_of_the_host_are_out_of_reach() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let qemu = bench.templated();
    // Another issue's disk, a secret of the host, and a port of it.
    let other = bench.spec("other");
    let guest = Awake::boot(&qemu, other.clone()).await;
    guest.sh("echo kept > /work/file && sync").await;
    let secret = bench.place.path().join("operator-token");
    std::fs::write(&secret, "the-operators-token\n").expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let reach = format!("(exec 9<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo port reached");
    let look = format!(
        "cat {0} 2>/dev/null; ls {1} 2>/dev/null; {reach}; ls -d /proc/[0-9]* | wc -l",
        secret.display(),
        other.disk.display()
    );
    let script = format!(
        "echo ram $(head -c 64m /proc/self/fd/5 | tr -d '\\0' | head -c 9 | wc -c)
        printf x 1<>/proc/self/fd/5 && echo ram written
        truncate -s 0 /proc/self/fd/5 && echo ram cut
        perl -e 'open(my $r, \"+<&=\", 5) or exit; sysseek($r, 0, 0); syswrite($r, \"x\") and print \"ram written\\n\"'
        echo image $(head -c 1024 /run/symphony/vm/root.erofs | wc -c)
        printf x 1<>/run/symphony/vm/root.erofs && echo image written
        touch /run/symphony/vm/more && echo image grown
        printf x 1<>/state/work.img && echo own disk written
        [ -e /dev/kvm ] && echo kvm
        grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status
        for f in /usr/bin/su /usr/bin/mount /usr/bin/newgrp; do [ -u $f ] && echo setuid there; done
        su -c 'id -u' </dev/null 2>/dev/null
        id -u
        {look}"
    );
    let mut spec = bench.spec("taken-over");
    spec.memory_mib = other.memory_mib;
    let text = said(&qemu, spec, &script).await;
    println!("{text}");
    let has = |line: &str| text.lines().any(|said| said == line);
    // The controls: it has the template's memory and the image to read, and its own disk to write.
    assert!(has("ram 9") && has("image 1024") && has("own disk written"), "{text}");
    assert!(has("NoNewPrivs:\t1") && has("Seccomp:\t2") && has("CapEff:\t0000000000000000"), "{text}");
    for gained in ["ram written", "ram cut", "image written", "image grown", "kvm", "port reached", "0"] {
        assert!(!has(gained), "{gained}: {text}");
    }
    assert!(!text.contains("operators-token") && !text.lines().any(|line| line == "granted-mib"), "{text}");
    let processes: u32 = text.lines().last().and_then(|line| line.parse().ok()).expect("a number");
    assert!(processes < 8, "the jail's own: {text}");
    // The control: outside, whoever started it sees and reaches all of that.
    let outside = outside(&format!("bash -c '{look}'"));
    assert!(outside.contains("operators-token") && outside.contains("port reached"), "{outside}");
    assert!(outside.lines().any(|line| line == "granted-mib") || !is_root(), "{outside}");
    // The template and the other's disk are as good as before.
    assert_eq!(guest.sh("cat /work/file").await, "kept");
    guest.end().await;
    Awake::boot(&qemu, bench.spec("after")).await.end().await;
}

/// What the kernel says of an emulator that runs a machine, beside what it says of a plain child of ours.
#[tokio::test]
async fn a_running_emulator_has_no_right_its_jail_s_filters_and_its_own() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let mut spec = bench.spec("plain");
    // No other test has it, nor this one in another process.
    spec.run.0 = u64::from(std::process::id()) * 1000 + 499;
    let guest = Awake::boot(&bench.cold(), spec.clone()).await;
    let says = ["NoNewPrivs", "Seccomp", "CapEff", "CapBnd"].map(|field| figure(&spec, field));
    assert_eq!(says, [1, 2, 0, 0]);
    assert!(figure(&spec, "Uid") > 0);
    // Two of the jail, and one that the emulator puts on itself: it starts nothing, and becomes nobody else. The control
    // is a plain child, which has what we have.
    let ours = outside("sed -n 's/^Seccomp_filters:[[:space:]]*//p' /proc/self/status");
    let ours: u64 = ours.parse().expect("a number");
    assert!(figure(&spec, "Seccomp_filters") >= ours + 3);
    guest.end().await;
}

/// Regression: a machine that could not wake cost every other one its template.
#[tokio::test]
async fn what_a_guest_did_to_its_own_disk_is_an_error_of_its_own_and_costs_no_other_its_template() {
    if !have_machines() {
        return;
    }
    let bench = Bench::new();
    let qemu = bench.templated();
    let spec = bench.spec("ruined");
    Awake::boot(&qemu, spec.clone()).await.end().await;
    let templates = bench.place.path().join("templates");
    let kept = || std::fs::read_dir(&templates).expect("made").flatten().map(|entry| entry.file_name()).next();
    let template = kept().expect("the control: it was restored from one");
    for (trap, hint) in [
        ("ln -s /state/elsewhere /state/work.img", "made the machine's disk"),
        ("mkfifo /state/work.img", "made the machine's disk"),
        ("mkdir /state/work.img", "made the machine's disk"),
        ("head -c 1m /dev/urandom > /state/work.img", "holds something that is no file system"),
    ] {
        said(&qemu, spec.clone(), &format!("rm -rf /state/work.img; {trap}")).await;
        let error = qemu.boot(spec.clone()).await.expect_err(trap).to_string();
        assert!(error.contains(hint), "{trap}: {error}");
        assert_eq!(kept().as_ref(), Some(&template), "{trap}");
        qemu.discard_disk(&spec.disk).await.expect("removed, whatever it is");
    }
    // The control: with a new disk the same run boots.
    Awake::boot(&qemu, spec).await.end().await;
    assert_eq!(kept(), Some(template));
}
