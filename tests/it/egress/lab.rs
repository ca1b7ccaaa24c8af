//! An internet of two network namespaces: symphony with one address, a server with others, a cable between them, and an
//! `/etc/hosts` that says who is who. All of it is one thread's, and of what that thread starts.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::thread::UnshareFlags;

use crate::skip::skip;

/// symphony's own address, and the server's: of the public internet, as far as anybody can tell.
pub(crate) const OURS: &str = "11.0.0.1";
pub(crate) const SERVER: &str = "11.0.0.2";
/// The server has these too: whatever would be reached there is refused, not absent.
pub(crate) const INSIDE: [&str; 8] = [
    "10.20.30.40",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.7",
    "192.0.2.1",
];
/// A port behind which everything hangs up at once, and says who it was.
pub(crate) const OTHER_PORT: u16 = 8443;

/// Where names lead that may be reached.
const GOOD: [&str; 6] =
    ["good.example", "asked.example", "never.example", "once.example", "other.example", "api.wild.example"];
/// Where names lead that may not.
const BAD: &[(&str, &str)] = &[
    (OURS, "own.example"),
    ("10.20.30.40", "private-a.example"),
    ("172.16.0.1", "private-b.example"),
    ("192.168.0.1", "private-c.example"),
    ("100.64.0.1", "cgnat.example"),
    ("169.254.169.254", "metadata.example"),
    ("127.0.0.1", "loopback.example"),
    ("::1", "loopback6.example"),
    ("0.0.0.0", "unspecified.example"),
    ("::", "unspecified6.example"),
    ("224.0.0.1", "multicast.example"),
    ("ff02::1", "multicast6.example"),
    ("255.255.255.255", "broadcast.example"),
    ("240.0.0.1", "reserved.example"),
    ("198.51.100.7", "documentation.example"),
    ("192.0.2.1", "documentation-b.example"),
    ("198.18.0.1", "benchmarking.example"),
    ("::ffff:11.0.0.2", "mapped.example"),
    ("::11.0.0.2", "compatible.example"),
    ("64:ff9b::b00:2", "nat64.example"),
    ("2002:b00:2::1", "sixtofour.example"),
    ("2001::1", "teredo.example"),
    ("fd00::1", "ula.example"),
    ("fe80::1", "linklocal.example"),
    ("fec0::1", "sitelocal.example"),
];

/// Names that lead where nobody may go; the last one to a good address, too.
pub(crate) fn bad_names() -> Vec<&'static str> {
    BAD.iter().map(|(_, name)| *name).chain(["mixed.example"]).collect()
}

/// What stands in `/etc/hosts`, with the changing name in the first line.
fn hosts(flip: &str) -> String {
    let mut text =
        format!("{flip:<15} flip.example\n127.0.0.1 localhost\n{SERVER} mixed.example\n10.20.30.40 mixed.example\n");
    text.extend(GOOD.iter().map(|name| format!("{SERVER} {name}\n")));
    text.extend(BAD.iter().map(|(ip, name)| format!("{ip} {name}\n")));
    text
}

