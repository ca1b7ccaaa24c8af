//! The broker's process: a channel to a real guest program, one port that leads through the broker and one that leads
//! straight on, and the figures.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use symphony::gateway::broker::{Broker, Purse};
use symphony::journal::{Journal, Origin};
use symphony::metering::Metering;
use symphony::run::models::Payer;
use symphony::sandbox::channel::Channel;
use symphony::workflow_file::Environment;
use symphony_core::ids::{IssueId, RunId};
use symphony_core::workflow::{Place, Workflow};
use tokio::io::{AsyncBufReadExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::series::{Series, verdict};
use super::worked::Worked;
use super::{ROLE, client};

const SOON: Duration = Duration::from_secs(30);
const STREAM: usize = 1 << 30;
const STREAMS: usize = 50;
/// Answers of that length on each way.
const ROUNDS: usize = 5;

#[tokio::main]
pub(super) async fn main() {
    let rounds = std::env::var("SYMPHONY_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    println!("before: {}; {rounds} rounds", load());
    let (server, address) = server().await;
    let place = tempfile::tempdir().expect("a directory");
    let (guest, channel) = guest(place.path()).await;
    let others = [server.id(), guest.id()].map(|id| id.expect("it runs"));
    let (door, token) = door(&address, place.path());
    let brokered = listen(&channel, move |stream| {
        let door = door.clone();
        async move { door.serve(stream).await }
    })
    .await;
    let to = address.clone();
    let raw = listen(&channel, move |mut stream| {
        let to = to.clone();
        async move {
            let mut server = TcpStream::connect(to).await.expect("it listens");
            server.set_nodelay(true).expect("a socket");
            let _ = copy_bidirectional(&mut stream, &mut server).await;
        }
    })
    .await;
    let ways = [format!("{address}/"), format!("127.0.0.1:{raw}/"), format!("127.0.0.1:{brokered}/anthropic/")];

    first(rounds, &ways, &token).await;
    bulk(&ways, &token, others).await;
    meet(&ways, &token).await;
    println!("after: {}", load());
}

const NAMES: [&str; 3] = ["straight to the server", "through the channel alone", "through channel and broker"];

async fn first(rounds: usize, ways: &[String; 3], token: &str) {
    let told = ask(&["first".to_owned(), rounds.to_string()], ways, token).await;
    let series = NAMES.iter().zip(ways).map(|(name, way)| series(name, &told[way])).collect::<Vec<_>>();
    println!("\nto the first byte of an answer");
    Series::head();
    series.iter().for_each(Series::row);
    let added = series[2].p50() - series[0].p50();
    let ratio = series[2].p50() / series[0].p50();
    let figure = format!("{added:.3} ms more than straight, {ratio:.1} x, p50");
    verdict("what channel and broker add (at most 1 ms)", &figure, Some(added <= 1.0));
    let figure = format!("{:.3} ms, p50", series[2].p50() - series[1].p50());
    verdict("of that, the broker", &figure, None);
}

async fn bulk(ways: &[String; 3], token: &str, others: [u32; 2]) {
    // The first one makes the room that all later ones use.
    ask(&["bulk".to_owned(), (64 << 20).to_string()], &ways[1..], token).await;
    let mut all: [(Vec<Duration>, Worked); 3] = Default::default();
    let (before, peak) = (resident_kib(), Arc::new(AtomicU64::new(0)));
    let watched = peak.clone();
    let watch = tokio::spawn(async move {
        loop {
            watched.fetch_max(resident_kib(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for _ in 0..ROUNDS {
        for ((took, worked), way) in all.iter_mut().zip(ways) {
            let began = Worked::now(others);
            let told = ask(&["bulk".to_owned(), STREAM.to_string()], std::slice::from_ref(way), token).await;
            took.extend(&told[way]);
            worked.add(&began, &Worked::now(others));
        }
    }
    watch.abort();
    println!("\n{} MiB in one answer", STREAM >> 20);
    Series::head();
    let series = NAMES.iter().zip(&all).map(|(name, (took, _))| series(name, took)).collect::<Vec<_>>();
    series.iter().for_each(Series::row);
    println!();
    Worked::head();
    NAMES.iter().zip(&all).for_each(|(name, (_, worked))| worked.row(name));
    let rate = |series: &Series| (STREAM >> 20) as f64 / series.p50() * 1000.0;
    let part = rate(&series[2]) / rate(&series[1]) * 100.0;
    let figure = format!("{part:.0} % ({:.0} of {:.0} MiB/s), p50", rate(&series[2]), rate(&series[1]));
    verdict("throughput against the channel alone (at least 90 %)", &figure, Some(part >= 90.0));
    let part = all[1].1.sum() as f64 / all[2].1.sum() as f64 * 100.0;
    verdict("the same by processor time, which load beside it does not change", &format!("{part:.0} %"), None);
    let grew = peak.load(Ordering::Relaxed).saturating_sub(before) as f64 / 1024.0;
    let figure = format!("{grew:.1} MiB at most over {before} KiB before");
    verdict("memory of the broker's process while it streams (at most 8 MiB more)", &figure, Some(grew <= 8.0));
}

async fn meet(ways: &[String; 3], token: &str) {
    println!("\nto the first byte, {STREAMS} streams that are open together");
    Series::head();
    let before = resident_kib();
    let mut open = 0;
    for (name, way) in NAMES.iter().zip(ways) {
        let told = ask(&["meet".to_owned(), STREAMS.to_string()], std::slice::from_ref(way), token).await;
        open = told.get(way).map_or(0, Vec::len);
        series(name, told.get(way).map_or(&[], Vec::as_slice)).row();
    }
    let grew = resident_kib().saturating_sub(before) as f64 / 1024.0;
    let figure = format!("{open} of {STREAMS}; {grew:.1} MiB more memory after it");
    verdict("streams at once through the broker", &figure, Some(open == STREAMS));
}

fn series(name: &'static str, times: &[Duration]) -> Series {
    let mut series = Series::new(name);
    times.iter().for_each(|time| series.add(*time));
    series
}

/// What the client measured on each way.
async fn ask(what: &[String], ways: &[String], token: &str) -> BTreeMap<String, Vec<Duration>> {
    let exe = std::env::current_exe().expect("this program");
    let mut command = Command::new(exe);
    command.args(what).args(ways).env(ROLE, "client").env(client::TOKEN, token).stderr(Stdio::inherit());
    let said = command.output().await.expect("it runs");
    assert!(said.status.success(), "the client failed");
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        let (way, nanos) = line.split_once(' ').expect("a figure");
        all.entry(way.to_owned()).or_default().push(Duration::from_nanos(nanos.parse().expect("a figure")));
    }
    all
}

async fn server() -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let mut child =
        command.env(ROLE, "server").stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the server starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let address = lines.next_line().await.expect("readable").expect("an address");
    (child, address)
}

/// A real guest program, without a sandbox around it: its loopback is this machine's.
async fn guest(place: &std::path::Path) -> (Child, Channel) {
    let path = place.join("channel");
    let listener = UnixListener::bind(&path).expect("a socket");
    let exe = PathBuf::from(env!("CARGO_BIN_EXE_symphony"));
    let mut command = Command::new(exe);
    command.args(["__guest", "run", "--connect"]).arg(&path);
    for dir in ["work", "home", "state"] {
        command.arg(format!("--{dir}")).arg(place.join(dir));
    }
    let child = command.kill_on_drop(true).spawn().expect("the guest starts");
    let (io, _) = listener.accept().await.expect("the guest connects");
    let (channel, _) = Channel::open(io, "token", SOON).await.expect("the guest program answers");
    (child, channel)
}

fn door(address: &str, place: &std::path::Path) -> (symphony::gateway::broker::Door, String) {
    let text =
        format!("---\ntracker: {{kind: local}}\nproviders: {{anthropic: {{base_url: 'http://{address}'}}}}\n---\n");
    let here = Place { dir: "/nowhere".into(), home: None, env: &|_| None };
    let workflow = Workflow::parse(&text, &here).expect("a workflow").0;
    // Each request is set aside in a real journal first: that is part of what the broker costs.
    let (journal, memory) = Journal::open(&place.join("journal.db"), Origin::default()).expect("opens");
    let metering = Metering::new(journal, &memory, &workflow.spending);
    let purse = Purse { metering, payer: Payer { run: RunId(1), issue: IssueId("A".into()) } };
    let broker = Broker::new(Environment { home: None, variable: Arc::new(|_| Some("a-key".to_owned())) });
    let (to, mut reports) = mpsc::channel(256);
    tokio::spawn(async move { while reports.recv().await.is_some() {} });
    let door = broker.open(workflow.models, purse, to).expect("randomness");
    let token = door.token().to_owned();
    (door, token)
}

/// A port in the guest, served so; its number.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    channel: &Channel,
    serve: impl Fn(symphony_guest::mux::MuxStream) -> F + Send + 'static,
) -> u16 {
    let mut incoming = channel.listen(0).await.expect("a port");
    let port = incoming.port();
    tokio::spawn(async move {
        while let Some(stream) = incoming.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
}

fn load() -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{processors} processors, load {}", load.trim())
}
