//! The emulator's devices, spoken to without any driver: ports, registers, and queues that a kernel would never make.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::Dice;
use crate::ports::{all_ports, input, output, output_long, output_word};

/// Where `-M microvm` has its virtio devices, and how large and many their windows are.
const WINDOWS: u64 = 0xfeb0_0000;
const WINDOW: usize = 0x200;
const MOST: usize = 24;
const MAGIC: u32 = 0x7472_6976;
const BLOCK: u32 = 2;
const PAGE: usize = 4096;

/// Says on the console what can be reached, and asks each disk to be written to.
pub(crate) fn requests() {
    let firmware = firmware_item(0, 4);
    let Some((windows, devices)) = reached() else { return };
    for at in devices.iter().filter(|at| windows.read(**at, 8) == BLOCK) {
        // Only the work disk is nominally larger than 100 GiB.
        let gib = (u64::from(windows.read(*at, 0x104)) << 32 | u64::from(windows.read(*at, 0x100))) >> 21;
        let name = if gib > 100 { "work" } else { "image" };
        println!("hostile: {name} answers {}", windows.write_block(*at));
    }
    println!("hostile: {} devices, firmware {}", devices.len(), String::from_utf8_lossy(&firmware));
}

/// Queues of garbage.
pub(crate) fn queues() {
    let Some((windows, devices)) = reached() else { return };
    let mut dice = Dice(11);
    for round in 0..100 {
        devices.iter().for_each(|at| windows.queue_of_garbage(*at, &mut dice, round));
    }
    // A device that still answers.
    println!("hostile: queues done, {:x}", windows.read(devices.first().copied().unwrap_or(0), 0));
}

/// Random registers, then random ports.
pub(crate) fn registers() {
    let Some((windows, devices)) = reached() else { return };
    // The kernel may not like what comes: its last words must not push ours off the console's end.
    let _ = std::fs::write("/proc/sys/kernel/printk", "0");
    let mut dice = Dice(13);
    for _ in 0..60_000 {
        let at = dice.below(MOST as u64) as usize;
        let register = dice.below(WINDOW as u64 / 4) as usize * 4;
        if dice.below(2) == 0 {
            windows.write(at, register, dice.next() as u32);
        } else {
            windows.read(at, register);
        }
    }
    println!("hostile: registers done, {:x}", windows.read(devices.first().copied().unwrap_or(0), 0));
    ports(&mut dice);
    println!("hostile: ports done");
}

fn reached() -> Option<(Windows, Vec<usize>)> {
    let windows = Windows::open()?;
    let there = |at: &usize| windows.read(*at, 0) == MAGIC && windows.read(*at, 8) != 0;
    let devices = (0..MOST).filter(there).collect();
    Some((windows, devices))
}

/// Every port but the console's own and those that only stop the machine.
fn ports(dice: &mut Dice) {
    if !all_ports() {
        return;
    }
    for _ in 0..60_000 {
        let port = if dice.below(2) == 0 { dice.below(0x1000) } else { dice.below(0x1_0000) } as u16;
        let own = (0x3f8..0x400).contains(&port) || (0x600..0x620).contains(&port) || port == 0x92 || port == 0xcf9;
        if own || port == 0x64 {
            continue;
        }
        match dice.below(4) {
            0 => drop(input(port)),
            1 => output_long(port, dice.next() as u32),
            _ => output(port, dice.next() as u8),
        }
    }
}

/// The first bytes of an item that the emulator has for a firmware.
pub(crate) fn firmware_item(key: u16, bytes: usize) -> Vec<u8> {
    if !all_ports() {
        return Vec::new();
    }
    output_word(0x510, key);
    (0..bytes).map(|_| input(0x511)).collect()
}

/// The registers of all virtio devices.
struct Windows(*mut u8);

impl Windows {
    fn open() -> Option<Self> {
        let memory = File::options().read(true).write(true).open("/dev/mem").ok()?;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let at = WINDOWS.cast_signed();
        // SAFETY: a new mapping, kept for as long as the process lives.
        let mapped =
            unsafe { libc::mmap(std::ptr::null_mut(), MOST * WINDOW, protection, flags, memory.as_raw_fd(), at) };
        (mapped != libc::MAP_FAILED).then(|| Self(mapped.cast()))
    }

    fn read(&self, at: usize, register: usize) -> u32 {
        // SAFETY: within the mapping, and aligned.
        unsafe { self.0.add(at * WINDOW + register).cast::<u32>().read_volatile() }
    }