/// The internet, and the files of its server.
pub(crate) struct Lab {
    dir: tempfile::TempDir,
    server: Option<Child>,
    /// Connections to [`OTHER_PORT`], by the address that was called.
    pub(crate) called: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

const CERTIFICATE: &str = "
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=lab -addext subjectAltName=NAMES \
        -addext basicConstraints=critical,CA:FALSE -out cert.pem -keyout key.pem 2>/dev/null";

/// What `git clone` and `curl` read of a server that only has files. It knows no query: the first file that git asks for
/// has it in its name.
const FILES: &str = "
    export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
    mkdir work www; cd work; git init -q -b main; echo from afar >afar.txt; git add -A
    git -c user.name=T -c user.email=t@example.org commit -qm Begin
    cd ..; git clone -q --bare work www/repo.git; cd www/repo.git; git update-server-info
    cp info/refs 'info/refs?service=git-upload-pack'
    cd ..; echo the page >page";

/// Runs this inside; where none can be made, says so and does not.
pub(crate) fn inside(body: fn(&Lab)) {
    let name = std::thread::current().name().unwrap_or("egress").to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(move || match Lab::build() {
        Ok(lab) => body(&lab),
        Err(why) => skip(format_args!("no internet of our own can be made here: {why}")),
    });
    if let Err(panic) = thread.expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

/// Takes this thread, and nothing else, into new namespaces.
fn enter(flags: UnshareFlags) -> Result<(), String> {
    // SAFETY: none of these flags takes memory or descriptors from anybody.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(|error| format!("no namespaces: {error}"))
}

fn sh(script: &str, dir: &Path) -> Result<(), String> {
    let done = Command::new("bash").args(["-euc", script]).current_dir(dir).output();
    let done = done.map_err(|error| error.to_string())?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{script}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

/// The server's side of the cable: entered by a thread of its own, whose number comes back, and which then waits for the
/// addresses before it listens.
fn other_side(called: Arc<Mutex<BTreeMap<IpAddr, usize>>>) -> Result<(i32, mpsc::Sender<()>), String> {
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let entered = enter(UnshareFlags::NEWNET).map(|()| rustix::thread::gettid().as_raw_nonzero().get());
        let is_there = entered.is_ok();
        let _ = tell.send(entered);
        if !is_there || gone.recv().is_err() {
            return;
        }
        let Ok(listener) = TcpListener::bind(("0.0.0.0", OTHER_PORT)) else { return };
        // As long as the test program: nobody calls any more.
        for stream in listener.incoming().flatten() {
            if let Ok(address) = stream.local_addr() {
                *called.lock().expect("lock").entry(address.ip()).or_default() += 1;
            }
        }
    });
    Ok((told.recv().map_err(|error| error.to_string())??, go))
}

impl Lab {
    fn build() -> Result<Self, String> {
        for tool in ["openssl version", "curl --version", "git --version", "ip -V", "nsenter --version"] {
            sh(tool, Path::new("/"))?;
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let names: Vec<String> = GOOD.iter().map(|name| format!("DNS:{name}")).collect();
        sh(&CERTIFICATE.replace("NAMES", &names.join(",")), dir.path())?;
        sh(FILES, dir.path())?;
        let written = std::fs::write(dir.path().join("hosts"), hosts(SERVER));
        written.map_err(|error| error.to_string())?;
        enter(UnshareFlags::NEWNS | UnshareFlags::NEWNET)?;
        // A name that is not listed has no address, and nobody is asked for one.
        sh(
            "mount --make-rprivate /; mount --bind hosts /etc/hosts; echo 'hosts: files' >nsswitch
            mount --bind nsswitch /etc/nsswitch.conf; ip link set lo up; ip link add name va type veth peer name vb",
            dir.path(),
        )?;
        let called: Arc<Mutex<_>> = Arc::default();
        let (thread, listen) = other_side(called.clone())?;
        let net = format!("--net=/proc/{}/task/{thread}/ns/net", std::process::id());
        sh(
            &format!(
                "ip link set vb netns {thread}; ip addr add {OURS}/24 dev va; ip link set va up; ip route add default dev va"
            ),
            dir.path(),
        )?;
        let addresses: String = INSIDE.iter().map(|ip| format!("ip addr add {ip}/32 dev lo; ")).collect();
        sh(
            &format!(
                "nsenter {net} bash -euc 'ip link set lo up; ip addr add {SERVER}/24 dev vb; ip link set vb up; {addresses}'"
            ),
            dir.path(),
        )?;
        listen.send(()).map_err(|error| error.to_string())?;
        let server = Command::new("nsenter")
            .args([
                net.as_str(),
                "openssl",
                "s_server",
                "-accept",
                "443",
                "-WWW",
                "-cert",
                "../cert.pem",
                "-key",
                "../key.pem",
            ])
            .current_dir(dir.path().join("www"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut server = server.map_err(|error| format!("openssl: {error}"))?;
        let mut lines = BufReader::new(server.stdout.take().ok_or("no output")?).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("ACCEPT"));
        // Whoever cannot write stops serving.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let lab = Self { dir, server: Some(server), called };
        if ready { Ok(lab) } else { Err("openssl does not serve".to_owned()) }
    }

    /// A directory with the authority that vouches for the server; a jail may be shown it.
    pub(crate) fn shown(&self) -> PathBuf {
        let shown = self.dir.path().canonicalize().expect("exists").join("shown");
        std::fs::create_dir_all(&shown).expect("made");
        std::fs::copy(self.dir.path().join("cert.pem"), shown.join("cert.pem")).expect("copied");
        shown
    }

    /// `flip.example` leads here from now on, as far as the next question goes.
    pub(crate) fn flip(&self, to: &str) {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::OpenOptions::new().write(true).open(self.dir.path().join("hosts")).expect("the file");
        file.write_all_at(format!("{to:<15}").as_bytes(), 0).expect("written");
    }

    /// Whether a connection from this side arrives: it shows that a refusal is symphony's.
    pub(crate) fn arrives(&self, address: &str) -> bool {
        let ip: IpAddr = address.parse().expect("an address");
        TcpStream::connect_timeout(&(ip, OTHER_PORT).into(), Duration::from_secs(20)).is_ok()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
