//! The door of one run, on a pipe in the place of a channel.

use std::sync::Arc;
use std::time::Duration;

use symphony_core::board::StopCause;
use symphony_core::broker::{Metered, Most, Provider, Usage};
use symphony_core::ids::{IssueId, RunId};
use symphony_core::spend::{Cap, Caps, Rules, Sums, Wanted};
use symphony_core::workflow::{Models, Place, Workflow};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::super::{Broker, Door, Purse};
use crate::journal::{Journal, Origin};
use crate::metering::Metering;
use crate::run::line::Report;
use crate::run::models::Payer;
use crate::workflow_file::Environment;

/// A provider that sends this to whoever connects, and keeps the connection open.
pub(super) async fn provider(answer: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 64 * 1024];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    url
}

pub(super) fn door(url: &str) -> (Door, mpsc::Receiver<Report>) {
    keyed(url, None)
}

pub(super) fn keyed(url: &str, key: Option<&'static str>) -> (Door, mpsc::Receiver<Report>) {
    let broker = Broker::new(Environment { home: None, variable: Arc::new(move |_| key.map(str::to_owned)) });
    let (to, reports) = mpsc::channel(8);
    (broker.open(models(url, ""), purse(&Rules::default()), to).expect("randomness"), reports)
}

pub(super) fn models(url: &str, more: &str) -> Models {
    let text = format!("---\ntracker: {{kind: local}}\nproviders: {{anthropic: {{base_url: '{url}'{more}}}}}\n---\n");
    let place = Place { dir: "/nowhere".into(), home: None, env: &|_| None };
    Workflow::parse(&text, &place).expect("a workflow").0.models
}

/// A ledger of its own, whose file goes with the test's runtime.
pub(super) fn purse(rules: &Rules) -> Purse {
    let dir = tempfile::tempdir().expect("a directory");
    let (journal, memory) = Journal::open(&dir.path().join("journal.db"), Origin::default()).expect("opens");
    tokio::spawn(async move {
        let _dir = dir;
        std::future::pending::<()>().await;
    });
    let metering = Metering::new(journal, &memory, rules);
    Purse { metering, payer: Payer { run: RunId(1), issue: IssueId("A".into()) } }
}

pub(super) fn connect(door: &Door) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let door = door.clone();
    tokio::spawn(async move { door.serve(theirs).await });
    ours
}

pub(super) async fn ask(io: &mut DuplexStream, token: &str) {
    let body = r#"{"model":"m","messages":[]}"#;
    let head = format!(
        "POST /anthropic/v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    io.write_all(head.as_bytes()).await.expect("taken");
}

/// Reads until this was read.
pub(super) async fn until(io: &mut (impl AsyncRead + Unpin), word: &str) -> String {
    let mut text = String::new();
    let mut part = [0; 1024];
    while !text.contains(word) {
        let read = io.read(&mut part).await.expect("readable");
        assert!(read > 0, "ended before {word}: {text}");
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    text
}

#[tokio::test]
async fn after_the_run_its_token_is_worthless_and_what_was_cut_is_told() {
    let begun = "data: {\"type\":\"message_start\",\"message\":{\"model\":\"b\",\"usage\":{\"input_tokens\":7}}}\n\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{begun}\r\n",
        begun.len()
    );
    let (door, mut reports) = door(&provider(answer.into_bytes()).await);
    let mut under_way = connect(&door);
    ask(&mut under_way, door.token()).await;
    until(&mut under_way, "message_start").await;
    door.close();
    let mut rest = vec![];
    let _ = under_way.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut answer must not look whole");
    let told = reports.recv().await.expect("told");
    let usage = Some(Usage { input: 7, ..Usage::default() });
    assert!(
        matches!(&told, Report::Metered(Metered { usage: said, whole: false, .. }, _) if *said == usage),
        "{told:?}"
    );
    let mut later = connect(&door);
    let _ = later.write_all(b"GET /anthropic/v1/models HTTP/1.1\r\n").await;
    assert_eq!(later.read(&mut [0; 8]).await.unwrap_or(0), 0, "nobody is there any more");
}

/// Regression: nothing was told of a request whose agent hung up before the answer began.
#[tokio::test]
async fn a_request_that_is_given_up_before_its_answer_begins_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (door, mut reports) = door(&url);
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    let (mut provider, _) = listener.accept().await.expect("the broker");
    let mut asked = vec![];
    while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let read = provider.read(&mut part).await.expect("readable");
        asked.extend_from_slice(&part[..read]);
    }
    drop(agent);
    let told = reports.recv().await.expect("told");
    assert!(matches!(&told, Report::Metered(Metered { usage: None, whole: false, .. }, _)), "{told:?}");
}

