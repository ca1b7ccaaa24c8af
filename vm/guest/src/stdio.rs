//! Channels that are not inherited as a socket: one that is connected to, and one made of standard input and output.
//! Whatever it is, everything above sees one Unix socket, and no child inherits it.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the socket may take to have a listener: it comes up beside us, while the machine starts.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(100);

/// Connects to the socket at `path`, waiting for it a while.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, String> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(path) {
            // The standard library opens it closed to children.
            Ok(channel) => return Ok(channel),
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(format!("cannot connect to {}: {error}", path.display()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Makes standard input and output the channel. What else writes to standard output goes to standard error, and
/// standard input is empty: a stray line must not become a frame.
pub(crate) fn channel() -> Result<UnixStream, String> {
    take_over().map_err(|error| format!("cannot use standard input and output as the channel: {error}"))
}

fn take_over() -> io::Result<UnixStream> {
    // Duplicates are closed to children.
    let input = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let output = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
    let (ours, theirs) = UnixStream::pair()?;
    let reading = theirs.try_clone()?;
    std::thread::Builder::new().name("channel-in".into()).spawn(move || {
        pump(input, &theirs);
        let _ = theirs.shutdown(Shutdown::Write);
    })?;
    std::thread::Builder::new().name("channel-out".into()).spawn(move || {
        pump(&reading, output);
        let _ = reading.shutdown(Shutdown::Both);
    })?;
    Ok(ours)
}

/// Copies until either side ends. Every piece goes out at once: frames are small and somebody waits for each.
fn pump(mut from: impl io::Read, mut to: impl io::Write) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) if to.write_all(&buffer[..read]).and_then(|()| to.flush()).is_ok() => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => return,
        }
    }
}
