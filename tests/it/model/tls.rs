//! Beyond this machine providers are spoken to over TLS only, and only when an authority of this machine vouches for them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{BOTH, KEY, TOOLS, noted, worked};
use crate::rig::Project;

/// A TLS server with a certificate of its own; killed when dropped.
struct Secure {
    child: Child,
    port: String,
    /// What it understood of its clients.
    heard: Arc<Mutex<String>>,
}

impl Secure {
    /// `None` where there is no openssl.
    fn start(dir: &Path) -> Option<Self> {
        let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=models"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-out".as_ref(), cert.as_os_str(), "-keyout".as_ref(), key.as_os_str()])
            .output();
        if !made.ok()?.status.success() {
            return None;
        }
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "9"])
            .args(["-cert".as_ref(), cert.as_os_str(), "-key".as_ref(), key.as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let (mut lines, mut input) = (BufReader::new(child.stdout.take()?).lines(), child.stdin.take()?);
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next().map(str::to_owned))?;
        let heard = Arc::new(Mutex::new(String::new()));
        let hearing = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let answers = line.to_lowercase().starts_with("content-length:");
                hearing.lock().expect("lock").push_str(&format!("{line}\n"));
                if answers {
                    let _ = input.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 17\r\n\r\n{\"model\":\"tls-1\"}");
                    let _ = input.flush();
                }
            }
        });
        Some(Self { child, port, heard })
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_provider_is_believed_only_when_an_authority_of_this_machine_vouches_for_it() {
    let dir = tempfile::tempdir().expect("directory");
    let Some(server) = Secure::start(dir.path()) else {
        return crate::skip::skip("openssl is not installed, or cannot make a certificate");
    };
    let project = || {
        let front = format!("providers:\n  anthropic:\n    base_url: https://127.0.0.1:{}\n", server.port);
        let project = Project::acting(&format!("{TOOLS}\nturn() {{ ask m; note asked; done_; }}"), &front);
        std::fs::create_dir_all(project.beside("home")).expect("home");
        project
    };
    let (notes, log) = worked(&project(), &BOTH);
    let refused = noted(&notes, "asked");
    assert!(refused.starts_with("HTTP/1.1 502") && refused.to_lowercase().contains("certificate"), "{notes}");
    assert!(log.contains("model_unreachable"), "{log}");
    assert!(!server.heard.lock().expect("lock").contains(KEY), "the key was sent to a stranger");

    let cert = dir.path().join("cert.pem");
    let trusting = [BOTH[0], ("SSL_CERT_FILE", cert.to_str().expect("UTF-8"))];
    let (notes, _) = worked(&project(), &trusting);
    assert!(noted(&notes, "asked").starts_with("HTTP/1.1 200") && notes.contains("tls-1"), "{notes}");
    assert!(server.heard.lock().expect("lock").contains(KEY));
}