/// Regression: a refusal other than 401 went to the agent as it came, and some servers quote what they were sent.
#[tokio::test]
async fn a_refusal_that_quotes_the_credential_comes_without_it() {
    for status in ["400 Bad Request", "403 Forbidden", "500 Internal Server Error"] {
        let words = "{\"error\":{\"message\":\"your key planted-key-1 is odd\"}}";
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{words}",
            words.len()
        );
        let (door, mut reports) = keyed(&provider(answer.into_bytes()).await, Some("planted-key-1"));
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        let said = until(&mut agent, "is odd").await;
        assert!(said.contains("your key [redacted] is odd") && !said.contains("planted-key-1"), "{said}");
        assert!(!matches!(reports.try_recv(), Ok(Report::Metered(..))), "nothing was used");
    }
}

#[tokio::test]
async fn an_agent_that_does_not_read_holds_the_provider_back() {
    // More than every buffer on the way; a provider that could send it all would be done.
    const LENGTH: usize = 64 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = sent.clone();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("taken");
        while stream.write_all(&[b' '; 4096]).await.is_ok() {
            counting.fetch_add(4096, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let (door, _reports) = door(&url);
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    until(&mut agent, "\r\n\r\n").await;
    let count = || sent.load(std::sync::atomic::Ordering::Relaxed);
    // It comes to a stand: nothing more is taken over many looks.
    let (mut last, mut still) = (count(), 0);
    while still < 20 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        still = if count() == last { still + 1 } else { 0 };
        last = count();
    }
    assert!(last < LENGTH / 2, "{last} bytes are held somewhere");
    let mut read = 0;
    let mut part = vec![0; 64 * 1024];
    while read < LENGTH / 2 {
        read += agent.read(&mut part).await.expect("readable");
    }
    assert!(count() > last, "it goes on when the agent reads");
}

pub(super) fn refusal(status: &str, headers: &str, words: &str) -> String {
    let length = words.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{words}")
}

/// Regression: the look at the login after a 401 came before what was set aside was given back, and all of it was charged.
#[tokio::test]
async fn a_login_that_ends_while_it_is_refused_costs_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join(".claude/.credentials.json");
    let login = |at: i64| format!(r#"{{"claudeAiOauth":{{"accessToken":"planted-login","expiresAt":{at}}}}}"#);
    std::fs::create_dir_all(file.parent().expect("parent")).expect("directory");
    std::fs::write(&file, login(32_503_680_000_000)).expect("written");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let broker = Broker::new(Environment { home: Some(home.path().into()), variable: Arc::new(|_| None) });
    let (purse, (to, mut reports)) = (purse(&Rules::default()), mpsc::channel(8));
    let metering = purse.metering.clone();
    let door = broker.open(models(&url, ", login: true"), purse, to).expect("randomness");
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    let (mut provider, _) = listener.accept().await.expect("the broker");
    until(&mut provider, "\r\n\r\n").await;
    std::fs::write(&file, login(1)).expect("written");
    provider.write_all(refusal("401 Unauthorized", "", "{}").as_bytes()).await.expect("taken");
    until(&mut agent, "has expired").await;
    assert_eq!(metering.view().ever, Sums::default());
    while let Ok(report) = reports.try_recv() {
        assert!(!matches!(report, Report::Metered(..)), "nobody worked: {report:?}");
    }
}

/// Regression: who waited for budget went to a provider that had asked to wait meanwhile.
#[tokio::test]
async fn what_its_provider_asked_for_while_a_request_waited_for_budget_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let broker = Broker::new(Environment { home: None, variable: Arc::new(|_| None) });
    // Room for one of them at a time.
    let issue = Cap { tokens: Some(200), ..Cap::default() };
    let rules = Rules { caps: Caps { issue, ..Caps::default() }, assumed_output: 100, ..Rules::default() };
    let (purse, (to, _reports)) = (purse(&rules), mpsc::channel(8));
    let metering = purse.metering.clone();
    let door = broker.open(models(&url, ""), purse, to).expect("randomness");
    let mut first = connect(&door);
    ask(&mut first, door.token()).await;
    let (mut provider, _) = listener.accept().await.expect("the broker");
    until(&mut provider, "\r\n\r\n").await;
    let mut second = connect(&door);
    ask(&mut second, door.token()).await;
    // It has come to wait, as far as one can see from here; were it slower, it would see the wait all the same.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let limited = refusal("429 Too Many Requests", "retry-after: 600\r\n", "{}");
    provider.write_all(limited.as_bytes()).await.expect("taken");
    for agent in [&mut first, &mut second] {
        tokio::select! {
            said = until(agent, "asks to wait") => assert!(said.contains(" 429 "), "{said}"),
            _ = until(&mut provider, "POST") => panic!("it was asked again"),
            _ = listener.accept() => panic!("it was asked again"),
        }
    }
    assert_eq!(metering.view().ever, Sums::default());
}

/// Regression: a request that no wait makes smaller was held, asked again and made all others wait.
#[tokio::test]
async fn a_request_above_the_account_s_limit_is_told_so_at_once_and_others_go_on() {
    let words = r#"{"error":{"message":"Request too large for m: Limit 30000, Requested 45000."}}"#;
    let answer = refusal("429 Too Many Requests", "x-ratelimit-remaining-tokens: 30000\r\n", words);
    let (door, _reports) = door(&provider(answer.into_bytes()).await);
    for _ in 0..2 {
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        let said = until(&mut agent, "Requested 45000").await;
        assert!(said.starts_with("HTTP/1.1 413 "), "{said}");
    }
    assert_eq!(*door.over().borrow(), None);
}

