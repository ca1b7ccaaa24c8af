//! Renewals where others meddle: callers that go away, other programs with the same login, servers that fail for a while.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use symphony_core::broker::login::Login;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::super::renewal::{NotRenewed, Renewals};
use super::super::upstream::Upstream;
use crate::agent::redact::Learned;

/// A server that tells when it was asked, and answers when it is let.
struct Renewer {
    url: String,
    asked: Arc<AtomicUsize>,
    begun: Arc<Notify>,
    answer: Arc<Notify>,
}

impl Renewer {
    async fn start(status: u16, said: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("bound"));
        let this = Self { url, asked: Arc::default(), begun: Arc::default(), answer: Arc::default() };
        let (asked, begun, answer) = (this.asked.clone(), this.begun.clone(), this.answer.clone());
        let said = said.to_string();
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n");
        let whole = format!("{head}content-length: {}\r\n\r\n{said}", said.len());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 64 * 1024];
                let _ = stream.read(&mut request).await;
                asked.fetch_add(1, Ordering::SeqCst);
                begun.notify_one();
                answer.notified().await;
                let _ = stream.write_all(whole.as_bytes()).await;
            }
        });
        this
    }

    async fn good() -> Self {
        Self::start(200, json!({"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 3600}))
            .await
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// One of a process.
    fn renewals(&self) -> Arc<Renewals> {
        let url = self.url.clone();
        let variable = move |_: &str| Some(url.clone());
        Arc::new(Renewals::new(Arc::new(Upstream::default()), &variable, Learned::default()))
    }
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().expect("directory");
    std::fs::create_dir(home.path().join(".claude")).expect("made");
    let path = home.path().join(".claude/.credentials.json");
    write(&path, "old-refresh", 1000);
    (home, path)
}

fn write(path: &Path, refresh: &str, ends: i64) {
    let login = json!({"claudeAiOauth": {"accessToken": "an-access", "refreshToken": refresh, "expiresAt": ends}});
    std::fs::write(path, login.to_string()).expect("written");
}

fn refresh_token(path: &Path) -> String {
    let file: Value = serde_json::from_slice(&std::fs::read(path).expect("there")).expect("JSON");
    file["claudeAiOauth"]["refreshToken"].as_str().unwrap_or_default().to_owned()
}

const FAR: i64 = 32_503_680_000_000;

#[tokio::test]
async fn an_exchange_goes_on_when_everybody_who_waited_has_gone_and_the_end_of_the_program_waits_for_it() {
    let (renewer, (_home, path)) = (Renewer::good().await, home());
    let renewals = renewer.renewals();
    let waiting = tokio::spawn({
        let (renewals, path) = (renewals.clone(), path.clone());
        async move { renewals.renew(Login::Claude, path).await }
    });
    renewer.begun.notified().await;
    waiting.abort();
    let ending = renewals.end();
    renewer.answer.notify_one();
    ending.await;
    assert_eq!(refresh_token(&path), "new-refresh");
    write(&path, "new-refresh", 1000);
    let refused = renewals.renew(Login::Claude, path).await.expect_err("it ends");
    assert_eq!((refused.0, renewer.asked()), (NotRenewed::Ending, 1));
}

#[tokio::test]
async fn fifty_that_wait_are_served_by_one_exchange_and_one_refusal_is_enough_for_all() {
    for good in [true, false] {
        let renewer = match good {
            true => Renewer::good().await,
            false => Renewer::start(401, json!({"error": {"code": "refresh_token_reused"}})).await,
        };
        let ((_home, path), renewals) = (home(), renewer.renewals());
        let all = (0..50).map(|_| renewals.renew(Login::Claude, path.clone()));
        renewer.answer.notify_one();
        let ended = futures::future::join_all(all).await;
        let refused = Err((NotRenewed::Refused(Some("refresh_token_reused")), None));
        assert!(ended.iter().all(|ended| if good { ended.is_ok() } else { *ended == refused }), "{ended:?}");
        assert_eq!(renewer.asked(), 1);
        assert_eq!(refresh_token(&path), if good { "new-refresh" } else { "old-refresh" });
    }
}

#[tokio::test]
async fn what_claude_code_renews_meanwhile_is_waited_for_and_used() {
    let (renewer, (home, path)) = (Renewer::good().await, home());
    let lock = home.path().join(".claude/.oauth_refresh.lock");
    std::fs::create_dir(&lock).expect("Claude Code's");
    let renewals = renewer.renewals();
    let renewing = tokio::spawn({
        let path = path.clone();
        async move { renewals.renew(Login::Claude, path).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    write(&path, "theirs", FAR);
    std::fs::remove_dir(&lock).expect("it is done");
    renewing.await.expect("no panic").expect("renewed by another one");
    assert_eq!((renewer.asked(), refresh_token(&path).as_str()), (0, "theirs"));
}

#[tokio::test]
async fn whoever_logs_in_during_an_exchange_keeps_that_login() {
    let (renewer, (_home, path)) = (Renewer::good().await, home());
    let renewals = renewer.renewals();
    let renewing = tokio::spawn({
        let path = path.clone();
        async move { renewals.renew(Login::Claude, path).await }
    });
    renewer.begun.notified().await;
    write(&path, "theirs", FAR);
    renewer.answer.notify_one();
    renewing.await.expect("no panic").expect("theirs is good");
    assert_eq!(refresh_token(&path), "theirs");
}

/// Codex keeps no lock while it asks: both can ask with one refresh token, and the second is refused.
#[tokio::test]
async fn a_refusal_is_none_when_the_other_one_writes_what_it_got() {
    let renewer = Renewer::start(400, json!({"error": "invalid_grant"})).await;
    let ((_home, path), renewals) = (home(), renewer.renewals());
    renewer.answer.notify_one();
    let renewing = tokio::spawn({
        let path = path.clone();
        async move { renewals.renew(Login::Claude, path).await }
    });
    renewer.begun.notified().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    write(&path, "theirs", FAR);
    renewing.await.expect("no panic").expect("the other one's");
}

#[tokio::test]
async fn a_server_that_fails_is_asked_again_only_after_a_while_and_a_new_login_is_not_held_up() {
    let renewer = Renewer::start(503, json!({})).await;
    let ((_home, path), renewals) = (home(), renewer.renewals());
    renewer.answer.notify_one();
    let (why, again) = renewals.renew(Login::Claude, path.clone()).await.expect_err("503");
    assert_eq!((why, again), (NotRenewed::Later("answered 503".to_owned()), Some(Duration::from_secs(30))));
    for _ in 0..10 {
        let (_, again) = renewals.renew(Login::Claude, path.clone()).await.expect_err("not yet");
        assert_eq!(again, None, "it counts once");
    }
    assert!(renewals.glance(Login::Claude, &path).await.is_err());
    assert_eq!(renewer.asked(), 1);
    write(&path, "theirs", FAR);
    renewals.renew(Login::Claude, path).await.expect("nothing is to be renewed");
}

#[tokio::test]
async fn without_a_refresh_token_or_a_file_nothing_is_asked() {
    let (renewer, (_home, path)) = (Renewer::good().await, home());
    let renewals = renewer.renewals();
    let failed = async || renewals.renew(Login::Claude, path.clone()).await.expect_err("nothing to renew").0;
    write(&path, "", 1000);
    assert_eq!(failed().await, NotRenewed::NoToken);
    std::fs::write(&path, "{\"half").expect("written");
    assert!(matches!(failed().await, NotRenewed::NoPlace(why) if !why.contains("half")));
    std::fs::remove_file(&path).expect("removed");
    assert!(matches!(failed().await, NotRenewed::NoPlace(_)));
    assert_eq!(renewer.asked(), 0);
}

#[tokio::test]
async fn a_login_that_is_renewed_for_a_moment_only_is_not_renewed_by_every_request() {
    let said = json!({"access_token": "new-access", "refresh_token": "new-refresh", "expires_in": 60});
    let renewer = Renewer::start(200, said).await;
    let ((_home, path), renewals) = (home(), renewer.renewals());
    renewer.answer.notify_one();
    for _ in 0..10 {
        let (why, _) = renewals.renew(Login::Claude, path.clone()).await.expect_err("due again");
        assert_eq!(why, NotRenewed::Later("renewed it for a moment only".to_owned()));
    }
    assert_eq!((renewer.asked(), refresh_token(&path).as_str()), (1, "new-refresh"));
}
