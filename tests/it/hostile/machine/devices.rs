//! Devices without a driver: requests and queues that no kernel makes, at random registers and ports.

use super::bench::{Hostile, end, name, order, untouched};
use crate::jail::bench::gone;

/// What a machine without drivers, which is never ready, left on its console. Whatever it did, its boot has ended, its
/// emulator is gone, and its image is as it was.
async fn left(hostile: &Hostile, attack: &str) -> String {
    let spec = hostile.spec(attack);
    let started = std::time::Instant::now();
    let error = hostile.boot(spec.clone()).await.expect_err("it is no machine").to_string();
    println!("{attack}, {:?}: {error}", started.elapsed());
    assert!(gone(&name(&spec)).await, "{attack}");
    assert!(untouched(&spec), "{attack}");
    error
}

#[tokio::test]
async fn a_request_that_no_driver_makes_writes_to_no_image() {
    let Some(hostile) = Hostile::new() else { return };
    let said = left(&hostile, "requests").await;
    // The status of a virtio disk: 0 is done, 1 is refused.
    assert!(said.contains("image answers status 1"), "{said}");
    assert!(said.contains("work answers status 0"), "the control, the same request to the work disk: {said}");
    assert!(said.contains("4 devices, firmware QEMU"), "the control, ports and registers are reached: {said}");
}

#[tokio::test]
async fn queues_of_garbage_and_random_registers_and_ports_end_in_a_bounded_run() {
    let Some(hostile) = Hostile::new() else { return };
    let said = left(&hostile, "queues").await;
    assert!(said.contains("qemu-system"), "the control, the emulator has seen them: {said}");
    let said = left(&hostile, "registers").await;
    assert!(said.contains("registers done"), "the control, they were all tried: {said}");
}

#[tokio::test]
async fn a_machine_has_a_disk_a_port_and_randomness_and_no_way_to_a_network() {
    let Some(hostile) = Hostile::new() else { return };
    let spec = hostile.spec("orders");
    let mut guest = hostile.boot(spec.clone()).await.expect("it woke");
    let mut sh = async |script: &str| order(&mut guest.io, &format!("sh {script}")).await;
    // Block devices, randomness, console: by the numbers of the virtio standard.
    let devices = sh("cat /sys/bus/virtio/devices/*/device | sort | uniq -c").await;
    let devices: Vec<String> =
        devices.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(devices, ["2 0x0002", "1 0x0003", "1 0x0004"]);
    assert_eq!(sh("ls /sys/class/net").await.trim(), "lo");
    assert_eq!(sh("ls /sys/bus/pci/devices 2>/dev/null | wc -l").await.trim(), "0");
    // A vsock is the one socket that needs no network.
    let reach = |family: u32, address: &str| {
        format!(
            "perl -MSocket -e 'socket(S, {family}, SOCK_STREAM, 0) or die \"no socket: $!\\n\"; connect(S, {address}) or die \"no way: $!\\n\"; print \"reached\\n\"' 2>&1"
        )
    };
    let vsock = sh(&reach(40, "pack(\"SSLLx4\", 40, 0, 1024, 2)")).await;
    assert!(vsock.contains("no socket"), "{vsock}");
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    for address in ["127.0.0.1", "10.0.2.2", "192.0.2.1"] {
        let said = sh(&reach(2, &format!("sockaddr_in({port}, inet_aton(\"{address}\"))"))).await;
        assert!(said.contains("no way"), "{address}: {said}");
    }
    // The control: on the host the same program reaches the same port.
    let here = crate::jail::bench::outside(&reach(2, &format!("sockaddr_in({port}, inet_aton(\"127.0.0.1\"))")));
    assert_eq!(here, "reached");
    end(guest.life, &spec).await;
}