/// Regression: a run that ended over a budget which the requests of others held counted as a failure.
#[tokio::test]
async fn an_issue_without_room_beside_the_requests_of_others_is_sent_away_without_a_failure_but_not_for_ever() {
    let broker = Broker::new(Environment { home: None, variable: Arc::new(|_| None) });
    let workflow = Cap { tokens: Some(200), ..Cap::default() };
    let rules = Rules { caps: Caps { workflow, ..Caps::default() }, assumed_output: 100, ..Rules::default() };
    let Purse { metering, payer } = purse(&rules);
    let wanted = |run, issue: &str| Wanted {
        run: RunId(run),
        issue: IssueId(issue.into()),
        day: metering.today(),
        provider: Provider::Anthropic,
        model: "m".into(),
        tier: None,
        most: Most { input: 0, output: 150, ..Most::default() },
    };
    let held = metering.reserve(wanted(7, "B"), Duration::ZERO).await.expect("it fits");
    let mut models = models("http://127.0.0.1:1", "");
    models.hold_ms = 0;
    for time in 1..=12 {
        let (to, _reports) = mpsc::channel(8);
        let purse = Purse { metering: metering.clone(), payer: payer.clone() };
        let door = broker.open(models.clone(), purse, to).expect("randomness");
        let mut agent = connect(&door);
        ask(&mut agent, door.token()).await;
        let said = until(&mut agent, "requests of other issues").await;
        let (status, cause) = if time <= 10 { (503, Some(StopCause::BudgetBusy)) } else { (400, None) };
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{time}: {said}");
        assert_eq!(*door.over().borrow(), cause, "{time}");
        assert!(metering.standing().crowded_out.contains(&payer.issue), "it waits for room");
    }
    drop(held);
    assert!(metering.standing().crowded_out.is_empty(), "there is room");
    // Its own requests are its own business: its run goes on.
    let _held = metering.reserve(wanted(payer.run.0, "A"), Duration::ZERO).await.expect("it fits");
    let (to, _reports) = mpsc::channel(8);
    let door = broker.open(models, Purse { metering: metering.clone(), payer }, to).expect("randomness");
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    let said = until(&mut agent, "other requests of this agent").await;
    assert!(said.starts_with("HTTP/1.1 503 ") && door.over().borrow().is_none(), "{said}");
    assert!(metering.standing().crowded_out.is_empty());
}

/// Regression: what was set aside for an answer that its agent never took stayed so for as long as the run lived.
#[tokio::test]
async fn an_agent_that_never_reads_its_answer_loses_it_and_what_it_holds_comes_free() {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n";
    let mut answer = head.as_bytes().to_vec();
    answer.resize(16 * 1024 * 1024, b' ');
    let (door, mut reports) = door(&provider(answer).await);
    let mut agent = connect(&door);
    ask(&mut agent, door.token()).await;
    until(&mut agent, "\r\n\r\n").await;
    // Until all buffers on the way are full; after that only time passes.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(reports.try_recv().is_err(), "it is still under way");
    tokio::time::pause();
    let told = reports.recv().await.expect("told");
    assert!(matches!(&told, Report::Metered(Metered { whole: false, .. }, _)), "{told:?}");
}

/// Regression: one odd request that was refused with a 401 shut its provider for all runs, though its key was good.
#[tokio::test]
async fn a_key_that_was_good_is_looked_at_once_more_before_all_runs_lose_it() {
    for (models_say, refused_for_all) in [("200 OK", false), ("401 Unauthorized", true)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (door, mut reports) = keyed(&url, Some("planted-key-1"));
        let mut good = connect(&door);
        ask(&mut good, door.token()).await;
        let (mut provider, _) = listener.accept().await.expect("the broker");
        until(&mut provider, "\r\n\r\n{").await;
        provider.write_all(refusal("200 OK", "", "{}").as_bytes()).await.expect("taken");
        assert!(until(&mut good, "{}").await.starts_with("HTTP/1.1 200"));
        assert!(matches!(reports.recv().await, Some(Report::Metered(..))));
        ask(&mut good, door.token()).await;
        until(&mut provider, "\r\n\r\n{").await;
        provider.write_all(refusal("401 Unauthorized", "", "{\"odd\":1}").as_bytes()).await.expect("taken");
        let looks = until(&mut provider, "\r\n\r\n").await;
        assert!(looks.starts_with("GET /v1/models HTTP/1.1"), "{looks}");
        provider.write_all(refusal(models_say, "", "{}").as_bytes()).await.expect("taken");
        let said = until(&mut good, "the key in ").await;
        assert!(said.starts_with(if refused_for_all { "HTTP/1.1 401 " } else { "HTTP/1.1 403 " }), "{said}");
        assert_eq!(door.over().borrow().is_some(), refused_for_all, "{said}");
    }
}
