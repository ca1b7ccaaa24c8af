//! The virtio port that is the channel, and the relay between it and the guest program.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The port's name, given by the host.
const NAME: &str = "symphony.channel";
const CHUNK: usize = 64 * 1024;
/// A port answers "nothing" while the host's end is not connected.
const PATIENCE: Duration = Duration::from_millis(5);

/// Opens the port.
pub(super) fn open() -> io::Result<File> {
    // The driver makes the port when the host has told it of it, which takes a moment.
    for _ in 0..1000 {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim() == NAME) {
                let device = Path::new("/dev").join(entry.file_name());
                return File::options().read(true).write(true).open(device);
            }
        }
        std::thread::sleep(PATIENCE);
    }
    Err(io::Error::other("the machine has no channel"))
}

/// Reads one line of at most `most` bytes, and not a byte more: what follows belongs to the guest program.
pub(super) fn read_line(port: &mut File, most: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < most {
        match port.read(&mut byte) {
            Ok(0) => std::thread::sleep(PATIENCE),
            Ok(_) if byte == *b"\n" => return Ok(line),
            Ok(_) => line.extend(byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("the host said more than a line"))
}

/// Carries bytes both ways on threads of their own. When one side ends, the guest program's channel ends.
pub(super) fn relay(port: File, program: UnixStream) {
    let (Ok(to_port), Ok(from_program)) = (port.try_clone(), program.try_clone()) else {
        let _ = program.shutdown(Shutdown::Both);
        return;
    };
    std::thread::spawn(move || {
        let _ = carry(port, &program);
        let _ = program.shutdown(Shutdown::Both);
    });
    std::thread::spawn(move || {
        let _ = carry(&from_program, to_port);
        let _ = from_program.shutdown(Shutdown::Both);
    });
}

fn carry(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            // From a port: the host's end is gone, for good, since the host connects it once.
            Ok(0) => return Ok(()),
            Ok(n) => to.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