    fn write(&self, at: usize, register: usize, value: u32) {
        // SAFETY: within the mapping, and aligned.
        unsafe { self.0.add(at * WINDOW + register).cast::<u32>().write_volatile(value) };
    }

    /// Resets a device and gives it a queue of 8 in this page: table at 0, available at 128, used at 512.
    fn begin(&self, at: usize, queue: u32, page: &Page) {
        self.write(at, 0x70, 0);
        self.write(at, 0x70, 3);
        self.write(at, 0x20, 0);
        self.write(at, 0x28, PAGE as u32);
        self.write(at, 0x30, queue);
        self.write(at, 0x38, 8);
        self.write(at, 0x3c, 512);
        self.write(at, 0x40, page.frame as u32);
        self.write(at, 0x70, 7);
    }

    /// A well-formed request to write the first sector, whatever the disk says of itself.
    fn write_block(&self, at: usize) -> String {
        let (Some(ring), Some(data)) = (Page::new(), Page::new()) else { return "no memory".to_owned() };
        self.begin(at, 0, &ring);
        let body = data.frame * PAGE as u64;
        // Type 1 is a write, sector 0. The status byte stands at 2048, and is none that a device answers.
        data.put(0, &1_u32.to_le_bytes());
        data.put(64, &[0xee; 512]);
        data.put(2048, &[99]);
        ring.descriptor(0, body, 16, 1, 1);
        ring.descriptor(1, body + 64, 512, 1, 2);
        ring.descriptor(2, body + 2048, 1, 2, 0);
        ring.put(128 + 4, &0_u16.to_le_bytes());
        ring.put(128 + 2, &1_u16.to_le_bytes());
        self.write(at, 0x50, 0);
        for _ in 0..500 {
            if ring.byte(512 + 2) == 1 {
                return format!("status {}", data.byte(2048));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        "no answer".to_owned()
    }

    fn queue_of_garbage(&self, at: usize, dice: &mut Dice, round: u64) {
        thread_local!(static RING: Option<Page> = Page::new());
        RING.with(|ring| {
            let Some(ring) = ring else { return };
            self.begin(at, dice.below(4) as u32, ring);
            for slot in 0..8 {
                let target = match dice.below(5) {
                    0 => WINDOWS + dice.below(0x3000),
                    1 => dice.next(),
                    2 => u64::MAX - dice.below(64),
                    // Its own ring: a device that writes over what it reads.
                    _ => ring.frame * PAGE as u64 + dice.below(PAGE as u64),
                };
                let length = if dice.below(2) == 0 { dice.next() as u32 } else { dice.below(600) as u32 };
                ring.descriptor(slot, target, length, dice.below(8) as u16, dice.below(12) as u16);
            }
            for slot in 0..8 {
                ring.put(128 + 4 + slot * 2, &(dice.below(10) as u16).to_le_bytes());
            }
            // From within its bounds to far beyond them.
            let available = if round.is_multiple_of(2) { dice.below(8) as u16 } else { dice.next() as u16 };
            ring.put(128 + 2, &available.to_le_bytes());
            self.write(at, 0x50, dice.below(6) as u32);
        });
    }
}

/// A page whose place in the machine's memory is known.
struct Page {
    at: *mut u8,
    frame: u64,
}

impl Page {
    fn new() -> Option<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE | libc::MAP_LOCKED;
        // SAFETY: a new mapping, kept for as long as the process lives.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if at == libc::MAP_FAILED {
            return None;
        }
        let mut entry = [0; 8];
        File::open("/proc/self/pagemap").ok()?.read_exact_at(&mut entry, (at as u64 / PAGE as u64) * 8).ok()?;
        let frame = u64::from_le_bytes(entry) & ((1 << 55) - 1);
        (frame != 0).then(|| Self { at: at.cast(), frame })
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        for (offset, byte) in bytes.iter().enumerate() {
            // SAFETY: every caller stays within the page.
            unsafe { self.at.add(at + offset).write_volatile(*byte) };
        }
    }

    fn byte(&self, at: usize) -> u8 {
        // SAFETY: every caller stays within the page.
        unsafe { self.at.add(at).read_volatile() }
    }

    fn descriptor(&self, slot: usize, address: u64, length: u32, flags: u16, next: u16) {
        let bytes =
            [&address.to_le_bytes()[..], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat();
        self.put(slot * 16, &bytes);
    }
}
