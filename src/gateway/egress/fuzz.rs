//! A guest at the way out: any bytes at the door, and any bytes where a hello should be.

use std::sync::OnceLock;
use std::time::Duration;

use futures::future::BoxFuture;
use symphony_core::egress::hello::{BadHello, HELLO_MAX, server_name};
use symphony_core::egress::{AllowList, CARDS_OF_ISSUE, Denied, Entry, Target};
use symphony_core::ids::{IssueId, RunId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Arc, Dial, Egress, IpAddr, TcpStream};
use crate::egress::Book;
use crate::journal::{Journal, Origin};

/// A request and its answer are over long before.
const HANG: Duration = Duration::from_secs(100);
/// Answers of ours are short; many requests may stand in one input.
const LONGEST_ANSWER: usize = 256 * 1024;
const ALLOWED: &str = "good.example";

/// Nobody is reached, and nobody is asked for who is not allowed.
struct Nowhere;

impl Dial for Nowhere {
    fn dial<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<(TcpStream, IpAddr), Denied>> {
        assert_eq!(target.to_string(), format!("{ALLOWED}:443"), "dialled unasked");
        Box::pin(async { Err(Denied::Unreachable { target: target.clone(), why: "nowhere".to_owned() }) })
    }
}

/// One book for all inputs: a journal takes longer to make than an input to read.
fn book() -> &'static Book {
    static BOOK: OnceLock<(tempfile::TempDir, Book)> = OnceLock::new();
    let made = || {
        let dir = tempfile::tempdir().expect("a directory");
        let origin = Origin { instance: "of-the-fuzzer".into(), last_run: 0 };
        let (journal, memory) = Journal::open(&dir.path().join("journal.db"), origin).expect("a journal");
        (dir, Book::new(journal, memory.egress))
    };
    &BOOK.get_or_init(made).1
}

/// Any bytes at the door.
pub(crate) async fn door(bytes: &[u8]) {
    let egress = Egress::new(book().clone(), Arc::new(Nowhere));
    let allow = AllowList(vec![Entry::parse(ALLOWED).expect("an entry")]);
    let door = egress.open(RunId(1), IssueId("a".into()), allow, Arc::new(|row| assert!(!row.message.contains('\n'))));
    let (mut guest, host) = tokio::io::duplex(1 << 16);
    let said = async {
        // All of it fits, and then the guest has said its last.
        let _ = guest.write_all(bytes).await;
        let _ = guest.shutdown().await;
        let mut said = vec![];
        let _ = guest.read_to_end(&mut said).await;
        said
    };
    let both = async { tokio::join!(door.serve(host), said) };
    let ((), said) = tokio::time::timeout(HANG, both).await.expect("a guest that has said its last is let go");
    assert!(said.is_empty() || said.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&said));
    assert!(!said.starts_with(b"HTTP/1.1 2") && said.len() < LONGEST_ANSWER, "nobody was reached");
    assert!(book().entries().0.len() <= CARDS_OF_ISSUE);
}

/// Any bytes where a hello should be.
pub(crate) fn hello(bytes: &[u8]) {
    let whole = server_name(bytes);
    if let Ok(Some(name)) = &whole {
        assert!((1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        assert!(bytes.len() > 60, "no hello is so short");
    }
    assert!(whole != Ok(None) || bytes.len() < HELLO_MAX, "it must end");
    // Nothing that comes later changes what was read: a server reads the same.
    for cut in [bytes.len() / 4, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        match server_name(&bytes[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, whole),
        }
    }
    if whole == Err(BadHello::NotTls) {
        assert!(bytes[0] != 22 || bytes[1] != 3);
    }
}
