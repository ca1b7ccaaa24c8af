//! What is said on the channel before the guest program has it: one line each way.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use super::During;
use super::disk::Blank;
use super::port::read_line;
use crate::wire::{MAX_WAKE, MachineOrder, MachineReady, Wake};

/// Says that the machine is ready and waits for orders; warms what it is told to, until it is woken.
/// `blank` is what the image brought for a new disk.
pub(super) fn wait(port: &mut File, mut blank: Option<Blank>) -> io::Result<(Wake, Option<Blank>)> {
    loop {
        say(port, None)?;
        let order = read_line(port, MAX_WAKE).during("waited to be woken")?;
        match serde_json::from_slice(&order).during("read what it is woken with")? {
            MachineOrder::Wake(wake) => return Ok((wake, blank)),
            MachineOrder::Warm { commands, disk_mib } => {
                commands.iter().for_each(|argv| warm(argv));
                if !blank.as_ref().is_some_and(|blank| blank.fits(disk_mib)) {
                    blank = Some(Blank::new(disk_mib)?);
                }
            }
        }
    }
}

/// Says that it is ready, or why it is not.
pub(super) fn say(port: &mut File, failed: Option<String>) -> io::Result<()> {
    let ready = MachineReady { version: crate::wire::VERSION, failed };
    let mut line = serde_json::to_vec(&ready).during("said that it is ready")?;
    line.push(b'\n');
    port.write_all(&line).during("said that it is ready")
}

/// Runs a program for nothing but its pages, which a restored machine then has in memory. Its failure means nothing.
fn warm(argv: &[String]) {
    let Some((program, arguments)) = argv.split_first() else { return };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(crate::init::ENVIRONMENT).current_dir("/");
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Sets the clock and makes the kernel's randomness this machine's own: a restored machine has its template's.
pub(super) fn apply(wake: &Wake) -> io::Result<()> {
    let nanos = wake.unix_nanos;
    let time = libc::timespec {
        tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(0),
        tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
    };
    // SAFETY: the time outlives the call.
    if unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let seed = wake.entropy.as_bytes();
    let random = File::options().write(true).open("/dev/urandom")?;
    (&random).write_all(seed)?;
    /// `struct rand_pool_info` of linux/random.h with room for a seed.
    #[repr(C)]
    struct Pool {
        bits: libc::c_int,
        size: libc::c_int,
        bytes: [u8; 64],
    }
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203_u32 as libc::Ioctl;
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
    let mut pool = Pool { bits: 256, size: 64, bytes: [0; 64] };
    pool.bytes.iter_mut().zip(seed).for_each(|(to, from)| *to = *from);
    // SAFETY: the pool has the layout and size that the call reads, and outlives it.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    // SAFETY: no memory is involved.
    let reseeded = unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) };
    if added == 0 && reseeded == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
