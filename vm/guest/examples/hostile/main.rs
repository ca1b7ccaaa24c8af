//! A first process of a machine that means harm. The tests put it in the place of the guest program, as root of a machine
//! and with nothing of ours between it and the emulator. The file `/attack` says what it does. What it finds out it says on
//! the channel, or on the console where it has no channel.
//!
//! No part of any image that a run boots.

mod devices;
mod orders;
mod ports;
mod search;
mod start;

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use rustix::system::RebootCommand;
use symphony_guest::wire::{MachineReady, VERSION};

fn main() {
    let attack = std::fs::read_to_string("/attack").unwrap_or_default();
    start::console();
    println!("hostile: {attack}");
    match attack.as_str() {
        "restart" => restart(),
        "halt" => drop(rustix::system::reboot(RebootCommand::PowerOff)),
        "requests" => then_restart(devices::requests),
        "queues" => then_restart(devices::queues),
        "registers" => then_restart(devices::registers),
        attack => {
            start::drivers();
            let port = start::port();
            before_it_is_woken(attack, port);
        }
    }
    wait_for_ever();
}

fn before_it_is_woken(attack: &str, mut port: File) {
    match attack {
        "silent" => {}
        "too-long" => flood(&mut port),
        "garbage" => drop(port.write_all(b"\xff\xfe{]\0\n")),
        "old-version" => say_ready(&mut port, VERSION + 7, None),
        "escapes" => {
            println!("\x1b]0;taken\x07\x1b[2Jon the console");
            say_ready(&mut port, VERSION, Some("\x1b[31mred\x07".to_owned()));
        }
        "ready-and-gone" => {
            say_ready(&mut port, VERSION, None);
            restart();
        }
        "ready-and-silent" => say_ready(&mut port, VERSION, None),
        attack => {
            say_ready(&mut port, VERSION, None);
            read_line(&mut port);
            // Awake, and its disk usable.
            say_ready(&mut port, VERSION, None);
            say_ready(&mut port, VERSION, None);
            once_awake(attack, port);
        }
    }
}

/// What stands in the place of the guest program.
fn once_awake(attack: &str, mut port: File) {
    match attack {
        "noise" => drop(port.write_all(&noise(64 * 1024))),
        // A frame of the multiplexer on a new stream, of almost 4 GiB.
        "huge-frame" => drop(port.write_all(&[0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff])),
        "streams" => {
            for id in 1..5000_u32 {
                let header = [&[0, 1, 0, 1][..], &(id * 2).to_be_bytes(), &[0; 4]].concat();
                if port.write_all(&header).is_err() {
                    break;
                }
            }
        }
        "flood" => flood(&mut port),
        // Reads nothing, says nothing, and does not end when its channel does.
        "deaf" => {}
        "ends-in-order" => {
            let mut rest = Vec::new();
            // The end of the channel reads as nothing.
            let _ = port.read_to_end(&mut rest);
            restart();
        }
        "orders" => orders::obey(port),
        other => println!("hostile: no such attack: {other}"),
    }
}

fn say_ready(port: &mut File, version: u32, failed: Option<String>) {
    let mut line = serde_json::to_vec(&MachineReady { version, failed }).expect("plain data");
    line.push(b'\n');
    let _ = port.write_all(&line);
}

/// One line of the channel, without its end.
fn read_line(port: &mut File) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match port.read(&mut byte) {
            Ok(0) if line.is_empty() => return None,
            Ok(1) if byte == *b"\n" => return String::from_utf8(line).ok(),
            Ok(1) => line.extend(byte),
            _ => return None,
        }
    }
}

fn flood(port: &mut File) {
    let block = vec![b'x'; 64 * 1024];
    while port.write_all(&block).is_ok() {}
}

/// Numbers from a fixed generator: every run sees the same noise.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn below(&mut self, most: u64) -> u64 {
        (self.next() >> 7) % most
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut dice = Dice(7);
    (0..bytes).map(|_| dice.below(256) as u8).collect()
}

fn then_restart(attack: fn()) {
    attack();
    restart();
}

/// A triple fault. The emulator must end on it, not start again.
fn restart() {
    let _ = rustix::system::reboot(RebootCommand::Restart);
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
