//! A bundle of which every object is chosen by somebody else, taken by the real airlock under real git.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use sha2::{Digest, Sha256};
use symphony_core::ids::{Identifier, WorkspaceKey};

use super::{Airlock, Claim, Limits, header};
use crate::git::{Git, Oid};
use crate::workspace::{BaseInfo, Ready};

/// A header: read up to its pack, or refused; the names in it are names.
pub(crate) fn header(bytes: &[u8]) {
    match header::parse(bytes) {
        Ok(found) => {
            assert!(bytes[..found.pack_at].ends_with(b"\n\n"), "a header ends with an empty line");
            let names = found.refs.iter().map(|(oid, _)| oid).chain(&found.prerequisites);
            assert!(names.clone().all(|oid| matches!(oid.as_str().len(), 40 | 64)));
            assert!(found.refs.iter().all(|(_, name)| !name.contains('\n')));
            assert!(names.count() * 40 <= found.pack_at, "nothing is announced that is not there");
        }
        Err(error) => assert!(error.to_string().len() < 512, "{error}"),
    }
}

/// One airlock for all inputs: what a refused bundle left must not matter to the next.
struct Ground {
    tmp: tempfile::TempDir,
    base: Oid,
    ready: Ready,
}

fn git(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]).args(args);
    let out = command.current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let out = out.env("GIT_AUTHOR_DATE", "@0 +0000").env("GIT_COMMITTER_DATE", "@0 +0000").output().expect("git");
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let tmp = tempfile::tempdir().expect("a directory");
        let path = tmp.path().join("workspace");
        std::fs::create_dir(&path).expect("a directory");
        // The one hash that is computed here too; dates are fixed, so that an input means the same in every process.
        git(&path, &["init", "-q", "--object-format=sha256"]);
        std::fs::write(path.join("file.txt"), "one\n").expect("written");
        git(&path, &["add", "."]);
        git(&path, &["commit", "-qm", "first"]);
        git(&path, &["checkout", "-q", "--detach"]);
        let base = Oid::parse(&git(&path, &["rev-parse", "HEAD"])).expect("a commit");
        let info = BaseInfo { base: base.clone(), shallow: vec![] };
        Ground { ready: Ready { path, created: true, git: Some(info) }, base, tmp }
    })
}

/// What a bundle with these objects comes to: taken whole, or refused without a ref having moved.
pub(crate) async fn bundle(bytes: &[u8]) {
    let ground = ground();
    let made = made(bytes, ground.base.as_str());
    let Some(head) = made.commits.last() else { return };
    let claim = Claim { head: head.clone(), wip: made.commits.iter().rev().nth(1).filter(|_| made.has_wip).cloned() };
    let state = ground.tmp.path().join("state");
    drop(std::fs::remove_dir_all(&state));
    let key = WorkspaceKey::of(&Identifier("A-1".into())).expect("a key");
    let open = Airlock::open(Git::new(&state).expect("git"), &state, &key, &ground.ready);
    let airlock = open.await.expect("an airlock");
    let path = ground.tmp.path().join("export");
    std::fs::write(&path, made.bundle(&claim, ground.base.as_str())).expect("written");
    let limits = Limits { bundle_bytes: 1 << 20, unpacked_bytes: 1 << 22, deadline: Duration::from_secs(20) };
    let (before, wip) = (airlock.head().await.expect("a head"), airlock.wip().await.expect("a look"));
    match airlock.take_export(Some(&path), &claim, &limits).await {
        Ok(taken) => {
            assert_eq!((&taken.head, &taken.wip), (&claim.head, &claim.wip));
            assert_eq!(airlock.head().await.expect("a head"), claim.head);
            let dir = state.join("airlock/A-1.git");
            let listed = git(&dir, &["ls-tree", "-rtz", "--name-only", "--full-tree", claim.head.as_str()]);
            for part in listed.split(['\0', '/']) {
                let folded = part.to_lowercase();
                assert!(folded != ".git" && folded != ".." && folded != "git~1", "{listed:?} came through");
            }
            git(&dir, &["merge-base", "--is-ancestor", ground.base.as_str(), claim.head.as_str()]);
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() < 32 * 1024, "{} bytes", said.len());
            assert_eq!(airlock.head().await.expect("a head"), before, "{said}");
            assert_eq!(airlock.wip().await.expect("a look"), wip, "{said}");
        }
    }
}

/// Objects as a pack holds them.
struct Made {
    objects: Vec<(u8, Vec<u8>)>,
    commits: Vec<Oid>,
    has_wip: bool,
}

/// Objects stand one after the other, each begun by `\x1e` and the letter of its kind. In their content `$0` to `$9`
/// are names of earlier objects, `%0` to `%9` the same as raw bytes, and `$b` is the base. A leading `w` makes the last
/// commit but one uncommitted work.
fn made(bytes: &[u8], base: &str) -> Made {
    let mut made = Made { objects: vec![], commits: vec![], has_wip: bytes.first() == Some(&b'w') };
    let mut names: Vec<String> = vec![];
    for part in bytes.split(|byte| *byte == 0x1e).skip(1).take(12) {
        let Some((kind, text)) = part.split_first() else { continue };
        let (word, number) = match kind {
            b'c' => ("commit", 1),
            b't' => ("tree", 2),
            b'g' => ("tag", 4),
            _ => ("blob", 3),
        };
        let content = filled(text, &names, base);
        let mut hash = Sha256::new();
        hash.update(format!("{word} {}\0", content.len()));
        hash.update(&content);
        let name: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
        if number == 1 {
            made.commits.extend(Oid::parse(&name));
        }
        names.push(name);
        made.objects.push((number, content));
    }
    made
}

fn filled(text: &[u8], names: &[String], base: &str) -> Vec<u8> {
    let mut out = vec![];
    let mut at = 0;
    while at < text.len() {
        let which = text.get(at + 1).copied();
        let named = which.filter(u8::is_ascii_digit).and_then(|digit| names.get(usize::from(digit - b'0')));
        match (text[at], named, which) {
            (b'$', Some(name), _) => out.extend_from_slice(name.as_bytes()),
            (b'$', None, Some(b'b')) => out.extend_from_slice(base.as_bytes()),
            (b'%', Some(name), _) => {
                let pairs = name.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
                out.extend(pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()));
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    out
}

impl Made {
    fn bundle(&self, claim: &Claim, base: &str) -> Vec<u8> {
        let mut out = format!("# v3 git bundle\n@object-format=sha256\n-{base}\n{} {}\n", claim.head, super::HEAD);
        if let Some(wip) = &claim.wip {
            out.push_str(&format!("{wip} {}\n", super::WIP));
        }
        out.push('\n');
        let mut out = out.into_bytes();
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(u32::try_from(self.objects.len()).expect("a dozen").to_be_bytes());
        for (kind, content) in &self.objects {
            let mut size = content.len() >> 4;
            let first = kind << 4 | (content.len() & 15) as u8;
            pack.push(if size > 0 { first | 0x80 } else { first });
            while size > 0 {
                let low = (size & 0x7f) as u8;
                size >>= 7;
                pack.push(if size > 0 { low | 0x80 } else { low });
            }
            pack.extend(stored(content));
        }
        let trailer = Sha256::digest(&pack);
        out.extend(pack);
        out.extend(trailer);
        out
    }
}

/// A zlib stream that compresses nothing (RFC 1950, RFC 1951 3.2.4).
fn stored(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("an input is short");
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend_from_slice(content);
    let (mut a, mut b) = (1u32, 0u32);
    for byte in content {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}
